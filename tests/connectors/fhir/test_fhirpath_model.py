"""The table of R4's types."""

from __future__ import annotations

import importlib.util
import json

import pytest

from synthehr.connectors.fhir.fhirpath import derive, model


@pytest.mark.parametrize(
    ("resource", "name", "types"),
    [
        ("Patient", "deceased", {"boolean", "dateTime"}),
        ("Patient", "multipleBirth", {"boolean", "integer"}),
        ("Condition", "onset", {"dateTime", "Age", "Period", "Range", "string"}),
        ("Procedure", "performed", {"dateTime", "Period", "string", "Age", "Range"}),
        ("MedicationRequest", "medication", {"CodeableConcept", "Reference"}),
        ("Observation", "effective", {"dateTime", "Period", "Timing", "instant"}),
        ("ObservationComponent", "value", {
            "Quantity", "CodeableConcept", "string", "boolean", "integer", "Range", "Ratio", "SampledData", "time",
            "dateTime", "Period",
        }),
        ("Immunization", "occurrence", {"dateTime", "string"}),
    ],
)  # fmt: skip
def test_choices_have_the_types_that_r4_gives_them(resource: str, name: str, types: set[str]) -> None:
    found = model.element(resource, name)
    assert found is not None
    assert found.choice
    assert set(found.types) == types


def test_elements_are_inherited_and_lists_are_known() -> None:
    names = {
        ("Patient", "id"): ("id", False),
        ("Patient", "contained"): ("Resource", True),
        ("HumanName", "given"): ("string", True),
        ("HumanName", "id"): ("string", False),
        ("Encounter", "class"): ("Coding", False),
        ("Age", "value"): ("decimal", False),
        ("PatientContact", "modifierExtension"): ("Extension", True),
    }
    for (kind, name), expected in names.items():
        found = model.element(kind, name)
        assert found is not None
        assert (found.types[0], found.many) == expected


def test_json_keys_of_choices_are_told() -> None:
    assert model.choice_of_key("Observation", "valueQuantity") == ("value", "Quantity")
    assert model.choice_of_key("Observation", "valueset") is None
    assert model.choice_keys("onset")["onsetAge"] == "Age"


def test_the_table_is_what_fhir_resources_gives() -> None:
    if importlib.util.find_spec("fhir") is None or importlib.util.find_spec("fhir.resources") is None:
        pytest.skip("fhir.resources is not installed")
    assert json.loads(derive.TARGET.read_text(encoding="utf-8")) == derive.derive()
