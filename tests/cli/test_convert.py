"""``synthehr convert`` as it is called."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from synthehr.cli import main

PATIENT = {"resourceType": "Patient", "id": "p", "birthDate": "1980-01-01", "gender": "female"}
CONDITION = {"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/p"}, "onsetDateTime": "1981"}
REFUSAL = {
    "resourceType": "Consent",
    "id": "k",
    "status": "active",
    "patient": {"reference": "Patient/q"},
    "scope": {"coding": [{"code": "research"}]},
    "policyRule": {"coding": [{"code": "OPTOUT"}]},
}
SCHEMA = """
synthehr: 1
subject: patient
tables:
  patient:
    key: patient_id
    columns:
      patient_id: {kind: id}
      gender: {kind: category, values: [female, male]}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "records.ndjson"
    rows = [PATIENT, PATIENT | {"id": "q"}, CONDITION, REFUSAL]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(("format", "read"), [("parquet", pl.read_parquet), ("csv", pl.read_csv)])
def test_fhir_becomes_one_file_a_table_for_the_owner_alone(
    format: str, read: object, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["convert", str(source), "-o", str(out), "--format", format, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["out"] == str(out)
    assert {path.name for path in out.iterdir()} == {"AUDIT.json", *(f"{name}.{format}" for name in told["tables"])}
    assert read(out / f"condition.{format}")["onset_day"].to_list() == [366]  # type: ignore[operator]
    assert out.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o600}


def test_what_was_converted_can_be_checked_and_read_again(source: Path, tmp_path: Path) -> None:
    for format in ("parquet", "csv"):
        assert main(["convert", str(source), "-o", str(tmp_path / format), "--format", format]) == 0
        schema = Path(__file__).parents[2] / "schemas" / "fhir" / "r4" / "schema.yaml"
        assert main(["schema", "check", str(tmp_path / format), "--schema", str(schema), "-q"]) == 0


def test_counts_are_in_the_audit_and_not_on_the_screen(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(source), "-o", str(tmp_path / "out")]) == 0
    told = "".join(capsys.readouterr())
    assert told.startswith(f"tables in {tmp_path / 'out'}: patient, ")
    assert not any(sign.isdigit() for sign in told.replace(str(tmp_path), ""))
    audit = json.loads((tmp_path / "out" / "AUDIT.json").read_text())
    assert audit["rows"]["patient"]["left out by consent"] == 1
    assert audit["consent"]["patients left out"] == 1


@pytest.mark.parametrize(("consent", "patients"), [("ignore", 2), ("exclude-opt-out", 1)])
def test_consent_is_a_setting(consent: str, patients: int, source: Path, tmp_path: Path) -> None:
    assert main(["convert", str(source), "-o", str(tmp_path / "out"), "--consent", consent]) == 0
    assert pl.read_parquet(tmp_path / "out" / "patient.parquet").height == patients


def test_a_schema_holds_the_tables_to_it(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    argv = ["convert", str(source), "--schema", str(tmp_path / "schema.yaml"), "-o"]
    assert main([*argv, str(tmp_path / "out")]) == 0
    assert pl.read_parquet(tmp_path / "out" / "patient.parquet").columns == ["patient_id", "gender"]
    (tmp_path / "schema.yaml").write_text(SCHEMA.replace("female, ", ""))
    assert main([*argv, str(tmp_path / "again")]) == 3
    assert "is none of the declared values" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_a_source_that_is_not_there_is_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["convert", str(tmp_path / "bundle.ndjson"), "-o", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert code == 3
    assert "bundle.ndjson' does not exist" in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundles").mkdir()
    assert main(["convert", str(tmp_path / "bundles"), "-o", str(tmp_path / "out")]) == 3
    told = capsys.readouterr().err
    assert "bundles' is empty" in told and len(told.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_tables_are_converted_too_but_need_a_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "patient.csv").write_text("patient_id,gender\n1,female\n")
    assert main(["convert", str(tmp_path / "patient.csv"), "-o", str(tmp_path / "out")]) == 2
    assert "give --schema" in capsys.readouterr().err
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    argv = ["convert", str(tmp_path / "patient.csv"), "--schema", str(tmp_path / "schema.yaml")]
    assert main([*argv, "-o", str(tmp_path / "out")]) == 0
    assert pl.read_parquet(tmp_path / "out" / "patient.parquet").rows() == [("1", "female")]


BAD = {
    "broken line": (["--on-bad-row", "fail"], 3, "line 5, byte"),
    "too many bad lines": (["--on-bad-row", "drop"], 3, "more than 0.01 of the records are bad"),
    "share out of range": (["--max-bad-share", "2"], 2, "between 0 and 1"),
    "no views": (["--views", "/nowhere"], 3, "must be a folder of ViewDefinitions"),
    "unknown mode": (["--consent", "perhaps"], 2, "--consent"),
}


@pytest.mark.parametrize(("more", "code", "message"), BAD.values(), ids=BAD)
def test_what_goes_wrong_is_told_in_one_line_and_leaves_nothing(
    more: list[str], code: int, message: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with source.open("a") as records:
        records.write('{"resourceType": "Patient", SECRET}\n')
    assert main(["convert", str(source), "-o", str(tmp_path / "out"), *more]) == code
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert "SECRET" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["records.ndjson"]


def test_an_output_that_exists_is_not_touched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert main(["convert", str(source), "-o", str(tmp_path / "out")]) == 2
    assert list((tmp_path / "out").iterdir()) == []
