"""FHIRPath's functions of one text. Each gets values that are there: a missing one makes the result empty before."""

from __future__ import annotations

import base64
import binascii
import functools
import html
import json
import re
from typing import Any

from synthehr.errors import DataError, SchemaError

__all__ = [
    "contains",
    "decode",
    "encode",
    "ends_with",
    "escape",
    "index_of",
    "last_index_of",
    "matches",
    "matches_full",
    "pattern",
    "replace",
    "replace_matches",
    "split",
    "starts_with",
    "substring",
    "unescape",
]

_ENCODINGS = ("hex", "base64", "urlbase64")


@functools.lru_cache(maxsize=256)
def pattern(text: str) -> re.Pattern[str]:
    """A regular expression: Python's dialect, ``.`` matching line ends too.

    Raises:
        SchemaError: it is not one.
    """
    try:
        return re.compile(text, re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise SchemaError(f"a FHIRPath expression has a regular expression that cannot be read: {error}") from error


def index_of(text: str, part: str) -> int:
    """Where ``part`` first begins, or -1."""
    return text.find(part)


def last_index_of(text: str, part: str) -> int:
    """Where ``part`` last begins, or -1."""
    return text.rfind(part)


def substring(text: str, start: int, length: int | None = None) -> str | None:
    """The text from ``start``; None if that is outside the text."""
    if not 0 <= start < len(text):
        return None
    return text[start:] if length is None else text[start : start + max(length, 0)]


def starts_with(text: str, part: str) -> bool:
    """Whether the text begins with ``part``."""
    return text.startswith(part)


def ends_with(text: str, part: str) -> bool:
    """Whether the text ends with ``part``."""
    return text.endswith(part)


def contains(text: str, part: str) -> bool:
    """Whether ``part`` is in the text."""
    return part in text


def replace(text: str, part: str, by: str) -> str:
    """The text with every ``part`` replaced."""
    return text.replace(part, by)


def matches(text: str, expression: str) -> bool:
    """Whether the expression matches anywhere in the text."""
    return pattern(expression).search(text) is not None


def matches_full(text: str, expression: str) -> bool:
    """Whether the expression matches the whole text."""
    return pattern(expression).fullmatch(text) is not None


def replace_matches(text: str, expression: str, by: str) -> str:
    """The text with every match replaced; ``$1`` and ``${name}`` are groups. An empty expression changes nothing."""
    if not expression:
        return text
    template = re.sub(r"\$(?:(\d+)|\{(\w+)\})", lambda m: rf"\g<{m[1] or m[2]}>", by.replace("\\", "\\\\"))
    try:
        return pattern(expression).sub(template, text)
    except (re.error, IndexError) as error:
        raise SchemaError(f"FHIRPath's replaceMatches() names a group that its expression lacks: {error}") from error


def split(text: str, separator: str) -> list[str]:
    """The parts between separators."""
    return text.split(separator) if separator else list(text)


def encode(text: str, encoding: str) -> str:
    """The text's UTF-8 as hex, base64 or urlbase64."""
    raw = text.encode()
    if encoding == "hex":
        return raw.hex()
    if encoding == "base64":
        return base64.b64encode(raw).decode()
    if encoding == "urlbase64":
        return base64.urlsafe_b64encode(raw).decode()
    raise SchemaError(f"FHIRPath's encode() knows {', '.join(_ENCODINGS)} and not '{encoding}'")


def decode(text: str, encoding: str) -> str:
    """The text whose UTF-8 was written as hex, base64 or urlbase64."""
    if encoding not in _ENCODINGS:
        raise SchemaError(f"FHIRPath's decode() knows {', '.join(_ENCODINGS)} and not '{encoding}'")
    try:
        if encoding == "hex":
            return bytes.fromhex(text).decode()
        return (
            base64.b64decode(text, validate=True) if encoding == "base64" else base64.urlsafe_b64decode(text)
        ).decode()
    except (ValueError, binascii.Error) as error:
        raise DataError(f"FHIRPath's decode() was given a text that is not {encoding}") from error


def escape(text: str, target: str) -> str:
    """The text as it stands inside HTML or a JSON string."""
    if target == "html":
        return html.escape(text, quote=True)
    if target == "json":
        return json.dumps(text, ensure_ascii=False)[1:-1]
    raise SchemaError(f"FHIRPath's escape() knows html and json and not '{target}'")


def unescape(text: str, target: str) -> str:
    """The text that stands escaped inside HTML or a JSON string."""
    if target == "html":
        return html.unescape(text)
    if target != "json":
        raise SchemaError(f"FHIRPath's unescape() knows html and json and not '{target}'")
    return re.sub(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})', lambda match: str(json.loads(f'"{match[0]}"')), text)


def text_of(value: Any) -> str:
    """The value, if it is a text.

    Raises:
        DataError: it is not.
    """
    if type(value) is not str:
        raise DataError("a FHIRPath expression needs a text and a record has something else there")
    return value
