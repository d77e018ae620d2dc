"""What a fit will spend and on what, fixed before any row but the count is touched."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace

from synthehr.encoding.domain import ColumnPlan, plan_domain
from synthehr.models.base import GeneratorShape
from synthehr.models.ctgan import CriticSettings
from synthehr.models.marginals import FitSettings
from synthehr.models.phase import GradientSettings
from synthehr.models.selection import candidates
from synthehr.models.tvae import VariationalSettings
from synthehr.privacy.accountant import Event, Gaussian, PoissonSampledGaussian, calibrate
from synthehr.privacy.budget import Budget
from synthehr.privacy.policy import Policy, Shares
from synthehr.schema.model import CategoryColumn, Table

__all__ = ["ChoiceSettings", "FitPlan", "JointPlan", "TrainingSettings", "plan_fit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceSettings:
    """How joint histograms are chosen; all are public constants.

    Attributes:
        pairs: how many pairs of columns are weighed at most.
        triples: how many triples are weighed at most.
        triples_bought: how many of them are bought at most, which bounds time and memory.
        groups: coarser cells of a column, in triples.
        price: what remains of a histogram's noise after the fit, in L1, as a part.
        focus: weight of sets that hold an outcome, where others have 1.
        unbought: pull of a pair that was not bought towards independence, where 1 is that of a bought one on average.
    """

    pairs: int = 2000
    triples: int = 500
    triples_bought: int = 64
    groups: int = 8
    price: float = 0.3
    focus: float = 2.0
    unbought: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Settings of the models that are no part of the guarantee's statement; all are public constants."""

    bins: int = 24
    shape: GeneratorShape = field(default_factory=GeneratorShape)
    fit: FitSettings = field(default_factory=FitSettings)
    choice: ChoiceSettings = field(default_factory=ChoiceSettings)
    critic: CriticSettings = field(default_factory=CriticSettings)
    variational: VariationalSettings = field(default_factory=VariationalSettings)

    def gradients_of(self, model: str) -> GradientSettings | None:
        """The settings of a model's private gradients; None for a model that has none."""
        return {"dp-ctgan": self.critic, "dp-tvae": self.variational}.get(model)

    def shape_of(self, model: str) -> GeneratorShape:
        """The size of a model's generator, which has a refiner where gradients train one."""
        return self.shape if self.gradients_of(model) is not None else self.shape.model_copy(update={"hidden": 0})


@dataclass(frozen=True, slots=True, kw_only=True)
class JointPlan:
    """One round of joint histograms: what weighing the candidates costs, and what buying the chosen ones does."""

    candidates: tuple[tuple[int, ...], ...]
    weighing: Gaussian | None
    buying: Gaussian

    @property
    def events(self) -> tuple[Event, ...]:
        """Both."""
        return (*((self.weighing,) if self.weighing is not None else ()), self.buying)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """Everything that will be spent after the count, fixed before it is."""

    domain: dict[str, ColumnPlan]
    pairs: JointPlan
    triples: JointPlan | None
    gradients: PoissonSampledGaussian | None

    @property
    def events(self) -> tuple[Event, ...]:
        """All events, gradient steps with their count."""
        domain = itertools.chain.from_iterable(plan.events for plan in self.domain.values())
        triples = self.triples.events if self.triples is not None else ()
        gradients = (self.gradients,) if self.gradients is not None else ()
        return (*domain, *self.pairs.events, *triples, *gradients)


def _plan_joints(
    table: Table, *, precision: float, shares: Shares, choice: ChoiceSettings
) -> tuple[JointPlan, JointPlan | None]:
    """The rounds of pairs and triples that share ``precision``, the sum of 1 / noise_multiplier**2."""
    names = list(table.kept)
    focus = [at for at, name in enumerate(names) if name in table.outcome]
    pairs = candidates(len(names), order=2, focus=focus, most=choice.pairs) or [(0, 0)]
    triples = candidates(len(names), order=3, focus=focus, most=choice.triples)
    parts = {
        "weigh pairs": shares.choice / 2.0 if len(pairs) > 1 else 0.0,
        "pairs": shares.pairs,
        "weigh triples": shares.choice / 2.0 if triples else 0.0,
        "triples": shares.triples if triples else 0.0,
    }
    whole = math.fsum(parts.values())
    events = {
        stage: Gaussian(stage=stage, noise_multiplier=1.0 / math.sqrt(part / whole * precision))
        for stage, part in parts.items()
        if part
    }
    first = JointPlan(candidates=tuple(pairs), weighing=events.get("weigh pairs"), buying=events["pairs"])
    if not triples:
        return first, None
    return first, JointPlan(candidates=tuple(triples), weighing=events["weigh triples"], buying=events["triples"])


def plan_fit(
    table: Table,
    *,
    budget: Budget,
    policy: Policy,
    patients_bought: int,
    gradients: GradientSettings | None,
    choice: ChoiceSettings | None = None,
) -> FitPlan:
    """Fix every event that follows the count, and solve for the noise.

    Args:
        table: the declared columns.
        budget: what is left after the count. The count is pure, so that whatever it says, this plan's
            (epsilon, delta) adds to it by basic composition.
        policy: shares of the budget.
        patients_bought: the noisy count; sets the sampling rate, nothing else.
        gradients: the phase with private gradients, or None for none.
        choice: how many joint histograms are weighed; the default settings where left out.

    Raises:
        BudgetExceededError: the budget is too small to buy anything.
    """
    shares = policy.shares
    selects = any(isinstance(c, CategoryColumn) and c.values is None for c in table.kept.values())
    selection_delta = policy.selection_delta * budget.delta if selects else 0.0

    def measured(precision: float) -> FitPlan:
        joint = 1.0 - shares.domain - (shares.gradients if gradients is not None else 0.0)
        pairs, triples = _plan_joints(
            table, precision=joint * precision, shares=shares, choice=choice or ChoiceSettings()
        )
        domain = plan_domain(table, precision=shares.domain * precision, selection_delta=selection_delta)
        return FitPlan(domain=domain, pairs=pairs, triples=triples, gradients=None)

    if gradients is None:
        return measured(calibrate(lambda scale: measured(scale**2).events, budget=budget) ** 2)
    # The shares are in zCDP terms: as if the gradients were one more Gaussian, then their own noise is solved.
    alone = calibrate(lambda s: [Gaussian(stage="all", noise_multiplier=1.0 / s)], budget=budget)
    fixed = measured(alone**2)
    rate = min(1.0, gradients.expected_batch / patients_bought)
    count = gradients.steps * gradients.gradients

    def steps(scale: float) -> PoissonSampledGaussian:
        return PoissonSampledGaussian(
            stage="gradients",
            count=count,
            sampling_probability=rate,
            noise_multiplier=1.0 / scale,
        )

    scale = calibrate(lambda s: [*fixed.events, steps(s)], budget=budget)
    return replace(fixed, gradients=steps(scale))
