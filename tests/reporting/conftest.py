from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.suite import Suite, SuiteResult, run_suite
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

SUITE = Suite.model_validate(
    {
        "synthehr": 1,
        "suite": "ci",
        "checks": [
            {"id": name, "section": section, "metric": metric, "statistic": "excess", "op": "<=", "bound": bound}
            | {"rationale": f"Why {metric} is held to this.", **more}
            for name, section, metric, bound, more in (
                ("schema-obeyed", "validity", "schema_violations", 0.01, {}),
                ("rules-obeyed", "validity", "rule_violations", 0.01, {"on_undefined": "pass"}),
                ("columns-alike", "fidelity", "one_way_tv", 0.05, {}),
                ("worst-column-alike", "fidelity", "one_way_tv_worst", 0.12, {}),
                ("pairs-alike", "fidelity", "pair_tv", 0.05, {}),
                ("worst-pair-alike", "fidelity", "pair_tv_worst", 0.25, {}),
                ("missing-alike", "fidelity", "missing_rate_worst", 0.08, {}),
                ("hard-to-tell-apart", "fidelity", "c2st_auc", 0.4, {}),
                ("outcome-learnable", "utility", "tstr", 0.1, {"scope": "each"}),
                ("no-verbatim-copies", "privacy", "verbatim_copies", 0.02, {}),
                ("no-rare-copies", "privacy", "rare_copies", 0.02, {"on_undefined": "pass"}),
                ("rare-copies-by-chance", "privacy", "rare_copies_beyond_chance", 0.001, {"on_inconclusive": "pass"}),
            )
        ],
    }
)

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
        suite=SUITE,
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
