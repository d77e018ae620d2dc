"""The verbs as the documentation shows them, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import synthehr as se
from synthehr.models import training
from synthehr.models.marginals import FitSettings

SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "outcome": "died",
            "columns": {
                "name": {"kind": "identifier"},
                "age": {"kind": "integer", "bounds": [0, 120]},
                "sex": {"kind": "category", "values": ["female", "male"]},
                "died": {"kind": "boolean"},
            },
        }
    },
}
ROWS = pl.DataFrame(
    {
        "name": [f"n{at}" for at in range(500)],
        "age": [20 + at * 7 % 70 for at in range(500)],
        "sex": [("female", "male")[at % 2] for at in range(500)],
        "died": [at * 7 % 70 > 50 for at in range(500)],
    }
)


QUICK = training.TrainingSettings(bins=8, fit=FitSettings(steps=20))


@pytest.fixture(autouse=True)
def quick_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "TrainingSettings", lambda: QUICK)


def test_the_documented_lines_run(tmp_path: Path) -> None:
    ROWS.write_csv(tmp_path / "patient.csv")
    cohort = se.read(tmp_path, schema=SCHEMA)
    train, holdout = cohort.split(holdout=0.2, seed=0)
    release = se.fit(train, epsilon=3.0, delta=1e-6, model="marginal")
    synth = release.sample(300, where="patient.died")
    report = se.evaluate(train=train, holdout=holdout, synthetic=synth, suite="quick")
    assert report.verdict in {"pass", "fail", "inconclusive"}
    report.save(tmp_path / "report")
    assert synth.tables["patient"]["died"].all()
    assert synth.to_pandas()["patient"].shape == (300, 3)
    release.save(tmp_path / "release")
    assert se.load_release(tmp_path / "release").digest == release.digest


def test_records_in_memory_are_read_like_those_in_files() -> None:
    polars = se.read(ROWS, schema=SCHEMA)
    pandas = se.read(ROWS.to_pandas(), schema=SCHEMA)
    tables = se.read({"patient": ROWS}, schema=se.load_schema(SCHEMA))
    assert polars.root.columns == ["age", "sex", "died"]
    assert polars.root.equals(pandas.root)
    assert polars.root.equals(tables.root)


def test_synthesize_returns_what_it_wrote(tmp_path: Path) -> None:
    gates = {"policy": "exploratory", "suite": "quick"}
    made = se.synthesize(ROWS, schema=SCHEMA, out=tmp_path / "out", epsilon=2.0, n=100, format="csv", **gates)
    assert isinstance(made, se.Synthesis)
    assert pl.read_csv(tmp_path / "out" / "synthetic" / "patient.csv").height == len(made.synthetic) == 100
    assert se.load_release(tmp_path / "out" / "release").digest == made.release.digest


@pytest.mark.parametrize(
    "options",
    [
        {"epsilon": 0.0},
        {"epsilon": -1.0},
        {"epsilon": float("nan")},
        {"epsilon": 1.0, "delta": 0.0},
        {"epsilon": 1.0, "delta": 1.0},
        {"epsilon": 1.0, "delta": float("nan")},
        {"epsilon": 1.0, "model": "gpt"},
        {"epsilon": 1.0, "policy": "lax"},
        {"epsilon": 1.0, "seed": -1},
        {"epsilon": 1.0, "device": "abacus"},
    ],
)
def test_settings_that_cannot_be_right_are_refused(options: dict) -> None:
    with pytest.raises(se.ConfigError):
        se.fit(se.read(ROWS, schema=SCHEMA), **options)


def test_a_promise_beyond_the_policy_is_refused() -> None:
    with pytest.raises(se.BudgetExceededError):
        se.fit(se.read(ROWS, schema=SCHEMA), epsilon=1000.0)


def test_a_schema_that_nothing_names_is_refused() -> None:
    with pytest.raises(se.ConfigError, match="give --schema"):
        se.evaluate(train=ROWS, holdout=ROWS, synthetic=ROWS)


def test_what_holds_no_records_is_refused() -> None:
    with pytest.raises(se.ConfigError, match="not int"):
        se.read(3, schema=SCHEMA)  # type: ignore[arg-type]
