"""What each check means, in words for a person who answers for the data and not for the statistics."""

from __future__ import annotations

import math
from typing import get_args

from synthehr.evaluation.audit_result import AUDIT_WORDS
from synthehr.evaluation.bench import MetricWords
from synthehr.evaluation.demands import DEMANDS
from synthehr.evaluation.measurement import SectionName
from synthehr.evaluation.metrics import METRICS
from synthehr.reporting.document import WITHHELD, CheckEntry, PrivacyStatement, ReportDocument
from synthehr.reporting.escape import clipped

__all__ = [
    "LEADS",
    "METRIC_WORDS",
    "PUBLIC_LEADS",
    "SECTION_TITLES",
    "VERDICT_WORDS",
    "check_words",
    "good_for",
    "is_audit",
    "let_stand",
    "may_publish",
    "metric_words",
    "not_proven",
    "power",
    "promise",
    "thousands",
    "verdict_sentence",
    "waived",
    "worst_of_all",
]


METRIC_WORDS: dict[str, MetricWords] = (
    {name: metric.words for name, metric in METRICS.items()}
    | dict(AUDIT_WORDS)
    | {
        "required_suite": MetricWords(
            title="The suite that the release's policy requires",
            failed="The suite that the release's policy requires was not run.",
            question="whether the cohort meets the suite that the release's policy requires",
        ),
        "required_audit": MetricWords(
            title="The audit that the release's policy requires",
            failed="The audit of epsilon that the release's policy requires did not run.",
            question="whether an audit bears the promise out",
        ),
    }
)
"""Each metric in plain words, and the demands of a release's policy."""

SECTION_TITLES = {name: name.capitalize() for name in get_args(SectionName)}
_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
VERDICT_WORDS = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive"}

LEADS = {
    "validity": "Do synthetic patients obey what the schema declares?",
    "fidelity": "Do synthetic patients look like real ones? A distance of 0.05 means that five patients in a hundred "
    "would have to move to another bin for the two to agree. Two groups of real patients do not agree fully either, "
    "which is what “other real patients” shows, in a sample of the same size.",
    "longitudinal": "Do visits, codes and measurements follow each other as they do in real patients?",
    "utility": "Does a model trained on synthetic patients predict the outcome of real ones? Both models learn from "
    "equally many patients and are tried on the holdout.",
    "inference": "Would a study of the synthetic patients come to the conclusions of a study of the real ones?",
    "fairness": "Is the cohort as good for every declared group of patients as for all of them?",
    "privacy": "Can it be told who was learned from? Whoever was held out can only be met by chance, so the holdout "
    "shows what chance does.",
    "audit": "Does an attack on the mechanism itself show more than the epsilon that was promised?",
}
"""What each section asks, as the sentence under its title."""

PUBLIC_LEADS = {"fidelity": "Do synthetic patients look like real ones?"}
"""The same where the numbers that it explains are not told."""


def metric_words(metric: str) -> MetricWords:
    """A metric in plain words; its name where an earlier version measured what this one does not know."""
    name = metric.replace("_", " ")
    unknown = MetricWords(title=name, failed=f"The check of {name} failed.", question=f"how {name} stands")
    return METRIC_WORDS.get(metric, unknown)


def is_audit(document: ReportDocument) -> bool:
    """Whether the report is of an audit of the mechanisms, with no cohort in it."""
    return all(check.section == "audit" for check in document.checks)


def may_publish(document: ReportDocument) -> str:
    """The answer to the first question, in a sentence."""
    if is_audit(document) and document.verdict == "pass":
        return "May it be published? This audit did not break the promise; whether a cohort is fit, an evaluation says."
    if document.verdict == "fail":
        return "May it be published? No: a check that the suite needs has failed."
    if document.verdict == "inconclusive":
        return "May it be published? Not on this evidence: a check that the suite needs is undecided."
    if not document.privacy.claimed:
        return "May it be published? Not as synthetic data that protects patients: nothing is promised to them."
    return "May it be published? As far as this suite asks, yes. Someone must still answer for it."


_HARDLY_ABOVE = 0.1
_HARDLY = "from their own table models of real patients hardly predict it either"
_GOOD_FOR = {
    "validity": "building and testing software that reads such records",
    "fidelity": "describing patients{own}, one or two columns at a time",
    "longitudinal": "describing how visits, codes and measurements follow each other",
    "utility": "developing and comparing models that predict {outcomes}",
    "inference": "planning studies and rehearsing their analyses",
    "fairness": "looking at the declared groups of patients side by side",
}


def good_for(document: ReportDocument) -> tuple[list[str], list[str]]:
    """What the checks bear out that the cohort is good for, and what they do not."""
    outcomes = {scope for check in document.checks if check.section == "utility" for scope in _names(check.scope)}
    named = ", ".join(clipped(name, 40) for name in sorted(outcomes - {"all"})[:5]) or "the declared outcome"
    rows = any(check.section == "longitudinal" and check.value is not None for check in document.checks)
    good, not_shown = [], []
    for section, use in _GOOD_FOR.items():
        asked = [check for check in document.checks if check.section == section]
        checks = [check for check in asked if check.value is not None or check.why == WITHHELD]
        words = use.format(outcomes=named, own=" by the columns of their own table" if rows else "")
        why = _why_not_shown(checks) or (_HARDLY if section == "utility" and _hardly_predicted(document) else None)
        if why is None:
            good.append(words)
        else:
            not_shown.append(f"{words} ({why})")
    return good, not_shown


def _hardly_predicted(document: ReportDocument) -> bool:
    """Whether models learned from real patients are near guessing, so that those of synthetic ones lose nothing."""
    above_guessing = [
        one.trained_on_real - (0.0 if one.score == "R²" else 0.5) for one in document.sections.outcomes or ()
    ]
    return bool(above_guessing) and max(above_guessing) < _HARDLY_ABOVE


def _why_not_shown(checks: list[CheckEntry]) -> str | None:
    """Why the checks of a section do not bear a use out; None where they do."""
    verdicts = [check.verdict for check in checks]
    if not verdicts:
        return "not looked at"
    if "fail" in verdicts:
        return "a check failed"
    decided = verdicts.count("pass") * 2 > len(verdicts)
    return None if decided and all(check.counts_as == "pass" for check in checks) else "undecided"


def _names(scope: str | tuple[str, str]) -> tuple[str, ...]:
    return (scope,) if isinstance(scope, str) else scope


def worst_of_all(document: ReportDocument, most: int = 3) -> list[tuple[CheckEntry, str]]:
    """The checks that are nearest to their bounds or furthest past them, worst first, each with that said in words."""
    deciding = [check for check in document.checks if check.counts_as == check.verdict]
    ranked = [(share, check) for check in deciding if (share := _used(check)) is not None]
    ranked.sort(key=lambda one: -one[0])
    return [(check, _told(share, check)) for share, check in ranked[:most]]


def _told(share: float, check: CheckEntry) -> str:
    if share > 1:
        return "past the bound" if check.verdict == "fail" else "its interval reaches past the bound"
    return f"{100 * max(share, 0.0):.0f} % of the way to the bound"


def _used(check: CheckEntry) -> float | None:
    """How much of the bound the worse end of the interval uses up."""
    interval = check.ci if check.statistic == "value" else check.excess_ci
    if interval is None or not check.bound:
        return None
    if check.op == "<=":
        return interval[1] / check.bound if check.bound > 0 else None
    return check.bound / interval[0] if interval[0] > 0 else math.inf


def not_proven(document: ReportDocument) -> tuple[str, ...]:
    """What nobody may read into the report."""
    asked = {check.section for check in document.checks}
    audited = document.privacy.audited_epsilon_lower_bound is not None
    audit = "an audit can only find it broken" if audited else "no audit of it ran"
    if is_audit(document):
        return (
            "That the promise holds: an audit can find it broken, and tells nothing of what it did not find.",
            "Anything of mechanisms, settings or machines that were not tried.",
            "Anything of a cohort: an evaluation tells what it is good for and what it gives away.",
        )
    looked_at = ["single columns", "pairs of columns"]
    looked_at += ["the declared outcomes"] if "utility" in asked else []
    looked_at += ["how rows follow each other"] if "longitudinal" in asked else []
    looked_at += ["the declared groups"] if "fairness" in asked else []
    rehearsed = "those tried are under Inference, and " if "inference" in asked else ""
    hangs = (
        "That a verdict holds no trace of anyone: it comes of real records and random draws, and where a check stands "
        "at its bound, one patient can turn it.",
    )
    return (
        "That no one can be re-identified: only the guarantee, where one is stated, speaks for all attacks, and "
        f"{audit}.",
        f"That every analysis comes out right: looked at were {', '.join(looked_at[:-1])} and {looked_at[-1]}; small "
        "groups and relations of three columns or more may be lost.",
        f"That a study of synthetic patients holds: {rehearsed}standard errors and p-values taken as if they were real "
        "are too small.",
        "That a pass is free of error: each interval misses the truth 5 times in 100, and tells nothing of patients "
        "unlike those held out.",
        *(hangs if document.audience == "public" else ()),
    )


def check_words(check: CheckEntry) -> str:
    """What the check found, in a sentence without statistics."""
    words = metric_words(check.metric)
    if check.metric in DEMANDS:
        return check.why
    if check.verdict == "fail":
        return words.failed
    if check.verdict == "pass":
        return "Within the bound."
    if check.why == WITHHELD:
        return f"Undecided: these cohorts are too small for it, or it does not apply to them. Open is {words.question}."
    if (check.value if check.statistic == "value" else check.excess) is None:
        return f"Could not be measured. {check.why}"
    side = "Past the bound by the estimate, but not by the whole of its interval: open is"
    return f"{side if _past_the_bound(check) else 'These cohorts are too small to decide'} {words.question}."


def _past_the_bound(check: CheckEntry) -> bool:
    """Whether the estimate itself is past the bound, wherever its interval ends."""
    found = check.value if check.statistic == "value" else check.excess
    return found is not None and (found > check.bound if check.op == "<=" else found < check.bound)


def verdict_sentence(document: ReportDocument) -> str:
    """The verdict of the whole suite, in a sentence."""
    failed = sum(check.counts_as == "fail" for check in document.checks)
    undecided = sum(check.counts_as == "inconclusive" for check in document.checks)
    total = len(document.checks)
    if document.verdict == "fail":
        rest = f", and {undecided} could not be decided" if undecided else ""
        found = f"{failed} of {total} checks failed{rest}."
        return f"{found} This cohort does not meet the suite “{document.suite}”."
    if document.verdict == "inconclusive":
        if undecided == sum(check.metric in DEMANDS for check in document.checks):
            return "No check failed, but this report does not show all that the policy of the release requires."
        return (
            f"No check failed, but {undecided} of {total} could not be decided. "
            f"Whether this cohort meets the suite “{document.suite}” is open."
        )
    if waived(document):
        some = len(waived(document))
        return f"Every check of the suite “{document.suite}” counts as passed, {some} of them by a waiver."
    if let_stand(document):
        return f"No check of the suite “{document.suite}” failed, and none it needs is undecided."
    return f"All {total} checks of the suite “{document.suite}” passed."


def let_stand(document: ReportDocument) -> str:
    """Which undecided checks the suite lets pass, in a sentence; empty where there is none."""
    titles = [
        metric_words(check.metric).title.lower()
        for check in document.checks
        if check.verdict != "pass" and check.counts_as == "pass" and not check.waiver
    ]
    if not titles:
        return ""
    why = "" if document.audience == "public" else " The checks say why."
    return f"Undecided, which the suite lets pass: {', '.join(dict.fromkeys(titles))}.{why}"


def waived(document: ReportDocument) -> tuple[CheckEntry, ...]:
    """The checks whose verdict a person lets stand for a time."""
    return tuple(check for check in document.checks if check.waiver)


def promise(privacy: PrivacyStatement) -> str:
    """What the release promises a patient, in words."""
    if not privacy.claimed or privacy.epsilon is None or privacy.delta is None:
        sentences = ("Nothing.", privacy.why_not, "Treat the synthetic cohort as you would the real records.")
        return " ".join(sentence for sentence in sentences if sentence)
    factor = _factor(privacy.epsilon)
    unit = privacy.unit or "row"
    whose = "all records of any one patient" if unit == "patient" else f"any one {unit}"
    change = {"add-or-remove-one": "adding or removing", "replace-one": "replacing"}.get(
        privacy.neighbours or "", "changing"
    )
    return (
        f"Whatever is computed from the release, {change} {whose} changes the chance of any result by a "
        f"factor of at most {factor}, except with a probability of about {_odds(privacy.delta)}."
    )


def power(number: float) -> str:
    """A small number as a power of ten, as people write it."""
    if number == 0 or number >= 0.001:
        return f"{number:g}"
    mantissa, exponent = f"{number:.2e}".split("e")
    raised = str(int(exponent)).translate(_RAISED)
    return f"10{raised}" if float(mantissa) == 1 else f"{float(mantissa):g} · 10{raised}"


def thousands(count: float) -> str:
    """A whole number with its thousands set apart."""
    return f"{count:,.0f}".replace(",", "\u202f")


def _factor(epsilon: float) -> str:
    if epsilon > 20:
        return f"e to the power of {epsilon:g}, which in practice promises nothing"
    factor = math.exp(epsilon)
    return f"about {factor:.2g}" if factor < 100 else f"about {thousands(float(f'{factor:.2g}'))}"


def _odds(delta: float) -> str:
    if delta == 0:
        return "zero"
    odds = 1 / delta
    return f"1 in {thousands(float(f'{odds:.2g}'))}" if odds < 1e12 else power(delta)
