"""The account: every use of private rows as an event, composed once by privacy-loss distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from synthehr.errors import BudgetExceededError, InternalError
from synthehr.privacy.budget import Budget

__all__ = [
    "Account",
    "EpsilonDelta",
    "Event",
    "Gaussian",
    "PoissonSampledGaussian",
    "calibrate",
    "epsilon_of",
    "spent_at_most",
]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: str = Field(description="What the rows were touched for.")
    count: int = Field(default=1, ge=1, description="How many times the mechanism ran.")


class Gaussian(_Event):
    """Gaussian noise of ``noise_multiplier`` times the L2 sensitivity to one patient."""

    type: Literal["Gaussian"] = "Gaussian"
    noise_multiplier: float = Field(gt=0)


class PoissonSampledGaussian(_Event):
    """The Gaussian mechanism on a Poisson sample of patients."""

    type: Literal["PoissonSampledGaussian"] = "PoissonSampledGaussian"
    sampling_probability: float = Field(gt=0, le=1)
    noise_multiplier: float = Field(gt=0)


class EpsilonDelta(_Event):
    """Any mechanism that is (epsilon, delta)-differentially private by itself."""

    type: Literal["EpsilonDelta"] = "EpsilonDelta"
    epsilon: float = Field(ge=0)
    delta: float = Field(ge=0, lt=1)


Event = Gaussian | PoissonSampledGaussian | EpsilonDelta


def epsilon_of(events: Iterable[Event], *, delta: float) -> float:
    """The smallest epsilon at ``delta`` of all events together, under adding or removing one patient.

    Composed as privacy-loss distributions by dp_accounting (Google), rounded pessimistically on a mesh of a
    ten-thousandth, finer where epsilon is below 1: many small steps would add up their rounding (1.8 % at epsilon 0.1
    and 2,000 steps).
    """
    events = tuple(events)
    epsilon = _composed(events, delta=delta, interval=1e-4)
    return _composed(events, delta=delta, interval=max(1e-6, 1e-4 * epsilon)) if 0.0 < epsilon < 1.0 else epsilon


def _composed(events: Sequence[Event], *, delta: float, interval: float) -> float:
    from dp_accounting.pld import common
    from dp_accounting.pld.privacy_loss_distribution import from_privacy_parameters, identity

    total: Any = identity(value_discretization_interval=interval)
    times: dict[Event, int] = {}
    for event in events:
        single = event.model_copy(update={"stage": "", "count": 1})
        times[single] = times.get(single, 0) + event.count
    squared = math.fsum(n / e.noise_multiplier**2 for e, n in times.items() if isinstance(e, Gaussian))
    if squared:
        total = total.compose(_gaussian(1.0 / math.sqrt(squared), 1.0, interval))
    for event, count in times.items():
        if isinstance(event, PoissonSampledGaussian):
            one = _gaussian(event.noise_multiplier, event.sampling_probability, interval)
        elif isinstance(event, EpsilonDelta):
            promise = common.DifferentialPrivacyParameters(event.epsilon, event.delta)
            one = from_privacy_parameters(promise, value_discretization_interval=interval)
        else:
            continue
        total = total.compose(one if count == 1 else one.self_compose(count))
    return float(total.get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)
def _gaussian(noise_multiplier: float, sampling_probability: float, interval: float) -> Any:
    from dp_accounting.pld.privacy_loss_distribution import from_gaussian_mechanism

    return from_gaussian_mechanism(
        noise_multiplier, sampling_prob=sampling_probability, value_discretization_interval=interval
    )


def spent_at_most(events: Iterable[Event], *, delta: float) -> float:
    """No less than what :func:`epsilon_of` stands for, without composing distributions where no event is sampled.

    Gaussian mechanisms together are one, whose epsilon is known (Balle and Wang 2018, Theorem 8); the others' epsilons
    and deltas are added. Where steps are sampled it is :func:`epsilon_of` itself.
    """
    events = tuple(events)
    if any(isinstance(event, PoissonSampledGaussian) for event in events):
        return epsilon_of(events, delta=delta)
    return _about(events, delta=delta)


def _about(events: Sequence[Event], *, delta: float) -> float:
    """Epsilon of the Gaussian mechanism that the events together come near to, for a first guess.

    Many sampled steps are nearly one Gaussian of precision ``q**2 * steps * (exp(1 / noise**2) - 1)`` (Bu et al. 2020).
    """
    squared, epsilon = 0.0, 0.0
    for event in events:
        match event:
            case Gaussian(count=count, noise_multiplier=noise):
                squared += count / noise**2
            case PoissonSampledGaussian(count=count, noise_multiplier=noise, sampling_probability=rate):
                squared += count * min(1.0 / noise**2, rate**2 * math.expm1(min(1.0 / noise**2, 500.0)))
            case EpsilonDelta():
                epsilon, delta = epsilon + event.count * event.epsilon, delta - event.count * event.delta
    if delta <= 0.0:
        return math.inf
    return epsilon + (_epsilon_of_gaussian(math.sqrt(squared), delta=delta) if squared else 0.0)


def _epsilon_of_gaussian(shift: float, *, delta: float) -> float:
    """The smallest epsilon of two normal distributions of variance 1 that are ``shift`` apart."""
    from scipy.special import log_ndtr

    def exceeds(epsilon: float) -> bool:
        first = math.exp(log_ndtr(shift / 2.0 - epsilon / shift))
        return first - math.exp(epsilon + log_ndtr(-shift / 2.0 - epsilon / shift)) > delta

    low, high = 0.0, 1.0
    while exceeds(high):
        low, high = high, 2.0 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if exceeds(middle) else (low, middle)
    return high


def _guess(events_at: Callable[[float], Sequence[Event]], *, budget: Budget) -> float:
    """The logarithm of a scale that about spends the budget, by :func:`_about`."""
    low, high = math.log(1e-6), math.inf
    guess = 0.0
    for _ in range(60):
        spent = _about(events_at(math.exp(guess)), delta=budget.delta)
        if abs(spent / budget.epsilon - _AIM) < 1e-4:
            break
        low, high = (guess, high) if spent < _AIM * budget.epsilon else (low, guess)
        # Where little is spent epsilon grows as the scale does, where much is as its square.
        power = 1.0 + min(spent, budget.epsilon) / (2.0 + min(spent, budget.epsilon))
        ratio = _AIM * budget.epsilon / max(spent, 1e-12)
        guess += max(-2.0, min(2.0, math.log(max(ratio, 1e-9)) / power))
        if not low < guess < high:
            guess = (low + high) / 2.0
    return guess


# Of the budget's epsilon: the middle of what is near enough to it.
_AIM = 0.9995


def calibrate(events_at: Callable[[float], Sequence[Event]], *, budget: Budget) -> float:
    """A scale at which ``events_at(scale)`` spends at most the budget's epsilon, and at least 99.9 % of it.

    Args:
        events_at: events that spend more the larger the scale; a scale is a multiple of 1 / noise.
        budget: what they may spend together.

    Raises:
        BudgetExceededError: no scale down to a millionth fits, as when delta alone is overspent.
    """
    fits, exceeds = -math.inf, math.inf
    guess = _guess(events_at, budget=budget)
    nearby = (_about(events_at(math.exp(guess + step)), delta=budget.delta) for step in (0.0, 0.01))
    power = _power(*nearby, step=0.01)
    before: tuple[float, float] | None = None
    while exceeds - fits > 1e-9:
        spent = epsilon_of(events_at(math.exp(guess)), delta=budget.delta)
        if 0.999 * budget.epsilon <= spent <= budget.epsilon:
            return math.exp(guess)
        fits, exceeds = (guess, exceeds) if spent <= budget.epsilon else (fits, guess)
        if fits == -math.inf:
            fits = _least_that_fits(events_at, budget=budget)
        # Epsilon grows about as a power of the scale, so step by the ratio; halve the bracket where that leaves it.
        if 0.0 < spent < math.inf:
            if before is not None and before[0] != guess:
                power = _power(before[1], spent, step=guess - before[0])
            before = guess, spent
            guess += math.log(_AIM * budget.epsilon / spent) / power
        else:
            guess += math.copysign(1.0, budget.epsilon - spent)
        if not fits < guess < exceeds:
            guess = (fits + exceeds) / 2.0
    return math.exp(fits)


def _power(first: float, second: float, *, step: float) -> float:
    """Of the scale that epsilon grows as, from two epsilons at logarithms of scales that are ``step`` apart."""
    if not (0.0 < first < math.inf and 0.0 < second < math.inf):
        return 1.0
    return max(0.25, min(4.0, math.log(second / first) / step))


def _least_that_fits(events_at: Callable[[float], Sequence[Event]], *, budget: Budget) -> float:
    """The logarithm of the smallest scale that is tried.

    Raises:
        BudgetExceededError: it exceeds the budget.
    """
    if epsilon_of(events_at(1e-6), delta=budget.delta) > budget.epsilon:
        raise BudgetExceededError(
            f"nothing can be bought at epsilon {budget.epsilon:g} and delta {budget.delta:g}: raise one of them"
        )
    return math.log(1e-6)


class Account:
    """What one fit may spend, has planned to spend, and has spent.

    Everything is planned first and composed once; :meth:`spend` then lets through planned events alone, so
    that overspending cannot happen.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._planned: dict[Event, int] = {}
        self._spent: dict[Event, int] = {}

    @property
    def events(self) -> tuple[Event, ...]:
        """The events spent so far, in the order of their first use."""
        return tuple(event.model_copy(update={"count": count}) for event, count in self._spent.items())

    def plan(self, events: Sequence[Event]) -> None:
        """Set aside budget for events to come, on top of those already spent.

        Raises:
            BudgetExceededError: spent and planned together exceed the budget.
        """
        needed = epsilon_of((*self.events, *events), delta=self.budget.delta)
        if needed > self.budget.epsilon:
            raise BudgetExceededError(
                f"requested {needed:.4g} of epsilon, the account holds {self.budget.epsilon:.4g}, "
                f"{needed - self.budget.epsilon:.2g} too much at delta {self.budget.delta:g}: ask for less"
            )
        for event in events:
            single = event.model_copy(update={"count": 1})
            self._planned[single] = self._planned.get(single, 0) + event.count

    def spend(self, event: Event) -> None:
        """Book one run of a mechanism; called before it touches a row.

        Raises:
            InternalError: the event was not planned.
        """
        left = self._planned.get(event, 0)
        if event.count != 1 or left < 1:
            raise InternalError(f"stage {event.stage!r} asks for a {event.type} event that is not in the plan")
        self._planned[event] = left - 1
        self._spent[event] = self._spent.get(event, 0) + 1

    def epsilon_spent(self) -> float:
        """Epsilon, at the budget's delta, of what was spent so far."""
        return epsilon_of(self.events, delta=self.budget.delta) if self._spent else 0.0
