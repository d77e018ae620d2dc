"""What the metrics found: one measurement for each check, and the data behind each plot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from synthehr.evaluation.intervals import Estimate

__all__ = [
    "ColumnProfile",
    "CopyProfile",
    "Direction",
    "DiscriminatorProfile",
    "Interval",
    "Measurement",
    "OutcomeProfile",
    "PairProfile",
    "RocCurve",
    "Scope",
    "Sections",
    "Sizes",
    "ViolationProfile",
    "WorstPair",
    "public_size",
    "undefined",
]

Direction = Literal["lower", "higher"]
Scope = str | tuple[str, str]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One metric on the synthetic cohort, with the same on the holdout and the excess of one over the other.

    Attributes:
        metric: name of the metric.
        scope: ``all``, a column, an outcome, a rule, or a pair of columns.
        direction: whether lower or higher is better.
        value: the metric on the synthetic cohort; None where it is undefined.
        reference: the metric with the holdout in the place of the synthetic cohort.
        excess: value against reference, signed so that larger is worse.
        why: why it is undefined, in one sentence; empty where it is defined.
    """

    metric: str
    scope: Scope
    direction: Direction
    value: Estimate | None
    reference: float | None
    excess: Estimate | None
    why: str = ""


def undefined(metric: str, scope: Scope, direction: Direction, why: str) -> Measurement:
    """A measurement that could not be made, with its reason."""
    return Measurement(
        metric=metric, scope=scope, direction=direction, value=None, reference=None, excess=None, why=why
    )


def public_size(count: int) -> int:
    """A count rounded to two significant digits, since an exact number of patients is private."""
    return int(float(f"{count:.2g}"))


class _Finding(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sizes(_Finding):
    """Patients in each cohort, to two significant digits."""

    train: int
    holdout: int
    synthetic: int


class ColumnProfile(_Finding):
    """Shares of patients in each bin of one column."""

    column: str
    kind: str
    labels: tuple[str, ...]
    train: tuple[float, ...]
    holdout: tuple[float, ...]
    synthetic: tuple[float, ...]
    distance: float = Field(description="Total variation distance of synthetic from train.")
    reference: float = Field(description="The same for the holdout.")


class WorstPair(_Finding):
    """Two columns whose joint distribution is furthest off."""

    first: str
    second: str
    distance: float
    reference: float


class PairProfile(_Finding):
    """Total variation distance of every pair of columns; the diagonal is the column alone."""

    columns: tuple[str, ...]
    distance: tuple[tuple[float, ...], ...]
    reference: tuple[tuple[float, ...], ...]
    worst: tuple[WorstPair, ...]


class RocCurve(_Finding):
    """Points of a ROC curve, from (0, 0) to (1, 1)."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]


class DiscriminatorProfile(_Finding):
    """How well a classifier tells two cohorts apart."""

    auc: float
    ci: Interval
    reference_auc: float
    reference_ci: Interval
    roc: RocCurve
    reference_roc: RocCurve


class OutcomeProfile(_Finding):
    """How well a model trained on synthetic patients predicts one outcome of real ones."""

    outcome: str
    score: Literal["AUC", "macro AUC", "R²"]
    trained_on_synthetic: float
    synthetic_ci: Interval
    trained_on_real: float
    real_ci: Interval
    gap: float
    gap_ci: Interval


class CopyProfile(_Finding):
    """Verbatim copies of real patients among the synthetic ones."""

    measure: Literal["verbatim_copies", "rare_copies"]
    train_share: float
    train_ci: Interval
    holdout_share: float
    excess: float
    excess_ci: Interval


class ViolationProfile(_Finding):
    """How often one column or rule is broken."""

    what: Literal["column", "rule"]
    name: str
    synthetic: float
    real: float


class Sections(_Finding):
    """The data behind every plot of the report; None or empty where the suite did not ask for it."""

    sizes: Sizes
    exchangeable: bool | None = Field(default=None, description="Does the holdout look like the training part?")
    exchangeable_why: str = ""
    columns: tuple[ColumnProfile, ...] = ()
    pairs: PairProfile | None = None
    discriminator: DiscriminatorProfile | None = None
    outcomes: tuple[OutcomeProfile, ...] = ()
    copies: tuple[CopyProfile, ...] = ()
    violations: tuple[ViolationProfile, ...] = ()
