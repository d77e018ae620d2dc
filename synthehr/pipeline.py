"""The verbs: read, fit, sample, evaluate, synthesize. The only module that knows all the parts.

Heavy parts (torch, scikit-learn) are imported by the verb that needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypeAlias, TypedDict, Unpack

from synthehr.cohort import Cohort
from synthehr.connectors.files import TableFiles, write_tables
from synthehr.connectors.folders import check_new, new_folder, withhold
from synthehr.connectors.records import Records, SchemaSource, read
from synthehr.errors import ConfigError
from synthehr.privacy.budget import Budget
from synthehr.privacy.policy import load_policy
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema
from synthehr.schema.validation import Expectation, check_tables

if TYPE_CHECKING:
    from synthehr.evaluation.suite import Suite
    from synthehr.models.training import Progress
    from synthehr.release import Release, SyntheticCohort
    from synthehr.reporting.report import Report

__all__ = [
    "DELTA",
    "Synthesis",
    "check_fit_options",
    "check_schema",
    "evaluate",
    "fit",
    "load_release",
    "new_folder",
    "read",
    "sample",
    "save_evaluation",
    "save_fit",
    "save_sample",
    "synthesize",
]

DELTA = 1e-6
HOLDOUT = 0.2

OnFit: TypeAlias = "Callable[[Progress], None]"
OnCheck: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """What :func:`synthesize` made; the same lies in the output folder."""

    release: Release
    synthetic: SyntheticCohort
    report: Report


def check_schema(source: str | Path, *, schema: SchemaSource) -> tuple[Expectation, ...]:
    """Try every rule of the schema on the records, with Great Expectations.

    Raises:
        SchemaError: the schema breaks a rule of the schema language.
        DataError: the records cannot be read as tables at all.
    """
    declared = load_schema(schema)
    return check_tables(TableFiles().tables(source, schema=declared), schema=declared)


def check_fit_options(
    *,
    epsilon: float,
    delta: float = DELTA,
    model: str = "auto",
    policy: str | Path = "standard",
    seed: int | None = None,
) -> None:
    """Refuse settings of a fit that cannot be right, before any record is read.

    Raises:
        ConfigError: one of them is outside what it may be.
    """
    Budget(epsilon=epsilon, delta=delta)
    load_policy(policy)
    _check_seed(seed)
    from synthehr.models.base import MODELS

    if model not in MODELS:
        raise ConfigError(f"model {model!r} is unknown: choose one of {', '.join(MODELS)}")


def fit(
    cohort: Cohort[Schema],
    *,
    epsilon: float,
    delta: float = DELTA,
    model: str = "auto",
    policy: str | Path = "standard",
    seed: int | None = None,
    device: str = "auto",
    on_progress: OnFit | None = None,
) -> Release:
    """Learn a release from real records under (epsilon, delta)-differential privacy of each patient.

    Args:
        cohort: the real patients to learn from.
        epsilon: the promise asked for; smaller protects more.
        delta: its slack.
        model: ``dp-ctgan``, ``marginal`` or ``auto``.
        policy: name or YAML file of a release profile.
        seed: moves initial weights alone, never the noise: two fits with one seed differ.
        device: ``auto``, ``cpu`` or a torch device.
        on_progress: called with each step done.

    Raises:
        ConfigError: a setting is outside what it may be.
        BudgetExceededError: the policy, or the rule on delta, refuses.

    Privacy: everything that touches rows is booked on one account, which the release carries.
    """
    check_fit_options(epsilon=epsilon, delta=delta, model=model, policy=policy, seed=seed)
    from synthehr.models.training import train
    from synthehr.release import Release
    from synthehr.reporting.datasheet import render_datasheet

    trained = train(
        cohort,
        epsilon=epsilon,
        delta=delta,
        model=model,
        policy=policy,
        seed=seed,
        device=device,
        on_progress=on_progress,
    )
    return Release.of(trained, datasheet=render_datasheet)


class FitOptions(TypedDict):
    """Settings of :func:`fit`, under its names."""

    epsilon: float
    delta: NotRequired[float]
    model: NotRequired[str]
    policy: NotRequired[str | Path]
    device: NotRequired[str]
    on_progress: NotRequired[OnFit]


def save_fit(
    source: Records,
    *,
    schema: SchemaSource,
    out: str | Path,
    holdout: float | None = None,
    split_out: str | Path | None = None,
    seed: int | None = None,
    **options: Unpack[FitOptions],
) -> Release:
    """Read records, set patients aside for the evaluation where asked, fit, and write the release.

    Args:
        source: see :func:`read`.
        schema: see :func:`read`.
        out: the new release folder.
        holdout: share of patients to set aside; needs ``split_out``.
        split_out: new folder for the private parts ``train`` and ``holdout``; readable by its owner alone.
        seed: of the split and of what :func:`fit` does with it.
        options: see :func:`fit`.

    Raises:
        ConfigError: a setting is outside what it may be, or an output exists or cannot be written.
    """
    check_fit_options(
        epsilon=options["epsilon"],
        delta=options.get("delta", DELTA),
        model=options.get("model", "auto"),
        policy=options.get("policy", "standard"),
        seed=seed,
    )
    if (holdout is None) != (split_out is None):
        raise ConfigError("--holdout and --split-out go together: the holdout is needed by the evaluation")
    target = check_new(out)
    if holdout is None or split_out is None:
        release = fit(read(source, schema=schema), seed=seed, **options)
        release.save(target)
        return release
    _check_share(holdout)
    if check_new(split_out) == target:
        raise ConfigError("the release and the split need folders of their own: they differ in who may read them")
    with new_folder(split_out, private=True) as folder:
        parts = read(source, schema=schema).split(holdout=holdout, seed=seed)
        _write_split(folder, *parts)
        release = fit(parts[0], seed=seed, **options)
        release.save(target)
    return release


def load_release(path: str | Path) -> Release:
    """Read a release folder and check its digests.

    Raises:
        DataError: it is missing, truncated or was edited.
    """
    from synthehr.release import Release

    return Release.load(path)


def sample(
    release: str | Path | Release,
    n: int,
    *,
    seed: int | None = None,
    where: str | Sequence[str] = (),
    allow_insecure: bool = False,
) -> SyntheticCohort:
    """Draw a synthetic cohort of ``n`` patients from a release.

    Raises:
        ConfigError: a setting is outside what it may be, or the release is stamped not private.
        DataError: the release is broken, or next to no patient meets the conditions.
    """
    _check_count(n)
    _check_seed(seed)
    opened = load_release(release) if isinstance(release, str | Path) else release
    return opened.sample(n, seed=seed, where=where, allow_insecure=allow_insecure)


def save_sample(
    release: str | Path | Release,
    n: int,
    *,
    out: str | Path,
    format: str = "parquet",
    seed: int | None = None,
    where: str | Sequence[str] = (),
    allow_insecure: bool = False,
) -> SyntheticCohort:
    """Draw a synthetic cohort and write it with ``PROVENANCE.json`` into the new folder ``out``.

    Raises:
        ConfigError: a setting is outside what it may be, or ``out`` exists or cannot be written.
        DataError: the release is broken, or next to no patient meets the conditions.
    """
    with new_folder(out) as folder:
        cohort = sample(release, n, seed=seed, where=where, allow_insecure=allow_insecure)
        _write_synthetic(folder, cohort, format=format)
    return cohort


def evaluate(
    *,
    train: Cohort[Schema] | Records,
    holdout: Cohort[Schema] | Records,
    synthetic: Cohort[Schema] | Records,
    schema: SchemaSource | None = None,
    suite: str | Path | Suite = "ci",
    release: str | Path | Release | None = None,
    seed: int = 0,
    on_progress: OnCheck | None = None,
) -> Report:
    """Measure a synthetic cohort beside the real ones, and decide by a suite.

    Args:
        train: the real patients that the release was learned from.
        holdout: real patients that it never saw.
        synthetic: the synthetic patients.
        schema: what all three are declared to be; without it the release's schema, or that of ``train``.
        suite: name or YAML file of the gates.
        release: the release that made the synthetic cohort; its claim goes into the report.
        seed: of every draw.
        on_progress: called with each check's id, how many are done and how many there are.

    Returns:
        A report on real patients, and so itself private.

    Raises:
        ConfigError: the suite is not known, or nothing says which schema holds.
        DataError: records cannot be read or follow another schema.
    """
    _check_seed(seed)
    from synthehr.evaluation.suite import load_suite, run_suite
    from synthehr.reporting.report import PrivacyClaim, Report

    gates = load_suite(suite)
    opened = load_release(release) if isinstance(release, str | Path) else release
    declared = _schema_of(schema, release=opened, train=train)
    result = run_suite(
        train=_cohort(train, schema=declared),
        holdout=_cohort(holdout, schema=declared),
        synthetic=_cohort(synthetic, schema=declared, lenient=True),
        suite=gates,
        seed=seed,
        on_progress=on_progress,
    )
    claim = None
    if opened is not None:
        promised = opened.manifest.privacy.model_dump()
        claim = PrivacyClaim.model_validate({**promised, "release_digest": opened.digest})
    return Report(result, privacy=claim, provenance=_provenance(opened, synthetic, suite=gates.suite, seed=seed))


def save_evaluation(
    *,
    out: str | Path,
    train: Cohort[Schema] | Records,
    holdout: Cohort[Schema] | Records,
    synthetic: Cohort[Schema] | Records,
    schema: SchemaSource | None = None,
    suite: str | Path | Suite = "ci",
    release: str | Path | Release | None = None,
    seed: int = 0,
    on_progress: OnCheck | None = None,
) -> Report:
    """Evaluate as :func:`evaluate` does, and write the report into the new folder ``out``."""
    target = check_new(out)
    report = evaluate(
        train=train,
        holdout=holdout,
        synthetic=synthetic,
        schema=schema,
        suite=suite,
        release=release,
        seed=seed,
        on_progress=on_progress,
    )
    report.save(target)
    return report


def synthesize(
    source: Records,
    *,
    schema: SchemaSource,
    out: str | Path,
    epsilon: float,
    delta: float = DELTA,
    model: str = "auto",
    policy: str | Path = "standard",
    holdout: float = HOLDOUT,
    n: int | None = None,
    format: str = "parquet",
    suite: str | Path = "ci",
    seed: int | None = None,
    device: str = "auto",
    on_fit: OnFit | None = None,
    on_check: OnCheck | None = None,
) -> Synthesis:
    """Split, fit, sample and evaluate in one go, into the new folder ``out``.

    ``out`` holds ``release/``, ``synthetic/``, ``report/`` and ``split/`` (the real train and holdout parts,
    readable by their owner alone). All of it appears together, whatever the verdict, or nothing does.

    Args:
        source: see :func:`read`.
        schema: see :func:`read`.
        out: the new folder.
        epsilon: see :func:`fit`.
        delta: see :func:`fit`.
        model: see :func:`fit`.
        policy: see :func:`fit`.
        holdout: share of patients set aside for the evaluation.
        n: number of synthetic patients; without it the bought (noisy) number of patients fitted on.
        format: of the synthetic tables, ``parquet`` or ``csv``.
        suite: name or YAML file of the gates.
        seed: of the split, of sampling and of initial weights; never of the noise.
        device: see :func:`fit`.
        on_fit: called with each step of the fit.
        on_check: called with each check of the evaluation.

    Raises:
        ConfigError: a setting is outside what it may be, or ``out`` exists or cannot be written.
        DataError: the records are missing, unreadable or break the schema.
        BudgetExceededError: the policy, or the rule on delta, refuses.
    """
    check_fit_options(epsilon=epsilon, delta=delta, model=model, policy=policy, seed=seed)
    _check_share(holdout)
    if n is not None:
        _check_count(n)
    from synthehr.evaluation.suite import load_suite

    gates = load_suite(suite)
    with new_folder(out) as folder:
        cohort = read(source, schema=schema)
        train, kept = cohort.split(holdout=holdout, seed=seed)
        _write_split(folder / "split", train, kept)
        release = fit(
            train,
            epsilon=epsilon,
            delta=delta,
            model=model,
            policy=policy,
            seed=seed,
            device=device,
            on_progress=on_fit,
        )
        release.save(folder / "release")
        synthetic = release.sample(max(1, release.manifest.patients_bought) if n is None else n, seed=seed)
        (folder / "synthetic").mkdir()
        _write_synthetic(folder / "synthetic", synthetic, format=format)
        report = evaluate(
            train=train, holdout=kept, synthetic=synthetic, suite=gates, release=release, on_progress=on_check
        )
        report.save(folder / "report")
    return Synthesis(release=release, synthetic=synthetic, report=report)


def _cohort(records: Cohort[Schema] | Records, *, schema: Schema, lenient: bool = False) -> Cohort[Schema]:
    return records if isinstance(records, Cohort) else read(records, schema=schema, lenient=lenient)


def _schema_of(schema: SchemaSource | None, *, release: Release | None, train: Cohort[Schema] | Records) -> Schema:
    if schema is not None:
        return load_schema(schema)
    if release is not None:
        return release.schema
    if isinstance(train, Cohort):
        return train.schema
    raise ConfigError("nothing says what the columns mean: give --schema, or --release, which carries one")


def _provenance(
    release: Release | None, synthetic: Cohort[Schema] | Records, *, suite: str, seed: int
) -> dict[str, Any]:
    from importlib.metadata import version

    packages = ("synthehr", "numpy", "polars", "scikit-learn")
    made_by = getattr(synthetic, "provenance", None)
    return {
        "suite": suite,
        "seed": seed,
        "versions": {name: version(name) for name in packages},
        "release_digest": release.digest if release is not None else None,
        "model": release.manifest.model.name if release is not None else None,
        "synthetic_seed": made_by.seed if made_by is not None else None,
    }


def _write_split(folder: Path, train: Cohort[Schema], holdout: Cohort[Schema]) -> None:
    for name, part in (("train", train), ("holdout", holdout)):
        (folder / name).mkdir(parents=True)
        write_tables(part, folder / name, format="parquet")
    withhold(folder)


def _write_synthetic(folder: Path, cohort: SyntheticCohort, *, format: str) -> None:
    write_tables(cohort, folder, format=format)
    text = cohort.provenance.model_dump_json(indent=2)
    (folder / "PROVENANCE.json").write_text(text + "\n", encoding="utf-8")


def _check_count(n: int) -> None:
    if n < 1:
        raise ConfigError(f"the number of patients must be at least 1, not {n}")


def _check_seed(seed: int | None) -> None:
    if seed is not None and seed < 0:
        raise ConfigError(f"seed must be a whole number from 0 on, not {seed}")


def _check_share(holdout: float) -> None:
    if not 0.0 < holdout < 1.0:
        raise ConfigError(f"holdout must lie strictly between 0 and 1, not {holdout}")
