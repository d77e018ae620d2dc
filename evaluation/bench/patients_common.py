"""What a child process of patients.py does around a fit of several tables: read the cell, time it, write what came.

It runs in the environment of one method, where nothing but numpy, pandas and pyarrow can be counted on. A cell is a
folder with the tables of the train part under ``train/`` and ``cell.json`` (``schema``, ``method``, ``epsilon``,
``delta``, `X; the tables of ``synthetic/`` and,
last, ``timing.json`` are put there.
"""

from __future__ import annotations

import json
import platform
import random
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Cell", "Sampler", "Tables", "as_text", "in_form", "kept", "run", "told"]

Cell = Mapping[str, Any]
Tables = dict[str, pd.DataFrame]
Sampler = Callable[[int], Tables]
# What a fit has to tell besides; into timing.json.
told: dict[str, object] = {}


def run(fit: Callable[[Tables, Cell], Sampler], *, packages: Sequence[str]) -> None:
    """Fit and sample the cell whose folder is the program's argument.

    Args:
        fit: learns from the tables of the train part, given the cell, and returns what draws so many patients.
        packages: distributions whose versions are kept.
    """
    folder = Path(sys.argv[1])
    cell = json.loads((folder / "cell.json").read_text())
    if cell["cpu_seconds"] is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(cell["cpu_seconds"]), int(cell["cpu_seconds"]) + 30))
    train = {name: pd.read_parquet(folder / "train" / f"{name}.parquet") for name in cell["schema"]["tables"]}
    random.seed(cell["seed"])
    np.random.seed(cell["seed"])  # some peers draw from numpy's global generator
    begun, cpu = time.perf_counter(), time.process_time()
    sample = fit(train, cell)
    fitted, fit_cpu = time.perf_counter(), time.process_time()
    synthetic = sample(cell["patients"])
    sampled = time.perf_counter()
    (folder / "synthetic").mkdir(exist_ok=True)
    for name, table in in_form(synthetic, cell).items():
        table.to_parquet(folder / "synthetic" / f"{name}.parquet")
    versions = [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    timing = told | {
        "fit_seconds": round(fitted - begun, 1),
        "fit_cpu_seconds": round(fit_cpu - cpu, 1),
        "sample_seconds": round(sampled - fitted, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "versions": "; ".join(versions),
    }
    (folder / "timing.json").write_text(json.dumps(timing))


def kept(cell: Cell, table: str) -> dict[str, dict[str, Any]]:
    """The columns of a table that are learned, as the schema declares them."""
    return {n: c for n, c in cell["schema"]["tables"][table]["columns"].items() if c["kind"] != "id"}


def as_text(values: pd.Series) -> pd.Series:
    """Categories and booleans as text, missing as None."""
    return values.astype(object).where(values.notna(), None).map(lambda v: v if v is None else str(v))


def in_form(tables: Mapping[str, pd.DataFrame], cell: Cell) -> Tables:
    """The declared columns in order: numbers in their precision and bounds, booleans as such, the rest as text.

    Rows of children that name no patient are left out.
    """
    formed: Tables = {}
    for name, table in cell["schema"]["tables"].items():
        made = tables[name]
        columns: dict[str, Any] = {"id": pd.to_numeric(made["id"]).astype("int64")}
        for column, about in kept(cell, name).items():
            columns[column] = _column(made, column, about)
        frame = pd.DataFrame(columns)
        parent = table.get("parent")
        formed[name] = frame if parent is None else frame[frame["id"].isin(formed[parent]["id"])].reset_index(drop=True)
    return formed


def _column(made: pd.DataFrame, column: str, about: Mapping[str, Any]) -> pd.Series:
    if about["kind"] not in ("integer", "number"):
        values = as_text(made[column])
        return values if about["kind"] != "boolean" else values.map({"True": True, "False": False})
    numbers = pd.to_numeric(made[column], errors="coerce").astype(float)
    step = 1 if about["kind"] == "integer" else about.get("precision")
    if step is not None:
        numbers = (numbers / step).round() * step
    bounds = about["bounds"]
    if isinstance(bounds, Mapping):
        around = [min(low for low, _ in bounds.values()), max(high for _, high in bounds.values())]
        each = made[about["per"]].map(lambda code: bounds.get(code, around))
        numbers = numbers.clip(each.map(lambda pair: pair[0]), each.map(lambda pair: pair[1]))
    else:
        numbers = numbers.clip(*bounds)
    return numbers.astype("int64") if about["kind"] == "integer" and not numbers.isna().any() else numbers
