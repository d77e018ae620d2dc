from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

import synthehr.privacy.accountant as accountant
from synthehr.errors import BudgetExceededError, ConfigError, InternalError
from synthehr.privacy.accountant import (
    Account,
    EpsilonDelta,
    Event,
    Gaussian,
    PoissonSampledGaussian,
    calibrate,
    epsilon_of,
    spent_at_most,
)
from synthehr.privacy.budget import Budget


def analytic_gaussian(sigma: float, delta: float) -> float:
    """Epsilon of the Gaussian mechanism by Balle and Wang 2018, Theorem 8, solved for epsilon."""

    def excess(epsilon: float) -> float:
        first = norm.cdf(0.5 / sigma - epsilon * sigma)
        return first - math.exp(epsilon) * norm.cdf(-0.5 / sigma - epsilon * sigma) - delta

    return brentq(excess, 0.0, 200.0)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-6, 1e-9])
def test_one_gaussian_costs_what_its_formula_says(sigma: float, delta: float) -> None:
    events = [Gaussian(stage="x", noise_multiplier=sigma)]
    assert epsilon_of(events, delta=delta) == pytest.approx(analytic_gaussian(sigma, delta), rel=2e-3)


def test_many_gaussians_cost_as_one_of_their_joint_precision() -> None:
    # 1/4 + 4 * 1/16 = 1/2, so sigma is sqrt(2).
    events = [Gaussian(stage="a", noise_multiplier=2.0), Gaussian(stage="b", noise_multiplier=4.0, count=4)]
    assert epsilon_of(events, delta=1e-6) == pytest.approx(analytic_gaussian(math.sqrt(2), 1e-6), rel=2e-3)


@pytest.mark.parametrize(("rate", "sigma", "steps"), [(0.01, 1.0, 1000), (0.05, 2.0, 500), (0.2, 4.0, 300)])
def test_sampled_gaussians_agree_with_opacus_accountants(rate: float, sigma: float, steps: int) -> None:
    import warnings

    from opacus.accountants import PRVAccountant, RDPAccountant

    events = [PoissonSampledGaussian(stage="g", count=steps, sampling_probability=rate, noise_multiplier=sigma)]
    ours = epsilon_of(events, delta=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prv, rdp = PRVAccountant(), RDPAccountant()
        prv.history = rdp.history = [(sigma, rate, steps)]
        assert ours == pytest.approx(prv.get_epsilon(delta=1e-5), rel=0.01)
        assert ours <= rdp.get_epsilon(delta=1e-5)


def test_a_pure_promise_and_a_gaussian_cost_no_more_than_their_sum() -> None:
    gaussian = Gaussian(stage="g", noise_multiplier=2.0)
    together = epsilon_of([EpsilonDelta(stage="c", epsilon=0.05, delta=0.0), gaussian], delta=1e-6)
    alone = epsilon_of([gaussian], delta=1e-6)
    assert alone < together <= alone + 0.05 + 1e-3


def test_a_chance_of_failure_takes_its_part_of_delta() -> None:
    gaussian = Gaussian(stage="g", noise_multiplier=2.0)
    failure = EpsilonDelta(stage="s", epsilon=0.0, delta=4e-6)
    assert epsilon_of([gaussian, failure], delta=1e-5) == pytest.approx(epsilon_of([gaussian], delta=6e-6), rel=2e-3)
    assert epsilon_of([failure], delta=1e-6) == math.inf


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-7])
def test_noise_is_solved_to_just_within_the_request(epsilon: float, delta: float) -> None:
    scale = calibrate(
        lambda s: [Gaussian(stage="x", noise_multiplier=1.0 / s)], budget=Budget(epsilon=epsilon, delta=delta)
    )
    spent = epsilon_of([Gaussian(stage="x", noise_multiplier=1.0 / scale)], delta=delta)
    assert 0.995 * epsilon <= spent <= epsilon


@pytest.mark.parametrize(("epsilon", "rate"), [(0.3, None), (3.0, None), (30.0, None), (0.5, 0.02), (3.0, 0.02)])
def test_few_compositions_solve_for_the_noise(
    monkeypatch: pytest.MonkeyPatch, epsilon: float, rate: float | None
) -> None:
    asked: list[int] = []
    exact = accountant.epsilon_of

    def counted(events: Sequence[Event], *, delta: float) -> float:
        asked.append(1)
        return exact(events, delta=delta)

    def events(scale: float) -> list[Event]:
        bought = Gaussian(stage="x", noise_multiplier=1.0 / scale)
        promise = EpsilonDelta(stage="s", epsilon=0.0, delta=1e-6)
        if rate is None:
            return [bought, promise]
        noisy = 6.0 / epsilon
        steps = PoissonSampledGaussian(stage="g", count=1000, sampling_probability=rate, noise_multiplier=1.0 / scale)
        return [Gaussian(stage="x", noise_multiplier=noisy), promise, steps]

    monkeypatch.setattr(accountant, "epsilon_of", counted)
    scale = calibrate(events, budget=Budget(epsilon=epsilon, delta=1e-5))
    # Each takes a quarter of a second or more.
    assert len(asked) <= (1 if rate is None else 4)
    assert 0.999 * epsilon <= exact(events(scale), delta=1e-5) <= epsilon


def test_what_was_spent_at_most_is_the_gaussian_mechanisms_own_epsilon() -> None:
    # Balle and Wang 2018: epsilon 1 at delta 1e-5 takes noise of 3.730632.
    one = Gaussian(stage="x", noise_multiplier=3.730632)
    assert spent_at_most([one], delta=1e-5) == pytest.approx(1.0, rel=1e-5)
    four = Gaussian(stage="x", noise_multiplier=2 * 3.730632, count=4)
    assert spent_at_most([four], delta=1e-5) == pytest.approx(1.0, rel=1e-5)
    assert spent_at_most([one, EpsilonDelta(stage="c", epsilon=0.25, delta=0.0)], delta=1e-5) == pytest.approx(1.25)
    assert spent_at_most([EpsilonDelta(stage="s", epsilon=0.0, delta=1e-4), one], delta=1e-5) == math.inf
    assert spent_at_most([], delta=1e-5) == 0.0


def test_overspending_is_refused_with_requested_held_and_difference() -> None:
    account = Account(Budget(epsilon=1.0, delta=1e-6))
    with pytest.raises(BudgetExceededError, match=r"requested .* holds 1, .* too much"):
        account.plan([Gaussian(stage="x", noise_multiplier=1.0)])
    assert account.events == ()


def test_an_event_that_was_not_planned_cannot_be_spent() -> None:
    account = Account(Budget(epsilon=1.0, delta=1e-6))
    event = Gaussian(stage="x", noise_multiplier=20.0)
    with pytest.raises(InternalError, match="not in the plan"):
        account.spend(event)
    account.plan([event])
    account.spend(event)
    with pytest.raises(InternalError, match="not in the plan"):
        account.spend(event)
    with pytest.raises(InternalError):
        account.spend(Gaussian(stage="x", noise_multiplier=10.0))
    assert account.events == (event,)
    assert account.epsilon_spent() == epsilon_of([event], delta=1e-6)


def test_plans_add_up_on_one_account() -> None:
    account = Account(Budget(epsilon=1.0, delta=1e-6))
    event = Gaussian(stage="x", noise_multiplier=5.5)
    assert epsilon_of([event], delta=1e-6) < 1.0 < epsilon_of([event.model_copy(update={"count": 2})], delta=1e-6)
    account.plan([event])
    account.spend(event)
    with pytest.raises(BudgetExceededError):
        account.plan([event])


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_an_epsilon_that_promises_nothing_is_refused(epsilon: float) -> None:
    with pytest.raises(ConfigError, match="epsilon"):
        Budget(epsilon=epsilon, delta=1e-6)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-6, math.nan])
def test_a_delta_outside_the_open_interval_is_refused(delta: float) -> None:
    with pytest.raises(ConfigError, match="delta"):
        Budget(epsilon=1.0, delta=delta)


def test_a_delta_above_a_tenth_of_a_patients_share_is_refused() -> None:
    budget = Budget(epsilon=1.0, delta=1e-5)
    budget.check_delta(patients_bought=10_000, ratio=0.1, policy="standard")
    with pytest.raises(BudgetExceededError, match="lower --delta"):
        budget.check_delta(patients_bought=10_001, ratio=0.1, policy="standard")
