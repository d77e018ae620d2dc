"""The way through the door, and back from cells to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.encoding.domain import OTHER, ColumnDomain
from synthehr.encoding.subsets import Interior, interior_of
from synthehr.encoding.unroll import ConditionalTable, door_columns, unroll
from synthehr.privacy.partition import PerCode, Values
from synthehr.privacy.policy import Policy
from synthehr.privacy.rows import PrivateRows
from synthehr.randomness import IntArray, NoiseSource
from synthehr.schema.model import BooleanColumn, Column, Schema, Table

__all__ = ["Decoder", "all_behind_the_door", "behind_the_door", "bound_rows", "declared_rows", "decode", "labels_of"]


def declared_rows(schema: Schema) -> dict[str, int | None]:
    """The ``max_rows`` that each child table declares, by table; None where it leaves the bound to the policy."""
    return {name: table.max_rows for name, table in schema.tables.items() if name != schema.subject}


def bound_rows(
    cohort: Cohort[Schema], *, policy: Policy, draws: np.random.Generator
) -> tuple[Cohort[Schema], dict[str, int]]:
    """The cohort that a fit learns from, and its public bound on rows per patient by table (1 for the root).

    Args:
        cohort: the real records.
        policy: bounds what the schema leaves open.
        draws: which rows of a patient stay; never from the user's seed, and the same where a fit goes on.
    """
    most = policy.row_bounds(declared_rows(cohort.schema))
    return cohort.bounded(most, draws=draws), {cohort.schema.subject: 1, **most}


def behind_the_door(cohort: Cohort[Schema], *, table: str, noise: NoiseSource, max_rows: int = 1) -> PrivateRows:
    """The kept columns of one table as private rows: categories as text, all else on its lattice's scale.

    Args:
        cohort: bounded by :func:`bound_rows` where it has several tables.
        table: name of the table.
        noise: where the noise of its mechanisms comes from.
        max_rows: public bound on the rows of one patient in the table.

    Raises:
        InternalError: a patient has more rows than the bound.
    """
    return PrivateRows(
        pl.DataFrame(door_columns(cohort.tables[table], cohort.schema.tables[table].kept)),
        owners=cohort.owners(table),
        patients=len(cohort),
        max_rows=max_rows,
        noise=noise,
    )


def all_behind_the_door(
    cohort: Cohort[Schema],
    tables: Mapping[str, ConditionalTable],
    *,
    noise: NoiseSource,
    max_rows: Mapping[str, int],
    draws: np.random.Generator,
) -> dict[str, PrivateRows]:
    """The own columns of every conditional table as private rows.

    Args:
        cohort: bounded by :func:`bound_rows`.
        tables: what each table is learned as.
        noise: where the noise of their mechanisms comes from.
        max_rows: public bound on the rows of one patient, by table.
        draws: the order of rows in tables that have none.
    """
    return {
        name: PrivateRows(
            part.frame,
            owners=part.owners,
            patients=len(cohort),
            max_rows=max_rows[name],
            noise=noise,
            parents=part.parents if tables[name].depth else None,
        )
        for name, part in unroll(cohort, tables, draws=draws).items()
    }


def labels_of(cells: Values, declared: Column) -> pl.Series:
    """The value of each cell of a category or boolean column, null for missing, shape ``(cells.size,)``."""
    labels: list[str | None] = [*cells.values, *[OTHER] * int(cells.other), *[None] * int(cells.nullable)]
    series = pl.Series(labels, dtype=pl.String)
    return series.eq("true") if isinstance(declared, BooleanColumn) else series


class Decoder:
    """From cells to values: a category's own, or a draw inside the cell from its bought finer histogram.

    What depends on a code is drawn from the part of the row's own code, whichever of the two columns comes first.

    Args:
        domain: the columns' cells.
        table: the columns' declarations.
    """

    def __init__(self, domain: Sequence[ColumnDomain], table: Table) -> None:
        self._domain = tuple(domain)
        self._place = {column.name: at for at, column in enumerate(domain)}
        self._labels = {
            at: labels_of(column.cells, table.kept[column.name])
            for at, column in enumerate(domain)
            if isinstance(column.cells, Values)
        }
        self._interiors = {at: interior_of(column) for at, column in enumerate(domain) if column.lattice is not None}
        self._parts = {at: [interior_of(part) for part in column.parts] for at, column in enumerate(domain)}

    def rows(
        self, codes: Sequence[IntArray], draws: np.random.Generator, *, within: Mapping[int, Interior] | None = None
    ) -> pl.DataFrame:
        """Values for cells.

        Args:
            codes: the cells of each column, in the order of the domain, each of shape ``(rows,)``.
            draws: for places inside cells.
            within: for some numeric columns, by their place, the part of the cells' insides to keep to.
        """
        interiors = {**self._interiors, **(within or {})}
        columns = []
        for at, column in enumerate(self._domain):
            if at in self._labels:
                series = self._labels[at][pl.Series(codes[at].astype(np.uint32))]
            elif isinstance(column.cells, PerCode):
                series = self._by_code(codes[at], codes[self._place[column.cells.per]], column, draws, at=at)
            else:
                series = _numbers(codes[at], column, interiors[at], draws)
            columns.append(series.alias(column.name))
        return pl.DataFrame(columns)

    def _by_code(
        self, cells: IntArray, part_of_row: IntArray, column: ColumnDomain, draws: np.random.Generator, *, at: int
    ) -> pl.Series:
        """A value for each cell of a column that depends on a code, from the part of the row's code."""
        assert isinstance(column.cells, PerCode), "only such a column has parts"
        order = np.argsort(part_of_row, kind="stable")
        upto = np.cumsum(np.bincount(part_of_row, minlength=len(column.parts)))
        pieces = [
            _numbers(column.cells.own(code, cells[rows]), part, self._parts[at][code], draws)
            for code, (part, rows) in enumerate(zip(column.parts, np.split(order, upto[:-1]), strict=True))
        ]
        return pl.concat(pieces).gather(np.argsort(order))


def decode(
    codes: IntArray, *, domain: Sequence[ColumnDomain], table: Table, generator: np.random.Generator
) -> pl.DataFrame:
    """Values for cells, as :class:`Decoder` finds them.

    Shape: ``codes`` is ``(rows, columns)`` in the order of ``domain``.
    """
    return Decoder(domain, table).rows(list(codes.T), generator)


def _numbers(codes: IntArray, column: ColumnDomain, interior: Interior, draws: np.random.Generator) -> pl.Series:
    """A value for each cell of a numeric column, null where missing."""
    assert column.lattice is not None, "numeric columns have a lattice"
    missing = codes == column.cells.size - 1 if column.cells.nullable else np.zeros(len(codes), dtype=bool)
    return column.lattice.column(interior.draw(codes, draws), missing)
