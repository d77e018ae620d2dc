"""A column's domain as it stands in files: the manifest of a release, and the checkpoint of a fit."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from synthehr.encoding.domain import ColumnDomain, intervals_of
from synthehr.encoding.lattice import Lattice
from synthehr.privacy.partition import Intervals, PerCode, Values

__all__ = ["ColumnRecord", "LatticeRecord", "PerCodeRecord", "column_of", "record_of"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LatticeRecord(_Record):
    """The values a numeric column can take, and the bought finer histogram inside its cells."""

    origin: float
    step: float
    points: int
    kind: Literal["integer", "number", "date", "datetime"]
    starts: tuple[int, ...]
    counts: tuple[float, ...]
    cells: tuple[int, ...]


class ColumnRecord(_Record):
    """The cells of one column and the bought number of patients in each."""

    name: str
    nullable: bool
    values: tuple[str, ...] | None = None
    other: bool = False
    edges: tuple[float, ...] | None = None
    counts: tuple[float, ...]
    variance: tuple[float, ...]
    lattice: LatticeRecord | None = None
    per: PerCodeRecord | None = None


class PerCodeRecord(_Record):
    """The parts of a column that depends on a code: one a value of the code, then other values, then missing ones.

    Attributes:
        column: the code.
        values: its values.
        other: whether there is a part for any other value.
        nullable: whether there is a part for rows without a code.
        parts: the column's domain for each of them.
        firsts: for each part, the first of the column's cells that each of its intervals takes.
    """

    column: str
    values: tuple[str, ...]
    other: bool
    nullable: bool
    parts: tuple[ColumnRecord, ...]
    firsts: tuple[tuple[int, ...], ...]


def record_of(column: ColumnDomain) -> ColumnRecord:
    """A column's domain as it stands in files; counts to two decimals."""
    lattice = None
    if column.lattice is not None:
        assert column.leaf_starts is not None and column.leaf_counts is not None and column.leaf_cells is not None
        lattice = LatticeRecord(
            origin=column.lattice.origin,
            step=column.lattice.step,
            points=column.lattice.points,
            kind=column.lattice.kind,
            starts=tuple(column.leaf_starts.tolist()),
            counts=tuple(np.round(column.leaf_counts, 2).tolist()),
            cells=tuple(column.leaf_cells.tolist()),
        )
    cells = column.cells
    per = None
    if isinstance(cells, PerCode):
        per = PerCodeRecord(
            column=cells.per,
            values=cells.codes.values,
            other=cells.codes.other,
            nullable=cells.codes.nullable,
            parts=tuple(record_of(part) for part in column.parts),
            firsts=tuple(tuple(firsts.tolist()) for firsts in cells.firsts),
        )
    return ColumnRecord(
        name=column.name,
        nullable=cells.nullable,
        values=cells.values if isinstance(cells, Values) else None,
        other=isinstance(cells, Values) and cells.other,
        edges=tuple(cells.edges.tolist()) if isinstance(cells, Intervals) else None,
        counts=tuple(np.round(column.counts, 2).tolist()),
        variance=tuple(column.variance.tolist()),
        lattice=lattice,
        per=per,
    )


def column_of(record: ColumnRecord) -> ColumnDomain:
    """The domain that a record describes."""
    counts, variance = np.asarray(record.counts), np.asarray(record.variance)
    if record.values is not None:
        cells = Values(values=record.values, other=record.other, nullable=record.nullable)
        return ColumnDomain(name=record.name, cells=cells, counts=counts, variance=variance)
    if record.per is not None:
        parts = tuple(column_of(part) for part in record.per.parts)
        aligned = PerCode(
            per=record.per.column,
            codes=Values(values=record.per.values, other=record.per.other, nullable=record.per.nullable),
            parts=intervals_of(parts),
            firsts=tuple(np.asarray(firsts, dtype=np.int64) for firsts in record.per.firsts),
            places=len(counts) - int(record.nullable),
        )
        return ColumnDomain(name=record.name, cells=aligned, counts=counts, variance=variance, parts=parts)
    lattice = record.lattice
    assert lattice is not None and record.edges is not None, "a column has values or a lattice"
    return ColumnDomain(
        name=record.name,
        cells=Intervals(edges=np.asarray(record.edges), nullable=record.nullable),
        counts=counts,
        variance=variance,
        lattice=Lattice(origin=lattice.origin, step=lattice.step, points=lattice.points, kind=lattice.kind),
        leaf_starts=np.asarray(lattice.starts, dtype=np.int64),
        leaf_counts=np.asarray(lattice.counts),
        leaf_cells=np.asarray(lattice.cells, dtype=np.int64),
    )
