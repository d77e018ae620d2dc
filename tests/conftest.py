from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded; see synthehr/models/__init__.py

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, settings

from synthehr.cohort import Cohort
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

# How fast inputs are made says something of the machine, and nothing of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "patient_id",
            "outcome": "died",
            "columns": {
                "patient_id": {"kind": "id"},
                "sex": {"kind": "category", "values": ["female", "male"]},
                "age": {"kind": "integer", "bounds": [0, 120]},
                "weight": {"kind": "number", "bounds": [20, 300], "precision": 0.1, "nullable": True},
                "died": {"kind": "boolean"},
            },
        }
    },
    "rules": ["weight is null or weight > 0"],
}


@pytest.fixture(scope="session")
def small_schema() -> Schema:
    return load_schema(SCHEMA)


def make_cohort(schema: Schema, patients: int, seed: int = 0) -> Cohort[Schema]:
    """Patients in whom death depends on age and weight on sex."""
    draws = np.random.default_rng(seed)
    age = draws.integers(20, 95, patients)
    male = draws.random(patients) < 0.45
    weight = np.round(draws.normal(np.where(male, 85.0, 70.0), 10.0), 1)
    died = draws.random(patients) < 1.0 / (1.0 + np.exp(-(age - 70.0) / 8.0))
    frame = pl.DataFrame(
        {
            "patient_id": [f"p{at}" for at in range(patients)],
            "sex": np.where(male, "male", "female"),
            "age": age,
            "weight": pl.Series(weight).set(pl.Series(draws.random(patients) < 0.1), None),
            "died": died,
        }
    )
    return Cohort({"patient": frame}, schema=schema)


@pytest.fixture(scope="session")
def small_cohort(small_schema: Schema) -> Cohort[Schema]:
    return make_cohort(small_schema, 2000)
