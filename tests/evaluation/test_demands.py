"""What a release's policy demands is held against the result, and can only take a pass away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from synthehr.evaluation.demands import DEMANDS, hold_to_policy
from synthehr.evaluation.findings import Sections, Sizes
from synthehr.evaluation.metrics import METRICS
from synthehr.evaluation.suite import Check, Gate, Suite, SuiteResult, load_suite

MET = Check(
    id="a",
    section="fidelity",
    metric="one_way_tv",
    scope="all",
    statistic="value",
    value=0.1,
    ci=(0.1, 0.1),
    reference=0.1,
    excess=0.0,
    excess_ci=(0.0, 0.0),
    op="<=",
    bound=1.0,
    direction="lower",
    verdict="pass",
    counts_as="pass",
    why="",
    rationale="",
)
SIZES = Sections(sizes=Sizes(train=1, holdout=1, synthetic=1))
PASSED = SuiteResult(suite="ci", verdict="pass", checks=(MET,), sections=SIZES, seed=0)
FAILED = replace(PASSED, verdict="fail", checks=(replace(MET, verdict="fail", counts_as="fail"),))


def held(result: SuiteResult, suite: Suite, **demands: object) -> SuiteResult:
    asked = {"required_suite": None, "audit_required": False, "audited": None, **demands}
    return hold_to_policy(result, suite=suite, policy="ours", epsilon=2.0, **asked)


def test_what_meets_the_demands_stays_as_it_is() -> None:
    ci = load_suite("ci")
    assert held(PASSED, ci) is PASSED
    assert held(PASSED, ci, required_suite="ci", audit_required=True, audited=0.5) is PASSED
    assert held(FAILED, ci, required_suite="ci") is FAILED


@pytest.mark.parametrize(
    ("demands", "metrics"),
    [
        ({"required_suite": "quick"}, ["required_suite"]),
        ({"required_suite": "no-such-suite"}, ["required_suite"]),
        ({"audit_required": True}, ["required_audit"]),
        ({"required_suite": "quick", "audit_required": True}, ["required_suite", "required_audit"]),
    ],
)
def test_a_demand_that_is_not_met_takes_a_pass_away_and_leaves_a_fail(demands: dict, metrics: list[str]) -> None:
    for result, verdict in ((PASSED, "inconclusive"), (FAILED, "fail")):
        now = held(result, load_suite("ci"), **demands)
        assert now.verdict == verdict
        assert [check.metric for check in now.checks[1:]] == metrics
        assert {check.counts_as for check in now.checks[1:]} == {"inconclusive"}
        assert all("'ours'" in check.why for check in now.checks[1:])


def test_other_gates_under_the_same_name_are_another_suite() -> None:
    ci = load_suite("ci")
    loosened = ci.model_copy(update={"checks": (ci.checks[0].model_copy(update={"bound": 1e9}), *ci.checks[1:])})
    assert held(PASSED, loosened, required_suite="ci").verdict == "inconclusive"
    assert "other gates of that name" in held(PASSED, loosened, required_suite="ci").checks[-1].why


def test_no_suite_can_make_a_demand_look_met() -> None:
    assert not set(DEMANDS) & set(METRICS)
    with pytest.raises(ValueError, match="unknown metric"):
        Gate(id="a", section="privacy", metric=DEMANDS[0], statistic="value", op=">=", bound=0, rationale="r")


def test_an_audit_that_broke_the_promise_fails_whatever_the_policy_demands() -> None:
    now = held(PASSED, load_suite("ci"), audited=2.5)
    assert now.verdict == "fail"
    assert now.checks[-1].value == 2.5
    assert "the code is wrong" in now.checks[-1].why


def test_an_audit_that_failed_by_another_check_fails_too() -> None:
    now = held(PASSED, load_suite("ci"), audited=0.5, audit_failed=True)
    assert now.verdict == "fail"
    assert "audit of the release failed" in now.checks[-1].why
