"""What is bought jointly: by need and price, on bought numbers alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synthehr.cohort import Cohort
from synthehr.models.marginals import FitSettings
from synthehr.models.planning import ChoiceSettings, TrainingSettings
from synthehr.models.selection import candidates, chance_distance, coarsen, share_out
from synthehr.models.training import train
from synthehr.privacy.accountant import Gaussian
from synthehr.privacy.rows import PrivateCodes
from synthehr.schema.files import load_schema

EVENT = Gaussian(stage="pairs", noise_multiplier=2.0)


def test_candidates_that_hold_an_outcome_come_first_and_the_rest_in_order() -> None:
    assert candidates(4, order=2, focus=(), most=9) == list(itertools.combinations(range(4), 2))
    assert candidates(4, order=2, focus=[3], most=4) == [(0, 1), (0, 3), (1, 3), (2, 3)]
    assert candidates(5, order=3, focus=[1, 4], most=3) == [(0, 1, 4), (1, 2, 4), (1, 3, 4)]
    assert candidates(2, order=3, focus=(), most=9) == []


def test_the_distance_by_chance_is_that_of_poisson_counts() -> None:
    # E|X - 1| for Poisson(1) is 2 / e; for 0.5 it is 2 * 0.5 * P(X = 0); for large means sqrt(2 m / pi).
    assert chance_distance(np.array([1.0])) == pytest.approx(2.0 / math.e)
    assert chance_distance(np.array([0.5, 0.0])) == pytest.approx(math.exp(-0.5))
    assert chance_distance(np.full((2, 2), 1e4)) == pytest.approx(4 * math.sqrt(2e4 / math.pi), rel=1e-3)
    expected = np.random.default_rng(0).uniform(0.1, 30.0, (8, 8))
    drawn = np.random.default_rng(1).poisson(expected, (2000, 8, 8))
    assert chance_distance(expected) == pytest.approx(np.abs(drawn - expected).sum(axis=(1, 2)).mean(), rel=0.01)


def test_cells_are_joined_by_hand() -> None:
    even = np.ones(8)
    assert coarsen(even, groups=4, nullable=False, ordered=True).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert coarsen(even, groups=5, nullable=True, ordered=True).tolist() == [0, 0, 1, 2, 2, 3, 3, 4]
    assert coarsen(np.array([1.0, 9, 2, 8, 0]), groups=3, nullable=False, ordered=False).tolist() == [2, 0, 2, 1, 2]
    assert coarsen(even, groups=8, nullable=True, ordered=True).tolist() == list(range(8))
    heavy = np.array([97.0, 1, 1, 1])
    assert coarsen(heavy, groups=3, nullable=False, ordered=True).tolist() == [0, 1, 1, 1]


@settings(max_examples=200, deadline=None)
@given(
    counts=st.lists(st.floats(0, 1e4), min_size=1, max_size=40),
    groups=st.integers(2, 12),
    nullable=st.booleans(),
    ordered=st.booleans(),
)
def test_groups_are_whole_numbers_from_zero_without_a_gap(counts, groups, nullable, ordered) -> None:
    group = coarsen(np.array(counts), groups=groups, nullable=nullable, ordered=ordered)
    assert set(group.tolist()) == set(range(int(group.max()) + 1))
    assert int(group.max()) < groups
    if nullable and len(counts) > groups:
        assert (group == group[-1]).sum() == 1


def wrong(need: np.ndarray, cells: np.ndarray, shares: np.ndarray, emphasis: np.ndarray) -> float:
    bought = shares > 0
    noise = 0.3 * math.sqrt(2.0 / math.pi) * 2.0 * cells[bought] / np.sqrt(shares[bought])
    return float((emphasis[bought] * noise).sum() + (emphasis * np.maximum(need, 0.0))[~bought].sum())


def test_shares_are_the_best_there_are() -> None:
    draws = np.random.default_rng(0)
    for _ in range(50):
        need, cells = draws.exponential(120.0, 5) - 20.0, draws.integers(4, 200, 5).astype(float)
        emphasis = draws.choice([1.0, 2.0], 5)
        shares = share_out(need, cells, event=EVENT, price=0.3, most=9, emphasis=emphasis)
        assert shares.sum() == pytest.approx(1.0) or not shares.any()
        found = wrong(need, cells, shares, emphasis)
        for kept in itertools.product([False, True], repeat=5):
            other = np.where(kept, (emphasis * cells) ** (2.0 / 3.0), 0.0)
            if any(kept):
                assert found <= 1.12 * wrong(need, cells, other / other.sum(), emphasis)
        # Other shares for the same sets are no better.
        if shares.any():
            moved = shares * draws.uniform(0.8, 1.2, 5)
            assert found <= wrong(need, cells, moved / moved.sum(), emphasis) + 1e-9


def test_what_is_all_noise_is_not_bought() -> None:
    emphasis, cells = np.ones(3), np.array([400.0, 400.0, 4.0])
    shares = share_out(np.array([5000.0, 90.0, -3.0]), cells, event=EVENT, price=0.3, most=9, emphasis=emphasis)
    assert shares.tolist() == [1.0, 0.0, 0.0]
    assert not share_out(np.array([50.0, 90.0, 0.5]), cells, event=EVENT, price=0.3, most=9, emphasis=emphasis).any()


def test_no_more_are_bought_than_may_be() -> None:
    need, ones = np.array([900.0, 800.0, 700.0]), np.ones(3)
    assert share_out(need, ones, event=EVENT, price=0.3, most=3, emphasis=ones).all()
    shares = share_out(need, ones, event=EVENT, price=0.3, most=2, emphasis=ones)
    assert shares.tolist() == [0.5, 0.5, 0.0]


def bought_by_a_fit(
    frame: dict, monkeypatch: pytest.MonkeyPatch, columns: dict, price: float = 0.3
) -> list[list[tuple[int, ...]]]:
    """The sets of columns of each purchase."""
    import polars as pl

    sets: list[list[tuple[int, ...]]] = []
    original = PrivateCodes.marginals

    def watched(self, account, column_sets, **options):
        sets.append([tuple(columns) for columns in column_sets])
        return original(self, account, column_sets, **options)

    monkeypatch.setattr(PrivateCodes, "marginals", watched)
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}})
    quick = TrainingSettings(bins=8, fit=FitSettings(), choice=ChoiceSettings(groups=6, price=price))
    cohort = Cohort({"p": pl.DataFrame(frame)}, schema=schema)
    trained = train(cohort, epsilon=3.0, delta=1e-6, model="marginal", settings=quick)
    assert 0.97 * 3.0 <= trained.epsilon_spent <= 3.0
    return sets


def test_a_fit_buys_the_pair_that_belongs_together_and_the_triple_that_no_pair_shows(monkeypatch) -> None:
    draws = np.random.default_rng(0)
    a, b, d = (draws.random(6000) < 0.5 for _ in range(3))
    age = draws.integers(0, 100, 6000)
    # c is a xor b: every pair is independent, the triple is not. old goes with age.
    columns = {name: {"kind": "boolean"} for name in ("a", "b", "c", "d", "old")}
    columns["age"] = {"kind": "integer", "bounds": [0, 99]}
    frame = {"a": a, "b": b, "c": a ^ b, "d": d, "old": age > 60, "age": age}
    pairs, triples = bought_by_a_fit(frame, monkeypatch, columns)
    assert (4, 5) in pairs
    assert len(pairs) < 15  # each of the 14 independent ones is bought by the chance of noise, at most every second
    assert (0, 1, 2) in triples


def test_where_nothing_is_worth_its_price_single_columns_are_bought_once_more(monkeypatch) -> None:
    draws = np.random.default_rng(0)
    columns = {name: {"kind": "category", "values": [str(at) for at in range(12)]} for name in "abc"}
    frame = {name: draws.integers(0, 12, 500).astype(str) for name in "abc"}
    assert bought_by_a_fit(frame, monkeypatch, columns, price=1e6) == [[(0,), (1,), (2,)]] * 2
