"""DATASHEET.md: what a release is, what it promises, and what it must not be used for."""

from __future__ import annotations

from synthehr.encoding.records import ColumnRecord
from synthehr.manifest import Manifest
from synthehr.privacy.accountant import EpsilonDelta, PoissonSampledGaussian

__all__ = ["render_datasheet"]


def render_datasheet(manifest: Manifest) -> str:
    """The datasheet of a release, in Markdown, from its manifest alone."""
    privacy = manifest.privacy
    stamp = [] if privacy.private else ["", f"**NOT PRIVATE: {privacy.why_not}. Not for release.**"]
    schema = manifest.schema_
    rows = "\n".join(_column_row(record, schema) for record in manifest.domain)
    events = "\n".join(f"| {_cell(e.stage)} | {e.type} | {e.count} | {_parameters(e)} |" for e in privacy.events)
    dropped = [
        name
        for name, column in schema["tables"][schema["subject"]]["columns"].items()
        if column["kind"] in {"identifier", "text", "id"}
    ]
    return "\n".join(
        [
            "# Datasheet of a synthetic-records release",
            *stamp,
            "",
            "**Synthetic.** This folder holds a model. The records it makes belong to no patient.",
            "",
            "## What was promised to patients",
            "",
            f"({privacy.epsilon:g}, {privacy.delta:g})-differential privacy; unit: one {privacy.unit} with all of",
            f"that {privacy.unit}'s rows; neighbours: {privacy.neighbours}. The account below composes to epsilon",
            f"{privacy.epsilon_spent:.4f} at that delta. Policy: {_cell(privacy.policy)}.",
            "",
            "| use | mechanism | times | parameters |",
            "|---|---|---|---|",
            events,
            "",
            "## The population",
            "",
            f"About {manifest.patients_bought} patients, a count that was bought with noise.",
            "",
            "## The model",
            "",
            f"{manifest.model.name} ({_cell(manifest.model.chosen_because)}).",
            "",
            "## Columns",
            "",
            "| column | kind | cells | known by |",
            "|---|---|---|---|",
            rows,
            "",
            f"Dropped before learning: {', '.join(_cell(name) for name in dropped) or 'none'}. Keys are made anew.",
            "",
            "## Meant for",
            "",
            "Exploring, teaching, developing and testing software and analyses before access to real records.",
            "",
            "## Not meant for",
            "",
            "Decisions about a person; estimates published as if from real patients without checking them on real",
            "records; attempts to single out patients. Groups much smaller than the noise are not reliable. Cohorts",
            "drawn with --where or --balance do not show the population's shares: PROVENANCE.json says whose.",
            "",
        ]
    )


def _column_row(record: ColumnRecord, schema: dict[str, object]) -> str:
    tables = schema["tables"]
    assert isinstance(tables, dict), "checked when the schema was read"
    declared = tables[schema["subject"]]["columns"][record.name]
    bought = "bounds" not in declared and "values" not in declared and declared["kind"] != "boolean"
    known = "bought with budget" if bought else "declared in the schema"
    if record.per is not None:
        known += f"; binned per {_cell(record.per.column)}"
    return f"| {_cell(record.name)} | {declared['kind']} | {len(record.counts)} | {known} |"


def _parameters(event: object) -> str:
    if isinstance(event, EpsilonDelta):
        return f"epsilon {event.epsilon:.4g}, delta {event.delta:.3g}"
    if isinstance(event, PoissonSampledGaussian):
        return f"rate {event.sampling_probability:.4g}, noise multiplier {event.noise_multiplier:.4g}"
    return f"noise multiplier {getattr(event, 'noise_multiplier', 0.0):.4g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
