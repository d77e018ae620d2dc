"""What may leave the custodian: the public form of a report, and the question whether a cohort may be published.

A report is computed on real records and is not differentially private. Its numbers cannot be made safe by rounding:
one patient more changes the draws of every interval and the trees of every classifier, and what lies near an edge falls
to its other side. The public form therefore holds no number that real records gave: verdicts beside public bounds,
and shares that the release bought under its promise. What is left is the verdicts. Each is a threshold, and a check
that stands at its bound can fall to either side by one patient or by the draws of the evaluation. Their seed is not
told, so that who knows all other records cannot repeat them with and without somebody and compare; noise that hid a
patient for certain would be as wide as the bounds of most checks, and hide failures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from synthehr.errors import NotFitToPublishError
from synthehr.evaluation.demands import DEMANDS
from synthehr.evaluation.findings import Sections, Sizes
from synthehr.reporting.document import WITHHELD, CheckEntry, ReportDocument, load_document

if TYPE_CHECKING:
    from synthehr.reporting.report import Report

__all__ = ["assert_fit_to_publish", "public_document"]

STAMP = "For the public: verdicts, and shares bought under the promise. No number computed on real records."

_PUBLIC_PROVENANCE = ("suite", "release_digest", "versions", "model", "synthetic_seed")
_DECLARED = frozenset({"validity", "fidelity", "utility", "inference", "fairness"})
"""Sections whose scopes are names from the schema. Those of other sections may be values, and are left out."""


def assert_fit_to_publish(report: Report | ReportDocument | str | Path) -> None:
    """Raise unless the report shows that its cohort may be published. Made for a test: it raises an AssertionError.

    Args:
        report: a report, its document, or the path of a report folder or ``report.json``.

    Raises:
        NotFitToPublishError: the verdict is not ``pass``, the release promises its patients nothing, or an audit
            showed more than it promises. Lists the checks that stand in the way, without numbers.
        DataError: the path holds no report.
    """
    if isinstance(report, str | Path):
        document = load_document(report)
    else:
        document = report if isinstance(report, ReportDocument) else report.document
    reasons = [f"{check.id}: {check.counts_as}" for check in document.checks if check.counts_as != "pass"]
    privacy = document.privacy
    if not privacy.claimed or privacy.epsilon is None:
        reasons.append("nothing is promised to patients: evaluate with the release that the cohort was drawn from")
    elif (privacy.audited_epsilon_lower_bound or 0.0) > privacy.epsilon:
        reasons.append("an audit showed more than the epsilon that was promised")
    if reasons:
        raise NotFitToPublishError(
            f"the cohort is not fit to publish by suite {document.suite!r}: {'; '.join(reasons)}"
        )


def public_document(document: ReportDocument) -> ReportDocument:
    """The public form of a report; that of a public form is the same."""
    if document.audience == "public":
        return document
    privacy = document.privacy
    bound = privacy.audited_epsilon_lower_bound
    not_private = "The synthetic cohort is NOT PRIVATE. " if "NOT PRIVATE" in document.stamp else ""
    return ReportDocument(
        audience="public",
        stamp=not_private + STAMP,
        verdict=document.verdict,
        suite=document.suite,
        seed=None,
        privacy=privacy.model_copy(
            update={"audited_epsilon_lower_bound": None if bound is None else int(10 * bound) / 10}
        ),
        checks=tuple(_public_check(check, at) for at, check in enumerate(document.checks)),
        sections=Sections(sizes=Sizes(train=0, holdout=0, synthetic=document.sections.sizes.synthetic)),
        bought=document.bought,
        provenance={key: document.provenance[key] for key in _PUBLIC_PROVENANCE if key in document.provenance},
    )


def _public_check(check: CheckEntry, at: int) -> CheckEntry:
    """The verdict without its numbers; ids and scopes that may quote a value are left out.

    Nor is it told whether an undecided check could be measured: where it could not, there were too few patients.
    """
    named = check.scope == "all" or check.section in _DECLARED
    return check.model_copy(
        update={
            "id": check.id if named else f"{check.id.split('[')[0]}[{at + 1}]",
            "scope": check.scope if named else "withheld",
            "value": None,
            "ci": None,
            "reference": None,
            "excess": None,
            "excess_ci": None,
            "why": check.why if check.metric in DEMANDS else WITHHELD,
        }
    )
