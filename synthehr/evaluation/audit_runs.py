"""Many runs on two neighbours: a test is learned on some of the runs, and the others say how good it is.

A fifth of the runs teaches the scores, a fifth the threshold, and the rest alone is counted. Source: Jagielski,
Ullman and Oprea 2020, with the threshold apart from the runs that count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from synthehr.evaluation.audit import ALPHA, Counts, EpsilonBound, many_run_bound

__all__ = ["Runs", "Test", "distinguish", "learn"]

_THRESHOLDS = 200
_TINY = 1e-9

Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """What a mechanism gave away, run by run.

    Attributes:
        present: runs on the cohort with the patient, shape ``(runs, numbers)``.
        absent: runs on the cohort without, shape ``(runs, numbers)``.
    """

    present: NDArray[np.float64]
    absent: NDArray[np.float64]

    def split(self) -> tuple[Runs, Runs, Runs]:
        """A fifth, a fifth, and the rest, in the order of the runs."""
        first, second = (np.split(runs, [len(runs) // 5, 2 * (len(runs) // 5)]) for runs in (self.present, self.absent))
        one, two, three = (Runs(present=a, absent=b) for a, b in zip(first, second, strict=True))
        return one, two, three


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """Says "in" where a score lies above a threshold; both were learned."""

    score: Score
    threshold: float

    def count(self, runs: Runs) -> Counts:
        """How often it says so."""
        return Counts(
            hits=int((self.score(runs.present) > self.threshold).sum()),
            runs_in=len(runs.present),
            alarms=int((self.score(runs.absent) > self.threshold).sum()),
            runs_out=len(runs.absent),
        )


def distinguish(runs: Runs, *, delta: float, alpha: float = ALPHA) -> EpsilonBound:
    """The bound that the best test learned from two fifths of the runs certifies on the rest."""
    teaching, choosing, counting = runs.split()
    return many_run_bound(learn(teaching, choosing, delta=delta).count(counting), delta=delta, alpha=alpha)


def learn(teaching: Runs, choosing: Runs, *, delta: float) -> Test:
    """The score and threshold with the best bound on ``choosing``; scores are learned from ``teaching`` alone."""
    best: tuple[float, Test] | None = None
    for score in _scores(teaching):
        threshold, bound = _threshold(score(choosing.present), score(choosing.absent), delta=delta)
        if best is None or bound > best[0]:
            best = bound, Test(score=score, threshold=threshold)
    assert best is not None
    return best[1]


def _scores(teaching: Runs) -> Sequence[Score]:
    """Where the arms differ in the mean, in the spread, or in one number alone; larger where the patient is in."""
    centre_in, centre = teaching.present.mean(axis=0), teaching.absent.mean(axis=0)
    size = np.abs(teaching.absent).max(axis=0) + np.abs(teaching.present).max(axis=0)
    spread = (teaching.present.var(axis=0) + teaching.absent.var(axis=0)) / 2.0 + np.square(_TINY * size) + _TINY**2
    weights = (centre_in - centre) / spread

    def projection(runs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((runs - centre) @ weights)

    def distance(runs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.square((runs - centre) / np.sqrt(spread)).sum(axis=1))

    further = float(np.median(distance(teaching.present)) - np.median(distance(teaching.absent)))
    at, sign = _one_number(teaching)
    return (
        projection,
        lambda runs: np.copysign(1.0, further) * distance(runs),
        lambda runs: sign * runs[:, at],
    )


def _one_number(teaching: Runs) -> tuple[int, float]:
    """The number whose distributions lie furthest apart (Kolmogorov and Smirnov), and the side of the patient."""
    pooled = np.concatenate([teaching.present, teaching.absent])
    order = np.argsort(pooled, axis=0, kind="stable")
    steps = np.where(order < len(teaching.present), 1.0 / len(teaching.present), -1.0 / len(teaching.absent))
    # Between equal values the sum means nothing.
    ordered = np.take_along_axis(pooled, order, axis=0)
    ends = np.concatenate([ordered[1:] != ordered[:-1], np.ones((1, pooled.shape[1]), dtype=bool)])
    gaps = np.where(ends, np.cumsum(steps, axis=0), 0.0)
    at = int(np.abs(gaps).max(axis=0).argmax())
    gap = gaps[:, at]
    return at, -1.0 if gap[np.abs(gap).argmax()] > 0 else 1.0


def _threshold(present: NDArray[np.float64], absent: NDArray[np.float64], *, delta: float) -> tuple[float, float]:
    """The threshold with the best bound, and that bound; thresholds are midway between scores seen."""
    seen = np.unique(np.concatenate([present, absent]))
    middles = (seen[1:] + seen[:-1]) / 2.0 if len(seen) > 1 else seen
    places = np.unique(np.linspace(0, len(middles) - 1, _THRESHOLDS).round().astype(np.int64))
    edge = np.unique(np.clip(np.searchsorted(middles, np.sort(absent)[-20:]), 0, len(middles) - 1))
    thresholds = middles[np.union1d(places, edge)]
    hits = len(present) - np.searchsorted(np.sort(present), thresholds, side="right")
    alarms = len(absent) - np.searchsorted(np.sort(absent), thresholds, side="right")
    level = ALPHA / 2
    least_hits = np.where(hits == 0, 0.0, beta.ppf(level, np.maximum(hits, 1), len(present) - hits + 1))
    most_alarms = np.where(
        alarms == len(absent), 1.0, beta.ppf(1.0 - level, alarms + 1, np.maximum(len(absent) - alarms, 1))
    )
    ratios = np.maximum(
        np.maximum(least_hits - delta, 0.0) / most_alarms,
        np.maximum(1.0 - most_alarms - delta, 0.0) / np.maximum(1.0 - least_hits, 1e-300),
    )
    best = int(ratios.argmax())
    return float(thresholds[best]), float(ratios[best])
