"""What happens to each column on the way in, and why: the door, told before anything goes through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from synthehr.schema.columns import (
    AgeColumn,
    AnchorColumn,
    CategoryColumn,
    Column,
    ConsentColumn,
    DateColumn,
    DatetimeColumn,
    DroppedColumn,
    IdColumn,
    IntegerColumn,
    NumberColumn,
    OffsetColumn,
)
from synthehr.schema.conform import bounds_text
from synthehr.schema.identifiers import identifier_by_name, quasi_identifier
from synthehr.schema.model import Schema, Table
from synthehr.schema.review import capped, public_part

__all__ = ["Fate", "FateWord", "fates"]

FateWord: TypeAlias = Literal["dropped", "kept", "made anew", "asked", "refused", "absent"]
_UNITS = {"d": "days", "h": "hours", "min": "minutes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What happens to one column.

    Attributes:
        table: its table.
        column: its name.
        kind: what it is declared as; None where it is not.
        fate: whether it comes in: ``kept`` (learned), ``dropped``, ``made anew`` (keys), ``asked`` (consent), or
            ``refused`` (not declared) and ``absent`` (declared, but not there), which stop a reading.
        domain: where its values come from: ``declared``, ``bought`` from the budget, or None where it is not learned.
        changed: what is done to its values on the way: ``offset``, ``age``, ``capped``.
        why: the reason.
        warning: what a person should look at; None where nothing is.
    """

    table: str
    column: str
    kind: str | None
    fate: FateWord
    domain: Literal["declared", "bought"] | None
    changed: tuple[str, ...]
    why: str
    warning: str | None = None

    @property
    def stops(self) -> bool:
        """Does it keep the records from being read?"""
        return self.fate in ("refused", "absent")


def fates(
    schema: Schema, *, found: Mapping[str, Sequence[str]] | None = None, cap_age: int | None = None
) -> tuple[Fate, ...]:
    """The fate of each column, in the order of the schema; those that are not declared come after the others.

    Args:
        schema: what is declared.
        found: names of the columns that are in the records, by table; dropped ones may be left out. Without it nothing
            is refused or absent.
        cap_age: of the policy.
    """
    held = capped(public_part(schema), years=cap_age)
    told = []
    for name, table in schema.tables.items():
        there = found.get(name) if found is not None else None
        under = held.tables[name]
        limits = held.age_limits(name)
        for column, declared in table.columns.items():
            absent = there is not None and column not in there and not isinstance(declared, DroppedColumn)
            if absent:
                told.append(_absent(name, column, declared))
            else:
                told.append(_fate(held, name, column, under, limit=limits.get(column)))
        told += [_undeclared(name, column) for column in there or () if column not in table.columns]
    return tuple(told)


def _fate(schema: Schema, table: str, name: str, under: Table, *, limit: int | None) -> Fate:
    column = under.columns[name]
    match column:
        case DroppedColumn():
            what = "direct identifier" if column.kind == "identifier" else "free text"
            return _not_learned(table, name, column, "dropped", f"{what}: never read")
        case IdColumn():
            return _not_learned(table, name, column, "made anew", _key_words(schema, table, name))
        case AnchorColumn():
            return _not_learned(table, name, column, "dropped", "the day that the patient's times count from")
        case ConsentColumn():
            rule = "opt_out" if column.opt_out is not None else "opt_in"
            return _not_learned(table, name, column, "asked", f"patients are left out by {rule}; never learned")
    changed, words = _changes(schema, column, limit=limit)
    domain, source = _domain(column, reviewed=schema.reviewed)
    return Fate(
        table=table,
        column=name,
        kind=column.kind,
        fate="kept",
        domain=domain,
        changed=changed,
        why="; ".join((*words, source)),
        warning=_warning(schema, name, column),
    )


def _not_learned(table: str, name: str, column: Column, fate: FateWord, why: str) -> Fate:
    return Fate(table=table, column=name, kind=column.kind, fate=fate, domain=None, changed=(), why=why)


def _absent(table: str, name: str, column: Column) -> Fate:
    return Fate(
        table=table,
        column=name,
        kind=column.kind,
        fate="absent",
        domain=None,
        changed=(),
        why="declared, but not in the records: take it out of the schema, or complete the records",
    )


def _undeclared(table: str, name: str) -> Fate:
    looks = identifier_by_name(name)
    hint = f"; by its name it is {looks}: declare it of kind identifier" if looks is not None else ""
    return Fate(
        table=table,
        column=name,
        kind=None,
        fate="refused",
        domain=None,
        changed=(),
        why=f"not declared: nothing goes through that no one has declared{hint}",
    )


def _key_words(schema: Schema, table: str, name: str) -> str:
    link = schema.links[table]
    if name == link.key:
        return "key: tells rows apart, never learned, made anew for synthetic patients"
    if name == link.foreign_key:
        return f"key of {link.parent}: never learned, made anew for synthetic patients"
    column = schema.tables[table].columns[name]
    if isinstance(column, IdColumn) and column.references is not None:
        return f"key of {column.references}: learned is whether there is one; made anew for synthetic patients"
    return "an id: never learned, left empty in synthetic patients"


def _changes(schema: Schema, column: Column, *, limit: int | None) -> tuple[tuple[str, ...], list[str]]:
    changed, words = [], []
    if isinstance(column, OffsetColumn):
        anchor = next((n for n, c in schema.root.columns.items() if isinstance(c, AnchorColumn | AgeColumn)), None)
        since = f"{anchor!r}" if anchor is not None else "the patient's first date"
        changed.append("offset")
        words.append(f"{_UNITS[column.unit]} since {since}, back on a made-up calendar when synthetic")
    if isinstance(column, AgeColumn):
        changed.append("age")
        words.append(f"date of birth, as the age on {column.at.isoformat()}")
    if limit is not None:
        unit = getattr(column, "unit", None) or "a"
        changed.append("capped")
        words.append(f"{limit} {unit} and more are read as {limit}")
    return tuple(changed), words


def _domain(column: Column, *, reviewed: bool) -> tuple[Literal["declared", "bought"], str]:
    """Where the values of a learned column come from, and in words."""
    draft = "" if reviewed else ", since the draft is not reviewed"
    if isinstance(column, CategoryColumn) and column.values is None:
        return "bought", f"values are bought from the budget{draft}; rare ones become OTHER"
    if isinstance(column, IntegerColumn | NumberColumn) and column.bounds is None:
        return "bought", f"its range is bought from the budget{draft}"
    return "declared", _declared_words(column)


def _declared_words(column: Column) -> str:
    if isinstance(column, CategoryColumn):
        return f"{len(column.values or ())} declared values"
    if isinstance(column, DateColumn | DatetimeColumn):
        return f"calendar dates in {bounds_text(column.bounds)}"
    if isinstance(column, IntegerColumn | NumberColumn):
        if column.per_code:
            return f"declared bounds for each {column.per}"
        return f"declared bounds {bounds_text(column.bounds_of(None) or (0, 0))}"
    return "true or false"


def _warning(schema: Schema, name: str, column: Column) -> str | None:
    looks = identifier_by_name(name)
    if looks is not None:
        return f"by its name it is {looks}, which HIPAA's Safe Harbor drops: declare it of kind identifier"
    if isinstance(column, DateColumn | DatetimeColumn):
        return "stays on the calendar, which Safe Harbor does not let pass: declare it of kind offset"
    quasi = quasi_identifier(name)
    if quasi == "age" and isinstance(column, IntegerColumn | NumberColumn) and schema.cap_age is None:
        return "an age: over 89 Safe Harbor lets none stand; a policy with cap_age: 90 caps it"
    return f"quasi-identifier ({quasi}): others may know it too" if quasi is not None else None
