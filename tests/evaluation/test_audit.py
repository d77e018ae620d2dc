"""Lower bounds on epsilon: golden values, hand-computed ones, and how often they accuse the innocent."""

from __future__ import annotations

import math

import numpy as np
import pytest

from synthehr.evaluation.audit import (
    Counts,
    audit_guesses,
    guess,
    many_run_bound,
    one_run_bound,
    one_run_ceiling,
    one_run_p_value,
    upper_proportion,
)
from synthehr.evaluation.audit_runs import Runs, distinguish, learn


@pytest.mark.parametrize(
    ("canaries", "guesses", "right", "bound"),
    [
        (1000, 600, 600, 5.2704),
        (100, 100, 100, 3.4902),
        (1000, 1000, 600, 0.2972),
        (1000, 100, 80, 0.9553),
        (10000, 1000, 700, 0.7293),
    ],
)
def test_one_run_bounds_are_those_of_an_independent_implementation(canaries, guesses, right, bound) -> None:
    found = one_run_bound(canaries=canaries, guesses=guesses, right=right, delta=1e-5)
    assert found == pytest.approx(bound, abs=1e-3)


@pytest.mark.parametrize(("guesses", "ceiling"), [(10, 1.05), (50, 2.78), (100, 3.49), (1000, 5.81)])
def test_so_many_guesses_could_certify_so_much_at_best(guesses, ceiling) -> None:
    assert one_run_ceiling(canaries=guesses, guesses=guesses, delta=0.0) == pytest.approx(ceiling, abs=5e-3)


@pytest.mark.parametrize(("runs", "bound"), [(100, 3.28), (500, 4.91), (1000, 5.60)])
def test_a_perfect_attack_of_many_runs_certifies_so_much(runs, bound) -> None:
    found = many_run_bound(Counts(hits=runs, runs_in=runs, alarms=0, runs_out=runs), delta=0.0)
    assert found.epsilon == found.ceiling == pytest.approx(bound, abs=5e-3)


def test_one_right_guess_of_one_by_hand() -> None:
    # P[W >= 1] = q for one guess; below alpha = 0.9 while q < 0.9, so up to ln(0.9 / 0.1).
    assert one_run_p_value(0.0, canaries=1, guesses=1, right=1, delta=0.0) == pytest.approx(0.5)
    assert one_run_bound(canaries=1, guesses=1, right=1, delta=0.0, alpha=0.9) == pytest.approx(math.log(9), abs=1e-5)


def test_delta_adds_its_part_by_hand() -> None:
    # q = 1/2, two guesses both right: P[W >= 2] = 1/4; P[W = 1] = 1/2 over 1, P[W < 2] = 3/4 over 2: the larger is 1/2.
    assert one_run_p_value(0.0, canaries=10, guesses=2, right=2, delta=0.01) == pytest.approx(0.25 + 0.2 * 0.5)


def test_an_upper_bound_of_nothing_in_n_is_one_less_the_nth_root_of_alpha() -> None:
    assert upper_proportion(0, of=50, alpha=0.05) == pytest.approx(1 - 0.05 ** (1 / 50))
    assert upper_proportion(50, of=50, alpha=0.05) == 1.0


def test_guessing_alone_certifies_nothing() -> None:
    assert one_run_bound(canaries=1000, guesses=1000, right=500, delta=1e-6) == 0.0
    assert one_run_bound(canaries=1000, guesses=0, right=0, delta=1e-6) == 0.0
    assert many_run_bound(Counts(hits=50, runs_in=100, alarms=50, runs_out=100), delta=0.0).epsilon == 0.0


def test_many_runs_see_rare_sure_misses_as_well_as_rare_sure_hits() -> None:
    # Said "in" in all 1000 runs with the patient and in half of those without: no hit is telling, every "out" is.
    seen = many_run_bound(Counts(hits=1000, runs_in=1000, alarms=500, runs_out=1000), delta=0.0)
    assert seen.epsilon > 4.5


def test_guesses_are_the_highest_and_the_lowest_scores() -> None:
    coins = np.array([True, False, True, False, True])
    assert guess(np.array([5.0, 1.0, 4.0, 2.0, 3.0]), coins, guesses=4) == 4
    assert guess(np.array([1.0, 5.0, 2.0, 4.0, 3.0]), coins, guesses=4) == 0


def test_the_level_is_kept_exactly_by_randomised_response() -> None:
    """Answers that are right with chance q spend exactly ln(q / (1 - q)): the chance of a bound above it, summed."""
    from scipy.stats import binom

    for guesses in (100, 400):
        for epsilon in (1.0, 3.0):
            q = 1 / (1 + math.exp(-epsilon))
            accusing = [
                right
                for right in range(guesses + 1)
                if one_run_bound(canaries=guesses, guesses=guesses, right=right, delta=0.0) > epsilon
            ]
            assert accusing
            assert 0.005 < binom.pmf(accusing, guesses, q).sum() <= 0.05


def test_a_grid_of_guesses_chosen_beforehand_alarms_in_at_most_one_of_twenty() -> None:
    draws, accused = np.random.default_rng(3), 0
    for _ in range(100):
        coins = draws.random(200) < 0.5
        answers = np.where(draws.random(200) < math.e / (1 + math.e), coins, ~coins)
        bound = audit_guesses(answers + 0.5 * draws.random(200), coins, grid=[20, 50, 100, 200], delta=0.0)
        accused += bound.epsilon > 1.0
    # Of 100 at a chance of 5 % each, 5 are expected at most; the seed is fixed. 400 runs: audit_alarms.csv.
    assert accused <= 5


def gaussian_runs(shift: float, runs: int, *, seed: int = 0) -> Runs:
    draws = np.random.default_rng(seed)
    return Runs(present=draws.normal(shift, 1.0, (runs, 3)), absent=draws.normal(0.0, 1.0, (runs, 3)))


def test_many_runs_certify_most_of_what_can_be_seen_and_never_more() -> None:
    # A shift of 1 in each of three numbers is one of 1.73 along the diagonal; at delta 1e-5 its epsilon is about 8.4.
    bound = distinguish(gaussian_runs(1.0, 3000), delta=1e-5)
    assert 2.0 < bound.epsilon < 8.4
    assert distinguish(gaussian_runs(0.0, 3000, seed=1), delta=1e-5).epsilon < 0.2


def test_runs_that_differ_in_spread_alone_are_told_apart() -> None:
    draws = np.random.default_rng(2)
    runs = Runs(present=draws.normal(0, 1, (900, 64)), absent=draws.normal(0, 2, (900, 64)))
    assert distinguish(runs, delta=0.0).epsilon > 4.0


def test_one_number_that_gives_it_away_among_many_that_do_not_is_found() -> None:
    draws = np.random.default_rng(4)
    present, absent = draws.normal(0, 1, (2, 900, 50))
    present[:, 17], absent[:, 17] = draws.integers(0, 2, 900), 1.0
    bound = distinguish(Runs(present=present, absent=absent), delta=0.0)
    assert bound.epsilon > 3.5


def test_the_runs_that_are_counted_do_not_choose_the_test() -> None:
    runs = gaussian_runs(1.0, 500)
    teaching, choosing, counting = runs.split()
    test = learn(teaching, choosing, delta=1e-6)
    changed = Runs(
        present=np.concatenate([teaching.present, choosing.present, counting.absent]),
        absent=np.concatenate([teaching.absent, choosing.absent, counting.present]),
    )
    again = learn(*changed.split()[:2], delta=1e-6)
    assert again.threshold == test.threshold
    assert [len(part.present) for part in runs.split()] == [100, 100, 300]


def test_more_guesses_than_canaries_are_refused() -> None:
    with pytest.raises(ValueError, match="at most as many"):
        one_run_p_value(1.0, canaries=5, guesses=6, right=1, delta=0.0)
