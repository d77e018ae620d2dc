"""The metrics of attacks that need the synthetic cohort alone, each with the holdout as its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from synthehr.evaluation.attacks import exchangeable
from synthehr.evaluation.attacks_membership import ATTACKS, WHOLE, Membership, Rates, attack_members
from synthehr.evaluation.attacks_records import (
    Guesses,
    Outliers,
    copied_outliers,
    guess_attributes,
    nearer_to_train,
    secrets,
)
from synthehr.evaluation.attacks_space import Space, space_of
from synthehr.evaluation.bench import Bench, Metric, MetricWords
from synthehr.evaluation.cohorts import Parts, recoded
from synthehr.evaluation.findings_privacy import PrivacyProfile
from synthehr.evaluation.intervals import Estimate
from synthehr.evaluation.longitudinal_patients import whole_bench, whole_patients
from synthehr.evaluation.longitudinal_rows import child_tables
from synthehr.evaluation.measurement import Direction, Measurement, Scope, undefined

__all__ = ["METRICS", "guesses", "membership", "outliers", "profile", "space"]

_WITH_ROWS = "with rows"
_TOO_FEW = "Train or holdout has too few patients: at least 60 of train and 90 of the holdout are needed."


def seen(bench: Bench) -> Parts:
    """The cohorts in the codes of an attacker, to whom undeclared values are those of the synthetic patients."""
    return recoded(bench.parts, bench.parts.synthetic)


def space(bench: Bench) -> Space:
    """The patients as points."""
    return space_of(bench.once(seen))


def membership(bench: Bench) -> Membership | None:
    """The membership attacks: on patients' own columns, and on whole patients where the schema declares rows."""
    known = {} if bench.likelihood is None else {"known_generator": bench.likelihood(bench.train, bench.holdout)}
    views = {"": (bench.once(seen), bench.once(space))}
    if child_tables(bench.schema):
        whole = bench.once(whole_bench)
        views[WHOLE] = whole.once(seen), whole.once(space)
    return attack_members(views, known)


def outliers(bench: Bench) -> Outliers | None:
    """Copies of patients who stand apart."""
    return copied_outliers(bench.once(space))


def guesses(bench: Bench) -> Guesses | None:
    """Guesses of attributes, from all else that is known of a patient."""
    whole = bench.once(whole_bench)
    return guess_attributes(whole.once(seen), whole.once(space))


def nearer(bench: Bench) -> float:
    """The advisory share."""
    whole = bench.once(whole_bench)
    return nearer_to_train(whole.once(space), draw=bench.parts.generator(42))


def profile(bench: Bench) -> PrivacyProfile | None:
    """The data behind the plots of attacks; None where no check asked for them."""
    found = bench.found(membership)
    if found is None:
        return None
    return found.profile().model_copy(update={"nearer_to_train": round(bench.once(nearer), 4)})


def _no_control(bench: Bench, metric: str, scope: Scope, direction: Direction = "lower") -> Measurement | None:
    control = bench.once(exchangeable)
    if control.holds:
        return None
    why = f"The holdout is no control for train, so an attack cannot be judged. {control.why}"
    return undefined(metric, scope, direction, why)


def _area(bench: Bench, scope: Scope) -> Measurement:
    unmeasured = _no_control(bench, "membership_auc", scope)
    if unmeasured is not None:
        return unmeasured
    found = bench.once(membership)
    if found is None:
        return undefined("membership_auc", scope, "lower", _TOO_FEW)
    area = found.areas.get("combined" if scope == "all" else str(scope))
    if area is None:
        return undefined("membership_auc", scope, "lower", "The generator of this cohort is not known.")
    return _against("membership_auc", scope, area, 0.5)


def _against(metric: str, scope: Scope, value: Estimate, reference: float) -> Measurement:
    """A measurement whose reference is known without error."""
    excess = Estimate(value=value.value - reference, low=value.low - reference, high=value.high - reference)
    return Measurement(metric=metric, scope=scope, direction="lower", value=value, reference=reference, excess=excess)


def _rates(bench: Bench, metric: str, rate: float | None) -> Measurement:
    unmeasured = _no_control(bench, metric, "all")
    if unmeasured is not None:
        return unmeasured
    found = bench.once(membership)
    if found is None:
        return undefined(metric, "all", "lower", _TOO_FEW)
    rates: Rates | None = found.best if rate is None else found.low[rate]
    if rates is None:
        why = f"A false positive rate of {100 * (rate or 0):g} % cannot be set with so few held-out patients: "
        why += f"their number resolves {100 * found.resolves:.1g} % at best."
        return undefined(metric, "all", "lower", why)
    gap = rates.advantage()
    if rate is None:
        return _against(metric, "all", gap, 0.0)
    return Measurement(
        metric=metric,
        scope="all",
        direction="lower",
        value=rates.true_positive(),
        reference=rates.alarms / rates.others,
        excess=gap,
    )


def _outliers(bench: Bench, scope: Scope) -> Measurement:
    unmeasured = _no_control(bench, "outlier_copies", scope)
    if unmeasured is not None:
        return unmeasured
    found = (bench if scope == bench.schema.subject else bench.once(whole_bench)).once(outliers)
    if found is None:
        why = "Train or holdout has no patient among those who stand apart most."
        return undefined("outlier_copies", scope, "lower", why)
    return Measurement(
        metric="outlier_copies",
        scope=scope,
        direction="lower",
        value=found.train,
        reference=found.holdout.value,
        excess=found.excess(),
    )


def _attributes(bench: Bench, scope: Scope) -> Measurement:
    unmeasured = _no_control(bench, "attribute_inference", scope)
    if unmeasured is not None:
        return unmeasured
    found = bench.once(guesses)
    if found is None:
        why = "Guessing needs 30 patients of train and of holdout, and two columns."
        return undefined("attribute_inference", scope, "lower", why)
    value, reference, gap = found.shares(None if scope == "all" else str(scope))
    return Measurement(
        metric="attribute_inference", scope=scope, direction="lower", value=value, reference=reference, excess=gap
    )


def _attacks(bench: Bench) -> Sequence[str]:
    whole = tuple(WHOLE + name for name in ATTACKS) if child_tables(bench.schema) else ()
    return (*ATTACKS, *whole, *(() if bench.likelihood is None else ("known_generator",)))


def _views(bench: Bench) -> Sequence[str]:
    """Patients' own columns, by the name of their table, and whole patients; none where the two are one."""
    return (bench.schema.subject, _WITH_ROWS) if child_tables(bench.schema) else ()


def _secrets(bench: Bench) -> Sequence[str]:
    parts = whole_patients(bench)
    return [name for name in secrets(parts) if name in parts.coding.names]


_WHO = "who was learned from can be told from the synthetic patients"

METRICS: Mapping[str, Metric] = {
    "membership_auc": Metric(
        section="privacy",
        direction="lower",
        measure=_area,
        scopes=_attacks,
        words=MetricWords(
            title="Telling who was learned from",
            failed="From the synthetic patients one can tell who was learned from, better than a private release "
            "lets anyone. Do not publish.",
            question=f"how well {_WHO}",
            measured="attack",
            compared="guessing",
        ),
    ),
    "membership_advantage": Metric(
        section="privacy",
        direction="lower",
        measure=lambda bench, _: _rates(bench, "membership_advantage", None),
        words=MetricWords(
            title="Advantage of the best guess of who was learned from",
            failed=f"Too often, {_WHO}. Do not publish.",
            question=f"how often {_WHO}",
            measured="attack",
            compared="guessing",
        ),
    ),
    "membership_tpr_1pct": Metric(
        section="privacy",
        direction="lower",
        measure=lambda bench, _: _rates(bench, "membership_tpr_1pct", 0.01),
        words=MetricWords(
            title="Patients who are sure to be told, at 1 % false alarms",
            failed="Some patients can be told to have been learned from, with hardly a false alarm. Do not publish.",
            question="whether some patients can be told to have been learned from",
            measured="learned from",
            compared="held out",
        ),
    ),
    "membership_tpr_01pct": Metric(
        section="privacy",
        direction="lower",
        measure=lambda bench, _: _rates(bench, "membership_tpr_01pct", 0.001),
        words=MetricWords(
            title="Patients who are sure to be told, at 0.1 % false alarms",
            failed="A few patients can be told to have been learned from, almost with certainty. Do not publish.",
            question="whether a few patients can be told to have been learned from",
            measured="learned from",
            compared="held out",
        ),
    ),
    "outlier_copies": Metric(
        section="privacy",
        direction="lower",
        measure=_outliers,
        scopes=_views,
        words=MetricWords(
            title="Near copies of patients who stand apart",
            failed="Patients unlike all others reappear, or nearly, among the synthetic ones because they were learned "
            "from: they can be singled out. Do not publish.",
            question="whether patients unlike all others reappear among the synthetic ones",
            measured="learned from",
            compared="held out",
        ),
    ),
    "attribute_inference": Metric(
        section="privacy",
        direction="lower",
        measure=_attributes,
        scopes=_secrets,
        words=MetricWords(
            title="Guessing what is not known of a patient",
            failed="The synthetic patients give away more about the patients learned from than about others. "
            "Do not publish.",
            question="whether more can be guessed of the patients learned from than of others",
            measured="learned from",
            compared="held out",
        ),
    ),
}
"""The metrics of attacks by name."""
