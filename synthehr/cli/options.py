"""Options that several commands take, so that they read alike everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

__all__ = [
    "BASELINES",
    "FORMATS",
    "MODELS",
    "fit_options",
    "format_option",
    "ledger_options",
    "out_option",
    "schema_option",
    "suite_option",
]

MODELS = ("auto", "dp-ctgan", "dp-tvae", "marginal")
BASELINES = ("ctgan", "tvae")
NOISES = ("system", "cryptographic")
FORMATS = ("parquet", "csv")

F = TypeVar("F", bound=Callable[..., object])


def schema_option(*, required: bool = True) -> Callable[[F], F]:
    """``--schema``."""
    return click.option(
        "--schema",
        type=click.Path(path_type=Path),
        required=required,
        help="The schema.yaml of the records; FHIR needs none.",
    )


def out_option(meaning: str) -> Callable[[F], F]:
    """``-o``: an output that must not exist yet."""
    return click.option(
        "-o",
        "--out",
        type=click.Path(path_type=Path),
        required=True,
        help=f"{meaning} It must not exist yet.",
    )


def format_option(command: F) -> F:
    """``--format`` of synthetic tables."""
    option = click.option(
        "--format",
        type=click.Choice(FORMATS),
        default="parquet",
        show_default=True,
        help="Of the synthetic tables.",
    )
    return option(command)


def suite_option(*, default: str | None, shown: str | bool = True) -> Callable[[F], F]:
    """``--suite``; ``shown`` is what the help tells where there is no default."""
    return click.option(
        "--suite", default=default, show_default=shown, help="Gates: ci, quick, or the path of a YAML file."
    )


class _Models(click.Choice[str]):
    """Names of models. A baseline passes where it is no choice too: the fit itself tells why it refuses it."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, if there is such a model."""
        return value if value in BASELINES else super().convert(value, param, ctx)


def fit_options(command: F, *, baselines: bool = False) -> F:
    """The promise and how it is spent; with ``baselines`` there may be none."""
    models = _Models((*MODELS, *BASELINES) if baselines else MODELS)
    but = " Needed by all models but ctgan and tvae, which promise nothing." if baselines else ""
    options: tuple[Callable[[F], F], ...] = (
        click.option("--epsilon", type=float, required=not baselines, help=f"The promise; smaller protects more.{but}"),
        click.option("--delta", type=float, default=1e-6, show_default=True, help="Slack of the promise."),
        click.option("--model", type=models, default="auto", show_default=True, help="What is fitted."),
        click.option(
            "--policy", default="standard", show_default=True, help="Release profile: a name, or a YAML file."
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
        click.option(
            "--noise",
            type=click.Choice(NOISES),
            default="system",
            show_default=True,
            help="cryptographic: every draw is fresh output of the operating system; slower.",
        ),
        click.option("--seed", type=click.IntRange(min=0), help="Of split, weights and sampling; never of the noise."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def ledger_options(command: F) -> F:
    """The ledger that a fit spends from, and who signs for it."""
    options: tuple[Callable[[F], F], ...] = (
        click.option("--ledger", type=click.Path(path_type=Path), help="Ledger to spend from: see synthehr ledger."),
        click.option("--population", help="The patients at hand; refused where the ledger is of others."),
        click.option("--purpose", "why", help="What the release is for, as the ledger will tell."),
        click.option("--signed-off-by", "by", help="Who answers for it, as the ledger will tell; default: you."),
    )
    for option in reversed(options):
        command = option(command)
    return command
