from __future__ import annotations

import copy
import datetime as dt

import pytest

from synthehr.errors import SchemaError
from synthehr.schema.files import dump_schema, load_schema

FLAT = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "id",
            "outcome": "died",
            "groups": ["sex"],
            "columns": {
                "id": {"kind": "id"},
                "name": {"kind": "identifier"},
                "note": {"kind": "text"},
                "sex": {"kind": "category", "values": ["f", "m"]},
                "loinc": {"kind": "code", "system": "http://loinc.org", "discover": True},
                "age": {"kind": "integer", "bounds": [0, 120]},
                "weight": {"kind": "number", "bounds": [20, 300], "precision": 0.1, "nullable": True},
                "born": {"kind": "date", "bounds": ["1900-01-01", "2020-12-31"]},
                "seen": {"kind": "datetime", "bounds": ["2000-01-01T00:00", "2021-01-01T00:00"]},
                "died": {"kind": "boolean"},
            },
        }
    },
}


def with_columns(**columns: object) -> dict:
    schema = copy.deepcopy(FLAT)
    schema["tables"]["patient"]["columns"].update(columns)
    return schema


def changed(path: str, value: object) -> dict:
    schema = copy.deepcopy(FLAT)
    *parents, last = path.split(".")
    at = schema
    for key in parents:
        at = at[key]
    at[last] = value
    return schema


def test_a_schema_holds_what_was_declared() -> None:
    table = load_schema(FLAT).root
    assert list(table.kept) == ["sex", "loinc", "age", "weight", "born", "seen", "died"]
    assert table.outcome == ("died",)
    assert table.columns["born"].bounds == (dt.date(1900, 1, 1), dt.date(2020, 12, 31))


def test_a_schema_comes_back_from_its_dump() -> None:
    schema = load_schema({**FLAT, "rules": ["weight is null or weight > 0"]})
    assert load_schema(dump_schema(schema)) == schema
    assert dump_schema(schema)["synthehr"] == 1


def test_numbers_among_the_values_are_their_text() -> None:
    schema = load_schema(with_columns(sex={"kind": "category", "values": [1, 2.0, 2.5, "007"]}))
    assert schema.root.columns["sex"].values == ("1", "2", "2.5", "007")


@pytest.mark.parametrize(
    ("schema", "where", "what"),
    [
        (
            changed("tables.patient.columns.age.bound", [0, 1]),
            "tables.patient.columns.age.bound",
            "unknown key",
        ),
        (changed("tables.patient.clumns", {}), "tables.patient.clumns", "unknown key"),
        (changed("synthehr", 2), "synthehr", "must be 1"),
        (changed("synthehr", True), "synthehr", "must be a number"),
        (changed("subject", "person"), "schema", "not declared under tables"),
        (changed("subject", 3), "subject", "must be text"),
        (changed("tables", {}), "tables", "at least 1"),
        (changed("tables.patient.columns", []), "tables.patient.columns", "mapping"),
        (changed("tables.patient", "x"), "tables.patient", "mapping"),
        (changed("tables.patient.key", "pid"), "tables.patient", "names column 'pid'"),
        (changed("tables.patient.key", "age"), "tables.patient", "must be of kind id"),
        (changed("tables.patient.outcome", "name"), "tables.patient", "not a column that is kept"),
        (changed("tables.patient.max_rows", 0), "tables.patient.max_rows", "at least 1"),
        (with_columns(age={"kind": "int"}), "tables.patient.columns.age", "unknown kind"),
        (with_columns(age={"bounds": [0, 1]}), "tables.patient.columns.age", "needs a 'kind'"),
        (
            with_columns(age={"kind": "integer", "bounds": [9, 1]}),
            "tables.patient.columns.age",
            "lower below upper",
        ),
        (
            with_columns(age={"kind": "integer", "bounds": [1]}),
            "tables.patient.columns.age.bounds",
            "required",
        ),
        (
            with_columns(age={"kind": "integer", "bounds": [1, 2, 3]}),
            "tables.patient.columns.age.bounds",
            "at most 2",
        ),
        (with_columns(age={"kind": "integer", "bounds": 7}), "tables.patient.columns.age.bounds", "list"),
        (with_columns(age={"kind": "integer", "bounds": [0, 1.5]}), "columns.age.bounds.1", "whole number"),
        (with_columns(age={"kind": "integer", "bounds": ["0", 9]}), "columns.age.bounds.0", "without quotes"),
        (
            with_columns(age={"kind": "integer", "bounds": [False, 9]}),
            "columns.age.bounds.0",
            "must be a number",
        ),
        (with_columns(age={"kind": "integer", "bounds": [0, 2**60]}), "columns.age.bounds", "2**53"),
        (with_columns(w={"kind": "number", "bounds": [0, float("inf")]}), "columns.w.bounds", "finite"),
        (
            with_columns(w={"kind": "number", "bounds": [-1e308, 1e308]}),
            "columns.w.bounds",
            "finite distance",
        ),
        (with_columns(w={"kind": "number", "precision": 0}), "columns.w.precision", "above 0"),
        (with_columns(w={"kind": "number", "bounds": [0, 1], "precision": 2}), "columns.w", "no wider"),
        (with_columns(w={"kind": "number", "nullable": "perhaps"}), "columns.w.nullable", "true or false"),
        (with_columns(d={"kind": "date"}), "columns.d.bounds", "is required"),
        (
            with_columns(d={"kind": "date", "bounds": ["1.1.2020", "2021-01-01"]}),
            "columns.d.bounds.0",
            "2021-05-31",
        ),
        (
            with_columns(d={"kind": "datetime", "bounds": ["2020-01-01T00:00Z", "2021-01-01T00:00Z"]}),
            "columns.d.bounds",
            "time zone",
        ),
        (with_columns(sex={"kind": "category", "values": []}), "columns.sex.values", "at least one value"),
        (with_columns(sex={"kind": "category", "values": ["a", "a"]}), "columns.sex.values", "stands twice"),
        (with_columns(sex={"kind": "category", "values": [True, False]}), "columns.sex.values", "quotes"),
        (with_columns(sex={"kind": "category", "values": [" a"]}), "columns.sex.values", "spaces"),
        (with_columns(sex={"kind": "category", "values": ["a"], "discover": True}), "columns.sex", "exclude"),
        (with_columns(x={"kind": "code"}), "columns.x.system", "is required"),
        (with_columns(**{"a\nb": {"kind": "boolean"}}), "tables.patient.columns", "one line"),
        ({**FLAT, "rules": ["weight >"]}, "schema", "not an SQL condition"),
        ({"synthehr": 1}, "subject", "is required (and 1 more)"),
    ],
)
def test_a_broken_schema_is_told_with_the_path_of_its_key(schema: dict, where: str, what: str) -> None:
    with pytest.raises(SchemaError) as told:
        load_schema(schema)
    message = str(told.value)
    assert where in message
    assert what in message
    assert "\n" not in message
    assert "Input should" not in message


CHILD = {
    "parent": "patient",
    "foreign_key": "pid",
    "columns": {"pid": {"kind": "id"}, "v": {"kind": "boolean"}},
}


@pytest.mark.parametrize(
    ("lab", "what"),
    [
        ({"columns": {"v": {"kind": "boolean"}}}, "needs parent and foreign_key"),
        ({**CHILD, "parent": "nobody"}, "which is not declared"),
        ({**CHILD, "parent": "lab", "key": "pid"}, "own ancestor"),
        ({**CHILD, "order_by": "pid"}, "not a column that is kept"),
    ],
)
def test_tables_hang_from_the_subject(lab: dict, what: str) -> None:
    with pytest.raises(SchemaError, match=what):
        load_schema({**FLAT, "tables": {**FLAT["tables"], "lab": lab}})


def test_a_table_name_is_a_plain_word_because_it_names_a_file() -> None:
    with pytest.raises(SchemaError, match="names a file"):
        load_schema({**FLAT, "subject": "../p", "tables": {"../p": FLAT["tables"]["patient"]}})
