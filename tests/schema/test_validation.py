from __future__ import annotations

import polars as pl

from synthehr.schema.files import load_schema
from synthehr.schema.validation import check_tables

SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "patient": {
                "key": "id",
                "columns": {
                    "id": {"kind": "id"},
                    "name": {"kind": "identifier"},
                    "sex": {"kind": "category", "values": ["f", "m"]},
                    "age": {"kind": "integer", "bounds": [0, 120]},
                    "weight": {"kind": "number", "bounds": [20, 300], "nullable": True},
                    "born": {"kind": "date", "bounds": ["1900-01-01", "2020-12-31"]},
                    "seen": {
                        "kind": "datetime",
                        "bounds": ["2000-01-01T00:00", "2021-01-01T00:00"],
                        "nullable": True,
                    },
                    "died": {"kind": "boolean"},
                },
            },
            "lab": {
                "parent": "patient",
                "foreign_key": "pid",
                "columns": {"pid": {"kind": "id"}, "value": {"kind": "number"}},
            },
        },
        "rules": ["weight is null or weight > age"],
    }
)
PATIENT = {
    "id": ["1", "2"],
    "sex": ["f", "m"],
    "age": ["30", "40"],
    "weight": ["70.5", "NA"],
    "born": ["1990-01-01", "1980-01-01"],
    "seen": ["", "2020-01-01 10:00"],
    "died": ["0", "1"],
}
LAB = {"pid": ["1", "1"], "value": ["0.5", "2"]}


def broken(patient: dict, lab: dict = LAB) -> set[tuple[str | None, str]]:
    found = check_tables({"patient": pl.DataFrame(patient), "lab": pl.DataFrame(lab)}, schema=SCHEMA)
    return {(e.column, e.rule) for e in found if not e.met}


def test_records_that_follow_the_schema_meet_every_rule() -> None:
    assert broken(PATIENT) == set()


def test_every_broken_rule_is_listed_not_the_first_alone() -> None:
    odd = {
        "id": ["1", "1"],
        "age": ["400", "x"],
        "sex": ["f", "q"],
        "weight": ["7", "10"],
        "born": ["1890-01-01", "1980-01-01"],
        "seen": ["2030-01-01", "yesterday"],
        "died": ["", "maybe"],
        "zip": ["1", "2"],
    }
    assert broken(odd, {"pid": ["1", "9"], "value": ["", "2"]}) == {
        (None, "has declared columns only"),
        ("id", "names each row once"),
        ("age", "lies in [0, 120]"),
        ("age", "is a whole number"),
        ("sex", "is one of 2 declared values"),
        ("weight", "lies in [20, 300]"),
        ("born", "lies in [1900-01-01, 2020-12-31]"),
        ("seen", "lies in [2000-01-01T00:00:00, 2021-01-01T00:00:00]"),
        ("seen", "is a time without zone"),
        ("died", "is true or false"),
        ("died", "is never missing"),
        (None, "meets 'weight is null or weight > age'"),
        ("pid", "is a key of patient"),
        ("value", "is never missing"),
    }


def test_bounds_by_code_are_one_rule() -> None:
    columns = {
        "value": {"kind": "number", "per": "test", "bounds": {"hdl": [5, 150], "sbp": [50, 260]}, "nullable": True},
        "test": {"kind": "category", "values": ["hdl", "sbp"], "nullable": True},
    }
    schema = load_schema({"synthehr": 1, "subject": "lab", "tables": {"lab": {"columns": columns}}})

    def rules(value: str, test: str) -> list[bool]:
        frame = pl.DataFrame({"value": ["100", value], "test": ["hdl", test]})
        return [
            e.met for e in check_tables({"lab": frame}, schema=schema) if e.rule == "lies in the bounds of its test"
        ]

    assert rules("150", "hdl") == rules("260", "sbp") == rules("", "hdl") == rules("260", "") == [True]
    assert rules("151", "hdl") == rules("49", "sbp") == rules("261", "") == [False]
    alone = check_tables({"lab": pl.DataFrame({"value": ["100"]})}, schema=schema)
    assert {(e.column, e.rule) for e in alone if not e.met} == {("test", "is in the data")}


def test_a_column_or_table_that_is_absent_is_one_broken_rule() -> None:
    found = check_tables({"patient": pl.DataFrame(PATIENT).drop("age")}, schema=SCHEMA)
    assert {(e.table, e.column, e.rule) for e in found if not e.met} == {
        ("patient", "age", "is in the data"),
        ("patient", None, "meets 'weight is null or weight > age'"),
        ("lab", None, "is in the data"),
    }


def test_a_table_without_rows_is_told() -> None:
    found = check_tables({"patient": pl.DataFrame(PATIENT).head(0), "lab": pl.DataFrame(LAB)}, schema=SCHEMA)
    assert "has rows" in {e.rule for e in found if not e.met}
