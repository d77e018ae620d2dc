"""The seam of metrics: what a metric is, and the bench that computes each thing once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from synthehr.cohort import Cohort
from synthehr.evaluation.cohorts import Parts, read_parts
from synthehr.evaluation.measurement import Direction, Measurement, Scope, SectionName
from synthehr.schema.model import Schema

__all__ = [
    "Bench",
    "Likelihood",
    "Metric",
    "MetricWords",
    "columns",
    "declares_groups",
    "declares_survival",
    "groups",
    "outcomes",
]

T = TypeVar("T")
Likelihood = Callable[[Cohort[Schema], Cohort[Schema]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Log-likelihoods of the patients of two cohorts under a known generator, shape ``(patients,)`` each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricWords:
    """A metric in plain words, for a reader who answers for the data and not for the statistics.

    Attributes:
        title: what is asked, as a short heading.
        failed: what it means that the check failed, as a sentence.
        question: what is left open when it is inconclusive, as in "too small to decide ...".
        measured: what the value is a number of.
        compared: what the reference is a number of.
    """

    title: str
    failed: str
    question: str
    measured: str = "synthetic"
    compared: str = "other real patients"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric that a suite may name.

    Attributes:
        section: where the report shows it.
        direction: whether lower or higher is better.
        measure: takes it, for a scope; names itself and the scope in what it returns.
        words: what it means.
        scopes: names that a scope may take besides ``all``; None where it knows no other.
        pairs: whether a scope may be a pair of these names.
        applies: whether the schema has what the metric is about; a suite leaves out gates of those that do not apply.
        measurable: whether the schema has columns to measure it by; where not, a suite leaves out gates whose undefined
            checks count as passed.
    """

    section: SectionName
    direction: Direction
    measure: Callable[[Bench, Scope], Measurement]
    words: MetricWords
    scopes: Callable[[Bench], Sequence[str]] | None = None
    pairs: bool = False
    applies: Callable[[Bench], bool] = field(default=lambda _: True)
    measurable: Callable[[Bench], bool] = field(default=lambda _: True)


@dataclass(kw_only=True)
class Bench:
    """The three cohorts, and what was computed of them so far.

    Attributes:
        train: the patients learned from, all tables.
        holdout: patients not learned from.
        synthetic: the synthetic patients.
        parts: their root tables, read and coded.
        asked: names of the metrics that the suite runs.
        likelihood: log-likelihoods of train's and of holdout's patients under the generator, where it is at hand.
    """

    train: Cohort[Schema]
    holdout: Cohort[Schema]
    synthetic: Cohort[Schema]
    parts: Parts
    asked: frozenset[str]
    likelihood: Likelihood | None = None
    _found: dict[Hashable, Any] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        *,
        train: Cohort[Schema],
        holdout: Cohort[Schema],
        synthetic: Cohort[Schema],
        seed: int,
        asked: frozenset[str] = frozenset(),
        likelihood: Likelihood | None = None,
    ) -> Bench:
        """Read and code the cohorts.

        Raises:
            DataError: a cohort does not fit the schema.
        """
        parts = read_parts(train=train, holdout=holdout, synthetic=synthetic, seed=seed)
        return cls(train=train, holdout=holdout, synthetic=synthetic, parts=parts, asked=asked, likelihood=likelihood)

    @property
    def schema(self) -> Schema:
        """What all three are declared to be."""
        return self.parts.schema

    def once(self, compute: Callable[..., T], *about: Hashable) -> T:
        """What ``compute(bench, *about)`` returns; computed when first asked for, and kept."""
        key = (compute, *about)
        if key not in self._found:
            self._found[key] = compute(self, *about)
        return cast(T, self._found[key])

    def found(self, compute: Callable[..., T], *about: Hashable) -> T | None:
        """The same if it was computed already, else None: a profile shows what checks asked for."""
        return cast("T | None", self._found.get((compute, *about)))


def columns(bench: Bench) -> Sequence[str]:
    """The kept columns of the root table, as names of scopes."""
    return bench.parts.coding.names


def outcomes(bench: Bench) -> Sequence[str]:
    """The declared outcomes, as names of scopes."""
    return bench.schema.root.outcome


def groups(bench: Bench) -> Sequence[str]:
    """The declared columns of subgroups, as names of scopes."""
    return bench.schema.root.groups


def declares_survival(bench: Bench) -> bool:
    """Whether the schema declares an outcome with a time."""
    return bench.schema.root.survival is not None


def declares_groups(bench: Bench) -> bool:
    """Whether the schema declares columns of subgroups."""
    return bool(bench.schema.root.groups)
