"""Estimates with two-sided 95 % intervals, all with the patient as the unit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Estimate",
    "area_under_curve",
    "area_with_error",
    "bootstrap_counts",
    "difference_of_proportions",
    "normal_interval",
    "paired_proportion_difference",
    "replicate_areas",
    "replicate_r_squared",
    "wilson",
]

Z95 = 1.959963984540054
"""The normal quantile behind every two-sided 95 % interval here."""

_CHUNK_CELLS = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A finite number and the interval around it.

    Attributes:
        value: the point estimate.
        low: lower end of the two-sided 95 % interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) for x in (self.value, self.low, self.high)):
            raise ValueError("an estimate must be finite; say why it is undefined instead")
        if not self.low <= self.value <= self.high:
            raise ValueError("an estimate must lie inside its interval")


def normal_interval(
    value: float, *, error: float, lower: float = -math.inf, upper: float = math.inf, z: float = Z95
) -> Estimate:
    """The interval ``value ± z · error``, cut at what the quantity can be.

    Args:
        value: the point estimate.
        error: its standard error.
        lower: the least the quantity can be.
        upper: the most it can be.
        z: normal quantile; 1.96 by default.
    """
    return Estimate(
        value=float(value),
        low=float(min(value, max(lower, value - z * error))),
        high=float(max(value, min(upper, value + z * error))),
    )


def wilson(hits: float, *, of: int) -> Estimate:
    """Wilson's score interval of a proportion; never of zero width.

    Source: Wilson 1927; equation (4) in Brown, Cai, DasGupta 2001.
    """
    share = hits / of
    spread = Z95**2 / of
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return Estimate(value=share, low=min(share, max(0.0, centre - half)), high=max(share, min(1.0, centre + half)))


def difference_of_proportions(first: Estimate, second: Estimate, *, times: float = 1.0) -> Estimate:
    """``first - times * second`` of two independent proportions, from their Wilson intervals.

    Source: Newcombe 1998, method 10 (square-and-add); with ``times``, Zou and Donner 2008.
    """
    value = first.value - times * second.value
    low = value - math.hypot(first.value - first.low, times * (second.high - second.value))
    high = value + math.hypot(first.high - first.value, times * (second.value - second.low))
    return Estimate(value=value, low=max(-times, low), high=min(1.0, high))


def paired_proportion_difference(differences: NDArray[np.float64], *, extra_variance: float = 0.0) -> Estimate:
    """Mean of paired differences in [-1, 1], with an interval that never has zero width.

    One pseudo-patient is added on each side, as Agresti and Min 2005 do for matched pairs, so that
    "none found" is not read as certainty.

    Args:
        differences: one per patient, shape ``(patients,)``.
        extra_variance: variance of the mean from anything else that was sampled.
    """
    n = len(differences)
    mean = float(differences.mean())
    spread = (float(np.square(differences).sum()) + 1.0) - n * mean * mean * n / (n + 2)
    error = math.sqrt(max(spread, 1.0) / (n + 2) ** 2 + extra_variance)
    return normal_interval(mean, error=error, lower=-1.0, upper=1.0)


def area_under_curve(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Probability that a positive scores above a negative, ties counting half.

    Shape: both ``(patients,)``. Needs one patient of each label.
    """
    return area_with_error(labels, scores)[0]


def area_with_error(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[float, float]:
    """The area under the ROC curve and its standard error.

    Source: DeLong, DeLong and Clarke-Pearson 1988; placements by ranks (Sun and Xu 2014).
    """
    from scipy.stats import rankdata

    positive, negative = scores[labels], scores[~labels]
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    above = (ranks[:m] - rankdata(positive)) / n
    below = 1.0 - (ranks[m:] - rankdata(negative)) / m
    variance = (above.var(ddof=1) / m if m > 1 else 0.25) + (below.var(ddof=1) / n if n > 1 else 0.25)
    # A perfect separation leaves no variance; one pseudo-patient of the other order keeps the interval open.
    floor = 1.0 / (m + 2) ** 2 + 1.0 / (n + 2) ** 2
    return float(above.mean()), math.sqrt(max(float(variance), floor))


def bootstrap_counts(
    patients: int, *, replicates: int, generator: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """How often each patient is drawn in each replicate, in chunks of shape ``(some, patients)``."""
    step = max(1, _CHUNK_CELLS // max(patients, 1))
    even = np.full(patients, 1.0 / patients)
    for start in range(0, replicates, step):
        yield generator.multinomial(patients, even, size=min(step, replicates - start)).astype(np.float64)


def replicate_areas(
    labels: NDArray[np.bool_], scores: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The area under the ROC curve in each bootstrap replicate; NaN where a replicate lacks one label.

    Shape: ``counts`` is ``(replicates, patients)``; the result ``(replicates,)``.
    """
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    drawn = counts[:, order]
    marks = labels[order]
    positive = np.add.reduceat(drawn * marks, starts, axis=1)
    negative = np.add.reduceat(drawn * ~marks, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    totals = positive.sum(axis=1) * negative.sum(axis=1)
    wins = (positive * (below + negative / 2)).sum(axis=1)
    return np.asarray(np.divide(wins, totals, out=np.full(len(totals), np.nan), where=totals > 0))


def replicate_r_squared(
    truth: NDArray[np.float64], predicted: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The coefficient of determination in each bootstrap replicate; NaN where the truth does not vary.

    Shape: ``counts`` is ``(replicates, patients)``; the result ``(replicates,)``.
    """
    size = counts.sum(axis=1)
    mean = counts @ truth / size
    spread = counts @ np.square(truth) - size * np.square(mean)
    residual = counts @ np.square(truth - predicted)
    scale = float(np.square(truth).sum()) * 1e-12
    return np.asarray(1.0 - np.divide(residual, spread, out=np.full(len(size), np.nan), where=spread > scale))
