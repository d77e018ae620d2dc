"""Categories and codes of many values that the schema does not declare: no one is told by which of them train has."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.coding import Values, common_values
from synthehr.evaluation.metrics import measure
from synthehr.evaluation.suite import SuiteResult, load_suite, run_suite
from synthehr.schema.files import load_schema


def judged(nafld, values: int, *, copied: bool = False) -> SuiteResult:
    """Privacy by ``ci`` of other real patients, or of train itself, each living at one of so many places."""
    places = np.random.default_rng(5)
    schema = nafld.schema.model_dump(mode="json", exclude_none=True)
    schema["tables"]["patient"]["columns"]["place"] = {"kind": "category"}
    declared = load_schema(schema)

    def living(frame: pl.DataFrame) -> Cohort:
        at = places.integers(0, values, frame.height)
        return Cohort({"patient": frame.with_columns(place=pl.Series([f"z{one}" for one in at]))}, schema=declared)

    train, holdout, others = (living(one) for one in (nafld.train.root, nafld.holdout.root, nafld.others))
    suite = load_suite("ci").only(["privacy"])
    return run_suite(train=train, holdout=holdout, synthetic=train if copied else others, suite=suite)


def test_other_real_patients_pass_privacy_though_each_value_is_rare(nafld) -> None:
    # 8,000 patients at 2,000 places: those that happen to be the most common of train are so in train alone.
    result = judged(nafld, 2_000)
    assert result.sections.exchangeable, result.sections.exchangeable_why
    assert result.verdict == "pass", [check for check in result.checks if check.counts_as != "pass"]


def test_a_copy_of_such_patients_is_caught_and_not_called_a_holdout_that_is_no_control(nafld) -> None:
    result = judged(nafld, 300, copied=True)
    caught = {check.id for check in result.checks if check.verdict == "fail"}
    assert {"no-verbatim-copies", "members-hidden", "no-copied-outliers", "attributes-not-given-away"} <= caught


@pytest.mark.parametrize("metric", ["c2st_auc", "membership_auc"])
def test_two_draws_from_many_values_are_not_told_apart(metric: str) -> None:
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"place": {"kind": "category"}}}}})
    draw = np.random.default_rng(0)
    train, holdout, others = (
        Cohort({"p": pl.DataFrame({"place": [f"z{at}" for at in draw.integers(0, 300, 3_000)]})}, schema=schema)
        for _ in range(3)
    )
    bench = Bench.open(train=train, holdout=holdout, synthetic=others, seed=0)
    found = measure(bench, metric, "all")
    # By the 64 most common values of train the trees got areas of 0.52 to 0.54.
    assert found.value.low <= 0.5 and found.reference < 0.515


def test_histories_of_many_codes_do_not_tell_train_from_others() -> None:
    child = {"parent": "p", "foreign_key": "id", "order_by": "day"}
    rows = {"id": {"kind": "id"}, "day": {"kind": "integer"}, "code": {"kind": "category"}}
    root = {"key": "id", "columns": {"id": {"kind": "id"}, "x": {"kind": "number"}}}
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": root, "v": {**child, "columns": rows}}})
    draw = np.random.default_rng(1)

    def cohort(patients: int, name: str) -> Cohort:
        ids = [f"{name}{at}" for at in range(patients)]
        owners = np.repeat(np.arange(patients), draw.poisson(12, patients))
        codes = [f"c{at}" for at in draw.integers(0, 500, len(owners))]
        visits = pl.DataFrame(
            {"id": [ids[at] for at in owners], "day": draw.integers(0, 1000, len(owners)), "code": codes}
        )
        return Cohort({"p": pl.DataFrame({"id": ids, "x": draw.normal(size=patients)}), "v": visits}, schema=schema)

    bench = Bench.open(
        train=cohort(1_500, "t"), holdout=cohort(900, "h"), synthetic=cohort(900, "s"), seed=0, asked=frozenset()
    )
    # By the 30 most common codes of train the attacks got areas of 0.55 to 0.58 in six such draws.
    area = measure(bench, "membership_auc", "all").value
    assert area.low <= 0.5, area
    assert measure(bench, "patient_c2st_auc", "all").reference < 0.54


def test_values_as_common_as_each_other_are_chosen_by_name() -> None:
    def column(texts: list[str]) -> Values:
        none = np.zeros(len(texts), dtype=bool)
        return Values(text=pl.Series(texts), number=None, missing=none, unreadable=none)

    names = [f"v{at:03}" for at in range(100)]
    coding = common_values("place", column(names), column([*reversed(names), "v099"]))
    assert coding.values == (*names[:63], "v099")
    assert coding.labels == (*(f"undeclared value {at}" for at in range(1, 65)), "undeclared", "missing")
