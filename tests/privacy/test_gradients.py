"""The clipped sum of patients' gradients: by hand, against gradients written out, and never past the clip."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from synthehr.privacy.gradients import Outer, PatientGradients, clipped_sum

# What may be kept back of the clip for rounding: nothing of it is noise, so that more would only cost accuracy.
KEPT_BACK = 1e-5


def outer(left: list, right: list) -> Outer:
    return Outer(torch.tensor(left, dtype=torch.float32), torch.tensor(right, dtype=torch.float32))


def one_of(gradients: PatientGradients, at: int) -> PatientGradients:
    """The gradient of one patient alone."""
    alone = slice(at, at + 1)
    parts = [Outer(p.left[alone], p.right[alone]) if isinstance(p, Outer) else p[alone] for p in gradients.parts]
    return PatientGradients(parts)


def without(gradients: PatientGradients, keep: Tensor) -> PatientGradients:
    parts = [Outer(p.left[keep], p.right[keep]) if isinstance(p, Outer) else p[keep] for p in gradients.parts]
    return PatientGradients(parts)


def test_a_clipped_sum_by_hand() -> None:
    # Patient 0: (1, 0) x (3, 0) + (0, 1) x (0, 4) = [[3, 0], [0, 4]], of length 5; at a clip of 2.5 half of it.
    # Patient 1: (1, 1) x (.5, 0) + (1, -1) x (0, .5) = [[.5, .5], [.5, -.5]], of length 1, stays as it is.
    layer = outer(
        [[[1, 0], [0, 1]], [[1, 1], [1, -1]]],
        [[[3, 0], [0, 4]], [[0.5, 0], [0, 0.5]]],
    )
    found = clipped_sum(PatientGradients([layer]), norm=2.5)
    assert found.tolist() == pytest.approx([1.5 + 0.5, 0.5, 0.5, 2.0 - 0.5], rel=KEPT_BACK)
    assert found.dtype == torch.float64
    assert PatientGradients([layer]).matrix().tolist() == [[3, 0, 0, 4], [0.5, 0.5, 0.5, -0.5]]


def test_rows_that_pull_together_and_rows_that_cancel_by_hand() -> None:
    # Patient 0: (1, 0) x (3, 0) twice = [[6, 0], [0, 0]], of length 6, not of sqrt(18), which rows apart would have.
    # Patient 1: (1, 0) x (3, 0) - (1, 0) x (3, 0) = 0. Patient 2: (1, 0) x (3, 0) + (1, 0) x (0, 4), of length 5.
    layer = outer(
        [[[1, 0], [1, 0]], [[1, 0], [-1, 0]], [[1, 0], [1, 0]]],
        [[[3, 0], [3, 0]], [[3, 0], [3, 0]], [[3, 0], [0, 4]]],
    )
    gradients = PatientGradients([layer])
    for at, (first, second) in enumerate([(1.0, 0.0), (0.0, 0.0), (0.6, 0.8)]):
        assert clipped_sum(one_of(gradients, at), norm=1.0).tolist() == pytest.approx(
            [first, second, 0.0, 0.0], rel=KEPT_BACK, abs=1e-12
        )


def test_one_length_goes_over_all_parts_by_hand() -> None:
    # A layer [[3, 0]] of length 3, its bias 4, and a norm's weights (0, 12): the length is sqrt(9 + 16 + 144) = 13.
    parts = [outer([[[1.0]]], [[[3.0, 0.0]]]), torch.tensor([[4.0]]), torch.tensor([[0.0, 12.0]])]
    assert clipped_sum(PatientGradients(parts), norm=6.5).tolist() == pytest.approx(
        [1.5, 0.0, 2.0, 0.0, 6.0], rel=KEPT_BACK
    )


def test_long_gradients_are_scaled_and_those_that_are_not_finite_count_as_zero() -> None:
    matrix = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [math.inf, 1.0], [math.nan, 1.0]])
    for keep, wanted in (([0], [0.6, 0.8]), ([1], [0.3, 0.4]), ([2], [0.0, 0.0]), ([3], [0.0, 0.0]), ([4], [0.0, 0.0])):
        found = clipped_sum(PatientGradients([matrix[keep]]), norm=1.0)
        assert found.tolist() == pytest.approx(wanted, rel=KEPT_BACK)
    assert clipped_sum(PatientGradients([matrix]), norm=1.0).tolist() == pytest.approx([0.9, 1.2], rel=KEPT_BACK)


def written_out(gradients: PatientGradients, norm: float) -> Tensor:
    """Clip and sum of the matrix itself, one patient at a time."""
    total = torch.zeros(gradients.matrix().shape[1], dtype=torch.float64)
    for row in gradients.matrix().double():
        total += row * min(1.0, norm / max(float(row.norm()), 1e-300))
    return total


@st.composite
def mixed(draw: st.DrawFn) -> PatientGradients:
    """Layers as factors, of one row or several, among dense parts, for none to six patients."""
    draws = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    patients, rows = draw(st.integers(0, 6)), draw(st.integers(1, 5))
    parts: list[Outer | Tensor] = []
    for dense in draw(st.lists(st.booleans(), min_size=1, max_size=5)):
        out, inward = draw(st.integers(1, 5)), draw(st.integers(1, 5))
        scale = 10.0 ** draw(st.floats(-2, 2))
        if dense:
            parts.append(scale * torch.randn(patients, out, generator=draws))
        else:
            left = torch.randn(patients, rows, out, generator=draws)
            parts.append(Outer(scale * left, torch.randn(patients, rows, inward, generator=draws)))
    return PatientGradients(parts)


@settings(max_examples=300, deadline=None)
@given(gradients=mixed(), norm=st.floats(0.01, 100.0))
def test_the_clipped_sum_is_that_of_the_gradients_written_out(gradients: PatientGradients, norm: float) -> None:
    found = clipped_sum(gradients, norm=norm)
    assert found.isfinite().all()
    torch.testing.assert_close(found, written_out(gradients, norm), rtol=1e-4, atol=1e-5 * norm)


@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("side", ["left", "right", "dense"])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_patient_that_is_not_finite_counts_as_zero_and_disturbs_nobody(broken: float, side: str, rows: int) -> None:
    draws = torch.Generator().manual_seed(1)
    for other in (0.0, 1.0):  # a factor of zeros beside it must not hide it
        left, right = torch.randn(5, rows, 3, generator=draws), torch.randn(5, rows, 4, generator=draws)
        dense = torch.randn(5, 2, generator=draws)
        left[2], right[2], dense[2] = other, other, other
        {"left": left[2], "right": right[2], "dense": dense}[side][-1, 0] = broken
        if side == "dense":
            dense[2], dense[-1, 0] = torch.tensor([broken, other]), 1.0
        gradients = PatientGradients([Outer(left, right), dense])
        others = without(gradients, torch.tensor([0, 1, 3, 4]))
        torch.testing.assert_close(
            clipped_sum(gradients, norm=0.7), clipped_sum(others, norm=0.7), rtol=1e-12, atol=1e-12
        )
        assert clipped_sum(one_of(gradients, 2), norm=0.7).tolist() == [0.0] * 14


def test_no_patient_is_a_sum_of_zeros() -> None:
    none = PatientGradients([Outer(torch.zeros(0, 1, 3), torch.zeros(0, 1, 4)), torch.zeros(0, 3)])
    assert clipped_sum(none, norm=1.0).tolist() == [0.0] * 15


def wild(draws: torch.Generator, patients: int, rows: int, features: int) -> Tensor:
    """Numbers of float32 whose scale goes from 1e-20 to 1e20, from row to row."""
    exponent = 40.0 * torch.rand(patients, rows, 1, generator=draws, dtype=torch.float64) - 20.0
    return (torch.randn(patients, rows, features, generator=draws) * 10.0**exponent).float()


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 6),
    norm=st.sampled_from([1e-3, 0.3, 1.0, 50.0]),
    dense=st.booleans(),
)
def test_wild_factors_never_move_the_sum_by_more_than_the_clip(seed: int, rows: int, norm: float, dense: bool) -> None:
    draws = torch.Generator().manual_seed(seed)
    parts: list[Outer | Tensor] = [Outer(wild(draws, 8, rows, 3), wild(draws, 8, rows, 4))]
    parts += [wild(draws, 8, 1, 5)[:, 0]] if dense else []
    gradients = PatientGradients(parts)
    whole = clipped_sum(gradients, norm=norm)
    assert whole.isfinite().all()
    for at in range(8):
        assert float(clipped_sum(one_of(gradients, at), norm=norm).norm()) <= norm
        others = without(gradients, torch.arange(8) != at)
        assert float((whole - clipped_sum(others, norm=norm)).norm()) <= norm


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    scale=st.floats(-5.0, 18.0),
    apart=st.floats(-16.0, 0.0),
    half=st.integers(1, 4),
)
def test_rows_that_nearly_cancel_add_no_more_than_the_clip(seed: int, scale: float, apart: float, half: int) -> None:
    # Rows in pairs of opposite left factors, whose right factors differ by one part in up to 1e16: of the length
    # nothing but rounding may be left, while the sum itself is still there.
    draws = torch.Generator().manual_seed(seed)
    left = torch.randn(4, half, 3, generator=draws) * 10.0**scale
    right = torch.randn(4, half, 5, generator=draws)
    near = right * (1.0 + 10.0**apart * torch.randn(4, half, 5, generator=draws))
    tiny = torch.zeros(4, half, 5)
    tiny[..., 0] = 10.0**apart
    for other in (near, right.masked_fill(tiny > 0, 0.0) + tiny):
        first = right.masked_fill(tiny > 0, 0.0) if other is not near else right
        layer = Outer(torch.cat([left, -left], dim=1), torch.cat([first, other], dim=1))
        for at in range(4):
            found = clipped_sum(one_of(PatientGradients([layer]), at), norm=1.0)
            assert float(found.norm()) <= 1.0


def test_a_length_that_rounding_swallows_is_not_taken_for_zero() -> None:
    # 1e15 x (1, 0) - 1e15 x (1, 1e-10) = (0, -1e5). The products of rows are 1e30 x (1 - 1 - 1 + 1 + 1e-20), of which
    # float64 keeps nothing, where the squared length is 1e10.
    layer = outer([[[1e15], [-1e15]]], [[[1.0, 0.0], [1.0, 1e-10]]])
    assert float(clipped_sum(PatientGradients([layer]), norm=1.0).norm()) <= 1.0


@pytest.mark.parametrize("rows", [1, 2, 8])
def test_the_longest_contribution_reaches_nearly_the_clip(rows: int) -> None:
    draws = torch.Generator().manual_seed(2)
    layer = Outer(torch.randn(50, rows, 6, generator=draws), torch.randn(50, rows, 7, generator=draws))
    gradients = PatientGradients([layer, torch.randn(50, 6, generator=draws)])
    lengths = np.array([float(clipped_sum(one_of(gradients, at), norm=1.5).norm()) for at in range(50)])
    assert lengths.max() <= 1.5
    assert lengths.max() >= 1.5 * (1 - KEPT_BACK)
