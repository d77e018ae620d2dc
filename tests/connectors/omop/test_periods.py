"""Periods of observation agree with events."""

from __future__ import annotations

from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from synthehr.connectors.omop.periods import consistent_periods

_PERIODS = {"patient": pl.Int64, "start": pl.Int64, "end": pl.Int64, "row": pl.Int64}


def agreed(
    periods: list[tuple[int, int, int]], events: list[tuple[int, int]]
) -> list[tuple[int, int, int, int | None]]:
    rows = [(*period, at) for at, period in enumerate(periods)]
    frame = pl.DataFrame(rows, schema=_PERIODS, orient="row")
    days = pl.DataFrame(events, schema={"patient": pl.Int64, "day": pl.Int64}, orient="row")
    return consistent_periods(frame, days).rows()


def test_periods_that_agree_stay_as_they_are() -> None:
    assert agreed([(0, 10, 20), (0, 30, 30), (1, 5, 6)], [(0, 10), (0, 20), (0, 30)]) == [
        (0, 10, 20, 0),
        (0, 30, 30, 1),
        (1, 5, 6, 2),
    ]


def test_an_event_outside_widens_the_period_that_began_last_before_it_or_the_first() -> None:
    assert agreed([(0, 10, 20), (0, 30, 40)], [(0, 3), (0, 25), (0, 99)]) == [(0, 3, 25, 0), (0, 30, 99, 1)]


def test_periods_that_overlap_become_one() -> None:
    assert agreed([(0, 10, 50), (0, 20, 30), (0, 50, 60), (0, 70, 71)], []) == [(0, 10, 60, 0), (0, 70, 71, 3)]


def test_a_patient_with_events_and_no_period_gets_one_and_one_with_neither_gets_none() -> None:
    assert agreed([(0, 1, 2)], [(2, 9), (2, 4)]) == [(0, 1, 2, 0), (2, 4, 9, None)]
    assert agreed([], []) == []


_DAYS = st.integers(-20, 60)


@given(
    st.lists(st.tuples(st.integers(0, 2), _DAYS, st.integers(0, 30)), max_size=12),
    st.lists(st.tuples(st.integers(0, 2), _DAYS), max_size=12),
)
def test_no_periods_overlap_every_event_lies_in_one_and_none_is_lost(
    begun: list[tuple[int, int, int]], events: list[tuple[int, int]]
) -> None:
    periods = [(patient, start, start + length) for patient, start, length in begun]
    found = agreed(periods, events)
    for patient in range(3):
        own = [(start, end) for p, start, end, _ in found if p == patient]
        assert all(start <= end for start, end in own)
        assert all(before[1] < after[0] for before, after in pairwise(own))
        days = [d for p, d in events if p == patient]
        days += [d for p, start, end in periods if p == patient for d in (start, end)]
        assert all(any(start <= day <= end for start, end in own) for day in days)
        assert bool(own) == bool(days)
