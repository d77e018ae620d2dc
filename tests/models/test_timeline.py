"""Which times are open to rows, and that those drawn lie in the cells that were drawn for them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthehr.encoding.domain import ColumnDomain
from synthehr.encoding.unroll import AT, ENDS, GAP
from synthehr.models.timeline import Open, Timeline, known_beforehand, open_cells, order_of_times
from synthehr.privacy.partition import Intervals
from synthehr.schema.model import IntegerColumn

TIMES = Intervals(edges=np.array([-100.5, -50.5, -0.5, 0.5, 40.5, 100.5]), nullable=False)
GAPS = Intervals(edges=np.array([-0.5, 0.5, 10.5, 60.5, 200.5]), nullable=True)
CELLS = {AT: TIMES, GAP: GAPS}


def rows(*, before: float, begin: float, end: float, remaining: int, first: bool = False) -> Open:
    """What is open to one row."""
    return Open(
        first=np.array([first]),
        final=np.array([remaining == 1]),
        remaining=np.array([remaining]),
        before=np.array([np.nan if first else before]),
        begin=np.array([begin]),
        end=np.array([end]),
        firsts=np.array([[begin - 5.5], [begin + 5.5]]),
        lasts=np.array([[end - 8.5], [end + 8.5]]),
        half=0.5,
    )


def chosen(name: str, one: Open, codes: dict[str, int]) -> np.ndarray:
    """The cells that are open."""
    found = open_cells(name, CELLS, one, {column: np.array([cell]) for column, cell in codes.items()})
    return np.flatnonzero(np.isfinite(found[0]))


def test_the_last_row_is_at_the_end_and_the_first_is_not_where_there_is_time_between() -> None:
    assert chosen(ENDS, rows(before=0, begin=-20, end=30, remaining=1), {}).tolist() == [1]
    assert chosen(ENDS, rows(before=0, begin=-20, end=30, remaining=3, first=True), {}).tolist() == [0]
    assert chosen(ENDS, rows(before=0, begin=30, end=30, remaining=3, first=True), {}).tolist() == [1]
    assert chosen(ENDS, rows(before=30, begin=-20, end=30, remaining=3), {}).tolist() == [1]
    assert chosen(ENDS, rows(before=0, begin=-20, end=30, remaining=3), {}).tolist() == [0, 1]


def test_the_more_rows_are_left_the_less_likely_all_are_at_the_end_before_anything_is_bought() -> None:
    odds = [open_cells(ENDS, CELLS, rows(before=0, begin=0, end=9, remaining=left), {})[0] for left in (2, 4, 16)]
    told = [float(one[1] - one[0]) for one in odds]
    assert told == sorted(told, reverse=True)
    assert told[0] < 0.0


def test_a_gap_that_leaves_little_time_to_many_rows_is_unlikely_before_anything_is_bought() -> None:
    # Ten rows are left and 100 days: eight others fall into what a row leaves, half as many where visits have several.
    # Middles of what is open of the cells of gaps: 0, 5.5, 35.5, and of 60.5 to 99.5 80; of times 20.5 and 70.
    ten = rows(before=0, begin=0, end=100, remaining=10)
    codes = {ENDS: np.array([0])}
    gaps = open_cells(GAP, CELLS, ten, codes)[0]
    assert gaps[:4] == pytest.approx(4.0 * np.log([1.0, 0.945, 0.645, 0.2]))
    times = open_cells(AT, CELLS, ten, codes)[0]
    assert times[3:] == pytest.approx(8.0 * np.log([0.795, 0.3]))
    assert open_cells(GAP, CELLS, rows(before=0, begin=0, end=100, remaining=2), codes)[0][:4].tolist() == [0.0] * 4
    at_the_end = open_cells(GAP, CELLS, rows(before=0, begin=0, end=100, remaining=1), {ENDS: np.array([1])})[0]
    assert at_the_end[3] == 0.0


def test_a_row_between_lies_from_the_row_before_to_before_the_end() -> None:
    between = rows(before=-20, begin=-80, end=30, remaining=4)
    assert chosen(AT, between, {ENDS: 0}).tolist() == [1, 2, 3]  # -50 to 40
    # A gap of 11 to 60 days leads to -9 to 29, as the end is not reached; one of 1 to 10 to -19 to -10.
    assert chosen(AT, between, {ENDS: 0, GAP: 2}).tolist() == [1, 2, 3]
    assert chosen(AT, between, {ENDS: 0, GAP: 1}).tolist() == [1]
    assert chosen(GAP, between, {ENDS: 0, AT: 2}).tolist() == [2, 4]  # 20 days to day 0; the last cell is for none


def test_a_row_at_the_end_lies_in_the_window_of_the_end() -> None:
    last = rows(before=-20, begin=-80, end=45, remaining=1)
    assert chosen(AT, last, {ENDS: 1}).tolist() == [3, 4]  # 37 to 53
    assert chosen(GAP, last, {ENDS: 1, AT: 4}).tolist() == [3, 4]  # 61 to 73 days


@settings(max_examples=300, deadline=None)
@given(
    before=st.integers(-95, 60),
    to_end=st.integers(1, 39),
    remaining=st.integers(1, 5),
    first=st.booleans(),
    gaps_first=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_time_that_is_drawn_lies_in_its_cells_and_in_order(
    before: int, to_end: int, remaining: int, first: bool, gaps_first: bool, seed: int
) -> None:
    draws, end = np.random.default_rng(seed), before + to_end
    one = rows(before=before, begin=before, end=end, remaining=remaining, first=first)
    codes: dict[str, int] = {}
    for name in (ENDS, GAP, AT) if gaps_first else (ENDS, AT, GAP):
        open_to = chosen(name, one, codes)
        open_to = open_to[open_to < 4] if name == GAP and not first else open_to
        assert len(open_to), name
        codes[name] = 4 if name == GAP and first else int(draws.choice(open_to))
    window = one.window(np.array([codes[ENDS] == 1]))
    said = (np.array([float(draws.integers(-100, 101))]), np.array([float(draws.integers(0, 201))]))
    places = (np.array([codes[AT]]), np.array([codes[GAP]]))
    (time,) = one.drawn(window, (TIMES, GAPS), places, said, draws)
    assert time == round(time)
    assert TIMES.codes(pl.Series([time])).tolist() == [codes[AT]]
    if not first:
        assert GAPS.codes(pl.Series([time - before])).tolist() == [codes[GAP]]
        assert time >= before
        assert (time < end) or codes[ENDS] == 1


ORDER = IntegerColumn(kind="integer", bounds=(-100, 100))


def beforehand(*, limit: str | None) -> Timeline:
    patients = pl.DataFrame(
        {
            "[rows of x]": [3, 1],
            "[first of x]": [-20, 5],
            "[after x]": [10, 0],
            "[span of x]": [50, 0],
            "until": [60, 7],
        }
    )
    told = Intervals(edges=np.array([-0.5, 0.5, 20.5, 90.5]), nullable=True)
    cells = {"[first of x]": TIMES, "[after x]": told, "[span of x]": told}
    codes = {name: cell.codes(patients[name]) for name, cell in cells.items()}
    return known_beforehand(patients, codes, cells, "x", limit=limit, order=ORDER, step=1.0)


def test_the_last_row_lies_before_the_limit_by_as_much_as_its_cell_says() -> None:
    times = beforehand(limit="until")
    assert times.end.tolist() == [50, 7]
    assert times.lasts.T.tolist() == [[39.5, 59.5], [6.5, 7.5]]  # 1 to 20 days before day 60; on day 7
    assert times.begin.tolist() == [0, 7]


def test_where_nothing_limits_rows_the_first_tells_where_the_last_is() -> None:
    times = beforehand(limit=None)
    assert times.firsts.T.tolist() == [[-50.5, -0.5], [0.5, 40.5]]
    times.remember(np.array([0]), np.array([-30.0]), first=np.array([True]), ends=np.array([False]))
    assert times.end[0] == 20  # ten days earlier than it was said, as the first row is
    assert times.lasts[:, 0].tolist() == [-9.5, 60.5]  # 21 to 90 days after the first


def test_once_the_last_time_is_reached_it_stays() -> None:
    times = beforehand(limit="until")
    times.remember(np.array([0]), np.array([44.0]), first=np.array([True]), ends=np.array([True]))
    assert times.end[0] == 44
    assert times.lasts[:, 0].tolist() == [43.5, 44.5]


@pytest.mark.parametrize(("none", "first"), [(500.0, GAP), (50.0, AT)])
def test_gaps_come_before_times_where_many_rows_are_at_one_time(none: float, first: str) -> None:
    gaps = np.array([none, 200.0, 200.0, 100.0, 900.0])
    domain = [
        ColumnDomain(name=AT, cells=TIMES, counts=np.full(5, 100.0), variance=np.ones(5)),
        ColumnDomain(name=GAP, cells=GAPS, counts=gaps, variance=np.ones(5)),
    ]
    found = order_of_times(("code", ENDS, AT, GAP, "value"), domain)
    assert found.index(first) == 2
    assert sorted(found) == sorted(("code", ENDS, AT, GAP, "value"))
