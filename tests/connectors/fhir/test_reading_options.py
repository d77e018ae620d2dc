"""How the commands that learn read FHIR: consent, bad records and views, by the options that convert has."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest
import yaml
from made_records import lines, patient

from synthehr.cli import main

PATIENTS = 120
SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "patient_id",
            "columns": {
                "patient_id": {"kind": "id"},
                "gender": {"kind": "category", "values": ["female", "male"]},
                "deceased": {"kind": "boolean"},
            },
        }
    },
}
DENIAL = {
    "resourceType": "Consent", "id": "denial", "status": "active", "patient": {"reference": "Patient/p0"},
    "scope": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "research"}]},
    "provision": {"type": "deny"},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """120 patients of whom the first denies research, a line that is no JSON, and a schema of patients alone."""
    monkeypatch.chdir(tmp_path)
    people = [
        patient(f"p{at}", gender=("female", "male")[at % 2], deceasedBoolean=at % 3 == 0) for at in range(PATIENTS)
    ]
    lines(tmp_path / "records.ndjson", [*people, DENIAL])
    lines(tmp_path / "broken.ndjson", [*people, '{"resourceType": "Patient", "id"'])
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    return tmp_path


def synthesize(source: str, *more: str) -> int:
    argv = ["synthesize", source, "--schema", "schema.yaml", "--epsilon", "5", "--model", "marginal", "-n", "10"]
    return main([*argv, "--policy", "exploratory", "--suite", "quick", "-o", "out", *more])


def patients_learned_from(folder: Path) -> int:
    return sum(
        pl.read_parquet(folder / "out" / "split" / part / "patient.parquet").height for part in ("train", "holdout")
    )


def test_who_denies_research_is_not_learned_from_and_counted_in_private_alone(folder: Path) -> None:
    assert synthesize("records.ndjson") in (0, 5, 6)
    assert patients_learned_from(folder) == PATIENTS - 1
    audit = folder / "out" / "split" / "FHIR_AUDIT.json"
    assert json.loads(audit.read_text())["consent"]["patients left out"] == 1
    assert audit.stat().st_mode & 0o077 == 0
    others = [path for path in (folder / "out").rglob("*") if path.is_file() and "split" not in path.parts]
    assert not any(b"left out by consent" in path.read_bytes() for path in others)


def test_consent_is_ignored_where_that_is_asked_for(folder: Path) -> None:
    assert synthesize("records.ndjson", "--consent", "ignore") in (0, 5, 6)
    assert patients_learned_from(folder) == PATIENTS


def test_bad_records_stop_a_fit_unless_they_are_let_go(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert synthesize("broken.ndjson") == 3
    assert "line 121" in capsys.readouterr().err and not (folder / "out").exists()
    assert synthesize("broken.ndjson", "--on-bad-row", "quarantine") in (0, 5, 6)
    with (folder / "out" / "split" / "quarantine.csv").open() as listed:
        assert [(row["line"], row["reason"]) for row in csv.DictReader(listed)] == [("121", "is not valid JSON")]
    assert (folder / "out" / "split" / "quarantine.csv").stat().st_mode & 0o077 == 0


def test_fit_reads_fhir_with_the_same_options(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["fit", "broken.ndjson", "--schema", "schema.yaml", "--epsilon", "5", "--model", "marginal"]
    argv += ["--policy", "exploratory", "-o", "release"]
    assert main([*argv, "--on-bad-row", "quarantine"]) == 2
    assert "--split-out" in capsys.readouterr().err and not (folder / "release").exists()
    assert main([*argv, "--on-bad-row", "drop", "--max-bad-share", "0"]) == 3
    split = ["--holdout", "0.2", "--split-out", "split"]
    assert main([*argv, "--on-bad-row", "quarantine", *split]) == 0
    assert (folder / "split" / "quarantine.csv").exists() and (folder / "split" / "FHIR_AUDIT.json").exists()


def test_schema_check_reads_fhir_with_the_same_options(folder: Path) -> None:
    argv = ["schema", "check", "broken.ndjson", "--schema", "schema.yaml"]
    assert main(argv) == 3
    assert main([*argv, "--on-bad-row", "drop"]) == 0
    assert main([*argv, "--on-bad-row", "quarantine"]) == 2
    assert main([*argv, "--on-bad-row", "drop", "--consent", "require-opt-in"]) == 3  # nobody agreed


def test_views_of_the_users_own_are_read_wherever_records_are(folder: Path) -> None:
    view = json.loads((Path(__file__).parents[3] / "schemas" / "fhir" / "r4" / "patient.json").read_text())
    view["select"][0]["column"] = [
        column | ({"path": "'other'"} if column["name"] == "gender" else {}) for column in view["select"][0]["column"]
    ]
    (folder / "views").mkdir()
    (folder / "views" / "patient.json").write_text(json.dumps(view))
    argv = ["schema", "check", "records.ndjson", "--schema", "schema.yaml"]
    assert main(argv) == 0
    assert main([*argv, "--views", "views"]) == 3  # 'other' is none of the schema's genders
