"""Rules between rows and their ancestors: kept on the way in, and by every synthetic patient."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest

import synthehr as se
from synthehr.cohort import Cohort
from synthehr.connectors.badrows import LeftOut
from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.connectors.records import read
from synthehr.encoding.unroll import GAP, LEFT, conditional_tables, unroll
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.longitudinal_validity import row_rule_violations
from synthehr.models.planning import RowsSettings, TrainingSettings
from synthehr.models.training import train
from synthehr.release import Release
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema
from synthehr.schema.validation import check_tables

DECLARED: dict[str, Any] = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "id",
            "columns": {
                "id": {"kind": "id"},
                "female": {"kind": "boolean"},
                "until": {"kind": "date", "bounds": ["2020-01-01", "2021-12-31"]},
            },
        },
        "visit": {
            "key": "visit",
            "parent": "patient",
            "foreign_key": "id",
            "order_by": "day",
            "max_rows": 8,
            "columns": {
                "visit": {"kind": "id"},
                "id": {"kind": "id"},
                "day": {"kind": "date", "bounds": ["2020-01-01", "2021-12-31"]},
                "ward": {"kind": "category", "values": ["heart", "birth", "skin"]},
            },
        },
        "drug": {
            "parent": "visit",
            "foreign_key": "visit",
            "max_rows": 8,
            "columns": {
                "visit": {"kind": "id"},
                "name": {"kind": "category", "values": ["oxytocin", "other"]},
            },
        },
    },
    "rules": [
        "visit.day <= patient.until",
        "visit.ward <> 'birth' or patient.female",
        "drug.name <> 'oxytocin' or (visit.ward = 'birth' and patient.female)",
    ],
}


@pytest.fixture(scope="module")
def schema() -> Schema:
    return load_schema(DECLARED)


def made_up(patients: int, *, seed: int = 0) -> dict[str, pl.DataFrame]:
    """Patients who leave at any time of two years, and come until then."""
    draw = np.random.default_rng(seed)
    start = np.datetime64("2020-01-01")
    people, visits, drugs = [], [], []
    for at in range(patients):
        female, until = bool(draw.random() < 0.5), int(draw.integers(0, 730))
        people.append((f"p{at}", female, (start + until).astype(object)))
        for number, day in enumerate(np.sort(draw.integers(0, until + 1, int(draw.integers(0, 8))))):
            ward = str(draw.choice(["heart", "birth", "skin"] if female else ["heart", "skin"]))
            visits.append((f"p{at}v{number}", f"p{at}", (start + int(day)).astype(object), ward))
            drugs.append((f"p{at}v{number}", "oxytocin" if ward == "birth" else "other"))
    return {
        "patient": pl.DataFrame(people, schema=["id", "female", "until"], orient="row"),
        "visit": pl.DataFrame(visits, schema=["visit", "id", "day", "ward"], orient="row"),
        "drug": pl.DataFrame(drugs, schema=["visit", "name"], orient="row"),
    }


def broken(tables: dict[str, pl.DataFrame]) -> list[int]:
    """How many rows break each rule, told without the package."""
    visits = tables["visit"].join(tables["patient"], on="id")
    drugs = tables["drug"].join(visits, on="visit")
    return [
        visits.filter(pl.col("day") > pl.col("until")).height,
        visits.filter((pl.col("ward") == "birth") & ~pl.col("female")).height,
        drugs.filter((pl.col("name") == "oxytocin") & ~((pl.col("ward") == "birth") & pl.col("female"))).height,
    ]


def with_a_late_visit(tables: dict[str, pl.DataFrame]) -> tuple[dict[str, pl.DataFrame], int]:
    """One visit after its patient left, and its number in the file, from 1."""
    until = dict(zip(tables["patient"]["id"], tables["patient"]["until"], strict=True))
    at = next(n for n, row in enumerate(tables["visit"].iter_rows(named=True)) if str(until[row["id"]]) < "2021-06-01")
    day = tables["visit"]["day"].to_list()
    day[at] = np.datetime64("2021-12-01").astype(object)
    return {**tables, "visit": tables["visit"].with_columns(pl.Series("day", day))}, at + 1


@pytest.fixture(scope="module")
def synthetic(schema: Schema) -> Cohort[Schema]:
    settings = TrainingSettings(rows=RowsSettings(patients=1500, rows=3000, rounds=5, steps=10))
    trained = train(read(made_up(2500), schema=schema), epsilon=5.0, policy="exploratory", seed=1, settings=settings)
    return Release.of(trained, datasheet=lambda _: "made for a test").sample(3000, seed=2)


def test_no_synthetic_row_breaks_a_rule_across_tables(synthetic: Cohort[Schema]) -> None:
    assert broken(synthetic.tables) == [0, 0, 0]
    assert synthetic.tables["visit"].height > 5000
    assert (synthetic.tables["visit"]["ward"] == "birth").mean() > 0.1


def test_patients_come_until_they_leave_and_not_only_early(synthetic: Cohort[Schema]) -> None:
    def left(tables: dict[str, pl.DataFrame]) -> float:
        visits = tables["visit"].join(tables["patient"], on="id")
        return float(visits.select((pl.col("until") - pl.col("day")).dt.total_days().mean()).item())

    assert left(synthetic.tables) == pytest.approx(left(made_up(2500)), rel=0.25)


def test_a_real_row_that_breaks_a_rule_across_tables_is_refused_by_its_number(schema: Schema) -> None:
    tables, number = with_a_late_visit(made_up(40))
    with pytest.raises(se.DataError, match=rf"table 'visit', row {number}: breaks the declared rule") as told:
        read(tables, schema=schema)
    assert "2021-12-01" not in str(told.value)


def test_a_row_that_breaks_a_rule_across_tables_is_left_out_with_what_hangs_from_it(schema: Schema) -> None:
    tables, number = with_a_late_visit(made_up(40))
    seen: list[LeftOut] = []
    cohort = read(tables, schema=schema, on_bad=BadRowPolicy(mode="drop", most=0.5), on_left_out=seen.append)
    assert cohort.tables["visit"].height == tables["visit"].height - 1
    assert cohort.tables["drug"].height == tables["drug"].height - 1
    visit = seen[0].listed.filter(pl.col("table") == "visit")
    assert visit["row"].to_list() == [number]


@pytest.mark.parametrize("late", [False, True])
def test_the_check_of_a_schema_tries_rules_across_tables(schema: Schema, late: bool) -> None:
    tables = made_up(40)
    if late:
        tables, _ = with_a_late_visit(tables)
    found = {entry.rule: entry.met for entry in check_tables(tables, schema=schema)}
    assert found[f"meets {DECLARED['rules'][0]!r}"] is not late
    assert found[f"meets {DECLARED['rules'][2]!r}"] is True


def test_a_broken_rule_across_tables_is_counted_by_the_evaluation(schema: Schema) -> None:
    tables = made_up(400)
    late = {**tables, "patient": tables["patient"].with_columns(until=pl.lit(dt.date(2020, 1, 1)))}
    train_part, holdout = read(tables, schema=schema).split(holdout=0.5, seed=0)
    bench = Bench.open(train=train_part, holdout=holdout, synthetic=read(late, schema=schema, lenient=True), seed=0)
    found = row_rule_violations(bench, "all")
    assert found.value.value > 0.5
    assert found.reference == 0.0


def test_what_is_left_until_the_last_row_is_what_later_gaps_sum_to(schema: Schema) -> None:
    cohort = read(made_up(80), schema=schema)
    tables = conditional_tables(schema, {"patient": 1, "visit": 8, "drug": 8})
    found = unroll(cohort, tables, draws=np.random.default_rng(0))["visit"]
    visit = found.frame.with_columns(owner=found.owners)
    later = visit.with_columns(sum=pl.col(GAP).fill_null(0.0).cum_sum(reverse=True).over("owner"))
    first = later[LEFT].is_null()
    assert (first == (visit["owner"] != visit["owner"].shift()).fill_null(value=True)).all()
    assert later.filter(~first).select((pl.col(LEFT) == pl.col("sum")).all()).item()
