"""Which joint histograms to buy, and at what share: by their need and their price. Nothing here sees a row.

The need of a histogram is its distance (in patients, L1) from what is expected without it, as bought with noise; its
price the error that its own noise would leave. What is not worth its price is not bought.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from synthehr.privacy.accountant import Gaussian
from synthehr.randomness import FloatArray, IntArray

__all__ = ["candidates", "chance_distance", "coarsen", "share_out"]


def candidates(
    columns: int,
    *,
    order: int,
    focus: Sequence[int],
    most: int,
    own: int = 0,
    kin: Sequence[tuple[int, int]] = (),
    usable: Callable[[tuple[int, ...]], bool] | None = None,
) -> list[tuple[int, ...]]:
    """Sets of columns to choose among; public, since it depends on the schema alone.

    Args:
        columns: how many there are.
        order: columns of a set.
        focus: columns that the schema makes matter, such as outcomes.
        most: how many sets there may be. Where there are more, those that hold most of ``focus`` come first, then
            those that come first in the table.
        own: how many of the first columns count as much as those of ``focus`` where there are too many sets.
        kin: pairs of columns that count as much in a set that holds both.
        usable: which sets may be chosen; all without it.
    """
    wanted, related = set(focus), {frozenset(pair) for pair in kin}

    def matters(chosen: tuple[int, ...]) -> int:
        pairs = sum(frozenset(pair) in related for pair in itertools.combinations(chosen, 2)) if related else 0
        return len(wanted & set(chosen)) + sum(at < own for at in chosen) + pairs

    sets = [chosen for chosen in itertools.combinations(range(columns), order) if usable is None or usable(chosen)]
    return sorted(sorted(sets, key=lambda chosen: -matters(chosen))[:most])


def chance_distance(expected: FloatArray) -> float:
    """The L1 distance that a histogram of patients has from what is expected of it by chance alone.

    Mean absolute deviation of a Poisson count, summed over cells (Crow 1958).
    """
    mean = np.maximum(expected.ravel(), 1e-12)
    whole = np.floor(mean)
    from scipy.special import gammaln

    log = math.log(2.0) - mean + (whole + 1.0) * np.log(mean) - gammaln(whole + 1.0)
    return float(np.exp(log).sum())


def coarsen(counts: FloatArray, *, groups: int, nullable: bool, ordered: bool) -> IntArray:
    """The group of each cell, shape ``(cells,)``: neighbours joined to about even mass, missing values alone.

    Args:
        counts: bought patients per cell.
        groups: how many there may be.
        nullable: whether the last cell holds missing values.
        ordered: whether neighbouring cells are alike. Where not, the largest cells stay and the others are joined.
    """
    size = len(counts)
    if size <= groups:
        return np.arange(size, dtype=np.int64)
    body = size - int(nullable)
    room = groups - int(nullable)
    mass = np.maximum(counts[:body], 0.0)
    if ordered:
        upto = np.cumsum(mass) - mass / 2.0
        group = np.minimum((upto / max(float(mass.sum()), 1e-9) * room).astype(np.int64), room - 1)
        group = np.unique(group, return_inverse=True)[1].astype(np.int64)
    else:
        rank = np.empty(body, dtype=np.int64)
        rank[np.argsort(-mass, kind="stable")] = np.arange(body)
        group = np.minimum(rank, room - 1)
    return np.append(group, group.max() + 1) if nullable else group


def share_out(
    need: FloatArray, cells: FloatArray, *, event: Gaussian, price: float, most: int, emphasis: FloatArray
) -> FloatArray:
    """The share of an event's precision that each histogram gets, shape of ``need``; zero for those not bought.

    With shares w of the bought ones, what is wrong afterwards is about the sum of ``price * cells * sigma / sqrt(w)``
    over the bought and of ``need`` over the others, both times their emphasis. Taken in order of need by price, the
    number that makes it least is bought, with the shares that make it least (w in proportion to price to the 2/3).

    Args:
        need: noisy distances less what chance explains; not above zero means none.
        cells: of each histogram.
        event: what all of them cost together.
        price: error left by noise, as a part of its L1 norm.
        most: how many are bought at most.
        emphasis: how much each matters.
    """
    cost = emphasis * price * math.sqrt(2.0 / math.pi) * event.noise_multiplier * cells
    weight = cost ** (2.0 / 3.0)
    worth = emphasis * np.maximum(need, 0.0)
    order = np.argsort(-worth / weight, kind="stable")[:most]
    left = worth.sum() - np.cumsum(worth[order])
    total = left + np.cumsum(weight[order]) ** 1.5
    shares = np.zeros(len(need))
    best = int(np.argmin(total))
    if total[best] < worth.sum():
        bought = order[: best + 1]
        shares[bought] = weight[bought] / weight[bought].sum()
    return shares
