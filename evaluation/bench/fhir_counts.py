"""Rows that every view makes of public records, beside a count of the raw JSON that knows nothing of views.

    python evaluation/bench/fhir_counts.py FOLDER --out results/fhir_counts.csv

The folder holds the sources named below. ``counted`` is what :func:`counted` finds, ``made`` what the view made; every
row made is in the table (``in_table``) or left out for a reason that is counted (``accounted``). Of all ``records``,
``records_accounted`` were read, whatever became of them, or stand in files that the audit names as passed over.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCES = {
    "synthea fhir-data-pipes": "google_fhir_data_pipes.bundles.ndjson.gz",
    "synthea nguyen": "andrew_nguyen.bundles.ndjson.gz",
    "bulk export, 10 patients": "bulk_ndjson_10pt",
    "mimic-iv on fhir demo": "mimic_iv_on_fhir_demo",
    "hl7 r4 examples": "hl7_r4_examples",
}


def resources(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A resource, or those of a bundle."""
    if whole.get("resourceType") != "Bundle":
        yield whole
    for entry in whole.get("entry", []) if whole.get("resourceType") == "Bundle" else []:
        yield from resources(entry["resource"]) if entry.get("resource") else ()


def counted(source: Path) -> tuple[Counter[str], Counter[str]]:
    """Rows that each type must make, a second resource of one id left out; and the resources of each file."""
    rows, seen, records = Counter[str](), set(), Counter[str]()
    for path in sorted(source.glob("*.ndjson*")) if source.is_dir() else [source]:
        data = path.read_bytes()
        for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines():
            for one in resources(json.loads(line)):
                kind, key = one.get("resourceType", ""), one.get("id")
                records[path.name] += 1
                if key and (kind, key) in seen:
                    continue
                seen.add((kind, key or ""))
                own = any(name.startswith("value") for name in one) or "dataAbsentReason" in one
                rows[kind] += max(1, own + len(one.get("component", []))) if kind == "Observation" else 1
    return rows, records


def compared(name: str, source: Path) -> list[dict[str, object]]:
    """A line for each view."""
    from synthehr.connectors.fhir.badlines import BadRowPolicy
    from synthehr.connectors.fhir.consent import ConsentPolicy
    from synthehr.connectors.fhir.reading import FhirOptions, open_fhir

    policy = BadRowPolicy(mode="drop", most=1.0)
    expected, raw = counted(source)
    with open_fhir(source, options=FhirOptions(on_bad=policy, consent=ConsentPolicy(mode="ignore"))) as records:
        audit = records.audit
        heights = {table: frame.collect().height for table, frame in records.tables.items()}
    passed_over = {*audit["files_of_types_without_view"], *audit["files_passed_over"]}
    read = audit["records"] + sum(raw[file] for file in passed_over)
    told = []
    for table, rows in audit["rows"].items():
        kind = "".join(word.title() for word in table.split("_"))
        made = rows["made"]
        told.append(
            {
                "source": name,
                "view": table,
                "counted": expected[kind],
                "made": made,
                "equal": made == expected[kind],
                "in_table": heights[table],
                **{what.replace(" ", "_"): count for what, count in rows.items() if what not in ("made", "kept")},
                "accounted": made == sum(n for what, n in rows.items() if what != "made")
                and heights[table] == rows["kept"],
                "records": raw.total(),
                "records_accounted": read,
                "bad_records": len(records.bad),
            }
        )
    return told


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    lines = []
    for name, source in SOURCES.items():
        lines += compared(name, given.folder / source)
        wrong = [line["view"] for line in lines if line["source"] == name and not (line["equal"] and line["accounted"])]
        print(name, "differs in " + ", ".join(map(str, wrong)) if wrong else "equal in every view", file=sys.stderr)
    with given.out.open("w", newline="") as out:
        table = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(lines)


if __name__ == "__main__":
    main()
