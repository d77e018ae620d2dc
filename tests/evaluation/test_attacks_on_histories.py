"""Attacks on patients with all their rows: a copied history is found whatever it is given to."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.attacks import exchangeable
from synthehr.evaluation.attacks_release import profile
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.metrics import METRICS, measure
from synthehr.evaluation.suite import decide
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

PATIENTS = 300


def declared(*, rows: dict | None = None) -> Schema:
    columns = {"id": {"kind": "id"}, "day": {"kind": "integer", "unit": "d"}, "value": {"kind": "number"}}
    row = {"parent": "p", "foreign_key": "id", "columns": columns if rows is None else rows}
    own = {
        "id": {"kind": "id"},
        "weight": {"kind": "number"},
        "height": {"kind": "number"},
        "sick": {"kind": "boolean"},
    }
    root = {"key": "id", "columns": own}
    tables = {"p": {**root, "outcome": "sick"}, "row": row if rows is not None else {**row, "order_by": "day"}}
    return load_schema({"synthehr": 1, "subject": "p", "tables": tables})


SCHEMA = declared()


def cohort(seed: int, *, patients: int = PATIENTS, rows: int = 6) -> Cohort[Schema]:
    """Patients with rows that hardly anyone shares: a day of ten thousand, and a value with three digits."""
    draws = np.random.default_rng(seed)
    ids = [f"{seed}-{at}" for at in range(patients)]
    frail = draws.normal(size=patients)
    weight, height = draws.normal(size=(2, patients))
    root = pl.DataFrame({"id": ids, "weight": weight, "height": height, "sick": frail > 0})
    table = pl.DataFrame(
        {
            "id": np.repeat(ids, rows),
            "day": draws.integers(0, 10_000, patients * rows),
            "value": (np.repeat(frail, rows) + 0.5 * draws.normal(size=patients * rows)).round(3),
        }
    )
    return Cohort({"p": root, "row": table}, schema=SCHEMA)


TRAIN, HOLDOUT, OTHERS = cohort(1), cohort(2), cohort(3)


def given(histories: Cohort[Schema], *, to: Cohort[Schema], rows: pl.DataFrame | None = None) -> Cohort[Schema]:
    """The rows of one cohort's patients, given to the patients of another one."""
    names = pl.DataFrame({"id": histories.root["id"], "new": to.root["id"]})
    table = histories.tables["row"] if rows is None else rows
    moved = table.join(names, on="id", maintain_order="left").with_columns(id=pl.col("new")).drop("new")
    return Cohort({"p": to.root, "row": moved}, schema=SCHEMA)


def bench(synthetic: Cohort[Schema], *, train: Cohort[Schema] = TRAIN, holdout: Cohort[Schema] = HOLDOUT) -> Bench:
    return Bench.open(train=train, holdout=holdout, synthetic=synthetic, seed=0)


def share(synthetic: Cohort[Schema]) -> float:
    found = measure(bench(synthetic), "history_copies", "all")
    assert found.value is not None and found.reference == 0.0, found.why
    return found.value.value


def test_histories_of_others_are_no_copies() -> None:
    assert share(OTHERS) == 0.0


def test_a_history_given_to_another_patient_is_a_copy() -> None:
    found = bench(given(TRAIN, to=OTHERS))
    copied = measure(found, "history_copies", "all")
    assert copied.value is not None and copied.value.value == 1.0
    assert decide(copied.excess, op="<=", bound=0.02) == "fail"
    # No attack on patients' own columns can see it.
    assert measure(found, "rare_copies", "all").value.value < 0.1
    assert measure(found, "membership_auc", "nearest_neighbour").value.value < 0.6


@pytest.mark.parametrize(("kept", "expected"), [(6, 1.0), (3, 1.0), (2, 0.0)])
def test_half_of_the_rows_of_ones_own_are_a_copy_and_fewer_than_three_are_none(kept: int, expected: float) -> None:
    rows = TRAIN.tables["row"].group_by("id", maintain_order=True).head(kept)
    assert share(given(TRAIN, to=OTHERS, rows=rows)) == expected


def test_rows_in_another_order_and_twice_are_the_same_rows() -> None:
    rows = TRAIN.tables["row"].group_by("id", maintain_order=True).head(2)
    assert share(given(TRAIN, to=OTHERS, rows=pl.concat([rows, rows]).reverse())) == 0.0
    assert share(given(TRAIN, to=OTHERS, rows=TRAIN.tables["row"].reverse())) == 1.0


def test_rows_that_many_have_are_no_ones_own() -> None:
    """Each of train's patients has three rows that all share, and two of their own: none has three."""
    parts = []
    for one in (TRAIN, HOLDOUT):
        ids = np.repeat(one.root["id"].to_list(), 3)
        shared = pl.DataFrame({"id": ids, "day": [1, 2, 3] * PATIENTS, "value": 0.0})
        own = one.tables["row"].group_by("id", maintain_order=True).head(2)
        parts.append(Cohort({"p": one.root, "row": pl.concat([shared, own])}, schema=SCHEMA))
    found = measure(bench(parts[0], train=parts[0], holdout=parts[1]), "history_copies", "all")
    assert found.value is None
    assert "has 3 rows that no one else has" in found.why


def test_a_copy_of_train_is_told_by_every_view() -> None:
    found = bench(TRAIN)
    for name in ("nearest_neighbour", "whole_nearest_neighbour", "all"):
        assert measure(found, "membership_auc", name).value.value >= 0.95, name
    for scope in ("p", "with rows"):
        copied = measure(found, "outlier_copies", scope)
        assert (copied.scope, copied.value.value, copied.reference) == (scope, 1.0, 0.0)
    shown = profile(found)
    assert shown is not None and "whole_density_ratio" in {one.attack for one in shown.membership}


def test_what_is_guessed_may_come_of_rows() -> None:
    """A patient's illness shows in the rows alone: whoever has them guesses it of anyone, learned from or not."""
    found = measure(bench(OTHERS), "attribute_inference", "sick")
    assert found.value.low > 0.55 and found.reference > 0.55
    assert found.excess.low < 0.0 < found.excess.high
    copied = measure(bench(TRAIN), "attribute_inference", "sick")
    assert copied.value.value == 1.0 and copied.excess.low > 0.1


def test_a_holdout_whose_rows_alone_are_of_another_kind_is_no_control() -> None:
    later = HOLDOUT.tables["row"].with_columns(pl.col("day") + 5_000)
    holdout = Cohort({"p": HOLDOUT.root, "row": later}, schema=SCHEMA)
    control = bench(OTHERS, holdout=holdout).once(exchangeable)
    assert not control.holds
    assert "row: time of" in control.why
    assert measure(bench(OTHERS, holdout=holdout), "history_copies", "all").value is None
    assert bench(OTHERS).once(exchangeable).holds


def test_without_columns_of_rows_there_is_no_history_to_copy() -> None:
    schema = declared(rows={"id": {"kind": "id"}})
    empty = [Cohort({"p": one.root, "row": one.tables["row"].select("id")}, schema=schema) for one in (TRAIN, HOLDOUT)]
    found = Bench.open(train=empty[0], holdout=empty[1], synthetic=empty[0], seed=0)
    assert METRICS["history_copies"].applies(found)
    assert "no column of rows" in measure(found, "history_copies", "all").why


def test_one_table_leaves_histories_out() -> None:
    document = SCHEMA.model_dump(mode="json", exclude_none=True)
    flat = load_schema({**document, "tables": {"p": document["tables"]["p"]}})
    cohorts = [Cohort({"p": one.root}, schema=flat) for one in (TRAIN, HOLDOUT, OTHERS)]
    found = Bench.open(train=cohorts[0], holdout=cohorts[1], synthetic=cohorts[2], seed=0)
    assert not METRICS["history_copies"].applies(found)
    assert METRICS["outlier_copies"].scopes(found) == ()
