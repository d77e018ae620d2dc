"""From patients to the rows of their other tables: each row drawn given its ancestors and the patient's rows before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthehr.encoding.codec import Decoder
from synthehr.encoding.lattice import as_number, from_number, span_of
from synthehr.encoding.unroll import AT, ENDS, GAP, OFFSET, WHEN, ConditionalTable, changes
from synthehr.models.columns import Learned
from synthehr.models.loglinear import Conditional
from synthehr.models.timeline import Open, Timeline, floats, known_beforehand, open_cells
from synthehr.privacy.history import cell_of_none
from synthehr.privacy.partition import cells_of
from synthehr.randomness import FloatArray, IntArray
from synthehr.schema.model import Table
from synthehr.schema.rules import Above, Rule

__all__ = ["Rolled", "Roller", "rolled_patients", "row_places"]

_TRIES = 100
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rolled:
    """The rows of one table for some patients, in the order of patients, parents and time.

    Attributes:
        frame: own columns of the conditional table, and the times of the schema that are learned as differences.
        codes: cells of own columns and context, by name, each of shape ``(rows,)``; of history too where asked for.
        of_patient: the patient of each row.
        parents: the row of each row's parent.
        time: of each row on its order column's scale, NaN where missing; None for tables without order.
        table: its name.
        above: the rows of the parent's table; None for the patients' own.
        left_out: rows that no draw made lawful.
        open: what was open to each row before it was drawn, where history was asked for and rows have times.
    """

    frame: pl.DataFrame
    codes: Mapping[str, IntArray]
    of_patient: IntArray
    parents: IntArray
    time: FloatArray | None
    table: str
    above: Rolled | None = None
    left_out: int = 0
    open: Open | None = None

    def ancestors(self, rows: IntArray) -> Above:
        """What these rows and their ancestors hold, for rows of a table that hang from them."""

        def found(table: str, column: str) -> pl.Series:
            rolled, at = self, rows
            while rolled.table != table:
                assert rolled.above is not None, "a rule reads ancestors alone"
                rolled, at = rolled.above, rolled.parents[at]
            return rolled.frame[column].gather(at)

        return found


def row_places(above: Rolled, made: ConditionalTable) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """Where the rows of a child table stand, as many as their parents' rows say and no patient has more than it may.

    Returns:
        of each row its patient, its parent, its number among the parent's from 1, and that among the patient's from 0.
    """
    counts = above.frame[f"[rows of {made.name}]"].to_numpy().astype(np.int64)
    parents = np.repeat(np.arange(len(counts)), counts)
    of_patient = above.of_patient[parents]
    number = np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    begins = np.flatnonzero(changes(of_patient))
    step = np.arange(len(of_patient)) - np.repeat(begins, np.diff(np.append(begins, len(of_patient))))
    kept = step < made.most
    return of_patient[kept], parents[kept], number[kept], step[kept]


def rolled_patients(frame: pl.DataFrame, learned: Learned) -> Rolled:
    """The patients' own table as what other tables hang from."""
    codes = {name: cells_of(frame, name, learned.cells[name]) for name in learned.made.own}
    everyone = np.arange(frame.height)
    return Rolled(
        frame=frame,
        codes=codes,
        of_patient=everyone,
        parents=np.zeros_like(everyone),
        time=None,
        table=learned.made.name,
    )


@dataclass(slots=True, kw_only=True)
class _Past:
    """What is known of each patient so far.

    Attributes:
        last: cells of the row before, shape ``(patients, own columns)``.
        times: what is known of the times of rows; None in tables without order.
        before: for columns that depend on the code their cell in the last row of each code, ``(patients, codes)``.
        seen: whether there was a row of each code, 0 none, 1 some, 2 some beside the row before or that itself,
            ``(patients, codes)``.
    """

    last: IntArray
    times: Timeline | None
    before: dict[str, IntArray]
    seen: NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One row of each of some patients.

    Attributes:
        of_patient: the patient of each, shape ``(rows,)``, as all that follow.
        parents: the parent's row.
        index: number of the row among its parent's, from 1.
        remaining: how many of these are left, with this one.
        first: whether it is the patient's first.
        known: cells of the columns that are known before it is drawn, by name.
        open: which times are open to it, where these are known beforehand.
    """

    of_patient: IntArray
    parents: IntArray
    index: IntArray
    remaining: IntArray
    first: np.ndarray
    known: Mapping[str, IntArray]
    open: Open | None = None

    def of(self, rows: np.ndarray) -> _Step:
        return _Step(
            of_patient=self.of_patient[rows],
            parents=self.parents[rows],
            index=self.index[rows],
            remaining=self.remaining[rows],
            first=self.first[rows],
            known={name: cells[rows] for name, cells in self.known.items()},
            open=None if self.open is None else self.open.of(rows),
        )


class Roller:
    """Draws the rows of one child table.

    Args:
        learned: the table's model, on the CPU.
        table: as the schema declares it.
        rules: declared for its rows.
    """

    def __init__(self, learned: Learned, table: Table, *, rules: Sequence[Rule]) -> None:
        self.made = learned.made
        self._table, self._rules, self._cells = table, tuple(rules), learned.cells
        self._clock, self._decoder = (
            Decoder([column for column in learned.domain if (column.name in WHEN) == when], self.made.table)
            for when in (True, False)
        )
        self._conditionals = learned.conditionals
        self._place = {name: at for at, name in enumerate(self.made.own)}
        self._order = table.kept[table.order_by] if table.order_by is not None else None
        lattices = [column.lattice for column in learned.domain if column.name == AT]
        self._step = lattices[0].step if lattices and lattices[0] is not None else 1.0

    def roll(self, above: Rolled, draws: np.random.Generator, *, patients: int, history: bool = False) -> Rolled:
        """The rows of these patients, as many as their parents' rows say.

        Args:
            above: the rows of the parent's table.
            draws: for all of it.
            patients: how many there are.
            history: whether cells of history are handed out too.
        """
        of_patient, parents, number, step = row_places(above, self.made)
        past = self._nothing_yet(patients, above)
        remaining = np.bincount(parents)[parents] - number + 1
        found: list[_Drawn] = []
        opened: list[Open] = []
        for rows in _by_step(step):
            first = step[rows] == 0
            timed = past.times if ENDS in self.made.own else None
            now = _Step(
                of_patient=of_patient[rows],
                parents=parents[rows],
                index=number[rows],
                remaining=remaining[rows],
                first=first,
                open=None if timed is None else timed.open_to(of_patient[rows], first=first, remaining=remaining[rows]),
                known=self._known(above, of_patient[rows], parents[rows], (number[rows], remaining[rows]), past),
            )
            drawn = self._lawful(now, past, above, draws)
            self._remember(past, now, drawn)
            found.append(drawn.moved(rows))
            if history and now.open is not None:
                opened.append(now.open.of(drawn.places))
        rolled = self._whole(found, of_patient, parents, above, history=history)
        if not opened:
            return rolled
        order = np.argsort(np.concatenate([drawn.places for drawn in found]), kind="stable")
        return replace(rolled, open=Open.joined(opened).of(order))

    def _nothing_yet(self, patients: int, above: Rolled) -> _Past:
        none = [self._none(name) for name in self.made.own]
        code = self._cells[self.made.code].size if self.made.code is not None else 0
        times = None if self._order is None else Timeline.unknown(patients)
        if self._order is not None and self.made.depth == 1:
            parent = {column: self._cells[name] for name, column in self.made.context.items()}
            times = known_beforehand(
                above.frame,
                above.codes,
                parent,
                self.made.name,
                limit=self.made.limit,
                order=self._order,
                step=self._step,
            )
        return _Past(
            last=np.tile(np.array(none, dtype=np.int64), (patients, 1)),
            times=times,
            before={
                name: np.full((patients, code), cell_of_none(self._cells[name]), dtype=np.int64)
                for name, past in self.made.history.items()
                if past.role == "before"
            },
            seen=np.zeros((patients, code), dtype=np.int8),
        )

    def _none(self, own: str) -> int:
        name = f"[last {own}]"
        return cell_of_none(self._cells[name]) if name in self._cells else 0

    def _known(
        self, above: Rolled, of_patient: IntArray, parents: IntArray, number: tuple[IntArray, IntArray], past: _Past
    ) -> dict[str, IntArray]:
        """The cells of context, and of history as far as it does not depend on the row's code."""
        known = {name: above.codes[column][parents] for name, column in self.made.context.items()}
        for name, history in self.made.history.items():
            if history.role == "last":
                known[name] = past.last[of_patient, self._place[history.of]]
            elif history.role in {"index", "remaining"}:
                counted = number[history.role == "remaining"]
                known[name] = cells_of(pl.DataFrame({"at": counted}), "at", self._cells[name])
            elif history.role in {"elapsed", "left", "pace"}:
                assert past.times is not None, "only rows with times have these"
                time = past.times.time[of_patient]
                left = past.times.end[of_patient] - time
                values = {"elapsed": time - past.times.start[of_patient], "left": left, "pace": left / number[1]}
                known[name] = self._cells_of(name, values[history.role])
        return known

    def _cells_of(self, name: str, values: FloatArray) -> IntArray:
        """The cells of numbers, NaN where missing, in a column of history."""
        return cells_of(pl.Series("at", values).fill_nan(None).to_frame(), "at", self._cells[name])

    def _lawful(self, now: _Step, past: _Past, above: Rolled, draws: np.random.Generator) -> _Drawn:
        """One row for each patient, drawn until it meets the rules; those that never do are left out."""
        left, pieces = np.arange(len(now.of_patient)), []
        for _ in range(_TRIES if self._rules else 1):
            drawn = self._draw(now.of(left), left, past, above, draws)
            lawful = np.ones(len(left), dtype=bool)
            for rule in self._rules:
                lawful &= rule.holds(drawn.frame, above.ancestors(now.parents[left])).to_numpy()
            pieces.append(drawn.of(lawful))
            left = left[~lawful]
            if not len(left):
                break
        return _Drawn.joined(pieces)

    def _draw(self, now: _Step, places: IntArray, past: _Past, above: Rolled, draws: np.random.Generator) -> _Drawn:
        """One row for each patient, column by column: when it is, then what."""
        codes = dict(now.known)
        when = [one for one in self._conditionals if one.target in WHEN]
        for conditional in when:
            codes[conditional.target] = self._cell(conditional, codes, now, draws)
        clock = self._clock.rows([codes[name] for name in self._named(when=True)], draws)
        time = self._time(clock, now, past, above, codes, draws=draws)
        beside = _together(now, past, time)
        for conditional in self._conditionals:
            name, seen = conditional.target, None
            if name in WHEN:
                continue
            if name == self.made.code:
                codes.update(self._beside(beside, now.of_patient, past))
                seen = np.where(beside[:, None], past.seen[now.of_patient], np.minimum(past.seen[now.of_patient], 1))
            codes[name] = self._cell(conditional, codes, now, draws, seen=seen)
            if seen is not None:
                codes.update(self._of_code(codes[name], now.of_patient, past, seen))
        rest = self._decoder.rows([codes[name] for name in self._named(when=False)], draws)
        frame = self._with_times(pl.concat([clock, rest], how="horizontal").select(self.made.own), time)
        return _Drawn(places=places, codes=codes, time=time, frame=frame)

    def _named(self, *, when: bool) -> list[str]:
        return [name for name in self.made.own if (name in WHEN) == when]

    def _cell(
        self,
        conditional: Conditional,
        codes: Mapping[str, IntArray],
        now: _Step,
        draws: np.random.Generator,
        *,
        seen: NDArray[np.int8] | None = None,
    ) -> IntArray:
        """A cell of one column for each row."""
        name = conditional.target
        scores = conditional.scores(codes, len(now.of_patient), seen=seen)
        self._allow(name, scores, now)
        if now.open is not None and name in {ENDS, GAP, AT}:
            scores += open_cells(name, self._cells, now.open, codes)
        return _drawn(scores, draws)

    def _beside(self, beside: np.ndarray, of_patient: IntArray, past: _Past) -> Iterator[tuple[str, IntArray]]:
        """The cells of history that tell of the row before where that is beside."""
        for name, history in self.made.history.items():
            if history.role == "beside":
                none = cell_of_none(self._cells[name])
                yield name, np.where(beside, past.last[of_patient, self._place[history.of]], none)

    def _of_code(
        self, code: IntArray, of_patient: IntArray, past: _Past, seen: NDArray[np.int8]
    ) -> Iterator[tuple[str, IntArray]]:
        """The cells of history that depend on the row's code."""
        for name, history in self.made.history.items():
            if history.role == "before":
                yield name, past.before[name][of_patient, code]
            elif history.role == "seen":
                yield name, seen[np.arange(len(code)), code].astype(np.int64)

    def _allow(self, name: str, scores: Floats, now: _Step) -> None:
        """A gap is missing where a row is the first of its parent, and nowhere else but where times may be."""
        if name not in {GAP, OFFSET}:
            return
        begins = now.index == 1
        missing, none = begins if name == GAP else ~begins, scores.shape[1] - 1
        scores[missing, :none] = -np.inf
        if not getattr(self._order, "nullable", False):
            scores[~missing, none] = -np.inf

    def _time(
        self,
        frame: pl.DataFrame,
        now: _Step,
        past: _Past,
        above: Rolled,
        codes: Mapping[str, IntArray],
        *,
        draws: np.random.Generator,
    ) -> FloatArray | None:
        """The time of each row, within the order column's bounds."""
        if self._order is None or past.times is None:
            return None
        begins, before = now.index == 1, past.times.time[now.of_patient]
        time, gap = before, floats(frame[GAP]) if GAP in self.made.own else None
        if now.open is not None and gap is not None:
            at = floats(as_number(frame[AT]))
            cells, places = (self._cells[AT], self._cells[GAP]), (codes[AT], codes[GAP])
            window = now.open.window(codes[ENDS] == 1)
            time = now.open.drawn(window, cells, places, (at, gap), draws)
        elif gap is not None:
            time = time + gap
        if OFFSET in self.made.own:
            origin = above.time[now.parents] if self.made.follows_parent and above.time is not None else 0.0
            time = np.where(begins, origin + floats(frame[OFFSET]), time)
        elif now.open is None:
            time = np.where(begins, past.times.begin[now.of_patient], time)
        low, high = span_of(self._order)
        return np.asarray(np.clip(time, low, high), dtype=np.float64)

    def _with_times(self, frame: pl.DataFrame, time: FloatArray | None) -> pl.DataFrame:
        """The columns of the schema in place of gaps and differences; numbers of rows stay."""
        if self._order is None or time is None:
            return frame
        assert self._table.order_by is not None, "an ordered table has a column that orders it"
        columns = [from_number(time, self._order).alias(self._table.order_by)]
        for name, difference in self.made.times.items():
            declared = self._table.kept[name]
            low, high = span_of(declared)
            value = np.clip(time + floats(frame[difference]), low, high)
            columns.append(from_number(value, declared).alias(name))
        return frame.hstack(columns)

    def _remember(self, past: _Past, now: _Step, drawn: _Drawn) -> None:
        of_patient = now.of_patient[drawn.places]
        beside = _together(now.of(drawn.places), past, drawn.time)
        past.last[of_patient] = np.stack([drawn.codes[name] for name in self.made.own], axis=1)
        if drawn.time is not None and past.times is not None:
            ends = drawn.codes[ENDS] == 1 if ENDS in drawn.codes else np.zeros(len(drawn.time), dtype=bool)
            past.times.remember(of_patient, drawn.time, first=now.first[drawn.places], ends=ends)
        if self.made.code is not None:
            code = drawn.codes[self.made.code]
            past.seen[of_patient] = np.minimum(past.seen[of_patient], np.where(beside, 2, 1)[:, None])
            past.seen[of_patient, code] = 2
            for name, cells in past.before.items():
                cells[of_patient, code] = drawn.codes[self.made.history[name].of]

    def _whole(
        self, found: Sequence[_Drawn], of_patient: IntArray, parents: IntArray, above: Rolled, *, history: bool
    ) -> Rolled:
        drawn = _Drawn.joined(found) if found else self._draw_none()
        order = np.argsort(drawn.places, kind="stable")
        rows = drawn.places[order]
        wanted = self.made.names if history else (*self.made.own, *self.made.context)
        return Rolled(
            frame=drawn.frame[order],
            codes={name: drawn.codes[name][order] for name in wanted},
            of_patient=of_patient[rows],
            parents=parents[rows],
            time=None if drawn.time is None else drawn.time[order],
            table=self.made.name,
            above=above,
            left_out=len(of_patient) - len(rows),
        )

    def _draw_none(self) -> _Drawn:
        nothing = np.zeros(0, dtype=np.int64)
        frame = self._decoder.rows([nothing] * len(self.made.own), np.random.default_rng(0))
        time = None if self._order is None else np.zeros(0)
        return _Drawn(
            places=nothing,
            codes=dict.fromkeys(self.made.names, nothing),
            time=time,
            frame=self._with_times(frame, time),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """Rows that were drawn: their places, cells of all columns, times and values."""

    places: IntArray
    codes: Mapping[str, IntArray]
    time: FloatArray | None
    frame: pl.DataFrame

    def of(self, kept: np.ndarray) -> _Drawn:
        if kept.all():
            return self
        return _Drawn(
            places=self.places[kept],
            codes={name: cells[kept] for name, cells in self.codes.items()},
            time=None if self.time is None else self.time[kept],
            frame=self.frame.filter(pl.Series(kept)),
        )

    def moved(self, rows: IntArray) -> _Drawn:
        return _Drawn(places=rows[self.places], codes=self.codes, time=self.time, frame=self.frame)

    @staticmethod
    def joined(pieces: Sequence[_Drawn]) -> _Drawn:
        times = [piece.time for piece in pieces if piece.time is not None]
        return _Drawn(
            places=np.concatenate([piece.places for piece in pieces]),
            codes={name: np.concatenate([piece.codes[name] for piece in pieces]) for name in pieces[0].codes},
            time=np.concatenate(times) if times else None,
            frame=pl.concat([piece.frame for piece in pieces]),
        )


def _together(now: _Step, past: _Past, time: FloatArray | None) -> np.ndarray:
    """Whether each row is of the same parent, and where rows have times of the same time, as its patient's last."""
    same = now.index > 1
    return same if time is None or past.times is None else same & (time == past.times.time[now.of_patient])


def _by_step(step: IntArray) -> Iterator[IntArray]:
    """The rows of each step, first to last."""
    order = np.argsort(step, kind="stable")
    yield from np.split(order, np.cumsum(np.bincount(step))[:-1]) if len(step) else ()


def _drawn(scores: Floats, draws: np.random.Generator) -> IntArray:
    """A place of each row by its score. Shape: ``(rows, places)`` in, ``(rows,)`` out."""
    mass = np.exp(scores - scores.max(axis=1, keepdims=True), dtype=np.float32)
    upto = np.cumsum(mass, axis=1, dtype=np.float64)
    point = draws.random(len(mass)) * upto[:, -1]
    return np.asarray(np.minimum((upto <= point[:, None]).sum(axis=1), mass.shape[1] - 1), dtype=np.int64)
