"""How many real patients the synthetic ones are worth, for pairs of columns.

The mean distance of all pairs between half of train and ``m`` other patients of train falls as ``m`` grows, by chance
alone. The ``m`` at which it equals that of the synthetic cohort is what this cohort is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords
from synthehr.evaluation.coarse import CODES, coarse
from synthehr.evaluation.influence import mean_error
from synthehr.evaluation.intervals import Z95, Estimate, difference_of_proportions
from synthehr.evaluation.measurement import Measurement, undefined

__all__ = ["METRICS", "Curve", "subsample_share"]

_METRIC = "subsample_share"
_FEWEST = 100
_SMALLEST = 25
Codes = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Squared mean distance by chance between ``base`` patients and ``m`` others: ``slope · (1 / base + 1 / m)``."""

    base: int
    slope: float

    def worth(self, distance: float) -> float:
        """How many patients are at this distance by chance; infinite where no number of them is as near."""
        left = distance**2 / self.slope - 1.0 / self.base
        return 1.0 / left if left > 0 else np.inf


def subsample_share(bench: Bench) -> Measurement:
    """The share of train whose patients, drawn at random, would be as near to the rest as the synthetic cohort is."""
    found = bench.once(coarse)
    many = len(found.train)
    if found.train.shape[1] < 2 or min(many // 2, len(found.synthetic)) < _FEWEST:
        why = f"The table has one column, or a cohort has fewer than {_FEWEST} patients (train: twice as many)."
        return undefined(_METRIC, "all", "higher", why)
    order = bench.parts.generator(12).permutation(many)
    base, rest = found.train[order[: many // 2]], found.train[order[many // 2 :]]
    joint = _joint(base)
    curve = _curve(joint, len(base), rest)
    if curve is None:
        return undefined(_METRIC, "all", "higher", "No column of train varies, so nothing tells samples apart.")
    own, others = (_share(curve, joint, base, table, of=many) for table in (found.synthetic, found.holdout))
    return Measurement(
        metric=_METRIC,
        scope="all",
        direction="higher",
        value=own,
        reference=others.value,
        excess=difference_of_proportions(others, own),
    )


def _curve(joint: Floats, base: int, rest: Codes) -> Curve | None:
    sizes, slopes = [], []
    size = len(rest)
    while size >= _SMALLEST:
        starts = range(0, len(rest) - size + 1, size)
        squares = [_distance(joint, _joint(rest[start : start + size])) ** 2 for start in list(starts)[:4]]
        sizes.append(size)
        slopes.append(float(np.mean(squares)) / (1.0 / base + 1.0 / size))
        size //= 2
    slope = float(np.median(slopes))
    return Curve(base=base, slope=slope) if slope > 0 else None


def _share(curve: Curve, joint: Floats, base: Codes, other: Codes, *, of: int) -> Estimate:
    theirs = _joint(other)
    distance = _distance(joint, theirs)
    ours, of_them = (mean_error(_influence(codes, np.sign(joint - theirs))) for codes in (base, other))
    error = math.hypot(ours, of_them)
    near, far = max(distance - Z95 * error, 0.0), distance + Z95 * error
    low, value, high = (min(curve.worth(at) / of, 1.0) for at in (far, distance, near))
    return Estimate(value=value, low=low, high=high)


def _hot(codes: Codes) -> NDArray[np.float32]:
    hot = np.zeros((len(codes), codes.shape[1] * CODES), dtype=np.float32)
    np.put_along_axis(hot, codes + CODES * np.arange(codes.shape[1]), 1.0, axis=1)
    return hot


def _joint(codes: Codes) -> Floats:
    """Shares of all pairs of codes, those of one column with itself left out."""
    hot = _hot(codes)
    joint = (hot.T @ hot).astype(np.float64) / len(codes)
    joint[np.kron(np.eye(codes.shape[1]), np.ones((CODES, CODES))) > 0] = 0.0
    return joint


def _distance(first: Floats, second: Floats) -> float:
    columns = len(first) // CODES
    return float(np.abs(first - second).sum() / 2 / (columns * (columns - 1)))


def _influence(codes: Codes, signs: Floats) -> Floats:
    columns = codes.shape[1]
    hot = _hot(codes)
    pull = np.einsum("ij,ij->i", hot @ signs.astype(np.float32), hot)
    share: Floats = pull.astype(np.float64) / (2 * columns * (columns - 1))
    return share


METRICS: Mapping[str, Metric] = {
    _METRIC: Metric(
        section="fidelity",
        direction="higher",
        measure=lambda bench, _: bench.once(subsample_share),
        words=MetricWords(
            title="Worth how large a sample of the real patients",
            failed="For relations between columns, this cohort is worth a much smaller sample of real patients.",
            question="how large a sample of real patients this cohort is worth",
        ),
    ),
}
"""The metric of worth by name."""
