"""Resources are assembled a column at a time: none of them escapes the checks, and each is what plain JSON would be."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest

from synthehr.connectors.fhir.write_cells import Cells, Coded, Parts, Texts
from synthehr.connectors.fhir.write_rows import Form, Grouping, Made, Rows, bare
from synthehr.errors import InternalError

META = {"tag": [{"code": "synthetic"}]}
TO: dict[str, Any] = {"reference": "Patient/p"}
CODE: dict[str, Any] = {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]}
MANY = 40


def coded(system: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": f"http://terminology.hl7.org/CodeSystem/{system}", "code": code}]}


def column(cells: list[Any]) -> Coded:
    """Cells as values and codes, whatever they are."""
    values: list[Any] = []
    codes = []
    for cell in cells:
        if cell is not None and cell not in values:
            values.append(cell)
        codes.append(-1 if cell is None else values.index(cell))
    return Coded(values, np.array(codes, dtype=np.int32))


def rows(kind: str, *, linked: bool = True, **elements: list[Any] | Cells) -> Rows:
    cells = [(name, each if isinstance(each, Cells) else column(each)) for name, each in elements.items()]
    conforming = np.zeros(cells[0][1].there.size, dtype=np.bool_)
    return Rows(kind, cells, meta=META, conforming=conforming, linked=linked)


def named(at: Any) -> pl.Series:
    return pl.Series([f"k{each}" for each in at], dtype=pl.String)


def each(table: Rows, kind: str = "Observation") -> Made:
    return table.each(named, form=bare(kind))


def grouped(table: Rows, **by: Any) -> Made:
    arrays = {name: np.array(by[name]) for name in ("starts", "places")}
    return table.grouped(Grouping(**by | arrays), named, form=bare("Observation"))


def observations(**more: list[Any] | Cells) -> dict[str, Any]:
    return {"status": ["final"] * MANY, "code": [CODE] * MANY, "subject": [TO] * MANY} | more


def but(usual: Any, other: Any) -> list[Any]:
    """Many cells of which the last but one differs."""
    return [usual] * (MANY - 2) + [other, usual]


def test_a_row_becomes_the_json_of_its_elements_in_their_order() -> None:
    values = [{"value": at / 8, "unit": "mm[Hg]"} if at % 3 else None for at in range(MANY)]
    words = ['say "aah"\n' if at % 2 else None for at in range(MANY)]
    made = each(rows("Observation", **observations(valueQuantity=values, valueString=words)))
    assert made.at.tolist() == list(range(MANY)) and made.links == ()
    assert made.keys.to_list() == [f"k{at}" for at in range(MANY)]
    for at, data in enumerate(made.data):
        expected = {"resourceType": "Observation", "id": f"k{at}", "meta": META, "status": "final", "code": CODE}
        expected |= {"subject": TO}
        expected |= {} if values[at] is None else {"valueQuantity": values[at]}
        expected |= {} if words[at] is None else {"valueString": words[at]}
        assert data.encode() == orjson.dumps(expected)


def test_text_and_objects_held_apart_become_the_json_that_they_stand_for() -> None:
    subject = Texts(pl.Series([f"Patient/{at}" for at in range(4)]), under="reference")
    start = Texts(pl.Series(["2020-01-01", None, None, "2020-01-04"]))
    end = Texts(pl.Series([None, "2020-02-02", None, "2020-02-04"]))
    period = Parts([("start", start), ("end", end)], np.array([True, True, False, True]))
    number = Texts(pl.Series(["1.50", None, "-3", "1e-7"]), quoted=False)
    quantity = Parts([("value", number), ("unit", column([None, "kg", None, "g"]))], np.array([True, True, True, True]))
    table = rows("Observation", status=["final"] * 4, code=[CODE] * 4, subject=subject, period=period, q=quantity)
    told = [{key: value for key, value in orjson.loads(data).items() if key in ("subject", "period", "q")}
            for data in each(table).data]  # fmt: skip
    assert told == [
        {"subject": {"reference": "Patient/0"}, "period": {"start": "2020-01-01"}, "q": {"value": 1.5}},
        {"subject": {"reference": "Patient/1"}, "period": {"end": "2020-02-02"}, "q": {"unit": "kg"}},
        {"subject": {"reference": "Patient/2"}, "q": {"value": -3}},
        {"subject": {"reference": "Patient/3"}, "period": {"start": "2020-01-04", "end": "2020-02-04"},
         "q": {"value": 1e-7, "unit": "g"}},
    ]  # fmt: skip
    assert '"value":1.50' in each(table).data[0]


def test_a_form_puts_the_id_between_its_texts() -> None:
    form = Form(('{"url":"', '","resource":{"resourceType":"Observation","id":"', '"'), "},1}")
    made = rows("Observation", status=["final"], code=[CODE], subject=[TO]).each(named, form=form)
    assert made.data[0].startswith('{"url":"k0","resource":{"resourceType":"Observation","id":"k0","meta":{"tag"')
    assert made.data[0].endswith('"subject":{"reference":"Patient/p"}},1}')
    assert form.before == '{"url":"' + "0" * 36 + '","resource":'


def test_components_stand_in_the_resource_of_the_row_before_them() -> None:
    own = [{"value": float(at)} for at in range(6)]
    table = rows(
        "Observation", status=["final"] * 6, subject=[TO] * 6, code=[CODE] * 6, valueQuantity=own
    )  # one of its own with two components, two components alone, and one alone
    panel = {"coding": [{"code": "85354-9"}]}
    made = grouped(
        table,
        moved=frozenset({"code", "valueQuantity"}),
        starts=[0, 3, 5],
        places=[0, 1, 2, 1, 2, 0],
        panels=column([panel] * 6),
    )
    assert made.at.tolist() == [0, 3, 5] and made.keys.to_list() == ["k0", "k3", "k5"]
    first, second, third = (orjson.loads(data) for data in made.data)
    assert first == {
        "resourceType": "Observation", "id": "k0", "meta": META, "status": "final", "subject": TO, "code": CODE,
        "valueQuantity": own[0],
        "component": [{"code": CODE, "valueQuantity": own[1]}, {"code": CODE, "valueQuantity": own[2]}],
    }  # fmt: skip
    assert second == {
        "resourceType": "Observation", "id": "k3", "meta": META, "status": "final", "subject": TO, "code": panel,
        "component": [{"code": CODE, "valueQuantity": own[3]}, {"code": CODE, "valueQuantity": own[4]}],
    }  # fmt: skip
    assert third == {
        "resourceType": "Observation", "id": "k5", "meta": META, "status": "final", "subject": TO, "code": CODE,
        "valueQuantity": own[5],
    }  # fmt: skip


ACTIVE, RESOLVED = coded("condition-clinical", "active"), coded("condition-clinical", "resolved")
WRONG = coded("condition-ver-status", "entered-in-error")
BROKEN: dict[str, tuple[str, dict[str, Any], str]] = {
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
        each(rows(kind, **elements), kind)


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
    none = Coded.none(MANY)
    with pytest.raises(InternalError, match=rule):
        grouped(rows("Observation", **given), moved=moved, starts=[0], places=list(range(MANY)), panels=none)


TEXTS: dict[str, tuple[str, Cells, str]] = {
    "a date": ("effectiveDateTime", Texts(pl.Series(but("2020-01-01", "2020-1-1"))), "effectiveDateTime must"),
    "a date inside": (
        "valueDateTime", Texts(pl.Series(but(None, "2020-01-01T00:00:00"))), "valueDateTime must be a day"),
    "a target": (
        "subject", Texts(pl.Series(but("Patient/p", "Organization/p")), under="reference"), "subject must lead"),
    "a comparator": (
        "valueQuantity",
        Parts([("value", Texts(pl.Series(["1"] * MANY), quoted=False)), ("comparator", column(but(None, "~")))],
              np.ones(MANY, dtype=np.bool_)), "comparator"),
}  # fmt: skip


@pytest.mark.parametrize("what", TEXTS)
def test_one_text_among_many_that_breaks_a_rule_is_refused(what: str) -> None:
    element, cells, rule = TEXTS[what]
    with pytest.raises(InternalError, match=rule):
        each(rows("Observation", **(observations() | {element: cells})))


@pytest.mark.parametrize("wrong", ["k_", "", "k" * 65, "k\n", None])
def test_an_id_that_fhir_does_not_allow_is_refused(wrong: str | None) -> None:
    ids = pl.Series([*(f"k{at}" for at in range(MANY - 1)), wrong])
    with pytest.raises(InternalError, match="an id that is none"):
        rows("Observation", **observations()).each(lambda _: ids, form=bare("Observation"))


def test_references_that_name_no_type_are_handed_on_with_what_they_may_lead_to() -> None:
    subject = Texts(pl.Series(but("urn:uuid:1", "urn:uuid:2")), under="reference")
    encounter = Texts(pl.Series(but("urn:uuid:3", None)), under="reference")
    made = each(rows("Observation", linked=False, **observations(subject=subject, encounter=encounter)))
    people = frozenset({"Patient", "Group", "Device", "Location"})
    assert [link.targets for link in made.links] == [people, frozenset({"Encounter"})]
    assert [link.texts[0] for link in made.links] == ["urn:uuid:1", "urn:uuid:3"]
    assert [link.texts[MANY - 2] for link in made.links] == ["urn:uuid:2", None]


def test_a_reference_in_a_form_that_nobody_could_check_is_refused() -> None:
    with pytest.raises(InternalError, match="subject is in no form that can be checked"):
        each(rows("Observation", linked=False, **observations()))
