"""Find how a file of separated values is written: its encoding by all its bytes, its separator by its first rows."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from synthehr.errors import DataError

__all__ = ["Dialect", "find_dialect", "open_bytes"]

SEPARATORS = (",", ";", "\t", "|")
_CHUNK = 1 << 20
_HEAD_ROWS = 20
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_UTF8_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a file is written: Python's name of its encoding, and the character between two cells."""

    encoding: str
    separator: str


def find_dialect(path: Path, *, known: Collection[str] = ()) -> Dialect:
    """How a file of separated values is written.

    The encoding is UTF-16 where a byte order mark or its zero bytes show it, UTF-8 where all bytes are, and
    else Windows-1252, of which Latin-1's letters are a part. The separator is the one of comma, semicolon, tab and bar
    that makes most of the ``known`` names of the header; without them, the one that cuts the first rows into the most
    cells, equally many in each. A ``.tsv`` is separated by tabs.

    Args:
        path: the file; ``.gz`` is unpacked.
        known: names that columns may have.

    Raises:
        DataError: the bytes are no text in one of these encodings.
        OSError: the file cannot be read.
    """
    encoding = _encoding(path)
    if path.name.lower().removesuffix(".gz").endswith(".tsv"):
        return Dialect(encoding, "\t")
    with open_bytes(path) as raw, io.TextIOWrapper(raw, encoding=encoding, newline="") as text:
        head = text.read(_CHUNK)
    return Dialect(encoding, max(SEPARATORS, key=lambda mark: _fit(head, separator=mark, known=set(known))))


def open_bytes(path: Path) -> gzip.GzipFile | BinaryIO:
    """The bytes of a file, unpacked where its name ends in ``.gz``."""
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _encoding(path: Path) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    utf8, sequences, first = True, False, True
    with open_bytes(path) as raw:
        while chunk := raw.read(_CHUNK):
            if first:
                marked = _marked(chunk)
                if marked is not None:
                    return marked
                first = False
            if chunk.isascii() and not (utf8 and decoder.getstate()[0]):
                continue
            sequences = sequences or _UTF8_SEQUENCE.search(chunk) is not None
            if utf8:
                try:
                    decoder.decode(chunk)
                except UnicodeDecodeError:
                    utf8 = False
    if utf8 and not decoder.getstate()[0]:
        return "utf-8"
    if sequences:
        raise DataError(f"{path.name!r} is UTF-8 text with bytes in it that are not: save it as UTF-8")
    return "cp1252"


def _marked(head: bytes) -> str | None:
    """The encoding that a byte order mark shows, or the zero bytes that UTF-16 has in Latin letters."""
    if head[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    sample = head[:1024]
    if len(sample) >= 4 and sample[0] and not any(sample[1:8:2]) and all(sample[0:8:2]):
        return "utf-16-le"
    if len(sample) >= 4 and not sample[0] and not any(sample[0:8:2]) and all(sample[1:8:2]):
        return "utf-16-be"
    return None


def _fit(head: str, *, separator: str, known: Collection[str]) -> tuple[int, int]:
    """How well a separator fits: the names that it makes which are known, and the cells that the first rows have."""
    rows: list[list[str]] = []
    with suppress(csv.Error):  # the reading itself tells what is wrong
        rows.extend(islice(csv.reader(io.StringIO(head, newline=""), delimiter=separator), _HEAD_ROWS))
    rows = [row for row in rows if row]
    if len(rows) > 1 and len(head) == _CHUNK:
        rows.pop()  # the head of the file may end in it
    names = [name.strip() for name in rows[0]] if rows else []
    even = len(names) if all(len(row) == len(names) for row in rows) else 0
    return sum(name in known for name in names), even
