"""Few patients each, the expected number worked out beside it; or an independent implementation beside ours."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.evaluation.associations import associations
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.calibration import calibration
from synthehr.evaluation.design import independent_columns, overlap_of
from synthehr.evaluation.fairness import disparity, fidelity, subgroups
from synthehr.evaluation.importance import agreement
from synthehr.evaluation.influence import folded, grouped_error, groups_of
from synthehr.evaluation.intervals import Estimate
from synthehr.evaluation.metrics import measure
from synthehr.evaluation.regression import coefficients, hazards
from synthehr.evaluation.survival import Followed, survival_curve, survivals
from synthehr.evaluation.utility import scores
from synthehr.schema.files import load_schema

AB = {"kind": "category", "values": ["a", "b"], "nullable": True}


def bench_of(columns: dict, train: dict, holdout: dict, synthetic: dict, **table: object) -> Bench:
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns, **table}}})
    cohorts = {
        name: Cohort({"p": pl.DataFrame(frame)}, schema=schema)
        for name, frame in (("train", train), ("holdout", holdout), ("synthetic", synthetic))
    }
    return Bench.open(**cohorts, seed=0)


def test_the_largest_gap_of_two_distributions():
    # Train 1 2 3 4, synthetic 1 1 1 4: at or below 1 are 1/4 and 3/4, so 1/2. The missing value does not count.
    number = {"x": {"kind": "number", "nullable": True}}
    real = {"x": [1.0, 2.0, 3.0, 4.0]}
    found = measure(bench_of(number, real, real, {"x": [1.0, 1.0, 1.0, 4.0]}), "ks", "x")
    assert found.value.value == pytest.approx(0.5)
    assert found.reference == 0.0
    gone = bench_of(number, real, real, {"x": [None, 1.0, 1.0, 4.0]})
    assert measure(gone, "ks", "x").value.value == pytest.approx(2 / 3 - 1 / 4)


def test_a_number_that_is_always_missing_is_as_far_as_can_be():
    number = {"x": {"kind": "number", "nullable": True}}
    real = {"x": [1.0, 2.0, 3.0, 4.0]}
    bench = bench_of(number, real, real, {"x": pl.Series([None] * 4, dtype=pl.Float64)})
    assert measure(bench, "ks_worst", "all").value.value == 1.0


def test_triples_see_what_pairs_do_not():
    # In train z is the parity of x and y, in synthetic its opposite: pairs are uniform in both, no triple is shared.
    columns = dict.fromkeys("xyz", AB)
    train = {"x": list("aabb"), "y": list("abab"), "z": list("abba")}
    bench = bench_of(columns, train, train, {**train, "z": list("baab")})
    assert measure(bench, "pair_tv", "all").value.value == pytest.approx(0.0)
    assert measure(bench, "triple_tv", "all").value.value == pytest.approx(1.0)


def test_patterns_of_missing_values():
    # Train misses both or none, half each; synthetic one or the other: the rates are equal, no pattern is shared.
    columns = {"x": AB, "y": AB}
    train = {"x": ["a", "a", None, None], "y": ["a", "b", None, None]}
    synthetic = {"x": ["a", "a", None, None], "y": [None, None, "a", "b"]}
    bench = bench_of(columns, train, train, synthetic)
    assert measure(bench, "missing_rate", "all").value.value == pytest.approx(0.0)
    assert measure(bench, "missing_patterns", "all").value.value == pytest.approx(1.0)


def test_cramers_v_and_rank_correlation():
    # Categories: train x and y equal (V = 1), synthetic unrelated (V = 0). Booleans: correlation 1 against -1.
    many = 50
    columns = {"x": {"kind": "category"}, "y": {"kind": "category"}, "u": {"kind": "boolean"}, "v": {"kind": "boolean"}}
    pair = ["a", "a", "b", "b"] * many
    yes, no = [True, True, False, False] * many, [False, False, True, True] * many
    train = {"x": pair, "y": pair, "u": yes, "v": yes}
    found = associations(
        bench_of(columns, train, train, {"x": pair, "y": ["a", "b", "a", "b"] * many, "u": yes, "v": no})
    )
    assert found.train[0, 1] == pytest.approx(1.0)
    assert found.synthetic[0, 1] == pytest.approx(0.0)
    assert (found.train[2, 3], found.synthetic[2, 3]) == (pytest.approx(1.0), pytest.approx(-1.0))


def test_a_sample_of_the_real_patients_is_worth_its_own_size():
    draw = np.random.default_rng(0)
    columns = {name: {"kind": "number"} for name in "vwxyz"}

    def cohort(patients: int) -> dict:
        shared = draw.normal(size=patients)
        return {name: shared + draw.normal(size=patients) for name in columns}

    bench = bench_of(columns, cohort(8000), cohort(1000), cohort(1000))
    found = measure(bench, "subsample_share", "all")
    assert found.value.low < 1000 / 8000 < found.value.high
    assert 0.5 / 8 < found.value.value < 2 / 8
    shuffled = {name: draw.permutation(values) for name, values in cohort(1000).items()}
    assert measure(bench_of(columns, cohort(8000), cohort(1000), shuffled), "subsample_share", "all").value.value < 0.02


def test_grouped_errors_of_a_mean_are_those_of_the_formula():
    values = np.random.default_rng(0).normal(size=4000)
    groups = groups_of(4000, generator=np.random.default_rng(1), groups=200)
    (error,) = grouped_error(lambda left: [values[groups != left["one"]].mean()], {"one": 200})
    assert error == pytest.approx(values.std() / math.sqrt(4000), rel=0.15)


def test_the_interval_of_an_absolute_value():
    assert folded(Estimate(value=-2.0, low=-3.0, high=1.0)) == Estimate(value=2.0, low=0.0, high=3.0)
    assert folded(Estimate(value=-2.0, low=-3.0, high=-1.0)) == Estimate(value=2.0, low=1.0, high=3.0)


@pytest.mark.parametrize(
    ("gap", "first", "second", "expected"),
    [
        (0.0, 1.0, 1.0, 1.0),
        (2.0, 1.0, 1.0, 0.0),  # [-1, 1] and [1, 3] touch
        (1.0, 1.0, 1.0, 0.5),  # share [0, 1]: one half of each
        (0.0, 1.0, 2.0, 0.75),  # the narrow one lies inside: (1 + 1/2) / 2
        (3.0, 1.0, 1.0, -0.5),  # one apart: -1 over 2
        (9.0, 1.0, 1.0, -1.0),
        (math.nan, 1.0, 1.0, -1.0),
    ],
)
def test_the_overlap_of_two_intervals(gap, first, second, expected):
    assert overlap_of(np.array([gap]), np.array([first]), np.array([second]), z=1.0)[0] == pytest.approx(expected)


def test_dependent_columns_are_left_out():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2, 50))
    assert list(independent_columns(np.stack([x, np.ones(50), y, x + y], axis=1))) == [0, 2]


def test_survival_by_hand_and_beside_lifelines():
    # Of 4 one has the event at 1 (3/4 left), one leaves at 2, one of the last two has it at 3 (3/8), one leaves at 4.
    followed = Followed(time=np.array([1.0, 2.0, 3.0, 4.0]), event=np.array([True, False, True, False]))
    assert list(survival_curve(followed, np.array([0.0, 1.0, 2.5, 3.0, 9.0]))) == [1.0, 0.75, 0.75, 0.375, 0.375]
    from lifelines import KaplanMeierFitter

    draw = np.random.default_rng(0)
    many = Followed(time=draw.integers(1, 30, 300).astype(float), event=draw.random(300) < 0.4)
    grid = np.arange(31.0)
    theirs = KaplanMeierFitter().fit(many.time, many.event).survival_function_at_times(grid)
    assert survival_curve(many, grid) == pytest.approx(theirs.to_numpy())


def followed_cohort(patients: int, seed: int, *, effect: float = 1.0) -> dict:
    draw = np.random.default_rng(seed)
    x, z = draw.normal(size=(2, patients))
    time, end = draw.exponential(np.exp(-effect * x)), draw.uniform(0.2, 3, patients)
    died = draw.random(patients) < 1 / (1 + np.exp(-effect * x))
    return {"x": x, "z": z, "time": np.minimum(time, end), "event": time <= end, "died": died}


FOLLOWED = {
    "x": {"kind": "number"},
    "z": {"kind": "number"},
    "time": {"kind": "number"},
    "event": {"kind": "boolean"},
    "died": {"kind": "boolean"},
}


def test_regressions_recover_what_the_patients_were_drawn_by():
    # Log odds ratio and log hazard ratio of x are 1 per unit, and those of z 0; the unit is train's deviation, near 1.
    cohorts = [followed_cohort(3000, seed) for seed in range(3)]
    bench = bench_of(FOLLOWED, *cohorts, survival={"time": "time", "event": "event"})
    cox = hazards(bench)
    assert cox.names == ("x", "z", "died: false") or cox.names == ("x", "z", "died: true")
    assert abs(cox.train.estimate[0] - 1) < 4 * cox.train.error[0] < 0.3
    logistic = coefficients(bench, "died")
    at = logistic.names.index("x")
    assert abs(logistic.train.estimate[at] - 1) < 4 * logistic.train.error[at] < 1.5


def test_an_effect_turned_around_fails_where_an_honest_sample_does_not():
    train, holdout = followed_cohort(3000, 0), followed_cohort(2000, 1)
    for effect, bad in ((1.0, False), (-1.0, True)):
        bench = bench_of(
            FOLLOWED,
            train,
            holdout,
            followed_cohort(2000, 2, effect=effect),
            outcome="died",
            survival={"time": "time", "event": "event"},
        )
        for name in ("coefficient_overlap", "sign_agreement", "hazard_overlap"):
            found = measure(bench, name, "all")
            assert (found.excess.low > 0) == bad, (name, found)
            assert found.reference > 0.2
    assert isinstance(survivals(bench).train, np.ndarray)


def test_a_coefficient_that_the_synthetic_cohort_cannot_estimate_does_not_overlap():
    cohorts = [followed_cohort(500, seed) for seed in range(3)]
    cohorts[2]["z"] = np.zeros(500)
    found = coefficients(bench_of(FOLLOWED, *cohorts), "died")
    at = found.names.index("z")
    assert np.isnan(found.synthetic.estimate[at])
    assert np.isfinite(found.train.estimate[at])


def test_the_log_disparity_of_a_subgroup():
    # Train a 100 of 200, synthetic a 50 of 200; odds with half a patient more: 100.5/100.5 against 50.5/150.5.
    columns = {"g": {"kind": "category", "values": ["a", "b"]}, "x": {"kind": "number"}}

    def cohort(a: int) -> dict:
        return {"g": ["a"] * a + ["b"] * (200 - a), "x": np.arange(200.0)}

    bench = bench_of(columns, cohort(100), cohort(100), cohort(50), groups="g")
    first = disparity(bench, "g")[0]
    assert first.value.value == pytest.approx(math.log(150.5 / 50.5))
    assert first.reference == 0.0
    # Woolf: 1/50.5 + 1/150.5 + 2/100.5.
    error = math.sqrt(1 / 50.5 + 1 / 150.5 + 2 / 100.5)
    assert first.value.high - first.value.value == pytest.approx(1.96 * error, rel=1e-3)


@pytest.mark.parametrize(("patients", "low"), [(10, 0.0), (100, 1.0)])
def test_a_subgroup_that_few_patients_may_lack_by_chance_is_not_known_to_be_lost(patients, low):
    """Of ten patients at most one is of a subgroup of a fifth by chance 0.38 of the time, of a hundred never."""
    columns = {"g": {"kind": "category", "values": ["a", "b"]}, "x": {"kind": "boolean"}}

    def cohort(size: int, of_a: int) -> pl.DataFrame:
        return pl.DataFrame({"g": ["a"] * of_a + ["b"] * (size - of_a), "x": [True, False] * (size // 2)})

    bench = bench_of(columns, cohort(500, 100), cohort(500, 100), cohort(patients, 0), groups="g")
    [lost] = [one for one in fidelity(bench, "g") if one.group.name == "a"]
    assert (lost.value.value, lost.value.low, lost.value.high) == (1.0, low, 1.0)


def test_small_subgroups_are_pooled():
    columns = {"g": {"kind": "category", "values": list("abcd")}, "x": {"kind": "number"}}
    sizes = {"a": 200, "b": 30, "c": 30, "d": 100}
    cohort = {"g": [name for name, many in sizes.items() for _ in range(many)], "x": np.arange(360.0)}
    found = subgroups(bench_of(columns, cohort, cohort, cohort, groups="g"), "g")
    assert {one.name: int(one.train.sum()) for one in found} == {"a": 200, "d": 100, "small groups together": 60}


def test_the_worst_subgroup_is_judged_more_widely_the_more_there_are():
    columns = {"g": {"kind": "category", "values": ["a", "b"]}, "x": {"kind": "number"}}
    draw = np.random.default_rng(0)

    def cohort() -> dict:
        return {"g": draw.choice(["a", "b"], 400), "x": draw.normal(size=400)}

    bench = bench_of(columns, cohort(), cohort(), cohort(), groups="g")
    alone = disparity(bench, "g")
    both = measure(bench, "group_disparity", "all").excess
    # Two subgroups at 97.5 % each: 2.2414 in the place of 1.9600.
    wide = [one.excess.value + (one.excess.high - one.excess.value) * 2.2414 / 1.96 for one in alone]
    assert both.high == pytest.approx(max(wide), rel=1e-3)


def test_chances_that_are_shifted_do_not_come_true():
    # Synthetic patients have the outcome at three times the odds: ranks are right, chances are not.
    draw = np.random.default_rng(0)

    def cohort(patients: int, base: float) -> dict:
        x = draw.normal(size=patients)
        return {"x": x, "flag": draw.random(patients) < 1 / (1 + np.exp(base - x))}

    columns = {"x": {"kind": "number"}, "flag": {"kind": "boolean"}}
    bench = bench_of(columns, cohort(3000, 1.5), cohort(2000, 1.5), cohort(3000, -1.5), outcome="flag")
    found = calibration(bench, "flag")
    real = scores(bench, "flag", "trees")
    gap = abs(real.synthetic[0].mean() - real.truth[0].mean())
    assert found.value.value == pytest.approx(gap, abs=0.03)
    assert found.excess.low > 0.3


def test_importance_agrees_between_samples_and_not_where_columns_are_swapped():
    draw = np.random.default_rng(0)

    def cohort(patients: int, strong: str, weak: str) -> dict:
        x, y, z = draw.normal(size=(3, patients))
        return {strong: x, weak: y, "z": z, "flag": draw.random(patients) < 1 / (1 + np.exp(-2 * x))}

    columns = {name: {"kind": "number"} for name in "xyz"} | {"flag": {"kind": "boolean"}}
    real = cohort(2000, "x", "y"), cohort(1500, "x", "y")
    honest = agreement(bench_of(columns, *real, cohort(2000, "x", "y"), outcome="flag"), "flag")
    swapped = agreement(bench_of(columns, *real, cohort(2000, "y", "x"), outcome="flag"), "flag")
    assert honest.value.value > 0.95 and honest.excess.low < 0.05
    # A model that leans on y alone loses nothing that could agree when real patients' columns are shuffled.
    assert swapped.value.value < 0.6 and swapped.excess.low > 0.05
