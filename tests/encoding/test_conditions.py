"""What a condition allows, column by column: the boxes hold exactly the rows that the condition itself lets pass."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import numpy as np
import polars as pl
import pytest

from synthehr.encoding.codec import labels_of
from synthehr.encoding.conditions import Box, Region, region_of
from synthehr.encoding.domain import OTHER, ColumnDomain
from synthehr.encoding.lattice import Lattice, lattice_of
from synthehr.encoding.subsets import Subset, interior_of, shares
from synthehr.privacy.partition import Intervals, PerCode, Values
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

COLUMNS: dict[str, dict[str, Any]] = {
    "age": {"kind": "integer", "bounds": [0, 9], "nullable": True},
    "weight": {"kind": "number", "bounds": [0, 2], "precision": 0.5},
    "sex": {"kind": "category", "values": ["f", "m"], "nullable": True},
    "city": {"kind": "category", "discover": True},
    "died": {"kind": "boolean", "nullable": True},
}


def schema_of(columns: dict[str, dict[str, Any]]) -> Schema:
    return load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}})


SCHEMA = schema_of(COLUMNS)


def numeric(name: str, lattice: Lattice, *, nullable: bool, cells: int = 2) -> ColumnDomain:
    """Cells and finer cells of one width, all of one count."""
    starts = np.linspace(0, lattice.points, cells + 1).astype(np.int64)
    return ColumnDomain(
        name=name,
        cells=Intervals(edges=lattice.edges(starts), nullable=nullable),
        counts=np.ones(cells + nullable),
        variance=np.ones(cells + nullable),
        lattice=lattice,
        leaf_starts=starts,
        leaf_counts=np.ones(cells),
        leaf_cells=np.arange(cells),
    )


def category(name: str, values: tuple[str, ...], *, other: bool, nullable: bool) -> ColumnDomain:
    cells = Values(values=values, other=other, nullable=nullable)
    return ColumnDomain(name=name, cells=cells, counts=np.ones(cells.size), variance=np.ones(cells.size))


DOMAIN = (
    numeric("age", lattice_of(SCHEMA.root.kept["age"]), nullable=True),
    numeric("weight", lattice_of(SCHEMA.root.kept["weight"]), nullable=False),
    category("sex", ("f", "m"), other=False, nullable=True),
    category("city", ("Bern",), other=True, nullable=False),
    category("died", ("false", "true"), other=False, nullable=True),
)
UNIVERSE: dict[str, list[Any]] = {
    "age": [*range(10), None],
    "weight": [0.0, 0.5, 1.0, 1.5, 2.0],
    "sex": ["f", "m", None],
    "city": ["Bern", OTHER],
    "died": [False, True, None],
}
ALL_ROWS = pl.DataFrame(
    list(itertools.product(*UNIVERSE.values())),
    schema={"age": pl.Int64, "weight": pl.Float64, "sex": pl.String, "city": pl.String, "died": pl.Boolean},
    orient="row",
)


def region(*texts: str) -> Region:
    return region_of([SCHEMA.condition(text) for text in texts], domain=DOMAIN, table=SCHEMA.root)


def boxes_of_each_row(boxes: tuple[Box, ...]) -> np.ndarray:
    """How many of the boxes each of all rows lies in."""
    within = np.zeros(ALL_ROWS.height, dtype=int)
    for box in boxes:
        inside = np.ones(ALL_ROWS.height, dtype=bool)
        for name, subset in box.items():
            at = {value: place for place, value in enumerate(UNIVERSE[name])}
            inside &= subset.holds(np.array([at[value] for value in ALL_ROWS[name]]))
        within += inside
    return within


@pytest.mark.parametrize(
    "text",
    [
        "age >= 3",
        "age = 3 or age = 8",
        "age between 2.5 and 6.5",
        "age not between 2 and 6",
        "age in (1, 5, 77)",
        "age not in (1, 5)",
        "age in (1, null)",
        "age is null",
        "age is not null",
        "abs(age - 5) < 2",
        "age is null or age > 7",
        "3 < age",
        "not age",
        "weight > 0.6 and weight <= 1.5",
        "round(weight) = 2",
        "sex = 'f'",
        "sex <> 'f'",
        "not sex = 'f'",
        "sex is null",
        "sex like 'f%'",
        "upper(sex) = 'M'",
        "coalesce(sex, 'm') = 'm'",
        "case when sex = 'f' then true else false end",
        "city = 'OTHER'",
        "died",
        "not died",
        "died is null",
        "died is true",
        "died is not true",
        "age > 5 and sex = 'f'",
        "age > 5 or sex = 'f'",
        "not (age > 5 or sex = 'f')",
        "not (age > 5 and sex = 'f')",
        "(age > 5 and sex = 'f') or (age < 8 and died) or city = 'Bern'",
        "not ((age > 5 and sex = 'f') or (weight < 1 and not died))",
        "(age > 3 or died) and (sex = 'm' or weight > 1) and (city = 'Bern' or age is null)",
        "age > 5 or age <= 5",
        "not (died and (sex is null or age in (1, 2)))",
        "age = 4 and true",
    ],
)
def test_boxes_hold_the_rows_that_meet_the_condition_and_each_of_them_once(text: str) -> None:
    found = region(text)
    assert found.exact
    meets = SCHEMA.condition(text).holds(ALL_ROWS).to_numpy()
    np.testing.assert_array_equal(boxes_of_each_row(found.boxes), meets.astype(int))


def test_several_conditions_hold_together() -> None:
    found = region("age > 5 or died", "sex = 'f' or age < 8")
    meets = SCHEMA.condition("(age > 5 or died) and (sex = 'f' or age < 8)").holds(ALL_ROWS).to_numpy()
    np.testing.assert_array_equal(boxes_of_each_row(found.boxes), meets.astype(int))


@pytest.mark.parametrize(
    "text",
    ["age > weight", "age > 5 and age > weight", "not (age > weight) and sex = 'f'", "age > 8 or age * weight > 3"],
)
def test_where_columns_are_compared_boxes_allow_at_least_what_the_condition_does(text: str) -> None:
    found = region(text)
    assert not found.exact
    meets = SCHEMA.condition(text).holds(ALL_ROWS).to_numpy()
    within = boxes_of_each_row(found.boxes)
    assert within.max() == 1
    assert (within[meets] == 1).all()


def test_what_can_be_told_by_column_is_kept_beside_what_cannot() -> None:
    (box,) = region("age > 5 and age > weight").boxes
    assert box == {"age": Subset((6, 10), 11)}


@pytest.mark.parametrize(
    "text", ["sex = 'x'", "age > 9", "age < 3 and age > 4", "city = 'Basel'", "weight is null", "died and not died"]
)
def test_what_no_row_can_meet_has_no_box(text: str) -> None:
    assert region(text).boxes == ()


def test_a_condition_of_too_many_boxes_is_left_to_drawing_again() -> None:
    names = [f"c{at}" for at in range(14)]
    schema = schema_of({name: {"kind": "category", "values": ["0", "1", "2"]} for name in names})
    domain = [category(name, ("0", "1", "2"), other=False, nullable=False) for name in names]
    pairs = zip(names[::2], names[1::2], strict=True)
    text = " and ".join(f"({first} = '0' or {second} = '1')" for first, second in pairs)
    found = region_of([schema.condition(text)], domain=domain, table=schema.root)
    assert not found.exact
    assert 1 <= len(found.boxes) <= 64


@pytest.mark.parametrize(
    ("column", "text", "inside", "outside"),
    [
        # 2**40 values, far too many to try one by one.
        ({"kind": "integer", "bounds": [0, 2**40]}, "x between 10 and 12 or x > 1000000000000", (10, 12, 10**12 + 1),
         (9, 13, 10**12)),
        ({"kind": "number", "bounds": [0, 1e6], "precision": 1e-3}, "x < 0.5 or x in (7, 8.25)", (0, 0.499, 7, 8.25),
         (0.5, 6.999, 7.001, 8.249, 8.251)),
        ({"kind": "number", "bounds": [-5000000, 5000000], "precision": 1}, "not x", (0,), (-1, 1)),
        ({"kind": "datetime", "bounds": ["1900-01-01T00:00:00", "2020-01-01T00:00:00"]},
         "x >= timestamp '2000-01-01 00:30:00'", (dt.datetime(2000, 1, 1, 0, 30),), (dt.datetime(2000, 1, 1, 0, 29),)),
        ({"kind": "datetime", "bounds": ["1900-01-01T00:00:00", "2020-01-01T00:00:00"]},
         "x < date '2000-01-01'", (dt.datetime(1999, 12, 31, 23, 59),), (dt.datetime(2000, 1, 1),)),
        ({"kind": "date", "bounds": ["1900-01-01", "2020-01-01"]}, "x > date '2000-01-01'", (dt.date(2000, 1, 2),),
         (dt.date(2000, 1, 1),)),
    ],
)  # fmt: skip
def test_ranges_of_columns_with_very_many_values_end_where_they_should(
    column: dict[str, Any], text: str, inside: tuple[Any, ...], outside: tuple[Any, ...]
) -> None:
    schema = schema_of({"x": column})
    lattice = lattice_of(schema.root.kept["x"])
    found = region_of([schema.condition(text)], domain=[numeric("x", lattice, nullable=False)], table=schema.root)
    assert found.exact
    (box,) = found.boxes
    borders = np.array(box["x"].borders)
    near = np.unique(np.concatenate([borders - 1, borders]))
    near = near[(near >= 0) & (near < lattice.points)]
    values = lattice.column(near, np.zeros(len(near), dtype=bool)).alias("x")
    meets = schema.condition(text).holds(pl.DataFrame([values])).to_numpy()
    np.testing.assert_array_equal(box["x"].holds(near), meets)
    origin = schema.root.kept["x"].bounds[0]
    for value, expected in [*((v, True) for v in inside), *((v, False) for v in outside)]:
        gap = value - origin
        seconds = gap.total_seconds() / (86400 if lattice.kind == "date" else 60) if hasattr(gap, "days") else gap
        assert box["x"].holds(np.array([round(seconds / lattice.step)]))[0] == expected


def test_arithmetic_on_a_column_of_too_many_values_is_left_to_drawing_again() -> None:
    schema = schema_of({"x": {"kind": "integer", "bounds": [0, 2**40]}})
    domain = [numeric("x", lattice_of(schema.root.kept["x"]), nullable=False)]
    found = region_of([schema.condition("x % 7 = 3")], domain=domain, table=schema.root)
    assert found == Region(({},), exact=False)


def test_of_a_number_that_depends_on_a_code_only_missingness_is_told_beforehand() -> None:
    columns = {
        "test": {"kind": "category", "values": ["hdl", "sbp"]},
        "value": {"kind": "number", "bounds": [0, 10], "per": "test", "nullable": True},
    }
    schema = schema_of(columns)
    code = category("test", ("hdl", "sbp"), other=False, nullable=False)
    part = Intervals(edges=np.array([0.0, 5.0, 10.0]), nullable=True)
    cells = PerCode(
        per="test", codes=code.cells, parts=(part, part), firsts=(np.array([0, 1]), np.array([0, 1])), places=2
    )
    value = ColumnDomain(name="value", cells=cells, counts=np.ones(3), variance=np.ones(3))

    def found(text: str) -> Region:
        return region_of([schema.condition(text)], domain=[code, value], table=schema.root)

    (missing,), (there,) = found("value is null").boxes, found("value is not null").boxes
    assert shares(value, missing["value"]).tolist() == [0.0, 0.0, 1.0]
    assert shares(value, there["value"]).tolist() == [1.0, 1.0, 0.0]
    assert found("not (value is null)").boxes == (there,)
    assert found("value > 3") == Region(({},), exact=False)
    assert found("value > 3 and value is not null") == Region((there,), exact=False)


def test_a_range_that_cuts_a_cell_takes_the_part_of_its_mass_that_lies_inside() -> None:
    # Cells 0-4 and 5-9; finer cells 0-3 (mass 8), 4 (mass 2), 5-9 (mass 5). Of values 2 to 5: half of the 8, all of
    # the 2 and a fifth of the 5, so 6 of 10 and 1 of 5.
    lattice = lattice_of(SCHEMA.root.kept["age"])
    column = ColumnDomain(
        name="age",
        cells=Intervals(edges=np.array([-0.5, 4.5, 9.5]), nullable=True),
        counts=np.ones(3),
        variance=np.ones(3),
        lattice=lattice,
        leaf_starts=np.array([0, 4, 5, 10]),
        leaf_counts=np.array([8.0, 2.0, 5.0]),
        leaf_cells=np.array([0, 0, 1]),
    )
    subset = Subset((2, 6), 11)
    np.testing.assert_allclose(shares(column, subset), [0.6, 0.2, 0.0])
    np.testing.assert_allclose(shares(column, Subset((2, 6, 10, 11), 11)), [0.6, 0.2, 1.0])
    inside = interior_of(column, subset)
    np.testing.assert_array_equal(inside.starts, [0, 2, 4, 5, 6, 10])
    np.testing.assert_allclose(inside.mass, [0.0, 4.0, 2.0, 1.0, 0.0])
    drawn = inside.draw(np.repeat([0, 1], [60_000, 100]), np.random.default_rng(0))
    assert set(drawn[60_000:]) == {5}
    # 2 and 3 have a third each, as 4 has; the standard deviation of a share is 0.002.
    np.testing.assert_allclose(
        np.bincount(drawn[:60_000], minlength=5) / 60_000, [0, 0, 1 / 3, 1 / 3, 1 / 3], atol=0.02
    )


def test_labels_stand_in_the_order_of_the_cells() -> None:
    for column in DOMAIN:
        if isinstance(column.cells, Values):
            assert labels_of(column.cells, SCHEMA.root.kept[column.name]).to_list() == UNIVERSE[column.name]
