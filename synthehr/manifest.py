"""What stands in the files beside the weights: ``manifest.json`` of a release, ``PROVENANCE.json`` of a cohort."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from synthehr.encoding.records import ColumnRecord
from synthehr.models.base import ConditionalRecord, GeneratorShape
from synthehr.models.drawing import Method
from synthehr.privacy.accountant import EpsilonDelta, Gaussian, PoissonSampledGaussian
from synthehr.privacy.budget import NEIGHBOURS, UNIT

__all__ = ["Manifest", "ModelRecord", "PrivacyRecord", "Provenance", "TableRecord"]


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
    required_suite: str | None = Field(default=None, description="The suite that the policy evaluates it by.")
    audit_required: bool = Field(default=False, description="Whether the policy asks for an audit of epsilon.")
    noise: str = Field(description="Where the noise came from: system, cryptographic, or insecure (for tests).")
    epsilon_spent: float = Field(description="The events composed, at delta.")
    events: tuple[Annotated[Gaussian | PoissonSampledGaussian | EpsilonDelta, Field(discriminator="type")], ...]


class ModelRecord(_Record):
    """Which model was fitted, and why."""

    name: str
    chosen_because: str
    generator: GeneratorShape
    seed: int


class TableRecord(_Record):
    """What was learned of a table beside the patients' own."""

    domain: tuple[ColumnRecord, ...] = Field(
        description="Cells of the table's own columns; its other columns repeat those of ancestors and earlier rows."
    )
    conditionals: tuple[ConditionalRecord, ...] = Field(
        description="How each column is drawn given what is known before it, in that order."
    )


class Manifest(_Record):
    """Contents of ``manifest.json``."""

    release: Literal[1] = 1
    label: str = "A model of patients under differential privacy. What it makes is synthetic: no row is a patient."
    schema_: dict[str, Any] = Field(alias="schema")
    domain: tuple[ColumnRecord, ...] = Field(description="Cells of the patients' own columns.")
    outcomes: tuple[ConditionalRecord, ...] = Field(
        default=(), description="How outcomes of patients are drawn anew given their other columns, in that order."
    )
    tables: dict[str, TableRecord] = Field(
        default_factory=dict, description="The other tables that were learned, ancestors first."
    )
    max_rows: dict[str, int] = Field(
        default_factory=dict, description="Rows of one patient that were learned from at most, by other table."
    )
    model: ModelRecord
    patients_bought: int = Field(description="The noisy count of patients the model was fitted on.")
    privacy: PrivacyRecord
    versions: dict[str, str]
    digests: dict[str, str] = Field(default_factory=dict, description="SHA-256 of the other files.")


class GroupRecord(_Record):
    """A group of a balanced cohort."""

    value: str | bool
    patients: int
    model_share: float = Field(description="Its share among the groups as the model has it, given --where.")


class BalanceRecord(_Record):
    """How a cohort was balanced."""

    column: str
    groups: tuple[GroupRecord, ...]
    left_out: dict[str, str] = Field(description="Values that were not drawn, and why. Missing ones never are.")


class DrawingRecord(_Record):
    """How rows came about, which changes none of the shares."""

    method: Method = Field(description="direct: drawn inside --where; rejection: drawn until they met it.")
    parts: int = Field(description="Parts of the model that were weighed to draw directly; 0 where none were.")
    most_of_one: int = Field(description="Patients that came of one part, at most.")


class Provenance(_Record):
    """Contents of ``PROVENANCE.json`` beside a synthetic cohort."""

    synthetic: Literal[True] = True
    label: str = "Synthetic records. No row belongs to a patient."
    release_digest: str | None = Field(description="Null for a baseline, of which there is no release.")
    epsilon: float | None
    delta: float | None
    unit: str
    private: bool
    why_not: str | None = None
    patients: int
    seed: int
    where: tuple[str, ...]
    match_rate: float | None = Field(
        description="Share of the model's patients that meet --where, and are of a group that was drawn where the "
        "cohort is balanced; null without --where."
    )
    rule_rate: float | None = Field(
        description="Share of the rows that met --where which met the declared rules too; null without rules."
    )
    drawing: DrawingRecord | None = None
    balance: BalanceRecord | None = None
    rows_left_out: dict[str, int] = Field(
        default_factory=dict,
        description="Rows of other tables that no draw made lawful under the declared rules, and so are not there.",
    )
    shares: str = Field(default="Shares are the model's.", description="Whose shares the cohort shows.")
    versions: dict[str, str]
