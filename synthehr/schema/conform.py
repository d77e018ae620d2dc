"""Bring a table as it was read into the types its schema declares, or say which cell does not fit."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import polars as pl

from synthehr.errors import DataError
from synthehr.schema.lineage import above_rows
from synthehr.schema.model import (
    BooleanColumn,
    CategoryColumn,
    Column,
    ConsentColumn,
    DateColumn,
    IdColumn,
    IntegerColumn,
    NumberColumn,
    NumberFormat,
    Schema,
    Table,
    dtype_of,
    is_learned,
    is_read,
)
from synthehr.schema.rules import Rule

__all__ = [
    "MISSING",
    "Broken",
    "Parsed",
    "across_tables",
    "bounds_text",
    "conform",
    "dtype_of",
    "judge",
    "named_as_declared",
    "outside_of_code",
    "parse_column",
    "read_columns",
]

MISSING = ("", "na", "nan", "null", "none", "n/a", "<na>", "nat")
_TRUE = ("true", "t", "yes", "y", "1", "1.0")
_FALSE = ("false", "f", "no", "n", "0", "0.0")
_DATETIME_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
_WHAT_IS_VALID = {
    "boolean": "is none of true, false, yes, no, 1, 0",
    "integer": "is not a whole number",
    "number": "is not a finite number",
    "date": "is not a date written like 2021-05-31",
    "datetime": "is not a time without zone written like 2021-05-31T18:30:00",
    "offset": "is no date written like 2021-05-31 of a patient who has an anchor, nor a whole number of units after it",
    "age": "is no date of birth written like 2021-05-31, and no age in whole years",
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


def conform(
    frame: pl.DataFrame, *, schema: Schema, table: str, lenient: bool = False, numbers: pl.Series | None = None
) -> pl.DataFrame:
    """The declared columns of a table, in the schema's order and types, identifiers and text left out.

    Text such as ``NA`` or ``NaN`` counts as missing, in categories only where it is not a declared value.

    Args:
        frame: the table as it was read; text columns are parsed.
        schema: what is declared.
        table: name of the table.
        lenient: for synthetic records: values out of bounds, undeclared categories, missing values and broken
            rules stand, for the evaluation to count. Types and columns must fit all the same.
        numbers: what each row is called in a message, shape ``(rows,)``; by default they are counted.

    Raises:
        DataError: names table, column, row (counted from 1, header left out) and rule; never the value.
    """
    declared = schema.tables[table]
    named_as_declared(frame.columns, declared=declared, table=table, lenient=lenient)
    if frame.height == 0 and declared.parent is None:
        raise DataError(f"table {table!r} has no rows: it needs at least one")
    conformed, broken = judge(frame, schema=schema, table=table, lenient=lenient)
    for found in broken:
        found.refuse(table=table, numbers=numbers)
    return conformed


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A rule, and the rows of a table that break it.

    Attributes:
        column: the column that the rule is about; None where it is about the whole row.
        rule: what is wrong, and the way out.
        rows: where, shape ``(rows,)``.
    """

    column: str | None
    rule: str
    rows: pl.Series

    def refuse(self, *, table: str, numbers: pl.Series | None = None) -> None:
        """Refuse the first row that breaks the rule, by its number in ``numbers`` or counted from 1.

        Raises:
            DataError: a row does.
        """
        if self.rows.any():
            at = self.rows.fill_null(value=False).arg_max()
            assert at is not None, "any() found one"
            where = f"table {table!r}" if self.column is None else f"column {self.column!r} in table {table!r}"
            raise DataError(f"{where}, row {at + 1 if numbers is None else numbers[at]}: {self.rule}")


def judge(
    frame: pl.DataFrame, *, schema: Schema, table: str, lenient: bool = False
) -> tuple[pl.DataFrame, Iterator[Broken]]:
    """The declared columns of a table as :func:`conform` gives them, and the rules to be broken, one after the other.

    Where a cell is no value of its kind, it is null.
    """
    declared = schema.tables[table]
    limits = schema.age_limits(table)
    parsed = {
        name: _capped(parse_column(frame[name], declared.columns[name]), limits.get(name))
        for name in read_columns(declared)
        if name in frame.columns  # consent of synthetic patients is not
    }
    conformed = pl.DataFrame([column.values for column in parsed.values()])
    return conformed, _broken(conformed, parsed, schema=schema, table=table, lenient=lenient)


def _broken(
    conformed: pl.DataFrame, parsed: Mapping[str, Parsed], *, schema: Schema, table: str, lenient: bool
) -> Iterator[Broken]:
    declared = schema.tables[table]
    for name, found in parsed.items():
        column = declared.columns[name]
        what = _what_is_valid(column)
        yield Broken(column=name, rule=what, rows=found.invalid)
        if not lenient:
            yield from _outside(found.values, column)
    if lenient:
        return
    for name, column in declared.kept.items():
        if isinstance(column, IntegerColumn | NumberColumn) and column.per is not None and column.per_code:
            outside = outside_of_code(conformed[name], conformed[column.per], column)
            yield Broken(column=name, rule=f"lies outside the bounds declared for its {column.per!r}", rows=outside)
    for rule in schema.parsed_rules:
        if rule.table == table and not rule.above:
            yield Broken(column=None, rule=_declared(rule), rows=~rule.holds(conformed))


def across_tables(tables: Mapping[str, pl.DataFrame], *, schema: Schema, table: str) -> Iterator[Broken]:
    """The rules that rows of a table break with what their ancestors hold.

    Args:
        tables: the table and its ancestors as :func:`judge` gives them.
        schema: what is declared.
        table: name of the one that is judged.
    """
    for rule in schema.parsed_rules:
        if rule.table == table and rule.above:
            above = above_rows(tables[table], tables, schema=schema, table=table)
            yield Broken(column=None, rule=_declared(rule), rows=~rule.holds(tables[table], above))


def _declared(rule: Rule) -> str:
    return f"breaks the declared rule {rule.text!r}"


def read_columns(table: Table) -> list[str]:
    """Names of the columns that a cohort has: those that are learned, keys and consent."""
    return [name for name, column in table.columns.items() if is_read(column)]


def named_as_declared(names: list[str], *, declared: Table, table: str, lenient: bool = False) -> None:
    """Check that a table has the columns its schema declares and no others; synthetic patients gave no consent.

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
    if lenient:
        absent = [name for name in absent if not isinstance(declared.columns[name], ConsentColumn)]
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
    if isinstance(column, IdColumn | ConsentColumn | CategoryColumn):
        public = set(column.values or ()) if isinstance(column, CategoryColumn) else set()
        values = _category(series, public=public).alias(raw.name)
        return Parsed(values=values, invalid=pl.repeat(value=False, n=len(raw), eager=True).alias(raw.name))
    if series.dtype == pl.String:
        series = _only_where(~series.str.strip_chars().str.to_lowercase().is_in(MISSING), series.str.strip_chars())
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


def _capped(parsed: Parsed, limit: int | None) -> Parsed:
    return parsed if limit is None else replace(parsed, values=parsed.values.clip(-limit, limit))


def _what_is_valid(column: Column) -> str:
    if isinstance(column, IntegerColumn | NumberColumn) and column.format is not None:
        signs = f"decimal {column.format.decimal!r}, thousands {column.format.thousands or 'not set apart'!r}"
        return f"{_WHAT_IS_VALID[column.kind]} in the declared format ({signs})"
    return _WHAT_IS_VALID.get(column.kind, "holds nested or binary values, which no kind can hold")


def _outside(values: pl.Series, column: Column) -> Iterator[Broken]:
    if isinstance(column, CategoryColumn) and column.values is not None:
        yield Broken(
            column=values.name,
            rule="is none of the declared values: add the value to the schema or correct the record",
            rows=values.is_not_null() & ~values.is_in(list(column.values)),
        )
    bounds = getattr(column, "bounds", None)
    if bounds is not None and not isinstance(bounds, Mapping):
        outside = (values < bounds[0]) | (values > bounds[1])
        yield Broken(column=values.name, rule=f"lies outside the declared bounds {bounds_text(bounds)}", rows=outside)
    if is_learned(column) and not column.nullable:
        rule = "is missing: declare the column nullable or complete the record"
        yield Broken(column=values.name, rule=rule, rows=values.is_null())


def _only_where(condition: pl.Series, values: pl.Series) -> pl.Series:
    return pl.select(pl.when(condition).then(values).alias(values.name)).to_series()


def _category(series: pl.Series, *, public: set[str]) -> pl.Series:
    text = _as_text(series)
    distinct = text.unique().drop_nulls()  # far fewer than rows, most often, and most often as they should be
    tidied = _tidied(distinct, public=public)
    return text if tidied.equals(distinct) else text.replace_strict(distinct, tidied, default=None)


def _tidied(text: pl.Series, *, public: set[str]) -> pl.Series:
    text = text.str.strip_chars()
    if public:  # a reader that met a missing value among whole numbers writes 1 as 1.0
        whole = text.str.replace(r"^([+-]?\d+)\.0+$", "$1")
        known = sorted(public)
        text = pl.select(pl.when(~text.is_in(known) & whole.is_in(known)).then(whole).otherwise(text)).to_series()
    missing = text.str.to_lowercase().is_in(MISSING) & ~text.is_in(sorted(public))
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
        if series.dtype == pl.String and column.format is not None:
            series = _plain_numbers(series, column.format)
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
    if whole and series.dtype.is_integer():
        return series.cast(pl.Int64, strict=False)
    number = series.cast(pl.Float64, strict=False)
    if not number.is_finite().all():
        number = _only_where(number.is_finite(), number)
    if not whole:
        return number
    exact = series.cast(pl.Int64, strict=False)
    exact = _only_where(exact.cast(pl.Float64) == number, exact)  # a cast alone would cut 1.5 to 1
    rounded = _only_where(number == number.round(), number).cast(pl.Int64, strict=False)
    return exact.zip_with(exact.is_not_null(), rounded)


def _plain_numbers(series: pl.Series, form: NumberFormat) -> pl.Series:
    """Numbers written with the declared signs, as they are written without; null where a text is not so written."""
    between = {" ": "[ \u00a0\u202f]", "'": "['\u2019]", None: ""}.get(form.thousands, f"[{form.thousands}]")
    whole = rf"(\d{{1,3}}({between}\d{{3}})+|\d+)" if between else r"\d+"
    written = series.str.contains(rf"^[+-]?({whole}([{form.decimal}]\d*)?|[{form.decimal}]\d+)([eE][+-]?\d+)?$")
    plain = series.str.replace_all(between, "") if between else series
    return _only_where(written, plain.str.replace(form.decimal, ".", literal=True))


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
