"""Regularities in time that hold of nearly all of train's patients, and how many of others break them.

Looked for are: one time of a row is never after another, of the same row or of a row above it (a visit ends after it
starts, no lab after the end of follow-up); a code after which nothing comes (death); a code that a patient has once at
most (the onset of a disease). What holds by the declared rules alone is validity's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench
from synthehr.evaluation.intervals import difference_of_proportions, wilson
from synthehr.evaluation.longitudinal_counts import FEWEST_PATIENTS
from synthehr.evaluation.longitudinal_rows import CodeStream, Histories, Person, child_tables, histories
from synthehr.evaluation.measurement import Measurement, Scope, undefined
from synthehr.schema.model import DateColumn, DatetimeColumn, IntegerColumn, NumberColumn

__all__ = ["Regularity", "regularities", "regularity_violations"]

_HOLDS = 0.99
_ROWS = 100
_PATIENTS = 30
_MOST_CODES = 200
_MINUTES = {"min": 1, "h": 60, "d": 1440}
Whole = NDArray[np.int64]
Breaks = Callable[[Person], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Time:
    """A column that says when; times of one kind can be compared, those of other ``minutes`` between tables alone.

    Within a table another unit is most likely a duration.
    """

    table: str
    column: str
    kind: str
    minutes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Regularity:
    """One order in time.

    Attributes:
        text: what holds, in words.
        table: the table whose rows it is about.
        broken: the patients who break it in train, synthetic and holdout, shape ``(patients,)`` each.
    """

    text: str
    table: str
    broken: tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]


def regularity_violations(bench: Bench, scope: Scope) -> Measurement:
    """Share of patients who break any regularity that 99 in 100 of train's patients keep.

    Lower is better; range 0 to 1. Intervals as for declared rules: Wilson's, and Newcombe's of the excess.
    """
    metric = "regularity_violations"
    if not child_tables(bench.schema):
        return undefined(metric, scope, "lower", "The schema declares one table, so no patient has rows in time.")
    h = histories(bench)
    if min(len(person) for person in h.parts) < FEWEST_PATIENTS:
        return undefined(metric, scope, "lower", f"A cohort has fewer than {FEWEST_PATIENTS} patients.")
    found = [one for one in bench.once(regularities) if scope in ("all", one.table)]
    if not found:
        return undefined(metric, scope, "lower", "Train has no order in time that nearly all of its patients keep.")
    _, synthetic, holdout = (np.any([one.broken[at] for one in found], axis=0) for at in range(3))
    value = wilson(float(synthetic.sum()), of=len(synthetic))
    reference = wilson(float(holdout.sum()), of=len(holdout))
    return Measurement(
        metric=metric,
        scope=scope,
        direction="lower",
        value=value,
        reference=reference.value,
        excess=difference_of_proportions(value, reference),
    )


def regularities(bench: Bench) -> tuple[Regularity, ...]:
    """The orders in time that train keeps."""
    h = histories(bench)
    found = []
    for table in child_tables(h.schema):
        for text, breaks in (*_ordered_columns(h, table), *_codes(h, table)):
            broken = [breaks(person) for person in h.parts]
            if broken[0].mean() <= 1.0 - _HOLDS:
                found.append(Regularity(text=text, table=table, broken=(broken[0], broken[1], broken[2])))
    return tuple(found)


def _ordered_columns(h: Histories, table: str) -> Iterator[tuple[str, Breaks]]:
    """Pairs of comparable columns of a row, or of a row and a row above it, of which train has one never after."""
    times = [time for at in (table, *_above(h, table)) for time in _times(h, at)]
    for one, other in itertools.combinations(times, 2):
        unlike = one.kind != other.kind or (one.minutes != other.minutes and one.table == other.table)
        if unlike or table not in (one.table, other.table):
            continue
        first, second = _compared(h.train, h, table, one, other)
        both = np.isfinite(first) & np.isfinite(second)
        if both.sum() < _ROWS:
            continue
        for early, late, kept in (
            (one, other, (first <= second)[both].mean()),
            (other, one, (second <= first)[both].mean()),
        ):
            if kept >= _HOLDS:
                text = f"{early.table}.{early.column} is not after {late.table}.{late.column}"
                yield text, partial(_after, h=h, table=table, early=early, late=late)


def _after(person: Person, *, h: Histories, table: str, early: _Time, late: _Time) -> NDArray[np.bool_]:
    first, second = _compared(person, h, table, early, late)
    return np.bincount(person.tables[table].owner[first > second], minlength=len(person)) > 0


def _compared(
    person: Person, h: Histories, table: str, one: _Time, other: _Time
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two times of each row of ``table``, in whole units of the coarser where their units differ."""
    first, second = (_column(person, h, table, time.table, time.column) for time in (one, other))
    if one.minutes == other.minutes:
        return first, second
    unit = max(one.minutes, other.minutes)
    return np.floor(first * one.minutes / unit), np.floor(second * other.minutes / unit)


def _above(h: Histories, table: str) -> list[str]:
    names, up = [], h.schema.tables[table].parent
    while up is not None:
        names.append(up)
        up = h.schema.tables[up].parent
    return names


def _times(h: Histories, table: str) -> list[_Time]:
    """The columns that say when: dates, and numbers in a unit like that of a column which orders some table."""
    tables = h.schema.tables
    ordering = {getattr(t.kept[t.order_by], "unit", None) for t in tables.values() if t.order_by is not None} - {None}
    units = ordering | (set(_MINUTES) if ordering & set(_MINUTES) else set())
    found = []
    for name, column in tables[table].kept.items():
        if isinstance(column, DateColumn | DatetimeColumn):
            found.append(_Time(table=table, column=name, kind="date", minutes=1))
        elif isinstance(column, IntegerColumn | NumberColumn) and column.unit in units:
            unit = str(column.unit)
            kind = "time" if unit in _MINUTES else unit
            found.append(_Time(table=table, column=name, kind=kind, minutes=_MINUTES.get(unit, 1)))
    return found


def _column(person: Person, h: Histories, table: str, of: str, name: str) -> NDArray[np.float64]:
    """A column of the rows of ``table``, or of the row above each that stands in ``of``; shape ``(rows,)``."""
    rows, at = person.tables[table], table
    where = np.arange(len(rows))
    while at != of:
        where = person.tables[at].parent[where]
        above = h.schema.tables[at].parent
        assert above is not None, "only ancestors are asked for"
        at = above
    values = person.root.values[name] if of == h.schema.subject else person.tables[of].values[name]
    assert values.number is not None, "a time is read as numbers"
    return values.number[where]


def _codes(h: Histories, table: str) -> Iterator[tuple[str, Breaks]]:
    """Codes of train after which nothing comes, and codes that a patient has once at most."""
    rows = h.train.tables[table]
    for stream in h.streams_of((table,)):
        for code, label in enumerate(stream.labels[:_MOST_CODES]):
            has = np.unique(rows.owner[rows.codes[stream.column] == code])
            if len(has) < _PATIENTS:
                continue
            for text, breaks in (
                (f"nothing comes after {stream.column} '{label}' in {table}", _followed(stream, code)),
                (f"{stream.column} '{label}' comes once in {table}", _repeated(stream, code)),
            ):
                if (rows.time is not None or "once" in text) and breaks(h.train)[has].mean() <= 1.0 - _HOLDS:
                    yield text, breaks


def _followed(stream: CodeStream, code: int) -> Breaks:
    def breaks(person: Person) -> NDArray[np.bool_]:
        rows = person.tables[stream.table]
        last = np.zeros(len(person), dtype=np.int64)
        np.maximum.at(last, rows.owner, rows.visit)
        here = rows.codes[stream.column] == code
        return np.bincount(rows.owner[here & (rows.visit < last[rows.owner])], minlength=len(person)) > 0

    return breaks


def _repeated(stream: CodeStream, code: int) -> Breaks:
    def breaks(person: Person) -> NDArray[np.bool_]:
        rows = person.tables[stream.table]
        return np.bincount(rows.owner[rows.codes[stream.column] == code], minlength=len(person)) > 1

    return breaks
