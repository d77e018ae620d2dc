"""``synthehr convert`` on tables: formats, bad rows, what is left behind."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml

from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.connectors.fhir.reading import FhirOptions
from synthehr.connectors.records import read
from synthehr.errors import ConfigError

from .conftest import Outcome

SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "id",
            "columns": {
                "id": {"kind": "id"},
                "name": {"kind": "identifier"},
                "age": {"kind": "integer", "bounds": [0, 120]},
            },
        },
        "visit": {
            "parent": "patient",
            "foreign_key": "id",
            "columns": {"id": {"kind": "id"}, "cost": {"kind": "number", "format": {"decimal": ","}}},
        },
    },
}
Run = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "patient.csv").write_text(
        "id;name;age\n" + "".join(f"p{at};SECRET;{at % 90}\n" for at in range(100)) + "bad;SECRET;777\nshort;SECRET\n"
    )
    (tmp_path / "records" / "visit.csv").write_text("id;cost\np1;1,5\np2;x\nbad;3\n")
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(SCHEMA, sort_keys=False))
    return tmp_path


def test_the_first_bad_row_stops_by_default(folder: Path, run: Run) -> None:
    done = run("convert", "records", "--schema", "schema.yaml", "-o", "out")
    assert (done.code, done.out) == (3, "")
    assert "row 101: lies outside the declared bounds" in done.err or "row 102: has 2 cells" in done.err
    assert not (folder / "out").exists()


@pytest.mark.parametrize("mode", ["drop", "quarantine"])
def test_bad_rows_are_left_out_and_counted_for_the_custodian_alone(mode: str, folder: Path, run: Run) -> None:
    words = ["--on-bad-row", mode, "--max-bad-share", "0.1"]
    done = run("convert", "records", "--schema", "schema.yaml", "-o", "out", *words)
    assert (done.code, done.err) == (0, "")
    assert not any(sign.isdigit() for sign in done.out)
    audit = json.loads((folder / "out" / "AUDIT.json").read_text())
    assert audit["rows"] == {
        "patient": {
            "rows read": 102,
            "left out, age: lies outside the declared bounds [0, 120]": 1,
            "left out, has 2 cells where the header has 3": 1,
        },
        "visit": {
            "rows read": 3,
            "left out, cost: is not a finite number in the declared format (decimal ',', thousands 'not set apart')": 1,
            "left out, id: belongs to a row that was left out": 1,
        },
    }
    assert audit["text files"]["patient.csv"] == {"encoding": "utf-8", "separator": ";"}
    assert pl.read_parquet(folder / "out" / "visit.parquet").rows() == [("p1", 1.5)]
    there = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*")}
    aside = {"quarantine.csv", "quarantine", "quarantine/patient.csv", "quarantine/visit.csv"}
    assert there == {"AUDIT.json", "patient.parquet", "visit.parquet"} | (aside if mode == "quarantine" else set())
    for path in (folder / "out").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_more_bad_rows_than_are_let_pass_stop_the_run(folder: Path, run: Run) -> None:
    done = run("convert", "records", "--schema", "schema.yaml", "-o", "out", "--on-bad-row", "drop")
    assert done.code == 3
    assert "more than 0.01 of the rows are bad" in done.err
    assert "SECRET" not in done.err
    assert not (folder / "out").exists()


def test_a_table_called_quarantine_has_no_room_for_one(folder: Path, run: Run) -> None:
    schema = {**SCHEMA, "tables": {**SCHEMA["tables"], "quarantine": SCHEMA["tables"]["visit"]}}  # type: ignore[dict-item,index]
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema, sort_keys=False))
    (folder / "records" / "quarantine.csv").write_text("id;cost\np1;1\n")
    words = ["--on-bad-row", "quarantine", "--max-bad-share", "1"]
    assert run("convert", "records", "--schema", "schema.yaml", "-o", "out", *words).code == 2
    assert not (folder / "out").exists()


@pytest.mark.parametrize("format", ["parquet", "csv", "tsv", "arrow"])
def test_every_format_of_tables_is_read_again_by_the_same_schema(format: str, folder: Path, run: Run) -> None:
    words = ["--schema", "schema.yaml", "--on-bad-row", "drop", "--max-bad-share", "1"]
    assert run("convert", "records", "-o", "first", "--format", format, *words).code == 0
    assert run("convert", "first", "-o", "second", "--schema", "schema.yaml").code == 0
    assert run("convert", "records", "-o", "third", *words).code == 0
    for name in ("patient", "visit"):
        one, two = (pl.read_parquet(folder / out / f"{name}.parquet") for out in ("second", "third"))
        assert one.equals(two)


def test_what_synthetic_tables_say_of_themselves_goes_with_them(folder: Path, run: Run) -> None:
    (folder / "records" / "PROVENANCE.json").write_text('{"told": true}')
    words = ["--schema", "schema.yaml", "--on-bad-row", "drop", "--max-bad-share", "1"]
    assert run("convert", "records", "-o", "out", *words).code == 0
    assert (folder / "out" / "PROVENANCE.json").read_text() == '{"told": true}'


def test_options_of_reading_hold_for_tables_wherever_they_are_read(folder: Path) -> None:
    (folder / "notes").mkdir(mode=0o700)
    policy = BadRowPolicy(mode="quarantine", most=1.0)
    assert len(read(folder / "records", schema=SCHEMA, fhir=FhirOptions(on_bad=policy, notes=folder / "notes"))) == 100
    names = {path.name for path in (folder / "notes").iterdir()}
    assert names == {"ROWS_AUDIT.json", "quarantine.csv", "quarantine"}
    assert json.loads((folder / "notes" / "ROWS_AUDIT.json").read_text())["rows"]["patient"]["rows read"] == 102
    with pytest.raises(ConfigError, match="needs a private folder"):
        read(folder / "records", schema=SCHEMA, fhir=FhirOptions(on_bad=policy))
