"""The classifier two-sample test: can a learner tell synthetic patients from real ones?

Source: Lopez-Paz and Oquab 2017. The area under the ROC curve is averaged over three held-out folds; its
error is DeLong's within folds. It does not cover how the learner varies from one
training set to another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.cohorts import Parts
from synthehr.evaluation.findings import DiscriminatorProfile, Measurement, RocCurve, undefined
from synthehr.evaluation.intervals import Estimate, area_with_error, normal_interval
from synthehr.evaluation.learners import class_chances, features

__all__ = ["Discrimination", "TwoSample", "discriminate"]

_FOLDS = 3
_FEWEST = 30
_MOST = 10_000
_POINTS = np.linspace(0.0, 1.0, 51)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoSample:
    """How well train and another cohort can be told apart: area, its standard error, ROC curve."""

    auc: float
    error: float
    roc: RocCurve

    def estimate(self) -> Estimate:
        """The area with its 95 % interval."""
        return normal_interval(self.auc, error=self.error, lower=0.0, upper=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrimination:
    """Train against synthetic, and against holdout, at equal size; None where there are too few patients."""

    synthetic: TwoSample | None
    holdout: TwoSample | None

    def measurement(self, metric: str) -> Measurement:
        """The area under the ROC curve. Lower is better; 0.5 is indistinguishable, 1 always told apart."""
        if self.synthetic is None or self.holdout is None:
            return undefined(metric, "all", "lower", f"A cohort has fewer than {_FEWEST} patients.")
        error = math.hypot(self.synthetic.error, self.holdout.error)
        return Measurement(
            metric=metric,
            scope="all",
            direction="lower",
            value=self.synthetic.estimate(),
            reference=self.holdout.auc,
            excess=normal_interval(self.synthetic.auc - self.holdout.auc, error=error, lower=-1.0, upper=1.0),
        )

    def profile(self) -> DiscriminatorProfile | None:
        """The areas and ROC curves; None where they are undefined."""
        if self.synthetic is None or self.holdout is None:
            return None
        own, others = self.synthetic.estimate(), self.holdout.estimate()
        return DiscriminatorProfile(
            auc=own.value,
            ci=(own.low, own.high),
            reference_auc=others.value,
            reference_ci=(others.low, others.high),
            roc=self.synthetic.roc,
            reference_roc=self.holdout.roc,
        )


def discriminate(parts: Parts) -> Discrimination:
    """Run the test on synthetic and, for reference, on the holdout, each against as many of train."""
    size = min(len(parts.train), parts.equal, _MOST)
    if size < _FEWEST:
        return Discrimination(synthetic=None, holdout=None)
    draw = parts.generator(1)
    real, categorical = features(parts.train, parts)
    real = real[draw.choice(len(parts.train), size=size, replace=False)]
    found = []
    for part, rows in ((parts.synthetic, parts.synthetic_rows), (parts.holdout, parts.holdout_rows)):
        other = features(part, parts)[0][draw.choice(rows, size=size, replace=False)]
        found.append(_told_apart(real, other, categorical, draw))
    return Discrimination(synthetic=found[0], holdout=found[1])


def _told_apart(
    real: NDArray[np.float64],
    other: NDArray[np.float64],
    categorical: NDArray[np.bool_],
    draw: np.random.Generator,
) -> TwoSample:
    rows = np.concatenate([real, other])
    labels = np.repeat([False, True], [len(real), len(other)])
    folds = np.concatenate([draw.permutation(np.arange(size) % _FOLDS) for size in (len(real), len(other))])
    areas, errors, curves = [], [], []
    for fold in range(_FOLDS):
        test = folds == fold
        chances = class_chances(rows[~test], labels[~test].astype(np.float64), categorical, asked=rows[test])
        scores = chances[1.0]
        area, error = area_with_error(labels[test], scores)
        areas.append(area)
        errors.append(error)
        curves.append(_curve(labels[test], scores))
    return TwoSample(
        auc=float(np.mean(areas)),
        error=math.sqrt(float(np.square(errors).sum())) / _FOLDS,
        roc=RocCurve(
            false_positive_rate=tuple(round(float(x), 4) for x in _POINTS),
            true_positive_rate=tuple(round(float(y), 4) for y in np.mean(curves, axis=0)),
        ),
    )


def _curve(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    from sklearn.metrics import roc_curve

    false_positive, true_positive, _ = roc_curve(labels, scores)
    height = np.interp(_POINTS, false_positive, true_positive)
    height[0] = 0.0
    return np.asarray(height)
