"""What each check means, in words for a person who answers for the data and not for the statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass

from synthehr.evaluation.demands import DEMANDS
from synthehr.reporting.document import CheckEntry, PrivacyStatement, ReportDocument

__all__ = [
    "METRIC_WORDS",
    "NOT_PROVEN",
    "SECTION_TITLES",
    "VERDICT_WORDS",
    "check_words",
    "let_stand",
    "power",
    "promise",
    "thousands",
    "verdict_sentence",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricWords:
    """A metric in plain words.

    Attributes:
        title: what is asked, as a short heading.
        failed: what it means that the check failed.
        question: what is left open when it is inconclusive.
        measured: what the value is a number of.
        compared: what the reference is a number of.
    """

    title: str
    failed: str
    question: str
    measured: str = "synthetic"
    compared: str = "other real patients"


METRIC_WORDS = {
    "schema_violations": MetricWords(
        title="Values the schema allows",
        failed="Synthetic patients have values that the schema forbids more often than real patients do.",
        question="whether synthetic patients break the schema more often than real ones",
    ),
    "rule_violations": MetricWords(
        title="Declared rules",
        failed="Synthetic patients break a declared rule more often than real patients do.",
        question="whether synthetic patients break the declared rules more often than real ones",
    ),
    "one_way_tv": MetricWords(
        title="Single columns",
        failed="Taken one at a time, the columns are distributed differently from the real ones.",
        question="whether single columns are distributed as in the real records",
    ),
    "one_way_tv_worst": MetricWords(
        title="The column that is furthest off",
        failed="At least one column is distributed quite differently from the real one.",
        question="whether every single column is distributed as in the real records",
    ),
    "pair_tv": MetricWords(
        title="Relations between two columns",
        failed="Relations between columns are lost or distorted: analyses of two columns will mislead.",
        question="whether relations between columns are kept",
    ),
    "pair_tv_worst": MetricWords(
        title="The pair of columns that is furthest off",
        failed="At least one relation between two columns is lost or badly distorted.",
        question="whether every relation between two columns is kept",
    ),
    "missing_rate": MetricWords(
        title="Missing values",
        failed="Values are missing at other rates than in the real records.",
        question="whether values are missing as often as in the real records",
    ),
    "missing_rate_worst": MetricWords(
        title="The column whose missing values are furthest off",
        failed="In at least one column values are missing at quite another rate than in the real records.",
        question="whether every column is missing as often as in the real records",
    ),
    "c2st_auc": MetricWords(
        title="Telling synthetic from real",
        failed="A classifier tells synthetic patients from real ones nearly always.",
        question="how well a classifier tells synthetic patients from real ones",
    ),
    "tstr": MetricWords(
        title="Predicting the outcome",
        failed="A model trained on the synthetic patients predicts real ones clearly worse "
        "than one trained on real patients.",
        question="whether a model trained on the synthetic patients predicts real ones well enough",
        measured="trained on synthetic",
        compared="trained on real",
    ),
    "verbatim_copies": MetricWords(
        title="Copies of real patients",
        failed="Synthetic patients repeat the patients learned from more often than chance explains: "
        "records may have leaked. Do not publish.",
        question="whether synthetic patients repeat the patients learned from",
        measured="learned from",
        compared="held out",
    ),
    "rare_copies": MetricWords(
        title="Copies of patients with a unique record",
        failed="Patients with a record no one else has reappear among the synthetic ones because they were "
        "learned from: they can be singled out. Do not publish.",
        question="whether patients with a unique record reappear among the synthetic ones",
        measured="learned from",
        compared="held out",
    ),
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

SECTION_TITLES = {"validity": "Validity", "fidelity": "Fidelity", "utility": "Utility", "privacy": "Privacy"}
_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")
VERDICT_WORDS = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive"}

NOT_PROVEN = (
    "That no one can be re-identified. The checks here try certain attacks; only the guarantee, where one is "
    "stated, speaks for all of them, and no audit of that guarantee ran for this report.",
    "That every analysis will give the right answer. Single columns, pairs of columns and the declared "
    "outcomes were looked at; effects in small groups, three-way relations and survival curves were not.",
    "That inference holds. Standard errors and p-values taken from synthetic patients as if they were real "
    "are too small.",
    "That a passing check is free of error. Each interval covers the truth 95 times in 100, and says nothing "
    "of patients unlike those of the holdout.",
)


def check_words(check: CheckEntry) -> str:
    """What the check found, in a sentence without statistics."""
    words = METRIC_WORDS[check.metric]
    if check.metric in DEMANDS:
        return check.why
    if check.verdict == "fail":
        return words.failed
    if check.verdict == "pass":
        return "Within the bound."
    if check.value is None:
        return f"Could not be measured. {check.why}"
    return f"These cohorts are too small to decide {words.question}."


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
    if let_stand(document):
        return f"No check of the suite “{document.suite}” failed, and none it needs is undecided."
    return f"All {total} checks of the suite “{document.suite}” passed."


def let_stand(document: ReportDocument) -> str:
    """Which undecided checks the suite lets pass, in a sentence; empty where there is none."""
    titles = [
        METRIC_WORDS[check.metric].title.lower()
        for check in document.checks
        if check.verdict != "pass" and check.counts_as == "pass"
    ]
    if not titles:
        return ""
    return f"Undecided, which the suite lets pass: {', '.join(dict.fromkeys(titles))}. The checks say why."


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
        f"factor of at most {factor}, except with a probability of about {_odds(privacy.delta)}. The smaller "
        "the factor, the less can be learned about a patient from their having taken part."
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
