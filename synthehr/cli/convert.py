"""``synthehr convert``: records from one form into another, by connectors alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synthehr.cli.options import (
    FHIR_FORMATS,
    FORMATS,
    MEDS,
    OMOP_FORMATS,
    PLACE,
    STORE,
    opt_out_option,
    out_option,
    reading_options,
    schema_option,
)
from synthehr.cli.output import Console, shared_options

if TYPE_CHECKING:
    from synthehr.connectors.fhir.reading import FhirOptions

__all__ = ["command"]


@click.command("convert")
@click.argument("source", type=PLACE)
@click.option(
    "--format",
    type=click.Choice((*FORMATS, STORE, MEDS, *OMOP_FORMATS, *FHIR_FORMATS)),
    default="parquet",
    show_default=True,
    help="Of the tables; or store, what a fit reads, checked once and mapped into memory; or OMOP CDM 5.4 (Parquet, "
    "CSV), MEDS or FHIR R4, labelled synthetic where SOURCE is a folder of synthetic tables, else as real.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Of the ids and the calendar of FHIR or MEDS that is written.")
@schema_option(required=False)
@opt_out_option
@reading_options
@out_option("The folder of tables, readable by you alone; or a database, for OMOP with omop+ before it.", type=PLACE)
@shared_options
def command(
    *,
    source: Path | str,
    format: str,
    seed: int | None,
    schema: Path | None,
    opt_out: Path | None,
    fhir: FhirOptions,
    out: Path | str,
    console: Console,
) -> int:
    """Read the records in SOURCE and write them as tables, one file each.

    SOURCE is FHIR (a bundle, NDJSON, a folder of them, or fhir+https://server/base), MEDS (meds:FOLDER) or OMOP
    (omop:FOLDER, omop+duckdb:///FILE, omop+postgresql://…), which need no --schema, or tables in files or in a
    database (duckdb:///FILE, postgresql://…), which do. ?schema= behind the URI of a database names its schema,
    ?table.NAME= and ?query.NAME= what gives table NAME; passwords come from PGPASSWORD, PGPASSFILE or a service file.

    With --schema, the tables follow it; FHIR without it keeps all columns of the views. OUT holds real records: it is
    readable by you alone, and so is OUT/AUDIT.json, which counts what was left out and why.
    """
    from synthehr.connectors.conversion import convert
    from synthehr.connectors.sql.address import shown

    tables = convert(
        source,
        out=out,
        format=format,
        seed=seed,
        schema=schema,
        opt_out=opt_out,
        fhir=fhir,
    )
    kind = "resources" if format.startswith("fhir-") else "tables"
    console.result(f"{kind} in {shown(out)}: {', '.join(tables)}", {"out": shown(out), "tables": list(tables)})
    return 0
