"""A fit from first touch to last: plan, count, domain, joints, mixture, gradients. All private touches are here."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthehr.cohort import Cohort
from synthehr.encoding.codec import behind_the_door, bound_rows, declared_rows
from synthehr.encoding.domain import ColumnDomain, Joint, buy_domain, sharpen
from synthehr.encoding.records import ColumnRecord, column_of, record_of
from synthehr.errors import ConfigError, InternalError
from synthehr.models.base import MODELS, Trained
from synthehr.models.checkpoint import Checkpoint
from synthehr.models.ctgan import CriticPhase, CriticSettings
from synthehr.models.learner import Learner
from synthehr.models.marginals import Targets, expected_joints, fit_to_targets, scatter
from synthehr.models.networks import Generator
from synthehr.models.phase import GradientPhase, GradientSettings
from synthehr.models.planning import FitPlan, JointPlan, TrainingSettings, plan_fit
from synthehr.models.selection import chance_distance, coarsen, share_out
from synthehr.models.tvae import VariationalPhase, VariationalSettings
from synthehr.privacy.accountant import Account, EpsilonDelta, Event, PoissonSampledGaussian, epsilon_of
from synthehr.privacy.budget import Budget
from synthehr.privacy.partition import Values
from synthehr.privacy.policy import Policy, load_policy
from synthehr.privacy.rows import GradientMechanism, PrivateCodes
from synthehr.randomness import FloatArray, IntArray, NoiseSource, SystemNoise, fresh_seed, seeded
from synthehr.schema.files import dump_schema
from synthehr.schema.model import Schema

__all__ = ["Progress", "train", "what_is_fitted"]

_AUTO = (
    "auto: on the flat tables that were measured private gradients showed no gain for their budget, "
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
        cohort: real records; one table with one row per patient.
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


def _independent(domain: Sequence[ColumnDomain], pair: tuple[int, ...], *, patients: int) -> FloatArray:
    """What a pair's histogram would be if its columns had nothing to do with each other."""
    first, second = (domain[c].counts for c in pair)
    return np.asarray(np.outer(first, second) / patients, dtype=np.float64)


def _groups(column: ColumnDomain, *, most: int) -> IntArray:
    ordered = not isinstance(column.cells, Values)
    return coarsen(column.counts, groups=most, nullable=column.cells.nullable, ordered=ordered)


def _weight(joint: Joint, plan: JointPlan, bought: Sequence[Joint]) -> float:
    """The precision of a histogram, where 1 is that of a pair if all bought pairs had the same."""
    return plan.buying.noise_multiplier**2 * len(bought) / joint.variance


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
        self.schema, self.table = cohort.schema, cohort.schema.root
        self.account, self.budget = account, account.budget
        self.policy, self.model, self.chosen_because = policy, model, chosen_because
        self.seed, self.device, self.noise, self.settings = seed, device, noise, settings
        self.kept = checkpoint
        self.draws = seeded(seed, 1, checkpoint.resumed)
        self._on_progress = on_progress
        self._started = time.monotonic()
        bounded, most = bound_rows(cohort, policy=policy, noise=noise)
        subject = cohort.schema.subject
        self._rows = behind_the_door(bounded, table=subject, noise=noise, max_rows=most[subject])

    def finish(self) -> Trained:
        """Run all stages."""
        patients, plan = self._count_and_plan()
        domain = self._buy_domain(plan, patients)
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
            shape=self.settings.shape_of(self.model),
            weights={name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()},
            patients_bought=patients,
            events=self.account.events,
            epsilon_spent=spent,
            noise=self.noise.name,
            why_not_private=self.noise.why_not_private,
            required_suite=self.policy.suite,
            audit_required=self.policy.audit,
        )

    def _begin(self, stage: str) -> None:
        """Write down that rows are about to be touched for a stage."""
        begun = self.kept.state.get("begun", [])
        if stage not in begun:
            self.kept.put(begun=[*begun, stage])

    def _booked(self, *events: Event) -> None:
        """Book what was bought before the fit was interrupted; its outcome is at hand."""
        for event in events:
            single = event.model_copy(update={"count": 1})
            for _ in range(event.count):
                self.account.spend(single)

    def _count_and_plan(self) -> tuple[int, FitPlan]:
        share = self.policy.shares.count * self.budget.epsilon
        count = EpsilonDelta(stage="count", epsilon=share, delta=0.0)
        self.account.plan([count])
        if "patients" in self.kept.state:
            self._booked(count)
        else:
            self._begin("count")
            self.kept.put(patients=self._rows.count_patients(self.account, event=count))
        patients = int(self.kept.state["patients"])
        self.budget.check_delta(patients_bought=patients, ratio=self.policy.delta_ratio, policy=self.policy.name)
        plan = plan_fit(
            self.table,
            budget=Budget(epsilon=self.budget.epsilon - share, delta=self.budget.delta),
            policy=self.policy,
            patients_bought=patients,
            gradients=self.settings.gradients_of(self.model),
            choice=self.settings.choice,
        )
        self.account.plan(plan.events)
        self._tell("count", 1, 1)
        return patients, plan

    def _buy_domain(self, plan: FitPlan, patients: int) -> list[ColumnDomain]:
        if "domain" in self.kept.state:
            for bought in plan.domain.values():
                self._booked(*bought.events)
        else:
            self._begin("domain")
            domain = buy_domain(
                self._rows, self.account, self.table, plans=plan.domain, patients=patients, bins=self.settings.bins
            )
            self.kept.put(domain=[record_of(column).model_dump(mode="json") for column in domain])
        self._tell("domain", 1, 1)
        # From the records in any case, so that a fit that was taken up again has the very same.
        return [column_of(ColumnRecord.model_validate(record)) for record in self.kept.state["domain"]]

    def _learn(
        self, domain: Sequence[ColumnDomain], codes: PrivateCodes, plan: FitPlan, patients: int
    ) -> tuple[Generator, list[ColumnDomain]]:
        expected = [_independent(domain, pair, patients=patients) for pair in plan.pairs.candidates]
        pairs = self._buy("pairs", codes, plan.pairs, lambda: expected)
        domain = sharpen(domain, pairs, patients=patients)
        targets = Targets(codes.sizes, patients=patients, device=self.device)
        # What was not worth buying is taken for independent, with less weight.
        for pair in itertools.combinations(range(len(domain)), 2):
            guess = _independent(domain, pair, patients=patients)
            targets.add_pair(pair, guess, weight=self.settings.choice.unbought)
        for joint in pairs:
            if len(joint.columns) == 2:
                targets.add_pair(joint.columns, joint.counts, weight=_weight(joint, plan.pairs, pairs))
        generator = self._new_generator(codes.sizes, domain)
        self._fit(generator, targets, stage="mixture")
        if plan.triples is not None:
            groups = [_groups(column, most=self.settings.choice.groups) for column in domain]
            targets.set_groups(groups)
            sets = plan.triples.candidates
            triples = self._buy(
                "triples",
                codes,
                plan.triples,
                lambda: expected_joints(generator.mixture, targets, sets, groups=groups),
                groups=groups,
            )
            domain = sharpen(domain, triples, patients=patients)
            chosen = [joint for joint in triples if len(joint.columns) == 3]
            weights = np.array([_weight(joint, plan.pairs, pairs) for joint in chosen])
            if chosen:
                targets.add_triples(
                    [joint.columns for joint in chosen], [joint.counts for joint in chosen], weight=weights
                )
                self._fit(generator, targets, stage="mixture with triples")
        if plan.gradients is not None:
            self._follow_gradients(generator, targets, codes, event=plan.gradients, patients=patients)
        return generator, domain

    def _fit(self, generator: Generator, targets: Targets, *, stage: str) -> None:
        fit, mixture = self.settings.fit, generator.mixture
        learner = Learner(mixture, rate=fit.learning_rate, steps=fit.steps, betas=(0.5, 0.9))
        held = self.kept.part(f"{stage}.")
        if held:
            learner.restore(held)
        for step in fit_to_targets(learner, mixture, targets, settings=fit):
            self._tell(stage, step, fit.steps)
            if step == fit.steps or self.kept.due():
                self.kept.put(tensors={f"{stage}.{name}": value for name, value in learner.tensors().items()})

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
            self._booked(single.model_copy(update={"count": counted * settings.gradients}))
        for start in range(counted, settings.steps, settings.block):
            end = min(start + settings.block, settings.steps)
            self._begin("gradients")
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

    def _buy(
        self,
        stage: str,
        codes: PrivateCodes,
        plan: JointPlan,
        expected: Callable[[], Sequence[FloatArray]],
        *,
        groups: Sequence[IntArray] | None = None,
    ) -> list[Joint]:
        """Weigh the candidates against what is expected of them, and buy those that are worth it.

        Where none is, the event buys the histograms of single columns once more.
        """
        if stage in self.kept.state:
            self._booked(*plan.events)
        else:
            guesses = expected()
            self._begin(stage)
            shares = self._weigh(codes, plan, guesses, groups=groups)
            bought = {columns: share for columns, share in zip(plan.candidates, shares, strict=True) if share}
            if not bought:
                groups = None
                bought = {(at,): 1.0 / len(codes.sizes) for at in range(len(codes.sizes))}
            counts = codes.marginals(
                self.account, list(bought), shares=list(bought.values()), event=plan.buying, groups=groups
            )
            self.kept.put(
                tensors={f"{stage}.{at}": torch.from_numpy(found) for at, found in enumerate(counts)},
                **{stage: [[list(columns), share] for columns, share in bought.items()]},
            )
        self._tell(stage, 1, 1)
        return [
            Joint(
                columns=tuple(columns),
                counts=self.kept.tensors[f"{stage}.{at}"].numpy(),
                variance=plan.buying.noise_multiplier**2 / share,
            )
            for at, (columns, share) in enumerate(self.kept.state[stage])
        ]

    def _weigh(
        self,
        codes: PrivateCodes,
        plan: JointPlan,
        expected: Sequence[FloatArray],
        *,
        groups: Sequence[IntArray] | None,
    ) -> list[float]:
        if plan.weighing is None:
            return [1.0 / len(plan.candidates)] * len(plan.candidates)
        choice = self.settings.choice
        distance = codes.misfits(self.account, plan.candidates, expected, event=plan.weighing, groups=groups)
        focus = {at for at, name in enumerate(self.table.kept) if name in self.table.outcome}
        shares = share_out(
            distance - np.array([chance_distance(guess) for guess in expected]),
            np.array([float(guess.size) for guess in expected]),
            event=plan.buying,
            price=choice.price,
            most=len(plan.candidates) if groups is None else choice.triples_bought,
            emphasis=np.array([choice.focus if focus & set(columns) else 1.0 for columns in plan.candidates]),
        )
        return [float(share) for share in shares]

    def _new_generator(self, sizes: Sequence[int], domain: Sequence[ColumnDomain]) -> Generator:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            generator = Generator(sizes=sizes, **self.settings.shape_of(self.model).model_dump())
        scatter(generator.mixture, domain, spread=self.settings.fit.spread, seed=self.seed)
        return generator.to(self.device)

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
