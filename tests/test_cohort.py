from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.errors import ConfigError, DataError
from synthehr.schema.files import load_schema

SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "patient": {"key": "pid", "columns": {"pid": {"kind": "id"}, "age": {"kind": "integer"}}},
            "visit": {
                "parent": "patient",
                "key": "vid",
                "foreign_key": "pid",
                "columns": {"vid": {"kind": "id"}, "pid": {"kind": "id"}, "ward": {"kind": "boolean"}},
            },
            "lab": {
                "parent": "visit",
                "foreign_key": "vid",
                "columns": {"vid": {"kind": "id"}, "value": {"kind": "number"}},
            },
        },
    }
)
# Four patients: a has visits v1 and v3, b has v2, c none, d has v4. Labs hang from v3, v2, v3, v1.
TABLES = {
    "patient": pl.DataFrame({"pid": ["a", "b", "c", "d"], "age": [1, 2, 3, 4]}),
    "visit": pl.DataFrame({"vid": ["v1", "v2", "v3", "v4"], "pid": ["a", "b", "a", "d"], "ward": [True] * 4}),
    "lab": pl.DataFrame({"vid": ["v3", "v2", "v3", "v1"], "value": [1.0, 2.0, 3.0, 4.0]}),
}


def cohort(**tables: pl.DataFrame) -> Cohort:
    return Cohort({**TABLES, **tables}, schema=SCHEMA)


def test_every_row_knows_its_patient() -> None:
    assert cohort().owners("visit").tolist() == [0, 1, 0, 3]
    assert cohort().owners("lab").tolist() == [0, 1, 0, 0]


def test_a_patient_is_taken_with_all_rows_in_all_tables() -> None:
    part = cohort().take(np.array([3, 0]))
    assert part.tables["patient"]["pid"].to_list() == ["d", "a"]
    assert part.tables["visit"]["vid"].to_list() == ["v1", "v3", "v4"]
    assert part.tables["lab"]["value"].to_list() == [1.0, 3.0, 4.0]
    assert part.owners("visit").tolist() == [1, 1, 0]


def test_no_patient_is_taken_twice() -> None:
    with pytest.raises(ConfigError, match="once only"):
        cohort().take(np.array([0, 0]))


def test_a_split_parts_patients_and_loses_none() -> None:
    train, holdout = cohort().split(holdout=0.25, seed=1)
    assert (len(train), len(holdout)) == (3, 1)
    assert set(train.root["pid"]) | set(holdout.root["pid"]) == {"a", "b", "c", "d"}
    assert train.tables["lab"].height + holdout.tables["lab"].height == 4
    again, _ = cohort().split(holdout=0.25, seed=1)
    assert again.root.equals(train.root)


def test_every_patient_is_as_likely_to_be_held_out() -> None:
    # 400 splits hold each of 4 patients out 100 times in the mean, with deviation sqrt(400 * 3 / 16) = 8.7.
    held = [cohort().split(holdout=0.25, seed=seed)[1].root["pid"][0] for seed in range(400)]
    assert all(abs(held.count(pid) - 100) < 5 * 8.7 for pid in "abcd")


@pytest.mark.parametrize("holdout", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_zero_and_one_is_refused(holdout: float) -> None:
    with pytest.raises(ConfigError, match="strictly between 0 and 1"):
        cohort().split(holdout=holdout)


def test_a_split_with_an_empty_part_or_a_negative_seed_is_refused() -> None:
    with pytest.raises(DataError, match="too few patients"):
        cohort().split(holdout=0.01)
    with pytest.raises(ConfigError, match="seed"):
        cohort().split(seed=-1)


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ({"patient": TABLES["patient"].with_columns(pid=pl.lit("a"))}, "must be unique"),
        (
            {"patient": TABLES["patient"].with_columns(pid=pl.Series(["a", "b", None, "d"]))},
            "must not be missing",
        ),
        ({"patient": TABLES["patient"].drop("pid")}, "'pid' is declared as a key"),
        ({"visit": TABLES["visit"].with_columns(pid=pl.Series(["a", "b", "x", "d"]))}, "point to none"),
        ({"visit": TABLES["visit"].with_columns(pid=pl.Series(["a", "b", None, "d"]))}, "point to none"),
        ({"visit": TABLES["visit"].drop("pid")}, "'pid' is declared as a key"),
        ({"note": TABLES["lab"]}, "'note' is in the data but is not declared"),
    ],
)
def test_tables_that_do_not_hang_together_are_refused(tables: dict, what: str) -> None:
    with pytest.raises(DataError, match=what):
        cohort(**tables)


def test_a_table_that_is_absent_is_named() -> None:
    with pytest.raises(DataError, match="'lab' is declared in the schema but is not in the data"):
        Cohort({name: TABLES[name] for name in ("patient", "visit")}, schema=SCHEMA)


def test_a_cohort_tells_no_count_when_printed() -> None:
    assert repr(cohort()) == "Cohort(tables=['lab', 'patient', 'visit'])"


def test_pandas_stands_at_the_edge() -> None:
    assert list(cohort().to_pandas()["patient"]["age"]) == [1, 2, 3, 4]
