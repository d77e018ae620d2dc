"""What every metric must hold to, whatever section it is of; a new one is tried by being in METRICS."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.measurement import Measurement
from synthehr.evaluation.metrics import METRICS, measure, sections
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

SLOW = ("sdmetrics", "tstr_forest")
NAMES = [name for name in METRICS if not name.startswith(SLOW)]

SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "id",
            "outcome": ["flag", "x"],
            "groups": "group",
            "survival": {"time": "days", "event": "flag"},
            "columns": {
                "id": {"kind": "id"},
                "x": {"kind": "integer", "bounds": [0, 60], "nullable": True},
                "weight": {"kind": "number", "nullable": True},
                "days": {"kind": "integer", "bounds": [0, 4000]},
                "born": {"kind": "date", "bounds": ["1900-01-01", "2024-01-01"], "nullable": True},
                "group": {"kind": "category", "values": ["a", "b", "c"], "nullable": True},
                "flag": {"kind": "boolean", "nullable": True},
            },
        },
        "visit": {
            "parent": "patient",
            "foreign_key": "id",
            "order_by": "day",
            "columns": {
                "id": {"kind": "id"},
                "day": {"kind": "integer", "bounds": [0, 4000], "unit": "d", "nullable": True},
                "code": {"kind": "code", "system": "http://example.org", "values": ["u", "v", "w"], "nullable": True},
                "value": {"kind": "number", "nullable": True},
            },
        },
    },
    "rules": ["weight is null or weight > 0"],
}


def tables(patients: int, seed: int) -> dict[str, pl.DataFrame]:
    draw = np.random.default_rng(seed)
    x = draw.integers(0, 60, patients)
    group = draw.choice(["a", "b", "c"], patients, p=[0.5, 0.35, 0.15])
    flag = draw.random(patients) < 1 / (1 + np.exp(-(x - 30) / 12))
    weight = np.where(draw.random(patients) < 0.1, np.nan, 50 + x / 2 + draw.normal(0, 5, patients))
    rows = draw.poisson(2, patients)
    owner = np.repeat(np.arange(patients), rows)
    start = dt.date(1950, 1, 1)
    root = pl.DataFrame(
        {
            "id": [f"{seed}-{at}" for at in range(patients)],
            "x": x,
            "weight": weight,
            "days": (draw.exponential(1000, patients) + 1).astype(int).clip(1, 4000),
            "born": [start + dt.timedelta(days=int(day)) for day in draw.integers(0, 20000, patients)],
            "group": group,
            "flag": flag,
        }
    ).with_columns(pl.col("weight").fill_nan(None))
    visit = pl.DataFrame(
        {
            "id": [f"{seed}-{at}" for at in owner],
            "day": draw.integers(0, 4000, len(owner)),
            "code": draw.choice(["u", "v", "w"], len(owner)),
            "value": draw.normal(size=len(owner)),
        },
        schema={"id": pl.String, "day": pl.Int64, "code": pl.String, "value": pl.Float64},
    )
    return {"patient": root, "visit": visit}


def bench_of(schema: Schema, *cohorts: dict[str, pl.DataFrame], seed: int = 0) -> Bench:
    train, holdout, synthetic = (Cohort(one, schema=schema) for one in cohorts)
    return Bench.open(train=train, holdout=holdout, synthetic=synthetic, seed=seed, asked=frozenset(NAMES))


@pytest.fixture(scope="module")
def schema() -> Schema:
    return load_schema(SCHEMA)


@pytest.fixture(scope="module")
def measured(schema) -> dict[str, Measurement]:
    bench = bench_of(schema, tables(400, 0), tables(200, 1), tables(300, 2))
    return {name: measure(bench, name, "all") for name in NAMES}


def changed(patients: int, seed: int, change: Callable[[pl.DataFrame], pl.DataFrame]) -> dict[str, pl.DataFrame]:
    cohort = tables(patients, seed)
    return {**cohort, "patient": change(cohort["patient"])}


def assert_sound(name: str, found: Measurement) -> None:
    assert found.metric == name
    assert found.direction == METRICS[name].direction
    if found.value is None:
        assert found.why.endswith("."), f"{name} is undefined and does not say why"
        assert found.excess is None
    else:
        assert found.excess is not None and found.reference is not None
        assert math.isfinite(found.reference)


def test_every_metric_is_taken_of_ordinary_cohorts(measured):
    undefined = [name for name, found in measured.items() if found.value is None]
    for name, found in measured.items():
        assert_sound(name, found)
    assert len(undefined) <= len(measured) // 3, undefined


def test_a_fresh_sample_of_the_same_population_is_never_certain_to_be_bad(measured):
    for name, found in measured.items():
        if found.excess is not None:
            assert found.excess.low <= 0.25, name


def test_the_same_seed_gives_the_same_measurement(schema, measured):
    bench = bench_of(schema, tables(400, 0), tables(200, 1), tables(300, 2))
    again = {name: measure(bench, name, "all") for name in NAMES}
    assert again == measured


def test_types_of_columns_do_not_matter(schema, measured):
    def as_text(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(
            pl.col("x").cast(pl.Float64),
            pl.col("weight").cast(pl.Float32),
            pl.col("days").cast(pl.String),
            pl.col("born").cast(pl.String),
            pl.col("group").cast(pl.Categorical),
            pl.col("flag").cast(pl.Int8),
        )

    bench = bench_of(schema, tables(400, 0), tables(200, 1), changed(300, 2, as_text))
    for name in (
        "one_way_tv",
        "pair_tv",
        "missing_rate",
        "triple_tv",
        "association_error",
        "schema_violations",
        "tstr",
    ):
        assert measure(bench, name, "all").value.value == pytest.approx(measured[name].value.value, abs=1e-4), name


DEGENERATE: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "one patient": lambda frame: frame[:1],
    "three patients": lambda frame: frame[:3],
    "all constant": lambda frame: frame.with_columns(
        x=pl.lit(3),
        weight=pl.lit(1.0),
        days=pl.lit(5),
        born=pl.lit(dt.date(2000, 1, 1)),
        group=pl.lit("a"),
        flag=pl.lit(value=True),
    ),
    "all missing": lambda frame: frame.with_columns(pl.lit(None).alias(name) for name in frame.columns if name != "id"),
    "unseen values": lambda frame: frame.with_columns(
        group=pl.lit("never seen"), flag=pl.lit("perhaps"), x=pl.lit(10**6), days=pl.lit(-1)
    ),
    "a class with one member": lambda frame: frame.with_columns(flag=pl.Series(np.arange(frame.height) == 0)),
    "another order of columns and rows": lambda frame: frame.select(sorted(frame.columns)).reverse(),
}


@pytest.mark.parametrize("which", ["synthetic", "all"])
@pytest.mark.parametrize("fault", DEGENERATE)
def test_whatever_the_cohorts_hold_there_is_a_number_with_an_interval_or_a_reason(schema, fault, which):
    def with_fault(patients: int, seed: int, part: str) -> dict[str, pl.DataFrame]:
        if which not in (part, "all"):
            return tables(patients, seed)
        cohort = changed(patients, seed, DEGENERATE[fault])
        return {**cohort, "visit": cohort["visit"].filter(pl.col("id").is_in(cohort["patient"]["id"].to_list()))}

    bench = bench_of(
        schema, with_fault(300, 0, "train"), with_fault(150, 1, "holdout"), with_fault(150, 2, "synthetic")
    )
    for name in NAMES:
        assert_sound(name, measure(bench, name, "all"))
    assert "never seen" not in sections(bench).model_dump_json()


def test_a_synthetic_cohort_larger_than_the_real_ones_is_measured(schema):
    bench = bench_of(schema, tables(120, 0), tables(80, 1), tables(900, 2))
    for name in NAMES:
        assert_sound(name, measure(bench, name, "all"))
