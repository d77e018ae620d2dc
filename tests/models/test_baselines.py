"""Baselines without privacy: what they make is as the schema declares, and says everywhere that it is not private."""

from __future__ import annotations

import datetime as dt
import json
import logging
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from joblib.parallel import SequentialBackend, get_active_backend

import synthehr as se
from synthehr.cli import main
from synthehr.cli.options import BASELINES as OFFERED
from synthehr.comparison import synthesize_baseline
from synthehr.models.baselines import BASELINES, fit_baseline
from synthehr.schema.conform import conform
from synthehr.schema.files import load_schema

SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "id",
            "outcome": "died",
            "columns": {
                "value": {"kind": "number", "per": "test", "bounds": {"hdl": [0, 1], "sbp": [100, 200]}},
                "id": {"kind": "id"},
                "name": {"kind": "identifier"},
                "test": {"kind": "category", "values": ["hdl", "sbp"]},
                "age": {"kind": "integer", "bounds": [20, 90]},
                "weight": {"kind": "number", "precision": 0.5, "bounds": [40, 140], "nullable": True},
                "cost": {"kind": "number"},
                "city": {"kind": "category", "discover": True, "nullable": True},
                "born": {"kind": "date", "bounds": ["1930-01-01", "2000-12-31"]},
                "seen": {"kind": "datetime", "bounds": ["2020-01-01T00:00", "2020-12-31T23:59"], "nullable": True},
                "smokes": {"kind": "boolean", "nullable": True},
                "site": {"kind": "integer"},
                "never": {"kind": "number", "nullable": True},
                "died": {"kind": "boolean"},
            },
        }
    },
}
ROWS = 600  # from 500 on ctgan would work in other processes


def records(rows: int = ROWS) -> pl.DataFrame:
    """Patients whose city and weight are missing together, and of whom one is 3,000 USD dearer than all others."""
    draws = np.random.default_rng(0)
    test = np.where(draws.random(rows) < 0.5, "hdl", "sbp")
    gone = pl.Series(draws.random(rows) < 0.3)
    first, start = dt.date(1930, 1, 1), dt.datetime(2020, 1, 1)
    return pl.DataFrame(
        {
            "value": np.where(test == "hdl", draws.random(rows), 100 + 100 * draws.random(rows)),
            "id": [f"p{at}" for at in range(rows)],
            "test": test,
            "age": draws.integers(20, 91, rows),
            "weight": pl.Series(40 + 0.5 * draws.integers(0, 201, rows)).set(gone, None),
            "cost": [*np.round(draws.normal(300, 20, rows - 1), 2), 3300.25],
            "city": pl.Series(draws.choice(["O'Neill", 'A "B"', "c"], rows)).set(gone, None),
            "born": [first + dt.timedelta(days=int(day)) for day in draws.integers(0, 25000, rows)],
            "seen": [
                None if at % 7 == 0 else start + dt.timedelta(minutes=int(m))
                for at, m in enumerate(draws.integers(0, 527_000, rows))
            ],
            "smokes": [None if at % 9 == 0 else bool(at % 2) for at in range(rows)],
            "site": [7] * rows,
            "never": pl.Series([None] * rows, dtype=pl.Float64),
            "died": draws.random(rows) < 0.3,
        }
    )


@pytest.fixture(scope="module")
def train() -> se.Cohort:
    return se.read(records(), schema=SCHEMA)


@pytest.fixture(scope="module", params=BASELINES)
def fitted(request: pytest.FixtureRequest, train: se.Cohort) -> se.comparison.Baseline:
    return se.baseline(train, model=request.param, epochs=1, seed=3)


@pytest.fixture
def given_to_ctgan(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What its fit was called with."""
    import ctgan

    given: dict = {}
    fit = ctgan.CTGAN.fit

    def spy(self: object, data: object, discrete_columns: object) -> None:
        given.update(data=data, discrete=discrete_columns, backend=get_active_backend()[0])
        fit(self, data, discrete_columns)

    monkeypatch.setattr(ctgan.CTGAN, "fit", spy)
    return given


def test_what_a_baseline_makes_follows_the_schema(fitted, train) -> None:
    made = fitted.sample(3000, seed=1)
    frame = made.tables["patient"]
    assert frame.height == 3000
    assert frame.schema == train.root.schema
    assert conform(frame, schema=made.schema, table="patient").equals(frame)
    assert (frame["weight"].drop_nulls() % 0.5 == 0).all()
    assert set(frame["city"].unique()) == {None, "O'Neill", 'A "B"', "c"}
    assert (frame["site"] == 7).all()
    assert frame["never"].is_null().all()
    assert frame["id"].n_unique() == 3000
    assert frame["cost"].is_between(train.root["cost"].min(), 3300.25).all()
    assert frame["cost"].equals(frame["cost"].round(2)), "rounded as the records are"


def test_missing_values_are_made_and_complete_columns_stay_complete(fitted) -> None:
    frame = fitted.sample(3000, seed=1).root
    complete = {"id", "value", "test", "age", "cost", "born", "site", "died"}
    assert {name for name in frame.columns if frame[name].null_count()} == set(frame.columns) - complete


def test_a_missing_number_is_an_indicator_and_an_observed_value_in_its_place(train, given_to_ctgan) -> None:
    """So that it is learned which values are missing together, and the mean does not become a mode."""
    se.baseline(train, epochs=1)
    data, discrete = given_to_ctgan["data"], given_to_ctgan["discrete"]
    weight = train.root["weight"]
    absent = weight.is_null().to_numpy()
    assert not data.isna().any().any()
    assert sum(np.array_equal(data[name].to_numpy(), absent.astype(int)) for name in discrete) == 1
    numbers = [data[name].to_numpy() for name in data.columns if name not in discrete]
    filled = [values for values in numbers if np.array_equal(values[~absent], weight.drop_nulls().to_numpy())]
    assert len(filled) == 1
    assert set(filled[0][absent]) <= set(weight.drop_nulls())
    assert len(set(filled[0][absent])) > 50, "draws, not one value: 200 are possible and about 180 are missing"


def test_the_same_seeds_give_the_same_patients(train) -> None:
    first, again = (se.baseline(train, model="ctgan", epochs=1, seed=3).sample(50, seed=1).root for _ in range(2))
    assert first.equals(again)
    other = se.baseline(train, model="ctgan", epochs=1, seed=3).sample(50, seed=2).root
    assert not first.equals(other)


def test_large_samples_are_drawn_in_rounds(fitted, monkeypatch) -> None:
    monkeypatch.setattr("synthehr.models.baselines._ROUND", 700)
    frame = fitted.sample(1500, seed=1).root
    assert frame.height == 1500
    assert not frame["age"][:700].equals(frame["age"][700:1400])


def test_the_cohort_is_stamped_not_private(fitted) -> None:
    provenance = fitted.sample(5).provenance
    assert provenance.private is False
    assert provenance.why_not == f"it was made by {fitted.fitted.model} without privacy, as a baseline for comparison"
    assert provenance.epsilon is provenance.delta is provenance.release_digest is None
    assert provenance.label.startswith("NOT PRIVATE")
    assert provenance.versions.keys() == {"synthehr", "ctgan", "torch"}


def test_no_name_and_no_value_reaches_ctgan_as_text(train, given_to_ctgan) -> None:
    """So that no message of its libraries can quote one."""
    se.baseline(train, epochs=1)
    assert not set(given_to_ctgan["data"].columns) & set(train.root.columns)
    assert {str(kind) for kind in given_to_ctgan["data"].dtypes} == {"int64", "float64"}


def test_no_row_leaves_the_process(train, given_to_ctgan) -> None:
    se.baseline(train, epochs=1)
    assert isinstance(given_to_ctgan["backend"], SequentialBackend)


def test_fitting_and_sampling_are_silent(train, capfd, caplog) -> None:
    with caplog.at_level(logging.DEBUG):
        se.baseline(train, model="ctgan", epochs=1).sample(10)
    assert capfd.readouterr() == ("", "")
    assert "O'Neill" not in caplog.text
    assert "3300" not in caplog.text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "dp-ctgan"}, "baseline 'dp-ctgan' is unknown: choose one of ctgan, tvae"),
        ({"epochs": 0}, "at least 1, not 0"),
        ({"device": "abacus"}, "'abacus'"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_settings_that_cannot_be_right_are_refused(train, options: dict, says: str) -> None:
    with pytest.raises(se.ConfigError, match=says):
        se.baseline(train, **options)


def test_fewer_than_one_patient_is_refused(fitted) -> None:
    with pytest.raises(se.ConfigError, match="at least 1"):
        fitted.sample(0)


def test_several_tables_are_refused() -> None:
    visit = {"parent": "patient", "foreign_key": "id", "columns": {"id": {"kind": "id"}, "day": {"kind": "integer"}}}
    schema = load_schema({**SCHEMA, "tables": {**SCHEMA["tables"], "visit": visit}})
    tables = {"patient": records(), "visit": pl.DataFrame({"id": ["p1", "p1"], "day": [1, 2]})}
    with pytest.raises(se.ConfigError, match="the schema declares several"):
        se.baseline(se.read(tables, schema=schema), epochs=1)


def test_a_table_that_never_varies_is_refused() -> None:
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"a": {"kind": "integer"}}}}})
    with pytest.raises(se.DataError, match="every column is constant"):
        fit_baseline(pl.DataFrame({"a": [1, 1]}), table=schema.root, model="ctgan", epochs=1)


def test_few_patients_are_enough(train) -> None:
    few = train.take(np.arange(12))
    for model in BASELINES:
        assert se.baseline(few, model=model, epochs=1).sample(5).root.height == 5


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    columns = {name: SCHEMA["tables"]["patient"]["columns"][name] for name in ("id", "age", "weight", "died")}
    schema = {**SCHEMA, "tables": {"patient": {"key": "id", "outcome": "died", "columns": columns}}}
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(schema))
    records(400).select(*columns).write_csv(tmp_path / "records.csv")
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run_command(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        return main([str(word) for word in words]), *capfd.readouterr()

    return run_command


SYNTHESIZE = ("synthesize", "records.csv", "--schema", "schema.yaml", "--model", "ctgan", "--epochs", 1)
INSECURE = (*SYNTHESIZE, "--allow-insecure", "--suite", "quick")


def test_the_command_offers_the_baselines_that_there_are() -> None:
    assert OFFERED == BASELINES


def test_synthesize_says_not_private_everywhere_and_leaves_no_release(run, folder: Path) -> None:
    code, out, err = run(*INSECURE, "--seed", 1, "-n", 250, "--format", "csv", "-o", "out")
    assert (code, err) in {(0, ""), (5, ""), (6, "")}
    assert "\nNOT PRIVATE: it was made by ctgan without privacy" in out
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["report", "split", "synthetic"]
    assert pl.read_csv("out/synthetic/patient.csv").height == 250
    provenance = json.loads(Path("out/synthetic/PROVENANCE.json").read_text(encoding="utf-8"))
    assert (provenance["private"], provenance["epsilon"]) == (False, None)
    for part in ("report", "split", "synthetic"):
        assert stat.S_IMODE((folder / "out" / part).stat().st_mode) == 0o700, "it may hold patients' rows"
    report = json.loads(Path("out/report/report.json").read_text(encoding="utf-8"))
    assert report["privacy"]["claimed"] is False
    for page in ("report.html", "report.md"):
        text = Path("out/report", page).read_text(encoding="utf-8")
        assert "The synthetic cohort is NOT PRIVATE." in text
        assert "made by ctgan without privacy" in text
    html = Path("out/report/report.html").read_text(encoding="utf-8")
    assert html.index("NOT PRIVATE") < html.index("<main"), "before all else"


def test_the_json_result_says_not_private(run, folder: Path) -> None:
    _, out, _ = run(*INSECURE, "-o", "out", "--json")
    told = json.loads(out)
    assert told["private"] is False
    assert told["out"] == "out"
    assert pl.read_parquet("out/synthetic/patient.parquet").height == 320, "as many as were fitted on"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "--allow-insecure"),
        (("--allow-insecure", "--epsilon", 3), "promises nothing, so that --epsilon means nothing"),
        (("--allow-insecure", "--delta", 1e-6), "--delta means nothing"),
        (("--allow-insecure", "--policy", "standard"), "--policy means nothing"),
        (("--allow-insecure", "--noise", "system"), "--noise means nothing"),
        (("--allow-insecure", "--ledger", "a.ledger"), "--ledger means nothing"),
        (("--allow-insecure", "--purpose", "x"), "--purpose means nothing"),
        (("--allow-insecure", "--holdout", 1), "holdout must lie"),
        (("--allow-insecure", "--device", "abacus"), "'abacus'"),
        (("--allow-insecure", "--suite", "absent"), "absent"),
    ],
)
def test_a_baseline_is_refused_in_one_line_before_anything_is_made(run, folder: Path, words: tuple, says: str) -> None:
    code, out, err = run(*SYNTHESIZE, *words, "-o", "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert says in err
    assert sorted(path.name for path in folder.iterdir()) == ["records.csv", "schema.yaml"]


@pytest.mark.parametrize("model", BASELINES)
def test_fit_refuses_a_baseline_and_says_the_way_out(run, folder: Path, model: str) -> None:
    words = ("records.csv", "--schema", "schema.yaml", "--epsilon", 3, "--model", model, "-o", "release")
    code, _, err = run("fit", *words)
    assert (code, err.count("\n")) == (2, 1)
    assert f"there is no release of it: synthesize --model {model} --allow-insecure" in err
    assert not Path("release").exists()
    with pytest.raises(se.ConfigError, match=r"synthehr\.baseline"):
        se.fit(se.read("records.csv", schema="schema.yaml"), epsilon=3.0, model=model)


def test_a_private_model_still_needs_its_promise(run, folder: Path) -> None:
    words = ("synthesize", "records.csv", "--schema", "schema.yaml", "-o", "out")
    code, _, err = run(*words)
    assert (code, "model 'auto' needs a promise: give --epsilon" in err) == (2, True)
    code, _, err = run(*words, "--epsilon", 3, "--epochs", 2)
    assert (code, "--epochs is of the models ctgan and tvae" in err) == (2, True)


def test_a_baseline_that_cannot_be_fitted_leaves_nothing(folder: Path) -> None:
    constant = pl.DataFrame({"id": ["a", "b", "c"], "age": [30] * 3, "weight": [None] * 3, "died": [True] * 3})
    with pytest.raises(se.DataError, match="constant"):
        synthesize_baseline(constant, schema="schema.yaml", out="out", holdout=0.4, allow_insecure=True)
    assert sorted(path.name for path in folder.iterdir()) == ["records.csv", "schema.yaml"]
