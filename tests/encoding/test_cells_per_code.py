"""Columns whose values depend on a code: cells for each code, places that all share, and the way back."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.encoding.codec import behind_the_door, decode
from synthehr.encoding.domain import OTHER, ColumnDomain, _places, buy_domain, plan_domain
from synthehr.encoding.records import ColumnRecord, column_of, record_of
from synthehr.privacy.accountant import Account
from synthehr.privacy.budget import Budget
from synthehr.privacy.partition import Intervals, JointCells, PerCode, Values
from synthehr.privacy.rows import PrivateRows
from synthehr.randomness import InsecureNoise
from synthehr.schema.files import load_schema
from synthehr.schema.model import Table


class Exact(InsecureNoise):
    """Adds no noise."""

    def discrete_gaussian(self, values: np.ndarray, *, scale: float) -> np.ndarray:
        return values


class Unlimited(Account):
    """Books without composing: these tests are of the domain."""

    def plan(self, events) -> None:
        for event in events:
            self._planned[event] = self._planned.get(event, 0) + 1


def table_of(columns: dict) -> Table:
    return load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}}).root


def rows_of(columns: dict, values: dict, noise: InsecureNoise) -> PrivateRows:
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}})
    return behind_the_door(Cohort({"p": pl.DataFrame(values)}, schema=schema), table="p", noise=noise)


def buy(
    columns: dict, values: dict, *, noise: InsecureNoise, precision: float = 1.0, bins: int = 24
) -> list[ColumnDomain]:
    table = table_of(columns)
    plans = plan_domain(table, precision=precision, selection_delta=1e-6)
    account = Unlimited(Budget(epsilon=1.0, delta=1e-5))
    account.plan([event for plan in plans.values() for event in plan.events])
    patients = len(next(iter(values.values())))
    rows = rows_of(columns, values, noise)
    domain = buy_domain(rows, account, table, plans=plans, patients=patients, bins=bins)
    assert all(left == 0 for left in account._planned.values()), "all that was planned was used"
    return domain


def back(domain: list[ColumnDomain], columns: dict, codes: list[list[int]] | np.ndarray) -> pl.DataFrame:
    return decode(np.asarray(codes), domain=domain, table=table_of(columns), generator=np.random.default_rng(0))


TEST = {"kind": "category", "values": ["hdl", "sbp", "never"]}
VALUE = {"kind": "integer", "per": "test", "bounds": {"hdl": [0, 9], "sbp": [100, 103], "never": [-5, -1]}}
LABS = {"value": VALUE, "test": TEST}  # the value comes before its code

# Three intervals of a, two of b, none split for rows without a code; missing values last in each.
PARTS = tuple(Intervals(edges=np.array(e), nullable=True) for e in ([0.0, 1, 2, 3], [10.0, 20, 30], [0.0, 30]))
CODES = Values(values=("a", "b"), other=False, nullable=True)
VALUES = pl.Series([0.5, 2.9, None, 25.0, 12.0, None, 7.0, None])
OF = pl.Series(["a", "a", "a", "b", "b", "b", None, None])


def test_a_row_falls_into_one_cell_of_its_own_code_by_hand() -> None:
    joint = JointCells(per="c", codes=CODES, parts=PARTS)
    assert joint.size == 4 + 3 + 2
    assert joint.cells(VALUES, OF).tolist() == [0, 2, 3, 5, 4, 6, 7, 8]
    assert [part.tolist() for part in joint.split(np.arange(9.0))] == [[0, 1, 2, 3], [4, 5, 6], [7, 8]]


def test_places_are_shared_by_all_codes_and_lead_back_to_a_cell_of_each_by_hand() -> None:
    # a has three quarters of its patients in its first interval, b half in each; 6 places, and one for missing.
    firsts = (np.array([0, 4, 5]), np.array([0, 3]), np.array([0]))
    cells = PerCode(per="c", codes=CODES, parts=PARTS, firsts=firsts, places=6)
    assert cells.size == 7
    assert cells.middles(0).tolist() == [1, 4, 5, 6]
    assert cells.cells(VALUES, OF).tolist() == [1, 5, 6, 4, 1, 6, 2, 6]
    assert cells.own(0, np.arange(7)).tolist() == [0, 0, 0, 0, 1, 2, 3]
    assert cells.own(1, np.arange(7)).tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert cells.own(2, np.arange(7)).tolist() == [0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("counts", "places", "firsts"),
    [
        ([1, 1], 8, [0, 4]),
        ([6, 1, 1], 8, [0, 6, 7]),
        ([98, 1, 1], 8, [0, 6, 7]),  # the last two ask for none and get one each
        ([1, 1, 98], 8, [0, 1, 2]),
        ([0, 0, 0], 5, [0, 1, 2]),  # nobody: one each, the rest to the last
        ([3, 5, 9], 3, [0, 1, 2]),
    ],
)
def test_a_cell_takes_places_by_its_share_and_one_at_least(counts: list, places: int, firsts: list) -> None:
    assert _places(np.array(counts, dtype=float), places).tolist() == firsts


def test_values_come_back_as_they_went_in_though_the_value_stands_before_its_code() -> None:
    columns = {"value": VALUE | {"nullable": True}, "test": TEST | {"nullable": True}}
    frame = {
        "value": [0, 9, 4, None, 100, 103, None, -5, None, 50] * 40,
        "test": ["hdl", "hdl", "hdl", "hdl", "sbp", "sbp", "sbp", None, None, "hdl"] * 40,
    }
    frame["value"][9::10] = [3] * 40
    domain = buy(columns, frame, noise=Exact(0), precision=1e6, bins=200)
    codes = rows_of(columns, frame, Exact(0)).encode({column.name: column.cells for column in domain})
    out = back(domain, columns, codes._codes)
    assert out["value"].to_list() == frame["value"]
    assert out["test"].to_list() == frame["test"]
    assert out["value"].dtype == pl.Int64


def test_counts_by_hand() -> None:
    frame = {"value": [1] * 30 + [8] * 10 + [101] * 20, "test": ["hdl"] * 40 + ["sbp"] * 20}
    value, test = buy(LABS, frame, noise=Exact(0), precision=1e6)
    assert test.counts.tolist() == pytest.approx([40, 20, 0])
    assert [float(part.counts.sum()) for part in value.parts] == pytest.approx([40, 20, 0])
    # Two levels. hdl: 0-1, 2-4, 5-7, 8-9, of which the first and last are split, so six cells, and these are the
    # places. sbp: 100-101 and 102-103, the first split; the cell that all have takes all places but one each for the
    # others.
    assert value.cells.size == 6
    assert value.cells.firsts[1].tolist() == [0, 1, 5]
    assert value.parts[0].counts.tolist() == pytest.approx([0, 30, 0, 0, 10, 0])
    assert value.parts[1].counts.tolist() == pytest.approx([0, 20, 0])
    assert value.counts.sum() == pytest.approx(60)
    expected = np.zeros(6)
    expected[value.cells.middles(0)] += value.parts[0].counts
    expected[value.cells.middles(1)] += value.parts[1].counts
    assert value.counts.tolist() == pytest.approx(expected.tolist())
    assert (value.variance > 0).all(), "each place is known to some precision, by which pairs sharpen it"


def test_all_codes_together_cost_what_a_column_without_codes_costs() -> None:
    wide = {"kind": "integer", "bounds": [0, 9999]}
    table = table_of({"v": wide, "test": TEST})
    by_code = table_of(
        {"v": wide | {"per": "test", "bounds": {code: [0, 9999] for code in TEST["values"]}}, "test": TEST}
    )
    assert plan_domain(table, precision=1.0, selection_delta=0.0) == plan_domain(
        by_code, precision=1.0, selection_delta=0.0
    )
    # The widest of the bounds sets the number of levels.
    mixed = table_of({"v": VALUE | {"bounds": VALUE["bounds"] | {"never": [0, 100_000]}}, "test": TEST})
    assert len(plan_domain(mixed, precision=1.0, selection_delta=0.0)["v"].cell_events) == 9  # 4**9 > 100,001


def population(patients: int, seed: int = 0) -> dict:
    """Four in five have hdl, the others sbp; a lab value each, of unlike scales."""
    draws = np.random.default_rng(seed)
    hdl = draws.random(patients) < 0.8
    value = np.where(hdl, draws.normal(50, 15, patients).clip(1, 199), draws.normal(1300, 200, patients))
    return {"value": np.round(value), "test": np.where(hdl, "hdl", "sbp")}


WIDE = {
    "value": {"kind": "number", "precision": 0.1, "per": "test", "bounds": {"hdl": [0, 500], "sbp": [0, 30_000]}},
    "test": {"kind": "category", "values": ["hdl", "sbp"]},
}


def test_places_hold_even_mass_of_each_code_and_so_hardly_tell_the_code() -> None:
    frame = population(20_000)
    value, _ = domain = buy(WIDE, frame, noise=InsecureNoise(3), precision=0.02, bins=16)
    codes = rows_of(WIDE, frame, Exact(0)).encode({column.name: column.cells for column in domain})._codes
    shares = [np.bincount(codes[codes[:, 1] == at, 0], minlength=value.cells.size) for at in range(2)]
    hdl, sbp = (share / share.sum() for share in shares)
    assert max(hdl.max(), sbp.max()) < 2.5 / 16
    assert np.abs(hdl - sbp).sum() / 2 < 0.25  # of twelve seeds 0.08 to 0.19
    plain = {**WIDE, "value": {"kind": "number", "precision": 0.1, "bounds": [0, 30_000]}}
    domain = buy(plain, frame, noise=InsecureNoise(3), precision=0.02, bins=16)
    codes = rows_of(plain, frame, Exact(0)).encode({column.name: column.cells for column in domain})._codes
    shares = [np.bincount(codes[codes[:, 1] == at, 0], minlength=domain[0].cells.size) for at in range(2)]
    hdl, sbp = (share / share.sum() for share in shares)
    assert np.abs(hdl - sbp).sum() / 2 > 0.9, "without per the cell tells the code"


def test_a_rare_code_ends_with_few_cells_and_a_common_one_with_all() -> None:
    frame = population(20_000)
    rare = {"value": np.full(60, 3.0), "test": np.full(60, "rare")}
    frame = {name: np.concatenate([frame[name], rare[name]]) for name in frame}
    columns = {
        "value": WIDE["value"] | {"bounds": WIDE["value"]["bounds"] | {"rare": [0, 10]}},
        "test": {"kind": "category", "values": ["hdl", "sbp", "rare"]},
    }
    value, _ = buy(columns, frame, noise=InsecureNoise(3), precision=0.02, bins=16)
    hdl, sbp, few = (part.cells.size for part in value.parts)
    assert min(hdl, sbp) >= 12
    assert few <= 3


@pytest.mark.parametrize("noise", [0, 1, 2])
def test_every_place_of_every_code_leads_to_a_value_within_its_bounds(noise: int) -> None:
    columns = {"value": VALUE | {"nullable": True}, "test": TEST | {"nullable": True}}
    draws = np.random.default_rng(0)
    frame = {
        "value": [int(v) for v in draws.integers(0, 10, 300)] + [int(v) for v in draws.integers(100, 104, 100)],
        "test": ["hdl"] * 300 + ["sbp"] * 100,
    }
    value, test = domain = buy(columns, frame, noise=InsecureNoise(noise), precision=0.05)
    every = [[place, code] for place in range(value.cells.size) for code in range(test.cells.size)] * 50
    out = back(domain, columns, every)
    limits = {"hdl": (0, 9), "sbp": (100, 103), "never": (-5, -1), None: (-5, 103)}
    for (place, _), v, t in zip(every, out["value"], out["test"], strict=True):
        low, high = limits[t]
        assert (v is None) == (place == value.cells.size - 1)
        assert v is None or low <= v <= high
    # Each value that a code may have is reached.
    assert set(out.filter(test="sbp")["value"].drop_nulls()) == {100, 101, 102, 103}


def test_values_of_a_code_that_is_bought_have_a_range_for_each_code_and_for_the_others() -> None:
    draws = np.random.default_rng(0)
    columns = {
        "test": {"kind": "category", "discover": True, "nullable": True},
        "value": {"kind": "number", "per": "test", "precision": 0.1},
    }
    rare = [f"rare-{at}" for at in range(200)] * 2
    frame = {
        "test": ["hdl"] * 3000 + ["sbp"] * 2000 + rare + [None] * 500,
        "value": np.concatenate(
            [
                draws.uniform(10, 100, 3000),
                draws.uniform(1100, 2000, 2000),
                draws.uniform(300, 500, 400),
                draws.uniform(-60, -5, 500),
            ]
        ).round(1),
    }
    test, value = domain = buy(columns, frame, noise=InsecureNoise(1), precision=0.5)
    assert test.cells.values == ("hdl", "sbp")
    ranges = []
    for part in value.parts:
        low = part.lattice.origin
        ranges.append((low, round(low + part.lattice.step * (part.lattice.points - 1), 6)))
    assert ranges == [(0.0, 128.0), (1024.0, 2048.0), (256.0, 512.0), (-64.0, 0.0)]
    # How many have another code or none was not bought with the code; the intervals tell.
    assert [round(float(part.counts.sum()) / 100) for part in value.parts] == [30, 20, 4, 5]
    out = back(domain, columns, [[code, place] for code in range(4) for place in range(value.cells.size)])
    assert out["test"].unique(maintain_order=True).to_list() == ["hdl", "sbp", OTHER, None]
    for (low, high), part in zip(ranges, out.partition_by("test", maintain_order=True), strict=True):
        assert part["value"].is_between(low, high).all()


def test_a_code_too_rare_to_buy_a_range_gets_the_one_around_all() -> None:
    frame = {"value": [70.0] * 3000 + [1500.0], "test": ["hdl"] * 3000 + ["sbp"]}
    columns = {"value": {"kind": "number", "per": "test"}, "test": WIDE["test"]}
    value, _ = buy(columns, frame, noise=InsecureNoise(1), precision=0.5)
    assert [part.lattice.origin for part in value.parts] == [64.0, 64.0]


def test_a_record_comes_back_with_the_same_cells_and_values() -> None:
    frame = population(3000)
    domain = buy(WIDE, frame, noise=InsecureNoise(3), precision=0.05)
    records = [json.loads(record_of(column).model_dump_json()) for column in domain]
    again = [column_of(ColumnRecord.model_validate(record)) for record in records]
    assert [record_of(column) for column in again] == [record_of(column) for column in domain]
    rows = rows_of(WIDE, frame, Exact(0))
    codes = [rows.encode({column.name: column.cells for column in d})._codes for d in (domain, again)]
    np.testing.assert_array_equal(codes[0], codes[1])
    first, second = (back(d, WIDE, codes[0]) for d in (domain, again))
    # Counts are written to two decimals, so that single draws may fall on the other side of a border.
    assert (first["value"] - second["value"]).abs().median() == 0.0
    assert first["test"].equals(second["test"])


def test_several_rows_of_a_patient_are_encoded_each_by_its_code() -> None:
    frame = pl.DataFrame({"c": ["a", "b", "b"], "x": [0.5, 25.0, 12.0]})
    cells = PerCode(
        per="c", codes=CODES, parts=PARTS, firsts=(np.array([0, 1, 2]), np.array([0, 2]), np.array([0])), places=3
    )
    rows = PrivateRows(frame, owners=np.array([0, 0, 1]), patients=2, max_rows=2, noise=Exact(0))
    assert rows.encode({"x": cells, "c": CODES})._codes.tolist() == [[0, 0], [2, 1], [0, 1]]
