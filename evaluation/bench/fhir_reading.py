"""How long FHIR takes to become tables, beside parsing the same bytes and doing nothing with them.

    python evaluation/bench/fhir_reading.py FILE.ndjson [FILE.ndjson …] --out results/fhir_reading.csv [--fhiry PYTHON]

For each plain NDJSON file of bundles: processor time of ``orjson.loads`` alone on every line, in a process of its own;
of one process from the file to all tables in memory; of validating all that the file holds by fhir.resources' R4B
models, once as the bundles that they are (``validate``) and once resource by resource without the bundle around them
(``validate_each``), parsing not counted. Processor time is what a busy machine leaves comparable. How two processes
compare with one is measured on larger files: see ``fhir_memory.py``.

With ``--fhiry``, an interpreter that has the package of that name (of an environment of its own), both read the same
folder of the first bundles of the file, one ``.json`` each, three turns one after the other: ours to all tables, fhiry
to its one table by ``Fhiry().process_source()``. Processor time again, without starting up.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import orjson

REPEATS = 3
BUNDLES = 60  # at most, that are read by fhiry too
_FHIRY = """
import contextlib, io, sys, time
from fhiry import Fhiry
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    start = time.process_time()
    source = Fhiry()
    source.folder = sys.argv[1]
    source.process_source()
    taken = time.process_time() - start
print(taken)
"""


def parsing(path: Path) -> float:
    """Seconds of processor time to parse each line and drop it."""
    with path.open("rb") as lines:
        start = time.process_time()
        for line in lines:
            orjson.loads(line)
        return time.process_time() - start


def parsing_alone(path: Path) -> float:
    """The same in a process that has loaded nothing else, whose heap the garbage collector need not walk."""
    argv = [sys.executable, __file__, str(path), "--parse", "--out", "-"]
    return float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def reading(path: Path) -> float:
    """Seconds of processor time from a file or folder to all tables in memory, in one process."""
    from synthehr.connectors.fhir.reading import FhirOptions, open_fhir

    start = time.process_time()
    with open_fhir(path, options=FhirOptions(processes=1)) as records:
        for table in records.tables.values():
            table.collect(engine="streaming")
    return time.process_time() - start


def validating(path: Path) -> tuple[float, float]:
    """Seconds of processor time that fhir.resources' R4B models take for a file: bundle by bundle, and by resource.

    Parsing is not counted. Every resource of Synthea passes; one that did not would end the run.
    """
    from fhir.resources.R4B import get_fhir_model_class

    bundle = get_fhir_model_class("Bundle")
    whole = each = 0.0
    warmed = False
    with path.open("rb") as lines:
        for line in lines:
            parsed = orjson.loads(line)
            if not warmed:  # importing the models is not counted
                bundle.model_validate(parsed)
                warmed = True
            models = {
                kind: get_fhir_model_class(kind)
                for kind in {entry["resource"]["resourceType"] for entry in parsed["entry"]}
            }
            start = time.process_time()
            bundle.model_validate(parsed)
            whole += time.process_time() - start
            start = time.process_time()
            for entry in parsed["entry"]:
                models[entry["resource"]["resourceType"]].model_validate(entry["resource"])
            each += time.process_time() - start
    return whole, each


def beside_fhiry(path: Path, python: Path) -> tuple[float, float]:
    """Seconds of processor time of ours and of fhiry for the same folder of bundles."""
    with tempfile.TemporaryDirectory() as folder:
        with path.open("rb") as lines:
            for number, line in zip(range(BUNDLES), lines, strict=False):
                (Path(folder) / f"{number}.json").write_bytes(line)
        ours, theirs = [], []
        for _ in range(REPEATS):
            ours.append(reading(Path(folder)))
            argv = [str(python), "-c", _FHIRY, folder]
            theirs.append(float(subprocess.run(argv, capture_output=True, text=True, check=True).stdout))
    return statistics.median(ours), statistics.median(theirs)


def converting(path: Path, processes: int) -> dict[str, float]:
    """Wall and processor seconds, and megabytes, of a conversion in a process of its own.

    ``processes`` is also how many threads polars has: one process is one core's work, two have two cores.
    """
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, __file__, str(path), "--alone", str(processes), "--out", f"{folder}/out"]
        env = os.environ | {"POLARS_MAX_THREADS": str(processes)}
        told = subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout
    measured: dict[str, float] = json.loads(told)
    return measured


def alone(path: Path, *, processes: int, out: Path) -> None:
    """Convert, and print what it took."""
    from synthehr.connectors.conversion import convert
    from synthehr.connectors.fhir.reading import FhirOptions

    start = time.perf_counter()
    convert(path, out=out, fhir=FhirOptions(processes=processes))
    wall = time.perf_counter() - start
    own, others = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    main = own.ru_utime + own.ru_stime
    cpu = main + others.ru_utime + others.ru_stime
    status = Path("/proc/self/status").read_text()  # getrusage also counts what the process was before exec
    held = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    told = {"wall": wall, "cpu": cpu, "main_cpu": main, "megabytes": held, "child_megabytes": others.ru_maxrss / 1024}
    print(json.dumps(told))


def _fhiry_version(python: Path | None) -> str:
    if python is None:
        return ""
    ask = "from importlib.metadata import version; print(version('fhiry'))"
    return subprocess.run([str(python), "-c", ask], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("files", nargs="+", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--fhiry", type=Path, help="an interpreter that has fhiry, to compare with")
    arguments.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--parse", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.parse:
        print(statistics.median(parsing(given.files[0]) for _ in range(REPEATS)))
        return
    if given.alone is not None:
        alone(given.files[0], processes=given.alone, out=given.out)
        return
    os.environ["POLARS_MAX_THREADS"] = "1"  # before polars is loaded: processor time of one thread
    rows = []
    for path in given.files:
        parsed = parsing_alone(path)
        read = statistics.median(reading(path) for _ in range(REPEATS))
        whole, each = validating(path)
        ours, theirs = beside_fhiry(path, given.fhiry) if given.fhiry is not None else (float("nan"), float("nan"))
        rows.append(
            {
                "file": path.name,
                "megabytes": round(path.stat().st_size / 1e6, 1),
                "parse_cpu_s": round(parsed, 3),
                "tables_cpu_s": round(read, 3),
                "tables_over_parse": round(read / parsed, 2),
                "validate_cpu_s": round(whole, 1),
                "validate_over_tables": round(whole / read, 1),
                "validate_each_cpu_s": round(each, 1),
                "validate_each_over_tables": round(each / read, 1),
                "folder_cpu_s": round(ours, 3),
                "fhiry_cpu_s": round(theirs, 2),
                "fhiry_over_folder": round(theirs / ours, 1),
                "orjson": version("orjson"),
                "fhir_resources": version("fhir.resources"),
                "fhiry": _fhiry_version(given.fhiry),
                "cores": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
            }
        )
        print(rows[-1], file=sys.stderr)
    with given.out.open("w", newline="") as out:
        table = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
