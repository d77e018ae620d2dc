"""dpmm's AIM. Runs in its own environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fit_common
import pandas as pd
from dpmm.pipelines import AIMPipeline

_BINNING = 1 / 11  # of epsilon; the package's defaults stand at 0.1 for bins and 1 for the rest


def fit(train: pd.DataFrame, cell: Mapping[str, Any]) -> fit_common.Sampler:
    """Its own PrivTree bins within declared bounds, bought from the same epsilon; declared categories."""
    domain: dict[str, dict[str, Any]] = {}
    for name, about in cell["columns"].items():
        if about["kind"] == "number":
            domain[name] = {"lower": about["bounds"][0], "upper": about["bounds"][1]}
        elif about["values"] is not None:
            domain[name] = {"categories": about["values"]}
    pipeline = AIMPipeline(
        epsilon=cell["epsilon"] * (1 - _BINNING),
        proc_epsilon=cell["epsilon"] * _BINNING,
        delta=cell["delta"],
        n_jobs=cell["threads"],
    )
    pipeline.fit(train, domain=domain, random_state=cell["seed"])
    return lambda rows: pipeline.generate(n_records=rows, random_state=cell["seed"])


if __name__ == "__main__":
    fit_common.run(fit, packages=["dpmm", "numpy", "pandas"])
