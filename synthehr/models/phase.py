"""What phases with private gradients have in common: dp-ctgan's critic and dp-tvae's encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from synthehr.models.networks import one_hot
from synthehr.privacy.accountant import Account
from synthehr.privacy.rows import GradientMechanism, PrivateCodes
from synthehr.randomness import IntArray

__all__ = ["GradientPhase", "GradientSettings", "conditions_of_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientSettings(ABC):
    """Rounds of private gradients, all planned before the first.

    Attributes:
        steps: rounds.
        expected_batch: patients a gradient, on average.
        clip_norm: of a patient's gradient, L2.
        refiner_rate: of Adam, for the steps of the generator's refiner towards the marginals, at the start.
        block: rounds that are counted at a time, ahead of running.
    """

    steps: int = 200
    expected_batch: int = 256
    clip_norm: float = 1.0
    refiner_rate: float = 1e-3
    block: int = 10

    @property
    @abstractmethod
    def gradients(self) -> int:
        """Private gradients a round."""


class GradientPhase(Protocol):
    """Networks that private gradients train, a round at a time.

    Attributes:
        name: of the stage, in progress and checkpoints.
    """

    name: str

    def round(self, codes: PrivateCodes, account: Account, *, mechanism: GradientMechanism) -> None:
        """The settings' number of private gradients, each one run of ``mechanism.event``, and what follows them."""

    def tensors(self) -> dict[str, Tensor]:
        """Networks and optimisers, to go on from."""

    def restore(self, held: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`tensors` gave."""


def conditions_of_rows(
    codes: IntArray, *, sizes: tuple[int, ...], draws: np.random.Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows as one-hot cells and the condition of each: a uniformly random column, the row's own cell.

    Nothing is looked up: a condition depends on its row alone. Shape: codes ``(..., columns)`` in,
    ``(..., cells)`` twice out.
    """
    rows = one_hot(torch.from_numpy(codes).to(device), sizes=sizes)
    column = torch.from_numpy(draws.integers(0, codes.shape[-1], codes.shape[:-1])).to(device)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(device)
    return rows, rows * (owner == column.unsqueeze(-1))
