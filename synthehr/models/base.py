"""What every model's fit leaves behind, and how rows are drawn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from synthehr.encoding.domain import ColumnDomain
from synthehr.errors import DataError
from synthehr.models.marginals import Conditions, draw_codes
from synthehr.models.networks import Generator
from synthehr.privacy.accountant import Event
from synthehr.privacy.budget import Budget
from synthehr.schema.model import Schema

__all__ = ["MODELS", "GeneratorShape", "Trained", "load_generator", "sample_codes"]

MODELS = ("auto", "dp-ctgan", "marginal")
_CHUNK = 8192


class GeneratorShape(BaseModel):
    """The size of a generator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latent: int = Field(default=64, ge=1)
    hidden: int = Field(default=256, ge=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The outcome of a fit: bought things only.

    Attributes:
        model: which model was fitted.
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
    domain: tuple[ColumnDomain, ...]
    shape: GeneratorShape
    weights: Mapping[str, Tensor]
    patients_bought: int
    events: tuple[Event, ...]
    epsilon_spent: float
    noise: str
    why_not_private: str | None
    required_suite: str | None = None
    audit_required: bool = False


def load_generator(domain: Sequence[ColumnDomain], shape: GeneratorShape, weights: Mapping[str, Tensor]) -> Generator:
    """The generator with these weights, on the CPU.

    Raises:
        DataError: the weights are not those of such a generator.
    """
    generator = Generator(sizes=[c.cells.size for c in domain], latent=shape.latent, hidden=shape.hidden)
    try:
        generator.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise DataError("the weights of the release do not fit its manifest: it is not as it was written") from error
    return generator.eval()


def sample_codes(
    generator: Generator, domain: Sequence[ColumnDomain], *, rows: int, draws: np.random.Generator
) -> np.ndarray:
    """Cells of synthetic rows, shape ``(rows, columns)``; drawn in chunks of one size, so memory stays flat."""
    conditions = Conditions(domain, device=torch.device("cpu"))
    chunks = []
    for start in range(0, rows, _CHUNK):
        noise = torch.from_numpy(draws.standard_normal((_CHUNK, generator.latent), dtype=np.float32))
        with torch.inference_mode():
            probabilities = generator(noise, conditions.draw(_CHUNK, draws)).numpy()
        codes = draw_codes(probabilities, sizes=generator.sizes, draws=draws)
        chunks.append(codes[: rows - start])
    return np.concatenate(chunks)
