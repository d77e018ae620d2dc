"""What every child process of the bench does around a fit: read the cell, time fit and sample, write what came of it.

It runs in the environment of one method, where nothing but numpy, pandas and pyarrow can be counted on. A cell is a
folder with ``train.parquet`` and ``meta.json`` (``target``, ``columns``, ``schema``, ``method``, ``epsilon``,
``delta``, ``seed``, ``rows``, ``threads``, ``wall_seconds``, ``cpu_seconds``); ``synthetic.parquet``
and, last, ``timing.json`` are put there.
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

__all__ = ["Bins", "Sampler", "run", "told", "with_missing", "without_missing"]

_NONE = "(missing)"
_FLAG = " is missing"
# What a fit has to tell besides; into timing.json.
told: dict[str, object] = {}
Sampler = Callable[[int], pd.DataFrame]


def run(
    fit: Callable[[pd.DataFrame, Mapping[str, Any]], Sampler | Mapping[str, Sampler]], *, packages: Sequence[str]
) -> None:
    """Fit and sample the cell whose folder is the program's argument.

    Args:
        fit: learns from the train part, given the cell, and returns what draws so many rows; or several ways to draw
            from the one fit, by name, the plain one first and named "". The others go to ``synthetic.NAME.parquet``.
        packages: distributions whose versions are kept.
    """
    folder = Path(sys.argv[1])
    cell = json.loads((folder / "meta.json").read_text())
    if cell["cpu_seconds"] is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(cell["cpu_seconds"]), int(cell["cpu_seconds"]) + 30))
    train = pd.read_parquet(folder / "train.parquet")
    random.seed(cell["seed"])
    np.random.seed(cell["seed"])  # some peers draw from numpy's global generator
    begun, cpu = time.perf_counter(), time.process_time()
    samplers = fit(train, cell)
    fitted, fit_cpu = time.perf_counter(), time.process_time()
    ways = samplers if isinstance(samplers, Mapping) else {"": samplers}
    sampled = 0.0
    for way, sample in ways.items():
        synthetic = sample(cell["rows"])
        sampled = sampled or time.perf_counter()
        _in_form(synthetic, cell).to_parquet(folder / f"synthetic{way and '.' + way}.parquet")
    largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    versions = [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    timing = told | {
        "fit_seconds": round(fitted - begun, 1),
        "fit_cpu_seconds": round(fit_cpu - cpu, 1),
        "sample_seconds": round(sampled - fitted, 2),
        "peak_memory_mib": round(largest / 1024),
        "versions": "; ".join(versions),
    }
    (folder / "timing.json").write_text(json.dumps(timing))


def _in_form(synthetic: pd.DataFrame, cell: Mapping[str, Any]) -> pd.DataFrame:
    """The columns in order; numbers as float64 in the declared precision and bounds, categories as text or null."""
    form = {}
    for name, about in cell["columns"].items():
        if about["kind"] == "number":
            values = pd.to_numeric(synthetic[name], errors="coerce").astype(float)
            step = about["precision"]
            stepped = values if step is None else (values / step).round() * step
            form[name] = stepped.clip(*about["bounds"])
        else:
            values = synthetic[name]
            form[name] = values.astype(object).where(values.notna(), None).map(lambda v: v if v is None else str(v))
    return pd.DataFrame(form).reset_index(drop=True)


def without_missing(train: pd.DataFrame, cell: Mapping[str, Any]) -> pd.DataFrame:
    """A table for methods that take no missing values.

    A missing number becomes the middle of its bounds, and a column of its own says so; a missing category becomes a
    category.
    """
    given: dict[str, Any] = {}
    for name, about in cell["columns"].items():
        missing = train[name].isna()
        if about["kind"] == "category":
            given[name] = train[name].where(~missing, _NONE).astype(object)
            continue
        given[name] = train[name].fillna(sum(about["bounds"]) / 2)
        if about["nullable"]:
            given[name + _FLAG] = missing.map({True: "yes", False: "no"}).astype(object)
    return pd.DataFrame(given)


def with_missing(synthetic: pd.DataFrame, cell: Mapping[str, Any]) -> pd.DataFrame:
    """The inverse of :func:`without_missing`."""
    out: dict[str, Any] = {}
    for name, about in cell["columns"].items():
        values = synthetic[name]
        if about["kind"] == "category":
            out[name] = values.astype(object).where(values != _NONE, None)
        elif about["nullable"]:
            out[name] = pd.to_numeric(values).where(synthetic[name + _FLAG] != "yes")
        else:
            out[name] = values
    return pd.DataFrame(out)


class Bins:
    """Every column as a category of small whole numbers, for methods that know nothing else.

    Numbers fall into at most 32 cells: between quantiles of the train part (``quantile``, which is read off the rows
    free of charge and so flatters the method), or of even width over the declared bounds (``even``). Drawn back, a
    value is even inside its cell. Missing, where it may be, is a code of its own.
    """

    def __init__(self, train: pd.DataFrame, cell: Mapping[str, Any], *, how: str, most: int = 32) -> None:
        self.columns = cell["columns"]
        self.edges: dict[str, Any] = {}
        self.values: dict[str, list[str]] = {}
        for name, about in self.columns.items():
            if about["kind"] == "category":
                self.values[name] = list(about["values"] or sorted(train[name].dropna().unique()))
            elif how == "even":
                self.edges[name] = np.linspace(*about["bounds"], most + 1)
            else:
                cuts = np.unique(np.quantile(train[name].dropna(), np.linspace(0, 1, most + 1)))
                self.edges[name] = cuts if len(cuts) > 1 else np.array([cuts[0], cuts[0] + 1.0])
        self.random = np.random.default_rng(cell["seed"])

    def sizes(self) -> dict[str, int]:
        """How many codes each column has."""
        known = {**{n: len(v) for n, v in self.values.items()}, **{n: len(e) - 1 for n, e in self.edges.items()}}
        return {name: known[name] + bool(about["nullable"]) for name, about in self.columns.items()}

    def encode(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Codes, whole numbers from 0."""
        codes = {}
        for name in self.columns:
            if name in self.values:
                index = {value: code for code, value in enumerate(self.values[name])}
                codes[name] = frame[name].map(index).fillna(len(index)).astype(int)
            else:
                edges, x = self.edges[name], frame[name].to_numpy(float)
                inside = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
                codes[name] = np.where(np.isnan(x), len(edges) - 1, inside)
        return pd.DataFrame(codes)

    def decode(self, codes: pd.DataFrame) -> pd.DataFrame:
        """Values drawn inside the cells that the codes name."""
        out: dict[str, Any] = {}
        for name in self.columns:
            code = codes[name].to_numpy().astype(int)
            if name in self.values:
                out[name] = np.array([*self.values[name], None], dtype=object)[code]
            else:
                edges = self.edges[name]
                cell = np.minimum(code, len(edges) - 2)
                drawn = edges[cell] + self.random.random(len(code)) * (edges[cell + 1] - edges[cell])
                out[name] = np.where(code == len(edges) - 1, np.nan, drawn)
        return pd.DataFrame(out)
