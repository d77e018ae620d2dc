"""The data behind the plots of tables with several rows per patient."""

from __future__ import annotations

from typing import Literal

from synthehr.evaluation.measurement import Finding

__all__ = [
    "BandProfile",
    "BigramProfile",
    "CodeProfile",
    "HistogramProfile",
    "LongitudinalProfile",
    "RegularityProfile",
    "TrajectoryProfile",
    "ValueProfile",
]

Shares = tuple[float, ...]


class HistogramProfile(Finding):
    """Shares in each cell of one thing that is counted of a table, in the three cohorts.

    Attributes:
        table: the table; empty for what is counted over all of them.
        what: rows of a patient, time between a patient's rows, or different codes of a patient.
    """

    table: str
    what: Literal["rows", "gaps", "codes"]
    labels: tuple[str, ...]
    train: Shares
    holdout: Shares
    synthetic: Shares
    distance: float
    reference: float


class CodeProfile(Finding):
    """Share of patients who have a code at least once; codes without a declared name are numbered."""

    table: str
    column: str
    label: str
    train: float
    holdout: float
    synthetic: float


class BandProfile(Finding):
    """How far prevalences are off in one band of frequency, relative to what they are in train."""

    band: Literal["common", "medium", "rare"]
    codes: int
    error: float
    reference: float


class BigramProfile(Finding):
    """Share of one pair of codes among all pairs of its kind."""

    table: str
    column: str
    when: Literal["same visit", "next visit"]
    first: str
    second: str
    train: float
    holdout: float
    synthetic: float


class ValueProfile(Finding):
    """Kolmogorov-Smirnov distance of the values of one code."""

    table: str
    column: str
    code: str
    distance: float
    reference: float


class TrajectoryProfile(Finding):
    """The mean value of one code over time; None where a cell holds too few patients.

    Attributes:
        labels: the stretches of time.
    """

    table: str
    column: str
    code: str
    labels: tuple[str, ...]
    train: tuple[float | None, ...]
    holdout: tuple[float | None, ...]
    synthetic: tuple[float | None, ...]


class RegularityProfile(Finding):
    """Share of patients who break an order in time that hardly any patient of train breaks."""

    text: str
    train: float
    holdout: float
    synthetic: float


class LongitudinalProfile(Finding):
    """How patients' rows follow each other in time; empty where no check asked."""

    histograms: tuple[HistogramProfile, ...] = ()
    codes: tuple[CodeProfile, ...] = ()
    bands: tuple[BandProfile, ...] = ()
    bigrams: tuple[BigramProfile, ...] = ()
    values: tuple[ValueProfile, ...] = ()
    trajectories: tuple[TrajectoryProfile, ...] = ()
    regularities: tuple[RegularityProfile, ...] = ()
