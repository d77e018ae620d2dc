"""What a column seems to hold, for the draft of a schema: looked at, not promised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import polars as pl

__all__ = ["Form", "Profile", "outward", "profile"]

Form: TypeAlias = Literal["empty", "boolean", "integer", "number", "date", "datetime", "text", "nested"]

_MISSING = ("", "na", "nan", "null", "none", "n/a", "<na>", "nat", "?")
_TRUTHS = ({"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"0", "1"})
_DAY = "%Y-%m-%d"
_TIMES = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M")
_ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
_FINEST_PLACES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One column as it stands.

    Attributes:
        name: the column.
        form: what all its values are.
        texts: the values as text, null where missing, shape ``(rows,)``.
        distinct: number of distinct values.
        missing: are there any?
        question_marks: does ``?`` stand for missing? No kind of column reads it so.
        bounds: of numbers, rounded outward.
        places: decimal places of numbers; None where there are too many to be a step.
    """

    name: str
    form: Form
    texts: pl.Series
    distinct: int
    missing: bool
    question_marks: bool = False
    bounds: tuple[float, float] | None = None
    places: int | None = None

    @property
    def row_number(self) -> bool:
        """Does it count the rows, from 0 or 1?"""
        if self.form != "integer" or not self.unique:
            return False
        numbers = self.texts.cast(pl.Float64).cast(pl.Int64)
        return bool(numbers[0] in (0, 1) and (numbers.diff().drop_nulls() == 1).all())

    @property
    def unique(self) -> bool:
        """Does each row have a value of its own?"""
        return not self.missing and self.distinct == len(self.texts) > 0


def profile(series: pl.Series) -> Profile:
    """Look at one column, as text or in any type."""
    if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
        nothing = pl.Series(series.name, [None] * len(series), dtype=pl.String)
        return Profile(name=series.name, form="nested", texts=nothing, distinct=0, missing=True)
    text = _text(series)
    lowered = text.str.to_lowercase()
    texts = pl.select(pl.when(~lowered.is_in(_MISSING)).then(text)).to_series().alias(series.name)
    form, numbers = _form(texts)
    bounds, places = None, None
    if form in ("integer", "number") and numbers is not None:
        bounds = outward(float(numbers.min()), float(numbers.max()), whole=form == "integer")  # type: ignore[arg-type]
        places = _places(texts) if form == "number" else 0
    return Profile(
        name=series.name,
        form=form,
        texts=texts,
        distinct=texts.drop_nulls().n_unique(),
        missing=bool(texts.null_count()),
        question_marks=bool((text == "?").any()),
        bounds=bounds,
        places=places,
    )


def outward(least: float, most: float, *, whole: bool) -> tuple[float, float]:
    """Round bounds outward to one digit of their span, down to zero where the least is near, so that none is exact."""
    if not whole and least >= 0.0 and 0.5 < most <= 1.0:  # a share or a probability
        return 0.0, 1.0
    span = max(most - least, abs(most) / 10, 1.0 if whole else 1e-6)
    step = 10.0 ** math.floor(math.log10(span))
    low = math.floor(least / step) * step
    high = math.ceil(most / step) * step
    if high == most:
        high += step
    if low == least and least != 0.0:
        low -= step
    low = 0.0 if least >= 0.0 and (least <= most / 2.0 or low < 0.0) else low
    digits = max(0, -math.floor(math.log10(step))) + 1
    return round(low, digits), round(high, digits)


def _text(series: pl.Series) -> pl.Series:
    if series.dtype == pl.Boolean:
        return series.cast(pl.String)
    if series.dtype.is_float():
        whole = series.cast(pl.Int64, strict=False)
        same = (whole.cast(pl.Float64) == series).fill_null(value=False)
        return pl.select(pl.when(same).then(whole.cast(pl.String)).otherwise(series.cast(pl.String))).to_series()
    if isinstance(series.dtype, pl.Datetime):
        return series.dt.replace_time_zone(None).dt.strftime("%Y-%m-%dT%H:%M:%S")
    return series.cast(pl.String).str.strip_chars()


def _form(texts: pl.Series) -> tuple[Form, pl.Series | None]:
    """What all values are, and as numbers where they are that."""
    values = texts.drop_nulls()
    if values.is_empty():
        return "empty", None
    few = values.unique()
    if len(few) <= 2 and any(set(few.str.to_lowercase()) <= truth for truth in _TRUTHS):
        return "boolean", None
    numbers = few.cast(pl.Float64, strict=False)
    if not numbers.null_count() and numbers.is_finite().all():
        whole = bool((numbers == numbers.round()).all()) and float(numbers.abs().max()) < 2.0**53  # type: ignore[arg-type]
        return ("integer" if whole else "number"), numbers
    if not few.str.to_date(_DAY, strict=False).null_count():
        return "date", None
    clock = few.str.replace(" ", "T", literal=True).str.replace(_ZONE, "")
    times = [pl.lit(clock).str.to_datetime(form, strict=False, time_unit="us") for form in (*_TIMES, _DAY)]
    if few.str.contains(r"^\d{4}-").all() and not pl.select(pl.coalesce(times)).to_series().null_count():
        return "datetime", None
    return "text", None


def _places(texts: pl.Series) -> int | None:
    """Decimal places of numbers written as text; None where there are too many, or an exponent."""
    few = texts.drop_nulls().unique()
    if few.str.contains(r"[eE]").any():
        return None
    behind = few.str.extract(r"\.(\d*?)0*$").str.len_chars().fill_null(0)
    most = max(behind.to_list(), default=0)
    return most if 0 < most <= _FINEST_PLACES else None
