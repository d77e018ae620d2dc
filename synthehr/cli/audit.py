"""``synthehr audit``: try to break the promise."""

from __future__ import annotations

from pathlib import Path

import click

from synthehr.cli.options import PLACE, ledger_options, out_option
from synthehr.cli.output import VERDICT_CODES, Console, reported, shared_options

__all__ = ["command"]

MECHANISMS = ("count", "histogram", "partition", "marginals", "misfits", "gradients", "critic", "encoder")


@click.command("audit")
@click.argument("release", type=click.Path(path_type=Path), required=False)
@click.option(
    "--mechanism",
    "mechanisms",
    type=click.Choice(MECHANISMS),
    multiple=True,
    help="Audit this mechanism on made-up patients; can be given again. With a release, at its epsilon.",
)
@click.option("--epsilon", type=float, help="What the mechanisms promise. [default: the release's, else 1]")
@click.option("--delta", type=float, help="Its slack. [default: the release's, else 1e-6]")
@click.option(
    "--source",
    type=PLACE,
    help="The records of the release: attack a fit with canary patients among them too. It spends the release's "
    "epsilon on these patients once more, on its own account.",
)
@click.option("--canaries", type=click.IntRange(min=100), default=50_000, show_default=True, help="Of one run.")
@click.option(
    "--canary-patients", type=click.IntRange(min=10), default=200, show_default=True, help="Added to --source."
)
@click.option("--runs", type=click.IntRange(min=100), default=6_000, show_default=True, help="On each of two cohorts.")
@click.option("--device", default="auto", show_default=True, help="Of the fit with canaries: auto, cpu or cuda.")
@ledger_options
@out_option("The report folder.")
@shared_options
def command(
    *,
    release: Path | None,
    mechanisms: tuple[str, ...],
    epsilon: float | None,
    delta: float | None,
    source: Path | str | None,
    canaries: int,
    canary_patients: int,
    runs: int,
    device: str,
    ledger: Path | None,
    population: str | None,
    why: str | None,
    by: str | None,
    out: Path,
    console: Console,
) -> int:
    """Certify a lower bound on epsilon of a RELEASE, or of mechanisms alone.

    The release's account is composed anew and played back on made-up patients, who are as easy to find as any can be.
    Exits 5 where a bound lies above what was promised: the code is then wrong.
    """
    from synthehr.auditing.verb import audit
    from synthehr.connectors.folders import check_new

    check_new(out)
    report = audit(
        release,
        mechanisms=mechanisms,
        epsilon=epsilon,
        delta=delta,
        source=source,
        canaries=canaries,
        canary_patients=canary_patients,
        runs=runs,
        device=device,
        on_progress=console.on_stage,
        ledger=ledger,
        population=population,
        why=why,
        by=by,
    )
    report.save(out)
    text, document = reported(report)
    shown = report.document.privacy.audited_epsilon_lower_bound or 0.0
    promised = report.document.sections.audit
    assert promised is not None
    told = f"certified: epsilon of at least {shown:.3f} (could have certified up to {promised.ceiling:.2f})"
    console.result(
        f"{told}\n{text}\nreport: {out / 'report.html'}",
        {
            **document,
            "audited_epsilon_lower_bound": shown,
            "ceiling": promised.ceiling,
            "claimed": promised.claimed,
            "report": str(out),
        },
    )
    return VERDICT_CODES[report.verdict]
