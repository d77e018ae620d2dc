"""One conditional table from its door to its generator: domain, pairs, mixture, triples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import torch

from synthehr.encoding.domain import ColumnDomain, Joint, buy_domain, sharpen
from synthehr.encoding.records import ColumnRecord, column_of, record_of
from synthehr.encoding.refining import on_simplex
from synthehr.encoding.unroll import ConditionalTable
from synthehr.models.base import GeneratorShape
from synthehr.models.checkpoint import Checkpoint
from synthehr.models.columns import Expectation, Learned, cells_above, repeated_columns
from synthehr.models.learner import Learner
from synthehr.models.loglinear import Conditional
from synthehr.models.marginals import Targets, expected_joints, fit_to_targets, scatter
from synthehr.models.networks import Generator
from synthehr.models.outcomes import OutcomeSettings, drawn_outcome, fit_outcome
from synthehr.models.planning import JointPlan, TablePlan, TrainingSettings, focused, is_kin, stage_prefix
from synthehr.models.rollout import Rolled
from synthehr.models.sampling import Sampler
from synthehr.models.search import Search
from synthehr.models.selection import chance_distance, coarsen, share_out
from synthehr.privacy.accountant import Account, Event
from synthehr.privacy.history import Repeated
from synthehr.privacy.partition import Cells, Values
from synthehr.privacy.rows import PrivateCodes, PrivateRows
from synthehr.randomness import FloatArray, IntArray
from synthehr.schema.model import Table

__all__ = ["FitTools", "Fitted", "PatientsFit", "RowsFit", "fit_outcomes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitTools:
    """What the fits of all tables share.

    Attributes:
        account: where every touch of rows is booked.
        kept: what a checkpoint holds is taken from it, and the rest is done and put there.
        settings: sizes and steps.
        seed: of initial weights.
        device: where the mixture learns.
        tell: called with stage, step and number of steps.
    """

    account: Account
    kept: Checkpoint
    settings: TrainingSettings
    seed: int
    device: torch.device
    tell: Callable[[str, int, int], None]

    def begin(self, stage: str) -> None:
        """Write down that rows are about to be touched for a stage."""
        begun = self.kept.state.get("begun", [])
        if stage not in begun:
            self.kept.put(begun=[*begun, stage])

    def booked(self, *events: Event) -> None:
        """Book what was bought before the fit was interrupted; its outcome is at hand."""
        for event in events:
            single = event.model_copy(update={"count": 1})
            for _ in range(event.count):
                self.account.spend(single)


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledTo:
    """What a mixture was pulled to.

    Attributes:
        targets: as it sees them.
        pairs: of all columns, those that were not bought as they are expected to be.
        triples: of coarser cells.
        groups: of each cell its coarser one, one array a column; None where there are no triples.
        unit: the variance of a pair if all bought pairs had the same.
    """

    targets: Targets
    pairs: Sequence[Joint]
    unit: float
    triples: Sequence[Joint] = ()
    groups: Sequence[IntArray] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A table that was learned, with what the next ones need of it.

    Attributes:
        learned: what sampling needs.
        codes: its rows, behind the door.
        pulled_to: what the mixture was pulled to; None of child tables.
    """

    learned: Learned
    codes: PrivateCodes
    pulled_to: PulledTo | None = None


class _TableFit:
    """The fit of one conditional table, stage by stage.

    Args:
        made: what the table is learned as.
        plan: what is bought of it.
        rows: behind the door.
        patients: the bought number of patients.
        tools: what all fits share.
    """

    def __init__(
        self, made: ConditionalTable, plan: TablePlan, rows: PrivateRows, *, patients: int, tools: FitTools
    ) -> None:
        self._made, self._plan, self._rows, self._tools = made, plan, rows, tools
        self._prefix = stage_prefix(made)
        self._kept, self._settings = tools.kept, tools.settings
        self._focus = tools.settings.rows.focus if made.depth else tools.settings.choice.focus
        self._patients: float = patients

    def _buy_domain(self) -> list[ColumnDomain]:
        stage = f"{self._prefix}domain"
        if stage in self._kept.state:
            for bought in self._plan.domain.values():
                self._tools.booked(*bought.events)
        else:
            self._tools.begin(stage)
            domain = buy_domain(
                self._rows,
                self._tools.account,
                self._made.table,
                plans=self._plan.domain,
                patients=self._patients,
                bins=self._settings.bins,
            )
            known: dict[str, Any] = {stage: [record_of(column).model_dump(mode="json") for column in domain]}
            self._kept.put(**known)
        self._tools.tell(stage, 1, 1)
        # From the records in any case, so that a fit that was taken up again has the very same.
        return [column_of(ColumnRecord.model_validate(record)) for record in self._kept.state[stage]]

    def _buy(
        self,
        name: str,
        codes: PrivateCodes,
        plan: JointPlan,
        expected: Callable[[], Sequence[FloatArray]],
        *,
        groups: Sequence[IntArray] | None = None,
        lengths: Callable[[], FloatArray] | None = None,
    ) -> list[Joint]:
        """Weigh the candidates against what is expected of them, and buy those that are worth it.

        Where none is, the event buys the histograms of single own columns once more. In a child table each patient's
        part of a histogram is scaled to length 1; the histogram is handed out as summing to the patients with rows.
        """
        stage = self._prefix + name
        if stage in self._kept.state:
            self._tools.booked(*plan.events)
        else:
            guesses = expected()
            self._tools.begin(stage)
            spread = lengths() if lengths is not None else None
            shares = self._weigh(codes, plan, guesses, groups=groups, spread=spread)
            bought = {columns: share for columns, share in zip(plan.candidates, shares, strict=True) if share}
            together = bool(bought)
            if not bought:
                groups, own = None, len(self._made.own)
                bought = {(at,): 1.0 / own for at in range(own)}
            counts = codes.marginals(
                self._tools.account,
                list(bought),
                shares=list(bought.values()),
                event=plan.buying,
                groups=groups,
                scaled=together and self._made.depth > 0,
                by=[self._counted_by(columns) for columns in bought] if together and self._made.depth else (),
            )
            self._kept.put(
                tensors={f"{stage}.{at}": torch.from_numpy(found) for at, found in enumerate(counts)},
                **{stage: [[list(columns), share] for columns, share in bought.items()]},
            )
        self._tools.tell(stage, 1, 1)
        joints = [
            Joint(
                columns=tuple(columns),
                counts=self._kept.tensors[f"{stage}.{at}"].numpy(),
                variance=plan.buying.noise_multiplier**2 / share,
            )
            for at, (columns, share) in enumerate(self._kept.state[stage])
        ]
        return [self._summing(joint) if self._made.depth and len(joint.columns) > 1 else joint for joint in joints]

    def _is_needed(self, columns: tuple[int, ...]) -> bool:
        chosen = {self._made.names[at] for at in columns}
        return any(chosen == set(needed) for needed in self._made.needed())

    def _counted_by(self, columns: tuple[int, ...]) -> int | None:
        code = self._made.counted_by([self._made.names[at] for at in columns])
        return None if code is None else self._made.names.index(code)

    def _summing(self, joint: Joint) -> Joint:
        """A histogram in which patients with rows count as often as they may, as one in which they count once."""
        unit = self._patients / max(float(joint.counts.sum()), self._patients)
        return replace(joint, counts=joint.counts * unit, variance=joint.variance * unit**2)

    def _weigh(
        self,
        codes: PrivateCodes,
        plan: JointPlan,
        expected: Sequence[FloatArray],
        *,
        groups: Sequence[IntArray] | None,
        spread: FloatArray | None,
    ) -> list[float]:
        if plan.weighing is None:
            return [1.0 / len(plan.candidates)] * len(plan.candidates)
        choice, matter = self._settings.choice, focused(self._made)
        distance = codes.misfits(self._tools.account, plan.candidates, expected, event=plan.weighing, groups=groups)
        focus = {at for at, name in enumerate(self._made.names) if name in matter}
        # Of hundreds of sets that are as expected, the noise of some is need enough: that of child tables, all of whose
        # columns know the row before, must be more than their own noise would make it.
        noise = plan.weighing.noise_multiplier * math.sqrt(len(expected))
        doubt = self._settings.rows.doubt * noise if self._made.depth else 0.0
        need = distance - np.array([chance_distance(guess) for guess in expected]) - doubt
        needed = np.array([self._is_needed(columns) for columns in plan.candidates])
        need[needed] = max(float(need.max()), 1.0)
        shares = share_out(
            need,
            np.array([float(guess.size) for guess in expected]) / (1.0 if spread is None else spread),
            event=plan.buying,
            price=choice.price,
            most=len(plan.candidates) if groups is None else choice.triples_bought,
            emphasis=np.where(needed, self._focus, [self._emphasis(c, focus) for c in plan.candidates]),
        )
        return [float(share) for share in shares]

    def _emphasis(self, columns: tuple[int, ...], focus: set[int]) -> float:
        if focus & set(columns):
            return self._focus
        names = [self._made.names[at] for at in columns]
        return self._settings.rows.kin if is_kin(names, self._made) else 1.0


class PatientsFit(_TableFit):
    """The fit of the patients' own table: a mixture pulled to what was bought.

    Args:
        made: see above; as all but the last.
        plan: what is bought of it.
        rows: behind the door.
        patients: the bought number of patients.
        tools: what all fits share.
        shape: of the generator.
    """

    def __init__(
        self,
        made: ConditionalTable,
        plan: TablePlan,
        rows: PrivateRows,
        *,
        patients: int,
        tools: FitTools,
        shape: GeneratorShape,
    ) -> None:
        super().__init__(made, plan, rows, patients=patients, tools=tools)
        self._shape = shape

    def run(self) -> Fitted:
        """All stages but private gradients."""
        domain = self._buy_domain()
        cells: dict[str, Cells] = {column.name: column.cells for column in domain}
        codes = self._rows.encode(cells)
        generator, columns, pulled_to = self._learn(domain, codes)
        learned = Learned(made=self._made, domain=tuple(columns), cells=cells, generator=generator)
        return Fitted(learned=learned, codes=codes, pulled_to=pulled_to)

    def _learn(
        self,
        columns: Sequence[ColumnDomain],
        codes: PrivateCodes,
    ) -> tuple[Generator, list[ColumnDomain], PulledTo]:
        plan, choice, patients = self._plan, self._settings.choice, self._patients
        expectation = Expectation(self._made, columns, patients=patients)
        expected = [expectation.pair(pair) for pair in plan.pairs.candidates]
        pairs = self._buy("pairs", codes, plan.pairs, lambda: expected)
        columns = sharpen(columns, pairs, patients=patients)
        expectation = Expectation(self._made, columns, patients=patients)
        targets = Targets(codes.sizes, patients=patients, device=self._tools.device)
        # What was not worth buying is as it is expected to be, with less weight.
        unit = plan.pairs.buying.noise_multiplier**2 * len(pairs)
        found = {
            pair: Joint(columns=pair, counts=expectation.pair(pair), variance=unit / max(choice.unbought, 1e-9))
            for pair in itertools.combinations(range(len(columns)), 2)
        }
        found |= {joint.columns: joint for joint in pairs if len(joint.columns) == 2}
        for pair, joint in found.items():
            targets.add_pair(pair, joint.counts, weight=unit / joint.variance)
        generator = self._new_generator(codes.sizes, columns)
        self._fit(generator, targets, stage=f"{self._prefix}mixture")
        pulled_to = PulledTo(targets=targets, pairs=list(found.values()), unit=unit)
        if plan.triples is not None:
            columns, pulled_to = self._learn_triples(generator, columns, codes, pulled_to)
        return generator, columns, pulled_to

    def _learn_triples(
        self,
        generator: Generator,
        columns: Sequence[ColumnDomain],
        codes: PrivateCodes,
        pulled_to: PulledTo,
    ) -> tuple[list[ColumnDomain], PulledTo]:
        plan, targets = self._plan, pulled_to.targets
        assert plan.triples is not None, "asked for where there are some"
        groups = [_groups(column, most=self._settings.choice.groups) for column in columns]
        targets.set_groups(groups)
        sets = plan.triples.candidates
        triples = self._buy(
            "triples",
            codes,
            plan.triples,
            lambda: expected_joints(generator.mixture, targets, sets, groups=groups),
            groups=groups,
        )
        sharpened = sharpen(columns, triples, patients=self._patients)
        chosen = [joint for joint in triples if len(joint.columns) == 3]
        if chosen:
            weights = np.array([pulled_to.unit / joint.variance for joint in chosen])
            targets.add_triples([joint.columns for joint in chosen], [joint.counts for joint in chosen], weight=weights)
            self._fit(generator, targets, stage=f"{self._prefix}mixture with triples")
        return sharpened, replace(pulled_to, triples=chosen, groups=groups)

    def _fit(self, generator: Generator, targets: Targets, *, stage: str) -> None:
        fit, mixture = self._settings.fit, generator.mixture
        learner = Learner(mixture, rate=fit.learning_rate, steps=fit.steps, betas=(0.5, 0.9))
        held = self._kept.part(f"{stage}.")
        if held:
            learner.restore(held)
        for step in fit_to_targets(learner, mixture, targets, settings=fit):
            self._tools.tell(stage, step, fit.steps)
            if step == fit.steps or self._kept.due():
                self._kept.put(tensors={f"{stage}.{name}": value for name, value in learner.tensors().items()})

    def _new_generator(self, sizes: Sequence[int], columns: Sequence[ColumnDomain]) -> Generator:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._tools.seed)
            generator = Generator(sizes=sizes, **self._shape.model_dump())
        scatter(generator.mixture, columns, spread=self._settings.fit.spread, seed=self._tools.seed)
        return generator.to(self._tools.device)


def fit_outcomes(fitted: Fitted, *, patients: int, settings: OutcomeSettings, draws: np.random.Generator) -> Fitted:
    """The patients' own table with its declared outcomes given all else, one after the other.

    Outcomes that are numbers stay as the generator has them.

    Args:
        fitted: with its generator as it will be.
        patients: the bought number of them.
        settings: see there.
        draws: for the rows that are made up.
    """
    learned, pulled_to = fitted.learned, fitted.pulled_to
    assert learned.generator is not None and pulled_to is not None, "patients have a generator"
    names = list(learned.made.own)
    left = [name for name in learned.made.table.outcome if isinstance(learned.cells.get(name), Values)]
    if not left or not settings.steps or len(names) < 2:
        return fitted
    codes = Sampler(learned.generator.cpu()).plain(settings.rows, draws)
    while left:
        outcome = names.index(left.pop(0))
        later = {names.index(name) for name in left}
        joints = [
            joint
            for joint in (*pulled_to.pairs, *pulled_to.triples)
            if outcome in joint.columns and not later & set(joint.columns)
        ]
        found = fit_outcome(
            outcome,
            codes,
            learned.domain,
            joints,
            groups=pulled_to.groups,
            patients=float(patients),
            settings=settings,
        )
        codes[outcome] = drawn_outcome(found, dict(zip(names, codes, strict=True)), settings.rows, draws)
        learned = replace(learned, conditionals=(*learned.conditionals, found))
    return replace(fitted, learned=learned)


class RowsFit(_TableFit):
    """The fit of a child table: each own column given what is known before it, see :mod:`synthehr.models.loglinear`."""

    def run(self, above: Fitted, made_up: Rolled, table: Table) -> Fitted:
        """All stages.

        Args:
            above: the parent's table.
            made_up: rows that its model makes, with the numbers of rows here.
            table: as the schema declares it.
        """
        self._count_rows()
        own, parent = self._buy_domain(), above.learned
        cells: dict[str, Cells] = {column.name: column.cells for column in own}
        context = cells_above(self._made, parent.cells)
        history = repeated_columns(self._made, cells, context)
        codes = self._rows.encode(
            cells,
            above=above.codes,
            context=[parent.made.names.index(name) for name in self._made.context.values()],
            history=history,
        )
        columns = [*own, *self._context_columns(context, made_up), *self._buy_history(codes, history)]
        every = {**cells, **context, **{past.name: past.cells for past in history}}
        domain, conditionals = self._learn(columns, codes, every, made_up, table)
        learned = Learned(made=self._made, domain=tuple(domain), cells=every, conditionals=conditionals)
        return Fitted(learned=learned, codes=codes)

    def _count_rows(self) -> None:
        """The bought number of patients with rows, to which every histogram of the table sums."""
        event, name = self._plan.rows, f"{self._prefix}rows"
        if event is None:
            return
        if name in self._kept.state:
            self._tools.booked(event)
        else:
            self._tools.begin(name)
            known: dict[str, Any] = {name: self._rows.count_with_rows(self._tools.account, event=event)}
            self._kept.put(**known)
        self._patients = min(max(1.0, float(self._kept.state[name])), self._patients)

    def _context_columns(self, context: Mapping[str, Cells], made_up: Rolled) -> Iterator[ColumnDomain]:
        """What the parents of rows are like, as their model makes them."""
        counts = made_up.frame[f"[rows of {self._made.name}]"].cast(pl.Float64).to_numpy()
        whole = np.bincount(made_up.of_patient, weights=counts)[made_up.of_patient]
        weight = np.divide(counts, whole, out=np.zeros_like(counts), where=whole > 0.0)
        weight *= self._patients / max(float(weight.sum()), 1e-9)
        for name, column in self._made.context.items():
            size = context[name].size
            found = np.bincount(made_up.codes[column], weights=weight, minlength=size).astype(np.float64)
            yield ColumnDomain(name=name, cells=context[name], counts=found, variance=np.ones(size))

    def _buy_history(self, codes: PrivateCodes, history: Sequence[Repeated]) -> list[ColumnDomain]:
        event, stage = self._plan.history, f"{self._prefix}history"
        if event is None:
            return []
        if stage in self._kept.state:
            self._tools.booked(event)
        else:
            self._tools.begin(stage)
            first = len(codes.sizes) - len(history)
            sets = [(first + at,) for at in range(len(history))]
            counts = codes.marginals(self._tools.account, sets, shares=[1.0 / len(sets)] * len(sets), event=event)
            self._kept.put(
                tensors={f"{stage}.{at}": torch.from_numpy(found) for at, found in enumerate(counts)}, **{stage: True}
            )
        variance = event.noise_multiplier**2 * len(history)
        return [
            ColumnDomain(
                name=past.name,
                cells=past.cells,
                counts=on_simplex(self._kept.tensors[f"{stage}.{at}"].numpy(), total=self._patients),
                variance=np.full(past.cells.size, variance),
            )
            for at, past in enumerate(history)
        ]

    def _learn(
        self,
        columns: Sequence[ColumnDomain],
        codes: PrivateCodes,
        cells: Mapping[str, Cells],
        made_up: Rolled,
        table: Table,
    ) -> tuple[list[ColumnDomain], tuple[Conditional, ...]]:
        plan, own = self._plan, len(self._made.own)
        expectation = Expectation(self._made, columns, patients=self._patients)
        search = Search(
            self._made,
            columns[:own],
            cells,
            table,
            made_up,
            settings=self._settings.rows,
            patients=self._patients,
            seed=self._tools.seed,
            tell=lambda step, total: self._tools.tell(f"{self._prefix}rows", step, total),
        )
        pairs = self._buy(
            "pairs",
            codes,
            plan.pairs,
            lambda: [expectation.pair(pair) for pair in plan.pairs.candidates],
            lengths=lambda: search.lengths(plan.pairs.candidates),
        )
        search.add_last_rows([column for column in columns if column.name in self._made.history])
        search.add(pairs)
        search.run()
        if plan.triples is not None:
            groups = [_groups(column, most=self._settings.choice.groups) for column in columns]
            sets = plan.triples.candidates
            triples = self._buy(
                "triples",
                codes,
                plan.triples,
                lambda: search.expected(sets, groups),
                groups=groups,
                lengths=lambda: search.lengths(sets, groups),
            )
            chosen = [joint for joint in triples if len(joint.columns) == 3]
            if chosen:
                search.add(chosen, groups=groups)
                search.run()
        return list(columns[:own]), search.conditionals


def _groups(column: ColumnDomain, *, most: int) -> IntArray:
    ordered = not isinstance(column.cells, Values)
    return coarsen(column.counts, groups=most, nullable=column.cells.nullable, ordered=ordered)
