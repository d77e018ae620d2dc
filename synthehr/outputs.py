"""The verbs that leave folders behind: fit, sample, evaluate and synthesize to disk, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Unpack

import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.fhir.write import FHIR_FORMATS, check_writable
from synthehr.connectors.files import FORMATS, TableWriter, write_tables
from synthehr.connectors.folders import check_new, new_folder, withhold
from synthehr.connectors.made_up_calendar import MadeUpCalendar
from synthehr.connectors.meds.layout import MEDS, Layout
from synthehr.connectors.omop.targets import OMOP_FORMATS
from synthehr.connectors.omop.writing import check_writable as check_omop
from synthehr.connectors.optout import Admission, write_audit
from synthehr.connectors.records import Records, SchemaSource, read, schema_of
from synthehr.errors import BudgetExceededError, ConfigError, DataError
from synthehr.pipeline import (
    DELTA,
    OnCheck,
    OnFit,
    check_count,
    check_fit_options,
    check_seed,
    evaluate,
    fit,
    load_release,
)
from synthehr.privacy.paying import LedgerOptions
from synthehr.privacy.policy import load_policy
from synthehr.randomness import fresh_seed
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema
from synthehr.schema.review import capped

if TYPE_CHECKING:
    from synthehr.connectors.fhir.reading import FhirOptions
    from synthehr.evaluation.suite import Suite
    from synthehr.manifest import Provenance
    from synthehr.models.checkpoint import Checkpoint
    from synthehr.release import Release, SyntheticCohort
    from synthehr.reporting.report import Report

__all__ = [
    "Synthesis",
    "check_format",
    "check_share",
    "new_folder",
    "save_evaluation",
    "save_fit",
    "save_sample",
    "synthesize",
    "write_split",
    "write_synthetic",
]

HOLDOUT = 0.2
POLICY = "standard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesis:
    """What :func:`synthesize` made; the same lies in the output folder."""

    release: Release
    synthetic: SyntheticCohort
    report: Report


class FitOptions(LedgerOptions):
    """Settings of :func:`synthehr.pipeline.fit`, under its names."""

    epsilon: float
    delta: NotRequired[float]
    model: NotRequired[str]
    policy: NotRequired[str | Path]
    device: NotRequired[str]
    noise: NotRequired[str]
    on_progress: NotRequired[OnFit]


def save_fit(
    source: Records,
    *,
    schema: SchemaSource | None = None,
    out: str | Path,
    holdout: float | None = None,
    split_out: str | Path | None = None,
    seed: int | None = None,
    resume: bool = False,
    opt_out: str | Path | None = None,
    fhir: FhirOptions | None = None,
    **options: Unpack[FitOptions],
) -> Release:
    """Read records, set patients aside for the evaluation where asked, fit, and write the release.

    While it runs, ``OUT.checkpoint`` (a folder that its owner alone can enter) keeps what was bought and learned. It
    goes when the release is written, and when the fit fails; after an interrupt or a kill it stays, and ``resume``
    goes on from it: with the same options and records, the reservation that the ledger holds for it, and the split.

    Args:
        source: see :func:`synthehr.pipeline.read`.
        schema: see :func:`synthehr.pipeline.read`.
        out: the new release folder.
        holdout: share of patients to set aside; needs ``split_out``.
        split_out: new folder for the private parts ``train`` and ``holdout``; readable by its owner alone.
        seed: of the split and of what the fit does with it.
        resume: go on with the interrupted fit of this ``out``.
        opt_out: file of the keys of patients who are left out.
        fhir: how FHIR is read; what was left out is told in ``split_out``.
        options: see :func:`synthehr.pipeline.fit`.

    Raises:
        ConfigError: a setting is outside what it may be, an output exists or cannot be written, or there is no
            interrupted fit of these options to go on with.
    """
    from synthehr.models.checkpoint import Checkpoint

    schema = _fitted_schema(source, schema, options, fhir=fhir)
    admission = Admission.by(opt_out, schema=schema)
    lies = Path(out).absolute()
    lies = lies.with_name(f"{lies.name}.checkpoint")
    if not resume:
        Checkpoint.check_none(lies)
    _check(options, seed=seed, schema=schema, resume=resume)
    if (holdout is None) != (split_out is None):
        raise ConfigError("--holdout and --split-out go together: the holdout is needed by the evaluation")
    if holdout is not None:
        check_share(holdout)
    fixed = _fixed(options, schema=schema, holdout=holdout, seed=seed)
    if resume and lies.is_dir() and Path(out).exists():
        return _already_saved(lies, options=fixed, out=out)
    target = check_new(out)
    if split_out is not None and Path(split_out).absolute() == target:
        raise ConfigError("the release and the split need folders of their own: they differ in who may read them")
    if split_out is not None and not (resume and Path(split_out).is_dir()):
        check_new(split_out)
    with _checkpoint(lies, options=fixed, resume=resume) as kept:
        train = _train_part(
            source, schema=schema, holdout=holdout, split_out=split_out, kept=kept, admission=admission, fhir=fhir
        )
        release = fit(train, seed=int(kept.options["seed"]), checkpoint=kept, **options)
        release.save(target)
    return release


def _fitted_schema(
    source: Records, schema: SchemaSource | None, options: FitOptions, *, fhir: FhirOptions | None
) -> Schema:
    """The schema that is fitted under: the public part of a draft, with ages capped where the policy says so."""
    return capped(schema_of(source, schema, fhir=fhir), years=load_policy(options.get("policy", POLICY)).cap_age)


def _fixed(options: FitOptions, *, schema: SchemaSource, holdout: float | None, seed: int | None) -> dict[str, Any]:
    """What must be the same when a fit goes on."""
    from synthehr.models.training import what_is_fitted

    fixed = what_is_fitted(
        load_schema(schema),
        epsilon=options["epsilon"],
        delta=options.get("delta", DELTA),
        model=options.get("model", "auto"),
        policy=options.get("policy", POLICY),
        noise=options.get("noise", "system"),
        seed=seed,
    )
    return {**fixed, "holdout": holdout, "ledger": options.get("ledger") is not None}


@contextmanager
def _checkpoint(path: Path, *, options: dict[str, Any], resume: bool) -> Iterator[Checkpoint]:
    """The checkpoint of a fit, gone when the block ends well.

    It stays after an interrupt, and where a fit that goes on is refused: a wrong path or device must not cost what was
    bought. Whatever else ends a fit may depend on its rows, so that nothing goes on from there.
    """
    from synthehr.models.checkpoint import Checkpoint

    kept = (Checkpoint.resume if resume else Checkpoint.begin)(path, options=options)
    try:
        if kept.options["seed"] is None:
            kept.options["seed"] = fresh_seed()
            kept.save()
        yield kept
    except KeyboardInterrupt as interrupt:
        if not (kept.state.get("begun") or kept.state.get("reserved")):  # nothing was spent
            _undo(kept)
            raise
        kept.release()
        raise KeyboardInterrupt(f"what was bought stays in {str(path)!r}: go on with --resume") from interrupt
    except BaseException as error:
        if kept.resumed and isinstance(error, BudgetExceededError | ConfigError | DataError):
            kept.release()
        else:
            _undo(kept)
        raise
    try:
        kept.remove()
    finally:
        kept.release()


def _undo(kept: Checkpoint) -> None:
    for made in kept.state.get("made", ()):
        shutil.rmtree(made, ignore_errors=True)
    kept.remove()


def _already_saved(path: Path, *, options: dict[str, Any], out: str | Path) -> Release:
    """The release of a fit that was interrupted after it was saved; its checkpoint is taken away."""
    from synthehr.models.checkpoint import Checkpoint
    from synthehr.release import Release

    kept = Checkpoint.resume(path, options=options)
    try:
        release = Release.load(out)
        if kept.state.get("release") != release.digest:
            raise ConfigError(f"output {str(out)!r} exists, and is not of the interrupted fit: move it away")
    except BaseException:
        kept.release()
        raise
    kept.remove()
    return release


def _train_part(
    source: Records,
    *,
    schema: SchemaSource,
    holdout: float | None,
    split_out: str | Path | None,
    kept: Checkpoint,
    admission: Admission,
    fhir: FhirOptions | None,
) -> Cohort[Schema]:
    """The records to learn from. A split is on disk before a row is touched, and is the same after an interrupt."""
    if holdout is None or split_out is None:
        return read(source, schema=schema, admission=admission, fhir=fhir)
    target = Path(split_out)
    if not target.is_dir():
        seed = int(kept.options["seed"])
        with new_folder(target, private=True) as folder:
            told = _with_notes(fhir, folder)
            parts = read(source, schema=schema, admission=admission, fhir=told).split(holdout=holdout, seed=seed)
            write_split(folder, *parts, left_out=admission.left_out)
        kept.put(made=[str(target.absolute())])
    return read(target / "train", schema=schema)


def _with_notes(fhir: FhirOptions | None, folder: Path) -> FhirOptions | None:
    """The same way of reading FHIR, with a private folder for what it leaves out."""
    return None if fhir is None else replace(fhir, notes=folder)


def save_sample(
    release: str | Path | Release,
    n: int,
    *,
    out: str | Path,
    format: str = "parquet",
    seed: int | None = None,
    where: str | Sequence[str] = (),
    balance: str | None = None,
    allow_insecure: bool = False,
) -> Provenance:
    """Draw a synthetic cohort and write it with ``PROVENANCE.json`` into the new folder ``out``.

    Patients are written as they are drawn: memory does not grow with ``n``, but for FHIR.

    Returns:
        what ``PROVENANCE.json`` says.

    Raises:
        ConfigError: a setting is outside what it may be, or ``out`` exists or cannot be written.
        SchemaError: the release makes columns that FHIR has no place for, and FHIR is asked for.
        DataError: the release is broken, or no patient or next to none meets the conditions.
    """
    check_count(n)
    check_seed(seed)
    with new_folder(out) as folder:
        opened = load_release(release) if isinstance(release, str | Path) else release
        check_format(format, schema=opened.schema)
        seed = fresh_seed() if seed is None else seed
        if format in (*FHIR_FORMATS, MEDS, *OMOP_FORMATS):
            cohort = opened.sample(n, seed=seed, where=where, balance=balance, allow_insecure=allow_insecure)
            write_synthetic(folder, cohort, format=format)
            return cohort.provenance
        calendar = MadeUpCalendar(opened.schema, seed=seed)
        with ExitStack() as stack:
            writers = {
                name: stack.enter_context(TableWriter(folder, name, format=format, declared=table))
                for name, table in opened.schema.tables.items()
            }

            def write(part: dict[str, pl.DataFrame]) -> None:
                for name, frame in calendar.dated(part).items():
                    writers[name].write(frame)

            provenance = opened.sample_to(
                write, n, seed=seed, where=where, balance=balance, allow_insecure=allow_insecure
            )
        _write_provenance(folder, provenance)
    return provenance


def save_evaluation(
    *,
    out: str | Path,
    train: Cohort[Schema] | Records,
    holdout: Cohort[Schema] | Records,
    synthetic: Cohort[Schema] | Records,
    schema: SchemaSource | None = None,
    suite: str | Path | Suite = "ci",
    release: str | Path | Release | None = None,
    audit: str | Path | None = None,
    seed: int = 0,
    sections: Collection[str] | None = None,
    audience: Literal["internal", "public"] = "internal",
    on_progress: OnCheck | None = None,
) -> Report:
    """Evaluate as :func:`synthehr.pipeline.evaluate` does, and write the report into the new folder ``out``."""
    target = check_new(out)
    report = evaluate(
        train=train,
        holdout=holdout,
        synthetic=synthetic,
        schema=schema,
        suite=suite,
        release=release,
        audit=audit,
        seed=seed,
        sections=sections,
        on_progress=on_progress,
    )
    report.save(target, audience=audience)
    return report


def synthesize(
    source: Records,
    *,
    schema: SchemaSource | None = None,
    out: str | Path,
    holdout: float = HOLDOUT,
    n: int | None = None,
    format: str = "parquet",
    suite: str | Path | None = None,
    seed: int | None = None,
    opt_out: str | Path | None = None,
    fhir: FhirOptions | None = None,
    on_check: OnCheck | None = None,
    **options: Unpack[FitOptions],
) -> Synthesis:
    """Split, fit, sample and evaluate in one go, into the new folder ``out``.

    ``out`` holds ``release/``, ``synthetic/``, ``report/`` and ``split/`` (the real train and holdout parts,
    readable by their owner alone). All of it appears together, whatever the verdict, or nothing does.

    Args:
        source: see :func:`synthehr.pipeline.read`.
        schema: see :func:`synthehr.pipeline.read`.
        out: the new folder.
        holdout: share of patients set aside for the evaluation.
        n: number of synthetic patients; without it the bought (noisy) number of patients fitted on.
        format: of the synthetic tables, ``parquet`` or ``csv``; or ``fhir-ndjson`` or ``fhir-bundle``.
        suite: name or YAML file of the gates; without it the one that the policy requires, or ``ci``.
        seed: of the split, of sampling and of initial weights; never of the noise.
        opt_out: file of the keys of patients who are left out.
        fhir: how FHIR is read; what was left out is told in ``split/``.
        on_check: called with each check of the evaluation.
        options: see :func:`synthehr.pipeline.fit`; ``on_progress`` is called with each step of the fit.

    Raises:
        ConfigError: a setting is outside what it may be, the policy requires another suite, or ``out`` exists or
            cannot be written.
        DataError: the records are missing, unreadable or break the schema; or the ledger was tampered with.
        BudgetExceededError: the policy, the rule on delta or the ledger refuses.
    """
    schema = _fitted_schema(source, schema, options, fhir=fhir)
    admission = Admission.by(opt_out, schema=schema)
    _check(options, seed=seed, schema=schema)
    check_format(format, schema=schema)
    check_share(holdout)
    if n is not None:
        check_count(n)
    gates = _gates(suite, policy=options.get("policy", POLICY))
    with new_folder(out) as folder:
        (folder / "split").mkdir(mode=0o700)
        cohort = read(source, schema=schema, admission=admission, fhir=_with_notes(fhir, folder / "split"))
        train, kept = cohort.split(holdout=holdout, seed=seed)
        write_split(folder / "split", train, kept, left_out=admission.left_out)
        release = fit(train, seed=seed, **options)
        release.save(folder / "release")
        synthetic = release.sample(max(1, release.manifest.patients_bought) if n is None else n, seed=seed)
        (folder / "synthetic").mkdir()
        write_synthetic(folder / "synthetic", synthetic, format=format)
        report = evaluate(
            train=train, holdout=kept, synthetic=synthetic, suite=gates, release=release, on_progress=on_check
        )
        report.save(folder / "report")
    return Synthesis(release=release, synthetic=synthetic, report=report)


def _gates(suite: str | Path | None, *, policy: str | Path) -> Suite:
    """The suite asked for, or the policy's; another than the policy requires is refused."""
    from synthehr.evaluation.suite import load_suite

    rules = load_policy(policy)
    if suite is None:
        return load_suite(rules.suite or "ci")
    gates = load_suite(suite)
    if rules.suite is not None and gates != load_suite(rules.suite):
        raise ConfigError(
            f"policy {rules.name!r} requires suite {rules.suite!r}, but {str(suite)!r} was asked for: "
            "leave --suite out, or choose another policy"
        )
    return gates


def _check(options: FitOptions, *, seed: int | None, schema: SchemaSource, resume: bool = False) -> None:
    """Refuse options that cannot be right, before any record is read. A fit that goes on has its budget reserved."""
    paid: LedgerOptions = {
        "ledger": options.get("ledger"),
        "population": options.get("population"),
        "by": options.get("by"),
        "why": options.get("why"),
    }
    check_fit_options(
        epsilon=options["epsilon"],
        delta=options.get("delta", DELTA),
        model=options.get("model", "auto"),
        policy=options.get("policy", POLICY),
        seed=seed,
        noise=options.get("noise", "system"),
        schema=schema,
        **({} if resume else paid),
    )


def write_split(
    folder: Path, train: Cohort[Schema], holdout: Cohort[Schema], *, left_out: Mapping[str, int] | None = None
) -> None:
    """Write the real train and holdout parts into an existing folder, and withhold it from all but its owner.

    ``AUDIT.json`` there counts patients who were left out since they opted out, by what said so.
    """
    for name, part in (("train", train), ("holdout", holdout)):
        (folder / name).mkdir(parents=True)
        write_tables(part, folder / name, format="parquet")
    if left_out:
        write_audit(folder / "AUDIT.json", left_out)
    withhold(folder)


def write_synthetic(folder: Path, cohort: SyntheticCohort, *, format: str) -> None:
    """Write a synthetic cohort and its provenance into an existing folder, dates on a made-up calendar.

    As FHIR, every resource is labelled synthetic.
    """
    if format in FHIR_FORMATS:
        from synthehr.connectors.fhir.write_conversion import write_synthetic as write_fhir

        write_fhir(cohort, folder, format=format, provenance=cohort.provenance)
    elif format == MEDS:
        from synthehr.connectors.meds.writing import write_meds

        told = cohort.provenance
        write_meds(cohort, folder, seed=told.seed, synthetic=True, release_digest=told.release_digest)
    elif format in OMOP_FORMATS:
        from synthehr.connectors.omop.conversion import convert_to_omop

        told = cohort.provenance
        of = f"release {told.release_digest}, epsilon {told.epsilon}, delta {told.delta}"
        convert_to_omop(cohort, folder, format=format, seed=told.seed, synthetic=True, told=of)
    else:
        calendar = MadeUpCalendar(cohort.schema, seed=cohort.provenance.seed)
        for name, frame in calendar.dated(cohort.tables).items():
            with TableWriter(folder, name, format=format, declared=cohort.schema.tables[name]) as writer:
                writer.write(frame)
    _write_provenance(folder, cohort.provenance)


def _write_provenance(folder: Path, provenance: Provenance) -> None:
    (folder / "PROVENANCE.json").write_text(provenance.model_dump_json(indent=2) + "\n", encoding="utf-8")


def check_format(format: str, *, schema: Schema) -> None:
    """Refuse a format that is not known, or that has no place for what the schema declares."""
    known = (*FORMATS, MEDS, *OMOP_FORMATS, *FHIR_FORMATS)
    if format not in known:
        raise ConfigError(f"format must be one of {', '.join(known)}, not {format!r}")
    if format in FHIR_FORMATS:
        check_writable(schema)
    if format == MEDS:
        Layout.of(schema)
    if format in OMOP_FORMATS:
        check_omop(schema)


def check_share(holdout: float) -> None:
    """Refuse a share of patients to set aside that is none or all of them."""
    if not 0.0 < holdout < 1.0:
        raise ConfigError(f"holdout must lie strictly between 0 and 1, not {holdout}")
