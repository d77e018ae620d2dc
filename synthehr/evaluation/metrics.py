"""The metrics by name, merged from the modules of the sections, and the data behind the plots."""

from __future__ import annotations

from collections.abc import Mapping

from synthehr.errors import InternalError
from synthehr.evaluation import (
    associations,
    attacks,
    attacks_release,
    calibration,
    cells,
    discriminator,
    distributions,
    fairness,
    familiar,
    fidelity,
    importance,
    longitudinal,
    regression,
    subsample,
    survival,
    tails,
    utility,
    validity,
)
from synthehr.evaluation.bench import Bench, Metric
from synthehr.evaluation.findings import (
    InferenceProfile,
    Measurement,
    Scope,
    Sections,
    Sizes,
    UtilityProfile,
    public_size,
)

__all__ = ["METRICS", "Bench", "Metric", "measure", "sections"]

_MODULES = (
    validity,
    fidelity,
    distributions,
    cells,
    associations,
    discriminator,
    subsample,
    longitudinal,
    tails,
    utility,
    calibration,
    importance,
    regression,
    survival,
    fairness,
    familiar,
    attacks,
    attacks_release,
)
"""The modules of metrics, in the order in which an error lists their metrics."""

METRICS: Mapping[str, Metric] = {name: metric for module in _MODULES for name, metric in module.METRICS.items()}
"""Every metric a suite may name; ``evaluation/README.md`` documents each."""


def measure(bench: Bench, name: str, scope: Scope) -> Measurement:
    """The measurement of one metric.

    Raises:
        InternalError: the measurement answers for another metric than was asked.
    """
    found = METRICS[name].measure(bench, scope)
    if found.metric != name or found.direction != METRICS[name].direction:
        raise InternalError(f"metric {name!r} was answered by {found.metric!r}")
    return found


def sections(bench: Bench) -> Sections:
    """The data behind the plots; the costly ones only where a check asked for them."""
    parts = bench.parts
    told_apart = bench.found(discriminator.discrimination)
    control = bench.found(attacks.exchangeable)
    measured = [bench.found(attacks.copies, name) for name in ("verbatim_copies", "rare_copies")]
    shown = [attacks.copy_profile(one) for one in measured if one is not None]
    predicted = [bench.found(utility.prediction, name, "tstr") for name in parts.schema.root.outcome]
    distances = bench.once(fidelity.distances)
    return Sections(
        sizes=Sizes(
            train=public_size(len(parts.train)),
            holdout=public_size(len(parts.holdout)),
            synthetic=public_size(len(parts.synthetic)),
        ),
        exchangeable=control.holds if control is not None else None,
        exchangeable_why=control.why if control is not None else "",
        columns=fidelity.column_profiles(parts, distances),
        pairs=distances.pair_profile(),
        discriminator=told_apart.profile() if told_apart is not None else None,
        outcomes=tuple(one.profile for one in predicted if one is not None and one.profile is not None),
        utility=_utility(bench),
        inference=_inference(bench),
        fairness=fairness.fairness_profile(bench),
        copies=tuple(one for one in shown if one is not None),
        violations=validity.violation_profiles(parts),
        longitudinal=longitudinal.profile(bench),
        attacks=attacks_release.profile(bench),
    )


def _utility(bench: Bench) -> UtilityProfile | None:
    names = bench.schema.root.outcome
    learners = [bench.found(utility.prediction, name, metric) for name in names for metric in utility.METRICS]
    calibrated = [calibration.calibration_profile(bench, name) for name in names]
    important = [importance.importance_profile(bench, name) for name in names]
    profile = UtilityProfile(
        learners=tuple(
            one.profile
            for one in learners
            if one is not None and one.profile is not None and one.profile.learner != "trees"
        ),
        calibration=tuple(one for one in calibrated if one is not None),
        importance=tuple(one for one in important if one is not None),
    )
    return profile if profile != UtilityProfile() else None


def _inference(bench: Bench) -> InferenceProfile | None:
    fits = {name: bench.found(regression.coefficients, name) for name in bench.schema.root.outcome}
    declared = bench.schema.root.survival
    if declared is not None:
        fits[f"{declared.event} by {declared.time}"] = bench.found(regression.hazards)
    profile = InferenceProfile(
        regressions=tuple(
            regression.coefficient_profile(found, name)
            for name, found in fits.items()
            if found is not None and not isinstance(found, str)
        ),
        survival=survival.survival_profile(bench),
    )
    return profile if profile != InferenceProfile() else None
