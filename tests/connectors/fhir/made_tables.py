"""Small hand-made tables in the default FHIR schema, and what one does with FHIR that was written of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from made_records import tables_of

from synthehr.cohort import Cohort
from synthehr.connectors.fhir.schema_default import default_schema
from synthehr.schema.files import dump_schema, load_schema
from synthehr.schema.model import IntegerColumn, NumberColumn, Schema

SNOMED, LOINC, UCUM = "http://snomed.info/sct", "http://loinc.org", "http://unitsofmeasure.org"

# One full row and what differs in others; the second row of each table leaves every nullable column empty.
FULL: dict[str, dict[str, Any]] = {
    "patient": {
        "gender": "female", "deceased": True, "death_day": 20000, "state": "MA", "zip3": "021", "race": "2106-3",
        "ethnicity": "UNK", "birth_sex": "F", "marital_status": "M", "anchor": "birth_date",
    },
    "encounter": {
        "status": "finished", "class": "AMB", "start_hour": 175210, "duration_minutes": 95, "admit_source": "emd",
        "discharge_disposition": "home", "type_system": SNOMED, "type": "185349003", "type_display": "Check up",
        "reason_system": SNOMED, "reason": "44054006", "reason_display": "Diabetes",
    },
    "condition": {
        "category": "problem-list-item", "clinical_status": "resolved", "verification_status": "confirmed",
        "onset_day": -3, "duration_days": 400, "recorded_day": 5, "code_system": SNOMED, "code": "44054006",
        "code_display": "Diabetes",
    },
    "observation": {
        "status": "final", "category": "laboratory", "effective_hour": 175211, "component_index": 0,
        "code_system": LOINC, "code": "2339-0", "code_display": "Glucose", "value": 1.5, "comparator": "<=",
        "unit": "mg/dL",
    },
    "medication_request": {
        "status": "active", "intent": "order", "authored_hour": 175212, "medication_system": "urn:rx",
        "medication": "860975", "medication_display": "Metformin", "reason_system": SNOMED, "reason": "44054006",
        "reason_display": "Diabetes",
    },
    "procedure": {
        "status": "completed", "category": "387713003", "performed_hour": 175213, "duration_minutes": 61,
        "code_system": SNOMED, "code": "73761001", "code_display": "Colonoscopy", "reason_system": SNOMED,
        "reason": "44054006", "reason_display": "Diabetes",
    },
    "immunization": {
        "status": "completed", "primary_source": False, "occurrence_day": 70, "vaccine_system": "urn:cvx",
        "vaccine": "140", "vaccine_display": "Influenza",
    },
    "allergy_intolerance": {
        "clinical_status": "active", "verification_status": "confirmed", "type": "allergy", "category": "food",
        "criticality": "low", "onset_day": 100, "recorded_day": 101, "code_system": SNOMED, "code": "91935009",
        "code_display": "Peanut", "severity": "mild", "reaction_system": SNOMED, "reaction": "271807003",
        "reaction_display": "Rash",
    },
}  # fmt: skip
_KEYS = {"patient": "patient_id", **{name: f"{name}_id" for name in FULL if name != "patient"}}
_CONCEPTS = {  # concept column: system, code
    "encounter": [("type_concept", "type_system", "type"), ("reason_concept", "reason_system", "reason")],
    "condition": [("concept", "code_system", "code")],
    "observation": [("panel_concept", "panel_system", "panel_code"), ("concept", "code_system", "code"),
                    ("value_concept", "value_system", "value_code")],
    "medication_request": [("medication_concept", "medication_system", "medication"),
                           ("reason_concept", "reason_system", "reason")],
    "procedure": [("concept", "code_system", "code"), ("reason_concept", "reason_system", "reason")],
    "immunization": [("vaccine_concept", "vaccine_system", "vaccine")],
    "allergy_intolerance": [("concept", "code_system", "code"), ("reaction_concept", "reaction_system", "reaction")],
}  # fmt: skip


def made(**more: list[dict[str, Any]]) -> dict[str, pl.DataFrame]:
    """Each table with a full row and one with every nullable cell empty, then these further rows.

    Patient ``A`` has a birth date; patient ``B`` has neither a birth date nor anything else that is known.
    """
    tables = {}
    for name, full in FULL.items():
        first, second = full | {_KEYS[name]: "A"}, {_KEYS[name]: "B"}
        if name == "patient":
            second["deceased"] = False
        else:
            first |= {"patient_id": "A", "encounter_id": "A"}
            second["patient_id"] = "A"
        if name == "encounter":
            del first["encounter_id"]
            first, second = first | {"encounter_id": "A"}, second | {"encounter_id": "B", "part_of_id": "A"}
        if name == "observation":
            second["component_index"] = 0
        tables[name] = frame(name, [first, second, *more.get(name, [])])
    return tables


def frame(table: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows as the table that reading makes: all of its columns, concepts beside the codes."""
    columns = default_schema().tables[table].columns
    dtypes: dict[str, Any] = {name: _dtype(column) for name, column in columns.items()}
    told = [{name: row.get(name) for name in dtypes} for row in rows]
    for row in told:
        for concept, system, code in _CONCEPTS.get(table, []):
            if row[code] is not None:
                unit = row.get("unit") if concept == "concept" and row.get("value") is not None else None
                row[concept] = f"{row[system] or ''}|{row[code]}" + (f"|{unit}" if unit is not None else "")
    return pl.DataFrame(told, schema=dtypes)


def _dtype(column: Any) -> Any:
    if isinstance(column, NumberColumn):
        return pl.Float64
    if isinstance(column, IntegerColumn):
        return pl.Int64
    return pl.Boolean if column.kind == "boolean" else pl.String


def cohort(tables: dict[str, pl.DataFrame], schema: Schema | None = None) -> Cohort[Schema]:
    return Cohort(tables, schema=schema or default_schema())


def without_words(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The tables as a model makes them: no text columns, concepts alone."""
    columns = default_schema().tables
    return {
        name: table.drop([each for each in table.columns if columns[name].columns[each].kind == "text"])
        for name, table in tables.items()
    }


def precise(places: float) -> Schema:
    contents = dump_schema(default_schema())
    contents["tables"]["observation"]["columns"]["value"]["precision"] = places
    return load_schema(contents)


def read_back(folder: Path) -> dict[str, pl.DataFrame]:
    return tables_of(folder)


def canonical(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Tables with keys replaced by the order in which they come: patients first, then rows by patient."""
    order = pl.DataFrame({"patient_id": tables["patient"]["patient_id"]}).with_row_index("_p")
    sorted_ = {
        name: table.join(order, on="patient_id", how="left", maintain_order="left")
        .with_row_index("_r").sort("_p", "_r").drop("_r")
        for name, table in tables.items()
    }  # fmt: skip
    visits = {key: at for at, key in enumerate(sorted_["encounter"]["encounter_id"])}
    made_ = {}
    for name, given in sorted_.items():
        table = given
        for column in ("encounter_id", "part_of_id"):
            if column in table.columns:
                numbers = [None if key is None else visits[key] for key in table[column]]
                table = table.with_columns(pl.Series(column, numbers, dtype=pl.Int64))
        own = _KEYS[name]
        if name == "observation":
            groups = {key: at for at, key in enumerate(table[own].unique(maintain_order=True))}
            table = table.with_columns(pl.Series(own, [groups[key] for key in table[own]]))
        elif own != "encounter_id":
            table = table.drop(own)
        made_[name] = table.drop("patient_id", strict=False)
    return made_


def resources_in(folder: Path) -> Iterator[dict[str, Any]]:
    """Every resource of an output folder, and every bundle."""
    for path in sorted(folder.glob("*.ndjson")):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)
    for path in sorted(folder.glob("patient-*.json")):
        bundle = json.loads(path.read_text(encoding="utf-8"))
        yield bundle
        yield from (entry["resource"] for entry in bundle["entry"])
