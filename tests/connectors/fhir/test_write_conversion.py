from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_records import condition, lines, observation, patient, quantity, tables_of
from made_tables import canonical, made, resources_in, without_words
from polars.testing import assert_frame_equal

from synthehr.cli import main

SCHEMA = Path(__file__).parents[3] / "schemas" / "fhir" / "r4" / "schema.yaml"
PROVENANCE = {
    "release_digest": "d1", "epsilon": 3.0, "delta": 1e-6, "unit": "patient", "private": True, "patients": 2, "seed": 5,
    "where": [], "match_rate": None, "rule_rate": None, "versions": {},
}  # fmt: skip


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, table in without_words(made()).items():
        table.write_parquet(folder / f"{name}.parquet")
    return folder


def tags(folder: Path) -> set[str]:
    return {tag["code"] for each in resources_in(folder) for tag in each["meta"]["tag"]}


@pytest.mark.parametrize("format", ["fhir-ndjson", "fhir-bundle"])
def test_fhir_converted_to_fhir_says_that_it_is_real_and_reads_the_same(format: str, tmp_path: Path) -> None:
    source = [patient(), condition(onsetDateTime="1990-01-01"), observation(valueQuantity=quantity(171.5, "cm"))]
    path = lines(tmp_path / "in.ndjson", source)
    assert main(["convert", str(path), "--format", format, "-o", str(tmp_path / "out"), "--seed", "1"]) == 0
    assert tags(tmp_path / "out") == {"real-records"}
    before, after = canonical(tables_of(path)), canonical(tables_of(tmp_path / "out"))
    for name in before:
        assert_frame_equal(after[name], before[name])
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "out").rglob("*"))


def test_a_folder_of_synthetic_tables_becomes_labelled_fhir(tables: Path, tmp_path: Path) -> None:
    (tables / "PROVENANCE.json").write_text(json.dumps(PROVENANCE))
    argv = ["convert", str(tables), "--schema", str(SCHEMA), "--format", "fhir-ndjson", "-o"]
    assert main([*argv, str(tmp_path / "out")]) == 0
    assert tags(tmp_path / "out") == {"synthetic"}
    told = (tmp_path / "out" / "Provenance.ndjson").read_text()
    assert '{"url":"urn:synthehr:epsilon","valueDecimal":3.0}' in told and '"valueString":"d1"' in told
    assert main([*argv, str(tmp_path / "again")]) == 0  # the provenance's seed, so the same bytes
    assert (tmp_path / "again" / "Patient.ndjson").read_bytes() == (tmp_path / "out" / "Patient.ndjson").read_bytes()


def test_tables_without_provenance_are_taken_for_real(tables: Path, tmp_path: Path) -> None:
    argv = ["convert", str(tables), "--schema", str(SCHEMA), "--format", "fhir-ndjson", "-o", str(tmp_path / "out")]
    assert main(argv) == 0
    assert tags(tmp_path / "out") == {"real-records"}


def test_a_damaged_provenance_is_refused(tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tables / "PROVENANCE.json").write_text('{"synthetic": false}')
    argv = ["convert", str(tables), "--schema", str(SCHEMA), "--format", "fhir-bundle", "-o", str(tmp_path / "out")]
    assert main(argv) == 3
    assert "PROVENANCE.json beside the tables is damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
