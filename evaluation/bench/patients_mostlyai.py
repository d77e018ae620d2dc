"""mostlyai-engine's sequential TabularARGN with differential privacy, table by table. Runs in its own environment.

Patients are learned as a flat table, then labs and events each as sequences in the context of the patients. Every
table is a fit with a budget of its own, so epsilon and delta are shared out evenly: what one patient is promised over
all tables is their sum. ``mostlyai-events`` learns patients and events alone, each with half.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import patients_common
from mostlyai.engine import TabularARGN
from mostlyai.engine.domain import DifferentialPrivacyConfig
from patients_common import Cell, Tables, as_text, kept

_TRAINING = 0.7  # of the cap, over all tables: after so long a fit stops by itself, and gives what it has
_DAY_ZERO = pd.Timestamp("2000-01-01")
_KINDS = {"integer": "TABULAR_NUMERIC_AUTO", "number": "TABULAR_NUMERIC_AUTO"}


def fit(train: Tables, cell: Cell) -> patients_common.Sampler:
    """Its own encodings; kinds of columns are told, days are dates, which it learns as the time since the row before.

    Ranges and categories it reads off the rows with its own protection of rare ones, but free of charge: bought from
    a share of epsilon, as it offers, the ranges of most columns of 150 patients came out empty, and all values missing.
    """
    children = ["event"] if cell["method"].endswith("-events") else ["lab", "event"]
    patients = _given(train["patient"], cell, "patient")
    share = 1 / (1 + len(children))
    root = _model("patient", cell, share).fit(patients.drop(columns="id"))
    sequences = {}
    for child in children:
        rows = _given(train[child].sort_values(["id", "days"], kind="stable"), cell, child)
        context = {"ctx_data": patients, "ctx_primary_key": "id", "ctx_encoding_types": _types(cell, "patient")}
        sequences[child] = _model(child, cell, share, tgt_context_key="id", **context).fit(rows)

    def sample(count: int) -> Tables:
        made = {"patient": root.sample(n_samples=count).reset_index(drop=True)}
        made["patient"].insert(0, "id", range(1, count + 1))
        for child, model in sequences.items():
            made[child] = model.sample(ctx_data=made["patient"])
            made[child]["days"] = (pd.to_datetime(made[child]["days"]) - _DAY_ZERO).dt.days
        for child in set(cell["schema"]["tables"]) - set(made):
            made[child] = train[child].iloc[:0]
        return made

    return sample


def _given(table: pd.DataFrame, cell: Cell, name: str) -> pd.DataFrame:
    columns: dict[str, Any] = {"id": table["id"]}
    for column, about in kept(cell, name).items():
        columns[column] = table[column] if about["kind"] in _KINDS else as_text(table[column])
    given = pd.DataFrame(columns).reset_index(drop=True)
    return given.assign(days=_DAY_ZERO + pd.to_timedelta(given["days"], unit="D")) if "days" in given else given


def _types(cell: Cell, name: str) -> dict[str, str]:
    types = {column: _KINDS.get(about["kind"], "TABULAR_CATEGORICAL") for column, about in kept(cell, name).items()}
    return types | ({"days": "TABULAR_DATETIME_RELATIVE"} if "days" in types else {})


def _model(name: str, cell: Cell, share: float, **context: Any) -> TabularARGN:
    return TabularARGN(
        tgt_encoding_types=_types(cell, name),
        differential_privacy=DifferentialPrivacyConfig(
            max_epsilon=share * cell["epsilon"],
            delta=share * cell["delta"],
            value_protection_epsilon=None,
        ),
        max_training_time=_TRAINING * share * cell["cap_seconds"] / 60,
        device="cpu",
        random_state=cell["seed"],
        workspace_dir=Path(sys.argv[1]) / "workspace" / name,
        verbose=1,
        **context,
    )


if __name__ == "__main__":
    patients_common.run(fit, packages=["mostlyai-engine", "opacus", "torch", "numpy", "pandas"])
