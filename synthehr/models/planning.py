"""What a fit will spend and on what, fixed before any row but the count is touched."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from synthehr.encoding.domain import ColumnPlan, plan_domain
from synthehr.encoding.unroll import ConditionalTable
from synthehr.models.base import GeneratorShape
from synthehr.models.ctgan import CriticSettings
from synthehr.models.marginals import FitSettings
from synthehr.models.outcomes import OutcomeSettings
from synthehr.models.phase import GradientSettings
from synthehr.models.selection import candidates
from synthehr.models.tvae import VariationalSettings
from synthehr.privacy.accountant import Event, Gaussian, PoissonSampledGaussian, calibrate
from synthehr.privacy.budget import Budget
from synthehr.privacy.policy import Policy, Shares
from synthehr.schema.model import CategoryColumn

__all__ = [
    "ChoiceSettings",
    "FitPlan",
    "JointPlan",
    "RowsSettings",
    "TablePlan",
    "TrainingSettings",
    "focused",
    "is_kin",
    "plan_fit",
    "stage_prefix",
]


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
        unbought: pull of a pair that was not bought towards what is expected of it, where 1 is that of a bought one on
            average.
    """

    pairs: int = 2000
    triples: int = 500
    triples_bought: int = 64
    groups: int = 8
    price: float = 0.3
    focus: float = 2.0
    unbought: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsSettings:
    """How the rows of child tables are fitted; none of it moves the guarantee.

    Attributes:
        patients: how many are made up to fit on, at most.
        rows: of theirs that are looked at, at most.
        rounds: of making up rows and fitting on them.
        steps: of L-BFGS for a column and round, at most.
        pace: part of the way to what was fitted that weights go in a round. All of it overshoots: what rows are made
            up depends on the weights, and so does what fits them.
        ridge: 1 / the variance that weights are taken to have before anything is bought; see
            :func:`~synthehr.models.loglinear.fit_conditional`.
        ridge_of_three: the same of weights for three columns.
        held, decay, held_at_last: how much at least: in the first round, by what factor less in each that follows, and
            from when on no less.
        focus: weight of sets that hold an outcome of an ancestor, where others have 1: of few patients with an outcome
            each row's histogram is a small part.
        kin: the same, in a table of many own columns, of a column with what it was in the row before: most stay as they
            were, and whatever noise adds is a change.
        doubt: standard deviations of the noise on a set's distance that are taken off it before it is bought.
    """

    patients: int = 6000
    rows: int = 15_000
    rounds: int = 10
    steps: int = 24
    pace: float = 0.4
    ridge: float = 2.0
    ridge_of_three: float = 8.0
    held: float = 0.01
    decay: float = 0.6
    held_at_last: float = 0.0004
    focus: float = 8.0
    kin: float = 8.0
    doubt: float = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Settings of the models that are no part of the guarantee's statement; all are public constants."""

    bins: int = 24
    shape: GeneratorShape = field(default_factory=GeneratorShape)
    fit: FitSettings = field(default_factory=FitSettings)
    choice: ChoiceSettings = field(default_factory=ChoiceSettings)
    outcomes: OutcomeSettings = field(default_factory=OutcomeSettings)
    rows: RowsSettings = field(default_factory=RowsSettings)
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
class TablePlan:
    """What is bought of one conditional table.

    Attributes:
        rows: how many patients have rows in it; None for the patients' own table.
        domain: cells of the own columns.
        history: one-way histograms of the columns of history; None where there are none.
        pairs: histograms of two columns.
        triples: histograms of three columns.
    """

    rows: Gaussian | None
    domain: dict[str, ColumnPlan]
    history: Gaussian | None
    pairs: JointPlan
    triples: JointPlan | None

    @property
    def events(self) -> tuple[Event, ...]:
        """All events."""
        optional = tuple(event for event in (self.rows, self.history) if event is not None)
        domain = itertools.chain.from_iterable(plan.events for plan in self.domain.values())
        return (*optional, *domain, *self.pairs.events, *(self.triples.events if self.triples is not None else ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """Everything that will be spent after the count, fixed before it is."""

    per_table: dict[str, TablePlan]
    gradients: PoissonSampledGaussian | None

    @property
    def events(self) -> tuple[Event, ...]:
        """All events, gradient steps with their count."""
        tables = itertools.chain.from_iterable(plan.events for plan in self.per_table.values())
        return (*tables, *((self.gradients,) if self.gradients is not None else ()))


def stage_prefix(made: ConditionalTable) -> str:
    """What the stages of a table's events begin with; nothing for the patients' own."""
    return f"{made.name}/" if made.depth else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sets:
    """The sets of columns of one table that may be bought together, a function of the schema alone."""

    pairs: list[tuple[int, ...]]
    triples: list[tuple[int, ...]]

    @classmethod
    def of(cls, made: ConditionalTable, choice: ChoiceSettings) -> _Sets:
        names = made.names
        focus = [at for at, name in enumerate(names) if name in focused(made)]
        place = {name: at for at, name in enumerate(names)}
        kin = [(place[past.of], place[name]) for name, past in made.history.items() if past.of in place]

        def usable(chosen: tuple[int, ...]) -> bool:
            columns = [names[at] for at in chosen]
            return made.target(columns) is not None and not _is_remote(columns, made)

        def chosen(order: int, most: int) -> list[tuple[int, ...]]:
            if not made.depth:
                return candidates(len(names), order=order, focus=focus, most=most)
            return candidates(
                len(names), order=order, focus=focus, most=most, own=len(made.own), kin=kin, usable=usable
            )

        needed = [tuple(sorted(place[name] for name in columns)) for columns in made.needed()]
        found = {
            order: sorted({*chosen(order, most), *(columns for columns in needed if len(columns) == order)})
            for order, most in ((2, choice.pairs), (3, choice.triples))
        }
        return cls(pairs=found[2] or [(0, 0)], triples=found[3])


# Of tables of more own columns, what a column does with what another was in the row before is left aside.
_MANY = 12


def is_kin(columns: Sequence[str], made: ConditionalTable) -> bool:
    """Whether a pair is of a column and what it was in the row before, in a wide table."""
    repeated = {made.history[name].of for name in columns if name in made.history and made.history[name].role == "last"}
    return len(made.own) > _MANY and len(columns) == 2 and not repeated.isdisjoint(columns)


def _is_remote(columns: Sequence[str], made: ConditionalTable) -> bool:
    """Whether a pair is of a column and what another one, not the code, was in the row before, in a wide table.

    Dozens of them show one and the same: that a patient's first row is unlike the others.
    """
    if len(made.own) <= _MANY or len(columns) != 2:
        return False
    repeated = [made.history[name].of for name in columns if name in made.history and made.history[name].role == "last"]
    return any(of != made.code and of not in columns for of in repeated)


def _plan_joints(
    made: ConditionalTable, sets: _Sets, *, precision: float, shares: Shares
) -> tuple[JointPlan, JointPlan | None]:
    """The rounds of pairs and triples that share ``precision``, the sum of 1 / noise_multiplier**2."""
    prefix, pairs, triples = stage_prefix(made), sets.pairs, sets.triples
    parts = {
        "weigh pairs": shares.choice / 2.0 if len(pairs) > 1 else 0.0,
        "pairs": shares.pairs,
        "weigh triples": shares.choice / 2.0 if triples else 0.0,
        "triples": shares.triples if triples else 0.0,
    }
    whole = math.fsum(parts.values())
    events = {
        stage: Gaussian(stage=prefix + stage, noise_multiplier=1.0 / math.sqrt(part / whole * precision))
        for stage, part in parts.items()
        if part
    }
    first = JointPlan(candidates=tuple(pairs), weighing=events.get("weigh pairs"), buying=events["pairs"])
    if not triples:
        return first, None
    return first, JointPlan(candidates=tuple(triples), weighing=events["weigh triples"], buying=events["triples"])


def focused(made: ConditionalTable) -> set[str]:
    """The columns that the schema makes matter: outcomes, the table's own or an ancestor's."""
    return {*made.table.outcome, *made.outcomes_above}


# Of a child table's share for its domain: for the number of patients with rows, and for the columns of history, of
# which a wide table has as many as of its own.
_ROWS, _HISTORY, _HISTORY_OF_MANY = 0.02, 0.1, 0.3
# A child table's values hang on codes and its times span years: its domain is worth more of its budget.
_DOMAIN_OF_ROWS = 3.0


def _plan_table(
    made: ConditionalTable, sets: _Sets, *, precision: float, shares: Shares, joint: float, delta: float
) -> TablePlan:
    """What is bought of one table with ``precision``, of which the domain gets its share and joints ``joint``."""
    prefix, domain = stage_prefix(made), shares.domain * precision
    rows = history = None
    if made.depth:
        joint -= (_DOMAIN_OF_ROWS - 1.0) * shares.domain
        whole = _DOMAIN_OF_ROWS * domain
        rows = Gaussian(stage=f"{prefix}rows", noise_multiplier=1.0 / math.sqrt(_ROWS * whole))
        domain = (1.0 - _ROWS) * whole
        if made.history:
            part = (_HISTORY_OF_MANY if len(made.own) > _MANY else _HISTORY) * whole
            history = Gaussian(stage=f"{prefix}history", noise_multiplier=1.0 / math.sqrt(part))
            domain -= part
    pairs, triples = _plan_joints(made, sets, precision=joint * precision, shares=shares)
    return TablePlan(
        rows=rows,
        domain=plan_domain(
            made.table, precision=domain, selection_delta=delta, prefix=prefix, by_levels=made.depth > 0
        ),
        history=history,
        pairs=pairs,
        triples=triples,
    )


def _discovered(made: ConditionalTable) -> int:
    return sum(isinstance(c, CategoryColumn) and c.values is None for c in made.table.kept.values())


def table_shares(tables: Mapping[str, ConditionalTable]) -> dict[str, float]:
    """The part of the precision that each table gets; they sum to 1."""
    return dict.fromkeys(tables, 1.0 / len(tables))


def plan_fit(
    tables: Mapping[str, ConditionalTable],
    *,
    budget: Budget,
    policy: Policy,
    patients_bought: int,
    gradients: GradientSettings | None,
    choice: ChoiceSettings | None = None,
) -> FitPlan:
    """Fix every event that follows the count, and solve for the noise.

    Args:
        tables: what each table that has columns to learn is learned as; the patients' own is one of them.
        budget: what is left after the count. The count is pure, so that whatever it says, this plan's
            (epsilon, delta) adds to it by basic composition.
        policy: shares of the budget.
        patients_bought: the noisy count; sets the sampling rate, nothing else.
        gradients: the phase with private gradients, or None for none.
        choice: how many joint histograms are weighed; the default settings where left out.

    Raises:
        BudgetExceededError: the budget is too small to buy anything.
    """
    shares, parts = policy.shares, table_shares(tables)
    discovered = {name: _discovered(made) for name, made in tables.items()}
    selection = policy.selection_delta * budget.delta / max(sum(discovered.values()), 1)
    # Once, not at each step of the search for the noise: a wide table has hundreds of thousands of triples.
    sets = {name: _Sets.of(made, choice or ChoiceSettings()) for name, made in tables.items()}

    def measured(precision: float) -> FitPlan:
        joint = 1.0 - shares.domain - (shares.gradients if gradients is not None else 0.0)
        plans = {
            name: _plan_table(
                made,
                sets[name],
                precision=parts[name] * precision,
                shares=shares,
                joint=joint,
                delta=selection * discovered[name],
            )
            for name, made in tables.items()
        }
        return FitPlan(per_table=plans, gradients=None)

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
