"""A bundle taken apart without parsing the entries that nobody wants.

Half the bytes of a patient's record are claims and documents. Where a bundle is written as every generator and server
writes it (``fullUrl`` first, then ``resource`` with ``resourceType`` first), the types of its entries are found by a
search for bytes, and only the wanted entries are parsed. Any other bundle is parsed whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import orjson

__all__ = ["Entry", "entries_of", "split_bundle", "type_at_start"]

_ENTRY = re.compile(rb'\{\s*"fullUrl"\s*:\s*"[^"\\]*"\s*,\s*"resource"\s*:\s*\{\s*"resourceType"\s*:\s*"([A-Za-z]+)"')
_FULL_URL = b'"fullUrl"'
_RESOURCE = b'"resource"'
_TYPE = re.compile(rb'\s*\{\s*"resourceType"\s*:\s*"([A-Za-z]+)"')
_NESTING = frozenset({"Bundle", "Parameters"})
_SPACE = b" \t\r\n"


class Entry(NamedTuple):
    """One resource of a bundle; ``resource`` is None where its type is not wanted and it was not parsed."""

    type: str
    full_url: str | None
    resource: Any
    offset: int


def type_at_start(data: bytes) -> str | None:
    """The type of a resource whose JSON begins with it, else None."""
    found = _TYPE.match(data)
    return found.group(1).decode() if found is not None else None


def split_bundle(data: bytes, *, wanted: Callable[[str], bool]) -> list[Entry] | None:
    """The entries of a bundle with the wanted ones parsed, or None where it must be parsed whole.

    The first and the last entry are parsed with the bundle around them, so that a bundle that is cut short or is no
    bundle is seen. An entry that is not wanted is taken for well-formed.
    """
    found = _found(data)
    if len(found) < 3 or any(kind in _NESTING for _, kind in found):
        return None
    head, tail = found[0][0], found[-1][0]
    shell = _object(data[:head] + data[tail:])
    if shell is None or shell.get("resourceType") != "Bundle" or len(shell.get("entry") or ()) != 1:
        return None
    entries = []
    for (start, kind), (end, _) in pairwise(found):
        if not wanted(kind):
            entry = None if _hides_another(data, start, end) else Entry(kind, None, None, start)
        else:
            piece = data[start:end].rstrip(_SPACE)
            parsed = _object(piece[:-1]) if piece.endswith(b",") else None
            entry = None if parsed is None else _entry(parsed, kind=kind, offset=start)
        if entry is None:
            return None
        entries.append(entry)
    return [*entries, _entry(shell["entry"][0], kind=found[-1][1], offset=tail)]


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
            yield _entry(entry, kind=resource.get("resourceType"), offset=0)


def _found(data: bytes) -> list[tuple[int, str]]:
    """Where entries begin, and the types of their resources."""
    found = []
    at = data.find(_FULL_URL)
    while at != -1:
        start = data.rfind(b"{", max(0, at - 64), at)
        match = _ENTRY.match(data, start) if start != -1 else None
        if match is None:
            return []
        found.append((start, match.group(1).decode()))
        at = data.find(_FULL_URL, match.end())
    return found


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _hides_another(data: bytes, start: int, end: int) -> bool:
    """Whether behind the entry at ``start`` stands one without a fullUrl."""
    return data.find(_RESOURCE, data.index(_RESOURCE, start) + len(_RESOURCE), end) != -1


def _entry(entry: Any, *, kind: Any, offset: int) -> Entry:
    full_url = entry.get("fullUrl")
    return Entry(
        kind if isinstance(kind, str) else "",
        full_url if isinstance(full_url, str) else None,
        entry.get("resource"),
        offset,
    )
