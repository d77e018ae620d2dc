"""Columns held as values and codes, numbers as text, and days by the calendar: each against the plain way to do it."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import polars as pl
import pytest

from synthehr.connectors.fhir.calendar import day_texts, time_texts
from synthehr.connectors.fhir.write_cells import ABSENT, Coded, coded_numbers, coded_texts, combined, numbered
from synthehr.connectors.fhir.write_codes import numerals
from synthehr.connectors.fhir.write_part import Part

ROWS = 500


def values(column: Coded) -> list[object]:
    return [column.row(at) for at in range(column.codes.size)]


def part(frame: pl.DataFrame, **decimals: int) -> Part:
    nothing = pl.Series([], dtype=pl.String)
    return Part(
        table="observation", frame=frame, link=lambda *_: nothing, made=lambda _: nothing, own=lambda: nothing,
        decimals=decimals, codes=[], words=True,
    )  # fmt: skip


@pytest.mark.parametrize("largest", [3, 2**31 - 2])
def test_rows_get_the_same_number_where_they_are_equal_in_every_column(largest: int) -> None:
    draws = np.random.default_rng(0)
    pool = np.append(draws.integers(0, largest, 4), -1)
    columns = [draws.choice(pool, ROWS).astype(np.int32) for _ in range(6)]
    codes, rows = numbered(columns)
    told: dict[int, tuple[int, ...]] = {}
    for at, row in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
        assert told.setdefault(int(codes[at]), row) == row
    assert len(set(told.values())) == len(told) == len(rows)
    assert [codes[at] for at in rows] == sorted(told)


def test_a_column_of_text_or_truth_values_comes_back_without_blanks() -> None:
    cells = ["a", None, "", " \t", "é", "a", "b "]
    frame = pl.DataFrame({"text": cells, "flag": [True, None, False, True, True, None, None], "none": [None] * 7})
    found = coded_texts(frame.with_columns(pl.col("none").cast(pl.String), enum=pl.Series(cells).cast(pl.Categorical)))
    assert values(found["text"]) == values(found["enum"]) == ["a", None, None, None, "é", "a", "b "]
    assert values(found["flag"]) == [True, None, False, True, True, None, None]
    assert values(found["none"]) == [None] * 7
    assert values(coded_numbers(pl.Series([3, None, -1, 3]))) == [3, None, -1, 3]


def test_what_is_made_of_several_columns_is_made_of_each_set_once() -> None:
    made: list[tuple[object, ...]] = []

    def make(*row: object) -> object:
        made.append(row)
        return None if row == (None, None) else list(row)

    one = Coded(["x", "y"], np.array([0, 0, -1, 1, -1, 0], dtype=np.int32))
    two = Coded([True], np.array([0, 0, -1, -1, -1, -1], dtype=np.int32))
    expected = [["x", True], ["x", True], None, ["y", None], None, ["x", None]]
    assert values(combined([one, two], make)) == expected
    assert len(made) == 4


def test_a_note_that_something_is_absent_tells_nothing() -> None:
    column = Coded([ABSENT, [ABSENT], "x"], np.array([0, 1, 2, -1], dtype=np.int32))
    assert column.there.tolist() == [True, True, True, False]
    assert column.tells.tolist() == [False, False, True, False]


def test_values_that_no_row_has_are_neither_checked_nor_written() -> None:
    column = Coded(["kept", "gone"], np.array([0, 1], dtype=np.int32)).kept(np.array([True, False]))
    assert column.at(()) == ["kept"]
    assert pl.select(column.json(before=",")).to_series().to_list() == [',"kept"', ""]


def test_numbers_are_written_so_that_they_read_back_as_they_were() -> None:
    draws = np.random.default_rng(1)
    told = [0.0, -0.0, 1.5, 120.0, 1e-7, -1e15, 1e15, 1e16, 1e22, 5e-324, 1.7976931348623157e308, 0.1 + 0.2, 2.0**53]
    told += (draws.normal(size=ROWS) * 10.0 ** draws.integers(-20, 20, ROWS)).tolist()
    cells = [None, *told, None]
    found = numerals(part(pl.DataFrame({"value": cells})), "value").to_list()
    assert [None if text is None else float(json.loads(text)) for text in found] == cells
    assert found[3:5] == ["1.5", "120"]
    assert numerals(part(pl.DataFrame({"value": [1.5, None, 2.0, 1.125]}), value=2), "value").to_list() == [
        "1.50", None, "2.00", "1.125",
    ]  # fmt: skip


@pytest.mark.parametrize("spread", [40, 119_000])
def test_days_and_times_lie_so_long_after_their_anchor(spread: int) -> None:
    draws = np.random.default_rng(2)
    anchors = [dt.date(2020, 2, 28) + dt.timedelta(days=int(each)) for each in draws.integers(-900, 900, ROWS)]
    days = [None if draws.random() < 0.1 else int(each) for each in draws.integers(-spread, spread, ROWS)]
    given = pl.Series(anchors)
    assert day_texts(given, pl.Series(days)).to_list() == [
        None if day is None else (anchor + dt.timedelta(days=day)).isoformat()
        for anchor, day in zip(anchors, days, strict=True)
    ]
    hours = [None if day is None else 24 * day + 5 for day in days]
    minutes = [None if draws.random() < 0.1 else int(each) for each in draws.integers(0, 5000, ROWS)]
    begins = [dt.datetime.combine(anchor, dt.time()) for anchor in anchors]
    assert time_texts(given, pl.Series(hours), minutes=pl.Series(minutes)).to_list() == [
        None if hour is None or more is None
        else (begin + dt.timedelta(hours=hour, minutes=more)).isoformat() + "+00:00"
        for begin, hour, more in zip(begins, hours, minutes, strict=True)
    ]  # fmt: skip
    assert day_texts(given, pl.Series([None] * ROWS, dtype=pl.Int64)).to_list() == [None] * ROWS
