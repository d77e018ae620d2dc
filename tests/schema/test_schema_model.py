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


def per_sex(kind: str = "number", precision: float | None = None, **bounds: object) -> dict:
    return with_columns(
        v={"kind": kind, "per": "sex", "bounds": bounds} | ({"precision": precision} if precision else {})
    )


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


def test_bounds_may_depend_on_a_code() -> None:
    schema = load_schema(per_sex(f=[0, 5], m=[-2, 3.5]))
    column = schema.root.columns["v"]
    assert [column.bounds_of(code) for code in ("f", "m")] == [(0, 5), (-2, 3.5)]
    # Without a code, or with one that is not declared: around all.
    assert [column.bounds_of(code) for code in (None, "x")] == [(-2, 5)] * 2
    assert load_schema(dump_schema(schema)) == schema
    one_for_all = load_schema(with_columns(v={"kind": "number", "per": "loinc", "bounds": [0, 1]})).root.columns["v"]
    assert one_for_all.bounds_of("1-2") == (0, 1)
    assert load_schema(with_columns(v={"kind": "integer", "per": "sex"})).root.columns["v"].bounds_of("f") is None


def test_codes_that_are_numbers_are_their_text_among_bounds_as_among_values() -> None:
    codes = {"kind": "category", "values": [1, 2.0]}
    schema = load_schema(
        with_columns(sex=codes, v={"kind": "integer", "per": "sex", "bounds": {1: [0, 1], 2.0: [0, 9]}})
    )
    assert schema.root.columns["v"].bounds == {"1": (0, 1), "2": (0, 9)}


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
        (
            with_columns(v={"kind": "number", "per": "nothing"}),
            "tables.patient",
            "has per 'nothing', which is not a cat",
        ),
        (with_columns(v={"kind": "number", "per": "name"}), "tables.patient", "not a category or code column"),
        (with_columns(v={"kind": "number", "per": "died"}), "tables.patient", "not a category or code column"),
        (with_columns(v={"kind": "number", "per": "v"}), "tables.patient", "not a category or code column"),
        (
            with_columns(d={"kind": "date", "bounds": ["2020-01-01", "2021-01-01"], "per": "sex"}),
            "d.per",
            "unknown key",
        ),
        (with_columns(v={"kind": "number", "bounds": {"f": [0, 1], "m": [0, 1]}}), "columns.v", "need 'per'"),
        (per_sex(f=[0, 1]), "tables.patient", "'v' lacks bounds of 'm', a value of 'sex'"),
        (per_sex(f=[0, 1], m=[0, 1], x=[0, 1]), "tables.patient", "'v' has bounds of 'x', which is no value of 'sex'"),
        (per_sex(), "columns.v", "at least one code"),
        (per_sex(f=[0, 1], m=[2, 1]), "columns.v", "bounds of 'm' must be [lower, upper] with lower below upper"),
        (per_sex(f=[0, 1], m=[0, float("inf")]), "columns.v.bounds", "bounds of 'm' must be finite"),
        (per_sex(f=[0, 1], m=[0, 9], precision=2), "columns.v", "no wider than the bounds of 'f'"),
        (per_sex("integer", f=[0, 1], m=[0, 2**60]), "columns.v.bounds", "bounds of 'm' must lie within 2**53"),
        (per_sex("integer", f=[0, 1], m=[0, 1.5]), "columns.v.bounds.m.1", "whole number"),
        (per_sex(f=[0, 1], m=7), "columns.v.bounds.m", "list"),
        (
            with_columns(v={"kind": "number", "per": "loinc", "bounds": {"1-2": [0, 1]}}),
            "tables.patient",
            "'loinc' must declare its values",
        ),
        (
            with_columns(v={"kind": "number", "per": "sex", "bounds": {1: [0, 1], "1": [0, 1]}}),
            "columns.v.bounds",
            "value '1' stands twice",
        ),
        (
            with_columns(v={"kind": "number", "per": "sex", "bounds": {False: [0, 1], "m": [0, 1]}}),
            "columns.v.bounds",
            "put it in quotes",
        ),
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
