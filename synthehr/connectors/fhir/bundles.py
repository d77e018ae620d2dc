"""A bundle taken apart without parsing the entries that nobody wants.

Half the bytes of a patient's record are claims and documents. Where a bundle is written as every generator and server
writes it (``fullUrl`` first, then ``resource`` with ``resourceType`` first), the types of its entries are found by a
search for bytes, and only the wanted entries are parsed, one at a time. Any other bundle is parsed whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

__all__ = ["Entry", "Span", "entries_of", "entry_at", "spans_of", "type_at_start"]

_HEAD = re.compile(rb'\{\s*"fullUrl"\s*:\s*"[^"\\]*"\s*,\s*"resource"\s*:\s*\{\s*"resourceType"\s*:\s*"([A-Za-z]+)"')
_LONGEST_URL = 2048
_RESOURCE = b'"resource"'
_TYPE = re.compile(rb'\s*\{\s*"resourceType"\s*:\s*"([A-Za-z]+)"')
_NESTING = frozenset({"Bundle", "Parameters"})
_SPACE = b" \t\r\n"


class Span(NamedTuple):
    """Where an entry stands in a bundle, and the type of its resource; of the last also the entry itself."""

    type: str
    start: int
    stop: int
    last: Entry | None = None


class Entry(NamedTuple):
    """One resource of a bundle."""

    type: str
    full_url: str | None
    resource: Any


def type_at_start(data: bytes) -> str | None:
    """The type of a resource whose JSON begins with it, else None."""
    found = _TYPE.match(data)
    return found.group(1).decode() if found is not None else None


def spans_of(data: bytes) -> list[Span] | None:
    """The entries of a bundle, none of them parsed but the last; or None where the bundle must be parsed whole.

    The last entry is parsed with the bundle around the others, so that a bundle that is cut short or is no bundle is
    seen. An entry that nobody parses is taken for well-formed.
    """
    starts, types = [], []
    at = data.find(_RESOURCE)
    while at != -1:  # each must be that of an entry
        start = data.rfind(b"{", max(0, at - _LONGEST_URL), at)
        match = _HEAD.match(data, start) if start != -1 else None
        if match is None:
            return None
        starts.append(start)
        types.append(match[1])
        at = data.find(_RESOURCE, match.end())
    known = {kind: kind.decode() for kind in set(types)}
    if len(starts) < 3 or not _NESTING.isdisjoint(known.values()):
        return None
    shell = _object(data[: starts[0]] + data[starts[-1] :])
    if shell is None or shell.get("resourceType") != "Bundle" or len(shell.get("entry") or ()) != 1:
        return None
    spans = [
        Span(known[kind], start, stop) for kind, start, stop in zip(types[:-1], starts[:-1], starts[1:], strict=True)
    ]
    kind = known[types[-1]]
    return [*spans, Span(kind, starts[-1], len(data), _entry(shell["entry"][0], kind=kind))]


def entry_at(data: bytes, span: Span) -> Entry | None:
    """The entry of a bundle that stands there; None where it turns out not to be one, and all must be parsed whole."""
    if span.last is not None:
        return span.last
    piece = data[span.start : span.stop].rstrip(_SPACE)
    parsed = _object(piece[:-1]) if piece.endswith(b",") else None
    return None if parsed is None else _entry(parsed, kind=span.type)


def entries_of(bundle: dict[str, Any], *, depth: int = 0) -> Iterator[Entry | None]:
    """The entries of a parsed bundle, those of bundles inside it too; None for an entry that is no object.

    Entries without a resource (responses, deletions in a history) are passed over.
    """
    entries = bundle.get("entry")
    if entries is None:
        return
    if not isinstance(entries, list):
        yield None
        return
    for entry in entries:
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or (resource is not None and not isinstance(resource, dict)):
            yield None
        elif resource is None:
            continue
        elif resource.get("resourceType") == "Bundle" and depth < 8:
            yield from entries_of(resource, depth=depth + 1)
        else:
            yield _entry(entry, kind=resource.get("resourceType"))


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _entry(entry: dict[str, Any], *, kind: Any) -> Entry:
    full_url = entry.get("fullUrl")
    return Entry(
        kind if isinstance(kind, str) else "", full_url if isinstance(full_url, str) else None, entry.get("resource")
    )
