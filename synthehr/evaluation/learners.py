"""Features and learners shared by the two-sample test and by utility."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.cohorts import Part, Parts

__all__ = ["class_chances", "features", "predicted_numbers"]

_MOST_CATEGORIES = 250
_SETTINGS: dict[str, Any] = {"max_iter": 60, "learning_rate": 0.1, "early_stopping": False, "random_state": 0}

Features = tuple[NDArray[np.float64], NDArray[np.bool_]]


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


def class_chances(
    rows: NDArray[np.float64],
    classes: NDArray[np.float64],
    categorical: NDArray[np.bool_],
    *,
    asked: NDArray[np.float64],
) -> dict[float, NDArray[np.float64]]:
    """The chance of each class seen, for each patient asked about, by gradient-boosted trees.

    Shape: ``rows`` is ``(patients, columns)``, ``asked`` ``(others, columns)``; each chance is
    ``(others,)``. Where there is one class, or no column with a value, every patient gets the same chance.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    seen, sizes = np.unique(classes, return_counts=True)
    used = ~np.isnan(rows).all(axis=0)
    if len(seen) < 2 or not used.any():
        return {float(one): np.full(len(asked), size / len(rows)) for one, size in zip(seen, sizes, strict=True)}
    with _single_thread():
        learner = HistGradientBoostingClassifier(categorical_features=categorical[used], **_SETTINGS)
        chances = learner.fit(rows[:, used], classes).predict_proba(asked[:, used])
    return {float(one): chances[:, at] for at, one in enumerate(learner.classes_)}


def predicted_numbers(
    rows: NDArray[np.float64],
    target: NDArray[np.float64],
    categorical: NDArray[np.bool_],
    *,
    asked: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The number expected of each patient asked about, by gradient-boosted trees. Shape ``(others,)``.

    Where the target does not vary, or no column has a value, every patient gets the mean; NaN where there is
    no one to learn from.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    used = ~np.isnan(rows).all(axis=0)
    if len(target) == 0:
        return np.full(len(asked), np.nan)
    if np.ptp(target) == 0 or not used.any():
        return np.full(len(asked), target.mean())
    with _single_thread():
        learner = HistGradientBoostingRegressor(categorical_features=categorical[used], **_SETTINGS)
        return np.asarray(learner.fit(rows[:, used], target).predict(asked[:, used]))


def _single_thread() -> AbstractContextManager[Any]:
    """Keep learners to one thread.

    Boosted trees on small tables lose more to threads that wait for each other than they gain, and on a
    machine with other work they come close to a standstill.
    """
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(limits=1)
    return limits
