"""synthehr's own model of several tables, in the environment that the bench itself runs in."""

from __future__ import annotations

import pandas as pd
import patients_common
import polars as pl
import torch
from fit_own import _sources
from patients_common import Cell, Tables

import synthehr


def fit(train: Tables, cell: Cell) -> patients_common.Sampler:
    """Declared bounds and categories; what is not declared is bought from the same epsilon."""
    torch.set_num_threads(cell["threads"])
    cohort = synthehr.read({name: pl.from_pandas(table) for name, table in train.items()}, schema=cell["schema"])
    release = synthehr.fit(
        cohort,
        epsilon=cell["epsilon"],
        delta=cell["delta"],
        model=cell["method"].removeprefix("ours-"),
        policy="exploratory",
        seed=cell["seed"],
    )
    patients_common.told["sources"] = _sources()
    patients_common.told["epsilon_spent"] = round(release.manifest.privacy.epsilon, 4)

    def sample(count: int) -> dict[str, pd.DataFrame]:
        made = release.sample(count, seed=cell["seed"]).tables
        number = pl.col("id").replace_strict(made["patient"]["id"], range(1, count + 1))
        return {name: table.with_columns(number).to_pandas() for name, table in made.items()}

    return sample


if __name__ == "__main__":
    patients_common.run(fit, packages=["synthehr", "torch", "numpy", "pandas"])
