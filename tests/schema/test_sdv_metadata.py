"""SDV metadata in and out, and what of it is taken for public."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from synthehr.errors import SchemaError
from synthehr.schema.files import load_schema
from synthehr.schema.model import (
    BooleanColumn,
    CategoryColumn,
    DateColumn,
    DatetimeColumn,
    DroppedColumn,
    IdColumn,
    IntegerColumn,
    NumberColumn,
)
from synthehr.schema.sdv import metadata_of, schema_of

COLUMNS: dict[str, dict[str, Any]] = {
    "id": {"sdtype": "id"},
    "age": {"sdtype": "numerical", "decimal_places": 0, "range_min": 21, "range_max": 97, "range_is_nullable": False},
    "weight": {"sdtype": "numerical", "decimal_places": 1, "range_min": 40.5, "range_max": 181.5},
    "sex": {"sdtype": "categorical", "range_values": ["f", "m"], "range_is_nullable": False},
    "died": {"sdtype": "categorical", "range_values": [True, False], "range_is_nullable": False},
    "smokes": {"sdtype": "boolean"},
    "email": {"sdtype": "email", "pii": True},
    "town": {"sdtype": "city", "pii": False},
    "note": {"sdtype": "unknown", "pii": True},
}
DAYS = (dt.date(2020, 1, 31), dt.date(2021, 1, 1))
TIMES = (dt.datetime(2020, 1, 31, 8, 30), dt.datetime(2021, 1, 1))
ONE_TABLE = {"columns": COLUMNS, "primary_key": "id", "METADATA_SPEC_VERSION": "SINGLE_TABLE_V1"}


def one(name: str, **entry: Any) -> dict[str, Any]:
    """Metadata of a table with a column that no test is about, and this one."""
    return {"columns": {"sex": {"sdtype": "categorical"}, name: entry}}


def two_tables() -> dict[str, Any]:
    visit = {"id": {"sdtype": "id"}, "patient": {"sdtype": "id"}, "day": {"sdtype": "numerical", "decimal_places": 0}}
    lab = {"visit": {"sdtype": "id"}, "value": {"sdtype": "numerical"}}
    return {
        "tables": {
            "patient": {"columns": COLUMNS, "primary_key": "id"},
            "visit": {"columns": visit, "primary_key": "id"},
            "lab": {"columns": lab},
        },
        "relationships": [
            relationship("patient", "visit", "patient"),
            relationship("visit", "lab", "visit"),
        ],
    }


def relationship(parent: str, child: str, foreign_key: Any, key: Any = "id") -> dict[str, Any]:
    return {
        "parent_table_name": parent,
        "parent_primary_key": key,
        "child_table_name": child,
        "child_foreign_key": foreign_key,
    }


def test_each_sdtype_becomes_the_kind_that_means_the_same() -> None:
    table = schema_of(ONE_TABLE).tables["table"]
    assert {name: type(column) for name, column in table.columns.items()} == {
        "id": IdColumn,
        "age": IntegerColumn,
        "weight": NumberColumn,
        "sex": CategoryColumn,
        "died": BooleanColumn,
        "smokes": BooleanColumn,
        "email": DroppedColumn,
        "town": CategoryColumn,
        "note": DroppedColumn,
    }
    assert table.key == "id"


def test_what_detection_read_off_the_records_is_not_taken_for_public() -> None:
    columns = schema_of(ONE_TABLE).root.kept
    assert columns["age"].bounds is columns["weight"].bounds is None
    assert columns["weight"].precision is None
    assert columns["sex"].values is columns["town"].values is None
    assert all(column.nullable for column in columns.values())


def test_no_extreme_of_detected_metadata_is_in_the_schema() -> None:
    from sdv.metadata import Metadata

    frame = pd.DataFrame({"cost": [*np.arange(50) + 0.5, 98765.25], "town": ["Springfield"] * 50 + ["CANARYVILLE"]})
    metadata = Metadata.detect_from_dataframes({"patient": frame}, infer_keys=None)
    metadata.update_column("town", sdtype="categorical", range_values=["Springfield", "CANARYVILLE"])
    assert "98765.25" in str(metadata.to_dict()), "detection reads the extremes"
    found = schema_of(metadata).model_dump_json()
    assert "98765" not in found
    assert "CANARY" not in found


def test_reviewed_ranges_are_taken() -> None:
    columns = schema_of(ONE_TABLE, public_ranges=True).root.kept
    assert columns["age"].bounds == (21, 97)
    assert columns["weight"].bounds == (40.5, 181.5)
    assert columns["weight"].precision == 0.1
    assert columns["sex"].values == ("f", "m")
    assert {name for name, column in columns.items() if column.nullable} == {"weight", "smokes", "town"}


def test_bounds_and_categories_of_the_caller_come_first() -> None:
    columns = schema_of(
        ONE_TABLE, public_ranges=True, bounds={"age": (0, 120)}, categories={"sex": ["f", "m", "x"]}
    ).root.kept
    assert columns["age"].bounds == (0, 120)
    assert columns["sex"].values == ("f", "m", "x")
    assert columns["weight"].bounds == (40.5, 181.5)


def test_bounds_of_numpy_are_numbers() -> None:
    assert schema_of(ONE_TABLE, bounds={"age": np.array([0, 120])}).root.kept["age"].bounds == (0, 120)


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"computer_representation": "Int64"}, IntegerColumn),
        ({"computer_representation": "UInt8"}, IntegerColumn),
        ({"computer_representation": "Float"}, NumberColumn),
        ({"decimal_places": 0}, IntegerColumn),
        ({"decimal_places": 3}, NumberColumn),
        ({}, NumberColumn),
    ],
)
def test_whole_numbers_are_told_by_rounding_or_representation(entry: dict[str, Any], kind: type) -> None:
    assert type(schema_of(one("n", sdtype="numerical", **entry)).root.kept["n"]) is kind


@pytest.mark.parametrize(
    ("form", "first", "kind", "bounds"),
    [
        ("%Y-%m-%d", "2020-01-31", DateColumn, DAYS),
        ("%d.%m.%y", "31.01.20", DateColumn, DAYS),
        ("%d/%m/%Y %H:%M", "31/01/2020 08:30", DatetimeColumn, TIMES),
        (None, "2020-01-31 08:30:00", DatetimeColumn, TIMES),
    ],
)
def test_the_format_tells_days_from_times(form: str | None, first: str, kind: type, bounds: tuple) -> None:
    last = dt.datetime(2021, 1, 1)
    entry = {"datetime_format": form} if form is not None else {}
    text = last.strftime(form) if form is not None else str(last)
    metadata = one("at", sdtype="datetime", range_min=first, range_max=text, **entry)
    column = schema_of(metadata, public_ranges=True).root.kept["at"]
    assert type(column) is kind
    assert column.bounds == bounds
    given = schema_of(metadata, bounds={"at": bounds}).root.kept["at"]
    assert given.bounds == bounds


def test_a_date_needs_public_bounds() -> None:
    metadata = one("at", sdtype="datetime", datetime_format="%Y-%m-%d", range_min="2020-01-01", range_max="2020-02-01")
    with pytest.raises(SchemaError, match="'at' in table 'table' needs public bounds") as caught:
        schema_of(metadata)
    assert "2020" not in str(caught.value)


def test_tables_hang_as_the_relationships_say() -> None:
    schema = schema_of(two_tables(), bounds={"visit.day": (0, 4000)}, outcome="died")
    assert schema.subject == "patient"
    assert schema.root.outcome == ("died",)
    visit, lab = schema.tables["visit"], schema.tables["lab"]
    assert (visit.parent, visit.foreign_key, visit.key) == ("patient", "patient", "id")
    assert (lab.parent, lab.foreign_key, lab.key) == ("visit", "visit", None)
    assert visit.kept["day"].bounds == (0, 4000)


def test_a_key_of_personal_data_is_still_a_key() -> None:
    metadata = {
        "columns": {"ssn": {"sdtype": "ssn", "pii": True}, "age": {"sdtype": "numerical"}},
        "primary_key": "ssn",
    }
    assert type(schema_of(metadata).root.columns["ssn"]) is IdColumn


def without(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**document, **changes}


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({}, "must be a sdv.metadata.Metadata with tables"),
        (3, "not int"),
        (without(two_tables(), relationships=[]), "found 'patient', 'visit', 'lab'"),
        (without(two_tables(), relationships=[relationship("patient", "nurse", "id")]), "'nurse', which it does not"),
        (
            without(
                two_tables(), relationships=[*two_tables()["relationships"], relationship("patient", "lab", "visit")]
            ),
            "'lab' has several parents",
        ),
        (
            without(two_tables(), relationships=[relationship("patient", "visit", ["a", "b"], ["c", "d"])]),
            "several col",
        ),
        (without(two_tables(), relationships=[relationship("lab", "visit", "patient")]), "not the primary key"),
        (without(ONE_TABLE, primary_key=["id", "age"]), "primary key of several columns"),
        (without(ONE_TABLE, sequence_key="id"), "table of sequences"),
        (without(ONE_TABLE, constraints=[{"name": "Inequality"}]), "'constraints'.*rules of a schema"),
        (without(ONE_TABLE, column_relationships=[{"type": "gps", "column_names": ["town"]}]), "column relationship"),
        (one("x", sdtype="unknown", pii=False), "say what it is"),
        (one("x"), "no sdtype"),
        (one("x", sdtype="numerical", constraint="positive"), "'constraint'.*cannot be carried over"),
    ],
)
def test_what_cannot_be_carried_over_is_refused(metadata: Any, says: str) -> None:
    with pytest.raises(SchemaError, match=says) as caught:
        schema_of(metadata)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"bounds": {"agee": (0, 1)}}, "bounds are given for 'agee', which is no column"),
        ({"bounds": {"sex": (0, 1)}}, "'categorical', which has no bounds"),
        ({"categories": {"age": ["a"]}}, "'numerical', which has no set of values"),
        ({"categories": {"email": ["a"]}}, "'email', which has no set of values"),
        ({"bounds": {"age": (5, 1)}}, "lower below upper"),
        ({"outcome": "email"}, "not a column that is kept"),
    ],
)
def test_what_is_given_beside_must_fit(given: dict[str, Any], says: str) -> None:
    with pytest.raises(SchemaError, match=says):
        schema_of(ONE_TABLE, **given)


SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "id",
            "columns": {
                "id": {"kind": "id"},
                "name": {"kind": "identifier"},
                "age": {"kind": "integer", "bounds": [0, 120]},
                "pulse": {"kind": "integer", "nullable": True},
                "weight": {"kind": "number", "bounds": [20, 300], "precision": 0.1, "nullable": True},
                "cost": {"kind": "number"},
                "sex": {"kind": "category", "values": ["f", "m"]},
                "town": {"kind": "category", "discover": True, "nullable": True},
                "born": {"kind": "date", "bounds": ["1900-01-01", "2020-12-31"]},
                "seen": {"kind": "datetime", "bounds": ["2000-01-01T08:30:00", "2020-12-31T18:00:00"]},
                "died": {"kind": "boolean"},
            },
        },
        "visit": {
            "parent": "patient",
            "foreign_key": "patient",
            "columns": {"patient": {"kind": "id"}, "day": {"kind": "integer", "bounds": [0, 400]}},
        },
    },
}


def test_a_schema_comes_back_from_sdv_as_it_went() -> None:
    schema = load_schema(SCHEMA)
    metadata = metadata_of(schema)
    assert type(metadata).__module__.startswith("sdv.metadata")
    assert schema_of(metadata, public_ranges=True) == schema


def test_metadata_comes_back_from_the_schema_as_it_went() -> None:
    from sdv.metadata import Metadata

    metadata = metadata_of(load_schema(SCHEMA)).to_dict()
    again = metadata_of(schema_of(Metadata.load_from_dict(metadata), public_ranges=True)).to_dict()
    assert again == metadata


def test_a_precision_that_sdv_cannot_say_is_left_out() -> None:
    document = {**SCHEMA, "tables": {"patient": {"columns": {"dose": {"kind": "number", "precision": 0.5}}}}}
    assert "decimal_places" not in metadata_of(load_schema(document)).tables["patient"].columns["dose"]


def test_rules_and_values_by_code_are_not_lost_in_silence() -> None:
    with pytest.raises(SchemaError, match="rules cannot be carried over"):
        metadata_of(load_schema({**SCHEMA, "rules": ["age > 1"]}))
    columns = {"test": {"kind": "category", "values": ["a"]}, "value": {"kind": "number", "per": "test"}}
    by_code = {**SCHEMA, "tables": {"patient": {"columns": columns}}}
    with pytest.raises(SchemaError, match="'value' depends on 'test'"):
        metadata_of(load_schema(by_code))
