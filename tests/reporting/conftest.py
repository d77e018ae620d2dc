from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.suite import SuiteResult, load_suite, run_suite
from synthehr.reporting.report import PrivacyClaim, Report
from synthehr.schema.files import load_schema

MANIFEST_PRIVACY = {
    "epsilon": 3.0,
    "delta": 1e-6,
    "unit": "patient",
    "neighbours": "add-or-remove-one",
    "private": True,
    "events": [
        {"stage": "domain", "type": "Gaussian", "count": 7, "noise_multiplier": 12.5},
        {
            "stage": "training",
            "type": "PoissonSampledGaussian",
            "count": 400,
            "sampling_probability": 0.02,
            "noise_multiplier": 1.5,
        },
    ],
    "release_digest": "sha256:0123",
}

NASTY = "<script>alert('x')</script>|`**[a](http://evil)&"
"""A name that would be markup in every format."""


def nasty_result(name: str = NASTY, value: str = NASTY) -> SuiteResult:
    """A result whose column, category and rule names are hostile."""
    columns = {
        name: {"kind": "category", "values": [value, "b"]},
        "age": {"kind": "integer", "bounds": [0, 120]},
        "died": {"kind": "boolean"},
    }
    table = {"columns": columns, "outcome": ["died"]}
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": table}, "rules": ["age >= 0"]})

    def cohort(patients: int, seed: int, high: int) -> Cohort:
        draw = np.random.default_rng(seed)
        age = draw.integers(20, high, patients)
        frame = {
            name: draw.choice([value, "b"], patients),
            "age": age,
            "died": draw.random(patients) < age / 120,
        }
        return Cohort({"p": pl.DataFrame(frame)}, schema=schema)

    return run_suite(
        train=cohort(600, 0, 90),
        holdout=cohort(300, 1, 90),
        synthetic=cohort(300, 2, 60),
        suite=load_suite("ci"),
    )


@pytest.fixture(scope="session")
def result() -> SuiteResult:
    return nasty_result("sex", "female")


@pytest.fixture(scope="session")
def hostile() -> SuiteResult:
    return nasty_result()


@pytest.fixture(scope="session")
def claim() -> PrivacyClaim:
    return PrivacyClaim.model_validate(MANIFEST_PRIVACY)


@pytest.fixture
def report(result: SuiteResult, claim: PrivacyClaim) -> Report:
    return Report(result, privacy=claim, provenance={"version": "0.1.0", "synthetic": {"seed": 7}})
