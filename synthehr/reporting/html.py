"""``report.html``: one file that opens from disk, with no script and no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

from pydantic import JsonValue

from synthehr.evaluation.findings import ColumnProfile
from synthehr.reporting.document import CheckEntry, ReportDocument
from synthehr.reporting.escape import printable
from synthehr.reporting.figures import copies_forest, gauge, heat_map, outcome_forest, roc_points
from synthehr.reporting.words import (
    METRIC_WORDS,
    NOT_PROVEN,
    SECTION_TITLES,
    VERDICT_WORDS,
    check_words,
    let_stand,
    power,
    promise,
    thousands,
    verdict_sentence,
)

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render_html"]

_OPEN_CARDS = 12
_NONE = "\u2013"
_MINUS = "\u2212"
_ORDER = ("fail", "inconclusive", "pass")

# The template tells these in its own words.
_TOLD_ALREADY = {"suite", "seed", "release_digest"}


def render_html(document: ReportDocument) -> str:
    """The document as one HTML file. Every value in it is escaped."""
    sections = document.sections
    attention = [check for check in document.checks if check.counts_as != "pass"]
    attention.sort(key=lambda check: _ORDER.index(check.counts_as))
    cards = sorted(sections.columns, key=lambda column: -(column.distance - column.reference))
    page = _templates().get_template("report.html.j2")
    text = page.render(
        document=document,
        sections=sections,
        attention=attention,
        let_stand=let_stand(document),
        verdict_sentence=verdict_sentence(document),
        promise=promise(document.privacy),
        not_proven=NOT_PROVEN,
        verdict_words=VERDICT_WORDS,
        cards=cards[:_OPEN_CARDS],
        more_cards=cards[_OPEN_CARDS:],
        broken=[one for one in sections.violations if one.synthetic > 0 or one.real > 0],
        heat=None if sections.pairs is None else heat_map(sections.pairs),
        outcomes=outcome_forest(sections.outcomes) if sections.outcomes else None,
        copies=copies_forest(sections.copies) if sections.copies else None,
        provenance=[row for row in _flat(document.provenance) if row[0] not in _TOLD_ALREADY],
        asked={check.metric for check in document.checks},
        groups=[
            (title, [check for check in document.checks if check.section == section])
            for section, title in SECTION_TITLES.items()
        ],
    )
    return printable(text)


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("synthehr.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": _number,
        "percent": _percent,
        "people": thousands,
        "points": _points,
        "power": power,
        "scope": _scope,
    }
    environment.globals |= {
        "bars": _bars,
        "check_words": check_words,
        "gauge": gauge,
        "limit": _limit,
        "metric_words": METRIC_WORDS,
        "roc_points": roc_points,
    }
    return environment


def _number(value: float | None) -> str:
    if value is None:
        return _NONE
    shown = f"{value:.3f}"
    return ("0.000" if float(shown) == 0 else shown).replace("-", _MINUS)


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    shown = f"{100 * share:.2f}"
    return ("0.00" if float(shown) == 0 else shown).replace("-", _MINUS) + " %"


def _scope(scope: str | Sequence[str]) -> str:
    return scope if isinstance(scope, str) else " \u00d7 ".join(scope)


def _limit(check: CheckEntry) -> str:
    what = "excess " if check.statistic == "excess" else ""
    return f"{what}{'≤' if check.op == '<=' else '≥'} {check.bound:g}"


def _bars(column: ColumnProfile) -> list[dict[str, float | str]]:
    """One row a bin: label, the two shares, and the lengths of their bars in percent of the longest."""
    longest = max(*column.train, *column.synthetic, 1e-9)
    return [
        {
            "label": label,
            "real": real,
            "synthetic": synthetic,
            "real_length": round(100 * real / longest, 1),
            "synthetic_length": round(100 * synthetic / longest, 1),
        }
        for label, real, synthetic in zip(column.labels, column.train, column.synthetic, strict=True)
    ]


def _flat(values: Mapping[str, JsonValue], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name} \u203a ")
        elif isinstance(value, list):
            yield name, ", ".join(_NONE if one is None else str(one) for one in value) or _NONE
        else:
            yield name, _NONE if value is None else str(value)
