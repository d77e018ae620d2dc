"""Patients as points, so that an attack can say how near a synthetic patient lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.cohorts import Part, Parts

__all__ = ["Space", "nearest", "space_of"]

_MOST_SLOTS = 32
_CHUNK_CELLS = 8_000_000

Points = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The points of all three cohorts, and which of their coordinates come of which column.

    A number is scaled by median and quartiles of the synthetic cohort and drawn in by the inverse hyperbolic sine,
    which keeps different values apart however far out they lie. Two categories, and missing or not, lie 1 apart.

    Attributes:
        train: shape ``(patients, coordinates)``.
        holdout: the same of the holdout.
        synthetic: the same of the synthetic cohort.
        columns: the coordinates of each column.
    """

    train: Points
    holdout: Points
    synthetic: Points
    columns: tuple[slice, ...]


def space_of(parts: Parts) -> Space:
    """The points of the root table's kept columns. Nothing of train or holdout sets the scale."""
    blocks: dict[str, list[Points]] = {"train": [], "holdout": [], "synthetic": []}
    slices, start = [], 0
    cohorts = {"train": parts.train, "holdout": parts.holdout, "synthetic": parts.synthetic}
    for at, column in enumerate(parts.coding.columns):
        own = parts.synthetic.values[column.name].number
        if own is None:
            slots = min(len(column.labels), _MOST_SLOTS)
            made = {name: _one_hot(part.codes[:, at], slots) for name, part in cohorts.items()}
        else:
            made = {name: _scaled(part, column.name, own) for name, part in cohorts.items()}
        width = made["synthetic"].shape[1]
        slices.append(slice(start, start + width))
        start += width
        for name, block in made.items():
            blocks[name].append(block)
    joined = {
        name: np.concatenate(found, axis=1) if found else np.zeros((len(cohorts[name]), 0), dtype=np.float32)
        for name, found in blocks.items()
    }
    return Space(train=joined["train"], holdout=joined["holdout"], synthetic=joined["synthetic"], columns=tuple(slices))


def nearest(points: Points, others: Points, *, itself: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """The distance of each point to the nearest of the others, shape ``(points,)``; infinite where there is none.

    Args:
        points: shape ``(points, coordinates)``.
        others: shape ``(others, coordinates)``.
        itself: for each point which of the others it is, and must not meet; None where it is none of them.
    """
    found = np.full(len(points), np.inf)
    if len(others) == 0 or (itself is not None and len(others) == 1):
        return found
    for rows, squares in square_distances(points, others):
        if itself is not None:
            squares[np.arange(len(squares)), itself[rows]] = np.inf
        closest = squares.argmin(axis=1)
        # In products of float32 an equal point is not quite at 0.
        gap = points[rows].astype(np.float64) - others[closest]
        found[rows] = np.sqrt(np.square(gap).sum(axis=1))
    return found


def square_distances(points: Points, others: Points) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Squared distances, some points at a time, shape ``(some, others)``; rounding may leave them a little below 0."""
    step = max(1, _CHUNK_CELLS // max(len(others), 1))
    lengths = np.square(others).sum(axis=1)
    for start in range(0, len(points), step):
        some = points[start : start + step]
        products = some @ others.T
        products *= -2.0
        products += lengths
        products += np.square(some).sum(axis=1, keepdims=True)
        yield slice(start, start + len(some)), products


def _one_hot(codes: NDArray[np.int32], slots: int) -> Points:
    block = np.zeros((len(codes), slots), dtype=np.float32)
    block[np.arange(len(codes)), codes % slots] = np.sqrt(0.5)
    return block


def _scaled(part: Part, name: str, own: NDArray[np.float64]) -> Points:
    number = part.values[name].number
    assert number is not None
    given = own[~np.isnan(own)]
    low, middle, high = np.quantile(given, [0.25, 0.5, 0.75]) if len(given) else (0.0, 0.0, 0.0)
    scale = high - low or float(given.std() if len(given) else 0.0) or 1.0
    absent = np.isnan(number)
    drawn_in = np.arcsinh((np.where(absent, middle, number) - middle) / scale)
    return np.stack([drawn_in, absent], axis=1).astype(np.float32)
