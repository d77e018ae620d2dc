"""Rows between the pieces they were read from and the tables they go into: in memory, or in a folder of parts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import polars as pl

from synthehr.connectors.fhir.badlines import BadRecord
from synthehr.connectors.fhir.consent import ConsentRecord
from synthehr.connectors.fhir.extracted import Extracted

__all__ = ["Part", "Spilled", "Spool", "spill"]

Part: TypeAlias = pl.DataFrame | Path
Spilled: TypeAlias = tuple[Extracted, dict[str, Path]]

_RESOURCES, _ALIASES = "+resources", "+aliases"
_RESOURCE_COLUMNS = {
    "_r": pl.UInt64,
    "type": pl.String,
    "name": pl.String,
    "hash": pl.UInt64,
    "file": pl.UInt32,
    "line": pl.UInt32,
    "offset": pl.UInt64,
}
_ROWS = 1 << 15  # that tables are made of at once, about, where rows are in memory anyway
_ROWS_FROM_DISK = 1 << 14  # and where they are not: a piece of a small source has so many, too
_HASHES = 1 << 19  # of names that are compared with each other at once, about


def spill(extracted: Extracted, folder: Path) -> Spilled:
    """Write the rows of a piece into the folder; what is left of it is small enough to be sent between processes."""
    parts = {}
    for name, frame in {
        **extracted.tables,
        _RESOURCES: extracted.resources,
        _ALIASES: extracted.aliases,
    }.items():
        if frame.height:
            parts[name] = folder / f"{name}.{extracted.piece}.parquet"
            frame.write_parquet(parts[name], compression="lz4", statistics=False)
    extracted.tables, extracted.resources, extracted.aliases = {}, pl.DataFrame(), pl.DataFrame()
    return extracted, parts


class Spool:
    """All that was read, pieces in order; resources are numbered through from 0 in ``_r``.

    Args:
        secret: of the run, with which the names in it are hashed.
    """

    def __init__(self, *, secret: int) -> None:
        self.secret = secret
        self._parts: dict[str, list[tuple[Part, int, int]]] = defaultdict(list)
        self._file = -1
        self._lines = 0
        self._numbers = 0
        self._searched = False
        self.absolute = False
        self.records = 0
        self.types: Counter[str] = Counter()
        self.consents: list[ConsentRecord] = []
        self.bad: list[BadRecord] = []

    def add(self, extracted: Extracted, spilled: dict[str, Path] | None = None) -> None:
        """Take in the next piece."""
        if extracted.file != self._file:
            self._file, self._lines = extracted.file, 0
        parts: dict[str, Part] = dict(spilled or {})
        if spilled is None:
            held = {**extracted.tables, _RESOURCES: extracted.resources, _ALIASES: extracted.aliases}
            parts = {name: frame for name, frame in held.items() if frame.height}
        for name, part in parts.items():
            self._parts[name].append((part, self._numbers, self._lines))
        self.bad.extend(
            BadRecord(file=bad.file, line=bad.line + self._lines, offset=bad.offset, reason=bad.reason)
            for bad in extracted.bad
        )
        self._lines += extracted.lines
        self._numbers += extracted.numbers
        self._searched |= extracted.searched
        self.absolute |= extracted.absolute
        self.records += extracted.records
        self.types += extracted.types
        self.consents += extracted.consents

    @property
    def on_disk(self) -> bool:
        """Whether rows are kept in files."""
        return any(isinstance(part, Path) for parts in self._parts.values() for part, _, _ in parts)

    def rows(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """The rows of a view in order, some ten thousand at a time; rows of one resource stay together.

        Args:
            name: of the view.
            columns: which ones, ``_r`` among them; all where left out.
        """
        most = _ROWS_FROM_DISK if self.on_disk else _ROWS
        held: list[pl.DataFrame] = []
        firsts: list[int] = []
        height = 0
        for part, first, _ in self._parts.get(name, ()):
            if isinstance(part, Path):
                held.append(pl.read_parquet(part, columns=None if columns is None else list(columns), glob=False))
            else:
                held.append(part if columns is None else part.select(columns))
            firsts.append(first)
            height += held[-1].height
            if height >= most:
                yield _counted_on(held, firsts)
                held, firsts, height = [], [], 0
        if held:
            yield _counted_on(held, firsts)

    def aliases(self) -> Iterator[pl.DataFrame]:
        """All names that references may use, some at a time.

        Columns: see :data:`~synthehr.connectors.fhir.references.ALIAS_COLUMNS`.
        """
        for names in self.rows(_ALIASES):  # where nothing refers to anything by identifier, those are not needed
            yield names if self._searched else names.filter(~pl.col("search"))

    def repeated(self) -> pl.Series:
        """Numbers of the resources whose name has the hash of another's; compared a share of all hashes at a time."""
        shares = 1 + self._numbers // _HASHES if self.on_disk else 1
        found = [pl.Series("_r", dtype=pl.UInt64)]
        for share in range(shares):
            told = [pl.DataFrame(schema={"_r": pl.UInt64, "hash": pl.UInt64})]
            for each in self.rows(_RESOURCES, ["_r", "hash"]):
                told.append(each.filter(pl.col("hash") % shares == share))  # a missing hash is in no share
            hashes = pl.concat(told)
            found.append(hashes.filter(pl.col("hash").is_duplicated())["_r"])
        return pl.concat(found).sort()

    def resources(self, wanted: pl.Series) -> pl.DataFrame:
        """The resources with these numbers, in order: ``_r``, type, name and its hash, file, line, offset."""
        found = [pl.DataFrame(schema=_RESOURCE_COLUMNS)]
        for part, first, lines in self._parts.get(_RESOURCES, ()):
            frame = pl.read_parquet(part, glob=False) if isinstance(part, Path) else part
            here = frame.with_columns(pl.col("_r") + first, pl.col("line") + lines)
            found.append(here.filter(pl.col("_r").is_in(wanted.implode())))
        return pl.concat(found)

    def places(self, resources: pl.Series, *, reason: str) -> list[BadRecord]:
        """Where these resources stand, as bad records."""
        if resources.is_empty():
            return []
        return [
            BadRecord(file=file, line=line, offset=offset, reason=reason)
            for file, line, offset in self.resources(resources).select("file", "line", "offset").iter_rows()
        ]


def _counted_on(frames: list[pl.DataFrame], firsts: list[int]) -> pl.DataFrame:
    """Frames one below the other, with ``_r`` counting on from one to the next."""
    whole = pl.concat(frames)
    added = np.repeat(np.array(firsts, dtype=np.uint64), [frame.height for frame in frames])
    return whole.with_columns(pl.col("_r") + pl.Series(added))
