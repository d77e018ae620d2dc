"""Every finding is in the report: as the figure a person would look at, or as a table."""

from __future__ import annotations

import math

import pytest

from synthehr.evaluation.bench import MetricWords
from synthehr.evaluation.findings import (
    CalibrationCurve,
    CalibrationProfile,
    Coefficient,
    CoefficientProfile,
    FairnessProfile,
    GroupProfile,
    ImportanceProfile,
    InferenceProfile,
    OutcomeProfile,
    Sections,
    SurvivalCurve,
    SurvivalProfile,
    UtilityProfile,
)
from synthehr.evaluation.findings_longitudinal import (
    BandProfile,
    BigramProfile,
    CodeProfile,
    HistogramProfile,
    LongitudinalProfile,
    RegularityProfile,
    TrajectoryProfile,
    ValueProfile,
)
from synthehr.evaluation.findings_privacy import AttackProfile, PrivacyProfile, RocPoints
from synthehr.evaluation.measurement import Finding
from synthehr.reporting.document import ReportDocument
from synthehr.reporting.figures import linear_axis, log_axis
from synthehr.reporting.formulas import formula, formulas
from synthehr.reporting.generic import generic_blocks, undrawn
from synthehr.reporting.html import render_html
from synthehr.reporting.notebook import figures_of
from synthehr.reporting.words import check_words, good_for, metric_words, worst_of_all


def curve(rate: float) -> SurvivalCurve:
    return SurvivalCurve(share=tuple(math.exp(-rate * at) for at in range(5)), mean=0.5)


@pytest.fixture(scope="module")
def everything(result, claim) -> ReportDocument:
    """A report with a finding of every kind that has a figure."""
    from synthehr.reporting.report import Report

    tenths = CalibrationCurve(predicted=(0.1, 0.5, 0.9), observed=(0.2, 0.5, 0.8))
    learner = OutcomeProfile(
        outcome="died",
        learner="linear",
        score="AUC",
        trained_on_synthetic=0.7,
        synthetic_ci=(0.6, 0.8),
        trained_on_real=0.8,
        real_ci=(0.7, 0.9),
        gap=0.1,
        gap_ci=(0.0, 0.2),
    )
    sides = (0.5, 0.4, 0.6)
    extra = {
        "utility": UtilityProfile(
            learners=(learner,),
            calibration=(CalibrationProfile(outcome="died", trained_on_synthetic=tenths, trained_on_real=tenths),),
            importance=(
                ImportanceProfile(outcome="died", columns=("age",), train=(0.2,), synthetic=(0.1,), holdout=(0.2,)),
            ),
        ),
        "inference": InferenceProfile(
            regressions=(
                CoefficientProfile(
                    outcome="died",
                    model="logistic regression",
                    coefficients=(
                        Coefficient(name="age", train=sides, synthetic=sides, holdout=sides),
                        Coefficient(name="never estimated", train=None, synthetic=None, holdout=None),
                    ),
                ),
            ),
            survival=SurvivalProfile(
                time="futime",
                event="died",
                times=(0.0, 1.0, 2.0, 3.0, 4.0),
                train=curve(0.1),
                synthetic=curve(0.2),
                holdout=curve(0.1),
            ),
        ),
        "fairness": FairnessProfile(
            groups=tuple(
                GroupProfile(metric=metric, column="sex", group="female", value=0.1, ci=(0.0, 0.2), reference=0.05)
                for metric in ("group_disparity", "group_fidelity", "group_utility")
            )
        ),
        "attacks": PrivacyProfile(
            membership=(AttackProfile(attack="nearest neighbour", auc=0.52, auc_ci=(0.49, 0.55)),),
            membership_roc=RocPoints(false_positive_rate=(0.0, 0.01, 1.0), true_positive_rate=(0.0, 0.02, 1.0)),
        ),
        "longitudinal": LongitudinalProfile(
            histograms=(
                HistogramProfile(
                    table="visit",
                    what="rows",
                    labels=("0", "1"),
                    train=(0.4, 0.6),
                    holdout=(0.5, 0.5),
                    synthetic=(0.3, 0.7),
                    distance=0.1,
                    reference=0.1,
                ),
            ),
            codes=(CodeProfile(table="lab", column="test", label="hdl", train=0.5, holdout=0.4, synthetic=0.0),),
            bands=(BandProfile(band="rare", codes=3, error=0.5, reference=0.2),),
            bigrams=(
                BigramProfile(
                    table="lab",
                    column="test",
                    when="next visit",
                    first="hdl",
                    second="chol",
                    train=0.1,
                    holdout=0.1,
                    synthetic=0.2,
                ),
            ),
            values=(ValueProfile(table="lab", column="value", code="hdl", distance=0.1, reference=0.05),),
            trajectories=(
                TrajectoryProfile(
                    table="lab",
                    column="value",
                    code="hdl",
                    labels=("first", "second"),
                    train=(50.0, 51.0),
                    holdout=(50.0, None),
                    synthetic=(49.0, 52.0),
                ),
            ),
            regularities=(RegularityProfile(text="in <= out", train=0.0, holdout=0.0, synthetic=0.2),),
        ),
    }
    document = Report(result, privacy=claim, provenance={}).document
    return document.model_copy(update={"sections": document.sections.model_copy(update=extra)})


def test_every_finding_has_the_figure_that_a_person_would_look_at(everything):
    assert {
        "pairs",
        "discriminator",
        "outcomes",
        "learners",
        "calibration:died",
        "importance:died",
        "coefficients:died",
        "survival",
        "group_disparity",
        "group_fidelity",
        "group_utility",
        "membership",
        "membership_roc",
        "prevalence:lab.test",
        "bigrams:next visit",
        "trajectory:lab.value (hdl)",
        "column:visit: rows of a patient",
    } <= set(figures_of(everything))


def test_the_page_has_a_section_for_each_in_the_contents(everything):
    page = render_html(everything)
    for section in ("validity", "fidelity", "longitudinal", "utility", "inference", "fairness", "privacy"):
        assert f'<a href="#{section}">' in page and f'<h2 id="{section}">' in page
    for text in ("never estimated", "in &lt;= out", "Kaplan", "hdl, chol"):
        assert text in page, text


def test_every_field_of_the_sections_is_rendered_by_someone():
    # A field that nobody draws comes out of generic_blocks; one named as drawn must be read by a builder.
    from synthehr.reporting import sections

    assert set(Sections.model_fields) >= sections._DRAWN


class Visit(Finding):
    ward: str
    stays: int
    share: float
    ci: tuple[float, float]
    series: tuple[float, ...]


class Ward(Finding):
    name: str
    visits: tuple[Visit, ...]
    note: str | None = None


def test_a_finding_without_a_figure_becomes_tables():
    visit = Visit(ward="<b>", stays=3, share=0.25, ci=(0.1, 0.4), series=(0.1, 0.2, 0.3, 0.4))
    whole, table = generic_blocks("wards", Ward(name="east", visits=(visit, visit)))
    assert [cell.text for cell in whole.rows[0]] == ["Name", "east"]
    assert table.head == ("Ward", "Stays", "Share", "Ci") and table.label == "Wards visits"
    assert [cell.text for cell in table.rows[0]] == ["<b>", "3", "0.25", "0.1 to 0.4"]


def test_a_new_field_of_a_finding_is_never_missing():
    visit = Visit(ward="east", stays=3, share=0.25, ci=(0.1, 0.4), series=())
    found = Ward(name="east", visits=(visit,), note="closed")
    assert undrawn(found, {"name", "visits", "note"}) == []
    told = undrawn(found, {"name"})
    assert [block.label for block in told] == ["Visits", "Note"]


def test_axes_have_round_ticks_that_hold_the_values():
    axis = linear_axis("x", [0.03, 0.47])
    assert (axis.low, axis.high) == (0.0, 0.5)
    assert [label for _, label in axis.ticks] == ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]
    assert [axis.share(value) for value in (0.0, 0.25, 0.5, 9.0)] == [0.0, 0.5, 1.0, 1.0]
    log = log_axis("x", low=0.002)
    assert [label for _, label in log.ticks] == ["0.001", "0.01", "0.1", "1"]
    assert log.share(0.1) == pytest.approx(2 / 3) and log.share(0.0) == 0.0


def test_the_formula_of_a_metric_is_what_the_documentation_says():
    told = dict(formula("one_way_tv"))
    assert "total variation distance" in told["Formula"] and "`" not in told["Formula"]
    assert formula("one_way_tv_worst") == formula("one_way_tv") and formula("no such metric") == ()


def test_every_metric_of_the_ci_suite_has_a_formula(report):
    asked = {check.metric for check in report.document.checks}
    assert {metric for metric in asked if "Formula" not in dict(formulas().get(metric, ()))} == set()


def changed(document: ReportDocument, **verdicts: str) -> ReportDocument:
    """The document with the verdict of every check of a section changed."""
    checks = []
    for check in document.checks:
        verdict = verdicts.get(check.section, "pass")
        value = 0.1 if check.value is None else check.value
        checks.append({**check.model_dump(), "value": value, "verdict": verdict, "counts_as": verdict})
    counted = {check["counts_as"] for check in checks}
    whole = "fail" if "fail" in counted else "inconclusive" if "inconclusive" in counted else "pass"
    return ReportDocument.model_validate({**document.model_dump(), "checks": checks, "verdict": whole})


def test_what_a_cohort_is_good_for_follows_its_checks(report):
    good, _ = good_for(changed(report.document))
    assert "developing and comparing models that predict died" in good
    good, not_shown = good_for(changed(report.document, utility="fail", fidelity="inconclusive"))
    assert "developing and comparing models that predict died (a check failed)" in not_shown
    assert "describing patients, one or two columns at a time (undecided)" in not_shown
    assert "describing how visits, codes and measurements follow each other (not looked at)" in not_shown
    assert "building and testing software that reads such records" in good


def test_what_fidelity_bears_out_says_whose_columns_were_looked_at(report):
    document = changed(report.document)
    checks = [check.model_dump() for check in document.checks]
    rows = {**checks[0], "id": "rows-alike", "section": "longitudinal", "value": 0.1}
    several = ReportDocument.model_validate({**document.model_dump(), "checks": [*checks, rows]})
    assert "describing patients, one or two columns at a time" in good_for(document)[0]
    assert "describing patients by the columns of their own table, one or two columns at a time" in good_for(several)[0]


def test_what_models_of_real_patients_hardly_predict_is_no_use_of_the_cohort(report):
    document = changed(report.document)
    guessing = [one.model_copy(update={"trained_on_real": 0.51}) for one in document.sections.outcomes]
    sections = document.sections.model_copy(update={"outcomes": tuple(guessing)})
    good, not_shown = good_for(document.model_copy(update={"sections": sections}))
    assert not any("predict" in use for use in good)
    assert any("predict died (from their own table models of real patients hardly" in use for use in not_shown)


@pytest.mark.parametrize(("found", "said"), [(0.3, "Past the bound by the estimate"), (0.1, "too small to decide")])
def test_an_undecided_check_says_on_which_side_of_its_bound_the_estimate_lies(report, found: float, said: str):
    check = report.document.checks[0]
    undecided = {"verdict": "inconclusive", "counts_as": "inconclusive", "statistic": "value", "op": "<="}
    assert said in check_words(check.model_copy(update={**undecided, "value": found, "bound": 0.2, "why": ""}))


def test_the_worst_checks_are_those_that_use_most_of_their_bounds(report):
    shares = sorted(
        (
            check.excess_ci[1] / check.bound
            for check in report.document.checks
            if check.excess_ci is not None and check.counts_as == check.verdict
        ),
        reverse=True,
    )
    worst = worst_of_all(report.document)
    assert [check.excess_ci[1] / check.bound for check, _ in worst] == pytest.approx(shares[:3])
    assert worst[0][1].endswith("past the bound")


def test_a_report_of_an_audit_alone_speaks_of_no_cohort(report):
    contents = report.document.model_dump(mode="json")
    checks = [{**contents["checks"][0], "section": "audit", "verdict": "pass", "counts_as": "pass"}]
    document = ReportDocument.model_validate({**contents, "checks": checks, "verdict": "pass"})
    page = render_html(document)
    assert "Audit of a privacy promise" in page and "What it is good for" not in page
    assert '<h2 id="fidelity">' not in page


def test_a_metric_that_this_version_does_not_know_has_its_name():
    assert metric_words("old_metric") == MetricWords(
        title="old metric", failed="The check of old metric failed.", question="how old metric stands"
    )
