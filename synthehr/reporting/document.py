"""``report.json``: its published form, and how a result becomes it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from synthehr.errors import DataError
from synthehr.evaluation.findings import Direction, Interval, Sections
from synthehr.evaluation.suite import Check, SuiteResult, Verdict

__all__ = [
    "WITHHELD",
    "BoughtProfile",
    "CheckEntry",
    "PrivacyClaim",
    "PrivacyEvent",
    "PrivacyStatement",
    "ReportDocument",
    "build_document",
    "load_document",
]

STAMP = "For the custodian: computed on real records, not itself private."
WITHHELD = "Its numbers are computed on real records and are not told in public."
"""Why a check of the public form has no number."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PrivacyEvent(BaseModel):
    """One event of the privacy account, with its parameters."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, JsonValue]

    stage: str = ""
    type: str = ""
    count: int = 1


class PrivacyClaim(BaseModel):
    """What a release promises its patients, as its manifest states it. Keys it does not know are left out."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    epsilon: float | None = Field(default=None, ge=0)
    delta: float | None = Field(default=None, ge=0, le=1)
    unit: str | None = Field(default=None, description="Whose presence is protected: patient.")
    neighbours: str | None = Field(default=None, description="Which cohorts are neighbours: add-or-remove-one.")
    private: bool | None = Field(default=None, description="Whether the guarantee holds.")
    why_not: str | None = Field(default=None, description="Why it does not.")
    events: tuple[PrivacyEvent, ...] = ()
    release_digest: str | None = None
    audited_epsilon_lower_bound: float | None = Field(default=None, description="What an audit certified.")

    @field_validator("epsilon", "delta")
    @classmethod
    def _finite(cls, number: float | None) -> float | None:
        """An infinite epsilon promises nothing, which is written as none."""
        return number if number is not None and math.isfinite(number) else None

    @property
    def holds(self) -> bool:
        """Whether there is a promise at all: numbers, and no statement that they do not hold."""
        return self.epsilon is not None and self.delta is not None and self.private is not False


class PrivacyStatement(_Part):
    """What was promised to patients, and what an audit found."""

    claimed: bool = Field(description="Whether the release claims differential privacy.")
    epsilon: float | None
    delta: float | None
    unit: str | None
    neighbours: str | None
    why_not: str | None = Field(description="Why nothing is claimed; null where it is.")
    release_digest: str | None
    events: tuple[PrivacyEvent, ...]
    audited_epsilon_lower_bound: float | None = Field(description="Null until an audit ran.")


class CheckEntry(_Part):
    """One check of the suite."""

    id: str
    section: str
    metric: str
    scope: str | tuple[str, str]
    statistic: Literal["value", "excess"] = Field(description="Which number the bound is compared with.")
    value: float | None = Field(description="The metric on the synthetic cohort; null where undefined.")
    ci: Interval | None = Field(description="Two-sided 95 % interval of value.")
    reference: float | None = Field(description="The metric with the holdout in place of the synthetic cohort.")
    excess: float | None = Field(description="Value against reference, signed so that larger is worse.")
    excess_ci: Interval | None = Field(description="Two-sided 95 % interval of excess.")
    op: Literal["<=", ">="]
    bound: float
    direction: Direction = Field(description="Whether a lower or a higher value is better.")
    verdict: Verdict
    counts_as: Verdict = Field(
        description="The verdict after the suite's choice for inconclusive checks, and after a waiver."
    )
    why: str
    rationale: str
    waiver: str = Field(default="", description="Until when, by whom and why the verdict is let stand; else empty.")


class BoughtProfile(_Part):
    """Shares of patients in a few large cells of one column; nothing of it is computed on real records."""

    column: str
    labels: tuple[str, ...]
    bought: tuple[float, ...] = Field(description="As the release bought them under its promise, noise and all.")
    synthetic: tuple[float, ...] = Field(description="Of the synthetic patients.")

    @property
    def distance(self) -> float:
        """Half the sum of all differences between the two: the share that would have to move."""
        return sum(abs(one - other) for one, other in zip(self.bought, self.synthetic, strict=True)) / 2


class ReportDocument(_Part):
    """The whole of ``report.json``."""

    synthehr: Literal[1] = Field(default=1, description="Version of the report format.")
    audience: Literal["internal", "public"] = Field(
        default="internal",
        description="internal: for the custodian; public: verdicts, and of real records no number but bought shares.",
    )
    stamp: str = STAMP
    verdict: Verdict
    suite: str
    seed: int | None = Field(description="Of every draw of the evaluation; null in the public form.")
    privacy: PrivacyStatement
    checks: tuple[CheckEntry, ...] = Field(min_length=1)
    sections: Sections
    bought: tuple[BoughtProfile, ...] = Field(
        default=(), description="What the public form shows of columns; empty where no release is known."
    )
    provenance: dict[str, JsonValue]

    @model_validator(mode="after")
    def _verdict_follows(self) -> ReportDocument:
        counted = {check.counts_as for check in self.checks}
        expected = "fail" if "fail" in counted else "inconclusive" if "inconclusive" in counted else "pass"
        if self.verdict != expected:
            raise ValueError(f"the verdict must follow from the checks: {expected}, not {self.verdict}")
        return self


def build_document(
    result: SuiteResult,
    *,
    privacy: PrivacyClaim | None,
    provenance: Mapping[str, object],
    bought: tuple[BoughtProfile, ...] = (),
) -> ReportDocument:
    """The document of a result. Numbers that are not finite become null."""
    plain = _plain(provenance)
    assert isinstance(plain, dict)
    unsafe = privacy is not None and privacy.private is False
    return ReportDocument(
        stamp=f"The synthetic cohort is NOT PRIVATE. {STAMP}" if unsafe else STAMP,
        verdict=result.verdict,
        suite=result.suite,
        seed=result.seed,
        privacy=_statement(privacy),
        checks=tuple(_entry(check) for check in result.checks),
        sections=result.sections,
        bought=bought,
        provenance=plain,
    )


def load_document(source: str | Path) -> ReportDocument:
    """The document in a ``report.json``, or in the report folder that holds one.

    Raises:
        DataError: there is none, or it is no report of this format; names the path of the key.
    """
    path = Path(source)
    file = path / "report.json" if path.is_dir() else path
    try:
        contents = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"report {str(source)!r} cannot be read: {error.strerror or 'no report.json'}") from error
    except ValueError as error:
        raise DataError(f"report {str(source)!r} is not JSON: give a report folder, or its report.json") from error
    try:
        return ReportDocument.model_validate(contents)
    except ValidationError as error:
        raise DataError(f"report {str(source)!r} is no report of this format: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """Where a document first breaks the format; no value of it is quoted."""
    problem = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(str(part) for part in problem['loc']) or 'document'}: {problem['msg']}"


def _statement(claim: PrivacyClaim | None) -> PrivacyStatement:
    why_not = None
    if claim is None:
        claim = PrivacyClaim()
        why_not = "No release was given, so no claim is known."
    elif claim.private is False:
        why_not = f"NOT PRIVATE: {claim.why_not or 'nothing says why'}."
    elif not claim.holds:
        why_not = claim.why_not or "The release states no epsilon and delta that hold."
    return PrivacyStatement(
        claimed=claim.holds,
        epsilon=claim.epsilon,
        delta=claim.delta,
        unit=claim.unit,
        neighbours=claim.neighbours,
        why_not=why_not,
        release_digest=claim.release_digest,
        events=tuple(PrivacyEvent.model_validate(_plain(event.model_dump())) for event in claim.events),
        audited_epsilon_lower_bound=claim.audited_epsilon_lower_bound,
    )


def _entry(check: Check) -> CheckEntry:
    return CheckEntry(
        id=check.id,
        section=check.section,
        metric=check.metric,
        scope=check.scope,
        statistic=check.statistic,
        value=check.value,
        ci=check.ci,
        reference=check.reference,
        excess=check.excess,
        excess_ci=check.excess_ci,
        op=check.op,
        bound=check.bound,
        direction=check.direction,
        verdict=check.verdict,
        counts_as=check.counts_as,
        why=check.why,
        rationale=check.rationale,
        waiver=check.waiver,
    )


def _plain(value: object) -> JsonValue:
    """The value in JSON's own types; what has none becomes text."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Iterable):
        return [_plain(inner) for inner in value]
    return str(value)
