"""Figures of what studies, models and subgroups found: utility beyond trees, inference, fairness."""

from __future__ import annotations

import math
from collections.abc import Sequence

from synthehr.evaluation.findings import (
    CalibrationProfile,
    Coefficient,
    CoefficientProfile,
    GroupProfile,
    ImportanceProfile,
    OutcomeProfile,
    SurvivalProfile,
)
from synthehr.reporting.blocks import Block, Cell, Drawing, Forests, Heading, Table, Text
from synthehr.reporting.document import ReportDocument
from synthehr.reporting.figures import Axis, Series, forest, linear_axis, outcome_forest, plot
from synthehr.reporting.generic import undrawn
from synthehr.reporting.numbers import NONE, number, span

__all__ = ["fairness_blocks", "inference_blocks", "outcome_blocks", "utility_blocks"]

_THREE = (("other", "Patients learned from"), ("real", "Other real patients"), ("synthetic", "Synthetic patients"))
_TRAINED = (("real", "Trained on real patients"), ("synthetic", "Trained on synthetic patients"))
_MOST_ROWS = 60
_GROUP_METRICS = {
    "group_disparity": "Share of the group, as a ratio on a logarithmic scale",
    "group_fidelity": "Distance of the group's columns from those of the same real group",
    "group_utility": "Prediction of the outcome in the group",
}


def outcome_blocks(found: Sequence[OutcomeProfile], *, name: str, title: str) -> list[Block]:
    """Prediction of outcomes, trained on real and on synthetic patients."""
    several = len({one.learner for one in found}) > 1 or any(one.learner != "trees" for one in found)
    rows = tuple(
        (
            Cell(text=one.outcome, more=f"{one.score}, {one.learner}" if several else one.score),
            Cell(text=number(one.trained_on_synthetic), more=span(one.synthetic_ci)),
            Cell(text=number(one.trained_on_real), more=span(one.real_ci)),
            Cell(text=number(one.gap), more=span(one.gap_ci)),
        )
        for one in found
    )
    return [
        Forests(
            name=name,
            title=title,
            forest=outcome_forest(found, learners=several),
            label=f"{title}, trained on real and on synthetic patients; numbers in the table below",
            legend=_TRAINED,
        ),
        Table(
            label=title,
            head=("Outcome", "Trained on synthetic", "Trained on real", "Lost"),
            numbers=(False, True, True, True),
            rows=rows,
        ),
    ]


def utility_blocks(document: ReportDocument) -> list[Block]:
    """Other learners, calibration, importance."""
    found = document.sections.utility
    if found is None:
        return []
    blocks: list[Block] = []
    if found.learners:
        blocks += [
            Heading(text="Other learners"),
            *outcome_blocks(found.learners, name="learners", title="Other learners"),
        ]
    if found.calibration:
        told = "A chance of 30 % is right if the event comes to 30 patients in a hundred: on the dashed line."
        blocks += [Heading(text="Whether chances come true"), Text(text=told)]
        blocks += [_calibration(one) for one in found.calibration]
    if found.importance:
        blocks += [
            Heading(text="What the models rely on"),
            Text(text="How much worse a model gets when a column is shuffled."),
        ]
        blocks += [_importance(one) for one in found.importance]
    return blocks + undrawn(found, {"learners", "calibration", "importance"})


def _calibration(one: CalibrationProfile) -> Drawing:
    ticks = tuple((k / 4, f"{25 * k} %") for k in range(5))
    curves = (("real", one.trained_on_real), ("synthetic", one.trained_on_synthetic))
    return Drawing(
        name=f"calibration:{one.outcome}",
        title=f"Calibration for {one.outcome}",
        plot=plot(
            [
                Series(kind=kind, x=curve.predicted, y=curve.observed, form=form)
                for kind, curve in curves
                for form in ("line", "dots")
            ],
            x=Axis(label="predicted chance", low=0.0, high=1.0, ticks=ticks),
            y=Axis(label="share with the event", low=0.0, high=1.0, ticks=ticks),
            diagonal=True,
            width=380.0,
            height=350.0,
        ),
        label=f"Predicted chance of {one.outcome} beside the share of holdout patients to whom it came, by tenths",
        legend=_TRAINED,
        caption=one.outcome,
    )


def _importance(one: ImportanceProfile) -> Forests:
    ranked = sorted(range(len(one.columns)), key=lambda at: -one.train[at])[:_MOST_ROWS]
    kinds = (("other", one.train), ("real", one.holdout), ("synthetic", one.synthetic))
    rows = [(one.columns[at], [(kind, values[at], values[at], values[at]) for kind, values in kinds]) for at in ranked]
    axis = linear_axis("", [0.0, *one.train, *one.holdout, *one.synthetic])
    return Forests(
        name=f"importance:{one.outcome}",
        title=f"What predicts {one.outcome}",
        forest=forest(rows, axis=axis, rule=0.0),
        label=f"Importance of each column for {one.outcome}; "
        + "; ".join(
            f"{one.columns[at]} {number(one.train[at])}, synthetic {number(one.synthetic[at])}" for at in ranked[:8]
        ),
        legend=tuple((kind, f"Trained on {name.lower()}") for kind, name in _THREE),
        caption=f"Lost when the column is shuffled, for {one.outcome}",
    )


def inference_blocks(document: ReportDocument) -> list[Block]:
    """Coefficients of regressions and Kaplan-Meier curves."""
    found = document.sections.inference
    if found is None:
        return []
    blocks: list[Block] = []
    for one in found.regressions:
        blocks += _regression(one)
    if found.survival is not None:
        blocks += _survival(found.survival)
    return blocks + undrawn(found, {"regressions", "survival"})


def _regression(one: CoefficientProfile) -> list[Block]:
    known = [coefficient for coefficient in one.coefficients if _sides(coefficient)][:_MOST_ROWS]
    ends = [end for coefficient in known for _, *numbers in _sides(coefficient) for end in numbers]
    title = f"Coefficients for {one.outcome} ({one.model})"
    rows = tuple(
        (
            Cell(text=coefficient.name),
            *(
                Cell(text=NONE) if side is None else Cell(text=number(side[0]), more=span(side[1:]))
                for side in (coefficient.synthetic, coefficient.train, coefficient.holdout)
            ),
        )
        for coefficient in one.coefficients
    )
    drawn: list[Block] = []
    if known:
        drawn = [
            Forests(
                name=f"coefficients:{one.outcome}",
                title=title,
                forest=forest(
                    [(coefficient.name, _sides(coefficient)) for coefficient in known],
                    axis=linear_axis("", [0.0, *_without_extremes(ends)]),
                    rule=0.0,
                ),
                label=f"{title} in each cohort with 95 % intervals; numbers in the table below",
                legend=_THREE,
                caption="Per standard deviation of a number, or against the commonest category, with 95 % intervals; "
                "what reaches past an end of the axis is cut there.",
            )
        ]
    head = ("Coefficient", "Synthetic", "Learned from", "Other real")
    table = Table(label=title, head=head, numbers=(False, True, True, True), rows=rows, folded=len(rows) > 12)
    return [Heading(text=title), *drawn, table]


def _sides(coefficient: Coefficient) -> list[tuple[str, float, float, float]]:
    sides = (("other", coefficient.train), ("real", coefficient.holdout), ("synthetic", coefficient.synthetic))
    return [(kind, *side) for kind, side in sides if side is not None]


def _without_extremes(ends: Sequence[float]) -> list[float]:
    """The ends but those ten times further out than most, which would press all others together."""
    usual = sorted(abs(end) for end in ends)[int(0.8 * (len(ends) - 1))]
    return [end for end in ends if abs(end) <= 10.0 * max(usual, 1e-9)]


def _survival(one: SurvivalProfile) -> list[Block]:
    ticks = tuple((k / 4, f"{25 * k} %") for k in range(5))
    curves = (("other", one.train), ("real", one.holdout), ("synthetic", one.synthetic))
    means = ", ".join(
        f"{name.lower()} {number(curve.mean)}" for (_, name), (_, curve) in zip(_THREE, curves, strict=True)
    )
    return [
        Heading(text="Survival"),
        Drawing(
            name="survival",
            title="Kaplan-Meier curves",
            plot=plot(
                [Series(kind=kind, x=one.times, y=curve.share, form="steps") for kind, curve in curves],
                x=linear_axis(one.time, one.times, low=0.0),
                y=Axis(label=f"without {one.event}", low=0.0, high=1.0, ticks=ticks),
            ),
            label=f"Kaplan-Meier curves of the three cohorts; mean share of the time without the event: {means}",
            legend=_THREE,
            caption=f"Share of patients without the event “{one.event}” by {one.time}. Mean over the time: {means}.",
        ),
    ]


def fairness_blocks(document: ReportDocument) -> list[Block]:
    """A forest plot of every subgroup for each metric."""
    found = document.sections.fairness
    if found is None:
        return []
    blocks: list[Block] = []
    for metric, title in _GROUP_METRICS.items():
        groups = [group for group in found.groups if group.metric == metric]
        if groups:
            blocks += _group_plot(metric, title, groups)
    return blocks + undrawn(found, {"groups"})


def _group_plot(metric: str, title: str, groups: Sequence[GroupProfile]) -> list[Block]:
    score = metric == "group_utility"  # of which more is better; the others are distances
    shown = sorted(groups, key=lambda group: group.value if score else -abs(group.value))[:_MOST_ROWS]
    rows = [
        (
            f"{group.column}: {group.group}",
            [("real", group.reference, group.reference, group.reference), ("synthetic", group.value, *group.ci)],
        )
        for group in shown
    ]
    ends = [end for group in shown for end in (*group.ci, group.reference) if math.isfinite(end)]
    table = tuple(
        (
            Cell(text=group.group, more=group.column),
            Cell(text=number(group.value), more=span(group.ci)),
            Cell(text=number(group.reference)),
        )
        for group in shown
    )
    return [
        Heading(text=title),
        Forests(
            name=metric,
            title=title,
            forest=forest(rows, axis=linear_axis("", ends if score else [0.0, *ends]), rule=None if score else 0.0),
            label=f"{title}, by subgroup; numbers in the table below",
            legend=_TRAINED if score else _THREE[1:],
            caption="The interval is of the one subgroup, at 95 %; the check allows for looking at many.",
        ),
        Table(
            label=title,
            head=("Subgroup", "Trained on synthetic", "Trained on real")
            if score
            else ("Subgroup", "Synthetic", "Other real"),
            numbers=(False, True, True),
            rows=table,
            folded=len(table) > 12,
        ),
    ]
