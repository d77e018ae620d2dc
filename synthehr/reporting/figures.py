"""Geometry of the report's figures: numbers only, which the template puts into SVG."""

from __future__ import annotations

import math
from dataclasses import dataclass

from synthehr.evaluation.findings import CopyProfile, OutcomeProfile, PairProfile, RocCurve
from synthehr.reporting.document import CheckEntry

__all__ = [
    "Forest",
    "Gauge",
    "HeatMap",
    "copies_forest",
    "gauge",
    "heat_map",
    "outcome_forest",
    "roc_points",
]

_LABEL = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One square of a heat map: its corner, its strength in [0, 1] and what it says."""

    x: float
    y: float
    strength: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """A square of pairs: below the diagonal the synthetic cohort, above it the holdout."""

    side: float
    left: float
    above: float
    cell: float
    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    top: float

    @property
    def width(self) -> float:
        """Width of the drawing, with room for the last slanted label."""
        return round(self.left + self.side + 0.6 * self.left, 1)

    @property
    def height(self) -> float:
        """Height of the drawing."""
        return round(self.above + self.side + 2, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A point with its interval, in percent of the axis."""

    kind: str
    at: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestRow:
    """One row of a forest plot."""

    label: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """Rows of points with intervals over one axis; ticks are (percent of the axis, label)."""

    rows: tuple[ForestRow, ...]
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """An interval beside its bound, in percent of the width; ``inside`` is the span that passes."""

    low: float
    high: float
    at: float
    bound: float
    inside: tuple[float, float]


def heat_map(profile: PairProfile) -> HeatMap:
    """The heat map of all pairs; distances below the diagonal are the synthetic cohort's."""
    d = len(profile.columns)
    cell = min(36.0, max(12.0, 560.0 / d))
    labels = tuple(name if len(name) <= _LABEL else name[: _LABEL - 1] + "…" for name in profile.columns)
    left = round(16.0 + 7.2 * max(len(label) for label in labels), 1)
    above = round(8.0 + 0.84 * left, 1)
    top = max(0.2, *(max(row) for row in (*profile.distance, *profile.reference)))
    cells = []
    for i, first in enumerate(profile.columns):
        for j, second in enumerate(profile.columns):
            distance = profile.distance[i][j] if i >= j else profile.reference[i][j]
            who = "synthetic" if i >= j else "other real patients"
            what = first if i == j else f"{first} and {second}"
            cells.append(
                Cell(
                    x=round(left + j * cell, 1),
                    y=round(above + i * cell, 1),
                    strength=round(min(1.0, distance / top), 3),
                    title=f"{what}: {distance:.3f} ({who})",
                )
            )
    return HeatMap(
        side=round(d * cell, 1),
        left=left,
        above=above,
        cell=round(cell, 2),
        labels=labels,
        cells=tuple(cells),
        top=top,
    )


def roc_points(curve: RocCurve) -> str:
    """The curve as the points of an SVG polyline in a square of 100 by 100."""
    pairs = zip(curve.false_positive_rate, curve.true_positive_rate, strict=True)
    return " ".join(f"{100 * x:.1f},{100 - 100 * y:.1f}" for x, y in pairs)


def outcome_forest(outcomes: tuple[OutcomeProfile, ...]) -> Forest:
    """One row an outcome: trained on real, trained on synthetic, each with its interval."""
    lows = [end for one in outcomes for end in (one.synthetic_ci[0], one.real_ci[0])]
    start = 0.5 if all("AUC" in one.score for one in outcomes) else 0.0
    start = max(-1.0, min(start, *(math.floor(low * 5) / 5 for low in lows)))
    step = 0.1 if start >= 0.4 else 0.2

    def place(value: float) -> float:
        return round(100 * min(1.0, max(0.0, (value - start) / (1.0 - start))), 2)

    rows = tuple(
        ForestRow(
            label=f"{one.outcome} ({one.score})",
            marks=(
                Mark(
                    kind="real",
                    at=place(one.trained_on_real),
                    low=place(one.real_ci[0]),
                    high=place(one.real_ci[1]),
                ),
                Mark(
                    kind="synthetic",
                    at=place(one.trained_on_synthetic),
                    low=place(one.synthetic_ci[0]),
                    high=place(one.synthetic_ci[1]),
                ),
            ),
        )
        for one in outcomes
    )
    first = math.ceil(start / step - 1e-9)
    values = [k * step for k in range(first, round(1.0 / step) + 1)]
    return Forest(rows=rows, ticks=tuple((place(value), f"{value:.1f}") for value in values))


def copies_forest(copies: tuple[CopyProfile, ...]) -> Forest:
    """One row a measure of copying: the share among those learned from, and among the others."""
    top = min(1.0, max(0.01, *(1.15 * max(one.train_ci[1], one.holdout_share) for one in copies)))

    def place(value: float) -> float:
        return round(100 * min(1.0, value / top), 2)

    names = {"verbatim_copies": "all patients", "rare_copies": "patients with a unique record"}
    rows = tuple(
        ForestRow(
            label=names[one.measure],
            marks=(
                Mark(
                    kind="real",
                    at=place(one.holdout_share),
                    low=place(one.holdout_share),
                    high=place(one.holdout_share),
                ),
                Mark(
                    kind="synthetic",
                    at=place(one.train_share),
                    low=place(one.train_ci[0]),
                    high=place(one.train_ci[1]),
                ),
            ),
        )
        for one in copies
    )
    return Forest(rows=rows, ticks=tuple((25.0 * k, f"{100 * top * k / 4:.2g} %") for k in range(5)))


def gauge(check: CheckEntry) -> Gauge | None:
    """The gated interval beside its bound; None where it is undefined."""
    middle, interval = (check.value, check.ci) if check.statistic == "value" else (check.excess, check.excess_ci)
    if middle is None or interval is None:
        return None
    low, high = interval
    span = max(abs(check.bound), 1e-9)
    start = min(low, 0.0, check.bound - span)
    end = max(high, check.bound + span)
    pad = 0.04 * (end - start)
    start, end = start - pad, end + pad

    def place(value: float) -> float:
        return round(100 * (value - start) / (end - start), 2)

    bound = place(check.bound)
    return Gauge(
        low=place(low),
        high=place(high),
        at=place(middle),
        bound=bound,
        inside=(0.0, bound) if check.op == "<=" else (bound, 100.0),
    )
