"""One report beside another, and a row of them in the order in which they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from synthehr.errors import ConfigError
from synthehr.reporting.blocks import Drawing
from synthehr.reporting.document import CheckEntry, ReportDocument
from synthehr.reporting.escape import markdown_text, printable
from synthehr.reporting.figures import Axis, Series, linear_axis, plot
from synthehr.reporting.html import templates
from synthehr.reporting.numbers import limit, number, span
from synthehr.reporting.words import VERDICT_WORDS

__all__ = ["Change", "Comparison", "compare", "render_trend", "trend_rows"]

Kind = Literal["worse", "better", "moved", "same", "new", "gone"]
_RANK = {"pass": 0, "inconclusive": 1, "fail": 2}
_ORDER: tuple[Kind, ...] = ("worse", "gone", "new", "better", "moved", "same")
_SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "❔"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One check in two reports.

    Attributes:
        kind: ``worse`` or ``better`` where what it counts as changed; ``moved`` where it did not, but the two
            intervals share no number; ``new`` and ``gone`` where only one report has it, or its bound is another.
    """

    id: str
    kind: Kind
    before: CheckEntry | None
    after: CheckEntry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two reports, check by check.

    Attributes:
        notes: what keeps the two from being quite comparable, in sentences.
        changes: worse ones first.
    """

    before: ReportDocument
    after: ReportDocument
    notes: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def worse(self) -> bool:
        """Whether a check counts as worse than before, or is gone."""
        return any(change.kind in {"worse", "gone"} for change in self.changes)

    def to_text(self) -> str:
        """For a terminal: the verdicts, and every check that is not the same."""
        lines = [f"verdict: {self.before.verdict} -> {self.after.verdict}", *self.notes]
        for change in self.changes:
            if change.kind != "same":
                lines.append(f"  {change.kind}: {change.id}: {_side(change.before)} -> {_side(change.after)}")
        same = sum(change.kind == "same" for change in self.changes)
        lines.append(f"{same} of {len(self.changes)} checks are the same")
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """For a pull request."""
        lines = [
            f"# Synthetic cohort: {self.before.verdict} → {self.after.verdict}",
            "",
            *(line for note in self.notes for line in (markdown_text(note), "")),
            "| | Check | Before | After |",
            "|---|---|---|---|",
        ]
        for change in self.changes:
            if change.kind != "same":
                cells = (change.kind, markdown_text(change.id), _signed(change.before), _signed(change.after))
                lines.append(f"| {' | '.join(cells)} |")
        same = sum(change.kind == "same" for change in self.changes)
        stamp = self.after.stamp if self.after.audience == "internal" else self.before.stamp
        lines += ["", f"{same} of {len(self.changes)} checks are the same.", "", f"_{markdown_text(stamp)}_", ""]
        return "\n".join(lines)

    def to_json(self) -> dict[str, JsonValue]:
        """For a program."""
        return {
            "verdict": [self.before.verdict, self.after.verdict],
            "notes": list(self.notes),
            "worse": self.worse,
            "checks": [
                {
                    "id": change.id,
                    "kind": change.kind,
                    "before": _numbers(change.before),
                    "after": _numbers(change.after),
                }
                for change in self.changes
            ],
        }


def compare(before: ReportDocument, after: ReportDocument) -> Comparison:
    """Two reports, check by check, matched by id and bound."""
    old = {check.id: check for check in before.checks}
    new = {check.id: check for check in after.checks}
    changes = [_change(name, old.get(name), new.get(name)) for name in dict.fromkeys((*old, *new))]
    changes.sort(key=lambda change: _ORDER.index(change.kind))
    notes = []
    if before.suite != after.suite:
        notes.append(f"The suites differ: {before.suite!r} and {after.suite!r}.")
    if before.audience != after.audience:
        notes.append("One report is the public form, which holds no numbers of its checks.")
    bounds = [name for name in old if name in new and _gate(old[name]) != _gate(new[name])]
    if bounds:
        notes.append(f"These checks are held against another bound than before: {', '.join(bounds)}.")
    if before.privacy.epsilon != after.privacy.epsilon or before.privacy.delta != after.privacy.delta:
        notes.append(f"The promise differs: {_promise(before)} -> {_promise(after)}.")
    return Comparison(before=before, after=after, notes=tuple(notes), changes=tuple(changes))


def trend_rows(documents: Sequence[ReportDocument]) -> list[tuple[str, list[CheckEntry | None]]]:
    """For each check id, in the order of the last report, its entry in every report; None where it has none.

    Raises:
        ConfigError: there is not even one report.
    """
    if not documents:
        raise ConfigError("a trend needs at least one report")
    ids = dict.fromkeys(check.id for document in reversed(documents) for check in document.checks)
    entries = [{check.id: check for check in document.checks} for document in documents]
    return [(name, [by_id.get(name) for by_id in entries]) for name in ids]


def render_trend(documents: Sequence[ReportDocument], *, names: Sequence[str]) -> str:
    """The reports as one HTML page: a table of verdicts and a plot for each check over the runs."""
    rows = trend_rows(documents)
    drawings = [drawing for name, entries in rows if (drawing := _drawing(name, entries)) is not None]
    internal = [document.stamp for document in documents if document.audience == "internal"]
    page = templates().get_template("trend.html.j2")
    text = page.render(
        names=names,
        documents=documents,
        rows=rows,
        drawings=drawings,
        stamp=internal[-1] if internal else documents[-1].stamp,
    )
    return printable(text)


def _change(name: str, before: CheckEntry | None, after: CheckEntry | None) -> Change:
    kind: Kind = "same"
    if before is None or after is None:
        kind = "new" if before is None else "gone"
    elif before.counts_as != after.counts_as:
        kind = "worse" if _RANK[after.counts_as] > _RANK[before.counts_as] else "better"
    elif _apart(before, after):
        kind = "moved"
    return Change(id=name, kind=kind, before=before, after=after)


def _apart(before: CheckEntry, after: CheckEntry) -> bool:
    first, second = _gated(before)[1], _gated(after)[1]
    if first is None or second is None or before.statistic != after.statistic:
        return False
    return first[1] < second[0] or second[1] < first[0]


def _gated(check: CheckEntry) -> tuple[float | None, tuple[float, float] | None]:
    return (check.value, check.ci) if check.statistic == "value" else (check.excess, check.excess_ci)


def _gate(check: CheckEntry) -> tuple[str, str, str, float]:
    return check.metric, check.statistic, check.op, check.bound


def _promise(document: ReportDocument) -> str:
    privacy = document.privacy
    return f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g}" if privacy.claimed else "nothing"


def _side(check: CheckEntry | None) -> str:
    if check is None:
        return "not there"
    return check.counts_as + ("" if check.value is None else f", {number(check.value)} ({span(check.ci)})")


def _signed(check: CheckEntry | None) -> str:
    if check is None:
        return ""
    return _SIGNS[check.counts_as] + ("" if check.value is None else f" {number(check.value)} ({span(check.ci)})")


def _numbers(check: CheckEntry | None) -> JsonValue:
    if check is None:
        return None
    kept = {"value", "ci", "reference", "excess", "excess_ci", "op", "bound", "verdict", "counts_as"}
    contents: JsonValue = check.model_dump(mode="json", include=kept)
    return contents


def _drawing(name: str, entries: Sequence[CheckEntry | None]) -> Drawing | None:
    """What is held against the bound, over the runs in which it was measured."""
    known = [
        (at, middle, interval, check)
        for at, check in enumerate(entries, start=1)
        if check is not None
        for middle, interval in [_gated(check)]
        if middle is not None and interval is not None
    ]
    if len(known) < 2:
        return None
    runs = [float(at) for at, *_ in known]
    lows, highs = [one[2][0] for one in known], [one[2][1] for one in known]
    last = known[-1][3]
    ends = [1.0, float(len(entries))]
    y = linear_axis(last.statistic, [*lows, *highs, last.bound])
    ticks = tuple((float(at), str(at)) for at in range(1, len(entries) + 1))
    middles = [one[1] for one in known]
    titles = [f"run {one[0]}: {number(one[1])} ({VERDICT_WORDS[one[3].counts_as]})" for one in known]
    return Drawing(
        name=name,
        title=name,
        plot=plot(
            [
                Series(kind="synthetic", x=runs, y=middles, lows=lows, highs=highs),
                Series(kind="synthetic", x=runs, y=middles, form="dots", titles=titles),
                Series(kind="other", x=ends, y=[last.bound, last.bound]),
            ],
            x=Axis(label="run", low=1.0, high=max(2.0, ends[1]), ticks=ticks),
            y=y,
            height=230.0,
        ),
        label=f"{name} over the runs, beside its bound; numbers in the table above",
        caption=f"{name}: {last.statistic}, 95 % interval; the bound is {limit(last)}",
    )
