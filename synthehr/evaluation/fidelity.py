"""Fidelity: one-way and two-way distributions and missingness, by one matrix product.

The distance is total variation (TV) over the bins of the training part. Between two samples of the same
population it is above 0 by chance, the more so the smaller they are, so two things are done: the holdout and
the synthetic cohort are drawn to equal size, which gives both the same upward bias; and intervals are
estimate ± 1.96 standard errors, by the influence of each patient (the infinitesimal jackknife), since a
bootstrap of a biased distance would be centred on the wrong number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords, columns
from synthehr.evaluation.coding import Values
from synthehr.evaluation.cohorts import Parts
from synthehr.evaluation.findings import ColumnProfile, Interval, Measurement, PairProfile, Scope, WorstPair, undefined
from synthehr.evaluation.intervals import normal_interval

__all__ = ["METRICS", "Distances", "bin_distances", "column_profiles", "missing_distances"]

_ROWS = 20_000
_WORST = 10
_MOST_INTERVALS = 60
Weights = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """Codes of a sample, shape ``(patients, columns)``, and their joint shares, shape ``(codes, codes)``."""

    codes: NDArray[np.int64]
    joint: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Distances:
    """TV of every pair of columns (diagonal: of every column) of train from synthetic and from holdout.

    Attributes:
        names: the columns.
        starts: first code of each column in the one-hot layout, shape ``(columns,)``.
        synthetic: TV of the synthetic cohort from train, shape ``(columns, columns)``.
        holdout: TV of the holdout from train, same shape.
    """

    names: tuple[str, ...]
    starts: NDArray[np.int64]
    synthetic: NDArray[np.float64]
    holdout: NDArray[np.float64]
    parts: Mapping[str, _Sample]

    def columns_mean(self, metric: str) -> Measurement:
        """The TV of a column, averaged over columns. Lower is better; range 0 to 1."""
        weights = np.eye(len(self.names)) / len(self.names)
        return self._measure(metric, "all", weights, weights)

    def columns_worst(self, metric: str) -> Measurement:
        """The TV of the column that is furthest off, beside that of the holdout's worst column."""
        at, other = int(np.argmax(np.diag(self.synthetic))), int(np.argmax(np.diag(self.holdout)))
        return self._measure(metric, "all", self._single(at, at), self._single(other, other))

    def column(self, metric: str, name: str) -> Measurement:
        """The TV of one column."""
        at = self.names.index(name)
        return self._measure(metric, name, self._single(at, at), self._single(at, at))

    def pairs_mean(self, metric: str) -> Measurement:
        """The TV of a pair of columns, averaged over all pairs. Lower is better; range 0 to 1."""
        d = len(self.names)
        if d < 2:
            return self._no_pair(metric)
        weights = (1.0 - np.eye(d)) / (d * (d - 1))
        return self._measure(metric, "all", weights, weights)

    def pairs_worst(self, metric: str) -> Measurement:
        """The TV of the pair that is furthest off, beside that of the holdout's worst pair."""
        if len(self.names) < 2:
            return self._no_pair(metric)
        own, others = self._ranked(self.synthetic)[0], self._ranked(self.holdout)[0]
        return self._measure(metric, "all", self._single(*own), self._single(*others))

    def pair(self, metric: str, first: str, second: str) -> Measurement:
        """The TV of one pair of columns."""
        weights = self._single(self.names.index(first), self.names.index(second))
        return self._measure(metric, (first, second), weights, weights)

    def pair_profile(self) -> PairProfile | None:
        """All pairs, and the worst ten by name; None where there is one column."""
        if len(self.names) < 2:
            return None
        worst = tuple(
            WorstPair(
                first=self.names[a],
                second=self.names[b],
                distance=_rounded(self.synthetic[a, b]),
                reference=_rounded(self.holdout[a, b]),
                ci=self.interval(a, b),
            )
            for a, b in self._ranked(self.synthetic)[:_WORST]
        )
        table = [tuple(tuple(map(_rounded, row)) for row in matrix) for matrix in (self.synthetic, self.holdout)]
        return PairProfile(columns=self.names, distance=table[0], reference=table[1], worst=worst)

    def interval(self, a: int, b: int) -> Interval | None:
        """The 95 % interval of a pair (or column), to show beside it; None with so many columns that it costs."""
        if len(self.names) > _MOST_INTERVALS:
            return None
        weights = self._single(a, b)
        value = self._measure("pair_tv", "all", weights, weights).value
        return None if value is None else (_rounded(value.low), _rounded(value.high))

    def _no_pair(self, metric: str) -> Measurement:
        return undefined(metric, "all", "lower", "The table has one column, so there is no pair of columns.")

    def _single(self, a: int, b: int) -> Weights:
        weights = np.zeros((len(self.names), len(self.names)))
        weights[a, b] += 0.5
        weights[b, a] += 0.5
        return weights

    def _ranked(self, matrix: NDArray[np.float64]) -> list[tuple[int, int]]:
        rows, columns = np.triu_indices(len(self.names), k=1)
        order = np.argsort(-matrix[rows, columns], kind="stable")
        return [(int(rows[i]), int(columns[i])) for i in order]

    def _measure(self, metric: str, scope: Scope, own: Weights, others: Weights) -> Measurement:
        value, reference = float((own * self.synthetic).sum()), float((others * self.holdout).sum())
        train, synthetic, holdout = (self.parts[name] for name in ("train", "synthetic", "holdout"))
        if min(len(part.codes) for part in (train, synthetic, holdout)) < 2:
            return undefined(metric, scope, "lower", "A cohort has a single patient, so no interval can be given.")
        towards = np.sign(train.joint - synthetic.joint).astype(np.float32)
        beside = np.sign(train.joint - holdout.joint).astype(np.float32)
        on_train = _influence(train.codes, towards, own, self.starts)
        on_synthetic = _variance(_influence(synthetic.codes, towards, own, self.starts))
        against = on_train - _influence(train.codes, beside, others, self.starts)
        on_holdout = _variance(_influence(holdout.codes, beside, others, self.starts))
        error = math.sqrt(_variance(on_train) + on_synthetic)
        excess_error = math.sqrt(_variance(against) + on_synthetic + on_holdout)
        return Measurement(
            metric=metric,
            scope=scope,
            direction="lower",
            value=normal_interval(min(value, 1.0), error=error, lower=0.0, upper=1.0),
            reference=min(reference, 1.0),
            excess=normal_interval(value - reference, error=excess_error, lower=-1.0, upper=1.0),
        )


def bin_distances(parts: Parts) -> Distances:
    """Distances over the bins and categories of every column, missing being one of them."""
    return _distances(
        parts.coding.names,
        parts.coding.sizes,
        train=parts.train.codes,
        synthetic=parts.synthetic.codes[parts.synthetic_rows],
        holdout=parts.holdout.codes[parts.holdout_rows],
    )


def missing_distances(parts: Parts) -> Distances:
    """Distances over missing or not: of one column, the difference of the missing rates."""
    names = parts.coding.names

    def indicators(values: Mapping[str, Values]) -> NDArray[np.int32]:
        return np.stack([values[name].missing for name in names], axis=1).astype(np.int32)

    return _distances(
        names,
        (2,) * len(names),
        train=indicators(parts.train.values),
        synthetic=indicators(parts.synthetic.values)[parts.synthetic_rows],
        holdout=indicators(parts.holdout.values)[parts.holdout_rows],
    )


def column_profiles(parts: Parts, distances: Distances) -> tuple[ColumnProfile, ...]:
    """The distribution of every column in the three cohorts, codes that no one has left out."""
    kept = parts.schema.root.kept
    profiles = []
    for at, column in enumerate(parts.coding.columns):
        size = len(column.labels)
        shares = [
            np.bincount(part.codes[:, at], minlength=size) / len(part)
            for part in (parts.train, parts.holdout, parts.synthetic)
        ]
        seen = np.flatnonzero(np.sum(shares, axis=0) > 0)
        train, holdout, synthetic = (tuple(_rounded(share[i]) for i in seen) for share in shares)
        profiles.append(
            ColumnProfile(
                column=column.name,
                kind=kept[column.name].kind,
                labels=tuple(column.labels[i] for i in seen),
                train=train,
                holdout=holdout,
                synthetic=synthetic,
                distance=_rounded(distances.synthetic[at, at]),
                reference=_rounded(distances.holdout[at, at]),
                ci=distances.interval(at, at),
            )
        )
    return tuple(profiles)


def _rounded(number: float) -> float:
    return round(min(float(number), 1.0), 4)


def _distances(names: tuple[str, ...], sizes: tuple[int, ...], **codes: NDArray[np.int32]) -> Distances:
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    total = int(sum(sizes))
    parts = {}
    for name, table in codes.items():
        shifted = table.astype(np.int64) + starts
        parts[name] = _Sample(codes=shifted, joint=_joint(shifted, total))
    return Distances(
        names=names,
        starts=starts,
        synthetic=_total_variation(parts["train"].joint, parts["synthetic"].joint, starts),
        holdout=_total_variation(parts["train"].joint, parts["holdout"].joint, starts),
        parts=parts,
    )


def _one_hot(codes: NDArray[np.int64], total: int) -> NDArray[np.float32]:
    hot = np.zeros((len(codes), total), dtype=np.float32)
    np.put_along_axis(hot, codes, 1.0, axis=1)
    return hot


def _joint(codes: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    """Shares of all pairs of codes; the diagonal blocks hold the one-way shares. Shape ``(codes, codes)``."""
    counts = np.zeros((total, total))
    for start in range(0, len(codes), _ROWS):
        hot = _one_hot(codes[start : start + _ROWS], total)
        counts += hot.T @ hot  # whole numbers below 2**24 are exact in float32
    return counts / len(codes)


def _total_variation(
    first: NDArray[np.float64], second: NDArray[np.float64], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    gaps = np.abs(first - second)
    return np.asarray(np.add.reduceat(np.add.reduceat(gaps, starts, axis=0), starts, axis=1) / 2)


def _influence(
    codes: NDArray[np.int64], signs: NDArray[np.float32], weights: Weights, starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Each patient's pull on the weighted distance, up to a constant. Shape ``(patients,)``."""
    rows, columns = np.nonzero(weights)
    pull = np.zeros(len(codes))
    if len(rows) <= 2 * len(starts):
        for a, b in zip(rows, columns, strict=True):
            pull += weights[a, b] * signs[codes[:, a], codes[:, b]]
        return pull / 2
    total = len(signs)
    owner = np.searchsorted(starts, np.arange(total), side="right") - 1
    weighted = (signs * weights[np.ix_(owner, owner)]).astype(np.float32)
    for start in range(0, len(codes), _ROWS):
        hot = _one_hot(codes[start : start + _ROWS], total)
        pull[start : start + _ROWS] = np.einsum("ij,ij->i", hot @ weighted, hot)
    return pull / 2


def _variance(influence: NDArray[np.float64]) -> float:
    return float(influence.var(ddof=1) / len(influence))


def distances(bench: Bench) -> Distances:
    """Distances over bins and categories."""
    return bin_distances(bench.parts)


def missing(bench: Bench) -> Distances:
    """Distances over missing or not."""
    return missing_distances(bench.parts)


def _column(found: Distances, metric: str, scope: Scope) -> Measurement:
    return found.columns_mean(metric) if scope == "all" else found.column(metric, str(scope))


def _pair(bench: Bench, scope: Scope) -> Measurement:
    found = bench.once(distances)
    return found.pair("pair_tv", *scope) if isinstance(scope, tuple) else found.pairs_mean("pair_tv")


METRICS: Mapping[str, Metric] = {
    "one_way_tv": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, scope: _column(bench.once(distances), "one_way_tv", scope),
        scopes=columns,
        words=MetricWords(
            title="Single columns",
            failed="Taken one at a time, the columns are distributed differently from the real ones.",
            question="whether single columns are distributed as in the real records",
        ),
    ),
    "one_way_tv_worst": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: bench.once(distances).columns_worst("one_way_tv_worst"),
        words=MetricWords(
            title="The column that is furthest off",
            failed="At least one column is distributed quite differently from the real one.",
            question="whether every single column is distributed as in the real records",
        ),
    ),
    "pair_tv": Metric(
        section="fidelity",
        direction="lower",
        measure=_pair,
        scopes=columns,
        pairs=True,
        words=MetricWords(
            title="Relations between two columns",
            failed="Relations between columns are lost or distorted: analyses of two columns will mislead.",
            question="whether relations between columns are kept",
        ),
    ),
    "pair_tv_worst": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: bench.once(distances).pairs_worst("pair_tv_worst"),
        words=MetricWords(
            title="The pair of columns that is furthest off",
            failed="At least one relation between two columns is lost or badly distorted.",
            question="whether every relation between two columns is kept",
        ),
    ),
    "missing_rate": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, scope: _column(bench.once(missing), "missing_rate", scope),
        scopes=columns,
        words=MetricWords(
            title="Missing values",
            failed="Values are missing at other rates than in the real records.",
            question="whether values are missing as often as in the real records",
        ),
    ),
    "missing_rate_worst": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: bench.once(missing).columns_worst("missing_rate_worst"),
        words=MetricWords(
            title="The column whose missing values are furthest off",
            failed="In at least one column values are missing at quite another rate than in the real records.",
            question="whether every column is missing as often as in the real records",
        ),
    ),
}
"""The metrics of distributions by name."""
