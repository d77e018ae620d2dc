"""One measurement of one metric, and the form of everything that goes into a report beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from synthehr.evaluation.intervals import Estimate

__all__ = ["Direction", "Finding", "Interval", "Measurement", "Scope", "SectionName", "public_size", "undefined"]

Direction = Literal["lower", "higher"]
Scope = str | tuple[str, str]
Interval = tuple[float, float]
SectionName = Literal["validity", "fidelity", "longitudinal", "utility", "inference", "fairness", "privacy", "audit"]
"""The sections of a report, in its order."""


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


class Finding(BaseModel):
    """A part of the report's ``sections``: frozen, without unknown keys, every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
