"""Records in any form into a database, as tables or as OMOP, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.connectors.fhir.reading import FhirOptions
from synthehr.connectors.omop.conversion import convert_to_omop
from synthehr.connectors.omop.sources import is_omop, place_of
from synthehr.connectors.optout import Admission
from synthehr.connectors.records import SchemaSource, read, schema_of
from synthehr.connectors.sql.address import is_sql
from synthehr.connectors.sql.tables import write_frames
from synthehr.errors import ConfigError

__all__ = ["convert_to_database", "is_database"]


def is_database(out: str | Path) -> bool:
    """Whether an output is the URI of a database, for tables (``postgresql://…``) or OMOP (``omop+postgresql://…``)."""
    return is_sql(out) or (is_omop(out) and is_sql(place_of(out)))


def convert_to_database(
    source: str | Path,
    *,
    out: str | Path,
    schema: SchemaSource | None,
    fhir: FhirOptions,
    on_bad: BadRowPolicy,
    opt_out: str | Path | None = None,
    seed: int | None = None,
    provenance: bytes | None = None,
) -> tuple[str, ...]:
    """Write the records of a source into a database: a new DuckDB file, or new tables in one PostgreSQL transaction.

    Args:
        source: see :func:`synthehr.connectors.records.read`.
        out: the URI of the database.
        schema: what the tables must follow; FHIR, MEDS and OMOP need none.
        fhir: how FHIR is read.
        on_bad: what a row that breaks the schema does; a database has no place for a quarantine.
        opt_out: file of the keys of patients who are left out.
        seed: of the calendar of OMOP.
        provenance: what lies beside synthetic tables; without it the records are taken for real.

    Returns:
        names of the tables.

    Raises:
        ConfigError: the database cannot be written, a table is there, or bad rows are to be put aside.
        DataError: the records cannot be read or do not follow the schema.
    """
    if on_bad.mode == "quarantine":
        raise ConfigError("a database has no folder for a quarantine: use --on-bad-row drop, or convert to files first")
    declared = schema_of(source, schema, fhir=fhir)
    cohort = read(
        source,
        schema=declared,
        lenient=provenance is not None,
        fhir=fhir,
        admission=Admission.by(opt_out, schema=declared),
        on_bad=on_bad,
    )
    if is_omop(out):
        return convert_to_omop(cohort, place_of(out), source=source, seed=seed, synthetic=provenance is not None)
    write_frames(cohort.tables, out, schema=cohort.schema)
    return tuple(cohort.tables)
