"""One histogram over all codes and their intervals: one patient, with all of its rows, moves it by at most one."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from defects import Recorder, open_account
from hypothesis import given, settings
from hypothesis import strategies as st

from synthehr.errors import InternalError
from synthehr.privacy.accountant import Gaussian
from synthehr.privacy.partition import Intervals, JointCells, PerCode, Values
from synthehr.privacy.rows import GRAIN, PrivateRows

EVENT = Gaussian(stage="domain:value", noise_multiplier=1.0)
CODES = Values(values=("a", "b"), other=True, nullable=True)
PARTS = tuple(
    Intervals(edges=np.array(edges), nullable=True)
    for edges in ([0.0, 1.0, 2.0, 5.0], [100.0, 150.0, 200.0], [0.0, 200.0], [0.0, 1.0, 200.0])
)
JOINT = JointCells(per="code", codes=CODES, parts=PARTS)
FIRSTS = (np.array([0, 1, 2]), np.array([0, 2]), np.array([0]), np.array([0, 1]))
SHARED = PerCode(per="code", codes=CODES, parts=PARTS, firsts=FIRSTS, places=3)

row = st.tuples(
    st.sampled_from(["a", "b", "other", "another", None]),
    st.sampled_from([None, -9.0, 0.0, 0.5, 1.0, 4.0, 120.0, 180.0, 900.0]),
)
cohorts = st.lists(st.lists(row, max_size=8), min_size=1, max_size=6)


def given_to_noise(cohort: list, *, column: str = "value") -> list[np.ndarray]:
    """What is noised, in units of the noise: the histogram over codes, then marginals of what is encoded."""
    flat = [row for patient in cohort for row in patient]
    frame = pl.DataFrame(
        {"value": [value for _, value in flat], "code": [code for code, _ in flat]},
        schema={"value": pl.Float64, "code": pl.String},
    )
    owners = np.repeat(np.arange(len(cohort)), [len(patient) for patient in cohort])
    noise = Recorder()
    rows = PrivateRows(frame, owners=owners, patients=len(cohort), max_rows=8, noise=noise)
    noisy = rows.histogram(open_account(EVENT), column, JOINT, event=EVENT)
    assert noisy.shape == (JOINT.size,)
    codes = rows.encode({"value": SHARED, "code": CODES})
    codes.marginals(open_account(EVENT), [(0, 1)], shares=[1.0], event=EVENT)
    codes.marginals(open_account(EVENT), [(0, 1)], shares=[1.0], event=EVENT, scaled=True)
    return [values / scale for values, scale in noise.given]


def moves(cohort: list, at: int) -> list[float]:
    less = cohort[:at] + cohort[at + 1 :]
    both = zip(given_to_noise(cohort), given_to_noise(less), strict=True)
    return [float(np.linalg.norm((with_ - without).ravel())) for with_, without in both]


@settings(max_examples=1000, deadline=None)
@given(cohort=cohorts, at=st.integers(0, 5))
def test_one_patient_moves_the_histogram_over_codes_by_at_most_one(cohort: list, at: int) -> None:
    assert max(moves(cohort, at % len(cohort))) <= 1.0 + 1e-12


def test_in_1000_random_neighbours_it_is_moved_by_nearly_all_of_that_and_never_by_more() -> None:
    draws = np.random.default_rng(0)
    codes, values = ["a", "b", "other", None], [None, -9.0, 0.5, 1.0, 4.0, 120.0, 180.0]
    reach = []
    for _ in range(1000):
        cohort = [
            [(codes[draws.integers(4)], values[draws.integers(7)]) for _ in range(draws.integers(1, 9))]
            for _ in range(draws.integers(1, 5))
        ]
        at = int(draws.integers(len(cohort)))
        less = cohort[:at] + cohort[at + 1 :]
        with_, without = given_to_noise(cohort)[0], given_to_noise(less)[0]
        reach.append(float(np.linalg.norm(with_ - without)))
    assert 0.95 <= max(reach) <= 1.0 + 1e-12
    assert sum(one < 0.95 for one in reach) > 500, "patients of several rows are among them"


def test_weights_count_by_hand() -> None:
    # The first patient has two codes, so each counts 1 / sqrt(2), of which each of the three rows of a has a third; the
    # second has no code, the third another one.
    several = [("a", 0.5), ("b", 180.0), ("a", 0.5), ("a", 1.0)]
    found = given_to_noise([several, [(None, 0.5)], [("other", None)], []])[0]
    expected = np.zeros(JOINT.size)
    expected[[0, 1, 4 + 1, 4 + 3 + 1, 4 + 3 + 2 + 0]] = [2 / 3 / 2**0.5, 1 / 3 / 2**0.5, 1 / 2**0.5, 1.0, 1.0]
    assert found.tolist() == pytest.approx(expected.tolist(), abs=3 / GRAIN)


def test_it_is_booked_before_it_runs() -> None:
    noise = Recorder()
    frame = pl.DataFrame({"value": [1.0], "code": ["a"]})
    rows = PrivateRows(frame, owners=np.array([0]), patients=1, max_rows=1, noise=noise)
    with pytest.raises(InternalError, match="not in the plan"):
        rows.histogram(open_account(), "value", JOINT, event=EVENT)
    assert noise.given == []
