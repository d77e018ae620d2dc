"""Utility: does a model trained on synthetic patients predict real ones as well as one trained on real?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords, outcomes
from synthehr.evaluation.cohorts import Part, Parts
from synthehr.evaluation.findings import Measurement, OutcomeProfile, Scope, undefined
from synthehr.evaluation.intervals import (
    Estimate,
    area_under_curve,
    bootstrap_counts,
    normal_interval,
    replicate_areas,
    replicate_r_squared,
)
from synthehr.evaluation.learners import Learner, features, fit_classes, fit_numbers
from synthehr.evaluation.threads import in_parallel
from synthehr.schema.model import BooleanColumn, CategoryColumn, IntegerColumn, NumberColumn

__all__ = [
    "METRICS",
    "Prediction",
    "Scores",
    "Task",
    "compared",
    "cut",
    "prediction",
    "scored",
    "scores",
    "task_of",
    "worst_outcome",
]

FEWEST = 10
"""Holdout patients of each class; twice as many for numbers."""

REPLICATES = 400
"""Bootstrap draws of holdout patients."""

_MOST = 20_000
_LEARNERS: Mapping[str, Learner] = {"tstr": "trees", "tstr_linear": "linear", "tstr_forest": "forest"}
Floats = NDArray[np.float64]
Score = Literal["AUC", "macro AUC", "R²"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One outcome: the measurement, and what its plot shows (None where undefined)."""

    measurement: Measurement
    profile: OutcomeProfile | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The outcome of one cohort: class codes or numbers, and the patients who have it."""

    rows: NDArray[np.int64]
    target: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What two models say of the holdout's patients, and what is true of them.

    Attributes:
        score: how they are judged.
        rows: the patients, rows of the holdout.
        truth: for each class asked about, who is of it, shape ``(patients,)``; for numbers the number.
        synthetic: what the model trained on synthetic patients says: a chance for each class, or a number.
        real: what the model trained on as many real patients says.
    """

    score: Score
    rows: NDArray[np.int64]
    truth: tuple[Floats, ...]
    synthetic: tuple[Floats, ...]
    real: tuple[Floats, ...]


def scores(bench: Bench, outcome: str, learner: Learner) -> Scores | str:
    """Train on synthetic and on as many real patients, and ask both of the holdout; else why that cannot be.

    Source: Esteban, Hyland and Rätsch 2017 (TSTR).
    """
    parts = bench.parts
    column = parts.schema.root.kept[outcome]
    classes = isinstance(column, BooleanColumn | CategoryColumn)
    if not classes and not isinstance(column, IntegerColumn | NumberColumn):
        return f"An outcome of kind {column.kind} has no measure of prediction."
    train, synthetic = cut(parts, outcome)
    holdout = task_of(parts.holdout, parts, outcome)
    if len(train.rows) == 0:
        return "No real patient to learn from has a value for this outcome."
    judge = _judge_classes if classes else _judge_numbers
    labels = judge(holdout.target)
    if isinstance(labels, str):
        return labels
    if classes and len(np.unique(train.target)) < 2:
        return f"The {len(train.rows)} real patients learned from, no more than synthetic ones, are all of one class."
    asked, categorical = features(parts.holdout, parts, without=outcome)
    asked = asked[holdout.rows]

    def said(part: Part, task: Task) -> tuple[Floats, ...]:
        rows = features(part, parts, without=outcome)[0][task.rows]
        if classes:
            chances = fit_classes(rows, task.target, categorical, learner=learner)(asked)
            never = np.zeros(len(asked))
            return tuple(chances.get(label, never) for label in labels)
        expected = fit_numbers(rows, task.target, categorical, learner=learner)(asked)
        return (np.where(np.isnan(expected), holdout.target.mean(), expected),)

    on_synthetic, on_real = in_parallel([partial(said, parts.synthetic, synthetic), partial(said, parts.train, train)])
    many = len(np.unique(holdout.target))
    truth = tuple((holdout.target == label).astype(np.float64) for label in labels) if classes else (holdout.target,)
    score: Score = "R²" if not classes else "AUC" if many == 2 else "macro AUC"
    return Scores(score=score, rows=holdout.rows, truth=truth, synthetic=on_synthetic, real=on_real)


def task_of(part: Part, parts: Parts, outcome: str) -> Task:
    """The patients of a cohort who have the outcome, and what it is."""
    values = part.values[outcome]
    known = np.flatnonzero(~values.missing & ~values.unreadable)
    if values.number is not None:
        return Task(rows=known, target=values.number[known])
    at = parts.coding.names.index(outcome)
    return Task(rows=known, target=part.codes[known, at].astype(np.float64))


def cut(parts: Parts, outcome: str, *, most: int = _MOST) -> tuple[Task, Task]:
    """Train and synthetic patients to learn from, cut to equal size unless no synthetic patient has the outcome."""
    train, synthetic = task_of(parts.train, parts, outcome), task_of(parts.synthetic, parts, outcome)
    size = min(len(train.rows), len(synthetic.rows) or len(train.rows), most)
    draw = parts.generator(2)
    found = []
    for task in (train, synthetic):
        chosen = np.sort(draw.choice(len(task.rows), size=min(size, len(task.rows)), replace=False))
        found.append(Task(rows=task.rows[chosen], target=task.target[chosen]))
    return found[0], found[1]


def scored(found: Scores, said: tuple[Floats, ...]) -> float:
    """The area, macro area or R² of what a model says."""
    if found.score == "R²":
        truth = found.truth[0]
        return 1.0 - float(np.square(truth - said[0]).sum() / np.square(truth - truth.mean()).sum())
    return float(np.mean([area_under_curve(y > 0, s) for y, s in zip(found.truth, said, strict=True)]))


def resampled(found: Scores, said: tuple[Floats, ...], counts: Floats) -> Floats:
    """The same in each bootstrap replicate; NaN where it cannot be taken. Shape ``(replicates,)``."""
    if found.score == "R²":
        return replicate_r_squared(found.truth[0], said[0], counts)
    areas = [replicate_areas(y > 0, s, counts) for y, s in zip(found.truth, said, strict=True)]
    return np.asarray(np.mean(areas, axis=0))


def compared(values: tuple[float, float], replicates: Floats, *, limits: tuple[float, float]) -> list[Estimate] | None:
    """Estimates of the first value, the second, and first minus second; None where too few replicates are finite.

    Args:
        values: on all patients.
        replicates: shape ``(2, replicates)``, paired.
        limits: the least and the most that a value can be.
    """
    replicates = replicates[:, np.isfinite(replicates).all(axis=0)]
    if replicates.shape[1] < REPLICATES // 2:
        return None
    low, high = limits
    found = [
        normal_interval(value, error=float(drawn.std(ddof=1)), lower=low, upper=high)
        for value, drawn in zip(values, replicates, strict=True)
    ]
    gaps = replicates[0] - replicates[1]
    return [*found, normal_interval(values[0] - values[1], error=float(gaps.std(ddof=1)))]


def prediction(bench: Bench, outcome: str, metric: str = "tstr") -> Prediction:
    """The prediction of one outcome.

    AUC for two classes, macro one-against-rest AUC for more, R² for numbers. Higher is better. The gap's
    interval is a paired bootstrap over holdout patients; it does not cover the draw of the training sets.
    """
    found = bench.once(scores, outcome, _LEARNERS[metric])
    if isinstance(found, str):
        return Prediction(measurement=undefined(metric, outcome, "higher", found), profile=None)
    values = scored(found, found.real), scored(found, found.synthetic)
    chunks = [
        [resampled(found, found.real, counts), resampled(found, found.synthetic, counts)]
        for counts in bootstrap_counts(len(found.rows), replicates=REPLICATES, generator=bench.parts.generator(3))
    ]
    limits = (-np.inf if found.score == "R²" else 0.0, 1.0)
    estimates = compared(values, np.concatenate(chunks, axis=1), limits=limits)
    if estimates is None:
        why = "Too few patients of the rarer class for a bootstrap."
        return Prediction(measurement=undefined(metric, outcome, "higher", why), profile=None)
    real, own, gap = estimates
    return Prediction(
        measurement=Measurement(
            metric=metric, scope=outcome, direction="higher", value=own, reference=real.value, excess=gap
        ),
        profile=OutcomeProfile(
            outcome=outcome,
            learner=_LEARNERS[metric],
            score=found.score,
            trained_on_synthetic=own.value,
            synthetic_ci=(own.low, own.high),
            trained_on_real=real.value,
            real_ci=(real.low, real.high),
            gap=gap.value,
            gap_ci=(gap.low, gap.high),
        ),
    )


def worst_outcome(bench: Bench, found: Mapping[str, Measurement], *, empty: Measurement) -> Measurement:
    """Of the outcomes' measurements the one with the largest excess, under the scope ``all``; the first undefined one.

    Args:
        bench: for the declared outcomes.
        found: measurement of each outcome.
        empty: what to return where the schema declares none.
    """
    declared = outcomes(bench)
    if not declared:
        return empty
    unmeasured = [found[name] for name in declared if found[name].excess is None]
    if unmeasured:
        return unmeasured[0]
    return max(found.values(), key=lambda one: one.excess.value if one.excess is not None else 0.0)


def _judge_classes(target: Floats) -> tuple[float, ...] | str:
    """The classes to ask about; of two the second."""
    classes, sizes = np.unique(target, return_counts=True)
    asked = classes[(sizes >= FEWEST) & (len(target) - sizes >= FEWEST)]
    if len(asked) == 0:
        return f"The holdout lacks two classes with at least {FEWEST} patients each."
    return tuple(float(label) for label in (asked[-1:] if len(classes) == 2 else asked))


def _judge_numbers(target: Floats) -> tuple[float, ...] | str:
    if len(target) < 2 * FEWEST or np.ptp(target) == 0:
        return f"The holdout has fewer than {2 * FEWEST} patients with it, or it does not vary."
    return ()


def _tstr(bench: Bench, scope: Scope, metric: str) -> Measurement:
    names = outcomes(bench) if scope == "all" else (str(scope),)
    found = {name: bench.once(prediction, name, metric).measurement for name in names}
    if scope != "all":
        return found[str(scope)]
    empty = undefined(metric, "all", "higher", "The schema declares no outcome to predict.")
    return worst_outcome(bench, found, empty=empty)


def _words(learner: str) -> MetricWords:
    return MetricWords(
        title=f"Predicting the outcome{learner}",
        failed=f"A model{learner} trained on the synthetic patients predicts real ones clearly worse "
        "than one trained on real patients.",
        question="whether a model trained on the synthetic patients predicts real ones well enough",
        measured="trained on synthetic",
        compared="trained on real",
    )


METRICS: Mapping[str, Metric] = {
    "tstr": Metric(
        section="utility",
        direction="higher",
        measure=lambda bench, scope: _tstr(bench, scope, "tstr"),
        scopes=outcomes,
        words=_words(""),
    ),
    "tstr_linear": Metric(
        section="utility",
        direction="higher",
        measure=lambda bench, scope: _tstr(bench, scope, "tstr_linear"),
        scopes=outcomes,
        words=_words(" (linear)"),
    ),
    "tstr_forest": Metric(
        section="utility",
        direction="higher",
        measure=lambda bench, scope: _tstr(bench, scope, "tstr_forest"),
        scopes=outcomes,
        words=_words(" (random forest)"),
    ),
}
"""The metrics of prediction by name."""
