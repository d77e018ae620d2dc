"""A repository with real records and cohorts of two synthesizers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

SCHEMA = {
    "synthehr": 1,
    "subject": "p",
    "tables": {
        "p": {
            "columns": {
                "age": {"kind": "integer", "bounds": [0, 120]},
                "weight": {"kind": "number", "bounds": [20, 300], "precision": 0.1},
                "height": {"kind": "number", "bounds": [100, 230], "precision": 0.1},
                "died": {"kind": "boolean"},
            }
        }
    },
}


def check(name: str, section: str, metric: str, bound: float, **more: object) -> dict:
    gate = {"id": name, "section": section, "metric": metric, "statistic": "excess", "op": "<=", "bound": bound}
    return {**gate, "rationale": "A gate of a test.", **more}


SUITE = {
    "synthehr": 1,
    "suite": "fixture",
    "checks": [
        check("columns", "fidelity", "one_way_tv", 0.1),
        check("copies", "privacy", "verbatim_copies", 0.05),
    ],
}
UNDECIDED = {"synthehr": 1, "suite": "open", "checks": [check("columns", "fidelity", "one_way_tv", 0.0)]}


def people(count: int, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    age = draw.integers(18, 95, count)
    return pl.DataFrame(
        {
            "age": age,
            "weight": draw.normal(80, 15, count).clip(30, 200).round(1),
            "height": draw.normal(170, 10, count).clip(120, 220).round(1),
            "died": draw.random(count) < age / 150,
        }
    )


@pytest.fixture(scope="session")
def clinic(tmp_path_factory) -> Path:
    """Real records, a cohort from a good synthesizer (fresh draws) and one from a copying one."""
    folder = tmp_path_factory.mktemp("repository")
    train = people(900, seed=0)
    train.write_csv(folder / "train.csv")
    people(600, seed=1).write_csv(folder / "holdout.csv")
    people(600, seed=2).write_csv(folder / "good.csv")
    train.sample(600, seed=3).write_csv(folder / "copying.csv")
    (folder / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    (folder / "suite.yaml").write_text(yaml.safe_dump(SUITE))
    (folder / "open.yaml").write_text(yaml.safe_dump(UNDECIDED))
    return folder
