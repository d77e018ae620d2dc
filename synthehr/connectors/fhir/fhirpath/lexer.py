"""Tokens of FHIRPath (HL7 FHIRPath 2.0, the normative grammar's lexical rules)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from synthehr.errors import SchemaError

__all__ = ["Token", "tokenize"]

MAX_LENGTH = 20_000
"""Longest expression read, in characters: a bound on the work that one view can ask of the compiler."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token: its kind, the text it stands for (escapes resolved) and where it begins."""

    kind: str
    text: str
    at: int


_PATTERN = re.compile(
    r"""
    (?P<space>\s+|//[^\r\n]*|/\*.*?\*/)
  | (?P<open_comment>/\*)
  | (?P<datetime>@\d{4}(?:-\d{2}(?:-\d{2})?)?T(?:\d{2}(?::\d{2}(?::\d{2}(?:\.\d+)?)?)?(?:Z|[+-]\d{2}:\d{2})?)?)
  | (?P<time>@T\d{2}(?::\d{2}(?::\d{2}(?:\.\d+)?)?)?)
  | (?P<date>@\d{4}(?:-\d{2}(?:-\d{2})?)?)
  | (?P<decimal>\d+\.\d+)
  | (?P<integer>\d+)
  | (?P<string>'(?:[^'\\]|\\.)*')
  | (?P<delimited>`(?:[^`\\]|\\.)*`)
  | (?P<variable>\$(?:this|index|total)\b)
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<symbol><=|>=|!=|!~|[-+*/&|=~<>().,\[\]{}%])
    """,
    re.VERBOSE | re.DOTALL,
)

_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "f": "\f", "\\": "\\", "/": "/", "'": "'", '"': '"', "`": "`"}


def _unescape(text: str, *, source: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match.group(1)
        if len(code) == 5:
            return chr(int(code[1:], 16))
        if code not in _ESCAPES:
            raise SchemaError(f"FHIRPath '{source}' has the unknown escape '\\{code}' in a string")
        return _ESCAPES[code]

    return _ESCAPE.sub(one, text)


def tokenize(source: str) -> list[Token]:
    """The tokens of ``source``, without white space and comments, and a last one of kind ``end``.

    Raises:
        SchemaError: a character or a string does not belong to the language.
    """
    if len(source) > MAX_LENGTH:
        raise SchemaError(f"a FHIRPath expression has {len(source)} characters; at most {MAX_LENGTH} are read")
    shown = " ".join(source.split())
    tokens: list[Token] = []
    at = 0
    while at < len(source):
        match = _PATTERN.match(source, at)
        if match is None or match.lastgroup == "open_comment":
            what = "an unfinished comment" if match else f"'{source[at]}', which begins nothing of the language,"
            raise SchemaError(f"FHIRPath '{shown}' has {what} at character {at + 1}")
        kind = match.lastgroup or ""
        text = match.group()
        if kind in ("string", "delimited"):
            text = _unescape(text[1:-1], source=shown)
        elif kind in ("date", "datetime", "time"):
            text = text[1:].removeprefix("T")
        if kind != "space":
            tokens.append(Token(kind=kind, text=text, at=at))
        at = match.end()
    tokens.append(Token(kind="end", text="", at=at))
    return tokens
