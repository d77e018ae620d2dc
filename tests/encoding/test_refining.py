"""Cells that noise alone may have filled are taken for empty, far out above all, and real tails stay."""

from __future__ import annotations

import numpy as np
import pytest

from synthehr.encoding.refining import Leaves, even_cells

BODY = [300.0, 400.0, 300.0]


def leaves(*, tail: list[float], width: int = 1000, noise: float = 10.0, body: list[float] = BODY) -> Leaves:
    """Narrow cells of ten values each, then wide ones, all of the first level, with noise of one standard deviation."""
    counts = np.array([*body, *tail])
    starts = np.concatenate([np.arange(len(body) + 1) * 10, len(body) * 10 + width * np.arange(1, len(tail) + 1)])
    variance = np.full(len(counts), noise**2)
    return Leaves(starts, counts, variance, None, 0.0, starts, counts, variance)


@pytest.mark.parametrize(
    ("tail", "kept"),
    [
        ([0.0, 0.0, 39.0], [False, False, False]),  # alone and under 4 standard deviations
        ([0.0, 0.0, 41.0], [False, False, True]),
        ([26.0, 0.0, 0.0], [True, False, False]),  # beside the others, and over 2.5
        ([24.0, 0.0, 0.0], [False, False, False]),
        ([26.0, 26.0, 26.0], [True, True, True]),  # a tail, one beside the other
        ([26.0, 0.0, 26.0], [True, False, False]),
        (
            [24.0, 24.0, 24.0],
            [True, False, False],
        ),  # 72 with noise of 17.3, of which 48 with 14.1 are not sure
        ([24.0, 34.0, 24.0], [True, True, False]),  # 58 of 14.1 beyond the first
        ([20.0, 20.0, 10.0], [False, False, False]),  # 50 of 17.3
    ],
)
def test_a_wide_cell_is_kept_where_it_holds_more_than_noise(tail: list[float], kept: list[bool]) -> None:
    found = leaves(tail=tail).summing_to(1000.0)
    assert (found.counts[3:] > 0.0).tolist() == kept
    assert found.counts.sum() == pytest.approx(1000.0) and (found.counts >= 0.0).all()


def test_narrow_cells_keep_what_little_they_hold() -> None:
    found = leaves(tail=[12.0], width=20).summing_to(1012.0)
    assert found.counts == pytest.approx([300.0, 400.0, 300.0, 12.0])


def test_wide_cells_within_a_split_one_are_emptied_and_the_others_have_its_patients() -> None:
    starts = np.array([0, 10, 20, 1020, 2020])
    counts = np.array([500.0, 470.0, 0.0, 30.0])
    top = np.array([0, 10, 2020])
    found = Leaves(starts, counts, np.full(4, 100.0), None, 0.0, top, np.array([500.0, 500.0]), np.full(2, 50.0))
    assert found.summing_to(1000.0).counts == pytest.approx([500.0, 500.0, 0.0, 0.0])


def test_the_missing_have_their_part_of_the_total() -> None:
    known = leaves(tail=[0.0, 39.0])
    known.missing, known.missing_variance = 200.0, 100.0
    found = known.summing_to(1200.0)
    assert found.missing == pytest.approx(200.0) and found.counts == pytest.approx([300.0, 400.0, 300.0, 0.0, 0.0])


@pytest.mark.parametrize("missing", [None, 1.0])
def test_where_all_may_be_noise_it_still_sums(missing: float | None) -> None:
    few = leaves(tail=[3.0, 2.0], body=[-1.0, -2.0, -3.0])
    few.missing = missing
    found = few.summing_to(5.0)
    assert found.counts.sum() + (found.missing or 0.0) == pytest.approx(5.0) and (found.counts >= 0.0).all()


def test_wide_cells_of_nobody_have_no_cell_of_their_own() -> None:
    known = leaves(tail=[0.0, 0.0, 39.0]).summing_to(1000.0)
    assert even_cells(known, 10).tolist() == [0, 1, 2, 2, 2, 2]
    turned = leaves(tail=[]).summing_to(1000.0)
    turned.starts, turned.counts = np.array([0, 1000, 1010, 1020]), np.array([0.0, 500.0, 500.0])
    assert even_cells(turned, 10).tolist() == [0, 0, 1]


def test_nobody_at_all_is_one_cell() -> None:
    known = leaves(tail=[], body=[0.0, 0.0])
    assert len(set(even_cells(known, 1).tolist())) == 1
