"""The columns of a conditional table as the model sees them, and what is expected of them before pairs are bought.

Post-processing: all of it is public or was bought.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from synthehr.encoding.domain import ColumnDomain
from synthehr.encoding.unroll import GAP, ConditionalTable
from synthehr.models.loglinear import Conditional
from synthehr.models.networks import Generator
from synthehr.privacy.history import Repeated, cell_of_none
from synthehr.privacy.partition import Cells, PerCode, Values, cells_of
from synthehr.randomness import FloatArray

__all__ = [
    "Expectation",
    "Learned",
    "all_cells",
    "cells_above",
    "counts_by_code",
    "repeated_columns",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """A conditional table once it is learned.

    Attributes:
        made: what it is learned as.
        domain: its own columns.
        cells: of all columns, by name.
        generator: of the patients' own table; None of others.
        conditionals: of other tables, one for each own column in the order in which they are drawn.
    """

    made: ConditionalTable
    domain: tuple[ColumnDomain, ...]
    cells: Mapping[str, Cells]
    generator: Generator | None = None
    conditionals: tuple[Conditional, ...] = ()


def nullable(cells: Cells) -> Cells:
    """The same cells with one for nothing, last."""
    if isinstance(cells, PerCode):
        return replace(cells, parts=tuple(replace(part, nullable=True) for part in cells.parts))
    return replace(cells, nullable=True)


def cells_above(made: ConditionalTable, above: Mapping[str, Cells]) -> dict[str, Cells]:
    """The cells of the context, by its names here; ``above`` has those of the parent's columns by theirs."""
    return {name: above[column] for name, column in made.context.items()}


def repeated_columns(
    made: ConditionalTable, own: Mapping[str, Cells], context: Mapping[str, Cells]
) -> tuple[Repeated, ...]:
    """The columns of history with their cells."""
    place = {name: at for at, name in enumerate(own)}
    code = place[made.code] if made.code is not None else 0
    gap = GAP if GAP in own else None
    found = []
    for name, past in made.history.items():
        of = 0
        match past.role:
            case "last" | "beside" | "before":
                cells, of = nullable(own[past.of]), place[past.of]
            case "seen":
                cells = Values(values=("never", "before", "beside"), other=False, nullable=False)
            case "index" | "remaining" | "elapsed" | "left":
                cells = context[past.of]
            case "pace":
                cells = nullable(own[past.of])
        found.append(Repeated(role=past.role, name=name, cells=cells, of=of, code=code, gap=gap))
    return tuple(found)


def all_cells(made: ConditionalTable, domain: Sequence[ColumnDomain], above: Learned | None) -> dict[str, Cells]:
    """The cells of all columns of a table, in its order."""
    own: dict[str, Cells] = {column.name: column.cells for column in domain}
    context = cells_above(made, above.cells) if above is not None else {}
    return {**own, **context, **{past.name: past.cells for past in repeated_columns(made, own, context)}}


def counts_by_code(column: ColumnDomain, cells: PerCode) -> FloatArray:
    """Patients by code and cell of a column that depends on it. Shape: ``(codes, cells)``."""
    counts = np.zeros((len(column.parts), cells.size))
    for at, part in enumerate(column.parts):
        counts[at, cells.middles(at)] = part.counts
    return counts


class Expectation:
    """Joint counts of two columns as far as one-way counts and the structure of a table tell them.

    Columns are independent, but where a row is a patient's first its gap, its elapsed time and what it repeats of the
    row before are missing together, and what depends on a code was bought by code.

    Args:
        made: the table.
        columns: all its columns with their counts, which sum to the patients with rows.
        patients: that number.
    """

    def __init__(
        self,
        made: ConditionalTable,
        columns: Sequence[ColumnDomain],
        *,
        patients: float,
    ) -> None:
        self._made, self._patients = made, patients
        self._counts = [np.maximum(column.counts, 0.0) for column in columns]
        self._place = {name: at for at, name in enumerate(made.names)}
        self._by_code = {
            (self._place[column.cells.per], self._place[column.name]): counts_by_code(column, column.cells)
            for column in columns
            if column.parts and isinstance(column.cells, PerCode)
        }
        self._fixed = self._cells_of_first([column.cells for column in columns])
        self._firsts = min((float(self._counts[at][cell]) for at, cell in self._fixed.items()), default=0.0)

    def _cells_of_first(self, cells: Sequence[Cells]) -> dict[int, int]:
        """For columns that are the same in all patients' first rows: the cell they have there."""
        found = {}
        for name, at in self._place.items():
            past = self._made.history.get(name)
            if past is None:
                if name == GAP and self._made.depth == 1:
                    found[at] = cell_of_none(cells[at])
            elif past.role in {"last", "beside", "elapsed", "left", "pace"}:
                found[at] = cell_of_none(cells[at])
            elif past.role == "index" and self._made.depth == 1:
                found[at] = int(cells_of(pl.DataFrame({"at": [1]}), "at", cells[at])[0])
        return found

    def pair(self, pair: tuple[int, ...]) -> FloatArray:
        """Patients in each pair of cells, of the shape of both columns' cells."""
        i, j = pair
        if (i, j) in self._by_code:
            return self._by_code[i, j]
        if (j, i) in self._by_code:
            return self._by_code[j, i].T
        if i not in self._fixed or j not in self._fixed:
            return np.asarray(np.outer(self._counts[i], self._counts[j]) / self._patients, dtype=np.float64)
        rest, both = self._patients - self._firsts, np.zeros((len(self._counts[i]), len(self._counts[j])))
        if rest > 0.0:
            both += np.outer(*(self._later(at) for at in pair)) / rest
        both[self._fixed[i], self._fixed[j]] += self._firsts
        return both

    def _later(self, at: int) -> FloatArray:
        """The counts of one column in rows that are not a patient's first."""
        counts = self._counts[at].copy()
        counts[self._fixed[at]] -= self._firsts
        return counts
