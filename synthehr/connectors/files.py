"""Tables in files: CSV and TSV (plain or gzipped), Parquet, Arrow and Feather, one file a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.columnar import read_batches, read_columnar
from synthehr.connectors.delimited import delimited_batches, read_delimited
from synthehr.connectors.folders import new_folder
from synthehr.connectors.gathering import has_own_tables
from synthehr.connectors.writing import FORMATS, TableWriter, write_tables
from synthehr.errors import DataError
from synthehr.schema.model import DroppedColumn, Schema

__all__ = [
    "ENDINGS",
    "FORMATS",
    "TableFiles",
    "TableWriter",
    "read_table",
    "table_batches",
    "table_paths",
    "write_tables",
]

_DELIMITED = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_COLUMNAR = (".parquet", ".arrow", ".feather", ".ipc")
ENDINGS = (*_DELIMITED, *_COLUMNAR)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFiles:
    """One file that holds the root table, or a folder with one file for each table.

    Attributes:
        misshapen: takes, by table, the rows of CSV and TSV that are blank or too long or short: see
            :func:`~synthehr.connectors.delimited.read_delimited`. Without it they are refused.
        notes: takes for each file of separated values the encoding and the separator that were found.
    """

    misshapen: dict[str, dict[int, str]] | None = None
    notes: dict[str, Any] | None = None

    def tables(self, source: str | Path, *, schema: Schema) -> dict[str, pl.DataFrame]:
        """The tables as they stand: CSV and TSV as text, others in their own types.

        Raises:
            DataError: a file is missing, unreadable, empty, ragged, of an unknown kind, or names a column
                twice.
        """
        paths = table_paths(Path(source), schema=schema)
        tables: dict[str, pl.DataFrame] = {}
        for path in dict.fromkeys(paths.values()):
            sharing = [name for name in paths if paths[name] == path]
            misshapen: dict[int, str] | None = None if self.misshapen is None else {}
            frame = self._frame(path, schema=schema, tables=sharing, misshapen=misshapen)
            for name in sharing:
                tables[name] = frame.select(_columns_of(frame.columns, schema=schema, table=name, sharing=sharing))
                if self.misshapen is not None and misshapen:
                    self.misshapen[name] = misshapen
        return {name: tables[name] for name in paths}

    def _frame(
        self, path: Path, *, schema: Schema, tables: list[str], misshapen: dict[int, str] | None
    ) -> pl.DataFrame:
        skip = _dropped(schema, tables=tables)
        may_be_empty = all(schema.tables[name].parent is not None for name in tables)
        if _kind(path) in _COLUMNAR:
            return read_columnar(path, skip=skip, may_be_empty=may_be_empty)
        known = {column for name in tables for column in schema.tables[name].columns}
        found = self.notes.setdefault("text files", {}) if self.notes is not None else None
        return read_delimited(path, skip=skip, may_be_empty=may_be_empty, known=known, misshapen=misshapen, notes=found)

    def write(self, cohort: Cohort[Schema], out: Path, *, format: str) -> None:
        """Write one file for each table into the new folder ``out``, whole or not at all.

        Raises:
            ConfigError: ``out`` exists, its parent is no folder that can be written, or ``format`` is not
                known.
        """
        with new_folder(out) as folder:
            write_tables(cohort, folder, format=format)


def read_table(path: Path) -> pl.DataFrame:
    """All columns of the table in one file, as it stands, for those who have no schema yet.

    Raises:
        DataError: see :meth:`TableFiles.tables`.
    """
    if _kind(path) in _DELIMITED:
        return read_delimited(path)
    return read_columnar(path, skip=frozenset())


def table_batches(path: Path, *, schema: Schema, table: str) -> Iterator[pl.DataFrame]:
    """The rows of a table's file in order, in parts that fit into memory; one without rows comes first.

    Raises:
        DataError: see :meth:`TableFiles.tables`.
    """
    skip = _dropped(schema, tables=[table])
    if _kind(path) in _DELIMITED:
        return delimited_batches(path, skip=skip, known=schema.tables[table].columns)
    return read_batches(path, skip=skip)


def table_paths(source: Path, *, schema: Schema) -> dict[str, Path]:
    """The file of each table of the schema; tables of one source have one file.

    Raises:
        DataError: a file is missing, or there are several for a table.
    """
    if not source.exists():
        raise DataError(f"{str(source)!r} does not exist: give a CSV or Parquet file, or a folder of them")
    sources = {schema.source_of(table) for table in schema.tables}
    if source.is_file():
        if len(sources) > 1:
            other = next(name for name in schema.tables if schema.source_of(name) != schema.source_of(schema.subject))
            raise DataError(
                f"the schema declares table {other!r} beside {schema.subject!r}: "
                "give a folder with one file for each table"
            )
        return dict.fromkeys(schema.tables, source)
    if not source.is_dir():
        raise DataError(f"{str(source)!r} is neither a file nor a folder")
    own = has_own_tables(source, schema=schema)
    return {table: _file_of(table if own else schema.source_of(table), folder=source) for table in schema.tables}


def _file_of(name: str, *, folder: Path) -> Path:
    there = [path for path in (folder / f"{name}{ending}" for ending in ENDINGS) if path.is_file()]
    if not there:
        raise DataError(f"folder {str(folder)!r} has no file for table {name!r}: name it {name}.csv or {name}.parquet")
    if len(there) > 1:
        raise DataError(f"folder {str(folder)!r} has {len(there)} files for table {name!r}: keep one")
    return there[0]


def _dropped(schema: Schema, *, tables: list[str]) -> set[str]:
    """Columns that are identifiers or text, and nothing else in another table of the same file."""
    declared = [item for table in tables for item in schema.tables[table].columns.items()]
    held = {name for name, column in declared if not isinstance(column, DroppedColumn)}
    return {name for name, _ in declared} - held


def _columns_of(names: list[str], *, schema: Schema, table: str, sharing: list[str]) -> list[str]:
    """The columns of a file that belong to one of the tables in it: those that it declares, and what none declares."""
    if len(sharing) == 1:
        return names
    mine = schema.tables[table].columns
    others = {name for other in sharing for name in schema.tables[other].columns}
    return [
        name for name in names if (name in mine and not isinstance(mine[name], DroppedColumn)) or name not in others
    ]


def _kind(path: Path) -> str:
    name = path.name.lower()
    kind = next((ending for ending in ENDINGS if name.endswith(ending)), None)
    if kind is None:
        raise DataError(f"{path.name!r} is of an unknown kind: known are {', '.join(ENDINGS)}")
    return kind
