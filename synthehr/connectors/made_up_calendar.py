"""Dates for synthetic patients, on a calendar that is made up: the way back from offsets and ages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import numpy as np
import polars as pl

from synthehr.connectors.deidentify import MINUTES, MOST_DAYS, owner_rows, timed_columns
from synthehr.connectors.meds.layout import counts_from_birth
from synthehr.errors import DataError
from synthehr.randomness import seeded
from synthehr.schema.model import AgeColumn, AnchorColumn, OffsetColumn, Schema

__all__ = ["CALENDAR_END", "MadeUpCalendar"]

CALENDAR_END = dt.date(2024, 12, 31)
_WINDOW_DAYS = 3653  # ten years: the last date of every patient lies in 2015 to 2024
_OLDEST = 200  # years; an age beyond it, which bounds that were bought can give, is a birth so long ago
_STREAM = 0x43414C
_EPOCH = dt.date(1970, 1, 1)


class MadeUpCalendar:
    """Puts offsets and ages of synthetic patients back into dates of a calendar drawn from the seed.

    Each patient's last date lies on a day drawn uniformly from the ten years up to ``CALENDAR_END``, so that nothing
    lies in the future; where an age is known, the birth follows from it instead. Nothing but the cohort and the seed
    goes in. Patients may come in parts, in order: the draws do not depend on how they are cut.

    Args:
        schema: of the cohort.
        seed: of the draws.
    """

    def __init__(self, schema: Schema, *, seed: int) -> None:
        self._schema = schema
        self._draws = seeded(seed, _STREAM)

    def dated(self, tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
        """The tables of some patients, all their rows with them, with dates and times where the records have them.

        Tables that MEDS is read as stay as they are, in whole units as the records' own.

        Raises:
            DataError: an offset is more than 120,000 days from its anchor.
        """
        schema = self._schema
        if not any(timed_columns(schema, name) for name in schema.tables) or counts_from_birth(schema):
            return dict(tables)
        owners = owner_rows(tables, schema=schema)
        anchors = self._drawn(tables, owners=owners)
        dated = {}
        for name, frame in tables.items():
            starts = anchors.gather(owners[name])
            made = [
                _moment(frame, column, declared, starts=starts)
                for column, declared in timed_columns(schema, name).items()
                if isinstance(declared, AnchorColumn) or column in frame.columns
            ]
            whole = frame.with_columns(made)
            dated[name] = whole.select([c for c in schema.tables[name].columns if c in whole.columns])
        return dated

    def _drawn(self, tables: Mapping[str, pl.DataFrame], *, owners: Mapping[str, pl.Series]) -> pl.Series:
        root = tables[self._schema.subject]
        last = np.zeros(root.height, dtype=np.int64)
        for name, frame in tables.items():
            for column, declared in timed_columns(self._schema, name).items():
                if not isinstance(declared, OffsetColumn) or column not in frame.columns:
                    continue
                days = (frame[column].cast(pl.Int64) * MINUTES[declared.unit] // 1440).fill_null(0).to_numpy()
                if days.size and int(np.abs(days).max()) > MOST_DAYS:
                    raise DataError(
                        f"column {column!r} of table {name!r} must lie within {MOST_DAYS} days of the patient's "
                        "anchor: declare bounds for it"
                    )
                np.maximum.at(last, owners[name].to_numpy(), days)
        chance = self._draws.random(root.height)
        end = (CALENDAR_END - _EPOCH).days
        anchors = pl.Series(end - np.floor(chance * _WINDOW_DAYS).astype(np.int64) - last, dtype=pl.Int64)
        anchors = anchors.cast(pl.Int32).cast(pl.Date)
        for name, birth in self._schema.root.columns.items():
            if isinstance(birth, AgeColumn) and name in root.columns:
                births = _births(root[name], at=birth.at, chance=chance)
                anchors = births.zip_with(births.is_not_null(), anchors)
        return anchors


def _moment(
    frame: pl.DataFrame, name: str, declared: AnchorColumn | AgeColumn | OffsetColumn, *, starts: pl.Series
) -> pl.Series:
    """A column of dates or times, in the type that it has in the records."""
    clock = pl.lit(starts).cast(pl.Datetime("us"))
    if isinstance(declared, OffsetColumn):
        clock = clock + pl.duration(minutes=pl.lit(frame[name]).cast(pl.Int64) * MINUTES[declared.unit])
    elif isinstance(declared, AgeColumn):
        clock = pl.when(pl.lit(frame[name]).is_not_null()).then(clock)
    day_alone = isinstance(declared, AgeColumn) or declared.of == "date"
    return pl.select(clock.cast(pl.Date) if day_alone else clock).to_series().alias(name)


def _births(ages: pl.Series, *, at: dt.date, chance: np.ndarray) -> pl.Series:
    """A day of birth for each age in whole years on a day; null where there is no age."""
    within = pl.Series(np.floor(chance * 365).astype(np.int64))  # of the 365 or 366 days that give the same age
    back = pl.format("{}y", -pl.lit(ages.clip(-_OLDEST, _OLDEST)))
    birthday = pl.lit(at).dt.offset_by(back)
    return pl.select(birthday - pl.duration(days=pl.lit(within))).to_series()
