from __future__ import annotations

import copy
import csv
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_records import (
    audited,
    bundle,
    condition,
    encounter,
    lines,
    observation,
    options,
    patient,
    quantity,
    tables_of,
)

from synthehr.connectors.conversion import convert
from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.errors import ConfigError, DataError

SECRET = "SECRET-4711"
BAD = {
    "broken JSON": ('{"resourceType": "Condition", "id": "SECRET-4711"', "is not valid JSON"),
    "no JSON": (SECRET, "is not valid JSON"),
    "not UTF-8": (b'{"resourceType": "Condition", "id": "SECRET-4711 \xe9"}', "is not valid JSON"),
    "a list": ("[1, 2]", "is no FHIR resource: it needs a resourceType"),
    "no resourceType": ({"id": SECRET}, "is no FHIR resource: it needs a resourceType"),
    "resourceType of a wrong type": ({"resourceType": 7}, "is no FHIR resource: it needs a resourceType"),
    "unknown type": ({"resourceType": "Secret4711"}, "has a resourceType that FHIR does not know"),
    "subject is text": (condition(SECRET, code=SECRET), "has an element of the wrong type"),
    "id is a number": (condition() | {"id": 7}, "has an element of the wrong type"),
    "code is a list": (condition(SECRET, code=[{}]), "has an element of the wrong type"),
    "value is text": (observation(SECRET, valueQuantity={"value": SECRET}), "does not fit the view 'observation'"),
    "value is huge": (observation(SECRET, valueQuantity={"value": 10**400}), "is not valid JSON"),
    "deeper types": (condition(SECRET, code={"coding": [{"code": 7}]}), None),
    "deep nesting": (
        '{"resourceType": "Condition", "extension": ' + "[" * 5000 + "]" * 5000 + "}",
        "is not valid JSON",
    ),
    "huge text": (
        condition("h", code={"coding": [{"code": "S" * 70_000}]}),
        "has text longer than 64 KiB where a code, key or word belongs",
    ),
    "dangling subject": (condition(SECRET, f"Patient/{SECRET}"), "has a subject that is not in the source"),
    "an entry that is no object": (
        json.dumps({"resourceType": "Bundle", "entry": [SECRET]}),
        "has a bundle entry that is no resource",
    ),
    "entries that are no list": (
        json.dumps({"resourceType": "Bundle", "entry": SECRET}),
        "has a bundle entry that is no resource",
    ),
    "second of an id": (patient(), "is a second resource with the same type and id"),
}


def with_bad(folder: Path, bad: Any) -> tuple[Path, int]:
    """A file whose third line is bad, and the byte at which that line begins."""
    good = [json.dumps(one).encode() for one in (patient(), encounter(), condition())]
    third = bad if isinstance(bad, bytes) else bad.encode() if isinstance(bad, str) else json.dumps(bad).encode()
    path = folder / "all.ndjson"
    path.write_bytes(b"\n".join([*good[:2], third, *good[2:]]))
    return path, len(good[0]) + len(good[1]) + 2


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
def test_fail_tells_where_and_why_in_one_line_and_never_what(bad: Any, reason: str | None, tmp_path: Path) -> None:
    source, offset = with_bad(tmp_path, bad)
    with pytest.raises(DataError) as told:
        tables_of(source, options("fail"))
    text = str(told.value)
    assert text.startswith(f"'all.ndjson', line 3, byte {offset}: {reason or ''}")
    assert SECRET not in text
    assert "\n" not in text


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
def test_drop_leaves_out_that_record_alone_and_counts_it(bad: Any, reason: str | None, tmp_path: Path) -> None:
    source, _ = with_bad(tmp_path, bad)
    records, tables = audited(source, options("drop"))
    assert {name: table.height for name, table in tables.items() if table.height} == {
        "patient": 1,
        "encounter": 1,
        "condition": 1,
    }
    assert sum(records.audit["bad_records"].values()) == 1
    assert reason is None or records.audit["bad_records"] == {reason: 1}


@pytest.mark.parametrize(("bad", "reason"), BAD.values(), ids=BAD)
def test_quarantine_lists_place_and_reason_for_the_owner_alone(bad: Any, reason: str | None, tmp_path: Path) -> None:
    source, offset = with_bad(tmp_path, bad)
    convert(source, out=tmp_path / "out", fhir=options("quarantine"))
    listed = tmp_path / "out" / "quarantine.csv"
    rows = list(csv.reader(listed.read_text().splitlines()))
    assert rows[0] == ["file", "line", "byte_offset", "reason"]
    assert rows[1][:3] == ["all.ndjson", "3", str(offset)]
    assert reason is None or rows[1:] == [["all.ndjson", "3", str(offset), reason]]
    assert SECRET not in listed.read_text()
    assert listed.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "out" / "AUDIT.json").stat().st_mode & 0o777 == 0o600


def test_bad_entries_of_a_bundle_stand_at_their_own_byte(tmp_path: Path) -> None:
    claim = {"resourceType": "Claim", "id": "x"}
    whole = json.dumps(bundle(patient(), claim, condition(code=[]), claim))
    lines(tmp_path / "all.ndjson", [json.dumps(patient("q")), whole])
    with pytest.raises(DataError, match=r"line 2, byte (\d+): has an element of the wrong type") as told:
        tables_of(tmp_path / "all.ndjson")
    at = int(re.search(r"byte (\d+)", str(told.value))[1])  # type: ignore[index]
    assert (tmp_path / "all.ndjson").read_bytes()[at:].startswith(b'{"fullUrl": "urn:uuid:c"')


@pytest.mark.parametrize("cut", [1, 9, 40])
def test_a_truncated_gzip_keeps_whole_lines_and_is_reported(cut: int, tmp_path: Path) -> None:
    data = b"".join(json.dumps(patient(f"p{at}", gender="male")).encode() + b"\n" for at in range(500))
    path = tmp_path / "all.ndjson.gz"
    path.write_bytes(gzip.compress(data)[:-cut])
    records, tables = audited(path, options("drop"))
    assert records.audit["bad_records"] == {"stands where the gzip file is cut short or damaged": 1}
    assert 0 < tables["patient"].height <= 500
    with pytest.raises(DataError, match="cut short or damaged"):
        tables_of(path)


def test_a_file_that_is_no_gzip_is_reported(tmp_path: Path) -> None:
    lines(tmp_path / "Patient.ndjson", [patient()])
    (tmp_path / "Condition.ndjson.gz").write_bytes(b"plain")
    (tmp_path / "bundle.json.gz").write_bytes(b"plain")
    records, _ = audited(tmp_path, options("drop"))
    assert sum(records.audit["bad_records"].values()) == 2


@pytest.mark.parametrize("mode", ["drop", "quarantine"])
def test_more_than_one_bad_record_in_a_hundred_stops_the_run_unless_told_otherwise(mode: Any, tmp_path: Path) -> None:
    good = [patient(f"p{at}") for at in range(198)]
    lines(tmp_path / "a.ndjson", [*good, "broken", "broken"])  # 2 of 200
    lines(tmp_path / "b.ndjson", [*good[1:], "broken", "broken", "broken"])  # 3 of 200
    assert tables_of(tmp_path / "a.ndjson", options(mode, most=0.01))["patient"].height == 198
    with pytest.raises(DataError, match=r"more than 0\.01 of the records are bad"):
        tables_of(tmp_path / "b.ndjson", options(mode, most=0.01))
    assert tables_of(tmp_path / "b.ndjson", options(mode, most=0.02))["patient"].height == 197


def test_messages_do_not_name_files_since_names_of_bundles_are_often_of_patients(tmp_path: Path) -> None:
    (tmp_path / "Aurea194_McGlynn426.json").write_text("{broken")
    (tmp_path / "Zoe1_Zed2.json").write_text(json.dumps(bundle(patient(), condition())))
    (tmp_path / "Aurea194_McGlynn426.json").write_text('{"resourceType": "Bundle", broken')
    with pytest.raises(DataError, match="input file 1") as told:
        tables_of(tmp_path)
    assert "McGlynn" not in str(told.value)


@pytest.mark.parametrize("processes", [1, 2])
def test_bad_files_of_a_folder_are_told_apart(processes: int, tmp_path: Path) -> None:
    source = tmp_path / "bundles"
    source.mkdir()
    for at in range(6):
        (source / f"{at}.json").write_text(json.dumps(bundle(patient(f"p{at}"))))
    (source / "1.json").write_text('{"resourceType": "Bundle", broken')
    (source / "4.json").write_text(json.dumps(condition(subject="Patient/gone")))
    convert(source, out=tmp_path / "out", fhir=options("quarantine", processes=processes))
    rows = list(csv.reader((tmp_path / "out" / "quarantine.csv").read_text().splitlines()))
    assert rows[1:] == [
        ["1.json", "1", "0", "is not valid JSON"],
        ["4.json", "1", "0", "has a subject that is not in the source"],
    ]


@pytest.mark.parametrize("wrong", [{"mode": "ignore"}, {"most": 1.5}, {"most": -0.1}])
def test_settings_outside_their_range_are_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        BadRowPolicy(**wrong)


VALID: list[dict[str, Any]] = [
    patient("p1", identifier=[{"value": "1"}], address=[{"postalCode": "02139"}], deceasedBoolean=False),
    encounter(
        "e1",
        "Patient/p",
        period={"start": "1990-01-01T10:00:00Z", "end": "1990-01-01T11:00:00Z"},
        partOf={"reference": "Encounter/e1"},
    ),
    condition("c1", category=[{"coding": [{"code": "x"}]}], onsetPeriod={"start": "1990-01-01"}),
    observation(
        "o1", valueQuantity=quantity(1, "kg"), component=[{"code": {"coding": [{"code": "y"}]}, "valueInteger": 1}]
    ),
    {
        "resourceType": "MedicationRequest",
        "id": "m1",
        "status": "active",
        "intent": "order",
        "subject": {"reference": "Patient/p"},
        "medicationReference": {"reference": "#x"},
        "contained": [{"resourceType": "Medication", "id": "x", "code": {"coding": [{"code": "1"}]}}],
    },
    {
        "resourceType": "Immunization",
        "id": "i1",
        "status": "completed",
        "patient": {"reference": "Patient/p"},
        "vaccineCode": {"coding": []},
    },
    {
        "resourceType": "Consent",
        "id": "k1",
        "status": "active",
        "patient": {"reference": "Patient/p1"},
        "provision": {"type": "permit"},
    },
    bundle(patient("p2"), {"resourceType": "Claim"}, condition("c2", "Patient/p2"), encounter("e2", "Patient/p2")),
]
JUNK: list[Any] = [
    None, True, 0, -1.5, 10**30, "", "x", "é\u2028", "S" * 70_000, [], [[]], [None], {}, {"": {}}, {"reference": "#"},
    {"reference": 7}, {"coding": "x"}, {"coding": [None]}, {"resourceType": "Patient"}, "Patient/p", "#x", "2020-13-45",
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, one in inner for found in ((*path, key), *places(one, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    whole = json.loads(json.dumps(draw(st.sampled_from(VALID))))
    for _ in range(draw(st.integers(1, 3))):
        where = places(whole)
        if not where:
            break
        path = draw(st.sampled_from(where))
        parent = whole
        for key in path[:-1]:
            parent = parent[key]
        what = draw(st.sampled_from(["replace", "delete", "add"]))
        if what == "delete":
            del parent[path[-1]]
        elif what == "replace":
            parent[path[-1]] = copy.deepcopy(draw(st.sampled_from(JUNK)))
        elif isinstance(parent, dict):
            key = draw(st.sampled_from(["class", "value", "reason", "medication", "category", "extension"]))
            parent[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
    data = json.dumps(whole).encode()
    if draw(st.integers(0, 9)) == 0:
        cut = draw(st.integers(0, len(data)))
        data = data[:cut] + draw(st.sampled_from([b"", b"\x00", b"\xff", b'"', b"}"])) + data[cut:]
    return data.replace(b"\n", b" ")


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(mutated(), min_size=20, max_size=20))
def test_500_mutations_of_valid_resources_leave_no_traceback_and_counts_that_add_up(
    tmp_path_factory: pytest.TempPathFactory, resources: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("mutated") / "all.ndjson"
    path.write_bytes(b"\n".join([json.dumps(patient()).encode(), *resources]))
    records, tables = audited(path, options("drop", consent="ignore"))
    audit = records.audit
    later = {"has a subject that is not in the source", "is a second resource with the same type and id"}
    at_reading = sum(count for reason, count in audit["bad_records"].items() if reason not in later)
    assert audit["records"] == sum(audit["resources"].values()) + at_reading
    assert audit["records"] >= len(resources) + 1 - sum(line.isspace() or not line for line in resources)
    for name, rows in audit["rows"].items():
        assert rows["made"] == sum(count for what, count in rows.items() if what != "made")
        assert tables[name].height == rows["kept"]
    assert tables["patient"]["patient_id"].n_unique() == tables["patient"].height
