"""Records of several tables go in and come out whole, patients without rows among them: through the command line."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from synthehr.cli import main

SHARED = Path(__file__).parents[3] / "shared" / "data"
FHIR = SHARED / "fhir"
MEDS = SHARED / "meds" / "mimic_iv_demo_meds"
SCHEMA = """
synthehr: 1
subject: patient
tables:
  patient:
    key: id
    columns: {id: {kind: id}, sick: {kind: boolean}}
  visit:
    key: visit
    parent: patient
    foreign_key: id
    order_by: day
    max_rows: 4
    columns:
      visit: {kind: id}
      id: {kind: id}
      day: {kind: date, bounds: ["2020-01-01", "2020-12-31"]}
      ward: {kind: category, values: [a, b, c]}
  drug:
    parent: visit
    foreign_key: visit
    max_rows: 6
    columns:
      visit: {kind: id}
      name: {kind: category, discover: true}
      dose: {kind: number, bounds: [0, 10], precision: 0.5, nullable: true}
  allergy:
    parent: patient
    foreign_key: id
    max_rows: 2
    columns: {id: {kind: id}, to: {kind: category, values: [nuts, dust]}}
"""


def run(*arguments: object) -> None:
    assert main([str(one) for one in arguments]) == 0, arguments[0]


def parquet(folder: Path) -> dict[str, pl.DataFrame]:
    return {path.stem: pl.read_parquet(path) for path in sorted(folder.glob("*.parquet"))}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 patients, a third of them without any row below; nobody has an allergy."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("records")
    visits = [
        (f"v{at}.{number}", f"p{at}", dt.date(2020, 1, 1) + dt.timedelta(int(draw.integers(0, 300))), "abc"[number])
        for at in range(300)
        for number in range(at % 3)
    ]
    drugs = [(key, "aspirin" if at % 2 else "insulin", 0.5 * (at % 9)) for at, (key, *_) in enumerate(visits)]
    tables = {
        "patient": pl.DataFrame({"id": [f"p{at}" for at in range(300)], "sick": [at % 3 == 2 for at in range(300)]}),
        "visit": pl.DataFrame(visits, schema=["visit", "id", "day", "ward"], orient="row"),
        "drug": pl.DataFrame(drugs, schema=["visit", "name", "dose"], orient="row"),
        "allergy": pl.DataFrame([], schema={"id": pl.String, "to": pl.String}),
    }
    for name, frame in tables.items():
        frame.write_parquet(folder / f"{name}.parquet")
    (folder.parent / "schema.yaml").write_text(SCHEMA)
    return folder


def test_every_table_comes_out_in_its_types_where_a_table_is_empty_and_patients_have_no_rows(
    records: Path, tmp_path: Path
) -> None:
    asked = ("--epsilon", 10, "--delta", 1e-4, "--policy", "exploratory", "--seed", 0, "-o", tmp_path / "release")
    run("fit", records, "--schema", records.parent / "schema.yaml", *asked)
    run("sample", tmp_path / "release", "-n", 200, "--seed", 1, "-o", tmp_path / "made")
    real, made = parquet(records), parquet(tmp_path / "made")
    assert {name: frame.schema for name, frame in made.items()} == {name: frame.schema for name, frame in real.items()}
    assert made["visit"]["id"].is_in(made["patient"]["id"].implode()).all()
    assert made["drug"]["visit"].is_in(made["visit"]["visit"].implode()).all()
    assert 0 < made["visit"]["id"].n_unique() < 200
    assert made["allergy"].height < 40  # there are none; noise on 300 patients may make a few


def in_and_out(source: str, tmp_path: Path, *options: str, form: str) -> None:
    """Fit the source, sample in its form, read that again: every table is there, with types, and rows as many."""
    run("convert", source, "-o", tmp_path / "real", *options)
    asked = ("--epsilon", 10, "--delta", 1e-5, "--policy", "exploratory", "--seed", 0, "-o", tmp_path / "release")
    run("fit", source, *options, *asked)
    run("sample", tmp_path / "release", "-n", 60, "--seed", 1, "-o", tmp_path / "made")
    run("sample", tmp_path / "release", "-n", 60, "--seed", 1, "--format", form, "-o", tmp_path / "form")
    again = f"meds:{tmp_path / 'form'}" if form == "meds" else str(tmp_path / "form")
    run("convert", again, "-o", tmp_path / "back")
    real, made, back = (parquet(tmp_path / name) for name in ("real", "made", "back"))
    assert real.keys() == made.keys() == back.keys()
    for name, frame in made.items():
        assert frame.height > 0, name
        assert frame.height == back[name].height, name
        # Read as the real ones are: sampled tables may have a made-up calendar in place of offsets, but not of MEDS.
        assert back[name].schema == real[name].schema, name
        assert form != "meds" or frame.schema == real[name].schema, name
    assert made["patient"].height == 60


@pytest.mark.slow
@pytest.mark.skipif(not FHIR.is_dir(), reason="the Synthea bundles of shared/data are not here")
@pytest.mark.parametrize("bundles", ["andrew_nguyen", "google_fhir_data_pipes"])
def test_synthea_bundles_come_out_as_fhir_whole(bundles: str, tmp_path: Path) -> None:
    in_and_out(str(FHIR / f"{bundles}.bundles.ndjson.gz"), tmp_path, "--on-bad-row", "drop", form="fhir-ndjson")


@pytest.mark.slow
@pytest.mark.skipif(not MEDS.is_dir(), reason="mimic_iv_demo_meds of shared/data is not here")
def test_mimic_demo_comes_out_as_meds_whole(tmp_path: Path) -> None:
    in_and_out(f"meds:{MEDS}?numeric_value=value", tmp_path, form="meds")
