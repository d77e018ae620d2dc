"""CTGAN's networks over one-hot cells: a conditional generator and a critic of rows in their condition.

Xu et al. 2019, "Modeling Tabular Data using Conditional GAN". Departures are marked NOTE[DIFF].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Critic", "Generator", "one_hot", "relaxed"]


class Generator(nn.Module):
    """From noise and a condition to the probabilities of every column's cells.

    NOTE[DIFF] layer norm for batch norm: a row must not depend on the rows drawn beside it.
    NOTE[DIFF] the conditioned column's output is its condition, where CTGAN penalises a mismatch.
    """

    def __init__(self, *, sizes: Sequence[int], latent: int, hidden: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.latent = latent
        width = sum(self.sizes)
        self.first = nn.Linear(latent + width, hidden)
        self.first_norm = nn.LayerNorm(hidden)
        self.second = nn.Linear(hidden, hidden)
        self.second_norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(2 * hidden, width)

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Probabilities, those of each column summing to 1.

        Shape: ``noise (rows, latent)``, ``condition (rows, cells)``, one-hot over the cells of all columns or
        zero for none; result ``(rows, cells)``.
        """
        first = functional.relu(self.first_norm(self.first(torch.cat([noise, condition], dim=1))))
        second = functional.relu(self.second_norm(self.second(first)))
        logits = self.out(torch.cat([first, second], dim=1))
        parts = []
        for scores, given in zip(logits.split(self.sizes, 1), condition.split(self.sizes, 1), strict=True):
            fixed = given.sum(dim=1, keepdim=True)
            parts.append(given + (1.0 - fixed) * functional.softmax(scores, dim=1))
        return torch.cat(parts, dim=1)


class Critic(nn.Module):
    """A score for each row in its condition; no layer mixes patients.

    NOTE[DIFF] pac is 1 and there is no dropout: packing would pair patients in one gradient.
    """

    def __init__(self, *, sizes: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        width = sum(self.sizes)
        self.layers = nn.Sequential(
            nn.Linear(2 * width, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )

    def forward(self, rows: Tensor, condition: Tensor) -> Tensor:
        """Scores. Shape: ``(..., cells)`` twice in, ``(...)`` out."""
        return torch.as_tensor(self.layers(torch.cat([rows, condition], dim=-1))).squeeze(-1)


def one_hot(codes: Tensor, *, sizes: Sequence[int]) -> Tensor:
    """Cells as one-hot vectors side by side. Shape: ``(..., columns)`` in, ``(..., sum(sizes))`` out."""
    offsets = torch.as_tensor([0, *sizes[:-1]], device=codes.device).cumsum(0)
    flat = torch.zeros(*codes.shape[:-1], sum(sizes), device=codes.device)
    return flat.scatter_(-1, codes + offsets, 1.0)


def relaxed(probabilities: Tensor, gumbel: Tensor, *, sizes: Sequence[int], temperature: float = 0.2) -> Tensor:
    """Nearly one-hot draws that gradients pass through (Gumbel softmax, CTGAN's output layer).

    Shape: ``(rows, cells)`` for probabilities, for standard Gumbel noise and out.
    """
    scores = (probabilities.clamp(min=1e-9).log() + gumbel) / temperature
    return torch.cat([functional.softmax(part, dim=1) for part in scores.split(tuple(sizes), 1)], dim=1)
