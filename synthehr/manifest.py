"""What stands in the files beside the weights: ``manifest.json`` of a release, ``PROVENANCE.json`` of a cohort."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from synthehr.encoding.domain import ColumnDomain
from synthehr.encoding.lattice import Lattice
from synthehr.models.base import GeneratorShape
from synthehr.privacy.accountant import EpsilonDelta, Gaussian, PoissonSampledGaussian
from synthehr.privacy.budget import NEIGHBOURS, UNIT
from synthehr.privacy.partition import Intervals, Values

__all__ = ["ColumnRecord", "Manifest", "ModelRecord", "PrivacyRecord", "Provenance", "column_of", "record_of"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PrivacyRecord(_Record):
    """What was promised to patients, and the account that anyone can recompose."""

    epsilon: float = Field(description="The promise asked for.")
    delta: float
    unit: str = UNIT
    neighbours: str = NEIGHBOURS
    private: bool
    why_not: str | None = None
    policy: str
    noise: str = Field(description="Where the noise came from: system, cryptographic, or insecure (for tests).")
    epsilon_spent: float = Field(description="The events composed, at delta.")
    events: tuple[Annotated[Gaussian | PoissonSampledGaussian | EpsilonDelta, Field(discriminator="type")], ...]


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


class ModelRecord(_Record):
    """Which model was fitted, and why."""

    name: str
    chosen_because: str
    generator: GeneratorShape
    seed: int


class Manifest(_Record):
    """Contents of ``manifest.json``."""

    release: Literal[1] = 1
    label: str = "A model of patients under differential privacy. What it makes is synthetic: no row is a patient."
    schema_: dict[str, Any] = Field(alias="schema")
    domain: tuple[ColumnRecord, ...]
    model: ModelRecord
    patients_bought: int = Field(description="The noisy count of patients the model was fitted on.")
    privacy: PrivacyRecord
    versions: dict[str, str]
    digests: dict[str, str] = Field(default_factory=dict, description="SHA-256 of the other files.")


class Provenance(_Record):
    """Contents of ``PROVENANCE.json`` beside a synthetic cohort."""

    synthetic: Literal[True] = True
    label: str = "Synthetic records. No row belongs to a patient."
    release_digest: str
    epsilon: float
    delta: float
    unit: str
    private: bool
    why_not: str | None = None
    patients: int
    seed: int
    where: tuple[str, ...]
    match_rate: float | None = Field(description="Share of drawn rows that met --where; null without it.")
    rule_rate: float | None = Field(description="Share of drawn rows that met the declared rules; null without.")
    versions: dict[str, str]


def record_of(column: ColumnDomain) -> ColumnRecord:
    """A column's domain as it stands in the manifest; counts to two decimals."""
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
    return ColumnRecord(
        name=column.name,
        nullable=cells.nullable,
        values=cells.values if isinstance(cells, Values) else None,
        other=isinstance(cells, Values) and cells.other,
        edges=tuple(cells.edges.tolist()) if isinstance(cells, Intervals) else None,
        counts=tuple(np.round(column.counts, 2).tolist()),
        variance=tuple(column.variance.tolist()),
        lattice=lattice,
    )


def column_of(record: ColumnRecord) -> ColumnDomain:
    """The domain that a record describes."""
    counts, variance = np.asarray(record.counts), np.asarray(record.variance)
    if record.values is not None:
        cells = Values(values=record.values, other=record.other, nullable=record.nullable)
        return ColumnDomain(name=record.name, cells=cells, counts=counts, variance=variance)
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
