"""Records from one form into another, by connectors alone: nothing is learned, and nothing is protected."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from synthehr.connectors.fhir.badlines import write_quarantine
from synthehr.connectors.fhir.reading import FhirOptions, FhirRecords, open_fhir
from synthehr.connectors.fhir.sources import is_fhir
from synthehr.connectors.fhir.write import FHIR_FORMATS
from synthehr.connectors.files import FORMATS, write_tables
from synthehr.connectors.folders import check_new, new_folder, withhold
from synthehr.connectors.records import SchemaSource, read
from synthehr.errors import ConfigError
from synthehr.schema.conform import conform
from synthehr.schema.files import load_schema

__all__ = ["convert"]

AUDIT, QUARANTINE = "AUDIT.json", "quarantine.csv"


def convert(
    source: str | Path,
    *,
    out: str | Path,
    format: str = "parquet",
    schema: SchemaSource | None = None,
    fhir: FhirOptions | None = None,
    seed: int | None = None,
) -> tuple[str, ...]:
    """Write the records of a source as one file a table into the new folder ``out``, for its owner alone.

    FHIR without a schema keeps every column that its views make, and is written without being held. ``AUDIT.json``
    counts what was left out; ``quarantine.csv``, where asked for, lists where it stood.

    Args:
        source: see :func:`synthehr.connectors.records.read`.
        out: the new folder.
        format: ``parquet`` or ``csv``, or FHIR (``fhir-ndjson``, ``fhir-bundle``; see ``fhir/write_conversion.py``).
        schema: what the tables must follow; all forms but FHIR need it.
        fhir: how FHIR is read.
        seed: of the ids and the calendar of FHIR that is written.

    Returns:
        names of the tables, or of the types of resources.

    Raises:
        ConfigError: ``out`` exists or cannot be written, or ``format`` is not known.
        DataError: the records cannot be read or do not follow the schema.
    """
    if format not in (*FORMATS, *FHIR_FORMATS):
        raise ConfigError(f"format must be one of {', '.join((*FORMATS, *FHIR_FORMATS))}, not {format!r}")
    check_new(out)
    with new_folder(out, private=True) as folder:
        if format in FHIR_FORMATS:
            from synthehr.connectors.fhir.write_conversion import convert_to_fhir  # loads torch

            names = convert_to_fhir(
                source, folder, format=format, schema=schema, options=fhir or FhirOptions(), seed=seed
            )
        elif is_fhir(source):
            names = _from_fhir(source, folder, format=format, schema=schema, options=fhir or FhirOptions())
        else:
            cohort = read(source, schema=schema)
            write_tables(cohort, folder, format=format)
            names = tuple(cohort.tables)
        withhold(folder)
    return names


def _from_fhir(
    source: str | Path, folder: Path, *, format: str, schema: SchemaSource | None, options: FhirOptions
) -> tuple[str, ...]:
    with open_fhir(source, options=options) as records:
        if options.on_bad.mode == "quarantine":
            write_quarantine(folder / QUARANTINE, records.bad, files=records.files)
        records.write_audit(folder / AUDIT)
        if schema is None:
            _sink(records, folder, format=format)
            return tuple(records.tables)
        declared = load_schema(schema)
        for name, frame in records.frames(declared).items():
            _write(conform(frame, schema=declared, table=name).lazy(), folder / f"{name}.{format}", format=format)
        return tuple(declared.tables)


def _sink(records: FhirRecords, folder: Path, *, format: str) -> None:
    for name, table in records.tables.items():
        _write(table, folder / f"{name}.{format}", format=format)


def _write(table: pl.LazyFrame, path: Path, *, format: str) -> None:
    if format == "parquet":
        table.sink_parquet(path, compression="zstd")
    else:
        table.sink_csv(path)
