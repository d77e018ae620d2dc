"""Forty patients with a row or two each, the expected number worked out beside it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.longitudinal_orders import regularities
from synthehr.evaluation.longitudinal_patients import whole_patients
from synthehr.evaluation.measurement import Measurement
from synthehr.evaluation.metrics import METRICS, measure
from synthehr.schema.files import load_schema

SCHEMA = {
    "synthehr": 1,
    "subject": "p",
    "tables": {
        "p": {"key": "id", "columns": {"id": {"kind": "id"}, "old": {"kind": "boolean"}}},
        "row": {
            "parent": "p",
            "foreign_key": "id",
            "order_by": "day",
            "columns": {
                "id": {"kind": "id"},
                "day": {"kind": "integer", "bounds": [0, 100], "unit": "d"},
                "code": {"kind": "category", "values": ["a", "b", "c"]},
                "value": {"kind": "number", "per": "code", "nullable": True},
            },
        },
    },
}
PATIENTS = 40
Rows = list[tuple[int, int, str, float | None]]


def cohort(rows: Rows, *, patients: int = PATIENTS, rules: tuple[str, ...] = ()) -> Cohort:
    schema = load_schema({**SCHEMA, "rules": list(rules)})
    root = pl.DataFrame({"id": [str(at) for at in range(patients)], "old": [at % 2 == 0 for at in range(patients)]})
    frame = pl.DataFrame(
        rows,
        schema={"id": pl.String, "day": pl.Int64, "code": pl.String, "value": pl.Float64},
        orient="row",
        strict=False,
    )
    return Cohort({"p": root, "row": frame.with_columns(pl.col("id").cast(pl.String))}, schema=schema)


def everyone(*rows: tuple[int, str, float | None], patients: range = range(PATIENTS)) -> Rows:
    return [(at, *row) for at in patients for row in rows]


def bench(train: Rows, synthetic: Rows, holdout: Rows | None = None, rules: tuple[str, ...] = ()) -> Bench:
    found = [cohort(rows, rules=rules) for rows in (train, train if holdout is None else holdout, synthetic)]
    return Bench.open(train=found[0], holdout=found[1], synthetic=found[2], seed=0)


def taken(name: str, train: Rows, synthetic: Rows, *, scope: str = "all") -> Measurement:
    found = measure(bench(train, synthetic), name, scope)
    assert found.value is not None, found.why
    return found


TWO = everyone((0, "a", 1.0), (10, "b", 2.0))


def test_half_of_the_patients_without_rows() -> None:
    # Cells 0, 1, 2 or more: train 0, 0, 1; synthetic a half, 0, a half. The holdout is train.
    found = taken("rows_per_patient", TWO, everyone((0, "a", 1.0), (10, "b", 2.0), patients=range(20)))
    assert (found.value.value, found.reference) == (pytest.approx(0.5), 0.0)
    assert found.excess.low < 0.5 < found.excess.high


def test_gaps_twice_as_long_for_a_quarter_of_patients() -> None:
    longer = everyone((0, "a", 1.0), (20, "b", 2.0), patients=range(10))
    rest = everyone((0, "a", 1.0), (10, "b", 2.0), patients=range(10, PATIENTS))
    # At 10 days train has all of its gaps and the synthetic cohort three quarters.
    assert taken("gap_ks", TWO, longer + rest).value.value == pytest.approx(0.25)


def test_prevalence_is_of_patients_and_no_correlation() -> None:
    # Shares of a, b, c and of what is none of them: train 1, 1/2, 0, 0; synthetic 1/2, 1/4, 0, 0.
    train = everyone((0, "a", 1.0), (1, "a", 1.0)) + everyone((5, "b", 1.0), patients=range(20))
    halved = everyone((0, "a", 1.0), patients=range(20)) + everyone((5, "b", 1.0), patients=range(10))
    # Mean 3/8; squares about it: (5/8)^2 + (1/8)^2 + 2 (3/8)^2 = 44/64; differences 1/4 + 1/16 = 20/64.
    assert taken("code_prevalence", train, halved).value.value == pytest.approx(1 - 20 / 44)


def test_a_band_is_off_by_its_own_share() -> None:
    train = everyone((0, "a", 1.0)) + everyone((5, "b", 1.0), patients=range(2))
    none_of_b = everyone((0, "a", 1.0))
    # b is had by 2 of 40, 5 %: of the medium band nothing is left.
    assert taken("code_prevalence_bands", train, none_of_b, scope="medium").value.value == pytest.approx(1.0)
    assert taken("code_prevalence_bands", train, none_of_b, scope="common").value.value == pytest.approx(0.0)
    assert taken("code_prevalence_bands", train, none_of_b).value.value == pytest.approx(0.5)
    rare = measure(bench(train, none_of_b), "code_prevalence_bands", "rare")
    assert (rare.value, rare.why) == (None, "No code of train falls into this band.")


def test_codes_of_one_day_are_pairs_without_order_and_once() -> None:
    # Train: a and b on one day, written in either order and a twice; synthetic: b and c.
    train = everyone((0, "a", 1.0), (0, "b", 1.0), (0, "a", 1.0)) + everyone((3, "b", 1.0), (3, "a", 1.0))
    swapped = everyone((0, "b", 1.0), (0, "a", 1.0))
    assert taken("bigrams_same_visit", train, swapped).value.value == pytest.approx(1.0)
    # Shares over 25 cells (three codes, other, missing, squared): 1 in one cell, 1 in another.
    # Squares about the mean: 1 - 1/25; differences 2.
    other = everyone((0, "b", 1.0), (0, "c", 1.0))
    assert taken("bigrams_same_visit", train, other).value.value == pytest.approx(1 - 2 / (24 / 25))


def test_codes_of_the_next_visit_are_ordered() -> None:
    assert taken("bigrams_next_visit", TWO, TWO).value.value == pytest.approx(1.0)
    turned = everyone((0, "b", 2.0), (10, "a", 1.0))
    assert taken("bigrams_next_visit", TWO, turned).value.value == pytest.approx(1 - 2 / (24 / 25))


def test_what_follows_a_code_has_beginning_and_end() -> None:
    # Begin to a, a to b, b to end, a third each. Synthetic: begin to a, a to end: only what follows a is off,
    # and b, which synthetic patients lack.
    found = taken("transition_tv", TWO, everyone((0, "a", 1.0)))
    assert found.value.value == pytest.approx(2 / 3)


def test_a_value_that_forgets_its_patient() -> None:
    # Half of the patients always have 0, the others always 1: correlation 1. Synthetic rows draw anew: about 0.
    draw = np.random.default_rng(0)
    levels = [float(at % 2) for at in range(PATIENTS)]
    train: Rows = [(at, day, "a", levels[at]) for at in range(PATIENTS) for day in range(6)]
    forgets: Rows = [(at, day, "a", float(draw.integers(2))) for at in range(PATIENTS) for day in range(6)]
    assert taken("autocorrelation", train, train).value.value == pytest.approx(0.0)
    assert taken("autocorrelation", train, forgets).value.value == pytest.approx(1.0, abs=0.25)


def test_different_codes_are_counted_once_each() -> None:
    train = everyone((0, "a", 1.0), (1, "a", 1.0), (2, "b", 1.0))
    many = everyone((0, "a", 1.0), (1, "b", 1.0))
    assert taken("concept_abundance", train, many).value.value == pytest.approx(0.0)
    one = everyone((0, "a", 1.0), (1, "a", 1.0), (2, "a", 1.0))
    assert taken("concept_abundance", train, one).value.value == pytest.approx(1.0)


def test_codes_of_one_patient_go_together() -> None:
    # Train: half of the patients have a and b, the others neither. Synthetic: half have a alone, half b alone.
    both = everyone((0, "a", 1.0), (1, "b", 1.0), patients=range(20))
    either = everyone((0, "a", 1.0), patients=range(20)) + everyone((1, "b", 1.0), patients=range(20, 40))
    assert taken("codes_together", both, either).value.value == pytest.approx(1.0)
    assert taken("code_prevalence", both, either).value.value == pytest.approx(1.0)


def test_values_are_compared_within_their_code() -> None:
    train = everyone(*((day, "a", float(day)) for day in range(4)), *((day, "b", 100.0 + day) for day in range(4)))
    swapped = everyone(*((day, "b", float(day)) for day in range(4)), *((day, "a", 100.0 + day) for day in range(4)))
    assert taken("value_by_code", train, swapped).value.value == pytest.approx(1.0)
    # a's values 0, 1, 2, 3 against 2, 2, 3, 3: at 1 a half is missing. b is as it was; mean of the two.
    shifted = everyone(
        *((day, "a", float(value)) for day, value in enumerate((2, 2, 3, 3))),
        *((day, "b", 100.0 + day) for day in range(4)),
    )
    assert taken("value_by_code", train, shifted).value.value == pytest.approx(0.25)


def test_rows_given_to_other_patients_show_beside_their_parents_alone() -> None:
    # The old have a on day 0, the others b on day 9; given to the wrong patients each pair of columns is disjoint.
    right: Rows = [(at, 0, "a", 1.0) if at % 2 == 0 else (at, 9, "b", 1.0) for at in range(PATIENTS)]
    wrong: Rows = [(at, 0, "a", 1.0) if at % 2 == 1 else (at, 9, "b", 1.0) for at in range(PATIENTS)]
    found = taken("parent_child_tv", right, wrong)
    # Four pairs: old with day, code, value (by code) and number of rows; the last is as it was.
    assert found.value.value == pytest.approx(3 / 4)
    assert taken("row_tv", right, wrong).value.value == pytest.approx(0.0)


def test_where_histories_stop() -> None:
    # Last code a instead of b for all; last time and span are as they were: one of three.
    turned = everyone((0, "b", 1.0), (10, "a", 2.0))
    assert taken("last_row_tv", TWO, turned).value.value == pytest.approx(1 / 3)


def test_orders_that_train_keeps_are_found_and_counted() -> None:
    ends = everyone((0, "a", 1.0), (5, "b", 1.0), (10, "c", 1.0))
    goes_on = everyone((0, "a", 1.0), (5, "c", 1.0), (10, "b", 1.0), patients=range(10))
    found = taken("regularity_violations", ends, goes_on + everyone((0, "a", 1.0), patients=range(10, PATIENTS)))
    # Nothing comes after c in train; ten of forty synthetic patients go on after it.
    assert (found.value.value, found.reference) == (pytest.approx(0.25), 0.0)
    twice = everyone((0, "a", 1.0), (5, "a", 1.0), patients=range(4))
    assert taken("regularity_violations", ends, twice).value.value == pytest.approx(0.1)


def test_hours_of_rows_are_compared_with_days_of_patients() -> None:
    schema = load_schema(
        {
            "synthehr": 1,
            "subject": "p",
            "tables": {
                "p": {
                    "key": "id",
                    "columns": {"id": {"kind": "id"}, "end": {"kind": "integer", "bounds": [0, 9], "unit": "d"}},
                },
                "row": {
                    "parent": "p",
                    "foreign_key": "id",
                    "order_by": "hour",
                    "columns": {
                        "id": {"kind": "id"},
                        "hour": {"kind": "integer", "bounds": [0, 999], "unit": "h"},
                        "stay": {"kind": "integer", "bounds": [0, 999], "unit": "min"},
                    },
                },
            },
        }
    )

    def ending(hours: list[int]) -> Cohort:
        # Everyone ends on day 2, of which hours 48 to 71 are part; three rows each, so that train has enough.
        root = pl.DataFrame({"id": range(PATIENTS), "end": [2] * PATIENTS})
        at = [at for at in range(PATIENTS) for _ in range(3)]
        rows = pl.DataFrame({"id": at, "hour": [hours[one] for one in at], "stay": [5] * len(at)})
        return Cohort({"p": root, "row": rows}, schema=schema)

    inside, beyond = ending([71] * PATIENTS), ending([72] * 10 + [71] * 30)
    found = Bench.open(train=inside, holdout=inside, synthetic=beyond, seed=0)
    assert measure(found, "regularity_violations", "all").value.value == pytest.approx(0.25)
    texts = [one.text for one in regularities(found)]
    assert "row.hour is not after p.end" in texts
    assert not [text for text in texts if "hour" in text and "stay" in text], "in one table another unit is a duration"


def test_rows_that_break_schema_or_rule_count_by_patient() -> None:
    broken = everyone((0, "a", 1.0), (200, "b", 2.0), (300, "z", 2.0), patients=range(10)) + everyone(
        (0, "a", 1.0), patients=range(10, PATIENTS)
    )
    assert taken("row_schema_violations", TWO, broken).value.value == pytest.approx(0.25)
    with_rule = bench(TWO, broken, rules=("row.day < 250",))
    assert measure(with_rule, "row_rule_violations", "all").value.value == pytest.approx(0.25)
    assert measure(with_rule, "row_rule_violations", "row.day < 250").value.value == pytest.approx(0.25)
    none = measure(bench(TWO, broken), "row_rule_violations", "all")
    assert none.why == "The schema declares no rule for a table below the patients'."


def test_a_patient_counts_once_in_the_interval_however_many_rows() -> None:
    once = taken(
        "row_tv", everyone((0, "a", 1.0)), everyone((0, "a", 1.0)) + everyone((0, "b", 1.0), patients=range(9))
    )
    tenfold = taken(
        "row_tv",
        everyone(*[(0, "a", 1.0)] * 10),
        everyone(*[(0, "a", 1.0)] * 10) + everyone(*[(0, "b", 1.0)] * 10, patients=range(9)),
    )
    assert tenfold.value.value == pytest.approx(once.value.value)
    assert tenfold.value.high - tenfold.value.low == pytest.approx(once.value.high - once.value.low, rel=1e-6)


def test_no_synthetic_row_at_all_is_the_largest_distance_and_no_crash() -> None:
    made = bench(TWO, [])
    for name in ("row_tv", "gap_ks", "transition_tv", "parent_child_tv", "last_row_tv", "rows_per_patient"):
        found = measure(made, name, "all")
        assert found.value.value >= 0.7, name
    assert measure(made, "code_prevalence", "all").value.value < 0


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.section == "longitudinal"])
def test_without_rows_in_train_or_with_few_patients_a_metric_is_undefined_or_finite(name: str) -> None:
    for made in (bench([], TWO), bench([], [])):
        found = measure(made, name, "all")
        assert found.metric == name
        assert found.value is not None or found.why
    few = [cohort(everyone((0, "a", 1.0), patients=range(8)), patients=8) for _ in range(3)]
    found = measure(Bench.open(train=few[0], holdout=few[1], synthetic=few[2], seed=0), name, "all")
    assert found.value is None
    assert found.why


def test_whole_patients_sum_up_their_rows() -> None:
    rows: Rows = [
        (0, 3, "a", 1.0),
        (0, 7, "a", 5.0),
        (0, 5, "b", None),
        *everyone((1, "b", 2.0), patients=range(2, 40)),
    ]
    parts = whole_patients(bench(rows, rows))
    values = {name: parts.train.values[name].number for name in parts.coding.names if name != "old"}
    assert values["row: rows"][:3].tolist() == [3, 0, 1]
    assert values["row: rows with code a"][:3].tolist() == [2, 0, 0]
    assert values["row: last value of a"][0] == 5.0
    assert np.isnan(values["row: last value of a"][1:]).all()
    assert np.isnan(values["row: last value of b"][:2]).all()
    assert (values["row: time of the first"][0], values["row: time of the last"][0]) == (3.0, 7.0)
    assert parts.train.codes.shape == (PATIENTS, len(parts.coding.names))
    assert (parts.train.codes < np.array(parts.coding.sizes)).all()
