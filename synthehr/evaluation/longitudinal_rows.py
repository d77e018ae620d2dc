"""The rows of patients in order of time, read once for every longitudinal metric.

Every table below the root, at any depth, becomes rows sorted by patient, visit and time. A visit is the parent row
where the parent is not the patient, else all rows of one patient at one time; rows of a table without any time are one
visit of their patient. Rows beyond the declared ``max_rows`` are cut in all three cohorts in the same way, since the
schema says that a release describes patients with at most that many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthehr.cohort import Cohort
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.coding import Values, read_table
from synthehr.evaluation.cohorts import Part
from synthehr.schema.model import CategoryColumn, CodeColumn, IntegerColumn, NumberColumn, Schema, Table

__all__ = [
    "GROUPS",
    "CodeStream",
    "Histories",
    "Name",
    "Person",
    "Rows",
    "child_tables",
    "histories",
    "read_histories",
    "read_person",
    "read_streams",
    "with_streams",
]

GROUPS = 30
"""Groups of patients that intervals are made of, each left out in turn."""

_MOST_CODES = 5_000
Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Name = Literal["train", "holdout", "synthetic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeStream:
    """A column whose values are codes: of kind code, or what values depend on, or else every category of its table.

    Attributes:
        table: its table.
        column: its name.
        values: the codes, the most common first; those that are declared, or else those that occur.
        labels: what a reader may see of each code: its name where it is declared, else a number.
    """

    table: str
    column: str
    values: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of codes, with one for what is none of the values and one for missing."""
        return len(self.values) + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """One table of one cohort, sorted by patient, visit and time. All shapes ``(rows,)``.

    Attributes:
        owner: number of the patient.
        parent: position of the parent row in its own sorted table; of the patient where the parent is the root.
        visit: number of the visit, rising with time within a patient, no two patients sharing one.
        time: in the column's own unit (dates in days), NaN where missing; None where nothing orders the rows.
        codes: for each code column its codes, as in :class:`CodeStream`.
        values: the kept columns.
    """

    owner: Whole
    parent: Whole
    visit: Whole
    time: Floats | None
    codes: Mapping[str, Whole]
    values: Mapping[str, Values]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.owner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """The patients of one cohort with all their rows.

    Attributes:
        root: their own row each, as values and codes.
        group: which of the groups each belongs to, shape ``(patients,)``.
        tables: the tables below the root by name.
    """

    root: Part
    group: Whole
    tables: Mapping[str, Rows]

    def __len__(self) -> int:
        """Number of patients."""
        return len(self.group)

    def rows_each(self, table: str) -> Whole:
        """Number of rows of each patient, shape ``(patients,)``."""
        return np.bincount(self.tables[table].owner, minlength=len(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Histories:
    """Train, and holdout and synthetic cut to equal size, with what is known of codes from train and schema."""

    schema: Schema
    streams: tuple[CodeStream, ...]
    train: Person
    holdout: Person
    synthetic: Person

    @property
    def parts(self) -> tuple[Person, Person, Person]:
        """Train, synthetic, holdout."""
        return self.train, self.synthetic, self.holdout

    def streams_of(self, tables: tuple[str, ...]) -> tuple[CodeStream, ...]:
        """The code columns of these tables."""
        return tuple(stream for stream in self.streams if stream.table in tables)


def child_tables(schema: Schema) -> tuple[str, ...]:
    """The tables below the root, parents before children."""

    def depth(name: str) -> int:
        parent = schema.tables[name].parent
        return 0 if parent is None else 1 + depth(parent)

    return tuple(sorted((name for name in schema.tables if name != schema.subject), key=depth))


def histories(bench: Bench) -> Histories:
    """The histories of a bench, read when first asked for."""
    return bench.once(read_histories)


def read_histories(bench: Bench) -> Histories:
    """All of train, and the patients of holdout and synthetic that are drawn to equal size."""
    parts = bench.parts
    return Histories(
        schema=bench.schema,
        streams=bench.once(read_streams),
        train=bench.once(read_person, "train"),
        holdout=_equal(bench, "holdout", parts.holdout_rows),
        synthetic=_equal(bench, "synthetic", parts.synthetic_rows),
    )


def _equal(bench: Bench, name: Name, chosen: Whole) -> Person:
    everyone = bench.once(read_person, name)
    return everyone if len(chosen) == len(everyone) else _read(bench, name, chosen)


def read_streams(bench: Bench, *, of: tuple[Name, ...] = ("train",)) -> tuple[CodeStream, ...]:
    """The code columns of all tables below the root, their values by how common they are in these cohorts."""
    found = []
    for name in child_tables(bench.schema):
        declared = bench.schema.tables[name]
        read = [read_table(getattr(bench, cohort), name, part=cohort) for cohort in of]
        found += [_stream(name, column, declared, [one[column] for one in read]) for column in _code_columns(declared)]
    return tuple(found)


def with_streams(person: Person, streams: tuple[CodeStream, ...]) -> Person:
    """The same patients, their codes numbered as these streams number them."""
    tables = {
        name: replace(rows, codes={s.column: _coded(rows.values[s.column], s) for s in streams if s.table == name})
        for name, rows in person.tables.items()
    }
    return replace(person, tables=tables)


def read_person(bench: Bench, name: Name) -> Person:
    """All patients of train, holdout or synthetic with their rows, bounded and sorted."""
    return _read(bench, name, None)


def _read(bench: Bench, name: Name, chosen: Whole | None) -> Person:
    part: Part = getattr(bench.parts, name)
    cohort: Cohort[Schema] = getattr(bench, name)
    draws = bench.parts.generator({"train": 70, "holdout": 71, "synthetic": 72}[name])
    kept = _bounded(cohort, draws)
    if chosen is not None:
        kept, part = kept.take(chosen), part.take(chosen)
    read = {table: read_table(kept, table, part=name) for table in child_tables(bench.schema)}
    return Person(
        root=part,
        group=draws.permutation(len(kept)) % GROUPS,
        tables=_sorted_tables(kept, read, bench.once(read_streams)),
    )


def _bounded(cohort: Cohort[Schema], draws: np.random.Generator) -> Cohort[Schema]:
    most = {name: table.max_rows for name, table in cohort.schema.tables.items() if table.parent is not None}
    declared = {name: rows for name, rows in most.items() if rows is not None}
    beyond = any(np.bincount(cohort.owners(name)).max(initial=0) > rows for name, rows in declared.items())
    return cohort.bounded(declared, draws=draws) if beyond else cohort


def _code_columns(table: Table) -> list[str]:
    categories = {name: column for name, column in table.kept.items() if isinstance(column, CategoryColumn)}
    told_by = {column.per for column in table.kept.values() if isinstance(column, IntegerColumn | NumberColumn)}
    codes = [name for name, column in categories.items() if isinstance(column, CodeColumn) or name in told_by]
    return codes or list(categories)


def _stream(table: str, column: str, declared: Table, read: Sequence[Values]) -> CodeStream:
    texts = [values.text.cast(pl.String).rename("code") for values in read if values.text is not None]
    public = declared.kept[column].values  # type: ignore[union-attr]
    counted = pl.concat(texts).drop_nulls().value_counts().sort(["count", "code"], descending=[True, False])
    common = counted["code"].head(_MOST_CODES).to_list()
    if public is None:
        labels = tuple(f"undeclared value {at}" for at in range(1, len(common) + 1))
        return CodeStream(table=table, column=column, values=tuple(common), labels=labels)
    known = set(public)
    seen = [code for code in counted["code"].to_list() if code in known]
    names = (*seen, *(code for code in public if code not in set(seen)))
    return CodeStream(table=table, column=column, values=names, labels=names)


def _sorted_tables(
    cohort: Cohort[Schema], read: Mapping[str, Mapping[str, Values]], streams: tuple[CodeStream, ...]
) -> dict[str, Rows]:
    schema = cohort.schema
    tables: dict[str, Rows] = {}
    where: dict[str, Whole] = {schema.subject: np.arange(len(cohort))}
    for name, values in read.items():
        link = schema.links[name]
        assert link.parent is not None, "the root has none"
        parent = where[link.parent][cohort.parent_rows(name)]
        owner = cohort.owners(name)
        own = values[link.order_by].number if link.order_by is not None else None
        above = tables.get(link.parent)
        time = own if own is not None else above.time[parent] if above is not None and above.time is not None else None
        at = np.zeros(len(owner)) if time is None else np.where(np.isnan(time), np.inf, time)
        order = np.lexsort((at, parent, owner)) if above is not None else np.lexsort((at, owner))
        where[name] = np.empty(len(order), dtype=np.int64)
        where[name][order] = np.arange(len(order))
        new = np.diff(owner[order], prepend=-1) != 0
        changed = np.diff(parent[order], prepend=-1) != 0 if above is not None else at[order] != np.roll(at[order], 1)
        tables[name] = Rows(
            owner=owner[order],
            parent=parent[order],
            visit=np.cumsum(new | changed) - 1,
            time=None if time is None else time[order],
            codes={s.column: _coded(values[s.column], s)[order] for s in streams if s.table == name},
            values={column: one.take(order) for column, one in values.items()},
        )
    return tables


def _coded(values: Values, stream: CodeStream) -> Whole:
    assert values.text is not None, "a category is read as text"
    other, missing = len(stream.values), len(stream.values) + 1
    if not stream.values:
        return np.where(values.missing, missing, other)
    known = pl.Series(stream.values, dtype=pl.String)
    text = values.text.cast(pl.String)
    codes = text.replace_strict(known, pl.Series(range(len(known))), default=other, return_dtype=pl.Int64)
    return np.where(values.missing, missing, codes.fill_null(other).to_numpy())
