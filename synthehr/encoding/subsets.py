"""Subsets of the values that one column can take, and how much of each cell's mass lies in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from synthehr.encoding.domain import ColumnDomain
from synthehr.privacy.partition import Intervals, PerCode
from synthehr.randomness import FloatArray, IntArray

__all__ = ["Interior", "Subset", "interior_of", "shares", "universe"]


def universe(column: ColumnDomain) -> int:
    """How many values a column can take, where it can be told: missing is one, and comes last.

    A category's are its cells and a number's the positions of its lattice. A number that depends on a code has one for
    any value at all.
    """
    if isinstance(column.cells, PerCode):
        return 1 + int(column.cells.nullable)
    if column.lattice is not None:
        return column.lattice.points + int(column.cells.nullable)
    return column.cells.size


@dataclass(frozen=True, slots=True)
class Subset:
    """Some of the values 0 to ``size - 1`` of a column, see :func:`universe`.

    Attributes:
        borders: strictly increasing, an even number of them: values from the first to before the second, and so on.
        size: how many values there are in all.
    """

    borders: tuple[int, ...]
    size: int

    @classmethod
    def of_pieces(cls, starts: IntArray, member: np.ndarray, *, size: int) -> Subset:
        """Pieces that begin at ``starts`` and end where the next begins, each in or out. Shapes: ``(pieces,)`` both."""
        before = np.concatenate([[False], member[:-1]])
        changes = starts[member != before].tolist()
        if len(changes) % 2:
            changes.append(size)
        return cls(tuple(changes), size)

    @classmethod
    def of_mask(cls, member: np.ndarray) -> Subset:
        """The values where ``member``, of shape ``(size,)``, is true."""
        return cls.of_pieces(np.arange(len(member)), member, size=len(member))

    @classmethod
    def full(cls, size: int) -> Subset:
        """All values."""
        return cls((0, size), size)

    @property
    def is_empty(self) -> bool:
        """Whether no value is in it."""
        return not self.borders

    def holds(self, values: IntArray) -> np.ndarray:
        """Whether each value is in it, of the shape of ``values``."""
        before = np.searchsorted(np.asarray(self.borders, dtype=np.int64), values, side="right")
        return np.asarray(before % 2 == 1)

    def __and__(self, other: Subset) -> Subset:
        return self._with(other, np.logical_and)

    def __sub__(self, other: Subset) -> Subset:
        return self._with(other, lambda mine, theirs: mine & ~theirs)

    def _with(self, other: Subset, rule: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Subset:
        starts = np.unique(np.asarray([0, *self.borders, *other.borders], dtype=np.int64))
        starts = starts[starts < self.size]
        return Subset.of_pieces(starts, rule(self.holds(starts), other.holds(starts)), size=self.size)


# From where the guide points to, before what is left is searched.
_STEPS = 4


@dataclass(frozen=True)
class Interior:
    """Where inside their cells the values of a numeric column lie: pieces of the lattice, even inside each.

    Attributes:
        starts: first lattice position of each piece and the end of the last, shape ``(pieces + 1,)``.
        mass: of each piece, none negative, shape ``(pieces,)``.
        cells: the cell each piece lies in, in order, shape ``(pieces,)``.
    """

    starts: IntArray
    mass: FloatArray
    cells: IntArray

    @cached_property
    def _upto(self) -> FloatArray:
        return np.concatenate([[0.0], np.cumsum(self.mass)])

    @cached_property
    def _bounds(self) -> tuple[FloatArray, FloatArray, IntArray]:
        """For each cell the mass before it, the mass up to its end, and the last of its pieces that has any."""
        cells = int(self.cells[-1]) + 1
        first = np.searchsorted(self.cells, np.arange(cells + 1))
        low, high = self._upto[first[:-1]], self._upto[first[1:]]
        held = np.where(self.mass > 0.0, np.arange(len(self.mass)), -1)
        return low, high, np.maximum.accumulate(held)[first[1:] - 1]

    @cached_property
    def _guide(self) -> tuple[IntArray, float]:
        """For even steps of the mass, a piece that begins no later; and how many steps there are to one of mass."""
        steps, whole = 4 * len(self.mass), float(self._upto[-1]) or 1.0
        edges = np.arange(steps + 1) * (whole / steps) * (1.0 - 1e-9)
        return np.searchsorted(self._upto[:-1], edges, side="right") - 1, steps / whole

    def _piece(self, point: FloatArray) -> IntArray:
        """The piece that each point of the mass falls in: a look-up and a few steps, where there are millions."""
        guide, scale = self._guide
        end = np.append(self._upto[1:-1], np.inf)
        piece = guide[np.minimum((point * scale).astype(np.int64), len(guide) - 1)]
        for _ in range(_STEPS):
            later = end[piece] <= point
            if not later.any():
                return piece
            piece += later
        left = np.flatnonzero(end[piece] <= point)
        piece[left] = np.searchsorted(self._upto[1:-1], point[left], side="right")
        return piece

    def draw(self, cells: IntArray, draws: np.random.Generator) -> IntArray:
        """A lattice position in each cell, which must hold some mass. Shape ``(rows,)`` in and out."""
        low, high, last = self._bounds
        inside = np.minimum(cells, len(low) - 1)
        point = draws.random(len(cells))
        point *= (high - low)[inside]
        point += low[inside]
        piece = np.minimum(self._piece(point), last[inside])
        width = np.diff(self.starts)
        per_mass = np.divide(width, self.mass, out=np.zeros(len(width)), where=self.mass > 0.0)
        point -= self._upto[piece]
        point *= per_mass[piece]
        return self.starts[piece] + np.clip(point.astype(np.int64), 0, width[piece] - 1)


def interior_of(column: ColumnDomain, subset: Subset | None = None) -> Interior:
    """The interior of a numeric column's cells, or what of it lies in a subset of its values."""
    starts, counts, cells = column.leaf_starts, column.leaf_counts, column.leaf_cells
    assert starts is not None and counts is not None and cells is not None, "numeric columns have finer cells"
    mass = np.maximum(counts, 1e-9 * max(float(counts.sum()), 1.0))
    if subset is None:
        return Interior(starts, mass, cells)
    cuts = np.asarray([border for border in subset.borders if starts[0] < border < starts[-1]], dtype=np.int64)
    pieces = np.union1d(starts, cuts)
    leaf = np.searchsorted(starts, pieces[:-1], side="right") - 1
    part = np.diff(pieces) / np.diff(starts)[leaf]
    return Interior(pieces, mass[leaf] * part * subset.holds(pieces[:-1]), cells[leaf])


def shares(column: ColumnDomain, subset: Subset) -> FloatArray:
    """How much of each cell's mass lies in a subset of the column's values, 0 to 1, shape ``(cells.size,)``."""
    size = column.cells.size
    if isinstance(column.cells, Intervals):
        whole, part = interior_of(column), interior_of(column, subset)
        found = np.bincount(part.cells, part.mass, minlength=size) / np.maximum(
            np.bincount(whole.cells, whole.mass, minlength=size), 1e-300
        )
        values = np.arange(size)
        found[values > whole.cells[-1]] = subset.holds(np.asarray([subset.size - 1]))[0]
        return np.minimum(found, 1.0)
    if isinstance(column.cells, PerCode):
        return subset.holds(np.minimum(np.arange(size) // column.cells.places, 1)).astype(np.float64)
    return subset.holds(np.arange(size)).astype(np.float64)
