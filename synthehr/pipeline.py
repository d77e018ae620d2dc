"""The verbs: read, fit, sample, evaluate. With :mod:`synthehr.outputs` the only module that knows all the parts.

Heavy parts (torch, scikit-learn) are imported by the verb that needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from synthehr.cohort import Cohort
from synthehr.connectors.base import through_the_door
from synthehr.connectors.optout import Admission
from synthehr.connectors.records import Records, SchemaSource, read, read_raw, schema_of
from synthehr.connectors.store import is_store
from synthehr.connectors.undeclared import undeclared_tables
from synthehr.errors import ConfigError, DataError
from synthehr.privacy.accountant import Account
from synthehr.privacy.budget import Budget
from synthehr.privacy.paying import LedgerOptions, Payer
from synthehr.privacy.policy import load_policy
from synthehr.randomness import noise_source
from synthehr.schema.described import described
from synthehr.schema.draft import LEAST, Draft
from synthehr.schema.draft import draft_schema as draft_tables
from synthehr.schema.fate import Fate, fates
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema
from synthehr.schema.review import for_release
from synthehr.schema.validation import Expectation, check_tables

if TYPE_CHECKING:
    from synthehr.connectors.fhir.reading import FhirOptions
    from synthehr.evaluation.suite import Suite
    from synthehr.models.checkpoint import Checkpoint
    from synthehr.models.training import Progress
    from synthehr.release import Release, SyntheticCohort
    from synthehr.reporting.report import Report

__all__ = [
    "DELTA",
    "check_columns",
    "check_fit_options",
    "check_schema",
    "draft_schema",
    "evaluate",
    "fit",
    "load_release",
    "read",
    "sample",
]

DELTA = 1e-6

OnFit: TypeAlias = "Callable[[Progress], None]"
OnCheck: TypeAlias = Callable[[str, int, int], None]


def check_schema(
    source: str | Path,
    *,
    schema: SchemaSource | None = None,
    opt_out: str | Path | None = None,
    fhir: FhirOptions | None = None,
) -> tuple[Expectation, ...]:
    """Try every rule of the schema on the records, with Great Expectations; bounds of a draft too.

    Args:
        source: see :func:`read`.
        schema: see :func:`read`.
        opt_out: file of the keys of patients who are left out before.
        fhir: how FHIR is read.

    Raises:
        SchemaError: the schema breaks a rule of the schema language.
        DataError: the records cannot be read as tables at all.
    """
    declared = schema_of(source, None, fhir=fhir) if schema is None else load_schema(schema)
    admission = Admission.by(opt_out, schema=declared)
    tables = through_the_door(read_raw(source, schema=declared, fhir=fhir), schema=declared, admission=admission)
    return check_tables(tables, schema=declared)


def check_columns(
    source: str | Path, *, schema: SchemaSource | None = None, policy: str | Path = "standard"
) -> tuple[Fate, ...]:
    """What happens to each column of the records on the way in, and why.

    Args:
        source: see :func:`read`.
        schema: see :func:`read`.
        policy: name or YAML file of a release profile, which may cap ages.

    Raises:
        SchemaError: the schema breaks a rule of the schema language.
        DataError: the records cannot be read as tables at all.
    """
    declared = schema_of(source, None) if schema is None else load_schema(schema)
    rules = load_policy(policy)
    found = {name: frame.columns for name, frame in read_raw(source, schema=declared).items()}
    return fates(declared, found=found, cap_age=rules.cap_age)


def draft_schema(source: str | Path, *, least: int = LEAST) -> Draft:
    """Draft the schema of records for a person to review, see :func:`synthehr.schema.draft.draft_schema`.

    Args:
        source: a file of a table, a folder of them, the URI of a database, or a JSON file of SDV's metadata or of Great
            Expectations (a folder of suites too).
        least: patients who must hold a value before the draft names it.

    Raises:
        ConfigError: the source needs no schema, or ``least`` is below 1.
        DataError: it cannot be read, or nothing tells its patients apart.
        SchemaError: metadata or suites cannot be carried over.
    """
    if least < 1:
        raise ConfigError(f"a value must be held by at least 1 patient before it is named, not {least}")
    return described(source) or draft_tables(undeclared_tables(source), least=least)


def check_fit_options(
    *,
    epsilon: float,
    delta: float = DELTA,
    model: str = "auto",
    policy: str | Path = "standard",
    seed: int | None = None,
    noise: str = "system",
    schema: SchemaSource | None = None,
    **paid: Unpack[LedgerOptions],
) -> None:
    """Refuse settings of a fit that cannot be right, before any record is read.

    Raises:
        ConfigError: one of them is outside what it may be.
        SchemaError: the schema breaks a rule of the schema language.
        BudgetExceededError: the policy refuses, or the ledger cannot pay.
        DataError: the ledger is missing or was tampered with.
    """
    budget = Budget(epsilon=epsilon, delta=delta)
    rules = load_policy(policy)
    check_seed(seed)
    from synthehr.encoding.codec import declared_rows
    from synthehr.models.base import MODELS
    from synthehr.models.baselines import BASELINES

    if model in BASELINES:
        raise ConfigError(
            f"model {model!r} learns without privacy and keeps rows of patients, so there is no release of it: "
            f"synthesize --model {model} --allow-insecure (in Python synthehr.baseline) makes a cohort to compare with"
        )
    if model not in MODELS:
        raise ConfigError(f"model {model!r} is unknown: choose one of {', '.join(MODELS)}")
    declared = declared_rows(load_schema(schema)) if schema is not None else {}
    rules.check(declared, epsilon=epsilon, model=model, noise=noise)
    Payer(**paid).check(budget)


def fit(
    cohort: Cohort[Schema],
    *,
    epsilon: float,
    delta: float = DELTA,
    model: str = "auto",
    policy: str | Path = "standard",
    seed: int | None = None,
    device: str = "auto",
    noise: str = "system",
    checkpoint: Checkpoint | None = None,
    on_progress: OnFit | None = None,
    **paid: Unpack[LedgerOptions],
) -> Release:
    """Learn a release from real records under (epsilon, delta)-differential privacy of each patient.

    Args:
        cohort: the real patients to learn from.
        epsilon: the promise asked for; smaller protects more.
        delta: its slack.
        model: ``dp-ctgan``, ``dp-tvae``, ``marginal`` or ``auto``.
        policy: name or YAML file of a release profile.
        seed: moves initial weights alone, never the noise: two fits with one seed differ.
        device: ``auto``, ``cpu`` or a torch device.
        noise: ``system``, or ``cryptographic``, which is slower.
        checkpoint: what the fit goes on from and keeps, see :func:`synthehr.outputs.save_fit`; whoever opened it
            removes it once the release is saved.
        on_progress: called with each step done.
        paid: ``ledger``, the file to spend from, with ``population`` (must be the ledger's), ``by`` (who signs
            off) and ``why`` (what the release is for). See :class:`synthehr.privacy.paying.Payer`.

    Raises:
        ConfigError: a setting is outside what it may be.
        BudgetExceededError: the policy, the rule on delta or the ledger refuses.
        DataError: the ledger is missing or was tampered with.

    Privacy: everything that touches rows is booked on one account, which the release carries. A ledger has the
    budget reserved before the first touch, and the release settled before it is returned.
    """
    check_fit_options(
        epsilon=epsilon,
        delta=delta,
        model=model,
        policy=policy,
        seed=seed,
        noise=noise,
        schema=cohort.schema,
        **(paid if checkpoint is None or not checkpoint.resumed else LedgerOptions()),
    )
    cohort = for_release(cohort, cap_age=load_policy(policy).cap_age)
    from synthehr.models.checkpoint import Checkpoint
    from synthehr.models.training import train
    from synthehr.release import Release
    from synthehr.reporting.datasheet import render_datasheet

    source = noise_source(noise)
    account = Account(Budget(epsilon=epsilon, delta=delta))
    kept = checkpoint if checkpoint is not None else Checkpoint.begin(None, options={})
    what = {"task": "fit", "model": model, "policy": str(policy)}
    with Payer(**paid).paying(account, fit=kept.fit, what=what) as settle:
        if paid.get("ledger") is not None:
            kept.put(reserved=True)
        trained = train(
            cohort,
            epsilon=epsilon,
            delta=delta,
            model=model,
            policy=policy,
            seed=seed,
            device=device,
            noise=source,
            account=account,
            checkpoint=kept,
            on_progress=on_progress,
        )
        release = Release.of(trained, datasheet=render_datasheet)
        kept.put(release=release.digest)
        settle(release.digest)
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
    balance: str | None = None,
    allow_insecure: bool = False,
) -> SyntheticCohort:
    """Draw a synthetic cohort of ``n`` patients from a release, see :meth:`synthehr.release.Release.sample`.

    Raises:
        ConfigError: a setting is outside what it may be, or the release is stamped not private.
        DataError: the release is broken, or no patient or next to none meets the conditions.
    """
    check_count(n)
    check_seed(seed)
    opened = load_release(release) if isinstance(release, str | Path) else release
    return opened.sample(n, seed=seed, where=where, balance=balance, allow_insecure=allow_insecure)


def evaluate(
    *,
    train: Cohort[Schema] | Records,
    holdout: Cohort[Schema] | Records,
    synthetic: Cohort[Schema] | Records,
    schema: SchemaSource | None = None,
    suite: str | Path | Suite = "ci",
    release: str | Path | Release | None = None,
    audit: str | Path | None = None,
    seed: int = 0,
    sections: Collection[str] | None = None,
    on_progress: OnCheck | None = None,
) -> Report:
    """Measure a synthetic cohort beside the real ones, and decide by a suite.

    Args:
        train: the real patients that the release was learned from.
        holdout: real patients that it never saw.
        synthetic: the synthetic patients.
        schema: what all three are declared to be; without it the release's schema, or that of ``train``.
        suite: name or YAML file of the gates.
        release: the release that made the synthetic cohort; its claim goes into the report. Where its policy
            requires a suite or an audit that the report does not show, the verdict is never ``pass``.
        audit: report of an audit of that release, see :func:`synthehr.auditing.verb.audit`; its lower bound goes into
            the report, and fails it where it lies above the promise.
        seed: of every draw.
        sections: run the suite's checks of these sections alone; the report names them. It is then not the suite that
            a policy requires.
        on_progress: called with each check's id, how many are done and how many there are.

    Returns:
        A report on real patients, and so itself private.

    Raises:
        ConfigError: the suite is not known or lacks a section, or nothing says which schema holds.
        DataError: records cannot be read or follow another schema.
    """
    check_seed(seed)
    from synthehr.evaluation.demands import hold_to_policy
    from synthehr.evaluation.suite import load_suite, run_suite
    from synthehr.likelihood import likelihood_of
    from synthehr.release import SyntheticCohort
    from synthehr.reporting.bought import bought_profiles
    from synthehr.reporting.report import PrivacyClaim, Report

    gates = load_suite(suite).only(sections)
    opened = load_release(release) if isinstance(release, str | Path) else release
    audited = _audited(audit, release=opened)
    declared = _schema_of(schema, release=opened, train=train)
    made = _cohort(synthetic, part="synthetic", schema=declared, lenient=True)
    result = run_suite(
        train=_cohort(train, part="train", schema=declared),
        holdout=_cohort(holdout, part="holdout", schema=declared),
        synthetic=made,
        suite=gates,
        seed=seed,
        likelihood=likelihood_of(opened) if opened is not None else None,
        on_progress=on_progress,
    )
    claim = None
    if opened is not None:
        privacy = opened.manifest.privacy
        claim = PrivacyClaim.model_validate(
            {
                **privacy.model_dump(),
                "release_digest": opened.digest,
                "audited_epsilon_lower_bound": audited[0] if audited is not None else None,
            }
        )
        result = hold_to_policy(
            result,
            suite=gates,
            policy=privacy.policy,
            epsilon=privacy.epsilon,
            required_suite=privacy.required_suite,
            audit_required=privacy.audit_required,
            audited=audited[0] if audited is not None else None,
            audit_failed=audited is not None and audited[1],
        )
    elif isinstance(synthetic, SyntheticCohort) and not synthetic.provenance.private:
        claim = PrivacyClaim(private=False, why_not=synthetic.provenance.why_not)
    return Report(
        result,
        privacy=claim,
        provenance=_provenance(opened, synthetic, suite=gates.suite, seed=seed),
        bought=bought_profiles(opened.manifest, made) if opened is not None else (),
    )


def _audited(audit: str | Path | None, *, release: Release | None) -> tuple[float, bool] | None:
    """The lower bound in the report of an audit of this release, and whether any check of the audit failed."""
    if audit is None:
        return None
    from synthehr.reporting.document import load_document

    found = load_document(audit)
    if release is None:
        raise ConfigError("--audit needs --release: an audit is of a release")
    checks = [check for check in found.checks if check.section == "audit"]
    bound = found.privacy.audited_epsilon_lower_bound
    if bound is None or not checks:
        raise DataError(f"report {str(audit)!r} holds no audit: make one with synthehr audit")
    if found.privacy.release_digest != release.digest:
        raise DataError(f"report {str(audit)!r} is of the audit of another release: audit this one")
    return bound, any(check.counts_as == "fail" for check in checks)


def _cohort(records: Cohort[Schema] | Records, *, part: str, schema: Schema, lenient: bool = False) -> Cohort[Schema]:
    """One of the three parts; what is wrong with it is told with its name."""
    if isinstance(records, Cohort):
        return records
    if isinstance(records, str | Path) and is_store(records):
        raise ConfigError(
            "a store has no keys to tell patients in both parts by: evaluate on tables, such as those of --split-out"
        )
    try:
        return read(records, schema=schema, lenient=lenient)
    except DataError as error:
        raise DataError(f"{part}: {error}") from error


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
        "release_digest": release.digest if release is not None else None,
        "versions": {name: version(name) for name in packages},
        "model": release.manifest.model.name if release is not None else None,
        "synthetic_seed": made_by.seed if made_by is not None else None,
    }


def check_count(n: int) -> None:
    if n < 1:
        raise ConfigError(f"the number of patients must be at least 1, not {n}")


def check_seed(seed: int | None) -> None:
    if seed is not None and seed < 0:
        raise ConfigError(f"seed must be a whole number from 0 on, not {seed}")
