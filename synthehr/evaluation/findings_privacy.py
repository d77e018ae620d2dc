"""The data behind the plots of attacks and of the audit."""

from __future__ import annotations

from pydantic import Field

from synthehr.evaluation.measurement import Finding, Interval

__all__ = ["AttackProfile", "AuditProfile", "ExperimentProfile", "PrivacyProfile", "RocPoints"]


class AttackProfile(Finding):
    """How well one attack tells patients learned from from others."""

    attack: str
    auc: float
    auc_ci: Interval


class RocPoints(Finding):
    """Points of a ROC curve for logarithmic axes; the first lies at a false positive rate of 0."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


class PrivacyProfile(Finding):
    """What attacks on the synthetic cohort found."""

    membership: tuple[AttackProfile, ...] = Field(default=(), description="Each attack, then all combined.")
    membership_roc: RocPoints | None = Field(default=None, description="Of the combined attack.")
    smallest_false_positive_rate: float | None = Field(
        default=None, description="The smallest that so many held-out patients can resolve, to one digit."
    )
    nearer_to_train: float | None = Field(
        default=None,
        description="Share of synthetic patients nearer to train than to as many holdout patients, ties half. "
        "Advisory: ten verbatim outliers among a thousand leave it at 0.51.",
    )


class ExperimentProfile(Finding):
    """One experiment of an audit."""

    mechanism: str
    experiment: str
    lower_bound: float = Field(description="Certified lower bound on epsilon.")
    ceiling: float = Field(description="What as many guesses could have certified, had all been right.")
    guesses: int
    right: int
    claimed: float


class AuditProfile(Finding):
    """What an audit of epsilon found."""

    confidence: float = Field(description="Chance, at least, that no correct mechanism is accused.")
    lower_bound: float
    ceiling: float
    claimed: float
    delta: float
    experiments: tuple[ExperimentProfile, ...] = ()
    says: tuple[str, ...] = Field(default=(), description="What was run, and what it says nothing of.")
