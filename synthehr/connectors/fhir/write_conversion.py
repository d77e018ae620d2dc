"""Records in any form into FHIR: labelled synthetic where their provenance says so, never else."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from synthehr.cohort import Cohort
from synthehr.connectors.base import conform_tables
from synthehr.connectors.fhir.badlines import write_quarantine
from synthehr.connectors.fhir.reading import FhirOptions, open_fhir
from synthehr.connectors.fhir.sources import is_fhir
from synthehr.connectors.fhir.write import Written, write_resources
from synthehr.connectors.records import SchemaSource, read
from synthehr.errors import DataError
from synthehr.manifest import Provenance
from synthehr.randomness import fresh_seed
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

__all__ = ["convert_to_fhir", "write_synthetic"]

PROVENANCE = "PROVENANCE.json"


def convert_to_fhir(
    source: str | Path,
    folder: Path,
    *,
    format: str,
    schema: SchemaSource | None,
    options: FhirOptions,
    seed: int | None = None,
) -> tuple[str, ...]:
    """Write the records of a source as FHIR into an existing folder.

    A folder of tables with a ``PROVENANCE.json`` holds synthetic records: they are labelled so, with its digest,
    epsilon and delta. All else is taken for real, and labelled so; a conversion can never make it synthetic.

    Args:
        source: see :func:`synthehr.connectors.records.read`.
        folder: where to.
        format: ``fhir-ndjson`` or ``fhir-bundle``.
        schema: what the tables must follow; FHIR needs none.
        options: how FHIR is read.
        seed: of ids and calendar. Without it that of the provenance, or a fresh one.

    Returns:
        types of the resources that were written.
    """
    told = None if is_fhir(source) else _provenance(Path(source))
    if is_fhir(source):
        cohort = _of_fhir(source, folder, schema=schema, options=options)
    else:
        cohort = read(source, schema=schema, lenient=told is not None)
    if told is None:
        written = write_resources(
            cohort, folder, format=format, seed=fresh_seed() if seed is None else seed, synthetic=False
        )
    else:
        written = write_synthetic(cohort, folder, format=format, provenance=told, seed=seed)
    return tuple(written.resources)


def write_synthetic(
    cohort: Cohort[Schema], folder: Path, *, format: str, provenance: Provenance, seed: int | None = None
) -> Written:
    """Write a synthetic cohort as labelled FHIR into an existing folder.

    Args:
        cohort: tables of the default FHIR schema, or some of them.
        folder: where to.
        format: ``fhir-ndjson`` or ``fhir-bundle``.
        provenance: what the Provenance resources tell: digest, epsilon, delta, whether it is private.
        seed: of ids and calendar; the provenance's where left out.
    """
    return write_resources(
        cohort,
        folder,
        format=format,
        seed=provenance.seed if seed is None else seed,
        synthetic=True,
        release_digest=provenance.release_digest,
        epsilon=provenance.epsilon,
        delta=provenance.delta,
        private=provenance.private,
    )


def _of_fhir(source: str | Path, folder: Path, *, schema: SchemaSource | None, options: FhirOptions) -> Cohort[Schema]:
    """The tables of a FHIR source, held in memory; the audit is written beside what will be written of them."""
    with open_fhir(source, options=options) as records:
        if options.on_bad.mode == "quarantine":
            write_quarantine(folder / "quarantine.csv", records.bad, files=records.files)
        records.write_audit(folder / "AUDIT.json")
        if schema is not None:
            declared = load_schema(schema)
            return conform_tables(records.frames(declared), schema=declared)
        tables = {name: table.collect(engine="streaming") for name, table in records.tables.items()}
        return Cohort(tables, schema=records.schema)


def _provenance(source: Path) -> Provenance | None:
    """What stands beside synthetic tables; None where nothing does.

    Raises:
        DataError: it cannot be read, so that nobody can tell what the tables are.
    """
    path = source / PROVENANCE
    if not path.is_file():
        return None
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise DataError(f"{PROVENANCE} beside the tables is damaged: sample again, or remove it") from None
