"""Public partitions of a column's values into cells. A partition never depends on rows but through what was bought."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from synthehr.randomness import FloatArray, IntArray

__all__ = ["Cells", "Intervals", "JointCells", "Partition", "PerCode", "Values", "cells_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Cells ``[edges[i], edges[i + 1])``, the first and last open-ended, and one for missing values last.

    Attributes:
        edges: strictly increasing, shape ``(cells + 1,)``.
        nullable: whether there is a cell for missing values.
    """

    edges: FloatArray
    nullable: bool

    @property
    def size(self) -> int:
        """Number of cells, missing included."""
        return len(self.edges) - 1 + int(self.nullable)

    def codes(self, column: pl.Series) -> IntArray:
        """The cell of each value, shape ``(rows,)``. Missing values where there is no cell for them go to 0."""
        values = column.cast(pl.Float64).to_numpy()
        inner = np.searchsorted(self.edges[1:-1], values, side="right")
        return np.where(np.isnan(values), self.size - 1 if self.nullable else 0, inner).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """One cell a value, then one for any other value, then one for missing values, each where asked for."""

    values: tuple[str, ...]
    other: bool
    nullable: bool

    @property
    def size(self) -> int:
        """Number of cells, other and missing included."""
        return len(self.values) + int(self.other) + int(self.nullable)

    def codes(self, column: pl.Series) -> IntArray:
        """The cell of each value, shape ``(rows,)``. What has no cell of its own goes to 0."""
        outside = len(self.values) if self.other else 0
        missing = self.size - 1 if self.nullable else 0
        text = column.cast(pl.String)
        found = text.replace_strict(
            list(self.values), list(range(len(self.values))), default=outside, return_dtype=pl.Int64
        )
        return np.where(text.is_null().to_numpy(), missing, found.to_numpy()).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ByCode:
    """Intervals of a number for each cell of a code in the same row.

    Attributes:
        per: the column of the code.
        codes: its cells.
        parts: the intervals for each of them, all with a cell for missing values or none.
    """

    per: str
    codes: Values
    parts: tuple[Intervals, ...]

    def _located(self, column: pl.Series, code: pl.Series) -> tuple[IntArray, IntArray]:
        """The part of each row and the cell within it, both of shape ``(rows,)``."""
        part = self.codes.codes(code)
        order = np.argsort(part, kind="stable")
        upto = np.cumsum(np.bincount(part, minlength=len(self.parts)))
        sorted_values = column.gather(order)
        cell = np.zeros(len(part), dtype=np.int64)
        for at in np.unique(part):
            first, last = (int(upto[at - 1]) if at else 0), int(upto[at])
            cell[order[first:last]] = self.parts[at].codes(sorted_values[first:last])
        return part, cell


@dataclass(frozen=True, slots=True, kw_only=True)
class JointCells(_ByCode):
    """One cell for each code and interval of that code, part after part: what one histogram over all codes counts."""

    @property
    def size(self) -> int:
        """Number of cells of all parts."""
        return sum(part.size for part in self.parts)

    def cells(self, column: pl.Series, code: pl.Series) -> IntArray:
        """The cell of each row, one and no more, shape ``(rows,)``."""
        part, cell = self._located(column, code)
        first = np.cumsum([0, *(part.size for part in self.parts)])
        return np.asarray(first[part] + cell, dtype=np.int64)

    def split(self, counts: FloatArray) -> list[FloatArray]:
        """A histogram of all cells as one of each part."""
        return np.split(counts, np.cumsum([part.size for part in self.parts])[:-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class PerCode(_ByCode):
    """Cells that every code shares, each a place in the order of the code's own values; missing values last.

    An interval of a code takes as many neighbouring places as its share of the code's patients asks for, one at
    least. Rows go to the middle one; all of them lead back to the interval, so that no place is without a value.

    Attributes:
        firsts: for each part the first place of each of its intervals, from 0, strictly increasing.
        places: how many places there are, no fewer than any part has intervals.
    """

    firsts: tuple[IntArray, ...]
    places: int

    @property
    def nullable(self) -> bool:
        """Whether there is a cell for missing values."""
        return self.parts[0].nullable

    @property
    def size(self) -> int:
        """Number of cells, missing included."""
        return self.places + int(self.nullable)

    def middles(self, part: int) -> IntArray:
        """The place of each interval of a part, missing included, shape ``(cells of the part,)``."""
        firsts = self.firsts[part]
        middle = (firsts + np.append(firsts[1:], self.places) - 1) // 2
        return np.append(middle, self.places) if self.nullable else middle

    def cells(self, column: pl.Series, code: pl.Series) -> IntArray:
        """The cell of each row, shape ``(rows,)``."""
        part, cell = self._located(column, code)
        first = np.cumsum([0, *(part.size for part in self.parts)])
        middles = np.concatenate([self.middles(at) for at in range(len(self.parts))])
        return np.asarray(middles[first[part] + cell], dtype=np.int64)

    def own(self, part: int, cells: IntArray) -> IntArray:
        """The intervals of a part in which these cells lie; where missing, its cell for missing values."""
        own = np.searchsorted(self.firsts[part], cells, side="right") - 1
        return np.where(cells >= self.places, self.parts[part].size - 1, own).astype(np.int64)


Cells = Intervals | Values | PerCode
Partition = Cells | JointCells


def cells_of(frame: pl.DataFrame, column: str, partition: Partition) -> IntArray:
    """The cell of each row's value in a partition, which may depend on the row's code, shape ``(rows,)``."""
    if isinstance(partition, JointCells | PerCode):
        return partition.cells(frame[column], frame[partition.per])
    return partition.codes(frame[column])
