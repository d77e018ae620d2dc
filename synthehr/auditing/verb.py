"""``audit``: try to break the promise of a release, or of mechanisms alone, and report what was certified."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from synthehr.auditing.gradients import GRADIENTS
from synthehr.auditing.mechanisms import ALPHA, COUNTS, Experiment, Setting, audit_mechanism
from synthehr.auditing.networks import CRITIC, ENCODER
from synthehr.auditing.replay import replay, replayed_stages
from synthehr.cohort import Cohort
from synthehr.connectors.records import Records, read
from synthehr.errors import ConfigError
from synthehr.evaluation.audit_result import Audited, audit_result
from synthehr.pipeline import DELTA, load_release
from synthehr.privacy.accountant import epsilon_of
from synthehr.privacy.budget import NEIGHBOURS, UNIT, Budget
from synthehr.privacy.paying import LedgerOptions
from synthehr.reporting.report import PrivacyClaim, Report
from synthehr.schema.model import Schema

if TYPE_CHECKING:
    from synthehr.release import Release

__all__ = ["CANARIES", "CANARY_PATIENTS", "MECHANISMS", "RUNS", "audit"]

MECHANISMS: Mapping[str, Mapping[str, Experiment]] = {
    **COUNTS,
    "gradients": GRADIENTS,
    "critic": CRITIC,
    "encoder": ENCODER,
}
"""Every mechanism that an audit knows, with the experiments on it."""

CANARIES, RUNS, CANARY_PATIENTS = 50_000, 6_000, 200

_REPLAY = (
    "The release's account was played back on canaries, white-box: each histogram and each gradient by the door's own "
    "code and at the release's own noise, on patients who were made up. No real patient was touched."
)
_CANARY = (
    "{number} canary patients, each among the records by a fair coin, were looked for in the synthetic patients of a "
    "fit of its own at the release's settings, on a copy and an account of its own: it spends that epsilon on the same "
    "patients once more, and its release was thrown away."
)
_STAMP = "Computed on made-up patients and the release alone: no real record was touched."
_LIMIT = (
    "A lower bound is what these attacks certify, not what the truth is: a bound below the promise is no proof of it."
)


def audit(
    release: str | Path | Release | None = None,
    *,
    mechanisms: Sequence[str] = (),
    epsilon: float | None = None,
    delta: float | None = None,
    source: Cohort[Schema] | Records | None = None,
    canaries: int = CANARIES,
    canary_patients: int = CANARY_PATIENTS,
    runs: int = RUNS,
    device: str = "auto",
    on_progress: Callable[[str], None] | None = None,
    **paid: Unpack[LedgerOptions],
) -> Report:
    """Lower bounds on epsilon, each held against the promise; one above it is a hard failure.

    Args:
        release: folder of a release, or a release: its account is composed anew and played back on canaries.
        mechanisms: names of :data:`MECHANISMS` to audit on their worst cohorts; instead of a release or with it.
        epsilon: what the mechanisms are made to promise; the release's where left out, 1 without one.
        delta: likewise; 1e-6 without a release.
        source: the real records that the release was fitted on: a fit of its own with canary patients among them is
            attacked too.
        canaries: of a run on a mechanism or an account.
        canary_patients: among the records.
        runs: of each of two cohorts, where mechanisms are run many times.
        device: of the fit with canaries.
        on_progress: told what is tried.
        paid: the ledger for the fit with canaries, see :func:`synthehr.pipeline.fit`.

    Returns:
        A report whose ``audited_epsilon_lower_bound`` is the largest bound on what was claimed. Of mechanisms that
        were made to promise more than the release does, it holds the checks alone.

    Raises:
        ConfigError: nothing is named to audit, or a setting is out of its range.
        DataError: the release or the records cannot be read.
    """
    _check(release, mechanisms, source=source, paid=paid)
    opened = load_release(release) if isinstance(release, str | Path) else release
    privacy = opened.manifest.privacy if opened is not None else None
    budget = Budget(
        epsilon=epsilon if epsilon is not None else privacy.epsilon if privacy is not None else 1.0,
        delta=delta if delta is not None else privacy.delta if privacy is not None else DELTA,
    )
    parts = len(mechanisms) + (opened is not None) + (source is not None)
    setting = Setting(epsilon=budget.epsilon, delta=budget.delta, canaries=canaries, runs=runs, alpha=ALPHA / parts)
    audited, says, recomposed = list[Audited](), list[str](), None
    if opened is not None and privacy is not None:
        own = Setting(epsilon=privacy.epsilon, delta=privacy.delta, canaries=canaries, runs=runs)
        recomposed = epsilon_of(privacy.events, delta=privacy.delta)
        audited.append(replay(privacy.events, own, alpha=setting.alpha, on_progress=on_progress))
        left = replayed_stages(privacy.events)[1]
        says.append(_REPLAY + (f" Left out of it: {', '.join(left)}." if left else ""))
    if opened is not None and source is not None:
        from synthehr.auditing.canaries import audit_by_canaries

        cohort = source if isinstance(source, Cohort) else read(source, schema=opened.schema)
        audited.append(
            audit_by_canaries(
                opened,
                cohort,
                canaries=canary_patients,
                alpha=setting.alpha,
                device=device,
                on_progress=on_progress,
                **paid,
            )
        )
        says.append(_CANARY.format(number=canary_patients))
    for name in mechanisms:
        audited.append(audit_mechanism(name, MECHANISMS[name], setting, on_progress=on_progress))
    if mechanisms:
        says.append(f"On made-up patients: {', '.join(mechanisms)}, each at the noise that spends the whole promise.")
    result = audit_result(
        audited,
        delta=budget.delta,
        confidence=1.0 - ALPHA,
        says=(*says, _LIMIT),
        recomposed=recomposed,
        claimed=privacy.epsilon if privacy is not None else budget.epsilon,
    )
    claim: dict[str, Any] = {"epsilon": budget.epsilon, "delta": budget.delta, "unit": UNIT, "neighbours": NEIGHBOURS}
    if opened is not None and privacy is not None:
        claim = {**privacy.model_dump(), "release_digest": opened.digest}
    assert result.sections.audit is not None
    report = Report(
        result,
        privacy=PrivacyClaim.model_validate(
            {**claim, "audited_epsilon_lower_bound": result.sections.audit.lower_bound}
        ),
        provenance=_provenance(opened, mechanisms, source=source, setting=setting, canary_patients=canary_patients),
    )
    if source is None:
        report.document = report.document.model_copy(update={"stamp": _STAMP})
    return report


def _check(release: object, mechanisms: Sequence[str], *, source: object, paid: LedgerOptions) -> None:
    if release is None and not mechanisms:
        raise ConfigError("name what to audit: a release, or --mechanism")
    if release is None and source is not None:
        raise ConfigError("--source needs a release: the fit with canaries takes its settings")
    if source is None and any(value is not None for value in paid.values()):
        raise ConfigError("a ledger is for the fit with canaries: give --source, or leave the ledger out")
    unknown = [name for name in mechanisms if name not in MECHANISMS]
    if unknown:
        raise ConfigError(f"mechanism {unknown[0]!r} is unknown: choose one of {', '.join(MECHANISMS)}")


def _provenance(
    release: Release | None,
    mechanisms: Sequence[str],
    *,
    source: object,
    setting: Setting,
    canary_patients: int,
) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "audit": True,
        "release_digest": release.digest if release is not None else None,
        "mechanisms": list(mechanisms),
        "canaries": setting.canaries,
        "runs": setting.runs,
        "canary_patients": canary_patients if source is not None else None,
        "versions": {name: version(name) for name in ("synthehr", "numpy", "scipy")},
    }
