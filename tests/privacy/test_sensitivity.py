"""How far one patient moves each mechanism: never past what is stated, and up to it.

Histograms and marginals of 1,000 neighbouring cohorts are in test_rows.py; here are selection, the count and
gradients, then the reach of all five, and what a bought domain shows of a value that one patient holds.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from defects import VALUES, Mechanisms, Recorder, long_gradients, neighbours, one_thread, open_account, step_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from synthehr.encoding.domain import ColumnPlan, buy_domain
from synthehr.encoding.unroll import conditional_tables
from synthehr.models.planning import plan_fit
from synthehr.privacy.accountant import EpsilonDelta, Gaussian
from synthehr.privacy.budget import Budget
from synthehr.privacy.policy import load_policy
from synthehr.privacy.rows import GRAIN, PrivateRows, _scaled_parts, selection_threshold
from synthehr.randomness import SystemNoise
from synthehr.schema.files import load_schema

OURS = Mechanisms()
EVENT = Gaussian(stage="h", noise_multiplier=1.0)
FAILURE = EpsilonDelta(stage="h", epsilon=0.0, delta=1e-6)
COUNT = EpsilonDelta(stage="count", epsilon=0.5, delta=0.0)

value = st.one_of(st.none(), st.sampled_from(["a", "b", "c"]), st.text("xyz", max_size=2))
cohorts = st.lists(st.lists(value, max_size=8), min_size=1, max_size=6)


def selection_given(cohort) -> dict[str, float]:
    """The weight of every value that selection puts noise on, in patients."""
    noise = Recorder()
    OURS.open_rows(cohort, noise).select_values(open_account(EVENT, FAILURE), "c", event=EVENT, failure=FAILURE)
    present = sorted({name for patient in cohort for name in patient if name is not None})
    if not present:
        assert noise.given == []
        return {}
    ((weights, scale),) = noise.given
    return dict(zip(present, weights / scale, strict=True))


def count_given(cohort) -> float:
    noise = Recorder()
    OURS.open_rows(cohort, noise).count_patients(open_account(COUNT), event=COUNT)
    ((patients, scale),) = noise.given
    assert scale == pytest.approx(2.0)  # 1 / epsilon: noise for a change of 1
    return float(patients[0])


@settings(max_examples=1000, deadline=None)
@given(cohort=cohorts, at=st.integers(0, 5))
def test_one_patient_moves_selection_and_count_by_at_most_one(cohort, at: int) -> None:
    at %= len(cohort)
    less = cohort[:at] + cohort[at + 1 :]
    with_, without = selection_given(cohort), selection_given(less)
    assert set(without) <= set(with_)
    # Shared values move by at most 1 in L2, as the Gaussian event says.
    assert math.hypot(*(with_[name] - without[name] for name in without)) <= 1.0 + 1e-12
    # Values of this patient alone: at most one a row, each of weight at most 1, as the threshold assumes.
    alone = [with_[name] for name in set(with_) - set(without)]
    assert len(alone) <= 8
    assert math.fsum(alone) <= 1.0 + 1e-12
    assert count_given(cohort) - count_given(less) == 1.0


@pytest.mark.parametrize("phase", ["critic", "encoder"])
def test_one_patient_moves_a_gradient_by_at_most_the_clip_in_1000_pairs_and_by_all_of_it_in_some(phase: str) -> None:
    mechanism = step_of(rate=1.0, sigma=1.0, clip=0.3, expected=1.0)
    gradients = long_gradients(OURS)[phase]
    moved = []
    with one_thread():
        for pair in neighbours(1000):
            with_, without = (
                OURS.open_codes(cohort, Recorder()).noisy_gradient(
                    open_account(mechanism.event), gradients, mechanism=mechanism
                )
                for cohort in pair
            )
            moved.append(float((with_ - without).norm()) / 0.3)
    assert 0.95 <= max(moved) <= 1.0 + 1e-5


def test_histogram_marginals_selection_and_count_are_moved_by_all_of_what_is_stated() -> None:
    reach = {"histogram": 0.0, "marginals": 0.0, "selection": 0.0, "count": 0.0}
    for cohort, less in neighbours(200):
        seen = []
        for version in (cohort, less):
            noise = Recorder()
            OURS.open_rows(version, noise).histogram(open_account(EVENT), "c", VALUES, event=EVENT)
            OURS.open_codes(version, noise).marginals(
                open_account(EVENT), [(0, 1), (0,), (1,)], shares=[0.5, 0.25, 0.25], event=EVENT
            )
            seen.append(noise.given)
        moves = [float(np.linalg.norm(x - y)) / scale for (x, scale), (y, _) in zip(*seen, strict=True)]
        with_, without = selection_given(cohort), selection_given(less)
        now = {
            "histogram": moves[0],
            "marginals": math.hypot(*moves[1:]),
            "selection": math.hypot(*(with_[name] - without[name] for name in without)),
            "count": count_given(cohort) - count_given(less),
        }
        reach = {name: max(reach[name], now[name]) for name in reach}
    for name, most in reach.items():
        assert 0.95 <= most <= 1.0 + 1e-9, name


def test_one_patient_moves_the_distances_by_at_most_one_in_1000_pairs_and_by_nearly_all_of_it_in_some() -> None:
    sets = [(0,), (1,), (0, 1)]
    coarse = [np.array([0, 1, 1, 0, 2])] * 2  # the groups of a, b, c, other, missing
    moved = []
    for groups, sizes in ((None, (5, 5)), (coarse, (3, 3))):
        expected = [np.full(sizes[0], 0.4), np.zeros(sizes[1]), np.full(sizes, 0.02)]
        for pair in neighbours(500):
            given = []
            for version in pair:
                noise = Recorder()
                OURS.open_codes(version, noise).misfits(open_account(EVENT), sets, expected, event=EVENT, groups=groups)
                given += noise.given
            (with_, scale), (without, _) = given
            moved.append(float(np.linalg.norm(with_ - without)) / scale)
    assert 0.95 <= max(moved) <= 1.0 + 1e-9


def test_one_patient_moves_coarse_histograms_by_at_most_one() -> None:
    groups = [np.array([0, 1, 1, 0, 2])] * 2
    reach = 0.0
    for pair in neighbours(300):
        given = []
        for version in pair:
            noise = Recorder()
            OURS.open_codes(version, noise).marginals(
                open_account(EVENT), [(0, 1), (1,)], shares=[0.7, 0.3], event=EVENT, groups=groups
            )
            given.append(noise.given)
        moves = [float(np.linalg.norm(x - y)) / scale for (x, scale), (y, _) in zip(*given, strict=True)]
        reach = max(reach, math.hypot(*moves))
    assert 0.95 <= reach <= 1.0 + 1e-9


def test_one_patient_moves_scaled_histograms_by_at_most_one_in_1000_pairs_and_by_nearly_all_of_it_in_most() -> None:
    groups = [np.array([0, 1, 1, 0, 2])] * 2
    reach = []
    for coarse, by in ((None, ()), (groups, ()), (None, (0, 1)), (groups, (1, None))):
        for pair in neighbours(500):
            given = []
            for version in pair:
                noise = Recorder()
                OURS.open_codes(version, noise).marginals(
                    open_account(EVENT),
                    [(0, 1), (1,)],
                    shares=[0.7, 0.3],
                    event=EVENT,
                    groups=coarse,
                    scaled=True,
                    by=by,
                )
                given.append(noise.given)
            moves = [float(np.linalg.norm(x - y)) / scale for (x, scale), (y, _) in zip(*given, strict=True)]
            reach.append(math.hypot(*moves))
    assert max(reach) <= 1.0  # rounded down, so that no float64 is needed to say so
    assert np.median(reach) >= 0.999, "patients of several rows in several cells too move them by all of it"


def test_what_a_patient_adds_to_a_scaled_histogram_by_hand() -> None:
    # Three rows in one cell and four in another are 3 / 5 and 4 / 5 of a vector of length 1; one row alone is 1.
    owners, cell = np.array([0] * 7 + [2]), np.array([4, 4, 4, 1, 1, 1, 1, 4])
    places, part = _scaled_parts(owners, cell, 5)
    assert places.tolist() == [1, 4, 4]
    assert part.tolist() == pytest.approx([0.8 * GRAIN, 0.6 * GRAIN, GRAIN], abs=1.0)
    assert part[:2].tolist() <= [0.8 * GRAIN, 0.6 * GRAIN]
    assert part[2] == GRAIN


def test_each_code_of_a_patient_adds_the_same_length_to_a_scaled_histogram_by_hand() -> None:
    # Code 7 three times in one cell and four times in another, code 8 once: 3 / 5, 4 / 5 and 1, each by the root of 2.
    # A patient of one code has all of the length; one row alone is exactly 1.
    owners, cell = np.array([0] * 8 + [2]), np.array([4, 4, 4, 1, 1, 1, 1, 0, 4])
    places, part = _scaled_parts(owners, cell, 9, np.array([7] * 7 + [8] + [7]))
    assert places.tolist() == [0, 1, 4, 4]
    root = math.sqrt(2.0)
    assert part.tolist() == pytest.approx([GRAIN / root, 0.8 * GRAIN / root, 0.6 * GRAIN / root, GRAIN], abs=1.0)
    assert float(np.square(part[:3].astype(float)).sum()) <= GRAIN**2
    assert part[3] == GRAIN


# A domain bought at epsilon 1, delta 1e-6, as a fit plans it.

SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "patient": {
                "key": "id",
                "columns": {"id": {"kind": "id"}, "code": {"kind": "category", "discover": True}},
            }
        },
    }
)


@pytest.fixture(scope="module")
def planned() -> ColumnPlan:
    policy = load_policy("standard")
    budget = Budget(epsilon=1.0 - policy.shares.count, delta=1e-6)
    tables = conditional_tables(SCHEMA, {SCHEMA.subject: 1})
    whole = plan_fit(tables, budget=budget, policy=policy, patients_bought=5_000, gradients=None)
    plan = whole.per_table[SCHEMA.subject].domain["code"]
    assert plan.selection_failure is not None
    assert plan.selection_failure.delta == pytest.approx(1e-7)  # a tenth of delta, for one column
    return plan


def rows_of(held: dict[str, int]) -> PrivateRows:
    """For each value so many patients of one row."""
    codes = [name for name, times in held.items() for _ in range(times)]
    frame = pl.DataFrame({"code": codes})
    owners = np.arange(len(codes))
    return PrivateRows(frame, owners=owners, patients=len(codes), max_rows=1, noise=SystemNoise())


def bought_values(rows: PrivateRows, plan: ColumnPlan) -> tuple[str, ...]:
    account = open_account(*plan.events)
    (domain,) = buy_domain(rows, account, SCHEMA.root, plans={"code": plan}, patients=5_000, bins=8)
    return domain.cells.values


def test_a_value_of_one_patient_is_in_none_of_5000_bought_domains(planned: ColumnPlan) -> None:
    rows = rows_of({"common": 5_000} | {f"only-{at}": 1 for at in range(500)})

    def appearances() -> int:
        # Noise on each value is its own, so 500 values of one patient in a purchase are 500 domains with one.
        return sum(len(set(bought_values(rows, planned)) - {"common"}) for _ in range(10))

    # Each appears with chance 1e-7: in 5,000 none but once in 2,000 runs, hence a second go. Both go wrong by chance
    # once in 4 million runs.
    assert appearances() == 0 or appearances() == 0


def test_values_appear_in_bought_domains_as_often_as_their_curve_says(planned: ColumnPlan) -> None:
    (event,) = planned.cell_events
    sigma, delta = event.noise_multiplier, planned.selection_failure.delta
    threshold = selection_threshold(noise_multiplier=sigma, delta=delta, max_values=1)
    assert threshold == pytest.approx(1.0 + 5.19934 * sigma, rel=1e-5)  # P[N(0, 1) > 5.19934] is 1e-7
    sizes = [max(2, round(threshold + sigmas * sigma)) for sigmas in (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0)]
    found = bought_values(rows_of({f"{size} {at}": size for size in sizes for at in range(150)}), planned)
    for size in sizes:
        seen = sum(name.startswith(f"{size} ") for name in found)
        chance = float(norm.sf(threshold, loc=size, scale=sigma))
        assert binomtest(seen, 150, chance).pvalue > 1e-6, size
