"""What of a schema a fit may take for public: all of a reviewed one, of a draft only the design of the tables."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from synthehr.cohort import Cohort
from synthehr.errors import SchemaError
from synthehr.schema.columns import CategoryColumn, Column, DateColumn, DatetimeColumn, IntegerColumn, NumberColumn
from synthehr.schema.model import Schema

__all__ = ["capped", "for_release", "public_part"]


def public_part(schema: Schema) -> Schema:
    """The schema that a fit works under: of a draft that no person reviewed, without what was read off the records.

    Bounds, sets of values and steps of rounding are left out, so that they are bought from the budget, and every column
    may be missing. Names, kinds, keys, links, units and what an offset or age counts from are taken as the design of
    the tables, as those in SDV's metadata are. A reviewed schema is returned as it is.

    Raises:
        SchemaError: a draft has a calendar date, whose range cannot be bought.
    """
    if schema.reviewed:
        return schema
    return _with_columns(schema, _without_what_was_read)


def capped(schema: Schema, *, years: int | None) -> Schema:
    """The schema under which ages, and spans of time, of ``years`` and more are read as ``years``.

    A cap that the schema has already stays where it is lower. Bounds are drawn in to the cap, and where there are none,
    the cap on either side is one that need not be bought. ``None`` caps nothing.
    """
    if years is None or (schema.cap_age is not None and schema.cap_age <= years):
        return schema
    open_schema = schema.model_copy(update={"cap_age": years})

    def tightened(table: str, name: str, column: Column) -> Column:
        limit = open_schema.age_limits(table).get(name)
        bounds = getattr(column, "bounds", None)
        if limit is None or (bounds is not None and max(map(abs, bounds)) <= limit):
            return column
        bounds = bounds or (-limit, limit)  # public: nothing beyond passes
        return column.model_copy(update={"bounds": (max(bounds[0], -limit), min(bounds[1], limit))})

    return _with_columns(open_schema, tightened)


def for_release(cohort: Cohort[Schema], *, cap_age: int | None) -> Cohort[Schema]:
    """The cohort under the public part of its schema, with ages capped; the same where nothing of that changes it."""
    schema = capped(public_part(cohort.schema), years=cap_age)
    if schema == cohort.schema:
        return cohort
    tables = {
        name: frame.with_columns(
            pl.col(column).clip(-limit, limit) for column, limit in schema.age_limits(name).items()
        )
        for name, frame in cohort.tables.items()
    }
    return Cohort(tables, schema=schema)


def _without_what_was_read(table: str, name: str, column: Column) -> Column:
    if isinstance(column, DateColumn | DatetimeColumn):
        raise SchemaError(
            f"column {name!r} in table {table!r} is a calendar date in a draft that is not reviewed, and its range "
            "cannot be bought: declare it of kind offset, or review the draft and set reviewed: true"
        )
    match column:
        case CategoryColumn():
            left_out = {"values": None, "discover": True}
        case NumberColumn():
            left_out = {"bounds": None, "precision": None}
        case IntegerColumn():
            left_out = {"bounds": None}
        case _:
            left_out = {}
    if "nullable" in type(column).model_fields:
        left_out["nullable"] = True
    return column.model_copy(update=left_out)


def _with_columns(schema: Schema, change: Callable[[str, str, Column], Column]) -> Schema:
    """The schema with each column as ``change`` makes it, checked as a whole."""
    tables = {
        name: table.model_copy(update={"columns": {n: change(name, n, c) for n, c in table.columns.items()}})
        for name, table in schema.tables.items()
    }
    return Schema.model_validate(schema.model_copy(update={"tables": tables}).model_dump())
