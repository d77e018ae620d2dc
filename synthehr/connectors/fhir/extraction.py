"""One piece of a source turned into rows: parse, judge, run the views, and keep only what they made.

This runs in as many processes as there are; nothing of a resource outlives its turn but rows, keys and positions.
"""

from __future__ import annotations

import gc
import gzip
import io
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import orjson
import polars as pl

from synthehr.connectors.fhir.badlines import BadRecord
from synthehr.connectors.fhir.bundles import Entry, entries_of, entry_at, spans_of, type_at_start
from synthehr.connectors.fhir.cells import (
    MOST_BYTES_OF_TEXT,
    WRONG_SHAPE,
    column_of,
    dtype_of_fhir,
    longest_text,
    too_long,
)
from synthehr.connectors.fhir.consent import ConsentRecord, consent_record
from synthehr.connectors.fhir.references import aliases_of, by_id, read_references
from synthehr.connectors.fhir.resources import is_resource_type, made_r4
from synthehr.connectors.fhir.sources import Piece
from synthehr.connectors.fhir.views import CompiledView, compile_view
from synthehr.connectors.fhir.viewset import REFERENCES, TableView, ViewColumnRole, ViewSet
from synthehr.errors import DataError

__all__ = ["Extracted", "Extractor"]

_NOT_JSON = "is not valid JSON"
_TOO_DEEP = "is nested too deeply"
_NO_RESOURCE = "is no FHIR resource: it needs a resourceType"
_UNKNOWN_TYPE = "has a resourceType that FHIR does not know"
_BROKEN_BUNDLE = "has a bundle entry that is no resource"
_UNREADABLE = "is a file that cannot be read"
_DAMAGED = "stands where the gzip file is cut short or damaged"
_BOM = b"\xef\xbb\xbf"
_VIEW_ERRORS = (DataError, AttributeError, TypeError, ValueError, KeyError, IndexError, RecursionError)


@dataclass(slots=True, kw_only=True)
class Extracted:
    """What one piece holds.

    Attributes:
        piece: its number.
        file: number of its (first) file.
        lines: lines in it; none where its files are one record each.
        records: resources met, bad ones included.
        numbers: how many numbers of resources were given out.
        searched: whether some reference goes by an identifier.
        absolute: whether some reference may be found by its type and id alone.
        tables: rows by view, with ``_r``, the number of the resource in the piece; references as
            :func:`synthehr.connectors.fhir.references.read_references` keeps them.
        resources: of each resource that was read: ``_r``, type, name (``Type/id``) and its hash (contained ones have
            none), file, line in the piece, offset.
        aliases: all names of each resource that others may point to.
        types: resources by type that were read or passed over, without bad ones.
        consents: what the Consent resources say.
        bad: what was left out; lines are counted within the piece.
    """

    piece: int
    file: int
    lines: int = 0
    records: int = 0
    numbers: int = 0
    searched: bool = False
    absolute: bool = False
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)
    resources: pl.DataFrame = field(default_factory=pl.DataFrame)
    aliases: pl.DataFrame = field(default_factory=pl.DataFrame)
    types: Counter[str] = field(default_factory=Counter)
    consents: list[ConsentRecord] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)


Mark: TypeAlias = tuple[int, Counter[str], list[tuple[list[Any], int]]]


class Extractor:
    """Reads pieces through a set of views.

    Args:
        views: what to make rows of.
        consents: whether Consent resources are read.
    """

    def __init__(self, views: ViewSet, *, consents: bool) -> None:
        self._views: dict[str, list[tuple[TableView, CompiledView]]] = defaultdict(list)
        self._lookups: dict[str, list[tuple[TableView, CompiledView]]] = defaultdict(list)
        for view in views.tables.values():
            self._views[view.resource].append((view, compile_view(view.definition, reference_reader=_as_it_stands)))
        for view in views.lookups.values():
            self._lookups[view.resource].append((view, compile_view(view.definition, reference_reader=_as_it_stands)))
        self._targets = views.targets
        self._consents = consents
        self._wanted = views.types | ({"Consent"} if consents else frozenset())
        self._references = {
            kind: {c.element: c.target for view, _ in by_type for c in view.columns if c.element is not None}
            for kind, by_type in self._views.items()
        }

    def wants(self, kind: str) -> bool:
        """Whether resources of this type are parsed; unknown types are, so that they are reported."""
        return kind in self._wanted or not is_resource_type(kind)

    def read(self, piece: Piece) -> Extracted:
        """Everything that the views make of a piece."""
        turn = _Turn(piece, self._views, self._lookups)
        collecting = gc.isenabled()
        gc.disable()  # resources hold no cycles, and looking for some costs a fifth of the time
        try:
            for file, path in piece.documents:
                turn.file = file
                self._document(path, turn)
            if piece.path is not None:
                self._lines(piece, piece.path, turn)
            return turn.finish()
        finally:
            if collecting:
                gc.enable()

    def _document(self, path: Path, turn: _Turn) -> None:
        try:
            data = path.read_bytes()
            if path.suffix == ".gz":
                data = gzip.decompress(data)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            turn.refuse(_DAMAGED, line=1, offset=0)
        except OSError:
            turn.refuse(_UNREADABLE, line=1, offset=0)
        else:
            self._record(data.removeprefix(_BOM), turn, line=1, offset=0)

    def _lines(self, piece: Piece, path: Path, turn: _Turn) -> None:
        number, offset = 0, piece.start
        for number, line in enumerate(_lines_of(piece, path), start=1):
            record = line.removeprefix(_BOM) if offset == 0 else line
            if not record.isspace():
                self._record(record, turn, line=number, offset=offset)
            offset += len(line)
            turn.out.lines += line.endswith(b"\n")
        if piece.broken:
            turn.refuse(_DAMAGED, line=turn.out.lines + 1, offset=offset)

    def _record(self, data: bytes, turn: _Turn, *, line: int, offset: int) -> None:
        kind = type_at_start(data)
        if kind is not None and kind != "Bundle" and not self.wants(kind):
            turn.pass_over(kind)
            return
        if kind == "Bundle" and self._bundle(data, turn, line=line, offset=offset):
            return
        turn.longest = max(turn.longest, len(data))
        try:
            resource = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            turn.refuse(_TOO_DEEP if "ecursion" in error.msg else _NOT_JSON, line=line, offset=offset)
            return
        if not isinstance(resource, dict):
            turn.refuse(_NO_RESOURCE, line=line, offset=offset)
            return
        if resource.get("resourceType") != "Bundle":
            kind = resource.get("resourceType")
            whole = Entry(kind if isinstance(kind, str) else "", None, resource)
            self._entry(whole, turn, line=line, offset=offset)
            return
        for inner in entries_of(resource):
            if inner is None:
                turn.refuse(_BROKEN_BUNDLE, line=line, offset=offset)
            else:
                self._entry(inner, turn, line=line, offset=offset)

    def _bundle(self, data: bytes, turn: _Turn, *, line: int, offset: int) -> bool:
        """Read a bundle entry by entry; one that must be parsed whole leaves no trace."""
        spans = spans_of(data)
        if spans is None:
            return False
        before = turn.mark()
        for span in spans:
            if span.type not in self._wanted and is_resource_type(span.type):
                turn.pass_over(span.type)
                continue
            entry = entry_at(data, span)
            if entry is None:
                turn.back_to(before)
                return False
            turn.longest = max(turn.longest, span.stop - span.start)
            self._entry(entry, turn, line=line, offset=offset + span.start)
        return True

    def _entry(self, entry: Entry, turn: _Turn, *, line: int, offset: int) -> None:
        kind, resource = entry.type, entry.resource
        if kind not in self._wanted:
            if not kind:
                turn.refuse(_NO_RESOURCE, line=line, offset=offset)
            elif is_resource_type(kind):
                turn.pass_over(kind)
            else:
                turn.refuse(_UNKNOWN_TYPE, line=line, offset=offset)
            return
        if not isinstance(resource, dict):
            turn.refuse(_NO_RESOURCE, line=line, offset=offset)
            return
        if kind == "Consent":
            consent = consent_record(resource)
            turn.out.searched |= "?" in (consent.patient or "")
            turn.out.absolute |= (consent.patient or "").startswith("http")
            turn.out.consents.append(consent)
            turn.pass_over(kind)
            return
        try:
            problem = made_r4(resource, kind)
        except _VIEW_ERRORS:
            problem = WRONG_SHAPE
        if problem is not None:
            turn.refuse(problem, line=line, offset=offset)
            return
        self._name_references(resource, kind, entry.full_url)
        turn.take(resource, kind, entry.full_url, line=line, offset=offset, target=kind in self._targets)

    def _name_references(self, resource: dict[str, Any], kind: str, full_url: str | None) -> None:
        """Write logical references as searches, and contained ones with their owner's name."""
        for element, target in self._references.get(kind, {}).items():
            reference = resource.get(element)
            if reference is None:
                continue
            literal = reference.get("reference")
            if literal is None:
                _by_identifier(reference, target)
            elif type(literal) is str and literal[:1] == "#":
                reference["reference"] = f"{_name(resource, kind, full_url)}{literal}"


class _References(NamedTuple):
    """The references of a piece: the row of each in what is kept of them."""

    places: dict[str | None, int | None]
    found: pl.DataFrame

    def columns(self, column: ViewColumnRole, cells: Iterable[str | None]) -> list[pl.Series]:
        """A column of references, and beside it what they are found by where the whole text is no name."""
        at = pl.Series([self.places[cell] for cell in cells], dtype=pl.UInt32)
        whole = self.found["subject" if column.role == "subject" else "exact"]
        return [whole.gather(at).alias(column.name), self.found["id"].gather(at).alias(by_id(column.name))]


class _Turn:
    """The rows of one piece while it is read."""

    def __init__(
        self,
        piece: Piece,
        views: dict[str, list[tuple[TableView, CompiledView]]],
        lookups: dict[str, list[tuple[TableView, CompiledView]]],
    ) -> None:
        self.out = Extracted(piece=piece.number, file=piece.file)
        self.file = piece.file
        self._views = views
        self._lookups = lookups
        self.longest = 0
        names = [view.name for by_type in (*views.values(), *lookups.values()) for view, _ in by_type]
        self._rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in names}
        self._at: dict[str, list[int]] = {name: [] for name in names}
        self._resources: list[tuple[str, str | None, int, int, int]] = []
        self._aliases: list[tuple[str, str, int]] = []

    def mark(self) -> Mark:
        """Where the turn stands, so that it can go back there."""
        found: list[list[Any]] = [*self._rows.values(), *self._at.values()]
        found += [self._resources, self._aliases, self.out.consents, self.out.bad]
        return self.out.records, self.out.types.copy(), [(each, len(each)) for each in found]

    def back_to(self, mark: Mark) -> None:
        """Forget all that came after the mark."""
        self.out.records, self.out.types, lists = mark
        for each, size in lists:
            del each[size:]

    def refuse(self, reason: str, *, line: int, offset: int) -> None:
        """Leave a record out."""
        self.out.records += 1
        self.out.bad.append(BadRecord(file=self.file, line=line, offset=offset, reason=reason))

    def pass_over(self, kind: str) -> None:
        """Count a resource that no view wants."""
        self.out.records += 1
        self.out.types[kind] += 1

    def take(
        self, resource: dict[str, Any], kind: str, full_url: str | None, *, line: int, offset: int, target: bool
    ) -> None:
        """Run the views on a resource, and keep its rows and names."""
        at = len(self._resources)
        made = []
        for view, compiled in (*self._views.get(kind, ()), *self._lookups.get(kind, ())):
            try:
                made.append((view.name, list(compiled.rows(resource))))
            except _VIEW_ERRORS:
                self.refuse(f"does not fit the view {view.name!r}", line=line, offset=offset)
                return
        self.pass_over(kind)
        name = _name(resource, kind, full_url)
        for name_of_view, rows in made:
            self._rows[name_of_view].extend(rows)
            self._at[name_of_view].extend([at] * len(rows))
        self._resources.append((kind, name, self.file, line, offset))
        if target:
            self._aliases.extend((alias, kind, at) for alias in _aliases(resource, kind, name, full_url))
        contained = resource.get("contained")
        if contained and name is not None:
            self._take_contained(contained, name, line=line, offset=offset)

    def _take_contained(self, contained: list[Any], owner: str, *, line: int, offset: int) -> None:
        """Rows of contained resources that others look up, under their owner's name."""
        for inner in contained:
            kind = inner.get("resourceType")
            if not isinstance(kind, str) or kind not in self._lookups or not isinstance(inner.get("id"), str):
                continue
            try:
                made = [(view.name, list(compiled.rows(inner))) for view, compiled in self._lookups[kind]]
            except _VIEW_ERRORS:
                continue
            at = len(self._resources)
            alias = f"{owner}#{inner['id']}"
            self._resources.append((kind, alias, self.file, line, offset))
            self._aliases.append((alias, kind, at))
            for view, rows in made:
                self._rows[view].extend(rows)
                self._at[view].extend([at] * len(rows))

    def finish(self) -> Extracted:
        """The rows as frames."""
        out, wrong = self.out, dict[int, str]()
        out.numbers = len(self._resources)
        made = {
            view.name: (view, list(zip(*self._rows[view.name], strict=True)))
            for by_type in (*self._views.values(), *self._lookups.values())
            for view, _ in by_type
            if self._rows[view.name]
        }
        references = self._references(made.values())
        out.tables = {name: self._frame(view, cells, references, wrong) for name, (view, cells) in made.items()}
        out.resources = self._resources_frame()
        if wrong:
            self._take_back(wrong)
        out.aliases = aliases_of([alias for alias in self._aliases if alias[2] not in wrong])
        return out

    def _resources_frame(self) -> pl.DataFrame:
        kind, name, file, line, offset = zip(*self._resources, strict=True) if self._resources else ((),) * 5
        names = pl.Series("name", name, dtype=pl.String)
        return pl.DataFrame(
            [
                pl.Series("_r", range(len(kind)), dtype=pl.UInt64),
                pl.Series("type", kind, dtype=pl.String),
                names,
                names.hash(seed=0).set(names.str.contains("#", literal=True), None).alias("hash"),
                pl.Series("file", file, dtype=pl.UInt32),
                pl.Series("line", line, dtype=pl.UInt32),
                pl.Series("offset", offset, dtype=pl.UInt64),
            ]
        )

    def _references(self, made: Iterable[tuple[TableView, list[tuple[Any, ...]]]]) -> _References:
        """All references of the piece, each once."""
        distinct: set[Any] = set()
        for view, cells in made:
            for column in view.with_role(*REFERENCES):
                distinct.update(cells[column.place])
        distinct.discard(None)
        places = dict(zip(distinct, range(len(distinct)), strict=True))
        found = read_references(places)
        self.out.searched |= bool(found["search"].any())
        self.out.absolute |= found["id"].null_count() < found.height
        return _References({None: None, **places}, found)

    def _frame(
        self, view: TableView, cells: list[tuple[Any, ...]], references: _References, wrong: dict[int, str]
    ) -> pl.DataFrame:
        at = self._at[view.name]
        made = [pl.Series("_r", at, dtype=pl.UInt64)]
        for column in view.columns:
            if column.role in REFERENCES:
                made += references.columns(column, cells[column.place])
            else:
                dtype = dtype_of_fhir(column.type)
                made.append(column_of(column.name, cells[column.place], dtype, at=at, wrong=wrong))
        frame = pl.DataFrame(made)
        if self.longest > MOST_BYTES_OF_TEXT and longest_text(frame) > MOST_BYTES_OF_TEXT:
            for series in made:
                wrong.update(too_long(series, at=at) if series.dtype == pl.String else {})
        return frame

    def _take_back(self, wrong: dict[int, str]) -> None:
        """Leave out resources of which a cell had the wrong type after all."""
        gone = pl.Series(list(wrong), dtype=pl.UInt64).implode()
        for at, reason in sorted(wrong.items()):
            kind, name, file, line, offset = self._resources[at]
            if name is not None and "#" in name:  # a contained resource: its owner counts, and stays
                continue
            self.out.types[kind] -= 1
            self.out.bad.append(BadRecord(file=file, line=line, offset=offset, reason=reason))
        self.out.tables = {name: frame.filter(~pl.col("_r").is_in(gone)) for name, frame in self.out.tables.items()}
        self.out.resources = self.out.resources.filter(~pl.col("_r").is_in(gone))


def _name(resource: dict[str, Any], kind: str, full_url: str | None) -> str | None:
    given = resource.get("id")
    return f"{kind}/{given}" if given else full_url


def _aliases(resource: dict[str, Any], kind: str, name: str | None, full_url: str | None) -> set[str]:
    """All the names that a reference may call a resource by."""
    names = {each for each in (name, full_url) if each is not None}
    for identifier in resource.get("identifier") or ():
        value, system = identifier.get("value"), identifier.get("system")
        if isinstance(value, str) and value:
            names.add(f"{kind}?identifier={value}")
            if isinstance(system, str):
                names.add(f"{kind}?identifier={system}|{value}")
            else:
                names.add(f"{kind}?identifier=|{value}")
    return names


def _as_it_stands(reference: Mapping[str, Any], kind: str | None) -> str | None:  # noqa: ARG001 - the compiler's signature
    """What getReferenceKey() gives while reading: the reference itself, for the index of all names to resolve."""
    text = reference.get("reference")
    return text if isinstance(text, str) else None


def _by_identifier(reference: dict[str, Any], target: str | None) -> None:
    """Write a logical reference as the search that it stands for."""
    identifier = reference.get("identifier")
    if isinstance(identifier, dict) and isinstance(identifier.get("value"), str):
        kind = reference.get("type")
        kind = kind if isinstance(kind, str) else target
        system = identifier.get("system")
        token = f"{system}|{identifier['value']}" if isinstance(system, str) else identifier["value"]
        reference["reference"] = f"{kind}?identifier={token}"


def _lines_of(piece: Piece, path: Path) -> Iterator[bytes]:
    """The lines of a piece, each with its newline."""
    if piece.data is not None:
        yield from io.BytesIO(piece.data)
        return
    with path.open("rb") as raw:
        raw.seek(piece.start)
        left = piece.stop - piece.start
        while left > 0:
            line = raw.readline(left)
            if not line:
                return
            yield line
            left -= len(line)
