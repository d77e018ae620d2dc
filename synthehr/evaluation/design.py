"""The design of a regression: which columns enter, in which units, by the training part alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench
from synthehr.evaluation.cohorts import Part, Parts

__all__ = ["Design", "Fitted", "design", "independent_columns", "overlap_of"]

_LEVELS = 5
_RARE = 0.01
_MOST = 60
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Covariates of a regression: numbers per standard deviation of train, categories against the commonest value.

    Attributes:
        names: what each coefficient is of, as a reader may see it.
        train: shape ``(patients, covariates)``.
        synthetic: the same.
        holdout: the same.
    """

    names: tuple[str, ...]
    train: Floats
    synthetic: Floats
    holdout: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Coefficients of one fit and their covariance; NaN, with zero covariance, where one cannot be estimated.

    Shape: ``(coefficients,)`` and ``(coefficients, coefficients)``.
    """

    estimate: Floats
    covariance: Floats

    @property
    def error(self) -> Floats:
        """Standard errors."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))


def design(bench: Bench, without: tuple[str, ...]) -> Design:
    """The design from all kept columns but these; categories keep five values, one in a hundred patients or more each.

    A number that is missing enters as train's mean, with a covariate for being missing where one patient of train in a
    hundred or more misses it.
    """
    parts = bench.parts
    blocks: list[tuple[str, list[Floats]]] = []
    cohorts = (parts.train, parts.synthetic, parts.holdout)
    for at, column in enumerate(parts.coding.columns):
        if column.name in without:
            continue
        blocks += _number(parts, column.name) if column.edges is not None else _category(parts, at)
    found = blocks[:_MOST]
    tables = [
        np.stack([columns[which] for _, columns in found], axis=1) if found else np.empty((len(part), 0))
        for which, part in enumerate(cohorts)
    ]
    used = independent_columns(tables[0])
    return Design(
        names=tuple(found[at][0] for at in used),
        train=tables[0][:, used],
        synthetic=tables[1][:, used],
        holdout=tables[2][:, used],
    )


def independent_columns(table: Floats) -> NDArray[np.int64]:
    """The columns that are no linear combination of a constant and those before them, to a part in a million."""
    if table.shape[1] == 0 or len(table) < 2:
        return np.empty(0, dtype=np.int64)
    centred = table - table.mean(axis=0)
    scale = np.sqrt(np.square(centred).sum(axis=0))
    scaled = centred / np.where(scale > 1e-9, scale, 1.0)
    left = np.abs(np.diag(np.linalg.qr(scaled, mode="r")))
    left = np.concatenate([left, np.zeros(table.shape[1] - len(left))])
    return np.flatnonzero((scale > 1e-9) & (left > 1e-3))


def overlap_of(gap: Floats, first: Floats, second: Floats, *, z: float) -> Floats:
    """How far two confidence intervals of each coefficient overlap.

    The overlap is the length that both share over the length of each, averaged over the two; 1 where they are the
    same, below 0 where they lie apart, cut at -1. A coefficient that one fit cannot estimate has none: -1.

    Args:
        gap: second estimate minus first, the last axis being the coefficients.
        first: standard errors of the first fit, shape ``(coefficients,)``.
        second: the same of the second.
        z: normal quantile of the intervals.

    Source: Karr et al. 2006, in the form that goes below 0.
    """
    shared = np.minimum(z * first, gap + z * second) - np.maximum(-z * first, gap - z * second)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = shared * (1.0 / (2 * z * first) + 1.0 / (2 * z * second)) / 2
    return np.asarray(np.where(np.isfinite(share), np.maximum(share, -1.0), -1.0))


def _number(parts: Parts, name: str) -> list[tuple[str, list[Floats]]]:
    raw = [part.values[name].number for part in (parts.train, parts.synthetic, parts.holdout)]
    numbers = [one for one in raw if one is not None]
    gone = [np.isnan(one) for one in numbers]
    given = numbers[0][~gone[0]]
    if len(given) < 2 or np.ptp(given) == 0:
        return []
    mean, spread = given.mean(), given.std()
    found = [(name, [np.where(no, 0.0, (one - mean) / spread) for one, no in zip(numbers, gone, strict=True)])]
    if _RARE <= gone[0].mean() <= 1 - _RARE:
        found.append((f"{name} missing", [no.astype(np.float64) for no in gone]))
    return found


def _category(parts: Parts, at: int) -> list[tuple[str, list[Floats]]]:
    column = parts.coding.columns[at]
    cohorts: tuple[Part, ...] = (parts.train, parts.synthetic, parts.holdout)
    shares = np.bincount(parts.train.codes[:, at], minlength=len(column.labels)) / len(parts.train)
    common = [int(code) for code in np.argsort(-shares, kind="stable")[: _LEVELS + 1] if shares[code] >= _RARE]
    return [
        (f"{column.name}: {column.labels[code]}", [(part.codes[:, at] == code).astype(np.float64) for part in cohorts])
        for code in common[1:]
    ]
