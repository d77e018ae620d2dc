"""The schema language: what tables hold, which of it is public, and which rules it obeys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from synthehr.cohort import TableLink
from synthehr.schema.ages import age_limit
from synthehr.schema.columns import (
    AgeColumn,
    AnchorColumn,
    BooleanColumn,
    CategoryColumn,
    CodeColumn,
    Column,
    ConsentColumn,
    DateColumn,
    DatetimeColumn,
    DroppedColumn,
    IdColumn,
    IntegerColumn,
    NumberColumn,
    NumberFormat,
    OffsetColumn,
    Part,
    dtype_of,
    is_learned,
    is_read,
    number,
)
from synthehr.schema.rules import Rule, parse_rule

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
    "NumberColumn",
    "NumberFormat",
    "OffsetColumn",
    "Schema",
    "Table",
    "dtype_of",
    "is_learned",
    "is_read",
]

_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_SOURCE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(/[A-Za-z_][A-Za-z0-9_-]*)*")


class Survival(Part):
    """An outcome with a time: how long each patient was followed, and whether the event ended it."""

    time: str = Field(description="Column of the time until the event or the end of follow-up, 0 or more.")
    event: str = Field(description="Boolean column: true where the event was seen, false where follow-up ended first.")


class Table(Part):
    """One table: its columns and how it hangs from its parent."""

    columns: dict[str, Column] = Field(min_length=1)
    key: str | None = Field(default=None, description="Column that names each row once.")
    parent: str | None = Field(default=None, description="Table that this table's rows belong to.")
    foreign_key: str | None = Field(default=None, description="Column that holds the parent's key.")
    order_by: str | None = Field(default=None, description="Column that orders a patient's rows.")
    source: str | None = Field(
        default=None,
        description="Table of the records that the rows come from, where it is not of this table's name. A table above "
        "another one of the same source has one row for each of its keys.",
    )
    max_rows: int | None = Field(default=None, ge=1, description="Rows kept per patient.")
    outcome: tuple[str, ...] = Field(default=(), description="Columns that utility is measured on.")
    groups: tuple[str, ...] = Field(default=(), description="Columns that make subgroups for fairness.")
    survival: Survival | None = Field(default=None, description="The outcome with a time, for hazards and survival.")

    @field_validator("outcome", "groups", mode="before", json_schema_input_type=str | list[str])
    @classmethod
    def _one_or_many(cls, names: object) -> object:
        return (names,) if isinstance(names, str) else names

    @field_validator("source")
    @classmethod
    def _within_the_source(cls, source: str | None) -> str | None:
        if source is not None and not _SOURCE_NAME.fullmatch(source):
            raise ValueError(f"source {source!r} must be letters, digits, _ and -, with / between folders")
        return source

    @field_validator("columns")
    @classmethod
    def _printable(cls, columns: dict[str, Column]) -> dict[str, Column]:
        for name in columns:
            if not name.strip() or not name.isprintable():
                raise ValueError(f"column name {name!r} must be printable text on one line")
            if name.startswith("^") and name.endswith("$"):  # polars would take it for a pattern of names
                raise ValueError(f"column name {name!r} must not begin with ^ and end with $: rename it")
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
        if self.survival is not None:
            time, event = self.kept.get(self.survival.time), self.kept.get(self.survival.event)
            if not isinstance(time, IntegerColumn | NumberColumn):
                raise ValueError(f"survival.time names {self.survival.time!r}, which is no number that is kept")
            if not isinstance(event, BooleanColumn):
                raise ValueError(f"survival.event names {self.survival.event!r}, which is no boolean that is kept")
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
        """The columns that are learned: all but keys, identifiers, text, anchors and consent."""
        return {n: c for n, c in self.columns.items() if is_learned(c)}


class Schema(BaseModel):
    """A set of tables around one privacy unit, the subject."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    synthehr: Annotated[Literal[1], BeforeValidator(number)] = Field(description="Version of the schema language.")
    subject: str = Field(description="The root table: one row per patient, the privacy unit.")
    tables: dict[str, Table] = Field(min_length=1)
    rules: tuple[str, ...] = Field(default=(), description="Public conditions that every row meets.")
    reviewed: bool = Field(
        default=True,
        description="False in a draft: its bounds and sets of values were read off the records, so that they are not "
        "public, and are bought until a person who knows them to be harmless sets true.",
    )
    cap_age: int | None = Field(
        default=None,
        ge=1,
        description="Ages, and times of as many years, of this and more are read as this (Safe Harbor: 90).",
    )

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
        self._check_sources()
        self._check_references()
        _ = self.parsed_rules
        return self

    @model_validator(mode="after")
    def _one_anchor(self) -> Schema:
        anchors = [n for n, c in self.root.columns.items() if isinstance(c, AnchorColumn | AgeColumn)]
        if len(anchors) > 1:
            raise ValueError(f"columns {anchors[0]!r} and {anchors[1]!r} both anchor the times of a patient: keep one")
        for name, table in self.tables.items():
            for column, declared in table.columns.items():
                if name != self.subject and isinstance(declared, AnchorColumn | AgeColumn | ConsentColumn):
                    what = f"column {column!r} of table {name!r} is of kind {declared.kind}, which belongs to a patient"
                    raise ValueError(f"{what}: declare it in {self.subject!r}")
        return self

    @model_validator(mode="after")
    def _within_the_cap(self) -> Schema:
        for name, table in self.tables.items():
            for column, limit in self.age_limits(name).items():
                bounds = getattr(table.columns[column], "bounds", None)
                if bounds is not None and max(map(abs, bounds)) > limit:
                    raise ValueError(
                        f"column {column!r} of table {name!r} has bounds beyond the cap on ages: "
                        f"write at most {limit} {getattr(table.columns[column], 'unit', None) or 'a'}"
                    )
        return self

    def _check_sources(self) -> None:
        """A table whose rows are gathered by key must say so without doubt."""
        for name, table in self.tables.items():
            if name in self.gathered and table.key is None:
                raise ValueError(f"table {name!r} shares its source with a table below it and needs a key")
            if table.source in self.tables and table.source != name and self.tables[table.source].source is not None:
                raise ValueError(f"source {table.source!r} of table {name!r} is a table made of another source")

    def _check_references(self) -> None:
        for name, table in self.tables.items():
            for column, declared in table.columns.items():
                to = declared.references if isinstance(declared, IdColumn) else None
                if to is None:
                    continue
                what = f"column {column!r} of table {name!r} references {to!r}"
                if name == self.subject:
                    raise ValueError(f"{what}, but rows of {name!r} are patients: only rows below them refer to others")
                if column in (table.key, table.foreign_key):
                    raise ValueError(f"{what}, but is the table's key or foreign_key: leave references out")
                if to not in self.tables:
                    raise ValueError(f"{what}, which is not declared under tables")
                if to == self.subject:
                    raise ValueError(f"{what}, which every row belongs to: leave references out")
                if self.tables[to].key is None:
                    raise ValueError(f"{what}, which needs a key")

    def age_limits(self, table: str) -> dict[str, int]:
        """What columns of a table are capped at by ``cap_age``, in their own units."""
        if self.cap_age is None:
            return {}
        limits = {n: age_limit(n, c, years=self.cap_age) for n, c in self.tables[table].kept.items()}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def source_of(self, table: str) -> str:
        """The name of the table of the records that a table's rows come from."""
        return self.tables[table].source or table

    @cached_property
    def gathered(self) -> frozenset[str]:
        """Tables that have one row for each key, since a table below them comes from the same source."""
        return frozenset(
            above
            for name in self.tables
            for above in self._above(name)
            if above in self.tables and self.source_of(above) == self.source_of(name)
        )

    @cached_property
    def top_down(self) -> tuple[str, ...]:
        """Names of the tables, each after the one that it hangs from."""
        return tuple(sorted(self.tables, key=lambda name: len(list(self._above(name)))))

    def _above(self, table: str) -> Iterator[str]:
        up, seen = self.tables[table].parent, {table}
        while up is not None and up in self.tables and up not in seen:
            yield up
            seen.add(up)
            up = self.tables[up].parent

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
            ValueError: the text is no condition over kept columns of one table and its ancestors, in their types.
        """
        kept = {name: {n: dtype_of(c) for n, c in table.kept.items()} for name, table in self.tables.items()}
        ancestors = {name: tuple(self._above(name)) for name in self.tables}
        return parse_rule(text, columns=kept, default=self.subject, ancestors=ancestors)

    @property
    def root(self) -> Table:
        """The subject's table."""
        return self.tables[self.subject]
