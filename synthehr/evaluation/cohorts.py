"""The three cohorts of an evaluation, read and coded once for every metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthehr.cohort import Cohort
from synthehr.errors import DataError
from synthehr.evaluation.coding import Coding, Values, code, fit_coding, read_values
from synthehr.schema.model import Schema

__all__ = ["Part", "Parts", "read_parts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One cohort's root table, as values and as codes.

    Attributes:
        values: its kept columns.
        codes: shape ``(patients, columns)``.
    """

    values: Mapping[str, Values]
    codes: NDArray[np.int32]

    def __len__(self) -> int:
        """Number of patients."""
        return len(self.codes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Train, holdout and synthetic, under one schema and one coding, and the seed of every draw.

    Attributes:
        equal: patients drawn from holdout and from synthetic where a metric depends on the size of a
            sample; the smaller of the two.
        holdout_rows: the rows of the holdout drawn so, shape ``(equal,)``.
        synthetic_rows: the rows of the synthetic cohort drawn so, shape ``(equal,)``.
    """

    schema: Schema
    coding: Coding
    train: Part
    holdout: Part
    synthetic: Part
    equal: int
    holdout_rows: NDArray[np.int64]
    synthetic_rows: NDArray[np.int64]
    seed: int

    def generator(self, purpose: int) -> np.random.Generator:
        """A generator for one purpose: the same seed and purpose give the same draws."""
        return np.random.default_rng([self.seed, purpose])


def read_parts(*, train: Cohort[Schema], holdout: Cohort[Schema], synthetic: Cohort[Schema], seed: int) -> Parts:
    """Read and code the three cohorts.

    Raises:
        DataError: a cohort follows another schema, lacks a column or has no patient.
    """
    schema = train.schema
    for name, cohort in (("holdout", holdout), ("synthetic", synthetic)):
        if cohort.schema.model_dump() != schema.model_dump():
            raise DataError(f"the {name} cohort follows another schema than the train cohort: read all with one schema")
    values = {
        name: read_values(cohort, part=name)
        for name, cohort in (("train", train), ("holdout", holdout), ("synthetic", synthetic))
    }
    coding = fit_coding(values["train"], schema=schema)
    parts = {name: Part(values=values[name], codes=code(values[name], coding)) for name in values}
    equal = min(len(parts["holdout"]), len(parts["synthetic"]))
    draw = np.random.default_rng([seed, 0])
    return Parts(
        schema=schema,
        coding=coding,
        train=parts["train"],
        holdout=parts["holdout"],
        synthetic=parts["synthetic"],
        equal=equal,
        holdout_rows=np.sort(draw.choice(len(parts["holdout"]), size=equal, replace=False)),
        synthetic_rows=np.sort(draw.choice(len(parts["synthetic"]), size=equal, replace=False)),
        seed=seed,
    )
