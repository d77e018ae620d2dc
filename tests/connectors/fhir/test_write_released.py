"""Synthetic cohorts as FHIR: what `sample` and `synthesize` leave behind with --format fhir-…"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from made_records import tables_of
from made_tables import made, resources_in, without_words

from synthehr.cli import main
from synthehr.cli.nafld import nafld_schema
from synthehr.connectors.fhir.bindings import problems_of, validate_r4b
from synthehr.connectors.fhir.schema_default import default_schema
from synthehr.connectors.fhir.write import FHIR_FORMATS, check_writable
from synthehr.errors import SchemaError
from synthehr.manifest import Provenance
from synthehr.outputs import write_synthetic
from synthehr.release import SyntheticCohort
from synthehr.schema.files import load_schema

SCHEMA: dict[str, Any] = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "patient_id",
            "outcome": "deceased",
            "columns": {
                "patient_id": {"kind": "id"},
                "gender": {"kind": "category", "values": ["female", "male"]},
                "deceased": {"kind": "boolean"},
                "death_day": {"kind": "integer", "bounds": [0, 45000], "nullable": True},
            },
        }
    },
}
PATIENTS = 30


def provenance(**more: Any) -> Provenance:
    told = {
        "release_digest": "d1", "epsilon": 3.0, "delta": 1e-6, "unit": "patient", "private": True, "patients": 2,
        "seed": 5, "where": (), "match_rate": None, "rule_rate": None, "versions": {},
    }  # fmt: skip
    return Provenance.model_validate(told | more)


def write(folder: Path, *, format: str, **more: Any) -> Path:
    folder.mkdir()
    cohort = SyntheticCohort(without_words(made()), schema=default_schema(), provenance=provenance(**more))
    write_synthetic(folder, cohort, format=format)
    return folder


def told_by_provenance(folder: Path) -> list[dict[str, Any]]:
    found = [each for each in resources_in(folder) if each["resourceType"] == "Provenance"]
    return [
        {part["url"].removeprefix("urn:synthehr:"): list(part.values())[1] for part in each["extension"]}
        for each in found
    ]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 patients as one table with the columns of FHIR's, and their schema."""
    folder = tmp_path_factory.mktemp("records")
    draws = np.random.default_rng(0)
    dead = draws.random(600) < 0.3
    table = pl.DataFrame(
        {
            "patient_id": [f"id-of-a-person-{at}" for at in range(600)],
            "gender": np.where(draws.random(600) < 0.5, "female", "male"),
            "deceased": dead,
            "death_day": [int(draws.integers(20_000, 35_000)) if each else None for each in dead],
        }
    )
    table.write_csv(folder / "patient.csv")
    (folder / "schema.yaml").write_text(json.dumps(SCHEMA))
    return folder


@pytest.fixture(scope="module")
def synthesized(records: Path) -> Path:
    argv = ["synthesize", str(records / "patient.csv"), "--schema", str(records / "schema.yaml"), "--epsilon", "5"]
    argv += ["--model", "marginal", "--policy", "exploratory", "--suite", "quick", "-n", str(PATIENTS), "--seed", "1"]
    assert main([*argv, "--format", "fhir-bundle", "-o", str(records / "out")]) in (0, 5, 6)
    return records / "out"


@pytest.mark.parametrize("format", FHIR_FORMATS)
def test_a_synthetic_cohort_is_labelled_fhir_beside_its_provenance(format: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "out", format=format)
    found = list(resources_in(folder))
    assert {label["code"] for each in found for label in each["meta"]["security"]} == {"HTEST"}
    assert {tag["code"] for each in found for tag in each["meta"]["tag"]} == {"synthetic"}
    assert validate_r4b(found) == len(found)
    for told in told_by_provenance(folder):
        told.pop("file", None)
        assert told == {"synthetic": True, "release-digest": "d1", "epsilon": 3.0, "delta": 1e-6}
    assert json.loads((folder / "PROVENANCE.json").read_text())["release_digest"] == "d1"
    assert tables_of(folder)["patient"].height == 2, "what stands beside the resources must not hinder reading them"


@pytest.mark.parametrize("format", FHIR_FORMATS)
def test_what_is_not_private_says_so(format: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "out", format=format, private=False, why_not="w", epsilon=None, delta=None)
    told = told_by_provenance(folder)
    assert told and all(each["private"] is False and "epsilon" not in each for each in told)
    tags = [[tag["code"] for tag in each["meta"]["tag"]] for each in resources_in(folder)]
    assert all(each == ["synthetic", "not-private"] for each in tags)


def test_synthesize_writes_a_labelled_bundle_for_each_patient(synthesized: Path) -> None:
    bundles = sorted((synthesized / "synthetic").glob("patient-*.json"))
    assert len(bundles) == PATIENTS
    digest = json.loads((synthesized / "release" / "manifest.json").read_text())["digest"]
    for path in bundles:
        bundle = json.loads(path.read_text())
        parts = [entry["resource"] for entry in bundle["entry"]]
        assert [part["resourceType"] for part in parts] == ["Patient", "Device", "Provenance"]
        types = {f"urn:uuid:{part['id']}": part["resourceType"] for part in parts}
        assert [problem for part in parts for problem in problems_of(part, type_of=types.get)] == []
    for told in told_by_provenance(synthesized / "synthetic"):
        assert told == {"synthetic": True, "release-digest": digest, "epsilon": 5.0, "delta": 1e-6}
    text = "".join(path.read_text() for path in bundles)
    assert "id-of-a-person" not in text and text.count('"HTEST"') == 4 * PATIENTS  # the bundle and its three


def test_sample_gives_equal_bytes_for_equal_seeds(synthesized: Path, tmp_path: Path) -> None:
    argv = ["sample", str(synthesized / "release"), "-n", "7", "--format", "fhir-ndjson", "--where", "gender = 'male'"]
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert main([*argv, "--seed", seed, "-o", str(tmp_path / name)]) == 0
    a, b, c = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "abc")
    assert set(a) == {"Patient.ndjson", "Device.ndjson", "Group.ndjson", "Practitioner.ndjson", "Provenance.ndjson",
                      "manifest.json", "PROVENANCE.json"}  # fmt: skip
    assert a == b and a["Patient.ndjson"] != c["Patient.ndjson"]
    people = [json.loads(line) for line in a["Patient.ndjson"].splitlines()]
    assert len(people) == 7 and {each["gender"] for each in people} == {"male"}


@pytest.mark.parametrize("command", ["synthesize", "sample"])
def test_what_fhir_has_no_place_for_is_refused_before_anything_is_spent_or_written(
    command: str, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = json.loads(json.dumps(SCHEMA))
    contents["tables"]["patient"]["columns"]["age"] = {"kind": "integer", "bounds": [0, 120]}
    with pytest.raises(SchemaError, match="column 'age' of table 'patient' has no place in FHIR"):
        check_writable(load_schema(contents))
    (tmp_path / "schema.yaml").write_text(json.dumps(contents))
    monkeypatch.chdir(tmp_path)
    if command == "synthesize":
        argv = [str(records / "patient.csv"), "--schema", "schema.yaml", "--epsilon", "5", "--policy", "exploratory"]
    else:
        table = pl.read_csv(records / "patient.csv").with_columns(pl.lit(50).alias("age"))
        table.write_csv(tmp_path / "patient.csv")
        fit = ["fit", "patient.csv", "--schema", "schema.yaml", "--epsilon", "5", "--policy", "exploratory"]
        assert main([*fit, "--model", "marginal", "-o", "release"]) == 0
        argv = ["release", "-n", "5"]
    before = set(tmp_path.iterdir())
    assert main([command, *argv, "--format", "fhir-ndjson", "-o", "out"]) == 3
    assert "column 'age' of table 'patient' has no place in FHIR" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


def test_the_schemas_of_fhir_sources_have_a_place_in_fhir() -> None:
    check_writable(default_schema())
    check_writable(load_schema(nafld_schema(encounters=True)))


def test_no_fhir_is_written_of_tables_about_anything_but_patients() -> None:
    contents = json.loads(json.dumps(SCHEMA))
    contents["subject"] = "person"
    contents["tables"]["person"] = contents["tables"].pop("patient")
    with pytest.raises(SchemaError, match="whose root is 'patient'"):
        check_writable(load_schema(contents))
