"""``synthehr sample``: synthetic patients from a release."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synthehr.cli.options import format_option, out_option
from synthehr.cli.output import Console, shared_options

if TYPE_CHECKING:
    from synthehr.manifest import Provenance

__all__ = ["command"]


@click.command("sample")
@click.argument("release", type=click.Path(path_type=Path))
@click.option("-n", "n", type=click.IntRange(min=1), required=True, help="Number of synthetic patients.")
@click.option(
    "--where",
    multiple=True,
    help="A condition that every patient meets, such as \"age >= 65 and sex = 'female'\": =, <>, <, >=, between, in, "
    "is null, and, or, not. May be repeated; all hold together.",
)
@click.option(
    "--balance",
    metavar="COLUMN",
    help="Even shares of this category's values, within --where; patients who miss it are left out.",
)
@format_option
@click.option("--seed", type=click.IntRange(min=0), help="Same release, options and seed give the same bytes.")
@click.option("--allow-insecure", is_flag=True, help="Sample a release that is stamped NOT PRIVATE.")
@out_option("The folder of synthetic tables.")
@shared_options
def command(
    *,
    release: Path,
    n: int,
    where: tuple[str, ...],
    balance: str | None,
    format: str,
    seed: int | None,
    allow_insecure: bool,
    out: Path,
    console: Console,
) -> int:
    """Draw synthetic patients from RELEASE; no real record is needed, so it costs no privacy.

    Every patient meets --where, and the other columns are as the model has them in such patients. Where the model can
    be held to the condition, which is wherever it judges each column for itself, patients are drawn inside it
    directly; what compares columns with each other is drawn until it is met. PROVENANCE.json tells which, and the
    share of the model's patients that meet the condition. What cannot be met is refused.
    """
    from synthehr.outputs import save_sample

    provenance = save_sample(
        release,
        n,
        out=out,
        format=format,
        seed=seed,
        where=where,
        balance=balance,
        allow_insecure=allow_insecure,
    )
    words = [f"{n} synthetic patients in {out}", *_told(provenance)]
    if not provenance.private:
        words.append("NOT PRIVATE")
    console.result("; ".join(words), {"out": str(out), "provenance": provenance.model_dump(mode="json")})
    return 0


def _told(provenance: Provenance) -> list[str]:
    """How the rows came about, where anything was asked of them."""
    words = []
    if provenance.match_rate is not None and provenance.drawing is not None:
        how = {"direct": "drawn directly", "rejection": "drawn until met"}
        method = how.get(provenance.drawing.method, "drawn directly as far as it goes, then until met")
        words.append(f"{provenance.match_rate:.3g} of the model's patients meet --where, {method}")
    if provenance.balance is not None:
        shares = [group.model_share for group in provenance.balance.groups]
        words.append(
            f"{len(shares)} groups of {provenance.balance.column} with even shares, "
            f"which the model gives {min(shares):.2g} to {max(shares):.2g}"
        )
        if provenance.balance.left_out:
            words.append("left out: " + ", ".join(f"{v} ({why})" for v, why in provenance.balance.left_out.items()))
    return words
