"""The hook before a commit refuses real records, and synthetic ones without provenance."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from synthehr.cli import main
from synthehr.commits import find_splits, refusals
from synthehr.errors import ConfigError

ROOT = Path(__file__).parents[2]
LABELLED = {
    "resourceType": "Patient",
    "id": "a",
    "meta": {"tag": [{"system": "urn:synthehr:tags", "code": "synthetic"}]},
}
PROVENANCE = {"synthetic": True, "private": True}


def people(count: int, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "id": range(count),
            "age": draw.integers(18, 95, count),
            "weight": draw.normal(80, 15, count).round(1),
            "height": draw.normal(170, 10, count).round(0),
            "died": draw.random(count) < 0.3,
        }
    )


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A folder with a split of 200 real patients, and where the hook runs."""
    real = people(200, seed=0)
    for part, rows in (("train", real[:160]), ("holdout", real[160:])):
        (tmp_path / "work" / "split" / part).mkdir(parents=True)
        rows.write_parquet(tmp_path / "work" / "split" / part / "patient.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder: Path, frame: pl.DataFrame, name: str = "patient.csv", *, provenance: dict | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    if provenance is not None:
        (folder / "PROVENANCE.json").write_text(json.dumps(provenance))
    return path


def why(repository: Path, path: Path) -> str | None:
    found = refusals([path], private=find_splits(repository))
    return found[0].why if found else None


def test_split_folders_are_found_wherever_they_lie(repository):
    assert find_splits(repository) == [repository / "work" / "split"]


def test_a_copy_of_a_private_file_is_refused_under_any_name(repository):
    copied = repository / "harmless.bin.parquet"
    shutil.copy(repository / "work" / "split" / "train" / "patient.parquet", copied)
    assert why(repository, copied) == "it is a file of the private records"


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows,
        lambda rows: rows.drop("id"),
        lambda rows: rows.sample(fraction=1.0, shuffle=True, seed=1).with_row_index("n").drop("id"),
        lambda rows: rows.select("died", "weight", "height", "age"),
        lambda rows: rows.rename({name: name.upper() for name in rows.columns}),
        lambda rows: rows.rename({name: f"column_{at}" for at, name in enumerate(rows.columns)}),
        lambda rows: rows.with_columns(pl.col("age").cast(pl.Float64), pl.col("died").cast(pl.Int8)),
        lambda rows: pl.concat([people(100, seed=9), rows[:1]]),
    ],
    ids=[
        "as they are",
        "without key",
        "shuffled",
        "reordered",
        "upper case",
        "renamed",
        "other types",
        "one among many",
    ],
)
@pytest.mark.parametrize("name", ["part.csv", "part.parquet"])
def test_real_rows_are_refused_however_they_are_written(repository, change, name):
    rows = pl.read_parquet(repository / "work" / "split" / "train" / "patient.parquet")[:20]
    assert why(repository, put(repository / "data", change(rows), name)) == "it holds rows of the private records"


def test_synthetic_records_pass_with_provenance_beside_them_alone(repository):
    made = people(150, seed=5)
    assert why(repository, put(repository / "good", made, provenance=PROVENANCE)) is None
    assert "no PROVENANCE.json beside it" in why(repository, put(repository / "bare", made))


def test_real_records_are_refused_though_provenance_calls_them_synthetic(repository):
    rows = pl.read_parquet(repository / "work" / "split" / "train" / "patient.parquet")
    assert (
        why(repository, put(repository / "lie", rows, provenance=PROVENANCE)) == "it holds rows of the private records"
    )


def test_a_row_that_chance_made_equal_passes_where_provenance_says_synthetic(repository):
    real = pl.read_parquet(repository / "work" / "split" / "train" / "patient.parquet")
    made = pl.concat([people(100, seed=9), real[:1]])
    assert why(repository, put(repository / "chance", made, provenance=PROVENANCE)) is None


@pytest.mark.parametrize(
    ("provenance", "told"),
    [
        ({}, "does not say"),
        ({"synthetic": True, "private": False}, "NOT PRIVATE"),
        ({"synthetic": "yes"}, "does not say"),
    ],
)
def test_provenance_that_does_not_vouch_for_it_is_no_provenance(repository, provenance, told):
    assert told in why(repository, put(repository / "made", people(50, seed=5), provenance=provenance))


def test_tables_of_other_things_pass(repository):
    codes = pl.DataFrame({"code": ["a", "b"], "meaning": ["x", "y"]})
    assert why(repository, put(repository / "codes", codes)) is None


def test_a_table_that_cannot_be_read_is_refused(repository):
    (repository / "broken.parquet").write_bytes(b"PAR1 not really")
    assert "cannot be read" in why(repository, repository / "broken.parquet")


@pytest.mark.parametrize("packed", [False, True])
def test_fhir_needs_provenance_and_the_label_on_every_resource(repository, packed):
    bare = {"resourceType": "Patient", "id": "b"}
    folder = repository / "fhir"
    folder.mkdir()

    def lines(*resources: dict) -> Path:
        path = folder / ("Patient.ndjson.gz" if packed else "Patient.ndjson")
        data = "\n".join(json.dumps(one) for one in resources).encode()
        path.write_bytes(gzip.compress(data) if packed else data)
        return path

    assert "no PROVENANCE.json" in why(repository, lines(LABELLED))
    (folder / "PROVENANCE.json").write_text(json.dumps(PROVENANCE))
    assert why(repository, lines(LABELLED)) is None
    assert "without the label" in why(repository, lines(LABELLED, bare))
    bundle = folder / "bundle.json"
    bundle.write_text(json.dumps({"resourceType": "Bundle", "entry": [{"resource": LABELLED}, {"resource": bare}]}))
    assert "without the label" in why(repository, bundle)
    bundle.write_text(json.dumps({"name": "no resource"}))
    assert why(repository, bundle) is None


def test_a_schema_tells_what_records_look_like_where_no_split_is(repository, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    columns = {"age": {"kind": "integer", "bounds": [0, 120]}, "weight": {"kind": "number", "bounds": [20, 300]}}
    schema = elsewhere / "schema.yaml"
    schema.write_text(yaml.safe_dump({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}}))
    path = put(elsewhere / "data", people(20, seed=3))
    assert refusals([path], private=[]) == []
    assert "no PROVENANCE.json" in refusals([path], private=[], schema=schema)[0].why


def test_a_private_path_that_is_not_there_is_an_error(repository):
    with pytest.raises(ConfigError, match="is not there"):
        refusals([], private=[repository / "nowhere"])


def test_the_command_exits_5_and_quotes_no_value(repository, capsys):
    rows = pl.read_parquet(repository / "work" / "split" / "train" / "patient.parquet")[:20]
    path = put(repository / "data", rows)
    assert main(["guard", str(path)]) == 5
    told = capsys.readouterr().out
    assert "it holds rows of the private records" in told and "1 of 1 files refused" in told
    assert str(rows["weight"][0]) not in told
    assert main(["guard", str(put(repository / "good", people(150, seed=5), provenance=PROVENANCE))]) == 0


def test_the_command_says_where_there_is_nothing_to_compare_with(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path / "data", people(5, seed=0))
    assert main(["guard", str(path)]) == 0
    assert "no private folder is known here" in capsys.readouterr().out


def test_the_hook_is_one_that_pre_commit_can_run(repository):
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert {"id", "name", "entry", "language"} <= set(hook)
    rows = pl.read_parquet(repository / "work" / "split" / "train" / "patient.parquet")[:20]
    path = put(repository / "data", rows)
    program, *words = hook["entry"].split()
    assert program == "synthehr"
    done = subprocess.run([sys.executable, "-m", program, *words, str(path.relative_to(repository))], check=False)
    assert done.returncode == 5
