"""Read records in whatever form they come: files, folders, or tables in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.base import conform_tables
from synthehr.connectors.base import read as read_with
from synthehr.connectors.fhir.sources import is_fhir
from synthehr.connectors.files import TableFiles
from synthehr.errors import ConfigError
from synthehr.schema.files import load_schema
from synthehr.schema.model import DroppedColumn, Schema

if TYPE_CHECKING:
    import pandas as pd

    from synthehr.connectors.fhir.reading import FhirOptions

__all__ = ["Records", "SchemaSource", "read", "read_raw", "schema_of"]

Tables: TypeAlias = "Mapping[str, pl.DataFrame | pd.DataFrame]"
Records: TypeAlias = "str | Path | pl.DataFrame | pd.DataFrame | Tables"
SchemaSource: TypeAlias = str | Path | dict[str, Any] | Schema


def read(
    source: Records, *, schema: SchemaSource | None = None, lenient: bool = False, fhir: FhirOptions | None = None
) -> Cohort[Schema]:
    """Read records and check every cell against the schema.

    Args:
        source: a CSV, TSV or Parquet file (the root table), a folder with one file for each table, a
            DataFrame (the root table), or DataFrames by table; or FHIR: a bundle, NDJSON, a folder of them, or
            ``fhir+https://server/base``.
        schema: path of a ``schema.yaml``, its contents, or a Schema. FHIR needs none: its own is the default.
        lenient: for synthetic records: values out of bounds, undeclared categories and missing values
            stand, for the evaluation to count.
        fhir: how FHIR is read: consent, bad records, views, processes.

    Raises:
        SchemaError: the schema breaks a rule of the schema language.
        DataError: the records are missing, unreadable or break the schema.
        ConfigError: ``source`` is nothing that holds records.
    """
    if isinstance(source, str | Path) and is_fhir(source):
        declared = schema_of(source, schema, fhir=fhir)
        return conform_tables(read_raw(source, schema=declared, fhir=fhir), schema=declared, lenient=lenient)
    declared = schema_of(source, schema)
    if isinstance(source, str | Path):
        return read_with(TableFiles(), source, schema=declared, lenient=lenient)
    frames = source if isinstance(source, Mapping) else {declared.subject: source}
    tables = {name: _kept(_polars(frame), declared, table=name) for name, frame in frames.items()}
    return conform_tables(tables, schema=declared, lenient=lenient)


def read_raw(source: str | Path, *, schema: Schema, fhir: FhirOptions | None = None) -> dict[str, pl.DataFrame]:
    """The tables of a source as they stand, by the schema's names, without identifier and text columns.

    Raises:
        DataError: the records cannot be read as tables at all.
    """
    if not is_fhir(source):
        return TableFiles().tables(source, schema=schema)
    from synthehr.connectors.fhir.reading import open_fhir

    with open_fhir(source, options=fhir) as records:
        return records.frames(schema)


def schema_of(source: Records, schema: SchemaSource | None, *, fhir: FhirOptions | None = None) -> Schema:
    """The schema that holds for a source: the one given, or the default of its form.

    Raises:
        ConfigError: none is given, and the source's form has no default.
    """
    if schema is not None:
        return load_schema(schema)
    if not isinstance(source, str | Path) or not is_fhir(source):
        raise ConfigError("nothing says what the columns mean: give --schema; FHIR alone needs none")
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
