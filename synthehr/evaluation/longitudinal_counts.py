"""Longitudinal metrics as functions of counts: how many rows, patients or pairs fall into each cell.

Counts are kept by group of patients, so that leaving out one group at a time (the grouped jackknife; Shao and Tu 1995)
gives each metric its interval, with the patient as the unit however many rows each has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench
from synthehr.evaluation.influence import from_errors, t95
from synthehr.evaluation.longitudinal_rows import GROUPS, Histories, Person, child_tables, histories
from synthehr.evaluation.measurement import Direction, Measurement, Scope, undefined

__all__ = [
    "FEWEST_PATIENTS",
    "Block",
    "Counts",
    "Occurrences",
    "Statistic",
    "block_of",
    "cell_counts",
    "judge",
    "judged",
    "r_squared",
    "steps_apart",
    "totals_of",
    "variation",
]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Occurrences = Callable[[Person], tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Of a cohort: the patient of each occurrence, and its cell."""
FEWEST_PATIENTS = 30
"""A cohort with fewer gives no interval."""
Statistic = Callable[[Floats, Floats], Floats]
"""Of the counts of train and of another cohort, shape ``(..., cells)``, the metric, shape ``(...)``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One histogram in the three cohorts; shapes ``(groups, cells)``."""

    train: Floats
    synthetic: Floats
    holdout: Floats

    @property
    def parts(self) -> tuple[Floats, Floats, Floats]:
        """Train, synthetic, holdout."""
        return self.train, self.synthetic, self.holdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Histograms side by side.

    Attributes:
        train: counts by group, shape ``(groups, cells)``.
        synthetic: the same of the synthetic cohort.
        holdout: the same of the holdout.
        starts: first cell of each histogram.
    """

    train: Floats
    synthetic: Floats
    holdout: Floats
    starts: Whole

    @classmethod
    def of(cls, blocks: Sequence[Block], *, fewest: float = 1) -> Counts | None:
        """The histograms in which train has at least ``fewest``, or None where none has."""
        kept = [block for block in blocks if block.train.sum() >= fewest]
        if not kept:
            return None
        train, synthetic, holdout = (
            np.concatenate([block.parts[at] for block in kept], axis=1) for at in range(len(kept[0].parts))
        )
        sizes = [block.train.shape[1] for block in kept]
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        return cls(train=train, synthetic=synthetic, holdout=holdout, starts=starts)


def cell_counts(person: Person, owner: Whole, cell: Whole, cells: int) -> Floats:
    """How often each cell occurs among the patients of each group, shape ``(GROUPS, cells)``.

    Args:
        person: the cohort.
        owner: the patient of each occurrence, shape ``(occurrences,)``.
        cell: its cell, same shape.
        cells: how many there are.
    """
    flat = person.group[owner] * cells + cell
    return np.bincount(flat, minlength=GROUPS * cells).reshape(GROUPS, cells).astype(np.float64)


def totals_of(block: Block) -> tuple[Floats, Floats, Floats]:
    """Shares of each cell in train, synthetic and holdout; zeros where a cohort has none."""
    train, synthetic, holdout = (part.sum(axis=0) / max(part.sum(), 1.0) for part in block.parts)
    return train, synthetic, holdout


def variation(starts: Whole, *, weighted: bool = False) -> Statistic:
    """Total variation distance of each histogram, averaged; 1 where one cohort has nothing to count.

    Args:
        starts: first cell of each.
        weighted: weigh each histogram by its share of train's counts, instead of all alike.
    """

    def statistic(real: Floats, other: Floats) -> Floats:
        (p, many), (q, found) = _shares(real, starts), _shares(other, starts)
        apart = np.add.reduceat(np.abs(p - q), starts, axis=-1) / 2
        apart = np.where((many == 0) | (found == 0), 1.0, apart)
        weights = many if weighted else np.ones_like(many)
        return np.asarray((apart * weights).sum(axis=-1) / np.maximum(weights.sum(axis=-1), 1e-300))

    return statistic


def steps_apart(starts: Whole) -> Statistic:
    """Kolmogorov-Smirnov distance of each histogram over ordered cells, averaged; 1 where a cohort has nothing."""

    def statistic(real: Floats, other: Floats) -> Floats:
        (p, many), (q, found) = _shares(real, starts), _shares(other, starts)
        rising = np.cumsum(p - q, axis=-1)
        before = np.concatenate([np.zeros_like(rising[..., :1]), rising[..., :-1]], axis=-1)[..., starts]
        since = rising - np.repeat(before, _lengths(starts, rising.shape[-1]), axis=-1)
        apart = np.maximum.reduceat(np.abs(since), starts, axis=-1)
        return np.asarray(np.where((many == 0) | (found == 0), 1.0, apart).mean(axis=-1))

    return statistic


def r_squared(starts: Whole, *, of_patients: bool = False) -> Statistic:
    """How well the other cohort's shares give train's: 1 - sum of squared differences / sum of squares about the mean.

    Args:
        starts: first cell of each histogram; shares are within it.
        of_patients: the last cell of each histogram counts the patients, whom the shares are of, and is no share.
    """

    def statistic(real: Floats, other: Floats) -> Floats:
        cells = real.shape[-1]
        if of_patients:
            lengths = _lengths(starts, cells)
            last = starts + lengths - 1
            p, q = (np.asarray(x / np.repeat(np.maximum(x[..., last], 1.0), lengths, axis=-1)) for x in (real, other))
            shown = np.setdiff1d(np.arange(cells), last)
            p, q = p[..., shown], q[..., shown]
        else:
            p, q = _shares(real, starts)[0], _shares(other, starts)[0]
        spread = np.square(p - p.mean(axis=-1, keepdims=True)).sum(axis=-1)
        off = np.square(p - q).sum(axis=-1)
        return np.asarray(1.0 - np.divide(off, spread, out=np.full_like(off, np.nan), where=spread > 1e-12))

    return statistic


def block_of(h: Histories, occurrences: Occurrences, cells: int) -> Block:
    """One histogram in the three cohorts."""
    train, synthetic, holdout = (cell_counts(person, *occurrences(person), cells) for person in h.parts)
    return Block(train=train, synthetic=synthetic, holdout=holdout)


def judged(
    bench: Bench,
    metric: str,
    scope: Scope,
    blocks: Callable[[Histories, tuple[str, ...]], Sequence[Block]],
    statistic: Callable[[Whole], Statistic],
    *,
    direction: Direction = "lower",
    why: str,
    fewest: float = 1,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Measurement:
    """Measure after the conditions that every metric here has."""
    tables = child_tables(bench.schema)
    if not tables:
        return undefined(metric, scope, direction, "The schema declares one table, so no patient has rows in time.")
    h = histories(bench)
    if min(len(person) for person in h.parts) < FEWEST_PATIENTS:
        return undefined(metric, scope, direction, f"A cohort has fewer than {FEWEST_PATIENTS} patients.")
    counts = Counts.of(blocks(h, tables if scope == "all" else (str(scope),)), fewest=fewest)
    return judge(metric, scope, direction, counts=counts, statistic=statistic, why=why, limits=limits)


def judge(
    metric: str,
    scope: Scope,
    direction: Direction,
    *,
    counts: Counts | None,
    statistic: Callable[[Whole], Statistic],
    why: str,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Measurement:
    """The metric on the synthetic cohort, beside the holdout, with intervals by leaving out groups of patients.

    Args:
        metric: its name.
        scope: what it is of.
        direction: whether lower or higher is better.
        counts: what it is a function of; None where there is nothing to count.
        statistic: the function, given where each histogram starts.
        why: why it is undefined, where it is.
        limits: the least and the most that it can be.
    """
    if counts is None:
        return undefined(metric, scope, direction, why)
    of = statistic(counts.starts)
    everyone = counts.train.sum(axis=0), counts.synthetic.sum(axis=0), counts.holdout.sum(axis=0)
    train, synthetic, holdout = everyone
    value, reference = float(of(train, synthetic)), float(of(train, holdout))
    if not math.isfinite(value) or not math.isfinite(reference):
        return undefined(metric, scope, direction, why)
    without = [
        whole - part for whole, part in zip(everyone, (counts.train, counts.synthetic, counts.holdout), strict=True)
    ]
    on_value, on_reference = of(without[0], synthetic), of(without[0], holdout)
    own, others = of(train, without[1]), of(train, without[2])
    value_error = math.sqrt(_spread(on_value) + _spread(own))
    excess_error = math.sqrt(_spread(on_value - on_reference) + _spread(own) + _spread(others))
    if not math.isfinite(excess_error) or not math.isfinite(value_error):
        return undefined(metric, scope, direction, "Too few patients for an interval.")
    stretch = t95(GROUPS)
    return from_errors(
        metric,
        scope,
        direction,
        value=value,
        reference=reference,
        errors=(stretch * value_error, stretch * excess_error),
        limits=limits,
    )


def _spread(left_out: Floats) -> float:
    """The jackknife variance of a statistic that each group was left out of in turn."""
    return float((GROUPS - 1) / GROUPS * np.square(left_out - left_out.mean()).sum())


def _lengths(starts: Whole, cells: int) -> Whole:
    return np.diff(np.append(starts, cells))


def _shares(counts: Floats, starts: Whole) -> tuple[Floats, Floats]:
    """Counts as shares of their histogram, and the totals; zeros where the total is."""
    totals = np.asarray(np.add.reduceat(counts, starts, axis=-1), dtype=np.float64)
    spread = np.repeat(totals, _lengths(starts, counts.shape[-1]), axis=-1)
    return np.divide(counts, spread, out=np.zeros_like(counts), where=spread > 0), totals
