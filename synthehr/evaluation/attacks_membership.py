"""Membership attacks on the synthetic cohort alone: can one tell who was learned from?

A third of the holdout is the attacker's reference; the other two thirds, and as many random halves of train, are
attacked. How scores are weighed, and every threshold, is learned on one half of the attacked and tried on the other,
both ways round. A score is a function of a patient's record, the synthetic cohort and the reference alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.attacks_space import Space, nearest
from synthehr.evaluation.cohorts import Parts
from synthehr.evaluation.findings_privacy import AttackProfile, PrivacyProfile, RocPoints
from synthehr.evaluation.intervals import Estimate, area_with_error, difference_of_proportions, normal_interval
from synthehr.evaluation.learners import class_chances, features, predicted_numbers

__all__ = ["ATTACKS", "WHOLE", "Membership", "Rates", "attack_members", "clopper_pearson", "share_ratio"]

ATTACKS = ("density_ratio", "marginal_likelihood", "nearest_neighbour", "targeted_queries")
"""The attacks by name; ``combined`` is all of them with learned weights."""

WHOLE = "whole_"
"""Before the name of an attack that sees patients with their rows."""

_FEWEST = 30
_MOST = 5_000
_LEARNED = 5_000
_QUERIES, _PER_QUERY = 60, 4
_MOST_PAIRS = 1_000
_TINY = 1e-3
_GRID = np.concatenate([[0.0], np.logspace(-3, 0, 61)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """How often a threshold was passed by those learned from and by others; both fixed before they were looked at.

    Attributes:
        hits: patients learned from who passed it.
        members: how many of them were attacked.
        alarms: held-out patients who passed it.
        others: how many of them were attacked.
    """

    hits: int
    members: int
    alarms: int
    others: int

    def true_positive(self) -> Estimate:
        """The true positive rate with its interval (Clopper and Pearson)."""
        return clopper_pearson(self.hits, of=self.members)

    def advantage(self) -> Estimate:
        """True positive rate less false positive rate, by square-and-add of their intervals."""
        return difference_of_proportions(self.true_positive(), clopper_pearson(self.alarms, of=self.others))


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What the attacks found.

    Attributes:
        areas: the area under the ROC curve of each attack and of all combined, with its interval.
        best: rates at the threshold of the largest advantage.
        low: rates at thresholds for false positive rates of 1 % and 0.1 %; None where there are too few to set one.
        resolves: the smallest false positive rate that so many held-out patients can resolve.
        roc: of the combined attack.
    """

    areas: Mapping[str, Estimate]
    best: Rates
    low: Mapping[float, Rates | None]
    resolves: float
    roc: RocPoints

    def profile(self) -> PrivacyProfile:
        """The data behind the plots."""
        return PrivacyProfile(
            membership=tuple(
                AttackProfile(attack=name, auc=area.value, auc_ci=(area.low, area.high))
                for name, area in self.areas.items()
            ),
            membership_roc=self.roc,
            smallest_false_positive_rate=float(f"{self.resolves:.1g}"),
        )


def clopper_pearson(hits: float, *, of: float) -> Estimate:
    """The exact 95 % interval of a proportion (Clopper and Pearson 1934); parts of one count as such."""
    from scipy.stats import beta

    return Estimate(
        value=hits / of,
        low=0.0 if hits == 0 else float(beta.ppf(0.025, hits, of - hits + 1)),
        high=1.0 if hits == of else float(beta.ppf(0.975, hits + 1, of - hits)),
    )


def attack_members(
    views: Mapping[str, tuple[Parts, Space]], known: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> Membership | None:
    """Attack train and holdout patients; None where fewer than 30 of either would be attacked in each half.

    Args:
        views: what the attacker sees of the three cohorts, and their points: patients' own columns, whole patients. The
            name of a view stands before the names of its attacks.
        known: scores of further attacks by name, for train and for holdout, such as the likelihood of a patient under
            a generator that the attacker has; shape ``(patients,)`` each. What boosted trees, taught on the reference,
            expect of such a patient in the last view is taken off: some are likelier than others under any generator
            (Watson et al. 2022).
    """
    parts = next(iter(views.values()))[0]
    draw = parts.generator(40)
    held = draw.permutation(len(parts.holdout))
    reference, others = held[: len(held) // 3][:_MOST], held[len(held) // 3 :][: 2 * _MOST]
    members = draw.permutation(len(parts.train))[: 2 * _MOST]
    if min(len(reference), len(others) // 2, len(members) // 2) < _FEWEST:
        return None
    found: dict[str, NDArray[np.float64]] = {}
    for view, (seen, space) in views.items():
        scores = _scores(seen, space, reference=reference, members=members, others=others, draw=draw)
        found |= {view + name: score for name, score in scores.items()}
    last = list(views.values())[-1][0]
    for name, (of_train, of_holdout) in known.items():
        usual = _usual(last, of_holdout, reference=reference, members=members, others=others)
        found[name] = np.concatenate([of_train[members], of_holdout[others]]) - usual
    labels = np.repeat([True, False], [len(members), len(others)])
    half = np.concatenate([np.arange(len(members)) % 2, np.arange(len(others)) % 2])
    return _judge(found, labels, half)


def _judge(found: Mapping[str, NDArray[np.float64]], labels: NDArray[np.bool_], half: NDArray[np.int64]) -> Membership:
    matrix = np.stack(list(found.values()), axis=1)
    combined = np.zeros(len(labels))
    tallies: dict[float | None, list[tuple[int, int, int, int] | None]] = {None: [], 0.01: [], 0.001: []}
    for test in (0, 1):
        tried, taught = half == test, half != test
        scores = _weighed(matrix[taught], labels[taught], matrix)
        combined[tried] = scores[tried]
        for rate, tally in tallies.items():
            threshold = _threshold(scores[taught], labels[taught], rate)
            passed = scores[tried] > threshold if threshold is not None else None
            own = labels[tried]
            tally.append(
                None
                if passed is None
                else (int(passed[own].sum()), int(own.sum()), int(passed[~own].sum()), int((~own).sum()))
            )
    areas = {name: _area(scores, labels, half) for name, scores in found.items()}
    areas["combined"] = _area(combined, labels, half)
    best = _added(tallies[None])
    assert best is not None
    return Membership(
        areas=areas,
        best=best,
        low={rate: _added(tallies[rate]) for rate in (0.01, 0.001)},
        resolves=2.0 / best.others,
        roc=_roc(combined, labels, half),
    )


def _added(tallies: list[tuple[int, int, int, int] | None]) -> Rates | None:
    known = [tally for tally in tallies if tally is not None]
    if len(known) < len(tallies):
        return None
    hits, members, alarms, others = (sum(numbers) for numbers in zip(*known, strict=True))
    return Rates(hits=hits, members=members, alarms=alarms, others=others)


def _area(scores: NDArray[np.float64], labels: NDArray[np.bool_], half: NDArray[np.int64]) -> Estimate:
    pairs = [area_with_error(labels[half == test], scores[half == test]) for test in (0, 1)]
    return normal_interval(
        (pairs[0][0] + pairs[1][0]) / 2.0, error=math.hypot(pairs[0][1], pairs[1][1]) / 2.0, lower=0.0, upper=1.0
    )


def _weighed(
    taught: NDArray[np.float64], labels: NDArray[np.bool_], everyone: NDArray[np.float64]
) -> NDArray[np.float64]:
    """All scores in one, by logistic regression with both labels weighing the same. Shape: ``(patients,)``."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(taught)
    learner = LogisticRegression(C=1.0, class_weight="balanced", max_iter=1000)
    learner.fit(scaler.transform(taught), labels)
    return np.asarray(learner.decision_function(scaler.transform(everyone)))


def _threshold(scores: NDArray[np.float64], labels: NDArray[np.bool_], rate: float | None) -> float | None:
    """Where at most this share of the others lies above, or where the advantage is largest; None for too few."""
    others = np.sort(scores[~labels])
    if rate is not None:
        allowed = math.floor(rate * len(others))
        return float(others[len(others) - allowed - 1]) if allowed >= 1 else None
    seen = np.unique(scores)
    above = [1.0 - np.searchsorted(np.sort(s), seen, side="right") / len(s) for s in (scores[labels], others)]
    return float(seen[int((above[0] - above[1]).argmax())])


def _roc(scores: NDArray[np.float64], labels: NDArray[np.bool_], half: NDArray[np.int64]) -> RocPoints:
    """True positive rates at false positive rates from 0.1 % on, the mean of both halves; for logarithmic axes."""
    curves = []
    for test in (0, 1):
        own, others = np.sort(scores[labels & (half == test)]), np.sort(scores[~labels & (half == test)])
        places = np.clip(len(others) - 1 - np.floor(_GRID * len(others)).astype(np.int64), -1, len(others) - 1)
        passed = 1.0 - np.searchsorted(own, others[places], side="right") / len(own)
        curves.append(np.where(places < 0, 1.0, passed))
    height = np.mean(curves, axis=0)
    return RocPoints(
        false_positive_rate=tuple(round(float(x), 5) for x in _GRID),
        true_positive_rate=tuple(round(float(y), 4) for y in height),
    )


def _scores(
    parts: Parts,
    space: Space,
    *,
    reference: NDArray[np.int64],
    members: NDArray[np.int64],
    others: NDArray[np.int64],
    draw: np.random.Generator,
) -> dict[str, NDArray[np.float64]]:
    """Each attack's scores of members and then others, larger where a patient seems learned from."""
    codes = np.concatenate([parts.train.codes[members], parts.holdout.codes[others]])
    own, control = parts.synthetic.codes, parts.holdout.codes[reference]
    points = np.concatenate([space.train[members], space.holdout[others]])
    to_synthetic, to_control = nearest(points, space.synthetic), nearest(points, space.holdout[reference])
    columns = codes.shape[1]
    queries = [
        tuple(sorted(draw.choice(columns, size=min(_PER_QUERY, columns), replace=False).tolist()))
        for _ in range(_QUERIES)
    ]
    return {
        "density_ratio": _density_ratio(parts, reference, members, others, draw),
        "marginal_likelihood": share_ratio(codes, own, control, parts),
        "nearest_neighbour": np.log(to_control + _TINY) - np.log(to_synthetic + _TINY),
        "targeted_queries": _log_ratio(codes, own, control, sorted(set(queries)), parts.coding.sizes),
        "nearest_alone": -np.log(to_synthetic + _TINY),
    }


def _density_ratio(
    parts: Parts,
    reference: NDArray[np.int64],
    members: NDArray[np.int64],
    others: NDArray[np.int64],
    draw: np.random.Generator,
) -> NDArray[np.float64]:
    """Log odds, by boosted trees, of being synthetic rather than of the reference (van Breugel et al. 2023)."""
    made, categorical = features(parts.synthetic, parts)
    real = features(parts.holdout, parts)[0]
    size = min(len(made), _LEARNED)
    made = made[draw.choice(len(made), size=size, replace=False)]
    rows = np.concatenate([made, real[reference]])
    kinds = np.repeat([1.0, 0.0], [size, len(reference)])
    asked = np.concatenate([features(parts.train, parts)[0][members], real[others]])
    chance = np.clip(class_chances(rows, kinds, categorical, asked=asked)[1.0], 1e-6, 1 - 1e-6)
    return np.asarray(np.log(chance / (1.0 - chance)))


def _usual(
    parts: Parts,
    scores: NDArray[np.float64],
    *,
    reference: NDArray[np.int64],
    members: NDArray[np.int64],
    others: NDArray[np.int64],
) -> NDArray[np.float64]:
    """What is expected of the scores of members and then others, as learned from those of the reference."""
    held, categorical = features(parts.holdout, parts)
    asked = np.concatenate([features(parts.train, parts)[0][members], held[others]])
    return predicted_numbers(held[reference], scores[reference], categorical, asked=asked)


def share_ratio(
    codes: NDArray[np.int32], own: NDArray[np.int32], control: NDArray[np.int32], parts: Parts
) -> NDArray[np.float64]:
    """Mean log ratio, over pairs of columns, of a record's share in one cohort and in another.

    Args:
        codes: of the records asked about, shape ``(records, columns)``.
        own: of the cohort that may hold them.
        control: of the other one.
        parts: for the sizes of the columns.
    """
    return _log_ratio(codes, own, control, _pairs(codes.shape[1]), parts.coding.sizes)


def _pairs(columns: int) -> list[tuple[int, ...]]:
    """Every pair of columns, or a thousand of them, the same each time; one column alone where there is no other."""
    pairs: list[tuple[int, ...]] = [(a, b) for a in range(columns) for b in range(a)] or [(0,)]
    if len(pairs) <= _MOST_PAIRS:
        return pairs
    chosen = np.random.default_rng(columns).choice(len(pairs), size=_MOST_PAIRS, replace=False)
    return [pairs[at] for at in np.sort(chosen)]


def _log_ratio(
    codes: NDArray[np.int32],
    own: NDArray[np.int32],
    control: NDArray[np.int32],
    sets: list[tuple[int, ...]],
    sizes: tuple[int, ...],
) -> NDArray[np.float64]:
    """Mean, over sets of columns, of the log ratio of a record's share among synthetic and reference patients."""
    total = np.zeros(len(codes))
    for chosen in sets:
        shape = tuple(sizes[at] for at in chosen)
        cells = [np.ravel_multi_index(tuple(part[:, at] for at in chosen), shape) for part in (codes, own, control)]
        _, place = np.unique(np.concatenate(cells), return_inverse=True)
        asked, synthetic, real = np.split(place, np.cumsum([len(codes), len(own)]))
        for cohort, sign in ((synthetic, 1.0), (real, -1.0)):
            counts = np.bincount(cohort, minlength=int(place.max()) + 1)
            total += sign * np.log((counts[asked] + 0.5) / (len(cohort) + 0.5))
    return total / len(sets)
