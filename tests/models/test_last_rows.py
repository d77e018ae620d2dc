"""What comes in a patient's last row alone, as a death does, ends synthetic histories; wide tables weigh less."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.encoding.unroll import ConditionalTable, conditional_tables
from synthehr.models.planning import ChoiceSettings, RowsSettings, TrainingSettings, _Sets, is_kin
from synthehr.models.training import train
from synthehr.release import Release
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

DECLARED: dict[str, Any] = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {"key": "id", "columns": {"id": {"kind": "id"}, "old": {"kind": "boolean"}}},
        "visit": {
            "parent": "patient",
            "foreign_key": "id",
            "order_by": "day",
            "max_rows": 8,
            "columns": {
                "id": {"kind": "id"},
                "day": {"kind": "integer", "bounds": [0, 1000], "unit": "d"},
                "ward": {"kind": "category", "values": ["a", "b", "c"]},
                "left": {"kind": "category", "values": ["home", "clinic", "died"], "nullable": True},
            },
        },
    },
}


@cache
def real() -> Cohort[Schema]:
    """Who dies has no visit after it; home and clinic are as likely in every visit, and now and then nobody knows."""
    draw = np.random.default_rng(0)
    people, visits = [], []
    for at in range(3000):
        old, count = bool(draw.random() < 0.5), int(draw.integers(1, 7))
        dies = draw.random() < (0.5 if old else 0.1)
        people.append((f"p{at}", old))
        for number, day in enumerate(np.sort(draw.integers(0, 1001, count))):
            left: str | None = str(draw.choice(["home", "clinic"])) if draw.random() < 0.9 else None
            visits.append((f"p{at}", int(day), str(draw.choice(["a", "b", "c"])), left))
            if dies and number == count - 1:
                visits[-1] = (*visits[-1][:3], "died")
    tables = {
        "patient": pl.DataFrame(people, schema=["id", "old"], orient="row"),
        "visit": pl.DataFrame(visits, schema=["id", "day", "ward", "left"], orient="row"),
    }
    return Cohort(tables, schema=load_schema(DECLARED))


@cache
def synthetic() -> Cohort[Schema]:
    settings = TrainingSettings(rows=RowsSettings(patients=2000, rows=5000, rounds=8, steps=15))
    trained = train(real(), epsilon=6.0, policy="exploratory", seed=1, settings=settings)
    return Release.of(trained, datasheet=lambda _: "made for a test").sample(3000, seed=2)


def last(visits: pl.DataFrame) -> pl.DataFrame:
    return visits.with_columns((pl.col("id") != pl.col("id").shift(-1)).fill_null(value=True).alias("last"))


def test_nothing_comes_after_what_comes_last() -> None:
    visits = last(synthetic().tables["visit"])
    died = visits.filter(pl.col("left") == "died")
    assert died.height > 500
    assert died["last"].all()


def test_what_comes_anywhere_does_so_still() -> None:
    for cohort in (real(), synthetic()):
        visits = last(cohort.tables["visit"])
        known = visits.filter(pl.col("left").is_in(["home", "clinic"]))
        assert abs(known.filter(~pl.col("last"))["left"].eq("home").mean() - 0.5) < 0.06  # type: ignore[operator]
        assert 0.05 < visits["left"].is_null().mean() < 0.15  # type: ignore[operator]


def test_as_many_die_as_in_real_patients() -> None:
    shares = [(c.tables["visit"]["left"] == "died").sum() / len(c) for c in (real(), synthetic())]
    assert abs(shares[0] - shares[1]) < 0.06


def wide(columns: int) -> ConditionalTable:
    own = {f"c{at}": {"kind": "category", "values": ["x", "y", "z"]} for at in range(columns)}
    visit = {**DECLARED["tables"]["visit"], "columns": {**DECLARED["tables"]["visit"]["columns"], **own}}
    schema = load_schema({**DECLARED, "tables": {**DECLARED["tables"], "visit": visit}})
    return conditional_tables(schema, {"patient": 1, "visit": 8})["visit"]


def test_a_wide_table_weighs_what_a_column_was_before_with_that_column_and_with_the_code() -> None:
    for columns, all_of_them in ((2, True), (20, False)):
        made = wide(columns)
        pairs = {frozenset(made.names[at] for at in pair) for pair in _Sets.of(made, ChoiceSettings()).pairs}
        assert frozenset({"c1", "[last c1]"}) in pairs
        assert made.code == "ward" and frozenset({"c1", "[last ward]"}) in pairs
        assert (frozenset({"c1", "[last c0]"}) in pairs) == all_of_them
        assert is_kin(["c1", "[last c1]"], made) == (not all_of_them)
        assert not is_kin(["c1", "[last ward]"], made)
