"""Rows between the pieces they were read from and the tables they go into: in memory, or in a folder of parts."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from synthehr.connectors.fhir.badlines import BadRecord
from synthehr.connectors.fhir.consent import ConsentRecord
from synthehr.connectors.fhir.extraction import Extracted

__all__ = ["Part", "Spilled", "Spool", "spill"]

Part: TypeAlias = pl.DataFrame | Path
Spilled: TypeAlias = tuple[Extracted, dict[str, Path]]

_RESOURCES, _ALIASES = "+resources", "+aliases"


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
    """All that was read, pieces in order; resources are numbered through from 0 in ``_r``."""

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[Part, int, int]]] = defaultdict(list)
        self._file = -1
        self._lines = 0
        self._numbers = 0
        self._searched = False
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
        self.records += extracted.records
        self.types += extracted.types
        self.consents += extracted.consents

    def table(self, name: str) -> pl.LazyFrame | None:
        """The rows of a view, None where it made none."""
        parts = self._parts.get(name)
        if not parts:
            return None
        return _whole([(part, pl.col("_r") + first) for part, first, _ in parts])

    def aliases(self) -> pl.DataFrame:
        """All names that references may use: ``alias``, ``type``, ``_r``."""
        frame = self.table(_ALIASES)
        if frame is None:
            return pl.DataFrame(schema={"alias": pl.String, "type": pl.String, "_r": pl.UInt64})
        if not self._searched:  # nothing refers to anything by identifier: a third of the names is not needed
            frame = frame.filter(~pl.col("alias").str.contains("?identifier=", literal=True))
        return frame.collect(engine="streaming")

    def resources(self) -> pl.LazyFrame:
        """Each resource: ``_r``, type, name and its hash, file, line, offset."""
        parts = self._parts.get(_RESOURCES, ())
        if parts:
            return _whole([(part, [pl.col("_r") + first, pl.col("line") + lines]) for part, first, lines in parts])
        kinds = {
            "_r": pl.UInt64,
            "type": pl.String,
            "name": pl.String,
            "hash": pl.UInt64,
            "file": pl.UInt32,
            "line": pl.UInt32,
            "offset": pl.UInt64,
        }
        return pl.LazyFrame(schema=kinds)

    def places(self, resources: pl.Series, *, reason: str) -> list[BadRecord]:
        """Where these resources stand, as bad records."""
        if resources.is_empty():
            return []
        found = self.resources().filter(pl.col("_r").is_in(resources.implode())).sort("_r").collect(engine="streaming")
        return [
            BadRecord(file=file, line=line, offset=offset, reason=reason)
            for file, line, offset in found.select("file", "line", "offset").iter_rows()
        ]


def _whole(parts: list[tuple[Part, Any]]) -> pl.LazyFrame:
    """The parts one below the other, with columns counted on: what is in memory at once, else as a query."""
    if all(isinstance(part, pl.DataFrame) for part, _ in parts):
        held = [part.with_columns(counted) for part, counted in parts if isinstance(part, pl.DataFrame)]
        return pl.concat(held).lazy()
    scanned = [
        (part.lazy() if isinstance(part, pl.DataFrame) else pl.scan_parquet(part, glob=False)).with_columns(counted)
        for part, counted in parts
    ]
    return pl.concat(scanned, parallel=False)
