"""Records from one form into another, by connectors alone: nothing is learned, and nothing is protected."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import ValidationError

from synthehr.cohort import Cohort
from synthehr.connectors.badrows import QUARANTINE, LeftOut
from synthehr.connectors.database_conversion import convert_to_database, is_database
from synthehr.connectors.fhir.badlines import BadRowPolicy, write_quarantine
from synthehr.connectors.fhir.reading import FhirOptions, FhirRecords, open_fhir
from synthehr.connectors.fhir.sources import is_fhir
from synthehr.connectors.fhir.write import FHIR_FORMATS
from synthehr.connectors.files import FORMATS, write_tables
from synthehr.connectors.folders import check_new, new_folder, withhold
from synthehr.connectors.forms import is_plain
from synthehr.connectors.meds.layout import MEDS
from synthehr.connectors.meds.source import is_meds, root_of
from synthehr.connectors.omop.conversion import convert_to_omop, write_vocabulary
from synthehr.connectors.omop.sources import is_omop, place_of
from synthehr.connectors.omop.targets import OMOP_FORMATS
from synthehr.connectors.omop.writing import UsedConcepts
from synthehr.connectors.optout import Admission
from synthehr.connectors.records import SchemaSource, read, schema_of
from synthehr.connectors.sql.address import is_sql
from synthehr.connectors.store import STORE, StoreWriter, in_text, is_store
from synthehr.connectors.streaming import can_stream, stream_tables
from synthehr.errors import ConfigError, DataError
from synthehr.randomness import fresh_seed
from synthehr.schema.conform import conform
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

__all__ = ["convert", "write_audit"]

AUDIT, PROVENANCE = "AUDIT.json", "PROVENANCE.json"


def convert(
    source: str | Path,
    *,
    out: str | Path,
    format: str = "parquet",
    schema: SchemaSource | None = None,
    fhir: FhirOptions | None = None,
    on_bad: BadRowPolicy | None = None,
    opt_out: str | Path | None = None,
    seed: int | None = None,
) -> tuple[str, ...]:
    """Write the records of a source as one file a table into the new folder ``out``, for its owner alone.

    FHIR without a schema keeps every column that its views make, and is written without being held; so are tables in
    files whose rows can each be read alone. ``AUDIT.json`` counts what was read and left out; ``quarantine.csv``, where
    asked for, lists where it stood, and of tables the folder ``quarantine`` has the rows.

    Args:
        source: see :func:`synthehr.connectors.records.read`.
        out: the new folder; or the URI of a database: see :func:`convert_to_database`.
        format: of tables (``parquet``, ``csv``, ``tsv``, ``arrow``); ``store`` (see ``store.py``);
            ``meds``; ``omop`` (Parquet) or ``omop-csv``; or FHIR (``fhir-ndjson``, ``fhir-bundle``; see
            ``fhir/write_conversion.py``).
        schema: what the tables must follow; all forms but FHIR and MEDS need it.
        fhir: how FHIR is read.
        on_bad: what a row of tables that breaks the schema does; that of ``fhir`` where left out.
        opt_out: file of the keys of patients who are left out; ``AUDIT.json`` counts them. Not for FHIR as output.
        seed: of the ids and the calendar of FHIR, and of the calendar of MEDS, that is written.

    Returns:
        names of the tables, or of the types of resources.

    Raises:
        ConfigError: ``out`` exists or cannot be written, or ``format`` is not known.
        DataError: the records cannot be read or do not follow the schema.
    """
    known = (*FORMATS, STORE, MEDS, *OMOP_FORMATS, *FHIR_FORMATS)
    if format not in known:
        raise ConfigError(f"format must be one of {', '.join(known)}, not {format!r}")
    if opt_out is not None and format in FHIR_FORMATS:
        raise ConfigError("--opt-out leaves patients out of tables: convert to tables with it, and those to FHIR")
    options = fhir or FhirOptions()
    if is_database(out):
        return convert_to_database(
            source,
            out=out,
            schema=schema,
            fhir=options,
            on_bad=options.on_bad if on_bad is None else on_bad,
            opt_out=opt_out,
            seed=seed,
            provenance=_beside(source),
        )
    check_new(out)
    with new_folder(out, private=True) as folder:
        if format in FHIR_FORMATS:
            from synthehr.connectors.fhir.write_conversion import convert_to_fhir  # loads torch

            names = convert_to_fhir(source, folder, format=format, schema=schema, options=options, seed=seed)
        elif is_fhir(source):
            if format in (MEDS, *OMOP_FORMATS) or (format == STORE and schema is None):
                why = "give --schema" if format == STORE else "its tables are others than those of schemas/"
                raise ConfigError(f"FHIR is not written as {format}: {why}")
            names = _from_fhir(source, folder, format=format, schema=schema, options=options, opt_out=opt_out)
        else:
            policy = options.on_bad if on_bad is None else on_bad
            names = _from_tables(
                source, folder, format=format, schema=schema, on_bad=policy, opt_out=opt_out, seed=seed
            )
        withhold(folder)
    return names


def _from_tables(
    source: str | Path,
    folder: Path,
    *,
    format: str,
    schema: SchemaSource | None,
    on_bad: BadRowPolicy,
    opt_out: str | Path | None,
    seed: int | None,
) -> tuple[str, ...]:
    """Tables, MEDS or a database; of synthetic tables the provenance goes along."""
    declared = schema_of(source, schema)
    admission = Admission.by(opt_out, schema=declared)
    told = _beside(source)
    audit: dict[str, Any] = {"private": "counts of real records: for their custodian alone"}
    if (
        opt_out is None
        and on_bad.mode == "fail"
        and format in (*FORMATS, STORE)
        and (is_plain(source) or is_sql(source) or is_omop(source))
        and can_stream(declared)
    ):
        concepts = UsedConcepts() if is_omop(source) else None
        rows = stream_tables(
            source,
            folder,
            schema=declared,
            format=format,
            lenient=told is not None,
            on_part=None if concepts is None else concepts.add,
        )
        if concepts is not None and format in FORMATS:
            write_vocabulary(source, concepts, folder, schema=declared, format=format)
        audit["rows"] = {name: {"rows read": n} for name, n in rows.items()}
    else:
        aside: list[LeftOut] = []
        cohort = read(
            source,
            schema=declared,
            lenient=told is not None,
            admission=admission,
            on_bad=on_bad,
            on_left_out=aside.append,
            notes=audit,
        )
        cohort = in_text(cohort) if is_store(source) else cohort
        if admission.left_out:
            audit["opted out"] = admission.left_out
        rows = {name: frame.height for name, frame in cohort.tables.items()}
        audit["rows"] = aside[0].counts() if aside else {name: {"rows read": n} for name, n in rows.items()}
        if aside and on_bad.mode == "quarantine":
            _check_room(declared)
            aside[0].write(folder)
        if format == STORE:
            StoreWriter(folder, schema=cohort.schema, lenient=told is not None).write(cohort)
        elif format in OMOP_FORMATS:
            convert_to_omop(
                cohort, folder, source=source, format=format, seed=seed, synthetic=told is not None, audit=audit
            )
        else:
            _write_cohort(cohort, folder, format=format, seed=seed, told=told)
        if is_omop(source) and format in FORMATS:
            write_vocabulary(source, UsedConcepts.of(cohort), folder, schema=cohort.schema, format=format)
    if told is not None:
        (folder / PROVENANCE).write_bytes(told)
    write_audit(folder / AUDIT, audit)
    return tuple(declared.tables)


def _write_cohort(cohort: Cohort[Schema], folder: Path, *, format: str, seed: int | None, told: bytes | None) -> None:
    if format != MEDS:
        write_tables(cohort, folder, format=format)
        return
    from synthehr.connectors.meds.writing import write_meds

    digest = None
    if told is not None:
        from synthehr.manifest import Provenance  # loads torch

        try:
            digest = Provenance.model_validate_json(told).release_digest
        except ValidationError:
            raise DataError(f"{PROVENANCE} beside the tables is damaged: sample again, or remove it") from None
    drawn = fresh_seed() if seed is None else seed
    write_meds(cohort, folder, seed=drawn, synthetic=told is not None, release_digest=digest)


def _beside(source: str | Path) -> bytes | None:
    """The provenance that lies beside synthetic tables; None where there is none."""
    place = place_of(source) if is_omop(source) else root_of(source) if is_meds(source) else source
    if is_sql(place):
        return None
    path = Path(place) / PROVENANCE
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise DataError(f"{PROVENANCE} beside the tables cannot be read: {error.strerror}") from None


def _check_room(schema: Schema) -> None:
    if QUARANTINE in schema.tables:
        raise ConfigError(f"table {QUARANTINE!r} has the name of the list of rows put aside: use --on-bad-row drop")


def _from_fhir(
    source: str | Path,
    folder: Path,
    *,
    format: str,
    schema: SchemaSource | None,
    options: FhirOptions,
    opt_out: str | Path | None,
) -> tuple[str, ...]:
    with open_fhir(source, options=options) as records:
        declared = records.schema if schema is None else load_schema(schema)
        admission = Admission.by(opt_out, schema=declared)
        if options.on_bad.mode == "quarantine":
            write_quarantine(folder / f"{QUARANTINE}.csv", records.bad, files=records.files)
        if schema is None:
            tables = {name: admission.admit_lazily(t, name, schema=declared) for name, t in records.tables.items()}
            _sink(tables, folder, format=format)
            _audit_of_fhir(records, folder / AUDIT, admission)
            return tuple(records.tables)
        frames = admission.admit(records.frames(declared), schema=declared)
        _audit_of_fhir(records, folder / AUDIT, admission)
        conformed = {name: conform(frame, schema=declared, table=name) for name, frame in frames.items()}
        if format == STORE:
            StoreWriter(folder, schema=declared).write(Cohort(conformed, schema=declared))
        else:
            _sink({name: frame.lazy() for name, frame in conformed.items()}, folder, format=format)
        return tuple(declared.tables)


def _audit_of_fhir(records: FhirRecords, path: Path, admission: Admission) -> None:
    told = {"opted out": admission.left_out} if admission.left_out else {}
    write_audit(path, {**records.audit, **told})


def write_audit(path: Path, audit: dict[str, Any]) -> None:
    """Write an audit as JSON that its owner alone can read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump(audit, out, indent=2, ensure_ascii=False)
        out.write("\n")


def _sink(tables: Mapping[str, pl.LazyFrame], folder: Path, *, format: str) -> None:
    for name, table in tables.items():
        _write(table, folder / f"{name}.{format}", format=format)


def _write(table: pl.LazyFrame, path: Path, *, format: str) -> None:
    if format == "parquet":
        table.sink_parquet(path, compression="zstd")
    elif format == "arrow":
        table.sink_ipc(path, compression="zstd")
    else:
        table.sink_csv(path, separator="\t" if format == "tsv" else ",")
