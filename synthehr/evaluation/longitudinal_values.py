"""How many rows patients have, when, with which values, and how these depend on their parents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench
from synthehr.evaluation.longitudinal_cells import (
    by_visit_and_name,
    count_edges,
    fold,
    is_measured,
    root_cells,
    step_edges,
    table_cells,
)
from synthehr.evaluation.longitudinal_codes import STATES
from synthehr.evaluation.longitudinal_counts import (
    Block,
    Statistic,
    block_of,
    cell_counts,
    judged,
    steps_apart,
    variation,
)
from synthehr.evaluation.longitudinal_rows import CodeStream, Histories, Person, Rows
from synthehr.evaluation.measurement import Measurement, Scope

__all__ = [
    "ValueCells",
    "autocorrelation",
    "gap_blocks",
    "gaps",
    "last_rows",
    "measured_columns",
    "parent_child",
    "row_block",
    "row_columns",
    "rows_per_patient",
    "value_blocks",
    "values_by_code",
    "values_of",
]

_STEPS = 50
_LEARNED = 50
_PAIRED = 100.0
_RANKS = 10
_MOST_VALUES = 50
_MOST_PAIRS = 400
Whole = NDArray[np.int64]
Floats = NDArray[np.float64]
ValueCells = tuple[str, str, str | None, int, Floats]
"""Table, column, code column, code and edges of values that have a distribution of their own."""


def rows_per_patient(bench: Bench, scope: Scope) -> Measurement:
    """Total variation distance of the number of rows of a patient, none included; averaged over tables."""
    blocks = lambda h, tables: [row_block(h, table)[0] for table in tables]  # noqa: E731
    return judged(bench, "rows_per_patient", scope, blocks, variation, why="No table has patients to count.")


def row_block(h: Histories, table: str) -> tuple[Block, Whole]:
    """Patients by number of rows, and the least number of each cell but the first."""
    edges = count_edges(h.train.rows_each(table), cap=h.schema.tables[table].max_rows)

    def cells(person: Person) -> tuple[Whole, Whole]:
        return np.arange(len(person)), np.searchsorted(edges, person.rows_each(table), side="right")

    return block_of(h, cells, len(edges) + 1), edges


def row_columns(bench: Bench, scope: Scope) -> Measurement:
    """Total variation distance of the columns of rows: codes, times, values within their code; averaged."""

    def blocks(h: Histories, tables: tuple[str, ...]) -> list[Block]:
        return [
            _column_block(h, table, cells.parts, cells.size)
            for table in tables
            for cells in table_cells(h, table, bins=10)
        ]

    return judged(bench, "row_tv", scope, blocks, variation, why="Train has no row in these tables.")


def _column_block(h: Histories, table: str, parts: tuple[Whole, Whole, Whole], size: int) -> Block:
    counted = [
        cell_counts(person, person.tables[table].owner, cell, size) for person, cell in zip(h.parts, parts, strict=True)
    ]
    return Block(train=counted[0], synthetic=counted[1], holdout=counted[2])


def gaps(bench: Bench, scope: Scope) -> Measurement:
    """Kolmogorov-Smirnov distance of the time between consecutive rows of a patient; averaged over tables."""
    blocks = lambda h, tables: [block for _, block, _ in gap_blocks(h, tables)]  # noqa: E731
    why = "No table whose rows are in order of time has a patient with two rows."
    return judged(bench, "gap_ks", scope, blocks, steps_apart, why=why)


def gap_blocks(h: Histories, tables: tuple[str, ...], *, steps: int = _STEPS) -> list[tuple[str, Block, Floats]]:
    """Gaps by steps of train's, and the upper end of each step, of tables that a column of their own orders."""
    found = []
    for table in tables:
        if h.train.tables[table].time is not None and h.schema.tables[table].order_by is not None:
            edges = step_edges(_gaps(h.train.tables[table])[1], steps=steps, below=True)

            def cells(person: Person, table: str = table, edges: Floats = edges) -> tuple[Whole, Whole]:
                owner, gap = _gaps(person.tables[table])
                return owner, np.searchsorted(edges, gap, side="left")

            found.append((table, block_of(h, cells, len(edges) + 1), edges))
    return found


def _gaps(rows: Rows) -> tuple[Whole, Floats]:
    assert rows.time is not None, "asked of tables in order of time alone"
    gap = np.diff(rows.time)
    same = (np.diff(rows.owner) == 0) & np.isfinite(gap)
    return rows.owner[1:][same], gap[same]


def autocorrelation(bench: Bench, scope: Scope) -> Measurement:
    """Difference of the correlation of a value with the same patient's next of the same code; averaged over codes."""

    def blocks(h: Histories, tables: tuple[str, ...]) -> list[Block]:
        return [
            block_of(h, partial(_ranked, cells=cells), _RANKS * _RANKS)
            for cells in _value_cells(h, tables, steps=_RANKS, below=False)
            if h.train.tables[cells[0]].time is not None
        ]

    why = f"No code has {_PAIRED:g} pairs of consecutive values in train."
    limits = (0.0, 2.0)
    return judged(bench, "autocorrelation", scope, blocks, _lagged, why=why, fewest=_PAIRED, limits=limits)


def _lagged(starts: Whole) -> Statistic:
    x = np.arange(_RANKS, dtype=np.float64)

    def correlation(counts: Floats) -> Floats:
        table = counts.reshape(*counts.shape[:-1], len(starts), _RANKS, _RANKS)
        total = np.maximum(table.sum(axis=(-1, -2)), 1.0)
        before, after = table.sum(axis=-1), table.sum(axis=-2)
        means = before @ x / total, after @ x / total
        spreads = before @ (x * x) / total - means[0] ** 2, after @ (x * x) / total - means[1] ** 2
        product = np.einsum("...ij,i,j->...", table, x, x) / total - means[0] * means[1]
        scale = np.sqrt(np.maximum(spreads[0], 0.0) * np.maximum(spreads[1], 0.0))
        return np.asarray(np.divide(product, scale, out=np.zeros_like(product), where=scale > 1e-9))

    return lambda real, other: np.asarray(np.abs(correlation(real) - correlation(other)).mean(axis=-1))


def _value_cells(h: Histories, tables: tuple[str, ...], *, steps: int, below: bool) -> list[ValueCells]:
    """Table, column, code column, code and edges of every value that has its own distribution."""
    found: list[ValueCells] = []
    for table in tables:
        for name, per, codes in measured_columns(h, table):
            for code in range(min(codes, _MOST_VALUES)):
                _, values = values_of(h.train.tables[table], name, per, code)
                if len(values) >= _LEARNED:
                    found.append((table, name, per, code, step_edges(values, steps=steps, below=below)))
    return found


def measured_columns(h: Histories, table: str) -> Iterator[tuple[str, str | None, int]]:
    """Each column of numbers but the one that orders the table, what it depends on, and how many codes that has."""
    declared = h.schema.tables[table]
    codes = {stream.column: len(stream.values) for stream in h.streams_of((table,))}
    for name, column in declared.kept.items():
        if is_measured(column) and name != declared.order_by:
            per = getattr(column, "per", None)
            yield name, per, codes[per] if per is not None else 1


def values_of(rows: Rows, column: str, per: str | None, code: int) -> tuple[Whole, Floats]:
    """Patients and values of one column, of one code where it depends on one, in order of time."""
    number = rows.values[column].number
    assert number is not None, "a measured column is read as numbers"
    here = np.isfinite(number) if per is None else np.isfinite(number) & (rows.codes[per] == code)
    return rows.owner[here], number[here]


def _ranked(person: Person, *, cells: ValueCells) -> tuple[Whole, Whole]:
    table, column, per, code, edges = cells
    owner, values = values_of(person.tables[table], column, per, code)
    rank = np.minimum(np.searchsorted(edges, values, side="left"), _RANKS - 1)
    same = np.diff(owner) == 0
    return owner[1:][same], rank[:-1][same] * _RANKS + rank[1:][same]


def values_by_code(bench: Bench, scope: Scope) -> Measurement:
    """Kolmogorov-Smirnov distance of the values of a code; averaged over codes."""
    blocks = lambda h, tables: [block for _, block in value_blocks(h, tables)]  # noqa: E731
    why = f"No column of numbers has {_LEARNED} values in train."
    return judged(bench, "value_by_code", scope, blocks, steps_apart, why=why)


def value_blocks(h: Histories, tables: tuple[str, ...]) -> list[tuple[ValueCells, Block]]:
    """The values of each code by steps of train's."""

    def stepped(person: Person, cells: ValueCells) -> tuple[Whole, Whole]:
        table, column, per, code, edges = cells
        owner, values = values_of(person.tables[table], column, per, code)
        return owner, np.searchsorted(edges, values, side="left")

    return [
        (cells, block_of(h, partial(stepped, cells=cells), len(cells[-1]) + 1))
        for cells in _value_cells(h, tables, steps=_STEPS, below=True)
    ]


def last_rows(bench: Bench, scope: Scope) -> Measurement:
    """Total variation distance of where histories stop: code and time of the last row, and time since the first."""

    def blocks(h: Histories, tables: tuple[str, ...]) -> list[Block]:
        found = []
        for table in (name for name in tables if h.train.tables[name].time is not None):
            for stream in h.streams_of((table,)):
                cells = min(len(stream.values), STATES) + 2
                found.append(block_of(h, partial(_last_code, stream=stream), cells))
            for since in (False, True):
                edges = step_edges(_last_time(h.train, table, since=since)[1], steps=10)

                def binned(
                    person: Person, table: str = table, since: bool = since, edges: Floats = edges
                ) -> tuple[Whole, Whole]:
                    owner, time = _last_time(person, table, since=since)
                    return owner, np.searchsorted(edges, time, side="left")

                found.append(block_of(h, binned, len(edges) + 1))
        return found

    return judged(bench, "last_row_tv", scope, blocks, variation, why="No table has its rows in order of time.")


def _last_code(person: Person, *, stream: CodeStream) -> tuple[Whole, Whole]:
    rows = person.tables[stream.table]
    code = fold(rows.codes[stream.column], len(stream.values), STATES)
    order = by_visit_and_name(rows, stream)
    last = np.flatnonzero(np.diff(rows.owner, append=-1))
    return rows.owner[last], code[order][last]


def _last_time(person: Person, table: str, *, since: bool) -> tuple[Whole, Floats]:
    rows = person.tables[table]
    assert rows.time is not None, "asked of tables in order of time alone"
    timed = np.isfinite(rows.time)
    owner, time = rows.owner[timed], rows.time[timed]
    last = np.flatnonzero(np.diff(owner, append=-1))
    if not since:
        return owner[last], time[last]
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    return owner[last], time[last] - time[first]


def parent_child(bench: Bench, scope: Scope) -> Measurement:
    """Total variation distance of a column of a parent and one of its rows together; averaged over such pairs.

    Parents are the patient and the rows between; a patient's columns are also paired with the number of rows.
    """

    def blocks(h: Histories, tables: tuple[str, ...]) -> list[Block]:
        plans = [plan for table in tables for plan in _pairs_with_parents(h, table)]
        if len(plans) > _MOST_PAIRS:
            chosen = np.sort(bench.parts.generator(73).choice(len(plans), size=_MOST_PAIRS, replace=False))
            plans = [plans[at] for at in chosen]
        return [plan() for plan in plans]

    return judged(bench, "parent_child_tv", scope, blocks, variation, why="Train has no row in these tables.")


def _pairs_with_parents(h: Histories, table: str) -> list[Callable[[], Block]]:
    children = table_cells(h, table, bins=10)
    owners = tuple(person.tables[table].owner for person in h.parts)
    ancestors = [(root_cells(h, bins=5), owners)]
    above, at = h.schema.tables[table].parent, tuple(person.tables[table].parent for person in h.parts)
    while above is not None and above != h.schema.subject:
        ancestors.append((table_cells(h, above, bins=5), at))
        at = tuple(p.tables[above].parent[one] for p, one in zip(h.parts, at, strict=True))
        above = h.schema.tables[above].parent

    def joint(
        parent: tuple[Whole, ...], child: tuple[Whole, ...], at: tuple[Whole, ...], sizes: tuple[int, int]
    ) -> Block:
        cells = tuple(p[where] * sizes[1] + c for p, c, where in zip(parent, child, at, strict=True))
        return _column_block(h, table, (cells[0], cells[1], cells[2]), sizes[0] * sizes[1])

    plans: list[Callable[[], Block]] = [
        partial(joint, parent.parts, child.parts, where, (parent.size, child.size))
        for parents, where in ancestors
        for parent in parents
        for child in children
    ]
    edges = count_edges(h.train.rows_each(table), cap=h.schema.tables[table].max_rows, cells=5)
    return plans + [partial(_with_rows, h, table, cells.parts, cells.size, edges) for cells in ancestors[0][0]]


def _with_rows(h: Histories, table: str, parts: tuple[Whole, Whole, Whole], size: int, edges: Whole) -> Block:
    counted = []
    for person, cell in zip(h.parts, parts, strict=True):
        many = np.searchsorted(edges, person.rows_each(table), side="right")
        counted.append(cell_counts(person, np.arange(len(person)), many * size + cell, (len(edges) + 1) * size))
    return Block(train=counted[0], synthetic=counted[1], holdout=counted[2])
