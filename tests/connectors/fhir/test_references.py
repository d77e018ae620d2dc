from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_records import (
    audited,
    bundle,
    condition,
    encounter,
    lines,
    observation,
    options,
    patient,
    read_lines,
    tables_of,
)

from synthehr.connectors.fhir import reading, spool
from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.connectors.fhir.reading import FhirOptions
from synthehr.connectors.fhir.references import aliases_of, leads_in_circles, read_references

MRN = {"system": "http://hospital/mrn", "value": "4711"}
WAYS = {
    "relative": "Patient/p",
    "of a version": "Patient/p/_history/3",
    "absolute": "https://server/fhir/Patient/p",
    "absolute, of a version": "https://server/fhir/Patient/p/_history/2",
    "conditional": "Patient?identifier=http://hospital/mrn|4711",
    "conditional, escaped": "Patient?identifier=http%3A%2F%2Fhospital%2Fmrn%7C4711",
    "conditional, without system": "Patient?identifier=4711",
    "logical": {"identifier": MRN, "type": "Patient"},
    "logical, without type": {"identifier": MRN},
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_to_refer_to_a_patient_leads_to_the_same_row(way: object, tmp_path: Path) -> None:
    tables = read_lines(tmp_path, condition(subject=way), patient("q"), patient(identifier=[MRN], gender="male"))
    men = tables["patient"].filter(gender="male")["patient_id"]
    assert tables["condition"]["patient_id"].to_list() == men.to_list()


@pytest.mark.parametrize("url", ["urn:uuid:6f1b", "https://server/fhir/Patient/6f1b", "urn:oid:1.2.3"])
def test_the_full_url_of_an_entry_is_a_name_of_its_resource(url: str, tmp_path: Path) -> None:
    whole = bundle(patient("other name"), condition(subject=url), encounter(subject=url))
    whole["entry"][0]["fullUrl"] = url
    (tmp_path / "b.json").write_text(json.dumps(whole))
    tables = tables_of(tmp_path / "b.json")
    assert tables["condition"]["patient_id"].to_list() == tables["patient"]["patient_id"].to_list()


def test_a_resource_without_id_goes_by_its_full_url(tmp_path: Path) -> None:
    nameless = patient()
    del nameless["id"]
    (tmp_path / "b.json").write_text(json.dumps(bundle(nameless, condition(subject="urn:uuid:0"))))
    tables = tables_of(tmp_path / "b.json")
    assert tables["condition"]["patient_id"].to_list() == tables["patient"]["patient_id"].to_list()


def test_references_lead_across_files_and_pieces_whatever_comes_first(tmp_path: Path) -> None:
    lines(tmp_path / "Condition.ndjson", [condition(encounter={"reference": "Encounter/e"})])
    lines(tmp_path / "Encounter.ndjson", [encounter()])
    lines(tmp_path / "Patient.ndjson", [patient()])
    tables = tables_of(tmp_path)
    assert tables["condition"]["encounter_id"].to_list() == tables["encounter"]["encounter_id"].to_list()
    assert tables["condition"]["patient_id"].to_list() == tables["patient"]["patient_id"].to_list()


def test_a_medication_is_found_where_it_is_contained_or_a_resource_of_its_own(tmp_path: Path) -> None:
    def medication(name: str, code: str) -> dict[str, object]:
        coding = {"coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": code}]}
        return {"resourceType": "Medication", "id": name, "code": coding}

    def request(name: str, to: str, **more: object) -> dict[str, object]:
        return {
            "resourceType": "MedicationRequest",
            "id": name,
            "status": "active",
            "intent": "order",
            "subject": {"reference": "Patient/p"},
            "medicationReference": {"reference": to},
        } | more

    tables = read_lines(
        tmp_path,
        patient(),
        request("a", "Medication/m"),
        request("b", "#m", contained=[medication("m", "22")]),
        request("c", "#m", contained=[medication("m", "33")]),
        request("d", "Medication/nowhere"),
        medication("m", "11"),
    )
    assert tables["medication_request"]["medication"].to_list() == ["11", "22", "33", None]


def test_an_identifier_of_two_patients_leads_to_neither(tmp_path: Path) -> None:
    source = [patient("p", identifier=[MRN]), patient("q", identifier=[MRN]), condition(subject=WAYS["conditional"])]
    records, tables = audited(lines(tmp_path / "all.ndjson", source), options("drop"))
    assert tables["condition"].height == 0
    assert records.audit["bad_records"] == {"has a subject that is not in the source": 1}


def test_a_subject_that_is_no_patient_is_left_out_and_counted_but_not_bad(tmp_path: Path) -> None:
    herd = [observation("g", "Group/herd"), observation("d", {"reference": "urn:uuid:x", "type": "Device"})]
    nobody = observation("n")
    del nobody["subject"]
    records, tables = audited(lines(tmp_path / "all.ndjson", [patient(), herd[0], nobody, observation()]))
    assert tables["observation"].height == 1
    assert records.audit["rows"]["observation"]["not of a patient"] == 2


def test_a_reference_to_nothing_becomes_null_and_is_counted(tmp_path: Path) -> None:
    source = [patient(), condition(encounter={"reference": "Encounter/gone"}), condition("d")]
    records, tables = audited(lines(tmp_path / "all.ndjson", source))
    assert tables["condition"]["encounter_id"].to_list() == [None, None]
    assert records.audit["cells_made_null"]["condition"] == {"encounter_id": {"leads nowhere": 1}}


def test_a_row_never_leads_to_another_patients_record(tmp_path: Path) -> None:
    source = [
        patient(),
        patient("q"),
        encounter(subject="Patient/q"),
        condition(encounter={"reference": "Encounter/e"}),
    ]
    records, tables = audited(lines(tmp_path / "all.ndjson", source))
    assert tables["condition"]["encounter_id"].to_list() == [None]
    assert records.audit["cells_made_null"]["condition"] == {"encounter_id": {"leads to another patient's record": 1}}


def test_encounters_in_a_circle_lead_nowhere_and_are_counted(tmp_path: Path) -> None:
    def part(name: str, of: str) -> dict[str, object]:
        return encounter(name, partOf={"reference": f"Encounter/{of}"})

    # a -> b -> c -> b is a circle that a leads into; e -> d is a chain that ends
    source = [patient(), part("a", "b"), part("b", "c"), part("c", "b"), encounter("d"), part("e", "d")]
    records, tables = audited(lines(tmp_path / "all.ndjson", source))
    keys = tables["encounter"]["encounter_id"].to_list()
    assert tables["encounter"]["part_of_id"].to_list() == [None, None, None, None, keys[3]]
    assert records.audit["cells_made_null"]["encounter"] == {"part_of_id": {"leads in a circle": 3}}


def test_circles_are_found_in_chains_of_any_length() -> None:
    chain = np.arange(-1, 99)  # 99 -> 98 -> … -> 0 -> none
    assert not leads_in_circles(chain).any()
    ring = np.roll(np.arange(100), 1)
    assert leads_in_circles(ring).all()
    assert leads_in_circles(np.array([0, -1, 1])).tolist() == [True, False, False]
    assert leads_in_circles(np.array([], dtype=np.int64)).tolist() == []


def test_no_id_of_the_source_is_in_a_table(tmp_path: Path) -> None:
    source = [
        patient("SECRET-p", identifier=[{"value": "SECRET-mrn"}]),
        encounter("SECRET-e", "Patient/SECRET-p"),
        condition("SECRET-c", "Patient/SECRET-p", encounter={"reference": "Encounter/SECRET-e"}),
    ]
    for table in read_lines(tmp_path, *source).values():
        assert "SECRET" not in table.write_csv()


@pytest.mark.parametrize("most", [1, 3, 1 << 17])
def test_repeated_resources_are_found_however_few_names_are_compared_at_once(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_HASHES", most)
    people = [patient(f"p{at}") for at in range(9)]
    again = [patient("p1", gender="male"), patient("p7", gender="male"), patient("p7", gender="other")]
    policy = FhirOptions(on_bad=BadRowPolicy(mode="drop", most=1.0), processes=2)  # with two, rows go through files
    records, tables = audited(lines(tmp_path / "in.ndjson", [*people, *again]), policy)
    assert [each.line for each in records.bad] == [10, 11, 12]
    assert tables["patient"]["gender"].to_list() == ["female"] * 9


def test_nobody_can_tell_beforehand_which_names_fall_together() -> None:
    names = [("Patient/a", "Patient", 0), ("Patient/b", "Patient", 1)]
    one, other = (aliases_of(names, secret=secret)["alias"] for secret in (1, 2**64 - 1))
    assert (one != other).all()
    found = read_references(["Patient/a", "Patient/b"], secret=2**64 - 1)["exact"]
    assert found.to_list() == other.to_list()


def test_each_reading_has_a_secret_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    class Watched(spool.Spool):
        def __init__(self, *, secret: int) -> None:
            drawn.append(secret)
            super().__init__(secret=secret)

    monkeypatch.setattr(reading, "Spool", Watched)
    for name in ("one", "two"):
        read = tables_of(lines(tmp_path / f"{name}.ndjson", [patient(), condition()]))
        assert read["condition"]["patient_id"].equals(read["patient"]["patient_id"])
    assert drawn[0] != drawn[1]
