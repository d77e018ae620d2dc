"""Cells of a view's rows as typed columns, each cell held to the type that its column declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

__all__ = ["MOST_BYTES_OF_TEXT", "TOO_LONG", "WRONG_SHAPE", "column_of", "dtype_of_fhir", "longest_text", "too_long"]

WRONG_SHAPE = "has an element of the wrong type"
TOO_LONG = "has text longer than 64 KiB where a code, key or word belongs"
MOST_BYTES_OF_TEXT = 1 << 16

_DTYPES: dict[str, pl.DataType] = {
    "boolean": pl.Boolean(),
    "integer": pl.Int64(),
    "positiveInt": pl.Int64(),
    "unsignedInt": pl.Int64(),
    "integer64": pl.Int64(),
    "decimal": pl.Float64(),
}


def dtype_of_fhir(kind: str | None) -> pl.DataType:
    """The polars type of a view's column of this FHIR type."""
    return _DTYPES.get(kind or "", pl.String())


def column_of(
    name: str, cells: Sequence[Any], dtype: pl.DataType, *, at: Sequence[int], wrong: dict[int, str]
) -> pl.Series:
    """Cells as a column; where one does not fit its type, its resource is put into ``wrong``."""
    try:
        series = pl.Series(name, cells, dtype=dtype, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        kept: list[Any] = []
        for number, cell in zip(at, cells, strict=True):
            fits = cell is None or _fits(cell, dtype)
            kept.append(cell if fits else None)
            if not fits:
                wrong[number] = WRONG_SHAPE
        series = pl.Series(name, kept, dtype=dtype, strict=True)
    return series


def longest_text(frame: pl.DataFrame) -> int:
    """Bytes of the longest text in a frame."""
    lengths = frame.select(pl.col(pl.String).str.len_bytes().max())
    return max((length for length in lengths.row(0) if length is not None), default=0) if lengths.width else 0


def too_long(series: pl.Series, *, at: Sequence[int]) -> dict[int, str]:
    """The resources whose cell in a column of text is longer than a code, key or word can be."""
    where = series.str.len_bytes() > MOST_BYTES_OF_TEXT
    return dict.fromkeys((number for number, long in zip(at, where, strict=True) if long), TOO_LONG)


def _fits(cell: Any, dtype: pl.DataType) -> bool:
    if dtype == pl.Boolean:
        return isinstance(cell, bool)
    if dtype == pl.Int64:
        return isinstance(cell, int) and not isinstance(cell, bool) and -(2**63) <= cell < 2**63
    if dtype == pl.Float64:
        return isinstance(cell, int | float) and not isinstance(cell, bool) and abs(cell) < 1e300
    return isinstance(cell, str)
