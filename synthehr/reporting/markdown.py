"""``report.md``: one screen for a pull request."""

from __future__ import annotations

from synthehr.reporting.document import CheckEntry, ReportDocument
from synthehr.reporting.escape import clipped, markdown_text
from synthehr.reporting.words import (
    SECTION_TITLES,
    VERDICT_WORDS,
    check_words,
    is_audit,
    let_stand,
    metric_words,
    verdict_sentence,
    waived,
)

__all__ = ["render_markdown"]

_ROWS = 12
_SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "❔"}


def render_markdown(document: ReportDocument) -> str:
    """The document as Markdown: verdict, promise, what did not pass, and counts."""
    what = "Audit of epsilon" if is_audit(document) else "Synthetic cohort"
    title = f"# {_SIGNS[document.verdict]} {what}: {VERDICT_WORDS[document.verdict].lower()}"
    lines = [title, "", markdown_text(verdict_sentence(document)), "", _promise(document), ""]
    open_ones = [check for check in document.checks if check.counts_as != "pass"]
    open_ones.sort(key=lambda check: ("fail", "inconclusive", "pass").index(check.counts_as))
    if open_ones:
        public = document.audience == "public"
        names = () if public else ("Synthetic", "Other real patients")
        lines += [
            f"| {' | '.join(('', 'Check', 'Found', *names, 'Bound'))} |",
            f"|---|---|---|{'---:|' * len(names)}---:|",
        ]
        lines += [_row(check, numbers=not public) for check in open_ones[:_ROWS]]
        if len(open_ones) > _ROWS:
            lines.append(f"| | … | {len(open_ones) - _ROWS} more in report.html |{' |' * len(names)} |")
        lines.append("")
    if let_stand(document):
        lines += [markdown_text(let_stand(document)), ""]
    for check in waived(document)[:_ROWS]:
        lines += [f"⚠️ {markdown_text(check.id)} ({check.verdict}): {markdown_text(clipped(check.waiver, 400))}", ""]
    lines += [_counts(document), "", f"_{markdown_text(document.stamp)}_", ""]
    return "\n".join(lines)


def _promise(document: ReportDocument) -> str:
    privacy = document.privacy
    if not privacy.claimed or privacy.epsilon is None or privacy.delta is None:
        return f"**No privacy guarantee.** {markdown_text(privacy.why_not or '')}"
    unit = markdown_text(privacy.unit or "row")
    bound = privacy.audited_epsilon_lower_bound
    audit = "No audit ran." if bound is None else f"An audit certified an epsilon of at least {bound:.3g}."
    return f"**Promised:** epsilon {privacy.epsilon:g}, delta {privacy.delta:g}, for every {unit}. {audit}"


def _row(check: CheckEntry, *, numbers: bool) -> str:
    scope = " \u00d7 ".join(check.scope) if isinstance(check.scope, tuple) else check.scope
    title = metric_words(check.metric).title + ("" if scope == "all" else f" ({scope})")
    sign = "≤" if check.op == "<=" else "≥"
    limit = f"{'excess ' if check.statistic == 'excess' else ''}{sign} {check.bound:g}"
    found = (check.value, check.reference) if numbers else ()
    told = ("\u2013" if number is None else f"{number:.3f}" for number in found)
    cells = (_SIGNS[check.verdict], markdown_text(title), markdown_text(check_words(check)), *told, limit)
    return f"| {' | '.join(cells)} |"


def _counts(document: ReportDocument) -> str:
    told = []
    for section in dict.fromkeys(check.section for check in document.checks):
        verdicts = [check.verdict for check in document.checks if check.section == section]
        told.append(f"{SECTION_TITLES[section]} {verdicts.count('pass')}/{len(verdicts)}")
    return "Passed: " + " · ".join(told)
