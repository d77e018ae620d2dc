"""Cohorts of groups of about one patient in a hundred, beside the real group; results/conditional.csv, a line a group.

For each table a release of each of ``--models`` and ``--seeds`` is fitted to the train part at ``--epsilon``, and
each group is drawn

* ``direct``: by ``Release.sample(where=...)``;
* ``rejection``: by drawing patients and keeping those of the group;
* ``forced``: by holding the group's columns to allowed values in every component alike, which is what setting CTGAN's
  condition to the wanted value does.

``*_tv`` is the mean total-variation distance of the columns that the group does not name (numbers in 20 bins by the
train part's quantiles, missing ones apart) between the real group of the train part and as many synthetic patients;
``whole_tv`` is that of the same columns between as many real and synthetic patients of the whole cohort: at this size
both are mostly chance. Each is the mean of ``--repeats`` draws. ``ratio`` is ``direct_tv / whole_tv``. ``floor_tv`` is
what a random half of the real group shows against the other half, times the square root of a half.

    python evaluation/bench/conditional.py [--models marginal dp-ctgan] [--seeds 0 1 2] [--epsilon 3] [--repeats 40]
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
from flat import load

from synthehr.encoding.codec import Decoder
from synthehr.encoding.conditions import region_of
from synthehr.errors import DataError
from synthehr.models.conditional import target_of
from synthehr.models.sampling import Sampler, stratified
from synthehr.models.training import train
from synthehr.release import Release
from synthehr.reporting.datasheet import render_datasheet

RESULTS = Path(__file__).parent / "results" / "conditional.csv"
BINS = 20
# Patients of the whole cohort, among whom those of a group are looked for.
PLAIN = 300_000
GROUPS = {
    "nafld1": [
        "age >= 83 and male = '1'",
        "status = '1' and age < 50",
        "age >= 85",
        "bmi >= 47",
        "height >= 190",
        "weight is null and status = '1' and male = '1'",
    ],
    "flchain": [
        "mgus = '1'",
        "\"flc.grp\" = '10' and sex = 'M' and age < 60",
        "age >= 88",
        "kappa > 5",
        "\"sample.yr\" in ('1995', '2000') and age between 50 and 51",
    ],
}

FIGURES = (
    *("real_share", "patients", "model_share", "method", "met", "direct_tv", "rejection_tv", "forced_tv", "whole_tv"),
    *("ratio", "floor_tv", "direct_rows_per_second", "rejection_rows_per_second", "parts_per_row", "most_of_one"),
)


def codes(frame: pl.DataFrame, edges: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
    """Each column's bins, or its values as text; missing apart."""
    found = {}
    for name, cuts in edges.items():
        if cuts is None:
            found[name] = frame[name].cast(pl.String).fill_null("missing value").to_numpy()
        else:
            values = frame[name].cast(pl.Float64).to_numpy()
            found[name] = np.where(np.isnan(values), len(cuts) + 1, np.searchsorted(cuts, values, side="right"))
    return found


def mean_tv(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    """The mean over columns of the total-variation distance."""
    distances = []
    for name, mine in first.items():
        values, places = np.unique(np.concatenate([mine, second[name]]), return_inverse=True)
        shares = [np.bincount(p, minlength=len(values)) / len(p) for p in np.split(places, [len(mine)])]
        distances.append(0.5 * np.abs(shares[0] - shares[1]).sum())
    return float(np.mean(distances))


def chosen(of: dict[str, np.ndarray], at: np.ndarray) -> dict[str, np.ndarray]:
    """Some of the rows."""
    return {name: values[at] for name, values in of.items()}


class Group:
    """One group of one release."""

    def __init__(self, release: Release, real: pl.DataFrame, where: str, *, repeats: int, seed: int) -> None:
        self.release, self.real, self.where, self.repeats = release, real, where, repeats
        self.rule = release.schema.condition(where)
        self.group = real.filter(self.rule.holds(real))
        free = [name for name in real.columns if name not in self.rule.columns]
        self.edges: dict[str, np.ndarray | None] = {}
        for name in free:
            numeric = real[name].dtype.is_numeric()
            values = real[name].drop_nulls().cast(pl.Float64).to_numpy() if numeric else None
            self.edges[name] = (
                None if values is None else np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
            )
        self.draws = np.random.default_rng(seed)

    def scored(self) -> dict[str, object]:
        """A line of the results, but for what all lines have."""
        size = self.group.height
        wanted = size * self.repeats
        begun = time.perf_counter()
        cohort = self.release.sample(wanted, seed=1, where=self.where)
        direct_seconds = time.perf_counter() - begun
        assert cohort.root.filter(self.rule.holds(cohort.root)).height == wanted
        begun = time.perf_counter()
        plain = self.release.sample(PLAIN, seed=2).root
        kept = plain.filter(self.rule.holds(plain))
        rejection_seconds = time.perf_counter() - begun
        assert cohort.provenance.drawing is not None
        direct = self.distance(self.group, cohort.root)
        whole = self.whole(plain)
        return {
            "real_share": round(size / self.real.height, 4),
            "patients": size,
            "model_share": round(cohort.provenance.match_rate or 0.0, 5),
            "method": cohort.provenance.drawing.method,
            "met": float(self.rule.holds(cohort.root).mean()),
            "direct_tv": round(direct, 4),
            "rejection_tv": round(self.distance(self.group, kept), 4),
            "forced_tv": round(self.distance(self.group, self.forced(wanted)), 4),
            "whole_tv": round(whole, 4),
            "ratio": round(direct / whole, 3),
            "floor_tv": round(self.floor(), 4),
            "direct_rows_per_second": round(wanted / direct_seconds),
            "rejection_rows_per_second": round(kept.height / rejection_seconds),
            "parts_per_row": round(cohort.provenance.drawing.parts / wanted, 2),
            "most_of_one": cohort.provenance.drawing.most_of_one,
        }

    def refused(self) -> dict[str, object]:
        """A line of a release that has no such patient, which sampling says; the figures stay empty."""
        return {**dict.fromkeys(FIGURES, ""), "patients": self.group.height, "method": "refused"}

    def distance(self, group: pl.DataFrame, synthetic: pl.DataFrame) -> float:
        """The mean distance of the real group from as many synthetic patients."""
        real, made = codes(group, self.edges), codes(synthetic, self.edges)
        drawn = [self.draws.choice(synthetic.height, group.height, replace=False) for _ in range(self.repeats)]
        return float(np.mean([mean_tv(real, chosen(made, at)) for at in drawn]))

    def whole(self, plain: pl.DataFrame) -> float:
        """The mean distance of as many real patients of the whole cohort from as many synthetic ones."""
        real, made, size = codes(self.real, self.edges), codes(plain, self.edges), self.group.height
        found = []
        for _ in range(self.repeats):
            mine = chosen(real, self.draws.choice(self.real.height, size, replace=False))
            found.append(mean_tv(mine, chosen(made, self.draws.choice(plain.height, size, replace=False))))
        return float(np.mean(found))

    def floor(self) -> float:
        """What halves of the real group show, at the size of the whole of it."""
        real, size = codes(self.group, self.edges), self.group.height
        found = []
        for _ in range(self.repeats):
            order = self.draws.permutation(size)
            found.append(mean_tv(chosen(real, order[: size // 2]), chosen(real, order[size // 2 :])))
        return float(np.mean(found) * np.sqrt(0.5))

    def forced(self, rows: int) -> pl.DataFrame:
        """Rows of which every component makes as many, its columns held to the group."""
        release, domain, table = self.release, self.release.domain, self.release.schema.root
        sampler = Sampler.of(release.learned[release.schema.subject])
        boxes = region_of([self.rule], domain=domain, table=table).boxes
        target = target_of(boxes[0], domain)
        even = stratified(np.ones(sampler.components), rows, self.draws)
        parts, _ = sampler.parts(even, self.draws, within=target.kept)
        made = sampler.rows(parts, self.draws, kept=target.kept)
        return Decoder(domain, table).rows(made, self.draws, within=target.interiors)


def fitted(table: str, model: str, epsilon: float, seed: int, folder: Path) -> Release:
    """A release, kept between runs."""
    path = folder / f"{table}_{model}_{epsilon:g}_{seed}"
    if not path.exists():
        made = train(load(table)[0], epsilon=epsilon, delta=1e-5, model=model, policy="exploratory", seed=seed)
        Release.of(made, datasheet=render_datasheet).save(path)
    return Release.load(path)


def main() -> None:
    """Run the groups that the results lack."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tables", nargs="+", default=list(GROUPS))
    parser.add_argument("--models", nargs="+", default=["marginal", "dp-ctgan"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="where releases are kept between runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    done = set()
    if options.results.exists():
        with options.results.open() as file:
            done = {
                (r["table"], r["model"], float(r["epsilon"]), int(r["seed"]), r["where"]) for r in csv.DictReader(file)
            }
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder if options.folder is not None else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for table in options.tables:
            real = load(table)[0].root
            for seed, model in itertools.product(options.seeds, options.models):
                for where in GROUPS[table]:
                    if (table, model, options.epsilon, seed, where) in done:
                        continue
                    release = fitted(table, model, options.epsilon, seed, folder)
                    group = Group(release, real, where, repeats=options.repeats, seed=0)
                    line: dict[str, object] = {"table": table, "model": model, "epsilon": options.epsilon, "seed": seed}
                    try:
                        figures = group.scored()
                    except DataError:
                        figures = group.refused()
                    line |= {"where": where, **figures}
                    line |= {
                        "synthehr": version("synthehr"),
                        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                    }
                    print(line, flush=True)
                    with options.results.open("a", newline="") as file:
                        writer = csv.DictWriter(file, fieldnames=list(line))
                        if file.tell() == 0:
                            writer.writeheader()
                        writer.writerow(line)


if __name__ == "__main__":
    main()
