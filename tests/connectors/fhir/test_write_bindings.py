from __future__ import annotations

from typing import Any

import pytest

from synthehr.connectors.fhir.bindings import check_resource, problems_of, validate_r4b
from synthehr.errors import InternalError

TO = {"reference": "Patient/p"}
GOOD: dict[str, dict[str, Any]] = {
    "Patient": {"gender": "female", "birthDate": "1980-02-03"},
    "Encounter": {"status": "finished", "class": {"code": "AMB"}, "subject": TO},
    "Condition": {"subject": TO},
    "Observation": {"status": "final", "code": {"coding": [{"code": "a"}]}, "subject": TO},
    "MedicationRequest": {
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {"text": "a"},
        "subject": TO,
    },
    "Procedure": {"status": "completed", "subject": TO},
    "Immunization": {"status": "completed", "vaccineCode": {"text": "a"}, "patient": TO, "occurrenceString": "unknown"},
    "AllergyIntolerance": {"patient": TO, "clinicalStatus": {"text": "a"}},
}


def resource(kind: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": kind, "id": "a"} | GOOD[kind] | more


@pytest.mark.parametrize("kind", GOOD)
def test_a_resource_that_breaks_nothing_has_no_problem(kind: str) -> None:
    assert problems_of(resource(kind)) == []
    assert validate_r4b([resource(kind)]) == 1


MADE = "urn:uuid:91c22788-e048-5dc0-bfd4-947bdfdd9677"


def coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": f"http://terminology.hl7.org/CodeSystem/{system}", "code": code}]}


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "gender": (resource("Patient", gender="foo"), "gender must be a code"),
    "status": (resource("Observation", status="banana"), "status must be a code"),
    "R5 status": (resource("Encounter", status="discharged"), "status must be a code"),
    "status missing": (resource("Procedure", status=None), "status or _status is required"),
    "no occurrence": (resource("Immunization", occurrenceString=None), "occurrenceDateTime or occurrenceString"),
    "id too long": (resource("Patient", id="a" * 65), "id must be"),
    "id with an underscore": (resource("Patient", id="a_b"), "id must be"),
    "target": (resource("Condition", subject={"reference": "Encounter/e"}), "subject must lead to one of Group"),
    "target of a visit": (resource("Condition", encounter=TO), "encounter must lead to one of Encounter"),
    "no literal reference": (resource("Condition", subject={"display": "she"}), "subject must lead to"),
    "clinical status": (resource("Condition", clinicalStatus=coded("condition-clinical", "bad")), "clinicalStatus"),
    "its system": (resource("Condition", clinicalStatus=coded("other", "active")), "clinicalStatus must be a code"),
    "comparator": (resource("Observation", valueQuantity={"value": 1, "comparator": "ad"}), "comparator must be"),
    "a component's": (
        resource("Observation", component=[{"valueQuantity": {"comparator": "~"}}]), "component.valueQuantity"),
    "category": (resource("AllergyIntolerance", category=["food", "shoes"]), "category must be a code"),
    "severity": (resource("AllergyIntolerance", reaction=[{"severity": "x"}]), "reaction.severity must be"),
    "narrative": (resource("Patient", text={"div": "x"}), "text is not written"),
    "name": (resource("Patient", name=[{"family": "x"}]), "name is written of nobody"),
    "identifier": (
        resource("Patient", identifier=[{"system": "urn:ietf:rfc:3986", "value": "urn:uuid:1"}]),
        "identifier is written of nobody"),
    "identifier of somebody": (
        resource("Patient", identifier=[{"system": "urn:mrn", "value": MADE}]), "identifier is written of nobody"),
    "more of an identifier": (
        resource("Patient", identifier=[{"system": "urn:ietf:rfc:3986", "value": MADE, "assigner": {"display": "x"}}]),
        "identifier is written of nobody"),
    "time without offset": (resource("MedicationRequest", authoredOn="2020-01-01T10:00:00"), "authoredOn must be"),
    "time without seconds": (resource("MedicationRequest", authoredOn="2020-01-01T10:00Z"), "authoredOn must be a day"),
    "13th month": (resource("Patient", birthDate="2020-13-01"), "birthDate must be a day"),
    "end of a period": (resource("Encounter", period={"end": "2020"}), "period.end must be a day"),
    "con-4": (resource("Condition", abatementDateTime="2020-01-01"), "con-4"),
    "con-5": (
        resource("Condition", verificationStatus=coded("condition-ver-status", "entered-in-error"),
                 clinicalStatus=coded("condition-clinical", "active")), "con-5"),
    "ait-1": (resource("AllergyIntolerance") | {"clinicalStatus": None}, "clinicalStatus"),
    "obs-6": (resource("Observation", valueInteger=1, dataAbsentReason={"text": "x"}), "obs-6"),
    "type": ({"resourceType": "Claim", "id": "a"}, "resourceType is none"),
}  # fmt: skip


@pytest.mark.parametrize("what", [what for what in BROKEN if what != "ait-1"])
def test_a_broken_rule_is_named(what: str) -> None:
    broken, rule = BROKEN[what]
    kept = {name: value for name, value in broken.items() if value is not None}
    assert any(rule in problem for problem in problems_of(kept)), problems_of(kept)
    with pytest.raises(InternalError, match="breaks R4"):
        check_resource(kept)


def test_an_allergy_needs_a_clinical_status() -> None:
    kept = {name: value for name, value in resource("AllergyIntolerance").items() if name != "clinicalStatus"}
    assert problems_of(kept) == ["ait-1: clinicalStatus is required"]


def test_a_reference_is_looked_up_where_the_resources_are_known() -> None:
    known = {"urn:uuid:1": "Patient", "urn:uuid:2": "Encounter"}.get
    for to, problems in (("urn:uuid:1", 0), ("urn:uuid:2", 1), ("urn:uuid:3", 1)):
        assert len(problems_of(resource("Condition", subject={"reference": to}), type_of=known)) == problems


def test_what_the_library_finds_is_told_without_the_value() -> None:
    with pytest.raises(InternalError, match="no valid R4B") as caught:
        validate_r4b([resource("Patient", birthDate="SECRET")])
    assert "SECRET" not in str(caught.value)
