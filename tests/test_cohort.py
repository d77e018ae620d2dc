from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import chisquare

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


# Bounding. Chi-square tests raise a false alarm with a chance of 1e-6, or never, since their draws are seeded.

BOUNDED = load_schema(
    {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "lab": {
                "parent": "visit",
                "foreign_key": "vid",
                "order_by": "day",
                "columns": {
                    "vid": {"kind": "id"},
                    "day": {"kind": "integer", "nullable": True},
                    "row": {"kind": "integer"},
                },
            },
            "visit": {
                "parent": "patient",
                "key": "vid",
                "foreign_key": "pid",
                "columns": {"vid": {"kind": "id"}, "pid": {"kind": "id"}, "row": {"kind": "integer"}},
            },
            "patient": {"key": "pid", "columns": {"pid": {"kind": "id"}, "age": {"kind": "integer"}}},
        },
    }
)


def of_days(*patients: list[int | None]) -> Cohort:
    """Patients of one visit each, with a lab on each of these days; rows are numbered through."""
    names = [str(at) for at in range(len(patients))]
    days = [day for patient in patients for day in patient]
    owners = [name for name, patient in zip(names, patients, strict=True) for _ in patient]
    return Cohort(
        {
            "patient": pl.DataFrame({"pid": names, "age": [1] * len(names)}),
            "visit": pl.DataFrame({"vid": names, "pid": names, "row": list(range(len(names)))}),
            "lab": pl.DataFrame(
                {"vid": owners, "day": days, "row": list(range(len(days)))},
                schema_overrides={"vid": pl.String, "day": pl.Int64, "row": pl.Int64},
            ),
        },
        schema=BOUNDED,
    )


def of_visits(*patients: int) -> Cohort:
    """Patients of so many visits, with one lab a visit."""
    pids = [str(at) for at, visits in enumerate(patients) for _ in range(visits)]
    vids = [str(at) for at in range(len(pids))]
    return Cohort(
        {
            "patient": pl.DataFrame({"pid": [str(at) for at in range(len(patients))], "age": [1] * len(patients)}),
            "visit": pl.DataFrame({"vid": vids, "pid": pids, "row": list(range(len(vids)))}),
            "lab": pl.DataFrame({"vid": vids, "day": [1] * len(vids), "row": list(range(len(vids)))}),
        },
        schema=BOUNDED,
    )


def first_rows(whole: Cohort, table: str, most: int, draws: np.random.Generator, *, of: np.ndarray) -> np.ndarray:
    """The kept rows of these patients, counted from each patient's first row; shape ``(patients, most)``."""
    bounded = whole.bounded({table: most}, draws=draws)
    owners = whole.owners(table)
    first = np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(whole)))[:-1]])
    kept = bounded.tables[table]["row"].to_numpy()
    mine = kept[np.isin(owners[kept], of)]
    return (mine - first[owners[mine]]).reshape(-1, most)


def even(found: np.ndarray, outcomes: int) -> None:
    """All outcomes are there and none is likelier than another."""
    counts = np.unique(found, axis=0, return_counts=True)[1]
    assert len(counts) == outcomes
    assert chisquare(counts).pvalue > 1e-6


def test_the_structure_knows_what_orders_a_table() -> None:
    assert BOUNDED.links["lab"].order_by == "day"
    assert BOUNDED.links["visit"].order_by is None


def test_a_patient_keeps_as_many_rows_as_the_bound_and_the_root_is_never_cut() -> None:
    whole = of_days([1, 2, 3, 4], [], [1, 2], [1, 2, 3])
    bounded = whole.bounded({"patient": 1, "visit": 3, "lab": 2}, draws=np.random.default_rng(0))
    assert np.bincount(bounded.owners("lab"), minlength=4).tolist() == [2, 0, 2, 2]
    assert bounded.root.equals(whole.root)
    assert bounded.tables["visit"].equals(whole.tables["visit"])
    assert bounded.tables["lab"]["row"].is_sorted()


def test_what_is_within_the_bound_stays_as_it_is() -> None:
    whole = of_days([3, 1, 2], [], [5, None, 5])
    for most in ({"lab": 3, "visit": 1}, {}):
        bounded = whole.bounded(most, draws=np.random.default_rng(0))
        assert all(bounded.tables[name].equals(frame) for name, frame in whole.tables.items())


def test_rows_of_a_parent_row_that_was_cut_go_with_it() -> None:
    bounded = of_visits(5, 3).bounded({"visit": 2}, draws=np.random.default_rng(0))
    assert np.bincount(bounded.owners("visit")).tolist() == [2, 2]
    assert bounded.tables["lab"]["vid"].to_list() == bounded.tables["visit"]["vid"].to_list()


def test_orphans_are_gone_before_a_child_table_is_bounded() -> None:
    # Were the labs cut before their orphans left, some patients would keep none of one.
    bounded = of_visits(*[8] * 200).bounded({"visit": 2, "lab": 1}, draws=np.random.default_rng(0))
    assert np.bincount(bounded.owners("lab"), minlength=200).tolist() == [1] * 200


def test_a_window_is_contiguous_in_order_and_keeps_the_order_of_the_file() -> None:
    # In order: day 1 (row 2), both days 4 (rows 1 and 4, as in the file), day 9 (row 0), missing last (row 3).
    whole = of_days([9, 4, 1, None, 4])
    windows = {
        tuple(whole.bounded({"lab": 3}, draws=np.random.default_rng(seed)).tables["lab"]["row"]) for seed in range(60)
    }
    assert windows == {(1, 2, 4), (0, 1, 4), (0, 3, 4)}


def test_every_window_is_as_likely_as_any_other() -> None:
    whole = of_days(*[list(range(7))] * 20_000)
    found = first_rows(whole, "lab", 3, np.random.default_rng(1), of=np.arange(20_000))
    assert (np.diff(found, axis=1) == 1).all()
    even(found, 5)


def test_every_subset_is_as_likely_as_any_other() -> None:
    found = first_rows(of_visits(*[5] * 20_000), "visit", 2, np.random.default_rng(1), of=np.arange(20_000))
    even(found, 10)


def test_a_patients_window_does_not_feel_the_others() -> None:
    others = [[], [3], list(range(40)), [2, 2, 2, 2]]
    company = of_days(*[days for _ in range(4_000) for days in (list(range(7)), *others)])
    mine = np.arange(0, 20_000, 5)
    together = first_rows(company, "lab", 3, np.random.default_rng(2), of=mine)
    even(together, 5)
    # Nor does one window tell the next patient's: all 25 pairs of beginnings are as likely.
    alone = first_rows(of_days(*[list(range(7))] * 20_000), "lab", 3, np.random.default_rng(3), of=np.arange(20_000))
    even(alone[:, 0].reshape(-1, 2), 25)


def test_a_patients_subset_does_not_feel_the_others() -> None:
    company = of_visits(*[visits for _ in range(4_000) for visits in (4, 0, 1, 9)])
    even(first_rows(company, "visit", 2, np.random.default_rng(2), of=np.arange(0, 16_000, 4)), 6)
    alone = first_rows(of_visits(*[4] * 20_000), "visit", 2, np.random.default_rng(3), of=np.arange(20_000))
    even(alone.reshape(-1, 4), 36)


@pytest.mark.parametrize(("most", "what"), [({"note": 3}, "does not declare"), ({"lab": 0}, "at least 1 row")])
def test_a_bound_that_cannot_be_right_is_refused(most: dict[str, int], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        of_days([1]).bounded(most, draws=np.random.default_rng(0))


def test_a_column_that_orders_must_be_there() -> None:
    whole = of_days([1])
    lacking = Cohort({**whole.tables, "lab": whole.tables["lab"].drop("day")}, schema=BOUNDED)
    with pytest.raises(DataError, match="'day' is declared to order table 'lab'"):
        lacking.bounded({"lab": 1}, draws=np.random.default_rng(0))
