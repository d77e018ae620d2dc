"""Run published ViewDefinitions on published records: rows, errors and speed; one line a view and record set.

The views are google's fhir-data-pipes and AEHRC's sof-evaluation; the records are Synthea's bundles of two projects, a
bulk export of ten patients, and MIMIC-IV on FHIR's demo. Rows are held against ``rows_expected``, which a few lines
count over the raw JSON without the compiler (nothing for a view with ``where``). ``data_errors`` are records of which
the view itself is not true: a column that is declared as one value has several. Speed is resources of the view's type a
second of processor time, on one core, the best of three runs, JSON parsing left out (``orjson_seconds`` is what parsing
the whole set takes).

    python evaluation/bench/fhir_views.py --suites DIR --data DIR [--out DIR]
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

import synthehr
from synthehr.connectors.fhir.views import CompiledView, compile_view
from synthehr.errors import DataError

RESULTS = Path(__file__).parent / "results"

SETS = {
    "synthea andrew_nguyen": ["andrew_nguyen.bundles.ndjson.gz"],
    "synthea fhir-data-pipes": ["google_fhir_data_pipes.bundles.ndjson.gz"],
    "bulk export, 10 patients": ["bulk_ndjson_10pt/[A-Z]*.ndjson*"],
    "mimic-iv on fhir demo": ["mimic_iv_on_fhir_demo/*.ndjson*"],
}


def read(folder: Path, patterns: list[str]) -> tuple[dict[str, list[Any]], float]:
    """The resources by type, and the seconds that parsing took."""
    found: dict[str, list[Any]] = defaultdict(list)
    seconds = 0.0
    for file in sorted(file for pattern in patterns for file in folder.glob(pattern)):
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
            for line in lines:
                start = time.process_time()
                value = orjson.loads(line)
                seconds += time.process_time() - start
                for one in [e["resource"] for e in value["entry"]] if value["resourceType"] == "Bundle" else [value]:
                    found[one["resourceType"]].append(one)
    return found, seconds


# -- an independent count: the views at hand have columns, forEach and forEachOrNull over plain paths ------------------


def walk(node: Any, path: str) -> list[Any]:
    """The items at a path of names and ofType()."""
    items = [node]
    for step in re.sub(r"\.ofType\((\w)(\w*)\)", lambda m: m[1].upper() + m[2], path).split("."):
        found = [item.get(step) for item in items if isinstance(item, dict)]
        items = [one for value in found if value is not None for one in (value if isinstance(value, list) else [value])]
    return items


def expected(selects: list[dict[str, Any]], node: Any) -> int:
    """How many rows the selects make of a node."""
    total = 1
    for select in selects:
        if "forEach" in select or "forEachOrNull" in select:
            items = walk(node, select.get("forEach") or select["forEachOrNull"])
            rows = sum(expected(select.get("select", []), item) for item in items)
            total *= rows if items or "forEach" in select else 1
        else:
            total *= expected(select.get("select", []), node)
    return total


# -- the runs ----------------------------------------------------------------------------------------------------------


def run(view: CompiledView, resources: list[Any]) -> tuple[int, int, list[int]]:
    """Rows, records refused, and which ones."""
    rows, refused = 0, []
    for at, resource in enumerate(resources):
        try:
            rows += sum(1 for _ in view.rows(resource))
        except DataError:
            refused.append(at)
    return rows, len(refused), refused


def lines(suites: Path, data: Path) -> Iterator[dict[str, Any]]:
    """One line for each view and record set that has resources of its type."""
    for name, patterns in SETS.items():
        by_type, seconds = read(data, patterns)
        for file in sorted(suites.glob("viewdefs/*/*.json")):
            definition = json.loads(file.read_text(encoding="utf-8"))
            view = compile_view(definition)
            resources = by_type.get(view.resource, [])
            if not resources:
                continue
            taken = []
            for _ in range(3):
                start = time.process_time()
                rows, refused, which = run(view, resources)
                taken.append(time.process_time() - start)
            good = [resource for at, resource in enumerate(resources) if at not in set(which)]
            yield {
                "records": name,
                "view": f"{file.parent.name}/{view.name}",
                "resource": view.resource,
                "resources": len(resources),
                "rows": rows,
                "rows_expected": sum(expected(definition["select"], one) for one in good)
                if "where" not in definition
                else "",
                "data_errors": refused,
                "not_in_r4": " ".join(view.unknown),
                "resources_per_second": round(len(resources) / max(min(taken), 1e-9), -3),
                "orjson_seconds": round(seconds, 2),
                "synthehr": synthehr.__version__,
                "python": platform.python_version(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            }


def main() -> None:
    """Write the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = list(lines(options.suites, options.data))
    with (options.out / "fhir_views.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, fieldnames=list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
    for line in found:
        print(*(line[key] for key in list(line)[:9]), sep="\t")
        if line["rows_expected"] not in ("", line["rows"]):
            raise SystemExit(f"{line['view']}: {line['rows']} rows, {line['rows_expected']} counted in the raw JSON")


if __name__ == "__main__":
    main()
