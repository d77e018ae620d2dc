"""Parquet and Arrow files (Feather too), read by batches of rows in their own types."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError

from synthehr.errors import DataError

__all__ = ["column_names", "mapped", "read_batches", "read_columnar"]

_BATCH_CELLS = 2_097_152  # so that wide tables need no more memory than narrow ones


def read_columnar(path: Path, *, skip: Set[str], may_be_empty: bool = False) -> pl.DataFrame:
    """The table in a Parquet or Arrow file.

    Args:
        path: a ``.parquet`` file, or an Arrow IPC file or stream (``.arrow``, ``.feather``, ``.ipc``).
        skip: columns that are passed over and never held.
        may_be_empty: a table without rows is one.

    Raises:
        DataError: the file is damaged, of another format, without columns or rows, or names a column twice.
    """
    frame = pl.concat(list(read_batches(path, skip=skip)))
    if frame.height == 0 and not may_be_empty:
        raise DataError(f"{path.name!r} has no rows: it needs at least one")
    return frame


def column_names(path: Path) -> list[str]:
    """Names of the columns of a Parquet or Arrow file, in its order.

    Raises:
        DataError: the file is damaged, of another format, without columns, or names a column twice.
    """
    with _opened(path) as file:
        return list(file.names)


def read_batches(path: Path, *, skip: Set[str] = frozenset(), rows: int | None = None) -> Iterator[pl.DataFrame]:
    """The rows of a Parquet or Arrow file in order, at least one batch, of at most about ``rows`` rows each.

    Without ``rows`` a batch has some two million cells. pyarrow reads, since it checks what a damaged file says of
    itself before it follows it.

    Raises:
        DataError: see :func:`read_columnar`.
    """
    with _opened(path) as file:
        kept = [name for name in file.names if name not in skip]
        for batch in file.batches(kept, rows or max(_BATCH_CELLS // max(len(kept), 1), 1)):
            yield _checked(batch).select(kept)


def mapped(path: Path) -> pl.DataFrame:
    """The table in an Arrow file that is not compressed, mapped into memory and not held there.

    Raises:
        DataError: the file is missing, damaged or of another format.
    """
    import pyarrow as pa
    from pyarrow import ipc

    with _explained(path, what="Arrow"), pa.memory_map(str(path)) as source:
        return _checked(ipc.open_file(source).read_all(), rechunk=False)


class _Parquet:
    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path, pre_buffer=True)
        self.names: list[str] = self._file.schema_arrow.names

    def batches(self, kept: list[str], rows: int) -> Iterator[Any]:
        """Tables of at most ``rows`` rows; one without rows where the file has none."""
        import pyarrow as pa

        empty = self._file.schema_arrow.empty_table()
        yield empty.select(kept)
        for batch in self._file.iter_batches(batch_size=rows, columns=kept):
            yield pa.Table.from_batches([batch])

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class _Arrow:
    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        from pyarrow import ipc

        self._source = pa.OSFile(str(path))
        try:
            head = self._source.read(6)
            if head[:4] == b"FEA1":
                raise DataError(f"{path.name!r} is Feather of version 1: write it as version 2 or as Parquet")
            self._source.seek(0)
            self._stream = head != b"ARROW1"
            self._file = ipc.open_stream(self._source) if self._stream else ipc.open_file(self._source)
        except BaseException:
            self._source.close()
            raise
        self.names: list[str] = self._file.schema.names

    def batches(self, kept: list[str], rows: int) -> Iterator[Any]:
        """Tables of at most ``rows`` rows; one without rows where the file has none."""
        import pyarrow as pa

        yield self._file.schema.empty_table().select(kept)
        parts = (
            iter(self._file)
            if self._stream
            else (self._file.get_batch(at) for at in range(self._file.num_record_batches))
        )
        for part in parts:
            table = pa.Table.from_batches([part]).select(kept)
            for start in range(0, table.num_rows, rows):
                yield table.slice(start, rows)

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()


@contextmanager
def _opened(path: Path) -> Iterator[_Parquet | _Arrow]:
    """The file, with what is wrong with it told in one line and without its bytes."""
    what = "Parquet" if path.suffix.lower() == ".parquet" else "Arrow"
    with _explained(path, what=what):
        file = (_Parquet if what == "Parquet" else _Arrow)(path)
        try:
            _check_names(file.names, path=path)
            yield file
        finally:
            file.close()


@contextmanager
def _explained(path: Path, *, what: str) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, PolarsError, PanicException, UnicodeDecodeError, MemoryError, OverflowError, OSError):
        raise DataError(f"{path.name!r} is no readable {what} file: it is damaged or of another format") from None


def _check_names(names: list[str], *, path: Path) -> None:
    if not names:
        raise DataError(f"{path.name!r} has no columns: it needs at least one")
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path.name!r}: column {name!r} stands twice: rename or remove one")


def _checked(table: Any, *, rechunk: bool = True) -> pl.DataFrame:
    """The table in polars, after all its buffers were found to hold what they say."""
    import pyarrow as pa

    table.validate(full=True)
    bare = pa.Table.from_arrays(table.columns, names=table.column_names)  # what else is said of it may be no text
    frame = pl.from_arrow(bare, rechunk=rechunk)
    assert isinstance(frame, pl.DataFrame), "a table is no column"
    return frame
