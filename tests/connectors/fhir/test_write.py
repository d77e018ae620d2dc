from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made_records import condition, encounter, lines, observation, patient, quantity, tables_of
from made_tables import FULL, canonical, cohort, frame, made, precise, read_back, resources_in, without_words
from polars.testing import assert_frame_equal

from synthehr.connectors.fhir.bindings import problems_of, validate_r4b
from synthehr.connectors.fhir.labels import Labels
from synthehr.connectors.fhir.schema_default import default_schema
from synthehr.connectors.fhir.write import FHIR_FORMATS, write_fhir
from synthehr.connectors.fhir.write_units import is_ucum
from synthehr.errors import ConfigError, DataError, InternalError, SchemaError
from synthehr.schema.files import dump_schema, load_schema

Tables = dict[str, pl.DataFrame]
LOINC = "http://loinc.org"

# Everything that an observation may hold, and panels: two components without and one with a value of its own.
OBSERVED: list[dict[str, Any]] = [
    {"observation_id": "C", "patient_id": "A", "component_index": 0, "code": "a", **value}
    for value in (
        {"value_system": "urn:s", "value_code": "x", "value_display": "X"},
        {"value_string": "words of its own"},
        {"value_boolean": False},
        {"value_integer": -7},
        {"value_time_day": 12},
        {"absent_reason": "masked"},
        {"unit": "mg/dL"},
        {"value": 120.0, "unit": "beats per minute"},
        {"value": 1e-7},
        {"value": -1234567.125, "unit": "%"},
    )
]
OBSERVED = [row | {"observation_id": f"C{at}"} for at, row in enumerate(OBSERVED)]
PANELS: list[dict[str, Any]] = [
    {"observation_id": key, "patient_id": "A", "encounter_id": "A", "status": "final", "component_index": at,
     "effective_hour": 9, "code_system": LOINC, "code": f"c{at}", "code_display": None if at else "Panel",
     "value": float(at), "unit": "mm[Hg]",
     **({"panel_system": LOINC, "panel_code": "c0", "panel_display": "Panel"} if at else {})}
    for key, first in (("P", 1), ("Q", 0)) for at in range(first, 3)
]  # fmt: skip


def everything() -> Tables:
    return made(observation=OBSERVED + PANELS)


def write(tables: Tables, folder: Path, **more: Any) -> Any:
    settings = {"seed": 7, "synthetic": False} | more
    return write_fhir(cohort(tables), folder, **settings)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("reference"), str):
            yield value["reference"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


@pytest.mark.parametrize("format", FHIR_FORMATS)
def test_tables_come_back_from_fhir_as_they_were(format: str, tmp_path: Path) -> None:
    tables = everything()
    written = write(tables, tmp_path / "out", format=format)
    assert written.lost == {}
    before, after = canonical(tables), canonical(read_back(tmp_path / "out"))
    # patient B has no dated event, so that reading can give no anchor: it had none before
    assert before.keys() == after.keys()
    for name in before:
        assert_frame_equal(after[name], before[name].select(after[name].columns), check_exact=True)
        assert set(before[name].columns) == set(after[name].columns)


def test_each_nullable_column_was_tried_with_and_without_a_value() -> None:
    for name, table in everything().items():
        for column in table.columns:
            full = table[column].null_count() < table.height
            assert full, f"{name}.{column} has no value"
            required = column in ("patient_id", "deceased", "component_index", f"{name}_id")
            assert required or table[column].null_count() > 0, f"{name}.{column} has no null"


@pytest.mark.parametrize("format", FHIR_FORMATS)
def test_all_that_is_written_is_valid_and_every_reference_resolves(format: str, tmp_path: Path) -> None:
    write(everything(), tmp_path / "out", format=format, synthetic=True, epsilon=3.0, delta=1e-6, release_digest="d1")
    found = list(resources_in(tmp_path / "out"))
    assert {each["resourceType"] for each in found} >= {
        "Patient",
        "Observation",
        "Device",
        "Provenance",
        "Practitioner",
    }
    assert validate_r4b(found) == len(found)
    bundles = [each for each in found if each["resourceType"] == "Bundle"]
    parts = [[entry["resource"] for entry in bundle["entry"]] for bundle in bundles] or [found]
    for part in parts:
        if bundles:
            there = {f"urn:uuid:{each['id']}": each["resourceType"] for each in part}
        else:
            there = {f"{each['resourceType']}/{each['id']}": each["resourceType"] for each in part}
        assert len(there) == len(part)
        assert all(to in there for each in part for to in references(each))
        assert [problem for each in part for problem in problems_of(each, type_of=there.get)] == []


@pytest.mark.parametrize("format", FHIR_FORMATS)
def test_every_synthetic_resource_and_bundle_is_labelled(format: str, tmp_path: Path) -> None:
    write(everything(), tmp_path / "out", format=format, synthetic=True)
    for each in resources_in(tmp_path / "out"):
        [label], [tag] = each["meta"]["security"], each["meta"]["tag"]
        assert (label["system"], label["code"]) == ("http://terminology.hl7.org/CodeSystem/v3-ActReason", "HTEST")
        assert tag["code"] == "synthetic"


@pytest.mark.parametrize("format", FHIR_FORMATS)
def test_real_records_are_never_labelled_synthetic(format: str, tmp_path: Path) -> None:
    write(everything(), tmp_path / "out", format=format, synthetic=False)
    for each in resources_in(tmp_path / "out"):
        assert [tag["code"] for tag in each["meta"]["tag"]] == ["real-records"]
    text = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "HTEST" not in text and '"synthetic","' not in text
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="come of no release"):
        write(everything(), tmp_path / "more", synthetic=False, epsilon=1.0)


@pytest.mark.parametrize("format", FHIR_FORMATS)
@pytest.mark.parametrize(
    "meta", [{}, {"security": []}, {"tag": [{"system": "urn:synthehr:tags", "code": "synthetic"}]}]
)
def test_a_write_in_which_a_label_is_missing_fails_and_leaves_nothing(
    meta: dict[str, Any], format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Labels.device

    def unlabelled(self: Labels, key: str) -> dict[str, Any]:
        return begin(self, key) | {"meta": meta}

    monkeypatch.setattr(Labels, "device", unlabelled)
    with pytest.raises(InternalError, match="without the label"):
        write(everything(), tmp_path / "out", format=format, synthetic=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("synthetic", [True, False])
def test_a_label_that_says_the_contrary_fails(synthetic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Labels(synthetic=not synthetic, version="1").meta
    monkeypatch.setattr(Labels, "meta", wrong)
    with pytest.raises(InternalError, match="without the label"):
        write(everything(), tmp_path / "out", synthetic=synthetic)


@pytest.mark.parametrize("format", FHIR_FORMATS)
def test_equal_seeds_give_equal_bytes_and_other_seeds_other_ids_and_dates(format: str, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write(everything(), tmp_path / name, format=format, synthetic=True, seed=seed)
    files = {name: {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc"}
    assert files["a"] == files["b"]
    ids = {name: {each["id"] for each in resources_in(tmp_path / name)} for name in "ac"}
    births = {name: {each.get("birthDate") for each in resources_in(tmp_path / name)} - {None} for name in "ac"}
    assert not ids["a"] & ids["c"] and births["a"] != births["c"]


@pytest.mark.parametrize("format", FHIR_FORMATS)
def test_nothing_of_the_input_but_codes_and_units_is_in_a_synthetic_output(format: str, tmp_path: Path) -> None:
    secret = "SECRET"
    to: dict[str, Any] = {"reference": "Patient/id-of-a-person"}
    at: dict[str, Any] = {"reference": "Encounter/id-of-a-visit", "display": f"{secret}9"}
    person = patient(
        "id-of-a-person", name=[{"family": f"{secret}1"}], birthDate="1961-02-03", telecom=[{"value": f"{secret}2"}],
        identifier=[{"value": f"{secret}3"}], address=[{"line": [f"{secret}4"], "city": f"{secret}5", "state": "MA"}],
        text={"status": "generated", "div": f"<div>{secret}6</div>"},
    )  # fmt: skip
    source = [
        person,
        encounter("id-of-a-visit", subject="Patient/id-of-a-person", period={"start": "1997-05-06T07:08:09-05:00"}),
        condition(
            "id-of-an-illness",
            subject="Patient/id-of-a-person",
            onsetDateTime="1998-11-12",
            note=[{"text": f"{secret}7"}],
        ),
        observation("id-of-a-value", subject="Patient/id-of-a-person", valueQuantity=quantity(171.5, "cm")),
        observation("id-of-words", subject="Patient/id-of-a-person", valueString=f"{secret}8"),
        {"resourceType": "MedicationRequest", "id": "id-of-an-order", "status": "active", "intent": "order",
         "subject": to, "encounter": at, "authoredOn": "1999-01-02T03:04:05+01:00", "contained": [
             {"resourceType": "Medication", "id": "inside", "code": {"text": f"{secret}10", "coding": [
                 {"system": "urn:rx", "code": "860975", "display": f"{secret}11"}]}}],
         "medicationReference": {"reference": "#inside"}, "requester": {"display": f"{secret}12"}},
        {"resourceType": "Procedure", "id": "id-of-a-cut", "status": "completed", "subject": to, "encounter": at,
         "performedPeriod": {"start": "1999-03-04T05:06:07Z", "end": "1999-03-04T06:07:08Z"},
         "code": {"coding": [{"system": "http://snomed.info/sct", "code": "73761001", "display": f"{secret}13"}]}},
        {"resourceType": "Immunization", "id": "id-of-a-shot", "status": "completed", "patient": to,
         "lotNumber": f"{secret}14", "occurrenceDateTime": "1999-05-06",
         "vaccineCode": {"coding": [{"system": "http://hl7.org/fhir/sid/cvx", "code": "140"}]}},
        {"resourceType": "AllergyIntolerance", "id": "id-of-an-allergy", "patient": to, "recordedDate": "1999-07-08",
         "code": {"text": f"{secret}15", "coding": [{"system": "http://snomed.info/sct", "code": "91935009"}]}},
    ]  # fmt: skip
    tables = without_words(tables_of(lines(tmp_path / "in.ndjson", source)))
    assert all(table.height == 1 + (name == "observation") for name, table in tables.items())
    write(tables, tmp_path / "out", format=format, synthetic=True)
    given = {text for each in source for text in strings(each)}
    codes = {"Patient", "Encounter", "Condition", "Observation", "female", "MA", "finished", "AMB", "final", "44054006",
             "8302-2", "cm", "generated", "http://snomed.info/sct", LOINC, "http://unitsofmeasure.org",
             "MedicationRequest", "Procedure", "Immunization", "AllergyIntolerance", "Medication", "active", "order",
             "completed", "urn:rx", "860975", "73761001", "http://hl7.org/fhir/sid/cvx", "140", "91935009", "inside",
             }  # fmt: skip
    told = {text for each in resources_in(tmp_path / "out") for text in strings(each)}
    assert not (given - codes) & told
    everything_told = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    for text in given - codes:
        assert text not in everything_told
    assert secret not in everything_told and "171.5" in everything_told


def test_words_are_not_written_of_synthetic_records_and_that_is_counted(tmp_path: Path) -> None:
    written = write(everything(), tmp_path / "out", synthetic=True)
    text = (tmp_path / "out" / "Observation.ndjson").read_text()
    assert "words of its own" not in text and "Glucose" not in text
    assert written.lost["observation"]["value_string"] == {"words are not written of synthetic records": 1}
    assert written.lost["observation"]["code_display"] == {"words are not written of synthetic records": 2}


def test_what_a_model_makes_is_written_with_system_code_and_unit(tmp_path: Path) -> None:
    rows = [
        {"patient_id": "A", "component_index": 0, "code_system": LOINC, "code": "8302-2", "value": 171.5, "unit": "cm"},
        {"patient_id": "A", "component_index": 0},
    ]
    tables = without_words(made())
    tables["observation"] = without_words({"observation": frame("observation", rows)})["observation"].with_columns(
        pl.Series("concept", [f"{LOINC}|8302-2|cm", "OTHER"])
    )
    write(tables, tmp_path / "out", synthetic=True)
    first, second = (json.loads(line) for line in (tmp_path / "out" / "Observation.ndjson").read_text().splitlines())
    assert first["code"] == {"coding": [{"system": LOINC, "code": "8302-2"}]}
    assert first["valueQuantity"] == {
        "value": 171.5, "unit": "cm", "system": "http://unitsofmeasure.org", "code": "cm",
    }  # fmt: skip
    assert second["code"]["coding"][0]["code"] == "OTH"  # v3 NullFlavor: what is not among the codes


@pytest.mark.parametrize(
    ("places", "value", "text"),
    [(0.01, 1.5, "1.50"), (0.01, 120.0, "120.00"), (0.1, 1.25, "1.25"), (1.0, 7.0, "7"), (None, 1.5, "1.5"),
     (None, 120.0, "120"), (0.001, 1e-07, "1e-07")],
)  # fmt: skip
def test_a_number_is_written_as_precise_as_its_column_and_never_rounded(
    places: float | None, value: float, text: str, tmp_path: Path
) -> None:
    tables = made() | {"observation": frame("observation", [FULL["observation"] | {"patient_id": "A", "value": value}])}
    schema = precise(places) if places is not None else None
    write_fhir(cohort(tables, schema), tmp_path / "out", seed=1, synthetic=True)
    told = (tmp_path / "out" / "Observation.ndjson").read_text()
    found = re.search(r'"value":([^,}]+)', told)
    assert found is not None and found[1].replace("e-7", "e-07") == text


def test_dates_lie_on_a_calendar_of_their_own_that_no_event_leaves(tmp_path: Path) -> None:
    rows = [{"patient_id": f"p{at}", "deceased": False, "anchor": "birth_date"} for at in range(200)]
    events = [{"encounter_id": f"e{at}", "patient_id": f"p{at}", "start_hour": 24 * 100 * at, "duration_minutes": 90}
              for at in range(200)]  # fmt: skip
    tables = {"patient": frame("patient", rows), "encounter": frame("encounter", events)}
    contents = dump_schema(default_schema())
    kept = load_schema(contents | {"tables": {name: contents["tables"][name] for name in tables}})
    write_fhir(cohort(tables, kept), tmp_path / "out", seed=3, synthetic=True)
    starts = [each["period"]["start"] for each in resources_in(tmp_path / "out") if "period" in each]
    assert all(re.fullmatch(r"20(1[5-9]|2[0-4])-\d\d-\d\dT00:00:00\+00:00", start) for start in starts)
    assert len(set(starts)) > 150  # of 3,653 days
    ends = [each["period"]["end"][11:] for each in resources_in(tmp_path / "out") if "period" in each]
    assert set(ends) == {"01:30:00+00:00"}


def test_nothing_is_written_that_would_tell_who_somebody_is(tmp_path: Path) -> None:
    write(everything(), tmp_path / "out", synthetic=True)
    for each in resources_in(tmp_path / "out"):
        assert not {"text", "telecom", "contact", "photo"} & set(each)
        for identifier in each.get("identifier", []):
            assert identifier == {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{each['id']}"}
        for name in each.get("name", []):  # of a person only that it is absent
            assert "data-absent-reason" in str(name) and not {"text", "family", "given"} & set(name)
        for address in each.get("address", []):
            assert set(address) <= {"state", "postalCode"} and len(address.get("postalCode", "021")) == 3


def test_a_bundle_is_a_transaction_that_needs_nothing_outside_it(tmp_path: Path) -> None:
    write(everything(), tmp_path / "out", format="fhir-bundle", synthetic=True)
    first, second = (json.loads((tmp_path / "out" / f"patient-00000{n}.json").read_text()) for n in (1, 2))
    assert first["type"] == second["type"] == "transaction"
    for entry in first["entry"] + second["entry"]:
        assert entry["fullUrl"] == f"urn:uuid:{entry['resource']['id']}"
        assert entry["request"] == {"method": "POST", "url": entry["resource"]["resourceType"]}
    assert all(to.startswith("urn:uuid:") for to in references([first, second]))
    kinds = [entry["resource"]["resourceType"] for entry in second["entry"]]
    assert kinds == ["Patient", "Device", "Provenance"]  # patient B has nothing else


@pytest.mark.parametrize("format", FHIR_FORMATS)
def test_provenance_tells_what_the_release_promised(format: str, tmp_path: Path) -> None:
    write(everything(), tmp_path / "out", format=format, synthetic=True, release_digest="d1", epsilon=3.0, delta=1e-6)
    found = [each for each in resources_in(tmp_path / "out") if each["resourceType"] == "Provenance"]
    files = {path.name for path in (tmp_path / "out").glob("*.ndjson")}
    assert len(found) == (len(files) if format == "fhir-ndjson" else 2)
    for each in found:
        told = {part["url"].removeprefix("urn:synthehr:"): list(part.values())[1] for part in each["extension"]}
        assert told.pop("file", None) in (files if format == "fhir-ndjson" else {None})
        assert told == {"synthetic": True, "release-digest": "d1", "epsilon": 3.0, "delta": 1e-6}
        assert each["target"] and each["agent"][0]["who"]


def test_ndjson_has_a_manifest_of_every_file(tmp_path: Path) -> None:
    write(everything(), tmp_path / "out", synthetic=True, epsilon=2.0, delta=1e-6)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    counts = {each["url"]: (each["type"], each["count"]) for each in manifest["output"]}
    lines_in = {
        path.name: (path.stem, len(path.read_text().splitlines())) for path in (tmp_path / "out").glob("*.ndjson")
    }
    assert counts == lines_in
    assert manifest["extension"]["urn:synthehr"] == {"synthetic": True, "epsilon": 2.0, "delta": 1e-6}


def test_what_r4_has_no_place_for_is_counted_and_not_written(tmp_path: Path) -> None:
    tables = made(
        observation=[
            {"observation_id": "X", "patient_id": "A", "component_index": 0, "code": "a", "value": 1.0,
             "absent_reason": "masked", "comparator": "ad"},
        ],
        encounter=[{"encounter_id": "X", "patient_id": "A", "status": "discharged", "duration_minutes": 5}],
        condition=[
            {"condition_id": "X", "patient_id": "A", "clinical_status": "active", "onset_day": 1, "duration_days": 2},
            {"condition_id": "Y", "patient_id": "A", "clinical_status": "active",
             "verification_status": "entered-in-error"},
        ],
        allergy_intolerance=[{"allergy_intolerance_id": "X", "patient_id": "A", "verification_status": "presumed"}],
    )  # fmt: skip
    written = write(tables, tmp_path / "out")
    assert written.lost == {
        "observation": {
            "comparator": {"is a comparator of R5": 1},
            "dataAbsentReason": {"another value stands in the same row": 1},
        },
        "encounter": {
            "duration_minutes": {"its beginning is missing": 1},
            "status": {"is a code of R5, written as the nearest of R4": 1},
        },
        "condition": {
            "clinical_status": {"FHIR forbids it beside the status": 1},
            "duration_days": {"FHIR forbids it beside the status": 1},
        },
        "allergy_intolerance": {"verification_status": {"is no code that FHIR R4 has a place for": 1}},
    }
    assert validate_r4b(resources_in(tmp_path / "out"))


def changed(table: str, **columns: Any) -> Tables:
    tables = made()
    return tables | {table: tables[table].with_columns(**columns)}


BAD: dict[str, tuple[Tables, type[Exception], str]] = {
    "a visit that is not there": (changed("condition", encounter_id=pl.lit("Z")), DataError, "must hold keys of rows"),
    "another's visit": (changed("encounter", patient_id=pl.Series(["A", "B"])), DataError, "rows of the same patient"),
    "a strange column": (changed("patient", age=pl.lit(3)), SchemaError, "'age' of table 'patient' has no place"),
    "an endless life": (changed("condition", onset_day=pl.lit(10**7)), DataError, "within 120000 days"),
    "no number": (changed("observation", value=pl.lit(float("nan"))), DataError, "finite numbers"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_written_is_refused_in_one_line_and_leaves_nothing(what: str, tmp_path: Path) -> None:
    tables, error, message = BAD[what]
    with pytest.raises(error, match=message) as caught:
        write(tables, tmp_path / "out")
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("unit", "known"),
    [("mm[Hg]", True), ("kg/m2", True), ("mL/min/{1.73_m2}", True), ("10*3/uL", True), ("{score}", True), ("%", True),
     ("/min", True), ("umol/(24.h)", True), ("mmHg", False), ("beats", False), ("mm Hg", False), ("weeks", False),
     ("µmol/L", False), ("kg//m", False), ("(kg", False)],
)  # fmt: skip
def test_only_ucum_is_written_as_ucum(unit: str, known: bool) -> None:
    assert is_ucum(unit) is known
