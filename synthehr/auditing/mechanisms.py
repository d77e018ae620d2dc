"""Each mechanism of the door against its own promise, on the cohorts where one patient shows most.

One-run audits put many canaries in at once, each in a cell or a direction of its own, so that each is an experiment of
its own. Pairs run the mechanism many times on two cohorts that differ in one patient. The attacker sees all that the
mechanism gives away: noisy counts and noisy gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from synthehr.auditing.door import Door, RunAccount, fair_coins, noise_multiplier_for
from synthehr.errors import ConfigError
from synthehr.evaluation.audit import EpsilonBound, audit_guesses
from synthehr.evaluation.audit_result import Audited
from synthehr.evaluation.audit_runs import Runs, distinguish
from synthehr.privacy.accountant import EpsilonDelta, Gaussian
from synthehr.privacy.partition import Values
from synthehr.randomness import FloatArray, IntArray, NoiseSource

__all__ = ["ALPHA", "Experiment", "Setting", "audit_mechanism", "grid_of", "one_run", "pair_of"]

ALPHA = 0.01
"""A hard failure calls the code wrong, so a correct mechanism is accused in one audit of a hundred at most."""

_REPLAYED = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is audited, how hard.

    Attributes:
        epsilon: the claim.
        delta: its slack.
        canaries: of a one-run audit.
        runs: of each of the two cohorts of a pair.
        door: where the mechanisms come from.
        alpha: chance of accusing a correct mechanism, over all experiments of a mechanism.
        shares: of the histograms of the marginals.
    """

    epsilon: float
    delta: float
    canaries: int = 100_000
    runs: int = 6_000
    door: Door = field(default_factory=Door)
    alpha: float = ALPHA
    shares: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if self.canaries < 100:
            raise ConfigError(f"an audit needs at least 100 canaries, not {self.canaries}")
        if self.runs < 100:
            raise ConfigError(f"an audit needs at least 100 runs of each cohort, not {self.runs}")


Experiment = Callable[[Setting, float], EpsilonBound]
"""From a setting and a chance of false alarm to a bound."""


def audit_mechanism(
    name: str,
    experiments: Mapping[str, Experiment],
    setting: Setting,
    *,
    on_progress: Callable[[str], None] | None = None,
) -> Audited:
    """Run all experiments on one mechanism, each at its part of the chance of a false alarm."""
    found = {}
    for title, experiment in experiments.items():
        if on_progress is not None:
            on_progress(f"{name}: {title}")
        found[title] = experiment(setting, setting.alpha / len(experiments))
    return Audited(mechanism=name, claimed=setting.epsilon, experiments=found)


def grid_of(canaries: int) -> tuple[int, int]:
    """Numbers of guesses, fixed before anything is run: about best for Gaussian noise at epsilon 1 and at 3."""
    return max(canaries // 200, 10), max(canaries // 50, 50)


def one_run(scores_of: Callable[[Setting, np.ndarray, int], FloatArray], *, canaries: int | None = None) -> Experiment:
    """An experiment of one run: ``scores_of`` takes the setting, who is in, and how many canaries there are."""

    def experiment(setting: Setting, alpha: float) -> EpsilonBound:
        number = setting.canaries if canaries is None else min(canaries, setting.canaries)
        coins = fair_coins(number)
        scores = scores_of(setting, coins, number)
        return audit_guesses(scores, coins, grid=grid_of(number), delta=setting.delta, alpha=alpha)

    return experiment


def pair_of(
    run: Callable[[Setting, bool], Callable[[], FloatArray]], *, pure: bool = False, runs: int | None = None
) -> Experiment:
    """An experiment on a pair: ``run`` takes the setting and whether the patient is in, and gives one run's output.

    Args:
        run: prepares the cohort; what it returns runs the mechanism afresh and gives all it released, shape ``(n,)``.
        pure: whether the promise has no delta.
        runs: of each cohort, at most.
    """

    def experiment(setting: Setting, alpha: float) -> EpsilonBound:
        arms = []
        for present in (True, False):
            once = run(setting, present)
            number = setting.runs if runs is None else min(runs, setting.runs)
            arms.append(np.stack([once() for _ in range(number)]))
        seen = Runs(present=arms[0], absent=arms[1])
        return distinguish(seen, delta=0.0 if pure else setting.delta, alpha=alpha)

    return experiment


def gaussian(setting: Setting, *, delta: float | None = None) -> Gaussian:
    """One Gaussian event that spends the promise, or its epsilon at a smaller delta."""
    sigma = noise_multiplier_for(epsilon=setting.epsilon, delta=setting.delta if delta is None else delta)
    return Gaussian(stage="audit", noise_multiplier=sigma)


def members(coins: np.ndarray, *, rows: int) -> tuple[IntArray, IntArray, int]:
    """The canaries that are in, ``rows`` rows each: canary and owner of each row, and how many patients there are."""
    inside = np.flatnonzero(coins)
    return np.repeat(inside, rows), np.repeat(np.arange(len(inside)), rows), len(inside)


def _histogram(setting: Setting, coins: np.ndarray, canaries: int) -> FloatArray:
    """Each canary has four rows of a value of its own."""
    who, owners, patients = members(coins, rows=4)
    names = np.array([f"v{at}" for at in range(canaries)])
    cells = Values(values=tuple(names), other=False, nullable=False)
    rows = setting.door.open_rows(names[who].tolist(), owners=owners, patients=patients)
    return rows.histogram(RunAccount(), "c", cells, event=gaussian(setting))[:canaries]


def _marginals(setting: Setting, coins: np.ndarray, canaries: int) -> FloatArray:
    """Each canary has four rows of a cell of its own; every histogram is the same one."""
    return _stacked(setting, coins, canaries, noise=setting.door.noise())


def _replayed(setting: Setting, coins: np.ndarray, canaries: int) -> FloatArray:
    """The attacker runs the mechanism on the cohort without canaries, and takes its noise for that of the audit."""
    empty = np.zeros(canaries, dtype=bool)
    own = _stacked(setting, empty, canaries, noise=setting.door.noise())
    return _stacked(setting, coins, canaries, noise=setting.door.noise()) - own


def _stacked(setting: Setting, coins: np.ndarray, canaries: int, *, noise: NoiseSource) -> FloatArray:
    who, owners, patients = members(coins, rows=4)
    sets: Sequence[tuple[int, ...]] = [(0,)] * len(setting.shares)
    codes = setting.door.open_codes(who[:, None], sizes=(canaries,), owners=owners, patients=patients, noise=noise)
    bought = codes.marginals(RunAccount(), sets, shares=setting.shares, event=gaussian(setting))
    return np.asarray(sum(share * counts for share, counts in zip(setting.shares, bought, strict=True)))


def _partition(setting: Setting, coins: np.ndarray, canaries: int) -> FloatArray:
    """Each canary has a value that no one else has: whoever is named is in."""
    failure = EpsilonDelta(stage="audit", epsilon=0.0, delta=setting.delta / 2.0)
    event = gaussian(setting, delta=setting.delta / 2.0)
    who, owners, patients = members(coins, rows=1)
    rows = setting.door.open_rows([f"v{at}" for at in who], owners=owners, patients=patients)
    named = rows.select_values(RunAccount(), "c", event=event, failure=failure)
    scores = np.full(canaries, -1e12)  # below any noisy count, which may be negative
    for name, count in named.items():
        scores[int(name.removeprefix("v"))] = count
    return scores


def _count(setting: Setting, present: bool) -> Callable[[], FloatArray]:
    """100 patients, or 101."""
    patients = 100 + present
    rows = setting.door.open_rows(["a"] * patients, owners=np.arange(patients), patients=patients)
    event = EpsilonDelta(stage="audit", epsilon=setting.epsilon, delta=0.0)
    return lambda: np.array([float(rows.count_patients(RunAccount(), event=event))])


_DISTANCES = 49


def _misfits(setting: Setting, present: bool) -> Callable[[], FloatArray]:
    """No patient, or one who moves every distance by 1."""
    owners = np.zeros(int(present), dtype=np.int64)
    codes = setting.door.open_codes(
        np.zeros((len(owners), 1), dtype=np.int64), sizes=(2,), owners=owners, patients=len(owners)
    )
    event = gaussian(setting)
    sets: Sequence[tuple[int, ...]] = [(0,)] * _DISTANCES
    expected = [np.zeros(2)] * _DISTANCES
    return lambda: codes.misfits(RunAccount(), sets, expected, event=event)


COUNTS: Mapping[str, Mapping[str, Experiment]] = {
    "count": {"one patient more": pair_of(_count, pure=True)},
    "histogram": {"cells of their own": one_run(_histogram)},
    "partition": {"values of their own": one_run(_partition, canaries=20_000)},
    "marginals": {
        "cells of their own": one_run(_marginals),
        "noise played back": one_run(_replayed, canaries=_REPLAYED),
    },
    "misfits": {"every distance moved": pair_of(_misfits, runs=1_200)},
}
"""Experiments on the mechanisms that count patients."""
