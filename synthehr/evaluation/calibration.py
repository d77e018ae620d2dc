"""Calibration: do the chances that a model learned from synthetic patients come true in real ones?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords, outcomes
from synthehr.evaluation.findings import CalibrationCurve, CalibrationProfile, Measurement, Scope, undefined
from synthehr.evaluation.intervals import bootstrap_counts
from synthehr.evaluation.utility import REPLICATES, Scores, compared, scores, worst_outcome

__all__ = ["METRICS", "calibration", "calibration_profile"]

_METRIC = "calibration_error"
_BINS = 10
Floats = NDArray[np.float64]


def calibration(bench: Bench, outcome: str) -> Measurement:
    """The mean gap between predicted and observed shares over tenths of the holdout, ordered by prediction.

    Lower is better; range 0 to 1. Mean over classes. Beside it the same of the model trained on real patients; the
    interval of the excess is a paired bootstrap over holdout patients. Undefined for numbers.
    """
    found = bench.once(scores, outcome, "trees")
    if isinstance(found, str):
        return undefined(_METRIC, outcome, "lower", found)
    if found.score == "R²":
        return undefined(_METRIC, outcome, "lower", "A number is predicted, not a chance.")
    bins = [[_tenths(said) for said in model] for model in (found.synthetic, found.real)]

    def gaps(counts: Floats) -> list[Floats]:
        """The gap of each model in each replicate, shape ``(replicates,)``."""
        return [
            np.mean(
                [_gap(y, s, at, counts) for y, s, at in zip(found.truth, model, cut, strict=True)],
                axis=0,
            )
            for model, cut in zip((found.synthetic, found.real), bins, strict=True)
        ]

    own, real = (float(one[0]) for one in gaps(np.ones((1, len(found.rows)))))
    drawn = [
        gaps(counts)
        for counts in bootstrap_counts(len(found.rows), replicates=REPLICATES, generator=bench.parts.generator(13))
    ]
    estimates = compared((own, real), np.concatenate(drawn, axis=1), limits=(0.0, 1.0))
    if estimates is None:
        return undefined(_METRIC, outcome, "lower", "Too few patients for a bootstrap.")
    return Measurement(
        metric=_METRIC,
        scope=outcome,
        direction="lower",
        value=estimates[0],
        reference=estimates[1].value,
        excess=estimates[2],
    )


def calibration_profile(bench: Bench, outcome: str) -> CalibrationProfile | None:
    """Predicted and observed shares of both models, for an outcome of two classes that a check asked for."""
    found = bench.found(scores, outcome, "trees")
    if bench.found(calibration, outcome) is None or found is None or isinstance(found, str) or found.score != "AUC":
        return None
    return CalibrationProfile(
        outcome=outcome,
        trained_on_synthetic=_curve(found, found.synthetic[0]),
        trained_on_real=_curve(found, found.real[0]),
    )


def _tenths(said: Floats) -> NDArray[np.int64]:
    """The tenth of the patients that each is in, by prediction; equal predictions stay together."""
    from scipy.stats import rankdata

    tenth: NDArray[np.int64] = ((rankdata(said, method="min") - 1) * _BINS // len(said)).astype(np.int64)
    return tenth


def _gap(truth: Floats, said: Floats, bins: NDArray[np.int64], counts: Floats) -> Floats:
    member = (bins[:, None] == np.arange(_BINS)).astype(np.float64)
    return np.asarray(np.abs((counts * (truth - said)) @ member).sum(axis=1) / counts.sum(axis=1))


def _curve(found: Scores, said: Floats) -> CalibrationCurve:
    bins = _tenths(said)
    seen = np.unique(bins)
    return CalibrationCurve(
        predicted=tuple(round(float(said[bins == at].mean()), 4) for at in seen),
        observed=tuple(round(float(found.truth[0][bins == at].mean()), 4) for at in seen),
    )


def _measured(bench: Bench, scope: Scope) -> Measurement:
    names = outcomes(bench) if scope == "all" else (str(scope),)
    found = {name: bench.once(calibration, name) for name in names}
    if scope != "all":
        return found[str(scope)]
    empty = undefined(_METRIC, "all", "lower", "The schema declares no outcome to predict.")
    return worst_outcome(bench, found, empty=empty)


METRICS: Mapping[str, Metric] = {
    _METRIC: Metric(
        section="utility",
        direction="lower",
        measure=_measured,
        scopes=outcomes,
        words=MetricWords(
            title="Chances that come true",
            failed="A model trained on the synthetic patients gives chances that real patients do not bear out.",
            question="whether chances learned from the synthetic patients hold in real ones",
            measured="trained on synthetic",
            compared="trained on real",
        ),
    ),
}
"""The metric of calibration by name."""
