"""Run cells of the benchmark one after another, each fit in a child process, and keep every finished one.

A cell is a table, a method, an epsilon and a seed. What is in the results file is skipped; what a run was interrupted
in is done anew. A fit that passes its cap, or fails, is a result too.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import neutral
import pandas as pd
from cohorts import Parts
from methods import Method

__all__ = ["DELTA", "FIELDS", "OK", "Cell", "Limits", "finished", "run_cell", "run_child", "run_grid"]

DELTA = 1e-5
OK, NOT_ENDED = "ok", "did not end"
_GIVEN = ("tv1", "tv1_floor", "tv2", "tv2_floor", "tv3", "tv3_floor", "trtr", "tstr", "c2st")
FIELDS = (
    *("table", "method", "epsilon", "delta", "seed", "status", "rows", "columns"),
    *("fit_seconds", "fit_cpu_seconds", "sample_seconds", "peak_memory_mib", "epsilon_spent"),
    *neutral.FIGURES,
    *(f"scorer_{name}" for name in _GIVEN),
    *("versions", "sources", "machine", "threads", "load", "cap", "finished"),
)
Scorer = Callable[[pd.DataFrame, pd.DataFrame, pd.DataFrame, Mapping[str, Any]], Mapping[str, float]]


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One fit of the grid; epsilon is infinite for a method without privacy."""

    table: str
    method: str
    epsilon: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a fit may take.

    Attributes:
        seconds: the cap.
        clock: ``wall``, or ``cpu``: the cap is on seconds of processor per thread, for a machine that others use too.
        threads: for each library that asks.
        patience: how many times the cap may pass by the clock where it is on the processor.
    """

    seconds: float
    clock: str = "wall"
    threads: int = 1
    patience: float = 10

    @property
    def wall(self) -> float:
        """Seconds after which a fit is stopped."""
        return self.seconds if self.clock == "wall" else self.patience * self.seconds

    @property
    def text(self) -> str:
        """For the results file."""
        return f"{self.seconds:g} s {self.clock}"


def finished(results: Path) -> dict[Cell, dict[str, str]]:
    """The lines of a results file; of several for one cell the last.

    Raises:
        ValueError: the file has other columns than this version writes.
    """
    if not results.exists() or results.stat().st_size == 0:
        return {}
    with results.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != FIELDS:
            raise ValueError(f"{results.name} has other columns than this bench writes: name another file by --results")
        rows = list(reader)
    return {Cell(r["table"], r["method"], float(r["epsilon"]), int(r["seed"])): r for r in rows}


def run_grid(
    cells: Iterable[Cell],
    *,
    methods: Mapping[str, Method],
    load: Callable[[str], Parts],
    python: Callable[[str | None], Path],
    results: Path,
    work: Path,
    limits: Limits,
    scorer: Scorer | None = None,
    neutral_score: Scorer = neutral.score,
    retry: bool = False,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Run what is not finished yet.

    Args:
        cells: in the order in which to run them.
        methods: by name.
        load: a table by name; what it raises is told and the table left out.
        python: the interpreter of an environment; what it raises is told and the method left out.
        results: CSV, one line a finished cell; lines are only added.
        work: a folder for the cells; each keeps its synthetic table and log there.
        limits: what a fit may take.
        scorer: figures besides, kept behind ``scorer_``.
        neutral_score: gives the figures that ``neutral`` names.
        retry: run those again that failed or did not end.
        after: called with each cell that is finished.
    """
    tables: dict[str, Parts | None] = {}
    interpreters: dict[str | None, Path | None] = {}
    for cell in cells:
        known = finished(results).get(cell)
        if known is not None and not (retry and known["status"] != OK):
            continue
        if cell.table not in tables:
            tables[cell.table] = _or_told(load, cell.table, what=f"table {cell.table}")
        parts, home = tables[cell.table], methods[cell.method].environment
        if parts is not None and home not in interpreters:
            interpreters[home] = _or_told(python, home, what=f"environment {home}")
        interpreter = interpreters.get(home)
        if parts is None or interpreter is None:
            continue
        print(f"{cell.table} {cell.method} epsilon {cell.epsilon:g} seed {cell.seed}: ", end="", flush=True)
        lines = run_cell(
            cell,
            parts=parts,
            method=methods[cell.method],
            python=interpreter,
            folder=work / f"{cell.table}.{cell.method}.{cell.epsilon:g}.{cell.seed}",
            limits=limits,
            scorer=scorer,
            neutral_score=neutral_score,
        )
        _append(results, lines)
        print(*(lines[0].get(name, "") for name in ("status", "fit_seconds", "tv2", "tstr")), flush=True)
        after()


def _or_told(get: Callable[[Any], Any], name: str | None, *, what: str) -> Any:
    try:
        return get(name)
    except Exception as error:  # noqa: BLE001 - told, and the rest of the grid goes on
        print(f"{what} is left out: {error}", flush=True)
        return None


def run_cell(
    cell: Cell,
    *,
    parts: Parts,
    method: Method,
    python: Path,
    folder: Path,
    limits: Limits,
    scorer: Scorer | None,
    neutral_score: Scorer,
) -> list[dict[str, object]]:
    """Fit one cell in a child process and score what it made.

    Returns:
        The line for the results file, and one for each other way to sample from the same fit.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts.train.to_parquet(folder / "train.parquet")
    asked = {
        "method": cell.method,
        "epsilon": cell.epsilon if cell.epsilon < float("inf") else None,
        "delta": DELTA,
        "seed": cell.seed,
        "rows": len(parts.train),
        "threads": limits.threads,
        "wall_seconds": limits.wall,
        "cpu_seconds": limits.seconds * limits.threads if limits.clock == "cpu" else None,
    }
    (folder / "meta.json").write_text(json.dumps({**parts.meta, **asked}))
    line: dict[str, object] = {
        "table": cell.table,
        "method": cell.method,
        "epsilon": cell.epsilon,
        "delta": DELTA,
        "seed": cell.seed,
        "rows": len(parts.train),
        "columns": parts.train.shape[1],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": limits.threads,
        "cap": limits.text,
    }
    begun, load = time.perf_counter(), os.getloadavg()[0]
    command = [str(p.absolute()) for p in (python, method.script, folder)]
    line["status"] = run_child(command, folder=folder, limits=limits)
    line["load"] = round((load + os.getloadavg()[0]) / 2, 1)
    if line["status"] == OK:
        line |= json.loads((folder / "timing.json").read_text())
    else:
        line["fit_seconds"] = round(time.perf_counter() - begun, 1)
    lines = []
    for way in ("", *(f"-{name}" for name in method.also)):
        of_way = {**line, "method": cell.method + way}
        if line["status"] == OK:
            file = folder / f"synthetic{way.replace('-', '.', 1)}.parquet"
            of_way |= _scored(parts, pd.read_parquet(file), scorer=scorer, neutral_score=neutral_score)
        lines.append({**of_way, "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})
    for left in folder.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
    (folder / "train.parquet").unlink()
    return lines


def _scored(
    parts: Parts, synthetic: pd.DataFrame, *, scorer: Scorer | None, neutral_score: Scorer
) -> dict[str, object]:
    try:
        figures = dict(neutral_score(parts.train, parts.test, synthetic, parts.meta))
        if scorer is not None:
            given = scorer(parts.train, parts.test, synthetic, parts.meta)
            figures |= {f"scorer_{name}": given[name] for name in _GIVEN}
    except Exception as error:  # noqa: BLE001 - a table that cannot be scored is a result
        return {"status": f"failed: scoring: {_one_line(f'{type(error).__name__}: {error}')}"}
    return {name: round(value, 4) for name, value in figures.items()}


def run_child(command: list[str], *, folder: Path, limits: Limits) -> str:
    """Run a fit to its end or its cap, with all the processes that it starts; its status."""
    threads = str(limits.threads)
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "POLARS", "RAYON")
    environment = dict(os.environ) | {
        f"{name}_{'MAX' if name == 'POLARS' else 'NUM'}_THREADS": threads for name in names
    }
    if limits.threads == 1:
        environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    with (folder / "log.txt").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
        try:
            code = child.wait(timeout=limits.wall)
        except subprocess.TimeoutExpired:
            return NOT_ENDED
        finally:
            _stop(child)
    if code == -signal.SIGXCPU:
        return NOT_ENDED
    if code == 0 and (folder / "timing.json").is_file():
        return OK
    return f"failed: {_reason(folder / 'log.txt', code)}"


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole session, of which it is the leader."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        child.wait()


def _reason(log: Path, code: int) -> str:
    """The last line of a log that names an error, or the exit code."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Killed|Interrupt)\b", line)]
    by_signal = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return _one_line(told[-1]) if told and code > 0 else by_signal


def _one_line(text: str) -> str:
    """At most 160 characters of the first line, without folders of this machine."""
    first = re.sub(r"(/[\w.+-]+){2,}/", "", text.splitlines()[0])
    return first if len(first) <= 160 else first[:157] + "..."


def _append(results: Path, lines: Iterable[Mapping[str, object]]) -> None:
    """Add lines, in one write, so that an interruption leaves none half written."""
    results.parent.mkdir(parents=True, exist_ok=True)
    new = not results.exists() or results.stat().st_size == 0
    with results.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=FIELDS)
        if new:
            writer.writeheader()
        writer.writerows(lines)
