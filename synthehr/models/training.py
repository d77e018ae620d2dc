"""A fit from first touch to last: plan, count, domain, pairs, generator, critic. All private touches are here."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from synthehr.cohort import Cohort
from synthehr.encoding.codec import behind_the_door
from synthehr.encoding.domain import ColumnDomain, ColumnPlan, buy_domain, plan_domain, sharpen
from synthehr.errors import BudgetExceededError, ConfigError, InternalError
from synthehr.models.base import MODELS, GeneratorShape, Trained
from synthehr.models.ctgan import CriticSettings, train_with_critic
from synthehr.models.marginals import Conditions, FitSettings, PairTargets, fit_to_pairs
from synthehr.models.networks import Generator
from synthehr.privacy.accountant import (
    Account,
    EpsilonDelta,
    Event,
    Gaussian,
    PoissonSampledGaussian,
    calibrate,
    epsilon_of,
)
from synthehr.privacy.budget import Budget
from synthehr.privacy.policy import Policy, load_policy
from synthehr.privacy.rows import GradientMechanism, PrivateCodes
from synthehr.randomness import NoiseSource, SystemNoise, fresh_seed, seeded
from synthehr.schema.model import CategoryColumn, Schema, Table

__all__ = ["FitPlan", "Progress", "TrainingSettings", "plan_fit", "train"]

_AUTO = (
    "auto: on the two flat tables that were measured a critic's private gradients showed no gain for their budget, "
    "so all of it goes to histograms"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a fit has come. Losses computed on private rows are private and are not in it."""

    stage: str
    step: int
    total: int
    epsilon_spent: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Settings of the models that are no part of the guarantee's statement; all are public constants."""

    bins: int = 24
    shape: GeneratorShape = field(default_factory=GeneratorShape)
    fit: FitSettings = field(default_factory=FitSettings)
    critic: CriticSettings = field(default_factory=CriticSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """Everything that will be spent after the count, fixed before it is."""

    domain: dict[str, ColumnPlan]
    pairs: Gaussian
    gradients: PoissonSampledGaussian | None

    @property
    def events(self) -> tuple[Event, ...]:
        """All events, gradient steps with their count."""
        domain = itertools.chain.from_iterable(plan.events for plan in self.domain.values())
        return (*domain, self.pairs, *((self.gradients,) if self.gradients is not None else ()))


def plan_fit(
    table: Table, *, budget: Budget, policy: Policy, patients_bought: int, critic: CriticSettings | None
) -> FitPlan:
    """Fix every event that follows the count, and solve for the noise.

    Args:
        table: the declared columns.
        budget: what is left after the count. The count is pure, so that whatever it says, this plan's
            (epsilon, delta) adds to it by basic composition.
        policy: shares of the budget.
        patients_bought: the noisy count; sets the sampling rate, nothing else.
        critic: the adversarial phase, or None for none.

    Raises:
        BudgetExceededError: the budget is too small to buy anything.
    """
    shares = policy.shares
    selects = any(isinstance(c, CategoryColumn) and c.values is None for c in table.kept.values())
    selection_delta = policy.selection_delta * budget.delta if selects else 0.0

    def measured(precision: float) -> tuple[dict[str, ColumnPlan], Gaussian]:
        domain = plan_domain(table, precision=shares.domain * precision, selection_delta=selection_delta)
        rest = (1.0 - shares.domain) if critic is None else shares.pairs
        return domain, Gaussian(stage="pairs", noise_multiplier=1.0 / math.sqrt(rest * precision))

    def bare(scale: float) -> Sequence[Event]:
        domain, pairs = measured(scale**2)
        return FitPlan(domain=domain, pairs=pairs, gradients=None).events

    if critic is None:
        domain, pairs = measured(calibrate(bare, budget=budget) ** 2)
        return FitPlan(domain=domain, pairs=pairs, gradients=None)
    # The shares are in zCDP terms: as if the gradients were one more Gaussian, then their own noise is solved.
    alone = calibrate(lambda s: [Gaussian(stage="all", noise_multiplier=1.0 / s)], budget=budget)
    domain, pairs = measured(alone**2)
    fixed = FitPlan(domain=domain, pairs=pairs, gradients=None).events
    rate = min(1.0, critic.expected_batch / patients_bought)

    def gradients(scale: float) -> PoissonSampledGaussian:
        return PoissonSampledGaussian(
            stage="gradients",
            count=critic.steps * critic.critic_steps,
            sampling_probability=rate,
            noise_multiplier=1.0 / scale,
        )

    scale = calibrate(lambda s: [*fixed, gradients(s)], budget=budget)
    return FitPlan(domain=domain, pairs=pairs, gradients=gradients(scale))


def train(
    cohort: Cohort[Schema],
    *,
    epsilon: float,
    delta: float = 1e-6,
    model: str = "auto",
    policy: str | Path = "standard",
    seed: int | None = None,
    device: str = "auto",
    noise: NoiseSource | None = None,
    settings: TrainingSettings | None = None,
    account: Account | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Fit a model of the cohort's patients under (epsilon, delta)-differential privacy.

    Args:
        cohort: real records; one table with one row per patient.
        epsilon: the promise, add or remove one patient.
        delta: its slack; refused where the policy finds it too large for the bought count of patients.
        model: ``dp-ctgan``, ``marginal`` or ``auto``.
        policy: name or file of a release profile.
        seed: moves initial weights and draws after the noise; never the noise or the draws of patients.
        device: ``auto``, ``cpu`` or a torch device.
        noise: where noise comes from; the operating system unless a test says otherwise.
        settings: sizes and steps of the models.
        account: an unused account of this epsilon and delta, for a caller who must know what was spent even where
            the fit is refused; a new one where left out.
        on_progress: called with each step done.

    Raises:
        ConfigError: a setting is out of its range.
        BudgetExceededError: the policy or the delta rule refuses.

    Privacy: everything that touches rows is booked on one account, which is returned as events.
    """
    budget = Budget(epsilon=epsilon, delta=delta)
    if model not in MODELS:
        raise ConfigError(f"model {model!r} is unknown: choose one of {', '.join(MODELS)}")
    rules = load_policy(policy)
    if epsilon > rules.max_epsilon:
        raise BudgetExceededError(
            f"policy {rules.name!r} allows epsilon up to {rules.max_epsilon:g}, but {epsilon:g} was asked for: "
            "ask for less or choose another policy"
        )
    if len(cohort.schema.tables) > 1:
        raise ConfigError("this version learns one table with one row per patient; the schema declares several")
    if account is not None and (account.budget != budget or account.events):
        raise InternalError("a fit needs an unused account of its own epsilon and delta")
    run = _Run(
        cohort,
        account=account if account is not None else Account(budget),
        policy=rules,
        model="marginal" if model == "auto" else model,
        chosen_because=_AUTO if model == "auto" else "asked for",
        seed=fresh_seed() if seed is None else seed,
        device=_device(device),
        noise=noise if noise is not None else SystemNoise(),
        settings=settings if settings is not None else TrainingSettings(),
        on_progress=on_progress,
    )
    return run.finish()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} is not available here: use auto or cpu") from error
    return device


class _Run:
    """One fit, stage by stage."""

    def __init__(
        self,
        cohort: Cohort[Schema],
        *,
        account: Account,
        policy: Policy,
        model: str,
        chosen_because: str,
        seed: int,
        device: torch.device,
        noise: NoiseSource,
        settings: TrainingSettings,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.schema = cohort.schema
        self.account, self.budget = account, account.budget
        self.policy, self.model, self.chosen_because = policy, model, chosen_because
        self.seed, self.device, self.noise, self.settings = seed, device, noise, settings
        self.draws = seeded(seed, 1)
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._rows = behind_the_door(cohort, table=cohort.schema.subject, noise=noise)

    def finish(self) -> Trained:
        """Run all stages."""
        patients, plan = self._count_and_plan()
        table = self.schema.root
        domain = buy_domain(
            self._rows, self.account, table, plans=plan.domain, patients=patients, bins=self.settings.bins
        )
        self._tell("domain", 1, 1)
        codes = self._rows.encode({column.name: column.cells for column in domain})
        generator, domain = self._learn(domain, codes, plan, patients)
        spent = self.account.epsilon_spent()
        if spent > self.budget.epsilon:
            raise InternalError("the account was overspent; nothing is released")
        return Trained(
            schema=self.schema,
            budget=self.budget,
            policy=self.policy.name,
            model=self.model,
            chosen_because=self.chosen_because,
            seed=self.seed,
            domain=tuple(domain),
            shape=self.settings.shape,
            weights={name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()},
            patients_bought=patients,
            events=self.account.events,
            epsilon_spent=spent,
            noise=self.noise.name,
            why_not_private=self.noise.why_not_private,
        )

    def _count_and_plan(self) -> tuple[int, FitPlan]:
        share = self.policy.shares.count * self.budget.epsilon
        count = EpsilonDelta(stage="count", epsilon=share, delta=0.0)
        self.account.plan([count])
        patients = self._rows.count_patients(self.account, event=count)
        self.budget.check_delta(patients_bought=patients, ratio=self.policy.delta_ratio, policy=self.policy.name)
        plan = plan_fit(
            self.schema.root,
            budget=Budget(epsilon=self.budget.epsilon - share, delta=self.budget.delta),
            policy=self.policy,
            patients_bought=patients,
            critic=self.settings.critic if self.model == "dp-ctgan" else None,
        )
        self.account.plan(plan.events)
        self._tell("count", 1, 1)
        return patients, plan

    def _learn(
        self, domain: Sequence[ColumnDomain], codes: PrivateCodes, plan: FitPlan, patients: int
    ) -> tuple[Generator, list[ColumnDomain]]:
        sizes = codes.sizes
        pairs = list(itertools.combinations(range(len(sizes)), 2)) or [(0, 0)]
        noisy = codes.marginals(self.account, pairs, shares=[1.0 / len(pairs)] * len(pairs), event=plan.pairs)
        self._tell("pairs", 1, 1)
        variance = plan.pairs.noise_multiplier**2 * len(pairs)
        domain = sharpen(domain, pairs, noisy, variance=variance, patients=patients)
        targets = PairTargets(sizes, pairs, noisy, patients=patients, device=self.device)
        conditions = Conditions(domain, device=self.device)
        generator = self._new_generator(sizes)
        fit = self.settings.fit
        for step, _ in enumerate(fit_to_pairs(generator, targets, conditions, settings=fit, draws=self.draws), start=1):
            self._tell("generator", step, fit.steps)
        if plan.gradients is not None:
            critic = self.settings.critic
            rate = plan.gradients.sampling_probability
            mechanism = GradientMechanism(
                event=plan.gradients.model_copy(update={"count": 1}),
                clip_norm=critic.clip_norm,
                expected_batch=rate * patients,
            )
            for step in train_with_critic(
                generator,
                targets,
                conditions,
                codes,
                self.account,
                mechanism=mechanism,
                settings=critic,
                fit=fit,
                draws=self.draws,
                private_draws=self.noise.spawn(),
            ):
                self._tell("critic", step, critic.steps)
        return generator, domain

    def _new_generator(self, sizes: Sequence[int]) -> Generator:
        shape = self.settings.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return Generator(sizes=sizes, latent=shape.latent, hidden=shape.hidden).to(self.device)

    def _tell(self, stage: str, step: int, total: int) -> None:
        if self._on_progress is not None:
            spent = epsilon_of(self.account.events, delta=self.budget.delta) if step == total else None
            self._on_progress(
                Progress(
                    stage=stage,
                    step=step,
                    total=total,
                    epsilon_spent=spent,
                    seconds=time.monotonic() - self._started,
                )
            )
