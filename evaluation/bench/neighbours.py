"""What of a report changes when one patient is left out: why the public form holds no number of real records.

    python evaluation/bench/neighbours.py --pairs 100

A marginal release of nafld1 (epsilon 3, 2,800 patients), evaluated by the suite ``ci`` against 700 others: as they are,
and without one patient of either part, in turn; ``own`` draws by a seed of its own each time, as the public form does,
``same`` by that of the first evaluation. Of each beside the first: verdicts that differ, and numbers that differ after
rounding to steps of 0.05, the coarse form that reports once had.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

import polars as pl

import synthehr as se
from synthehr.cli.nafld1 import SCHEMA, nafld1

RESULTS = Path(__file__).parent / "results" / "neighbours.csv"
TRAIN, HOLDOUT, STEP = 2_800, 700, 0.05
FIELDS = ("pair", "without_one_of", "seed", "checks", "verdicts_that_differ", "numbers", "numbers_that_differ")
KINDS = (("train", "same"), ("holdout", "same"), ("", "own"), ("train", "own"), ("holdout", "own"))
Parts = dict[str, pl.DataFrame]


def numbers(report: se.Report) -> dict[str, float]:
    """Values, references and shares of a report by where they stand, in steps."""
    found: dict[str, float | None] = {}
    for check in report.checks:
        found |= {f"{check.id} value": check.value, f"{check.id} reference": check.reference}
    for column in report.document.sections.columns:
        for part in ("train", "holdout"):
            found |= {f"{column.column} {part} {at}": share for at, share in enumerate(getattr(column, part))}
    return {name: round(round(one / STEP) * STEP, 2) for name, one in found.items() if one is not None}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--pairs", type=int, default=100)
    asked.add_argument("--results", type=Path, default=RESULTS)
    given = asked.parse_args()
    rows = nafld1().sample(TRAIN + HOLDOUT, seed=1)
    parts = {"train": rows[:TRAIN], "holdout": rows[TRAIN:]}

    def read(frame: pl.DataFrame) -> se.Cohort:
        return se.read(frame, schema=SCHEMA)

    release = se.fit(read(parts["train"]), epsilon=3.0, seed=0)
    synthetic = release.sample(TRAIN, seed=0)

    def evaluated(of: Parts, seed: int = 0) -> se.Report:
        cohorts = {name: read(frame) for name, frame in of.items()}
        return se.evaluate(**cohorts, synthetic=synthetic, suite="ci", seed=seed)

    first = evaluated(parts)
    as_they_are, verdicts = numbers(first), {check.id: check.verdict for check in first.checks}
    draw = random.Random(5)
    with given.results.open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        for pair in range(given.pairs):
            without, seed = KINDS[pair % len(KINDS)]
            changed = dict(parts)
            if without:
                at = draw.randrange(parts[without].height)
                changed[without] = parts[without].filter(pl.int_range(pl.len()) != at)
            report = evaluated(changed, seed=pair + 1 if seed == "own" else 0)
            coarse = numbers(report)
            turned = [check.id for check in report.checks if verdicts.get(check.id) != check.verdict]
            moved = sum(as_they_are.get(name) != coarse.get(name) for name in as_they_are.keys() | coarse.keys())
            counts = (pair, without, seed, len(report.checks), len(turned), len(coarse), moved)
            table.writerow(dict(zip(FIELDS, counts, strict=True)))
            file.flush()
            print(*counts, *turned, flush=True)


if __name__ == "__main__":
    main()
