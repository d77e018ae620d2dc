"""Attacks on single records: copies of patients who stand apart, and guesses of what is not known of a patient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.attacks_space import Space, nearest, square_distances
from synthehr.evaluation.cohorts import Parts
from synthehr.evaluation.intervals import Estimate, difference_of_proportions, normal_interval, wilson

__all__ = ["Guesses", "Outliers", "copied_outliers", "guess_attributes", "nearer_to_train"]

_FEWEST = 30
_MOST_TARGETS = 2_000
_MOST_SECRETS = 8
_APART, _FEWEST_APART, _MOST_APART = 0.2, 40, 2_000
_CANDIDATES = 5_000
_NEAR = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Shares of the patients who stand apart of whom a near copy is in the synthetic cohort.

    Attributes:
        train: of those learned from.
        holdout: of those held out.
    """

    train: Estimate
    holdout: Estimate

    def excess(self) -> Estimate:
        """Train's share less the holdout's (Newcombe)."""
        return difference_of_proportions(self.train, self.holdout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """How often a column is guessed right from all others, by the nearest synthetic patient.

    Attributes:
        columns: those that were guessed.
        train: right or not, of patients learned from, shape ``(patients, columns)``.
        holdout: the same of held-out patients.
    """

    columns: tuple[str, ...]
    train: NDArray[np.float64]
    holdout: NDArray[np.float64]

    def shares(self, column: str | None) -> tuple[Estimate, float, Estimate]:
        """Train's share of right guesses, the holdout's, and the difference; the mean of all columns for None."""
        at = slice(None) if column is None else slice(self.columns.index(column), self.columns.index(column) + 1)
        train, holdout = self.train[:, at].mean(axis=1), self.holdout[:, at].mean(axis=1)
        errors = [math.sqrt((x.var() + 0.25 / len(x)) / len(x)) for x in (train, holdout)]
        means = float(train.mean()), float(holdout.mean())
        value = normal_interval(means[0], error=errors[0], lower=0.0, upper=1.0)
        gap = normal_interval(means[0] - means[1], error=math.hypot(*errors), lower=-1.0, upper=1.0)
        return value, means[1], gap


def copied_outliers(space: Space) -> Outliers | None:
    """Near copies of the real patients who stand apart most; None where train or holdout has none of them.

    How far a patient stands apart is the distance to the nearest other real patient of either part. A near copy lies
    within a tenth of that distance.
    """
    real = np.concatenate([space.train, space.holdout])
    learned = np.arange(len(real)) < len(space.train)
    if len(real) < 2:
        return None
    centre = np.median(real, axis=0)
    far = np.square(real - centre).sum(axis=1)
    candidates = np.argsort(-far, kind="stable")[:_CANDIDATES]
    apart = nearest(real[candidates], real, itself=candidates)
    number = int(np.clip(_APART * len(real), _FEWEST_APART, _MOST_APART))
    chosen = np.argsort(-apart, kind="stable")[:number]
    chosen = chosen[apart[chosen] > 0.0]
    targets, distance = candidates[chosen], apart[chosen]
    copied = nearest(real[targets], space.synthetic) <= _NEAR * distance
    inside = learned[targets]
    if not inside.any() or inside.all():
        return None
    return Outliers(
        train=wilson(float(copied[inside].sum()), of=int(inside.sum())),
        holdout=wilson(float(copied[~inside].sum()), of=int((~inside).sum())),
    )


def secrets(parts: Parts) -> tuple[str, ...]:
    """The columns that are guessed: outcomes and groups first, eight at most."""
    root = parts.schema.root
    first = [*root.outcome, *root.groups]
    return tuple(dict.fromkeys([*first, *parts.coding.names]))[:_MOST_SECRETS]


def guess_attributes(parts: Parts, space: Space) -> Guesses | None:
    """Guess columns of train and of holdout patients; None where there are fewer than 30 of either, or one column."""
    columns = [name for name in secrets(parts) if name in parts.coding.names]
    if min(len(parts.train), len(parts.holdout)) < _FEWEST or len(parts.coding.names) < 2:
        return None
    draw = parts.generator(41)
    right = []
    for part, points in ((parts.train, space.train), (parts.holdout, space.holdout)):
        rows = draw.permutation(len(part))[:_MOST_TARGETS]
        right.append(_right(parts, space, points[rows], part.codes[rows], columns))
    return Guesses(columns=tuple(columns), train=right[0], holdout=right[1])


def nearer_to_train(space: Space, *, draw: np.random.Generator) -> float:
    """Share of synthetic patients nearer to train than to as many holdout patients, ties counting half."""
    size = min(len(space.train), len(space.holdout), 5_000)
    some = space.synthetic[draw.permutation(len(space.synthetic))[:5_000]]
    to_train, to_holdout = (
        nearest(some, points[draw.permutation(len(points))[:size]]) for points in (space.train, space.holdout)
    )
    return float((to_train < to_holdout).mean() + (to_train == to_holdout).mean() / 2.0)


def _right(
    parts: Parts,
    space: Space,
    points: NDArray[np.float32],
    codes: NDArray[np.int32],
    columns: list[str],
) -> NDArray[np.float64]:
    """Right guesses, shape ``(points, columns)``."""
    places = [parts.coding.names.index(name) for name in columns]
    found = np.zeros((len(points), len(columns)))
    for rows, squares in square_distances(points, space.synthetic):
        for number, at in enumerate(places):
            own = space.columns[at]
            some, others = points[rows, own], space.synthetic[:, own]
            left_out = some @ (-2.0 * others.T)
            left_out += np.square(others).sum(axis=1)
            left_out += np.square(some).sum(axis=1, keepdims=True)
            closest = (squares - left_out).argmin(axis=1)
            found[rows, number] = parts.synthetic.codes[closest, at] == codes[rows, at]
    return found
