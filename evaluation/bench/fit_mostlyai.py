"""mostlyai-engine's TabularARGN with differential privacy. Runs in its own environment."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fit_common
import pandas as pd
from mostlyai.engine import TabularARGN
from mostlyai.engine.domain import DifferentialPrivacyConfig

_PROTECTION = 0.2  # of epsilon, for ranges and rare categories; the rest is for training
_TRAINING = 0.8  # of the cap: after so long it stops by itself, and gives what it has


def fit(train: pd.DataFrame, cell: Mapping[str, Any]) -> fit_common.Sampler:
    """Its own encodings, ranges and category sets, bought from the same epsilon; the kinds of columns are told."""
    kinds = {"number": "TABULAR_NUMERIC_AUTO", "category": "TABULAR_CATEGORICAL"}
    model = TabularARGN(
        tgt_encoding_types={name: kinds[about["kind"]] for name, about in cell["columns"].items()},
        differential_privacy=DifferentialPrivacyConfig(
            max_epsilon=cell["epsilon"],
            delta=cell["delta"],
            value_protection_epsilon=_PROTECTION * cell["epsilon"],
        ),
        max_training_time=_TRAINING * cell["wall_seconds"] / 60,
        device="cpu",
        random_state=cell["seed"],
        workspace_dir=Path(sys.argv[1]) / "workspace",
        verbose=1,
    )
    model.fit(train)
    return lambda rows: model.sample(n_samples=rows)


if __name__ == "__main__":
    fit_common.run(fit, packages=["mostlyai-engine", "opacus", "torch", "numpy", "pandas"])
