"""Figures of how patients' rows follow each other in time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from synthehr.evaluation.findings import ColumnProfile
from synthehr.evaluation.findings_longitudinal import (
    BigramProfile,
    CodeProfile,
    HistogramProfile,
    LongitudinalProfile,
    TrajectoryProfile,
)
from synthehr.reporting.blocks import Block, Cards, Cell, Drawing, Heading, Table
from synthehr.reporting.document import ReportDocument
from synthehr.reporting.figures import Axis, Series, linear_axis, log_axis, plot
from synthehr.reporting.generic import undrawn
from synthehr.reporting.numbers import number, percent

__all__ = ["longitudinal_blocks"]

_SMALLEST = 1e-4
_MOST_TRAJECTORIES = 12
_WORST = 10
_COUNTED = {
    "rows": "rows of a patient",
    "gaps": "time between a patient's rows",
    "codes": "different codes of a patient",
}
_BOTH = (("real", "Other real patients"), ("synthetic", "Synthetic patients"))
_THREE = (("other", "Patients learned from"), *_BOTH)
_DRAWN = frozenset({"histograms", "codes", "bands", "bigrams", "values", "trajectories", "regularities"})


def longitudinal_blocks(document: ReportDocument) -> list[Block]:
    """Histograms, prevalences, pairs of codes, values of codes, trajectories, order in time."""
    found = document.sections.longitudinal
    if found is None:
        return []
    blocks: list[Block] = []
    if found.histograms:
        cards = tuple(_card(one) for one in found.histograms)
        blocks += [
            Heading(text="How many, and how far apart"),
            Cards(name="histograms", open=cards[:12], folded=cards[12:], rows=()),
        ]
    blocks += _codes(found)
    blocks += _bigrams(found.bigrams)
    blocks += _trajectories(found.trajectories)
    blocks += _values(found)
    return blocks + undrawn(found, _DRAWN)


def _card(one: HistogramProfile) -> ColumnProfile:
    return ColumnProfile(
        column=f"{one.table}: {_COUNTED[one.what]}" if one.table else _COUNTED[one.what],
        kind="integer",
        labels=one.labels,
        train=one.train,
        holdout=one.holdout,
        synthetic=one.synthetic,
        distance=one.distance,
        reference=one.reference,
    )


def _codes(found: LongitudinalProfile) -> list[Block]:
    """Prevalence of every code, synthetic against real, and its bands of frequency."""
    by_column: dict[tuple[str, str], list[CodeProfile]] = defaultdict(list)
    for code in found.codes:
        by_column[code.table, code.column].append(code)
    blocks: list[Block] = [Heading(text="How common codes are")] if found.codes or found.bands else []
    for (table, column), codes in by_column.items():
        blocks += [_scatter(f"{table}.{column}", codes), _furthest(f"{table}.{column}", codes)]
    if found.bands:
        rows = tuple(
            (
                Cell(text=one.band),
                Cell(text=str(one.codes)),
                Cell(text=percent(one.error)),
                Cell(text=percent(one.reference)),
            )
            for one in found.bands
        )
        blocks.append(
            Table(
                label="How far prevalences are off, by frequency",
                caption="How far prevalences are off, relative to what they are in patients learned from",
                head=("Codes", "Number", "Synthetic", "Other real"),
                numbers=(False, True, True, True),
                rows=rows,
            )
        )
    return blocks


def _scatter(name: str, codes: Sequence[CodeProfile]) -> Drawing:
    shares = [share for code in codes for share in (code.train, code.synthetic, code.holdout)]
    low = max(_SMALLEST, min((share for share in shares if share > 0), default=_SMALLEST))
    titles = [f"{code.label}: {percent(code.train)}, synthetic {percent(code.synthetic)}" for code in codes]
    x = [max(code.train, low) for code in codes]
    return Drawing(
        name=f"prevalence:{name}",
        title=f"Prevalence of {name}",
        plot=plot(
            [
                Series(kind="real", x=x, y=[max(code.holdout, low) for code in codes], form="dots"),
                Series(
                    kind="synthetic", x=x, y=[max(code.synthetic, low) for code in codes], form="dots", titles=titles
                ),
            ],
            x=log_axis("share of patients learned from", low=low),
            y=log_axis("share of the others", low=low),
            diagonal=True,
            width=420.0,
            height=380.0,
        ),
        label=f"Share of patients with each code of {name}: synthetic and other real patients against those learned "
        "from; the furthest off are in the table below",
        legend=_BOTH,
        caption=f"A dot is a code of {name}; on the dashed line it is as common as in the patients learned from. The "
        "grey dots show what a sample of real patients does.",
    )


def _furthest(name: str, codes: Sequence[CodeProfile]) -> Table:
    worst = sorted(codes, key=lambda code: -abs(code.synthetic - code.train))[:_WORST]
    rows = tuple(
        (
            Cell(text=code.label),
            Cell(text=percent(code.synthetic)),
            Cell(text=percent(code.train)),
            Cell(text=percent(code.holdout)),
        )
        for code in worst
    )
    return Table(
        label=f"Codes of {name} that are furthest off",
        caption=f"Codes of {name} that are furthest off, in share of patients",
        head=("Code", "Synthetic", "Learned from", "Other real"),
        numbers=(False, True, True, True),
        rows=rows,
    )


def _bigrams(bigrams: Sequence[BigramProfile]) -> list[Block]:
    blocks: list[Block] = []
    for when in ("same visit", "next visit"):
        chosen = [one for one in bigrams if one.when == when]
        if not chosen:
            continue
        worst = sorted(chosen, key=lambda one: -abs(one.synthetic - one.train))[:_WORST]
        rows = tuple(
            (
                Cell(text=f"{one.first}, {one.second}", more=f"{one.table}.{one.column}"),
                Cell(text=percent(one.synthetic)),
                Cell(text=percent(one.train)),
                Cell(text=percent(one.holdout)),
            )
            for one in worst
        )
        title = "Codes in the same visit" if when == "same visit" else "Codes of one visit and the next"
        blocks += [
            Heading(text=title),
            _bigram_scatter(when, title, chosen),
            Table(
                label=f"{title}: pairs that are furthest off",
                caption="Pairs that are furthest off, in share of all pairs",
                head=("Pair", "Synthetic", "Learned from", "Other real"),
                numbers=(False, True, True, True),
                rows=rows,
            ),
        ]
    return blocks


def _bigram_scatter(when: str, title: str, chosen: Sequence[BigramProfile]) -> Drawing:
    low = max(1e-5, min((one.train for one in chosen if one.train > 0), default=1e-5))
    x = [max(one.train, low) for one in chosen]
    titles = [f"{one.first}, {one.second}: {percent(one.train)}, synthetic {percent(one.synthetic)}" for one in chosen]
    return Drawing(
        name=f"bigrams:{when}",
        title=title,
        plot=plot(
            [
                Series(kind="real", x=x, y=[max(one.holdout, low) for one in chosen], form="dots"),
                Series(
                    kind="synthetic", x=x, y=[max(one.synthetic, low) for one in chosen], form="dots", titles=titles
                ),
            ],
            x=log_axis("share of pairs in patients learned from", low=low),
            y=log_axis("share of pairs in the others", low=low),
            diagonal=True,
            width=420.0,
            height=380.0,
        ),
        label=f"{title}: share of each pair, synthetic and other real patients against those learned from",
        legend=_BOTH,
    )


def _trajectories(trajectories: Sequence[TrajectoryProfile]) -> list[Block]:
    if not trajectories:
        return []
    left_out = len(trajectories) - _MOST_TRAJECTORIES
    more = f" ({left_out} more are in report.json)" if left_out > 0 else ""
    shown = [drawn for one in trajectories[:_MOST_TRAJECTORIES] if (drawn := _trajectory(one)) is not None]
    return [Heading(text=f"Means over time{more}"), *shown]


def _trajectory(one: TrajectoryProfile) -> Drawing | None:
    """The means over the stretches of time; a stretch with too few patients breaks the line off."""
    sides = (("other", one.train), ("real", one.holdout), ("synthetic", one.synthetic))
    series, values = [], []
    for kind, means in sides:
        known = [(float(at), mean) for at, mean in enumerate(means) if mean is not None]
        values += [mean for _, mean in known]
        if known:
            xs, ys = [at for at, _ in known], [mean for _, mean in known]
            series += [Series(kind=kind, x=xs, y=ys), Series(kind=kind, x=xs, y=ys, form="dots")]
    if not values:
        return None
    ticks = tuple((float(at), label) for at, label in enumerate(one.labels) if len(one.labels) <= 6 or at % 2 == 0)
    name = f"{one.table}.{one.column}" + (f" ({one.code})" if one.code else "")
    said = "; ".join(
        f"{label}: {number(mine)} against {number(real)}"
        for label, mine, real in zip(one.labels, one.synthetic, one.train, strict=True)
    )
    return Drawing(
        name=f"trajectory:{name}",
        title=f"Mean of {name} over time",
        plot=plot(
            series,
            x=Axis(label="time since the start", low=0.0, high=float(max(1, len(one.labels) - 1)), ticks=ticks),
            y=linear_axis("mean", values),
            height=260.0,
        ),
        label=f"Mean of {name} over time, synthetic against learned from: {said}",
        legend=_THREE,
        caption=name,
    )


def _values(found: LongitudinalProfile) -> list[Block]:
    blocks: list[Block] = []
    if found.values:
        worst = sorted(found.values, key=lambda one: -(one.distance - one.reference))
        rows = tuple(
            (
                Cell(text=f"{one.table}.{one.column}" + (f" ({one.code})" if one.code else "")),
                Cell(text=number(one.distance)),
                Cell(text=number(one.reference)),
            )
            for one in worst
        )
        blocks += [
            Heading(text="Values of each code"),
            Table(
                label="Values of each code",
                caption="Largest difference between the two distribution functions (Kolmogorov-Smirnov)",
                head=("Value", "Synthetic", "Other real"),
                numbers=(False, True, True),
                rows=rows,
                folded=len(rows) > 15,
            ),
        ]
    if found.regularities:
        broken = tuple(
            (
                Cell(text=one.text),
                Cell(text=percent(one.synthetic)),
                Cell(text=percent(one.train)),
                Cell(text=percent(one.holdout)),
            )
            for one in found.regularities
        )
        blocks += [
            Heading(text="Order in time"),
            Table(
                label="Order in time that patients break",
                caption="Patients who break an order that hardly any patient learned from breaks",
                head=("Order", "Synthetic", "Learned from", "Other real"),
                numbers=(False, True, True, True),
                rows=broken,
            ),
        ]
    return blocks
