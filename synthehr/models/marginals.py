"""Pull a mixture towards bought marginals. Post-processing: no private row is at hand here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from synthehr.encoding.domain import ColumnDomain
from synthehr.models.learner import Learner
from synthehr.models.networks import Generator, Mixture, one_hot
from synthehr.randomness import FloatArray, IntArray

__all__ = ["FitSettings", "Targets", "draw_codes", "expected_joints", "fit_to_targets", "sample_rows", "scatter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How long and how fast the mixture learns; none of it moves the guarantee.

    Attributes:
        steps: with the pairs, and again with pairs and triples. Few: what more of them would fit is noise.
        learning_rate: of Adam, at the start.
        spread: standard deviation of the components' scores around the bought one-way shares before they learn.
    """

    steps: int = 200
    learning_rate: float = 0.1
    spread: float = 1.0


class Targets:
    """Bought joint histograms, as shares, that a generator is pulled to.

    Pairs stand in one matrix of all pairs of cells. Triples are of coarser cells, the same number for each column, so
    that all of them are one batched product; a column with fewer has empty ones.
    """

    def __init__(self, sizes: Sequence[int], *, patients: float, device: torch.device) -> None:
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


def scatter(mixture: Mixture, domain: Sequence[ColumnDomain], *, spread: float, seed: int) -> None:
    """Put the components around the bought one-way shares, by normal draws of the seed."""
    draws = torch.Generator().manual_seed(seed)
    shares = [np.maximum(column.counts, 0.0) for column in domain]
    centre = np.concatenate([np.log(share / max(float(share.sum()), 1e-9) + 1e-4) for share in shares])
    noise = torch.randn(mixture.logits.shape, generator=draws)
    with torch.no_grad():
        mixture.logits.copy_(torch.from_numpy(centre).to(noise) + spread * noise)


def fit_to_targets(learner: Learner, mixture: Mixture, targets: Targets, *, settings: FitSettings) -> Iterator[int]:
    """Train the mixture on the targets, from the step where the learner is; yields the steps done.

    The loss is that of all components, so that no draw disturbs it.
    """
    while learner.done < settings.steps:
        learner.follow(targets.loss(mixture()))
        yield learner.done


def expected_joints(
    mixture: Mixture, targets: Targets, sets: Sequence[tuple[int, ...]], *, groups: Sequence[IntArray]
) -> list[FloatArray]:
    """What the mixture makes of three columns' coarser cells, in patients, for each set."""
    sizes = [int(group.max()) + 1 for group in groups]
    expected = []
    with torch.no_grad():
        probabilities = mixture()
        for columns in sets:
            joint = targets.joints(probabilities, torch.tensor([columns], device=probabilities.device).T)[0]
            most = joint.shape[-1]
            first, second, third = (sizes[c] for c in columns)
            joint = joint.view(most, most, most)[:first, :second, :third]
            expected.append(joint.cpu().numpy().astype(np.float64) * targets.patients)
    return expected


def sample_rows(generator: Generator, rows: int, draws: np.random.Generator) -> Tensor:
    """One-hot rows drawn from the generator, shape ``(rows, cells)``."""
    with torch.no_grad():
        probabilities = generator(generator.draw(rows, draws))
    codes = draw_codes(probabilities.cpu().numpy(), sizes=generator.sizes, draws=draws)
    return one_hot(torch.from_numpy(codes).to(probabilities.device), sizes=generator.sizes)


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
