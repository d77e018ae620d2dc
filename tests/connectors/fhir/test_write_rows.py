"""Resources are assembled a column at a time: none of them escapes the checks, and each is what plain JSON would be."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from synthehr.connectors.fhir.write_rows import Grouping, Made, Rows
from synthehr.errors import InternalError

META = {"tag": [{"code": "synthetic"}]}
TO: dict[str, Any] = {"reference": "Patient/p"}
CODE: dict[str, Any] = {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]}
MANY = 40


def coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": f"http://terminology.hl7.org/CodeSystem/{system}", "code": code}]}


def rows(kind: str, *, linked: bool = True, keys: list[str] | None = None, **elements: list[Any]) -> Rows:
    count = len(next(iter(elements.values())))
    return Rows(kind, list(elements.items()), keys=keys or [f"k{at}" for at in range(count)], meta=META, linked=linked)


def observations(**more: list[Any]) -> dict[str, list[Any]]:
    return {"status": ["final"] * MANY, "code": [CODE] * MANY, "subject": [TO] * MANY} | more


def but(usual: Any, other: Any) -> list[Any]:
    """Many cells of which the last but one differs."""
    return [usual] * (MANY - 2) + [other, usual]


def test_a_row_becomes_the_json_of_its_elements_in_their_order() -> None:
    values = [{"value": at / 8, "unit": "mm[Hg]"} if at % 3 else None for at in range(MANY)]
    words = ['say "aah"\n' if at % 2 else None for at in range(MANY)]
    made = list(rows("Observation", **observations(valueQuantity=values, valueString=words)).each())
    assert [each.at for each in made] == list(range(MANY))
    for at, each in enumerate(made):
        expected = {"resourceType": "Observation", "id": f"k{at}", "meta": META, "status": "final", "code": CODE}
        expected |= {"subject": TO}
        expected |= {} if values[at] is None else {"valueQuantity": values[at]}
        expected |= {} if words[at] is None else {"valueString": words[at]}
        assert each == Made(at, f"k{at}", orjson.dumps(expected), ())


def test_components_stand_in_the_resource_of_the_row_before_them() -> None:
    own = [{"value": float(at)} for at in range(5)]
    table = rows(
        "Observation", status=["final"] * 5, subject=[TO] * 5, code=[CODE] * 5, valueQuantity=own
    )  # one of its own with two components, then two components alone
    panel = {"coding": [{"code": "85354-9"}]}
    moved = frozenset({"code", "valueQuantity"})
    grouping = Grouping(moved=moved, starts=[0, 3], places=[0, 1, 2, 1, 2], panels=[panel] * 5)
    first, second = (orjson.loads(each.data) for each in table.grouped(grouping))
    assert first == {
        "resourceType": "Observation", "id": "k0", "meta": META, "status": "final", "subject": TO, "code": CODE,
        "valueQuantity": own[0],
        "component": [{"code": CODE, "valueQuantity": own[1]}, {"code": CODE, "valueQuantity": own[2]}],
    }  # fmt: skip
    assert second == {
        "resourceType": "Observation", "id": "k3", "meta": META, "status": "final", "subject": TO, "code": panel,
        "component": [{"code": CODE, "valueQuantity": own[3]}, {"code": CODE, "valueQuantity": own[4]}],
    }  # fmt: skip


ACTIVE, RESOLVED = coded("condition-clinical", "active"), coded("condition-clinical", "resolved")
WRONG = coded("condition-ver-status", "entered-in-error")
BROKEN: dict[str, tuple[str, dict[str, list[Any]], str]] = {
    "one cell among many": ("Observation", observations(status=but("final", "banana")), "status must be a code"),
    "a missing element": ("Observation", observations(status=but("final", None)), "status or _status is required"),
    "a date": (
        "Observation", observations(effectiveDateTime=but("2020-01-01", "2020-01-32")), "effectiveDateTime must"),
    "a comparator": (
        "Observation", observations(valueQuantity=but({"value": 1}, {"value": 1, "comparator": "~"})), "comparator"),
    "a target": ("Observation", observations(subject=but(TO, {"reference": "Practitioner/p"})), "subject must lead to"),
    "what is written of nobody": ("Observation", observations(note=but(None, [{"text": "x"}])), "note is not written"),
    "two elements together": (
        "Observation", observations(valueInteger=[1] * MANY, dataAbsentReason=but(None, CODE)), "obs-6"),
    "an end beside what goes on": (
        "Condition",
        {"subject": [TO] * MANY, "clinicalStatus": but(RESOLVED, ACTIVE), "abatementDateTime": ["2020-01-01"] * MANY},
        "con-4"),
    "a status beside an error": (
        "Condition",
        {"subject": [TO] * MANY, "clinicalStatus": [ACTIVE] * MANY, "verificationStatus": but(None, WRONG)}, "con-5"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_one_resource_among_many_that_breaks_a_rule_is_refused(what: str) -> None:
    kind, elements, rule = BROKEN[what]
    with pytest.raises(InternalError, match=rule):
        list(rows(kind, **elements).each())


@pytest.mark.parametrize(
    ("element", "cells", "rule"),
    [
        ("valueQuantity", but({"value": 1.0}, {"value": 1.0, "comparator": "~"}), "comparator"),
        ("dataAbsentReason", but(None, CODE), "obs-6"),
        ("valueDateTime", but(None, "2020"), "valueDateTime must be a day"),
    ],
)
def test_one_component_among_many_that_breaks_a_rule_is_refused(element: str, cells: list[Any], rule: str) -> None:
    given = observations(valueInteger=[1] * MANY) | {element: cells}
    moved = frozenset({"code", "valueInteger", element})
    grouping = Grouping(moved=moved, starts=[0], places=list(range(MANY)), panels=[None] * MANY)
    with pytest.raises(InternalError, match=rule):
        list(rows("Observation", **given).grouped(grouping))


def test_an_id_that_fhir_does_not_allow_is_refused() -> None:
    with pytest.raises(InternalError, match="an id that is none"):
        rows("Observation", keys=[*(f"k{at}" for at in range(MANY - 1)), "k_"], **observations())


def test_references_that_name_no_type_are_handed_on_with_what_they_may_lead_to() -> None:
    subject = but({"reference": "urn:uuid:1"}, {"reference": "urn:uuid:2"})
    encounter = but({"reference": "urn:uuid:3"}, None)
    made = list(rows("Observation", linked=False, **observations(subject=subject, encounter=encounter)).each())
    people = frozenset({"Patient", "Group", "Device", "Location"})
    assert made[0].links == (("urn:uuid:1", people), ("urn:uuid:3", frozenset({"Encounter"})))
    assert made[-2].links == (("urn:uuid:2", people),)
