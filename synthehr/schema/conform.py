"""Bring a table as it was read into the types its schema declares, or say which cell does not fit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from synthehr.errors import DataError
from synthehr.schema.model import (
    BooleanColumn,
    CategoryColumn,
    Column,
    DateColumn,
    DroppedColumn,
    IdColumn,
    IntegerColumn,
    NumberColumn,
    Schema,
    Table,
    dtype_of,
)

__all__ = [
    "Parsed",
    "bounds_text",
    "conform",
    "dtype_of",
    "named_as_declared",
    "outside_of_code",
    "parse_column",
    "read_columns",
]

_MISSING = ("", "na", "nan", "null", "none", "n/a", "<na>", "nat")
_TRUE = ("true", "t", "yes", "y", "1", "1.0")
_FALSE = ("false", "f", "no", "n", "0", "0.0")
_DATETIME_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
_WHAT_IS_VALID = {
    "boolean": "is none of true, false, yes, no, 1, 0",
    "integer": "is not a whole number",
    "number": "is not a finite number",
    "date": "is not a date written like 2021-05-31",
    "datetime": "is not a time without zone written like 2021-05-31T18:30:00",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """One column, brought to its type as far as it goes. All shapes ``(rows,)``.

    Attributes:
        values: in the declared type; null where missing or not valid.
        invalid: something stands there that is no value of this kind.
    """

    values: pl.Series
    invalid: pl.Series


def conform(frame: pl.DataFrame, *, schema: Schema, table: str, lenient: bool = False) -> pl.DataFrame:
    """The declared columns of a table, in the schema's order and types, identifiers and text left out.

    Text such as ``NA`` or ``NaN`` counts as missing, in categories only where it is not a declared value.

    Args:
        frame: the table as it was read; text columns are parsed.
        schema: what is declared.
        table: name of the table.
        lenient: for synthetic records: values out of bounds, undeclared categories, missing values and broken
            rules stand, for the evaluation to count. Types and columns must fit all the same.

    Raises:
        DataError: names table, column, row (counted from 1, header left out) and rule; never the value.
    """
    declared = schema.tables[table]
    named_as_declared(frame.columns, declared=declared, table=table)
    if frame.height == 0 and declared.parent is None:
        raise DataError(f"table {table!r} has no rows: it needs at least one")
    columns = []
    for name in read_columns(declared):
        column = declared.columns[name]
        parsed = parse_column(frame[name], column)
        what = _WHAT_IS_VALID.get(column.kind, "holds nested or binary values, which no kind can hold")
        _refuse(parsed.invalid, what, table=table)
        if not lenient:
            _within(parsed.values, column, table=table)
        columns.append(parsed.values)
    conformed = pl.DataFrame(columns)
    if not lenient:
        for name, column in declared.kept.items():
            if isinstance(column, IntegerColumn | NumberColumn) and column.per is not None and column.per_code:
                outside = outside_of_code(conformed[name], conformed[column.per], column)
                _refuse(outside, f"lies outside the bounds declared for its {column.per!r}", table=table)
        for rule in schema.parsed_rules:
            if rule.table == table:
                _refuse(
                    ~rule.holds(conformed),
                    f"breaks the declared rule {rule.text!r}",
                    table=table,
                    whole_row=True,
                )
    return conformed


def read_columns(table: Table) -> list[str]:
    """Names of the columns that are read: all that are declared but identifiers and text."""
    return [name for name, column in table.columns.items() if not isinstance(column, DroppedColumn)]


def named_as_declared(names: list[str], *, declared: Table, table: str) -> None:
    """Check that a table has the columns its schema declares and no others.

    Raises:
        DataError: a column is absent or not declared.
    """
    unknown = [name for name in names if name not in declared.columns]
    if unknown:
        raise DataError(
            f"column {unknown[0]!r} in table {table!r} is not declared: "
            "declare it in the schema (kind identifier or text drops it)"
        )
    absent = [name for name in read_columns(declared) if name not in names]
    if absent:
        raise DataError(f"column {absent[0]!r} is declared for table {table!r} but is not in the data")


def parse_column(raw: pl.Series, column: Column) -> Parsed:
    """Parse one column, as text or as any polars type, into its declared type."""
    dtype = dtype_of(column)
    if raw.dtype.is_nested() or raw.dtype in (pl.Binary, pl.Object):
        nothing = pl.Series(raw.name, [None] * len(raw), dtype=dtype)
        return Parsed(values=nothing, invalid=pl.Series(raw.name, [True] * len(raw), dtype=pl.Boolean))
    series = raw.cast(pl.String) if raw.dtype in (pl.Categorical, pl.Enum, pl.Null) else raw
    if series.dtype.is_float():
        series = series.fill_nan(None)
    if isinstance(column, IdColumn | CategoryColumn):
        public = set(column.values or ()) if isinstance(column, CategoryColumn) else set()
        values = _category(series, public=public).alias(raw.name)
        return Parsed(values=values, invalid=pl.Series(raw.name, [False] * len(raw), dtype=pl.Boolean))
    if series.dtype == pl.String:
        series = _only_where(~series.str.strip_chars().str.to_lowercase().is_in(_MISSING), series.str.strip_chars())
    values = _parse(series, column).cast(dtype).alias(raw.name)
    return Parsed(values=values, invalid=(series.is_not_null() & values.is_null()).alias(raw.name))


def bounds_text(bounds: tuple[object, object]) -> str:
    """Declared bounds as a person wrote them, for example ``[0, 120]``."""
    lower, upper = (
        b.isoformat() if isinstance(b, dt.date) else str(int(b) if isinstance(b, float) and b.is_integer() else b)
        for b in bounds
    )
    return f"[{lower}, {upper}]"


def outside_of_code(values: pl.Series, codes: pl.Series, column: IntegerColumn | NumberColumn) -> pl.Series:
    """Where a value lies outside the bounds of its row's code, shape ``(rows,)``; a missing value never does.

    A value without a code, or with one that is not declared, must lie within the bounds of some code or between them:
    nothing says which it is measured by.
    """
    around = column.bounds_of(None)
    assert around is not None, "asked of columns with bounds by code alone"
    text, known = codes.cast(pl.String), list(column.per_code)

    def limit(end: int) -> pl.Series:
        limits = [column.per_code[code][end] for code in known]
        found = text.replace_strict(known, limits, default=None, return_dtype=values.dtype)
        return found.fill_null(around[end])

    return ((values < limit(0)) | (values > limit(1))).fill_null(value=False).alias(values.name)


def _refuse(bad: pl.Series, rule: str, *, table: str, whole_row: bool = False) -> None:
    if bad.any():
        at = bad.fill_null(value=False).arg_max()
        assert at is not None, "any() found one"
        where = f"table {table!r}" if whole_row else f"column {bad.name!r} in table {table!r}"
        raise DataError(f"{where}, row {at + 1}: {rule}")


def _within(values: pl.Series, column: Column, *, table: str) -> None:
    if isinstance(column, CategoryColumn) and column.values is not None:
        _refuse(
            values.is_not_null() & ~values.is_in(list(column.values)),
            "is none of the declared values: add the value to the schema or correct the record",
            table=table,
        )
    bounds = getattr(column, "bounds", None)
    if bounds is not None and not isinstance(bounds, Mapping):
        outside = (values < bounds[0]) | (values > bounds[1])
        _refuse(outside, f"lies outside the declared bounds {bounds_text(bounds)}", table=table)
    if not isinstance(column, IdColumn | DroppedColumn) and not column.nullable:
        _refuse(values.is_null(), "is missing: declare the column nullable or complete the record", table=table)


def _only_where(condition: pl.Series, values: pl.Series) -> pl.Series:
    return pl.select(pl.when(condition).then(values).alias(values.name)).to_series()


def _category(series: pl.Series, *, public: set[str]) -> pl.Series:
    text = _as_text(series).str.strip_chars()
    if public:  # a reader that met a missing value among whole numbers writes 1 as 1.0
        whole = text.str.replace(r"^([+-]?\d+)\.0+$", "$1")
        known = sorted(public)
        text = pl.select(pl.when(~text.is_in(known) & whole.is_in(known)).then(whole).otherwise(text)).to_series()
    missing = text.str.to_lowercase().is_in(_MISSING) & ~text.is_in(sorted(public))
    return _only_where(~missing, text)


def _as_text(series: pl.Series) -> pl.Series:
    if not series.dtype.is_float():
        return series.cast(pl.String)
    whole = series.cast(pl.Int64, strict=False)
    same = whole.cast(pl.Float64) == series
    return pl.select(pl.when(same).then(whole.cast(pl.String)).otherwise(series.cast(pl.String))).to_series()


def _parse(series: pl.Series, column: Column) -> pl.Series:
    """Values in the column's type, null where there are none."""
    if isinstance(column, BooleanColumn):
        return _truth(series)
    if isinstance(column, IntegerColumn | NumberColumn):
        return _numbers(series, whole=isinstance(column, IntegerColumn))
    return _times(series, day=isinstance(column, DateColumn))


def _truth(series: pl.Series) -> pl.Series:
    if series.dtype == pl.Boolean:
        return series
    lowered = _as_text(series).str.to_lowercase()
    yes, no = lowered.is_in(_TRUE), lowered.is_in(_FALSE)
    return pl.select(pl.when(yes | no).then(yes)).to_series()


def _numbers(series: pl.Series, *, whole: bool) -> pl.Series:
    if series.dtype.is_temporal() or series.dtype == pl.Boolean:
        return pl.Series([None] * len(series), dtype=pl.Float64)
    number = series.cast(pl.Float64, strict=False)
    number = _only_where(number.is_finite(), number)
    if not whole:
        return number
    exact = series.cast(pl.Int64, strict=False)
    exact = _only_where(exact.cast(pl.Float64) == number, exact)  # a cast alone would cut 1.5 to 1
    rounded = _only_where(number == number.round(), number).cast(pl.Int64, strict=False)
    return exact.zip_with(exact.is_not_null(), rounded)


def _times(series: pl.Series, *, day: bool) -> pl.Series:
    if series.dtype == pl.String:
        parsed = _first_format(series.str.replace(" ", "T", literal=True), formats=_DATETIME_FORMATS)
    elif series.dtype == pl.Date or (isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is None):
        parsed = series.cast(pl.Datetime("us"))
    else:
        return pl.Series([None] * len(series), dtype=pl.Datetime("us"))
    if day:  # a time of day would be lost
        parsed = _only_where(parsed.cast(pl.Date).cast(pl.Datetime("us")) == parsed, parsed)
    return parsed


def _first_format(text: pl.Series, *, formats: tuple[str, ...]) -> pl.Series:
    """Times read by the first of the formats that fits each; no format is guessed from the data."""
    tries = [pl.lit(text).str.to_datetime(form, strict=False, time_unit="us") for form in formats]
    return pl.select(pl.coalesce(tries)).to_series()
