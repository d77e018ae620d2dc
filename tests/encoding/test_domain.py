from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy.stats import ks_2samp

from synthehr.cohort import Cohort
from synthehr.encoding.codec import behind_the_door, decode
from synthehr.encoding.domain import OTHER, ColumnDomain, Joint, buy_domain, plan_domain, sharpen
from synthehr.encoding.refining import on_simplex
from synthehr.privacy.accountant import Account, Gaussian
from synthehr.privacy.budget import Budget
from synthehr.privacy.partition import Intervals, Values
from synthehr.randomness import InsecureNoise
from synthehr.schema.files import load_schema


class Unlimited(Account):
    """Books without composing: these tests are of the domain."""

    def plan(self, events) -> None:
        for event in events:
            self._planned[event] = self._planned.get(event, 0) + 1


def buy(columns: dict, values: dict, *, precision: float = 1.0, bins: int = 24, seed: int = 3) -> list[ColumnDomain]:
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}})
    cohort = Cohort({"p": pl.DataFrame(values)}, schema=schema)
    plans = plan_domain(schema.root, precision=precision, selection_delta=1e-6)
    account = Unlimited(Budget(epsilon=1.0, delta=1e-5))
    account.plan([event for plan in plans.values() for event in plan.events])
    rows = behind_the_door(cohort, table="p", noise=InsecureNoise(seed))
    domain = buy_domain(rows, account, schema.root, plans=plans, patients=len(cohort), bins=bins)
    assert all(left == 0 for left in account._planned.values()), "all that was planned was used"
    return domain


@pytest.mark.parametrize(
    ("noisy", "total", "expected"),
    [
        ([3.0, 1.0], 4.0, [3.0, 1.0]),
        ([5.0, 1.0], 4.0, [4.0, 0.0]),  # shift 1, and 1 - 1 = 0
        ([4.0, 2.0, -9.0], 4.0, [3.0, 1.0, 0.0]),
        ([1.0, 1.0], 0.0, [0.0, 0.0]),
    ],
)
def test_the_nearest_histogram_by_hand(noisy: list[float], total: float, expected: list[float]) -> None:
    assert on_simplex(np.array(noisy), total=total).tolist() == pytest.approx(expected)


def test_precision_is_shared_by_columns_and_levels() -> None:
    schema = load_schema(
        {
            "synthehr": 1,
            "subject": "p",
            "tables": {
                "p": {
                    "columns": {
                        "a": {"kind": "boolean"},
                        "b": {"kind": "integer", "bounds": [0, 9999]},
                        "c": {"kind": "number"},
                        "d": {"kind": "category"},
                    }
                }
            },
        }
    )
    plans = plan_domain(schema.root, precision=0.5, selection_delta=1e-6)
    gaussians = [e for plan in plans.values() for e in plan.events if isinstance(e, Gaussian)]
    assert sum(1 / e.noise_multiplier**2 for e in gaussians) == pytest.approx(0.5)
    # One level for a boolean; 10,000 values take seven of fanout four; 2**24, where there are no bounds, take twelve.
    assert [len(plans[name].cell_events) for name in "abc"] == [1, 7, 12]
    assert plans["c"].range_event is not None  # a quarter of its column's eighth
    assert plans["c"].range_event.noise_multiplier == pytest.approx(32**0.5)
    assert plans["d"].selection_failure is not None
    assert plans["d"].selection_failure.delta == 1e-6


def test_other_values_and_missing_ones_are_told_apart_before_pairs_are_bought() -> None:
    values = ["a"] * 6000 + [None] * 3000 + [f"of {at} alone" for at in range(1000)]
    (column,) = buy({"x": {"kind": "category", "discover": True, "nullable": True}}, {"x": values}, precision=0.1)
    assert isinstance(column.cells, Values)
    assert column.cells.values == ("a",)
    # Noise of 4.5 a cell; half each of what is left would be 2,000 and 2,000.
    assert column.counts.tolist() == pytest.approx([6000, 1000, 3000], abs=50)
    assert column.variance.max() < 25


def test_bins_find_even_mass_though_bounds_are_a_thousand_times_too_wide() -> None:
    draws = np.random.default_rng(0)
    pressure = np.round(draws.normal(120, 15, 20_000))
    columns = {"x": {"kind": "integer", "bounds": [0, 300_000]}}
    (column,) = buy(columns, {"x": pressure.astype(int)}, precision=0.01)
    assert isinstance(column.cells, Intervals)
    exact = np.bincount(column.cells.codes(pl.Series(pressure)), minlength=column.cells.size) / 20_000
    assert column.cells.size >= 15
    assert exact.max() < 0.12
    # The bought counts are near the exact ones: 20,000 patients under noise of about 14 a cell.
    assert np.abs(column.counts / 20_000 - exact).sum() / 2 < 0.05


@pytest.mark.parametrize(
    ("declared", "values", "most"),
    [
        # 1,000 patients under noise of 10 a cell: as many cells as 10,000 get would hold noise alone.
        ({"bounds": [0, 1000]}, np.random.default_rng(1).normal(120, 15, 1000).clip(0, 1000), 0.1),
        # Hundreds of finer cells in each first one tell its count less well than it did itself.
        ({"bounds": [5, 100]}, 5 + np.random.default_rng(2).lognormal(3.1, 0.3, 12_000).clip(0, 95), 0.03),
        ({}, np.random.default_rng(3).lognormal(3, 1.5, 12_000), 0.04),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_finer_cells_do_not_drown_in_their_noise(declared: dict, values: np.ndarray, most: float, seed: int) -> None:
    columns = {"x": {"kind": "number"} | declared}
    (column,) = buy(columns, {"x": values}, precision=0.02, seed=seed)
    table = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}}).root
    draws = np.random.default_rng(0)
    cells = draws.choice(column.cells.size, (20_000, 1), p=column.counts / column.counts.sum())
    out = decode(cells, domain=[column], table=table, generator=draws)["x"].to_numpy()
    assert ks_2samp(values, out).statistic <= most


def test_a_value_that_many_share_has_a_cell_of_its_own() -> None:
    draws = np.random.default_rng(0)
    values = np.where(draws.random(10_000) < 0.4, 500, draws.integers(0, 4000, 10_000))
    (column,) = buy({"x": {"kind": "integer", "bounds": [0, 4000]}}, {"x": values}, precision=0.1)
    code = column.cells.codes(pl.Series([499, 500, 501]))
    assert len(set(code.tolist())) == 3


def test_a_range_that_is_not_declared_is_bought_and_holds_nearly_all() -> None:
    draws = np.random.default_rng(0)
    values = draws.normal(0, 40, 5000)
    (column,) = buy({"x": {"kind": "number"}}, {"x": values}, precision=0.1)
    assert column.lattice is not None
    low, high = (
        column.lattice.origin,
        column.lattice.origin + column.lattice.step * (column.lattice.points - 1),
    )
    assert ((values >= low) & (values <= high)).mean() > 0.97
    # Powers of two, not the data's own extremes.
    assert np.log2([-low, high]).tolist() == [float(round(v)) for v in np.log2([-low, high])]


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1.0, 90.0, (0.0, 128.0)), (-90.0, -1.0, (-128.0, 0.0)), (70.0, 90.0, (64.0, 128.0))]
)
def test_a_bought_range_reaches_down_to_zero_where_zero_is_near(low, high, expected) -> None:
    values = np.random.default_rng(0).uniform(low, high, 5000)
    (column,) = buy({"x": {"kind": "number"}}, {"x": values}, precision=0.1)
    assert column.lattice is not None
    assert column.lattice.origin == expected[0]
    top = column.lattice.origin + column.lattice.step * (column.lattice.points - 1)
    assert top == pytest.approx(expected[1])


def test_rare_values_of_an_undeclared_category_become_other() -> None:
    names = ["flu"] * 500 + ["cold"] * 300 + [f"rare-{at}" for at in range(40)]
    (column,) = buy({"x": {"kind": "category"}}, {"x": names}, precision=0.5)
    assert isinstance(column.cells, Values)
    assert set(column.cells.values) == {"flu", "cold"}
    assert column.cells.other
    table = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"x": {"kind": "category"}}}}}).root
    out = decode(np.array([[0], [1], [2]]), domain=[column], table=table, generator=np.random.default_rng(0))
    assert out["x"].to_list() == [*column.cells.values, OTHER]


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ({"kind": "integer", "bounds": [0, 5]}, [0, 3, 5]),
        ({"kind": "number", "bounds": [0, 5], "precision": 0.5}, [0.0, 2.5, 5.0]),
        ({"kind": "boolean"}, [True, False, True]),
        ({"kind": "category", "values": ["a", "b"]}, ["a", "b", "a"]),
        (
            {"kind": "date", "bounds": ["2020-01-01", "2020-01-06"]},
            ["2020-01-01", "2020-01-04", "2020-01-06"],
        ),
        (
            {"kind": "datetime", "bounds": ["2020-01-01T00:00:00", "2020-01-01T00:05:00"]},
            ["2020-01-01 00:00", "2020-01-01 00:03", "2020-01-01 00:05"],
        ),
    ],
    ids=lambda part: part["kind"] if isinstance(part, dict) else "",
)
def test_values_with_a_cell_of_their_own_come_back_as_they_went_in(declared: dict, values: list) -> None:
    series = pl.Series("x", [*values, None])
    if declared["kind"] == "date":
        series = series.str.to_date()
    if declared["kind"] == "datetime":
        series = series.str.to_datetime(time_unit="us")
    columns = {"x": declared | {"nullable": True}}
    (column,) = buy(columns, {"x": series}, precision=1e6, bins=64)
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}})
    cohort = Cohort({"p": pl.DataFrame({"x": series})}, schema=schema)
    rows = behind_the_door(cohort, table="p", noise=InsecureNoise(0))
    codes = rows.encode({"x": column.cells})
    back = decode(codes._codes, domain=[column], table=schema.root, generator=np.random.default_rng(0))
    assert back["x"].equals(series)
    assert back["x"].dtype == series.dtype


def test_decoded_values_stay_in_bounds_and_on_the_declared_grid() -> None:
    draws = np.random.default_rng(0)
    columns = {"x": {"kind": "number", "bounds": [20, 300], "precision": 0.1}}
    (column,) = buy(columns, {"x": np.round(draws.normal(80, 20, 3000).clip(20, 300), 1)}, precision=0.05)
    table = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}}).root
    codes = draws.integers(0, column.cells.size, (5000, 1))
    out = decode(codes, domain=[column], table=table, generator=draws)["x"].to_numpy()
    assert out.min() >= 20.0
    assert out.max() <= 300.0
    np.testing.assert_array_equal(out, np.round(out, 1))
    # Each draw lies in the cell it was drawn for, up to rounding at a border.
    assert (column.cells.codes(pl.Series(out)) == codes[:, 0]).mean() > 0.999


def test_counts_are_averaged_with_those_of_pairs_by_precision() -> None:
    cells = Values(values=("a", "b"), other=False, nullable=False)
    columns = [
        ColumnDomain(name=name, cells=cells, counts=np.array([60.0, 40.0]), variance=np.array([6.0, 6.0]))
        for name in "xy"
    ]
    # The pair says x is (70, 30), each the sum of two cells of variance 3, so as precise as the column's own count.
    pair = np.array([[35.0, 35.0], [5.0, 25.0]])
    x, y = sharpen(columns, [Joint(columns=(0, 1), counts=pair, variance=3.0)], patients=100)
    assert x.counts.tolist() == pytest.approx([65.0, 35.0])
    assert y.counts.tolist() == pytest.approx([50.0, 50.0])
    assert x.variance.tolist() == pytest.approx([3.0, 3.0])
