"""Whether all that is written as FHIR is valid, leads nowhere but into itself, is labelled, and reads back as it was.

    python evaluation/bench/fhir_written.py SOURCE [SOURCE …] --out results/fhir_written.csv

A source is FHIR, whose tables are read first, or ``nafld``, or ``nafld:N`` for N of its patients, or ``release:DIR:N``
for N synthetic patients of a release. Each is written as synthetic in each format, and of every resource that was
written (bundles count as resources) is counted:

* ``r4b_invalid``: those that fhir.resources' R4B models refuse;
* ``rules_broken``: those that break a rule of ``schemas/fhir/r4/bindings.yaml``, references' targets among them;
* ``unresolved``: references that lead to no resource of the same output (of the same bundle, in bundles);
* ``unlabelled``: those without HTEST or without the tag ``synthetic``;
* ``columns_changed``: of ``columns`` that hold anything, those that are not read back as they were, value by value.
  Keys are made anew, and rows are read in the order that they were written in: both are left out of it. Of a release it
  is not asked: OTHER comes back as the code for it, and what a resource cannot hold together is left out and counted.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
from fhir.resources.R4B import get_fhir_model_class
from fhir_writing import cohort_of

from synthehr.cohort import Cohort
from synthehr.connectors.fhir.bindings import problems_of
from synthehr.connectors.fhir.write import write_fhir
from synthehr.connectors.records import read
from synthehr.release import Release

Resource = dict[str, Any]
_MADE = re.compile(r"_id$")


def cohort(source: str) -> Cohort:
    """The tables of a source, without text columns: a model makes none, and a synthetic output refuses free text."""
    if source.startswith("release:"):
        _, folder, patients = source.split(":")
        return Release.load(folder).sample(int(patients), seed=0)
    found: Cohort = cohort_of(source)
    kinds = {
        name: {column: one.kind for column, one in table.columns.items()} for name, table in found.schema.tables.items()
    }
    tables = {
        name: table.drop([column for column in table.columns if kinds[name].get(column) == "text"])
        for name, table in found.tables.items()
    }
    return Cohort(tables, schema=found.schema)


def outputs(folder: Path) -> Iterator[list[Resource]]:
    """What leads into itself: all of an NDJSON output, or one bundle with the resources it holds."""
    lines = [json.loads(line) for path in sorted(folder.glob("*.ndjson")) for line in path.read_text().splitlines()]
    if lines:
        yield lines
    for path in sorted(folder.glob("patient-*.json")):
        bundle = json.loads(path.read_text())
        yield [bundle, *(entry["resource"] for entry in bundle["entry"])]


def names_in(resources: list[Resource]) -> dict[str, str]:
    """The type of each resource by everything that a reference may call it."""
    names = {f"{one['resourceType']}/{one['id']}": str(one["resourceType"]) for one in resources if "id" in one}
    for bundle in resources:
        for entry in bundle.get("entry", []) if bundle["resourceType"] == "Bundle" else []:
            names[entry["fullUrl"]] = entry["resource"]["resourceType"]
    return names


def references(value: Any) -> Iterator[str]:
    """Every literal reference inside a piece of JSON."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "reference" and isinstance(inner, str):
                yield inner
            else:
                yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def is_labelled(resource: Resource) -> bool:
    """Whether it says twice that it is of nobody."""
    meta = resource.get("meta", {})
    codes = {one.get("code") for kind in ("security", "tag") for one in meta.get(kind, [])}
    return {"HTEST", "synthetic"} <= codes


def is_refused(resource: Resource) -> bool:
    """Whether R4B's models refuse it."""
    try:
        get_fhir_model_class(resource["resourceType"]).model_validate(resource)
    except ValueError:
        return True
    return False


def changed(before: Cohort, folder: Path) -> tuple[int, int]:
    """Columns that hold anything, and those of them whose values do not come back, patients in order of writing."""
    back = read(str(folder)).tables
    held = lost = 0
    for name, table in before.tables.items():
        for column in table.columns:
            if _MADE.search(column) or table[column].null_count() == table.height:
                continue
            held += 1
            after = back[name][column] if name in back and column in back[name].columns else None
            lost += after is None or not _same(table[column], after)
    return held, lost


def _same(before: pl.Series, after: pl.Series) -> bool:
    """Whether two columns hold the same values, each as often; whole numbers may have come back as such."""
    if before.dtype.is_numeric() and after.dtype.is_numeric():
        before, after = before.cast(pl.Float64), after.cast(pl.Float64)
    counted = [one.alias("value").value_counts().sort("value") for one in (before, after)]
    return counted[0].equals(counted[1])


def measured(source: str, *, format: str) -> dict[str, object]:
    """What one source in one format comes to."""
    before = cohort(source)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "out"
        write_fhir(before, folder, format=format, seed=0, synthetic=True, epsilon=3.0, delta=1e-6, release_digest="0")
        counts = dict.fromkeys(
            ("resources", "r4b_invalid", "rules_broken", "references", "unresolved", "unlabelled"), 0
        )
        for whole in outputs(folder):
            names = names_in(whole)
            for one in whole:
                counts["resources"] += 1
                counts["r4b_invalid"] += is_refused(one)
                counts["unlabelled"] += not is_labelled(one)
                if one["resourceType"] == "Bundle":
                    continue
                counts["rules_broken"] += bool(problems_of(one, type_of=names.get))
                links = list(references(one))
                counts["references"] += len(links)
                counts["unresolved"] += sum(link not in names for link in links)
        held, lost = (None, None) if source.startswith("release:") else changed(before, folder)
    return {
        "source": Path(source.removeprefix("release:").partition(":")[0]).name if "/" in source else source,
        "format": format,
        "patients": len(before),
        **counts,
        "columns": held,
        "columns_changed": lost,
        "fhir_resources": version("fhir.resources"),
        "synthehr": version("synthehr"),
    }


def main() -> None:
    """Run all sources in both formats."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for source in options.sources:
        for format in ("fhir-ndjson", "fhir-bundle"):
            rows.append(measured(source, format=format))
            print(rows[-1], file=sys.stderr, flush=True)
            with options.out.open("w", newline="") as out:
                table = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
                table.writeheader()
                table.writerows(rows)


if __name__ == "__main__":
    main()
