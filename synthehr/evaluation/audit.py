"""Lower bounds on epsilon from guesses: one run with many canaries, or many runs on a pair of neighbours.

Every bound holds with 95 % confidence: a correct mechanism is accused in at most one audit of twenty. Whatever is
chosen (how many guesses, which score, which threshold) is chosen before the guesses that count are looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ALPHA",
    "Counts",
    "EpsilonBound",
    "audit_guesses",
    "guess",
    "many_run_bound",
    "one_run_bound",
    "one_run_ceiling",
    "one_run_p_value",
    "upper_proportion",
]

ALPHA = 0.05
"""How often a correct mechanism may be accused."""

_MOST_EPSILON = 50.0
_MESH = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonBound:
    """What an audit certifies.

    Attributes:
        epsilon: the lower bound; 0 where nothing was shown.
        ceiling: the bound that perfect guesses of this number would have given.
        guesses: how many there were.
        right: how many were right.
    """

    epsilon: float
    ceiling: float
    guesses: int
    right: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How often a fixed test said "in", over runs with the patient and over runs without.

    Attributes:
        hits: runs with the patient of which the test said so.
        runs_in: runs with the patient.
        alarms: runs without the patient of which the test said "in".
        runs_out: runs without.
    """

    hits: int
    runs_in: int
    alarms: int
    runs_out: int


def one_run_p_value(epsilon: float, *, canaries: int, guesses: int, right: int, delta: float) -> float:
    """The chance, at most, of ``right`` or more right guesses under an (epsilon, delta)-private mechanism.

    Source: Steinke, Nasr and Jagielski 2023, Theorem 5.2. Each of ``canaries`` is in or out by a fair coin.

    Raises:
        ValueError: more guesses than canaries, or more right ones than guesses.
    """
    if not 0 <= right <= guesses <= canaries:
        raise ValueError("there are at most as many right guesses as guesses, and as many guesses as canaries")
    if right == 0:
        return 1.0
    from scipy.stats import binom

    chance = 1.0 / (1.0 + math.exp(-epsilon))
    tail = float(binom.sf(right - 1, guesses, chance))
    if delta == 0.0:
        return min(1.0, tail)
    below = binom.cdf(np.arange(-1, right), guesses, chance)  # of -1, 0, ..., right - 1
    slack = float(((below[-1] - below[-2::-1]) / np.arange(1, right + 1)).max())
    return min(1.0, tail + 2.0 * canaries * delta * slack)


def one_run_bound(*, canaries: int, guesses: int, right: int, delta: float, alpha: float = ALPHA) -> float:
    """The largest epsilon below which the guesses would be too good to be true; 0 where they show nothing.

    ``guesses`` must be fixed before scores are looked at; see :func:`audit_guesses` for a grid.
    """
    if guesses == 0:
        return 0.0

    def credible(epsilon: float) -> bool:
        return one_run_p_value(epsilon, canaries=canaries, guesses=guesses, right=right, delta=delta) >= alpha

    if credible(0.0):
        return 0.0
    high = _MESH
    while not credible(high):
        high += _MESH
        if high > _MOST_EPSILON:
            return _MOST_EPSILON
    low = high - _MESH
    while high - low > 1e-6:
        middle = (low + high) / 2.0
        low, high = (low, middle) if credible(middle) else (middle, high)
    return low


def one_run_ceiling(*, canaries: int, guesses: int, delta: float, alpha: float = ALPHA) -> float:
    """What ``guesses`` could certify at best: the bound if all were right."""
    return one_run_bound(canaries=canaries, guesses=guesses, right=guesses, delta=delta, alpha=alpha)


def guess(scores: NDArray[np.float64], coins: NDArray[np.bool_], *, guesses: int) -> int:
    """How many of ``guesses`` are right: the highest scores are guessed in, the lowest out, half each.

    Ties are broken by the order of the canaries, which must not depend on the coins. Shape: both ``(canaries,)``.
    """
    order = np.argsort(scores, kind="stable")
    ins = -(-guesses // 2)
    outs = guesses - ins
    return int(coins[order[len(order) - ins :]].sum()) + int((~coins[order[:outs]]).sum())


def audit_guesses(
    scores: NDArray[np.float64],
    coins: NDArray[np.bool_],
    *,
    grid: Sequence[int],
    delta: float,
    alpha: float = ALPHA,
) -> EpsilonBound:
    """The best bound over a grid of numbers of guesses that was fixed beforehand, each at its part of ``alpha``.

    Args:
        scores: larger where a canary seems to be in, shape ``(canaries,)``.
        coins: whether it was.
        grid: numbers of guesses, fixed before the scores were looked at (Bonferroni).
        delta: of the promise.
        alpha: chance of accusing a correct mechanism.
    """
    canaries = len(scores)
    best = EpsilonBound(epsilon=0.0, ceiling=0.0, guesses=0, right=0)
    for number in sorted({min(one, canaries) for one in grid if one > 0}):
        right = guess(scores, coins, guesses=number)
        level = alpha / len(grid)
        found = EpsilonBound(
            epsilon=one_run_bound(canaries=canaries, guesses=number, right=right, delta=delta, alpha=level),
            ceiling=one_run_ceiling(canaries=canaries, guesses=number, delta=delta, alpha=level),
            guesses=number,
            right=right,
        )
        if (found.epsilon, found.ceiling) > (best.epsilon, best.ceiling):
            best = found
    return best


def upper_proportion(hits: int, *, of: int, alpha: float) -> float:
    """Clopper and Pearson's one-sided upper bound of a proportion; its lower bound is one minus that of the misses."""
    from scipy.stats import beta

    return 1.0 if hits >= of else float(beta.ppf(1.0 - alpha, hits + 1, of - hits))


def many_run_bound(counts: Counts, *, delta: float, alpha: float = ALPHA) -> EpsilonBound:
    """The bound from how often a test is right over many runs, the test fixed before these runs.

    A private mechanism has hits <= exp(epsilon) alarms + delta, and the same of misses and correct rejections. Each
    of the two proportions is bounded once, at alpha / 2 (Clopper and Pearson 1934); both inequalities use the same two
    bounds.
    """
    misses = counts.runs_in - counts.hits
    rejected = counts.runs_out - counts.alarms
    return EpsilonBound(
        epsilon=_ratio_bound(counts, delta=delta, alpha=alpha),
        ceiling=_ratio_bound(
            Counts(hits=counts.runs_in, runs_in=counts.runs_in, alarms=0, runs_out=counts.runs_out),
            delta=delta,
            alpha=alpha,
        ),
        guesses=counts.runs_in + counts.runs_out,
        right=counts.runs_in + counts.runs_out - misses - (counts.runs_out - rejected),
    )


def _ratio_bound(counts: Counts, *, delta: float, alpha: float) -> float:
    least_hits = 1.0 - upper_proportion(counts.runs_in - counts.hits, of=counts.runs_in, alpha=alpha / 2)
    most_alarms = upper_proportion(counts.alarms, of=counts.runs_out, alpha=alpha / 2)
    found = 0.0
    for above, below in ((least_hits, most_alarms), (1.0 - most_alarms, 1.0 - least_hits)):
        if above > delta:
            found = max(found, math.log((above - delta) / below))
    return found
