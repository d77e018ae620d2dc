"""``synthehr synthesize``: the whole way in one command."""

from __future__ import annotations

from pathlib import Path

import click

from synthehr.cli.options import (
    fit_options,
    format_option,
    ledger_options,
    out_option,
    schema_option,
    suite_option,
)
from synthehr.cli.output import VERDICT_CODES, Console, reported, shared_options

__all__ = ["command"]


@click.command("synthesize")
@click.argument("source", type=click.Path(path_type=Path))
@schema_option()
@fit_options
@ledger_options
@click.option("--holdout", type=float, default=0.2, show_default=True, help="Share of patients set aside.")
@click.option("-n", "n", type=click.IntRange(min=1), help="Synthetic patients; default: the noisy number fitted on.")
@format_option
@suite_option(default=None, shown="the policy's, or ci")
@out_option("The folder of release/, synthetic/, report/ and split/.")
@shared_options
def command(
    *,
    source: Path,
    schema: Path,
    epsilon: float,
    delta: float,
    model: str,
    policy: str,
    device: str,
    seed: int | None,
    noise: str,
    ledger: Path | None,
    population: str | None,
    why: str | None,
    by: str | None,
    holdout: float,
    n: int | None,
    format: str,
    suite: str | None,
    out: Path,
    console: Console,
) -> int:
    """Split, fit, sample and evaluate the records in SOURCE.

    SOURCE is a CSV, TSV or Parquet file, or a folder with one file for each table. The outputs stand
    whatever the verdict; the exit code is 0 where the suite passes, 5 where a gate fails, 6 where one stays
    inconclusive. split/ and report/ are private: they hold, or are computed on, real records.
    """
    from synthehr.cli.ledger import left_in
    from synthehr.outputs import synthesize

    made = synthesize(
        source,
        schema=schema,
        out=out,
        epsilon=epsilon,
        delta=delta,
        model=model,
        policy=policy,
        holdout=holdout,
        n=n,
        format=format,
        suite=suite,
        seed=seed,
        device=device,
        noise=noise,
        ledger=ledger,
        population=population,
        by=by,
        why=why,
        on_progress=console.on_fit,
        on_check=console.on_check,
    )
    text, document = reported(made.report)
    privacy = made.release.manifest.privacy
    promise = f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g} for each {privacy.unit}"
    told, left = left_in(ledger)
    words = f"{text}\n{promise}{told}\nreport: {out / 'report' / 'report.html'}\nsynthetic: {out / 'synthetic'}"
    console.result(
        words,
        {
            **document,
            "out": str(out),
            "epsilon": privacy.epsilon,
            "delta": privacy.delta,
            "unit": privacy.unit,
            "ledger": left,
        },
    )
    return VERDICT_CODES[made.report.verdict]
