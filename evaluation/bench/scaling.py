"""How the time and memory of a fit of several tables grow with the rows: nafld's three tables at 1, 2, 4 and 8 times.

The tables are all 17,549 patients of nafld1, nafld2 and nafld3, then as many again drawn with replacement under new
keys. Each fit runs in a child process of its own, from Parquet files to a release, with default settings and the
declared bounds of 40 labs and 20 events a patient. A finished one is a line of results/scaling.csv; run again, the
command skips those that are there. results/scaling.md and results/scaling.svg are made of all lines.

    python evaluation/bench/scaling.py [--times 1 2 4 8] [--work DIR] [--threads 1]
    python evaluation/bench/scaling.py --render
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from nafld_tables import SCHEMA, nafld_tables

__all__ = ["FIELDS", "figure", "table_of", "times_over"]

RESULTS = Path(__file__).parent / "results" / "scaling.csv"
EPSILON, DELTA = 3.0, 1e-6
FIELDS = (
    *("times", "patients", "rows", "rows_learned", "read_cpu_seconds", "fit_cpu_seconds", "fit_seconds"),
    *("memory_before_mib", "peak_memory_mib", "sources", "machine", "threads", "load", "finished"),
)
_CHILDREN = ("lab", "event")


def times_over(tables: Mapping[str, pl.DataFrame], times: int, *, seed: int = 0) -> dict[str, pl.DataFrame]:
    """The patients of these tables and (times - 1) as many again, drawn with replacement, each with all rows.

    Args:
        tables: ``patient`` and its children, keyed by ``id``.
        times: how many times as many patients there are.
        seed: of the draw.
    """
    ids = tables["patient"]["id"].to_numpy()
    again = np.random.default_rng(seed).choice(ids, (times - 1) * len(ids))
    drawn = pl.DataFrame({"id": np.concatenate([ids, again])}).with_row_index("number")
    return {
        name: drawn.join(frame, on="id", how="inner", maintain_order="left")
        .with_columns(pl.col("number").cast(pl.Int64).alias("id"))
        .drop("number")
        for name, frame in tables.items()
    }


def fit_one(folder: Path, *, threads: int) -> dict[str, object]:
    """Read the tables of a folder, fit them, and say what it took; in a process of its own."""
    import torch
    from fit_own import _sources

    import synthehr

    torch.set_num_threads(threads)
    begun = time.process_time()
    cohort = synthehr.read(folder, schema=SCHEMA)
    read, before, load = time.process_time(), _peak_mib(), os.getloadavg()[0]
    clock = time.perf_counter()
    release = synthehr.fit(cohort, epsilon=EPSILON, delta=DELTA, policy="exploratory", seed=0)
    took = time.perf_counter() - clock
    learned = sum(
        min(rows, most) * patients
        for name, most in release.manifest.max_rows.items()
        if name in _CHILDREN
        for rows, patients in np.stack(
            np.unique(np.bincount(cohort.owners(name), minlength=len(cohort)), return_counts=True), axis=1
        )
    )
    return {
        "patients": len(cohort),
        "rows": sum(cohort.tables[name].height for name in _CHILDREN),
        "rows_learned": int(learned),
        "read_cpu_seconds": round(read - begun, 1),
        "fit_cpu_seconds": round(time.process_time() - read, 1),
        "fit_seconds": round(took, 1),
        "memory_before_mib": before,
        "peak_memory_mib": _peak_mib(),
        "sources": _sources(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": threads,
        "load": round((load + os.getloadavg()[0]) / 2, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _peak_mib() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def line(lines: Sequence[Mapping[str, str]], what: str) -> tuple[float, float, float]:
    """Least squares of a figure on millions of rows: where it begins, its slope, and R²."""
    rows = np.array([float(one["rows"]) / 1e6 for one in lines])
    found = np.array([float(one[what]) for one in lines])
    slope, start = np.polyfit(rows, found, 1)
    left, whole = found - (start + slope * rows), found - found.mean()
    return float(start), float(slope), 1.0 - float((left**2).sum() / max((whole**2).sum(), 1e-12))


def table_of(lines: Sequence[Mapping[str, str]]) -> str:
    """Markdown of all lines, with the straight line through them where there are three or more."""
    head = ["times", "patients", "rows", "rows learned", "fit, CPU s", "CPU s a million rows", "peak memory, MiB"]
    text = [
        "# Time and memory by rows",
        "",
        "Written by `evaluation/bench/scaling.py` from `scaling.csv`. Rows are labs and events together; learned are",
        "at most 40 labs and 20 events a patient.",
        "",
        "| " + " | ".join(head) + " |",
        "| --- " * len(head) + "|",
    ]
    for one in lines:
        million = float(one["rows"]) / 1e6
        cells = [
            one["times"],
            f"{int(one['patients']):,}",
            f"{int(one['rows']):,}",
            f"{int(one['rows_learned']):,}",
            one["fit_cpu_seconds"],
            f"{float(one['fit_cpu_seconds']) / million:.0f}",
            f"{int(one['peak_memory_mib']):,}",
        ]
        text.append("| " + " | ".join(cells) + " |")
    if len(lines) >= 3:
        for what, unit in (("fit_cpu_seconds", "CPU s"), ("peak_memory_mib", "MiB")):
            start, slope, square = line(lines, what)
            text += ["", f"- {unit}: {start:.0f} + {slope:.0f} for each million rows (least squares, R² {square:.3f})"]
    return "\n".join([*text, ""])


def figure(lines: Sequence[Mapping[str, str]]) -> str:
    """Both figures over rows, as SVG: points, and the straight line through them."""
    width, height, panels = 360, 240, []
    for at, (what, title) in enumerate((("fit_cpu_seconds", "fit, CPU seconds"), ("peak_memory_mib", "peak, MiB"))):
        most_x = max(float(one["rows"]) for one in lines) / 1e6 * 1.05
        most_y = max(float(one[what]) for one in lines) * 1.1

        def place(x: float, y: float, left: int = at * width, mx: float = most_x, my: float = most_y) -> str:
            return f"{left + 60 + x / mx * (width - 80):.1f},{height - 40 - y / my * (height - 80):.1f}"

        start, slope, _ = line(lines, what) if len(lines) > 1 else (float(lines[0][what]), 0.0, 1.0)
        panels.append(f'<text x="{at * width + 60}" y="24">{title}</text>')
        panels.append(f'<polyline class="axis" points="{place(0, most_y)} {place(0, 0)} {place(most_x, 0)}"/>')
        panels.append(f'<polyline class="fit" points="{place(0, start)} {place(most_x, start + slope * most_x)}"/>')
        for one in lines:
            x, y = place(float(one["rows"]) / 1e6, float(one[what])).split(",")
            panels.append(f'<circle cx="{x}" cy="{y}" r="4"/>')
            panels.append(f'<text class="tick" x="{x}" y="{height - 24}">{float(one["rows"]) / 1e6:.1f}</text>')
            panels.append(f'<text class="tick" x="{x}" y="{float(y) - 8:.1f}">{float(one[what]):,.0f}</text>')
        panels.append(f'<text class="tick" x="{at * width + width / 2}" y="{height - 6}">million rows</text>')
    style = (
        "text{font:13px sans-serif;fill:#222}.tick{font-size:10px;text-anchor:middle}circle{fill:#0b6e99}"
        ".axis{fill:none;stroke:#555}.fit{fill:none;stroke:#0b6e99;stroke-dasharray:4 3}"
    )
    box = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * width} {height}" role="img"'
    title = "<title>Processor seconds and peak memory of a fit by millions of rows</title>"
    return f'{box} width="{2 * width}">{title}<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>' + (
        "\n".join(panels) + "</svg>\n"
    )


def finished(results: Path) -> list[dict[str, str]]:
    """The lines that are there, fewest rows first; of several for one size the last."""
    if not results.exists():
        return []
    with results.open(newline="") as file:
        last = {row["times"]: row for row in csv.DictReader(file)}
    return sorted(last.values(), key=lambda one: int(one["rows"]))


def render(results: Path) -> None:
    """Write table and figure beside the lines."""
    lines = finished(results)
    results.with_suffix(".md").write_text(table_of(lines))
    results.with_suffix(".svg").write_text(figure(lines))


def main() -> None:
    """Fit what is not there yet, one size after the other."""
    options = _options()
    if options.child is not None:
        told = fit_one(options.child, threads=options.threads)
        with options.results.open("a", newline="") as file:
            csv.DictWriter(file, fieldnames=FIELDS).writerow({"times": options.times[0]} | told)
        return
    known = {int(one["times"]) for one in finished(options.results)}
    if not options.render:
        if not options.results.exists():
            options.results.write_text(",".join(FIELDS) + "\n")
        for times in options.times:
            if times not in known:
                _run(times, options)
    render(options.results)


def _run(times: int, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        for name, frame in times_over(nafld_tables(), times).items():
            frame.write_parquet(Path(folder) / f"{name}.parquet")
        command = [sys.executable, __file__, "--child", folder, "--times", str(times)]
        command += ["--results", str(options.results.absolute()), "--threads", str(options.threads)]
        subprocess.run(command, check=True)
    print(f"{times} times: done", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--times", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--work", type=Path, help="where the tables are kept while they are read")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--render", action="store_true", help="write table and figure of what is there and end")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
