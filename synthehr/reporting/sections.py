"""The sections of the report: what each asks, and the tables and figures that answer."""

from __future__ import annotations

from collections.abc import Callable

from synthehr.evaluation.findings import ColumnProfile, DiscriminatorProfile, RocCurve
from synthehr.reporting.attacked import attack_blocks, audit_blocks
from synthehr.reporting.blocks import Block, Cards, Cell, Drawing, Forests, Heading, Heat, Section, Table, Text
from synthehr.reporting.document import BoughtProfile, ReportDocument
from synthehr.reporting.figures import Axis, Plot, Series, copies_forest, plot
from synthehr.reporting.generic import generic_blocks
from synthehr.reporting.heat import heat_map
from synthehr.reporting.histories import longitudinal_blocks
from synthehr.reporting.numbers import number, percent, points, scope_text, span
from synthehr.reporting.studies import fairness_blocks, inference_blocks, outcome_blocks, utility_blocks
from synthehr.reporting.words import LEADS, PUBLIC_LEADS, SECTION_TITLES, is_audit

__all__ = ["build_sections"]

_OPEN_CARDS = 12
_MOST_CARDS = 60

REAL = (("real", "Other real patients"), ("synthetic", "Synthetic patients"))


def build_sections(document: ReportDocument) -> tuple[Section, ...]:
    """The sections that have a check or a finding, in the order of the report."""
    made = []
    for name, title in SECTION_TITLES.items():
        checks = tuple(check for check in document.checks if check.section == name)
        if name != "audit" and is_audit(document):
            continue
        blocks = [block for build in _BLOCKS.get(name, ()) for block in build(document)]
        blocks += _rest(document, name)
        if checks or blocks:
            leads = LEADS | PUBLIC_LEADS if document.audience == "public" else LEADS
            lead = leads.get(name, "")
            made.append(Section(id=name, title=title, lead=lead, checks=checks, blocks=tuple(blocks)))
    return tuple(made)


def _asked(document: ReportDocument, metric: str) -> bool:
    return any(check.metric == metric for check in document.checks)


def _validity(document: ReportDocument) -> list[Block]:
    if document.audience == "public":
        return []
    broken = [one for one in document.sections.violations if one.synthetic > 0 or one.real > 0]
    if not broken:
        return [
            Text(text="No patient, synthetic or real, has a value that the schema forbids or breaks a declared rule.")
        ]
    return [
        Table(
            label="Columns and rules that someone breaks",
            caption="Columns and rules that someone breaks, in share of patients; the intervals stand with the checks",
            head=("Column or rule", "Synthetic", "Other real patients"),
            numbers=(False, True, True),
            rows=tuple(
                (Cell(text=one.name, more=one.what), Cell(text=percent(one.synthetic)), Cell(text=percent(one.real)))
                for one in broken
            ),
        )
    ]


def _columns(document: ReportDocument) -> list[Block]:
    cards: list[ColumnProfile] | list[BoughtProfile]
    if document.audience == "public":
        cards = sorted(document.bought, key=lambda column: -column.distance)
    else:
        cards = sorted(document.sections.columns, key=lambda column: -(column.distance - column.reference))
    if not cards:
        return []
    few = len(cards) <= _MOST_CARDS
    return [
        Heading(text="Distributions, column by column"),
        Cards(
            name="columns",
            open=tuple(cards[:_OPEN_CARDS]),
            folded=tuple(cards[_OPEN_CARDS:]) if few else (),
            rows=() if few else tuple(cards[_OPEN_CARDS:]),
            bought=document.audience == "public",
        ),
    ]


def _pairs(document: ReportDocument) -> list[Block]:
    profile = document.sections.pairs
    if profile is None or not profile.columns:
        return []
    rows = tuple(
        (
            Cell(text=scope_text((one.first, one.second))),
            Cell(text=number(one.distance), more="" if one.ci is None else span(one.ci)),
            Cell(text=number(one.reference)),
        )
        for one in profile.worst
    )
    drawn = heat_map(profile)
    unnamed = "" if drawn.labels else " Too many columns to name here: they stand in the order of the schema."
    if drawn.left_out:
        unnamed += f" Left out are {drawn.left_out} columns in no pair that is as far off."
    return [
        Heading(text="Relations, pair by pair"),
        Heat(
            name="pairs",
            title="Distance of every pair of columns",
            map=drawn,
            worst=Table(
                label="The pairs furthest off",
                caption="The pairs furthest off",
                head=("Pair", "Synthetic", "Other real"),
                numbers=(False, True, True),
                rows=rows,
            ),
            caption="Below the line: synthetic patients. Above it, mirrored: other real patients. If the two halves "
            "look alike, relations are kept as well as a sample allows. On the line: the column alone, synthetic."
            + unnamed,
        ),
    ]


def roc_plot(curve: RocCurve, reference: RocCurve, *, x: str, y: str) -> Plot:
    """Two ROC curves in a square."""
    ticks = tuple((k / 4, f"{k / 4:g}") for k in range(5))
    return plot(
        [
            Series(kind="real", x=reference.false_positive_rate, y=reference.true_positive_rate),
            Series(kind="synthetic", x=curve.false_positive_rate, y=curve.true_positive_rate),
        ],
        x=Axis(label=x, low=0.0, high=1.0, ticks=ticks),
        y=Axis(label=y, low=0.0, high=1.0, ticks=ticks),
        diagonal=True,
        width=380.0,
        height=350.0,
    )


def _discriminator(document: ReportDocument) -> list[Block]:
    found = document.sections.discriminator
    if found is None:
        if document.audience == "public":
            return []
        asked = _asked(document, "c2st_auc")
        told = "There were too few patients for a classifier." if asked else "The suite did not ask for a classifier."
        return [Heading(text="Telling synthetic from real"), Text(text=told)]
    return [Heading(text="Telling synthetic from real"), _discriminator_drawing(found), *_discriminator_words(found)]


def _discriminator_drawing(found: DiscriminatorProfile) -> Drawing:
    return Drawing(
        name="discriminator",
        title="Telling synthetic from real",
        plot=roc_plot(
            found.roc, found.reference_roc, x="real patients taken for synthetic", y="synthetic patients found out"
        ),
        label=f"ROC curve of a classifier that tells synthetic from real patients: area {number(found.auc)}; "
        f"other real patients {number(found.reference_auc)}",
        legend=REAL,
    )


def _discriminator_words(found: DiscriminatorProfile) -> list[Block]:
    return [
        Text(
            text="A classifier of boosted trees, shown real and synthetic patients in equal numbers, tells two it has "
            f"not seen apart with an area under the curve of {number(found.auc)} ({span(found.ci)}). An area of 0.5 "
            "is guessing, 1 is never wrong. The same classifier, asked to tell one group of real patients from "
            f"another, reaches {number(found.reference_auc)} ({span(found.reference_ci)})."
        ),
        Text(
            text="Trees see the width of bins and the last digit of numbers, so areas above 0.8 are common for "
            "private cohorts that serve well.",
            small=True,
        ),
    ]


def _utility(document: ReportDocument) -> list[Block]:
    found = document.sections.outcomes
    if not found:
        if document.audience == "public":
            return []
        asked = _asked(document, "tstr")
        told = "No outcome could be measured; the checks say why." if asked else "The suite did not ask for prediction."
        return [Text(text=told)]
    return outcome_blocks(found, name="outcomes", title="Prediction of each outcome")


_COPIES = {
    "verbatim_copies": "Synthetic patients equal to a real one, per equal number of real ones",
    "rare_copies": "Real patients with a unique record who reappear",
}


def _copies(document: ReportDocument) -> list[Block]:
    sections = document.sections
    if document.audience == "public":
        return []
    if sections.exchangeable is False:
        why = f"{sections.exchangeable_why} Without a control copying cannot be judged."
        return [Text(strong="The holdout is no control here.", text=why)]
    if not sections.copies:
        asked = sections.exchangeable is not None
        told = "Copying could not be measured; the checks say why." if asked else "The suite did not ask about copies."
        return [Text(text=told)]
    rows = tuple(
        (
            Cell(text=_COPIES[one.measure]),
            Cell(text=percent(one.train_share), more=f"{percent(one.train_ci[0])} to {percent(one.train_ci[1])}"),
            Cell(text=percent(one.holdout_share)),
            Cell(text=points(one.excess), more=f"{points(one.excess_ci[0])} to {points(one.excess_ci[1])}"),
        )
        for one in sections.copies
    )
    return [
        Text(
            text="No sign was found that holdout and training patients are anything but two parts of one random split."
        ),
        Heading(text="Verbatim copies"),
        Forests(
            name="copies",
            title="Verbatim copies",
            forest=copies_forest(sections.copies),
            label="Share of verbatim copies of patients learned from and held out; numbers in the table below",
            legend=(("real", "Held out"), ("synthetic", "Learned from")),
        ),
        Table(
            label="Verbatim copies",
            head=("Measure", "Learned from", "Held out", "Excess"),
            numbers=(False, True, True, True),
            rows=rows,
        ),
    ]


def _parameter(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _account(document: ReportDocument) -> list[Block]:
    events = document.privacy.events
    if not events:
        return []
    rows = tuple(
        (
            Cell(text=event.stage),
            Cell(text=event.type),
            Cell(text=str(event.count)),
            Cell(text=", ".join(f"{name} {_parameter(value)}" for name, value in (event.model_extra or {}).items())),
        )
        for event in events
    )
    return [
        Heading(text="The account behind epsilon"),
        Text(
            text="Every time the release's maker touched private rows, in the terms of differential privacy. Anyone "
            "can add them up again."
        ),
        Table(
            label="Privacy account",
            head=("Stage", "Mechanism", "Times", "Parameters"),
            numbers=(False, False, True, False),
            rows=rows,
            folded=len(rows) > 20,
        ),
    ]


_DRAWN = frozenset(
    {
        "sizes",
        "exchangeable",
        "exchangeable_why",
        "columns",
        "pairs",
        "discriminator",
        "outcomes",
        "copies",
        "violations",
        "utility",
        "inference",
        "fairness",
        "longitudinal",
        "attacks",
        "audit",
    }
)
"""Findings with words or a figure of their own. Every other one is shown as tables."""


def _home(field: str) -> str:
    """The section that a finding belongs to."""
    return field if field in SECTION_TITLES else "fidelity"


def _rest(document: ReportDocument, section: str) -> list[Block]:
    """Tables of the findings of a section that have no figure of their own."""
    blocks: list[Block] = []
    for field in type(document.sections).model_fields:
        found = getattr(document.sections, field)
        if field not in _DRAWN and _home(field) == section and found:
            blocks += generic_blocks(field, found)
    return blocks


_BLOCKS: dict[str, tuple[Callable[[ReportDocument], list[Block]], ...]] = {
    "validity": (_validity,),
    "fidelity": (_columns, _pairs, _discriminator),
    "longitudinal": (longitudinal_blocks,),
    "utility": (_utility, utility_blocks),
    "inference": (inference_blocks,),
    "fairness": (fairness_blocks,),
    "privacy": (_copies, attack_blocks, _account),
    "audit": (audit_blocks,),
}
