"""Read records in whatever form they come: files, folders, or tables in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.badrows import LeftOut, OnLeftOut
from synthehr.connectors.base import conform_tables
from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.connectors.fhir.sources import is_fhir
from synthehr.connectors.forms import connector_of, default_schema_of, is_plain
from synthehr.connectors.gathering import by_table
from synthehr.connectors.optout import Admission
from synthehr.connectors.store import is_store, read_store
from synthehr.errors import ConfigError, DataError
from synthehr.schema.files import load_schema
from synthehr.schema.model import DroppedColumn, Schema
from synthehr.schema.review import for_release, public_part

if TYPE_CHECKING:
    import pandas as pd

    from synthehr.connectors.fhir.reading import FhirOptions

__all__ = ["Records", "SchemaSource", "read", "read_raw", "schema_of"]

_NOWHERE = "the list of quarantine needs a private folder: give fit --split-out, or use convert"

Tables: TypeAlias = "Mapping[str, pl.DataFrame | pd.DataFrame]"
Records: TypeAlias = "str | Path | pl.DataFrame | pd.DataFrame | Tables"
SchemaSource: TypeAlias = str | Path | dict[str, Any] | Schema


def read(
    source: Records,
    *,
    schema: SchemaSource | None = None,
    lenient: bool = False,
    fhir: FhirOptions | None = None,
    opt_out: str | Path | None = None,
    admission: Admission | None = None,
    on_bad: BadRowPolicy | None = None,
    on_left_out: OnLeftOut | None = None,
    notes: dict[str, Any] | None = None,
) -> Cohort[Schema]:
    """Read records and check every cell against the schema.

    Args:
        source: a CSV, TSV or Parquet file (the root table), a folder with one file for each table, a
            DataFrame (the root table), or DataFrames by table; or FHIR: a bundle, NDJSON, a folder of them, or
            ``fhir+https://server/base``; or MEDS, ``meds:folder``; or a database
            (``duckdb:///file``, ``postgresql://…``); or OMOP (``omop:folder``, ``omop+duckdb:///file``, …).
        schema: path of a ``schema.yaml``, its contents, or a Schema. FHIR, OMOP and MEDS need none.
        lenient: for synthetic records: values out of bounds, undeclared categories and missing values
            stand, for the evaluation to count.
        fhir: how FHIR is read: consent, bad records, views, processes.
        opt_out: file of the keys of patients who opted out: see :func:`synthehr.connectors.optout.read_opt_out`.
        admission: the same as it was read, which counts who was left out; before ``opt_out``.
        on_bad: what a row that breaks the schema does: see :func:`synthehr.connectors.badrows.sift`.
        on_left_out: called with the rows that were left out, where ``on_bad`` leaves rows out.
        notes: takes what the connector tells of how it read the source, for the custodian alone.

    Raises:
        SchemaError: the schema breaks a rule of the schema language.
        DataError: the records are missing, unreadable or break the schema.
        ConfigError: ``source`` is nothing that holds records.
    """
    if isinstance(source, str | Path) and is_fhir(source):
        declared = schema_of(source, schema, fhir=fhir)
        admission = admission or Admission.by(opt_out, schema=declared)
        tables = read_raw(source, schema=declared, fhir=fhir)
        return conform_tables(tables, schema=declared, lenient=lenient, admission=admission)
    declared = schema_of(source, schema)
    admission = admission or Admission.by(opt_out, schema=declared)
    if isinstance(source, str | Path) and is_store(source):
        held = _of_store(source, declared, admission=admission)
        if held is not None:
            return held
    policy = on_bad if on_bad is not None or fhir is None else fhir.on_bad
    notice = on_left_out or (None if fhir is None else _notice(fhir))
    misshapen: dict[str, dict[int, str]] | None = {} if policy is not None and policy.mode != "fail" else None
    if isinstance(source, str | Path):
        tables = connector_of(source, misshapen=misshapen, notes=notes).tables(source, schema=declared)
    else:
        given = source if isinstance(source, Mapping) else {declared.source_of(declared.subject): source}
        frames = by_table({name: _polars(frame) for name, frame in given.items()}, schema=declared)
        tables = {name: _kept(frame, declared, table=name) for name, frame in frames.items()}
    return conform_tables(
        tables,
        schema=declared,
        lenient=lenient,
        admission=admission,
        on_bad=policy,
        on_left_out=notice,
        misshapen=misshapen,
    )


def _of_store(source: str | Path, declared: Schema, *, admission: Admission) -> Cohort[Schema] | None:
    """The cohort in a store, if it was checked against this schema but for a cap on ages; None if it must be again."""
    if admission.opted_out:
        raise ConfigError("a store has no keys of patients: leave patients out when it is made (convert --opt-out)")
    held = for_release(read_store(source), cap_age=declared.cap_age)
    return held if held.schema == declared else None


def _notice(fhir: FhirOptions) -> OnLeftOut | None:
    """Writes what is left out of tables into the folder for notes, where there is one."""
    folder = fhir.notes
    if folder is None and fhir.on_bad.mode == "quarantine":
        raise ConfigError(_NOWHERE)
    if folder is None:
        return None

    def write(left_out: LeftOut) -> None:
        left_out.write_audit(folder / "ROWS_AUDIT.json")
        if fhir.on_bad.mode == "quarantine":
            left_out.write(folder)

    return write


def read_raw(source: str | Path, *, schema: Schema, fhir: FhirOptions | None = None) -> dict[str, pl.DataFrame]:
    """The tables of a source as they stand, by the schema's names, without identifier and text columns.

    Raises:
        DataError: the records cannot be read as tables at all.
        ConfigError: FHIR's bad records are to be listed, and there is no folder for the list.
    """
    if not is_fhir(source):
        return connector_of(source).tables(source, schema=schema)
    from synthehr.connectors.fhir.reading import open_fhir

    listed = fhir is not None and fhir.on_bad.mode == "quarantine"
    if listed and (fhir is None or fhir.notes is None):
        raise ConfigError(_NOWHERE)
    with open_fhir(source, options=fhir) as records:
        if fhir is not None and fhir.notes is not None:
            records.write_notes(fhir.notes, quarantine=listed)
        return records.frames(schema)


def schema_of(source: Records, schema: SchemaSource | None, *, fhir: FhirOptions | None = None) -> Schema:
    """The schema that holds for a source: the one given, or the default of its form; of a draft its public part.

    Raises:
        ConfigError: none is given, and the source's form has no default.
        DataError: none is given, and there is no such file or folder, or nothing in it.
    """
    if schema is not None:
        return public_part(load_schema(schema))
    default = default_schema_of(source) if isinstance(source, str | Path) else None
    if default is not None:
        return default
    if isinstance(source, str | Path) and is_plain(source) and not is_fhir(source) and not Path(source).exists():
        raise DataError(f"{str(source)!r} does not exist: give records, as files, FHIR, OMOP, MEDS or a database")
    if (
        isinstance(source, str | Path)
        and is_plain(source)
        and Path(source).is_dir()
        and not any(Path(source).iterdir())
    ):
        raise DataError(f"{str(source)!r} is empty: give a folder that holds records")
    if not isinstance(source, str | Path) or not is_fhir(source):
        raise ConfigError("nothing says what the columns mean: give --schema; FHIR, OMOP and MEDS alone need none")
    from synthehr.connectors.fhir.schema_default import default_schema
    from synthehr.connectors.fhir.viewset import load_views

    return default_schema(load_views(fhir.views) if fhir is not None else None)


def _polars(frame: pl.DataFrame | pd.DataFrame) -> pl.DataFrame:
    if isinstance(frame, pl.DataFrame):
        return frame
    if not (hasattr(frame, "columns") and hasattr(frame, "index")):
        raise ConfigError(f"records must be a path, a DataFrame or DataFrames by table, not {type(frame).__name__}")
    return pl.from_pandas(frame)


def _kept(frame: pl.DataFrame, schema: Schema, *, table: str) -> pl.DataFrame:
    """A table without the columns that are declared as identifiers or text."""
    declared = schema.tables[table].columns if table in schema.tables else {}
    return frame.drop([name for name in frame.columns if isinstance(declared.get(name), DroppedColumn)])
