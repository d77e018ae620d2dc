"""Fairness: are declared subgroups as many, as faithful and as useful in the synthetic cohort as in the real one?

Each metric is taken for every subgroup and judged by the worst. Intervals hold for all of them at once (Bonferroni), so
that the largest of many is not taken for a fault that chance explains. Small subgroups are pooled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords, declares_groups, groups, outcomes
from synthehr.evaluation.cells import joint_distance
from synthehr.evaluation.findings import FairnessProfile, GroupProfile
from synthehr.evaluation.intervals import Z95, Estimate, bootstrap_counts, normal_interval
from synthehr.evaluation.measurement import Direction, Measurement, Scope, undefined
from synthehr.evaluation.utility import FEWEST, REPLICATES, Scores, compared, resampled, scored, scores

__all__ = ["METRICS", "Group", "Judged", "disparity", "fairness_profile", "fidelity", "subgroups", "utility"]

SMALL = 50
"""Patients of train and of holdout that a subgroup needs to stand by itself."""

Floats = NDArray[np.float64]
Members = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One subgroup: who is in it.

    Attributes:
        column: the declared column.
        name: the value, or ``small groups together``.
        train: shape ``(patients,)``.
        synthetic: the same.
        holdout: the same.
    """

    column: str
    name: str
    train: Members
    synthetic: Members
    holdout: Members


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One metric of one subgroup, with pointwise 95 % intervals."""

    group: Group
    value: Estimate
    reference: float
    excess: Estimate


def subgroups(bench: Bench, column: str) -> tuple[Group, ...]:
    """The subgroups of a declared column; those of fewer than fifty train or holdout patients are pooled.

    The pool itself is left out if it is as small.
    """
    parts = bench.parts
    at = parts.coding.names.index(column)
    codes = {"train": parts.train.codes[:, at], "synthetic": parts.synthetic.codes[:, at]}
    codes["holdout"] = parts.holdout.codes[:, at]
    labels = parts.coding.columns[at].labels
    seen = [code for code in range(len(labels)) if (codes["train"] == code).any() or (codes["holdout"] == code).any()]
    sizes = {code: min(int((codes[name] == code).sum()) for name in ("train", "holdout")) for code in seen}
    large = [code for code in seen if sizes[code] >= SMALL]
    small = [code for code in seen if sizes[code] < SMALL]
    found = [
        Group(column=column, name=labels[code], **{name: one == code for name, one in codes.items()}) for code in large
    ]
    pooled = {name: np.isin(one, small) for name, one in codes.items()}
    if min(int(pooled[name].sum()) for name in ("train", "holdout")) >= SMALL:
        found.append(Group(column=column, name="small groups together", **pooled))
    return tuple(found)


def disparity(bench: Bench, column: str) -> list[Judged]:
    """How far the share of each subgroup is from train's: the log odds ratio, without its sign.

    Half a patient is added to each cell, so that a subgroup that is lost has a number. Source: Bhanot et al. 2021
    (log disparity); Woolf 1955 with Haldane's correction.
    """
    found = []
    for group in bench.once(subgroups, column):
        train, synthetic, holdout = (_log_odds(one) for one in (group.train, group.synthetic, group.holdout))
        apart, beside = synthetic[0] - train[0], holdout[0] - train[0]
        # Train stands in both; where they point the same way its noise cancels.
        shared = 0.0 if np.sign(apart) == np.sign(beside) else 4.0 * train[1]
        found.append(
            Judged(
                group=group,
                value=normal_interval(abs(apart), error=math.sqrt(train[1] + synthetic[1]), lower=0.0),
                reference=abs(beside),
                excess=normal_interval(abs(apart) - abs(beside), error=math.sqrt(shared + synthetic[1] + holdout[1])),
            )
        )
    return found


def fidelity(bench: Bench, column: str) -> list[Judged]:
    """The distance of the other columns' distributions within each subgroup, as ``one_way_tv``; 1 for a lost one.

    So few synthetic patients that chance may have lost the subgroup leave open how it would be, from 0 to 1.
    """
    from scipy.stats import binom

    parts = bench.parts
    at = parts.coding.names.index(column)
    others = [index for index in range(len(parts.coding.names)) if index != at]
    draw = parts.generator(30)
    found = []
    for group in bench.once(subgroups, column) if others else ():
        rows = [np.flatnonzero(one) for one in (group.train, group.synthetic, group.holdout)]
        lost = len(rows[1]) < 2
        equal = len(rows[2]) if lost else min(len(rows[1]), len(rows[2]))
        if lost:
            rows[1] = rows[2]
        chosen = [rows[0], *(np.sort(draw.choice(one, size=equal, replace=False)) for one in rows[1:])]
        cohorts = (parts.train.codes, (parts.holdout if lost else parts.synthetic).codes, parts.holdout.codes)
        tables = [tuple(codes[one, index] for codes, one in zip(cohorts, chosen, strict=True)) for index in others]
        measured = joint_distance("group_fidelity", column, tables)
        value, reference, excess = measured.value, measured.reference, measured.excess
        assert value is not None and reference is not None and excess is not None, "a subgroup is not so small"
        if lost:
            by_chance = binom.cdf(1, len(parts.synthetic), group.train.mean()) * len(bench.once(subgroups, column))
            room = 1.0 if by_chance > 0.025 else 0.0
            value, excess = (Estimate(value=one, low=one - room, high=one) for one in (1.0, 1.0 - reference))
        found.append(Judged(group=group, value=value, reference=reference, excess=excess))
    return found


def utility(bench: Bench, column: str) -> list[Judged]:
    """What ``tstr`` finds among the holdout patients of each subgroup, for every outcome that can be judged there.

    A subgroup with fewer than ten patients of each class (twenty for numbers) is left out.
    """
    found = []
    for outcome in outcomes(bench):
        if outcome == column:
            continue
        answers = bench.once(scores, outcome, "trees")
        if isinstance(answers, str):
            continue
        for group in bench.once(subgroups, column):
            judged = _utility(bench, answers, group)
            if judged is not None:
                found.append(judged)
    return found


def fairness_profile(bench: Bench) -> FairnessProfile | None:
    """Every subgroup with what was measured of it, where a check asked for it."""
    names = groups(bench)
    found = [
        GroupProfile(
            metric=metric,
            column=one.group.column,
            group=one.group.name,
            value=round(one.value.value, 4),
            ci=(round(one.value.low, 4), round(one.value.high, 4)),
            reference=round(one.reference, 4),
        )
        for metric, compute in _COMPUTED.items()
        for name in names
        for one in bench.found(compute, name) or ()
    ]
    return FairnessProfile(groups=tuple(found)) if found else None


def _log_odds(member: Members) -> tuple[float, float]:
    """The log odds of being in the subgroup, and its variance."""
    inside, outside = float(member.sum()) + 0.5, float((~member).sum()) + 0.5
    return math.log(inside / outside), 1.0 / inside + 1.0 / outside


def _utility(bench: Bench, answers: Scores, group: Group) -> Judged | None:
    inside = np.flatnonzero(group.holdout[answers.rows])
    truth = tuple(one[inside] for one in answers.truth)
    if answers.score == "R²":
        if len(inside) < 2 * FEWEST or np.ptp(truth[0]) == 0:
            return None
        asked = [0]
    else:
        asked = [at for at, one in enumerate(truth) if FEWEST <= one.sum() <= len(one) - FEWEST]
        if not asked:
            return None
    within = Scores(
        score=answers.score,
        rows=answers.rows[inside],
        truth=tuple(truth[at] for at in asked),
        synthetic=tuple(answers.synthetic[at][inside] for at in asked),
        real=tuple(answers.real[at][inside] for at in asked),
    )
    drawn = [
        [resampled(within, within.real, counts), resampled(within, within.synthetic, counts)]
        for counts in bootstrap_counts(len(inside), replicates=REPLICATES, generator=bench.parts.generator(31))
    ]
    values = scored(within, within.real), scored(within, within.synthetic)
    limits = (-np.inf if answers.score == "R²" else 0.0, 1.0)
    estimates = compared(values, np.concatenate(drawn, axis=1), limits=limits)
    if estimates is None:
        return None
    return Judged(group=group, value=estimates[1], reference=estimates[0].value, excess=estimates[2])


_COMPUTED = {"group_disparity": disparity, "group_fidelity": fidelity, "group_utility": utility}


_LIMITS = {"group_disparity": (0.0, math.inf), "group_fidelity": (0.0, 1.0), "group_utility": (-math.inf, 1.0)}


def _wide(estimate: Estimate, stretch: float, limits: tuple[float, float] = (-math.inf, math.inf)) -> Estimate:
    low = estimate.value - stretch * (estimate.value - estimate.low)
    high = estimate.value + stretch * (estimate.high - estimate.value)
    return Estimate(value=estimate.value, low=max(low, limits[0]), high=min(high, limits[1]))


def _worst(metric: str, scope: Scope, direction: Direction, judged: Sequence[Judged]) -> Measurement:
    """The worst subgroup. All intervals hold at once, so the largest lies between the largest of their ends."""
    stretch = NormalDist().inv_cdf(1.0 - 0.025 / len(judged)) / Z95
    values = [_wide(one.value, stretch, _LIMITS[metric]) for one in judged]
    excesses = [_wide(one.excess, stretch) for one in judged]
    worst = max if direction == "lower" else min
    return Measurement(
        metric=metric,
        scope=scope,
        direction=direction,
        value=Estimate(
            value=worst(one.value for one in values),
            low=worst(one.low for one in values),
            high=worst(one.high for one in values),
        ),
        reference=worst(one.reference for one in judged),
        excess=Estimate(
            value=max(one.value for one in excesses),
            low=max(one.low for one in excesses),
            high=max(one.high for one in excesses),
        ),
    )


def _measured(bench: Bench, metric: str, scope: Scope) -> Measurement:
    direction: Direction = "higher" if metric == "group_utility" else "lower"
    declared = groups(bench) if scope == "all" else (str(scope),)
    if not declared:
        return undefined(metric, "all", direction, "The schema declares no column of subgroups.")
    judged = [one for name in declared for one in bench.once(_COMPUTED[metric], name)]
    if not judged:
        needed = "and an outcome that can be judged there" if metric == "group_utility" else "besides other columns"
        why = f"No subgroup has {SMALL} patients or more in train and holdout, {needed}."
        return undefined(metric, scope, direction, why)
    return _worst(metric, scope, direction, judged)


METRICS: Mapping[str, Metric] = {
    "group_disparity": Metric(
        section="fairness",
        direction="lower",
        applies=declares_groups,
        measure=lambda bench, scope: _measured(bench, "group_disparity", scope),
        scopes=groups,
        words=MetricWords(
            title="Shares of subgroups",
            failed="At least one declared subgroup is clearly rarer or more common than in the real records, or lost.",
            question="whether every subgroup is as common as in the real records",
        ),
    ),
    "group_fidelity": Metric(
        section="fairness",
        direction="lower",
        applies=declares_groups,
        measure=lambda bench, scope: _measured(bench, "group_fidelity", scope),
        scopes=groups,
        words=MetricWords(
            title="Columns within subgroups",
            failed="In at least one declared subgroup the columns are distributed clearly differently from real ones.",
            question="whether the columns are distributed as in the real records in every subgroup",
        ),
    ),
    "group_utility": Metric(
        section="fairness",
        direction="higher",
        applies=declares_groups,
        measure=lambda bench, scope: _measured(bench, "group_utility", scope),
        scopes=groups,
        words=MetricWords(
            title="Predicting the outcome within subgroups",
            failed="A model trained on the synthetic patients serves at least one declared subgroup clearly worse.",
            question="whether a model trained on the synthetic patients serves every subgroup well enough",
            measured="trained on synthetic",
            compared="trained on real",
        ),
    ),
}
"""The metrics of fairness by name."""
