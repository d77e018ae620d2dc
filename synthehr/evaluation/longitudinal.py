"""Longitudinal fidelity: rows per patient, gaps, codes, and how they follow each other.

Every metric compares train with the synthetic cohort, and beside it train with the holdout cut to equal size. All are
undefined where the schema declares one table, and suites leave them out there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from synthehr.evaluation import longitudinal_codes as codes
from synthehr.evaluation import longitudinal_values as values
from synthehr.evaluation.bench import Bench, Metric, MetricWords, outcomes
from synthehr.evaluation.longitudinal_orders import regularity_violations
from synthehr.evaluation.longitudinal_patients import whole_discrimination, whole_prediction
from synthehr.evaluation.longitudinal_profile import profile
from synthehr.evaluation.longitudinal_rows import child_tables
from synthehr.evaluation.longitudinal_validity import row_rule_violations, row_rules, row_schema_violations
from synthehr.evaluation.measurement import Direction, Measurement, Scope, SectionName
from synthehr.evaluation.tails import declares_row_numbers, far_row_values

__all__ = ["METRICS", "profile"]


def _tables(bench: Bench) -> Sequence[str]:
    return child_tables(bench.schema)


def _has_rows(bench: Bench) -> bool:
    return bool(child_tables(bench.schema))


def _bands(bench: Bench) -> Sequence[str]:
    return tuple(codes.BANDS) if child_tables(bench.schema) else ()


def _metric(
    measure: Callable[[Bench, Scope], Measurement],
    *,
    title: str,
    failed: str,
    question: str,
    direction: Direction = "lower",
    scopes: Callable[[Bench], Sequence[str]] | None = _tables,
    section: SectionName = "longitudinal",
    applies: Callable[[Bench], bool] = _has_rows,
    measurable: Callable[[Bench], bool] = lambda _: True,
) -> Metric:
    words = MetricWords(title=title, failed=failed, question=question)
    return Metric(
        section=section,
        direction=direction,
        measure=measure,
        scopes=scopes,
        words=words,
        applies=applies,
        measurable=measurable,
    )


METRICS: Mapping[str, Metric] = {
    "row_schema_violations": _metric(
        row_schema_violations,
        section="validity",
        title="Values that the schema allows in rows",
        failed="Rows of synthetic patients have values that the schema forbids more often than those of real ones.",
        question="whether rows of synthetic patients break the schema more often than those of real ones",
    ),
    "row_rule_violations": _metric(
        row_rule_violations,
        section="validity",
        scopes=lambda bench: tuple(rule.text for rule in row_rules(bench)),
        applies=lambda bench: bool(row_rules(bench)),
        title="Declared rules of rows",
        failed="Rows of synthetic patients break a declared rule more often than those of real ones.",
        question="whether rows of synthetic patients break the declared rules more often than those of real ones",
    ),
    "rows_per_patient": _metric(
        values.rows_per_patient,
        title="Rows per patient",
        failed="Synthetic patients have clearly more or fewer rows than real ones, or too often none.",
        question="whether synthetic patients have as many rows as real ones",
    ),
    "row_tv": _metric(
        values.row_columns,
        title="Columns of rows",
        failed="Codes, times or values of synthetic rows are distributed clearly otherwise than those of real rows.",
        question="whether the columns of rows are distributed as in real patients",
    ),
    "gap_ks": _metric(
        values.gaps,
        title="Time between rows",
        failed="The time from one row of a patient to the next is clearly off.",
        question="whether rows follow each other at the same distances in time",
    ),
    "code_prevalence": _metric(
        codes.code_prevalence,
        direction="higher",
        title="How many patients have each code",
        failed="The shares of patients who have each code are clearly off.",
        question="whether codes are as common among synthetic patients as among real ones",
    ),
    "code_prevalence_bands": _metric(
        codes.prevalence_bands,
        scopes=_bands,
        title="Common and rare codes",
        failed="In some band of frequency codes are clearly more or less common than in real patients.",
        question="whether rare codes are kept as well as common ones",
    ),
    "bigrams_same_visit": _metric(
        partial(codes.bigrams, metric="bigrams_same_visit"),
        direction="higher",
        title="Codes of one visit",
        failed="Codes do not come together in a visit as they do in real patients.",
        question="whether codes come together in a visit as they do in real patients",
    ),
    "bigrams_next_visit": _metric(
        partial(codes.bigrams, metric="bigrams_next_visit"),
        direction="higher",
        title="Codes of consecutive visits",
        failed="Codes of one visit and the next do not go together as they do in real patients.",
        question="whether codes of consecutive visits go together as they do in real patients",
    ),
    "transition_tv": _metric(
        codes.transitions,
        title="What follows a code",
        failed="After a code come clearly other codes, or an end, than in real patients.",
        question="whether codes are followed by the same codes as in real patients",
    ),
    "autocorrelation": _metric(
        values.autocorrelation,
        title="Values that stay with a patient",
        failed="A patient's values do not hang together over time as they do in real patients.",
        question="whether a patient's values hang together over time as they do in real patients",
    ),
    "concept_abundance": _metric(
        codes.concept_abundance,
        title="Different codes per patient",
        failed="Synthetic patients have clearly more or fewer different codes than real ones.",
        question="whether synthetic patients have as many different codes as real ones",
    ),
    "codes_together": _metric(
        codes.codes_together,
        title="Codes of one patient",
        failed="Which codes a patient has, over all tables, do not go together as they do in real patients.",
        question="whether the codes of a patient go together as they do in real patients",
    ),
    "value_by_code": _metric(
        values.values_by_code,
        title="Values of each code",
        failed="The values of some codes are distributed clearly otherwise than in real patients.",
        question="whether the values of each code are distributed as in real patients",
    ),
    "far_row_values": _metric(
        far_row_values,
        measurable=declares_row_numbers,
        title="Numbers of impossible size in rows",
        failed="Too many synthetic patients have a value in some row that is far larger or smaller than the usual "
        "ones of its code in real patients.",
        question="whether values far beyond the usual ones of their code are as rare as among real patients",
    ),
    "parent_child_tv": _metric(
        values.parent_child,
        title="Rows and whom they belong to",
        failed="What stands in rows does not go with their patient or visit as it does in real records.",
        question="whether rows go with their patient or visit as they do in real records",
    ),
    "last_row_tv": _metric(
        values.last_rows,
        title="Where histories stop",
        failed="Synthetic histories end at clearly other codes or times than real ones, or last longer or shorter.",
        question="whether synthetic histories end where real ones do",
    ),
    "regularity_violations": _metric(
        regularity_violations,
        title="Orders in time",
        failed="Synthetic patients break an order in time that real ones keep, or have again what comes once.",
        question="whether synthetic patients keep the orders in time that real ones keep",
    ),
    "patient_c2st_auc": _metric(
        whole_discrimination,
        scopes=None,
        title="Telling whole patients apart",
        failed="A classifier that sees what sums up a patient's rows tells synthetic from real patients too well.",
        question="how well a classifier tells synthetic from real patients by what sums up their rows",
    ),
    "patient_tstr": Metric(
        section="longitudinal",
        direction="higher",
        measure=whole_prediction,
        scopes=outcomes,
        applies=_has_rows,
        words=MetricWords(
            title="Predicting the outcome from whole patients",
            failed="A model trained on the histories of synthetic patients predicts real ones clearly worse "
            "than one trained on real histories.",
            question="whether a model trained on synthetic histories predicts real patients well enough",
            measured="trained on synthetic",
            compared="trained on real",
        ),
    ),
}
"""The metrics of this section by name."""
