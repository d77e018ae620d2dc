"""One piece of a source turned into rows: parse, judge, run the views, and keep only what they made.

This runs in as many processes as there are; nothing of a resource outlives its turn but rows, keys and positions.
"""

from __future__ import annotations

import gc
import gzip
import io
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from synthehr.connectors.fhir.bundles import Entry, entries_of, entry_at, spans_of, type_at_start
from synthehr.connectors.fhir.cells import WRONG_SHAPE
from synthehr.connectors.fhir.consent import consent_record
from synthehr.connectors.fhir.extracted import VIEW_ERRORS, Extracted, Turn, name_of
from synthehr.connectors.fhir.resources import is_resource_type, made_r4
from synthehr.connectors.fhir.sources import Piece
from synthehr.connectors.fhir.views import CompiledView, compile_view
from synthehr.connectors.fhir.viewset import TableView, ViewSet

__all__ = ["Extractor"]

_NOT_JSON = "is not valid JSON"
_TOO_DEEP = "is nested too deeply"
_NO_RESOURCE = "is no FHIR resource: it needs a resourceType"
_UNKNOWN_TYPE = "has a resourceType that FHIR does not know"
_BROKEN_BUNDLE = "has a bundle entry that is no resource"
_UNREADABLE = "is a file that cannot be read"
_DAMAGED = "stands where the gzip file is cut short or damaged"
_BOM = b"\xef\xbb\xbf"
_READ_AT_ONCE = 1 << 20  # bytes; a line of a bundle is about as long


class Extractor:
    """Reads pieces through a set of views.

    Args:
        views: what to make rows of.
        consents: whether Consent resources are read.
        secret: of the run, in the hashes of names.
    """

    def __init__(self, views: ViewSet, *, consents: bool, secret: int) -> None:
        self._secret = secret
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
        turn = Turn(piece, self._views, self._lookups, secret=self._secret)
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

    def _document(self, path: Path, turn: Turn) -> None:
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

    def _lines(self, piece: Piece, path: Path, turn: Turn) -> None:
        number, offset = 0, piece.start
        for number, line in enumerate(_lines_of(piece, path), start=1):
            record = line.removeprefix(_BOM) if offset == 0 else line
            if not record.isspace():
                self._record(record, turn, line=number, offset=offset)
            offset += len(line)
            turn.out.lines += line.endswith(b"\n")
        if piece.broken:
            turn.refuse(_DAMAGED, line=turn.out.lines + 1, offset=offset)

    def _record(self, data: bytes, turn: Turn, *, line: int, offset: int) -> None:
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

    def _bundle(self, data: bytes, turn: Turn, *, line: int, offset: int) -> bool:
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

    def _entry(self, entry: Entry, turn: Turn, *, line: int, offset: int) -> None:
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
        except VIEW_ERRORS:
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
                reference["reference"] = f"{name_of(resource, kind, full_url)}{literal}"


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
    with path.open("rb", buffering=_READ_AT_ONCE) as raw:
        raw.seek(piece.start)
        left = piece.stop - piece.start
        while left > 0:
            line = raw.readline(left)
            if not line:
                return
            yield line
            left -= len(line)
