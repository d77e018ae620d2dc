"""Suites: which metrics gate a release, at which bounds; and the run that decides.

A gate looks at the interval, not at the point: fail if the whole interval is past the bound, pass if the
whole interval is inside it, else inconclusive.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from synthehr._files import shipped
from synthehr.cohort import Cohort
from synthehr.errors import ConfigError, InternalError, SchemaError
from synthehr.evaluation.attacks import exchangeable
from synthehr.evaluation.bench import Likelihood
from synthehr.evaluation.findings import Direction, Measurement, Scope, Sections
from synthehr.evaluation.intervals import Estimate
from synthehr.evaluation.measurement import SectionName
from synthehr.evaluation.metrics import METRICS, Bench, measure, sections
from synthehr.evaluation.threads import single_threaded_products
from synthehr.schema.files import first_problem, load_yaml
from synthehr.schema.model import Schema

__all__ = [
    "Check",
    "Gate",
    "Outcome",
    "Suite",
    "SuiteResult",
    "Verdict",
    "Waiver",
    "decide",
    "load_suite",
    "overall",
    "run_suite",
]

Verdict = Literal["pass", "fail", "inconclusive"]
Outcome = Verdict
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=80)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Waiver(_Part):
    """A failure that is let stand for a time: the check shows its verdict, and does not count, until it ends."""

    until: dt.date = Field(description="Last day on which the waiver holds.")
    reason: str = Field(min_length=1, description="Why the failure is let stand.")
    by: str = Field(min_length=1, description="Who answers for it.")


class Gate(_Part):
    """One check of a suite: a metric, what is compared with which bound, and why that bound."""

    id: _Name
    section: SectionName
    metric: str = Field(description="Name of the metric; evaluation/README.md lists them.")
    scope: str | Annotated[tuple[str, str], Field()] = Field(
        default="all",
        description="'all' (the whole), 'each' (one check for each), a column, an outcome, or a pair [a, b].",
    )
    statistic: Literal["value", "excess"] = Field(
        description="The metric itself, or its excess over the reference, signed so that larger is worse."
    )
    op: Literal["<=", ">="]
    bound: float
    confidence: float = Field(
        default=0.95, ge=0.8, le=0.99999, description="Of the interval that is held against the bound."
    )
    on_inconclusive: Verdict = Field(default="inconclusive", description="What an undecided check counts as.")
    on_undefined: Verdict = Field(default="inconclusive", description="What a check that cannot be made counts as.")
    rationale: str = Field(min_length=1, description="Why this bound.")
    waiver: Waiver | None = Field(default=None, description="Lets a failed or undecided check stand for a time.")

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"unknown metric {metric!r}; known are {', '.join(sorted(METRICS))}")
        return metric

    @model_validator(mode="after")
    def _fits(self) -> Gate:
        metric = METRICS[self.metric]
        if self.section != metric.section:
            raise ValueError(f"metric {self.metric!r} belongs to section {metric.section!r}, not {self.section!r}")
        if self.statistic == "excess" and self.op != "<=":
            raise ValueError("op must be '<=' for statistic 'excess', where larger is worse")
        pair = isinstance(self.scope, tuple)
        if self.scope != "all" and (metric.scopes is None or (pair and not metric.pairs)):
            raise ValueError(f"metric {self.metric!r} knows no scope {self.scope!r}")
        return self


class Suite(_Part):
    """A named list of gates."""

    synthehr: Literal[1] = Field(description="Version of the suite format.")
    suite: _Name = Field(description="Name of the suite.")
    description: str = Field(default="", description="What the suite is for.")
    checks: tuple[Gate, ...] = Field(json_schema_extra={"minItems": 1})

    @field_validator("checks")
    @classmethod
    def _some(cls, checks: tuple[Gate, ...]) -> tuple[Gate, ...]:
        # Not min_length, which also counts a check that was refused as one that is not there.
        if not checks:
            raise ValueError("must hold at least one check")
        return checks

    def only(self, sections: Collection[str] | None) -> Suite:
        """The checks of these sections; the suite's name says so. The suite itself for None and for all of them.

        Raises:
            ConfigError: the suite has no check of a section.
        """
        if sections is None:
            return self
        known = {gate.section for gate in self.checks}
        for name in sections:
            if name not in known:
                raise ConfigError(
                    f"suite {self.suite!r} has no check of section {name!r}: it has {', '.join(sorted(known))}"
                )
        kept = tuple(gate for gate in self.checks if gate.section in sections)
        if not kept:
            raise ConfigError("no section is named: name one, or leave them out")
        if len(kept) == len(self.checks):
            return self
        told = ", ".join(dict.fromkeys(gate.section for gate in kept))
        return self.model_copy(update={"checks": kept, "suite": f"{self.suite} ({told} only)"})

    @model_validator(mode="after")
    def _ids_once(self) -> Suite:
        ids = [gate.id for gate in self.checks]
        repeated = sorted({one for one in ids if ids.count(one) > 1})
        if repeated:
            raise ValueError(f"check id {repeated[0]!r} stands twice")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One decided gate.

    Attributes:
        id: the gate's id, with the scope in brackets where the gate asked for ``each``.
        value: the metric on the synthetic cohort, with ``ci``; None where undefined.
        reference: the same with the holdout in the place of the synthetic cohort.
        excess: value against reference, signed so that larger is worse, with ``excess_ci``.
        verdict: pass, fail or inconclusive, by the interval of the gated ``statistic``.
        counts_as: the verdict after the suite's ``on_inconclusive`` and ``on_undefined``, and after its waiver.
        why: the verdict in one sentence.
        waiver: until when, why and by whom what the check found is let stand; empty where it is not.
    """

    id: str
    section: str
    metric: str
    scope: Scope
    statistic: Literal["value", "excess"]
    value: float | None
    ci: tuple[float, float] | None
    reference: float | None
    excess: float | None
    excess_ci: tuple[float, float] | None
    op: Literal["<=", ">="]
    bound: float
    direction: Direction
    verdict: Verdict
    counts_as: Verdict
    why: str
    rationale: str
    waiver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult:
    """The verdict of a suite, its checks in order, and the data behind the plots.

    Computed on real records, so private; ``sections`` holds shares and rounded sizes, no record.
    """

    suite: str
    verdict: Verdict
    checks: tuple[Check, ...]
    sections: Sections
    seed: int


def load_suite(source: str | Path | Suite) -> Suite:
    """The suite of this name (``ci``, ``quick``) or in this YAML file.

    Raises:
        ConfigError: no shipped suite has the name and no file has the path.
        SchemaError: the file breaks the suite format; names the path of the key.
    """
    if isinstance(source, Suite):
        return source
    path = Path(source)
    if path.suffix not in {".yaml", ".yml"}:
        folder = shipped("evaluation/suites")
        known = sorted(file.stem for file in folder.glob("*.yaml"))
        if str(source) not in known:
            raise ConfigError(f"no suite is named {str(source)!r}: use {', '.join(known)}, or the path of a YAML file")
        path = folder / f"{source}.yaml"
    contents = load_yaml(path, what="suite")
    if not isinstance(contents, dict):
        raise SchemaError(f"suite {str(source)!r} must be a mapping with the keys synthehr, suite and checks")
    try:
        return Suite.model_validate(contents)
    except ValidationError as error:
        raise SchemaError(f"suite {str(source)!r}: {first_problem(error, Suite)}") from error


@single_threaded_products()
def run_suite(
    *,
    train: Cohort[Schema],
    holdout: Cohort[Schema],
    synthetic: Cohort[Schema],
    suite: Suite,
    seed: int = 0,
    today: dt.date | None = None,
    likelihood: Likelihood | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> SuiteResult:
    """Measure what the suite asks for and decide.

    Args:
        train: the real patients the release was learned from.
        holdout: real patients it never saw, split off at random.
        synthetic: the synthetic patients.
        suite: the gates.
        seed: of every draw; the same cohorts, suite and seed give the same result, while the same waivers hold.
        today: the day on which waivers are judged; by default this one.
        likelihood: of real patients under the generator, where it is at hand: one more attack.
        on_progress: called before each check with its id, how many are done, and how many there are.

    Raises:
        DataError: a cohort lacks a declared column, follows another schema or has no patient.
        ConfigError: a check's scope names a column, outcome or rule that the schema has not, or no check applies.
    """
    asked = frozenset(gate.metric for gate in suite.checks)
    bench = Bench.open(train=train, holdout=holdout, synthetic=synthetic, seed=seed, asked=asked, likelihood=likelihood)
    gates = [gate for gate in suite.checks if _applies(gate, bench)]
    if not gates:
        raise ConfigError(f"no check of suite {suite.suite!r} applies to this schema: choose another suite")
    planned = [(gate, scope) for gate in gates for scope in _scopes(gate, bench)]
    checks = []
    for done, (gate, scope) in enumerate(planned):
        if on_progress is not None:
            on_progress(gate.id, done, len(planned))
        check = _referred(_check(gate, measure(bench, gate.metric, scope)), gate, bench)
        checks.append(_waived(check, gate.waiver, today=today))
    if on_progress is not None:
        on_progress("done", len(planned), len(planned))
    if {gate.id for gate in gates} - {gate.id for gate, _ in planned} or len(checks) != len(planned):
        raise InternalError("a check of the suite did not run")
    return SuiteResult(
        suite=suite.suite,
        verdict=overall(checks),
        checks=tuple(checks),
        sections=sections(bench),
        seed=seed,
    )


def _applies(gate: Gate, bench: Bench) -> bool:
    """Whether a check could say anything, or has to say that it cannot."""
    metric = METRICS[gate.metric]
    return metric.applies(bench) and (gate.on_undefined != "pass" or metric.measurable(bench))


def decide(interval: Estimate, *, op: Literal["<=", ">="], bound: float) -> Verdict:
    """Pass if the whole interval is inside the bound, fail if the whole of it is past, else inconclusive."""
    low, high = interval.low, interval.high
    inside, past = (high <= bound, low > bound) if op == "<=" else (low >= bound, high < bound)
    return "pass" if inside else "fail" if past else "inconclusive"


def _scopes(gate: Gate, bench: Bench) -> list[Scope]:
    metric = METRICS[gate.metric]
    if gate.scope == "all":
        return ["all"]
    known = metric.scopes(bench) if metric.scopes is not None else ()
    if gate.scope == "each":
        return list(known) or ["all"]
    wanted = gate.scope if isinstance(gate.scope, tuple) else (gate.scope,)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(
            f"check {gate.id!r} has scope {unknown[0]!r}, which is none of the schema's: correct the suite"
        )
    if isinstance(gate.scope, tuple) and gate.scope[0] == gate.scope[1]:
        raise ConfigError(f"check {gate.id!r} has a pair of one column: name two")
    return [gate.scope]


def _check(gate: Gate, found: Measurement) -> Check:
    gated = _widened(found.value if gate.statistic == "value" else found.excess, confidence=gate.confidence)
    each = f"[{found.scope}]" if gate.scope == "each" and found.scope != "all" else ""
    if gated is None:
        verdict: Verdict = "inconclusive"
        counts_as, why = gate.on_undefined, found.why
    else:
        verdict = decide(gated, op=gate.op, bound=gate.bound)
        counts_as = gate.on_inconclusive if verdict == "inconclusive" else verdict
        why = _sentence(gate, gated, verdict)
    return Check(
        id=gate.id + each,
        section=gate.section,
        metric=gate.metric,
        scope=found.scope,
        statistic=gate.statistic,
        value=None if found.value is None else found.value.value,
        ci=None if found.value is None else (found.value.low, found.value.high),
        reference=found.reference,
        excess=None if found.excess is None else found.excess.value,
        excess_ci=None if found.excess is None else (found.excess.low, found.excess.high),
        op=gate.op,
        bound=gate.bound,
        direction=found.direction,
        verdict=verdict,
        counts_as=counts_as,
        why=why,
        rationale=gate.rationale,
    )


def _referred(check: Check, gate: Gate, bench: Bench) -> Check:
    """The check, undecided if it passes by a reference that says nothing: a holdout of other patients than train's.

    The further such a holdout lies from train, the larger the reference and the smaller the excess. A failure stands.
    """
    if gate.statistic == "value" or check.verdict != "pass":
        return check
    control = bench.once(exchangeable)
    if control.holds or control.small:
        return check
    why = f"The holdout is no control for train, so an excess over it shows nothing. {control.why}"
    return replace(check, excess=None, excess_ci=None, verdict="inconclusive", counts_as=gate.on_inconclusive, why=why)


def _waived(check: Check, waiver: Waiver | None, *, today: dt.date | None) -> Check:
    """The check as its waiver lets it stand; after its last day it counts again, and says so."""
    if waiver is None or check.counts_as == "pass":
        return check
    if (today or dt.datetime.now(tz=dt.UTC).date()) > waiver.until:
        return replace(check, why=f"{check.why} Its waiver ended on {waiver.until}.")
    return replace(check, counts_as="pass", waiver=f"Waived until {waiver.until} by {waiver.by}: {waiver.reason}")


def _widened(estimate: Estimate | None, *, confidence: float) -> Estimate | None:
    """The interval at another level than 95 %, each side stretched as a normal distribution's would be."""
    if estimate is None or confidence == 0.95:
        return estimate
    normal = NormalDist()
    stretch = normal.inv_cdf((1.0 + confidence) / 2.0) / normal.inv_cdf(0.975)
    return replace(
        estimate,
        low=estimate.value - stretch * (estimate.value - estimate.low),
        high=estimate.value + stretch * (estimate.high - estimate.value),
    )


def _sentence(gate: Gate, gated: Estimate, verdict: Verdict) -> str:
    what = "The value" if gate.statistic == "value" else "The excess over the reference"
    limit = "at most" if gate.op == "<=" else "at least"
    relation = {
        "pass": "its whole interval lies within the bound",
        "fail": "its whole interval lies past the bound",
        "inconclusive": "its interval crosses the bound, so these cohorts are too small to decide",
    }[verdict]
    return (
        f"{what} is {gated.value:.3g} ({100 * gate.confidence:g} % interval {gated.low:.3g} to {gated.high:.3g}); "
        f"the bound is {limit} {gate.bound:g}: {relation}."
    )


def overall(checks: Sequence[Check]) -> Verdict:
    """Fail if any check counts as failed, else inconclusive if any counts as that, else pass."""
    counted = {check.counts_as for check in checks}
    return "fail" if "fail" in counted else "inconclusive" if "inconclusive" in counted else "pass"
