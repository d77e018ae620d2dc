"""The verdict of an audit: a lower bound on epsilon above the promise means that the code is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synthehr.evaluation.audit import EpsilonBound
from synthehr.evaluation.bench import MetricWords
from synthehr.evaluation.findings import Sections, Sizes
from synthehr.evaluation.findings_privacy import AuditProfile, ExperimentProfile
from synthehr.evaluation.suite import Check, SuiteResult, Verdict, overall

__all__ = ["AUDIT_WORDS", "Audited", "audit_check", "audit_result"]

AUDIT_WORDS: Mapping[str, MetricWords] = {
    "audited_epsilon": MetricWords(
        title="What attacks certify of epsilon",
        failed="An attack shows more than was promised: the code is wrong. Do not publish anything made by it.",
        question="whether an attack shows more than was promised",
        measured="certified",
        compared="promised",
    ),
    "recomposed_epsilon": MetricWords(
        title="What the account adds up to",
        failed="The events on the release's account spend more than the release promises.",
        question="whether the account adds up",
        measured="composed anew",
        compared="promised",
    ),
}
"""The checks of an audit in plain words."""

_WHY = (
    "A bound above the promise has, for a correct mechanism, at most the chance that the confidence leaves: the code "
    "is wrong, and no wider bound mends it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """The experiments on one mechanism, and what it claimed.

    Attributes:
        mechanism: its name.
        claimed: epsilon.
        experiments: the bound of each, by name.
    """

    mechanism: str
    claimed: float
    experiments: Mapping[str, EpsilonBound]

    @property
    def best(self) -> EpsilonBound:
        """The largest bound; where all are 0, the one that could have shown most."""
        return max(self.experiments.values(), key=lambda bound: (bound.epsilon, bound.ceiling))


def audit_check(name: str, bound: EpsilonBound, *, claimed: float) -> Check:
    """Fails where the bound lies above what was claimed."""
    verdict: Verdict = "fail" if bound.epsilon > claimed else "pass"
    why = (
        f"Attacks certify an epsilon of at least {bound.epsilon:.3f}, at a promise of {claimed:g}: {bound.right} of "
        f"{bound.guesses} guesses were right, and as many could have certified up to {bound.ceiling:.2f}."
    )
    return Check(
        id=f"audit-{name}",
        section="audit",
        metric="audited_epsilon",
        scope="all",
        statistic="value",
        value=bound.epsilon,
        ci=None,
        reference=None,
        excess=None,
        excess_ci=None,
        op="<=",
        bound=claimed,
        direction="lower",
        verdict=verdict,
        counts_as=verdict,
        why=why,
        rationale=_WHY,
    )


def account_check(*, recomposed: float, claimed: float) -> Check:
    """Fails where a release's events, composed anew, spend more than it promises."""
    verdict: Verdict = "fail" if recomposed > claimed * (1.0 + 1e-9) else "pass"
    return Check(
        id="account-composed-anew",
        section="audit",
        metric="recomposed_epsilon",
        scope="all",
        statistic="value",
        value=recomposed,
        ci=None,
        reference=None,
        excess=None,
        excess_ci=None,
        op="<=",
        bound=claimed,
        direction="lower",
        verdict=verdict,
        counts_as=verdict,
        why=f"The events on the account compose to an epsilon of {recomposed:.4f}; {claimed:g} is promised.",
        rationale="A promise that its own account does not bear out is none.",
    )


def audit_result(
    audited: Sequence[Audited],
    *,
    delta: float,
    confidence: float,
    says: Sequence[str],
    recomposed: float | None = None,
    claimed: float,
) -> SuiteResult:
    """The checks of an audit and their verdict, in the form of a suite's result.

    Args:
        audited: every mechanism that was tried, one check each.
        delta: of the promise.
        confidence: of each check.
        says: what was run and what it does not show, a sentence each.
        recomposed: the events of a release composed anew; None where there is no release.
        claimed: the promise.
    """
    checks = [audit_check(one.mechanism, one.best, claimed=one.claimed) for one in audited]
    if recomposed is not None:
        checks.insert(0, account_check(recomposed=recomposed, claimed=claimed))
    # A mechanism that was made to promise more than is claimed here may certify more, and breaks nothing.
    own = [one.best for one in audited if one.claimed <= claimed] or [one.best for one in audited]
    best = max(own, key=lambda bound: (bound.epsilon, bound.ceiling))
    profile = AuditProfile(
        confidence=confidence,
        lower_bound=best.epsilon,
        ceiling=best.ceiling,
        claimed=claimed,
        delta=delta,
        experiments=tuple(
            ExperimentProfile(
                mechanism=one.mechanism,
                experiment=title,
                lower_bound=bound.epsilon,
                ceiling=bound.ceiling,
                guesses=bound.guesses,
                right=bound.right,
                claimed=one.claimed,
            )
            for one in audited
            for title, bound in one.experiments.items()
        ),
        says=tuple(says),
    )
    return SuiteResult(
        suite="audit",
        verdict=overall(checks),
        checks=tuple(checks),
        sections=Sections(sizes=Sizes(train=0, holdout=0, synthetic=0), audit=profile),
        seed=0,
    )
