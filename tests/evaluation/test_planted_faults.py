"""Faults planted in real patients (nafld1), each found by the check of ``ci`` that should see it, by name."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthehr.evaluation.suite import SuiteResult, load_suite, run_suite

FLAT = ("validity", "fidelity", "utility", "inference", "fairness")


def judged(nafld, frame: pl.DataFrame, *sections: str) -> SuiteResult:
    declared = nafld.declaring(groups=["male"], survival={"time": "futime", "event": "status"})
    suite = load_suite("ci").only(sections or FLAT)
    return run_suite(train=declared.train, holdout=declared.holdout, synthetic=declared.cohort(frame), suite=suite)


def failed(result: SuiteResult) -> set[str]:
    return {check.id for check in result.checks if check.verdict == "fail"}


def test_other_real_patients_pass_every_section(nafld):
    result = judged(nafld, nafld.others)
    assert result.verdict == "pass", [check for check in result.checks if check.counts_as != "pass"]
    assert {check.id for check in result.checks if check.verdict != "pass"} <= {
        "effects-point-the-same-way[status]",
        "subgroups-served",
    }
    assert result.sections.inference.survival.train.mean == pytest.approx(
        result.sections.inference.survival.synthetic.mean, abs=0.02
    )


def test_columns_shuffled_on_their_own_fail_what_looks_at_more_than_one(nafld):
    frame = nafld.others.select(
        nafld.others[name].sample(fraction=1.0, shuffle=True, seed=at) for at, name in enumerate(nafld.others.columns)
    )
    caught = failed(judged(nafld, frame))
    assert {
        "pairs-alike",
        "worst-pair-alike",
        "triples-alike",
        "associations-alike",
        "worst-association-alike",
        "missing-together",
        "hard-to-tell-apart",
        "outcome-learnable[status]",
        "outcome-learnable-linear[status]",
        "subgroups-served",
    } <= caught
    assert not caught & {"columns-alike", "worst-column-alike", "worst-number-alike", "missing-alike", "schema-obeyed"}


def test_a_flipped_outcome_fails_utility_and_inference(nafld):
    caught = failed(judged(nafld, nafld.others.with_columns(~pl.col("status")), "utility", "inference", "fairness"))
    assert {
        "outcome-learnable[status]",
        "outcome-learnable-linear[status]",
        "chances-come-true[status]",
        "effects-point-the-same-way[status]",
        "survival-alike",
        "subgroups-served",
    } <= caught


def test_ages_in_another_unit_fail_validity_and_fidelity(nafld):
    caught = failed(judged(nafld, nafld.others.with_columns(pl.col("age") * 1000), "validity", "fidelity"))
    assert {"schema-obeyed", "worst-column-alike", "worst-number-alike", "hard-to-tell-apart"} <= caught


def test_a_constant_column_fails_fidelity(nafld):
    frame = nafld.others.with_columns(age=pl.lit(60, dtype=pl.Int64))
    caught = failed(judged(nafld, frame, "fidelity"))
    assert {"worst-column-alike", "worst-number-alike", "hard-to-tell-apart"} <= caught


def test_missing_values_injected_fail_missingness(nafld):
    kept = pl.Series(np.random.default_rng(0).random(nafld.others.height) < 0.05)
    frame = nafld.others.with_columns(pl.when(kept).then(pl.col("weight")).alias("weight"))
    assert {"missing-alike", "missing-together", "worst-column-alike"} <= failed(judged(nafld, frame, "fidelity"))


def test_a_relation_that_is_made_up_fails_associations(nafld):
    # Height is sorted along age: single columns stay as they are.
    frame = nafld.others.sort("age").with_columns(nafld.others["height"].sort(nulls_last=True))
    caught = failed(judged(nafld, frame, "fidelity"))
    assert {"worst-association-alike", "worst-pair-alike"} <= caught
    assert not caught & {"columns-alike", "worst-column-alike"}


def test_a_subgroup_that_is_lost_fails_fairness(nafld):
    result = judged(nafld, nafld.others.filter(pl.col("male")), "fairness")
    assert {"subgroups-as-common", "subgroups-alike"} <= failed(result)
    lost = [one for one in result.sections.fairness.groups if one.group == "false" and one.metric == "group_fidelity"]
    assert [one.value for one in lost] == [1.0]


def test_a_subgroup_with_another_outcome_fails_fairness_alone_in_that_subgroup(nafld):
    turned = pl.when(pl.col("male")).then(~pl.col("status")).otherwise(pl.col("status"))
    result = judged(nafld, nafld.others.with_columns(turned.alias("status")), "fairness")
    assert "subgroups-served" in failed(result)
    utility = {one.group: one for one in result.sections.fairness.groups if one.metric == "group_utility"}
    assert utility["true"].value < utility["true"].reference - 0.2
    assert utility["false"].value > utility["false"].reference - 0.1


def test_patients_who_die_early_fail_survival(nafld):
    frame = nafld.others.with_columns(futime=pl.col("futime") // 4, status=pl.lit(value=True))
    assert "survival-alike" in failed(judged(nafld, frame, "inference"))


def test_the_order_of_patients_does_not_matter_beyond_the_draw(nafld):
    upside_down = judged(nafld, nafld.others.reverse(), "fidelity")
    assert failed(upside_down) == set()
    assert upside_down.verdict == "pass"
