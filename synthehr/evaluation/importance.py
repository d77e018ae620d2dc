"""Importance: does a model learned from synthetic patients lean on the same columns as one learned from real ones?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords, outcomes
from synthehr.evaluation.cohorts import Part, Parts
from synthehr.evaluation.findings import ImportanceProfile, Measurement, Scope, undefined
from synthehr.evaluation.intervals import bootstrap_counts, normal_interval, replicate_areas, replicate_r_squared
from synthehr.evaluation.learners import features, fit_classes, fit_numbers
from synthehr.evaluation.threads import in_parallel
from synthehr.evaluation.utility import FEWEST, Task, cut, task_of, worst_outcome
from synthehr.schema.model import BooleanColumn, CategoryColumn, IntegerColumn, NumberColumn

__all__ = ["METRICS", "Importances", "agreement", "importance_profile", "importances"]

_METRIC = "importance_agreement"
_MOST = 10_000
_ASKED = 3_000
_REPLICATES = 100
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Importances:
    """How much the area (or R²) falls when one column is shuffled, for three models, with bootstrap replicates.

    Attributes:
        columns: the columns.
        train: of the model trained on train, on holdout patients; shape ``(1 + replicates, columns)``, the first on
            all patients.
        synthetic: of the model trained on synthetic patients, on train patients.
        holdout: of the model trained on holdout patients, on the same train patients.
    """

    columns: tuple[str, ...]
    train: Floats
    synthetic: Floats
    holdout: Floats


def importances(bench: Bench, outcome: str) -> Importances | str:
    """Permutation importance (Breiman 2001) of three models of equal size; else why it cannot be taken.

    The model of train is asked of the holdout, the other two of train, so that both have the same ground.
    """
    parts = bench.parts
    column = parts.schema.root.kept[outcome]
    classes = isinstance(column, BooleanColumn | CategoryColumn)
    if not classes and not isinstance(column, IntegerColumn | NumberColumn):
        return f"An outcome of kind {column.kind} has no measure of prediction."
    train, synthetic = cut(parts, outcome, most=_MOST)
    holdout = task_of(parts.holdout, parts, outcome)
    if len(synthetic.rows) == 0:
        return "No synthetic patient has a value for this outcome."
    size = min(len(train.rows), len(synthetic.rows), len(holdout.rows))
    asked_train, asked_holdout = (_asked(bench, task, at) for at, task in ((0, train), (1, holdout)))
    label = _label(asked_train.target, asked_holdout.target) if classes else None
    if (classes and label is None) or size < 2 * FEWEST:
        return f"Train or holdout lacks two classes with at least {FEWEST} patients each, or a cohort is too small."
    if not classes and min(np.ptp(asked_train.target), np.ptp(asked_holdout.target)) == 0:
        return "The outcome does not vary."
    names = tuple(name for name in parts.coding.names if name != outcome)
    if len(names) < 2:
        return "There are fewer than two columns to predict from."
    on_holdout, on_train = (parts.holdout, asked_holdout, 20), (parts.train, asked_train, 21)
    work = [
        ((parts.train, _first(train, size, parts)), on_holdout),
        ((parts.synthetic, _first(synthetic, size, parts)), on_train),
        ((parts.holdout, _first(holdout, size, parts)), on_train),
    ]
    found = in_parallel([partial(_importance, parts, outcome, label, learned=one, asked=two) for one, two in work])
    return Importances(columns=names, train=found[0], synthetic=found[1], holdout=found[2])


def agreement(bench: Bench, outcome: str) -> Measurement:
    """Correlation of the importances of synthetic's model with those of train's, over columns.

    Higher is better; range -1 to 1. Beside it the same of a model of as many holdout patients. The interval is a
    bootstrap over the patients asked of; it does not cover the draw of the training sets.
    """
    found = bench.once(importances, outcome)
    if isinstance(found, str):
        return undefined(_METRIC, outcome, "higher", found)
    own, others = (_correlations(found.train, other) for other in (found.synthetic, found.holdout))
    errors = [float(drawn.std(ddof=1)) for drawn in (own[1:], (others - own)[1:])]
    return Measurement(
        metric=_METRIC,
        scope=outcome,
        direction="higher",
        value=normal_interval(float(own[0]), error=errors[0], lower=-1.0, upper=1.0),
        reference=float(others[0]),
        excess=normal_interval(float(others[0] - own[0]), error=errors[1], lower=-2.0, upper=2.0),
    )


def importance_profile(bench: Bench, outcome: str) -> ImportanceProfile | None:
    """The importances, where a check asked for them."""
    found = bench.found(importances, outcome)
    if found is None or isinstance(found, str):
        return None
    return ImportanceProfile(
        outcome=outcome,
        columns=found.columns,
        train=tuple(round(float(one), 4) for one in found.train[0]),
        synthetic=tuple(round(float(one), 4) for one in found.synthetic[0]),
        holdout=tuple(round(float(one), 4) for one in found.holdout[0]),
    )


def _asked(bench: Bench, task: Task, at: int) -> Task:
    draw = bench.parts.generator(22 + at)
    chosen = np.sort(draw.choice(len(task.rows), size=min(len(task.rows), _ASKED), replace=False))
    return Task(rows=task.rows[chosen], target=task.target[chosen])


def _first(task: Task, size: int, parts: Parts) -> Task:
    chosen = parts.generator(24).choice(len(task.rows), size=size, replace=False)
    return Task(rows=task.rows[chosen], target=task.target[chosen])


def _label(train: Floats, holdout: Floats) -> float | None:
    """The class to ask about: of two the second, else the one nearest to half of the patients; None if all are rare."""
    classes, sizes = np.unique(train, return_counts=True)
    in_holdout = np.array([(holdout == one).sum() for one in classes])
    least = np.minimum.reduce([sizes, len(train) - sizes, in_holdout, len(holdout) - in_holdout])
    common = least >= FEWEST
    if not common.any():
        return None
    if len(classes) == 2:
        return float(classes[-1])
    return float(classes[common][np.argmin(np.abs(sizes[common] / len(train) - 0.5))])


def _importance(
    parts: Parts, outcome: str, label: float | None, *, learned: tuple[Part, Task], asked: tuple[Part, Task, int]
) -> Floats:
    """The fall of the score for each shuffled column. Shape ``(1 + replicates, columns)``.

    Args:
        parts: the three cohorts.
        outcome: what is predicted.
        label: the class asked about; None for numbers.
        learned: the patients to learn from.
        asked: the patients to ask of, and the purpose of the draws.
    """
    (part, task), (on, test, purpose) = learned, asked
    rows, categorical = features(part, parts, without=outcome)
    rows = rows[task.rows]
    said: Callable[[Floats], Floats]
    if label is None:
        said = fit_numbers(rows, task.target, categorical)
        truth = test.target
    else:
        chances = fit_classes(rows, (task.target == label).astype(np.float64), categorical)
        said = lambda table: chances(table).get(1.0, np.zeros(len(table)))  # noqa: E731 - one of two forms of one name
        truth = (test.target == label).astype(np.float64)
    table = features(on, parts, without=outcome)[0][test.rows]
    draw = parts.generator(purpose)
    order = draw.permutation(len(table))
    drawn = list(bootstrap_counts(len(table), replicates=_REPLICATES, generator=draw))
    counts = np.concatenate([np.ones((1, len(table))), *drawn])

    def score(answer: Floats) -> Floats:
        if label is None:
            return replicate_r_squared(truth, answer, counts)
        return replicate_areas(truth > 0, answer, counts)

    whole = score(said(table))
    falls = []
    for at in range(table.shape[1]):
        shuffled = table.copy()
        shuffled[:, at] = table[order, at]
        falls.append(whole - score(said(shuffled)))
    return np.nan_to_num(np.stack(falls, axis=1))


def _correlations(first: Floats, second: Floats) -> Floats:
    """Correlation over columns in each replicate; 0 where the importances of one do not vary."""
    one, two = (table - table.mean(axis=1, keepdims=True) for table in (first, second))
    scale = np.sqrt(np.square(one).sum(axis=1) * np.square(two).sum(axis=1))
    return np.asarray(np.divide((one * two).sum(axis=1), scale, out=np.zeros(len(one)), where=scale > 1e-15))


def _measured(bench: Bench, scope: Scope) -> Measurement:
    names = outcomes(bench) if scope == "all" else (str(scope),)
    found = {name: bench.once(agreement, name) for name in names}
    if scope != "all":
        return found[str(scope)]
    empty = undefined(_METRIC, "all", "higher", "The schema declares no outcome to predict.")
    return worst_outcome(bench, found, empty=empty)


METRICS: Mapping[str, Metric] = {
    _METRIC: Metric(
        section="utility",
        direction="higher",
        measure=_measured,
        scopes=outcomes,
        words=MetricWords(
            title="Which columns matter",
            failed="A model trained on the synthetic patients leans on other columns than one of real patients.",
            question="whether the same columns matter as in the real records",
            measured="agreement of synthetic with real",
            compared="agreement of other real patients",
        ),
    ),
}
"""The metric of importance by name."""
