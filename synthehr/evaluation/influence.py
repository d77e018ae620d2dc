"""Measurements from the influence of each patient on an estimate (the infinitesimal jackknife), or of groups of them.

An estimate's standard error is that of the mean of its influences (Efron 1982; Hampel 1974). It needs no
resampling and, unlike a bootstrap of a distance, is not centred on a number that is biased twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.intervals import Z95, Estimate, normal_interval
from synthehr.evaluation.measurement import Direction, Measurement, Scope

__all__ = ["GROUPS", "folded", "from_errors", "from_influence", "grouped_error", "groups_of", "mean_error", "t95"]

GROUPS = 20
"""Groups of patients of a grouped jackknife."""

Floats = NDArray[np.float64]


def mean_error(influence: Floats) -> float:
    """The standard error of an estimate with these influences, shape ``(patients,)``; 0 for one patient."""
    if len(influence) < 2:
        return 0.0
    return math.sqrt(float(influence.var(ddof=1)) / len(influence))


def t95(groups: int) -> float:
    """How much wider than a normal interval one by ``groups`` groups is: quantile of t over that of the normal."""
    from scipy.stats import t

    return float(t.ppf(0.975, groups - 1)) / Z95


def from_errors(
    metric: str,
    scope: Scope,
    direction: Direction,
    *,
    value: float,
    reference: float,
    errors: tuple[float, float],
    limits: tuple[float, float] = (0.0, 1.0),
) -> Measurement:
    """A measurement from its standard errors.

    Args:
        metric: its name.
        scope: what it is of.
        direction: whether lower or higher is better.
        value: on the synthetic cohort.
        reference: on the holdout.
        errors: standard errors of the value, and of the excess.
        limits: the least and the most that the metric can be.
    """
    low, high = limits
    excess = value - reference if direction == "lower" else reference - value
    span = high - low
    return Measurement(
        metric=metric,
        scope=scope,
        direction=direction,
        value=normal_interval(min(max(value, low), high), error=errors[0], lower=low, upper=high),
        reference=min(max(reference, low), high),
        excess=normal_interval(excess, error=errors[1], lower=-span, upper=span),
    )


def from_influence(
    metric: str,
    scope: Scope,
    *,
    value: float,
    reference: float,
    train: tuple[Floats, Floats],
    synthetic: Floats,
    holdout: Floats,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Measurement:
    """A distance (lower is better) from the influences on it.

    Args:
        metric: its name.
        scope: what it is of.
        value: distance of the synthetic cohort from train.
        reference: distance of the holdout from train.
        train: influences of train's patients on the value, and on the reference; shape ``(patients,)`` each.
        synthetic: influences of the synthetic patients on the value.
        holdout: influences of the holdout's patients on the reference.
        limits: the least and the most that the distance can be.
    """
    own = math.hypot(mean_error(train[0]), mean_error(synthetic))
    against = math.hypot(mean_error(train[0] - train[1]), mean_error(synthetic), mean_error(holdout))
    return from_errors(metric, scope, "lower", value=value, reference=reference, errors=(own, against), limits=limits)


def groups_of(patients: int, *, generator: np.random.Generator, groups: int = GROUPS) -> NDArray[np.int64]:
    """The group of each patient, at random and of nearly equal size. Shape ``(patients,)``."""
    return generator.permutation(np.arange(patients) % min(groups, patients))


def grouped_error(estimate: Callable[[Mapping[str, int]], Sequence[float]], groups: Mapping[str, int]) -> Floats:
    """Standard errors by leaving out one group of patients at a time, of one cohort after the other.

    Intervals of ``estimate ± 1.96 errors`` have the width of t intervals, since groups are few.

    Args:
        estimate: the estimates with the named groups left out, one for each cohort at most.
        groups: number of groups of each cohort.

    Returns:
        one error for each estimate.

    Source: Shao and Tu 1995, section 2.3.
    """
    variance: Floats | None = None
    for cohort, many in groups.items():
        left_out = np.array([estimate({cohort: group}) for group in range(many)])
        part = (many - 1) / many * np.square(left_out - left_out.mean(axis=0)).sum(axis=0)
        variance = part if variance is None else variance + part
    assert variance is not None
    return np.asarray(np.sqrt(variance) * t95(max(min(groups.values()), 2)))


def folded(signed: Estimate) -> Estimate:
    """The interval of an absolute value from that of the signed one."""
    ends = abs(signed.low), abs(signed.high)
    low = 0.0 if signed.low <= 0.0 <= signed.high else min(ends)
    return Estimate(value=abs(signed.value), low=low, high=max(ends))
