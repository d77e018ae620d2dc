"""Rows of a child table are made up and fitted on, in turns, until they are what was bought. No private row is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthehr.encoding.domain import ColumnDomain, Joint
from synthehr.encoding.unroll import AT, ENDS, GAP, INDEX, OFFSET, REMAINING, WHEN, ConditionalTable, changes
from synthehr.models.columns import Learned, counts_by_code
from synthehr.models.counting import as_rows_count, counted_rows, first_rows, row_weights
from synthehr.models.loglinear import Conditional, Measured, Rows, Term, fit_conditional, seen_by_rows
from synthehr.models.planning import RowsSettings
from synthehr.models.rollout import Rolled, Roller
from synthehr.models.timeline import open_cells, order_of_times
from synthehr.privacy.history import cell_of_none
from synthehr.privacy.partition import Cells, PerCode, Values, cells_of
from synthehr.randomness import FloatArray, IntArray, seeded
from synthehr.schema.model import Table

__all__ = ["Search"]

# A code comes once (a diagnosis begins, a measure is taken at entry), or once at one time, or in a patient's last row
# alone (a death), where what else there is of it as bought may be noise alone, and surely, both by so many standard
# deviations, is no more than this part of its rows.
_RARELY, _SURE = 0.25, 2.0
_NEVER = -1e4
# That rows with so many left are at the time of a patient's last is believed where it is so many standard deviations
# of noise from none.
_FAR = 3.0
# A patient's rows come to their end before the last one, at first: else most rows are at one time, and the first fits
# are of rows like no others.
_SELDOM = 0.02
# Rows that the length of each of many histograms is told by.
_MEASURED_ON = 8_000


class Search:
    """The conditionals of one child table.

    Args:
        made: what the table is learned as.
        domain: its own columns.
        cells: of all columns.
        table: as the schema declares it.
        above: made-up rows of the parent's table.
        settings: how much is made up, and how long is fitted.
        patients: the bought number of patients with rows.
        seed: of what is made up.
        tell: called with the rounds done and their number.
    """

    def __init__(
        self,
        made: ConditionalTable,
        domain: Sequence[ColumnDomain],
        cells: Mapping[str, Cells],
        table: Table,
        above: Rolled,
        *,
        settings: RowsSettings,
        patients: float,
        seed: int,
        tell: Callable[[int, int], None],
    ) -> None:
        self._made, self._domain, self._cells, self._table = made, tuple(domain), dict(cells), table
        self._above, self._settings, self._patients, self._seed, self._tell = above, settings, patients, seed, tell
        self._nullable = table.order_by is not None and getattr(table.kept[table.order_by], "nullable", False)
        self._round = 0
        self._drawn = order_of_times(made.drawn, domain)
        # By cell of how many rows are left: whether a row may not be at the time of the last unless it must.
        self._not_yet = np.zeros(cells[REMAINING].size if REMAINING in cells else 0, dtype=bool)
        self._measured: dict[str, list[Measured]] = {name: [] for name in self._drawn}
        self._models = {name: Conditional(target=name, size=cells[name].size, terms=()) for name in self._drawn}
        # By cell of how many rows are left: 0 in the last row, else 1; by column what surely comes in last rows alone.
        self._others = np.zeros(0, dtype=np.int64)
        self._final: dict[str, np.ndarray] = {}
        # By code: whether it may never come where it was before, and beside itself.
        self._once = np.zeros((cells[made.code].size if made.code is not None else 0, 2), dtype=bool)
        for column in self._domain:
            noise = float(np.sqrt(column.variance.mean())) / patients
            self._add(column.name, Measured(given=(), share=column.counts / patients, noise=noise))
            self._start(column)
            if isinstance(column.cells, PerCode) and made.target({column.name, column.cells.per}) == column.name:
                counts = counts_by_code(column, column.cells)
                by_part = np.sqrt([part.variance.mean() for part in column.parts]) / patients
                by_code = Measured(given=(column.cells.per,), share=counts / patients, noise=by_part, counted="code")
                self._add(column.name, by_code)

    @property
    def conditionals(self) -> tuple[Conditional, ...]:
        """In the order in which columns are drawn; what surely comes but once, in a patient or at a time, does so."""
        found = dict(self._models)
        code = found.get(self._made.code) if self._made.code is not None else None
        if code is not None and code.of_candidate is not None:
            # Where all codes are beside a row already, one that may come again does so.
            never = np.where(self._once[:, :1], np.float32(2.0 * _NEVER), np.float32(_NEVER))
            again = np.where(self._once, never, code.of_candidate[:, 1:])
            found[code.target] = replace(code, of_candidate=np.column_stack([code.of_candidate[:, 0], again]))
        if ENDS in found:
            terms = [
                replace(term, weights=np.where(self._ended(), np.float32(_NEVER), term.weights))
                if term.given == (REMAINING,)
                else term
                for term in found[ENDS].terms
            ]
            found[ENDS] = replace(found[ENDS], terms=tuple(terms))
        for name, final in self._final.items():
            never = np.stack([np.zeros_like(final), final])
            terms = [
                replace(term, weights=np.where(never, np.float32(_NEVER), term.weights))
                if term.given == (REMAINING,) and term.groups
                else term
                for term in found[name].terms
            ]
            found[name] = replace(found[name], terms=tuple(terms))
        return tuple(found.values())

    def _ended(self) -> np.ndarray:
        """By cell of how many rows are left: that a row, which may be either, is at the time of the last."""
        return np.column_stack([np.zeros_like(self._not_yet), self._not_yet])

    def _start(self, column: ColumnDomain) -> None:
        """Before anything else is known a column is as it is on its own."""
        model = self._models[column.name]
        share = np.maximum(column.counts / self._patients, 1e-4)
        if column.name == ENDS:
            share = np.array([1.0, _SELDOM])
        self._models[column.name] = replace(
            model, terms=(replace(model.terms[0], weights=np.log(share).astype(np.float32)),)
        )

    def _add(self, target: str, one: Measured) -> None:
        self._measured[target].append(one)
        model, weights = self._models[target], np.zeros(one.share.shape, dtype=np.float32)
        if one.of_candidate:
            self._models[target] = replace(model, of_candidate=weights)
        else:
            term = Term(given=one.given, weights=weights, groups=one.groups)
            self._models[target] = replace(model, terms=(*model.terms, term))

    def add(self, bought: Sequence[Joint], *, groups: Sequence[IntArray] | None = None) -> None:
        """Fit to these histograms too, of coarser cells where there are groups."""
        for joint in bought:
            if len(joint.columns) == 1:
                self._again(joint)
            if len(set(joint.columns)) < max(len(joint.columns), 2):
                continue
            names = [self._made.names[at] for at in joint.columns]
            target = self._made.target(names, drawn=self._drawn)
            assert target is not None, "no other set is bought"
            last = names.index(target)
            given = tuple(name for name in names if name != target)
            share = np.moveaxis(joint.counts, last, -1) / self._patients
            if target == ENDS and given == (REMAINING,):
                # Of forty rows each may be taken for the end by a noise of a hundredth: most patients would end early.
                self._not_yet = share[:, 1] < _FAR * np.sqrt(joint.variance) / self._patients
            seen = target == self._made.code and self._made.history.get(given[0]) is not None
            of_candidate = seen and self._made.history[given[0]].role == "seen"
            if of_candidate:
                noise = float(np.sqrt(joint.variance)) / self._patients
                again, beside = (_rare(share, noise, beyond=beyond) for beyond in (1, 2))
                self._once = np.stack([again, again | beside], axis=1)
            of_cells = () if groups is None else tuple(groups[self._made.names.index(n)] for n in (*given, target))
            self._add(
                target,
                Measured(
                    given=given,
                    share=share.T if of_candidate else share,
                    noise=float(np.sqrt(joint.variance)) / self._patients,
                    groups=of_cells,
                    of_candidate=of_candidate,
                    counted="length",
                ),
            )

    def add_last_rows(self, columns: Sequence[ColumnDomain]) -> None:
        """Fit codes to what they are in a patient's last row and in the others, which one-way histograms tell together.

        What a column is in the rows before others was bought, and what it is in all: what is left is in the last ones.
        A death, a discharge to a hospice, an end of treatment hardly come elsewhere.

        Args:
            columns: of history, as bought.
        """
        known = {column.name: column for column in columns}
        if self._made.depth != 1 or not {INDEX, REMAINING} <= known.keys():
            return
        one, more = cells_of(pl.DataFrame({"at": [1, 2]}), "at", self._cells[REMAINING])
        if one == more:
            return
        self._others = np.ones(self._cells[REMAINING].size, dtype=np.int64)
        self._others[one] = 0
        for column in self._domain:
            past = known.get(f"[last {column.name}]")
            if column.name in WHEN or past is None or not isinstance(column.cells, Values):
                continue
            before = past.counts[: column.cells.size].copy()
            if column.cells.nullable:  # its cell for nothing is also that of a patient's first row
                before[-1] = max(before[-1] - known[INDEX].counts[one], 0.0)
            variance = past.variance.mean() + np.array([column.variance.mean(), 0.0])
            final = _rare(np.stack([column.counts - before, before]), float(np.sqrt(past.variance.mean())), beyond=1)
            if final.any() and not final.all():
                self._final[column.name] = final
            self._add(
                column.name,
                Measured(
                    given=(REMAINING,),
                    share=np.stack([column.counts - before, before]) / self._patients,
                    noise=np.sqrt(variance) / self._patients,
                    groups=(self._others, np.arange(column.cells.size)),
                ),
            )

    def _again(self, joint: Joint) -> None:
        """A column's own histogram was bought once more: both count by their precision."""
        first, *others = self._measured[self._made.names[joint.columns[0]]]
        noise = float(np.sqrt(joint.variance)) / self._patients
        part = first.noise**2 / (first.noise**2 + noise**2)
        share = (1.0 - part) * first.share + part * joint.counts / self._patients
        sharper = replace(first, share=share, noise=first.noise * float(np.sqrt(1.0 - part)))
        self._measured[self._made.names[joint.columns[0]]] = [sharper, *others]

    def run(self) -> None:
        """Make rows up and fit on them, round by round; the less the rows are to be trusted, the less weights move."""
        settings, before = self._settings, self._round
        for done in range(settings.rounds):
            held = max(settings.held * settings.decay ** min(before + done, 100), settings.held_at_last)
            rolled = self.rolled()
            for name in self._drawn:
                self._fit(name, rolled, held=held)
            self._tell(done + 1, self._settings.rounds)

    def rolled(self) -> Rolled:
        """Rows that the present model makes, with their history."""
        learned = Learned(made=self._made, domain=self._domain, cells=self._cells, conditionals=self.conditionals)
        self._round += 1
        draws = seeded(self._seed, 6, self._made.depth, self._round)
        patients = int(self._above.of_patient.max(initial=-1)) + 1
        return Roller(learned, self._table, rules=()).roll(self._above, draws, patients=patients, history=True)

    def _fit(self, name: str, rolled: Rolled, *, held: float) -> None:
        weight = row_weights(rolled.of_patient)
        allowed = np.ones((1, self._models[name].size), dtype=bool)
        chosen = np.ones(len(weight), dtype=bool)
        forced = np.zeros(len(weight), dtype=bool)
        if name in {GAP, OFFSET}:
            begins = np.concatenate([[True], np.diff(rolled.parents) != 0])[: len(weight)]
            forced = begins if name == GAP else ~begins
            chosen = ~forced
            allowed[:, cell_of_none(self._cells[name])] = self._nullable
        places = np.flatnonzero(chosen)
        if not len(places):
            return
        if len(places) > self._settings.rows:
            places, weight = self._some_rows(name, rolled, places, weight)
        codes = {column: cells[places] for column, cells in rolled.codes.items()}
        seen = None
        if name == self._made.code:
            seen = seen_before(rolled.codes[name], rolled, places, size=self._models[name].size)
            allowed = _some(allowed & ~((seen == 1) & self._once[:, 0]) & ~((seen == 2) & self._once[:, 1]))
        open_to = np.where(_some(allowed), 0.0, -np.inf)
        if rolled.open is not None and name in {ENDS, AT, GAP}:
            before = {column: codes[column] for column in self._drawn[: self._drawn.index(name)]}
            open_to = open_to + open_cells(name, self._cells, rolled.open.of(places), before)
        if name in self._final:
            open_to = np.where(self._final[name] & (self._others[codes[REMAINING]] == 1)[:, None], -np.inf, open_to)
        if name == ENDS:
            either = np.isfinite(open_to).all(axis=1, keepdims=True)
            open_to = np.where(either & self._ended()[codes[REMAINING]], -np.inf, open_to)
        # Rows of rare codes count much more in histograms than each by itself, and how much is not told well.
        alone = self._measured[name][0].share if name == self._made.code else None
        fitted = fit_conditional(
            self._models[name],
            [as_rows_count(one, name, rolled, code=self._made.code, alone=alone) for one in self._measured[name]],
            Rows(codes=codes, weight=weight[places], seen=seen),
            open_to=open_to,
            ridge=self._settings.ridge,
            ridge_of_three=self._settings.ridge_of_three,
            held=held,
            steps=self._settings.steps,
        )
        self._models[name] = self._models[name].towards(fitted, part=self._settings.pace)

    def _some_rows(
        self, name: str, rolled: Rolled, places: IntArray, weight: FloatArray
    ) -> tuple[IntArray, FloatArray]:
        """Some of the rows, and what each counts then. What follows a code is learned of rare codes too."""
        odds: FloatArray = np.ones(len(places))
        if self._made.code is not None and self._drawn.index(name) > self._drawn.index(self._made.code):
            code = rolled.codes[self._made.code][places]
            odds = 1.0 / np.sqrt(np.bincount(code)[code])
        odds /= odds.sum()
        draws = seeded(self._seed, 7, self._made.depth, self._round)
        kept = np.sort(draws.choice(len(places), self._settings.rows, replace=False, p=odds))
        counts = weight.copy()
        counts[places[kept]] /= odds[kept]
        counts *= weight[places].sum() / counts[places[kept]].sum()
        return places[kept], counts

    def lengths(self, sets: Sequence[tuple[int, ...]], groups: Sequence[IntArray] | None = None) -> FloatArray:
        """How often rows count in a histogram of length 1 a patient, where else they count 1 together, for each set."""
        rolled = self.rolled()
        found = []
        upto = first_rows(rolled.of_patient, _MEASURED_ON)
        of_patient = rolled.of_patient[:upto]
        patients = max(len(np.unique(of_patient)), 1)
        for columns in sets:
            names = [self._made.names[at] for at in columns]
            codes = [rolled.codes[name][:upto] for name in names]
            if groups is not None:
                codes = [groups[at][cells] for at, cells in zip(columns, codes, strict=True)]
            by = self._made.counted_by(names, drawn=self._drawn)
            code = None if by is None else codes[names.index(by)]
            found.append(counted_rows(of_patient, codes, code=code).sum() / patients)
        lengths: FloatArray = np.maximum(np.array(found), 1.0)
        return lengths

    def expected(self, sets: Sequence[tuple[int, ...]], groups: Sequence[IntArray]) -> list[FloatArray]:
        """What the model makes of some columns' coarser cells, in patients, for each set."""
        rolled = self.rolled()
        weight = row_weights(rolled.of_patient) * self._patients
        coarse = [groups[at][rolled.codes[name]] for at, name in enumerate(self._made.names)]
        sizes = [int(group.max()) + 1 for group in groups]
        found = []
        for columns in sets:
            shape = tuple(sizes[at] for at in columns)
            cell = np.ravel_multi_index(tuple(coarse[at] for at in columns), shape)
            counts = np.bincount(cell, weights=weight, minlength=int(np.prod(shape)))
            found.append(np.asarray(counts.reshape(shape), dtype=np.float64))
        return found


def _rare(share: FloatArray, noise: float, *, beyond: int) -> np.ndarray:
    """Which codes hardly come where they were before, or beside; ``share`` has shape ``(states, codes)``."""
    again, most = share[beyond:].sum(axis=0), _SURE * noise * np.sqrt(len(share) - beyond)
    return np.asarray((again <= most) & (again + most <= _RARELY * share.sum(axis=0)))


def _some(allowed: np.ndarray) -> np.ndarray:
    """The same, with all cells open in rows where none is: shape ``(rows, cells)``."""
    return allowed | ~allowed.any(axis=1, keepdims=True)


def seen_before(code: IntArray, rolled: Rolled, places: IntArray, *, size: int) -> NDArray[np.int8]:
    """For some rows which codes the rows before them had: 0 none of the patient's, 1 some, 2 some beside it.

    Args:
        code: of all rows.
        rolled: these, by patient and time.
        places: which rows are asked for.
        size: how many codes there are.

    Returns:
        shape ``(places, size)``.
    """
    return seen_by_rows(code, rolled.of_patient, together(rolled), places=places, size=size)


def together(rolled: Rolled) -> np.ndarray:
    """Whether each row is of the parent, and where rows have times at the time, of the row before."""
    same = ~changes(rolled.parents)
    return same if rolled.time is None else same & (np.diff(rolled.time, prepend=np.nan) == 0.0)
