"""``synthehr check``: what happens to each column of records on the way in, and why."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from synthehr.cli.options import PLACE, schema_option
from synthehr.cli.output import Console, shared_options

__all__ = ["command"]

_STOPPED = 3


@click.command("check")
@click.argument("source", type=PLACE)
@schema_option(required=False)
@click.option(
    "--policy", default="standard", show_default=True, help="Release profile: a name, or a YAML file. It may cap ages."
)
@shared_options
def command(*, source: Path | str, schema: Path | None, policy: str, console: Console) -> int:
    """Say what happens to each column of the records in SOURCE, and why.

    A column is kept (learned), dropped, made anew (keys) or asked (consent); its values are declared or bought from the
    budget, and may be changed on the way: dates to offsets or ages, ages capped. Nothing is told of any value.
    Exits 3 where a column is not declared, or declared and not there: such records are not read.
    """
    from synthehr.pipeline import check_columns

    told = check_columns(source, schema=schema, policy=policy)
    rows = [("column", "kind", "fate", "values", "changed", "why")]
    rows += [
        (f"{f.table}.{f.column}", f.kind or "-", f.fate, f.domain or "-", ", ".join(f.changed) or "-", f.why)
        for f in told
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    lines = [
        "  ".join((*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5])) for row in rows
    ]
    warnings = [f"look at {f.table}.{f.column}: {f.warning}" for f in told if f.warning is not None]
    stopped = [f for f in told if f.stops]
    kept = sum(f.fate == "kept" for f in told)
    end = f"{kept} of {len(told)} columns are learned"
    if stopped:
        end += f"; {len(stopped)} keep these records from being read"
    console.result("\n".join([*lines, *warnings, end]), {"readable": not stopped, "columns": [asdict(f) for f in told]})
    return _STOPPED if stopped else 0
