"""CSV and TSV, plain or gzipped, read as text alone and as strictly as a pipeline needs."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import polars as pl

from synthehr.errors import DataError

__all__ = ["read_delimited"]

_CHUNK_ROWS = 50_000


def read_delimited(path: Path, *, separator: str, skip: Set[str], may_be_empty: bool = False) -> pl.DataFrame:
    """The table in a file of separated values, every column as text; an empty cell is empty text.

    Python's own reader is used, since faster ones rename repeated columns and pad short rows.

    Args:
        path: a UTF-8 file (a byte order mark is accepted) whose first line names the columns; ``.gz`` is
            unpacked.
        separator: the character between two cells.
        skip: columns that are passed over and never held.
        may_be_empty: a header alone makes a table without rows.

    Raises:
        DataError: names the file, the row (counted from 1, header left out) and the rule; never a value.
    """
    with _opened(path) as lines:
        rows = csv.reader(lines, delimiter=separator, strict=True)
        names = _header(rows, path=path, separator=separator)
        kept = [at for at, name in enumerate(names) if name not in skip]
        chunks = [_frame(chunk, names=names, kept=kept) for chunk in _chunks(rows, width=len(names), path=path)]
    if not chunks and may_be_empty:
        return _frame([], names=names, kept=kept)
    if not chunks:
        raise DataError(f"{path.name!r} has a header but no rows: it needs at least one")
    return pl.concat(chunks)


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[str]]:
    try:
        with (
            gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text,
        ):
            yield _without_nul(text, path=path)
    except UnicodeDecodeError:
        raise DataError(f"{path.name!r} is not UTF-8 text: save it as UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{path.name!r} is a truncated or damaged gzip file: copy it again") from None
    except csv.Error:
        raise DataError(
            f"{path.name!r} is not well-formed CSV: a quote is left open, stands inside a quoted cell, "
            f"or a cell is longer than {csv.field_size_limit()} characters"
        ) from None
    except OSError as error:
        raise DataError(f"{path.name!r} cannot be read: {error.strerror or 'it is no readable file'}") from None


def _without_nul(lines: Iterator[str], *, path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise DataError(f"{path.name!r}, line {number}: holds a NUL byte, so it is not text: save it as UTF-8 CSV")
        yield line


def _header(rows: Iterator[list[str]], *, path: Path, separator: str) -> list[str]:
    names = [name.strip() for name in next(rows, [])]
    if not any(names):
        raise DataError(f"{path.name!r} is empty or its first line is blank: the first line must name the columns")
    if "" in names:
        raise DataError(f"{path.name!r}: column {names.index('') + 1} of the header has no name: name it or remove it")
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path.name!r}: column {name!r} stands twice in the header: rename or remove one")
    other = next((mark for mark in ";\t|," if mark != separator and mark in names[0]), None)
    if len(names) == 1 and other is not None:
        raise DataError(f"{path.name!r} seems to be separated by {other!r}: cells must be separated by {separator!r}")
    return names


def _chunks(rows: Iterator[list[str]], *, width: int, path: Path) -> Iterator[Sequence[list[str]]]:
    """Runs of rows, each checked to have ``width`` cells; blank lines at the end of the file are left out."""
    blank = 0
    number = 0
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        full: list[list[str]] = []
        for row in chunk:
            number += 1
            if not row:
                blank += 1
                continue
            if blank and width == 1:
                full.extend([[""]] * blank)
            elif blank:
                raise DataError(f"{path.name!r}, row {number - blank}: is a blank line: remove it")
            blank = 0
            if len(row) != width:
                raise DataError(f"{path.name!r}, row {number}: has {len(row)} cells where the header has {width}")
            full.append(row)
        if full:
            yield full


def _frame(rows: Sequence[list[str]], *, names: list[str], kept: list[int]) -> pl.DataFrame:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pl.DataFrame([pl.Series(names[at], columns[at], dtype=pl.String) for at in kept])
