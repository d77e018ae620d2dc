"""MEDS keeps what every connector must keep, for tables like those of ``schemas/meds``."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from conformance import ConnectorConformance

from synthehr.cohort import Cohort
from synthehr.connectors.folders import new_folder
from synthehr.connectors.meds.layout import default_schema
from synthehr.connectors.meds.writing import write_meds
from synthehr.schema.files import dump_schema, load_schema
from synthehr.schema.model import Schema


def further_schema() -> Schema:
    """The default schema with a split, another static value, a text and a column of the dataset's own."""
    schema = dump_schema(default_schema())
    schema["tables"]["patient"]["columns"] |= {
        "race": {"kind": "category", "discover": True, "nullable": True},
        "split": {"kind": "category", "discover": True, "nullable": True},
    }
    schema["tables"]["event"]["columns"] |= {
        "text_value": {"kind": "category", "discover": True, "nullable": True},
        "unit": {"kind": "category", "discover": True, "nullable": True},
    }
    return load_schema(schema)


def patients(schema: Schema) -> Cohort[Schema]:
    """Four subjects: born and dead; born; of whom only events are known; of whom only a static event is."""
    root = pl.DataFrame(
        {
            "subject_id": ["-5", "7", "12", "900000000000"],
            "born": [True, True, False, False],
            "gender": ["F", None, None, "M"],
            "death": [40_000_000, None, 60 * 30, None],
            "race": ["A//B", None, "x y", None],
            "split": ["train", "held_out", None, "tuning"],
        }
    )
    event = pl.DataFrame(
        {
            "subject_id": ["-5", "-5", "-5", "-5", "7", "12", "12", "900000000000"],
            "time": [None, -60, 0, 39_999_999, 1, 59, 59, None],
            "code": ["STATIC", "SCAN", "LAB//1//mg", "LAB//1//mg", "MEDS_BIRTH", "B", "A", 'odd "code", x\ny'],
            "numeric_value": [None, None, 1.5, -0.25, None, 2.0**127, 2.0**-140, None],
            "text_value": [None, "a\nb", None, None, None, "ü", None, None],
            "unit": ["u", None, "mg", "mg", None, None, None, None],
        },
        schema_overrides={"time": pl.Int64},
    )
    tables = {"patient": root, "event": event}
    return Cohort(
        {name: frame.select(list(schema.tables[name].columns)) for name, frame in tables.items()}, schema=schema
    )


class TestMeds(ConnectorConformance):
    def cohort(self) -> Cohort[Schema]:
        return patients(default_schema())

    def write(self, cohort: Cohort[Schema], place: str) -> str:
        with new_folder(Path(place)) as folder:
            write_meds(cohort, folder, seed=1, synthetic=True)
        return f"meds:{place}"


class TestMedsWithFurtherColumns(TestMeds):
    def cohort(self) -> Cohort[Schema]:
        return patients(further_schema())
