from __future__ import annotations

import datetime as dt

import polars as pl
import pytest
from pydantic import TypeAdapter

from synthehr.errors import DataError
from synthehr.schema.conform import conform, parse_column
from synthehr.schema.files import load_schema
from synthehr.schema.model import Column

COLUMN: TypeAdapter = TypeAdapter(Column)
DAYS = ["2000-01-01", "2021-01-01"]
TIMES = ["2000-01-01T00:00", "2021-01-01T00:00"]
NOON = dt.datetime(2020, 1, 31, 12, 0, 1)
BAD = "not valid"


@pytest.mark.parametrize(
    ("column", "cells", "values"),
    [
        (
            {"kind": "integer"},
            [
                "1",
                "1.0",
                " 2 ",
                "1e3",
                "+5",
                "9007199254740993",
                "1.5",
                "x",
                "inf",
                "99999999999999999999",
                "1_0",
            ],
            [1, 1, 2, 1000, 5, 9007199254740993, BAD, BAD, BAD, BAD, BAD],
        ),
        (
            {"kind": "integer"},
            [1.0, 1.5, float("nan"), float("inf"), 1e300, None],
            [1, BAD, None, BAD, BAD, None],
        ),
        ({"kind": "integer"}, [True, False], [BAD, BAD]),
        ({"kind": "number"}, ["1.5", "NA", "", "-inf", "1e400", "1,5"], [1.5, None, None, BAD, BAD, BAD]),
        (
            {"kind": "boolean"},
            ["yes", "F", "1.0", "0", "maybe", "null"],
            [True, False, True, False, BAD, None],
        ),
        ({"kind": "boolean"}, [1, 0, 2], [True, False, BAD]),
        (
            {"kind": "date", "bounds": DAYS},
            [
                "2020-01-31",
                "2020-01-31 00:00:00",
                "31/01/2020",
                "01/02/2020",
                "2020-02-30",
                "2020-01-31T12:00:01",
            ],
            [dt.date(2020, 1, 31), dt.date(2020, 1, 31), BAD, BAD, BAD, BAD],
        ),
        ({"kind": "date", "bounds": DAYS}, [NOON, dt.datetime(2020, 1, 31)], [BAD, dt.date(2020, 1, 31)]),
        (
            {"kind": "datetime", "bounds": TIMES},
            [
                "2020-01-31T12:00:01",
                "2020-01-31 12:00:01",
                "2020-01-31",
                "2020-01-31T12:00:01Z",
                "2020-01-31T12:00+01:00",
            ],
            [NOON, NOON, dt.datetime(2020, 1, 31), BAD, BAD],
        ),
        ({"kind": "datetime", "bounds": TIMES}, [NOON.replace(tzinfo=dt.UTC)], [BAD]),
        ({"kind": "id"}, ["007", "12 ", "NA", ""], ["007", "12", None, None]),  # leading zeros stay
        ({"kind": "id"}, [7.0, None, float("nan")], ["7", None, None]),
        ({"kind": "id"}, [[1], [2]], [BAD, BAD]),
        ({"kind": "category", "values": ["NA", "EU"]}, ["NA", "EU", "n/a", ""], ["NA", "EU", None, None]),
        ({"kind": "category", "values": ["EU"]}, ["NA", "EU"], [None, "EU"]),
        ({"kind": "category", "values": [1, 1.5]}, [1.0, 1.5, None], ["1", "1.5", None]),
        ({"kind": "category", "values": [1, 2]}, ["1.0", "2", " 1"], ["1", "2", "1"]),
    ],
)
def test_cells_are_read_as_their_kind_or_marked_as_not_valid(column: dict, cells: list, values: list) -> None:
    parsed = parse_column(pl.Series("x", cells, strict=False), COLUMN.validate_python(column))
    marked = [BAD if bad else value for value, bad in zip(parsed.values, parsed.invalid, strict=True)]
    assert marked == values


def test_categories_of_a_parquet_file_are_read_by_their_text_not_their_number() -> None:
    cells = pl.Series("x", ["12", "3"], dtype=pl.Categorical)
    assert parse_column(cells, COLUMN.validate_python({"kind": "integer"})).values.to_list() == [12, 3]


SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "patient": {
                "key": "id",
                "columns": {
                    "sex": {"kind": "category", "values": ["f", "m"]},
                    "id": {"kind": "id"},
                    "name": {"kind": "identifier"},
                    "age": {"kind": "integer", "bounds": [0, 1_234_567]},
                    "weight": {"kind": "number", "bounds": [0.5, 300], "nullable": True},
                },
            }
        },
        "rules": ["weight is null or weight < 200 or age > 20"],
    }
)
ROWS = {
    "id": ["1", "2"],
    "age": ["30", "40"],
    "weight": ["70.5", "NA"],
    "sex": ["f", "m"],
    "name": ["Ann", "Bo"],
}


def test_the_table_comes_in_the_order_of_the_schema_without_identifiers() -> None:
    table = conform(pl.DataFrame(ROWS), schema=SCHEMA, table="patient")
    assert table.columns == ["sex", "id", "age", "weight"]
    assert table.dtypes == [pl.String, pl.String, pl.Int64, pl.Float64]
    assert table["weight"].to_list() == [70.5, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"age": ["30", "7777777"]},
            "column 'age' in table 'patient', row 2: lies outside the declared bounds [0, 1234567]",
        ),
        ({"weight": ["70.5", "0.25"]}, "row 2: lies outside the declared bounds [0.5, 300]"),
        ({"age": ["x7", "40"]}, "column 'age' in table 'patient', row 1: is not a whole number"),
        ({"sex": ["f", "7x"]}, "column 'sex' in table 'patient', row 2: is none of the declared values"),
        ({"age": ["NaN", "40"]}, "column 'age' in table 'patient', row 1: is missing"),
        ({"weight": ["70.5", "inf"]}, "row 2: is not a finite number"),
        ({"weight": ["70.5", "250"], "age": ["7", "17"]}, "table 'patient', row 2: breaks the declared rule"),
        ({"zip": ["7", "7"]}, "column 'zip' in table 'patient' is not declared"),
    ],
)
def test_a_cell_that_does_not_fit_is_named_by_row_and_rule_never_by_value(change: dict, message: str) -> None:
    with pytest.raises(DataError) as told:
        conform(pl.DataFrame({**ROWS, **change}), schema=SCHEMA, table="patient")
    assert message in str(told.value)
    assert "777" not in str(told.value).replace("1234567", "")


LABS = load_schema(
    {
        "synthehr": 1,
        "subject": "lab",
        "tables": {
            "lab": {
                "columns": {
                    "value": {"kind": "number", "per": "test", "bounds": {"777hdl": [5, 150], "sbp": [50, 260]}},
                    "count": {"kind": "integer", "per": "test", "bounds": [0, 9], "nullable": True},
                    "test": {"kind": "category", "values": ["777hdl", "sbp"], "nullable": True},
                }
            }
        },
    }
)


def labs(*rows: tuple[str | None, str], lenient: bool = False) -> pl.DataFrame:
    tests, values = zip(*rows, strict=True)
    raw = pl.DataFrame({"test": tests, "value": values, "count": ["1"] * len(rows)})
    return conform(raw, schema=LABS, table="lab", lenient=lenient)


def test_a_value_lies_within_the_bounds_of_its_own_code() -> None:
    # Without a code it must lie somewhere between the lowest and the highest of all bounds.
    rows = [("777hdl", "5"), ("777hdl", "150"), ("sbp", "50"), ("sbp", "260"), ("", "5"), ("", "260"), ("", "155")]
    assert labs(*rows)["value"].to_list() == [float(value) for _, value in rows]


@pytest.mark.parametrize(("code", "value"), [("777hdl", "200"), ("777hdl", "4"), ("sbp", "20"), ("", "261"), ("", "4")])
def test_a_value_outside_the_bounds_of_its_code_is_refused_without_naming_value_or_code(code: str, value: str) -> None:
    with pytest.raises(DataError) as told:
        labs(("sbp", "100"), (code, value))
    assert str(told.value) == "column 'value' in table 'lab', row 2: lies outside the bounds declared for its 'test'"
    assert labs(("sbp", "100"), (code, value), lenient=True).height == 2


def test_one_pair_of_bounds_for_all_codes_is_told_as_it_is() -> None:
    with pytest.raises(DataError, match=r"'count' in table 'lab', row 1: lies outside the declared bounds \[0, 9\]"):
        conform(pl.DataFrame({"test": ["sbp"], "value": [100], "count": [10]}), schema=LABS, table="lab")


def test_a_column_that_is_absent_is_named() -> None:
    with pytest.raises(DataError, match="'age' is declared for table 'patient' but is not in the data"):
        conform(pl.DataFrame(ROWS).drop("age"), schema=SCHEMA, table="patient")


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        conform(pl.DataFrame(ROWS).head(0), schema=SCHEMA, table="patient")


def test_synthetic_values_may_break_bounds_sets_and_rules_but_not_types() -> None:
    odd = {**ROWS, "sex": ["OTHER", "m"], "age": ["-3", ""], "weight": ["900", "NA"]}
    table = conform(pl.DataFrame(odd), schema=SCHEMA, table="patient", lenient=True)
    assert table["sex"].to_list() == ["OTHER", "m"]
    assert table["age"].to_list() == [-3, None]
    with pytest.raises(DataError, match="is not a whole number"):
        conform(pl.DataFrame({**ROWS, "age": ["x", "1"]}), schema=SCHEMA, table="patient", lenient=True)
