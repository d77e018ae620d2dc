from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.errors import DataError
from synthehr.evaluation.coding import code, fit_coding, read_values
from synthehr.evaluation.cohorts import read_parts
from synthehr.schema.files import load_schema


def coded(column: dict, train: list, other: list):
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"x": column}}}})
    real = Cohort({"p": pl.DataFrame({"x": train})}, schema=schema)
    coding = fit_coding(read_values(real, part="train"), schema=schema)
    found = code(read_values(Cohort({"p": pl.DataFrame({"x": other})}, schema=schema), part="other"), coding)
    return coding.columns[0], [coding.columns[0].labels[at] for at in found[:, 0]]


def test_a_number_with_few_values_has_a_bin_for_each_and_one_on_either_side():
    column, labels = coded({"kind": "integer"}, [0, 0, 1, 4], [-5, 0, 1, 2, 4, 1000])
    assert labels == ["below 0", "0", "1 to 3", "1 to 3", "4", "above 4"]
    assert column.labels[-2:] == ("undeclared", "missing")


def test_a_constant_tells_other_values_apart():
    _, labels = coded({"kind": "number"}, [2.5, 2.5], [2.4, 2.5, 2.6, None])
    assert labels == ["below 2.5", "2.5", "above 2.5", "missing"]


def test_bins_come_from_the_training_part_and_hold_even_shares():
    train = list(np.random.default_rng(0).normal(50, 10, 4000))
    column, labels = coded({"kind": "number", "nullable": True}, train, train)
    shares = pl.Series(labels).value_counts()["count"] / len(train)
    assert len(shares) == 10
    assert shares.min() > 0.07 and shares.max() < 0.13
    assert column.edges is not None and all(len(f"{edge:g}") <= 4 for edge in column.edges), "no patient's own value"
    _, far = coded({"kind": "number", "nullable": True}, train, [5e4, -5e4])
    assert far[0] == column.labels[9] and far[1] == column.labels[0]


def test_no_edge_is_minus_zero():
    train = list(np.random.default_rng(0).normal(0, 1, 1000))
    column, _ = coded({"kind": "number"}, train, train)
    assert not any("-0" in label.split() for label in column.labels)


def test_undeclared_categories_get_one_code_of_their_own():
    _, labels = coded({"kind": "category", "values": ["a", "b"]}, ["a", "b"], ["a", "z", "y", None])
    assert labels == ["a", "undeclared", "undeclared", "missing"]


def test_values_that_no_one_declared_stay_out_of_the_labels():
    column, _ = coded({"kind": "category"}, ["secret", "other"], ["secret"])
    assert "secret" not in " ".join(column.labels)


def test_unreadable_values_are_undeclared_not_missing():
    _, labels = coded({"kind": "integer"}, [1, 2], ["1", "x", None])
    assert labels == ["1", "undeclared", "missing"]
    _, labels = coded({"kind": "boolean"}, [True, False], ["yes", "0", "maybe", None])
    assert labels == ["true", "false", "undeclared", "missing"]


def test_dates_read_as_dates():
    days = [dt.date(2020, 1, 1), dt.date(2020, 6, 1)]
    _, labels = coded({"kind": "date", "bounds": ["2020-01-01", "2021-01-01"]}, days, days)
    assert labels == ["2020-01-01 to 2020-06-01", "2020-06-01"]


def test_dates_are_read_from_text_too():
    column = {"kind": "datetime", "bounds": ["2020-01-01T00:00", "2021-01-01T00:00"]}
    days = [dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 2)]
    _, labels = coded(column, days, ["2020-01-01T00:00:00", "2020-01-02 00:00", "2020-01-02", "soon"])
    assert labels == ["2020-01-01 to 2020-01-02", "2020-01-02", "2020-01-02", "undeclared"]


def test_a_column_with_no_value_at_all_is_coded():
    _, labels = coded({"kind": "number", "nullable": True}, [None, None], [1.0, None])
    assert labels == ["any", "missing"]


@pytest.mark.parametrize("which", ["holdout", "synthetic"])
def test_a_cohort_of_another_schema_is_refused_in_one_line(which):
    def make(name: str) -> Cohort:
        table = {"columns": {name: {"kind": "integer"}}}
        schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": table}})
        return Cohort({"p": pl.DataFrame({name: [1, 2]})}, schema=schema)

    cohorts = {"train": make("x"), "holdout": make("x"), "synthetic": make("x")} | {which: make("y")}
    with pytest.raises(DataError, match=which) as raised:
        read_parts(**cohorts, seed=0)
    assert "\n" not in str(raised.value)


def test_a_missing_column_is_refused_by_name():
    schema = load_schema(
        {"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {n: {"kind": "integer"} for n in "xy"}}}}
    )
    full = Cohort({"p": pl.DataFrame({"x": [1], "y": [2]})}, schema=schema)
    lacking = Cohort({"p": pl.DataFrame({"x": [1]})}, schema=schema)
    with pytest.raises(DataError, match=r"column 'y' of table 'p' .* synthetic"):
        read_parts(train=full, holdout=full, synthetic=lacking, seed=0)


def test_an_empty_cohort_is_refused():
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"x": {"kind": "integer"}}}}})
    full = Cohort({"p": pl.DataFrame({"x": [1]})}, schema=schema)
    with pytest.raises(DataError, match="no patient"):
        read_parts(train=full, holdout=full, synthetic=Cohort({"p": full.root.head(0)}, schema=schema), seed=0)
