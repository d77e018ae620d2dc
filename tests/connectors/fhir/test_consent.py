from __future__ import annotations

import datetime as dt
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from made_records import audited, condition, encounter, lines, options, patient

from synthehr.connectors.fhir.consent import ConsentPolicy, consent_record

NOW = dt.datetime(2024, 6, 1, tzinfo=dt.UTC)
HL7 = Path(__file__).parents[4] / "shared" / "data" / "fhir" / "hl7_r4_examples" / "examples.ndjson.gz"


def coded(code: str) -> dict[str, Any]:
    return {"coding": [{"code": code}]}


def consent(**more: Any) -> dict[str, Any]:
    base = {"resourceType": "Consent", "status": "active", "scope": coded("research"), "dateTime": "2020-01-01"}
    return {**base, "patient": {"reference": "Patient/p"}, **more}


def permit(**more: Any) -> dict[str, Any]:
    return consent(provision={"type": "permit"}, **more)


def deny(**more: Any) -> dict[str, Any]:
    return consent(provision={"type": "deny"}, **more)


def keeps(*consents: dict[str, Any], mode: Any = "exclude-opt-out", privacy: bool = True) -> bool:
    policy = ConsentPolicy(mode=mode, privacy_opt_out=privacy, at=NOW)
    return policy.keeps([consent_record(one) for one in consents])


def test_who_said_nothing_stays_unless_a_yes_is_required() -> None:
    assert keeps()
    assert not keeps(mode="require-opt-in")
    assert keeps(mode="ignore")


OUT = {
    "deny": deny(),
    "policyRule OPTOUT, no provision": consent(policyRule=coded("OPTOUT")),
    "OPTOUT although the provision permits": permit(policyRule=coded("OPTOUT")),
    "OPTIN that ends in a deny": deny(policyRule=coded("OPTIN")),
    "expired": consent(provision={"type": "permit", "period": {"end": "2023-12-31"}}),
    "not yet begun": consent(provision={"type": "permit", "period": {"start": "2025"}}),
    "a period that cannot be read": consent(provision={"type": "permit", "period": {"end": "soon"}}),
    "nested": consent(provision={"type": "permit", "provision": [{"type": "deny"}]}),
    "narrowed to data": consent(provision={"type": "permit", "data": [{"meaning": "related"}]}),
    "narrowed to a class": consent(provision={"type": "permit", "class": [{"code": "x"}]}),
    "for another purpose too": consent(
        provision={"type": "permit", "purpose": [{"code": "HRESCH"}, {"code": "TREAT"}]}
    ),
    "says nothing": consent(),
    "with a modifier": permit(modifierExtension=[{"url": "x"}]),
    "rejected": permit(status="rejected"),
    "of a status that FHIR does not know": permit(status="perhaps"),
    "not FHIR": consent(provision="permit"),
    "a no without scope": deny(scope=None, category=[coded("11")]),
    "R5 deny": consent(decision="deny", scope=None, category=[coded("research")]),
    "R5 permit with exceptions": consent(decision="permit", category=[coded("research")], provision=[{"purpose": []}]),
}


@pytest.mark.parametrize("one", OUT.values(), ids=OUT)
def test_a_no_and_every_doubt_keep_a_patient_out(one: dict[str, Any]) -> None:
    assert not keeps(one)
    assert not keeps(one, mode="require-opt-in")
    assert keeps(one, mode="ignore")


IN = {
    "permit": permit(),
    "policyRule OPTIN": consent(policyRule=coded("OPTIN")),
    "permit for research by purpose": consent(
        scope=coded("patient-privacy"), provision={"type": "permit", "purpose": [{"code": "HRESCH"}]}
    ),
    "in force": consent(provision={"type": "permit", "period": {"start": "2024-06-01T00:00:00Z", "end": "2024-06"}}),
    "R5": {
        "resourceType": "Consent",
        "status": "active",
        "category": [coded("research")],
        "date": "2024-01-01",
        "subject": {"reference": "Patient/p"},
        "decision": "permit",
    },
}


@pytest.mark.parametrize("one", IN.values(), ids=IN)
def test_a_clear_yes_to_research_lets_a_patient_in(one: dict[str, Any]) -> None:
    assert keeps(one)
    assert keeps(one, mode="require-opt-in")


def test_the_latest_wins() -> None:
    assert keeps(deny(dateTime="2020-01-01"), permit(dateTime="2021-01-05"))
    assert not keeps(permit(dateTime="2020-01-01"), deny(dateTime="2021-01-05"))


@pytest.mark.parametrize("yes", ["2021", "2020-01-01T10:00:00+14:00", None, "whenever"])
def test_where_the_latest_cannot_be_told_a_no_wins(yes: str | None) -> None:
    # June of 2021 may lie before or behind "2021"; ten o'clock lies before twelve; the last two cannot be placed
    no = deny(dateTime="2021-06-01") if yes == "2021" else deny(dateTime="2020-01-01T12:00:00+14:00")
    assert not keeps(no, permit(dateTime=yes))


def test_a_consent_that_is_no_longer_in_force_by_its_status_does_not_count() -> None:
    assert keeps(deny(status="inactive"))
    assert keeps(deny(status="entered-in-error"))
    assert not keeps(permit(status="inactive"), mode="require-opt-in")


def test_a_general_refusal_counts_by_setting() -> None:
    general = consent(scope=coded("patient-privacy"), policyRule=coded("OPTOUT"))
    assert not keeps(general)
    assert keeps(general, privacy=False)
    assert not keeps(general, permit(dateTime="2023-01-01"))


def test_a_yes_of_unknown_scope_is_neither_a_refusal_nor_a_yes_to_research() -> None:
    assert keeps(permit(scope=None))
    assert not keeps(permit(scope=None), mode="require-opt-in")


def test_a_general_yes_is_no_yes_to_research() -> None:
    general = consent(scope=coded("patient-privacy"), policyRule=coded("OPTIN"))
    assert keeps(general)
    assert not keeps(general, mode="require-opt-in")


def test_a_consent_to_treatment_says_nothing() -> None:
    assert keeps(deny(scope=coded("treatment")))


def test_the_whole_compartment_goes_before_anything_is_counted(tmp_path: Path) -> None:
    people = [
        thing
        for name in ("a", "b", "c")
        for thing in (patient(name), condition(f"c{name}", f"Patient/{name}"), encounter(f"e{name}", f"Patient/{name}"))
    ]
    people[4]["encounter"] = {"reference": "Encounter/nowhere"}
    refusal = deny(patient={"reference": "https://server/Patient/b/_history/1"})
    stranger = deny(patient={"reference": "Patient/stranger"})
    records, tables = audited(lines(tmp_path / "all.ndjson", [refusal, *people, stranger]))
    assert {name: tables[name].height for name in ("patient", "condition", "encounter")} == {
        "patient": 2,
        "condition": 2,
        "encounter": 2,
    }
    assert records.audit["consent"] == {
        "mode": "exclude-opt-out",
        "consents of no patient in the source": 1,
        "patients left out": 1,
    }
    assert records.audit["cells_made_null"]["condition"] == {}
    assert records.audit["rows"]["condition"]["left out by consent"] == 1
    assert tables["patient"]["patient_id"].to_list() == tables["condition"]["patient_id"].to_list()


def test_with_a_yes_required_only_those_who_said_so_stay(tmp_path: Path) -> None:
    people = [
        patient("a"),
        patient("b", gender="male"),
        condition("c", "Patient/a"),
        permit(patient={"reference": "Patient/b"}),
    ]
    _, tables = audited(lines(tmp_path / "all.ndjson", people), options(consent="require-opt-in"))
    assert tables["patient"]["gender"].to_list() == ["male"]
    assert tables["condition"].height == 0


def test_a_consent_behind_an_identifier_is_found(tmp_path: Path) -> None:
    number = {"system": "http://hospital", "value": "7"}
    people = [patient("a", identifier=[number]), patient("b"), deny(patient={"identifier": number})]
    _, tables = audited(lines(tmp_path / "all.ndjson", people))
    assert tables["patient"].height == 1


@pytest.mark.skipif(not HL7.exists(), reason="HL7's examples are not here")
def test_hl7s_twelve_examples_are_read() -> None:
    found = [json.loads(line) for line in gzip.decompress(HL7.read_bytes()).splitlines()]
    records = {one["id"]: consent_record(one) for one in found if one["resourceType"] == "Consent"}
    assert len(records) == 12
    assert {record.scope for record in records.values()} == {"privacy"}
    out = {name for name, record in records.items() if record.content == "out"}
    assert out == {f"consent-example-{name}" for name in ("Emergency", "Out", "grantor", "pkb", "notOrg")}
    clear = {name for name, record in records.items() if record.content == "in"}
    assert clear == {"consent-example-basic", "consent-example-notTime"}  # both of them expired
    assert {record.says(at=NOW) for record in records.values()} == {"out"}
    then = dt.datetime(2015, 1, 15, tzinfo=dt.UTC)
    assert {name for name, record in records.items() if record.says(at=then) == "in"} == clear
