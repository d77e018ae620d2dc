"""Tables in files: CSV, TSV (plain or gzipped) and Parquet, one file a table."""

from __future__ import annotations

from collections.abc import Callable, Set
from pathlib import Path
from typing import IO, Any

import polars as pl
from polars.exceptions import PolarsError

from synthehr.cohort import Cohort
from synthehr.connectors.delimited import read_delimited
from synthehr.connectors.folders import new_folder
from synthehr.errors import ConfigError, DataError
from synthehr.schema.model import DroppedColumn, Schema

__all__ = ["FORMATS", "TableFiles", "TableWriter", "write_tables"]

FORMATS = ("parquet", "csv")
_ROW_GROUP = 131_072


def _read_parquet(path: Path, skip: Set[str], may_be_empty: bool) -> pl.DataFrame:
    try:
        names = pl.read_parquet_schema(path)
        frame = pl.read_parquet(path, columns=[name for name in names if name not in skip], glob=False)
    except (PolarsError, OSError):
        raise DataError(f"{path.name!r} is no readable Parquet file: it is damaged or of another format") from None
    if frame.height == 0 and not may_be_empty:
        raise DataError(f"{path.name!r} has no rows: it needs at least one")
    return frame


_READERS: dict[str, Callable[[Path, Set[str], bool], pl.DataFrame]] = {
    ".parquet": _read_parquet,
    ".csv": lambda path, skip, empty: read_delimited(path, separator=",", skip=skip, may_be_empty=empty),
    ".csv.gz": lambda path, skip, empty: read_delimited(path, separator=",", skip=skip, may_be_empty=empty),
    ".tsv": lambda path, skip, empty: read_delimited(path, separator="\t", skip=skip, may_be_empty=empty),
    ".tsv.gz": lambda path, skip, empty: read_delimited(path, separator="\t", skip=skip, may_be_empty=empty),
}


class TableFiles:
    """One file that holds the root table, or a folder with one file for each table."""

    def tables(self, source: str | Path, *, schema: Schema) -> dict[str, pl.DataFrame]:
        """The tables as they stand: CSV and TSV as text, Parquet in its own types.

        Raises:
            DataError: a file is missing, unreadable, empty, ragged, of an unknown kind, or names a column
                twice.
        """
        return {
            name: _READERS[_kind(path)](path, _dropped(schema, table=name), schema.tables[name].parent is not None)
            for name, path in _table_paths(Path(source), schema=schema).items()
        }

    def write(self, cohort: Cohort[Schema], out: Path, *, format: str) -> None:
        """Write one file for each table into the new folder ``out``, whole or not at all.

        Raises:
            ConfigError: ``out`` exists, its parent is no folder that can be written, or ``format`` is not
                known.
        """
        with new_folder(out) as folder:
            write_tables(cohort, folder, format=format)


def write_tables(cohort: Cohort[Schema], folder: Path, *, format: str) -> None:
    """Write ``<table>.<format>`` for each table into an existing folder.

    Equal tables give equal bytes: nothing of the time, the machine or the thread count goes into a file.

    Raises:
        ConfigError: ``format`` is not known.
    """
    for name, frame in cohort.tables.items():
        with TableWriter(folder, name, format=format) as writer:
            writer.write(frame)


class TableWriter:
    """Writes one table, ``<table>.<format>`` in an existing folder, part by part in flat memory.

    Equal tables give equal bytes, however they are cut into parts: nothing of the time, the machine, the thread count
    or the parts goes into a file. A table without a part becomes no file.

    Raises:
        ConfigError: ``format`` is not known.
    """

    def __init__(self, folder: Path, table: str, *, format: str) -> None:
        if format not in FORMATS:
            raise ConfigError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
        self._path = folder / f"{table}.{format}"
        self._text: IO[bytes] | None = None
        self._parquet: Any = None
        self._held: list[pl.DataFrame] = []

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._held:
                self._put(pl.concat(self._held))
        finally:
            self._held = []
            for file in (self._text, self._parquet):
                if file is not None:
                    file.close()

    def write(self, part: pl.DataFrame) -> None:
        """Append rows; their columns and types are those of the first part."""
        self._held.append(part)
        if sum(frame.height for frame in self._held) < _ROW_GROUP:
            return
        whole = pl.concat(self._held)
        full = whole.height - whole.height % _ROW_GROUP
        for start in range(0, full, _ROW_GROUP):
            self._put(whole[start : start + _ROW_GROUP])
        self._held = [whole[full:]]

    def _put(self, rows: pl.DataFrame) -> None:
        if self._path.suffix == ".csv":
            first = self._text is None
            if self._text is None:
                self._text = self._path.open("wb")
            if first or rows.height:
                rows.write_csv(self._text, include_header=first, datetime_format="%Y-%m-%dT%H:%M:%S")
            return
        import pyarrow.parquet as pq

        table = rows.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._parquet is None:
            self._parquet = pq.ParquetWriter(self._path, table.schema, compression="zstd", compression_level=1)
        if rows.height:
            self._parquet.write_table(table, row_group_size=_ROW_GROUP)


def _dropped(schema: Schema, *, table: str) -> set[str]:
    return {name for name, column in schema.tables[table].columns.items() if isinstance(column, DroppedColumn)}


def _kind(path: Path) -> str:
    name = path.name.lower()
    kind = next((ending for ending in _READERS if name.endswith(ending)), None)
    if kind is None:
        raise DataError(f"{path.name!r} is of an unknown kind: known are {', '.join(_READERS)}")
    return kind


def _table_paths(source: Path, *, schema: Schema) -> dict[str, Path]:
    """The file of each table of the schema."""
    if not source.exists():
        raise DataError(f"{str(source)!r} does not exist: give a CSV or Parquet file, or a folder of them")
    if source.is_file():
        others = [name for name in schema.tables if name != schema.subject]
        if others:
            raise DataError(
                f"the schema declares table {others[0]!r} beside {schema.subject!r}: "
                "give a folder with one file for each table"
            )
        return {schema.subject: source}
    if not source.is_dir():
        raise DataError(f"{str(source)!r} is neither a file nor a folder")
    paths = {}
    for table in schema.tables:
        found = [source / f"{table}{ending}" for ending in _READERS if (source / f"{table}{ending}").is_file()]
        if not found:
            raise DataError(
                f"folder {str(source)!r} has no file for table {table!r}: name it {table}.csv or {table}.parquet"
            )
        if len(found) > 1:
            raise DataError(f"folder {str(source)!r} has {len(found)} files for table {table!r}: keep one")
        paths[table] = found[0]
    return paths
