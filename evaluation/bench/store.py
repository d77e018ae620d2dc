"""What it costs to check 20 million event rows and write them as a store, beside polars reading and writing them.

    python evaluation/bench/store.py --out evaluation/bench/results/store.csv [--rows 20000000] [--turns 7]

The records are made on the spot: a table of patients and one of their events (key of the patient as text, day, code out
of 300, value with a fifth missing) in Parquet. In each turn, each in a process of its own:

- ``polars``: ``pl.scan_parquet(events).sink_parquet(new)``, which checks nothing;
- ``store``: ``convert(records, format="store")``, patients too: every cell and key is checked;
- ``read store`` and ``read parquet``: the cohort that a fit gets of either.

A line says the seconds by the clock and of processor time (without starting up), the most memory that the process held,
and the load of the machine. A busy machine leaves the processor times comparable, and the clock only roughly.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "patient_id",
            "columns": {
                "patient_id": {"kind": "id"},
                "sex": {"kind": "category", "values": ["f", "m"]},
                "age": {"kind": "integer", "bounds": [0, 120], "unit": "a"},
            },
        },
        "event": {
            "parent": "patient",
            "foreign_key": "patient_id",
            "order_by": "day",
            "max_rows": 200,
            "columns": {
                "patient_id": {"kind": "id"},
                "day": {"kind": "integer", "bounds": [0, 12000], "unit": "d"},
                "code": {"kind": "code", "system": "http://loinc.org", "discover": True},
                "value": {"kind": "number", "bounds": [0, 1000], "precision": 0.1, "nullable": True},
            },
        },
    },
}
ROWS_OF_ONE, CODES = 100, 300
COLUMNS = ("turn", "what", "rows", "seconds", "cpu_seconds", "peak_mib", "load")


def make(folder: Path, rows: int) -> None:
    """The two tables, row groups written one after the other."""
    import pyarrow.parquet as pq

    draws = np.random.default_rng(0)
    patients = rows // ROWS_OF_ONE
    keys = pl.Series("patient_id", [f"P{at:08d}" for at in range(patients)])
    sexes, ages = draws.integers(0, 2, patients), draws.integers(0, 100, patients)
    pl.DataFrame({"patient_id": keys, "sex": pl.Series(["f", "m"]).gather(sexes), "age": ages}).write_parquet(
        folder / "patient.parquet"
    )
    codes = pl.Series([f"LOINC//{1000 + at}-{at % 10}" for at in range(CODES)])
    shares = 1 / np.arange(1, CODES + 1)
    writer = None
    for first in range(0, patients, 20_000):
        mine = keys[first : first + 20_000]
        many = len(mine) * ROWS_OF_ONE
        events = pl.DataFrame(
            {
                "patient_id": mine.gather(np.repeat(np.arange(len(mine)), ROWS_OF_ONE)),
                "day": np.sort(draws.integers(0, 9000, (len(mine), ROWS_OF_ONE)), axis=1).ravel(),
                "code": codes.gather(draws.choice(CODES, many, p=shares / shares.sum())),
                "value": pl.Series(np.round(draws.gamma(4, 20, many), 1)).set(
                    pl.Series(draws.random(many) < 0.2), None
                ),
            }
        ).to_arrow(compat_level=pl.CompatLevel.oldest())
        writer = writer or pq.ParquetWriter(folder / "event.parquet", events.schema, compression="zstd")
        writer.write_table(events, row_group_size=131_072)
    assert writer is not None, "there are rows"
    writer.close()


def work(what: str, folder: Path) -> None:
    """One of the four, in this process; what it took goes to stdout."""
    import pandas  # noqa: F401 - pyarrow loads it when it first hands over a table; not to be timed
    import pyarrow.parquet  # noqa: F401

    from synthehr.connectors.conversion import convert
    from synthehr.connectors.records import read

    records, store = folder / "records", folder / "store"
    wall, cpu = time.perf_counter(), time.process_time()
    if what == "polars":
        pl.scan_parquet(records / "event.parquet").sink_parquet(folder / "polars.parquet")
    elif what == "store":
        convert(records, out=store, format="store", schema=SCHEMA)
    elif what == "read store":
        read(store)
    else:
        read(records, schema=SCHEMA)
    seconds, used = time.perf_counter() - wall, time.process_time() - cpu
    print(seconds, used, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def measured(what: str, folder: Path) -> list[float]:
    """Seconds by the clock, of processor time, and MiB at the most, of a process of its own."""
    argv = [sys.executable, __file__, "--work", what, "--folder", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def main() -> None:
    """Make the records, take the turns, and say what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--work")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.work:
        work(asked.work, asked.folder)
        return
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "records").mkdir()
        make(folder / "records", asked.rows)
        for turn in range(asked.turns):
            for what in ("polars", "store", "read store", "read parquet"):
                took = measured(what, folder)
                lines.append((turn, what, asked.rows, *(round(t, 2) for t in took), round(os.getloadavg()[0], 1)))
                print(*lines[-1], sep=", ", flush=True)
            (folder / "polars.parquet").unlink()
            for path in (folder / "store").iterdir():
                path.unlink()
            (folder / "store").rmdir()
    for at, name in ((3, "clock"), (4, "processor time")):
        theirs, ours = (
            statistics.median(line[at] for line in lines if line[1] == what) for what in ("polars", "store")
        )
        print(f"speed of the store by {name}: {theirs / ours:.2f} of polars")
    print(f"most memory: {max(line[5] for line in lines if line[1] == 'store'):.0f} MiB")
    if asked.out:
        with asked.out.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *lines])


if __name__ == "__main__":
    main()
