"""What a release's policy demands of its evaluation: a result that does not show it never passes.

An audit that broke the promise fails the result, whatever the policy demands.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from synthehr.errors import ConfigError, SchemaError
from synthehr.evaluation.suite import Check, Suite, SuiteResult, load_suite, overall

__all__ = ["DEMANDS", "hold_to_policy"]

DEMANDS = ("required_suite", "required_audit")
"""Metrics of the checks that a demand adds. No suite can name them."""


def hold_to_policy(
    result: SuiteResult,
    *,
    suite: Suite,
    policy: str,
    epsilon: float,
    required_suite: str | None,
    audit_required: bool,
    audited: float | None,
    audit_failed: bool = False,
) -> SuiteResult:
    """Add a check for each demand of the release's policy that the result does not meet, or an audit that broke it.

    Args:
        result: what the suite found.
        suite: the gates that were run. They are compared with the required ones gate by gate, not by name.
        policy: name of the release's policy.
        epsilon: what the release promises.
        required_suite: name or path of the suite that the policy requires; None for none.
        audit_required: whether the policy asks for an audit.
        audited: lower bound on epsilon that an audit found; None where no audit ran.
        audit_failed: whether any check of that audit failed; one of them is whether the account adds up.
    """
    unmet = []
    if required_suite is not None and not _same(suite, required_suite):
        why = f"Policy {policy!r} of the release requires suite {required_suite!r}; this report is by "
        why += "other gates of that name." if suite.suite == required_suite else f"suite {suite.suite!r}."
        unmet.append(_unmet("required_suite", op=">=", bound=1.0, why=why, rationale="The release's policy names it."))
    if audit_required and audited is None:
        why = f"Policy {policy!r} of the release requires an audit of epsilon; this report holds none."
        rationale = "The release's policy asks whether an attack shows more than the epsilon that was promised."
        unmet.append(_unmet("required_audit", op="<=", bound=epsilon, why=why, rationale=rationale))
    if audited is not None and (audited > epsilon or audit_failed):
        why = f"The audit of the release failed; it certified an epsilon of at least {audited:.3f} of {epsilon:g}."
        if audited > epsilon:
            why = f"An audit certified an epsilon of at least {audited:.3f}, and {epsilon:g} is promised: "
            why += "the code is wrong."
        rationale = "An audit that fails shows that the promise was broken, whether or not a policy asked for it."
        broken = _unmet("required_audit", op="<=", bound=epsilon, why=why, rationale=rationale)
        unmet.append(replace(broken, value=audited, verdict="fail", counts_as="fail"))
    checks = (*result.checks, *unmet)
    return replace(result, checks=checks, verdict=overall(checks)) if unmet else result


def _same(suite: Suite, required: str) -> bool:
    try:
        return suite == load_suite(required)
    except (ConfigError, SchemaError):
        return False


def _unmet(metric: str, *, op: Literal["<=", ">="], bound: float, why: str, rationale: str) -> Check:
    return Check(
        id=metric,
        section="privacy",
        metric=metric,
        scope="all",
        statistic="value",
        value=None,
        ci=None,
        reference=None,
        excess=None,
        excess_ci=None,
        op=op,
        bound=bound,
        direction="lower" if op == "<=" else "higher",
        verdict="inconclusive",
        counts_as="inconclusive",
        why=why,
        rationale=rationale,
    )
