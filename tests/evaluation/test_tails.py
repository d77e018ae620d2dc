"""Numbers of impossible size, which distances between distributions do not see."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.metrics import measure
from synthehr.evaluation.suite import load_suite, run_suite
from synthehr.evaluation.tails import reach
from synthehr.schema.files import load_schema


def test_numbers_may_lie_as_far_out_as_the_middle_is_wide() -> None:
    # Of 0, 1, ..., 100 the 1 % and 99 % quantiles are 1 and 99, which lie 98 apart.
    assert reach(np.arange(101.0)) == pytest.approx((-97.0, 197.0))


def test_where_nearly_all_are_one_number_others_may_lie_as_far_as_any_did() -> None:
    assert reach(np.array([0.0] * 999 + [7.0])) == (0.0, 7.0)
    assert reach(np.array([3.0] * 60)) == (3.0, 3.0)


def test_patients_with_a_far_number_are_counted_once_and_missing_ones_not() -> None:
    schema = load_schema(
        {
            "synthehr": 1,
            "subject": "p",
            "tables": {
                "p": {"columns": {"x": {"kind": "number", "nullable": True}, "y": {"kind": "number", "nullable": True}}}
            },
        }
    )

    def cohort(x: list[float | None], y: list[float | None]) -> Cohort:
        return Cohort({"p": pl.DataFrame({"x": x, "y": y}, schema={"x": pl.Float64, "y": pl.Float64})}, schema=schema)

    train = cohort([float(at) for at in range(101)], [float(at) for at in range(101)])
    holdout = cohort([50.0, 50.0, 198.0, None], [50.0] * 4)
    synthetic = cohort([-98.0, 500.0, 197.0, None], [500.0, 50.0, 50.0, None])
    bench = Bench.open(train=train, holdout=holdout, synthetic=synthetic, seed=0)
    found = measure(bench, "far_values", "all")
    assert (found.value.value, found.reference) == (0.5, 0.25)
    assert measure(bench, "far_values", "y").value.value == 0.25


def test_a_few_impossible_weights_fail_by_name_though_no_distance_sees_them(nafld) -> None:
    few = pl.Series(np.random.default_rng(3).random(nafld.others.height) < 0.04)
    frame = nafld.others.with_columns(pl.when(few).then(pl.col("futime") + 60_000).otherwise("futime").alias("futime"))
    suite = load_suite("quick").only(["fidelity"])
    result = run_suite(train=nafld.train, holdout=nafld.holdout, synthetic=nafld.cohort(frame), suite=suite)
    assert {check.id for check in result.checks if check.verdict == "fail"} == {"no-far-numbers"}


def test_gates_that_a_schema_gives_nothing_to_are_left_out_only_where_the_suite_lets_them_stand() -> None:
    columns = {"a": {"kind": "boolean"}, "b": {"kind": "boolean"}}
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}})
    draws = np.random.default_rng(0)
    parts = [
        Cohort({"p": pl.DataFrame({"a": draws.random(size) < 0.5, "b": draws.random(size) < 0.5})}, schema=schema)
        for size in (400, 300, 300)
    ]
    nothing = {"ks_worst", "far_values", "triple_tv", "rule_violations"}
    suite = load_suite("quick")
    strict = [
        gate.model_copy(update={"on_undefined": "inconclusive" if gate.metric in nothing else gate.on_undefined})
        for gate in suite.checks
    ]
    for gates, shown in ((suite.checks, set()), (tuple(strict), nothing)):
        result = run_suite(
            train=parts[0], holdout=parts[1], synthetic=parts[2], suite=suite.model_copy(update={"checks": gates})
        )
        found = {check.metric: check.counts_as for check in result.checks}
        assert set(found) & nothing == shown
        assert {found[name] for name in shown} <= {"inconclusive"}
        assert "association_error" in found
