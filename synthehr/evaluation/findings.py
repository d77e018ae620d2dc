"""The data behind each plot of the report; every section has a profile of its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from synthehr.evaluation.findings_longitudinal import LongitudinalProfile
from synthehr.evaluation.findings_privacy import AuditProfile, PrivacyProfile
from synthehr.evaluation.measurement import (
    Direction,
    Finding,
    Interval,
    Measurement,
    Scope,
    public_size,
    undefined,
)

__all__ = [
    "CalibrationCurve",
    "CalibrationProfile",
    "Coefficient",
    "CoefficientProfile",
    "ColumnProfile",
    "CopyProfile",
    "Direction",
    "DiscriminatorProfile",
    "FairnessProfile",
    "GroupProfile",
    "ImportanceProfile",
    "InferenceProfile",
    "Interval",
    "Measurement",
    "OutcomeProfile",
    "PairProfile",
    "RocCurve",
    "Scope",
    "Sections",
    "Sizes",
    "SurvivalCurve",
    "SurvivalProfile",
    "UtilityProfile",
    "ViolationProfile",
    "WorstPair",
    "public_size",
    "undefined",
]


class Sizes(Finding):
    """Patients in each cohort, to two significant digits."""

    train: int
    holdout: int
    synthetic: int


class ColumnProfile(Finding):
    """Shares of patients in each bin of one column."""

    column: str
    kind: str
    labels: tuple[str, ...]
    train: tuple[float, ...]
    holdout: tuple[float, ...]
    synthetic: tuple[float, ...]
    distance: float = Field(description="Total variation distance of synthetic from train.")
    reference: float = Field(description="The same for the holdout.")
    ci: Interval | None = Field(default=None, description="95 % interval of distance; null with many columns.")


class WorstPair(Finding):
    """Two columns whose joint distribution is furthest off."""

    first: str
    second: str
    distance: float
    reference: float
    ci: Interval | None = Field(default=None, description="95 % interval of distance; null with many columns.")


class PairProfile(Finding):
    """Total variation distance of every pair of columns; the diagonal is the column alone."""

    columns: tuple[str, ...]
    distance: tuple[tuple[float, ...], ...]
    reference: tuple[tuple[float, ...], ...]
    worst: tuple[WorstPair, ...]


class RocCurve(Finding):
    """Points of a ROC curve, from (0, 0) to (1, 1)."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


class DiscriminatorProfile(Finding):
    """How well a classifier tells two cohorts apart."""

    auc: float
    ci: Interval
    reference_auc: float
    reference_ci: Interval
    roc: RocCurve
    reference_roc: RocCurve


class OutcomeProfile(Finding):
    """How well a model trained on synthetic patients predicts one outcome of real ones."""

    outcome: str
    learner: Literal["trees", "linear", "forest"] = "trees"
    score: Literal["AUC", "macro AUC", "R²"]
    trained_on_synthetic: float
    synthetic_ci: Interval
    trained_on_real: float
    real_ci: Interval
    gap: float
    gap_ci: Interval


class CalibrationCurve(Finding):
    """Predicted and observed shares, by tenths of the holdout in the order of the prediction."""

    predicted: tuple[float, ...]
    observed: tuple[float, ...]


class CalibrationProfile(Finding):
    """Whether chances come true, for an outcome of two classes."""

    outcome: str
    trained_on_synthetic: CalibrationCurve
    trained_on_real: CalibrationCurve


class ImportanceProfile(Finding):
    """How much the area (or R²) of a model falls when a column is shuffled."""

    outcome: str
    columns: tuple[str, ...]
    train: tuple[float, ...] = Field(description="Of the model trained on train.")
    synthetic: tuple[float, ...] = Field(description="Of the model trained on as many synthetic patients.")
    holdout: tuple[float, ...] = Field(description="Of the model trained on as many holdout patients.")


class UtilityProfile(Finding):
    """Beyond boosted trees: other learners, calibration, importance; empty where no check asked for them."""

    learners: tuple[OutcomeProfile, ...] = ()
    calibration: tuple[CalibrationProfile, ...] = ()
    importance: tuple[ImportanceProfile, ...] = ()


class Coefficient(Finding):
    """One coefficient with its 95 % interval, as estimate, low, high; null where it cannot be estimated."""

    name: str
    train: tuple[float, float, float] | None
    synthetic: tuple[float, float, float] | None
    holdout: tuple[float, float, float] | None


class CoefficientProfile(Finding):
    """One regression on equally many patients of each cohort: what a forest plot shows.

    Numbers are per standard deviation of train, categories against the commonest value; logistic coefficients are log
    odds ratios, those of proportional hazards log hazard ratios.
    """

    outcome: str
    model: str
    coefficients: tuple[Coefficient, ...]


class SurvivalCurve(Finding):
    """Share of patients without the event at each time, and its mean over time (a share of the horizon)."""

    share: tuple[float, ...]
    mean: float


class SurvivalProfile(Finding):
    """Kaplan-Meier curves of the three cohorts."""

    time: str
    event: str
    times: tuple[float, ...]
    train: SurvivalCurve
    synthetic: SurvivalCurve
    holdout: SurvivalCurve


class InferenceProfile(Finding):
    """What analyses of the synthetic patients would conclude; empty where no check asked for it."""

    regressions: tuple[CoefficientProfile, ...] = ()
    survival: SurvivalProfile | None = None


class GroupProfile(Finding):
    """One metric of one subgroup: 95 % interval of this subgroup alone."""

    metric: Literal["group_disparity", "group_fidelity", "group_utility"]
    column: str
    group: str
    value: float
    ci: Interval
    reference: float


class FairnessProfile(Finding):
    """Every subgroup with what was measured of it."""

    groups: tuple[GroupProfile, ...]


class CopyProfile(Finding):
    """Verbatim copies of real patients among the synthetic ones."""

    measure: Literal["verbatim_copies", "rare_copies"]
    train_share: float
    train_ci: Interval
    holdout_share: float
    excess: float
    excess_ci: Interval


class ViolationProfile(Finding):
    """How often one column or rule is broken."""

    what: Literal["column", "rule"]
    name: str
    synthetic: float
    real: float


class Sections(Finding):
    """The data behind every plot of the report; None or empty where the suite did not ask for it."""

    sizes: Sizes
    exchangeable: bool | None = Field(default=None, description="Does the holdout look like the training part?")
    exchangeable_why: str = ""
    columns: tuple[ColumnProfile, ...] = ()
    pairs: PairProfile | None = None
    discriminator: DiscriminatorProfile | None = None
    outcomes: tuple[OutcomeProfile, ...] = ()
    utility: UtilityProfile | None = None
    inference: InferenceProfile | None = None
    fairness: FairnessProfile | None = None
    copies: tuple[CopyProfile, ...] = ()
    violations: tuple[ViolationProfile, ...] = ()
    longitudinal: LongitudinalProfile | None = None
    attacks: PrivacyProfile | None = None
    audit: AuditProfile | None = None
