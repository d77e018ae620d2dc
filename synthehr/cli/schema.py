"""``synthehr schema``: draft a schema, check records against one, and hand it to other tools."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from synthehr.cli.options import PLACE, opt_out_option, reading_options, schema_option
from synthehr.cli.output import Console, shared_options

if TYPE_CHECKING:
    from synthehr.connectors.fhir.reading import FhirOptions

__all__ = ["command"]

_BROKEN = 3


@click.group("schema")
def command() -> None:
    """Draft a schema, check records against it, hand it to other tools."""


@command.command("draft")
@click.argument("source", type=PLACE)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="The new schema.yaml; stdout where left out.")
@click.option(
    "--least",
    type=click.IntRange(min=1),
    default=11,
    show_default=True,
    help="Patients who must hold a value before the draft names it.",
)
@shared_options
def draft(*, source: Path | str, out: Path | None, least: int, console: Console) -> int:
    """Guess the schema of the records in SOURCE, for a person to review.

    SOURCE is a file of a table, a folder of them, or a database; or JSON of SDV's metadata or of Great Expectations.
    The draft tells of the records: it is yours alone (mode 0600) until you have reviewed it and set reviewed: true.
    Until then fit takes nothing that was read off the records for public, and buys it from the budget.
    """
    from synthehr.connectors.folders import new_private_file
    from synthehr.pipeline import draft_schema
    from synthehr.schema.files import dump_schema, editor_schema

    made = draft_schema(source, least=least)
    text = made.text(editor_schema=editor_schema())
    tables = {name: len(table.columns) for name, table in made.schema.tables.items()}
    document = {"schema": dump_schema(made.schema), "reasons": made.reasons, "notes": made.notes}
    if out is None:
        console.result(text.rstrip(), document)
        return 0
    new_private_file(out, text)
    words = ", ".join(f"{name} ({count} columns)" for name, count in tables.items())
    console.result(f"draft {out}: {words}; review it, then set reviewed: true", {**document, "out": str(out)})
    return 0


@command.command("check")
@click.argument("source", type=PLACE)
@schema_option(required=False)
@opt_out_option
@reading_options
@shared_options
def check(*, source: Path | str, schema: Path | None, opt_out: Path | None, fhir: FhirOptions, console: Console) -> int:
    """Try every rule of the schema on the records in SOURCE.

    SOURCE is a CSV, TSV or Parquet file, a folder with one file for each table, or FHIR (which needs no --schema):
    a bundle, NDJSON, a folder of them, or fhir+https://server/base. All broken rules are
    listed; no value and no count of records is. Exits 3 where a rule is broken.
    """
    from synthehr.pipeline import check_schema

    found = check_schema(source, schema=schema, opt_out=opt_out, fhir=fhir)
    broken = [expectation for expectation in found if not expectation.met]
    rows = [(".".join(filter(None, (e.table, e.column))), e.rule, "met" if e.met else "NOT MET") for e in found]
    widths = [max(len(row[at]) for row in rows) for at in range(2)]
    lines = [f"{where:<{widths[0]}}  {rule:<{widths[1]}}  {verdict}" for where, rule, verdict in rows]
    lines.append(f"{len(found) - len(broken)} of {len(found)} rules are met")
    console.result("\n".join(lines), {"met": not broken, "rules": [asdict(e) for e in found]})
    return _BROKEN if broken else 0


@command.command("export")
@schema_option(required=True)
@click.option("--to", type=click.Choice(("gx", "sdv")), required=True, help="Great Expectations, or SDV's metadata.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The new folder (gx) or file (sdv).")
@shared_options
def export(*, schema: Path, to: str, out: Path, console: Console) -> int:
    """Write a schema in the form of another tool; `schema draft` reads it back.

    gx: a folder with one suite for each table. sdv: one JSON file.
    """
    import json

    from synthehr.connectors.folders import new_folder, new_private_file
    from synthehr.schema.expectations import suites_of
    from synthehr.schema.files import load_schema
    from synthehr.schema.sdv import entries_for, load_metadata

    declared = load_schema(schema)
    if to == "sdv":
        metadata = {**entries_for(declared), "METADATA_SPEC_VERSION": "V1"}
        metadata = load_metadata(metadata).to_dict()  # refused here where SDV refuses it
        new_private_file(out, json.dumps(metadata, indent=2, ensure_ascii=False) + "\n")
        written = [out.name]
    else:
        suites = suites_of(declared)
        with new_folder(out, private=True) as folder:
            for name, suite in suites.items():
                (folder / f"{name}.json").write_text(json.dumps(suite, indent=2, ensure_ascii=False) + "\n", "utf-8")
        written = [f"{name}.json" for name in suites]
    console.result(f"{to} in {out}: {', '.join(written)}", {"out": str(out), "files": written})
    return 0
