"""Figures of attacks on the cohort and of the audit of epsilon."""

from __future__ import annotations

from synthehr.evaluation.findings_privacy import AuditProfile, PrivacyProfile
from synthehr.reporting.blocks import Block, Cell, Drawing, Forests, Heading, Table, Text
from synthehr.reporting.document import ReportDocument
from synthehr.reporting.figures import Series, forest, linear_axis, log_axis, plot
from synthehr.reporting.generic import undrawn
from synthehr.reporting.numbers import number, percent, span

__all__ = ["attack_blocks", "audit_blocks"]

_ATTACKS = (("synthetic", "Attack"),)
_DRAWN = frozenset({"membership", "membership_roc", "smallest_false_positive_rate", "nearer_to_train"})
_AUDIT_DRAWN = frozenset({"confidence", "lower_bound", "ceiling", "claimed", "delta", "experiments", "says"})


def attack_blocks(document: ReportDocument) -> list[Block]:
    """Membership attacks: a forest plot of their areas and the ROC curve of the best on logarithmic axes."""
    found = document.sections.attacks
    if found is None:
        return []
    blocks: list[Block] = []
    if found.membership:
        blocks += _membership(found)
    roc = found.membership_roc
    if roc is not None and len(roc.false_positive_rate) > 1:
        blocks.append(_roc(found))
    if found.nearer_to_train is not None:
        told = (
            f"{percent(found.nearer_to_train)} of synthetic patients are nearer to a patient learned from than to one "
            "of as many held out; half would be chance. Only a hint: ten records copied word for word among a thousand "
            "leave it at 51 %."
        )
        blocks.append(Text(strong="Distance to the nearest record.", text=told, small=True))
    return blocks + undrawn(found, _DRAWN)


def _membership(found: PrivacyProfile) -> list[Block]:
    rows = [(one.attack, [("synthetic", one.auc, *one.auc_ci)]) for one in found.membership]
    ends = [end for one in found.membership for end in one.auc_ci]
    table = tuple(
        (Cell(text=one.attack), Cell(text=number(one.auc), more=span(one.auc_ci)), Cell(text="0.500"))
        for one in found.membership
    )
    return [
        Heading(text="Who was learned from?"),
        Text(
            text="Each attack scores real patients by how likely they were learned from, and is right by chance half "
            "of the time: an area of 0.5 is guessing, 1 is certainty."
        ),
        Forests(
            name="membership",
            title="Membership attacks",
            forest=forest(rows, axis=linear_axis("", [0.45, 0.55, *ends]), rule=0.5),
            label="Area under the curve of each membership attack; numbers in the table below",
            legend=_ATTACKS,
            caption="Area under the ROC curve with its 95 % interval; the line is guessing.",
        ),
        Table(label="Membership attacks", head=("Attack", "Area", "Guessing"), numbers=(False, True, True), rows=table),
    ]


def _roc(found: PrivacyProfile) -> Drawing:
    roc = found.membership_roc
    assert roc is not None, "asked before"
    known = [(x, y) for x, y in zip(roc.false_positive_rate, roc.true_positive_rate, strict=True) if x > 0]
    low = min((x for x, _ in known), default=1e-3)
    resolved = found.smallest_false_positive_rate
    cannot = f" So few patients tell nothing of rates below {resolved:g}." if resolved is not None else ""
    return Drawing(
        name="membership_roc",
        title="Membership attack, on logarithmic axes",
        plot=plot(
            [Series(kind="synthetic", x=[x for x, _ in known], y=[max(y, low) for _, y in known])],
            x=log_axis("held-out patients taken for learned from", low=low),
            y=log_axis("patients learned from, found out", low=low),
            diagonal=True,
            width=400.0,
            height=360.0,
        ),
        label="ROC curve of the combined membership attack on logarithmic axes; the dashed line is guessing",
        legend=_ATTACKS,
        caption=f"The lower left is where a few patients are found out with certainty.{cannot}",
    )


def audit_blocks(document: ReportDocument) -> list[Block]:
    """What each experiment certified, beside what was claimed and what it could have certified."""
    found = document.sections.audit
    if found is None:
        return []
    told = (
        f"An attack on the mechanism itself certifies that epsilon is at least {number(found.lower_bound)}; "
        f"{number(found.claimed)} was claimed at delta {found.delta:g}. Had every guess been right, it could have "
        f"certified {number(found.ceiling)} (confidence {percent(found.confidence)})."
    )
    blocks: list[Block] = [Text(text=told), *(Text(text=line, small=True) for line in found.says)]
    blocks += _experiments(found) if found.experiments else []
    return blocks + undrawn(found, _AUDIT_DRAWN)


def _experiments(found: AuditProfile) -> list[Block]:
    rows = [
        (
            f"{one.mechanism}, {one.experiment}",
            [("synthetic", one.lower_bound, 0.0, one.lower_bound), ("real", one.claimed, one.claimed, one.claimed)],
        )
        for one in found.experiments
    ]
    ends = [end for one in found.experiments for end in (one.lower_bound, one.claimed)]
    table = tuple(
        (
            Cell(text=one.experiment, more=one.mechanism),
            Cell(text=number(one.lower_bound)),
            Cell(text=number(one.claimed)),
            Cell(text=number(one.ceiling)),
            Cell(text=f"{one.right} of {one.guesses}"),
        )
        for one in found.experiments
    )
    return [
        Forests(
            name="audit",
            title="Audit of epsilon",
            forest=forest(rows, axis=linear_axis("", [0.0, *ends]), rule=None),
            label="Certified and claimed epsilon of each experiment; numbers in the table below",
            legend=(("synthetic", "Certified at least"), ("real", "Claimed")),
        ),
        Table(
            label="Experiments",
            head=("Experiment", "Certified", "Claimed", "Could certify", "Guesses right"),
            numbers=(False, True, True, True, True),
            rows=table,
        ),
    ]
