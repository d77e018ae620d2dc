"""The package ctgan's CTGAN and TVAE, without privacy. Runs in its own environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fit_common
import pandas as pd
import torch
from ctgan import CTGAN, TVAE


def fit(train: pd.DataFrame, cell: Mapping[str, Any]) -> fit_common.Sampler:
    """Default sizes and epochs. Missing numbers, which the package refuses, are told apart by a column of their own."""
    torch.manual_seed(cell["seed"])
    given = fit_common.without_missing(train, cell)
    discrete = [name for name in given if given[name].dtype == object]
    model = (CTGAN if cell["method"] == "ctgan" else TVAE)(enable_gpu=False)
    model.set_random_state(cell["seed"])
    model.fit(given, discrete)
    return lambda rows: fit_common.with_missing(model.sample(rows), cell)


if __name__ == "__main__":
    fit_common.run(fit, packages=["ctgan", "rdt", "torch", "numpy", "pandas"])
