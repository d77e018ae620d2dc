"""The driver of the benchmark with made-up peers: programs of a few lines, run as any peer is."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import neutral
import numpy as np
import pandas as pd
import pytest
from cohorts import AbsentTable, Parts
from grid import FIELDS, Cell, Limits, Scorer, finished, run_grid
from methods import Method

COPIES = """
import sys, pathlib
sys.path.insert(0, {bench!r})
import fit_common

def fit(train, cell):
    with open({count!r}, "a") as file:
        file.write("x")
    {body}
    return {{"": lambda rows: train, "same": lambda rows: train.iloc[::-1]}}

fit_common.run(fit, packages=["numpy"])
"""


def parts() -> Parts:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.integers(20, 90, 120).astype(float)})
    frame["sex"] = rng.choice(np.array(["F", "M"], dtype=object), 120)
    frame["ill"] = np.where(frame["age"] + rng.normal(0, 10, 120) > 55, "1", "0").astype(object)
    meta = {
        "target": "ill",
        "numeric": ["age"],
        "categorical": ["sex", "ill"],
        "columns": {
            "age": {"kind": "number", "bounds": [0, 120], "precision": 1, "nullable": False},
            "sex": {"kind": "category", "values": ["F", "M"], "nullable": False},
            "ill": {"kind": "category", "values": ["0", "1"], "nullable": False},
        },
        "schema": {},
    }
    return Parts(train=frame.iloc[:80].reset_index(drop=True), test=frame.iloc[80:].reset_index(drop=True), meta=meta)


def nothing(train, test, synthetic, meta):
    return dict.fromkeys(neutral.FIGURES, 0.5)


class Bench:
    """One made-up peer, its results and how often it was fitted."""

    def __init__(self, folder: Path, *, body: str = "pass", also: tuple[str, ...] = ()) -> None:
        self.folder, self.results, self.count = folder, folder / "results.csv", folder / "count"
        self.script = folder / "peer.py"
        bench = str(Path(__file__).parents[2] / "evaluation" / "bench")
        self.script.write_text(COPIES.format(bench=bench, count=str(self.count), body=body))
        self.methods = {"peer": Method(script=self.script, environment=None, also=also)}

    def run(
        self, *cells: Cell, limits: Limits | None = None, retry: bool = False, neutral_score: Scorer = nothing
    ) -> list[dict[str, str]]:
        run_grid(
            cells or [Cell("small", "peer", 3.0, 0)],
            methods=self.methods,
            load=self.load,
            python=lambda _: Path(sys.executable),
            results=self.results,
            work=self.folder / "cells",
            limits=limits or Limits(seconds=60),
            neutral_score=neutral_score,
            retry=retry,
        )
        if not self.results.exists():
            return []
        with self.results.open(newline="") as file:
            return list(csv.DictReader(file))

    def load(self, name: str) -> Parts:
        if name != "small":
            raise AbsentTable("its file is not there")
        return parts()

    @property
    def fits(self) -> int:
        return len(self.count.read_text()) if self.count.exists() else 0


def test_what_is_finished_is_not_fitted_again(tmp_path):
    bench = Bench(tmp_path)
    first, second = Cell("small", "peer", 3.0, 0), Cell("small", "peer", 3.0, 1)
    bench.run(first)
    lines = bench.run(first, second)
    assert bench.fits == 2
    assert [(line["epsilon"], line["seed"], line["status"]) for line in lines] == [
        ("3.0", "0", "ok"),
        ("3.0", "1", "ok"),
    ]


def test_an_exact_copy_is_at_distance_zero_and_learns_what_real_patients_teach(tmp_path):
    (line,) = Bench(tmp_path).run(neutral_score=neutral.score)
    assert [float(line[name]) for name in ("tv1", "tv2")] == [0, 0]
    assert line["tstr"] == line["trtr"]
    assert float(line["tv1_floor"]) > 0
    assert float(line["fit_cpu_seconds"]) >= 0
    assert line["versions"].startswith("python ")


def test_other_ways_to_sample_from_one_fit_are_lines_of_their_own(tmp_path):
    bench = Bench(tmp_path, also=("same",))
    lines = bench.run()
    assert [line["method"] for line in lines] == ["peer", "peer-same"]
    assert bench.fits == 1


def test_a_fit_past_its_cap_did_not_end_and_leaves_no_process_behind(tmp_path):
    beats = tmp_path / "beats"
    child = tmp_path / "child.py"
    child.write_text(f"import time\nwhile True:\n    open({str(beats)!r}, 'a').write('x')\n    time.sleep(0.02)\n")
    bench = Bench(tmp_path)
    bench.script.write_text(
        f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, {str(child)!r}])\ntime.sleep(60)\n"
    )
    begun = time.monotonic()
    (line,) = bench.run(limits=Limits(seconds=5))
    assert line["status"] == "did not end"
    assert line["tv2"] == ""
    assert time.monotonic() - begun < 30
    assert beats.exists(), "the peer's own child never ran"
    size = beats.stat().st_size
    time.sleep(0.3)
    assert beats.stat().st_size == size


def test_a_cap_on_the_processor_stops_a_fit_that_computes_too_long(tmp_path):
    begun = time.monotonic()
    (line,) = Bench(tmp_path, body="\n    while True: pass").run(limits=Limits(seconds=3, clock="cpu", patience=40))
    assert line["status"] == "did not end"
    assert line["cap"] == "3 s cpu"
    assert time.monotonic() - begun < 100


def test_a_failure_is_one_line_without_folders_and_is_not_tried_again_unasked(tmp_path):
    bench = Bench(tmp_path, body="raise ValueError('no such file: /home/someone/secret/x.csv')")
    bench.run()
    (line,) = bench.run()
    assert line["status"] == "failed: ValueError: no such file: x.csv"
    assert bench.fits == 1


def test_a_retry_runs_what_failed_and_the_last_line_counts(tmp_path):
    bench = Bench(tmp_path, body="raise ValueError('at first')")
    bench.run()
    bench.script.write_text(bench.script.read_text().replace("raise ValueError('at first')", "pass"))
    lines = bench.run(retry=True)
    assert [line["status"] for line in lines] == ["failed: ValueError: at first", "ok"]
    assert finished(bench.results)[Cell("small", "peer", 3.0, 0)]["status"] == "ok"
    bench.run(retry=True)
    assert bench.fits == 2


def test_an_absent_table_is_told_and_the_others_are_run(tmp_path, capsys):
    bench = Bench(tmp_path)
    lines = bench.run(Cell("absent", "peer", 3.0, 0), Cell("small", "peer", 3.0, 0))
    assert "table absent is left out: its file is not there" in capsys.readouterr().out
    assert [line["table"] for line in lines] == ["small"]


def test_results_of_another_shape_are_not_added_to(tmp_path):
    bench = Bench(tmp_path)
    bench.results.write_text("table,method\nsmall,peer\n")
    with pytest.raises(ValueError, match="has other columns than this bench writes"):
        bench.run()
    assert bench.results.read_text() == "table,method\nsmall,peer\n"


def test_a_synthetic_table_is_brought_to_declared_bounds_and_steps(tmp_path):
    body = "train = train.assign(age=train['age'] * 10 + 0.4)"
    bench = Bench(tmp_path, body=body)
    bench.run()
    synthetic = pd.read_parquet(tmp_path / "cells" / "small.peer.3.0" / "synthetic.parquet")
    assert synthetic["age"].between(0, 120).all()
    assert (synthetic["age"] % 1 == 0).all()


def test_a_line_has_every_field(tmp_path):
    (line,) = Bench(tmp_path).run()
    assert tuple(line) == FIELDS
