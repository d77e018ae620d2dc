"""Patients with rows in several tables: learned and made anew as one, private as one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import synthehr as se
from synthehr.cohort import Cohort
from synthehr.encoding.codec import all_behind_the_door
from synthehr.encoding.unroll import GAP, conditional_tables, unroll
from synthehr.models.base import Trained
from synthehr.models.planning import RowsSettings, TrainingSettings
from synthehr.models.rollout import Rolled
from synthehr.models.search import seen_before
from synthehr.models.training import train
from synthehr.privacy.accountant import Gaussian
from synthehr.privacy.history import Repeated, history_of
from synthehr.privacy.partition import Intervals, Values
from synthehr.privacy.rows import GRAIN, PrivateCodes
from synthehr.randomness import InsecureNoise
from synthehr.release import Release
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

sys.path.insert(0, str(Path(__file__).parent.parent / "privacy"))

from defects import Recorder, open_account

DECLARED: dict[str, Any] = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "id",
            "columns": {"id": {"kind": "id"}, "sick": {"kind": "boolean"}},
        },
        "visit": {
            "key": "visit",
            "parent": "patient",
            "foreign_key": "id",
            "order_by": "day",
            "max_rows": 6,
            "columns": {
                "visit": {"kind": "id"},
                "id": {"kind": "id"},
                "day": {"kind": "integer", "bounds": [0, 400], "unit": "d"},
                "until": {"kind": "integer", "bounds": [0, 400], "unit": "d"},
                "ward": {"kind": "category", "values": ["a", "b", "c"]},
            },
        },
        "lab": {
            "parent": "visit",
            "foreign_key": "visit",
            "order_by": "day",
            "max_rows": 12,
            "columns": {
                "visit": {"kind": "id"},
                "day": {"kind": "integer", "bounds": [0, 400], "unit": "d"},
                "test": {"kind": "category", "values": ["hb", "k", "na"]},
                "value": {
                    "kind": "integer",
                    "per": "test",
                    "bounds": {"hb": [5, 20], "k": [30, 60], "na": [120, 150]},
                },
            },
        },
        "note": {"parent": "patient", "foreign_key": "id", "max_rows": 3, "columns": {"id": {"kind": "id"}}},
    },
    "rules": ["visit.until >= visit.day"],
}
RANGE = {"hb": (5, 20), "k": (30, 60), "na": (120, 150)}


@pytest.fixture(scope="module")
def schema() -> Schema:
    return load_schema(DECLARED)


def made_up(patients: int, schema: Schema, *, seed: int = 0) -> Cohort[Schema]:
    """Sick patients come often and have high potassium; ward b follows ward a; a test is done once a visit."""
    draw = np.random.default_rng(seed)
    people, visits, labs, notes = [], [], [], []
    for at in range(patients):
        sick = bool(draw.random() < 0.4)
        people.append((f"p{at}", sick))
        day = int(draw.integers(0, 50))
        for number in range(int(draw.integers(2, 7)) if sick else int(draw.integers(0, 2))):
            visit = f"p{at}v{number}"
            visits.append((visit, f"p{at}", day, day + int(draw.integers(0, 5)), "abc"[min(number, 2)]))
            for test in ("hb", "k", "na")[: int(draw.integers(0, 4))]:
                low, high = RANGE[test]
                value = int(draw.integers(50, high + 1) if test == "k" and sick else draw.integers(low, high - 11 + 1))
                labs.append((visit, day + int(draw.integers(0, 2)), test, value))
            day += int(draw.integers(5, 50))
        notes += [(f"p{at}",)] * (2 if sick else 0)
    return Cohort(
        {
            "patient": pl.DataFrame(people, schema=["id", "sick"], orient="row"),
            "visit": pl.DataFrame(visits, schema=["visit", "id", "day", "until", "ward"], orient="row"),
            "lab": pl.DataFrame(labs, schema=["visit", "day", "test", "value"], orient="row"),
            "note": pl.DataFrame(notes, schema=["id"], orient="row"),
        },
        schema=schema,
    )


@pytest.fixture(scope="module")
def trained(schema: Schema) -> Trained:
    settings = TrainingSettings(rows=RowsSettings(patients=2000, rows=5000, rounds=8, steps=15))
    return train(made_up(3000, schema), epsilon=20.0, policy="exploratory", seed=1, settings=settings)


@pytest.fixture(scope="module")
def release(trained: Trained) -> Release:
    return Release.of(trained, datasheet=lambda _: "made for a test")


@pytest.fixture(scope="module")
def synthetic(release: Release) -> Cohort[Schema]:
    return release.sample(2000, seed=3)


def test_every_row_hangs_from_a_row_that_is_there(synthetic: Cohort[Schema]) -> None:
    visits, labs = synthetic.tables["visit"], synthetic.tables["lab"]
    assert visits["visit"].is_unique().all()
    assert visits["id"].is_in(synthetic.tables["patient"]["id"].implode()).all()
    assert labs["visit"].is_in(visits["visit"].implode()).all()
    assert labs.height > 500


def test_rows_come_in_the_order_of_time_and_obey_the_rules(synthetic: Cohort[Schema]) -> None:
    visits = synthetic.tables["visit"]
    assert visits.select((pl.col("day").diff().over("id").drop_nulls() >= 0).all()).item()
    assert (visits["until"] >= visits["day"]).all()
    for name in ("visit", "lab"):
        assert synthetic.tables[name]["day"].is_between(0, 400).all()


def test_a_patient_has_no_more_rows_than_were_learned(synthetic: Cohort[Schema]) -> None:
    for name, most in (("visit", 6), ("lab", 12), ("note", 3)):
        assert np.bincount(synthetic.owners(name), minlength=len(synthetic)).max() <= most


def test_what_rows_have_to_do_with_patients_is_learned(synthetic: Cohort[Schema]) -> None:
    sick = synthetic.root["sick"].to_numpy()
    visits = np.bincount(synthetic.owners("visit"), minlength=len(synthetic))
    assert visits[sick].mean() > visits[~sick].mean() + 2.0
    notes = np.bincount(synthetic.owners("note"), minlength=len(synthetic))
    assert notes[sick].mean() > 1.5 > 0.5 > notes[~sick].mean()
    labs, owners = synthetic.tables["lab"], synthetic.owners("lab")
    potassium = labs["value"].to_numpy()[(labs["test"] == "k").to_numpy() & sick[owners]]
    assert potassium.mean() > 48.0


def test_what_rows_have_to_do_with_the_row_before_is_learned(synthetic: Cohort[Schema]) -> None:
    visits = synthetic.tables["visit"].with_columns(before=pl.col("ward").shift().over("id"))
    second = visits.filter(pl.col("before") == "a")
    assert (second["ward"] == "b").mean() > 0.8


def test_a_release_of_several_tables_is_the_same_after_it_was_saved(
    release: Release, synthetic: Cohort[Schema], tmp_path: Any
) -> None:
    release.save(tmp_path / "release")
    again = Release.load(tmp_path / "release").sample(2000, seed=3)
    assert all(again.tables[name].equals(synthetic.tables[name]) for name in synthetic.tables)


def test_where_cannot_be_asked_of_another_table(release: Release) -> None:
    with pytest.raises(se.ConfigError, match="rows of table 'lab'"):
        release.sample(5, where="lab.value > 10")


def test_the_account_of_all_tables_is_one(trained: Trained) -> None:
    stages = {event.stage for event in trained.events}
    assert {"pairs", "visit/pairs", "lab/pairs", "visit/rows", "lab/history", "lab/domain:value"} <= stages
    assert trained.epsilon_spent <= 20.0


def test_what_a_patients_rows_become_depends_on_that_patient_alone(schema: Schema) -> None:
    whole = made_up(40, schema)
    tables = conditional_tables(schema, {"patient": 1, "visit": 6, "lab": 12, "note": 3})
    everyone = unroll(whole, tables, draws=np.random.default_rng(0))
    without = unroll(whole.take(np.delete(np.arange(40), 7)), tables, draws=np.random.default_rng(0))
    for name in ("patient", "visit", "lab"):
        kept = everyone[name].owners != 7
        assert everyone[name].frame.filter(pl.Series(kept)).equals(without[name].frame)


def test_gaps_are_counted_within_a_parent(schema: Schema) -> None:
    tables = conditional_tables(schema, {"patient": 1, "visit": 6, "lab": 12, "note": 3})
    found = unroll(made_up(60, schema), tables, draws=np.random.default_rng(0))["visit"]
    first = np.concatenate([[True], np.diff(found.owners) != 0])
    assert (found.frame[GAP].is_null().to_numpy() == first).all()
    assert (found.frame[GAP].drop_nulls() >= 5).all()


def _codes(cohort: Cohort[Schema], noise: InsecureNoise) -> PrivateCodes:
    tables = conditional_tables(cohort.schema, {"patient": 1, "visit": 6, "lab": 12, "note": 3})
    doors = all_behind_the_door(
        cohort,
        tables,
        noise=noise,
        max_rows={"patient": 1, "visit": 6, "lab": 12, "note": 3},
        draws=np.random.default_rng(0),
    )
    flags = Values(values=("false", "true"), other=False, nullable=False)
    rows = Intervals(edges=np.array([-0.5, 0.5, 2.5, 7.0]), nullable=False)
    people = {"sick": flags, **{n: rows for n in tables["patient"].own if n.startswith("[rows")}}
    above = doors["patient"].encode(people)
    ward = Values(values=("a", "b", "c"), other=False, nullable=False)
    last = Repeated(role="last", name="[last ward]", cells=Values(values=ward.values, other=False, nullable=True))
    when = Values(values=("never", "before", "beside"), other=False, nullable=False)
    seen = Repeated(role="seen", name="[ward seen]", cells=when, gap=GAP)
    return doors["visit"].encode({"ward": ward}, above=above, context=[0, 1], history=[last, seen])


def test_rows_beside_a_row_are_those_before_it_at_its_time_or_of_its_parent() -> None:
    # One patient: two rows of code 0 and 1 on day 3, again code 0 on day 3, code 0 on day 5. Then another patient.
    own, owners = np.array([[0], [1], [0], [0], [0]]), np.array([0, 0, 0, 0, 1])
    frame = pl.DataFrame({GAP: [None, 0.0, 0.0, 2.0, None]})
    code = Values(values=("a", "b"), other=False, nullable=True)
    when = Values(values=("never", "before", "beside"), other=False, nullable=False)
    for gap, beside, seen in (
        (GAP, [2, 0, 1, 2, 2], [0, 0, 2, 1, 0]),
        (None, [2, 0, 1, 0, 2], [0, 0, 2, 2, 0]),
    ):
        history = [
            Repeated(role="beside", name="[code beside]", cells=code, gap=gap),
            Repeated(role="seen", name="[code seen]", cells=when, gap=gap),
        ]
        found = history_of(history, own, frame, owners=owners, parents=owners)
        assert [part.tolist() for part in found] == [beside, seen]


def test_made_up_rows_tell_what_is_beside_them_as_real_ones_do() -> None:
    draws = np.random.default_rng(3)
    rows = draws.integers(1, 9, 50)
    owners = np.repeat(np.arange(50), rows)
    time = np.sort(draws.integers(0, 4, len(owners)) + 10.0 * owners)
    code = draws.integers(0, 3, len(owners))
    made = Rolled(
        frame=pl.DataFrame(), codes={}, of_patient=owners, parents=owners, time=time, table="rows", above=None
    )
    first = np.concatenate([[True], np.diff(owners) != 0])
    frame = pl.DataFrame({GAP: pl.Series(np.where(first, np.nan, np.diff(time, prepend=0.0))).fill_nan(None)})
    when = Values(values=("never", "before", "beside"), other=False, nullable=False)
    history = [Repeated(role="seen", name="[code seen]", cells=when, gap=GAP)]
    (wanted,) = history_of(history, code[:, None], frame, owners=owners, parents=owners)
    places = np.sort(draws.choice(len(owners), len(owners) // 2, replace=False))
    found = seen_before(code, made, places, size=3)
    assert found[np.arange(len(places)), code[places]].tolist() == wanted[places].tolist()
    assert set(wanted.tolist()) == {0, 1, 2}


def test_a_whole_patient_moves_the_histograms_of_a_child_table_by_at_most_one(schema: Schema) -> None:
    whole = made_up(50, schema).bounded({"visit": 6, "lab": 12, "note": 3}, draws=np.random.default_rng(5))
    sets = [(0, 1), (0, 3), (0, 4), (1, 2)]
    event = Gaussian(stage="test", noise_multiplier=1.0)

    def histograms(cohort: Cohort[Schema]) -> list[np.ndarray]:
        noise = Recorder()
        _codes(cohort, noise).marginals(open_account(event), sets, shares=[0.25] * 4, event=event)
        return [given / GRAIN for given, _ in noise.given[-len(sets) :]]

    everyone = histograms(whole)
    moved = []
    for patient in range(50):
        without = histograms(whole.take(np.delete(np.arange(50), patient)))
        changes = [float(np.abs(a - b).sum()) for a, b in zip(everyone, without, strict=True)]
        moved.append(max(changes))
    assert max(moved) <= 1.0 + 1e-4
    assert max(moved) > 0.9, "a patient with visits weighs one"


def test_patients_with_rows_are_counted_once(schema: Schema) -> None:
    whole = made_up(50, schema).bounded({"visit": 6, "lab": 12, "note": 3}, draws=np.random.default_rng(5))
    event = Gaussian(stage="test", noise_multiplier=1.0)

    def count(cohort: Cohort[Schema]) -> float:
        tables = conditional_tables(schema, {"patient": 1, "visit": 6, "lab": 12, "note": 3})
        doors = all_behind_the_door(
            cohort,
            tables,
            noise=Recorder(),
            max_rows={"patient": 1, "visit": 6, "lab": 12, "note": 3},
            draws=np.random.default_rng(0),
        )
        return doors["visit"].count_with_rows(open_account(event), event=event)

    everyone = count(whole)
    assert everyone == whole.tables["visit"]["id"].n_unique()
    moved = [everyone - count(whole.take(np.delete(np.arange(50), patient))) for patient in range(50)]
    assert set(moved) == {0.0, 1.0}


def test_a_code_that_comes_once_in_real_patients_comes_once_in_made_up_ones() -> None:
    declared = {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "patient": {"key": "id", "columns": {"id": {"kind": "id"}, "sick": {"kind": "boolean"}}},
            "event": {
                "parent": "patient",
                "foreign_key": "id",
                "order_by": "day",
                "max_rows": 6,
                "columns": {
                    "id": {"kind": "id"},
                    "day": {"kind": "integer", "bounds": [0, 400]},
                    "code": {"kind": "category", "values": ["diabetes", "flu", "cold"]},
                },
            },
        },
    }
    draw = np.random.default_rng(3)
    rows = []
    for at in range(2000):
        known = False
        for day in np.sort(draw.integers(0, 400, draw.integers(0, 7))):
            code = str(draw.choice(["flu", "cold"] if known else ["diabetes", "flu", "cold"]))
            known = known or code == "diabetes"
            rows.append((f"p{at}", int(day), code))
    tables = {
        "patient": pl.DataFrame({"id": [f"p{at}" for at in range(2000)], "sick": [at % 2 == 0 for at in range(2000)]}),
        "event": pl.DataFrame(rows, schema=["id", "day", "code"], orient="row"),
    }
    settings = TrainingSettings(rows=RowsSettings(patients=1500, rows=4000, rounds=6, steps=10))
    cohort = Cohort(tables, schema=load_schema(declared))
    fitted = train(cohort, epsilon=10.0, policy="exploratory", seed=0, settings=settings, noise=InsecureNoise(4))
    release = Release.of(fitted, datasheet=lambda _: "made for a test")
    event = release.sample(2000, seed=1, allow_insecure=True).tables["event"]
    each = event.group_by("id", "code").len()
    assert each.filter((pl.col("code") == "diabetes") & (pl.col("len") > 1)).height == 0
    assert each.filter((pl.col("code") == "flu") & (pl.col("len") > 1)).height > 200
    assert each.filter(pl.col("code") == "diabetes").height > 600
