"""A scorer that knows no method: how near a synthetic table is to real patients, in a few numbers.

* ``tv1``, ``tv2``, ``tv3``: total-variation distance of the joint histograms of one, two and three columns between
  train part and synthetic table, meaned over all sets of columns, or over 400 drawn ones where there are more.
  Numbers are cut at the train part's quantiles into 20, 10 and 5 bins. Missing is a bin, and so is everything that the
  train part does not know. 0 is equal, 1 is disjoint. ``tv1_floor`` and so on: the test part in the synthetic one's
  place, that is what other real patients reach.
* ``tstr``: area under the ROC curve, on test patients, of boosted trees that learned the outcome from the synthetic
  table; ``trtr`` from the train part. ``tstr_low`` and ``tstr_high`` are 95 % limits over redrawn test patients.
* ``c2st``: area under the ROC curve of boosted trees, in five folds, that tell train from synthetic rows. 0.5 is never.

The figures are the same as those of the scorer that the README's numbers came from, which is told the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

__all__ = ["FIGURES", "score"]

FIGURES = (
    *(f"tv{order}{floor}" for order in (1, 2, 3) for floor in ("", "_floor")),
    *("trtr", "tstr", "tstr_low", "tstr_high", "c2st"),
)
_BINS = {1: 20, 2: 10, 3: 5}
_MOST_SETS = 400
_REDRAWN = 200

Codes = np.ndarray[Any, np.dtype[np.int64]]
Numbers = np.ndarray[Any, np.dtype[np.float64]]


def score(
    train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, meta: Mapping[str, Any]
) -> dict[str, float]:
    """All figures of one synthetic table.

    Args:
        train: real patients that the method learned from.
        test: real patients that it did not see.
        synthetic: what it made.
        meta: ``numeric`` and ``categorical`` columns, and the ``target``.
    """
    figures: dict[str, float] = {}
    for order, bins in _BINS.items():
        code = _coder(train, meta, bins=bins)
        real, other, made = code(train), code(test), code(synthetic)
        chosen = _column_sets(real.shape[1], order)
        figures[f"tv{order}"] = float(np.mean([_distance(real, made, columns) for columns in chosen]))
        figures[f"tv{order}_floor"] = float(np.mean([_distance(real, other, columns) for columns in chosen]))
    as_numbers = _for_trees(train, meta)
    return figures | _learned(as_numbers(train), as_numbers(test), as_numbers(synthetic), target=meta["target"])


def _category(value: object) -> str | None:
    """A category as text; whole floats without their point."""
    if pd.isna(value):
        return None
    return str(value).removesuffix(".0")


def _known(train: pd.DataFrame, column: str) -> dict[str, int]:
    return {value: code for code, value in enumerate(sorted(set(train[column].dropna().astype(str))))}


def _coder(train: pd.DataFrame, meta: Mapping[str, Any], *, bins: int) -> Callable[[pd.DataFrame], Codes]:
    """What turns a table into whole numbers, shape ``(rows, columns)``, by the train part's bins and categories."""
    cuts, known = {}, {}
    for column in meta["numeric"]:
        seen = pd.to_numeric(train[column], errors="coerce").dropna()
        inner = np.linspace(0, 1, bins + 1)[1:-1]
        cuts[column] = np.unique(np.quantile(seen, inner)) if len(seen) else np.zeros(1)
    for column in meta["categorical"]:
        known[column] = _known(train, column)

    def code(frame: pd.DataFrame) -> Codes:
        coded = []
        for column, edges in cuts.items():
            x = pd.to_numeric(frame[column], errors="coerce").to_numpy(float)
            coded.append(np.where(np.isnan(x), len(edges) + 1, np.searchsorted(edges, x, side="right")))
        for column, values in known.items():
            named = [_category(value) for value in frame[column]]
            coded.append(
                np.array([len(values) if v is None else values.get(v, len(values) + 1) for v in named], dtype=np.int64)
            )
        return np.stack(coded, axis=1).astype(np.int64)

    return code


def _column_sets(columns: int, order: int) -> list[tuple[int, ...]]:
    every = list(itertools.combinations(range(columns), order))
    if len(every) <= _MOST_SETS:
        return every
    return [every[i] for i in np.random.default_rng(0).choice(len(every), _MOST_SETS, replace=False)]


def _distance(first: Codes, second: Codes, columns: Sequence[int]) -> float:
    """Total-variation distance of two tables' joint histograms of some columns."""
    both = np.concatenate([first[:, columns], second[:, columns]])
    cell = np.unique(both, axis=0, return_inverse=True)[1].ravel()
    cells = int(cell.max()) + 1
    p = np.bincount(cell[: len(first)], minlength=cells) / len(first)
    q = np.bincount(cell[len(first) :], minlength=cells) / len(second)
    return float(np.abs(p - q).sum() / 2)


def _for_trees(train: pd.DataFrame, meta: Mapping[str, Any]) -> Callable[[pd.DataFrame], pd.DataFrame]:
    known = {column: _known(train, column) for column in meta["categorical"]}

    def as_numbers(frame: pd.DataFrame) -> pd.DataFrame:
        out = {c: pd.to_numeric(frame[c], errors="coerce").to_numpy(float) for c in meta["numeric"]}
        for column, values in known.items():
            named = [_category(value) for value in frame[column]]
            out[column] = np.array([np.nan if v is None else values.get(v, len(values)) for v in named], dtype=float)
        return pd.DataFrame(out)

    return as_numbers


def _learned(train: pd.DataFrame, test: pd.DataFrame, synthetic: pd.DataFrame, *, target: str) -> dict[str, float]:
    """The figures that boosted trees give. All columns are numbers."""
    truth = test[target].to_numpy()
    from_real, from_made = (_predicted(learner, test, target=target) for learner in (train, synthetic))
    low, high = _limits(truth, from_made)
    rows = min(len(train), len(synthetic))
    parts = [frame.sample(rows, random_state=0) for frame in (train, synthetic)]
    label = np.repeat([0, 1], rows)
    trees = HistGradientBoostingClassifier(random_state=0, max_iter=80)
    told = cross_val_predict(trees, pd.concat(parts), label, cv=5, method="predict_proba")[:, 1]
    return {
        "trtr": _auc(truth, from_real),
        "tstr": _auc(truth, from_made),
        "tstr_low": low,
        "tstr_high": high,
        "c2st": float(roc_auc_score(label, told)),
    }


def _predicted(learner: pd.DataFrame, test: pd.DataFrame, *, target: str) -> Numbers | None:
    """The outcome's probability for each test patient; None where the learner knows fewer than two outcomes."""
    known = learner[learner[target].notna()]
    if known[target].nunique() < 2:
        return None
    trees = HistGradientBoostingClassifier(random_state=0, max_iter=150).fit(known.drop(columns=target), known[target])
    return np.asarray(trees.predict_proba(test.drop(columns=target))[:, 1], dtype=np.float64)


def _auc(truth: Numbers, predicted: Numbers | None) -> float:
    return 0.5 if predicted is None else float(roc_auc_score(truth, predicted))


def _limits(truth: Numbers, predicted: Numbers | None) -> tuple[float, float]:
    """95 % limits of an area under the curve, by drawing patients of either outcome anew."""
    if predicted is None:
        return 0.5, 0.5
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(truth == value) for value in np.unique(truth)]
    areas = []
    for _ in range(_REDRAWN):
        rows = np.concatenate([rng.choice(group, len(group)) for group in groups])
        areas.append(roc_auc_score(truth[rows], predicted[rows]))
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)
