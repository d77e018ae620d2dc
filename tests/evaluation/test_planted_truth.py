"""Synthesizers with a known fault, each caught by name; and one without, which passes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.suite import SuiteResult, load_suite, run_suite
from synthehr.schema.files import load_schema


def judged(nafld, frame: pl.DataFrame, *, suite: str = "ci", seed: int = 0) -> SuiteResult:
    return run_suite(
        train=nafld.train,
        holdout=nafld.holdout,
        synthetic=nafld.cohort(frame),
        suite=load_suite(suite),
        seed=seed,
    )


def failed(result: SuiteResult) -> set[str]:
    return {check.id for check in result.checks if check.verdict == "fail"}


def shuffled(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(
        frame[name].sample(fraction=1.0, shuffle=True, seed=at) for at, name in enumerate(frame.columns)
    )


@pytest.fixture(scope="module")
def independent(nafld) -> SuiteResult:
    return judged(nafld, nafld.others)


def test_an_independent_sample_passes(independent):
    assert independent.verdict == "pass", [check for check in independent.checks if check.counts_as != "pass"]


@pytest.mark.parametrize("seed", range(8))
def test_independent_samples_hardly_ever_fail(nafld, seed):
    everyone = pl.concat([nafld.train.root, nafld.holdout.root, nafld.others])
    order = np.random.default_rng(seed).permutation(everyone.height)
    train, holdout, synthetic = (nafld.cohort(everyone[part]) for part in np.split(order[:13000], [8000, 10000]))
    result = run_suite(train=train, holdout=holdout, synthetic=synthetic, suite=load_suite("quick"), seed=seed)
    assert result.sections.exchangeable
    assert not failed(result)


def test_a_copy_of_train_passes_fidelity_and_is_caught(nafld):
    result = judged(nafld, nafld.train.root)
    copies = {"no-verbatim-copies", "no-rare-copies", "rare-copies-by-chance", "no-copied-outliers"}
    assert failed(result) == copies | {"members-hidden", "no-sure-members", "attributes-not-given-away"}
    assert next(check for check in result.checks if check.metric == "membership_auc").value >= 0.95
    assert result.verdict == "fail"


def test_a_few_copies_among_many_are_caught(nafld):
    result = judged(nafld, pl.concat([nafld.others, nafld.train.root[:60]]), suite="quick")
    assert failed(result) == {"rare-copies-by-chance"}


def test_ten_copies_of_outliers_among_a_thousand_do_not_pass(nafld):
    train = nafld.cohort(nafld.train.root[:800])
    holdout = nafld.cohort(nafld.holdout.root[:200])
    synthetic = nafld.cohort(pl.concat([nafld.others[:990], train.root.sort("bmi", nulls_last=True)[:10]]))
    result = run_suite(train=train, holdout=holdout, synthetic=synthetic, suite=load_suite("quick"))
    assert {check.id: check.counts_as for check in result.checks}["no-rare-copies"] != "pass"
    assert result.verdict != "pass"


def test_columns_shuffled_on_their_own_fail_pairs_and_two_sample_test_alone(nafld):
    caught = failed(judged(nafld, shuffled(nafld.others)))
    assert {"pairs-alike", "worst-pair-alike", "hard-to-tell-apart", "outcome-learnable[status]"} <= caught
    assert not caught & {"columns-alike", "worst-column-alike", "missing-alike"}


def test_a_flipped_outcome_fails_utility(nafld):
    result = judged(nafld, nafld.others.with_columns(~pl.col("status")))
    assert "outcome-learnable[status]" in failed(result)


def test_age_in_another_unit_fails(nafld):
    caught = failed(judged(nafld, nafld.others.with_columns(pl.col("age") * 1000), suite="quick"))
    assert {"schema-obeyed", "worst-column-alike"} <= caught


def test_missing_values_injected_fail(nafld):
    kept = pl.Series(np.random.default_rng(0).random(nafld.others.height) < 0.05)
    frame = nafld.others.with_columns(pl.when(kept).then(pl.col("weight")).alias("weight"))
    caught = failed(judged(nafld, frame, suite="quick"))
    assert {"missing-alike", "worst-column-alike"} <= caught


def test_missing_where_the_schema_forbids_it_fails(nafld):
    kept = pl.Series(np.random.default_rng(0).random(nafld.others.height) < 0.95)
    frame = nafld.others.with_columns(pl.when(kept).then(pl.col("age")).alias("age"))
    assert "schema-obeyed" in failed(judged(nafld, frame, suite="quick"))


def test_a_constant_column_fails(nafld):
    caught = failed(judged(nafld, nafld.others.with_columns(age=pl.lit(60, dtype=pl.Int64))))
    assert {"worst-column-alike", "hard-to-tell-apart"} <= caught


def test_a_constant_outcome_is_no_better_than_guessing(nafld):
    result = judged(nafld, nafld.others.with_columns(status=pl.lit(value=False)))
    outcome = next(check for check in result.checks if check.metric == "tstr")
    assert (outcome.value, outcome.verdict) == (0.5, "fail")


def test_a_broken_rule_fails(nafld):
    schema = nafld.schema.model_copy(update={"rules": ("weight is null or weight < 100",)})
    schema = type(schema).model_validate(schema.model_dump())
    light = pl.col("weight").is_null() | (pl.col("weight") < 100)
    cohorts = [nafld.train.root.filter(light), nafld.holdout.root.filter(light), nafld.others]
    train, holdout, synthetic = (Cohort({"patient": frame}, schema=schema) for frame in cohorts)
    result = run_suite(train=train, holdout=holdout, synthetic=synthetic, suite=load_suite("quick"))
    assert "rules-obeyed" in failed(result)


@pytest.mark.parametrize("fault", ["train again", "shares patients", "another hospital", "too small"])
def test_copies_are_not_judged_by_a_holdout_that_is_no_control(nafld, fault):
    train, holdout = nafld.train.root, nafld.holdout.root
    if fault == "train again":
        holdout = train
    elif fault == "shares patients":
        holdout = pl.concat([holdout[:1500], train[:1500]])
    elif fault == "another hospital":
        holdout = holdout.with_columns(pl.col("age") + 10)
    else:
        holdout = holdout[:20]
    result = run_suite(
        train=nafld.train, holdout=nafld.cohort(holdout), synthetic=nafld.train, suite=load_suite("quick")
    )
    copies = next(check for check in result.checks if check.id == "no-verbatim-copies")
    assert (copies.verdict, copies.value) == ("inconclusive", None)
    assert result.sections.exchangeable is False
    assert result.verdict != "pass"


def test_a_holdout_that_only_a_classifier_tells_apart_is_no_control(nafld):
    result = run_suite(
        train=nafld.train,
        holdout=nafld.cohort(shuffled(nafld.holdout.root)),
        synthetic=nafld.train,
        suite=load_suite("ci"),
    )
    assert result.sections.exchangeable is False
    assert "classifier" in result.sections.exchangeable_why


def test_patients_in_both_parts_are_found_by_their_key(nafld):
    schema = load_schema(
        {
            "synthehr": 1,
            "subject": "p",
            "tables": {"p": {"key": "id", "columns": {"id": {"kind": "id"}, "x": {"kind": "number"}}}},
        }
    )
    draw = np.random.default_rng(0)

    def cohort(start: int) -> Cohort:
        ids = [f"p{at}" for at in range(start, start + 200)]
        return Cohort({"p": pl.DataFrame({"id": ids, "x": draw.normal(size=200)})}, schema=schema)

    result = run_suite(train=cohort(0), holdout=cohort(199), synthetic=cohort(900), suite=load_suite("quick"))
    assert "both" in result.sections.exchangeable_why


def test_the_same_seed_gives_the_same_result(nafld):
    small = nafld.others[:1000]
    assert judged(nafld, small, suite="quick", seed=3) == judged(nafld, small, suite="quick", seed=3)


def test_progress_names_each_check_and_no_count_of_patients(nafld):
    told = []
    run_suite(
        train=nafld.train,
        holdout=nafld.holdout,
        synthetic=nafld.cohort(nafld.others),
        suite=load_suite("quick"),
        on_progress=lambda *step: told.append(step),
    )
    total = told[0][2]
    assert told[0] == ("schema-obeyed", 0, total)
    assert told[-1] == ("done", total, total)


def test_sizes_are_rounded(independent, nafld):
    assert independent.sections.sizes.holdout == 3000
    assert independent.sections.sizes.synthetic == 6500
    assert nafld.others.height != 6500
