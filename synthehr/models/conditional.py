"""Draw rows of a generator that lie in a region of allowed values, as if all others had been drawn and thrown away.

Given a part of the mixture, the columns are independent, so that the probability of the region is a sum of products,
and a row inside can be drawn outright. What is left is to draw parts in proportion to that probability. Without a
refiner the parts are the components, and theirs are known. With one, components and conditions are drawn by what the
mixture says before it is refined; a part then makes as many rows as its weight is times a fixed bound: one or none, by
chance, below the bound (which is rejection), several above. No weights are made to sum to one, so that rows are
distributed as the generator's own in the region, without the bias of resampling from a finite pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthehr.encoding.conditions import Box
from synthehr.encoding.domain import ColumnDomain
from synthehr.encoding.subsets import Interior, interior_of, shares
from synthehr.models.sampling import BATCH, Parts, Sampler, stratified
from synthehr.privacy.partition import Intervals
from synthehr.randomness import FloatArray, IntArray

__all__ = ["Conditional", "Pilot", "Target", "target_of"]

# Batches of parts that are weighed first: so many, and more while fewer parts than _ENOUGH count, up to the second.
_PILOT, _PILOT_AT_MOST = 2, 128
_ENOUGH = 200.0
_DEFENSIVE = 0.1
# A part makes at most about so many rows: they are independent given it, but too many would be alike.
_MOST = 8


@dataclass(frozen=True, slots=True)
class Target:
    """A box in the model's terms.

    Attributes:
        kept: for columns that are not free, by their place, how much of each cell is allowed, 0 to 1.
        interiors: for the numeric ones of them, where inside their cells allowed values lie.
    """

    kept: dict[int, FloatArray]
    interiors: dict[int, Interior]


def target_of(box: Box, domain: Sequence[ColumnDomain]) -> Target:
    """A box over columns of this domain in the model's terms."""
    at = {column.name: place for place, column in enumerate(domain)}
    return Target(
        kept={at[name]: shares(domain[at[name]], subset) for name, subset in box.items()},
        interiors={
            at[name]: interior_of(domain[at[name]], subset)
            for name, subset in box.items()
            if isinstance(domain[at[name]].cells, Intervals)
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """What parts that were weighed beforehand say.

    Attributes:
        probability: of the region under the generator.
        parts: how many were weighed.
        bound: the weight at which a part makes one row.
    """

    probability: float
    parts: int
    bound: float

    @property
    def yielded(self) -> float:
        """Rows to expect of one part."""
        return self.probability / self.bound


class Conditional:
    """A generator held to a region.

    Args:
        sampler: what rows are drawn from.
        targets: boxes, no two of which share a row.

    Attributes:
        targets: the same.
    """

    def __init__(self, sampler: Sampler, targets: Sequence[Target]) -> None:
        self._sampler = sampler
        self.targets = tuple(targets)
        components = Parts(np.arange(sampler.components))
        unrefined = np.concatenate([self._probability(components, target) for target in targets])
        even = np.full(len(unrefined), 1.0 / len(unrefined))
        part = _DEFENSIVE if sampler.refined or not unrefined.any() else 0.0
        # Of boxes and their components, one box after the other; each box is to be met in all components.
        self._proposal = (1.0 - part) * unrefined / max(float(unrefined.sum()), 1e-300) + part * even
        prior = np.full(len(unrefined), 1.0 / sampler.components)
        self._counts_for = np.divide(prior, self._proposal, out=np.zeros(len(prior)), where=self._proposal > 0.0)

    def pilot(self, draws: np.random.Generator) -> Pilot | None:
        """Weigh parts until enough of them count; None where none has any weight."""
        found: list[FloatArray] = []
        for batches in range(1, _PILOT_AT_MOST + 1):
            found += [weights for _, weights in self._weighed(draws)]
            if batches >= _PILOT:
                weights = np.concatenate(found)
                if weights.sum() ** 2 >= _ENOUGH * np.square(weights).sum() > 0.0:
                    break
        weights = np.concatenate(found)
        probability = float(weights.mean())
        if probability <= 0.0:
            return None
        bound = max(float(np.square(weights).mean()) / probability, float(weights.max()) / _MOST)
        return Pilot(probability=probability, parts=len(weights), bound=bound)

    def rows(
        self, pilot: Pilot, parts: int, draws: np.random.Generator
    ) -> tuple[list[list[IntArray]], FloatArray, int]:
        """Rows of about ``parts`` parts.

        Returns:
            for each box the cells of each column, each of shape ``(rows of the box,)``; the parts' weights, of mean
            :attr:`Pilot.probability`; and the most rows that one part made.
        """
        made: list[list[list[IntArray]]] = [[] for _ in self.targets]
        weighed: list[FloatArray] = []
        most = 0
        for _ in range(max(1, round(parts / BATCH))):
            for box, (batch, weights) in enumerate(self._weighed(draws)):
                weighed.append(weights)
                copies = np.diff(np.floor(np.cumsum(weights) / pilot.bound + draws.random()), prepend=0.0)
                most = max(most, int(copies.max(initial=0.0)))
                at = np.repeat(np.arange(len(batch)), copies.astype(np.int64))
                rows = self._sampler.rows(batch.chosen(at), draws, kept=self.targets[box].kept)
                made[box].append(self._sampler.with_outcomes(rows, draws))
        columns = range(len(self._sampler.sizes))
        joined = [[np.concatenate([batch[column] for batch in batches]) for column in columns] for batches in made]
        return joined, np.concatenate(weighed), most

    def _weighed(self, draws: np.random.Generator) -> list[tuple[Parts, FloatArray]]:
        """For each box some parts that are to meet it, a batch in all, and what a row of each counts for."""
        chosen = stratified(self._proposal, BATCH, draws)
        found = []
        for box, target in enumerate(self.targets):
            pairs = chosen[chosen // self._sampler.components == box]
            parts, counts_for = self._sampler.parts(pairs % self._sampler.components, draws, within=target.kept)
            found.append((parts, self._probability(parts, target) * counts_for * self._counts_for[pairs]))
        return found

    def _probability(self, parts: Parts, target: Target) -> FloatArray:
        """The probability of a box in each part, shape ``(parts,)``."""
        found = np.ones(len(parts))
        for column, kept in target.kept.items():
            found *= self._sampler.probability(parts, column, kept)
        return found
