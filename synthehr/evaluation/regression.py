"""Inference: would the same regression, run on the synthetic patients, lead to the same conclusions?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords, declares_survival, outcomes
from synthehr.evaluation.design import Fitted, design, independent_columns, overlap_of
from synthehr.evaluation.findings import Coefficient, CoefficientProfile
from synthehr.evaluation.influence import from_errors
from synthehr.evaluation.intervals import Z95
from synthehr.evaluation.measurement import Direction, Measurement, Scope, undefined
from synthehr.schema.model import BooleanColumn, IntegerColumn, NumberColumn

__all__ = ["METRICS", "Fits", "agreement_of", "coefficient_profile", "coefficients", "fits_of", "hazards", "worst_of"]

_FEWEST = 20
_MOST = 10_000
_DRAWS = 400
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fits:
    """One regression on equally many patients of each cohort; coefficients that train cannot estimate are left out.

    Attributes:
        model: what was fitted.
        names: what each coefficient is of.
        train: coefficients without the intercept.
        synthetic: the same.
        holdout: the same.
    """

    model: str
    names: tuple[str, ...]
    train: Fitted
    synthetic: Fitted
    holdout: Fitted


def coefficients(bench: Bench, outcome: str) -> Fits | str:
    """Logistic regression of a boolean or linear regression of a number on all other columns; else why not."""
    column = bench.schema.root.kept[outcome]
    if isinstance(column, BooleanColumn):
        return fits_of(bench, (outcome,), _logistic, model="logistic regression")
    if isinstance(column, IntegerColumn | NumberColumn):
        return fits_of(bench, (outcome,), _linear, model="linear regression")
    return f"An outcome of kind {column.kind} has no regression here: declare a boolean or a number."


def hazards(bench: Bench) -> Fits | str:
    """Proportional hazards (Cox 1972) of the declared event on all other columns; else why not."""
    survival = bench.schema.root.survival
    if survival is None:
        return "The schema declares no survival, an outcome with a time."
    return fits_of(bench, (survival.event, survival.time), _cox, model="proportional hazards")


def fits_of(
    bench: Bench, about: tuple[str, ...], fit: Callable[[Floats, tuple[Floats, ...]], Fitted | None], *, model: str
) -> Fits | str:
    """Fit on train, synthetic and holdout, on as many patients of each; else why that cannot be.

    Args:
        bench: the cohorts.
        about: the columns that are explained; patients who miss one are left out.
        fit: a fit from covariates and the explained columns; None where it cannot be made.
        model: its name.
    """
    parts = bench.parts
    found = bench.once(design, about)
    if not found.names:
        return "No column of train varies, so there is nothing to explain the outcome by."
    draw = parts.generator(25)
    work = []
    for part, table in ((parts.train, found.train), (parts.synthetic, found.synthetic), (parts.holdout, found.holdout)):
        explained = [_as_number(part.values[name].number, part.values[name].text) for name in about]
        work.append((np.flatnonzero(np.isfinite(np.stack(explained)).all(axis=0)), table, explained))
    size = min(*(len(known) for known, _, _ in work), _MOST)
    if size < _FEWEST:
        return f"A cohort has fewer than {_FEWEST} patients with the outcome."

    fitted = []
    for known, table, explained in work:  # one after the other: filters of warnings belong to all threads
        rows = np.sort(draw.choice(known, size=size, replace=False))
        fitted.append(fit(table[rows], tuple(one[rows] for one in explained)))
    train, synthetic, holdout = fitted
    if train is None or holdout is None:
        return "The model cannot be fitted to the real patients: too few of them have the outcome."
    kept = np.isfinite(train.estimate)
    if not kept.any():
        return "No coefficient can be estimated from the real patients."
    return Fits(
        model=model,
        names=tuple(name for name, keep in zip(found.names, kept, strict=True) if keep),
        train=_only(train, kept),
        synthetic=_only(synthetic or _nothing(len(kept)), kept),
        holdout=_only(holdout, kept),
    )


def overlap(found: Fits, metric: str, scope: Scope, *, draw: np.random.Generator) -> Measurement:
    """The overlap of synthetic's and train's 95 % intervals, averaged over coefficients; see :func:`overlap_of`.

    Higher is better; range -1 to 1. Other real patients get about 0.71. Standard errors by redrawing the coefficients
    from their estimated distributions.
    """
    drawn = [_redrawn(fit, draw) for fit in (found.train, found.synthetic, found.holdout)]
    own, others = (
        overlap_of(one - drawn[0], found.train.error, fit.error, z=Z95).mean(axis=1)
        for one, fit in zip(drawn[1:], (found.synthetic, found.holdout), strict=True)
    )
    return from_errors(
        metric,
        scope,
        "higher",
        value=float(own[0]),
        reference=float(others[0]),
        errors=(float(own[1:].std(ddof=1)), float((others - own)[1:].std(ddof=1))),
        limits=(-1.0, 1.0),
    )


def agreement_of(found: Fits, metric: str, scope: Scope, *, signs: bool, draw: np.random.Generator) -> Measurement:
    """The share of coefficients on which synthetic and train agree: on the sign, or on sign and significance.

    The sign is judged where train is significant (two-sided 0.05). Standard errors by redrawing the coefficients from
    their estimated distributions. Higher is better; range 0 to 1.
    """
    cohorts = (found.train, found.synthetic, found.holdout)
    drawn = [_redrawn(fit, draw) for fit in cohorts]
    own = [_agreed(drawn[0], one, found.train, other, signs) for one, other in zip(drawn[1:], cohorts[1:], strict=True)]
    if not np.isfinite([one[0] for one in own]).all():
        return undefined(metric, scope, "higher", "No coefficient is significant in train.")
    finite = np.isfinite(own[0]) & np.isfinite(own[1])
    errors = [float(np.std(one[finite][1:], ddof=1)) for one in (own[0], own[1] - own[0])]
    return from_errors(
        metric,
        scope,
        "higher",
        value=float(own[0][0]),
        reference=float(own[1][0]),
        errors=(errors[0], errors[1]),
    )


def coefficient_profile(found: Fits, outcome: str) -> CoefficientProfile:
    """What a forest plot shows."""

    def interval(fit: Fitted, at: int) -> tuple[float, float, float] | None:
        value, half = float(fit.estimate[at]), Z95 * float(fit.error[at])
        if not np.isfinite([value, half]).all():
            return None
        return round(value, 4), round(value - half, 4), round(value + half, 4)

    return CoefficientProfile(
        outcome=outcome,
        model=found.model,
        coefficients=tuple(
            Coefficient(
                name=name,
                train=interval(found.train, at),
                synthetic=interval(found.synthetic, at),
                holdout=interval(found.holdout, at),
            )
            for at, name in enumerate(found.names)
        ),
    )


def worst_of(found: list[Measurement], *, empty: Measurement) -> Measurement:
    """The measurement with the largest excess; the first undefined one; ``empty`` where there is none."""
    unmeasured = [one for one in found if one.excess is None]
    return (
        unmeasured[0]
        if unmeasured
        else max(found, key=lambda one: one.excess.value if one.excess else 0.0, default=empty)
    )


def _as_number(number: Floats | None, text: object) -> Floats:
    if number is not None:
        return number
    import polars as pl

    assert isinstance(text, pl.Series)
    return (
        text.replace_strict({"true": 1.0, "false": 0.0}, default=None, return_dtype=pl.Float64)
        .fill_null(np.nan)
        .to_numpy()
    )


def _nothing(many: int) -> Fitted:
    return Fitted(estimate=np.full(many, np.nan), covariance=np.zeros((many, many)))


def _only(fit: Fitted, kept: NDArray[np.bool_]) -> Fitted:
    return Fitted(estimate=fit.estimate[kept], covariance=fit.covariance[np.ix_(kept, kept)])


def _spread(many: int, used: NDArray[np.int64], estimate: Floats, covariance: Floats) -> Fitted:
    """The coefficients that were fitted, in their places; wild ones (an error of 20 or more) count as not estimable."""
    fit = _nothing(many)
    sane = np.isfinite(estimate) & (np.diag(covariance) > 0) & (np.diag(covariance) < 400)
    fit.estimate[used[sane]] = estimate[sane]
    fit.covariance[np.ix_(used[sane], used[sane])] = covariance[np.ix_(sane, sane)]
    return fit


def _fitted(covariates: Floats, run: Callable[[Floats], tuple[Floats, Floats]]) -> Fitted | None:
    """Fit on the covariates that are independent here; None where the fit breaks down."""
    used = independent_columns(covariates)
    if len(used) == 0:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that did not converge shows in its errors
        try:
            estimate, covariance = run(covariates[:, used])
        except (np.linalg.LinAlgError, ValueError, ZeroDivisionError, OverflowError):
            return None
    return _spread(covariates.shape[1], used, estimate, covariance)


def _logistic(covariates: Floats, explained: tuple[Floats, ...]) -> Fitted | None:
    import statsmodels.api as sm

    (outcome,) = explained
    if np.ptp(outcome) == 0:
        return None

    def run(table: Floats) -> tuple[Floats, Floats]:
        found = sm.GLM(outcome, sm.add_constant(table, has_constant="add"), family=sm.families.Binomial()).fit()
        return np.asarray(found.params)[1:], np.asarray(found.cov_params())[1:, 1:]

    return _fitted(covariates, run)


def _linear(covariates: Floats, explained: tuple[Floats, ...]) -> Fitted | None:
    import statsmodels.api as sm

    (outcome,) = explained
    if np.ptp(outcome) == 0:
        return None

    def run(table: Floats) -> tuple[Floats, Floats]:
        found = sm.OLS(outcome, sm.add_constant(table, has_constant="add")).fit()
        return np.asarray(found.params)[1:], np.asarray(found.cov_params())[1:, 1:]

    return _fitted(covariates, run)


def _cox(covariates: Floats, explained: tuple[Floats, ...]) -> Fitted | None:
    import pandas as pd
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError

    event, time = explained
    if event.sum() < _FEWEST / 2 or (time < 0).any():
        return None

    def run(table: Floats) -> tuple[Floats, Floats]:
        frame = pd.DataFrame(table, columns=[f"c{at}" for at in range(table.shape[1])])
        frame["time"], frame["event"] = np.maximum(time, 1e-9), event
        try:
            fitter = CoxPHFitter().fit(frame, "time", "event")
        except ConvergenceError as error:
            raise ValueError("no fit") from error
        return fitter.params_.to_numpy(), fitter.variance_matrix_.to_numpy()

    return _fitted(covariates, run)


def _redrawn(fit: Fitted, draw: np.random.Generator) -> Floats:
    """The coefficients, then draws from their distribution. Shape ``(1 + draws, coefficients)``."""
    known = np.isfinite(fit.estimate)
    drawn = np.tile(fit.estimate, (1 + _DRAWS, 1))
    if known.any():
        noise = draw.multivariate_normal(np.zeros(int(known.sum())), fit.covariance[np.ix_(known, known)], size=_DRAWS)
        drawn[1:, known] += noise
    return drawn


def _agreed(first: Floats, second: Floats, fit: Fitted, other: Fitted, signs: bool) -> Floats:
    """The share of agreement in each draw, shape ``(1 + draws,)``; NaN where nothing is to agree on."""

    def conclusion(drawn: Floats, error: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(np.abs(drawn) > Z95 * error, np.sign(drawn), 0.0))

    ours, theirs = conclusion(first, fit.error), conclusion(second, other.error)
    if signs:
        judged = ours != 0
        same = np.sign(np.nan_to_num(second)) == ours
        total = judged.sum(axis=1)
        agreed = (same & judged).sum(axis=1)
        return np.asarray(np.divide(agreed, total, out=np.full(len(first), np.nan), where=total > 0))
    same = (ours == theirs) & np.isfinite(second)
    return np.asarray(same.mean(axis=1))


def _measured(bench: Bench, metric: str, scope: Scope) -> Measurement:
    direction: Direction = "higher"
    if metric == "hazard_overlap":
        found = bench.once(hazards)
        if isinstance(found, str):
            return undefined(metric, scope, direction, found)
        return overlap(found, metric, scope, draw=bench.parts.generator(26))
    names = outcomes(bench) if scope == "all" else (str(scope),)
    measured = []
    for name in names:
        fits = bench.once(coefficients, name)
        if isinstance(fits, str):
            measured.append(undefined(metric, name, direction, fits))
        elif metric == "coefficient_overlap":
            measured.append(overlap(fits, metric, name, draw=bench.parts.generator(26)))
        else:
            signs, draw = metric == "sign_agreement", bench.parts.generator(26)
            measured.append(agreement_of(fits, metric, name, signs=signs, draw=draw))
    empty = undefined(metric, "all", direction, "The schema declares no outcome to explain.")
    return worst_of(measured, empty=empty)


METRICS: Mapping[str, Metric] = {
    "coefficient_overlap": Metric(
        section="inference",
        direction="higher",
        measure=lambda bench, scope: _measured(bench, "coefficient_overlap", scope),
        scopes=outcomes,
        words=MetricWords(
            title="Coefficients of a regression",
            failed="A regression on the synthetic patients gives clearly other coefficients than one on real patients.",
            question="whether a regression gives the same coefficients as on real patients",
        ),
    ),
    "sign_agreement": Metric(
        section="inference",
        direction="higher",
        measure=lambda bench, scope: _measured(bench, "sign_agreement", scope),
        scopes=outcomes,
        words=MetricWords(
            title="Direction of effects",
            failed="Effects that are clear in real patients point the other way, or are lost, in the synthetic ones.",
            question="whether clear effects point the same way as in real patients",
        ),
    ),
    "significance_agreement": Metric(
        section="inference",
        direction="higher",
        measure=lambda bench, scope: _measured(bench, "significance_agreement", scope),
        scopes=outcomes,
        words=MetricWords(
            title="Conclusions of significance tests",
            failed="Tests on the synthetic patients come to other conclusions than tests on real patients do.",
            question="whether significance tests come to the same conclusions as on real patients",
        ),
    ),
    "hazard_overlap": Metric(
        section="inference",
        direction="higher",
        applies=declares_survival,
        measure=lambda bench, scope: _measured(bench, "hazard_overlap", scope),
        words=MetricWords(
            title="Hazard ratios",
            failed="Hazard ratios from the synthetic patients are clearly others than those of real patients.",
            question="whether hazard ratios are those of real patients",
        ),
    ),
}
"""The metrics of regressions by name."""
