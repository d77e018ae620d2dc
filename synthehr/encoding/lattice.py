"""The public grid of values a numeric column can take."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import polars as pl

from synthehr.randomness import FloatArray, IntArray
from synthehr.schema.model import DateColumn, DatetimeColumn, IntegerColumn, NumberColumn

__all__ = ["FINEST", "Lattice", "lattice_of"]

FINEST = 2**24
_EPOCH = dt.datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lattice:
    """Values ``origin + step * k`` for k from 0 to ``points - 1``.

    Dates are days and datetimes minutes since 1970-01-01.
    """

    origin: float
    step: float
    points: int
    kind: Literal["integer", "number", "date", "datetime"]

    def edges(self, positions: IntArray) -> FloatArray:
        """Cell borders half a step below each position, shape ``(positions,)``."""
        return np.asarray(self.origin + self.step * (positions - 0.5), dtype=np.float64)

    def column(self, positions: IntArray, missing: np.ndarray) -> pl.Series:
        """Values at the positions, in the column's own type, null where missing."""
        values = self.origin + self.step * positions
        if self.kind == "number":
            digits = max(0, -int(Decimal(repr(self.step)).normalize().as_tuple().exponent))
            return _with_nulls(pl.Series(np.round(values, min(digits, 12)), dtype=pl.Float64), missing)
        whole = pl.Series(np.rint(values).astype(np.int64), dtype=pl.Int64)
        if self.kind == "date":
            return _with_nulls(whole.cast(pl.Int32).cast(pl.Date), missing)
        if self.kind == "datetime":
            return _with_nulls((whole * 60_000_000).cast(pl.Datetime("us")), missing)
        return _with_nulls(whole, missing)


def _with_nulls(series: pl.Series, missing: np.ndarray) -> pl.Series:
    return pl.select(pl.when(~pl.Series(missing)).then(series)).to_series()


def as_number(column: pl.Series) -> pl.Series:
    """A numeric or temporal column on the scale of its lattice: numbers, days or minutes, as Float64."""
    if column.dtype == pl.Date:
        return column.cast(pl.Int32).cast(pl.Float64)
    if column.dtype == pl.Datetime:
        return column.dt.epoch("us").cast(pl.Float64) / 60e6
    return column.cast(pl.Float64)


def lattice_of(column: Any, *, bounds: tuple[float, float] | None = None) -> Lattice:
    """The lattice that a column's declaration spans, or that ``bounds`` spans where it declares none."""
    if isinstance(column, DateColumn):
        first, last = ((b - _EPOCH.date()).days for b in column.bounds)
        return Lattice(origin=first, step=1.0, points=last - first + 1, kind="date")
    if isinstance(column, DatetimeColumn):
        first, last = (math.floor((b - _EPOCH).total_seconds() / 60) for b in column.bounds)
        return Lattice(origin=first, step=1.0, points=last - first + 1, kind="datetime")
    lower, upper = bounds if bounds is not None else column.bounds
    if isinstance(column, IntegerColumn):
        return Lattice(origin=lower, step=1.0, points=int(upper) - int(lower) + 1, kind="integer")
    assert isinstance(column, NumberColumn), "only numeric columns have a lattice"
    step = column.precision if column.precision is not None else (upper - lower) / (FINEST - 1)
    return Lattice(origin=lower, step=step, points=math.floor((upper - lower) / step + 1e-9) + 1, kind="number")
