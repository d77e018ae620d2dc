"""Public partitions of a column's values into cells. A partition never depends on rows but through what was bought."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from synthehr.randomness import FloatArray, IntArray

__all__ = ["Intervals", "Partition", "Values"]


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


Partition = Intervals | Values
