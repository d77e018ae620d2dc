from __future__ import annotations

import numpy as np
import pytest

from synthehr.evaluation.intervals import (
    Estimate,
    area_under_curve,
    area_with_error,
    difference_of_proportions,
    normal_interval,
    paired_proportion_difference,
    replicate_areas,
    replicate_r_squared,
    wilson,
)


def test_wilson_of_none_in_ten_is_open_above():
    # z² / (n + z²) = 3.8415 / 13.8415 = 0.27753
    found = wilson(0, of=10)
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(0.27753, abs=1e-4)


def test_newcombes_published_example():
    # Newcombe 1998, table II, method 10: 56/70 against 48/80 gives 0.0524 to 0.3339.
    found = difference_of_proportions(wilson(56, of=70), wilson(48, of=80))
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_area_of_four_patients():
    # Positives score 0.8 and 0.4, negatives 0.6 and 0.2: three of the four pairs are in order.
    labels = np.array([True, True, False, False])
    assert area_under_curve(labels, np.array([0.8, 0.4, 0.6, 0.2])) == pytest.approx(0.75)


def test_ties_count_half():
    labels = np.array([True, True, False, False])
    assert area_under_curve(labels, np.ones(4)) == pytest.approx(0.5)


def test_error_of_the_area_agrees_with_a_bootstrap():
    draw = np.random.default_rng(0)
    labels = draw.random(800) < 0.3
    scores = draw.normal(labels * 1.0)
    counts = draw.multinomial(800, np.full(800, 1 / 800), size=1500).astype(float)
    by_bootstrap = replicate_areas(labels, scores, counts).std()
    assert area_with_error(labels, scores)[1] == pytest.approx(by_bootstrap, rel=0.1)


def test_a_perfect_separation_keeps_an_open_interval():
    labels = np.repeat([True, False], 50)
    assert area_with_error(labels, labels.astype(float))[1] > 0


def test_a_replicate_counts_a_patient_as_often_as_it_was_drawn():
    draw = np.random.default_rng(1)
    labels, scores = draw.random(30) < 0.5, draw.integers(0, 5, 30).astype(float)
    counts = draw.multinomial(30, np.full(30, 1 / 30), size=5).astype(float)
    for row, found in zip(counts, replicate_areas(labels, scores, counts), strict=True):
        again = np.repeat(np.arange(30), row.astype(int))
        assert found == pytest.approx(area_under_curve(labels[again], scores[again]))


def test_r_squared_of_four_patients():
    # Truth 1, 2, 3, 4: squares around the mean sum to 5. Each is off by a half: 1 - 4 · 0.25 / 5 = 0.8.
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    assert replicate_r_squared(truth, truth + 0.5, np.ones((1, 4)))[0] == pytest.approx(0.8)


def test_r_squared_is_undefined_where_the_truth_does_not_vary():
    assert np.isnan(replicate_r_squared(np.ones(4), np.ones(4), np.ones((1, 4)))[0])


def test_nothing_found_is_not_certainty():
    # No difference in 98 pairs: half width 1.96 · sqrt(1) / (98 + 2) = 0.0196.
    found = paired_proportion_difference(np.zeros(98))
    assert found.value == 0.0
    assert found.high == pytest.approx(0.0196, abs=1e-4)


def test_an_estimate_is_finite_and_inside_its_interval():
    with pytest.raises(ValueError, match="finite"):
        Estimate(value=float("nan"), low=0.0, high=1.0)
    with pytest.raises(ValueError, match="inside"):
        Estimate(value=2.0, low=0.0, high=1.0)


def test_an_interval_is_cut_at_what_can_be():
    found = normal_interval(0.01, error=0.02, lower=0.0, upper=1.0)
    assert found.low == 0.0
    assert found.high == pytest.approx(0.0492, abs=1e-4)
