"""What things cost, against numbers and compositions that are not the account's own.

``privacy/golden/accounts.json`` holds epsilons by closed forms, by an integration written for it, and by Opacus's and
dp_accounting's accountants; ``privacy/golden/make.py`` wrote it. The grid of plans is composed anew by the integration.
"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import TypeAdapter

from synthehr.encoding.unroll import ConditionalTable
from synthehr.errors import BudgetExceededError
from synthehr.models.ctgan import CriticSettings
from synthehr.models.planning import plan_fit
from synthehr.privacy.accountant import EpsilonDelta, Event, Gaussian, PoissonSampledGaussian, epsilon_of
from synthehr.privacy.budget import Budget
from synthehr.privacy.policy import load_policy

GOLDEN = Path(__file__).parents[2] / "privacy" / "golden"
CASES = json.loads((GOLDEN / "accounts.json").read_text(encoding="utf-8"))["cases"]
EVENTS = TypeAdapter(list[Event])
BOUNDS = "at most, "


def _load_independent() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_independent", GOLDEN / "independent.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


independent = _load_independent()


def truth(epsilons: dict[str, float]) -> float:
    """The closed form where there is one, else the integration, which meets closed forms to one in a million."""
    return epsilons.get("closed form", epsilons["own integration"])


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_the_account_says_what_other_accountants_said(case) -> None:
    ours = epsilon_of(EVENTS.validate_python(case["events"]), delta=case["delta"])
    assert ours >= truth(case["epsilon"]) * (1 - 1e-3)  # too high costs accuracy, too low costs the promise
    for name, theirs in case["epsilon"].items():
        if name.startswith(BOUNDS):
            assert ours <= theirs * (1 + 1e-3), name
        else:
            assert ours == pytest.approx(theirs, rel=0.01), name


def test_every_golden_case_has_two_accountants_that_agree_among_themselves() -> None:
    assert len(CASES) >= 14
    for case in CASES:
        exact = {name: value for name, value in case["epsilon"].items() if not name.startswith(BOUNDS)}
        assert len(exact) >= 2, case["case"]
        # Without dp_accounting's PLD, which is the account's own library, two remain, an upper bound included.
        assert len(set(case["epsilon"]) - {"dp_accounting PLD"}) >= 3, case["case"]
        for name, value in exact.items():
            assert value == pytest.approx(truth(case["epsilon"]), rel=2e-3), (case["case"], name)


def test_golden_cases_hold_every_kind_of_event_alone_and_together() -> None:
    kinds = {frozenset(event["type"] for event in case["events"]) for case in CASES}
    gaussian, sampled, promise = "Gaussian", "PoissonSampledGaussian", "EpsilonDelta"
    assert {
        frozenset({gaussian}),
        frozenset({sampled}),
        frozenset({gaussian, promise}),
        frozenset({gaussian, sampled}),
        frozenset({gaussian, sampled, promise}),
    } <= kinds


def test_the_integration_is_right_by_hand_where_a_hand_can_do_it() -> None:
    # (0.5, 0) and (0.25, 0) at delta 0: 0.75. With a failure of 1e-3 out of 1e-3, the same. Gaussian noise of
    # 1e6 costs 1e-6 or less at delta 1e-7, so beside it the promises are all.
    noise = {"type": "Gaussian", "noise_multiplier": 1e6, "count": 1}
    first = {"type": "EpsilonDelta", "epsilon": 0.5, "delta": 0.0, "count": 1}
    second = {"type": "EpsilonDelta", "epsilon": 0.25, "delta": 1e-3, "count": 1}
    found = independent.own_epsilon([noise, first, second], 1e-3 + 1e-9, cells=2**16, reach=1e-3)
    assert found == pytest.approx(0.75, abs=1e-4)
    # A step at rate 1 is a Gaussian: its closed form is Balle and Wang's.
    step = {"type": "PoissonSampledGaussian", "sampling_probability": 1.0, "noise_multiplier": 8.0, "count": 4}
    gaussian = {"type": "Gaussian", "noise_multiplier": 4.0, "count": 1}
    assert independent.own_epsilon([step], 1e-6, cells=2**16) == pytest.approx(
        independent.analytic_gaussian([gaussian], 1e-6), rel=1e-5
    )


def spent_by_a_fit(table, *, epsilon: float, delta: float, patients: int, rounds: int | None) -> list[Event]:
    """The count and the plan that follows it, as ``train`` puts them on its account."""
    policy = load_policy("standard")
    share = policy.shares.count * epsilon
    plan = plan_fit(
        {"patient": ConditionalTable(name="patient", depth=0, table=table)},
        budget=Budget(epsilon=epsilon - share, delta=delta),
        policy=policy,
        patients_bought=patients,
        gradients=None if rounds is None else CriticSettings(steps=rounds),
    )
    return [EpsilonDelta(stage="count", epsilon=share, delta=0.0), *plan.events]


def check_fit(table, *, epsilon: float, delta: float, patients: int, rounds: int | None) -> None:
    events = spent_by_a_fit(table, epsilon=epsilon, delta=delta, patients=patients, rounds=rounds)
    ours = epsilon_of(events, delta=delta)
    assert 0.97 * epsilon <= ours <= epsilon
    theirs = independent.own_epsilon([event.model_dump() for event in events], delta, cells=2**19)
    assert theirs * (1 - 1e-3) <= ours <= theirs * 1.01


@pytest.mark.parametrize("delta", [1e-5, 1e-7, 1e-9])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
def test_a_fit_of_histograms_spends_its_budget_and_no_more(small_schema, epsilon: float, delta: float) -> None:
    check_fit(small_schema.root, epsilon=epsilon, delta=delta, patients=200, rounds=None)


@pytest.mark.parametrize(
    ("epsilon", "delta", "patients", "rounds"),
    [(0.1, 1e-7, 1_000_000, 200), (1.0, 1e-9, 200, 20), (3.0, 1e-5, 5_000, 50)],
)
def test_a_fit_with_a_critic_spends_its_budget_and_no_more(small_schema, epsilon, delta, patients, rounds) -> None:
    check_fit(small_schema.root, epsilon=epsilon, delta=delta, patients=patients, rounds=rounds)


DELTAS = [1e-5, 1e-7, 1e-9]
GRID = [
    (epsilon, DELTAS[(i + j + k) % 3], patients, rounds)
    for i, epsilon in enumerate([0.1, 0.3, 1.0, 3.0, 10.0])
    for j, patients in enumerate([200, 5_000, 50_000, 1_000_000])
    for k, rounds in enumerate([None, 10, 200, 2000])
]


@pytest.mark.slow
@pytest.mark.parametrize(("epsilon", "delta", "patients", "rounds"), GRID)
def test_every_plan_on_the_grid_spends_its_budget_and_no_more(small_schema, epsilon, delta, patients, rounds) -> None:
    check_fit(small_schema.root, epsilon=epsilon, delta=delta, patients=patients, rounds=rounds)


def test_half_the_noise_costs_what_the_golden_numbers_do_not_allow() -> None:
    # The comparison has teeth: an account that took sigma for half of it, or 1.02 of it, would be found out.
    for case in CASES:
        for factor in (2.0, 0.98):
            wrong = [
                event.model_copy(update={"noise_multiplier": event.noise_multiplier * factor})
                if isinstance(event, Gaussian | PoissonSampledGaussian)
                else event
                for event in EVENTS.validate_python(case["events"])
            ]
            cost = independent.analytic_gaussian([event.model_dump() for event in wrong], case["delta"])
            if cost is not None:
                assert abs(cost / truth(case["epsilon"]) - 1) > 0.01, case["case"]


def test_a_budget_that_a_failure_alone_overspends_buys_nothing(small_schema) -> None:
    assert epsilon_of([EpsilonDelta(stage="x", epsilon=0.0, delta=1e-6)], delta=1e-7) == math.inf
    with pytest.raises(BudgetExceededError, match="nothing can be bought"):
        spent_by_a_fit(small_schema.root, epsilon=1e-9, delta=1e-12, patients=200, rounds=None)
