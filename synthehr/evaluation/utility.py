"""Utility: does a model trained on synthetic patients predict real ones as well as one trained on real?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.cohorts import Part, Parts
from synthehr.evaluation.findings import Measurement, OutcomeProfile, undefined
from synthehr.evaluation.intervals import (
    Estimate,
    area_under_curve,
    bootstrap_counts,
    normal_interval,
    replicate_areas,
    replicate_r_squared,
)
from synthehr.evaluation.learners import class_chances, features, predicted_numbers
from synthehr.schema.model import BooleanColumn, CategoryColumn, IntegerColumn, NumberColumn

__all__ = ["Prediction", "predict_outcome"]

_METRIC = "tstr"
_FEWEST = 10
_MOST = 20_000
_REPLICATES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One outcome: the measurement, and what its plot shows (None where undefined)."""

    measurement: Measurement
    profile: OutcomeProfile | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """The outcome of one cohort: class codes or numbers, and the patients who have it."""

    rows: NDArray[np.int64]
    target: NDArray[np.float64]


def predict_outcome(parts: Parts, outcome: str) -> Prediction:
    """Train on synthetic and on as many real patients; test both on the holdout.

    AUC for two classes, macro one-against-rest AUC for more, R² for numbers. Higher is better. The gap's
    interval is a paired bootstrap over holdout patients; it does not cover the draw of the training sets.
    Source: Esteban, Hyland and Rätsch 2017 (TSTR).
    """
    column = parts.schema.root.kept[outcome]
    if isinstance(column, BooleanColumn | CategoryColumn):
        return _classes(parts, outcome)
    if isinstance(column, IntegerColumn | NumberColumn):
        return _numbers(parts, outcome)
    return _undefined(outcome, f"An outcome of kind {column.kind} has no measure of prediction.")


def _undefined(outcome: str, why: str) -> Prediction:
    return Prediction(measurement=undefined(_METRIC, outcome, "higher", why), profile=None)


def _task(part: Part, parts: Parts, outcome: str) -> _Task:
    values = part.values[outcome]
    known = np.flatnonzero(~values.missing & ~values.unreadable)
    if values.number is not None:
        return _Task(rows=known, target=values.number[known])
    at = parts.coding.names.index(outcome)
    return _Task(rows=known, target=part.codes[known, at].astype(np.float64))


def _tasks(parts: Parts, outcome: str) -> tuple[_Task, _Task, _Task]:
    """Train and synthetic cut to equal size, unless no synthetic patient has the outcome; all of holdout."""
    train, synthetic = _task(parts.train, parts, outcome), _task(parts.synthetic, parts, outcome)
    size = min(len(train.rows), len(synthetic.rows) or len(train.rows), _MOST)
    draw = parts.generator(2)
    cut = []
    for task in (train, synthetic):
        chosen = np.sort(draw.choice(len(task.rows), size=min(size, len(task.rows)), replace=False))
        cut.append(_Task(rows=task.rows[chosen], target=task.target[chosen]))
    return cut[0], cut[1], _task(parts.holdout, parts, outcome)


def _classes(parts: Parts, outcome: str) -> Prediction:
    train, synthetic, holdout = _tasks(parts, outcome)
    classes, sizes = np.unique(holdout.target, return_counts=True)
    classes = classes[(sizes >= _FEWEST) & (len(holdout.target) - sizes >= _FEWEST)]
    if len(classes) == 0:
        return _undefined(outcome, f"The holdout lacks two classes with at least {_FEWEST} patients each.")
    if len(train.rows) == 0:
        return _undefined(outcome, "No real patient to learn from has a value for this outcome.")
    if len(sizes) == 2:
        classes = classes[-1:]
    x_test, categorical = features(parts.holdout, parts, without=outcome)
    scores = []
    for part, task in ((parts.synthetic, synthetic), (parts.train, train)):
        x = features(part, parts, without=outcome)[0][task.rows]
        chances = class_chances(x, task.target, categorical, asked=x_test[holdout.rows])
        never = np.zeros(len(holdout.rows))
        scores.append([chances.get(float(label), never) for label in classes])
    labels = [holdout.target == label for label in classes]
    values = [float(np.mean([area_under_curve(y, s) for y, s in zip(labels, own, strict=True)])) for own in scores]
    replicates = []
    for counts in bootstrap_counts(len(holdout.rows), replicates=_REPLICATES, generator=parts.generator(3)):
        replicates.append(
            [
                np.mean([replicate_areas(y, s, counts) for y, s in zip(labels, own, strict=True)], axis=0)
                for own in scores
            ]
        )
    score: Literal["AUC", "macro AUC"] = "AUC" if len(sizes) == 2 else "macro AUC"
    return _prediction(outcome, score, values, np.concatenate(replicates, axis=1), limits=(0.0, 1.0))


def _numbers(parts: Parts, outcome: str) -> Prediction:
    train, synthetic, holdout = _tasks(parts, outcome)
    if len(holdout.rows) < 2 * _FEWEST or np.ptp(holdout.target) == 0:
        return _undefined(outcome, f"The holdout has fewer than {2 * _FEWEST} patients with it, or it does not vary.")
    if len(train.rows) == 0:
        return _undefined(outcome, "No real patient to learn from has a value for this outcome.")
    x_test, categorical = features(parts.holdout, parts, without=outcome)
    predicted = []
    for part, task in ((parts.synthetic, synthetic), (parts.train, train)):
        x = features(part, parts, without=outcome)[0][task.rows]
        expected = predicted_numbers(x, task.target, categorical, asked=x_test[holdout.rows])
        predicted.append(np.where(np.isnan(expected), holdout.target.mean(), expected))
    spread = float(np.square(holdout.target - holdout.target.mean()).sum())
    values = [1.0 - float(np.square(holdout.target - own).sum()) / spread for own in predicted]
    replicates = [
        [replicate_r_squared(holdout.target, own, counts) for own in predicted]
        for counts in bootstrap_counts(len(holdout.rows), replicates=_REPLICATES, generator=parts.generator(3))
    ]
    return _prediction(outcome, "R²", values, np.concatenate(replicates, axis=1), limits=(-np.inf, 1.0))


def _prediction(
    outcome: str,
    score: Literal["AUC", "macro AUC", "R²"],
    values: list[float],
    replicates: NDArray[np.float64],
    *,
    limits: tuple[float, float],
) -> Prediction:
    replicates = replicates[:, np.isfinite(replicates).all(axis=0)]
    if replicates.shape[1] < _REPLICATES // 2:
        return _undefined(outcome, "Too few patients of the rarer class for a bootstrap.")
    low, high = limits
    own, real = (
        normal_interval(value, error=float(drawn.std(ddof=1)), lower=low, upper=high)
        for value, drawn in zip(values, replicates, strict=True)
    )
    gaps = replicates[1] - replicates[0]
    gap: Estimate = normal_interval(values[1] - values[0], error=float(gaps.std(ddof=1)))
    return Prediction(
        measurement=Measurement(
            metric=_METRIC, scope=outcome, direction="higher", value=own, reference=real.value, excess=gap
        ),
        profile=OutcomeProfile(
            outcome=outcome,
            score=score,
            trained_on_synthetic=own.value,
            synthetic_ci=(own.low, own.high),
            trained_on_real=real.value,
            real_ci=(real.low, real.high),
            gap=gap.value,
            gap_ci=(gap.low, gap.high),
        ),
    )
