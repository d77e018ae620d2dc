"""Fidelity of single numbers without bins: the Kolmogorov-Smirnov distance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords
from synthehr.evaluation.influence import from_influence
from synthehr.evaluation.measurement import Measurement, Scope, undefined
from synthehr.schema.model import BooleanColumn, CategoryColumn

__all__ = ["METRICS", "ColumnDistance", "declares_numbers", "numeric_columns", "numeric_distances"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDistance:
    """The distance of one column, and each patient's influence on it.

    Attributes:
        value: largest gap between the shares of patients at or below any number, synthetic against train.
        reference: the same, holdout against train.
        train: influences of train on the value, and on the reference.
        synthetic: influences on the value.
        holdout: influences on the reference.
    """

    value: float
    reference: float
    train: tuple[Floats, Floats]
    synthetic: Floats
    holdout: Floats


def numeric_columns(bench: Bench) -> tuple[str, ...]:
    """The columns that are numbers, dates among them, and have a value in train."""
    values = bench.parts.train.values
    return tuple(
        name
        for name in bench.parts.coding.names
        if (number := values[name].number) is not None and not np.isnan(number).all()
    )


def declares_numbers(bench: Bench) -> bool:
    """Whether the schema declares a number, date or time of patients."""
    return any(not isinstance(column, CategoryColumn | BooleanColumn) for column in bench.schema.root.kept.values())


def numeric_distances(bench: Bench) -> dict[str, ColumnDistance]:
    """The distance of every number, among patients who have a value; 1 where no other patient has one."""
    parts = bench.parts
    found = {}
    for name in bench.once(numeric_columns):
        train, synthetic, holdout = (part.values[name].number for part in (parts.train, parts.synthetic, parts.holdout))
        assert train is not None and synthetic is not None and holdout is not None
        value, on_train, on_synthetic = _furthest(train, synthetic[parts.synthetic_rows])
        reference, beside, on_holdout = _furthest(train, holdout[parts.holdout_rows])
        found[name] = ColumnDistance(
            value=value,
            reference=reference,
            train=(on_train, beside),
            synthetic=on_synthetic,
            holdout=on_holdout,
        )
    return found


def _furthest(train: Floats, other: Floats) -> tuple[float, Floats, Floats]:
    """The largest gap, and the influences of train and of the other cohort on it."""
    ours, theirs = np.sort(train[~np.isnan(train)]), np.sort(other[~np.isnan(other)])
    if len(theirs) == 0:
        return 1.0, np.zeros(len(train)), np.zeros(len(other))
    points = np.concatenate([ours, theirs])
    gaps = np.searchsorted(ours, points, side="right") / len(ours) - np.searchsorted(
        theirs, points, side="right"
    ) / len(theirs)
    at = int(np.argmax(np.abs(gaps)))
    sign = float(np.sign(gaps[at]))
    return float(abs(gaps[at])), sign * _at_or_below(train, points[at]), -sign * _at_or_below(other, points[at])


def _at_or_below(values: Floats, point: float) -> Floats:
    """Influences on the share of given values at or below a point; 0 for patients without a value."""
    given = ~np.isnan(values)
    below = values <= point
    return np.asarray(np.where(given, (below - below[given].mean()) / given.mean(), 0.0))


def _measured(bench: Bench, metric: str, scope: Scope) -> Measurement:
    found = bench.once(numeric_distances)
    if not found:
        return undefined(metric, scope, "lower", "No column is a number with a value in train.")
    if min(len(bench.parts.train), bench.parts.equal) < 2:
        return undefined(metric, scope, "lower", "A cohort has a single patient, so no interval can be given.")
    if metric == "ks_worst":
        own = [max(found.values(), key=lambda one: one.value)]
        others = [max(found.values(), key=lambda one: one.reference)]
    else:
        own = others = list(found.values()) if scope == "all" else [found[str(scope)]]
    return from_influence(
        metric,
        scope,
        value=float(np.mean([one.value for one in own])),
        reference=float(np.mean([one.reference for one in others])),
        train=(
            np.mean([one.train[0] for one in own], axis=0),
            np.mean([one.train[1] for one in others], axis=0),
        ),
        synthetic=np.mean([one.synthetic for one in own], axis=0),
        holdout=np.mean([one.holdout for one in others], axis=0),
    )


METRICS: Mapping[str, Metric] = {
    "ks": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, scope: _measured(bench, "ks", scope),
        scopes=numeric_columns,
        measurable=declares_numbers,
        words=MetricWords(
            title="Numbers, without bins",
            failed="Numbers are distributed differently from the real ones, be it within bins.",
            question="whether numbers are distributed as in the real records",
        ),
    ),
    "ks_worst": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: _measured(bench, "ks_worst", "all"),
        measurable=declares_numbers,
        words=MetricWords(
            title="The number that is furthest off, without bins",
            failed="At least one number is distributed quite differently from the real one.",
            question="whether every number is distributed as in the real records",
        ),
    ),
}
"""The metrics of numbers by name."""
