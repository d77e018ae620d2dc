"""Membership attacks with shadow fits, for nights: each fit is on a random half of the patients.

A fit comes through a callable, so that nothing here knows a model: it is told who is in, and scores every patient (a
log-likelihood, or minus the log distance to the nearest synthetic patient).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.errors import ConfigError
from synthehr.evaluation.attacks_membership import clopper_pearson
from synthehr.evaluation.audit import Counts, EpsilonBound, many_run_bound
from synthehr.evaluation.intervals import Estimate, area_with_error, normal_interval

__all__ = ["Refit", "ShadowAttack", "attack_by_shadows"]

Refit = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
"""Fits on the patients who are in, and scores all of them. Shape: both ``(patients,)``."""

_FEWEST_FITS = 8
_SPREAD = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowAttack:
    """What one attack over all fits found.

    Attributes:
        attack: ``lira`` or ``rmia``.
        auc: area under the ROC curve over patients and fits, with its interval over patients.
        true_positive: at a false positive rate of 1 % that was set on the first half of the fits, on the others, with
            its interval over patients.
        bound: the lower bound on epsilon from one patient, chosen on the first half of the fits, on the second half.
    """

    attack: str
    auc: Estimate
    true_positive: Estimate
    bound: EpsilonBound


def attack_by_shadows(
    refit: Refit,
    *,
    patients: int,
    attacked: NDArray[np.int64],
    fits: int,
    delta: float,
    generator: np.random.Generator,
) -> dict[str, ShadowAttack]:
    """LiRA and RMIA, each fit attacked with all others as its shadows.

    Args:
        refit: fits and scores.
        patients: how many there are; each fit is on about half, by fair coins.
        attacked: numbers of the patients who are attacked, such as those who stand apart most.
        fits: at least 8.
        delta: of the promise, for the bound.
        generator: of the coins.

    Sources: Carlini et al. 2022 (online, one variance for all); Zarifzadeh et al. 2024, with the other attacked
    patients as the population.

    Raises:
        ConfigError: there are too few fits, or no patient is attacked.
    """
    if fits < _FEWEST_FITS or len(attacked) == 0:
        raise ConfigError(f"an attack by shadow fits needs at least {_FEWEST_FITS} fits and one patient to attack")
    member = generator.random((fits, patients)) < 0.5
    scores = np.stack([refit(row)[attacked] for row in member])
    inside = member[:, attacked]
    return {
        name: _judged(name, found, scores, inside, delta=delta)
        for name, found in (("lira", _lira(scores, inside)), ("rmia", _rmia(scores, inside)))
    }


def _lira(scores: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log likelihood ratio of each fit's score under normal laws of the other fits'. Shape: ``(fits, patients)``."""
    found = np.zeros_like(scores)
    for fit in range(len(scores)):
        rest = np.delete(np.arange(len(scores)), fit)
        means = [_mean(scores[rest], mask) for mask in (inside[rest], ~inside[rest])]
        residual = scores[rest] - np.where(inside[rest], means[0], means[1])
        variance = float(np.square(residual).mean()) + _SPREAD
        found[fit] = (np.square(scores[fit] - means[1]) - np.square(scores[fit] - means[0])) / (2.0 * variance)
    return found


def _rmia(scores: NDArray[np.float64], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Share of the other attacked patients whose gain over the other fits is smaller. Shape: ``(fits, patients)``."""
    found = np.zeros_like(scores)
    for fit in range(len(scores)):
        rest = np.delete(np.arange(len(scores)), fit)
        usual = (_mean(scores[rest], inside[rest]) + _mean(scores[rest], ~inside[rest])) / 2.0
        gain = scores[fit] - usual
        ranks = np.searchsorted(np.sort(gain), gain, side="left")
        found[fit] = ranks / max(len(gain) - 1, 1)
    return found


def _mean(scores: NDArray[np.float64], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean over the fits of the mask; over all fits for a patient who has none."""
    number = mask.sum(axis=0)
    means = (scores * mask).sum(axis=0) / np.maximum(number, 1)
    return np.asarray(np.where(number > 0, means, scores.mean(axis=0)), dtype=np.float64)


def _judged(
    name: str,
    found: NDArray[np.float64],
    scores: NDArray[np.float64],
    inside: NDArray[np.bool_],
    *,
    delta: float,
) -> ShadowAttack:
    half = len(found) // 2
    area, error = area_with_error(inside.ravel(), found.ravel())
    others = np.sort(found[:half][~inside[:half]])
    threshold = others[len(others) - 1 - len(others) // 100] if len(others) else np.inf
    passed, members = found[half:] > threshold, inside[half:]
    counts = _one_patient(scores, inside, half)
    return ShadowAttack(
        attack=name,
        # Fits of one patient are not independent: the interval is as wide as if each patient were one.
        auc=normal_interval(area, error=error * float(np.sqrt(len(found))), lower=0.0, upper=1.0),
        true_positive=_rate_over_patients(passed, members),
        bound=many_run_bound(counts, delta=delta),
    )


def _rate_over_patients(passed: NDArray[np.bool_], members: NDArray[np.bool_]) -> Estimate:
    """The share of members who passed, by fit and patient, with an exact interval of as many as patients tell apart.

    Clopper and Pearson's, for the number of independent members that would vary as much as patients do; never more
    than there are pairs of fit and patient (Korn and Graubard 1998). Where none or all passed, for the patients alone.
    """
    number = max(int(members.sum()), 1)
    rate = float(passed[members].sum()) / number
    residual = ((passed - rate) * members).sum(axis=0)
    variance = float(np.square(residual).sum()) / number**2
    patients = float(members.any(axis=0).sum())
    effective = min(rate * (1.0 - rate) / variance, float(number)) if variance > 0.0 else max(patients, 1.0)
    return clopper_pearson(rate * effective, of=effective)


def _one_patient(scores: NDArray[np.float64], inside: NDArray[np.bool_], half: int) -> Counts:
    """Guesses of the patient whom the first half of the fits shows to be the easiest to tell, on the second half.

    With all others in by coins of their own, fits with and without one patient are independent runs on two neighbours.
    Scores are the fits' own: a ratio to other fits would tie the runs that count to each other.
    """
    first, second = scores[:half], scores[half:]
    gap = _mean(first, inside[:half]) - _mean(first, ~inside[:half])
    worst = int(gap.argmax())
    threshold = float((_mean(first, inside[:half])[worst] + _mean(first, ~inside[:half])[worst]) / 2.0)
    said, truth = second[:, worst] > threshold, inside[half:, worst]
    return Counts(
        hits=int(said[truth].sum()),
        runs_in=max(int(truth.sum()), 1),
        alarms=int(said[~truth].sum()),
        runs_out=max(int((~truth).sum()), 1),
    )
