"""A schema that other tools describe already: SDV's metadata and suites of Great Expectations, in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthehr.schema.draft import Draft
from synthehr.schema.expectations import schema_from_suites
from synthehr.schema.files import load_schema
from synthehr.schema.sdv import schema_of

__all__ = ["described"]

_LARGEST = 64 << 20  # bytes; records in JSON that are larger are not loaded to find that they are no metadata
_FROM_SDV = (
    "From SDV's metadata. Ranges and values that it holds may have been read off the records, so that they are left "
    "out here: they are bought from the budget unless you declare them."
)
_FROM_GX = "From suites of Great Expectations, whose bounds and values may have been read off the records."


def described(source: str | Path) -> Draft | None:
    """The draft that a JSON file, or a folder of them, of another tool makes; None where it is of none.

    Raises:
        SchemaError: it is of one of the tools, but cannot be carried over.
    """
    path = Path(source)
    files = [path] if path.is_file() else sorted(path.glob("*.json")) if path.is_dir() else []
    if not files or any(file.suffix != ".json" for file in files):
        return None
    contents = {file.stem: _json(file) for file in files}
    if not all(isinstance(entry, Mapping) for entry in contents.values()):
        return None
    first = next(iter(contents.values()))
    if len(contents) == 1 and ("METADATA_SPEC_VERSION" in first or {"tables", "relationships"} <= set(first)):
        return _unreviewed(schema_of(first).model_dump(mode="json", exclude_defaults=True), notes=[_FROM_SDV])
    if all("expectations" in entry for entry in contents.values()):
        schema, left = schema_from_suites(contents)
        notes = [_FROM_GX, *([f"Not carried over: {'; '.join(left)}."] if left else [])]
        return _unreviewed(schema.model_dump(mode="json", exclude_defaults=True), notes=notes)
    return None


def _unreviewed(document: Mapping[str, Any], *, notes: list[str]) -> Draft:
    return Draft(schema=load_schema({**document, "reviewed": False}), reasons={}, notes=tuple(notes))


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST:
            return None
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, ValueError, RecursionError):
        return None
