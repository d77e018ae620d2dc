"""Whole patients, batch by batch: the patients' own rows, then those of every other table, ancestors first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from synthehr.encoding.lattice import from_number
from synthehr.encoding.references import flag_of, minutes_of_both, references_of
from synthehr.encoding.unroll import ConditionalTable
from synthehr.models.columns import Learned
from synthehr.models.drawing import Drawing
from synthehr.models.linking import linked, linked_to_row_before
from synthehr.models.rollout import Rolled, Roller, rolled_patients, row_places
from synthehr.models.timeline import first_and_last
from synthehr.randomness import seeded
from synthehr.schema.model import IdColumn, Schema, dtype_of
from synthehr.schema.rules import Above, Rule

__all__ = ["Patients", "joined", "structural_rules"]

# Patients whose rows are drawn side by side: what is known of them is held in memory for every component.
_BATCH = 4096


@dataclass(frozen=True, slots=True)
class _OfTimes(Rule):
    """A rule on the times of rows, held to the patient's first and last: what is between them cannot break it.

    Attributes:
        rule: as it was declared, on the column that orders a child table and on the patients' own.
        limit: see :class:`~synthehr.encoding.unroll.ConditionalTable`.
        order: the declaration of the column that orders.
    """

    rule: Rule | None = None
    limit: str | None = None
    order: Any = None

    def holds(self, frame: pl.DataFrame, above: Above | None = None) -> pl.Series:
        """Whether each patient's first and last rows, where there are any, meet the rule. Shape: ``(patients,)``."""
        assert self.rule is not None and above is None, "made of one, for patients, who have no ancestors"
        met = np.ones(frame.height, dtype=bool)
        for time in first_and_last(frame, self.rule.table, limit=self.limit, order=self.order):
            there = from_number(time, self.order).alias(self.rule.columns[0]).to_frame()
            met &= self.rule.holds(there, lambda _, column: frame[column]).to_numpy()
        return pl.Series("holds", met | (frame[f"[rows of {self.rule.table}]"] == 0).to_numpy())


def structural_rules(tables: Mapping[str, ConditionalTable], schema: Schema) -> list[Rule]:
    """What holds of patients because of their rows.

    Who has rows in a table that is ordered has a time of the first, and where a declared rule sets the times of rows
    against what the patient's own row holds, those of the first and the last meet it.
    """
    found: list[Rule] = []
    own, subject = tables[schema.subject].own, schema.subject
    for child, table in schema.tables.items():
        order = None if table.order_by is None else table.kept[table.order_by]
        if child not in tables or tables[child].depth != 1 or order is None or getattr(order, "nullable", False):
            continue
        limit = tables[child].limit
        rows, told = f"[rows of {child}]", f"[first of {child}]" if limit is None else f"[after {child}]"
        expression = (pl.col(rows) == 0) | pl.col(told).is_not_null()
        found.append(Rule(f"{told} where there are {rows}", subject, (rows, told), expression))
        read = tuple(name for name in (rows, told, f"[span of {child}]") if name in own)
        for rule in schema.parsed_rules:
            of_patients = bool(rule.above) and all(of == subject for of, _ in rule.above)
            if rule.table == child and rule.columns == (table.order_by,) and of_patients:
                found.append(_OfTimes(rule.text, subject, read, expression, rule=rule, limit=limit, order=order))
    return found


class Patients:
    """Patients of a release, with the rows of all their tables.

    Args:
        drawing: of the patients' own rows.
        learned: every table that was learned, ancestors first.
        made: every table, ancestors first; one of keys alone is not learned.
        schema: what they become.
        total: how many patients there will be, for the width of their keys.
        seed: same arguments and seed give the same patients.
    """

    def __init__(
        self,
        drawing: Drawing,
        learned: Mapping[str, Learned],
        made: Mapping[str, ConditionalTable],
        *,
        schema: Schema,
        total: int,
        seed: int,
    ) -> None:
        self._drawing, self._learned, self._made, self._schema = drawing, learned, made, schema
        self._width = max(7, len(str(total)))
        self._seed = seed
        self.left_out = dict.fromkeys([name for name, table in made.items() if table.depth], 0)

    @cached_property
    def _rollers(self) -> dict[str, Roller]:
        return {
            name: Roller(
                learned,
                self._schema.tables[name],
                rules=[rule for rule in self._schema.parsed_rules if rule.table == name],
            )
            for name, learned in self._learned.items()
            if learned.made.depth
        }

    def batches(self) -> Iterator[dict[str, pl.DataFrame]]:
        """The tables of some patients after the other."""
        done = batch = 0
        for frame in self._drawing.frames():
            if len(self._made) == 1:
                yield {self._schema.subject: self._patients(frame, done)}
                done += frame.height
                continue
            for start in range(0, frame.height, _BATCH):
                part = frame[start : start + _BATCH]
                yield self._whole(part, done=done, batch=batch)
                done, batch = done + part.height, batch + 1

    def _whole(self, frame: pl.DataFrame, *, done: int, batch: int) -> dict[str, pl.DataFrame]:
        subject = self._schema.subject
        rolled = {subject: rolled_patients(frame, self._learned[subject])}
        keys = {subject: self._numbers(done, frame.height)}
        tables = {subject: self._patients(frame, done)}
        for at, (name, made) in enumerate(self._made.items()):
            if not made.depth:
                continue
            parent = self._schema.tables[name].parent
            assert parent is not None, "only the patients have none"
            above, draws = rolled[parent], seeded(self._seed, 5, at, batch)
            if name in self._rollers:
                rolled[name] = self._rollers[name].roll(above, draws, patients=frame.height)
            else:
                rolled[name] = _keys_alone(above, made)
            self.left_out[name] += rolled[name].left_out
            keys[name], tables[name] = self._child(name, rolled[name], keys[parent])
        for at, name in enumerate(self._made):
            tables[name] = self._linked(name, tables[name], rolled, keys, draws=seeded(self._seed, 8, at, batch))
        return {name: tables[name] for name in self._schema.tables}

    def _linked(
        self,
        name: str,
        frame: pl.DataFrame,
        rolled: Mapping[str, Rolled],
        keys: Mapping[str, pl.Series],
        *,
        draws: np.random.Generator,
    ) -> pl.DataFrame:
        """A table with references to rows of the same patients."""
        table, rows = self._schema.tables[name], rolled[name]
        found = []
        for column, to in references_of(table).items():
            known = rows.frame[flag_of(column)].to_numpy().astype(bool)
            if to == name:
                found.append(linked_to_row_before(rows, known, keys[to]).alias(column))
                continue
            orders = [one.kept[one.order_by] for one in (table, self._schema.tables[to]) if one.order_by is not None]
            minutes = minutes_of_both(*orders) if len(orders) == 2 else None
            found.append(linked(rows, known, rolled[to], keys[to], minutes=minutes, draws=draws).alias(column))
        return frame.with_columns(found)

    def _numbers(self, done: int, patients: int) -> pl.Series:
        return "S" + pl.int_range(done + 1, done + patients + 1, eager=True).cast(pl.String).str.zfill(self._width)

    def _patients(self, frame: pl.DataFrame, done: int) -> pl.DataFrame:
        """The patients' table as it is declared, with new keys where it has any; ``done`` patients came before."""
        declared = self._schema.root.columns
        columns = [
            self._numbers(done, frame.height).alias(name) if isinstance(column, IdColumn) else frame[name]
            for name, column in declared.items()
            if isinstance(column, IdColumn) or name in frame.columns
        ]
        return pl.DataFrame(columns)

    def _child(self, name: str, rolled: Rolled, above: pl.Series) -> tuple[pl.Series, pl.DataFrame]:
        """The keys of a child table's rows, and the table as it is declared."""
        table = self._schema.tables[name]
        foreign = above.gather(rolled.parents)
        begins = np.flatnonzero(np.diff(rolled.parents, prepend=-1))
        number = np.arange(len(rolled.parents)) - np.repeat(begins, np.diff(np.append(begins, len(rolled.parents))))
        key = foreign + "-" + pl.Series(number + 1).cast(pl.String)
        columns = []
        for column, declared in table.columns.items():
            if column == table.key:
                columns.append(key.alias(column))
            elif column == table.foreign_key:
                columns.append(foreign.alias(column))
            elif isinstance(declared, IdColumn):
                columns.append(pl.Series(column, [None] * len(key), dtype=dtype_of(declared)))
            elif column in rolled.frame.columns:
                columns.append(rolled.frame[column])
        return key, pl.DataFrame(columns)


def _keys_alone(above: Rolled, made: ConditionalTable) -> Rolled:
    """The rows of a table that has nothing but keys."""
    of_patient, parents, _, _ = row_places(above, made)
    nothing = pl.DataFrame({"[nothing]": np.zeros(len(parents))})
    return Rolled(
        frame=nothing, codes={}, of_patient=of_patient, parents=parents, time=None, table=made.name, above=above
    )


def joined(batches: Sequence[Mapping[str, pl.DataFrame]]) -> dict[str, pl.DataFrame]:
    """Each table of all batches."""
    return {name: pl.concat([batch[name] for batch in batches]) for name in batches[0]}
