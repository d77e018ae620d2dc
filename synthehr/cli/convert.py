"""``synthehr convert``: records from one form into another, by connectors alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synthehr.cli.options import FORMATS, out_option, schema_option
from synthehr.cli.output import Console, shared_options

if TYPE_CHECKING:
    from synthehr.connectors.fhir.badlines import OnBadRow
    from synthehr.connectors.fhir.consent import ConsentMode

__all__ = ["command"]


@click.command("convert")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--format",
    type=click.Choice((*FORMATS, "fhir-ndjson", "fhir-bundle")),
    default="parquet",
    show_default=True,
    help="Of the tables; or FHIR R4, labelled synthetic where SOURCE is a folder of synthetic tables, else as real.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Of the ids and the calendar of FHIR that is written.")
@schema_option(required=False)
@click.option(
    "--on-bad-row",
    type=click.Choice(("fail", "drop", "quarantine")),
    default="fail",
    show_default=True,
    help="FHIR: what a record that cannot be read does. quarantine lists where they stand in OUT/quarantine.csv.",
)
@click.option(
    "--max-bad-share",
    type=float,
    default=0.01,
    show_default=True,
    help="FHIR: share of bad records above which drop and quarantine stop.",
)
@click.option(
    "--consent",
    type=click.Choice(("ignore", "exclude-opt-out", "require-opt-in")),
    default="exclude-opt-out",
    show_default=True,
    help="FHIR: whose records are left out by their Consent resources.",
)
@click.option(
    "--privacy-opt-out/--no-privacy-opt-out",
    default=True,
    show_default=True,
    help="FHIR: does a refusal of general scope (patient-privacy) count as one of research?",
)
@click.option("--views", type=click.Path(path_type=Path), help="FHIR: folder of your own ViewDefinitions.")
@click.option("--processes", type=click.IntRange(min=1), help="FHIR: processes that read; default: one a core.")
@out_option("The folder of tables, readable by you alone.")
@shared_options
def command(
    *,
    source: Path,
    format: str,
    seed: int | None,
    schema: Path | None,
    on_bad_row: OnBadRow,
    max_bad_share: float,
    consent: ConsentMode,
    privacy_opt_out: bool,
    views: Path | None,
    processes: int | None,
    out: Path,
    console: Console,
) -> int:
    """Read the records in SOURCE and write them as tables, one file each.

    SOURCE is FHIR (a bundle, NDJSON, a folder of them, or fhir+https://server/base), which needs no --schema, or
    tables as in the other commands, which do. With --schema, the tables follow it; FHIR without it keeps all columns
    of the views. OUT holds real records: it is readable by you alone, and so is OUT/AUDIT.json, which counts what was
    left out and why.
    """
    from synthehr.connectors.conversion import convert
    from synthehr.connectors.fhir.badlines import BadRowPolicy
    from synthehr.connectors.fhir.consent import ConsentPolicy
    from synthehr.connectors.fhir.reading import FhirOptions

    tables = convert(
        source,
        out=out,
        format=format,
        seed=seed,
        schema=schema,
        fhir=FhirOptions(
            on_bad=BadRowPolicy(mode=on_bad_row, most=max_bad_share),
            consent=ConsentPolicy(mode=consent, privacy_opt_out=privacy_opt_out),
            views=views,
            processes=processes,
        ),
    )
    kind = "resources" if format.startswith("fhir-") else "tables"
    console.result(f"{kind} in {out}: {', '.join(tables)}", {"out": str(out), "tables": list(tables)})
    return 0
