"""synthehr's own models, in the environment that the bench itself runs in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fit_common
import pandas as pd
import polars as pl
import torch

import synthehr
from synthehr.cohort import Cohort
from synthehr.models.training import train as train_model
from synthehr.release import Release
from synthehr.reporting.datasheet import render_datasheet
from synthehr.schema.conform import conform
from synthehr.schema.files import load_schema


def fit(train: pd.DataFrame, cell: Mapping[str, Any]) -> fit_common.Sampler:
    """Declared bounds and categories; what is not declared is bought from the same epsilon."""
    torch.set_num_threads(cell["threads"])
    schema = load_schema(cell["schema"])
    rows = conform(pl.from_pandas(train), schema=schema, table="patient")
    trained = train_model(
        Cohort({"patient": rows}, schema=schema),
        epsilon=cell["epsilon"],
        delta=cell["delta"],
        model=cell["method"],
        policy="exploratory",
        seed=cell["seed"],
    )
    release = Release.of(trained, datasheet=render_datasheet)
    fit_common.told["sources"] = _sources()
    fit_common.told["epsilon_spent"] = round(trained.epsilon_spent, 4)
    return lambda count: release.sample(count, seed=cell["seed"]).root.to_pandas()


def _sources() -> str:
    """The first digits of a digest of the package's sources, which a version of a checkout does not tell."""
    digest = hashlib.sha256()
    root = Path(synthehr.__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    fit_common.run(fit, packages=["synthehr", "torch", "numpy", "pandas"])
