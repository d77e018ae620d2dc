"""Small FHIR records that the tests write themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.connectors.fhir.consent import ConsentPolicy
from synthehr.connectors.fhir.reading import FhirOptions, FhirRecords, open_fhir

Resource = dict[str, Any]


def patient(key: str = "p", /, **more: Any) -> Resource:
    return {"resourceType": "Patient", "id": key, "birthDate": "1980-01-01", "gender": "female", **more}


def condition(key: str = "c", subject: Any = "Patient/p", **more: Any) -> Resource:
    code = {"coding": [{"system": "http://snomed.info/sct", "code": "44054006", "display": "Type 2 diabetes"}]}
    return {"resourceType": "Condition", "id": key, "subject": reference(subject), "code": code, **more}


def encounter(key: str = "e", subject: Any = "Patient/p", **more: Any) -> Resource:
    kind = {"code": "AMB"}
    return {
        "resourceType": "Encounter",
        "id": key,
        "status": "finished",
        "class": kind,
        "subject": reference(subject),
    } | more


def observation(key: str = "o", subject: Any = "Patient/p", code: str = "8302-2", **more: Any) -> Resource:
    coding = {"coding": [{"system": "http://loinc.org", "code": code}]}
    return {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": coding,
        "subject": reference(subject),
    } | more


def quantity(value: float, unit: str) -> Resource:
    return {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit}


def reference(to: Any) -> Any:
    return {"reference": to} if isinstance(to, str) else to


def bundle(*resources: Resource, urls: bool = True) -> Resource:
    entries = [
        ({"fullUrl": f"urn:uuid:{resource.get('id', at)}"} if urls else {}) | {"resource": resource}
        for at, resource in enumerate(resources)
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def lines(path: Path, resources: Iterable[Resource | str]) -> Path:
    text = [one if isinstance(one, str) else json.dumps(one) for one in resources]
    path.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    return path


def options(
    mode: Any = "fail",
    *,
    most: float = 1.0,
    consent: Any = "exclude-opt-out",
    views: Path | None = None,
    processes: int = 1,
) -> FhirOptions:
    return FhirOptions(
        on_bad=BadRowPolicy(mode=mode, most=most),
        consent=ConsentPolicy(mode=consent),
        views=views,
        processes=processes,
    )


def tables_of(source: Path | str, settings: FhirOptions | None = None) -> dict[str, pl.DataFrame]:
    with open_fhir(source, options=settings or options()) as records:
        return {name: table.collect() for name, table in records.tables.items()}


def audited(source: Path | str, settings: FhirOptions | None = None) -> tuple[FhirRecords, dict[str, pl.DataFrame]]:
    with open_fhir(source, options=settings or options()) as records:
        return records, {name: table.collect() for name, table in records.tables.items()}


def read_lines(folder: Path, *resources: Resource, settings: FhirOptions | None = None) -> dict[str, pl.DataFrame]:
    return tables_of(lines(folder / "records.ndjson", resources), settings)
