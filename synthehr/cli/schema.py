"""``synthehr schema``: work with schema files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from synthehr.cli.options import schema_option
from synthehr.cli.output import Console, shared_options

__all__ = ["command"]

_BROKEN = 3


@click.group("schema")
def command() -> None:
    """Check records against a schema."""


@command.command("check")
@click.argument("source", type=click.Path(path_type=Path))
@schema_option(required=False)
@shared_options
def check(*, source: Path, schema: Path | None, console: Console) -> int:
    """Try every rule of the schema on the records in SOURCE.

    SOURCE is a CSV, TSV or Parquet file, a folder with one file for each table, or FHIR (which needs no --schema):
    a bundle, NDJSON, a folder of them, or fhir+https://server/base. All broken rules are
    listed; no value and no count of records is. Exits 3 where a rule is broken.
    """
    from synthehr.pipeline import check_schema

    found = check_schema(source, schema=schema)
    broken = [expectation for expectation in found if not expectation.met]
    rows = [(".".join(filter(None, (e.table, e.column))), e.rule, "met" if e.met else "NOT MET") for e in found]
    widths = [max(len(row[at]) for row in rows) for at in range(2)]
    lines = [f"{where:<{widths[0]}}  {rule:<{widths[1]}}  {verdict}" for where, rule, verdict in rows]
    lines.append(f"{len(found) - len(broken)} of {len(found)} rules are met")
    console.result("\n".join(lines), {"met": not broken, "rules": [asdict(e) for e in found]})
    return _BROKEN if broken else 0
