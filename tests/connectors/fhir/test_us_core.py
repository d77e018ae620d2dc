"""A profile of US Core is claimed where what it requires is there, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made_tables import FULL, LOINC, SNOMED, cohort, frame, resources_in

from synthehr.connectors.fhir.bindings import problems_of, validate_r4b
from synthehr.connectors.fhir.write import FHIR_FORMATS, write_fhir

RXNORM, CVX = "http://www.nlm.nih.gov/research/umls/rxnorm", "http://hl7.org/fhir/sid/cvx"
OWN: dict[str, dict[str, Any]] = {
    "patient": {"ethnicity": "2186-5"},
    "medication_request": {"medication_system": RXNORM},
    "procedure": {},
    "immunization": {"vaccine_system": CVX},
}
PROFILES = {
    "patient": "us-core-patient",
    "encounter": "us-core-encounter",
    "condition": "us-core-condition-problems-health-concerns",
    "observation": "us-core-observation-lab",
    "medication_request": "us-core-medicationrequest",
    "procedure": "us-core-procedure",
    "immunization": "us-core-immunization",
    "allergy_intolerance": "us-core-allergyintolerance",
}
TYPES = {table: "".join(word.title() for word in table.split("_")) for table in PROFILES}
BASE = "http://hl7.org/fhir/us/core/StructureDefinition/"


def row(table: str, **more: Any) -> dict[str, Any]:
    keys = {"patient_id": "A"} | ({} if table == "patient" else {f"{table}_id": f"{table}-1"})
    visit = {} if table in ("patient", "encounter") else {"encounter_id": "encounter-1"}
    return FULL[table] | OWN.get(table, {}) | keys | visit | more


def tables(**rows: list[dict[str, Any]]) -> dict[str, pl.DataFrame]:
    return {table: frame(table, rows.get(table, [row(table)])) for table in PROFILES}


def claims(given: dict[str, pl.DataFrame], folder: Path) -> dict[str, list[list[str]]]:
    """The profiles that the resources of each type claim, without what all addresses begin with."""
    write_fhir(cohort(given), folder, seed=1, synthetic=True)
    found: dict[str, list[list[str]]] = {}
    for each in resources_in(folder):
        told = [url.removeprefix(BASE) for url in each["meta"].get("profile", [])]
        found.setdefault(each["resourceType"], []).append(told)
        assert problems_of(each) == []
    return found


@pytest.mark.parametrize("format", FHIR_FORMATS)
def test_each_resource_that_has_all_that_is_required_claims_its_profile(format: str, tmp_path: Path) -> None:
    write_fhir(cohort(tables()), tmp_path / "out", format=format, seed=1, synthetic=True)
    found = {each["resourceType"]: each for each in resources_in(tmp_path / "out")}
    for table, profile in PROFILES.items():
        assert found[TYPES[table]]["meta"]["profile"] == [BASE + profile]
    assert found["Practitioner"]["meta"]["profile"] == [BASE + "us-core-practitioner"]
    assert validate_r4b(found.values()) == len(found)
    for kind in ("Device", "Provenance"):
        assert "profile" not in found[kind]["meta"]


def test_what_a_claim_needs_of_a_name_and_identifier_is_of_nobody(tmp_path: Path) -> None:
    write_fhir(cohort(tables()), tmp_path / "out", seed=1, synthetic=True)
    reason = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason",
                             "valueCode": "unknown"}]}  # fmt: skip
    found = {each["resourceType"]: each for each in resources_in(tmp_path / "out")}
    for kind, name in (("Patient", reason), ("Practitioner", {"_family": reason})):
        urn = {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{found[kind]['id']}"}
        assert found[kind]["identifier"] == [urn] and found[kind]["name"] == [name]


MISSING = [
    ("patient", "gender", None), ("patient", "race", "2131-1"), ("patient", "ethnicity", "UNK"),
    ("encounter", "status", None), ("encounter", "class", None), ("encounter", "type", None),
    ("encounter", "type_system", "urn:local"),
    ("condition", "category", None), ("condition", "category", "diagnosis"), ("condition", "code", None),
    ("condition", "code_system", "urn:local"), ("condition", "clinical_status", None),
    ("observation", "status", None), ("observation", "category", "survey"), ("observation", "value", None),
    ("observation", "code_system", None), ("observation", "unit", "no unit of UCUM"),
    ("medication_request", "intent", None), ("medication_request", "authored_hour", None),
    ("medication_request", "medication_system", "urn:rx"),
    ("procedure", "status", None), ("procedure", "performed_hour", None), ("procedure", "code", None),
    ("immunization", "occurrence_day", None), ("immunization", "primary_source", None),
    ("immunization", "vaccine", None),
    ("allergy_intolerance", "clinical_status", None), ("allergy_intolerance", "verification_status", None),
    ("allergy_intolerance", "code", None),
]  # fmt: skip


def test_a_resource_that_lacks_what_is_required_claims_nothing_and_one_beside_it_does(tmp_path: Path) -> None:
    """Patient A has all of everything, and beside it a row for each thing that a claim may fail by."""
    rows = {table: [row(table)] for table in PROFILES}
    wrong: dict[str, list[dict[str, Any]]] = {table: [] for table in PROFILES}
    for at, (table, column, value) in enumerate(MISSING):
        more = {"patient_id": f"P{at}"} if table == "patient" else {f"{table}_id": f"w{at}"}
        more |= {"unit": None, "comparator": None} if column == "value" else {}
        wrong[table].append(row(table) | more | {column: value})
    found = claims(tables(**{table: rows[table] + wrong[table] for table in PROFILES}), tmp_path / "out")
    for table, profile in PROFILES.items():
        assert sorted(found[TYPES[table]]) == [[]] * len(wrong[table]) + [[profile]], table


def test_what_refers_to_a_resource_that_claims_nothing_claims_nothing(tmp_path: Path) -> None:
    nobody = claims(tables(patient=[row("patient", gender=None)]), tmp_path / "nobody")
    assert all(told == [[]] for kind, told in nobody.items() if kind not in ("Practitioner", "Provenance"))
    unseen = claims(tables(encounter=[row("encounter", type=None)]), tmp_path / "unseen")
    assert unseen["Patient"] == [["us-core-patient"]] and unseen["Encounter"] == unseen["Condition"] == [[]]
    without = [row("condition", encounter_id=None)]
    alone = claims(tables(encounter=[row("encounter", type=None)], condition=without), tmp_path / "alone")
    assert alone["Condition"] == [[PROFILES["condition"]]]


@pytest.mark.parametrize(
    ("changed", "claimed"),
    [({}, ["us-core-vital-signs"]), ({"value": None, "unit": None}, []), ({"panel_system": "urn:own"}, []),
     ({"effective_hour": None}, []), ({"unit": "mmHg"}, []),
     ({"value": None, "unit": None, "absent_reason": "masked"}, ["us-core-vital-signs"])],
)  # fmt: skip
def test_a_panel_claims_its_profile_where_each_component_is_complete(
    changed: dict[str, Any], claimed: list[str], tmp_path: Path
) -> None:
    pressure = [
        row("observation", component_index=at, category="vital-signs", comparator=None, code=code, value=value,
            unit="mm[Hg]", panel_system=LOINC, panel_code="85354-9", panel_display="Blood pressure")
        for at, code, value in ((1, "8480-6", 120.0), (2, "8462-4", 80.0))
    ]  # fmt: skip
    shared = {name: value for name, value in changed.items() if name in ("panel_system", "effective_hour")}
    pressure = [pressure[0] | shared, pressure[1] | changed]
    found = claims(tables(observation=[*pressure, row("observation", observation_id="o2")]), tmp_path / "out")
    assert found["Observation"] == [claimed, ["us-core-observation-lab"]]


def test_the_category_decides_between_two_profiles_of_one_type(tmp_path: Path) -> None:
    both = [row("condition"), row("condition", condition_id="c2", category="encounter-diagnosis")]
    found = claims(tables(condition=both), tmp_path / "out")
    assert found["Condition"] == [[PROFILES["condition"]], ["us-core-condition-encounter-diagnosis"]]
    assert SNOMED in str((tmp_path / "out" / "Condition.ndjson").read_text())
