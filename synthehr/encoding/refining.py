"""Numbers measured level by level: cells that hold patients are split, those that may hold none are taken for empty."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from synthehr.encoding.lattice import Lattice
from synthehr.privacy.accountant import Gaussian
from synthehr.privacy.partition import Intervals
from synthehr.randomness import FloatArray, IntArray

__all__ = ["Leaves", "even_cells", "on_simplex", "refined"]

# Cells so many times as wide as those where half of the patients are must hold more than noise: so many standard
# deviations of it, fewer beside cells that do, and those of a tail together.
_WIDE, _ALONE, _BESIDE, _TOGETHER = 50.0, 4.0, 2.5, 4.0


@dataclass(slots=True)
class Leaves:
    """Cells of a numeric column while they are refined: lattice positions, counts, variances, missing.

    Those of the first level are kept besides, sharpened by each level: a cell's many finer ones, each with noise of
    its own, tell its count less well than it did itself.
    """

    starts: IntArray
    counts: FloatArray
    variance: FloatArray
    missing: float | None
    missing_variance: float
    top_starts: IntArray
    top_counts: FloatArray
    top_variance: FloatArray

    @property
    def total(self) -> float:
        """About how many patients all cells hold, missing included; may be negative."""
        return float(self.top_counts.sum()) + (self.missing or 0.0)

    def summing_to(self, total: float) -> Leaves:
        """The nearest of these without negative counts that sum to ``total``, missing included.

        Cells of the first level come first, then the finer ones within each. All at once, the noise of empty cells
        would be taken off the many fine ones that hold patients. What may be noise alone in cells that are wide beside
        those that hold most patients is taken for noise: it would spread patients over values that nobody has.
        """
        held = self._held()
        top = np.searchsorted(self.top_starts, self.starts[:-1], side="right") - 1
        any_held = np.bincount(top, weights=held, minlength=len(self.top_counts)) > 0
        if not any_held.any():
            any_held[:], held[:] = True, True
        tops, missing = np.zeros(len(self.top_counts)), None
        if self.missing is None:
            tops[any_held] = on_simplex(self.top_counts[any_held], total=total)
        else:
            *known, missing = on_simplex(np.append(self.top_counts[any_held], self.missing), total=total)
            tops[any_held] = known
        counts = np.zeros(len(self.counts))
        for at in np.flatnonzero(any_held):
            mine = held & (top == at)
            counts[mine] = on_simplex(self.counts[mine], total=float(tops[at]))
        return replace(self, counts=counts, missing=missing)

    def wide(self) -> np.ndarray:
        """Which cells are far wider than those where half of the patients are."""
        width = np.diff(self.starts)
        narrow_first = np.argsort(width, kind="stable")
        upto = np.cumsum(np.maximum(self.counts[narrow_first], 0.0))
        usual = width[narrow_first][np.searchsorted(upto, upto[-1] / 2.0)]
        return np.asarray(width > _WIDE * usual)

    def _held(self) -> np.ndarray:
        """Which cells hold patients, as far as can be told: narrow ones, and wide ones of more than noise."""
        noise = np.sqrt(self.variance)
        held, likely = ~self.wide() | (self.counts >= _ALONE * noise), self.counts >= _BESIDE * noise
        while True:
            beside = np.zeros(len(held), dtype=bool)
            beside[1:] |= held[:-1]
            beside[:-1] |= held[1:]
            more = beside & likely & ~held
            if not more.any():
                break
            held |= more
        if held.any():
            first, last = np.flatnonzero(held)[[0, -1]]
            held[last + 1 : last + 1 + _tail(self.counts[last + 1 :], self.variance[last + 1 :])] = True
            lower = _tail(self.counts[:first][::-1], self.variance[:first][::-1])
            held[first - lower : first] = True
        return held


def _tail(counts: FloatArray, variance: FloatArray) -> int:
    """How many cells of a tail, outwards, hold patients: up to the last beyond which, with it, are surely some."""
    beyond, noise = np.cumsum(counts[::-1])[::-1], np.sqrt(np.cumsum(variance[::-1])[::-1])
    sure = np.flatnonzero(beyond >= _TOGETHER * noise)
    return int(sure[-1]) + 1 if len(sure) else 0


def refined(
    measure: Callable[[Sequence[Intervals], Gaussian], list[FloatArray]],
    lattices: Sequence[Lattice],
    *,
    events: tuple[Gaussian, ...],
    nullable: bool,
    masses: Sequence[float] | None,
    bins: int,
) -> list[Leaves]:
    """Measure level by level, each time splitting the cells that hold enough patients to be worth it.

    Every level measures all present cells, so that cells that stay as they are become sharper.

    Args:
        measure: the noisy histogram of each part's cells, all under one event.
        lattices: the values of each part: one a code, or a single one.
        events: one a level.
        nullable: whether each part has a cell for missing values.
        masses: about how many patients each part has; where it is not known, the levels before tell. A cell is split
            into as many as the last level needs to tell single values apart, but no more than would hold twice the
            noise if they shared the patients evenly.
        bins: how many cells a part will be joined into at most, about.
    """
    leaves: list[Leaves | None] = [None] * len(lattices)
    for event in events:
        starts = []
        held = masses or [math.inf if part is None else part.total for part in leaves]
        for part, lattice, mass in zip(leaves, lattices, held, strict=True):
            enough = mass / (2.0 * events[0].noise_multiplier)
            fanout = max(2, int(min(math.ceil(lattice.points ** (1 / len(events))), enough)))
            if part is None:
                whole = np.array([0, lattice.points], dtype=np.int64)
                starts.append(_split(whole, np.array([True]), fanout))
            else:
                heavy = part.counts > max(2.0 * event.noise_multiplier, mass / (4.0 * bins))
                starts.append(_split(part.starts, heavy & (np.diff(part.starts) > 1), fanout))
        edges = [lattice.edges(at) for lattice, at in zip(lattices, starts, strict=True)]
        noisy = measure([Intervals(edges=e, nullable=nullable) for e in edges], event)
        variance = event.noise_multiplier**2
        leaves = [
            _merge(part, at, counts[: len(at) - 1], variance, float(counts[-1]) if nullable else None)
            for part, at, counts in zip(leaves, starts, noisy, strict=True)
        ]
    return [part for part in leaves if part is not None]


def _split(starts: IntArray, chosen: np.ndarray, fanout: int) -> IntArray:
    pieces = [starts]
    for at in np.flatnonzero(chosen):
        width = int(starts[at + 1] - starts[at])
        pieces.append(np.linspace(starts[at], starts[at + 1], min(fanout, width) + 1).round().astype(np.int64))
    return np.unique(np.concatenate(pieces))


def _merge(old: Leaves | None, starts: IntArray, counts: FloatArray, variance: float, missing: float | None) -> Leaves:
    """Combine a finer measurement with the coarser one before it, each by its precision."""
    if old is None:
        known = np.full(len(counts), variance)
        return Leaves(starts, counts, known, missing, 0.0 if missing is None else variance, starts, counts, known)
    parent = np.searchsorted(old.starts, starts[:-1], side="right") - 1
    children = np.bincount(parent, minlength=len(old.counts))
    sums = np.bincount(parent, weights=counts, minlength=len(old.counts))
    pull = old.variance / (old.variance + children * variance)
    total = pull * sums + (1.0 - pull) * old.counts
    fitted = counts + ((total - sums) / children)[parent]
    for at in np.flatnonzero(children > 1):
        mine = parent == at
        fitted[mine] = on_simplex(fitted[mine], total=max(0.0, total[at]))
    top = np.searchsorted(old.top_starts, starts[:-1], side="right") - 1
    top_sums = np.bincount(top, weights=counts, minlength=len(old.top_counts))
    top_pull = old.top_variance / (old.top_variance + np.bincount(top) * variance)
    share = old.missing_variance / (old.missing_variance + variance)
    return Leaves(
        starts,
        fitted,
        np.where(children[parent] > 1, variance, variance * pull[parent]),
        None if missing is None or old.missing is None else share * missing + (1.0 - share) * old.missing,
        share * variance,
        old.top_starts,
        old.top_counts + top_pull * (top_sums - old.top_counts),
        (1.0 - top_pull) * old.top_variance,
    )


def even_cells(leaves: Leaves, bins: int) -> IntArray:
    """Which of about ``bins`` cells of even mass each finer one lies in; one heavier than that stays alone.

    Wide ones that hold nobody go along with a neighbour: a cell of their own would be drawn from now and then.
    """
    filled = np.flatnonzero((leaves.counts > 0.0) | ~leaves.wide())
    if not len(filled):
        return np.zeros(len(leaves.counts), dtype=np.int64)
    few = len(filled) <= bins
    cell = np.arange(len(filled)) if few else _of_even_mass(leaves.counts[filled], bins)
    nearest = np.maximum(np.searchsorted(filled, np.arange(len(leaves.counts)), side="right") - 1, 0)
    return np.asarray(cell[nearest], dtype=np.int64)


def _of_even_mass(counts: FloatArray, bins: int) -> IntArray:
    total = float(counts.sum())
    if total <= 0.0:
        return np.zeros(len(counts), dtype=np.int64)
    alone = counts >= 0.8 * total / bins
    target = max(float(counts[~alone].sum()), 1e-9) / max(bins - int(alone.sum()), 1)
    cell = np.zeros(len(counts), dtype=np.int64)
    now, held = 0, 0.0
    for at, count in enumerate(counts):
        if at and (alone[at] or alone[at - 1] or held + 0.5 * count >= target):
            now, held = now + 1, 0.0
        cell[at] = now
        held += float(count)
    return cell


def on_simplex(noisy: FloatArray, *, total: float) -> FloatArray:
    """The nearest vector, in least squares, that has no negative entry and sums to ``total``."""
    if total <= 0.0:
        return np.zeros_like(noisy)
    ordered = np.sort(noisy)[::-1]
    excess = (np.cumsum(ordered) - total) / np.arange(1, len(ordered) + 1)
    shift = excess[np.flatnonzero(ordered > excess)[-1]]
    return np.asarray(np.maximum(noisy - shift, 0.0), dtype=np.float64)
