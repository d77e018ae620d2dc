"""The classifier two-sample test: can a learner tell synthetic patients from real ones?

Source: Lopez-Paz and Oquab 2017. The area under the ROC curve is averaged over three held-out folds; its
error is DeLong's within folds. It does not cover how the learner varies from one
training set to another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords
from synthehr.evaluation.cohorts import Parts, recoded
from synthehr.evaluation.findings import DiscriminatorProfile, Measurement, RocCurve, undefined
from synthehr.evaluation.intervals import Estimate, area_with_error, normal_interval
from synthehr.evaluation.learners import class_chances, features
from synthehr.evaluation.threads import in_parallel

__all__ = ["METRICS", "Discrimination", "TwoSample", "discriminate", "discrimination"]

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
    of_train = draw.choice(len(parts.train), size=size, replace=False)
    tasks = []
    for name in ("synthetic", "holdout"):
        rows = draw.choice(getattr(parts, f"{name}_rows"), size=size, replace=False)
        # Codes of either pair come of both of its sides, so that no side is told by which of its values have one.
        pair = recoded(parts, parts.train.take(of_train), getattr(parts, name).take(rows))
        real, categorical = features(pair.train, pair)
        other = features(getattr(pair, name), pair)[0]
        folds = np.concatenate([draw.permutation(np.arange(size) % _FOLDS) for _ in range(2)])
        tasks += [
            partial(_told_apart, real[of_train], other[rows], categorical, test=folds == fold) for fold in range(_FOLDS)
        ]
    found = in_parallel(tasks)
    return Discrimination(synthetic=_mean(found[:_FOLDS]), holdout=_mean(found[_FOLDS:]))


def _told_apart(
    real: NDArray[np.float64],
    other: NDArray[np.float64],
    categorical: NDArray[np.bool_],
    *,
    test: NDArray[np.bool_],
) -> tuple[float, float, NDArray[np.float64]]:
    """The area, its error and the ROC curve on the patients of one fold."""
    rows = np.concatenate([real, other])
    labels = np.repeat([False, True], [len(real), len(other)])
    chances = class_chances(rows[~test], labels[~test].astype(np.float64), categorical, asked=rows[test])
    return (*area_with_error(labels[test], chances[1.0]), _curve(labels[test], chances[1.0]))


def _mean(folds: Sequence[tuple[float, float, NDArray[np.float64]]]) -> TwoSample:
    areas, errors, curves = zip(*folds, strict=True)
    return TwoSample(
        auc=float(np.mean(areas)),
        error=math.sqrt(float(np.square(errors).sum())) / len(folds),
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


def discrimination(bench: Bench) -> Discrimination:
    """The classifier two-sample test."""
    return discriminate(bench.parts)


METRICS: Mapping[str, Metric] = {
    "c2st_auc": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: bench.once(discrimination).measurement("c2st_auc"),
        words=MetricWords(
            title="Telling synthetic from real",
            failed="A classifier tells synthetic patients from real ones nearly always.",
            question="how well a classifier tells synthetic patients from real ones",
        ),
    ),
}
"""The metrics of the two-sample test by name."""
