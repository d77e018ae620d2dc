"""``synthehr evaluate``: a synthetic cohort beside the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from synthehr.cli.options import out_option, schema_option, suite_option
from synthehr.cli.output import VERDICT_CODES, Console, audience_option, reported, shared_options

__all__ = ["command"]


def _names(_context: click.Context, _option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """The names between the commas."""
    return tuple(name.strip() for name in value.split(",")) if value is not None else None


@click.command("evaluate")
@click.option("--train", type=click.Path(path_type=Path), required=True, help="Real records that were learned from.")
@click.option("--holdout", type=click.Path(path_type=Path), required=True, help="Real records never learned from.")
@click.option("--synthetic", type=click.Path(path_type=Path), required=True, help="Synthetic records.")
@schema_option(required=False)
@suite_option(default="ci")
@click.option("--release", type=click.Path(path_type=Path), help="The release; gives the claim, and the schema.")
@click.option("--audit", type=click.Path(path_type=Path), help="Report of synthehr audit on this release.")
@click.option("--sections", callback=_names, help="Run these sections of the suite alone, with commas between.")
@click.option(
    "--seed", type=click.IntRange(min=0), help="Of every draw; default: 0, with --audience public one that is not told."
)
@audience_option
@out_option("The report folder.")
@shared_options
def command(
    *,
    train: Path,
    holdout: Path,
    synthetic: Path,
    schema: Path | None,
    suite: str,
    release: Path | None,
    audit: Path | None,
    sections: tuple[str, ...] | None,
    seed: int | None,
    audience: Literal["internal", "public"],
    out: Path,
    console: Console,
) -> int:
    """Measure synthetic records beside the real ones and decide by a suite of gates.

    Exits 0 where the suite passes, 5 where a gate fails, 6 where one stays inconclusive; with --release, what
    its policy requires (a suite, an audit) must be in the report for it to pass. With --sections the rest of the suite
    is left out, and the report says so. The report is computed on real records: keep it as you keep them.
    With --audience public, what is written and told holds no number that they gave and may be shown; its draws are of
    a seed that nobody is told, so that they cannot be repeated with and without a patient.
    """
    from synthehr.outputs import save_evaluation
    from synthehr.randomness import fresh_seed

    if seed is None:
        seed = fresh_seed() if audience == "public" else 0
    report = save_evaluation(
        train=train,
        holdout=holdout,
        synthetic=synthetic,
        schema=schema,
        suite=suite,
        release=release,
        audit=audit,
        sections=sections,
        seed=seed,
        out=out,
        audience=audience,
        on_progress=console.on_check,
    )
    text, document = reported(report.public() if audience == "public" else report)
    console.result(f"{text}\nreport: {out / 'report.html'}", {**document, "report": str(out)})
    return VERDICT_CODES[report.verdict]
