"""``synthehr report``: show, compare and publish what evaluations found."""

from __future__ import annotations

from pathlib import Path

import click

from synthehr.cli.options import out_option
from synthehr.cli.output import VERDICT_CODES, Console, audience_option, reported, shared_options

__all__ = ["command"]

_REPORT = click.Path(path_type=Path)


@click.group("report")
def command() -> None:
    """Show, compare and publish reports of evaluations."""


@command.command("show")
@click.argument("report", type=_REPORT)
@audience_option
@click.option("-o", "--out", type=click.Path(path_type=Path), help="New folder for the four files of the report.")
@shared_options
def show(*, report: Path, audience: str, out: Path | None, console: Console) -> int:
    """Tell what a report found, or write it anew.

    REPORT is a report folder or its report.json. Without -o the Markdown form is printed; with it the four files
    are written, with --audience public in the form that may leave the custodian.
    """
    from synthehr.reporting.document import load_document
    from synthehr.reporting.markdown import render_markdown
    from synthehr.reporting.publish import public_document
    from synthehr.reporting.report import save_document

    document = load_document(report)
    if audience == "public":
        document = public_document(document)
    _, told = reported(document)
    if out is None:
        console.result(render_markdown(document), told)
    else:
        save_document(document, out)
        console.result(f"report: {out / 'report.html'}", {**told, "report": str(out)})
    return 0


@command.command("diff")
@click.argument("before", type=_REPORT)
@click.argument("after", type=_REPORT)
@click.option("--markdown", is_flag=True, help="As Markdown, for a pull request.")
@click.option("--gate", is_flag=True, help="Exit 5 where a check counts as worse than before, or is gone.")
@shared_options
def diff(*, before: Path, after: Path, markdown: bool, gate: bool, console: Console) -> int:
    """Tell which checks changed between two reports.

    BEFORE and AFTER are report folders or report.json files. A check is worse or better where its verdict changed,
    and has moved where it did not but the two intervals share no number.
    """
    from synthehr.reporting.compare import compare
    from synthehr.reporting.document import load_document

    found = compare(load_document(before), load_document(after))
    console.result(found.to_markdown() if markdown else found.to_text(), found.to_json())
    return VERDICT_CODES["fail"] if gate and found.worse else 0


@command.command("trend")
@click.argument("reports", type=_REPORT, nargs=-1, required=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="New HTML file with a plot for each check.")
@shared_options
def trend(*, reports: tuple[Path, ...], out: Path | None, console: Console) -> int:
    """Tell how the checks went over several reports, oldest first.

    REPORTS are report folders or report.json files, in the order in which they were made.
    """
    from synthehr.reporting.compare import render_trend, trend_rows
    from synthehr.reporting.document import load_document
    from synthehr.reporting.numbers import number

    documents = [load_document(report) for report in reports]
    rows = trend_rows(documents)
    width = max(len(name) for name, _ in rows)
    cells = {"pass": "pass", "fail": "FAIL", "inconclusive": "open"}
    lines = [f"{'verdict':<{width}}  " + "  ".join(f"{cells[document.verdict]:<12}" for document in documents)]
    for name, entries in rows:
        told = (f"{cells[one.counts_as]} {number(one.value):<7}" if one else f"{'':<12}" for one in entries)
        lines.append(f"{name:<{width}}  " + "  ".join(told))
    if out is not None:
        _write_new(out, render_trend(documents, names=[str(report) for report in reports]))
        lines.append(f"trend: {out}")
    document = {
        "reports": [str(report) for report in reports],
        "verdicts": [one.verdict for one in documents],
        "checks": {
            name: [None if one is None else {"value": one.value, "counts_as": one.counts_as} for one in entries]
            for name, entries in rows
        },
    }
    console.result("\n".join(lines), document)
    return 0


@command.command("datasheet")
@click.argument("release", type=click.Path(path_type=Path))
@click.option(
    "--report", "report", type=_REPORT, help="The report of its evaluation; the datasheet tells the verdicts."
)
@click.option("--population", help="Who the patients are, in words.")
@click.option("--period", help="When they were cared for, in words.")
@click.option("--purpose", help="What the release is for.")
@click.option("--signed-off-by", "signed_off_by", help="Who answers for it.")
@out_option("The Markdown file.")
@shared_options
def datasheet(
    *,
    release: Path,
    report: Path | None,
    population: str | None,
    period: str | None,
    purpose: str | None,
    signed_off_by: str | None,
    out: Path,
    console: Console,
) -> int:
    """Write the datasheet that a release is published with.

    The release's own DATASHEET.md tells what its manifest knows. This one adds what only people know, and what the
    evaluation found, in the public form.
    """
    from synthehr.pipeline import load_release
    from synthehr.reporting.datasheet import Statement, render_datasheet
    from synthehr.reporting.document import load_document

    opened = load_release(release)
    document = None if report is None else load_document(report)
    statement = Statement(population=population, period=period, purpose=purpose, signed_off_by=signed_off_by)
    text = render_datasheet(opened.manifest, statement=statement, digest=opened.digest, report=document)
    _write_new(out, text)
    console.result(f"datasheet: {out}", {"datasheet": str(out), "release_digest": opened.digest})
    return 0


def _write_new(path: Path, text: str) -> None:
    """Write a new file, whole or not at all."""
    from synthehr.connectors.folders import check_new

    target = check_new(path)
    aside = target.with_name(f".{target.name}.part")
    try:
        aside.write_text(text, encoding="utf-8", errors="replace")
        aside.rename(target)
    finally:
        aside.unlink(missing_ok=True)
