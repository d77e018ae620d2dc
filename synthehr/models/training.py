"""A fit from first touch to last: plan, count, domain, joints, mixture, gradients. All private touches are here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from synthehr.cohort import Cohort
from synthehr.encoding.codec import Decoder, all_behind_the_door, bound_rows, declared_rows
from synthehr.encoding.unroll import conditional_tables
from synthehr.errors import ConfigError, InternalError
from synthehr.models.base import MODELS, Trained, TrainedTable
from synthehr.models.checkpoint import Checkpoint
from synthehr.models.ctgan import CriticPhase, CriticSettings
from synthehr.models.fitting import Fitted, FitTools, PatientsFit, RowsFit, fit_outcomes
from synthehr.models.marginals import Targets
from synthehr.models.networks import Generator
from synthehr.models.packing import terms_of, weights_of
from synthehr.models.patients import structural_rules
from synthehr.models.phase import GradientPhase, GradientSettings
from synthehr.models.planning import FitPlan, TrainingSettings, plan_fit
from synthehr.models.rollout import Roller, rolled_patients
from synthehr.models.sampling import Sampler
from synthehr.models.tvae import VariationalPhase, VariationalSettings
from synthehr.privacy.accountant import Account, EpsilonDelta, PoissonSampledGaussian, spent_at_most
from synthehr.privacy.budget import Budget
from synthehr.privacy.policy import Policy, load_policy
from synthehr.privacy.rows import GradientMechanism, PrivateCodes
from synthehr.randomness import NoiseSource, SystemNoise, fresh_seed, seeded
from synthehr.schema.files import dump_schema
from synthehr.schema.model import Schema

__all__ = ["Progress", "train", "what_is_fitted"]

_AUTO = (
    "auto: on the flat tables that were measured private gradients showed no gain for their budget, "
    "so all of it goes to histograms"
)

# Patients made up to fit rows on: so many times as are needed, since rules leave some out, and how few are too few.
_SPARE, _FEWEST_LAWFUL = 3, 200
# Where there are few real ones, so many for each, but no fewer than that: more would only learn noise better.
_OF_EACH, _FEWEST_MADE_UP = 4, 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a fit has come. Losses computed on private rows are private and are not in it."""

    stage: str
    step: int
    total: int
    epsilon_spent: float | None
    seconds: float


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
    checkpoint: Checkpoint | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Fit a model of the cohort's patients under (epsilon, delta)-differential privacy.

    Args:
        cohort: real records of patients, in one table or several.
        epsilon: the promise, add or remove one patient.
        delta: its slack; refused where the policy finds it too large for the bought count of patients.
        model: ``dp-ctgan``, ``dp-tvae``, ``marginal`` or ``auto``.
        policy: name or file of a release profile.
        seed: moves initial weights and draws after the noise; never the noise or the draws of patients.
        device: ``auto``, ``cpu`` or a torch device.
        noise: where noise comes from; the operating system unless a test says otherwise.
        settings: sizes and steps of the models.
        account: an unused account of this epsilon and delta, for a caller who must know what was spent even where
            the fit is refused; a new one where left out.
        checkpoint: what the fit goes on from and keeps; in memory alone where left out.
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
    source = noise if noise is not None else SystemNoise()
    rules.check(declared_rows(cohort.schema), epsilon=epsilon, model=model, noise=source.name)
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
        noise=source,
        settings=settings if settings is not None else TrainingSettings(),
        checkpoint=checkpoint if checkpoint is not None else Checkpoint.begin(None, options={}),
        on_progress=on_progress,
    )
    return run.finish()


def what_is_fitted(
    schema: Schema,
    *,
    epsilon: float,
    delta: float,
    model: str,
    policy: str | Path,
    noise: str,
    seed: int | None,
    settings: TrainingSettings | None = None,
) -> dict[str, Any]:
    """The options of a fit that must be the same when it goes on; all public, as JSON."""
    return {
        "schema": dump_schema(schema),
        "epsilon": epsilon,
        "delta": delta,
        "model": model,
        "policy": load_policy(policy).model_dump(mode="json"),
        "noise": noise,
        "seed": seed,
        "settings": _plain(asdict(settings if settings is not None else TrainingSettings())),
        "version": version("synthehr"),
    }


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: part.model_dump() if hasattr(part, "model_dump") else part for name, part in settings.items()}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} is not available here: use auto or cpu") from error
    return device


def _named(phase: GradientPhase) -> dict[str, torch.Tensor]:
    return {f"{phase.name}.{name}": value for name, value in phase.tensors().items()}


class _Run:
    """One fit, stage by stage. What a checkpoint holds is taken from it, and the rest is done and put there."""

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
        checkpoint: Checkpoint,
        on_progress: Callable[[Progress], None] | None,
    ) -> None:
        self.schema = cohort.schema
        self.account, self.budget = account, account.budget
        self.policy, self.model, self.chosen_because = policy, model, chosen_because
        self.seed, self.device, self.noise, self.settings = seed, device, noise, settings
        self.kept = checkpoint
        self.draws = seeded(seed, 1, checkpoint.resumed)
        self._on_progress = on_progress
        self._started = time.monotonic()
        self.tools = FitTools(
            account=account, kept=checkpoint, settings=settings, seed=seed, device=device, tell=self._tell
        )
        self._windows = self._key_of_windows()
        bounded, most = bound_rows(cohort, policy=policy, draws=np.random.default_rng([self._windows, 0]))
        self._max_rows = most
        made = conditional_tables(cohort.schema, most)
        self._rows = all_behind_the_door(
            bounded, made, noise=noise, max_rows=most, draws=np.random.default_rng([self._windows, 1])
        )
        # A table of keys alone is in its parent's number of rows, and has nothing to learn of its own.
        self.learnable = {name: table for name, table in made.items() if table.own}

    def _key_of_windows(self) -> int:
        """What chooses the rows that a patient keeps: from the noise source, kept so that a resumed fit has the same.

        The promise does not rest on it: it holds for every choice.
        """
        if "windows" not in self.kept.state:
            words = self.noise.spawn().integers(0, 2**32, size=8, dtype=np.uint64)
            self.kept.put(windows=hex(int(sum(int(word) << (32 * at) for at, word in enumerate(words)))))
        return int(self.kept.state["windows"], 16)

    def finish(self) -> Trained:
        """Run all stages."""
        patients, plan = self._count_and_plan()
        subject = self.schema.subject
        root = PatientsFit(
            self.learnable[subject],
            plan.per_table[subject],
            self._rows[subject],
            patients=patients,
            tools=self.tools,
            shape=self.settings.shape_of(self.model),
        ).run()
        generator = root.learned.generator
        assert generator is not None and root.pulled_to is not None, "patients have a generator"
        if plan.gradients is not None:
            targets = root.pulled_to.targets
            self._follow_gradients(generator, targets, root.codes, event=plan.gradients, patients=patients)
        root = fit_outcomes(root, patients=patients, settings=self.settings.outcomes, draws=seeded(self.seed, 9, 0))
        fitted = {subject: root}
        if len(self.schema.tables) > 1:
            self._fit_children(fitted, plan, patients=patients)
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
            shape=self.settings.shape_of(self.model),
            per_table={
                name: TrainedTable(
                    domain=found.learned.domain,
                    weights=weights_of(found.learned),
                    terms=terms_of(found.learned),
                )
                for name, found in fitted.items()
            },
            max_rows=self._max_rows,
            patients_bought=patients,
            events=self.account.events,
            epsilon_spent=spent,
            noise=self.noise.name,
            why_not_private=self.noise.why_not_private,
            required_suite=self.policy.suite,
            audit_required=self.policy.audit,
        )

    def _fit_children(self, fitted: dict[str, Fitted], plan: FitPlan, *, patients: int) -> None:
        """Learn the other tables, ancestors first, on patients that the model makes up."""
        subject, settings = self.schema.subject, self.settings.rows
        learned, draws = fitted[subject].learned, seeded(self.seed, 6, 0)
        wanted = min(settings.patients, max(_OF_EACH * patients, _FEWEST_MADE_UP))
        codes = Sampler.of(learned).plain(_SPARE * wanted, draws)
        frame = self._lawful(Decoder(learned.domain, learned.made.table).rows(codes, draws))
        frame = frame[:wanted]
        made_up = {subject: rolled_patients(frame, learned)}
        for name, made in self.learnable.items():
            parent = self.schema.tables[name].parent
            if parent is None:
                continue
            fit = RowsFit(made, plan.per_table[name], self._rows[name], patients=patients, tools=self.tools)
            fitted[name] = fit.run(fitted[parent], made_up[parent], self.schema.tables[name])
            if any(table.parent == name for table in self.schema.tables.values()):
                roller = Roller(fitted[name].learned, self.schema.tables[name], rules=())
                made_up[name] = roller.roll(made_up[parent], seeded(self.seed, 8, made.depth), patients=frame.height)

    def _lawful(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The patients that meet the rules, as those of a release do; all of them where hardly any does."""
        own = [rule for rule in self.schema.parsed_rules if rule.table == self.schema.subject]
        kept = frame
        for rule in [*own, *structural_rules(self.learnable, self.schema)]:
            kept = kept.filter(rule.holds(kept))
        return kept if kept.height >= _FEWEST_LAWFUL else frame

    def _count_and_plan(self) -> tuple[int, FitPlan]:
        share = self.policy.shares.count * self.budget.epsilon
        count = EpsilonDelta(stage="count", epsilon=share, delta=0.0)
        self.account.plan([count])
        if "patients" in self.kept.state:
            self.tools.booked(count)
        else:
            self.tools.begin("count")
            rows = self._rows[self.schema.subject]
            self.kept.put(patients=rows.count_patients(self.account, event=count))
        patients = int(self.kept.state["patients"])
        self.budget.check_delta(patients_bought=patients, ratio=self.policy.delta_ratio, policy=self.policy.name)
        plan = plan_fit(
            self.learnable,
            budget=Budget(epsilon=self.budget.epsilon - share, delta=self.budget.delta),
            policy=self.policy,
            patients_bought=patients,
            gradients=self.settings.gradients_of(self.model),
            choice=self.settings.choice,
        )
        self.account.plan(plan.events)
        self._tell("count", 1, 1)
        return patients, plan

    def _follow_gradients(
        self,
        generator: Generator,
        targets: Targets,
        codes: PrivateCodes,
        *,
        event: PoissonSampledGaussian,
        patients: int,
    ) -> None:
        phase, settings = self._phase(generator, targets)
        single = event.model_copy(update={"count": 1})
        mechanism = GradientMechanism(
            event=single, clip_norm=settings.clip_norm, expected_batch=event.sampling_probability * patients
        )
        # Rounds are counted before they run, a block at a time; those counted and lost are not run again.
        counted = int(self.kept.state.get("rounds", 0))
        if counted:
            phase.restore(self.kept.part(f"{phase.name}."))
            self.tools.booked(single.model_copy(update={"count": counted * settings.gradients}))
        for start in range(counted, settings.steps, settings.block):
            end = min(start + settings.block, settings.steps)
            self.tools.begin("gradients")
            self.kept.put(tensors=_named(phase), rounds=end)
            for done in range(start, end):
                phase.round(codes, self.account, mechanism=mechanism)
                self._tell(phase.name, done + 1, settings.steps)
        self.kept.put(tensors=_named(phase))

    def _phase(self, generator: Generator, targets: Targets) -> tuple[GradientPhase, GradientSettings]:
        settings = self.settings.gradients_of(self.model)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            if isinstance(settings, CriticSettings):
                return CriticPhase(
                    generator, targets, settings=settings, draws=self.draws, private_draws=self.noise.spawn()
                ), settings
            if isinstance(settings, VariationalSettings):
                return VariationalPhase(
                    generator, targets, settings=settings, draws=self.draws, private_draws=self.noise.spawn()
                ), settings
        raise InternalError(f"model {self.model!r} has no private gradients")

    def _tell(self, stage: str, step: int, total: int) -> None:
        if self._on_progress is not None:
            spent = spent_at_most(self.account.events, delta=self.budget.delta) if step == total else None
            self._on_progress(
                Progress(
                    stage=stage,
                    step=step,
                    total=total,
                    epsilon_spent=spent,
                    seconds=time.monotonic() - self._started,
                )
            )
