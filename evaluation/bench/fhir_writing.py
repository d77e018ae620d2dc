"""How long tables take to become labelled and checked FHIR, beside validating the same resources and dumping them.

    python evaluation/bench/fhir_writing.py SOURCE [SOURCE …] --out results/fhir_writing.csv

A source is FHIR, whose tables are read first, or ``nafld``, or ``nafld:N`` for N of its patients. Processor time of one
process, medians of five turns, in each of which both take theirs one after the other, since a busy machine's slow hours
hit both alike: of ``write_fhir`` from tables in memory to files, for each format; and of fhir.resources' R4B models,
``model_validate`` on parsed JSON and ``model_dump_json``, on up to 500 resources of each type that was written, spread
evenly, and counted for as many as there are. By the resource; parsing is not counted. Files are written to memory
(/dev/shm) where there is such a place: what a disk takes to make a file for each patient is left out of both.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

REPEATS = 5
OF_A_TYPE = 500
MEMORY = Path("/dev/shm")


def cohort_of(source: str) -> Any:
    from synthehr.cohort import Cohort
    from synthehr.connectors.fhir.badlines import BadRowPolicy
    from synthehr.connectors.fhir.consent import ConsentPolicy
    from synthehr.connectors.fhir.reading import FhirOptions, open_fhir

    if source.partition(":")[0] == "nafld":
        from synthehr.cli.nafld import nafld_cohort

        patients = source.partition(":")[2]
        return nafld_cohort(int(patients) if patients else None)
    options = FhirOptions(on_bad=BadRowPolicy(mode="drop"), consent=ConsentPolicy(mode="ignore"), processes=1)
    with open_fhir(source, options=options) as records:
        tables = {name: table.collect(engine="streaming") for name, table in records.tables.items()}
        return Cohort(tables, schema=records.schema)


def writing(cohort: Any, folder: Path, *, format: str) -> float:
    """Seconds of processor time to write the cohort."""
    from synthehr.connectors.fhir.write import write_fhir

    start = time.process_time()
    write_fhir(cohort, folder, format=format, seed=0, synthetic=True, epsilon=3.0, delta=1e-6, release_digest="0")
    return time.process_time() - start


class Validation:
    """R4B's models over a folder of NDJSON: a sample of each type, and how many resources there are."""

    def __init__(self, folder: Path) -> None:
        from fhir.resources.R4B import get_fhir_model_class

        self._samples = []
        self.resources = 0
        for path in sorted(folder.glob("*.ndjson")):
            lines = path.read_bytes().splitlines()
            parsed = [orjson.loads(line) for line in lines[:: -(-len(lines) // OF_A_TYPE)]]
            self._samples.append((get_fhir_model_class(path.stem), parsed, len(lines) / len(parsed)))
            self.resources += len(lines)

    def seconds(self) -> float:
        """Processor time that all resources would take."""
        total = 0.0
        for model, parsed, weight in self._samples:
            start = time.process_time()
            for resource in parsed:
                model.model_validate(resource).model_dump_json()
            total += (time.process_time() - start) * weight
        return total


def measured(source: str) -> dict[str, object]:
    """What a source's tables take."""
    cohort = cohort_of(source)
    taken: dict[str, list[float]] = {"fhir-ndjson": [], "fhir-bundle": [], "validate": []}
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        writing(cohort, Path(folder) / "first", format="fhir-ndjson")
        validation = Validation(Path(folder) / "first")
        for turn in range(REPEATS):
            for format in ("fhir-ndjson", "fhir-bundle"):
                out = Path(folder) / f"{format}{turn}"
                taken[format].append(writing(cohort, out, format=format))
                shutil.rmtree(out)
            taken["validate"].append(validation.seconds())
    ndjson, bundle, validated = (statistics.median(each) for each in taken.values())
    by_resource = 1e6 / validation.resources
    return {
        "source": Path(source).name,
        "patients": len(cohort),
        "resources": validation.resources,
        "ndjson_us": round(ndjson * by_resource, 1),
        "bundle_us": round(bundle * by_resource, 1),
        "validate_and_dump_us": round(validated * by_resource, 1),
        "validate_over_ndjson": round(validated / ndjson, 1),
        "validate_over_bundle": round(validated / bundle, 1),
        "fhir_resources": version("fhir.resources"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("sources", nargs="+")
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    os.environ["POLARS_MAX_THREADS"] = "1"  # before polars is loaded: processor time of one thread
    rows = []
    for source in given.sources:
        rows.append(measured(source))
        print(rows[-1], file=sys.stderr)
    with given.out.open("w", newline="") as out:
        table = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    main()
