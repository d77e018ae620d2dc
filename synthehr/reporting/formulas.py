"""How each metric is computed, taken from evaluation/README.md, so that page and report cannot disagree."""

from __future__ import annotations

import re
from functools import cache

from synthehr._files import shipped

__all__ = ["formula", "formulas"]

_HEADING = re.compile(r"^### ((?:`\w+`(?:, )?)+)", re.M)
_ITEM = re.compile(r"^- \*\*(?P<what>[^*]+)\*\*:? ?(?P<text>.*(?:\n(?!- |#|\n).*)*)", re.M)
_KEPT = ("Formula", "Range", "Reference", "Interval", "Pitfalls")


def formula(metric: str) -> tuple[tuple[str, str], ...]:
    """Formula, range, reference, interval and pitfalls of a metric, as (what, text); empty where it has none."""
    return formulas().get(metric, ())


@cache
def formulas() -> dict[str, tuple[tuple[str, str], ...]]:
    """What evaluation/README.md says of each metric that has a heading there."""
    page = shipped("evaluation/README.md").read_text(encoding="utf-8")
    places = list(_HEADING.finditer(page))
    told: dict[str, tuple[tuple[str, str], ...]] = {}
    for at, heading in enumerate(places):
        end = places[at + 1].start() if at + 1 < len(places) else len(page)
        text = page[heading.end() : end].split("\n## ")[0]
        items = tuple(
            (found["what"].rstrip(":"), _plain(found["text"]))
            for found in _ITEM.finditer(text)
            if found["what"].startswith(_KEPT)
        )
        told |= dict.fromkeys(re.findall(r"`(\w+)`", heading[1]), items)
    return told


def _plain(markdown: str) -> str:
    """The text without marks of code and emphasis; Markdown inside a page would show them."""
    return re.sub(r"`([^`]*)`", r"\1", " ".join(markdown.split())).replace("**", "")
