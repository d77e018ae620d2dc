"""Rows of every view on public records, against a count that knows nothing of views."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_records import audited, options

SHARED = Path(__file__).parents[4] / "shared" / "data" / "fhir"
SETS = {
    "Synthea, google": ("google_fhir_data_pipes.bundles.ndjson.gz", "google_fhir_data_pipes.bundles.ndjson.gz"),
    "Synthea, nguyen": ("andrew_nguyen.bundles.ndjson.gz", "andrew_nguyen.bundles.ndjson.gz"),
    "bulk data": ("bulk_ndjson_10pt", "bulk_ndjson_10pt/*.ndjson*"),
    "MIMIC-IV on FHIR": ("mimic_iv_on_fhir_demo", "mimic_iv_on_fhir_demo/*.ndjson*"),
    "HL7's examples": ("hl7_r4_examples", "hl7_r4_examples/*.ndjson*"),
}
TYPES = {
    "patient": "Patient",
    "encounter": "Encounter",
    "condition": "Condition",
    "observation": "Observation",
    "medication_request": "MedicationRequest",
    "procedure": "Procedure",
    "immunization": "Immunization",
    "allergy_intolerance": "AllergyIntolerance",
}


def resources(whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if whole.get("resourceType") != "Bundle":
        yield whole
        return
    for entry in whole.get("entry", []):
        if entry.get("resource"):
            yield from resources(entry["resource"])


def counted(pattern: str) -> Counter[str]:
    """Rows that each type must make, a second resource of one id left out."""
    rows: Counter[str] = Counter()
    seen: set[tuple[str, str]] = set()
    for path in sorted(SHARED.glob(pattern)):
        data = path.read_bytes()
        for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines():
            for one in resources(json.loads(line)):
                kind, key = one.get("resourceType", ""), one.get("id")
                if key and (kind, key) in seen:
                    continue
                seen.add((kind, key or ""))
                own = any(name.startswith("value") for name in one) or "dataAbsentReason" in one
                rows[kind] += max(1, own + len(one.get("component", []))) if kind == "Observation" else 1
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(("source", "pattern"), SETS.values(), ids=SETS)
def test_every_view_makes_the_rows_that_a_plain_count_makes(source: str, pattern: str) -> None:
    if not (SHARED / source).exists():
        pytest.skip("the public records are not here")
    records, tables = audited(SHARED / source, options("drop", consent="ignore"))
    expected = counted(pattern)
    assert {name: rows["made"] for name, rows in records.audit["rows"].items()} == {
        name: expected[kind] for name, kind in TYPES.items()
    }
    for name, rows in records.audit["rows"].items():
        assert rows["made"] == sum(count for what, count in rows.items() if what != "made")
        assert tables[name].height == rows["kept"]
