"""The schema language: what tables hold, which of it is public, and which rules it obeys."""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import polars as pl
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from synthehr.cohort import TableLink
from synthehr.schema.rules import Rule, parse_rule

__all__ = [
    "BooleanColumn",
    "CategoryColumn",
    "CodeColumn",
    "Column",
    "DateColumn",
    "DatetimeColumn",
    "DroppedColumn",
    "IdColumn",
    "IntegerColumn",
    "NumberColumn",
    "Schema",
    "Table",
    "dtype_of",
]

_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_LARGEST_WHOLE = 2**53


def _number(value: object) -> object:
    """Refuse what pydantic would turn into a number: text and truth values."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number, without quotes")  # noqa: TRY004 - pydantic reports ValueError alone
    return value


def _text_of(value: object) -> str:
    """A category's value as the text that it is in the data."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value in (math.inf, -math.inf):
        raise ValueError(f"a value must be text or a number, not {value!r}: put it in quotes")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Column(_Part):
    nullable: bool = Field(default=False, description="May the value be missing?")
    description: str | None = Field(default=None, description="What the column means, for people.")


class IdColumn(_Part):
    """A key: dropped before anything is learned, and made anew for synthetic patients."""

    kind: Literal["id"]
    description: str | None = None


class DroppedColumn(_Part):
    """A direct identifier or free text: dropped when the records are read, never read further."""

    kind: Literal["identifier", "text"]
    description: str | None = None


class CategoryColumn(_Column):
    """One of a set of values. Without ``values`` the set is bought from the budget."""

    kind: Literal["category"]
    values: tuple[str, ...] | None = Field(default=None, description="The public set of values.")
    discover: bool = Field(default=False, description="Buy the set of values with budget.")

    @field_validator("values", mode="before", json_schema_input_type=list[str | int | float] | None)
    @classmethod
    def _as_text(cls, values: object) -> object:
        if not isinstance(values, list | tuple):
            return values
        texts = tuple(_text_of(value) for value in values)
        if not texts:
            raise ValueError("needs at least one value; leave it out to have the set bought")
        for text in texts:
            if not text or text != text.strip():
                raise ValueError(f"value {text!r} is empty or has spaces around it, which records lose when read")
        repeated = sorted({text for text in texts if texts.count(text) > 1})
        if repeated:
            raise ValueError(f"value {repeated[0]!r} stands twice")
        return texts

    @model_validator(mode="after")
    def _one_source(self) -> CategoryColumn:
        if self.discover and self.values is not None:
            raise ValueError("'values' and 'discover: true' exclude each other: keep one")
        return self


class CodeColumn(CategoryColumn):
    """A category whose values are codes of a terminology."""

    kind: Literal["code"]  # type: ignore[assignment]
    system: str = Field(description="The terminology, for example http://loinc.org.")


class BooleanColumn(_Column):
    """True or false."""

    kind: Literal["boolean"]


class _Bounded(_Column):
    @model_validator(mode="after")
    def _ordered(self) -> _Bounded:
        bounds = getattr(self, "bounds", None)
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"bounds must be [lower, upper] with lower below upper, not [{bounds[0]}, {bounds[1]}]")
        return self


def _kind_of_bounds(bounds: object) -> str:
    return "per_code" if isinstance(bounds, Mapping) else "all"


def _with_text_keys(bounds: object) -> object:
    """Bounds by code with codes as the text that they are in the data."""
    if not isinstance(bounds, Mapping):
        return bounds
    codes = [_text_of(code) for code in bounds]
    repeated = sorted({code for code in codes if codes.count(code) > 1})
    if repeated:
        raise ValueError(f"value {repeated[0]!r} stands twice")
    return dict(zip(codes, bounds.values(), strict=True))


WholeBounds = Annotated[
    Annotated[tuple[Whole, Whole], Tag("all")]
    | Annotated[dict[str, tuple[Whole, Whole]], BeforeValidator(_with_text_keys), Tag("per_code")],
    Discriminator(_kind_of_bounds),
]
RealBounds = Annotated[
    Annotated[tuple[Real, Real], Tag("all")]
    | Annotated[dict[str, tuple[Real, Real]], BeforeValidator(_with_text_keys), Tag("per_code")],
    Discriminator(_kind_of_bounds),
]
_BOUNDS = "Public [lower, upper], both included; with 'per', one for all codes or one for each."
_PER = "The category or code column that the value depends on, for example the test of a lab value."


class _Measured(_Column):
    """A number, whose meaning may depend on a code in the same row."""

    @property
    def per_code(self) -> Mapping[str, tuple[float, float]]:
        """Declared bounds by code; empty where there is one pair for all, or none."""
        bounds = getattr(self, "bounds", None)
        return bounds if isinstance(bounds, Mapping) else {}

    def bounds_of(self, code: str | None) -> tuple[float, float] | None:
        """Declared bounds of a value with this code; where it is missing or not declared, those around all codes."""
        if not self.per_code:
            return getattr(self, "bounds", None)
        around = min(low for low, _ in self.per_code.values()), max(high for _, high in self.per_code.values())
        return around if code is None else self.per_code.get(code, around)

    @model_validator(mode="after")
    def _ordered_per_code(self) -> _Measured:
        bounds = getattr(self, "bounds", None)
        if self.per_code and getattr(self, "per", None) is None:
            raise ValueError("bounds by code need 'per', the column of the code")
        if isinstance(bounds, Mapping) and not bounds:
            raise ValueError("bounds by code must name at least one code; leave them out to have ranges bought")
        for of, (lower, upper) in _each(bounds):
            if not lower < upper:
                raise ValueError(f"bounds{of} must be [lower, upper] with lower below upper, not [{lower}, {upper}]")
        return self


def _each(bounds: Any) -> Iterator[tuple[str, tuple[float, float]]]:
    """Each pair of bounds, with words for the code that it is of."""
    if isinstance(bounds, Mapping):
        yield from ((f" of {code!r}", pair) for code, pair in bounds.items())
    elif bounds is not None:
        yield "", bounds


class IntegerColumn(_Measured):
    """A whole number. Without ``bounds`` its range is bought from the budget."""

    kind: Literal["integer"]
    bounds: WholeBounds | None = Field(default=None, description=_BOUNDS)
    per: str | None = Field(default=None, description=_PER)
    unit: str | None = Field(default=None, description="UCUM unit.")

    @field_validator("bounds")
    @classmethod
    def _exact(cls, bounds: WholeBounds | None) -> WholeBounds | None:
        for of, pair in _each(bounds):
            if max(map(abs, pair)) > _LARGEST_WHOLE:
                raise ValueError(
                    f"bounds{of} must lie within 2**53 of zero: declare larger numbers as kind id or category"
                )
        return bounds


class NumberColumn(_Measured):
    """A real number. Without ``bounds`` its range is bought from the budget."""

    kind: Literal["number"]
    bounds: RealBounds | None = Field(default=None, description=_BOUNDS)
    per: str | None = Field(default=None, description=_PER)
    unit: str | None = Field(default=None, description="UCUM unit.")
    precision: Real | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="Step to which values are rounded."
    )

    @field_validator("bounds")
    @classmethod
    def _finite(cls, bounds: RealBounds | None) -> RealBounds | None:
        for of, pair in _each(bounds):
            if not math.isfinite(pair[1] - pair[0]):
                raise ValueError(f"bounds{of} must be finite numbers a finite distance apart")
        return bounds

    @model_validator(mode="after")
    def _precise(self) -> NumberColumn:
        for of, (lower, upper) in _each(self.bounds):
            if self.precision is not None and self.precision > upper - lower:
                raise ValueError(f"precision must be no wider than the bounds{of}")
        return self


class DateColumn(_Bounded):
    """A calendar date within public bounds."""

    kind: Literal["date"]
    bounds: tuple[dt.date, dt.date] = Field(description="Public [first, last], both included.")


class DatetimeColumn(_Bounded):
    """A point in time, without zone, within public bounds; learned to the minute."""

    kind: Literal["datetime"]
    bounds: tuple[dt.datetime, dt.datetime] = Field(description="Public [first, last], both included.")

    @field_validator("bounds")
    @classmethod
    def _naive(cls, bounds: tuple[dt.datetime, dt.datetime]) -> tuple[dt.datetime, dt.datetime]:
        if any(b.tzinfo is not None for b in bounds):
            raise ValueError("bounds must carry no time zone")
        return bounds


Column = Annotated[
    IdColumn
    | DroppedColumn
    | CategoryColumn
    | CodeColumn
    | BooleanColumn
    | IntegerColumn
    | NumberColumn
    | DateColumn
    | DatetimeColumn,
    Field(discriminator="kind"),
]


def dtype_of(column: Column) -> pl.DataType:
    """The polars type in which a column of this kind is held."""
    match column:
        case BooleanColumn():
            return pl.Boolean()
        case IntegerColumn():
            return pl.Int64()
        case NumberColumn():
            return pl.Float64()
        case DateColumn():
            return pl.Date()
        case DatetimeColumn():
            return pl.Datetime("us")
        case _:
            return pl.String()


class Table(_Part):
    """One table: its columns and how it hangs from its parent."""

    columns: dict[str, Column] = Field(min_length=1)
    key: str | None = Field(default=None, description="Column that names each row once.")
    parent: str | None = Field(default=None, description="Table that this table's rows belong to.")
    foreign_key: str | None = Field(default=None, description="Column that holds the parent's key.")
    order_by: str | None = Field(default=None, description="Column that orders a patient's rows.")
    max_rows: int | None = Field(default=None, ge=1, description="Rows kept per patient.")
    outcome: tuple[str, ...] = Field(default=(), description="Columns that utility is measured on.")
    groups: tuple[str, ...] = Field(default=(), description="Columns that make subgroups for fairness.")

    @field_validator("outcome", "groups", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _one_or_many(cls, names: object) -> object:
        return (names,) if isinstance(names, str) else names

    @field_validator("columns")
    @classmethod
    def _printable(cls, columns: dict[str, Column]) -> dict[str, Column]:
        for name in columns:
            if not name.strip() or not name.isprintable():
                raise ValueError(f"column name {name!r} must be printable text on one line")
        return columns

    @model_validator(mode="after")
    def _names_exist(self) -> Table:
        for option in ("key", "foreign_key", "order_by"):
            name = getattr(self, option)
            if name is not None and name not in self.columns:
                raise ValueError(f"{option} names column {name!r}, which is not declared under columns")
        for option in ("key", "foreign_key"):
            name = getattr(self, option)
            if name is not None and not isinstance(self.columns[name], IdColumn):
                raise ValueError(f"{option} column {name!r} must be of kind id")
        if self.order_by is not None and self.order_by not in self.kept:
            raise ValueError(f"order_by names {self.order_by!r}, which is not a column that is kept")
        for option in ("outcome", "groups"):
            for name in getattr(self, option):
                if name not in self.kept:
                    raise ValueError(f"{option} names {name!r}, which is not a column that is kept")
        return self

    @model_validator(mode="after")
    def _codes_exist(self) -> Table:
        for name, column in self.columns.items():
            if isinstance(column, IntegerColumn | NumberColumn) and column.per is not None:
                self._check_per(name, column, self.columns.get(column.per))
        return self

    def _check_per(self, name: str, column: IntegerColumn | NumberColumn, code: Column | None) -> None:
        if not isinstance(code, CategoryColumn):
            what = f"column {name!r} has per {column.per!r}, which is not a category or code column of this table"
            raise ValueError(what)  # noqa: TRY004 - pydantic reports ValueError alone
        if not column.per_code:
            return
        if code.values is None:
            raise ValueError(f"column {name!r} has bounds by code, so that {column.per!r} must declare its values")
        for known in column.per_code:
            if known not in code.values:
                raise ValueError(f"column {name!r} has bounds of {known!r}, which is no value of {column.per!r}")
        for known in code.values:
            if known not in column.per_code:
                raise ValueError(f"column {name!r} lacks bounds of {known!r}, a value of {column.per!r}")

    @property
    def kept(self) -> dict[str, Column]:
        """The columns that are learned: all but keys, identifiers and text."""
        return {n: c for n, c in self.columns.items() if not isinstance(c, IdColumn | DroppedColumn)}


class Schema(BaseModel):
    """A set of tables around one privacy unit, the subject."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    synthehr: Annotated[Literal[1], BeforeValidator(_number)] = Field(description="Version of the schema language.")
    subject: str = Field(description="The root table: one row per patient, the privacy unit.")
    tables: dict[str, Table] = Field(min_length=1)
    rules: tuple[str, ...] = Field(default=(), description="Public conditions that every row meets.")

    @model_validator(mode="after")
    def _tree(self) -> Schema:
        if self.subject not in self.tables:
            raise ValueError(f"subject names table {self.subject!r}, which is not declared under tables")
        for name, table in self.tables.items():
            if not _TABLE_NAME.fullmatch(name):
                raise ValueError(f"table name {name!r} must be letters, digits, _ and -, since it names a file")
            if name == self.subject:
                if table.parent is not None or table.foreign_key is not None:
                    raise ValueError(f"table {name!r} is the subject and cannot have a parent")
                continue
            if table.parent is None or table.foreign_key is None:
                raise ValueError(f"table {name!r} needs parent and foreign_key, which lead to the subject")
            if table.parent not in self.tables:
                raise ValueError(f"table {name!r} has parent {table.parent!r}, which is not declared")
            if self.tables[table.parent].key is None:
                raise ValueError(f"table {table.parent!r} needs a key, since {name!r} points to it")
            seen = {name}
            up: str | None = table.parent
            while up in self.tables:
                if up in seen:
                    raise ValueError(f"table {name!r} is its own ancestor")
                seen.add(up)
                up = self.tables[up].parent
        if not self.tables[self.subject].kept:
            raise ValueError(f"table {self.subject!r} has no column to learn: all are ids, identifiers or text")
        _ = self.parsed_rules
        return self

    @cached_property
    def links(self) -> dict[str, TableLink]:
        """The link of every table, by name."""
        return {
            name: TableLink(key=t.key, parent=t.parent, foreign_key=t.foreign_key, order_by=t.order_by)
            for name, t in self.tables.items()
        }

    @cached_property
    def parsed_rules(self) -> tuple[Rule, ...]:
        """The rules, parsed and tied to their table."""
        return tuple(self.condition(text) for text in self.rules)

    def condition(self, text: str) -> Rule:
        """Parse a condition on the rows of one table: a rule, or what ``--where`` asks for.

        Raises:
            ValueError: the text is no condition over kept columns of one table, in their declared types.
        """
        kept = {name: {n: dtype_of(c) for n, c in table.kept.items()} for name, table in self.tables.items()}
        return parse_rule(text, columns=kept, default=self.subject)

    @property
    def root(self) -> Table:
        """The subject's table."""
        return self.tables[self.subject]
