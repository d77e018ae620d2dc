"""``synthehr sample``: synthetic patients from a release."""

from __future__ import annotations

from pathlib import Path

import click

from synthehr.cli.options import format_option, out_option
from synthehr.cli.output import Console, shared_options

__all__ = ["command"]


@click.command("sample")
@click.argument("release", type=click.Path(path_type=Path))
@click.option("-n", "n", type=click.IntRange(min=1), required=True, help="Number of synthetic patients.")
@click.option(
    "--where",
    multiple=True,
    help="A condition that every patient meets, such as \"age >= 65 and sex = 'female'\"; may be repeated.",
)
@format_option
@click.option("--seed", type=click.IntRange(min=0), help="Same release, seed and n give the same bytes.")
@click.option("--allow-insecure", is_flag=True, help="Sample a release that is stamped NOT PRIVATE.")
@out_option("The folder of synthetic tables.")
@shared_options
def command(
    *,
    release: Path,
    n: int,
    where: tuple[str, ...],
    format: str,
    seed: int | None,
    allow_insecure: bool,
    out: Path,
    console: Console,
) -> int:
    """Draw synthetic patients from RELEASE; no real record is needed, so it costs no privacy."""
    from synthehr.outputs import save_sample

    cohort = save_sample(release, n, out=out, format=format, seed=seed, where=where, allow_insecure=allow_insecure)
    provenance = cohort.provenance.model_dump(mode="json")
    rate = f"; {cohort.provenance.match_rate:.1%} of drawn rows met --where" if where else ""
    stamp = "" if cohort.provenance.private else "; NOT PRIVATE"
    console.result(f"{n} synthetic patients in {out}{rate}{stamp}", {"out": str(out), "provenance": provenance})
    return 0
