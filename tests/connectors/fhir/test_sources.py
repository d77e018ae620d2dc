from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_records import audited, bundle, condition, encounter, lines, observation, options, patient, tables_of

import synthehr as se
from synthehr.connectors.fhir.bundles import entry_at, spans_of
from synthehr.connectors.fhir.reading import _one_thread
from synthehr.connectors.fhir.sources import is_fhir, list_files, pieces
from synthehr.errors import ConfigError, DataError

CLAIM = {"resourceType": "Claim", "id": "x", "patient": {"reference": "Patient/p"}}
CONTENT = (patient(), condition(), CLAIM, encounter(), CLAIM, observation())
COUNTS = {"patient": 1, "condition": 1, "encounter": 1, "observation": 1}


def counts(source: Path | str) -> dict[str, int]:
    return {name: table.height for name, table in tables_of(source).items() if table.height}


def one_bundle(folder: Path) -> Path:
    path = folder / "one.json"
    path.write_text(json.dumps(bundle(*CONTENT), indent=2))
    return path


def packed_bundle(folder: Path) -> Path:
    path = folder / "one.json.gz"
    path.write_bytes(gzip.compress(json.dumps(bundle(*CONTENT)).encode()))
    return path


def folder_of_bundles(folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps(bundle(*CONTENT[:2])))
    (folder / "b.json").write_text(json.dumps(bundle(*CONTENT[2:])))
    (folder / "notes.txt").write_text("nothing of FHIR")
    return folder


def bundles_by_line(folder: Path) -> Path:
    return lines(folder / "all.ndjson", [bundle(*CONTENT[:3]), bundle(*CONTENT[3:])])


def mixed_lines_with_bom_and_crlf(folder: Path) -> Path:
    path = folder / "all.ndjson"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(one).encode() for one in CONTENT))
    return path


def bulk_of_all_names(folder: Path) -> Path:
    lines(folder / "Patient.ndjson", [patient()])
    lines(folder / "1.Condition.ndjson", [condition()])
    lines(folder / "Claim.000.ndjson", [CLAIM])
    (folder / "Encounter.000.ndjson.gz").write_bytes(gzip.compress(json.dumps(encounter()).encode() + b"\n"))
    (folder / "Observation.0001.ndjson").write_text(json.dumps(observation()))
    (folder / "log.ndjson").write_text('{"eventId": "kickoff"}\n')
    return folder


def bulk_with_manifest(folder: Path) -> Path:
    lines(folder / "file1.ndjson", [condition(), encounter()])
    lines(folder / "file2.ndjson", [patient(), observation()])
    lines(folder / "Patient.ndjson", [patient("of an older export")])
    output = [
        {"type": "Condition", "url": "https://x/y/file1.ndjson"},
        {"type": "Patient", "url": "https://x/file2.ndjson"},
    ]
    (folder / "manifest.json").write_text(json.dumps({"transactionTime": "2024-01-01T00:00:00Z", "output": output}))
    return folder


@pytest.mark.parametrize(
    "make",
    [
        one_bundle,
        packed_bundle,
        folder_of_bundles,
        bundles_by_line,
        mixed_lines_with_bom_and_crlf,
        bulk_of_all_names,
        bulk_with_manifest,
    ],
)
def test_every_form_of_a_source_gives_the_same_tables(make: object, tmp_path: Path) -> None:
    source = make(tmp_path)  # type: ignore[operator]
    assert is_fhir(source)
    assert counts(source) == COUNTS


def test_files_of_a_type_that_no_view_reads_are_not_opened(tmp_path: Path) -> None:
    lines(tmp_path / "Patient.ndjson", [patient()])
    (tmp_path / "Claim.ndjson.gz").write_bytes(b"no gzip at all")
    records, _ = audited(tmp_path)
    assert records.audit["files_of_types_without_view"] == ["Claim.ndjson.gz"]


def test_files_that_are_not_fhir_are_passed_over_and_named(tmp_path: Path) -> None:
    records, _ = audited(bulk_of_all_names(tmp_path))
    assert records.audit["files_passed_over"] == ["log.ndjson"]


def test_a_manifest_that_lists_a_missing_file_is_refused(tmp_path: Path) -> None:
    bulk_with_manifest(tmp_path)
    (tmp_path / "file2.ndjson").unlink()
    with pytest.raises(DataError, match="lists a file that is not there"):
        list_files(tmp_path)


@pytest.mark.parametrize(
    "manifest", ['{"transactionTime": 1, "output": [7]}', '{"transactionTime": 1, "output": [{"url": 3}]}']
)
def test_a_damaged_manifest_is_refused(manifest: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(DataError, match="is damaged"):
        list_files(tmp_path / "manifest.json")


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    lines(tmp_path / "Patient.ndjson", [patient()])
    inner = tmp_path / "export"
    inner.mkdir()
    output = [{"type": "Patient", "url": "https://x/%2E%2E%2FPatient.ndjson"}]
    (inner / "manifest.json").write_text(json.dumps({"transactionTime": "x", "output": output}))
    with pytest.raises(DataError, match="not there"):
        list_files(inner)


def test_a_folder_of_tables_is_not_taken_for_fhir(tmp_path: Path) -> None:
    (tmp_path / "patient.csv").write_text("id\n1\n")
    (tmp_path / "PROVENANCE.json").write_text('{"resourceType": "x"}')
    assert not is_fhir(tmp_path)


def test_records_that_are_not_fhir_still_need_a_schema(tmp_path: Path) -> None:
    (tmp_path / "patient.csv").write_text("id\n1\n")
    with pytest.raises(ConfigError, match="give --schema"):
        se.read(tmp_path / "patient.csv")


@pytest.mark.parametrize("processes", [1, 2])
def test_the_tables_do_not_depend_on_how_a_file_is_cut(
    processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [one for at in range(40) for one in (patient(f"p{at}"), observation(f"o{at}", f"Patient/p{at}"))]
    source = lines(tmp_path / "all.ndjson", people)
    packed = tmp_path / "packed.ndjson.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    whole = tables_of(source)
    monkeypatch.setattr("synthehr.connectors.fhir.reading.PIECE_BYTES", 500)
    cut = {
        file: sum(1 for _ in pieces(list_files(file).files, read=lambda _: True, size=500)) for file in (source, packed)
    }
    assert min(cut.values()) > 5
    for file in (source, packed):
        for name, table in tables_of(file, options(processes=processes)).items():
            assert table.equals(whole[name])


def test_pieces_hold_every_byte_once_and_end_where_lines_end(tmp_path: Path) -> None:
    data = b"".join(b"x" * (at % 90) + b"\n" for at in range(300)) + b"no newline at the end"
    plain, packed = tmp_path / "a.ndjson", tmp_path / "a.ndjson.gz"
    plain.write_bytes(data)
    packed.write_bytes(gzip.compress(data))
    for path in (plain, packed):
        found = list(pieces(list_files(path).files, read=lambda _: True, size=64))
        held = [data[p.start : p.stop] if p.data is None else p.data for p in found]
        assert b"".join(held) == data
        assert all(piece.endswith(b"\n") for piece in held[:-1])
        assert [p.start for p in found] == [sum(map(len, held[:at])) for at in range(len(held))]


def test_the_entries_of_a_bundle_are_found_without_parsing_them() -> None:
    data = json.dumps(bundle(patient(), CLAIM, condition(), CLAIM, encounter())).encode()
    spans = spans_of(data)
    assert spans is not None
    assert [span.type for span in spans] == ["Patient", "Claim", "Condition", "Claim", "Encounter"]
    assert [data[span.start : span.start + 12] for span in spans] == [b'{"fullUrl": '] * 5
    entries = [entry_at(data, span) for span in spans]
    assert [entry and entry.resource["resourceType"] for entry in entries] == [span.type for span in spans]


def no_full_url_behind_a_claim() -> bytes:
    whole = bundle(patient(), CLAIM, condition(), encounter())
    del whole["entry"][2]["fullUrl"]
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(bundle(patient(), CLAIM, condition(), urls=False)).encode(),
        json.dumps(bundle(patient(), bundle(condition(), CLAIM), encounter())).encode(),
        json.dumps(bundle(patient(), CLAIM, condition())).encode()[:-3],
        json.dumps(bundle(patient(), CLAIM, condition(text={"div": 'a "fullUrl" b'}), encounter())).encode()[:-200],
        no_full_url_behind_a_claim(),
    ],
    ids=["no fullUrl", "a bundle in a bundle", "cut short", "cut in an entry", "an entry hidden behind another"],
)
def test_a_bundle_that_cannot_be_taken_apart_safely_is_parsed_whole(data: bytes) -> None:
    assert spans_of(data) is None


def test_a_bundle_that_breaks_off_in_the_middle_of_its_entries_is_refused_once(tmp_path: Path) -> None:
    whole = json.dumps(bundle(patient(), condition(), observation(), encounter())).encode()
    broken = whole.replace(b'"44054006"', b'"44054006')  # seen only when the condition is parsed, behind the patient
    (tmp_path / "a.json").write_bytes(broken)
    (tmp_path / "b.json").write_text(json.dumps(bundle(patient("q"), condition(subject="Patient/q"))))
    records, tables = audited(tmp_path, options("drop"))
    assert records.audit["bad_records"] == {"is not valid JSON": 1}
    assert records.audit["records"] == 3
    assert {name: table.height for name, table in tables.items() if table.height} == {"patient": 1, "condition": 1}


def test_an_entry_hidden_behind_an_unwanted_one_is_read(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(no_full_url_behind_a_claim())
    assert counts(tmp_path / "b.json") == {"patient": 1, "condition": 1, "encounter": 1}


def test_words_in_a_text_do_not_mislead_the_search_for_entries(tmp_path: Path) -> None:
    told = '{"fullUrl": "urn:uuid:z", "resource": {"resourceType": "Claim"}}, '
    (tmp_path / "b.json").write_text(json.dumps(bundle(patient(), condition(text={"div": told}), CLAIM, encounter())))
    assert counts(tmp_path / "b.json") == {"patient": 1, "condition": 1, "encounter": 1}


OLD = {
    "a bare clinicalStatus": condition(clinicalStatus="active"),
    "an observation's context": observation(context={"reference": "Encounter/e"}),
    "a vaccine not given": {"resourceType": "Immunization", "id": "i", "notGiven": False},
}


@pytest.mark.parametrize("old", OLD.values(), ids=OLD)
@pytest.mark.parametrize("mode", ["fail", "drop"])
def test_stu3_is_refused_in_a_clear_line(mode: str, old: dict[str, object], tmp_path: Path) -> None:
    source = lines(tmp_path / "all.ndjson", [patient(), old])
    with pytest.raises(DataError, match="is FHIR DSTU2 or STU3: R4, R4B and R5 are read: convert it to R4 first"):
        tables_of(source, options(mode, most=0.1))


def test_r5_is_read_where_the_same_view_holds(tmp_path: Path) -> None:
    concept = {"coding": [{"system": "http://snomed.info/sct", "code": "1"}]}
    source = lines(
        tmp_path / "r5.ndjson",
        [
            patient(),
            encounter(**{"class": [concept], "status": "completed"}, actualPeriod={"start": "1980-01-02T03:30:00Z"}),
            {
                "resourceType": "MedicationRequest",
                "id": "m",
                "status": "ended",
                "intent": "order",
                "subject": {"reference": "Patient/p"},
                "medication": {"concept": concept},
                "reason": [{"concept": concept}],
            },
            {
                "resourceType": "Procedure",
                "id": "q",
                "status": "completed",
                "subject": {"reference": "Patient/p"},
                "category": [concept],
                "code": concept,
                "occurrenceDateTime": "1980-01-01",
            },
        ],
    )
    tables = tables_of(source)
    assert tables["encounter"].select("class", "status", "start_hour").row(0) == ("1", "completed", 27)
    assert tables["medication_request"].select("status", "medication", "reason").row(0) == ("ended", "1", "1")
    assert tables["procedure"].select("category", "performed_hour").row(0) == ("1", 0)


def test_reading_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    source = lines(tmp_path / "all.ndjson", [patient(), "broken"])
    tables_of(source, options("drop", processes=2))
    with pytest.raises(DataError):
        tables_of(source, options("fail"))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_second_resource_of_an_id_is_found_whichever_process_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synthehr.connectors.fhir.reading.PIECE_BYTES", 500)
    people = [patient(f"p{at}") for at in range(30)]
    source = lines(tmp_path / "all.ndjson", [*people, *people[:7]])
    records, tables = audited(source, options("drop", processes=2))
    assert tables["patient"].height == 30
    assert records.audit["bad_records"] == {"is a second resource with the same type and id": 7}
    assert [bad.line for bad in records.bad] == list(range(31, 38))


def test_a_script_without_a_guard_is_not_run_again_by_the_processes(tmp_path: Path) -> None:
    source = lines(tmp_path / "all.ndjson", [patient(), condition()])
    script = tmp_path / "script.py"
    script.write_text(
        "print('once')\n"
        "import synthehr as se\n"
        "from synthehr.connectors.fhir.reading import FhirOptions\n"
        f"print(len(se.read({str(source)!r}, fhir=FhirOptions(processes=2))))\n"
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr, run.returncode) == ("once\n1\n", "", 0)


@pytest.mark.parametrize(("given", "theirs"), [(None, "1"), ("3", "3")])
def test_a_process_beside_this_one_has_one_thread_of_polars_unless_told_otherwise(
    given: str | None, theirs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is None:
        monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    else:
        monkeypatch.setenv("POLARS_MAX_THREADS", given)
    with _one_thread():
        script = "import polars; print(polars.thread_pool_size())"
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == theirs
    assert os.environ.get("POLARS_MAX_THREADS") == given
