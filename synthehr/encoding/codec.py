"""The way through the door, and back from cells to values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.encoding.domain import OTHER, ColumnDomain
from synthehr.encoding.lattice import as_number
from synthehr.privacy.partition import Intervals, PerCode, Values
from synthehr.privacy.policy import Policy
from synthehr.privacy.rows import PrivateRows
from synthehr.randomness import IntArray, NoiseSource
from synthehr.schema.model import BooleanColumn, CategoryColumn, Schema, Table

__all__ = ["behind_the_door", "bound_rows", "declared_rows", "decode"]


def declared_rows(schema: Schema) -> dict[str, int | None]:
    """The ``max_rows`` that each child table declares, by table; None where it leaves the bound to the policy."""
    return {name: table.max_rows for name, table in schema.tables.items() if name != schema.subject}


def bound_rows(cohort: Cohort[Schema], *, policy: Policy, noise: NoiseSource) -> tuple[Cohort[Schema], dict[str, int]]:
    """The cohort that a fit learns from, and its public bound on rows per patient by table (1 for the root).

    Call it once a fit and keep the cohort: which rows of a patient stay is drawn anew by each call. The draws come
    from the noise source and never from the user's seed, so that nobody can tell which rows were left out.
    """
    most = policy.row_bounds(declared_rows(cohort.schema))
    return cohort.bounded(most, draws=noise.spawn()), {cohort.schema.subject: 1, **most}


def behind_the_door(cohort: Cohort[Schema], *, table: str, noise: NoiseSource, max_rows: int = 1) -> PrivateRows:
    """The kept columns of one table as private rows: categories as text, all else on its lattice's scale.

    Args:
        cohort: bounded by :func:`bound_rows` where it has several tables.
        table: name of the table.
        noise: where the noise of its mechanisms comes from.
        max_rows: public bound on the rows of one patient in the table.

    Raises:
        InternalError: a patient has more rows than the bound.
    """
    declared = cohort.schema.tables[table]
    frame = cohort.tables[table]
    columns = [
        frame[name].cast(pl.String)
        if isinstance(column, CategoryColumn | BooleanColumn)
        else as_number(frame[name]).alias(name)
        for name, column in declared.kept.items()
    ]
    return PrivateRows(
        pl.DataFrame(columns),
        owners=cohort.owners(table),
        patients=len(cohort),
        max_rows=max_rows,
        noise=noise,
    )


def decode(
    codes: IntArray, *, domain: Sequence[ColumnDomain], table: Table, generator: np.random.Generator
) -> pl.DataFrame:
    """Values for cells: a category's own, or a draw inside the cell from its bought finer histogram.

    What depends on a code is drawn from the part of the row's own code, whichever of the two columns comes first.

    Shape: ``codes`` is ``(rows, columns)`` in the order of ``domain``.
    """
    place = {column.name: at for at, column in enumerate(domain)}
    columns = []
    for at, column in enumerate(domain):
        declared = table.kept[column.name]
        mine = codes[:, at]
        if isinstance(column.cells, Values):
            labels: list[str | None] = [*column.cells.values]
            labels += [OTHER] * int(column.cells.other) + [None] * int(column.cells.nullable)
            series = pl.Series(labels, dtype=pl.String).gather(mine)
            if isinstance(declared, BooleanColumn):
                series = series.eq("true")
        elif isinstance(column.cells, PerCode):
            series = _by_code(mine, codes[:, place[column.cells.per]], column, generator)
        else:
            series = _numbers(mine, column, generator)
        columns.append(series.alias(column.name))
    return pl.DataFrame(columns)


def _numbers(codes: IntArray, column: ColumnDomain, generator: np.random.Generator) -> pl.Series:
    """A value for each cell of a numeric column, null where missing."""
    assert column.lattice is not None and isinstance(column.cells, Intervals), "numeric columns have a lattice"
    missing = codes == column.cells.size - 1 if column.cells.nullable else np.zeros(len(codes), dtype=bool)
    return column.lattice.column(_positions(codes, column, generator), missing)


def _by_code(cells: IntArray, part_of_row: IntArray, column: ColumnDomain, generator: np.random.Generator) -> pl.Series:
    """A value for each cell of a column that depends on a code, from the part of the row's code."""
    assert isinstance(column.cells, PerCode), "only such a column has parts"
    order = np.argsort(part_of_row, kind="stable")
    upto = np.cumsum(np.bincount(part_of_row, minlength=len(column.parts)))
    pieces = [
        _numbers(column.cells.own(at, cells[rows]), part, generator)
        for at, (part, rows) in enumerate(zip(column.parts, np.split(order, upto[:-1]), strict=True))
    ]
    return pl.concat(pieces).gather(np.argsort(order))


def _positions(codes: IntArray, column: ColumnDomain, generator: np.random.Generator) -> IntArray:
    """A lattice position for each cell: a finer cell by its bought count, then evenly inside it."""
    starts, counts, cells = column.leaf_starts, column.leaf_counts, column.leaf_cells
    assert starts is not None and counts is not None and cells is not None, "numeric columns have finer cells"
    mass = np.maximum(counts, 1e-9 * max(float(counts.sum()), 1.0))
    upto = np.concatenate([[0.0], np.cumsum(mass)])
    first = np.searchsorted(cells, np.arange(int(cells[-1]) + 2))
    inside = np.minimum(codes, int(cells[-1]))
    low, high = upto[first[inside]], upto[first[inside + 1]]
    leaf = np.searchsorted(upto, low + generator.random(len(codes)) * (high - low), side="right") - 1
    leaf = np.clip(leaf, first[inside], first[inside + 1] - 1)
    width = starts[leaf + 1] - starts[leaf]
    return np.asarray(starts[leaf] + np.floor(generator.random(len(codes)) * width), dtype=np.int64)
