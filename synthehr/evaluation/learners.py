"""Features and learners shared by the two-sample test, by utility and by importance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.cohorts import Part, Parts
from synthehr.evaluation.threads import single_thread

__all__ = [
    "Learner",
    "class_chances",
    "features",
    "fit_classes",
    "fit_numbers",
    "predicted_numbers",
]

_MOST_CATEGORIES = 250
_SETTINGS: dict[str, Any] = {"max_iter": 60, "learning_rate": 0.1, "early_stopping": False, "random_state": 0}
_FOREST: dict[str, Any] = {"n_estimators": 100, "min_samples_leaf": 5, "max_features": "sqrt", "random_state": 0}
_FARTHEST = 10.0

Learner = Literal["trees", "linear", "forest"]
"""Boosted trees; logistic or linear regression with a ridge penalty; a random forest."""

Floats = NDArray[np.float64]
Features = tuple[Floats, NDArray[np.bool_]]


def features(part: Part, parts: Parts, *, without: str | None = None) -> Features:
    """The kept columns as a learner reads them, and which of them are categories.

    Numbers enter as they are, categories as codes (beyond 250 of them, as ordered numbers); missing is NaN.
    Shape ``(patients, columns)`` and ``(columns,)``.

    Args:
        part: the cohort.
        parts: all of them, for the coding.
        without: a column to leave out, the outcome.
    """
    columns, categorical = [], []
    for at, column in enumerate(parts.coding.columns):
        if column.name == without:
            continue
        values = part.values[column.name]
        if values.number is not None:
            columns.append(values.number)
            categorical.append(False)
        else:
            codes = part.codes[:, at].astype(np.float64)
            codes[values.missing] = np.nan
            columns.append(codes)
            categorical.append(len(column.labels) <= _MOST_CATEGORIES)
    if not columns:
        return np.empty((len(part), 0)), np.empty(0, dtype=bool)
    return np.stack(columns, axis=1), np.array(categorical)


def fit_classes(
    rows: Floats, classes: Floats, categorical: NDArray[np.bool_], *, learner: Learner = "trees"
) -> Callable[[Floats], dict[float, Floats]]:
    """Learn classes; what it returns gives each patient asked about the chance of each class seen.

    Where there is one class, or no column with a value, every patient gets the same chance.

    Args:
        rows: shape ``(patients, columns)``.
        classes: shape ``(patients,)``.
        categorical: which columns are categories.
        learner: how to learn.
    """
    seen, sizes = np.unique(classes, return_counts=True)
    used = ~np.isnan(rows).all(axis=0)
    if len(seen) < 2 or not used.any():
        shares = {float(one): size / len(rows) for one, size in zip(seen, sizes, strict=True)}
        return lambda asked: {one: np.full(len(asked), share) for one, share in shares.items()}
    prepared, model = _classifier(rows[:, used], classes, categorical[used], learner)

    def chances(asked: Floats) -> dict[float, Floats]:
        with single_thread():
            found = model.predict_proba(prepared(asked[:, used]))
        return {float(one): found[:, at] for at, one in enumerate(model.classes_)}

    return chances


def fit_numbers(
    rows: Floats, target: Floats, categorical: NDArray[np.bool_], *, learner: Learner = "trees"
) -> Callable[[Floats], Floats]:
    """Learn a number; what it returns gives each patient asked about the number expected.

    Where the target does not vary, or no column has a value, every patient gets the mean; NaN where there is
    no one to learn from.
    """
    used = ~np.isnan(rows).all(axis=0)
    if len(target) == 0:
        return lambda asked: np.full(len(asked), np.nan)
    if np.ptp(target) == 0 or not used.any():
        mean = float(target.mean())
        return lambda asked: np.full(len(asked), mean)
    prepared, model = _regressor(rows[:, used], target, categorical[used], learner)

    def expected(asked: Floats) -> Floats:
        with single_thread():
            return np.asarray(model.predict(prepared(asked[:, used])))

    return expected


def class_chances(
    rows: Floats, classes: Floats, categorical: NDArray[np.bool_], *, asked: Floats
) -> dict[float, Floats]:
    """The chance of each class seen, for each patient asked about, by boosted trees; see :func:`fit_classes`."""
    return fit_classes(rows, classes, categorical)(asked)


def predicted_numbers(rows: Floats, target: Floats, categorical: NDArray[np.bool_], *, asked: Floats) -> Floats:
    """The number expected of each patient asked about, by boosted trees; see :func:`fit_numbers`."""
    return fit_numbers(rows, target, categorical)(asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Design:
    """Columns for a linear model, as learned from the rows it is fitted to.

    Attributes:
        categorical: which columns are categories.
        mean: of each number.
        spread: standard deviation of each number, 1 where it does not vary.
        levels: values of each category, the most common first, at most twenty.
    """

    categorical: NDArray[np.bool_]
    mean: Floats
    spread: Floats
    levels: tuple[Floats, ...]

    @classmethod
    def of(cls, rows: Floats, categorical: NDArray[np.bool_]) -> _Design:
        mean, spread = np.nanmean(rows, axis=0), np.nanstd(rows, axis=0)
        levels = []
        for at in np.flatnonzero(categorical):
            seen, sizes = np.unique(rows[~np.isnan(rows[:, at]), at], return_counts=True)
            levels.append(seen[np.argsort(-sizes, kind="stable")][:20])
        spread = np.where(spread > 1e-12 * np.maximum(1.0, np.abs(mean)), spread, 1.0)
        return cls(categorical=categorical, mean=mean, spread=spread, levels=tuple(levels))

    def __call__(self, rows: Floats) -> Floats:
        """Numbers as standard scores (missing is 0, with a mark beside it), categories one column a value."""
        numbers = ~self.categorical
        scores = (rows[:, numbers] - self.mean[numbers]) / self.spread[numbers]
        gone = np.isnan(scores)
        blocks = [np.clip(np.where(gone, 0.0, scores), -_FARTHEST, _FARTHEST), gone.astype(np.float64)]
        for at, levels in zip(np.flatnonzero(self.categorical), self.levels, strict=True):
            blocks.append((rows[:, at, None] == levels).astype(np.float64))
        return np.concatenate(blocks, axis=1)


def _classifier(
    rows: Floats, classes: Floats, categorical: NDArray[np.bool_], learner: Learner
) -> tuple[Callable[[Floats], Floats], Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    with single_thread():
        if learner == "linear":
            design = _Design.of(rows, categorical)
            return design, LogisticRegression(solver="newton-cholesky", C=1.0).fit(design(rows), classes)
        if learner == "forest":
            return _same, RandomForestClassifier(**_FOREST).fit(rows, classes)
        model = HistGradientBoostingClassifier(categorical_features=categorical, **_SETTINGS)
        return _same, model.fit(rows, classes)


def _regressor(
    rows: Floats, target: Floats, categorical: NDArray[np.bool_], learner: Learner
) -> tuple[Callable[[Floats], Floats], Any]:
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import Ridge

    with single_thread():
        if learner == "linear":
            design = _Design.of(rows, categorical)
            return design, Ridge(alpha=1.0).fit(design(rows), target)
        if learner == "forest":
            return _same, RandomForestRegressor(**_FOREST).fit(rows, target)
        return _same, HistGradientBoostingRegressor(categorical_features=categorical, **_SETTINGS).fit(rows, target)


def _same(rows: Floats) -> Floats:
    return rows
