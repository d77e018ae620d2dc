"""Fidelity over joint cells: triples of columns, and which columns are missing together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords
from synthehr.evaluation.coarse import CODES, coarse
from synthehr.evaluation.cohorts import Part
from synthehr.evaluation.influence import from_influence
from synthehr.evaluation.measurement import Measurement, Scope, undefined

__all__ = ["METRICS", "joint_distance", "missing_patterns", "triples"]

_TRIPLES = 500
_PATTERNS = 50
Codes = NDArray[np.int64]


def triples(bench: Bench) -> Measurement:
    """Total variation distance of triples of columns, averaged; of 500 drawn ones where there are more."""
    found = bench.once(coarse)
    many = len(found.names)
    if many < 3:
        return undefined("triple_tv", "all", "lower", "The table has fewer than three columns.")
    chosen = list(itertools.combinations(range(many), 3))
    if len(chosen) > _TRIPLES:
        at = bench.parts.generator(10).choice(len(chosen), size=_TRIPLES, replace=False)
        chosen = [chosen[i] for i in np.sort(at)]
    place = np.array([CODES * CODES, CODES, 1])
    return joint_distance(
        "triple_tv",
        "all",
        [
            tuple(table[:, list(one)] @ place for table in (found.train, found.synthetic, found.holdout))
            for one in chosen
        ],
    )


def missing_patterns(bench: Bench) -> Measurement:
    """Total variation distance over which columns a patient misses, all columns at once."""
    parts = bench.parts
    names = parts.coding.names

    def pattern(part: Part, rows: NDArray[np.int64] | slice) -> NDArray[np.bool_]:
        return np.stack([part.values[name].missing[rows] for name in names], axis=1)

    tables = (
        pattern(parts.train, slice(None)),
        pattern(parts.synthetic, parts.synthetic_rows),
        pattern(parts.holdout, parts.holdout_rows),
    )
    _, numbers = np.unique(np.packbits(np.concatenate(tables), axis=1), axis=0, return_inverse=True)
    numbers = numbers.reshape(-1)
    cuts = np.cumsum([len(table) for table in tables])[:-1]
    train, synthetic, holdout = np.split(numbers, cuts)
    counts = np.bincount(train, minlength=int(numbers.max()) + 1)
    common = np.argsort(-counts, kind="stable")[:_PATTERNS]
    short = np.full(len(counts), len(common))  # whatever train hardly knows is one cell
    short[common[counts[common] > 0]] = np.flatnonzero(counts[common] > 0)
    return joint_distance("missing_patterns", "all", [(short[train], short[synthetic], short[holdout])])


def joint_distance(metric: str, scope: Scope, tables: Sequence[tuple[Codes, ...]]) -> Measurement:
    """The mean total variation distance over several joint tables.

    Args:
        metric: its name.
        scope: what it is of.
        tables: the cell of each patient of train, synthetic and holdout, in each table; shape ``(patients,)``.
    """
    sizes = [len(one) for one in tables[0]]
    if min(sizes) < 2:
        return undefined(metric, scope, "lower", "A cohort has a single patient, so no interval can be given.")
    value = reference = 0.0
    on_train, beside, on_synthetic, on_holdout = (np.zeros(sizes[at]) for at in (0, 0, 1, 2))
    for train, synthetic, holdout in tables:
        cells = 1 + max(int(one.max()) for one in (train, synthetic, holdout))
        shares = [np.bincount(one, minlength=cells) / len(one) for one in (train, synthetic, holdout)]
        value += np.abs(shares[0] - shares[1]).sum() / 2
        reference += np.abs(shares[0] - shares[2]).sum() / 2
        towards, away = np.sign(shares[0] - shares[1]) / 2, np.sign(shares[0] - shares[2]) / 2
        on_train += towards[train]
        beside += away[train]
        on_synthetic += towards[synthetic]
        on_holdout += away[holdout]
    many = len(tables)
    return from_influence(
        metric,
        scope,
        value=float(value / many),
        reference=float(reference / many),
        train=(on_train / many, beside / many),
        synthetic=on_synthetic / many,
        holdout=on_holdout / many,
    )


METRICS: Mapping[str, Metric] = {
    "triple_tv": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: bench.once(triples),
        measurable=lambda bench: len(bench.schema.root.kept) > 2,
        words=MetricWords(
            title="Relations between three columns",
            failed="Relations between three columns are lost or distorted: what hangs on two things at once misleads.",
            question="whether relations between three columns are kept",
        ),
    ),
    "missing_patterns": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: bench.once(missing_patterns),
        words=MetricWords(
            title="Values that are missing together",
            failed="Columns are missing together in other patterns than in the real records.",
            question="whether columns are missing together as in the real records",
        ),
    ),
}
"""The metrics of joint cells by name."""
