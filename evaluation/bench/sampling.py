"""Sample nafld1 as a user does, into files, and with ctgan beside it; one line of results/sampling.csv a finished cell.

Run again, it skips the cells that are there. Every cell is a process of its own: ``seconds`` is what drawing and
writing took on the clock, ``cpu_seconds`` on all cores, both after one patient was drawn (so without start and
imports, but with reading the release); ``peak_mib`` is the largest resident memory of the whole process, and
``load_before`` how many other processes wanted the cores.

* ``synthehr``: what ``synthehr sample RELEASE -n N`` calls, for a release of each of ``--models``, fitted here at
  epsilon 3; ``memory`` is ``Release.sample``, which writes nothing.
* ``before``: the same by another checkout (``--before FOLDER``), with a release that it fits itself.
* ``ctgan``: ``CTGAN(epochs=1)`` with its default networks by another Python that has the package
  (``--ctgan PYTHON``), on the same train part with missing values filled in, which it cannot take; ``sample`` into
  memory, without writing. The speed of sampling does not hang on the epochs.

    python evaluation/bench/sampling.py [--rows 100000 1000000 10000000] [--ctgan PYTHON] [--before FOLDER]
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "sampling.csv"
BENCH = Path(__file__).parent

FIT = """
import sys
sys.path.insert(0, sys.argv[1])
from flat import load
from synthehr.models.training import train
from synthehr.release import Release
from synthehr.reporting.datasheet import render_datasheet
part = load("nafld1")[0]
fitted = train(part, epsilon=3.0, delta=1e-5, model=sys.argv[2], policy="exploratory", seed=0)
Release.of(fitted, datasheet=render_datasheet).save(sys.argv[3])
"""
SAMPLE = """
import sys, time
from synthehr.outputs import save_sample
from synthehr.release import Release
release, count, form, out = sys.argv[1:]
save_sample(release, 1, out=out + "_one", seed=0)
clock, cpu = time.perf_counter(), time.process_time()
if form == "memory":
    Release.load(release).sample(int(count), seed=0)
else:
    save_sample(release, int(count), out=out, format=form, seed=0)
print(time.perf_counter() - clock, time.process_time() - cpu)
"""
CTGAN = """
import sys, time, warnings
warnings.simplefilter("ignore")
import pandas as pd
from ctgan import CTGAN
frame = pd.read_csv(sys.argv[1])
frame = frame.fillna(frame.median(numeric_only=True))
model = CTGAN(epochs=1)
model.fit(frame, ["male", "status"])
model.sample(1000)
clock, cpu = time.perf_counter(), time.process_time()
model.sample(int(sys.argv[2]))
print(time.perf_counter() - clock, time.process_time() - cpu)
"""


def measured(words: list[str], *, folder: Path, python_path: str | None = None) -> tuple[float, str]:
    """Peak memory in MiB and output of a command."""
    environment = {**os.environ, **({"PYTHONPATH": python_path} if python_path else {})}
    with (folder / "out.txt").open("w+") as out:
        process = subprocess.Popen(words, stdout=out, env=environment, cwd=folder)
        _, status, used = os.wait4(process.pid, 0)
        out.seek(0)
        if status:
            raise SystemExit(f"{words[:4]} ended with {status}")
        return used.ru_maxrss / 1024.0, out.read()


class Bench:
    """Runs cells that the results lack, and appends them."""

    def __init__(self, results: Path, folder: Path) -> None:
        self.results, self.folder = results, folder
        self.done: set[tuple[str, str, str, int]] = set()
        if results.exists():
            with results.open() as file:
                self.done = {(r["what"], r["model"], r["format"], int(r["rows"])) for r in csv.DictReader(file)}

    def fitted(self, model: str, checkout: Path | None) -> Path:
        """A release of nafld1, fitted where there is none yet."""
        release = self.folder / f"{'before' if checkout else 'now'}_{model}"
        if not release.exists():
            bench = checkout / "evaluation" / "bench" if checkout else BENCH
            words = [sys.executable, "-c", FIT, str(bench), model, str(release)]
            measured(words, folder=self.folder, python_path=str(checkout) if checkout else None)
        return release

    def sample(self, what: str, model: str, rows: list[int], formats: list[str], checkout: Path | None = None) -> None:
        """Cells of one release."""
        for form in formats:
            for count in rows:
                if (what, model, form, count) in self.done:
                    continue
                release = self.fitted(model, checkout)
                with tempfile.TemporaryDirectory(dir=self.folder) as out:
                    words = [sys.executable, "-c", SAMPLE, str(release), str(count), form, f"{out}/cohort"]
                    peak, told = measured(words, folder=self.folder, python_path=str(checkout) if checkout else None)
                self.write((what, model, form, count), told, peak)

    def ctgan(self, python: Path, rows: int) -> None:
        """The cell of ctgan."""
        if ("ctgan", "ctgan", "memory", rows) in self.done:
            return
        from flat import load

        table = self.folder / "train.csv"
        load("nafld1")[0].root.write_csv(table)
        peak, told = measured([str(python), "-c", CTGAN, str(table), str(rows)], folder=self.folder)
        self.write(("ctgan", "ctgan", "memory", rows), told, peak)

    def write(self, cell: tuple[str, str, str, int], told: str, peak: float) -> None:
        """Append a line."""
        seconds, cpu = map(float, told.split()[-2:])
        rows = cell[3]
        line = {
            **dict(zip(("what", "model", "format", "rows"), cell, strict=True)),
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu, 2),
            "rows_per_second": round(rows / max(seconds, 1e-9)),
            "rows_per_cpu_second": round(rows / max(cpu, 1e-9)),
            "peak_mib": round(peak),
            "load_before": round(os.getloadavg()[0], 1),
            "synthehr": version("synthehr"),
            "torch": version("torch"),
            "polars": version("polars"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        print(line, flush=True)
        with self.results.open("a", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(line))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(line)


def main() -> None:
    """Run the cells."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--models", nargs="+", default=["marginal", "dp-ctgan"])
    parser.add_argument("--rows", nargs="+", type=int, default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--formats", nargs="+", default=["parquet", "csv", "memory"])
    parser.add_argument("--ctgan", type=Path, help="a Python that has ctgan")
    parser.add_argument("--ctgan-rows", type=int, default=100_000)
    parser.add_argument("--before", type=Path, help="a checkout of an earlier version")
    parser.add_argument("--folder", type=Path, help="where releases are kept between runs")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder if options.folder is not None else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(options.results, folder.absolute())
        if options.ctgan is not None:
            bench.ctgan(options.ctgan.absolute(), options.ctgan_rows)
        if options.before is not None:
            bench.sample("before", options.models[0], options.rows[:2], options.formats[:1], options.before.absolute())
        for model in options.models:
            bench.sample("synthehr", model, options.rows, options.formats)


if __name__ == "__main__":
    main()
