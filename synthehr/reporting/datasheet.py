"""DATASHEET.md: what a release is, what it promises, and what it must not be used for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthehr.encoding.records import ColumnRecord
from synthehr.manifest import Manifest
from synthehr.privacy.accountant import EpsilonDelta, PoissonSampledGaussian
from synthehr.reporting.document import ReportDocument
from synthehr.reporting.escape import markdown_text
from synthehr.reporting.publish import public_document
from synthehr.reporting.words import SECTION_TITLES, good_for, verdict_sentence

__all__ = ["Statement", "render_datasheet"]

_DROPPED = {
    "identifier": "dropped before learning",
    "text": "dropped before learning",
    "id": "replaced by keys made anew",
    "consent": "read for consent, then dropped",
    "anchor": "dropped; times are kept relative to it",
}
_MOST_GROUPS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What only people know of a release.

    Attributes:
        population: who the patients are.
        period: when they were cared for.
        purpose: what the release is for.
        signed_off_by: who answers for it.
    """

    population: str | None = None
    period: str | None = None
    purpose: str | None = None
    signed_off_by: str | None = None


def render_datasheet(
    manifest: Manifest,
    *,
    statement: Statement | None = None,
    digest: str | None = None,
    report: ReportDocument | None = None,
) -> str:
    """The datasheet of a release, in Markdown.

    Args:
        manifest: of the release. Without more, the datasheet tells what it knows.
        statement: what only people know.
        digest: of the release.
        report: of its evaluation; told in the public form.
    """
    statement = statement or Statement()
    privacy = manifest.privacy
    stamp = [f"**NOT PRIVATE: {markdown_text(privacy.why_not or '')}. Not for release.**", ""]
    lines = [
        "# Datasheet of a synthetic-records release",
        "",
        *([] if privacy.private else stamp),
        "**Synthetic.** This release is a model. The records it makes belong to no patient.",
        "",
        *_what(manifest, statement, digest),
        *_promised(manifest),
        *_learned(manifest),
        *_groups(manifest),
        *_evaluated(report),
        *_limits(manifest),
        *_uses(report),
        "## Who signed off",
        "",
        _stated(statement.signed_off_by, "Nobody has signed this datasheet off."),
        "",
    ]
    return "\n".join(lines)


def _what(manifest: Manifest, statement: Statement, digest: str | None) -> list[str]:
    tables = _tables(manifest)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    rows = [
        ("Population", _stated(statement.population, "not stated")),
        ("Period", _stated(statement.period, "not stated")),
        ("Purpose", _stated(statement.purpose, "not stated")),
        ("Patients", f"about {manifest.patients_bought}, a count that was bought with noise"),
        ("Tables", ", ".join(markdown_text(name) for name, _ in tables)),
        ("Model", f"{manifest.model.name} ({markdown_text(manifest.model.chosen_because)})"),
        ("Made with", markdown_text(versions)),
    ]
    rows += [("Release digest", markdown_text(digest))] if digest else []
    return ["## What it is", "", "| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows), ""]


def _promised(manifest: Manifest) -> list[str]:
    privacy = manifest.privacy
    events = [
        f"| {markdown_text(event.stage)} | {event.type} | {event.count} | {_parameters(event)} |"
        for event in privacy.events
    ]
    return [
        "## What was promised to patients",
        "",
        f"({privacy.epsilon:g}, {privacy.delta:g})-differential privacy; unit: one {privacy.unit} with all of that "
        f"{privacy.unit}'s rows; neighbours: {privacy.neighbours}. The account below composes to epsilon "
        f"{privacy.epsilon_spent:.4f} at that delta. Policy: {markdown_text(privacy.policy)}. Noise: {privacy.noise}.",
        "",
        "| use | mechanism | times | parameters |",
        "|---|---|---|---|",
        *events,
        "",
    ]


def _learned(manifest: Manifest) -> list[str]:
    lines = ["## Columns", ""]
    for table, records in _tables(manifest):
        declared = manifest.schema_["tables"][table]["columns"]
        most = manifest.max_rows.get(table)
        lines += [f"Table {markdown_text(table)}{f', at most {most} rows of one patient' if most else ''}:", ""]
        lines += ["| column | kind | treatment | cells | known by |", "|---|---|---|---|---|"]
        known = {record.name: record for record in records}
        reviewed = bool(manifest.schema_.get("reviewed", True))
        lines += [_column(name, spec, known.get(name), reviewed=reviewed) for name, spec in declared.items()]
        lines.append("")
    return lines


def _column(name: str, spec: Mapping[str, Any], record: ColumnRecord | None, *, reviewed: bool) -> str:
    kind = str(spec["kind"])
    if record is None:
        treatment, cells, known = _DROPPED.get(kind, "not learned by itself"), "", ""
    else:
        treatment, cells = "; ".join(_treatment(spec, record)), str(len(record.counts))
        free = reviewed and (spec.get("bounds") or spec.get("values") or kind == "boolean")
        known = "declared in the schema" if free else "bought with budget"
    return "| " + " | ".join((markdown_text(name), kind, treatment, cells, known)) + " |"


def _treatment(spec: Mapping[str, Any], record: ColumnRecord) -> Iterator[str]:
    if record.values is not None:
        yield "learned as categories" + (", rare ones as OTHER" if record.other else "")
    else:
        yield "learned in bins, drawn inside them"
    if spec.get("unit"):
        yield f"unit {markdown_text(str(spec['unit']))}"
    if spec.get("precision"):
        yield f"in steps of {spec['precision']:g}"
    if record.per is not None:
        yield f"binned per {markdown_text(record.per.column)}"
    if record.nullable:
        yield "may be missing"


def _groups(manifest: Manifest) -> list[str]:
    """Sizes of the declared subgroups as they were bought, with the noise that is on them."""
    subject = manifest.schema_["subject"]
    named = manifest.schema_["tables"][subject].get("groups") or ()
    lines = []
    for record in manifest.domain:
        if record.name not in named or record.values is None or len(record.counts) > _MOST_GROUPS:
            continue
        labels = (*record.values, *(["OTHER"] if record.other else []), *(["missing"] if record.nullable else []))
        for label, count, variance in zip(labels, record.counts, record.variance, strict=False):
            about = f"{max(0.0, count):.0f} ± {1.96 * math.sqrt(max(0.0, variance)):.0f}"
            lines.append(f"| {markdown_text(record.name)} | {markdown_text(label)} | {about} |")
    if not lines:
        return ["## Sizes of subgroups", "", "The schema declares no subgroup.", ""]
    told = "As bought, with the noise that is on them (95 %). A group not much larger than its noise is not reliable."
    return ["## Sizes of subgroups", "", told, "", "| column | group | patients |", "|---|---|---|", *lines, ""]


def _evaluated(report: ReportDocument | None) -> list[str]:
    if report is None:
        return ["## How it was evaluated", "", "This datasheet holds no evaluation: see the report of the cohort.", ""]
    public = public_document(report)
    rows = []
    for section in dict.fromkeys(check.section for check in public.checks):
        verdicts = [check.counts_as for check in public.checks if check.section == section]
        told = ", ".join(f"{verdicts.count(one)} {one}" for one in ("pass", "inconclusive", "fail") if one in verdicts)
        rows.append(f"| {SECTION_TITLES.get(section, section)} | {told} |")
    return [
        "## How it was evaluated",
        "",
        f"**{public.verdict}.** {markdown_text(verdict_sentence(public))}",
        "",
        "| section | checks |",
        "|---|---|",
        *rows,
        "",
    ]


def _limits(manifest: Manifest) -> list[str]:
    lines = [
        "- Groups much smaller than the noise are not reliable, nor are relations of three columns or more that were "
        "not bought.",
        "- Standard errors and p-values taken from synthetic patients as if they were real are too small.",
        "- The promise is about taking part. It does not hide what is true of the population, and so of groups of "
        "patients, whoever took part.",
        "- Cohorts drawn with --where or --balance do not show the population's shares: PROVENANCE.json says whose.",
    ]
    lines += [
        f"- At most {most} rows of one patient in table {markdown_text(table)} were learned from; longer histories are "
        "cut."
        for table, most in manifest.max_rows.items()
    ]
    return ["## Known limits", "", *lines, ""]


def _uses(report: ReportDocument | None) -> list[str]:
    good: Sequence[str] = () if report is None else good_for(report)[0]
    also = [f"By its evaluation also: {markdown_text('; '.join(good))}.", ""] if good else []
    return [
        "## Meant for",
        "",
        "Exploring, teaching, developing and testing software and analyses before access to real records.",
        "",
        *also,
        "## Not meant for",
        "",
        "Decisions about a person; estimates published as if from real patients without checking them on real "
        "records; attempts to single out patients; passing the records off as real ones.",
        "",
    ]


def _tables(manifest: Manifest) -> list[tuple[str, Sequence[ColumnRecord]]]:
    subject = str(manifest.schema_["subject"])
    return [(subject, manifest.domain), *((name, record.domain) for name, record in manifest.tables.items())]


def _parameters(event: object) -> str:
    if isinstance(event, EpsilonDelta):
        return f"epsilon {event.epsilon:.4g}, delta {event.delta:.3g}"
    if isinstance(event, PoissonSampledGaussian):
        return f"rate {event.sampling_probability:.4g}, noise multiplier {event.noise_multiplier:.4g}"
    return f"noise multiplier {getattr(event, 'noise_multiplier', 0.0):.4g}"


def _stated(text: str | None, otherwise: str) -> str:
    return markdown_text(text) if text else otherwise
