"""What every model's fit leaves behind, and the generator that comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from synthehr.encoding.domain import ColumnDomain
from synthehr.errors import DataError
from synthehr.models.networks import Generator
from synthehr.models.sampling import sample_codes
from synthehr.privacy.accountant import Event
from synthehr.privacy.budget import Budget
from synthehr.schema.model import Schema

__all__ = ["MODELS", "GeneratorShape", "Trained", "TrainedTable", "load_generator", "sample_codes"]

MODELS = ("auto", "dp-ctgan", "dp-tvae", "marginal")


class GeneratorShape(BaseModel):
    """The size of a generator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    components: int = Field(default=1000, ge=1, description="Products of one distribution a column, of equal weight.")
    latent: int = Field(default=32, ge=1, description="Numbers of noise that the refiner gets.")
    hidden: int = Field(default=64, ge=0, description="Width of the refiner; 0 where there is none.")


class TermRecord(BaseModel):
    """One term of a column's score: the columns it looks at, and where cells are coarser the group of each."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    given: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...] = Field(
        default=(), description="The group of each cell of each column, the target's last."
    )


class ConditionalRecord(BaseModel):
    """How one column is drawn given others; the weights of term i are the tensor ``<table>/<column>/<i>``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str
    terms: tuple[TermRecord, ...]
    of_candidate: bool = Field(description="Whether it looks at which cells were there before: ``<column>/seen``.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedTable:
    """One table that was learned.

    Attributes:
        domain: of its own columns.
        weights: of its generator, or of its columns' terms.
        terms: of tables beside the patients' own, what its columns' scores are sums of.
    """

    domain: tuple[ColumnDomain, ...]
    weights: Mapping[str, Tensor]
    terms: tuple[ConditionalRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The outcome of a fit: bought things only.

    Attributes:
        model: which model was fitted.
        shape: of the patients' generator.
        per_table: what was learned of each, ancestors first; the patients' own is one of them.
        max_rows: the bound on the rows of one patient in each table.
        chosen_because: why, in words.
        patients_bought: the noisy count of patients.
        events: what was spent, in dp_accounting's terms.
        epsilon_spent: those events composed, at the budget's delta.
        noise: name of the noise source.
        why_not_private: why the promise does not hold, if it does not.
        required_suite: the suite by which the policy has the release evaluated.
        audit_required: whether the policy asks for an audit of epsilon.
    """

    schema: Schema
    budget: Budget
    policy: str
    model: str
    chosen_because: str
    seed: int
    shape: GeneratorShape
    per_table: Mapping[str, TrainedTable]
    max_rows: Mapping[str, int]
    patients_bought: int
    events: tuple[Event, ...]
    epsilon_spent: float
    noise: str
    why_not_private: str | None
    required_suite: str | None = None
    audit_required: bool = False

    @property
    def domain(self) -> tuple[ColumnDomain, ...]:
        """The patients' own columns."""
        return self.per_table[self.schema.subject].domain

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Of the patients' own generator, and with a slash in their names those of outcomes."""
        return self.per_table[self.schema.subject].weights


def load_generator(sizes: Sequence[int], shape: GeneratorShape, weights: Mapping[str, Tensor]) -> Generator:
    """The generator of columns of these sizes with these weights, on the CPU.

    Raises:
        DataError: the weights are not those of such a generator.
    """
    generator = Generator(sizes=sizes, **shape.model_dump())
    try:
        generator.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise DataError("the weights of the release do not fit its manifest: it is not as it was written") from error
    return generator.eval()
