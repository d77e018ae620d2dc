"""CSV and TSV, plain or gzipped, read as text alone and as strictly as a pipeline needs."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl

from synthehr.connectors.dialect import find_dialect, open_bytes
from synthehr.errors import DataError

__all__ = ["delimited_batches", "read_delimited"]

_CHUNK_ROWS = 50_000


def read_delimited(
    path: Path,
    *,
    separator: str | None = None,
    skip: Set[str] = frozenset(),
    may_be_empty: bool = False,
    known: Collection[str] = (),
    misshapen: dict[int, str] | None = None,
    notes: dict[str, Any] | None = None,
) -> pl.DataFrame:
    """The table in a file of separated values, every column as text; an empty cell is empty text.

    Python's own reader is used, since faster ones rename repeated columns and pad short rows.

    Args:
        path: a file whose first line names the columns, in an encoding that :func:`find_dialect` finds; ``.gz`` is
            unpacked.
        separator: the character between two cells; found where left out.
        skip: columns that are passed over and never held.
        may_be_empty: a header alone makes a table without rows.
        known: names that the columns may have, by which the separator is found.
        misshapen: takes rows that are blank or of another length than the header, by number from 0, with the rule
            that they break; they stand in the table as empty cells. Without it they are refused.
        notes: takes, by the file's name, the encoding and the separator that were found.

    Raises:
        DataError: names the file, the row (counted from 1, header left out) and the rule; never a value.
    """
    chunks = list(
        delimited_batches(path, separator=separator, skip=skip, known=known, misshapen=misshapen, notes=notes)
    )
    if len(chunks) == 1 and not may_be_empty:
        raise DataError(f"{path.name!r} has a header but no rows: it needs at least one")
    return pl.concat(chunks)


def delimited_batches(
    path: Path,
    *,
    separator: str | None = None,
    skip: Set[str] = frozenset(),
    known: Collection[str] = (),
    misshapen: dict[int, str] | None = None,
    notes: dict[str, Any] | None = None,
    rows: int = _CHUNK_ROWS,
) -> Iterator[pl.DataFrame]:
    """The rows of a file of separated values in order: a table without rows first, then at most ``rows`` in each.

    Arguments and errors are those of :func:`read_delimited`.
    """
    with _explained(path):
        found = find_dialect(path, known=known)
        if notes is not None:
            notes[path.name] = asdict(found)
        mark = separator or found.separator
        with open_bytes(path) as raw, io.TextIOWrapper(raw, encoding=found.encoding, newline="") as text:
            lines = csv.reader(_without_nul(text, path=path), delimiter=mark, strict=True)
            names = _header(lines, path=path)
            kept = [at for at, name in enumerate(names) if name not in skip]
            yield _frame([], names=names, kept=kept)
            for chunk in _chunks(lines, width=len(names), path=path, misshapen=misshapen, rows=rows):
                yield _frame(chunk, names=names, kept=kept)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Tell what is wrong with a file in one line, without its bytes."""
    try:
        yield
    except UnicodeError:
        raise DataError(f"{path.name!r} is text in no known encoding: save it as UTF-8") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(f"{path.name!r} is a truncated or damaged gzip file: copy it again") from None
    except csv.Error:
        raise DataError(
            f"{path.name!r} is not well-formed CSV: a quote is left open, stands inside a quoted cell, "
            f"or a cell is longer than {csv.field_size_limit()} characters"
        ) from None
    except OSError as error:
        raise DataError(f"{path.name!r} cannot be read: {error.strerror or 'it is no readable file'}") from None


def _without_nul(lines: Iterable[str], *, path: Path) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise DataError(f"{path.name!r}, line {number}: holds a NUL byte, so it is not text: save it as UTF-8 CSV")
        yield line


def _header(rows: Iterator[list[str]], *, path: Path) -> list[str]:
    names = [name.strip() for name in next(rows, [])]
    if not any(names):
        raise DataError(f"{path.name!r} is empty or its first line is blank: the first line must name the columns")
    if "" in names:
        raise DataError(f"{path.name!r}: column {names.index('') + 1} of the header has no name: name it or remove it")
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path.name!r}: column {name!r} stands twice in the header: rename or remove one")
    return names


def _chunks(
    lines: Iterator[list[str]], *, width: int, path: Path, misshapen: dict[int, str] | None, rows: int
) -> Iterator[Sequence[list[str]]]:
    """Runs of rows, each checked to have ``width`` cells; blank lines at the end of the file are left out."""
    full: list[list[str]] = []
    blank = number = 0
    for row in lines:
        number += 1
        if not row:
            blank += 1
            continue
        for at in range(number - blank, number):
            full.append([""] * width)
            if width > 1:
                _refuse_row(at, "is a blank line: remove it", path=path, misshapen=misshapen)
        blank = 0
        if len(row) != width:
            what = f"has {len(row)} cells where the header has {width}"
            _refuse_row(number, what, path=path, misshapen=misshapen)
        full.append(row if len(row) == width else [""] * width)
        if len(full) >= rows:
            yield full
            full = []
    if full:
        yield full


def _refuse_row(number: int, rule: str, *, path: Path, misshapen: dict[int, str] | None) -> None:
    if misshapen is None:
        raise DataError(f"{path.name!r}, row {number}: {rule}")
    misshapen[number - 1] = rule


def _frame(rows: Sequence[list[str]], *, names: list[str], kept: list[int]) -> pl.DataFrame:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return pl.DataFrame([pl.Series(names[at], columns[at], dtype=pl.String) for at in kept])
