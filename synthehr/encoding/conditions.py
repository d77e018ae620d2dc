"""From a condition on rows to the values that each column may take: boxes, which a model can be held to.

A box allows some values of some columns, each column for itself. A condition of one column is one box, whatever
functions it uses; ``and`` cuts boxes with each other, ``or`` joins them, and ``not`` is carried down to the parts. What
compares columns with each other cannot be told apart by column: there the boxes allow more than the condition, and
rows that do not meet it have to be drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from synthehr.encoding.codec import labels_of
from synthehr.encoding.domain import ColumnDomain
from synthehr.encoding.lattice import as_number
from synthehr.encoding.subsets import Subset, universe
from synthehr.privacy.partition import PerCode, Values
from synthehr.schema.model import Table
from synthehr.schema.rules import Rule

__all__ = ["Box", "Region", "region_of"]

Box = Mapping[str, Subset]

_MOST_BOXES = 64
# A condition is tried on all values of a column up to the first number; between there and the second only where
# it is no plain comparison; beyond, such a condition is left to drawing again.
_TRIED = 2**20
_TRIED_AT_MOST = 2**24


@dataclass(frozen=True, slots=True)
class Region:
    """Rows that a condition allows: those of any of the boxes, no two of which share a row.

    Attributes:
        boxes: none where no row can meet the condition; a box without columns allows all rows.
        exact: whether rows of the boxes are sure to meet the condition; else they include all that do.
    """

    boxes: tuple[Box, ...]
    exact: bool

    def __and__(self, other: Region) -> Region:
        met = [_meet(mine, theirs) for mine in self.boxes for theirs in other.boxes]
        boxes = tuple(box for box in met if box is not None)
        if len(boxes) > _MOST_BOXES:
            return Region(self.boxes, exact=False)
        return Region(boxes, self.exact and other.exact)

    def __or__(self, other: Region) -> Region:
        boxes = list(self.boxes)
        for box in other.boxes:
            rest = [box]
            for mine in self.boxes:
                rest = [piece for part in rest for piece in _without(part, mine)]
                if len(rest) + len(boxes) > _MOST_BOXES:
                    return _anything()
            boxes += rest
        return Region(tuple(boxes), self.exact and other.exact)


def region_of(conditions: Sequence[Rule], *, domain: Sequence[ColumnDomain], table: Table) -> Region:
    """The rows that meet all the conditions.

    Args:
        conditions: on rows of ``table``; unknown counts as not met.
        domain: the columns' cells.
        table: the columns' declarations.
    """
    reader = _Reader({column.name: column for column in domain}, table)
    region = Region(({},), exact=True)
    for condition in conditions:
        region = region & reader.region(condition.expression, wanted=True)
    return region


def _anything() -> Region:
    return Region(({},), exact=False)


def _meet(first: Box, second: Box) -> Box | None:
    both = dict(first)
    for name, subset in second.items():
        both[name] = both[name] & subset if name in both else subset
        if both[name].is_empty:
            return None
    return both


def _without(box: Box, other: Box) -> list[Box]:
    """What of a box lies outside another, as boxes that share no row."""
    pieces: list[Box] = []
    left = dict(box)
    for name, subset in other.items():
        mine = left.get(name, Subset.full(subset.size))
        outside = mine - subset
        if not outside.is_empty:
            pieces.append({**left, name: outside})
        left[name] = mine & subset
        if left[name].is_empty:
            break
    return pieces


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads polars expressions, by what they are equal to and by what they give for values."""

    columns: Mapping[str, ColumnDomain]
    table: Table

    def region(self, expression: pl.Expr, *, wanted: bool) -> Region:
        """Where the expression is true, or where it is false; neither is where it is unknown."""
        names = set(expression.meta.root_names())
        if not names:
            constant = pl.select(expression).to_series()[0]
            return Region(({},) if constant is wanted else (), exact=True)
        if len(names) == 1:
            subset = self._subset(expression, self.columns[names.pop()], wanted=wanted)
            if subset is not None:
                return subset
        inner = expression.meta.pop()
        if len(inner) == 1:
            if expression.meta.eq(~inner[0]):
                return self.region(inner[0], wanted=not wanted)
            if expression.meta.eq(inner[0].cast(pl.Boolean)):
                return self.region(inner[0], wanted=wanted)
        if len(inner) == 2:
            for first, second in (inner, inner[::-1]):
                if expression.meta.eq(first & second) or expression.meta.eq(first | second):
                    all_of_them = expression.meta.eq(first & second) is wanted
                    mine, theirs = (self.region(part, wanted=wanted) for part in (first, second))
                    return mine & theirs if all_of_them else mine | theirs
        return _anything()

    def _subset(self, expression: pl.Expr, column: ColumnDomain, *, wanted: bool) -> Region | None:
        """The values of one column for which the expression is as wanted; None where that cannot be told."""
        if isinstance(column.cells, PerCode):
            subset = _missing_or_not(expression, column, wanted=wanted)
        else:
            subset = _tried(expression, column, table=self.table, wanted=wanted)
        if subset is None:
            return None
        return Region(() if subset.is_empty else ({column.name: subset},), exact=True)


def _missing_or_not(expression: pl.Expr, column: ColumnDomain, *, wanted: bool) -> Subset | None:
    for test, missing in ((pl.col(column.name).is_null(), True), (pl.col(column.name).is_not_null(), False)):
        if expression.meta.eq(test):
            return Subset.of_mask(np.array([missing != wanted, missing == wanted])[: universe(column)])
    return None


def _tried(expression: pl.Expr, column: ColumnDomain, *, table: Table, wanted: bool) -> Subset | None:
    """The values for which the expression came out as wanted when it was tried on them."""

    def holds(values: pl.Series) -> np.ndarray:
        found = pl.DataFrame([values.alias(column.name)]).select(expression.alias("holds"))["holds"].cast(pl.Boolean)
        return (found if wanted else ~found).fill_null(value=False).to_numpy()

    size = universe(column)
    try:
        if isinstance(column.cells, Values):
            return Subset.of_mask(holds(labels_of(column.cells, table.kept[column.name])))
        lattice = column.lattice
        assert lattice is not None, "a number that depends on no code has a lattice"
        if lattice.points > _TRIED and (cuts := _cuts(expression, column)) is not None:
            starts, member = _between(cuts, column, holds)
        elif lattice.points <= _TRIED_AT_MOST:
            starts, member = _at_all(column, holds)
        else:
            return None
        if column.cells.nullable:
            starts = np.append(starts, lattice.points)
            member = np.append(member, holds(lattice.column(np.zeros(1, dtype=np.int64), np.ones(1, dtype=bool))))
    except PolarsError:  # what fails on some value is left to the rows that are drawn
        return None
    return Subset.of_pieces(starts, member, size=size)


def _at_all(column: ColumnDomain, holds: Callable[[pl.Series], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Runs of values that are alike, from trying all of them."""
    lattice = column.lattice
    assert lattice is not None, "see _tried"
    firsts, members = [], []
    for begin in range(0, lattice.points, _TRIED):
        at = np.arange(begin, min(begin + _TRIED, lattice.points))
        member = holds(lattice.column(at, np.zeros(len(at), dtype=bool)))
        first = np.flatnonzero(np.concatenate([[True], member[1:] != member[:-1]]))
        firsts.append(at[first])
        members.append(member[first])
    return np.concatenate(firsts), np.concatenate(members)


def _between(
    cuts: Sequence[float], column: ColumnDomain, holds: Callable[[pl.Series], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Runs of values that are alike, for an expression that can change at ``cuts`` alone."""
    lattice = column.lattice
    assert lattice is not None, "see _tried"
    near = [math.floor((cut - lattice.origin) / lattice.step) + shift for cut in cuts for shift in range(-2, 4)]
    starts = np.asarray(sorted({0, *(at for at in near if 0 <= at < lattice.points)}), dtype=np.int64)
    return starts, holds(lattice.column(starts, np.zeros(len(starts), dtype=bool)))


def _cuts(expression: pl.Expr, column: ColumnDomain) -> list[float] | None:
    """Where an expression over one numeric column can change; None where it computes with the column's values.

    It is a tree of comparisons and their like when every part is the column, a constant, or true-or-false of such.
    Zero is always one of the cuts: a number taken for a truth changes there.
    """
    assert column.lattice is not None, "see _tried"
    row = pl.DataFrame([column.lattice.column(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=bool)).alias(column.name)])
    cuts = [0.0]
    todo = [expression]
    while todo:
        part = todo.pop()
        if not part.meta.root_names():
            constants = pl.select(part).to_series()
            constants = constants.explode() if isinstance(constants.dtype, pl.List | pl.Array) else constants
            constants = constants.drop_nulls()
            if constants.dtype.is_temporal():
                minutes = as_number(constants.cast(pl.Datetime("us")))
                constants = minutes / (1.0 if column.lattice.kind == "datetime" else 1440.0)
            elif not (constants.dtype.is_numeric() or constants.dtype == pl.Boolean):
                return None
            cuts += constants.cast(pl.Float64).to_list()
        elif part.meta.pop():
            if row.select(part.alias("part")).schema["part"] != pl.Boolean:
                return None
            todo += part.meta.pop()
    return [cut for cut in cuts if math.isfinite(cut)]
