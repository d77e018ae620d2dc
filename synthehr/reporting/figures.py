"""Geometry of the report's figures: numbers only, which the templates put into SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from synthehr.evaluation.findings import CopyProfile, OutcomeProfile
from synthehr.reporting.document import CheckEntry

__all__ = [
    "Axis",
    "Forest",
    "Gauge",
    "Plot",
    "Series",
    "copies_forest",
    "forest",
    "gauge",
    "linear_axis",
    "log_axis",
    "outcome_forest",
    "plot",
    "sparkline",
]


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
    """Rows of points with intervals over one axis.

    Attributes:
        rows: from above.
        ticks: (percent of the axis, label).
        rule: percent of the axis where nothing is different; None for no such line.
    """

    rows: tuple[ForestRow, ...]
    ticks: tuple[tuple[float, str], ...]
    rule: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """An interval beside its bound, in percent of the width; ``inside`` is the span that passes."""

    low: float
    high: float
    at: float
    bound: float
    inside: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis: its name, its ends, and where its ticks stand, in the units of the values."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies between the ends, from 0 to 1; what lies outside is at the end."""
        if self.log:
            value = max(value, self.low)
            place = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            place = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, place))


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points to draw: as a line, as steps or as dots, with a band between ``lows`` and ``highs`` where given.

    Attributes:
        kind: ``real``, ``synthetic`` or ``other``, which give the colour.
        form: how the points are joined.
        titles: what each dot says when it is pointed at.
    """

    kind: str
    x: Sequence[float]
    y: Sequence[float]
    form: str = "line"
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()
    titles: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One dot of a plot."""

    kind: str
    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A plot with two axes, in the units of its drawing: lines and bands as points of polylines and polygons."""

    width: float
    height: float
    frame: tuple[float, float, float, float]
    x: Axis
    y: Axis
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    bands: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, str], ...]
    dots: tuple[Dot, ...]
    diagonal: str


def plot(
    series: Iterable[Series],
    *,
    x: Axis,
    y: Axis,
    diagonal: bool = False,
    width: float = 460.0,
    height: float = 320.0,
) -> Plot:
    """The geometry of some series over two axes; ``diagonal`` draws where both are equal."""
    left, above, right, below = 62.0, 12.0, 16.0, 48.0
    wide, high = width - left - right, height - above - below

    def at(one: float, other: float) -> tuple[float, float]:
        return round(left + wide * x.share(one), 1), round(above + high * (1.0 - y.share(other)), 1)

    def joined(points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{one:g},{other:g}" for one, other in points)

    bands, lines, dots = [], [], []
    for one in series:
        points = _pairs(one.x, one.y, steps=one.form == "steps")
        if len(one.lows):
            steps = one.form == "steps"
            edge = [at(a, b) for a, b in _pairs(one.x, one.lows, steps=steps)]
            edge += [at(a, b) for a, b in _pairs(one.x, one.highs, steps=steps)][::-1]
            bands.append((one.kind, joined(edge)))
        if one.form == "dots":
            titles = one.titles or [""] * len(points)
            dots += [
                Dot(kind=one.kind, x=at(*point)[0], y=at(*point)[1], title=title)
                for point, title in zip(points, titles, strict=True)
            ]
        else:
            lines.append((one.kind, joined(at(*point) for point in points)))
    ends = [x.low + (x.high - x.low) * k / 24 for k in range(25)] if diagonal else []
    if diagonal and x.log:
        ends = [x.low * (x.high / x.low) ** (k / 24) for k in range(25)]
    return Plot(
        width=width,
        height=height,
        frame=(left, above, wide, high),
        x=x,
        y=y,
        x_ticks=tuple((at(value, y.low)[0], label) for value, label in x.ticks),
        y_ticks=tuple((at(x.low, value)[1], label) for value, label in y.ticks),
        bands=tuple(bands),
        lines=tuple(lines),
        dots=tuple(dots),
        diagonal=joined(at(value, value) for value in ends if y.low <= value <= y.high),
    )


def _pairs(x: Sequence[float], y: Sequence[float], *, steps: bool) -> list[tuple[float, float]]:
    """The points; with ``steps`` each value holds until the next place, as a survival curve does."""
    points = list(zip(x, y, strict=True))
    if not steps:
        return points
    held = [(place, before) for (place, _), (_, before) in zip(points[1:], points[:-1], strict=True)]
    return [points[0], *(one for pair in zip(held, points[1:], strict=True) for one in pair)] if points else []


def linear_axis(label: str, values: Iterable[float], *, low: float | None = None, high: float | None = None) -> Axis:
    """An axis that holds the values, with round ticks; the ends are the given ones or the next ticks."""
    given = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    first = min(given) if low is None else low
    last = max(given) if high is None else high
    if last <= first:
        last = first + (abs(first) or 1.0)
    step = _step((last - first) / 5)
    first = math.floor(first / step + 1e-9) * step if low is None else low
    last = math.ceil(last / step - 1e-9) * step if high is None else high
    count = math.floor((last - first) / step + 1e-6) + 1
    ticks = tuple((first + k * step, _shown(first + k * step, step)) for k in range(count))
    return Axis(label=label, low=first, high=last, ticks=ticks)


def log_axis(label: str, *, low: float, high: float = 1.0) -> Axis:
    """An axis in powers of ten; both ends above zero."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    ticks = tuple((10.0**k, f"{10.0**k:g}") for k in range(first, last + 1))
    return Axis(label=label, low=10.0**first, high=10.0**last, ticks=ticks, log=True)


def _step(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(rough))
    return next(size * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if size * factor >= rough * (1 - 1e-9))


def _shown(value: float, step: float) -> str:
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += not math.isclose(round(step, digits), step)
    return f"{value + 0.0:,.{digits}f}".replace(",", "\u202f").replace("-", "\u2212")


def forest(
    rows: Iterable[tuple[str, Sequence[tuple[str, float, float, float]]]], *, axis: Axis, rule: float | None = None
) -> Forest:
    """A forest plot of rows of (label, marks of (kind, value, low, high)) over an axis."""

    def place(value: float) -> float:
        return round(100 * axis.share(value), 2)

    return Forest(
        rows=tuple(
            ForestRow(
                label=label,
                marks=tuple(
                    Mark(kind=kind, at=place(value), low=place(low), high=place(high))
                    for kind, value, low, high in marks
                ),
            )
            for label, marks in rows
        ),
        ticks=tuple((place(value), text) for value, text in axis.ticks),
        rule=None if rule is None else place(rule),
    )


def outcome_forest(outcomes: Sequence[OutcomeProfile], *, learners: bool = False) -> Forest:
    """One row an outcome (and learner): trained on real, trained on synthetic, each with its interval."""
    lows = [end for one in outcomes for end in (one.synthetic_ci[0], one.real_ci[0])]
    start = 0.5 if all("AUC" in one.score for one in outcomes) else 0.0
    start = max(-1.0, min(start, *(math.floor(low * 5) / 5 for low in lows)))
    rows = [
        (
            f"{one.outcome} ({one.score}, {one.learner})" if learners else f"{one.outcome} ({one.score})",
            (
                ("real", one.trained_on_real, *one.real_ci),
                ("synthetic", one.trained_on_synthetic, *one.synthetic_ci),
            ),
        )
        for one in outcomes
    ]
    return forest(rows, axis=linear_axis("", [], low=start, high=1.0))


def copies_forest(copies: Sequence[CopyProfile]) -> Forest:
    """One row a measure of copying: the share among those learned from, and among the others."""
    top = min(1.0, max(0.01, *(1.15 * max(one.train_ci[1], one.holdout_share) for one in copies)))
    names = {"verbatim_copies": "all patients", "rare_copies": "patients with a unique record"}
    rows = [
        (
            names[one.measure],
            (
                ("real", one.holdout_share, one.holdout_share, one.holdout_share),
                ("synthetic", one.train_share, *one.train_ci),
            ),
        )
        for one in copies
    ]
    ticks = tuple((top * k / 4, f"{100 * top * k / 4:.2g} %") for k in range(5))
    return forest(rows, axis=Axis(label="", low=0.0, high=top, ticks=ticks))


def sparkline(shares: Sequence[float], *, top: float, width: float = 120.0, height: float = 22.0) -> str:
    """The shares of a column's bins as one stepped path."""
    step = width / max(1, len(shares))
    points = [f"M0 {height:g}"]
    for share in shares:
        points.append(f"V{height - height * share / top:.1f}h{step:.1f}")
    return "".join(points) + f"V{height:g}"


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
