"""``junit.xml``: a suite per section, a case per check.

A check that counts as failed is a ``failure``, one that counts as inconclusive an ``error`` (so that a
pipeline that knows only green and red goes red), one that the suite lets stand undecided is ``skipped``.
"""

from __future__ import annotations

from xml.etree import ElementTree as Tree

from synthehr.reporting.document import CheckEntry, ReportDocument
from synthehr.reporting.escape import printable
from synthehr.reporting.words import check_words

__all__ = ["render_junit"]


def render_junit(document: ReportDocument) -> str:
    """The document as JUnit XML."""
    root = Tree.Element("testsuites", name=printable(f"synthehr {document.suite}"))
    for section in dict.fromkeys(check.section for check in document.checks):
        checks = [check for check in document.checks if check.section == section]
        suite = Tree.SubElement(root, "testsuite", {"name": section, "time": "0"} | _counts(checks))
        for check in checks:
            _add_case(suite, check)
    whole = _counts(list(document.checks))
    root.attrib.update(whole)
    Tree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Tree.tostring(root, encoding="unicode") + "\n"


def _counts(checks: list[CheckEntry]) -> dict[str, str]:
    tags = [_tag(check) for check in checks]
    counts = {"tests": len(checks), "failures": tags.count("failure"), "errors": tags.count("error")}
    return {name: str(count) for name, count in (counts | {"skipped": tags.count("skipped")}).items()}


def _tag(check: CheckEntry) -> str | None:
    if check.counts_as == "fail":
        return "failure"
    if check.counts_as == "inconclusive":
        return "error"
    return "skipped" if check.verdict == "inconclusive" else None


def _add_case(suite: Tree.Element, check: CheckEntry) -> None:
    case = Tree.SubElement(suite, "testcase", classname=f"synthehr.{check.section}", name=printable(check.id), time="0")
    tag = _tag(check)
    if tag is not None:
        message = " ".join(printable(check_words(check)).split())
        told = Tree.SubElement(case, tag, message=message)
        if tag != "skipped":
            told.set("type", check.verdict)
        told.text = printable(check.why)
