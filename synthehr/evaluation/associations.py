"""Fidelity of associations: how strongly every pair of columns is related, independent pairs included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords
from synthehr.evaluation.coarse import CODES, Coarse, coarse
from synthehr.evaluation.influence import from_errors, grouped_error, groups_of
from synthehr.evaluation.measurement import Measurement, undefined

__all__ = ["METRICS", "Associations", "associations"]

_FEWEST = 40
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Associations:
    """The association of every pair of columns, shape ``(columns, columns)`` each, and errors of what is gated.

    Attributes:
        names: the columns.
        train: in train.
        synthetic: in the synthetic cohort.
        holdout: in the holdout.
        errors: standard errors of mean, excess of the mean, largest, excess of the largest.
    """

    names: tuple[str, ...]
    train: Floats
    synthetic: Floats
    holdout: Floats
    errors: Floats


def associations(bench: Bench) -> Associations | None:
    """Every pair's association; None where there is one column or a cohort has fewer than forty patients.

    Between numbers and booleans it is the correlation of ranks (by fifths of train, where both have values), from
    -1 to 1; else Cramér's V, from 0 to 1, with missing as a category. A column that does not vary has none.
    """
    found = bench.once(coarse)
    tables = {"train": found.train, "synthetic": found.synthetic, "holdout": found.holdout}
    if len(found.names) < 2 or min(len(table) for table in tables.values()) < _FEWEST:
        return None
    draw = bench.parts.generator(11)
    groups = {name: groups_of(len(table), generator=draw) for name, table in tables.items()}
    joints = {
        name: np.stack([_joint(table[groups[name] == at]) for at in range(int(groups[name].max()) + 1)])
        for name, table in tables.items()
    }
    whole = {name: joint.sum(axis=0, dtype=np.float64) for name, joint in joints.items()}
    full = {name: _association(joint, found) for name, joint in whole.items()}
    own = _largest(np.abs(full["train"] - full["synthetic"]))
    others = _largest(np.abs(full["train"] - full["holdout"]))

    def estimate(left_out: Mapping[str, int]) -> tuple[float, ...]:
        now = dict(full)
        for name, group in left_out.items():
            now[name] = _association(whole[name] - joints[name][group], found)
        gaps = np.abs(now["train"] - now["synthetic"]), np.abs(now["train"] - now["holdout"])
        means = _mean(gaps[0]), _mean(gaps[1])
        largest = float(gaps[0][own]), float(gaps[1][others])
        return means[0], means[0] - means[1], largest[0], largest[0] - largest[1]

    errors = grouped_error(estimate, {name: len(joint) for name, joint in joints.items()})
    return Associations(names=found.names, errors=errors, **full)


def _joint(codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Counts of all pairs of coarse codes. Shape ``(columns · CODES, columns · CODES)``."""
    columns = codes.shape[1]
    hot = np.zeros((len(codes), columns * CODES), dtype=np.float32)
    np.put_along_axis(hot, codes + CODES * np.arange(columns), 1.0, axis=1)
    return np.asarray(hot.T @ hot)  # whole numbers below 2**24 are exact in float32


def _association(joint: Floats, found: Coarse) -> Floats:
    columns = len(found.names)
    blocks = joint.reshape(columns, CODES, columns, CODES)
    total = max(float(np.trace(joint[:CODES, :CODES])), 1.0)
    result = _cramer(blocks / total, columns)
    ordered = ~np.isnan(found.scores).all(axis=1)
    ranks = _correlation(joint / total, found.scores, columns)
    return np.where(np.logical_and.outer(ordered, ordered), ranks, result)


def _cramer(blocks: Floats, columns: int) -> Floats:
    shares = np.einsum("aiai->ai", blocks)
    expected = shares[:, :, None, None] * shares[None, None, :, :]
    ratio = np.divide(np.square(blocks), expected, out=np.zeros_like(blocks), where=expected > 0)
    chi = np.maximum(ratio.sum(axis=(1, 3)) - 1.0, 0.0)
    levels = (shares > 0).sum(axis=1) - 1
    least = np.minimum(levels[:, None], levels[None, :])
    strength = np.sqrt(np.divide(chi, least, out=np.zeros((columns, columns)), where=least > 0))
    return np.asarray(np.minimum(strength, 1.0))


def _correlation(joint: Floats, scores: Floats, columns: int) -> Floats:
    """Correlation of the scores among patients in whom both columns have one; 0 where one of them does not vary."""
    score = np.nan_to_num(scores).reshape(-1)
    present = (~np.isnan(scores)).astype(np.float64).reshape(-1)
    gather = np.kron(np.eye(columns), np.ones(CODES))

    def sums(left: Floats, right: Floats) -> Floats:
        return np.asarray((gather * left) @ joint @ (gather * right).T)

    size = sums(present, present)
    first, second = sums(score, present), sums(present, score)
    spread = size * sums(np.square(score), present) - np.square(first)
    other = size * sums(present, np.square(score)) - np.square(second)
    shared = size * sums(score, score) - first * second
    scale = np.sqrt(np.maximum(spread, 0.0) * np.maximum(other, 0.0))
    return np.asarray(np.divide(shared, scale, out=np.zeros_like(shared), where=scale > 1e-12))


def _largest(gaps: Floats) -> tuple[int, int]:
    upper = np.triu(gaps, k=1)
    first, second = np.unravel_index(int(np.argmax(upper)), upper.shape)
    if first == second:  # no gap at all: any pair will do
        return 0, 1
    return int(first), int(second)


def _mean(gaps: Floats) -> float:
    return float(gaps[np.triu_indices(len(gaps), k=1)].mean())


def _measured(bench: Bench, metric: str) -> Measurement:
    found = bench.once(associations)
    if found is None:
        why = f"The table has one column, or a cohort has fewer than {_FEWEST} patients."
        return undefined(metric, "all", "lower", why)
    gaps = np.abs(found.train - found.synthetic), np.abs(found.train - found.holdout)
    if metric == "association_error":
        value, reference, errors = _mean(gaps[0]), _mean(gaps[1]), found.errors[:2]
    else:
        value, reference, errors = (*(float(gap[_largest(gap)]) for gap in gaps), found.errors[2:])
    return from_errors(
        metric,
        "all",
        "lower",
        value=value,
        reference=reference,
        errors=(float(errors[0]), float(errors[1])),
        limits=(0.0, 2.0),
    )


METRICS: Mapping[str, Metric] = {
    "association_error": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: _measured(bench, "association_error"),
        measurable=lambda bench: len(bench.schema.root.kept) > 1,
        words=MetricWords(
            title="Strength of relations",
            failed="Columns are related more or less strongly than in the real records, or seem related and are not.",
            question="whether columns are related as strongly as in the real records",
        ),
    ),
    "association_error_worst": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: _measured(bench, "association_error_worst"),
        measurable=lambda bench: len(bench.schema.root.kept) > 1,
        words=MetricWords(
            title="The relation whose strength is furthest off",
            failed="At least one relation is much stronger or weaker than in the real records, or turned around.",
            question="whether every relation is as strong as in the real records",
        ),
    ),
}
"""The metrics of associations by name."""
