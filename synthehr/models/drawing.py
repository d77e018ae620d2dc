"""From a generator to rows without end: conditions, declared rules, even groups; batch by batch, in flat memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import polars as pl
import torch

from synthehr.encoding.codec import Decoder, labels_of
from synthehr.encoding.conditions import Region, region_of
from synthehr.encoding.domain import ColumnDomain
from synthehr.encoding.subsets import Subset
from synthehr.errors import ConfigError, DataError
from synthehr.models.conditional import Conditional, Pilot, target_of
from synthehr.models.sampling import BATCH, Sampler
from synthehr.privacy.partition import Values
from synthehr.randomness import seeded
from synthehr.schema.model import Table
from synthehr.schema.rules import Rule

__all__ = ["Drawing", "Group", "Method"]

Method: TypeAlias = Literal["plain", "direct", "rejection", "direct, then rejection"]
_ROWS = 32768
_PARTS_AT_MOST = 2**17
# Where there are many patients, several are of one part, so that the refiner need not run for each: of so many parts
# at least, and so many patients of one at most.
_PARTS_ENOUGH, _EACH_AT_MOST = 2**16, 64
_RAREST = 1e-6
_HOPE = 16 * _ROWS
_PATIENCE = 200


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What became of the rows drawn.

    Attributes:
        drawn: rows.
        met: those of them that met the conditions.
        kept: those of these that met the rules.
        parts: how many were weighed, those of the pilot included.
        weight: the sum of their weights.
        most: rows that one part made, at most.
    """

    drawn: int = 0
    met: int = 0
    kept: int = 0
    parts: int = 0
    weight: float = 0.0
    most: int = 1

    def add(self, other: _Tally) -> None:
        self.drawn += other.drawn
        self.met += other.met
        self.kept += other.kept
        self.parts += other.parts
        self.weight += other.weight
        self.most = max(self.most, other.most)

    @property
    def probability(self) -> float:
        """The model's probability of the conditions."""
        within = self.weight / self.parts if self.parts else 1.0
        return within * (self.met / self.drawn if self.drawn else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group of a balanced cohort.

    Attributes:
        value: of the balanced column.
        patients: rows of it.
        model_share: its share among the groups under the model, given the conditions.
    """

    value: str | bool
    patients: int
    model_share: float


class _Workers:
    """Threads that make batches ahead, each with one thread of torch's: no batch depends on their number."""

    def __init__(self, pool: ThreadPoolExecutor | None, size: int) -> None:
        self.pool, self.size = pool, size

    @classmethod
    @contextmanager
    def hired(cls) -> Iterator[_Workers]:
        """As many as torch may use threads; with one, batches are made where they are asked for."""
        threads = torch.get_num_threads()
        if threads == 1:
            yield cls(None, 1)
            return
        pool = ThreadPoolExecutor(threads, thread_name_prefix="draw", initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield cls(pool, threads)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads)


_Batch: TypeAlias = tuple[pl.DataFrame, _Tally]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """How rows of a region are to be drawn.

    Attributes:
        conditional: what draws inside the region, or what of it the parts of the mixture know; None for all rows.
        pilot: of it.
        value: of the balanced column where that is an outcome, which only whole rows know; None elsewhere.
        rejects: whether rows may come out that do not lie in the region.
    """

    conditional: Conditional | None = None
    pilot: Pilot | None = None
    value: str | bool | None = None
    rejects: bool = False


@dataclass(slots=True)
class _Stream:
    """Rows that meet a region, the conditions and the rules, without end.

    Args:
        batch: makes the next rows from draws of their own.
        seed: of the stream.
        workers: who make batches.
        wanted: rows that will be asked for.
        expected: rows of a batch before conditions and rules are judged, about.
        what: what is asked for, in words.
    """

    batch: Callable[[np.random.Generator], _Batch]
    seed: tuple[int, ...]
    workers: _Workers
    wanted: int
    expected: float
    what: str
    tally: _Tally = field(default_factory=_Tally)
    _begun: int = 0
    _given: int = 0
    _ahead: deque[Future[_Batch]] = field(default_factory=deque)
    _left: list[pl.DataFrame] = field(default_factory=list)

    def rows(self, count: int) -> pl.DataFrame:
        """The next ``count`` rows.

        Raises:
            DataError: too few rows meet the conditions and rules.
        """
        frames, held = self._left, sum(frame.height for frame in self._left)
        while held < count or not frames:
            frame, tally = self._next()
            self.tally.add(tally)
            self._check_hope()
            frames.append(frame)
            held += frame.height
        whole = pl.concat(frames)
        self._left = [whole[count:]]
        self._given += count
        return whole[:count]

    def _next(self) -> _Batch:
        if self.workers.pool is None:
            self._begun += 1
            return self.batch(seeded(*self.seed, self._begun - 1))
        kept = self.tally.kept / self.tally.drawn if self.tally.drawn else 1.0
        missing = self.wanted - self._given - sum(frame.height for frame in self._left)
        batches = missing / max(self.expected * kept, 1e-9)
        while len(self._ahead) < min(self.workers.size + 1, max(1.0, batches)):
            self._ahead.append(self.workers.pool.submit(self.batch, seeded(*self.seed, self._begun)))
            self._begun += 1
        return self._ahead.popleft().result()

    def _check_hope(self) -> None:
        seen = self.tally
        tried = max(seen.drawn, seen.parts)
        lawful = seen.probability * seen.kept / max(seen.met, 1)
        if (tried >= _HOPE and lawful < _RAREST) or (
            tried >= _PATIENCE * _ROWS and seen.kept * _PATIENCE < self.wanted
        ):
            raise DataError(
                f"{self.what} is next to impossible in this release, with the declared rules where there are any: "
                f"{seen.kept} patients met it in {tried} tries; loosen it"
            )


class Drawing:
    """``rows`` rows of a generator that meet the conditions and the declared rules.

    Args:
        sampler: of the generator.
        domain: the columns' cells.
        table: the columns' declarations.
        rules: declared for the table.
        conditions: asked for.
        balance: a category, code or boolean column whose values are to have even shares; its missing ones and those
            that the conditions leave no room for are left out.
        rows: how many.
        seed: same generator, arguments and seed give the same rows.

    Raises:
        ConfigError: there is no such column to balance, or it is a number.
        DataError: the conditions cannot be met, or so rarely that no rows can be made.
    """

    def __init__(
        self,
        sampler: Sampler,
        domain: Sequence[ColumnDomain],
        table: Table,
        *,
        rules: Sequence[Rule],
        conditions: Sequence[Rule],
        balance: str | None,
        rows: int,
        seed: int,
    ) -> None:
        self._sampler = sampler
        self._decoder = Decoder(domain, table)
        self._domain, self._table, self._seed, self._total = tuple(domain), table, seed, rows
        self._rules, self.conditions = tuple(rules), tuple(conditions)
        self._balance = balance
        self._region = self._asked_for()
        self._lawful = region_of(self._rules, domain=domain, table=table)
        self.left_out: dict[str | bool, str] = {}
        self._values: list[str | bool] = []
        self._sources: list[_Source] = []
        if balance is None:
            self._sources.append(self._source(self._region, what="--where", stream=0))
        else:
            self._prepare_groups(balance)
        self._tallies: list[_Tally] = []
        self._each = min(max(1, rows // _PARTS_ENOUGH), _EACH_AT_MOST) if self._sampler.refined else 1

    @property
    def method(self) -> Method:
        """How rows that meet the conditions came about."""
        direct = any(source.pilot is not None for source in self._sources)
        rejected = any(source.rejects for source in self._sources)
        if not self.conditions and self._balance is None:
            return "plain"
        if not rejected:
            return "direct"
        return "direct, then rejection" if direct else "rejection"

    @property
    def match_rate(self) -> float | None:
        """The model's share of patients that meet the conditions, of those in a group where there are groups."""
        return min(1.0, sum(tally.probability for tally in self._tallies)) if self.conditions else None

    @property
    def rule_rate(self) -> float | None:
        """The share of the rows that met the conditions which met the rules too; null without rules."""
        met = sum(tally.met for tally in self._tallies)
        return sum(tally.kept for tally in self._tallies) / max(met, 1) if self._rules else None

    @property
    def parts(self) -> int:
        """How many parts of the mixture were weighed; 0 where rows were not drawn directly."""
        return sum(tally.parts for tally in self._tallies)

    @property
    def most_of_one(self) -> int:
        """Rows that one part made, at most; they are independent given it."""
        return max(tally.most for tally in self._tallies)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups of a balanced cohort."""
        if self._balance is None:
            return ()
        shares = np.array([tally.probability for tally in self._tallies])
        return tuple(
            Group(value=value, patients=patients, model_share=float(share))
            for value, patients, share in zip(
                self._values, self._quotas(self._total), shares / shares.sum(), strict=True
            )
        )

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows, some ten thousands at a time."""
        with _Workers.hired() as workers:
            quotas = self._quotas(self._total)
            streams = [
                self._stream(at, source, workers, wanted=wanted)
                for at, (source, wanted) in enumerate(zip(self._sources, quotas, strict=True))
            ]
            self._tallies = [stream.tally for stream in streams]
            done = [0] * len(streams)
            for at, end in enumerate([*range(_ROWS, self._total, _ROWS), self._total]):
                upto = self._quotas(end)
                parts = [stream.rows(to - of) for stream, of, to in zip(streams, done, upto, strict=True) if to > of]
                frame, done = pl.concat(parts), upto
                if len(streams) > 1:
                    order = seeded(self._seed, 3, 0, at).permutation(frame.height)
                    frame = frame[order]
                yield frame

    def _quotas(self, rows: int) -> list[int]:
        """How many of the first ``rows`` rows are of each group."""
        groups = len(self._sources)
        return [(rows + groups - 1 - at) // groups for at in range(groups)]

    def _asked_for(self) -> Region:
        for condition in self.conditions:
            if not region_of([condition], domain=self._domain, table=self._table).boxes:
                raise DataError(
                    f"--where {condition.text!r} is impossible: this release makes no value of "
                    f"{', '.join(repr(name) for name in condition.columns)} that meets it; loosen it"
                )
        region = region_of(self.conditions, domain=self._domain, table=self._table)
        if not region.boxes:
            raise DataError("the conditions of --where exclude each other, so that no row can meet them: loosen one")
        return region

    def _prepare_groups(self, balance: str) -> None:
        places = {column.name: at for at, column in enumerate(self._domain)}
        if balance not in places:
            raise ConfigError(f"--balance names {balance!r}, which is not a kept column of the release")
        cells = self._domain[places[balance]].cells
        if not isinstance(cells, Values):
            kind = self._table.kept[balance].kind
            raise ConfigError(
                f"--balance needs a category, code or boolean column, and {balance!r} is of kind {kind}: "
                "draw ranges of it with --where, one cohort each"
            )
        labels = labels_of(cells, self._table.kept[balance])
        for at, value in enumerate(labels.to_list()):
            if value is None:
                continue
            alone = Subset.of_mask(np.arange(cells.size) == at)
            region = self._region & Region(({balance: alone},), exact=True)
            try:
                source = self._source(region, what=f"{balance} = {value!r}", stream=at)
                if balance in self._sampler.outcomes:
                    source = self._of_outcome(source, balance, at, value)
            except DataError:
                self.left_out[value] = "impossible" if not (region & self._lawful).boxes else "next to impossible"
                continue
            self._values.append(value)
            self._sources.append(source)
        if len(self._sources) < 2:
            raise DataError(
                f"--balance {balance}: this release makes fewer than two of its values"
                f"{' that meet --where' if self.conditions else ''}, so that there is nothing to balance"
            )

    def _source(self, region: Region, *, what: str, stream: int) -> _Source:
        """How rows of a region are to be drawn, once it is known that there are any."""
        if not (region & self._lawful).boxes:
            raise DataError(f"{what} and the declared rules exclude each other: no row can meet both")
        known = self._known_to_parts(region)
        rejects = known is not region or not region.exact
        if not any(known.boxes):
            return _Source(rejects=rejects)
        conditional = Conditional(self._sampler, [target_of(box, self._domain) for box in known.boxes])
        pilot = conditional.pilot(seeded(self._seed, 4, 0, stream))
        if pilot is None or pilot.probability < _RAREST:
            raise DataError(
                f"{what} is next to impossible in this release: fewer than one patient in a million meets it; loosen it"
            )
        return _Source(conditional=conditional, pilot=pilot, rejects=rejects)

    def _known_to_parts(self, region: Region) -> Region:
        """The region without what it asks of outcomes, which follow from whole rows; the same where that is nothing."""
        outcomes = self._sampler.outcomes
        if not any(name in outcomes for box in region.boxes for name in box):
            return region
        known = Region((), exact=False)
        for box in region.boxes:
            rest = {name: subset for name, subset in box.items() if name not in outcomes}
            known = known | Region((rest,), exact=False)
        return known

    def _of_outcome(self, source: _Source, outcome: str, cell: int, value: str | bool) -> _Source:
        """How rows of one value of an outcome are to be drawn: until there are enough."""
        share = self._sampler.share_of_outcome(outcome, cell, seeded(self._seed, 4, 1, cell))
        if share < _RAREST:
            raise DataError(f"{outcome} = {value!r} is next to impossible in this release")
        return replace(source, value=value)

    def _stream(self, at: int, source: _Source, workers: _Workers, *, wanted: int) -> _Stream:
        conditional, pilot, value = source.conditional, source.pilot, source.value
        what = "--where" if self._balance is None else f"{self._balance} = {self._values[at]!r}"
        seed = (self._seed, 2, at)
        if conditional is None or pilot is None:
            some_are_left_out = self._rules or self.conditions or value is not None
            rows = min(_ROWS, 2 * wanted + BATCH if some_are_left_out else wanted)
            return _Stream(lambda draws: self._plain(rows, draws, value), seed, workers, wanted, rows, what)
        wish = min(1.1 * wanted + 16, _ROWS) / pilot.yielded
        parts = int(min(max(wish, BATCH), _PARTS_AT_MOST))
        return _Stream(
            lambda draws: self._held(conditional, pilot, parts, draws, value),
            seed,
            workers,
            wanted,
            parts * pilot.yielded,
            what,
            _Tally(parts=pilot.parts, weight=pilot.probability * pilot.parts),
        )

    def _plain(self, rows: int, draws: np.random.Generator, value: str | bool | None) -> _Batch:
        """Rows as the generator makes them, those left that meet conditions and rules."""
        codes = self._sampler.plain(rows, draws, each=self._each)
        return self._judged(self._decoder.rows(codes, draws), _Tally(most=self._each), value)

    def _held(
        self, conditional: Conditional, pilot: Pilot, parts: int, draws: np.random.Generator, value: str | bool | None
    ) -> _Batch:
        """Rows of the region, those left that meet conditions and rules, in random order."""
        boxes, weights, most = conditional.rows(pilot, parts, draws)
        frames = [
            self._decoder.rows(codes, draws, within=target.interiors)
            for codes, target in zip(boxes, conditional.targets, strict=True)
        ]
        frame = pl.concat(frames)
        tally = _Tally(parts=len(weights), weight=float(weights.sum()), most=most)
        return self._judged(frame[draws.permutation(frame.height)], tally, value)

    def _judged(self, frame: pl.DataFrame, tally: _Tally, value: str | bool | None) -> _Batch:
        tally.drawn = frame.height
        frame = _meeting(frame, self.conditions)
        if value is not None and self._balance is not None:
            frame = frame.filter(pl.col(self._balance) == value)
        tally.met = frame.height
        frame = _meeting(frame, self._rules)
        tally.kept = frame.height
        return frame, tally


def _meeting(frame: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    for rule in rules:
        frame = frame.filter(rule.holds(frame))
    return frame
