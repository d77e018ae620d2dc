"""Options that several commands take, so that they read alike everywhere."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from synthehr.connectors.fhir.badlines import OnBadRow
    from synthehr.connectors.fhir.consent import ConsentMode

__all__ = [
    "BASELINES",
    "FHIR_FORMATS",
    "FORMATS",
    "MEDS",
    "MODELS",
    "OMOP_FORMATS",
    "PLACE",
    "STORE",
    "UNREVIEWED",
    "fit_options",
    "format_option",
    "ledger_options",
    "opt_out_option",
    "out_option",
    "reading_options",
    "schema_option",
    "suite_option",
]

MODELS = ("auto", "dp-ctgan", "dp-tvae", "marginal")
BASELINES = ("ctgan", "tvae")
NOISES = ("system", "cryptographic")
FORMATS = ("parquet", "csv", "tsv", "arrow")
STORE = "store"
MEDS = "meds"
FHIR_FORMATS = ("fhir-ndjson", "fhir-bundle")
OMOP_FORMATS = ("omop", "omop-csv")

UNREVIEWED = (
    "\nthe schema is a draft that is not reviewed: its bounds and values were taken for private, and bought or left out"
)

F = TypeVar("F", bound=Callable[..., object])


class _Place(click.ParamType[Path | str]):
    """A path, or the URI of a database as it stands: a path would lose slashes."""

    name = "path"
    _uri = re.compile(r"(omop\+)?(duckdb|postgres|postgresql):", re.IGNORECASE)

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:  # noqa: ARG002 - click's signature
        """The URI as text, all else as a path."""
        return str(value) if self._uri.match(str(value)) else Path(value)


PLACE = _Place()


def schema_option(*, required: bool = True) -> Callable[[F], F]:
    """``--schema``."""
    return click.option(
        "--schema",
        type=click.Path(path_type=Path),
        required=required,
        help="The schema.yaml of the records; FHIR, OMOP and MEDS need none.",
    )


def opt_out_option(command: F) -> F:
    """``--opt-out``."""
    option = click.option(
        "--opt-out",
        type=click.Path(path_type=Path),
        help="Patients to leave out: a file of their keys, one a line, or a CSV file with a column named as the key.",
    )
    return option(command)


def out_option(meaning: str, *, type: click.ParamType[Any] | None = None) -> Callable[[F], F]:
    """``-o``: an output that must not exist yet."""
    return click.option(
        "-o",
        "--out",
        type=type or click.Path(path_type=Path),
        required=True,
        help=f"{meaning} It must not exist yet.",
    )


def format_option(command: F) -> F:
    """``--format`` of synthetic tables."""
    option = click.option(
        "--format",
        type=click.Choice((*FORMATS, MEDS, *OMOP_FORMATS, *FHIR_FORMATS)),
        default="parquet",
        show_default=True,
        help="Of the synthetic tables; or MEDS, OMOP CDM 5.4 (Parquet, CSV) or FHIR R4, labelled synthetic.",
    )
    return option(command)


def suite_option(*, default: str | None, shown: str | bool = True) -> Callable[[F], F]:
    """``--suite``; ``shown`` is what the help tells where there is no default."""
    return click.option(
        "--suite",
        default=default,
        show_default=shown,
        help="Gates: quick, ci, release, research, or the path of a YAML file.",
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


def reading_options(command: Callable[..., int]) -> Callable[..., int]:
    """How FHIR is read: bad records, consent, views and processes. The command gets them as ``fhir``."""

    @click.option(
        "--on-bad-row",
        type=click.Choice(("fail", "drop", "quarantine")),
        default="fail",
        show_default=True,
        help="What a record that cannot be read does, or a row of tables that breaks the schema: stop the run, be "
        "left out with all that hangs from it, or also be listed in quarantine.csv (rows are kept in quarantine/).",
    )
    @click.option(
        "--max-bad-share",
        type=float,
        default=0.01,
        show_default=True,
        help="Share of bad records or rows above which drop and quarantine stop.",
    )
    @click.option(
        "--consent",
        type=click.Choice(("ignore", "exclude-opt-out", "require-opt-in")),
        default="exclude-opt-out",
        show_default=True,
        help="FHIR: whose records are left out by their Consent resources.",
    )
    @click.option(
        "--privacy-opt-out/--no-privacy-opt-out",
        default=True,
        show_default=True,
        help="FHIR: does a refusal of general scope (patient-privacy) count as one of research?",
    )
    @click.option("--views", type=click.Path(path_type=Path), help="FHIR: folder of your own ViewDefinitions.")
    @click.option(
        "--processes", type=click.IntRange(min=1), help="FHIR: processes that read; by default as many as are worth it."
    )
    @functools.wraps(command)
    def with_fhir(
        *,
        on_bad_row: OnBadRow,
        max_bad_share: float,
        consent: ConsentMode,
        privacy_opt_out: bool,
        views: Path | None,
        processes: int | None,
        **options: object,
    ) -> int:
        from synthehr.connectors.fhir.badlines import BadRowPolicy
        from synthehr.connectors.fhir.consent import ConsentPolicy
        from synthehr.connectors.fhir.reading import FhirOptions

        fhir = FhirOptions(
            on_bad=BadRowPolicy(mode=on_bad_row, most=max_bad_share),
            consent=ConsentPolicy(mode=consent, privacy_opt_out=privacy_opt_out),
            views=views,
            processes=processes,
        )
        return command(fhir=fhir, **options)

    return with_fhir
