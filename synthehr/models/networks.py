"""Networks over one-hot cells: the generator, CTGAN's critic of rows in their condition, and the encoder of a TVAE.

Xu et al. 2019, "Modeling Tabular Data using Conditional GAN". Departures are marked NOTE[DIFF].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "Critic",
    "Encoder",
    "Generator",
    "Latent",
    "Mixture",
    "Refiner",
    "conditioned",
    "one_hot",
    "relaxed",
    "softmax_by_column",
]


@dataclass(frozen=True, slots=True)
class Latent:
    """What a generator makes rows of.

    Attributes:
        component: of the mixture, shape ``(...)``.
        condition: one-hot over the cells of all columns, shape ``(..., cells)``.
        noise: standard normal, shape ``(..., latent)``; of width 0 where the generator has no refiner.
    """

    component: Tensor
    condition: Tensor
    noise: Tensor


class Mixture(nn.Module):
    """Components of equal weight, each a product of one distribution over cells a column.

    Fitted to marginals it is the relaxed table of Aydore et al. 2021 and Liu et al. 2021 (RAP with softmax).
    """

    def __init__(self, *, sizes: Sequence[int], components: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.logits = nn.Parameter(torch.zeros(components, sum(self.sizes)))

    def forward(self) -> Tensor:
        """Probabilities of each component's cells. Shape: ``(components, cells)``."""
        return softmax_by_column(self.logits, sizes=self.sizes)


class Refiner(nn.Module):
    """CTGAN's generator, between a component of the mixture and its row: scores to add to the component's.

    NOTE[DIFF] layer norm for batch norm: a row must not depend on the rows drawn beside it.
    NOTE[DIFF] it starts at zero, so that untrained it leaves the mixture as it is.
    """

    def __init__(self, *, sizes: Sequence[int], latent: int, hidden: int) -> None:
        super().__init__()
        width = sum(sizes)
        self.first = nn.Linear(latent + width, hidden)
        self.first_norm = nn.LayerNorm(hidden)
        self.second = nn.Linear(hidden, hidden)
        self.second_norm = nn.LayerNorm(hidden)
        self.out = nn.Linear(2 * hidden, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def features(self, noise: Tensor, rows: Tensor) -> Tensor:
        """What the last layer sees. Shape: ``(..., latent)`` and ``(..., cells)`` in, ``(..., 2 * hidden)`` out."""
        first = functional.relu(self.first_norm(self.first(torch.cat([noise, rows], dim=-1))))
        second = functional.relu(self.second_norm(self.second(first)))
        return torch.cat([first, second], dim=-1)

    def forward(self, noise: Tensor, rows: Tensor) -> Tensor:
        """Scores. Shape: ``noise (..., latent)``, ``rows (..., cells)`` of probabilities; ``(..., cells)`` out."""
        return torch.as_tensor(self.out(self.features(noise, rows)))


class Generator(nn.Module):
    """A mixture, and between its components and rows a refiner, where there is one.

    NOTE[DIFF] the conditioned column's output is its condition, where CTGAN penalises a mismatch.
    """

    def __init__(self, *, sizes: Sequence[int], components: int, latent: int = 0, hidden: int = 0) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.latent = latent if hidden else 0
        self.mixture = Mixture(sizes=sizes, components=components)
        self.refiner = Refiner(sizes=sizes, latent=latent, hidden=hidden) if hidden else None

    def forward(self, given: Latent) -> Tensor:
        """Probabilities of cells, those of each column summing to 1. Shape: ``(..., cells)``."""
        scores = self.mixture.logits[given.component]
        if self.refiner is not None:
            rows = conditioned(scores, given.condition, sizes=self.sizes)
            scores = scores + self.refiner(given.noise, rows)
        return conditioned(scores, given.condition, sizes=self.sizes)

    def draw(self, rows: int, draws: np.random.Generator) -> Latent:
        """Components about equally often, a random column of each and a cell of it by the component, and noise.

        The condition of a row is CTGAN's conditional vector. Shape: ``(rows, ...)``, on the weights' device.
        """
        logits = self.mixture.logits.detach()
        owners = torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes)).to(logits.device)
        component = draws.permutation((np.arange(rows) + int(draws.integers(len(logits)))) % len(logits))
        columns = draws.permutation(rows) % len(self.sizes)
        point, noise = draws.random((rows, 1)), draws.standard_normal((rows, self.latent), dtype=np.float32)
        which, column = torch.from_numpy(component).to(logits.device), torch.from_numpy(columns).to(logits.device)
        mine = owners == column.unsqueeze(1)
        upto = logits[which].masked_fill(~mine, -torch.inf).softmax(dim=1).cumsum(dim=1)
        cell = (upto <= torch.from_numpy(point).to(upto) * upto[:, -1:]).sum(dim=1)
        # Rounding may leave the point at the end of the row, past the column.
        last = torch.as_tensor(np.cumsum(self.sizes) - 1).to(logits.device)[column]
        condition = functional.one_hot(torch.minimum(cell, last), len(owners)).to(logits.dtype)
        return Latent(component=which, condition=condition, noise=torch.from_numpy(noise).to(logits.device))


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


class Encoder(nn.Module):
    """From a row, and what its component says of it, to mean and log-variance of the noise that would make it.

    No layer mixes rows.
    """

    def __init__(self, *, sizes: Sequence[int], hidden: int, latent: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * sum(sizes), hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * latent),
        )

    def forward(self, rows: Tensor, component: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance. Shape: ``(..., cells)`` twice in, ``(..., latent)`` twice out."""
        mean, log_variance = torch.as_tensor(self.layers(torch.cat([rows, component], dim=-1))).chunk(2, dim=-1)
        return mean, log_variance.clamp(-8.0, 8.0)


def softmax_by_column(scores: Tensor, *, sizes: Sequence[int]) -> Tensor:
    """Probabilities of each column's cells. Shape: ``(..., cells)`` in and out."""
    return torch.cat([functional.softmax(part, dim=-1) for part in scores.split(tuple(sizes), -1)], dim=-1)


def conditioned(scores: Tensor, condition: Tensor, *, sizes: Sequence[int]) -> Tensor:
    """Probabilities of each column's cells, a conditioned column's being its condition. Shape: ``(..., cells)``."""
    free = torch.cat([1.0 - p.sum(dim=-1, keepdim=True).expand(p.shape) for p in condition.split(tuple(sizes), -1)], -1)
    return condition + free * softmax_by_column(scores, sizes=sizes)


def one_hot(codes: Tensor, *, sizes: Sequence[int]) -> Tensor:
    """Cells as one-hot vectors side by side. Shape: ``(..., columns)`` in, ``(..., sum(sizes))`` out."""
    offsets = torch.as_tensor([0, *sizes[:-1]], device=codes.device).cumsum(0)
    flat = torch.zeros(*codes.shape[:-1], sum(sizes), device=codes.device)
    return flat.scatter_(-1, codes + offsets, 1.0)


def relaxed(probabilities: Tensor, gumbel: Tensor, *, sizes: Sequence[int], temperature: float = 0.2) -> Tensor:
    """Nearly one-hot draws that gradients pass through (Gumbel softmax, CTGAN's output layer).

    Shape: ``(rows, cells)`` for probabilities, for standard Gumbel noise and out.
    """
    return softmax_by_column((probabilities.clamp(min=1e-9).log() + gumbel) / temperature, sizes=sizes)
