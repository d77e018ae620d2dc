"""``synthehr fit``: records in, a release out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from synthehr.cli.options import (
    PLACE,
    UNREVIEWED,
    fit_options,
    ledger_options,
    opt_out_option,
    out_option,
    reading_options,
    schema_option,
)
from synthehr.cli.output import Console, shared_options

if TYPE_CHECKING:
    from synthehr.connectors.fhir.reading import FhirOptions

__all__ = ["command"]


@click.command("fit")
@click.argument("source", type=PLACE)
@schema_option(required=False)
@opt_out_option
@reading_options
@fit_options
@ledger_options
@click.option("--holdout", type=float, help="Share of patients set aside for the evaluation; needs --split-out.")
@click.option(
    "--split-out",
    type=click.Path(path_type=Path),
    help="New folder for the real train and holdout parts, readable by you alone; needs --holdout.",
)
@click.option("--resume", is_flag=True, help="Go on with the fit of this -o that was interrupted; same options.")
@out_option("The release folder.")
@shared_options
def command(
    *,
    source: Path | str,
    schema: Path | None,
    opt_out: Path | None,
    fhir: FhirOptions,
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
    holdout: float | None,
    split_out: Path | None,
    resume: bool,
    out: Path,
    console: Console,
) -> int:
    """Learn a release from the records in SOURCE, differentially private for each patient.

    SOURCE is a CSV, TSV or Parquet file, a folder with one file for each table, or FHIR (which needs no --schema):
    a bundle, NDJSON, a folder of them, or fhir+https://server/base.
    """
    from synthehr.cli.ledger import left_in
    from synthehr.outputs import save_fit

    release = save_fit(
        source,
        schema=schema,
        opt_out=opt_out,
        fhir=fhir,
        out=out,
        holdout=holdout,
        split_out=split_out,
        resume=resume,
        seed=seed,
        epsilon=epsilon,
        delta=delta,
        model=model,
        policy=policy,
        device=device,
        noise=noise,
        ledger=ledger,
        population=population,
        by=by,
        why=why,
        on_progress=console.on_fit,
    )
    privacy = release.manifest.privacy
    promise = f"epsilon {privacy.epsilon:g}, delta {privacy.delta:g} for each {privacy.unit}"
    words, left = left_in(ledger)
    words += "" if release.schema.reviewed else UNREVIEWED
    text = f"release {out}: {promise}; model {release.manifest.model.name}{words}"
    document = {
        "release": str(out),
        "digest": release.digest,
        "epsilon": privacy.epsilon,
        "epsilon_spent": privacy.epsilon_spent,
        "delta": privacy.delta,
        "unit": privacy.unit,
        "private": privacy.private,
        "schema_reviewed": release.schema.reviewed,
        "model": release.manifest.model.name,
        "split": str(split_out) if split_out is not None else None,
        "ledger": left,
    }
    console.result(text, document)
    return 0
