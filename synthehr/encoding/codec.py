"""The way through the door, and back from cells to values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.encoding.domain import OTHER, ColumnDomain
from synthehr.encoding.lattice import as_number
from synthehr.privacy.partition import Values
from synthehr.privacy.rows import PrivateRows
from synthehr.randomness import IntArray, NoiseSource
from synthehr.schema.model import BooleanColumn, CategoryColumn, Schema, Table

__all__ = ["behind_the_door", "decode"]


def behind_the_door(cohort: Cohort[Schema], *, table: str, noise: NoiseSource) -> PrivateRows:
    """The kept columns of one table as private rows: categories as text, all else on its lattice's scale."""
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
        max_rows=1,
        noise=noise,
    )


def decode(
    codes: IntArray, *, domain: Sequence[ColumnDomain], table: Table, generator: np.random.Generator
) -> pl.DataFrame:
    """Values for cells: a category's own, or a draw inside the cell from its bought finer histogram.

    Shape: ``codes`` is ``(rows, columns)`` in the order of ``domain``.
    """
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
        else:
            missing = mine == column.cells.size - 1 if column.cells.nullable else np.zeros(len(mine), dtype=bool)
            assert column.lattice is not None, "numeric columns have a lattice"
            series = column.lattice.column(_positions(mine, column, generator), missing)
        columns.append(series.alias(column.name))
    return pl.DataFrame(columns)


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
