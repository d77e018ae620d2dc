"""Two cohorts of patients and their visits, fitted, sampled and evaluated by the project's own suite: visits_tables.py.

A cell is a cohort, an epsilon and a seed. Four patients in five are learned from, the others are held out, and as many
synthetic patients are drawn as were learned from. A finished cell is some lines of results/visits.csv: what it cost,
each check of the suite, and each regularity of ``LOOKS``, which a clinician would miss and no one can declare.
results/visits.md is made of them. Run again, the command skips the cells that are there; a release that lies in the
work folder is not fitted anew.

    python evaluation/bench/visits.py --data DIR [--work DIR] [--cohorts pbcseq] [--epsilons 3 10] [--suite ci]
    python evaluation/bench/visits.py --render
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from visits_tables import COHORTS, visits_of

__all__ = ["FIELDS", "LOOKS", "finished", "looks", "table_of"]

RESULTS = Path(__file__).parent / "results" / "visits.csv"
DELTA = 1e-5
HOLDOUT = 0.2
FIELDS = ("cohort", "epsilon", "seed", "kind", "name", "value", "low", "high", "reference", "allowed", "verdict")
_EPSILONS = {"diabetes130": (3.0, 10.0), "pbcseq": (10.0,)}
_PACKAGES = ("synthehr", "torch", "numpy", "polars", "scikit-learn")
_EXPIRED, _HOSPICE = ("11", "19", "20", "21"), ("13", "14")
Tables = Mapping[str, pl.DataFrame]


def _later(tables: Tables, *, order: str) -> pl.DataFrame:
    """Visits by patient and order, with ``[later]``: whether the patient has another after each."""
    visits = tables["visit"].sort("id", order, maintain_order=True)
    return visits.with_columns((pl.col("id").shift(-1) == pl.col("id")).fill_null(False).alias("[later]"))


def _after(dispositions: Sequence[str]) -> Callable[[Tables], pl.Series]:
    def found(tables: Tables) -> pl.Series:
        rows = _later(tables, order="number")
        return rows.filter(pl.col("discharge_disposition_id").is_in(dispositions))["[later]"]

    return found


def _steps(tables: Tables, value: pl.Expr, *, order: str) -> pl.Series:
    """The change of a value from each visit to the patient's next, where both are known."""
    rows = tables["visit"].sort("id", order, maintain_order=True)
    return rows.select(value.diff().over("id").alias("step"))["step"].drop_nulls()


_DECADE = pl.col("age").str.extract(r"(\d+)").cast(pl.Int64)
_STAGE = pl.col("stage").cast(pl.Int64)


def _first_of(tables: Tables, column: str) -> pl.Series:
    return tables["visit"].group_by("id").agg(pl.col(column).min())[column]


LOOKS: dict[str, dict[str, Callable[[Tables], pl.Series]]] = {
    "diabetes130": {
        "an encounter after one that ended in death": _after(_EXPIRED),
        "an encounter after a discharge to hospice": _after(_HOSPICE),
        "age falls by a decade or more from one encounter to the next": lambda t: (
            _steps(t, _DECADE, order="number") < 0
        ),
        "age rises by more than a decade from one encounter to the next": lambda t: (
            _steps(t, _DECADE, order="number") > 10
        ),
        "a patient's first encounter is not number 1": lambda t: _first_of(t, "number") != 1,
        "a number is left out or comes twice": lambda t: _steps(t, pl.col("number"), order="number") != 1,
        "a patient has no encounter": lambda t: t["patient"]["id"].is_in(t["visit"]["id"].implode()).not_(),
    },
    "pbcseq": {
        "a visit after the end of follow-up": lambda t: (
            t["visit"]
            .join(t["patient"], on="id", maintain_order="left")
            .select(pl.col("day") > pl.col("futime"))
            .to_series()
        ),
        "a patient's first visit is not on the day of entry": lambda t: _first_of(t, "day") != 0,
        "two visits on one day": lambda t: _steps(t, pl.col("day"), order="day") == 0,
        "the stage falls from one visit to the next": lambda t: _steps(t, _STAGE, order="day") < 0,
        "the stage rises by two or more": lambda t: _steps(t, _STAGE, order="day") > 1,
        "a patient has no visit": lambda t: t["patient"]["id"].is_in(t["visit"]["id"].implode()).not_(),
    },
}
"""By cohort what real rows hardly ever do; each gives whether each of those looked at does it."""


def looks(cohort: str, *, real: Tables, synthetic: Tables) -> Iterable[dict[str, object]]:
    """The share of each regularity's exceptions in synthetic rows and in real ones."""
    for name, look in LOOKS[cohort].items():
        made, true = look(synthetic), look(real)
        rates = [float(found.mean() or 0.0) for found in (made, true)]
        allowed = rates[1] + 0.005
        verdict = "as real" if rates[0] <= allowed else "more"
        yield {
            "kind": "look",
            "name": name,
            "value": rates[0],
            "reference": rates[1],
            "allowed": allowed,
            "verdict": verdict,
        }


def run_cell(cohort: str, epsilon: float, seed: int, *, data: Path, work: Path, suite: str) -> list[dict[str, object]]:
    """Fit one cell, or take its release from the work folder, and look at what it makes; in a process of its own."""
    import torch
    from fit_own import _sources

    import synthehr

    torch.set_num_threads(1)
    tables, schema = visits_of(cohort, data)
    train, holdout = synthehr.read(tables, schema=schema).split(holdout=HOLDOUT, seed=0)
    folder = work / f"{cohort}.{epsilon:g}.{seed}"
    if not (folder / "told.json").is_file():
        _fit(train, folder, epsilon=epsilon, seed=seed)
    told = json.loads((folder / "told.json").read_text())
    release, began = synthehr.Release.load(folder / "release"), time.perf_counter()
    synthetic = release.sample(len(train), seed=seed)
    told["sampling, s"] = round(time.perf_counter() - began, 1)
    cpu = time.process_time()
    report = synthehr.evaluate(train=train, holdout=holdout, synthetic=synthetic, suite=suite)
    told |= {
        "evaluation, CPU s": round(time.process_time() - cpu, 1),
        "patients learned": len(train),
        "visits learned": train.tables["visit"].height,
        "verdict": report.verdict,
        "suite": suite,
        "versions": "; ".join([f"python {platform.python_version()}", *(f"{p} {version(p)}" for p in _PACKAGES)]),
        "sources": _sources(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    lines: list[dict[str, object]] = [_check(check) for check in report.checks]
    lines += looks(cohort, real=train.tables, synthetic=synthetic.tables)
    lines += [{"kind": "cost", "name": name, "value": value} for name, value in told.items()]
    return [{"cohort": cohort, "epsilon": f"{epsilon:g}", "seed": seed} | line for line in lines]


def _fit(train: Any, folder: Path, *, epsilon: float, seed: int) -> None:
    """A release, and last what it took, in a folder."""
    import synthehr

    cpu, began, load = time.process_time(), time.perf_counter(), os.getloadavg()[0]
    release = synthehr.fit(train, epsilon=epsilon, delta=DELTA, policy="exploratory", seed=seed)
    told = {
        "fit, CPU s": round(time.process_time() - cpu, 1),
        "fit, s": round(time.perf_counter() - began, 1),
        "load": round((load + os.getloadavg()[0]) / 2, 1),
        "peak memory of the fit, MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "epsilon spent": round(release.manifest.privacy.epsilon, 4),
    }
    folder.mkdir(parents=True, exist_ok=True)
    release.save(folder / "release")
    (folder / "told.json").write_text(json.dumps(told))


def _check(check: Any) -> dict[str, object]:
    """A check as a line: of what was gated (the value or its excess over other real patients), with its limits."""
    gated = check.excess if check.statistic == "excess" else check.value
    low, high = (check.excess_ci if check.statistic == "excess" else check.ci) or (None, None)
    return {
        "kind": f"check, {check.statistic}",
        "name": check.id,
        "value": _rounded(gated),
        "low": _rounded(low),
        "high": _rounded(high),
        "reference": _rounded(check.reference),
        "allowed": f"{check.op} {check.bound:g}",
        "verdict": check.verdict,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


def finished(results: Path) -> dict[tuple[str, str, str], list[dict[str, str]]]:
    """The lines of each finished cell, by cohort, epsilon and seed.

    Raises:
        ValueError: the file has other columns than this version writes.
    """
    if not results.exists() or results.stat().st_size == 0:
        return {}
    with results.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise ValueError(f"{results.name} has other columns than this bench writes: name another file by --results")
        cells: dict[tuple[str, str, str], list[dict[str, str]]] = {}
        for row in reader:
            cells.setdefault((row["cohort"], row["epsilon"], row["seed"]), []).append(row)
    return cells


def table_of(cells: Mapping[tuple[str, str, str], Sequence[Mapping[str, str]]]) -> str:
    """Markdown of all finished cells: a cohort's are beside each other."""
    text = [
        "# Patients and their visits",
        "",
        "Written by `evaluation/bench/visits.py` from `visits.csv`. Four patients in five are learned from, one is",
        "held out, and as many synthetic ones are drawn as were learned from. A check's figure is what its suite",
        "gates, mostly the excess over what the held out patients get; those that pass are counted, the others listed.",
        "Below them is what real visits hardly ever do: the share of exceptions in synthetic rows (in real ones); more",
        "than real + 0.5 % is marked.",
    ]
    for cohort in sorted({cell[0] for cell in cells}):
        order = sorted((cell for cell in cells if cell[0] == cohort), key=lambda cell: (float(cell[1]), int(cell[2])))
        mine = {cell[1:]: cells[cell] for cell in order}
        text += ["", f"## {cohort}", "", *_cohort(mine)]
    return "\n".join([*text, ""])


def _cohort(mine: Mapping[tuple[str, str], Sequence[Mapping[str, str]]]) -> Iterable[str]:
    heads = [f"epsilon {epsilon}" + (f", seed {seed}" if seed != "0" else "") for epsilon, seed in mine]
    of_kind = {
        kind: [{row["name"]: row for row in lines if row["kind"].startswith(kind)} for lines in mine.values()]
        for kind in ("cost", "check", "look")
    }
    yield "| | " + " | ".join(heads) + " |"
    yield "| --- " * (len(heads) + 1) + "|"
    left_out = {"versions", "sources", "machine"}
    for name in [n for n in of_kind["cost"][0] if n not in left_out]:
        yield (
            f"| {name} | " + " | ".join(cell[name]["value"] if name in cell else "" for cell in of_kind["cost"]) + " |"
        )
    passed = [sum(row["verdict"] == "pass" for row in cell.values()) for cell in of_kind["check"]]
    told = [f"{count} of {len(cell)}" for count, cell in zip(passed, of_kind["check"], strict=True)]
    yield "| checks that pass | " + " | ".join(told) + " |"
    names = dict.fromkeys(name for cell in of_kind["check"] for name in cell)
    empty = [n for n in names if not any(cell[n]["value"] for cell in of_kind["check"] if n in cell)]
    for name in [n for n in names if n not in empty]:
        if any(cell[name]["verdict"] != "pass" for cell in of_kind["check"] if name in cell):
            yield f"| {name} | " + " | ".join(_told(cell.get(name)) for cell in of_kind["check"]) + " |"
    for name in of_kind["look"][0]:
        yield f"| {name} | " + " | ".join(_look(cell.get(name)) for cell in of_kind["look"]) + " |"
    yield ""
    if empty:
        yield "- Checks without a value here, as what they measure is not there: " + ", ".join(empty)
    for cell in of_kind["cost"][:1]:
        yield f"- {cell['versions']['value']}; sources {cell['sources']['value']}; {cell['machine']['value']}"


def _told(row: Mapping[str, str] | None) -> str:
    if row is None:
        return ""
    if not row["value"]:
        return "no value"
    limits = f" ({float(row['low']):.3f} to {float(row['high']):.3f})" if row["low"] else ""
    return f"{row['verdict']}: {float(row['value']):.3f}{limits}, allowed {row['allowed']}"


def _look(row: Mapping[str, str] | None) -> str:
    if row is None:
        return ""
    mark = "**more**: " if row["verdict"] == "more" else ""
    return f"{mark}{float(row['value']):.2%} ({float(row['reference']):.2%})"


def main() -> None:
    """Run what is not finished yet."""
    options = _options()
    if options.cell is not None:
        cohort, epsilon, seed = options.cell
        cell = {"data": options.data, "work": options.work, "suite": options.suite}
        _append(options.results, run_cell(cohort, float(epsilon), int(seed), **cell))
        return
    if not options.render:
        for cohort in options.cohorts:
            for epsilon in options.epsilons or _EPSILONS[cohort]:
                for seed in options.seeds:
                    if (cohort, f"{epsilon:g}", str(seed)) not in finished(options.results):
                        _run(cohort, epsilon, seed, options)
    options.results.with_suffix(".md").write_text(table_of(finished(options.results)))


def _run(cohort: str, epsilon: float, seed: int, options: argparse.Namespace) -> None:
    command = [sys.executable, __file__, "--cell", cohort, str(epsilon), str(seed), "--suite", options.suite]
    for name in ("data", "work", "results"):
        command += [f"--{name}", str(getattr(options, name).absolute())]
    subprocess.run(command, check=True)
    print(f"{cohort}, epsilon {epsilon:g}, seed {seed}: done", flush=True)


def _append(results: Path, lines: Iterable[Mapping[str, object]]) -> None:
    """Add a cell's lines in one write, so that an interruption leaves none half written."""
    results.parent.mkdir(parents=True, exist_ok=True)
    new = not results.exists() or results.stat().st_size == 0
    with results.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=FIELDS)
        if new:
            writer.writeheader()
        writer.writerows(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cohorts", nargs="+", choices=list(COHORTS), default=list(COHORTS))
    parser.add_argument("--epsilons", nargs="+", type=float, help="3 and 10 for diabetes130, 10 for pbcseq by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--suite", default="ci")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/tables"), help="where the tables lie")
    parser.add_argument("--work", type=Path, default=Path(".bench/visits"), help="where releases are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--render", action="store_true", help="write the Markdown of what is there and end")
    parser.add_argument("--cell", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
