"""Baselines without privacy, for comparison: fit, sample and evaluate them as releases are, but never release them.

There is no folder for a fitted baseline, since its state holds rows of patients; what it makes is stamped not private.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.folders import new_folder, withhold
from synthehr.connectors.optout import Admission
from synthehr.connectors.records import Records, SchemaSource, read, schema_of
from synthehr.errors import ConfigError
from synthehr.manifest import Provenance
from synthehr.models.baselines import EPOCHS, FittedBaseline, check_settings, fit_baseline
from synthehr.outputs import HOLDOUT, check_format, check_share, write_split, write_synthetic
from synthehr.pipeline import OnCheck, check_count, check_seed, evaluate
from synthehr.randomness import fresh_seed, seeded
from synthehr.release import SyntheticCohort
from synthehr.schema.model import IdColumn, Schema, Table

if TYPE_CHECKING:
    from synthehr.connectors.fhir.reading import FhirOptions
    from synthehr.reporting.report import Report

__all__ = ["Baseline", "Comparison", "baseline", "synthesize_baseline"]

_LABEL = "NOT PRIVATE: made without differential privacy, for comparison. Rows may repeat patients: never publish them."


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A model fitted without privacy. It cannot be saved.

    Attributes:
        schema: what it makes.
        fitted: the model.
        seed: of the fit.
    """

    schema: Schema
    fitted: FittedBaseline
    seed: int

    def sample(self, n: int, *, seed: int | None = None) -> SyntheticCohort:
        """A synthetic cohort of ``n`` patients, stamped not private.

        Types, bounds, categories and missing values are as the schema declares. Declared rules are not enforced: which
        of them a baseline breaks is for the report to count.

        Args:
            n: number of patients.
            seed: on one machine and CPU, the same fit, seed and n give the same cohort.

        Raises:
            ConfigError: n is below 1, or the seed below 0.
        """
        check_count(n)
        check_seed(seed)
        seed = fresh_seed() if seed is None else seed
        frame = _with_keys(self.fitted.draw(n, seed=_short(seed, 1)), table=self.schema.root)
        provenance = Provenance(
            label=_LABEL,
            release_digest=None,
            epsilon=None,
            delta=None,
            unit="patient",
            private=False,
            why_not=f"it was made by {self.fitted.model} without privacy, as a baseline for comparison",
            patients=n,
            seed=seed,
            where=(),
            match_rate=None,
            rule_rate=None,
            versions={name: version(name) for name in ("synthehr", "ctgan", "torch")},
        )
        return SyntheticCohort({self.schema.subject: frame}, schema=self.schema, provenance=provenance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What :func:`synthesize_baseline` made; the same lies in the output folder."""

    synthetic: SyntheticCohort
    report: Report


def baseline(
    train: Cohort[Schema], *, model: str = "ctgan", epochs: int = EPOCHS, seed: int | None = None, device: str = "auto"
) -> Baseline:
    """Fit ``ctgan`` or ``tvae``, with the settings of the package ctgan and WITHOUT PRIVACY, to compare with.

    Missing values are learned: among categories as a category of their own, among numbers by an indicator.

    Args:
        train: real records; one table with one row per patient.
        model: ``ctgan`` or ``tvae``.
        epochs: passes over the records.
        seed: of weights, batches and draws.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        ConfigError: a setting is outside what it may be, or the schema declares several tables.
        DataError: every column is constant.

    Privacy: none. What the baseline makes may repeat patients; its provenance and report say NOT PRIVATE.
    """
    _check(train.schema, model=model, epochs=epochs, seed=seed, device=device)
    seed = fresh_seed() if seed is None else seed
    fitted = fit_baseline(
        train.root, table=train.schema.root, model=model, epochs=epochs, seed=_short(seed, 0), device=device
    )
    return Baseline(schema=train.schema, fitted=fitted, seed=seed)


def synthesize_baseline(
    source: Records,
    *,
    schema: SchemaSource | None = None,
    out: str | Path,
    model: str = "ctgan",
    epochs: int = EPOCHS,
    holdout: float = HOLDOUT,
    n: int | None = None,
    format: str = "parquet",
    suite: str | Path = "ci",
    seed: int | None = None,
    device: str = "auto",
    allow_insecure: bool = False,
    opt_out: str | Path | None = None,
    fhir: FhirOptions | None = None,
    on_fit: Callable[[str], None] | None = None,
    on_check: OnCheck | None = None,
) -> Comparison:
    """Split, fit a baseline WITHOUT PRIVACY, sample and evaluate, into the new folder ``out``.

    ``out`` holds ``synthetic/``, ``report/`` and ``split/``, all of them readable by their owner alone, and no
    ``release/``. All of it appears together, whatever the verdict, or nothing does.

    Args:
        source: see :func:`synthehr.pipeline.read`.
        schema: see :func:`synthehr.pipeline.read`.
        out: the new folder.
        model: ``ctgan`` or ``tvae``.
        epochs: passes over the records.
        holdout: share of patients set aside for the evaluation.
        n: number of synthetic patients; without it the number fitted on.
        format: of the synthetic tables, ``parquet`` or ``csv``; or ``fhir-ndjson`` or ``fhir-bundle``.
        suite: name or YAML file of the gates.
        seed: of the split, the fit and the sample.
        device: ``auto``, ``cpu`` or ``cuda``.
        allow_insecure: must be true: who sets it knows that the outcome is not private.
        opt_out: file of the keys of patients who are left out.
        fhir: how FHIR is read; what was left out is told in ``split/``.
        on_fit: called with the name of the model before it is fitted.
        on_check: called with each check of the evaluation.

    Raises:
        ConfigError: a setting is outside what it may be, ``allow_insecure`` is not set, or ``out`` exists or cannot
            be written.
        DataError: the records are missing, unreadable or break the schema.
    """
    from synthehr.evaluation.suite import load_suite

    if not allow_insecure:
        raise ConfigError(
            f"model {model!r} learns without privacy, so that what it makes may repeat patients: "
            "use it to compare with and nothing else, with --allow-insecure"
        )
    declared = schema_of(source, schema, fhir=fhir)
    admission = Admission.by(opt_out, schema=declared)
    check_format(format, schema=declared)
    _check(declared, model=model, epochs=epochs, seed=seed, device=device)
    check_share(holdout)
    if n is not None:
        check_count(n)
    gates = load_suite(suite)
    with new_folder(out) as folder:
        (folder / "split").mkdir(mode=0o700)
        told = None if fhir is None else replace(fhir, notes=folder / "split")
        cohort = read(source, schema=declared, admission=admission, fhir=told)
        train, kept = cohort.split(holdout=holdout, seed=seed)
        write_split(folder / "split", train, kept, left_out=admission.left_out)
        if on_fit is not None:
            on_fit(model)
        made = baseline(train, model=model, epochs=epochs, seed=seed, device=device)
        synthetic = made.sample(len(train) if n is None else n, seed=made.seed)
        (folder / "synthetic").mkdir()
        write_synthetic(folder / "synthetic", synthetic, format=format)
        withhold(folder / "synthetic")
        report = evaluate(train=train, holdout=kept, synthetic=synthetic, suite=gates, on_progress=on_check)
        report.save(folder / "report")
    return Comparison(synthetic=synthetic, report=report)


def _check(schema: Schema, *, model: str, epochs: int, seed: int | None, device: str) -> None:
    check_settings(model=model, epochs=epochs, device=device)
    if len(schema.tables) > 1:
        raise ConfigError(
            f"baseline {model!r} learns one table with one row per patient, and the schema declares several: "
            "compare on a schema of the patients' table alone"
        )
    check_seed(seed)


def _short(seed: int, stream: int) -> int:
    """A seed below 2**32, which is what ctgan takes."""
    return int(seeded(seed, 5, stream).integers(2**32))


def _with_keys(frame: pl.DataFrame, *, table: Table) -> pl.DataFrame:
    """The table in its declared order, with new keys where it has any."""
    width = max(7, math.ceil(math.log10(frame.height + 1)))
    key = pl.Series([f"S{at:0{width}d}" for at in range(1, frame.height + 1)], dtype=pl.String)
    return pl.DataFrame(
        [
            key.alias(name) if isinstance(column, IdColumn) else frame[name]
            for name, column in table.columns.items()
            if isinstance(column, IdColumn) or name in frame.columns
        ]
    )
