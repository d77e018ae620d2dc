"""``report.html``: one file that opens from disk, without network, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from pydantic import JsonValue

from synthehr.evaluation.findings import ColumnProfile
from synthehr.reporting.document import BoughtProfile, CheckEntry, ReportDocument
from synthehr.reporting.escape import clipped, printable
from synthehr.reporting.figures import gauge, sparkline
from synthehr.reporting.formulas import formula
from synthehr.reporting.numbers import NONE, limit, number, percent, points, scope_text, span
from synthehr.reporting.sections import build_sections
from synthehr.reporting.words import (
    SECTION_TITLES,
    VERDICT_WORDS,
    check_words,
    good_for,
    is_audit,
    let_stand,
    may_publish,
    metric_words,
    not_proven,
    power,
    promise,
    thousands,
    verdict_sentence,
    waived,
    worst_of_all,
)

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render_html", "templates"]

_ORDER = ("fail", "inconclusive", "pass")

# The template tells these in its own words.
_TOLD_ALREADY = {"suite", "seed", "release_digest"}


def render_html(document: ReportDocument) -> str:
    """The document as one HTML file. Every value in it is escaped."""
    attention = [check for check in document.checks if check.counts_as != "pass"]
    attention.sort(key=lambda check: _ORDER.index(check.counts_as))
    places = _places(document.checks)
    script = script_text()
    page = templates().get_template("report.html.j2")
    text = page.render(
        document=document,
        sizes=document.sections.sizes,
        attention=attention,
        let_stand=let_stand(document),
        waived=waived(document),
        verdict_sentence=verdict_sentence(document),
        may_publish=may_publish(document),
        good_for=good_for(document),
        is_audit=is_audit(document),
        worst=worst_of_all(document),
        promise=promise(document.privacy),
        not_proven=not_proven(document),
        parts=build_sections(document),
        provenance=[row for row in _flat(document.provenance) if row[0] not in _TOLD_ALREADY],
        metrics=[name for name in dict.fromkeys(check.metric for check in document.checks) if formula(name)],
        place=places.__getitem__,
        script=script,
        script_hash=_digest(script),
    )
    return printable(text)


def script_text() -> str:
    """The one script of the page: it sorts and filters the checks, and opens what a link points into."""
    return (files("synthehr.reporting") / "templates" / "report.js").read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """What the page's policy knows the script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _places(checks: Sequence[CheckEntry]) -> dict[str, str]:
    """The anchor of each check: the same for the same id, in every report that has no two ids alike."""
    taken: dict[str, str] = {}
    for check in checks:
        anchor = "check-" + re.sub(r"[^A-Za-z0-9_.-]+", "-", check.id)[:80].strip("-")
        known = set(taken.values())
        taken[check.id] = anchor if anchor not in known else f"{anchor}-{len(taken)}"
    return taken


@cache
def templates() -> Environment:
    """The templates of the page and its parts; every value that goes through them is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("synthehr.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clip": clipped,
        "number": number,
        "percent": percent,
        "people": thousands,
        "points": points,
        "power": power,
        "scope": scope_text,
        "span": span,
    }
    environment.globals |= {
        "bars": _bars,
        "spark": _spark,
        "check_words": check_words,
        "formula": formula,
        "gauge": gauge,
        "limit": limit,
        "metric_words": metric_words,
        "section_titles": SECTION_TITLES,
        "verdict_words": VERDICT_WORDS,
    }
    return environment


def _real(column: ColumnProfile | BoughtProfile) -> tuple[float, ...]:
    """The shares that the synthetic ones stand beside."""
    return column.train if isinstance(column, ColumnProfile) else column.bought


def _bars(column: ColumnProfile | BoughtProfile) -> list[dict[str, float | str]]:
    """One row a bin: label, the two shares, and the lengths of their bars in percent of the longest."""
    longest = max(*_real(column), *column.synthetic, 1e-9)
    return [
        {
            "label": label,
            "real": real,
            "synthetic": synthetic,
            "real_length": round(100 * real / longest, 1),
            "synthetic_length": round(100 * synthetic / longest, 1),
        }
        for label, real, synthetic in zip(column.labels, _real(column), column.synthetic, strict=True)
    ]


def _spark(column: ColumnProfile | BoughtProfile) -> tuple[str, str]:
    """The shares of the bins as two small paths, real and synthetic."""
    top = max(*_real(column), *column.synthetic, 1e-9)
    return sparkline(_real(column), top=top), sparkline(column.synthetic, top=top)


def _flat(values: Mapping[str, JsonValue], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name} \u203a ")
        elif isinstance(value, list):
            yield name, ", ".join(NONE if one is None else str(one) for one in value) or NONE
        else:
            yield name, NONE if value is None else str(value)
