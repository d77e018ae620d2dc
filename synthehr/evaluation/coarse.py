"""Columns in few codes, for what needs the joint table of many columns: triples and associations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench
from synthehr.evaluation.cohorts import Part, Parts
from synthehr.schema.model import BooleanColumn

__all__ = ["CODES", "Coarse", "coarse"]

LEVELS = 5
"""Bins of a number, and values of a category that keep a code of their own."""

CODES = LEVELS + 3
"""Codes of every column: its levels, one for all rarer values, then undeclared and missing."""

_UNDECLARED, _MISSING = CODES - 2, CODES - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Coarse:
    """Coarse codes of the three cohorts; holdout and synthetic drawn to equal size.

    Attributes:
        names: the columns.
        train: shape ``(patients, columns)``, from 0 to ``CODES - 1``.
        synthetic: the same.
        holdout: the same.
        scores: where codes have an order, the mean rank of each in train, from -1 to 1, else NaN; shape
            ``(columns, CODES)``.
    """

    names: tuple[str, ...]
    train: NDArray[np.int64]
    synthetic: NDArray[np.int64]
    holdout: NDArray[np.int64]
    scores: NDArray[np.float64]


def coarse(bench: Bench) -> Coarse:
    """Numbers in fifths of train, categories by their five most common values in train."""
    parts = bench.parts
    maps = [_coarser(parts, at) for at in range(len(parts.coding.columns))]

    def coded(part: Part, rows: NDArray[np.int64] | slice) -> NDArray[np.int64]:
        return np.stack([found[part.codes[rows, at]] for at, found in enumerate(maps)], axis=1)

    train = coded(parts.train, slice(None))
    return Coarse(
        names=parts.coding.names,
        train=train,
        synthetic=coded(parts.synthetic, parts.synthetic_rows),
        holdout=coded(parts.holdout, parts.holdout_rows),
        scores=np.stack([_scores(parts, at, train[:, at]) for at in range(train.shape[1])]),
    )


def _coarser(parts: Parts, at: int) -> NDArray[np.int64]:
    """The coarse code of each code of a column."""
    column = parts.coding.columns[at]
    many = column.undeclared
    counts = np.bincount(parts.train.codes[:, at], minlength=len(column.labels))[:many].astype(np.float64)
    if many <= LEVELS:
        levels = np.arange(many)
    elif column.edges is not None:
        total = max(counts.sum(), 1.0)
        middle = (np.cumsum(counts) - counts / 2) / total
        levels = np.minimum((middle * LEVELS).astype(np.int64), LEVELS - 1)
    else:
        levels = np.full(many, LEVELS)
        levels[np.argsort(-counts, kind="stable")[:LEVELS]] = np.arange(LEVELS)
    return np.concatenate([levels, [_UNDECLARED, _MISSING]]).astype(np.int64)


def _scores(parts: Parts, at: int, codes: NDArray[np.int64]) -> NDArray[np.float64]:
    column = parts.coding.columns[at]
    scores = np.full(CODES, np.nan)
    if column.edges is None and not isinstance(parts.schema.root.kept[column.name], BooleanColumn):
        return scores
    counts = np.bincount(codes, minlength=CODES)[:_UNDECLARED].astype(np.float64)
    total = max(counts.sum(), 1.0)
    scores[:_UNDECLARED] = 2.0 * (np.cumsum(counts) - counts / 2) / total - 1.0
    return scores
