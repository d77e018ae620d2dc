"""Fit every method of several tables on the same patients and score what they make with the same scorer.

A cell is a method, a number of patients, an epsilon and a seed; every finished one is a line of results/patients.csv,
and results/patients.md is made of them. Run again, the command skips the cells that are there; a fit whose synthetic
tables are still in the work folder is scored without being made anew. README.md beside this file says what each method
is given.

``python evaluation/bench/patients.py --envs DIR [--methods ours-auto] [--patients 3000 | 0 for all] [--clock cpu]``
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import patients_score
import patients_summary
import yaml
from grid import OK, Limits, run_child
from methods import Method, python_of
from nafld_tables import SCHEMA, bounded, nafld_tables, split_by_patient, write_parts
from patients_cell import FIELDS, Cell, finished

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "patients.csv"
DELTA = 1e-5
MOST_ROWS = 40
METHODS: dict[str, Method] = {
    "ours-auto": Method(script=HERE / "patients_own.py", environment=None),
    "mostlyai-events": Method(script=HERE / "patients_mostlyai.py", environment="mostlyai"),
    "mostlyai": Method(script=HERE / "patients_mostlyai.py", environment="mostlyai"),
    "sdv-hma": Method(script=HERE / "patients_sdv.py", environment=None, private=False),
    "sdv-par": Method(script=HERE / "patients_sdv.py", environment=None, private=False),
}


def fit_cell(cell: Cell, *, method: Method, python: Path, data: Path, folder: Path, limits: Limits) -> None:
    """Fit one cell in a child process; its tables, and ``line.json`` of what it took, are left in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(data / "train", folder / "train")
    asked = {
        "schema": yaml.safe_load(SCHEMA.read_text()),
        "method": cell.method,
        "epsilon": cell.epsilon if cell.epsilon < float("inf") else None,
        "delta": DELTA,
        "seed": cell.seed,
        "patients": cell.patients,
        "threads": limits.threads,
        "cap_seconds": limits.seconds,
        "cpu_seconds": limits.seconds * limits.threads if limits.clock == "cpu" else None,
    }
    (folder / "cell.json").write_text(json.dumps(asked))
    begun, load = time.perf_counter(), os.getloadavg()[0]
    command = [str(path.absolute()) for path in (python, method.script, folder)]
    line: dict[str, object] = {"status": run_child(command, folder=folder, limits=limits)}
    if line["status"] == OK:
        line |= json.loads((folder / "timing.json").read_text())
    else:
        line["fit_seconds"] = round(time.perf_counter() - begun, 1)
    line |= {
        "load": round((load + os.getloadavg()[0]) / 2, 1),
        "cap": limits.text,
        "threads": limits.threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    shutil.rmtree(folder / "train")
    shutil.rmtree(folder / "workspace", ignore_errors=True)
    (folder / "line.json").write_text(json.dumps(line))


def score_cell(cell: Cell, *, data: Path, folder: Path) -> dict[str, object]:
    """The line of a cell that was fitted."""
    line = {"method": cell.method, "patients": cell.patients, "epsilon": cell.epsilon, "seed": cell.seed}
    line |= {"delta": DELTA, "rows": MOST_ROWS} | json.loads((folder / "line.json").read_text())
    if line["status"] == OK:
        parts = [patients_score.read_tables(at) for at in (data / "train", data / "holdout", folder / "synthetic")]
        train, holdout, synthetic = parts
        synthetic = bounded(synthetic, most=MOST_ROWS, seed=cell.seed)
        figures = patients_score.score(train=train, holdout=holdout, synthetic=synthetic)
        line |= {name: round(value, 4) for name, value in figures.items()}
    return line


def main() -> None:
    """Run what is not finished yet."""
    # Told to end, it takes the fit in progress along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = _options()
    if options.render:
        patients_summary.render(options.results, options.results.with_suffix(".md"))
        return
    limits = Limits(seconds=options.cap, clock=options.clock, threads=options.threads)
    for patients in options.patients:
        data = _data(options.envs / "patients", patients)
        size = len(patients_score.read_tables(data / "train")["patient"])
        for name in options.methods:
            for seed in options.seeds:
                epsilon = options.epsilon if METHODS[name].private else float("inf")
                cell = Cell(name, size, epsilon, seed)
                _run(cell, data=data, options=options, limits=limits)


def _run(cell: Cell, *, data: Path, options: argparse.Namespace, limits: Limits) -> None:
    known = finished(options.results).get(cell)
    if known is not None and not (options.retry and known["status"] != OK):
        return
    folder = options.envs / "patients" / "cells" / f"{cell.method}.{cell.patients}.{cell.epsilon:g}.{cell.seed}"
    if known is not None or not (folder / "line.json").is_file():
        method = METHODS[cell.method]
        print(f"{cell.method}, {cell.patients:,} patients, epsilon {cell.epsilon:g}, seed {cell.seed}", flush=True)
        python = python_of(method.environment, envs=options.envs)
        fit_cell(cell, method=method, python=python, data=data, folder=folder, limits=limits)
    line = score_cell(cell, data=data, folder=folder)
    print(" ", *(f"{name} {line.get(name, '')}" for name in ("status", "fit_seconds", "death_auc")), flush=True)
    _append(options.results, [line])
    patients_summary.render(options.results, options.results.with_suffix(".md"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--patients", nargs="+", type=int, default=[3000], help="of the train part; 0 for all")
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--envs", type=Path, default=Path(".bench"), help="folder for environments and cells")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cap", type=float, default=1800, help="seconds that a fit and its sampling may take")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="what the cap is measured by")
    parser.add_argument("--retry", action="store_true", help="run those again that failed or did not end")
    parser.add_argument("--render", action="store_true", help="write the Markdown of what is there and end")
    return parser.parse_args()


def _data(work: Path, patients: int) -> Path:
    """The train and holdout part, made once, every patient with at most 40 labs and events."""
    folder = work / f"data.{patients or 'all'}"
    if not (folder / "holdout").is_dir():
        train, holdout = split_by_patient(nafld_tables(), patients=patients or None)
        parts = {"train": bounded(train, most=MOST_ROWS), "holdout": bounded(holdout, most=MOST_ROWS, seed=1)}
        write_parts(parts, folder)
    return folder


def _append(results: Path, lines: Iterable[Mapping[str, object]]) -> None:
    """Add lines, in one write, so that an interruption leaves none half written."""
    results.parent.mkdir(parents=True, exist_ok=True)
    new = not results.exists() or results.stat().st_size == 0
    with results.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=FIELDS)
        if new:
            writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
