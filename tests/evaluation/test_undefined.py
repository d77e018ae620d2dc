"""What cannot be measured is inconclusive with a reason: no crash, no skip, no perfect score."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.suite import SuiteResult, load_suite, run_suite
from synthehr.schema.files import load_schema


def judged(columns: dict, *frames: pl.DataFrame, outcome: tuple = (), suite: str = "ci") -> SuiteResult:
    table = {"columns": columns, "outcome": list(outcome)}
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": table}})
    train, holdout, synthetic = (Cohort({"p": frame}, schema=schema) for frame in frames)
    return run_suite(train=train, holdout=holdout, synthetic=synthetic, suite=load_suite(suite))


COLUMNS = {
    "x": {"kind": "integer", "bounds": [0, 9]},
    "empty": {"kind": "number", "nullable": True},
    "day": {"kind": "date", "bounds": ["2020-01-01", "2024-01-01"]},
    "group": {"kind": "category"},
    "flag": {"kind": "boolean"},
}


def mixed(patients: int, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    start = dt.date(2020, 1, 1)
    return pl.DataFrame(
        {
            "x": draw.integers(0, 9, patients),
            "empty": [None] * patients,
            "day": [start + dt.timedelta(days=int(at)) for at in draw.integers(0, 900, patients)],
            "group": draw.choice(["a", "b", "c"], patients),
            "flag": draw.random(patients) < 0.5,
        },
        schema_overrides={"empty": pl.Float64},
    )


def test_one_patient_and_one_column():
    one = pl.DataFrame({"x": [1]})
    result = judged({"x": COLUMNS["x"]}, one, one, one, outcome=("x",))
    assert result.verdict == "inconclusive"
    undefined = [check for check in result.checks if check.value is None]
    assert len(undefined) >= 8
    assert all(check.verdict == "inconclusive" and check.why for check in undefined)


def test_no_outcome_leaves_utility_open():
    result = judged(COLUMNS, mixed(400, 0), mixed(200, 1), mixed(200, 2))
    utility = next(check for check in result.checks if check.section == "utility")
    assert (utility.verdict, utility.counts_as, utility.value) == ("inconclusive", "inconclusive", None)
    assert utility.why == "The schema declares no outcome to predict."


def test_every_kind_of_outcome_gets_a_check():
    outcomes = ("x", "empty", "day", "group", "flag")
    result = judged(COLUMNS, mixed(400, 0), mixed(200, 1), mixed(200, 2), outcome=outcomes)
    found = {check.scope: check for check in result.checks if check.section == "utility"}
    assert set(found) == set(outcomes)
    assert found["empty"].value is None and found["day"].value is None
    assert [one.score for one in result.sections.outcomes] == ["R²", "macro AUC", "AUC"]


@pytest.mark.parametrize("outcome", ["x", "flag", "group"])
def test_a_synthetic_outcome_that_is_always_missing_teaches_nothing(outcome):
    lost = mixed(300, 2).with_columns(pl.lit(None).alias(outcome))
    result = judged(COLUMNS, mixed(400, 0), mixed(200, 1), lost, outcome=(outcome,))
    found = next(check for check in result.checks if check.section == "utility")
    assert found.value == pytest.approx(0.0 if outcome == "x" else 0.5)


def test_one_synthetic_patient_beside_one_real_one_teaches_nothing():
    result = judged(COLUMNS, mixed(400, 0), mixed(200, 1), mixed(1, 2), outcome=("flag",))
    asked = [check for check in result.checks if check.metric in {"tstr", "tstr_linear"}]
    assert asked
    for check in asked:
        assert (check.verdict, check.value) == ("inconclusive", None)
        assert "all of one class" in check.why


def test_a_class_with_few_holdout_patients_is_not_measured():
    def rare(patients: int, seed: int) -> pl.DataFrame:
        return mixed(patients, seed).with_columns(flag=pl.Series(np.arange(patients) < 5))

    result = judged(COLUMNS, rare(400, 0), rare(200, 1), rare(200, 2), outcome=("flag",))
    found = next(check for check in result.checks if check.section == "utility")
    assert found.value is None and "at least 10 patients" in found.why


@pytest.mark.parametrize(
    "fault",
    [
        pl.lit(None).alias("x"),
        pl.lit("text").alias("x"),
        pl.lit("text").alias("flag"),
        pl.lit("text").alias("day"),
        pl.lit(float("inf")).alias("empty"),
        pl.lit(float("nan")).alias("empty"),
        pl.lit("never seen").alias("group"),
        pl.lit(3.5).alias("x"),
    ],
    ids=str,
)
def test_whatever_stands_in_the_synthetic_frame_there_is_a_verdict(fault):
    result = judged(COLUMNS, mixed(300, 0), mixed(150, 1), mixed(150, 2).with_columns(fault), outcome=("flag",))
    assert result.verdict in {"fail", "inconclusive"}
    assert "never seen" not in repr(result)
