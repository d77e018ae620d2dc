"""Text made safe for the formats that a template does not escape."""

from __future__ import annotations

import re

__all__ = ["clipped", "markdown_text", "printable"]

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_DIRECTION = re.compile("[\u202a-\u202e\u2066-\u2069]")
_PUNCTUATION = re.compile(r"([\\`*_{}\[\]#|~@])")


def printable(text: str) -> str:
    """The text without characters that XML 1.0 forbids or that turn the direction of writing."""
    return _DIRECTION.sub("\ufffd", _FORBIDDEN.sub("\ufffd", text))


def clipped(text: str, most: int = 120) -> str:
    """The text, or its beginning with an ellipsis: a name of ten thousand letters must not push the rest away."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def markdown_text(text: str) -> str:
    """The text on one line, with everything that Markdown or HTML would read as markup made plain."""
    flat = " ".join(printable(text).split())
    entities = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _PUNCTUATION.sub(r"\\\1", entities).replace("://", ":&#47;/").replace("www.", "www&#46;")
