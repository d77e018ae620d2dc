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

__all__ = ["FINEST", "Lattice", "as_number", "from_number", "lattice_of", "span_of"]

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
            return _with_nulls(pl.Series(np.round(values, _digits(self.step)), dtype=pl.Float64), missing)
        whole = pl.Series(np.rint(values).astype(np.int64), dtype=pl.Int64)
        if self.kind == "date":
            return _with_nulls(whole.cast(pl.Int32).cast(pl.Date), missing)
        if self.kind == "datetime":
            return _with_nulls((whole * 60_000_000).cast(pl.Datetime("us")), missing)
        return _with_nulls(whole, missing)


def _with_nulls(series: pl.Series, missing: np.ndarray) -> pl.Series:
    return series.zip_with(pl.Series(~missing), pl.Series([None], dtype=series.dtype)) if missing.any() else series


def as_number(column: pl.Series) -> pl.Series:
    """A numeric or temporal column on the scale of its lattice: numbers, days or minutes, as Float64."""
    if column.dtype == pl.Date:
        return column.cast(pl.Int32).cast(pl.Float64)
    if column.dtype == pl.Datetime:
        return column.dt.epoch("us").cast(pl.Float64) / 60e6
    return column.cast(pl.Float64)


def from_number(values: FloatArray, column: Any) -> pl.Series:
    """Values on the scale of :func:`as_number` in the column's own type, null where NaN."""
    missing = np.isnan(values)
    whole = np.rint(np.where(missing, 0.0, values)).astype(np.int64)
    match column:
        case DateColumn():
            found = pl.Series(whole).cast(pl.Int32).cast(pl.Date)
        case DatetimeColumn():
            found = (pl.Series(whole) * 60_000_000).cast(pl.Datetime("us"))
        case IntegerColumn():
            found = pl.Series(whole)
        case _:
            digits = 12 if column.precision is None else _digits(column.precision)
            found = pl.Series(np.round(np.where(missing, 0.0, values), digits))
    return _with_nulls(found, missing)


def span_of(column: Any) -> tuple[float, float]:
    """The least and largest value of a column on the scale of :func:`as_number`; infinite where it declares none."""
    if getattr(column, "bounds", None) is None:
        return -np.inf, np.inf
    lattice = lattice_of(column)
    return lattice.origin, lattice.origin + lattice.step * (lattice.points - 1)


def _digits(step: float) -> int:
    """Decimal places of a step, 12 at most."""
    return min(max(0, -int(Decimal(repr(step)).normalize().as_tuple().exponent)), 12)


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
