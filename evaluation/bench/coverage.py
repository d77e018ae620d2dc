"""How often the 95 % intervals hold what they are of: a simulation over 200 repeats.

    python evaluation/bench/coverage.py

Each repeat draws train (1,500 patients) and holdout (800) from one made-up population and the synthetic cohort (800)
from another, and takes the metrics' value and their excess over the reference. What an interval must hold is

- ``known``: the rate of the synthetic population, or the difference of the two, by the numbers they are drawn with;
- ``mean``: for distances, whose value in a sample of this size is above that in the population, the mean over all
  repeats: what other patients would give on average;
- ``same models``: for predictions, the same of the same two trained models on 20,000 patients more, since the
  interval speaks of the patients asked and not of those learned from.

The excess holds the holdout's distance from train, 0 but for chance, where a distance is not differentiable:
there the interval is too wide rather than too narrow.

The rows of a repeat are written to ``--work`` as it ends, so that a second call goes on; the table goes to
``results/coverage.csv``. Its last columns are the 95 % limits between which the share of 200 honest intervals lies by
chance, by the binomial distribution around 0.95, and whether the share is within 0.92 and 0.98.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import binom

from synthehr.cohort import Cohort
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.learners import Learner
from synthehr.evaluation.metrics import measure
from synthehr.evaluation.utility import scored, scores
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

RESULTS = Path(__file__).parent / "results" / "coverage.csv"
WORK = Path(".bench") / "coverage.csv"
SIZES = (1_500, 800, 800)
MANY = 20_000
SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "outcome": "died",
            "groups": "group",
            "survival": {"time": "time", "event": "event"},
            "columns": {
                "age": {"kind": "integer", "bounds": [0, 100]},
                "weight": {"kind": "number", "bounds": [0, 200], "nullable": True},
                "pressure": {"kind": "number", "nullable": True},
                "group": {"kind": "category", "values": ["a", "b", "c"]},
                "smokes": {"kind": "boolean"},
                "time": {"kind": "number"},
                "event": {"kind": "boolean"},
                "died": {"kind": "boolean"},
            },
        }
    },
}
KNOWN = {"schema_violations": {"value": 0.08, "excess": 0.05}}
"""The real population breaks the schema in 3 of 100 patients, the synthetic one in 8."""
SAME_MODELS: dict[str, Learner] = {"tstr_linear": "linear", "tstr": "trees"}
AVERAGED = (
    "one_way_tv",
    "one_way_tv_worst",
    "pair_tv",
    "triple_tv",
    "ks",
    "missing_rate",
    "missing_patterns",
    "association_error",
    "coefficient_overlap",
    "km_distance",
    "rmst_difference",
    "c2st_auc",
    "hazard_overlap",
)
SLOW = ("tstr", "c2st_auc", "hazard_overlap")
"""Taken of all repeats after the others were."""


def population(patients: int, *, draw: np.random.Generator, synthetic: bool) -> pl.DataFrame:
    """Patients of one of the two populations; the synthetic one is off in every respect that is measured."""
    off = 1.0 if synthetic else 0.0
    frailty = draw.normal(size=patients)
    age = np.clip(55 + 5 * off + (12 + 2 * off) * (0.6 * frailty + 0.8 * draw.normal(size=patients)), 0, 100)
    weight = 75 - 4 * off + (10 - 4 * off) * frailty + 8 * draw.normal(size=patients)
    weight = np.where(draw.random(patients) < 0.03 + 0.05 * off, 999.0, weight)
    pressure = 120 + 3 * off + 10 * draw.normal(size=patients) + (0.3 - 0.2 * off) * (age - 55)
    gone = draw.random(patients) < 0.15 + 0.1 * off
    also = np.where(draw.random(patients) < 0.7 - 0.4 * off, gone, draw.random(patients) < 0.2)
    group = draw.choice(["a", "b", "c"], patients, p=[0.5 - 0.1 * off, 0.3, 0.2 + 0.1 * off])
    smokes = draw.random(patients) < 0.3 + 0.08 * off
    risk = (0.9 - 0.5 * off) * frailty + (0.6 - 0.4 * off) * smokes
    time, end = draw.exponential(np.exp(-risk)), draw.uniform(0.2, 3.0, patients)
    died = draw.random(patients) < 1 / (1 + np.exp(0.5 + 0.4 * off - risk - (0.04 - 0.03 * off) * (age - 55)))
    return pl.DataFrame(
        {
            "age": np.round(age).astype(int),
            "weight": np.where(gone & (weight < 900), np.nan, weight),
            "pressure": np.where(also, np.nan, pressure),
            "group": group,
            "smokes": smokes,
            "time": np.minimum(time, end),
            "event": time <= end,
            "died": died,
        }
    ).with_columns(pl.col("weight", "pressure").fill_nan(None))


def bench_of(schema: Schema, frames: tuple[pl.DataFrame, ...], *, seed: int) -> Bench:
    train, holdout, synthetic = (Cohort({"patient": frame}, schema=schema) for frame in frames)
    return Bench.open(train=train, holdout=holdout, synthetic=synthetic, seed=seed)


def repeat(schema: Schema, seed: int, *, metrics: list[str]) -> list[dict[str, object]]:
    """Value and excess of every metric, with intervals, and what it must hold where a repeat can tell."""
    draw = np.random.default_rng([11, seed])
    train, holdout = (population(size, draw=draw, synthetic=False) for size in SIZES[:2])
    synthetic = population(SIZES[2], draw=draw, synthetic=True)
    more = population(MANY, draw=draw, synthetic=False)
    bench = bench_of(schema, (train, holdout, synthetic), seed=seed)
    large = bench_of(schema, (train, more, synthetic), seed=seed)  # the same models, as they do not see the holdout
    rows: list[dict[str, object]] = []
    for name in metrics:
        found = measure(bench, name, "all")
        if found.value is None or found.excess is None:
            raise RuntimeError(f"{name} is undefined in repeat {seed}")
        truths: dict[str, object] = {"value": "", "excess": ""}
        if name in KNOWN:
            truths.update(KNOWN[name])
        elif name in SAME_MODELS:
            answers = scores(large, "died", SAME_MODELS[name])
            assert not isinstance(answers, str)
            on_synthetic, on_real = scored(answers, answers.synthetic), scored(answers, answers.real)
            truths = {"value": on_synthetic, "excess": on_real - on_synthetic}
        for statistic, one in (("value", found.value), ("excess", found.excess)):
            rows.append(
                {
                    "seed": seed,
                    "metric": name,
                    "statistic": statistic,
                    "estimate": one.value,
                    "low": one.low,
                    "high": one.high,
                    "truth": truths[statistic],
                }
            )
    return rows


def summary(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    """The share of intervals that hold what they must, for each metric and statistic."""
    by_metric: defaultdict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_metric[row["metric"], row["statistic"]].append(row)
    table = []
    for (name, statistic), found in by_metric.items():
        values, low, high = (np.array([float(row[key]) for row in found]) for key in ("estimate", "low", "high"))
        truth = values.mean() if name in AVERAGED else np.array([float(row["truth"]) for row in found])
        holds = (low <= truth) & (truth <= high)
        table.append(
            {
                "metric": name,
                "statistic": statistic,
                "truth": "mean" if name in AVERAGED else "known" if name in KNOWN else "same models",
                "repeats": len(found),
                "mean_estimate": f"{values.mean():.4f}",
                "mean_half_width": f"{((high - low) / 2).mean():.4f}",
                "coverage": f"{holds.mean():.3f}",
                "chance_low": f"{binom.ppf(0.025, len(found), 0.95) / len(found):.3f}",
                "chance_high": f"{binom.ppf(0.975, len(found), 0.95) / len(found):.3f}",
                "within_92_98": "yes" if 0.92 <= holds.mean() <= 0.98 else "no",
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    asked.work.parent.mkdir(parents=True, exist_ok=True)
    schema = load_schema(SCHEMA)
    rows: list[dict[str, str]] = []
    if asked.work.exists():
        with asked.work.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["seed"], row["metric"]) for row in rows}
    quick = [name for name in (*KNOWN, *SAME_MODELS, *AVERAGED) if name not in SLOW]
    for seed, names in [(at, names) for names in (quick, list(SLOW)) for at in range(asked.repeats)]:
        missing = [name for name in names if (str(seed), name) not in done]
        if not missing:
            continue
        found = repeat(schema, seed, metrics=missing)
        new = not asked.work.exists()
        with asked.work.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(found[0]), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows(found)
        rows += [{key: str(value) for key, value in row.items()} for row in found]
        print(f"repeat {seed + 1} of {asked.repeats}", flush=True)
    table = summary(rows)
    with asked.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    for row in table:
        print(row)


if __name__ == "__main__":
    main()
