"""A calendar for patients who have none: each gets a day that its offsets count from, drawn from the seed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.errors import DataError
from synthehr.randomness import seeded
from synthehr.schema.model import Schema

__all__ = ["CALENDAR_END", "Moment", "anchors", "day_texts", "time_texts"]

CALENDAR_END = dt.date(2024, 12, 31)
_WINDOW_DAYS = 3653  # ten years: the last event of every patient lies in 2015 to 2024
_MOST_DAYS = 120_000  # offsets from an anchor; keeps every date within the years that FHIR can write
_STREAM = 0x46484952
_DAY_MINUTES = 24 * 60

Days: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Moment:
    """A column of offsets, or the sum of two of them: the column, how many of its units make a day, and the second."""

    column: str
    per_day: int
    more: str | None = None
    more_per_day: int = 1


def anchors(cohort: Cohort[Schema], moments: Mapping[str, Sequence[Moment]], *, seed: int) -> pl.Series:
    """The day that each patient's offsets count from, by row of the root table.

    The patient's last event is put on a day drawn uniformly from the ten years up to ``CALENDAR_END``, so that nothing
    lies in the future; the anchor follows from it. Nothing but the offsets and the seed goes in.

    Args:
        cohort: whose patients.
        moments: by table, the offsets that will be written as dates.
        seed: of the draw.

    Raises:
        DataError: an offset is more than 120,000 days from its anchor.
    """
    last = np.zeros(len(cohort), dtype=np.int64)
    for table, columns in moments.items():
        frame, owners = cohort.tables[table], cohort.owners(table)
        there = [
            each for each in columns if each.column in frame.columns and (each.more or each.column) in frame.columns
        ]
        days = frame.select(_days(moment).fill_null(0).alias(str(at)) for at, moment in enumerate(there))
        for moment, found in zip(there, days.iter_columns(), strict=True):
            if found.len() and max(abs(int(found.min())), abs(int(found.max()))) > _MOST_DAYS:  # type: ignore[arg-type]
                raise DataError(
                    f"column {moment.column!r} of table {table!r} must lie within {_MOST_DAYS} days of the patient's "
                    "anchor: declare bounds for it"
                )
            np.maximum.at(last, owners, found.to_numpy())
    drawn = seeded(seed, _STREAM).integers(0, _WINDOW_DAYS, size=len(cohort))
    end = (CALENDAR_END - dt.date(1970, 1, 1)).days
    return pl.Series("_anchor", end - drawn - last, dtype=pl.Int32).cast(pl.Date)


def _days(moment: Moment) -> pl.Expr:
    """Whole days from the anchor to a moment."""
    days = pl.col(moment.column).cast(pl.Int64) // moment.per_day
    return days if moment.more is None else days + pl.col(moment.more).cast(pl.Int64) // moment.more_per_day


def day_texts(anchors: pl.Series, days: pl.Series) -> pl.Series:
    """Days, ``YYYY-MM-DD``, so many days after each patient's anchor; null where ``days`` is."""
    return _days_named(anchors, days.fill_null(0).to_numpy(), there=days.is_not_null().to_numpy())


def time_texts(anchors: pl.Series, hours: pl.Series, *, minutes: pl.Series | None = None) -> pl.Series:
    """Times with seconds and offset so many hours, and then minutes, after midnight of each anchor.

    The clock is the one on the patient's wall, as in reading; its zone is not known and written as UTC.
    """
    after = hours * 60 if minutes is None else hours * 60 + minutes
    there, minute = after.is_not_null().to_numpy(), after.fill_null(0).to_numpy()
    days = _days_named(anchors, minute // _DAY_MINUTES, there=there)
    clock = _clock()[minute % _DAY_MINUTES]
    return pl.select(pl.concat_str(days.alias("day"), clock.alias("time")).alias("text"))["text"]


def _days_named(anchors: pl.Series, after: Days, *, there: np.ndarray[Any, Any]) -> pl.Series:
    """Days as text, null where ``there`` says so; each that comes up is named once, unless they lie far apart."""
    days = anchors.to_physical().to_numpy() + after
    if not there.any():
        return pl.Series([None] * len(there), dtype=pl.String)
    distinct, at = np.arange(days.min(), days.max() + 1), days - days.min()
    if len(distinct) > 2 * len(days):
        distinct, at = np.unique(days, return_inverse=True)
    names: pl.Series = pl.Series(distinct).cast(pl.Int32).cast(pl.Date).dt.strftime("%Y-%m-%d")
    if not there.all():
        at = np.where(there, at, names.len())
        names = names.extend(pl.Series([None], dtype=pl.String))
    return names.gather(at)


@cache
def _clock() -> pl.Series:
    """What a time of day has after the day, by the minute."""
    return pl.Series([f"T{at // 60:02}:{at % 60:02}:00+00:00" for at in range(_DAY_MINUTES)])
