"""What all commands share: --json, -q, -v, results on stdout and progress on stderr."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from synthehr.models.training import Progress
    from synthehr.reporting.document import ReportDocument
    from synthehr.reporting.report import Report

__all__ = ["VERDICT_CODES", "Console", "audience_option", "reported", "shared_options"]

VERDICT_CODES = {"pass": 0, "fail": 5, "inconclusive": 6}
_WIDTH = 24


@dataclass(slots=True, kw_only=True)
class Console:
    """Where a command's words go.

    Attributes:
        as_json: the result is one JSON document on stdout, and nothing else is.
        quiet: no progress and no words, only the exit code and errors.
        verbose: each stage is a line on stderr, on a terminal or not.
    """

    as_json: bool
    quiet: bool
    verbose: bool
    _stage: str = field(default="", init=False)
    _drawn: bool = field(default=False, init=False)

    def result(self, text: str, document: Mapping[str, Any]) -> None:
        """Tell the result: the document with ``--json``, the text otherwise."""
        self.end_progress()
        if self.as_json:
            click.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))
        elif not self.quiet:
            click.echo(text)

    def step(self, text: str) -> None:
        """Tell what one step of several did; nothing with ``--json``, whose document tells it."""
        self.end_progress()
        if not self.as_json and not self.quiet:
            click.echo(text)

    def on_fit(self, progress: Progress) -> None:
        """Show a step of a fit."""
        spent = f", epsilon {progress.epsilon_spent:.2f}" if progress.epsilon_spent is not None else ""
        self._show(progress.stage, progress.step, progress.total, f"{progress.seconds:.0f} s{spent}")

    def on_stage(self, name: str) -> None:
        """Name a stage that tells nothing of how far it has come."""
        self._show(name, 0, 1, "")

    def on_check(self, name: str, step: int, total: int) -> None:
        """Show a check of an evaluation."""
        self._show("evaluate", step, total, name)

    def end_progress(self) -> None:
        """Wipe the bar."""
        if self._drawn:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._drawn = False

    def _show(self, stage: str, step: int, total: int, more: str) -> None:
        if self.quiet:
            return
        if self.verbose and stage != self._stage:
            self.end_progress()
            click.echo(f"synthehr: {stage}", err=True)
        self._stage = stage
        if sys.stderr.isatty():
            share = step / total if total else 1.0
            bar = ("#" * round(_WIDTH * share)).ljust(_WIDTH, ".")
            click.echo(f"\r\x1b[K{stage} [{bar}] {step}/{total} {more}", nl=False, err=True)
            self._drawn = True


def shared_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add ``--json``, ``-q`` and ``-v`` to a command, which gets a ``console`` for them."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="No progress and no words: exit code and errors only.")
    @click.option("-v", "--verbose", is_flag=True, help="Name each stage on stderr.")
    @functools.wraps(command)
    def with_console(*, as_json: bool, quiet: bool, verbose: bool, **options: object) -> int:
        console = Console(as_json=as_json, quiet=quiet, verbose=verbose)
        try:
            return command(console=console, **options)
        finally:
            console.end_progress()

    return with_console


def audience_option(command: Callable[..., int]) -> Callable[..., int]:
    """``--audience``."""
    return click.option(
        "--audience",
        type=click.Choice(("internal", "public")),
        default="internal",
        show_default=True,
        help="public: verdicts and bought shares alone, which may leave the custodian.",
    )(command)


def reported(report: Report | ReportDocument) -> tuple[str, dict[str, Any]]:
    """A report in words and as JSON: verdict and failing checks."""
    from synthehr.reporting.document import WITHHELD, CheckEntry
    from synthehr.reporting.words import check_words

    open_checks = [check for check in report.checks if check.counts_as != "pass"]
    passed = sum(check.verdict == "pass" for check in report.checks)
    waived = [check for check in report.checks if check.waiver]
    let_stand = len(report.checks) - len(open_checks) - passed - len(waived)
    also = f", {len(waived)} waived" if waived else ""
    also += f", {let_stand} undecided that the suite lets stand" if let_stand else ""
    lines = [f"verdict: {report.verdict} ({passed} of {len(report.checks)} checks pass{also})"]
    for check in open_checks:
        why = check_words(check) if isinstance(check, CheckEntry) and check.why == WITHHELD else check.why
        lines.append(f"  {check.counts_as}: {check.id}: {why}")
    lines += [f"  {check.verdict}, waived: {check.id}: {check.waiver}" for check in waived]
    checks = [
        {
            "id": check.id,
            "metric": check.metric,
            "value": check.value,
            "reference": check.reference,
            "verdict": check.verdict,
            "counts_as": check.counts_as,
            "waiver": check.waiver,
        }
        for check in report.checks
    ]
    return "\n".join(lines), {"verdict": report.verdict, "checks": checks}
