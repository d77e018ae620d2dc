"""Draw cells from a generator: its rows are a mixture of parts, and in each part the columns are independent.

A part is a component of the generator's mixture and, where there is a refiner, a condition and noise with it. Given
its part, the probability that some columns have certain values is a product, and a row that has them can be drawn
outright. Outcomes that follow from the other columns (:mod:`synthehr.models.outcomes`) are drawn anew for whole rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from synthehr.models.columns import Learned
from synthehr.models.loglinear import Conditional
from synthehr.models.networks import Generator
from synthehr.models.outcomes import chances_of, drawn_outcome
from synthehr.randomness import FloatArray, IntArray

__all__ = ["BATCH", "Parts", "Sampler", "sample_codes", "stratified"]

# The network runs on as many rows at a time as its cache holds.
BATCH = 2048
_LOOKED_AT = 8192
Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Parts:
    """Some parts of the mixture.

    Attributes:
        components: of the mixture, shape ``(parts,)``.
        columns: the column that each part is conditioned on, shape ``(parts,)``; None where there is no refiner.
        cells: the cell of that column, as ``columns``.
        features: what the refiner's last layer sees, shape ``(parts, features)``, or None as ``columns``.
    """

    components: IntArray
    columns: IntArray | None = None
    cells: IntArray | None = None
    features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.components)

    def chosen(self, at: IntArray) -> Parts:
        """The parts at these places, which may repeat."""
        if self.columns is None or self.cells is None or self.features is None:
            return Parts(self.components[at])
        return Parts(self.components[at], self.columns[at], self.cells[at], self.features[torch.from_numpy(at)])


class Sampler:
    """A generator made ready to be drawn from.

    Args:
        generator: on the CPU; read, never changed.
        names: of the columns; needed where there are outcomes.
        outcomes: columns that are drawn anew given the others, in this order.

    Attributes:
        sizes: the number of cells of each column.
        components: how many there are, all of one weight.
        refined: whether there is a refiner between components and rows.
    """

    def __init__(
        self, generator: Generator, *, names: Sequence[str] = (), outcomes: Sequence[Conditional] = ()
    ) -> None:
        self._names, self._outcomes = tuple(names), tuple(outcomes)
        self.sizes = generator.sizes
        self.components = len(generator.mixture.logits)
        self.refined = generator.refiner is not None
        self._begins = [0, *np.cumsum(self.sizes).tolist()]
        self._latent = generator.latent
        self._refiner = generator.refiner
        with torch.inference_mode():
            shares = generator.mixture()
            self._shares: Floats = shares.numpy()
            if self._refiner is not None:
                self._scores = generator.mixture.logits.detach() + self._refiner.out.bias
                self._out_weight = self._refiner.out.weight.T.contiguous()
                self._prepare(shares, self._refiner.first.weight, self._refiner.first.bias)

    @classmethod
    def of(cls, learned: Learned) -> Sampler:
        """That of a patients' own table."""
        assert learned.generator is not None, "patients have a generator"
        return cls(learned.generator.cpu(), names=learned.made.own, outcomes=learned.conditionals)

    @property
    def outcomes(self) -> frozenset[str]:
        """The columns that are drawn anew."""
        return frozenset(outcome.target for outcome in self._outcomes)

    def with_outcomes(self, codes: list[IntArray], draws: np.random.Generator) -> list[IntArray]:
        """Rows with their outcomes drawn anew: the cells of each column, each of shape ``(rows,)``.

        Args:
            codes: of all columns.
            draws: for the outcomes.
        """
        known = dict(zip(self._names, codes, strict=True)) if self._outcomes else {}
        for outcome in self._outcomes:
            known[outcome.target] = drawn_outcome(outcome, known, len(codes[0]), draws)
        return list(known.values()) if known else codes

    def share_of_outcome(self, column: str, cell: int, draws: np.random.Generator) -> float:
        """How many of the model's patients have a cell of an outcome, by what some thousand rows would lead to."""
        rows = self.plain(_LOOKED_AT, draws)
        (outcome,) = [each for each in self._outcomes if each.target == column]
        return float(chances_of(outcome, dict(zip(self._names, rows, strict=True)), _LOOKED_AT)[:, cell].mean())

    def _prepare(self, shares: Tensor, weight: Tensor, bias: Tensor) -> None:
        """What the refiner's first layer makes of a component but for one column, and of each cell: to be looked up."""
        self._of_noise = weight[:, : self._latent].T.contiguous()
        self._of_cell = weight[:, self._latent :].T.contiguous()
        of_column = [
            share @ rows
            for share, rows in zip(shares.split(self.sizes, 1), self._of_cell.split(self.sizes), strict=True)
        ]
        whole = torch.stack(of_column).sum(dim=0) + bias
        self._of_others = torch.cat([whole - part for part in of_column])

    def parts(
        self, components: IntArray, draws: np.random.Generator, *, within: Mapping[int, FloatArray] | None = None
    ) -> tuple[Parts, FloatArray]:
        """A part of each of these components: a random column, a cell of it by the component, and noise.

        Args:
            components: shape ``(parts,)``.
            draws: for column, cell and noise.
            within: for some columns, by their place, how likely each cell is to be kept as a condition.

        Returns:
            the parts; and how many times rarer each is without ``within``, shape ``(parts,)``: what it counts for.
        """
        weight = np.ones(len(components))
        if self._refiner is None:
            return Parts(components), weight
        columns = draws.permutation(len(components)) % len(self.sizes)
        cells = np.zeros(len(components), dtype=np.int64)
        for at, (begin, end) in enumerate(pairwise(self._begins)):
            mine = np.flatnonzero(columns == at)
            mass = self._shares[components[mine], begin:end].T.copy()
            kept = None if within is None else within.get(at)
            if kept is not None:
                mass *= kept.astype(np.float32)[:, None]
                total = mass.sum(axis=0)
                mass[int(kept.argmax()), total <= 0.0] = 1.0  # such a part counts for nothing: any cell will do
            cells[mine] = _drawn(mass, draws)
            if kept is not None:
                weight[mine] = total / kept[cells[mine]]
        noise = torch.from_numpy(draws.standard_normal((len(components), self._latent), dtype=np.float32))
        return Parts(components, columns, cells, self._features(components, columns, cells, noise)), weight

    def _features(self, components: IntArray, columns: IntArray, cells: IntArray, noise: Tensor) -> Tensor:
        network = self._refiner
        assert network is not None, "there are no features without it"
        with torch.inference_mode():
            first = self._of_others.index_select(0, torch.from_numpy(columns * self.components + components))
            first += self._of_cell.index_select(0, torch.from_numpy(cells + np.asarray(self._begins)[columns]))
            first = functional.relu_(network.first_norm(first.addmm_(noise, self._of_noise)))
            second = functional.relu_(network.second_norm(network.second(first)))
            return torch.cat([first, second], dim=1)

    def _masses(self, parts: Parts, first: int, last: int) -> list[Floats]:
        """For some columns each cell's probability in each part, but for a factor. Shapes: ``(cells, parts)``."""
        begin, end = self._begins[first], self._begins[last]
        inner = [at - begin for at in self._begins[first + 1 : last]]
        if parts.features is None:
            return np.split(self._shares[parts.components, begin:end].T.copy(), inner)
        with torch.inference_mode():
            scores = self._scores[:, begin:end].index_select(0, torch.from_numpy(parts.components))
            scores.addmm_(parts.features, self._out_weight[:, begin:end])
            columns: list[Floats] = np.split(scores.T.contiguous().numpy(), inner)
        for mass in columns:
            np.exp(np.subtract(mass, mass.max(axis=0), out=mass), out=mass)
        return columns

    def probability(self, parts: Parts, column: int, kept: FloatArray) -> FloatArray:
        """The probability that a column's cell is kept, where ``kept`` of each cell is, shape ``(parts,)``."""
        (mass,) = self._masses(parts, column, column + 1)
        found = np.asarray((kept.astype(np.float32) @ mass) / mass.sum(axis=0), dtype=np.float64)
        if parts.columns is not None and parts.cells is not None:
            own = parts.columns == column
            found[own] = kept[parts.cells[own]]
        return found

    def rows(
        self, parts: Parts, draws: np.random.Generator, *, kept: Mapping[int, FloatArray] | None = None
    ) -> list[IntArray]:
        """One row of each part: the cells of each column, each of shape ``(parts,)``.

        Args:
            parts: none of them with probability 0 under ``kept``.
            draws: for the cells.
            kept: for some columns, by their place, how much of each cell is kept, 0 to 1.
        """
        codes = []
        for at, mass in enumerate(self._masses(parts, 0, len(self.sizes))):
            if kept is not None and at in kept:
                np.multiply(mass, kept[at].astype(np.float32)[:, None], out=mass)
            drawn = _drawn(mass, draws)
            if parts.columns is not None and parts.cells is not None:
                own = parts.columns == at
                drawn[own] = parts.cells[own]
            codes.append(drawn)
        return codes

    def plain(self, count: int, draws: np.random.Generator, *, each: int = 1) -> list[IntArray]:
        """Rows as the generator makes them, in random order: the cells of each column, each of shape ``(count,)``.

        Args:
            count: how many.
            draws: for parts and rows.
            each: rows that a part makes where there is a refiner, which runs once a part. Without one, each component
                makes as many as it takes.
        """
        made: list[list[IntArray]] = []
        if self.refined:
            left = -(-count // each)
            for size in [BATCH] * (left // BATCH) + [left % BATCH] * (left % BATCH > 0):
                components = stratified(np.ones(self.components), size, draws)
                made.append(self._evenly(self.parts(components, draws)[0], each, draws))
        else:
            whole, rest = divmod(count, self.components)
            if whole:
                made.append(self._evenly(Parts(np.arange(self.components)), whole, draws))
            if rest:
                made.append(self.rows(Parts(draws.permutation(self.components)[:rest]), draws))
        order = draws.permutation(sum(len(batch[0]) for batch in made))[:count]
        codes = [np.concatenate([batch[at] for batch in made])[order] for at in range(len(self.sizes))]
        return self.with_outcomes(codes, draws)

    def _evenly(self, parts: Parts, each: int, draws: np.random.Generator) -> list[IntArray]:
        """Rows of the parts, ``each`` of every one: the cells of each column, part after part.

        Of a part's rows each cell has as many as it should, to within one (systematic sampling, Madow 1949), in an
        order of its own in each column: every row has the part's distribution, and a cohort less noise.
        """
        codes = []
        for at, upto in enumerate(self._upto(parts)):
            ends = (upto * each + draws.random((len(parts), 1))).astype(np.int64)
            ends[:, -1] = each
            often = np.diff(np.minimum(ends, each, out=ends), axis=1, prepend=0)
            cells = np.tile(np.arange(upto.shape[1]), len(parts))
            drawn = np.repeat(cells, often.ravel()).reshape(len(parts), each)
            draws.permuted(drawn, axis=1, out=drawn)
            if parts.columns is not None and parts.cells is not None:
                own = parts.columns == at
                drawn[own] = parts.cells[own, None]
            codes.append(drawn.ravel())
        return codes

    def _upto(self, parts: Parts) -> Iterator[FloatArray]:
        """For each column the summed probabilities of its cells, shape ``(parts, cells)``."""
        if not self.refined:
            for upto in self._upto_of_components:
                yield upto[parts.components]
            return
        for mass in self._masses(parts, 0, len(self.sizes)):
            yield _summed(mass.T)

    @cached_property
    def _upto_of_components(self) -> list[FloatArray]:
        return [_summed(shares) for shares in np.split(self._shares, self._begins[1:-1], axis=1)]


def sample_codes(generator: Generator, *, rows: int, draws: np.random.Generator) -> IntArray:
    """Cells of synthetic rows, shape ``(rows, columns)``."""
    return np.stack(Sampler(generator).plain(rows, draws), axis=1)


def stratified(shares: FloatArray, rows: int, draws: np.random.Generator) -> IntArray:
    """Places drawn by their shares, each about as often as it should be, in random order, shape ``(rows,)``."""
    upto = np.cumsum(shares)
    points = (np.arange(rows) + draws.random()) * (upto[-1] / rows)
    places = np.minimum(np.searchsorted(upto, points, side="right"), np.flatnonzero(shares)[-1])
    return np.asarray(draws.permutation(places), dtype=np.int64)


def _summed(shares: Floats) -> FloatArray:
    """Shares of places summed up to each, the last 1. Shape: ``(rows, places)``."""
    upto = np.cumsum(shares, axis=1, dtype=np.float64)
    upto /= upto[:, -1:]
    return upto


def _drawn(mass: Floats, draws: np.random.Generator) -> IntArray:
    """A place for each column of ``mass``, by inverse transform. Shape ``(places, rows)`` in, ``(rows,)`` out.

    Sums are made in place, row by row: contiguous, where a cumulative sum down the columns is not.
    """
    for at in range(1, len(mass)):
        mass[at] += mass[at - 1]
    total = mass[-1]
    point = np.minimum(draws.random(len(total), dtype=np.float32) * total, np.nextafter(total, np.float32(0.0)))
    narrow = np.uint8 if len(mass) < 256 else np.int32
    places: IntArray = (mass <= point).sum(axis=0, dtype=narrow).astype(np.int64)
    return places
