"""Read records in whatever form they come: files, folders, or tables in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.base import conform_tables
from synthehr.connectors.base import read as read_with
from synthehr.connectors.files import TableFiles
from synthehr.errors import ConfigError
from synthehr.schema.files import load_schema
from synthehr.schema.model import DroppedColumn, Schema

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Records", "SchemaSource", "read"]

Tables: TypeAlias = "Mapping[str, pl.DataFrame | pd.DataFrame]"
Records: TypeAlias = "str | Path | pl.DataFrame | pd.DataFrame | Tables"
SchemaSource: TypeAlias = str | Path | dict[str, Any] | Schema


def read(source: Records, *, schema: SchemaSource, lenient: bool = False) -> Cohort[Schema]:
    """Read records and check every cell against the schema.

    Args:
        source: a CSV, TSV or Parquet file (the root table), a folder with one file for each table, a
            DataFrame (the root table), or DataFrames by table.
        schema: path of a ``schema.yaml``, its contents, or a Schema.
        lenient: for synthetic records: values out of bounds, undeclared categories and missing values
            stand, for the evaluation to count.

    Raises:
        SchemaError: the schema breaks a rule of the schema language.
        DataError: the records are missing, unreadable or break the schema.
        ConfigError: ``source`` is nothing that holds records.
    """
    declared = load_schema(schema)
    if isinstance(source, str | Path):
        return read_with(TableFiles(), source, schema=declared, lenient=lenient)
    frames = source if isinstance(source, Mapping) else {declared.subject: source}
    tables = {name: _kept(_polars(frame), declared, table=name) for name, frame in frames.items()}
    return conform_tables(tables, schema=declared, lenient=lenient)


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
