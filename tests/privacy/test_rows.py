from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from synthehr.errors import InternalError
from synthehr.models.dpsgd import PrivateNetwork
from synthehr.models.networks import Critic, one_hot
from synthehr.privacy.accountant import Account, EpsilonDelta, Gaussian, PoissonSampledGaussian
from synthehr.privacy.budget import Budget
from synthehr.privacy.gradients import PatientGradients
from synthehr.privacy.partition import Intervals, Values
from synthehr.privacy.rows import (
    GRAIN,
    GradientMechanism,
    PrivateCodes,
    PrivateRows,
    selection_threshold,
)
from synthehr.randomness import InsecureNoise, NoiseSource, SystemNoise


class Recorder(InsecureNoise):
    """Adds no noise, and remembers what it was given and at which scale."""

    def __init__(self) -> None:
        super().__init__(0)
        self.given: list[tuple[np.ndarray, float]] = []

    def discrete_gaussian(self, values: np.ndarray, *, scale: float) -> np.ndarray:
        self.given.append((values.copy(), scale))
        return values

    def discrete_laplace(self, value: int, *, scale: float) -> int:
        self.given.append((np.array([value]), scale))
        return value

    def gaussian(self, size: int, *, scale: float) -> np.ndarray:
        self.given.append((np.zeros(size), scale))
        return np.zeros(size)


class Unlimited(Account):
    """Lets through what was planned, without composing it: these tests are of the mechanisms."""

    def plan(self, events) -> None:
        for event in events:
            self._planned[event] = self._planned.get(event, 0) + 1


def open_account(*events) -> Account:
    account = Unlimited(Budget(epsilon=1.0, delta=1e-3))
    account.plan(events)
    return account


EVENT = Gaussian(stage="t", noise_multiplier=1.0)
VALUES = Values(values=("a", "b"), other=True, nullable=True)
BINS = Intervals(edges=np.array([0.0, 1.0, 2.0, 5.0]), nullable=True)


def rows_of(values: list[list[tuple[str | None, float | None]]], noise: NoiseSource) -> PrivateRows:
    """Rows of patients, each a list of (category, number)."""
    flat = [row for patient in values for row in patient]
    frame = pl.DataFrame(
        {"c": [row[0] for row in flat], "x": [row[1] for row in flat]},
        schema={"c": pl.String, "x": pl.Float64},
    )
    owners = np.repeat(np.arange(len(values)), [len(patient) for patient in values])
    return PrivateRows(frame, owners=owners, patients=len(values), max_rows=8, noise=noise)


row = st.tuples(st.sampled_from(["a", "b", "zz", None]), st.sampled_from([-1.0, 0.5, 1.0, 4.0, 9.0, None]))
patients = st.lists(st.lists(row, max_size=8), min_size=1, max_size=6)


@settings(max_examples=1000, deadline=None)
@given(cohort=patients, at=st.integers(0, 5))
def test_one_patient_moves_every_histogram_by_at_most_one(cohort, at: int) -> None:
    at %= len(cohort)
    seen = []
    for version in (cohort, cohort[:at] + cohort[at + 1 :]):
        noise = Recorder()
        rows = rows_of(version, noise)
        account = open_account(*[EVENT] * 3)
        rows.histogram(account, "c", VALUES, event=EVENT)
        rows.histogram(account, "x", BINS, event=EVENT)
        codes = rows.encode({"c": VALUES, "x": BINS})
        codes.marginals(account, [(0, 1), (0,), (1,)], shares=[0.5, 0.25, 0.25], event=EVENT)
        seen.append(noise.given)
    for (with_, scale), (without, same) in zip(seen[0], seen[1], strict=True):
        assert scale == same
        # What was noised moves, in units of its noise, by at most 1 / noise_multiplier.
        assert np.linalg.norm(with_ - without) / scale <= 1.0 + 1e-12
    joint = sum((np.linalg.norm(w - o) / s) ** 2 for (w, s), (o, _) in zip(seen[0][2:], seen[1][2:], strict=True))
    assert math.sqrt(joint) <= 1.0 + 1e-9


def test_the_stated_sensitivity_is_reached() -> None:
    moves = []
    for version in ([[("a", 0.5)], [("b", 4.0)]], [[("a", 0.5)]]):
        noise = Recorder()
        account = open_account(EVENT)
        rows_of(version, noise).encode({"c": VALUES, "x": BINS}).marginals(
            account, [(0, 1), (0,)], shares=[0.5, 0.5], event=EVENT
        )
        moves.append(noise.given)
    joint = sum((np.linalg.norm(w - o) / s) ** 2 for (w, s), (o, _) in zip(*moves, strict=True))
    assert math.sqrt(joint) == pytest.approx(1.0, rel=1e-5)


def test_a_histogram_counts_by_hand() -> None:
    # Patient 0: a and b, half each. Patient 1: one unknown value. Patient 2: missing. Patient 3: no rows.
    rows = rows_of([[("a", 0.5), ("b", 9.0)], [("zz", None)], [(None, -1.0)], []], Recorder())
    account = open_account(EVENT, EVENT)
    assert rows.histogram(account, "c", VALUES, event=EVENT).tolist() == [0.5, 0.5, 1.0, 1.0]
    # -1 falls in the first cell, 9 in the last: both are open-ended.
    assert rows.histogram(account, "x", BINS, event=EVENT).tolist() == [1.5, 0.0, 0.5, 1.0]


def test_distances_and_coarse_histograms_by_hand() -> None:
    # Cells a, b, other, missing; b and other as one group.
    noise = Recorder()
    rows = rows_of([[("a", 0.5), ("b", 9.0)], [("zz", None)], [(None, -1.0)]], noise)
    codes = rows.encode({"c": VALUES, "x": BINS})
    groups = [np.array([0, 1, 1, 2]), np.zeros(4, dtype=np.int64)]
    (found,) = codes.marginals(open_account(EVENT), [(0,)], shares=[1.0], event=EVENT, groups=groups)
    assert found.tolist() == [0.5, 1.5, 1.0]
    expected = [np.array([0.5, 0.5, 0.0, 2.0]), np.array([3.0, 0.0, 0.0, 0.0])]
    # c: 0 + 0 + 1 + 1; x: cells 1.5, 0, 0.5, 1 against 3, 0, 0, 0.
    distances = codes.misfits(open_account(EVENT), [(0,), (1,)], expected, event=EVENT)
    assert distances.tolist() == pytest.approx([2.0, 3.0])
    assert noise.given[-1][1] == pytest.approx(math.sqrt(2.0) * GRAIN)
    with pytest.raises(InternalError, match="expected"):
        codes.misfits(open_account(EVENT), [(0,), (1,)], expected[:1], event=EVENT)


def test_the_count_is_of_patients_and_noised_by_its_epsilon() -> None:
    noise = Recorder()
    count = EpsilonDelta(stage="count", epsilon=0.5, delta=0.0)
    assert rows_of([[("a", 1.0)] * 5, [], []], noise).count_patients(open_account(count), event=count) == 3
    assert noise.given[0][1] == pytest.approx(2.0)


def test_more_rows_than_the_bound_do_not_pass_the_door() -> None:
    with pytest.raises(InternalError, match="bounded"):
        rows_of([[("a", 1.0)] * 9], Recorder())


def test_every_touch_is_booked_before_it_runs() -> None:
    noise = Recorder()
    rows = rows_of([[("a", 1.0)]], noise)
    empty = Account(Budget(epsilon=1.0, delta=1e-3))
    failure = EpsilonDelta(stage="t", epsilon=0.0, delta=1e-6)
    step = PoissonSampledGaussian(stage="g", sampling_probability=0.5, noise_multiplier=1.0)
    mechanism = GradientMechanism(event=step, clip_norm=1.0, expected_batch=1.0)
    codes = rows.encode({"c": VALUES})
    for touch in (
        lambda: rows.count_patients(empty, event=EpsilonDelta(stage="c", epsilon=0.1, delta=0.0)),
        lambda: rows.histogram(empty, "c", VALUES, event=EVENT),
        lambda: rows.select_values(empty, "c", event=EVENT, failure=failure),
        lambda: codes.marginals(empty, [(0,)], shares=[1.0], event=EVENT),
        lambda: codes.misfits(empty, [(0,)], [np.zeros(4)], event=EVENT),
        lambda: codes.noisy_gradient(
            empty, lambda c, m: PatientGradients([torch.zeros(len(c), 3)]), mechanism=mechanism
        ),
    ):
        with pytest.raises(InternalError, match="not in the plan"):
            touch()
    assert noise.given == []


@pytest.mark.parametrize("shares", [[0.6, 0.6], [1.0, 0.0], [1.0]])
def test_shares_that_promise_too_much_are_refused(shares: list[float]) -> None:
    codes = rows_of([[("a", 1.0)]], Recorder()).encode({"c": VALUES, "x": BINS})
    with pytest.raises(InternalError, match="shares"):
        codes.marginals(open_account(EVENT), [(0,), (1,)], shares=shares, event=EVENT)


def test_a_value_held_by_one_patient_is_not_released() -> None:
    event = Gaussian(stage="d", noise_multiplier=3.0)
    failure = EpsilonDelta(stage="d", epsilon=0.0, delta=1e-7)
    noise = SystemNoise()
    cohort = [[("common", 1.0)]] * 200 + [[(f"only-{at}", 1.0)] for at in range(50)]
    rows = rows_of(cohort, noise)
    runs = 100
    account = open_account(*[event] * runs, *[failure] * runs)
    for _ in range(runs):  # 5,000 chances of 1e-7 each
        assert set(rows.select_values(account, "c", event=event, failure=failure)) == {"common"}


@pytest.mark.parametrize("held", [5, 8, 10, 12])
def test_values_appear_as_often_as_the_theory_says(held: int) -> None:
    from scipy.stats import binomtest, norm

    sigma, delta, runs, names = 2.0, 1e-4, 40, 50
    event = Gaussian(stage="d", noise_multiplier=sigma)
    failure = EpsilonDelta(stage="d", epsilon=0.0, delta=delta)
    account = open_account(*[event] * runs, *[failure] * runs)
    frame = pl.DataFrame({"c": [f"v{at % names}" for at in range(held * names)]})
    rows = PrivateRows(
        frame,
        owners=np.arange(held * names),
        patients=held * names,
        max_rows=1,
        noise=SystemNoise(),
    )
    seen = sum(len(rows.select_values(account, "c", event=event, failure=failure)) for _ in range(runs))
    threshold = selection_threshold(noise_multiplier=sigma, delta=delta, max_values=1)
    chance = float(norm.sf(threshold, loc=held, scale=sigma))
    assert binomtest(seen, runs * names, chance).pvalue > 1e-5


def test_the_threshold_keeps_its_delta_by_hand() -> None:
    # P[1 + N(0, 2) > t] = 0.001 at t = 1 + 2 * 3.0902; with 8 values each gets about 1/8 of delta.
    assert selection_threshold(noise_multiplier=2.0, delta=1e-3, max_values=1) == pytest.approx(
        1 + 2 * 3.0902, abs=1e-3
    )
    assert selection_threshold(noise_multiplier=2.0, delta=1e-3, max_values=8) == pytest.approx(
        1 + 2 * 3.6623, abs=1e-3
    )


def _critic_loss(critic: nn.Module, codes: np.ndarray, mask: np.ndarray, sizes=(3, 4)) -> torch.Tensor:
    rows = one_hot(torch.from_numpy(codes), sizes=sizes)
    weight = torch.from_numpy(mask).float()
    return -(critic(rows, rows * 0.5) * weight).sum(1) / weight.sum(1).clamp(min=1.0)


def test_no_patient_drawn_is_a_step_of_noise_alone() -> None:
    critic = Critic(sizes=(3, 4), hidden=8)
    private = PrivateNetwork(critic)
    width = sum(p.numel() for p in critic.parameters())
    codes = PrivateCodes(
        np.zeros((4, 2), dtype=np.int64),
        sizes=(3, 4),
        owners=np.arange(4),
        patients=4,
        noise=InsecureNoise(0),
    )
    step = PoissonSampledGaussian(stage="g", sampling_probability=1e-12, noise_multiplier=2.0)
    mechanism = GradientMechanism(event=step, clip_norm=0.5, expected_batch=10.0)
    gradient = codes.noisy_gradient(
        open_account(step),
        lambda c, m: private(lambda network: _critic_loss(network, c, m)),
        mechanism=mechanism,
    )
    assert gradient.shape == (width,)
    # Noise of 2.0 * 0.5 over the expected batch of 10.
    assert float(gradient.std()) == pytest.approx(0.1, rel=0.2)


@settings(max_examples=200, deadline=None)
@given(cohort=patients, at=st.integers(0, 5))
def test_one_patient_moves_a_gradient_by_at_most_the_clip(cohort, at: int) -> None:
    at %= len(cohort)
    torch.manual_seed(1)
    critic = Critic(sizes=(VALUES.size, BINS.size), hidden=4)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(20.0)  # gradients well past the clip
    private = PrivateNetwork(critic)
    sums = []
    step = PoissonSampledGaussian(stage="g", sampling_probability=1.0, noise_multiplier=1.0)
    for version in (cohort, cohort[:at] + cohort[at + 1 :]):
        noise = Recorder()
        codes = rows_of(version, noise).encode({"c": VALUES, "x": BINS})
        mechanism = GradientMechanism(event=step, clip_norm=0.3, expected_batch=1.0)
        sums.append(
            codes.noisy_gradient(
                open_account(step),
                lambda c, m: private(lambda network: _critic_loss(network, c, m, critic.sizes)),
                mechanism=mechanism,
            )
        )
        assert noise.given[-1][1] == pytest.approx(0.3)
    assert float((sums[0] - sums[1]).norm()) <= 0.3 * (1 + 1e-5)


def test_private_rows_show_nothing_of_themselves() -> None:
    rows = rows_of([[("CANARY", 7777.25)]], Recorder())
    assert repr(rows) == "PrivateRows()"
    assert repr(rows.encode({"c": VALUES})) == "PrivateCodes()"
    assert GRAIN == 2**20
