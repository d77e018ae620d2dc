"""The kinds of columns: what each may hold, and which of it is public."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeGuard

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

__all__ = [
    "AgeColumn",
    "AnchorColumn",
    "BooleanColumn",
    "CategoryColumn",
    "CodeColumn",
    "Column",
    "ConsentColumn",
    "DateColumn",
    "DatetimeColumn",
    "DroppedColumn",
    "IdColumn",
    "IntegerColumn",
    "Learned",
    "NumberColumn",
    "NumberFormat",
    "OffsetColumn",
    "Part",
    "dtype_of",
    "is_learned",
    "is_read",
    "number",
]

_LARGEST_WHOLE = 2**53


def number(value: object) -> object:
    """Refuse what pydantic would turn into a number: text and truth values."""
    if isinstance(value, bool | str):
        raise ValueError("must be a number, without quotes")  # noqa: TRY004 - pydantic reports ValueError alone
    return value


def _text_of(value: object) -> str:
    """A category's value as the text that it is in the data."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value in (math.inf, -math.inf):
        raise ValueError(f"a value must be text or a number, not {value!r}: put it in quotes")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


Whole = Annotated[int, BeforeValidator(number)]
Real = Annotated[float, BeforeValidator(number)]


class Part(BaseModel):
    """A part of a schema file: keys that are not known are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Column(Part):
    nullable: bool = Field(default=False, description="May the value be missing?")
    description: str | None = Field(default=None, description="What the column means, for people.")


class IdColumn(Part):
    """A key: dropped before anything is learned, and made anew for synthetic patients."""

    kind: Literal["id"]
    references: str | None = Field(
        default=None,
        description="Another table of the same patient whose key the column holds, or is empty. Synthetic rows refer "
        "as often, to the row that is there at the time.",
    )
    description: str | None = None


class DroppedColumn(Part):
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


class NumberFormat(Part):
    """How numbers are written where the records are text, for example ``1.234,5``."""

    decimal: Literal[".", ","] = Field(default=".", description="Sign before the fraction.")
    thousands: Literal[".", ",", " ", "'"] | None = Field(
        default=None, description="Sign between groups of three digits; a space stands for narrow and fixed ones too."
    )

    @model_validator(mode="after")
    def _two_signs(self) -> NumberFormat:
        if self.decimal == self.thousands:
            raise ValueError(f"decimal and thousands must be two signs, not {self.decimal!r} twice")
        return self


class _Measured(_Column):
    """A number, whose meaning may depend on a code in the same row."""

    format: NumberFormat | None = Field(default=None, description="How it is written where the records are text.")

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


class AnchorColumn(Part):
    """The day that a patient's times count from, for example of birth: read for that alone, then dropped."""

    kind: Literal["anchor"]
    of: Literal["date", "datetime"] = Field(default="date", description="What stands in the records.")
    description: str | None = None


class ConsentColumn(Part):
    """Whether the patient's records may be used: asked when they are read, never learned."""

    kind: Literal["consent"]
    opt_out: tuple[str, ...] | None = Field(default=None, description="Patients with one of these are left out.")
    opt_in: tuple[str, ...] | None = Field(default=None, description="Patients with none of these are left out.")
    description: str | None = None

    @field_validator("opt_out", "opt_in", mode="before", json_schema_input_type=list[str | int | float | bool] | None)
    @classmethod
    def _as_text(cls, values: object) -> object:
        if not isinstance(values, list | tuple):
            return values
        if not values:
            raise ValueError("needs at least one value")
        return tuple(str(v).lower() if isinstance(v, bool) else _text_of(v) for v in values)

    @model_validator(mode="after")
    def _one_rule(self) -> ConsentColumn:
        if (self.opt_out is None) == (self.opt_in is None):
            raise ValueError("a consent column needs either opt_out or opt_in, a list of values")
        return self


class OffsetColumn(IntegerColumn):
    """A date or time, read as how long after the patient's anchor it was, and written on a made-up calendar.

    ``bounds`` are in ``unit``; without them the range is bought.
    """

    kind: Literal["offset"]  # type: ignore[assignment]
    of: Literal["date", "datetime"] = Field(default="date", description="What stands in the records.")
    unit: Literal["d", "h", "min"] = Field(default="d", description="Whole days, hours or minutes.")
    per: None = Field(default=None, description="An offset depends on no code.")


class AgeColumn(IntegerColumn):
    """A date of birth, read as the age in whole years on a public day; other times count from the birth.

    Whoever was born after that day has a negative age.
    """

    kind: Literal["age"]  # type: ignore[assignment]
    at: dt.date = Field(description="The day on which the age is taken, for example that of the extract.")
    unit: Literal["a"] = Field(default="a", description="Years.")
    per: None = Field(default=None, description="An age depends on no code.")


Column = Annotated[
    IdColumn
    | DroppedColumn
    | CategoryColumn
    | CodeColumn
    | BooleanColumn
    | IntegerColumn
    | NumberColumn
    | DateColumn
    | DatetimeColumn
    | OffsetColumn
    | AgeColumn
    | AnchorColumn
    | ConsentColumn,
    Field(discriminator="kind"),
]


Learned: TypeAlias = (
    CategoryColumn
    | CodeColumn
    | BooleanColumn
    | IntegerColumn
    | NumberColumn
    | DateColumn
    | DatetimeColumn
    | OffsetColumn
    | AgeColumn
)


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


def is_learned(column: Column) -> TypeGuard[Learned]:
    """Whether a model learns the column: all but keys, identifiers, text, anchors and consent."""
    return not isinstance(column, IdColumn | DroppedColumn | AnchorColumn | ConsentColumn)


def is_read(column: Column) -> bool:
    """Whether the column is in a cohort: what is learned, keys and consent."""
    return not isinstance(column, DroppedColumn | AnchorColumn)
