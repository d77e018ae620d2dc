"""The three cohorts of an evaluation, read and coded once for every metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from synthehr.cohort import Cohort
from synthehr.errors import DataError
from synthehr.evaluation.coding import Coding, Values, code, code_column, common_values, fit_coding, read_values
from synthehr.schema.model import CategoryColumn, Schema

__all__ = ["Part", "Parts", "read_parts", "recoded"]


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

    def take(self, rows: NDArray[np.int64]) -> Part:
        """These patients alone."""
        return Part(values={name: column.take(rows) for name, column in self.values.items()}, codes=self.codes[rows])


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


def recoded(parts: Parts, *known_of: Part) -> Parts:
    """The same cohorts, with each category whose values are not declared coded by its common values in ``known_of``.

    Where train alone says which values have a code of their own, its patients have such a value more often than others
    of the same population do, and the more often the more values there are: by that they would be told apart.
    """
    undeclared = {
        name
        for name, column in parts.schema.root.kept.items()
        if isinstance(column, CategoryColumn) and column.values is None
    }
    if not undeclared:
        return parts
    coding = Coding(
        columns=tuple(
            common_values(column.name, *(part.values[column.name] for part in known_of))
            if column.name in undeclared
            else column
            for column in parts.coding.columns
        )
    )

    def again(part: Part) -> Part:
        codes = part.codes.copy()
        for at, column in enumerate(coding.columns):
            if column.name in undeclared:
                codes[:, at] = code_column(part.values[column.name], column)
        return replace(part, codes=codes)

    return replace(
        parts,
        coding=coding,
        train=again(parts.train),
        holdout=again(parts.holdout),
        synthetic=again(parts.synthetic),
    )
