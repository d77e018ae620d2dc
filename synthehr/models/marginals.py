"""Pull a generator towards bought marginals. Post-processing: no private row is at hand here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthehr.encoding.domain import ColumnDomain
from synthehr.models.learner import Learner
from synthehr.models.networks import Generator, one_hot
from synthehr.randomness import FloatArray, IntArray

__all__ = ["Conditions", "FitSettings", "Targets", "expected_joints", "fit_to_targets"]


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


class Targets:
    """Bought joint histograms, as shares, that a generator is pulled to.

    Pairs stand in one matrix of all pairs of cells. Triples are of coarser cells, the same number for each column, so
    that all of them are one batched product; a column with fewer has empty ones.
    """

    def __init__(self, sizes: Sequence[int], *, patients: int, device: torch.device) -> None:
        self._sizes = tuple(sizes)
        self._offsets = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        self.share = torch.zeros(self._offsets[-1], self._offsets[-1], device=device)
        self.weight = torch.zeros_like(self.share)
        self.patients = patients
        self._coarse = torch.zeros(0, device=device)
        self._columns = torch.zeros(3, 0, dtype=torch.int64, device=device)
        self._triples = self._triple_weight = torch.zeros(0, device=device)

    def add_pair(self, pair: tuple[int, ...], counts: FloatArray, *, weight: float) -> None:
        """Pull the pair of columns to ``counts``, shape of the two columns' cells."""
        (i, j), at = pair, self._offsets
        block = slice(at[i], at[i + 1]), slice(at[j], at[j + 1])
        self.share[block] = torch.from_numpy(counts / self.patients).to(self.share)
        self.weight[block] = weight

    def set_groups(self, groups: Sequence[IntArray]) -> None:
        """The coarser cells of triples: the group of each cell, one array a column."""
        most = 1 + max(int(group.max()) for group in groups)
        self._coarse = torch.zeros(self._offsets[-1], len(groups) * most, device=self.share.device)
        for at, group in enumerate(groups):
            cells = torch.arange(self._offsets[at], self._offsets[at + 1])
            self._coarse[cells, torch.from_numpy(group) + at * most] = 1.0

    def add_triples(self, sets: Sequence[tuple[int, ...]], counts: Sequence[FloatArray], *, weight: FloatArray) -> None:
        """Pull sets of three columns to ``counts``, each of the shape of its coarser cells; weights by set."""
        most = self._coarse.shape[1] // len(self._sizes)
        share = torch.zeros(len(sets), most, most, most)
        for at, found in enumerate(counts):
            first, second, third = found.shape
            share[at, :first, :second, :third] = torch.from_numpy(found / self.patients)
        self._columns = torch.tensor(sets, device=self.share.device).T
        self._triples = share.flatten(1, 2).to(self.share)
        self._triple_weight = torch.from_numpy(weight).to(self.share).view(-1, 1, 1)

    def joints(self, probabilities: Tensor, columns: Tensor) -> Tensor:
        """Mean outer products of three columns' coarser cells: ``(3, sets)`` to ``(sets, groups ** 2, groups)``."""
        coarse = (probabilities @ self._coarse).view(len(probabilities), len(self._sizes), -1).transpose(0, 1)
        first, second, third = (coarse[at] for at in columns)
        both = (first.unsqueeze(3) * second.unsqueeze(2)).flatten(2)
        return torch.bmm(both.transpose(1, 2), third) / len(probabilities)

    def loss(self, probabilities: Tensor) -> Tensor:
        """Squared error of a batch's mean joint shares, weighted, in units of patients / 10."""
        share = probabilities.T @ probabilities / len(probabilities)
        error = ((share - self.share).square() * self.weight).sum()
        if len(self._triples):
            found = self.joints(probabilities, self._columns)
            error = error + ((found - self._triples).square() * self._triple_weight).sum()
        return error * (self.patients / 10.0)


def fit_to_targets(
    learner: Learner,
    generator: Generator,
    targets: Targets,
    conditions: Conditions,
    *,
    settings: FitSettings,
    draws: np.random.Generator,
) -> Iterator[int]:
    """Train the generator on the targets, from the step where the learner is; yields the steps done."""
    device = targets.share.device
    while learner.done < settings.steps:
        noise = torch.from_numpy(draws.standard_normal((settings.batch, generator.latent), dtype=np.float32))
        learner.follow(targets.loss(generator(noise.to(device), conditions.draw(settings.batch, draws))))
        yield learner.done


def expected_joints(
    generator: Generator,
    targets: Targets,
    conditions: Conditions,
    sets: Sequence[tuple[int, ...]],
    *,
    groups: Sequence[IntArray],
    draws: np.random.Generator,
    rows: int = 8192,
) -> list[FloatArray]:
    """What the generator makes of three columns' coarser cells, in patients, for each set."""
    device = targets.share.device
    noise = torch.from_numpy(draws.standard_normal((rows, generator.latent), dtype=np.float32)).to(device)
    sizes = [int(group.max()) + 1 for group in groups]
    expected = []
    with torch.no_grad():
        probabilities = generator(noise, conditions.draw(rows, draws))
        for columns in sets:
            joint = targets.joints(probabilities, torch.tensor([columns], device=device).T)[0]
            most = joint.shape[-1]
            first, second, third = (sizes[c] for c in columns)
            joint = joint.view(most, most, most)[:first, :second, :third]
            expected.append(joint.cpu().numpy().astype(np.float64) * targets.patients)
    return expected


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
