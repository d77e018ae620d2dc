"""Attacks find what was planted, and nothing where nothing was."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.errors import ConfigError
from synthehr.evaluation.attacks_membership import Rates, clopper_pearson
from synthehr.evaluation.attacks_release import profile
from synthehr.evaluation.attacks_space import nearest
from synthehr.evaluation.metrics import Bench, measure
from synthehr.evaluation.shadow import attack_by_shadows
from synthehr.evaluation.suite import decide
from synthehr.schema.files import load_schema


def bench(nafld, train: pl.DataFrame, holdout: pl.DataFrame, synthetic: pl.DataFrame, **more) -> Bench:
    cohorts = {"train": train, "holdout": holdout, "synthetic": synthetic}
    return Bench.open(**{name: nafld.cohort(frame) for name, frame in cohorts.items()}, seed=0, **more)


@pytest.fixture(scope="module")
def copied(nafld) -> Bench:
    return bench(nafld, nafld.train.root[:3000], nafld.holdout.root[:1500], nafld.train.root[:3000])


@pytest.fixture(scope="module")
def independent(nafld) -> Bench:
    return bench(nafld, nafld.train.root[:3000], nafld.holdout.root[:1500], nafld.others[:3000])


def excess(found: Bench, name: str, scope: str = "all"):
    return measure(found, name, scope).excess


def test_a_copy_of_train_is_told_from_the_holdout_nearly_always(copied):
    found = measure(copied, "membership_auc", "all")
    assert found.value.value >= 0.95
    assert decide(found.excess, op="<=", bound=0.1) == "fail"
    assert decide(excess(copied, "membership_tpr_1pct"), op="<=", bound=0.05) == "fail"
    assert decide(excess(copied, "outlier_copies"), op="<=", bound=0.005) == "fail"
    assert decide(excess(copied, "attribute_inference"), op="<=", bound=0.05) == "fail"
    assert decide(excess(copied, "attribute_inference", "status"), op="<=", bound=0.0) == "fail"


def test_an_independent_sample_gives_no_one_away(independent):
    for name, bound in (("membership_auc", 0.1), ("membership_advantage", 0.15), ("attribute_inference", 0.05)):
        assert decide(excess(independent, name), op="<=", bound=bound) == "pass"
    for name in ("membership_tpr_1pct", "outlier_copies"):
        assert decide(excess(independent, name), op="<=", bound=0.005) != "fail"


def test_copies_with_a_digit_changed_are_told_too(nafld):
    train = nafld.train.root[:2000]
    changed = train.with_columns(pl.col("bmi") * 1.001, pl.col("weight") + 0.1)
    found = measure(bench(nafld, train, nafld.holdout.root[:1000], changed), "membership_auc", "all")
    assert found.value.low > 0.95


def test_ten_outliers_among_a_thousand_fail_their_check_alone(nafld):
    train, holdout = nafld.train.root[:1000], nafld.holdout.root[:1000]
    numbers = train.select("age", "weight", "height", "bmi", "futime").cast(pl.Float64)
    scaled = numbers.select(((pl.all() - pl.all().median()) / pl.all().std()).abs().fill_null(0.0))
    far = train[scaled.sum_horizontal().arg_sort(descending=True)[:10]]
    found = bench(nafld, train, holdout, pl.concat([nafld.others[:990], far]))
    assert decide(excess(found, "outlier_copies"), op="<=", bound=0.005) == "fail"
    assert decide(excess(found, "membership_auc"), op="<=", bound=0.1) == "pass"
    # What distance to the closest record says of them: nothing.
    advisory = profile(found)
    assert advisory is not None and abs(advisory.nearer_to_train - 0.5) < 0.05


def test_a_generator_that_is_known_is_one_attack_more(nafld):
    train, holdout = nafld.train.root[:1000], nafld.holdout.root[:600]

    def likelihood(*cohorts: Cohort):
        known = set(train["bmi"].to_list())
        return tuple(np.array([float(bmi in known) for bmi in cohort.root["bmi"]]) for cohort in cohorts)

    found = bench(nafld, train, holdout, nafld.others[:1000], likelihood=likelihood)
    alone = measure(found, "membership_auc", "known_generator").value
    assert alone.value > 0.8
    assert measure(found, "membership_auc", "all").value.value > 0.8
    without = bench(nafld, train, holdout, nafld.others[:1000])
    assert "not known" in measure(without, "membership_auc", "known_generator").why


def test_rates_that_so_few_cannot_resolve_are_undefined_and_say_so(nafld):
    few = bench(nafld, nafld.train.root[:300], nafld.holdout.root[:120], nafld.others[:300])
    found = measure(few, "membership_tpr_1pct", "all")
    assert found.value is None
    assert "resolves" in found.why


def test_a_holdout_that_is_no_control_leaves_every_attack_undefined(nafld):
    train = nafld.train.root[:500]
    found = bench(nafld, train, train, train)
    for name in ("membership_auc", "membership_tpr_1pct", "outlier_copies", "attribute_inference"):
        assert measure(found, name, "all").value is None


def test_the_row_order_of_train_does_not_matter(nafld, independent):
    turned = bench(
        nafld, nafld.train.root[:3000].reverse(), nafld.holdout.root[:1500].reverse(), nafld.others[:3000].reverse()
    )
    for name in ("outlier_copies",):
        assert measure(turned, name, "all").value == measure(independent, name, "all").value
    # Who is in which half changes with the order; what is found stays within its interval.
    first, second = (measure(b, "membership_auc", "all").value for b in (turned, independent))
    assert abs(first.value - second.value) < 0.05


def test_exact_intervals_by_hand():
    # None of n: upper end 1 - 0.025 ** (1 / n).
    assert clopper_pearson(0, of=10).high == pytest.approx(1 - 0.025**0.1)
    assert clopper_pearson(10, of=10).low == pytest.approx(0.025**0.1)
    rates = Rates(hits=10, members=10, alarms=0, others=10)
    assert rates.advantage().value == 1.0
    assert rates.advantage().low == pytest.approx(1 - np.hypot(1 - 0.025**0.1, 1 - 0.025**0.1))


def test_distances_by_hand():
    points = np.array([[0.0, 0.0], [3.0, 4.0]], dtype=np.float32)
    assert nearest(points, points).tolist() == [0.0, 0.0]
    assert nearest(points, points, itself=np.array([0, 1])).tolist() == [5.0, 5.0]
    assert np.isinf(nearest(points[:1], points[:1], itself=np.array([0]))).all()


def test_one_column_and_constant_columns_are_attacked_without_a_fall():
    schema = load_schema(
        {"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"x": {"kind": "number", "nullable": True}}}}}
    )
    for values in ([1.0] * 200, [None] * 200):
        cohort = Cohort({"p": pl.DataFrame({"x": values}, schema={"x": pl.Float64})}, schema=schema)
        found = Bench.open(train=cohort, holdout=cohort, synthetic=cohort, seed=0)
        area = measure(found, "membership_auc", "all").value
        assert area is None or area.low <= 0.5 <= area.high
        assert measure(found, "attribute_inference", "all").value is None


def test_shadow_fits_find_the_patient_who_is_learned_by_heart():
    """Scores of 40 patients, of whom the first stands out by 6 deviations when it is in, and nobody else."""
    noise = np.random.default_rng(1)

    def refit(member):
        scores = noise.normal(0.0, 1.0, len(member))
        scores[0] += 6.0 * member[0]
        return scores

    found = attack_by_shadows(
        refit, patients=40, attacked=np.arange(20), fits=300, delta=1e-6, generator=np.random.default_rng(2)
    )
    for attack in found.values():
        assert attack.bound.epsilon > 2.0
        assert 0.5 < attack.auc.value < 0.7


def test_the_interval_of_a_rate_over_many_fits_is_over_patients():
    """Two of 20 patients are told in every fit and nobody else: 200 fits say no more of patients than one does."""
    noise = np.random.default_rng(1)

    def refit(member):
        scores = noise.normal(0.0, 1.0, len(member))
        scores[:2] += 60.0 * member[:2]
        return scores

    found = attack_by_shadows(
        refit, patients=20, attacked=np.arange(20), fits=200, delta=1e-6, generator=np.random.default_rng(2)
    )
    rate = found["lira"].true_positive
    assert rate.value == pytest.approx(0.1, abs=0.03)
    # Clopper and Pearson of 2 in 20: 0.012 to 0.317; of 200 in 2,000, as if fits were patients, 0.087 to 0.114.
    assert rate.low < 0.03 and rate.high > 0.25


def test_shadow_fits_find_nothing_in_fits_that_do_not_look():
    noise = np.random.default_rng(1)
    found = attack_by_shadows(
        lambda member: noise.normal(0.0, 1.0, len(member)),
        patients=30,
        attacked=np.arange(30),
        fits=100,
        delta=1e-6,
        generator=np.random.default_rng(2),
    )
    for attack in found.values():
        assert attack.bound.epsilon == 0.0
        assert attack.auc.low < 0.5 < attack.auc.high
    with pytest.raises(ConfigError, match="at least 8"):
        attack_by_shadows(
            lambda member: noise.normal(size=len(member)),
            patients=5,
            attacked=np.arange(5),
            fits=4,
            delta=0.0,
            generator=noise,
        )


def test_what_is_likely_of_anyone_tells_no_member(nafld):
    """A likelihood that is a function of age alone, and of train's patients a little higher."""
    train, holdout = nafld.train.root[:1000], nafld.holdout.root[:600]

    def likelihood(*cohorts: Cohort):
        return tuple(-10.0 * cohort.root["age"].to_numpy() + 5.0 * (cohort.root.height == 1000) for cohort in cohorts)

    def flat(*cohorts: Cohort):
        return tuple(-10.0 * cohort.root["age"].to_numpy() for cohort in cohorts)

    areas = [
        measure(bench(nafld, train, holdout, nafld.others[:1000], likelihood=one), "membership_auc", "known_generator")
        for one in (likelihood, flat)
    ]
    # Ages differ by hundreds in the score, so that five points would not show beside them.
    assert areas[1].value.low < 0.5 < areas[1].value.high
    assert areas[0].value.low > 0.6
