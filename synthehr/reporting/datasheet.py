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
_MADE = {
    "[gap]": "the time from the row before",
    "[at]": "the time of a row, where it is known beforehand when a patient's last one is",
    "[offset]": "the time of a row, counted from the row above it",
    "[ends]": "whether the patient's rows run to the end of what is known of the patient",
}
_MADE_OF = {
    "[rows of ": "how many rows table {} has for it",
    "[first of ": "when its first row in table {} is",
    "[span of ": "the time from its first row in table {} to its last",
    "[after ": "the time from its last row in table {} to the end that a rule sets",
}
"""What the columns tell that stand for rows of other tables and for times."""


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
    outcomes = ", ".join(markdown_text(outcome.target) for outcome in manifest.outcomes)
    rows += [("Outcomes", f"{outcomes}: drawn given all other columns, by log-linear models")] if outcomes else []
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
        told = manifest.schema_["tables"][table]
        lines += [
            _column(name, spec, known.get(name), reviewed=reviewed, instead=_instead(name, told, known))
            for name, spec in declared.items()
        ]
        made = [record for record in records if record.name not in declared]
        lines.append("")
        if made:
            lines += ["Learned in their place or beside them, and part of no record:", ""]
            lines += ["| made for learning | what it tells | cells |", "|---|---|---|"]
            lines += [
                f"| {markdown_text(record.name)} | {markdown_text(_made(record.name, told))} | {len(record.counts)} |"
                for record in made
            ]
            lines.append("")
    return lines


def _instead(name: str, table: Mapping[str, Any], known: Mapping[str, ColumnRecord]) -> str | None:
    """What is learned in the place of a time of a table's rows, and what becomes of a key that cannot be made anew."""
    if table.get("parent") and table["columns"][name]["kind"] == "id":
        if name in (table.get("key"), table.get("foreign_key")):
            return None
        to = table["columns"][name].get("references")
        return "left empty" if to is None else f"learned as whether there is one; leads to the row of {to} at the time"
    difference = f"[{name} after {table.get('order_by')}]"
    if difference in known:
        return f"learned as the time from {table['order_by']}"
    if name == table.get("order_by") and table.get("parent"):
        return "learned as the time between rows, and that of the first or the last"
    return None


def _made(name: str, table: Mapping[str, Any]) -> str:
    """What a column tells that stands in no record."""
    if name in _MADE:
        return _MADE[name]
    for start, meaning in _MADE_OF.items():
        if name.startswith(start):
            return meaning.format(name.removeprefix(start).removesuffix("]"))
    if name.endswith(" known]"):
        return f"whether {name.removeprefix('[').removesuffix(' known]')} refers to a row"
    column, after, order = name.strip("[]").partition(" after ")
    if after and order == table.get("order_by"):
        return f"the time from {order} to {column}"
    return "what the model needs to put rows together"


def _column(
    name: str, spec: Mapping[str, Any], record: ColumnRecord | None, *, reviewed: bool, instead: str | None = None
) -> str:
    kind = str(spec["kind"])
    if record is None:
        treatment, cells, known = instead or _DROPPED.get(kind, "not learned by itself"), "", ""
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
    if manifest.tables:
        lines.append(
            "- Rows are made table by table, each from its patient and the rows above and before it: what rows of two "
            "tables have to do with each other is kept only as far as it shows in what stands above both."
        )
    keys = [f"{table}.{name}" for table, name in _empty_keys(manifest)]
    if keys:
        lines.append(f"- Keys to rows of other tables than the one above are empty: {markdown_text(', '.join(keys))}.")
    return ["## Known limits", "", *lines, ""]


def _empty_keys(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Columns of keys, in the tables that were learned, that are neither a row's own nor its parent's."""
    for table in manifest.tables:
        told = manifest.schema_["tables"][table]
        for name, spec in told["columns"].items():
            made = (told.get("key"), told.get("foreign_key"))
            if spec["kind"] == "id" and name not in made and spec.get("references") is None:
                yield table, name


def _uses(report: ReportDocument | None) -> list[str]:
    good: Sequence[str] = () if report is None else good_for(public_document(report))[0]
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
