"""Four patients each, the expected number worked out beside it."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.attacks import match_records
from synthehr.evaluation.cohorts import Parts, read_parts
from synthehr.evaluation.fidelity import bin_distances, missing_distances
from synthehr.evaluation.validity import rule_violations, schema_violations, violation_profiles
from synthehr.schema.files import load_schema

AB = {"kind": "category", "values": ["a", "b"], "nullable": True}
UV = {"kind": "category", "values": ["u", "v"]}


def parts_of(columns: dict, train: dict, holdout: dict, synthetic: dict, rules: tuple = (), seed: int = 0) -> Parts:
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}, "rules": list(rules)})
    cohorts = {
        name: Cohort({"p": pl.DataFrame(frame)}, schema=schema)
        for name, frame in (("train", train), ("holdout", holdout), ("synthetic", synthetic))
    }
    return read_parts(**cohorts, seed=seed)


@pytest.fixture
def four() -> Parts:
    return parts_of(
        {"x": AB, "y": UV},
        train={"x": list("aabb"), "y": list("uvuv")},
        holdout={"x": list("aabb"), "y": list("vuvu")},
        synthetic={"x": list("abbb"), "y": list("uuvv")},
    )


def test_one_way_distance(four):
    # x: a 0.5, b 0.5 against a 0.25, b 0.75: half of 0.25 + 0.25. y: equal. Mean (0.25 + 0) / 2.
    distances = bin_distances(four)
    assert distances.column("one_way_tv", "x").value.value == pytest.approx(0.25)
    assert distances.column("one_way_tv", "y").value.value == pytest.approx(0.0)
    assert distances.columns_mean("one_way_tv").value.value == pytest.approx(0.125)
    worst = distances.columns_worst("one_way_tv_worst")
    assert (worst.value.value, worst.reference) == (pytest.approx(0.25), pytest.approx(0.0))
    assert worst.excess.value == pytest.approx(0.25)


def test_pair_distance(four):
    # Train has au, av, bu, bv once each; synthetic au, bu, bv, bv: half of |av| 0.25 + |bv| 0.25.
    found = bin_distances(four).pair("pair_tv", "x", "y")
    assert found.value.value == pytest.approx(0.25)
    assert found.reference == pytest.approx(0.0)
    assert bin_distances(four).pairs_mean("pair_tv").value.value == pytest.approx(0.25)


def test_missing_rates():
    # Missing in synthetic: 3 of 4; in train and holdout 1 of 4.
    quarter = {"x": ["a", "a", "b", None]}
    parts = parts_of({"x": AB}, train=quarter, holdout=quarter, synthetic={"x": ["a", None, None, None]})
    found = missing_distances(parts).columns_worst("missing_rate_worst")
    assert found.value.value == pytest.approx(0.5)
    assert found.reference == pytest.approx(0.0)


def test_the_matrix_product_agrees_with_counting_every_pair():
    draw = np.random.default_rng(0)
    columns = {f"c{at}": {"kind": "category", "values": list("abc")} for at in range(4)}

    def frame(patients: int) -> dict:
        return {name: draw.choice(list("abc"), patients) for name in columns}

    train, holdout, synthetic = frame(60), frame(40), frame(40)
    distances = bin_distances(parts_of(columns, train, holdout, synthetic))
    for (at, first), (to, second) in itertools.combinations(enumerate(columns), 2):
        counted = 0.0
        for left, right in itertools.product("abc", repeat=2):
            shares = [np.mean((one[first] == left) & (one[second] == right)) for one in (train, synthetic)]
            counted += abs(shares[0] - shares[1]) / 2
        assert distances.synthetic[at, to] == pytest.approx(counted)


def test_the_error_of_a_distance_agrees_with_leaving_out_each_patient():
    draw = np.random.default_rng(3)
    columns = {name: {"kind": "category", "values": list("abc")} for name in "xyz"}

    def frame(patients: int, tilt: float) -> pl.DataFrame:
        return pl.DataFrame({n: draw.choice(list("abc"), patients, p=[0.5 - tilt, 0.3, 0.2 + tilt]) for n in columns})

    train, holdout, synthetic = frame(150, 0.0), frame(120, 0.05), frame(120, 0.2)

    def excess(one: pl.DataFrame, two: pl.DataFrame, three: pl.DataFrame):
        parts = parts_of(columns, *(part.to_dict(as_series=False) for part in (one, two, three)))
        return bin_distances(parts).pairs_mean("pair_tv").excess

    whole = excess(train, holdout, synthetic)
    variance = 0.0
    for which in range(3):
        cohorts = [train, holdout, synthetic]
        size = cohorts[which].height
        left_out = []
        for gone in range(size):
            mask = pl.Series(np.arange(size) != gone)
            changed = [part.filter(mask) if at == which else part for at, part in enumerate(cohorts)]
            left_out.append(_mean_excess(*changed))
        variance += (size - 1) / size * np.square(np.array(left_out) - np.mean(left_out)).sum()
    assert (whole.high - whole.low) / (2 * 1.96) == pytest.approx(np.sqrt(variance), rel=0.05)


def _mean_excess(train: pl.DataFrame, holdout: pl.DataFrame, synthetic: pl.DataFrame) -> float:
    """The excess of the mean pair distance, by counting, without cutting to equal size."""

    def shares(frame: pl.DataFrame, pair: tuple[str, str]) -> np.ndarray:
        codes = frame[pair[0]].replace_strict(list("abc"), [0, 1, 2]) * 3 + frame[pair[1]].replace_strict(
            list("abc"), [0, 1, 2]
        )
        return np.bincount(codes.to_numpy(), minlength=9) / frame.height

    pairs = list(itertools.combinations(train.columns, 2))
    gaps = [
        np.abs(shares(train, pair) - shares(synthetic, pair)).sum() / 2
        - np.abs(shares(train, pair) - shares(holdout, pair)).sum() / 2
        for pair in pairs
    ]
    return float(np.mean(gaps))


def test_schema_violations_count_patients_not_cells():
    # Synthetic: an undeclared value and a missing y in one patient, an age out of bounds in another: 2 of 4.
    columns = {"x": AB, "y": UV, "age": {"kind": "integer", "bounds": [0, 120]}}
    good = {"x": ["a", "b", None, "a"], "y": list("uuvv"), "age": [1, 2, 3, 120]}
    bad = {"x": ["z", "b", None, "a"], "y": [None, "u", "v", "v"], "age": [1, 2, 3, 121]}
    parts = parts_of(columns, good, good, bad)
    found = schema_violations(parts)
    assert (found.value.value, found.reference, found.excess.value) == (0.5, 0.0, 0.5)
    assert schema_violations(parts, column="age").value.value == 0.25
    assert {one.name: one.synthetic for one in violation_profiles(parts)} == {
        "x": 0.25,
        "y": 0.25,
        "age": 0.25,
    }


def test_a_value_is_out_of_bounds_by_those_of_its_own_code():
    # 9 is within the bounds of b alone, -1 within none; without a code anything from 0 to 9 is fine.
    columns = {"v": {"kind": "number", "per": "x", "bounds": {"a": [0, 5], "b": [4, 9]}}, "x": AB}
    good = {"v": [5.0, 9.0, 0.0, 4.0], "x": ["a", "b", None, "b"]}
    parts = parts_of(columns, good, good, {"v": [9.0, 9.0, -1.0, 4.0], "x": ["a", "b", None, "b"]})
    found = schema_violations(parts, column="v")
    assert (found.value.value, found.reference) == (0.5, 0.0)


def test_rule_violations_read_unknown_as_broken():
    # weight < 100 is false for one, unknown for one, true for two.
    columns = {"weight": {"kind": "number", "nullable": True}}
    good = {"weight": [50.0, 60.0, 70.0, 80.0]}
    parts = parts_of(columns, good, good, {"weight": [50.0, 150.0, None, 80.0]}, rules=("weight < 100",))
    found = rule_violations(parts)
    assert (found.value.value, found.reference) == (0.5, 0.0)


def test_verbatim_copies_for_an_equal_number_of_real_patients():
    # Train A B C C, holdout D A, so m = 2. A synthetic A meets one of 2 of the 4 train patients with chance
    # 1 - C(3,2)/C(4,2) = 1/2, a C with 1 - C(2,2)/C(4,2) = 5/6, D and E with 0: mean (1/2 + 5/6) / 4 = 1/3.
    # Both holdout patients are always drawn: A and D are met, C and E are not: 2/4.
    columns = {"x": {"kind": "category", "values": list("ABCDE")}}
    parts = parts_of(columns, {"x": list("ABCC")}, {"x": list("DA")}, {"x": list("ACDE")})
    found = match_records(parts).verbatim_copies()
    assert found.value.value == pytest.approx(1 / 3)
    assert found.reference == pytest.approx(1 / 2)
    assert found.excess.value == pytest.approx(-1 / 6)


def test_rare_copies_look_at_patients_whose_record_is_their_own():
    # Own records: B in train (not in synthetic), D in holdout (in synthetic). A and C are shared.
    columns = {"x": {"kind": "category", "values": list("ABCDE")}}
    parts = parts_of(columns, {"x": list("ABCC")}, {"x": list("DA")}, {"x": list("ACDE")})
    found = match_records(parts).rare_copies()
    assert (found.value.value, found.reference, found.excess.value) == (0.0, 1.0, -1.0)


def test_rare_copies_beyond_chance_set_half_again_of_the_holdouts_against_trains():
    # Own records: 40 in train, of which 20 are in synthetic, and 20 in holdout, of which 4 are: 0.5 - 1.5 * 0.2.
    # Wilson's intervals of 20 of 40 and 4 of 20 reach down 0.1482 and up 0.2160: sqrt(0.1482^2 + (1.5 * 0.2160)^2).
    columns = {"x": {"kind": "integer", "bounds": [0, 99]}}
    synthetic = [*range(20), *range(40, 44), *[99] * 36]
    parts = parts_of(columns, {"x": list(range(40))}, {"x": list(range(40, 60))}, {"x": synthetic})
    found = match_records(parts).rare_copies(times=1.5)
    assert (found.metric, found.value.value, found.reference) == (
        "rare_copies_beyond_chance",
        0.5,
        pytest.approx(0.3),
    )
    assert found.excess.value == pytest.approx(0.2)
    assert found.excess.value - found.excess.low == pytest.approx(0.3563, abs=2e-4)


def test_records_are_equal_within_the_declared_precision_and_missing_equals_missing():
    columns = {"w": {"kind": "number", "precision": 0.1, "nullable": True}, "x": AB}
    parts = parts_of(
        columns,
        train={"w": [70.04, None, 50.0], "x": ["a", "b", "a"]},
        holdout={"w": [1.0, 2.0], "x": ["a", "a"]},
        synthetic={"w": [70.0, None, 50.2], "x": ["a", "b", "a"]},
    )
    found = match_records(parts)
    assert list(found.synthetic[:2]) == list(found.train[:2])
    assert found.synthetic[2] != found.train[2]
