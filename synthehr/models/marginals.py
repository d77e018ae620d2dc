"""Pull a generator towards bought marginals. Post-processing: no private row is at hand here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthehr.encoding.domain import ColumnDomain
from synthehr.models.networks import Generator, one_hot
from synthehr.randomness import FloatArray

__all__ = ["Conditions", "FitSettings", "PairTargets", "fit_to_pairs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How long and how fast the generator learns; none of it moves the guarantee."""

    steps: int = 3000
    batch: int = 1000
    learning_rate: float = 3e-3


class Conditions:
    """CTGAN's conditions, drawn from bought one-way counts: a column evenly, then one of its cells.

    NOTE[DIFF] cells by their share, where CTGAN takes the logarithm: the batch is then the population.
    """

    def __init__(self, domain: Sequence[ColumnDomain], *, device: torch.device) -> None:
        self.sizes = tuple(column.cells.size for column in domain)
        self._offsets = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self._upto = [_cumulative(column.counts) for column in domain]
        self._device = device

    def draw(self, rows: int, generator: np.random.Generator) -> Tensor:
        """One-hot conditions, shape ``(rows, cells)``; columns and cells stratified to lower the variance."""
        column = generator.permutation(rows) % len(self.sizes)
        flat = np.zeros(rows, dtype=np.int64)
        for at, upto in enumerate(self._upto):
            mine = np.flatnonzero(column == at)
            even = (np.arange(len(mine)) + generator.random(len(mine))) / max(len(mine), 1)
            cell = np.minimum(np.searchsorted(upto, generator.permutation(even), side="right"), self.sizes[at] - 1)
            flat[mine] = self._offsets[at] + cell
        condition = torch.zeros(rows, sum(self.sizes))
        condition[torch.arange(rows), torch.from_numpy(flat)] = 1.0
        return condition.to(self._device)


def _cumulative(counts: FloatArray) -> FloatArray:
    mass = np.maximum(counts, 0.0)
    total = float(mass.sum())
    share = mass / total if total > 0 else np.full(len(mass), 1.0 / len(mass))
    return np.asarray(np.cumsum(share), dtype=np.float64)


class PairTargets:
    """Bought pair marginals as one matrix of shares over all pairs of cells, and which entries are known."""

    def __init__(
        self,
        sizes: Sequence[int],
        pairs: Sequence[tuple[int, int]],
        noisy: Sequence[FloatArray],
        *,
        patients: int,
        device: torch.device,
    ) -> None:
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        share = np.zeros((offsets[-1], offsets[-1]), dtype=np.float32)
        known = np.zeros_like(share)
        for (i, j), counts in zip(pairs, noisy, strict=True):
            block = slice(offsets[i], offsets[i + 1]), slice(offsets[j], offsets[j + 1])
            share[block] = counts / patients
            known[block] = 1.0
        self.share = torch.from_numpy(share).to(device)
        self.known = torch.from_numpy(known).to(device)
        self.patients = patients

    def loss(self, probabilities: Tensor) -> Tensor:
        """Squared error of a batch's mean pair shares, summed over known entries, in units of patients / 10."""
        share = probabilities.T @ probabilities / len(probabilities)
        return ((share - self.share).square() * self.known).sum() * (self.patients / 10.0)


def fit_to_pairs(
    generator: Generator,
    targets: PairTargets,
    conditions: Conditions,
    *,
    settings: FitSettings,
    draws: np.random.Generator,
) -> Iterator[float]:
    """Train the generator on the targets; yields the loss after each step, which is a function of bought numbers."""
    device = targets.share.device
    optimiser = torch.optim.Adam(generator.parameters(), lr=settings.learning_rate, betas=(0.5, 0.9))
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    for _ in range(settings.steps):
        noise = torch.from_numpy(draws.standard_normal((settings.batch, generator.latent), dtype=np.float32))
        loss = targets.loss(generator(noise.to(device), conditions.draw(settings.batch, draws)))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        rate.step()
        yield float(loss.detach())


def sample_rows(generator: Generator, conditions: Conditions, rows: int, draws: np.random.Generator) -> Tensor:
    """One-hot rows drawn from the generator, shape ``(rows, cells)``."""
    device = next(generator.parameters()).device
    with torch.no_grad():
        noise = torch.from_numpy(draws.standard_normal((rows, generator.latent), dtype=np.float32)).to(device)
        probabilities = generator(noise, conditions.draw(rows, draws))
    codes = draw_codes(probabilities.cpu().numpy(), sizes=generator.sizes, draws=draws)
    return one_hot(torch.from_numpy(codes).to(device), sizes=generator.sizes)


def draw_codes(probabilities: np.ndarray, *, sizes: Sequence[int], draws: np.random.Generator) -> np.ndarray:
    """One cell a column by inverse transform. Shape: ``(rows, cells)`` in, ``(rows, columns)`` out."""
    codes = np.empty((len(probabilities), len(sizes)), dtype=np.int64)
    start = 0
    for at, size in enumerate(sizes):
        upto = np.cumsum(probabilities[:, start : start + size], axis=1, dtype=np.float64)
        point = draws.random(len(probabilities)) * upto[:, -1]
        codes[:, at] = np.minimum((upto <= point[:, None]).sum(axis=1), size - 1)
        start += size
    return codes
