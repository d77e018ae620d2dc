"""What an evaluation costs: a suite of ours beside sdmetrics' quality report and DCR and anonymeter's three attacks.

    python evaluation/bench/evaluation_speed.py --anonymeter /path/to/venv/bin/python

All run on the same made-up table, one after the other, each in a process of its own on two threads at most. What is
measured is wall time, CPU time (the fairer number on a machine with other work) and the peak of memory; imports count.
A finished part is kept, so that a second call goes on. ``--limit`` stops a part after so many CPU seconds, which its
line then says: what it needs is more. ``--scaling`` runs the suite on more rows and columns instead, and draws
results/evaluation_scaling.svg.

anonymeter needs an older numpy than this project, hence its own environment; without it its line is left out.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import numpy as np
import pandas as pd

__all__ = ["figure"]

RESULTS = Path(__file__).parent / "results"
PEERS = ("sdmetrics_quality", "sdmetrics_dcr", "anonymeter")
OURS = ("quick", "ci")
SIZE = (20_000, 40)
ROWS = ((5_000, 40), (10_000, 40), (20_000, 40), (40_000, 40))
COLUMNS = ((10_000, 10), (10_000, 20), (10_000, 80), (10_000, 160))
ATTACKS = 500
WIDTH, HEIGHT = 380, 260


class OutOfTimeError(Exception):
    """A part has used the CPU seconds that it was given."""


def table(rows: int, columns: int, *, seed: int) -> pd.DataFrame:
    """Half numbers, half categories of five values, all tied to three hidden traits; the last column is the outcome."""
    draw = np.random.default_rng(seed)
    traits = draw.normal(size=(rows, 3))
    weights = np.random.default_rng(0).normal(size=(3, columns))
    raw = traits @ weights + draw.normal(size=(rows, columns))
    found: dict[str, object] = {}
    for at in range(columns - 1):
        if at % 2:
            found[f"c{at}"] = np.array(list("abcde"))[np.digitize(raw[:, at], [-2, -0.5, 0.5, 2])]
        else:
            found[f"n{at}"] = np.round(100 + 10 * raw[:, at], 1)
    found["outcome"] = raw[:, -1] > 1
    return pd.DataFrame(found)


def write(folder: Path, rows: int, columns: int) -> None:
    """Train (four in five real patients), holdout (the rest) and as many synthetic patients as real ones."""
    real = table(rows, columns, seed=1)
    cut = rows * 4 // 5
    for name, part in (("train", real[:cut]), ("holdout", real[cut:]), ("synthetic", table(rows, columns, seed=2))):
        part.to_parquet(folder / f"{name}.parquet", index=False)


def run_ours(folder: Path, suite: str) -> dict[str, object]:
    import polars as pl

    from synthehr.cohort import Cohort
    from synthehr.evaluation.suite import load_suite, run_suite
    from synthehr.schema.files import load_schema

    frames = {name: pl.read_parquet(folder / f"{name}.parquet") for name in ("train", "holdout", "synthetic")}
    columns: dict[str, object] = {"outcome": {"kind": "boolean"}}
    for name in frames["train"].columns[:-1]:
        columns[name] = {"kind": "number"} if name.startswith("n") else {"kind": "category", "values": list("abcde")}
    declared = {"columns": columns, "outcome": "outcome", "groups": "c1"}
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": declared}})
    cohorts = {name: Cohort({"p": frame}, schema=schema) for name, frame in frames.items()}
    result = run_suite(**cohorts, suite=load_suite(suite))
    return {"checks": len(result.checks), "verdict": result.verdict}


def _frames(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    train, holdout, synthetic = (pd.read_parquet(folder / f"{n}.parquet") for n in ("train", "holdout", "synthetic"))
    return train, holdout, synthetic


def _metadata(frame: pd.DataFrame) -> dict[str, object]:
    kinds = {"n": "numerical", "c": "categorical", "o": "boolean"}
    return {"columns": {name: {"sdtype": kinds[name[0]]} for name in frame.columns}}


def run_sdmetrics_quality(folder: Path) -> dict[str, object]:
    from sdmetrics.reports.single_table import QualityReport

    train, _, synthetic = _frames(folder)
    report = QualityReport()
    report.generate(train, synthetic, _metadata(train), verbose=False)
    return {"score": report.get_score()}


def run_sdmetrics_dcr(folder: Path) -> dict[str, object]:
    from sdmetrics.single_table import DCROverfittingProtection

    train, holdout, synthetic = _frames(folder)
    found = DCROverfittingProtection.compute_breakdown(
        train, synthetic, holdout, {"tables": {"t": _metadata(train)}}, "t"
    )
    return {"score": found["score"]}


def run_anonymeter(folder: Path) -> dict[str, object]:
    from anonymeter.evaluators import InferenceEvaluator, LinkabilityEvaluator, SinglingOutEvaluator

    train, holdout, synthetic = _frames(folder)
    names = list(train.columns)
    half = len(names) // 2
    risks = {}
    evaluators = {
        "singling out": SinglingOutEvaluator(ori=train, syn=synthetic, control=holdout, n_attacks=ATTACKS),
        "linkability": LinkabilityEvaluator(
            ori=train,
            syn=synthetic,
            control=holdout,
            n_attacks=ATTACKS,
            aux_cols=(names[:half], names[half:]),
            n_neighbors=10,
        ),
        "inference": InferenceEvaluator(
            ori=train, syn=synthetic, control=holdout, n_attacks=ATTACKS, aux_cols=names[:-1], secret="outcome"
        ),
    }
    for name, evaluator in evaluators.items():
        more = {"n_jobs": 2} if name != "singling out" else {"mode": "multivariate"}
        evaluator.evaluate(**more)
        risks[name] = evaluator.risk().value
    return risks


def measured(part: str, folder: Path, *, limit: int) -> dict[str, object]:
    """Run one part here for at most ``limit`` CPU seconds (0: without limit), and say what it took."""
    import resource
    import time
    import warnings

    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, limit)
    start = time.monotonic()
    try:
        found = run_ours(folder, part) if part in OURS else globals()[f"run_{part}"](folder)
    except OutOfTimeError:
        found = "stopped before it ended"
    signal.setitimer(signal.ITIMER_PROF, 0)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "wall_s": round(time.monotonic() - start, 1),
        "cpu_s": round(sum(one.ru_utime + one.ru_stime for one in used), 1),
        "peak_gib": round(sum(one.ru_maxrss for one in used) / 2**20, 2),
        "found": found,
    }


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise OutOfTimeError


def run(part: str, size: tuple[int, int], *, python: str, limit: int) -> dict[str, object]:
    """The same in a process of its own, so that its memory is its own."""
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), *size)
        done = subprocess.run(
            [python, __file__, "--part", part, "--folder", name, "--limit", str(limit)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **dict.fromkeys(limits, "2")},
        )
    if done.returncode:
        raise SystemExit(f"{part} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def figure(lines: Sequence[Mapping[str, str]]) -> str:
    """CPU seconds of the suite by patients, with a straight line, and by columns, with a parabola, as SVG."""
    panels = (("patients", "columns", SIZE[1], 1), ("columns", "patients", COLUMNS[0][0], 2))
    drawn = []
    for number, (axis, held, size, degree) in enumerate(panels):
        points = sorted((float(one[axis]), float(one["cpu_s"])) for one in lines if int(one[held]) == size)
        drawn.append(f'<g transform="translate({number * WIDTH},0)"><text x="50" y="20">{size:,} {held}</text>')
        drawn += [*_panel(points, axis, degree), "</g>"]
    style = (
        "text{font:13px sans-serif;fill:#222}.tick{font-size:10px}.mid{text-anchor:middle}circle{fill:#0b6e99}"
        ".axis{fill:none;stroke:#555}.fit{fill:none;stroke:#0b6e99;stroke-dasharray:4 3}"
    )
    box = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT}" role="img" width="{2 * WIDTH}">'
    title = "<title>CPU seconds of the suite ci by patients and by columns</title>"
    ground = '<rect width="100%" height="100%" fill="#fff"/>'
    return "\n".join([f"{box}{title}<style>{style}</style>{ground}", *drawn, "</svg>", ""])


def _panel(points: Sequence[tuple[float, float]], axis: str, degree: int) -> list[str]:
    """The points, and the polynomial of least squares through them."""
    x, y = np.array(points).T
    curve = np.polynomial.Polynomial.fit(x, y, degree)
    share = 1.0 - np.square(y - curve(x)).sum() / np.square(y - y.mean()).sum()
    wide, high, bottom = (WIDTH - 80) / x.max(), (HEIGHT - 105) / y.max(), HEIGHT - 45

    def at(across: float, up: float) -> str:
        return f"{50 + across * wide:.1f},{bottom - up * high:.1f}"

    path = " ".join(at(one, float(curve(one))) for one in np.linspace(x.min(), x.max(), 40))
    kind = "straight line" if degree == 1 else "parabola"
    drawn = [
        f'<text class="tick" x="50" y="36">CPU seconds; {kind}, R² {share:.3f}</text>',
        f'<polyline class="axis" points="{at(0, y.max())} {at(0, 0)} {at(x.max(), 0)}"/>',
        f'<polyline class="fit" points="{path}"/>',
        f'<text class="tick mid" x="{WIDTH / 2}" y="{HEIGHT - 8}">{axis}</text>',
    ]
    for one, found in points:
        across, up = at(one, found).split(",")
        drawn += [
            f'<circle cx="{across}" cy="{up}" r="4"/>',
            f'<text class="tick mid" x="{across}" y="{bottom + 16}">{one:,.0f}</text>',
            f'<text class="tick mid" x="{across}" y="{float(up) - 8:.1f}">{found:.1f}</text>',
        ]
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anonymeter", help="Python of an environment that has anonymeter.")
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--limit", type=int, default=0, help="CPU seconds after which a part is stopped; 0 for none")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        print(json.dumps(measured(asked.part, asked.folder, limit=asked.limit), default=float))
        return
    out = asked.out or RESULTS / ("evaluation_scaling.csv" if asked.scaling else "evaluation_speed.csv")
    cells = [(part, SIZE) for part in (*OURS, *PEERS)]
    if asked.scaling:
        cells = [("ci", size) for size in (*ROWS, *COLUMNS)]
    done: set[tuple[str, str, str]] = set()
    if out.exists():
        with out.open(newline="") as file:
            done = {(row["part"], row["patients"], row["columns"]) for row in csv.DictReader(file)}
    for part, size in cells:
        python = asked.anonymeter if part == "anonymeter" else sys.executable
        if (part, str(size[0]), str(size[1])) in done or python is None:
            continue
        load = os.getloadavg()[0]
        found = run(part, size, python=python, limit=asked.limit)
        row = {"part": part, "patients": size[0], "columns": size[1], **found, "load": round(load, 1)}
        new = not out.exists()
        with out.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(row, flush=True)
    if asked.scaling:
        with out.open(newline="") as file:
            out.with_suffix(".svg").write_text(figure(list(csv.DictReader(file))))


if __name__ == "__main__":
    main()
