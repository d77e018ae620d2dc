"""Columns as codes: bins from the training part alone, with open ends; missing is a category."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthehr.cohort import Cohort
from synthehr.errors import DataError
from synthehr.schema.model import (
    BooleanColumn,
    CategoryColumn,
    DateColumn,
    DatetimeColumn,
    IntegerColumn,
    Schema,
)

__all__ = [
    "Coding",
    "ColumnCoding",
    "Values",
    "code",
    "code_column",
    "common_values",
    "fit_coding",
    "read_table",
    "read_values",
]

BINS = 10
"""Bins of a number: deciles of the training part."""

_MOST_VALUES = 64
_UNDECLARED = "undeclared"
_MISSING = "missing"
_TRUE = ("true", "t", "yes", "y", "1")
_DATETIMES = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")
_FALSE = ("false", "f", "no", "n", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """One column of a cohort, as text (categories, booleans) or as numbers (the rest; dates in days).

    Attributes:
        text: shape ``(patients,)``; None for numbers.
        number: shape ``(patients,)``, NaN where missing or unreadable; None for text.
        missing: where no value stands.
        unreadable: where something stands that is not of the declared kind.
    """

    text: pl.Series | None
    number: NDArray[np.float64] | None
    missing: NDArray[np.bool_]
    unreadable: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> Values:
        """The values of these rows."""
        return Values(
            text=None if self.text is None else self.text.gather(rows),
            number=None if self.number is None else self.number[rows],
            missing=self.missing[rows],
            unreadable=self.unreadable[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnCoding:
    """How one column becomes codes: its bins or values, then ``undeclared``, then ``missing``.

    Attributes:
        name: the column.
        labels: what each code stands for, as a reader may see it.
        values: the category of each code from 0; None for numbers.
        edges: inner edges of the bins, each bin closed below; the outer bins are open. None for text.
    """

    name: str
    labels: tuple[str, ...]
    values: tuple[str, ...] | None
    edges: NDArray[np.float64] | None

    @property
    def undeclared(self) -> int:
        """The code of a value that is neither declared nor readable."""
        return len(self.labels) - 2

    @property
    def missing(self) -> int:
        """The code of a missing value."""
        return len(self.labels) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """The coding of every kept column of the root table, learned from the training part alone."""

    columns: tuple[ColumnCoding, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, in the order of the codes."""
        return tuple(column.name for column in self.columns)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of codes of each column."""
        return tuple(len(column.labels) for column in self.columns)


def read_values(cohort: Cohort[Schema], *, part: str) -> dict[str, Values]:
    """The kept columns of the root table, whatever types the frame holds them in.

    Args:
        cohort: train, holdout or synthetic.
        part: which of the three, for messages.

    Raises:
        DataError: a kept column is not there, or there is no patient.
    """
    if cohort.root.height == 0:
        raise DataError(f"the {part} cohort has no patient: it needs at least one")
    return read_table(cohort, cohort.schema.subject, part=part)


def read_table(cohort: Cohort[Schema], table: str, *, part: str) -> dict[str, Values]:
    """The kept columns of any table, one value a row, in the order of the rows; there may be no row.

    Args:
        cohort: train, holdout or synthetic.
        table: its name.
        part: which of the three, for messages.

    Raises:
        DataError: a kept column is not there.
    """
    frame, kept = cohort.tables[table], cohort.schema.tables[table].kept
    absent = [name for name in kept if name not in frame.columns]
    if absent:
        raise DataError(
            f"column {absent[0]!r} of table {table!r} is declared in the schema but is not in the {part} cohort"
        )
    return {name: _read(frame[name], column) for name, column in kept.items()}


def fit_coding(values: Mapping[str, Values], *, schema: Schema, bins: int = BINS) -> Coding:
    """The coding of a training part.

    Numbers get quantile bins, with edges moved to the simplest number nearby; a number with at most ``bins``
    distinct values gets a bin for each, and one on either side. A category without declared values gets
    the most common of the training part, whose names are kept out of the labels.
    """
    kept = schema.root.kept
    return Coding(columns=tuple(_fit_column(name, kept[name], values[name], bins) for name in kept))


def code(values: Mapping[str, Values], coding: Coding) -> NDArray[np.int32]:
    """The codes of a cohort. Shape ``(patients, columns)``."""
    return np.stack([code_column(values[column.name], column) for column in coding.columns], axis=1)


def common_values(name: str, *columns: Values) -> ColumnCoding:
    """The coding of a category by its most common values in these columns, whose names are kept out of the labels."""
    texts = [column.text.cast(pl.String).rename("value") for column in columns if column.text is not None]
    counted = pl.concat(texts).drop_nulls().value_counts().sort(["count", "value"], descending=[True, False])
    known = tuple(sorted(counted["value"].head(_MOST_VALUES).to_list()))
    labels = tuple(f"{_UNDECLARED} value {at}" for at in range(1, len(known) + 1))
    return ColumnCoding(name=name, labels=(*labels, _UNDECLARED, _MISSING), values=known, edges=None)


def _read(series: pl.Series, column: Any) -> Values:
    if series.dtype.is_float():
        series = series.fill_nan(None)
    missing = series.is_null().to_numpy()
    if isinstance(column, CategoryColumn):
        text = _as_text(series)
        return Values(text=text, number=None, missing=missing, unreadable=np.zeros(len(series), dtype=bool))
    if isinstance(column, BooleanColumn):
        text = _as_boolean(series)
        return Values(text=text, number=None, missing=missing, unreadable=text.is_null().to_numpy() & ~missing)
    number = _as_number(series, column)
    return Values(text=None, number=number, missing=missing, unreadable=~np.isfinite(number) & ~missing)


def _as_text(series: pl.Series) -> pl.Series:
    if series.dtype.is_float():
        whole = series.cast(pl.Int64, strict=False)
        if (whole.cast(pl.Float64) == series).fill_null(value=True).all():
            return whole.cast(pl.String)
    if series.dtype == pl.Null:
        return series.cast(pl.String)
    return series.cast(pl.String, strict=False)


def _as_boolean(series: pl.Series) -> pl.Series:
    lowered = _as_text(series).str.to_lowercase()
    return lowered.replace_strict(
        [*_TRUE, *_FALSE],
        ["true"] * len(_TRUE) + ["false"] * len(_FALSE),
        default=None,
        return_dtype=pl.String,
    )


def _as_number(series: pl.Series, column: Any) -> NDArray[np.float64]:
    if isinstance(column, DateColumn | DatetimeColumn):
        microseconds = _as_datetime(series).cast(pl.Int64).cast(pl.Float64)
        return (microseconds / 86_400e6).fill_null(math.nan).to_numpy().copy()
    if series.dtype.is_temporal():
        return np.full(len(series), math.nan)
    number = series.cast(pl.Float64, strict=False).fill_null(math.nan).to_numpy().copy()
    number[~np.isfinite(number)] = math.nan
    if isinstance(column, IntegerColumn):
        number[number != np.floor(number)] = math.nan
    return number


def _as_datetime(series: pl.Series) -> pl.Series:
    if series.dtype == pl.String:
        parsed = [series.str.to_datetime(form, strict=False, time_unit="us") for form in _DATETIMES]
        day = series.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
        return pl.select(pl.coalesce(*parsed, day)).to_series()
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is not None:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if series.dtype == pl.Date or isinstance(series.dtype, pl.Datetime):
        return series.cast(pl.Datetime("us"))
    return pl.Series(series.name, [None] * len(series), dtype=pl.Datetime("us"))


def _fit_column(name: str, column: Any, values: Values, bins: int) -> ColumnCoding:
    if values.text is not None:
        known = ("false", "true") if isinstance(column, BooleanColumn) else column.values
        if known is None:
            return common_values(name, values)
        return ColumnCoding(name=name, labels=(*known, _UNDECLARED, _MISSING), values=tuple(known), edges=None)
    assert values.number is not None
    edges = _edges(values.number[~np.isnan(values.number)], bins)
    bin_labels = _bin_labels(edges, column)
    return ColumnCoding(name=name, labels=(*bin_labels, _UNDECLARED, _MISSING), values=None, edges=edges)


def _edges(given: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    distinct = np.unique(given)
    if len(distinct) <= bins:
        last = distinct[-1:]
        return np.concatenate([distinct, np.nextafter(last, np.inf)])
    raw = np.unique(np.quantile(given, np.arange(1, bins) / bins, method="inverted_cdf"))
    if len(raw) < 2:
        return np.array([raw[0], np.nextafter(raw[0], np.inf)])
    gaps = np.diff(raw)
    nearest = np.minimum(np.concatenate([gaps, gaps[-1:]]), np.concatenate([gaps[:1], gaps]))
    return np.unique([_simplest(edge, within=gap / 4) for edge, gap in zip(raw, nearest, strict=True)])


def _simplest(number: float, *, within: float) -> float:
    """The number with the fewest digits no further than ``within`` from ``number``."""
    for digits in range(-12, 13):
        rounded = round(float(number), digits) + 0.0  # no minus zero
        if abs(rounded - number) <= within:
            return rounded
    return float(number)


def _bin_labels(edges: NDArray[np.float64], column: Any) -> tuple[str, ...]:
    if len(edges) == 0:
        return ("any",)
    inner = []
    for low, high in itertools.pairwise(edges):
        single = high == np.nextafter(low, np.inf) or (isinstance(column, IntegerColumn) and high - low == 1)
        last = high - 1 if isinstance(column, IntegerColumn) else high
        inner.append(_show(low, column) if single else f"{_show(low, column)} to {_show(last, column)}")
    top = edges[-1]
    closed = len(edges) > 1 and top == np.nextafter(edges[-2], np.inf)
    above = f"above {_show(edges[-2], column)}" if closed else f"{_show(top, column)} or more"
    return (f"below {_show(edges[0], column)}", *inner, above)


def _show(number: float, column: Any) -> str:
    if isinstance(column, DateColumn | DatetimeColumn):
        moment = dt.datetime(1970, 1, 1) + dt.timedelta(days=float(number))
        return moment.date().isoformat() if moment.time() == dt.time() else moment.isoformat(" ", "minutes")
    return f"{number:.6g}"


def code_column(values: Values, column: ColumnCoding) -> NDArray[np.int32]:
    """The codes of one column. Shape ``(rows,)``."""
    if values.text is not None:
        assert column.values is not None
        codes = (
            values.text.replace_strict(
                list(column.values),
                list(range(len(column.values))),
                default=column.undeclared,
                return_dtype=pl.Int32,
            )
            .fill_null(column.undeclared)
            .to_numpy()
            .astype(np.int32)
        )
    else:
        assert values.number is not None and column.edges is not None
        codes = np.searchsorted(column.edges, values.number, side="right").astype(np.int32)
        codes[values.unreadable] = column.undeclared
    codes[values.missing] = column.missing
    return codes
