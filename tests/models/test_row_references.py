"""References to rows of the same patient: which rows have one is learned, which row it is follows from the times."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.connectors.store import StoreWriter, read_store
from synthehr.encoding.references import flag_of, minutes_of_both
from synthehr.encoding.unroll import has_reference
from synthehr.errors import DataError, SchemaError
from synthehr.models.linking import linked, linked_to_row_before
from synthehr.models.planning import RowsSettings, TrainingSettings
from synthehr.models.rollout import Rolled
from synthehr.models.training import train
from synthehr.release import Release
from synthehr.reporting.datasheet import render_datasheet
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

DECLARED: dict[str, Any] = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {"key": "id", "columns": {"id": {"kind": "id"}, "sick": {"kind": "boolean"}}},
        "visit": {
            "key": "visit",
            "parent": "patient",
            "foreign_key": "id",
            "order_by": "hour",
            "max_rows": 6,
            "columns": {
                "visit": {"kind": "id"},
                "id": {"kind": "id"},
                "before": {"kind": "id", "references": "visit"},
                "hour": {"kind": "integer", "bounds": [0, 2400], "unit": "h"},
            },
        },
        "drug": {
            "parent": "patient",
            "foreign_key": "id",
            "order_by": "day",
            "max_rows": 6,
            "columns": {
                "id": {"kind": "id"},
                "visit": {"kind": "id", "references": "visit"},
                "day": {"kind": "integer", "bounds": [0, 100], "unit": "d"},
                "what": {"kind": "category", "values": ["prescribed", "bought"]},
            },
        },
    },
}


def cohort_of(patients: int, *, seed: int = 0) -> Cohort[Schema]:
    """Prescribed drugs belong to a visit, bought ones to none; every visit but the first knows the one before."""
    draw = np.random.default_rng(seed)
    people, visits, drugs = [], [], []
    for at in range(patients):
        sick = bool(draw.random() < 0.5)
        people.append((f"p{at}", sick))
        hours = np.sort(draw.choice(2400, int(draw.integers(1, 6)) if sick else 0, replace=False))
        for number, hour in enumerate(hours):
            visits.append((f"p{at}v{number}", f"p{at}", f"p{at}v{number - 1}" if number else None, int(hour)))
            drugs.append((f"p{at}", f"p{at}v{number}", int(hour) // 24, "prescribed"))
        drugs += [(f"p{at}", None, int(draw.integers(0, 101)), "bought") for _ in range(int(draw.integers(0, 2)))]
    text, whole = pl.String, pl.Int64
    return Cohort(
        {
            "patient": pl.DataFrame(people, schema={"id": text, "sick": pl.Boolean}, orient="row"),
            "visit": pl.DataFrame(
                visits, schema={"visit": text, "id": text, "before": text, "hour": whole}, orient="row"
            ),
            "drug": pl.DataFrame(drugs, schema={"id": text, "visit": text, "day": whole, "what": text}, orient="row"),
        },
        schema=load_schema(DECLARED),
    )


@pytest.fixture(scope="module")
def release() -> Release:
    settings = TrainingSettings(rows=RowsSettings(patients=1500, rows=4000, rounds=6, steps=15))
    trained = train(cohort_of(2000), epsilon=20.0, policy="exploratory", seed=1, settings=settings)
    return Release.of(trained, datasheet=render_datasheet)


@pytest.fixture(scope="module")
def synthetic(release: Release) -> Cohort[Schema]:
    return release.sample(1500, seed=2)


def test_a_reference_leads_to_a_row_of_the_same_patient(synthetic: Cohort[Schema]) -> None:
    visits, drugs = synthetic.tables["visit"], synthetic.tables["drug"]
    of = visits.select("visit", pl.col("id").alias("of"))
    led = drugs.drop_nulls("visit").join(of, on="visit", how="left")
    assert led.height > 500 and led["of"].null_count() == 0
    assert (led["of"] == led["id"]).all()


def test_rows_have_a_reference_as_often_as_real_ones_of_their_code_do(synthetic: Cohort[Schema]) -> None:
    drugs = synthetic.tables["drug"]
    rates = dict(drugs.group_by("what").agg(pl.col("visit").is_not_null().mean()).iter_rows())
    assert rates["bought"] < 0.1
    # Those of patients without a visit have none to refer to.
    there = drugs.filter(pl.col("id").is_in(synthetic.tables["visit"]["id"].implode()))
    assert there.filter(pl.col("what") == "prescribed")["visit"].is_not_null().mean() > 0.9


def test_it_leads_to_the_last_row_that_began_by_then(synthetic: Cohort[Schema]) -> None:
    visits, drugs = synthetic.tables["visit"], synthetic.tables["drug"].drop_nulls("visit")
    both = drugs.rename({"visit": "to"}).with_row_index("at").join(visits, on="id")
    day = pl.col("hour") // 24
    by_then = both.filter(day <= pl.col("day")).group_by("at").agg(pl.col("hour").max().alias("latest"))
    led = both.filter(pl.col("visit") == pl.col("to")).join(by_then, on="at")
    assert led.height > 300
    assert led.select((pl.col("hour") // 24 == pl.col("latest") // 24).all()).item()


def test_a_reference_to_the_own_table_leads_to_the_row_before(synthetic: Cohort[Schema]) -> None:
    visits = synthetic.tables["visit"]
    previous = visits.with_columns(pl.col("visit").shift(1).over("id").alias("previous")).drop_nulls("before")
    assert previous.height > 500
    assert (previous["before"] == previous["previous"]).all()


def test_the_datasheet_tells_what_becomes_of_references(release: Release) -> None:
    assert "leads to the row of visit at the time" in release.datasheet
    assert "Keys to rows of other tables" not in release.datasheet


def test_only_rows_of_the_same_patient_count_as_referred_to() -> None:
    cohort = cohort_of(2)
    visits = pl.DataFrame(
        {"visit": ["a", "b", "c"], "id": ["p0", "p0", "p1"], "before": ["a", "a", None], "hour": [1, 2, 3]}
    )
    drugs = pl.DataFrame(
        {
            "id": ["p0", "p0", "p0", "p1"],
            "visit": ["a", "c", "nowhere", None],  # of the patient, of another, of nobody, none
            "day": [0, 0, 0, 0],
            "what": ["bought"] * 4,
        }
    )
    tables = {"patient": cohort.tables["patient"], "visit": visits, "drug": drugs}
    made = Cohort(tables, schema=cohort.schema)
    assert has_reference(made, "drug", "visit").tolist() == [True, False, False, False]
    assert has_reference(made, "visit", "before").tolist() == [False, True, False]  # itself is none
    assert flag_of("visit") == "[visit known]"


def rows(of_patient: list[int], time: list[float] | None) -> Rolled:
    return Rolled(
        frame=pl.DataFrame({"x": of_patient}),
        codes={},
        of_patient=np.array(of_patient, dtype=np.int64),
        parents=np.array(of_patient, dtype=np.int64),
        time=None if time is None else np.array(time),
        table="t",
    )


KEYS = pl.Series(["a", "b", "c"])


@pytest.mark.parametrize(
    ("day", "hours", "leads"),
    [
        (2.0, [24.0, 47.0, 90.0], "b"),  # the last on or before day 2
        (3.0, [24.0, 47.0, 90.0], "c"),  # day 3 has begun with hour 72, and hour 90 is of that day
        (0.0, [24.0, 47.0, 90.0], "a"),  # none by then: the first one after
        (9.0, [np.nan, 47.0, np.nan], "b"),  # rows without a time are there for want of others alone
    ],
)
def test_which_row_is_there_at_the_time(day: float, hours: list[float], leads: str) -> None:
    found = linked(
        rows([0], [day]),
        np.array([True]),
        rows([0, 0, 0], hours),
        KEYS,
        minutes=(1440.0, 60.0),
        draws=np.random.default_rng(0),
    )
    assert found.to_list() == [leads]


@pytest.mark.parametrize("minutes", [None, (1440.0, 1440.0)])
@pytest.mark.parametrize("time", [None, [np.nan] * 3])
def test_without_times_any_row_of_the_patient_will_do(
    minutes: tuple[float, float] | None, time: list[float] | None
) -> None:
    known = np.array([True] * 300 + [False, True])
    of_patient = [1] * 301 + [5]
    found = linked(
        rows(of_patient, None if time is None else [np.nan] * 302),
        known,
        rows([0, 1, 1], time),
        KEYS,
        minutes=minutes,
        draws=np.random.default_rng(0),
    )
    assert set(found[:300]) == {"b", "c"}
    assert found[300:].to_list() == [None, None]  # one that has none, and one whose patient has no rows


def test_the_row_before_is_of_the_same_patient() -> None:
    found = linked_to_row_before(rows([0, 0, 1], [1.0, 2.0, 3.0]), np.array([True, True, True]), KEYS)
    assert found.to_list() == [None, "a", None]


def test_times_are_compared_on_one_axis_alone() -> None:
    visit, drug = (load_schema(DECLARED).tables[name] for name in ("visit", "drug"))
    assert minutes_of_both(drug.columns["day"], visit.columns["hour"]) == (1440.0, 60.0)
    other = deepcopy(DECLARED)
    other["tables"]["drug"]["columns"]["day"] = {"kind": "date", "bounds": ["2020-01-01", "2021-01-01"]}
    assert minutes_of_both(load_schema(other).tables["drug"].columns["day"], visit.columns["hour"]) is None


@pytest.mark.parametrize(
    ("table", "column", "to", "told"),
    [
        ("drug", "visit", "ward", "'ward', which is not declared under tables"),
        ("drug", "visit", "drug", "'drug', which needs a key"),
        ("drug", "visit", "patient", "which every row belongs to"),
        ("drug", "id", "visit", "is the table's key or foreign_key"),
        ("patient", "first", "visit", "rows of 'patient' are patients"),
    ],
)
def test_a_reference_that_cannot_be_is_refused(table: str, column: str, to: str, told: str) -> None:
    contents = deepcopy(DECLARED)
    contents["tables"][table]["columns"][column] = {"kind": "id", "references": to}
    with pytest.raises(SchemaError, match=told):
        load_schema(contents)


def test_a_store_keeps_references_as_numbers_of_rows(tmp_path: Path) -> None:
    cohort = cohort_of(40)
    shuffled = cohort.tables["visit"].sample(fraction=1.0, shuffle=True, seed=1)  # some refer to rows that come later
    dangling = cohort.tables["drug"].with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("nowhere")).otherwise("visit").alias("visit")
    )
    given = Cohort({**cohort.tables, "visit": shuffled, "drug": dangling}, schema=cohort.schema)
    (tmp_path / "store").mkdir()
    StoreWriter(tmp_path / "store", schema=given.schema).write(given)
    held = read_store(tmp_path / "store")
    for table, column in (("visit", "before"), ("drug", "visit")):
        assert has_reference(held, table, column).tolist() == has_reference(given, table, column).tolist()
        rows_of = {key: at for at, key in enumerate(shuffled["visit"])}
        expected = [rows_of.get(key) for key in given.tables[table][column]]
        assert held.tables[table][column].to_list() == expected
    assert not any(b"p1v" in file.read_bytes() for file in (tmp_path / "store").iterdir())

    (tmp_path / "store" / "visit.rows.arrow").unlink()
    with pytest.raises(DataError, match="damaged"):
        read_store(tmp_path / "store")
