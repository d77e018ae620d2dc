"""``synthehr synthesize``: the whole way in one command."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from synthehr.cli.options import (
    BASELINES,
    PLACE,
    UNREVIEWED,
    fit_options,
    format_option,
    ledger_options,
    opt_out_option,
    out_option,
    reading_options,
    schema_option,
    suite_option,
)
from synthehr.cli.output import VERDICT_CODES, Console, reported, shared_options
from synthehr.errors import ConfigError

if TYPE_CHECKING:
    from synthehr.connectors.fhir.reading import FhirOptions

__all__ = ["command"]

_OF_A_PROMISE = ("epsilon", "delta", "policy", "noise", "ledger", "population", "why", "by")


@click.command("synthesize")
@click.argument("source", type=PLACE)
@schema_option(required=False)
@opt_out_option
@reading_options
@partial(fit_options, baselines=True)
@ledger_options
@click.option("--epochs", type=click.IntRange(min=1), help="Of ctgan and tvae: passes over the records; default: 300.")
@click.option(
    "--allow-insecure", is_flag=True, help="Let ctgan or tvae make a cohort that is NOT PRIVATE, to compare with."
)
@click.option("--holdout", type=float, default=0.2, show_default=True, help="Share of patients set aside.")
@click.option("-n", "n", type=click.IntRange(min=1), help="Synthetic patients; default: the noisy number fitted on.")
@format_option
@suite_option(default=None, shown="the policy's, or ci")
@out_option("The folder of release/, synthetic/, report/ and split/.")
@shared_options
def command(
    *,
    source: Path | str,
    schema: Path | None,
    opt_out: Path | None,
    fhir: FhirOptions,
    epsilon: float | None,
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
    epochs: int | None,
    allow_insecure: bool,
    holdout: float,
    n: int | None,
    format: str,
    suite: str | None,
    out: Path,
    console: Console,
) -> int:
    """Split, fit, sample and evaluate the records in SOURCE.

    SOURCE is a CSV, TSV or Parquet file, a folder with one file for each table, or FHIR (which needs no --schema):
    a bundle, NDJSON, a folder of them, or fhir+https://server/base. The outputs stand
    whatever the verdict; the exit code is 0 where the suite passes, 5 where a gate fails, 6 where one stays
    inconclusive. split/ and report/ are private: they hold, or are computed on, real records.

    The models ctgan and tvae learn WITHOUT PRIVACY, to compare with: they need --allow-insecure, take no
    option of a promise, and leave no release/.
    """
    from synthehr.cli.ledger import left_in
    from synthehr.outputs import synthesize

    if model in BASELINES:
        options = {"holdout": holdout, "n": n, "format": format, "seed": seed, "device": device}
        options |= {"epochs": epochs, "suite": suite}
        given = {name: value for name, value in options.items() if value is not None}
        return _baseline(
            source,
            schema=schema,
            out=out,
            model=model,
            allow=allow_insecure,
            console=console,
            opt_out=opt_out,
            fhir=fhir,
            **given,
        )
    if epsilon is None:
        raise ConfigError(f"model {model!r} needs a promise: give --epsilon")
    if epochs is not None:
        raise ConfigError(f"--epochs is of the models {' and '.join(BASELINES)}: leave it out with model {model!r}")
    made = synthesize(
        source,
        schema=schema,
        opt_out=opt_out,
        fhir=fhir,
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
    told += "" if made.release.schema.reviewed else UNREVIEWED
    words = f"{text}\n{promise}{told}\nreport: {out / 'report' / 'report.html'}\nsynthetic: {out / 'synthetic'}"
    console.result(
        words,
        {
            **document,
            "schema_reviewed": made.release.schema.reviewed,
            "out": str(out),
            "epsilon": privacy.epsilon,
            "delta": privacy.delta,
            "unit": privacy.unit,
            "ledger": left,
        },
    )
    return VERDICT_CODES[made.report.verdict]


def _baseline(
    source: Path | str, *, schema: Path | None, out: Path, model: str, allow: bool, console: Console, **options: Any
) -> int:
    """Synthesize without privacy."""
    from synthehr.comparison import synthesize_baseline

    context = click.get_current_context()
    for option in context.command.params:
        if option.name in _OF_A_PROMISE and context.get_parameter_source(option.name) != ParameterSource.DEFAULT:
            raise ConfigError(f"model {model!r} promises nothing, so that {option.opts[0]} means nothing: leave it out")
    made = synthesize_baseline(
        source,
        schema=schema,
        out=out,
        model=model,
        allow_insecure=allow,
        on_fit=console.on_stage,
        on_check=console.on_check,
        **options,
    )
    text, document = reported(made.report)
    why_not = made.synthetic.provenance.why_not
    words = f"{text}\nNOT PRIVATE: {why_not}\nreport: {out / 'report' / 'report.html'}\nsynthetic: {out / 'synthetic'}"
    console.result(words, {**document, "out": str(out), "private": False, "why_not": why_not})
    return VERDICT_CODES[made.report.verdict]
