"""A calendar for patients who have none: each gets a day that its offsets count from, drawn from the seed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.errors import DataError
from synthehr.randomness import seeded
from synthehr.schema.model import Schema

__all__ = ["CALENDAR_END", "Moment", "anchors", "date_text", "time_text"]

CALENDAR_END = dt.date(2024, 12, 31)
_WINDOW_DAYS = 3653  # ten years: the last event of every patient lies in 2015 to 2024
_MOST_DAYS = 120_000  # offsets from an anchor; keeps every date within the years that FHIR can write
_STREAM = 0x46484952


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


def date_text(days: pl.Expr) -> pl.Expr:
    """A day, ``YYYY-MM-DD``, so many days after the patient's anchor."""
    return (pl.col("_anchor") + pl.duration(days=days)).dt.strftime("%Y-%m-%d")


def time_text(hours: pl.Expr, *, minutes: pl.Expr | None = None) -> pl.Expr:
    """A time with seconds and offset so many hours, and then minutes, after midnight of the anchor.

    The clock is the one on the patient's wall, as in reading; its zone is not known and written as UTC.
    """
    moment = pl.col("_anchor").cast(pl.Datetime("us")) + pl.duration(hours=hours)
    if minutes is not None:
        moment = moment + pl.duration(minutes=minutes)
    return moment.dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")
