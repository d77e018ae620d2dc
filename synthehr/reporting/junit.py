"""``junit.xml``: a suite per section, a case per check.

A check that counts as failed or as inconclusive is a ``failure``, whose type tells which, so that a pipeline that
knows only green and red goes red; one that the suite lets stand undecided is ``skipped``. The form is valid under both
schemas in use: Jenkins's, whose name for an error differs from everyone else's (so there is none), and the older one
of Ant's reports, which wants a host, a time and outputs, and no attribute on the root.
"""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree as Tree

from synthehr.reporting.document import WITHHELD, CheckEntry, ReportDocument
from synthehr.reporting.escape import clipped, printable
from synthehr.reporting.numbers import limit, number, span
from synthehr.reporting.words import check_words

__all__ = ["render_junit"]

_MOST = 4000


def render_junit(document: ReportDocument, *, at: datetime | None = None) -> str:
    """The document as JUnit XML, written ``at`` this time (now, where left out)."""
    written = (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S")
    root = Tree.Element("testsuites")
    for place, section in enumerate(dict.fromkeys(check.section for check in document.checks)):
        checks = [check for check in document.checks if check.section == section]
        about = {
            "name": section,
            "package": "synthehr",
            "id": str(place),
            "time": "0",
            "timestamp": written,
            "hostname": "localhost",
        }
        suite = Tree.SubElement(root, "testsuite", about | _counts(checks))
        properties = Tree.SubElement(suite, "properties")
        Tree.SubElement(properties, "property", name="suite", value=printable(document.suite))
        Tree.SubElement(properties, "property", name="audience", value=document.audience)
        for check in checks:
            _add_case(suite, check)
        Tree.SubElement(suite, "system-out").text = printable(document.stamp)
        Tree.SubElement(suite, "system-err")
    Tree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Tree.tostring(root, encoding="unicode") + "\n"


def _counts(checks: list[CheckEntry]) -> dict[str, str]:
    tags = [_tag(check) for check in checks]
    counts = {"tests": len(checks), "failures": tags.count("failure"), "errors": 0, "skipped": tags.count("skipped")}
    return {name: str(count) for name, count in counts.items()}


def _tag(check: CheckEntry) -> str | None:
    if check.counts_as != "pass":
        return "failure"
    return "skipped" if check.verdict != "pass" else None


def _add_case(suite: Tree.Element, check: CheckEntry) -> None:
    name = " ".join(printable(clipped(check.id, 400)).split())
    case = Tree.SubElement(suite, "testcase", classname=f"synthehr.{check.section}", name=name, time="0")
    tag = _tag(check)
    if tag is not None:
        about = {"message": _message(check)} | ({"type": str(check.verdict)} if tag == "failure" else {})
        told = Tree.SubElement(case, tag, about)
        told.text = printable(clipped(f"{check.waiver} {check.why}".strip(), _MOST))


def _message(check: CheckEntry) -> str:
    """Value, bound and why, on one line; the bound alone where the numbers are withheld."""
    if check.why == WITHHELD:
        return " ".join(printable(f"{check_words(check)} [{limit(check)}]").split())
    numbers = f"value {number(check.value)} ({span(check.ci)}), reference {number(check.reference)}, {limit(check)}"
    return " ".join(printable(clipped(f"{check_words(check)} [{numbers}]", _MOST)).split())
