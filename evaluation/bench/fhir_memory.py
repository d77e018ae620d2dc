"""How much memory reading FHIR takes while its input grows, and how long one process and two take.

    python evaluation/bench/fhir_memory.py FILE.ndjson [FILE.ndjson …] --folder SCRATCH --out results/fhir_memory.csv

The lines (bundles of Synthea) are repeated up to each of ``MEGABYTES``, each time with ids of their own, so that no
record counts as a repeated one and the index of names grows with the input. Each size is converted to Parquet by one
process, whose polars has one thread, and by two, whose polars has two (without that, one process has two cores where
tables are made and one where records are read). What counts is the most that the converting process and the largest of
its children held, and wall time from a loaded program to tables on disk; ``one_over_two`` is worth what the load beside
it says: on a busy machine it tells how many processes shared the cores, not how well the work is spread.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from fhir_reading import converting

MEGABYTES = (100, 500, 2000)
_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{4}(?=[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")


def repeated(files: list[Path]) -> Iterator[bytes]:
    """The lines of the files without end; the beginning of every UUID differs from one time round to the next."""
    lines = [line for file in files for line in file.read_bytes().splitlines(keepends=True) if line.strip()]
    time_round = 0
    while True:
        anew = {b"%04x" % each: b"%04x" % (each ^ time_round) for each in range(1 << 16)}
        for line in lines:
            yield _ID.sub(lambda found, anew=anew: anew[found[0]], line) if time_round else line  # type: ignore[misc]
        time_round += 1


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("files", nargs="+", type=Path)
    arguments.add_argument("--folder", type=Path, required=True, help="scratch, with room for the largest size")
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    lines, rows = repeated(given.files), []
    source = given.folder / "repeated.ndjson"
    source.unlink(missing_ok=True)
    for megabytes in MEGABYTES:
        with source.open("ab") as out:
            while out.tell() < megabytes * 1_000_000:
                out.write(next(lines))
        one, two = converting(source, 1), converting(source, 2)
        rows.append(
            {
                "megabytes": round(source.stat().st_size / 1e6),
                "one_rss_mb": round(one["megabytes"]),
                "two_rss_mb": round(two["megabytes"]),
                "two_child_rss_mb": round(two["child_megabytes"]),
                "one_cpu_s": round(one["cpu"], 1),
                "two_cpu_s": round(two["cpu"], 1),
                "two_main_cpu_s": round(two["main_cpu"], 1),
                "one_wall_s": round(one["wall"], 1),
                "two_wall_s": round(two["wall"], 1),
                "one_over_two": round(one["wall"] / two["wall"], 2),
                "cores": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
            }
        )
        print(rows[-1], file=sys.stderr)
        with given.out.open("w", newline="") as out_file:
            table = csv.DictWriter(out_file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
    source.unlink()


if __name__ == "__main__":
    main()
