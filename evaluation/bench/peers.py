"""Fit every method, ours and the peers', on the same train parts and score what they make with the same scorer.

One line of results/peers.csv a finished cell (table, method, epsilon, seed), and results/peers.md from all of them.
Run again, it skips the cells that are there. README.md beside this file says what each method is given.

    python evaluation/bench/peers.py --envs DIR --data DIR [--methods peers] [--tables nafld1] [--scorer FILE] [--quick]
    python evaluation/bench/peers.py --render
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from cohorts import TABLES, load_table
from grid import Cell, Limits, Scorer, finished, run_grid
from methods import METHODS, OURS, PEERS, by_name, python_of
from summary import render

RESULTS = Path(__file__).parent / "results" / "peers.csv"
NO_PRIVACY = float("inf")


def plan() -> Iterator[Cell]:
    """All cells, those first that say most.

    Ours three times each; the peers three times on nafld1 and flchain at epsilon 3, AIM on stroke and framingham too,
    and once elsewhere.
    """
    small, aim = ["nafld1", "flchain"], "smartnoise-aim"
    others = [name for name in PEERS if name != f"{aim}-even"]
    order = ["smartnoise-aim", "smartnoise-dpctgan", "mostlyai", "smartnoise-mst", "dpmm-aim", "ctgan", "tvae"]
    blocks: list[tuple[list[str], list[str], list[float], list[int]]] = [
        (small, [aim, f"{aim}-even"], [3.0], [0]),
        *([([t], order, [3.0], [0]) for t in small]),
        (["stroke", "framingham"], [aim], [3.0], [0]),
        (["nafld1", "stroke", "framingham", "flchain"], [aim], [1.0, 10.0], [0]),
        (["stroke", "framingham"], ["smartnoise-dpctgan", "mostlyai"], [3.0], [0]),
        (["diabetes130", "support2"], [aim], [3.0], [0]),
        (["framingham", "stroke", "nafld1", "flchain"], [aim], [3.0], [1, 2]),
        (list(TABLES), list(OURS), [3.0, 1.0, 10.0], [0, 1, 2]),
        (list(TABLES), others, [3.0, 1.0, 10.0], [0]),
        (small, others, [3.0], [1, 2]),
    ]
    seen = set()
    for tables, methods, epsilons, seeds in blocks:
        for seed in seeds:
            for epsilon in epsilons:
                for table in tables:
                    for method in methods:
                        cell = Cell(table, method, epsilon if METHODS[method].private else NO_PRIVACY, seed)
                        if cell not in seen:
                            seen.add(cell)
                            yield cell


def quick() -> Iterator[Cell]:
    """What ten minutes are enough for: one small table, one epsilon, the methods that are fast."""
    for method in ("auto", "smartnoise-aim", "smartnoise-mst", "tvae"):
        yield Cell("nafld1", method, 3.0 if METHODS[method].private else NO_PRIVACY, 0)


def main() -> None:
    """Run the grid."""
    # Told to end, it takes the fit in progress along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--methods", nargs="+", choices=["all", "ours", "peers", *METHODS], default=["all"])
    parser.add_argument("--epsilons", nargs="+", type=float, default=[1.0, 3.0, 10.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, help="folder of the tables that no package holds")
    parser.add_argument("--envs", type=Path, default=Path(".bench"), help="folder for the peers' environments")
    parser.add_argument("--scorer", type=Path, help="a Python file with score(train, test, synthetic, meta)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cap", type=float, default=1800, help="seconds that a fit may take")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="what the cap is measured by")
    parser.add_argument("--retry", action="store_true", help="run those again that failed or did not end")
    parser.add_argument("--quick", action="store_true", help="about ten minutes, into quick.csv beside the results")
    parser.add_argument("--render", action="store_true", help="write the table of what is there and end")
    options = parser.parse_args()
    results = options.results.with_name("quick.csv") if options.quick else options.results
    table = results.with_suffix(".md")
    methods = by_name(options.methods)
    try:
        finished(results)
    except ValueError as error:
        raise SystemExit(f"--results: {error}") from error
    if not options.render:
        run_grid(
            [
                cell
                for cell in (quick() if options.quick else plan())
                if cell.table in options.tables
                and cell.method in methods
                and cell.epsilon in (*options.epsilons, NO_PRIVACY)
                and cell.seed in options.seeds
            ],
            methods=METHODS,
            load=lambda name: load_table(name, folder=options.data),
            python=lambda name: python_of(name, envs=options.envs),
            results=results,
            work=options.envs / "cells",
            limits=Limits(seconds=240 if options.quick else options.cap, clock=options.clock, threads=options.threads),
            scorer=None if options.scorer is None else load_scorer(options.scorer),
            retry=options.retry,
            after=lambda: render(results, table),
        )
    render(results, table)


def load_scorer(file: Path) -> Scorer:
    """The function ``score`` of a Python file."""
    spec = importlib.util.spec_from_file_location("scorer", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise SystemExit(f"--scorer: {file.name} is no Python file that is there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.score  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
