"""Write tables to files, part by part in flat memory."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import polars as pl

from synthehr.cohort import Cohort
from synthehr.errors import ConfigError
from synthehr.schema.model import IntegerColumn, NumberColumn, Schema, Table

__all__ = ["FORMATS", "TableWriter", "write_tables"]

FORMATS = ("parquet", "csv", "tsv", "arrow")
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_ROW_GROUP = 131_072


def write_tables(cohort: Cohort[Schema], folder: Path, *, format: str) -> None:
    """Write ``<table>.<format>`` for each table into an existing folder.

    Equal tables give equal bytes: nothing of the time, the machine or the thread count goes into a file.

    Raises:
        ConfigError: ``format`` is not known.
    """
    for name, frame in cohort.tables.items():
        with TableWriter(folder, name, format=format, declared=cohort.schema.tables.get(name)) as writer:
            writer.write(frame)


class TableWriter:
    """Writes one table, ``<table>.<format>`` in an existing folder, part by part in flat memory.

    Equal tables give equal bytes, however they are cut into parts: nothing of the time, the machine, the thread count
    or the parts goes into a file. A table without a part becomes no file.

    Args:
        folder: where the file goes.
        table: its name.
        format: one of ``FORMATS``.
        declared: the table's schema; numbers in text are written with the signs that it declares, so that it reads
            them again.

    Raises:
        ConfigError: ``format`` is not known.
    """

    def __init__(self, folder: Path, table: str, *, format: str, declared: Table | None = None) -> None:
        if format not in FORMATS:
            raise ConfigError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
        self._path = folder / f"{table}.{format}"
        self._text: IO[bytes] | None = None
        self._columnar: Any = None
        self._held: list[pl.DataFrame] = []
        self._signs = _decimal_signs(declared) if declared is not None else {}

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._held:
                self._put(pl.concat(self._held))
        finally:
            self._held = []
            for file in (self._text, self._columnar):
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
        if self._path.suffix in _SEPARATORS:
            self._put_text(rows)
            return
        table = rows.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._columnar is None:
            self._columnar = self._open(table.schema)
        if not rows.height:
            return
        if self._path.suffix == ".parquet":
            self._columnar.write_table(table, row_group_size=_ROW_GROUP)
        else:
            self._columnar.write_table(table, max_chunksize=_ROW_GROUP)

    def _open(self, schema: Any) -> Any:
        if self._path.suffix == ".parquet":
            import pyarrow.parquet as pq
            from pyarrow import types

            texts = [field.name for field in schema if types.is_large_string(field.type)]
            return pq.ParquetWriter(
                self._path, schema, compression="zstd", compression_level=1, use_dictionary=texts or False
            )
        from pyarrow import ipc

        return ipc.new_file(str(self._path), schema, options=ipc.IpcWriteOptions(compression="zstd"))

    def _put_text(self, rows: pl.DataFrame) -> None:
        first = self._text is None
        if self._text is None:
            self._text = self._path.open("wb")
        if not (first or rows.height):
            return
        written = rows.with_columns(
            pl.col(name).cast(pl.String).str.replace(".", sign, literal=True)
            for name, sign in self._signs.items()
            if name in rows.columns
        )
        written.write_csv(
            self._text,
            include_header=first,
            separator=_SEPARATORS[self._path.suffix],
            datetime_format="%Y-%m-%dT%H:%M:%S%.f",
            null_value='""' if rows.width == 1 else "",  # a blank line at the end of a file is no row
        )


def _decimal_signs(declared: Table) -> dict[str, str]:
    """The decimal sign of each column that is declared to be written with another than a point."""
    formats = {
        name: column.format
        for name, column in declared.columns.items()
        if isinstance(column, IntegerColumn | NumberColumn) and column.format is not None
    }
    return {name: form.decimal for name, form in formats.items() if form.decimal != "."}
