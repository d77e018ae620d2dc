"""What each part of the models is worth: fits with one setting changed, on the tables of the grid, by its scorer.

    python evaluation/bench/ablation.py [--tables nafld1 flchain stroke] [--seeds 0 1 2] [--data DIR]

One line of results/ablation.csv a finished cell; run again, it skips those that are there. ``--table`` renders
results/ablation.md from them: each variant's difference from the default, paired by table and seed, with its interval.
The noise of a fit is never that of another, so that a pair shares its rows and starting weights alone; ways to draw
rows are compared on one fit.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import torch
from cohorts import AbsentTable, Parts, load_table
from neutral import score
from scipy import stats

from synthehr.cohort import Cohort
from synthehr.models.outcomes import OutcomeSettings
from synthehr.models.planning import TrainingSettings
from synthehr.models.sampling import Sampler
from synthehr.models.training import train
from synthehr.randomness import IntArray
from synthehr.release import Release
from synthehr.reporting.datasheet import render_datasheet
from synthehr.schema.conform import conform
from synthehr.schema.files import load_schema

RESULTS = Path(__file__).parent / "results" / "ablation.csv"
DELTA = 1e-5
FIGURES = ("tv2", "tv3", "tstr", "c2st")
# The default first; a name says what is changed, ``part.setting`` of TrainingSettings or the model.
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "no triples": {"choice.triples": 0},
    "200 triples": {"choice.triples_bought": 200},
    "price 0.05": {"choice.price": 0.05},
    "price 1": {"choice.price": 1.0},
    "unbought pairs left free": {"choice.unbought": 0.0},
    "no focus on the outcome": {"choice.focus": 1.0},
    "focus 5": {"choice.focus": 5.0},
    "5 groups in triples": {"choice.groups": 5},
    "12 groups in triples": {"choice.groups": 12},
    "16 bins": {"bins": 16},
    "32 bins": {"bins": 32},
    "100 steps": {"fit.steps": 100},
    "400 steps": {"fit.steps": 400},
    "250 components": {"shape.components": 250},
    "4000 components": {"shape.components": 4000},
    "spread 0.3": {"fit.spread": 0.3},
    "dp-ctgan": {"model": "dp-ctgan"},
    "dp-ctgan, critic without weight": {"model": "dp-ctgan", "critic.weight": 0.0},
    "dp-tvae": {"model": "dp-tvae"},
    "dp-tvae, gradients not followed": {"model": "dp-tvae", "variational.learning_rate": 0.0},
}
# Drawn from one fit: what the others are compared with, and rows each by itself.
EVENLY, ALONE = "drawn evenly", "the same fits, rows drawn each by itself"
# All of these have outcomes as the mixture has them, but for the one that draws them anew.
ANEW = "outcomes drawn anew"


def changed(changes: Mapping[str, Any]) -> tuple[str, TrainingSettings]:
    """The model and its settings."""
    settings, model = TrainingSettings(outcomes=OutcomeSettings(steps=0)), "marginal"
    for name, value in changes.items():
        part, _, setting = name.partition(".")
        if name == "model":
            model = value
        elif part == "shape":
            settings = dataclasses.replace(settings, shape=settings.shape.model_copy(update={setting: value}))
        elif setting:
            held = dataclasses.replace(getattr(settings, part), **{setting: value})
            settings = dataclasses.replace(settings, **{part: held})
        else:
            settings = dataclasses.replace(settings, **{name: value})
    return model, settings


def fitted(parts: Parts, changes: Mapping[str, Any], *, epsilon: float, seed: int) -> tuple[Release, float]:
    """The release of one fit, and its seconds of processor time."""
    model, settings = changed(changes)
    schema = load_schema(parts.meta["schema"])
    rows = conform(pl.from_pandas(parts.train), schema=schema, table="patient")
    started = time.process_time()
    trained = train(
        Cohort({"patient": rows}, schema=schema),
        epsilon=epsilon,
        delta=DELTA,
        model=model,
        policy="exploratory",
        seed=seed,
        settings=settings,
    )
    return Release.of(trained, datasheet=render_datasheet), time.process_time() - started


def scored(release: Release, parts: Parts, *, seed: int) -> dict[str, float]:
    """The scores of a cohort of as many patients as there are real ones."""
    made = release.sample(len(parts.train), seed=seed).root.to_pandas()
    return {name: round(value, 4) for name, value in score(parts.train, parts.test, made, parts.meta).items()}


def measure(parts: Parts, variant: str, *, epsilon: float, seed: int) -> dict[str, dict[str, float]]:
    """The scores of one fit, by variant: two for the ways to draw, else the one asked for."""
    changes = {"outcomes": OutcomeSettings()} if variant == ANEW else VARIANTS.get(variant, {})
    release, spent = fitted(parts, changes, epsilon=epsilon, seed=seed)
    found = {variant: {"fit_cpu_seconds": round(spent, 1), **scored(release, parts, seed=seed)}}
    if variant == EVENLY:
        with mock.patch.object(Sampler, "_evenly", _each_by_itself):
            found[ALONE] = {"fit_cpu_seconds": round(spent, 1), **scored(release, parts, seed=seed)}
    return found


def _each_by_itself(sampler: Sampler, parts: Any, each: int, draws: np.random.Generator) -> list[IntArray]:
    return sampler.rows(parts.chosen(np.repeat(np.arange(len(parts)), each)), draws)


def render(lines: list[dict[str, str]], *, epsilon: str) -> str:
    """Mean differences from the default with their 95 % limits (t over tables and seeds), as a Markdown table."""
    cells = {(line["variant"], line["table"], line["seed"]): line for line in lines if line["epsilon"] == epsilon}
    text = [
        f"Epsilon {epsilon}, delta {DELTA:g}. Differences from the default, paired by table and seed; less is better "
        "but for tstr.",
        "",
        "| variant | " + " | ".join(FIGURES) + " | fits | CPU time, ratio |",
        "|---|" + "---|" * (len(FIGURES) + 2),
    ]
    for variant in (*VARIANTS, ALONE, ANEW):
        against = EVENLY if variant in {ALONE, ANEW} else "default"
        keys = [key for key in cells if key[0] == variant and (against, *key[1:]) in cells]
        if not keys:
            continue
        base = [cells[against, key[1], key[2]] for key in keys]
        row = []
        for figure in FIGURES:
            mine = np.array([float(cells[key][figure]) for key in keys])
            theirs = np.array([float(line[figure]) for line in base])
            if variant == "default":
                row.append(f"{mine.mean():.4f}")
                continue
            apart = mine - theirs
            half = stats.t.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / len(apart) ** 0.5 if len(apart) > 1 else 0
            row.append(f"{apart.mean():+.4f} ± {half:.4f}")
        ratio = np.median([float(cells[k]["fit_cpu_seconds"]) for k in keys]) / np.median(
            [float(line["fit_cpu_seconds"]) for line in base]
        )
        text.append(f"| {variant} | " + " | ".join(row) + f" | {len(keys)} | {ratio:.2g} |")
    return "\n".join(text) + "\n"


def main() -> None:
    """Measure what is missing, or render what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="+", default=["nafld1", "flchain", "stroke"])
    parser.add_argument("--variants", nargs="+", default=[*VARIANTS, EVENLY, ANEW], choices=[*VARIANTS, EVENLY, ANEW])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--data", type=Path, help="folder of the tables that no package holds")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="render what is there, and measure nothing")
    options = parser.parse_args()
    path: Path = options.results
    lines = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    if options.table:
        path.with_suffix(".md").write_text(render(lines, epsilon=f"{options.epsilon:g}"), encoding="utf-8")
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    done = {(line["table"], line["variant"], line["epsilon"], line["seed"]) for line in lines}
    for seed in options.seeds:
        for name in options.tables:
            try:
                parts = load_table(name, folder=options.data)
            except AbsentTable as absent:
                print(f"{name} is left out: {absent}")
                continue
            for variant in options.variants:
                key = {"table": name, "variant": variant, "epsilon": f"{options.epsilon:g}", "seed": str(seed)}
                if tuple(key.values()) in done:
                    continue
                for drawn, found in measure(parts, variant, epsilon=options.epsilon, seed=seed).items():
                    line = {**key, "variant": drawn, **found, "torch": torch.__version__}
                    new = not path.exists()
                    with path.open("a", newline="", encoding="utf-8") as file:
                        writer = csv.DictWriter(file, list(line), lineterminator="\n")
                        if new:
                            writer.writeheader()
                        writer.writerow(line)
                    print(name, drawn, seed, {figure: line[figure] for figure in FIGURES}, flush=True)


if __name__ == "__main__":
    main()
