"""Trees of tables of any depth, with unordered children, siblings, dates and open vocabularies."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.longitudinal import METRICS
from synthehr.evaluation.longitudinal_rows import child_tables, histories
from synthehr.evaluation.metrics import measure, sections
from synthehr.schema.files import load_schema

ID = {"kind": "id"}
SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "person",
        "tables": {
            "person": {"key": "person", "columns": {"person": ID, "age": {"kind": "integer", "bounds": [0, 120]}}},
            "visit": {
                "key": "visit",
                "parent": "person",
                "foreign_key": "person",
                "order_by": "start",
                "columns": {
                    "visit": ID,
                    "person": ID,
                    "start": {"kind": "date", "bounds": ["2000-01-01", "2030-01-01"]},
                    "stop": {"kind": "date", "bounds": ["2000-01-01", "2030-01-01"], "nullable": True},
                    "kind": {"kind": "category", "values": ["in", "out"]},
                },
            },
            "condition": {
                "parent": "visit",
                "foreign_key": "visit",
                "columns": {"visit": ID, "code": {"kind": "code", "system": "x", "discover": True}},
            },
            "lab": {
                "key": "lab",
                "parent": "visit",
                "foreign_key": "visit",
                "columns": {
                    "lab": ID,
                    "visit": ID,
                    "test": {"kind": "category", "discover": True},
                    "value": {"kind": "number", "per": "test"},
                },
            },
            "flag": {
                "parent": "lab",
                "foreign_key": "lab",
                "columns": {"lab": ID, "high": {"kind": "boolean"}},
            },
            "allergy": {
                "parent": "person",
                "foreign_key": "person",
                "columns": {"person": ID, "to": {"kind": "category"}},
            },
        },
        "rules": ["visit.stop >= visit.start"],
    }
)


def records(patients: int, seed: int, *, backwards: bool = False) -> Cohort:
    draw = np.random.default_rng(seed)
    age = draw.integers(20, 90, patients)
    visits = np.repeat(np.arange(patients), draw.integers(0, 5, patients))
    start = draw.integers(0, 3000, len(visits))
    stay = draw.integers(0, 9, len(visits)) * (-1 if backwards else 1)
    ill = np.repeat(np.arange(len(visits)), draw.integers(0, 4, len(visits)))
    tested = np.repeat(np.arange(len(visits)), draw.integers(0, 3, len(visits)))
    code = np.char.add("C", (draw.integers(0, 30, len(ill)) * age[visits[ill]] // 60).astype(str))
    flagged = [f"l{at}" for at in range(0, len(tested), 2)]
    allergic = [f"p{at}" for at in range(0, patients, 3)]
    day = dt.date(2010, 1, 1)
    tables = {
        "person": {"person": [f"p{at}" for at in range(patients)], "age": age},
        "visit": {
            "visit": [f"v{at}" for at in range(len(visits))],
            "person": [f"p{at}" for at in visits],
            "start": [day + dt.timedelta(days=int(at)) for at in start],
            "stop": [day + dt.timedelta(days=int(at)) for at in start + stay],
            "kind": draw.choice(["in", "out"], len(visits)),
        },
        "condition": {"visit": [f"v{at}" for at in ill], "code": code},
        "lab": {
            "lab": [f"l{at}" for at in range(len(tested))],
            "visit": [f"v{at}" for at in tested],
            "test": draw.choice(["na", "k"], len(tested)),
            "value": draw.normal(size=len(tested)),
        },
        "flag": {"lab": flagged, "high": draw.random(len(flagged)) < 0.5},
        "allergy": {"person": allergic, "to": draw.choice(["nut", "cat"], len(allergic))},
    }
    return Cohort({name: pl.DataFrame(columns) for name, columns in tables.items()}, schema=SCHEMA)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench.open(train=records(900, 0), holdout=records(400, 1), synthetic=records(300, 2), seed=0)


def test_every_table_is_read_in_order_of_patient_visit_and_time(bench: Bench) -> None:
    assert child_tables(SCHEMA) == ("visit", "allergy", "condition", "lab", "flag")
    person = histories(bench).train
    for table, rows in person.tables.items():
        assert (np.diff(rows.owner) >= 0).all(), table
        assert (np.diff(rows.visit) >= 0).all(), table
        if rows.time is not None:
            same = np.diff(rows.owner) == 0
            assert (np.diff(rows.time)[same] >= 0).all(), table
    # A condition, a lab and the flag of a lab inherit the time of their visit; an allergy has none.
    assert person.tables["allergy"].time is None
    flag, lab, visit = (person.tables[name] for name in ("flag", "lab", "visit"))
    assert (flag.owner == visit.owner[lab.parent[flag.parent]]).all()
    assert (flag.time == visit.time[lab.parent[flag.parent]]).all()


def test_what_is_read_is_what_the_keys_say(bench: Bench) -> None:
    tables = bench.train.tables
    joined = tables["condition"].join(tables["visit"], on="visit").group_by("person").len()
    counted = dict(joined.iter_rows())
    person = histories(bench).train
    keys = tables["person"]["person"].to_list()
    assert person.rows_each("condition").tolist() == [counted.get(key, 0) for key in keys]


@pytest.mark.parametrize("name", list(METRICS))
def test_every_metric_is_taken_on_such_a_tree(bench: Bench, name: str) -> None:
    metric = METRICS[name]
    for scope in ("all", *(metric.scopes(bench) if metric.scopes is not None else ())):
        found = measure(bench, name, scope)
        if found.value is None:
            assert found.why, scope
        else:
            assert found.scope == scope or scope == "all"
    taken = measure(bench, name, "all")
    if name not in ("patient_tstr", "regularity_violations"):
        assert taken.value is not None, taken.why
        assert taken.excess.low <= 0.1, "two samples of one population"


def test_names_of_codes_that_are_not_declared_stay_out_of_the_profile(bench: Bench) -> None:
    measure(bench, "code_prevalence", "all")
    shown = sections(bench).longitudinal.model_dump_json()
    assert "undeclared value 1" in shown
    assert not any(f'"C{at}"' in shown for at in range(50))
    assert '"nut"' not in shown


def test_a_visit_that_ends_before_it_starts_breaks_an_order_and_the_rule() -> None:
    bench = Bench.open(
        train=records(900, 0), holdout=records(400, 1), synthetic=records(300, 2, backwards=True), seed=0
    )
    order = measure(bench, "regularity_violations", "visit")
    assert order.reference == 0.0
    assert order.value.low > 0.5
    assert measure(bench, "row_rule_violations", "all").value.low > 0.5


def test_codes_that_train_has_not_count_against_the_synthetic_cohort(bench: Bench) -> None:
    tables = dict(bench.synthetic.tables)
    tables["condition"] = tables["condition"].with_columns(code=pl.lit("new"))
    unseen = Bench.open(train=bench.train, holdout=bench.holdout, synthetic=Cohort(tables, schema=SCHEMA), seed=0)
    assert measure(unseen, "code_prevalence", "condition").value.value < 0
    assert measure(unseen, "row_tv", "condition").value.value > 0.9
