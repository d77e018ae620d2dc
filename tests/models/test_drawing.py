"""Rows in a condition are the generator's own that meet it: against exact sums and against drawing until it is met."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from synthehr.encoding.domain import ColumnDomain
from synthehr.encoding.lattice import lattice_of
from synthehr.errors import ConfigError, DataError
from synthehr.models.drawing import Drawing
from synthehr.models.networks import Generator, Latent
from synthehr.models.sampling import Sampler, sample_codes
from synthehr.privacy.partition import Intervals, Values
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

SCHEMA: Schema = load_schema(
    {
        "synthehr": 1,
        "subject": "p",
        "tables": {
            "p": {
                "columns": {
                    "grp": {"kind": "category", "values": ["common", "rare", "some"], "nullable": True},
                    "age": {"kind": "integer", "bounds": [0, 9], "nullable": True},
                    "died": {"kind": "boolean"},
                }
            }
        },
    }
)
DOMAIN = (
    ColumnDomain(
        name="grp",
        cells=Values(values=("common", "rare", "some"), other=False, nullable=True),
        counts=np.ones(4),
        variance=np.ones(4),
    ),
    # Cells 0-3, 4-9 and missing; inside the second, ages 4 and 5 have half of the mass and 6 to 9 the other half.
    ColumnDomain(
        name="age",
        cells=Intervals(edges=np.array([-0.5, 3.5, 9.5]), nullable=True),
        counts=np.ones(3),
        variance=np.ones(3),
        lattice=lattice_of(SCHEMA.root.kept["age"]),
        leaf_starts=np.array([0, 4, 6, 10]),
        leaf_counts=np.array([4.0, 3.0, 3.0]),
        leaf_cells=np.array([0, 1, 1]),
    ),
    ColumnDomain(
        name="died",
        cells=Values(values=("false", "true"), other=False, nullable=False),
        counts=np.ones(2),
        variance=np.ones(2),
    ),
)
SIZES = (4, 3, 2)
IN_CELL = {0: {0: 0.25, 1: 0.25, 2: 0.25, 3: 0.25}, 1: {4: 0.25, 5: 0.25, 6: 0.125, 7: 0.125, 8: 0.125, 9: 0.125}}
GROUPS = ("common", "rare", "some", None)


def small_generator(*, hidden: int = 0) -> Generator:
    """Five components in which 'rare' is about one in two hundred; the refiner's scores are of size one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        generator = Generator(sizes=SIZES, components=5, latent=3 if hidden else 0, hidden=hidden)
        with torch.no_grad():
            generator.mixture.logits.copy_(1.5 * torch.randn(5, sum(SIZES)))
            generator.mixture.logits[:, 1] -= 5.0
            if generator.refiner is not None:
                generator.refiner.out.weight.normal_(std=0.5)
                generator.refiner.out.bias.normal_(std=0.5)
    return generator.eval()


def drawing_of(generator: Generator, *, rows: int, where: tuple[str, ...] = (), **options: Any) -> Drawing:
    rules = [SCHEMA.condition(text) for text in options.pop("rules", ())]
    return Drawing(
        Sampler(generator),
        DOMAIN,
        SCHEMA.root,
        rules=rules,
        conditions=[SCHEMA.condition(text) for text in where],
        balance=options.pop("balance", None),
        rows=rows,
        seed=options.pop("seed", 0),
    )


def drawn(drawing: Drawing) -> pl.DataFrame:
    return pl.concat(list(drawing.frames()))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def exact_rows(generator: Generator) -> pl.DataFrame:
    """Every row that a generator without a refiner can make, with its probability."""
    shares = [part.detach().numpy() for part in generator.mixture().split(SIZES, 1)]
    rows = []
    for group, cell, died in itertools.product(*map(range, SIZES)):
        chance = float((shares[0][:, group] * shares[1][:, cell] * shares[2][:, died]).mean())
        for age, part in IN_CELL.get(cell, {None: 1.0}).items():
            rows.append((GROUPS[group], age, bool(died), chance * part))
    schema = {"grp": pl.String, "age": pl.Int64, "died": pl.Boolean, "chance": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def shares_of(frame: pl.DataFrame, rows: pl.DataFrame) -> np.ndarray:
    """The share of ``frame`` that each of ``rows`` has; all of it must be among them."""
    counted = frame.group_by("grp", "age", "died").len()
    found = rows.join(counted, on=["grp", "age", "died"], how="left", nulls_equal=True, maintain_order="left")
    assert found["len"].sum() == frame.height
    return found["len"].fill_null(0).to_numpy() / frame.height


CONDITIONS = [
    ("age between 3 and 6",),  # cuts both cells
    ("grp = 'rare'",),
    ("grp = 'rare' and age >= 5 and not died",),
    ("age <= 4 or died",),  # boxes that overlap
    ("grp = 'rare' or (age = 9 and died) or (age > 7 and grp = 'some')",),
    ("age is null",),
    ("grp is not null", "age is not null and age <> 4"),
    ("not (died and grp in ('common', 'some'))",),
]


@pytest.mark.parametrize("where", CONDITIONS)
def test_without_a_refiner_rows_in_a_condition_have_exactly_the_generators_shares(where: tuple[str, ...]) -> None:
    generator = small_generator()
    rows = exact_rows(generator)
    meets = np.logical_and.reduce([SCHEMA.condition(text).holds(rows).to_numpy() for text in where])
    chance = float(rows["chance"].to_numpy()[meets].sum())
    expected = np.where(meets, rows["chance"].to_numpy(), 0.0) / chance
    count = 40_000
    drawing = drawing_of(generator, rows=count, where=where)
    found = shares_of(drawn(drawing), rows)
    assert drawing.method == "direct"
    assert drawing.match_rate == pytest.approx(chance, rel=1e-4)
    # Six standard deviations of each share, and never less than six rows.
    assert (np.abs(found - expected) <= 6.0 * np.sqrt(expected / count) + 6.0 * (expected > 0) / count).all()


@pytest.mark.parametrize("where", CONDITIONS)
def test_with_a_refiner_rows_in_a_condition_are_distributed_as_those_drawn_until_it_is_met(
    where: tuple[str, ...],
) -> None:
    generator = small_generator(hidden=8)
    drawing = drawing_of(generator, rows=40_000, where=where)
    direct = drawn(drawing)
    plain = drawn(drawing_of(generator, rows=600_000, seed=1))
    for text in where:
        plain = plain.filter(SCHEMA.condition(text).holds(plain))
    rows = exact_rows(small_generator())
    first, second = shares_of(direct, rows), shares_of(plain, rows)
    # Parts of weight above the bound make several rows, which multiplies variances by no more than how many.
    assert drawing.most_of_one <= 40
    allowed = 6.0 * np.sqrt(np.maximum(first, second) * (drawing.most_of_one / direct.height + 1.0 / plain.height))
    assert (np.abs(first - second) <= allowed + 12.0 / min(direct.height, plain.height)).all()
    spread = np.sqrt(plain.height) / 600_000 + drawing.match_rate / np.sqrt(drawing.parts)
    assert abs(drawing.match_rate - plain.height / 600_000) <= 6.0 * spread


@pytest.mark.parametrize("hidden", [0, 8])
def test_rows_are_drawn_from_the_probabilities_that_the_generator_gives(hidden: int) -> None:
    generator = small_generator(hidden=hidden)
    draws = np.random.default_rng(0)
    sampler = Sampler(generator)
    components = draws.integers(0, 5, 300)
    state = draws.bit_generator.state
    parts, counts_for = sampler.parts(components, draws)
    assert (counts_for == 1.0).all()
    condition = torch.zeros(300, sum(SIZES))
    noise = torch.zeros(300, 0)
    if parts.columns is not None and parts.cells is not None:
        condition[np.arange(300), np.array([0, 4, 7])[parts.columns] + parts.cells] = 1.0
        draws.bit_generator.state = state
        draws.permutation(300)
        for column in range(3):
            draws.random((parts.columns == column).sum(), dtype=np.float32)
        noise = torch.from_numpy(draws.standard_normal((300, 3), dtype=np.float32))
    with torch.no_grad():
        expected = generator(Latent(torch.from_numpy(components), condition, noise)).numpy()
    begins = np.cumsum([0, *SIZES])
    for column, size in enumerate(SIZES):
        for cell in range(size):
            kept = np.eye(size)[cell]
            found = sampler.probability(parts, column, kept)
            np.testing.assert_allclose(found, expected[:, begins[column] + cell], atol=1e-5)


@pytest.mark.parametrize("hidden", [0, 8])
def test_plain_rows_follow_the_generator(hidden: int) -> None:
    generator = small_generator(hidden=hidden)
    codes = sample_codes(generator, rows=60_000, draws=np.random.default_rng(0))
    draws = np.random.default_rng(1)
    with torch.no_grad():
        expected = generator(generator.draw(60_000, draws)).mean(dim=0).numpy()
    found = np.concatenate([np.bincount(codes[:, at], minlength=size) for at, size in enumerate(SIZES)]) / 60_000
    np.testing.assert_allclose(found, expected, atol=0.02)  # ten standard deviations of a share of one half


def test_where_and_rules_hold_together_and_their_rates_are_told() -> None:
    generator = small_generator()
    rows = exact_rows(generator)
    chance = rows["chance"].to_numpy()
    where = SCHEMA.condition("age >= 4").holds(rows).to_numpy()
    rule = SCHEMA.condition("not died or age > 5").holds(rows).to_numpy()
    drawing = drawing_of(generator, rows=30_000, where=("age >= 4",), rules=("not died or age > 5",))
    found = shares_of(drawn(drawing), rows)
    assert not found[~(where & rule)].any()
    expected = np.where(where & rule, chance, 0.0) / chance[where & rule].sum()
    np.testing.assert_allclose(found, expected, atol=6.0 * 0.5 / np.sqrt(30_000))
    assert drawing.match_rate == pytest.approx(chance[where].sum(), rel=1e-4)
    assert drawing.rule_rate == pytest.approx(chance[where & rule].sum() / chance[where].sum(), abs=0.02)


def test_what_compares_columns_is_drawn_until_it_is_met_and_the_rest_directly() -> None:
    generator = small_generator()
    rows = exact_rows(generator)
    text = "grp = 'rare' and age > length(grp)"
    meets = SCHEMA.condition(text).holds(rows).to_numpy()
    drawing = drawing_of(generator, rows=5000, where=(text,))
    frame = drawn(drawing)
    assert frame.height == 5000
    assert set(frame["grp"]) == {"rare"}
    assert frame["age"].min() == 5
    assert drawing.method == "direct, then rejection"
    # Of 'rare' rows a share of about a half is kept, out of ten thousand or so.
    assert drawing.match_rate == pytest.approx(rows["chance"].to_numpy()[meets].sum(), rel=0.1)
    alone = drawing_of(generator, rows=500, where=("age > length(grp)",))
    assert drawn(alone).height == 500
    assert alone.method == "rejection"
    assert alone.parts == 0


@pytest.mark.parametrize("hidden", [0, 8])
def test_balance_gives_every_value_the_same_share_however_rare(hidden: int) -> None:
    generator = small_generator(hidden=hidden)
    drawing = drawing_of(generator, rows=40_000, balance="grp")
    frame = drawn(drawing)
    assert sorted(frame["grp"].value_counts().rows()) == [("common", 13_334), ("rare", 13_333), ("some", 13_333)]
    assert sorted(frame[:3000]["grp"].value_counts()["count"])[0] > 800, "groups are mixed, not one after the other"
    plain = drawn(drawing_of(generator, rows=600_000, seed=1)).drop_nulls("grp")
    for group in drawing.groups:
        mine, theirs = frame.filter(pl.col("grp") == group.value), plain.filter(pl.col("grp") == group.value)
        assert group.patients == mine.height
        assert group.model_share == pytest.approx(theirs.height / plain.height, rel=0.15)
        # Of 'rare' plain drawing gives some thousands: six standard deviations of a share are below 0.06.
        assert mine["died"].mean() == pytest.approx(theirs["died"].mean(), abs=0.06)
        assert mine["age"].mean() == pytest.approx(theirs["age"].mean(), abs=0.4)


def test_balance_within_where_leaves_out_the_values_that_it_excludes() -> None:
    drawing = drawing_of(small_generator(), rows=1001, balance="grp", where=("grp <> 'some' and age > 2",))
    frame = drawn(drawing)
    assert sorted(frame["grp"].value_counts().rows()) == [("common", 501), ("rare", 500)]
    assert frame["age"].min() == 3
    assert drawing.left_out == {"some": "impossible"}
    assert sum(group.model_share for group in drawing.groups) == pytest.approx(1.0)


def test_a_boolean_is_balanced_too() -> None:
    frame = drawn(drawing_of(small_generator(), rows=1000, balance="died", where=("grp = 'rare'",)))
    assert frame["died"].sum() == 500
    assert set(frame["grp"]) == {"rare"}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"balance": "age"}, ConfigError, "of kind integer"),
        ({"balance": "nothing"}, ConfigError, "not a kept column"),
        ({"balance": "grp", "where": ("grp = 'rare'",)}, DataError, "nothing to balance"),
        ({"where": ("grp = 'none'",)}, DataError, "impossible"),
        ({"where": ("age > 9",)}, DataError, "impossible"),
        ({"where": ("age > 5", "age < 3")}, DataError, "exclude each other"),
        ({"where": ("died",), "rules": ("not died",)}, DataError, "exclude each other"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_row_is(options: dict[str, Any], error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        drawing_of(small_generator(hidden=8), rows=10, **options)


def test_what_the_model_all_but_rules_out_is_refused_before_a_row_is_drawn() -> None:
    generator = small_generator()
    with torch.no_grad():
        generator.mixture.logits[:, 1] = -30.0
    with pytest.raises(DataError, match="fewer than one patient in a million"):
        drawing_of(generator, rows=10, where=("grp = 'rare'",))
    assert drawing_of(generator, rows=10, balance="grp").left_out == {"rare": "next to impossible"}


def test_what_turns_out_to_be_next_to_impossible_is_given_up() -> None:
    with pytest.raises(DataError, match="next to impossible"):
        drawn(drawing_of(small_generator(), rows=10, where=("age > 8 and age < length(grp)",)))


@pytest.mark.parametrize("options", [{}, {"where": ("grp = 'rare'",)}, {"balance": "grp"}, {"rules": ("died",)}])
def test_rows_do_not_depend_on_the_number_of_threads(options: dict[str, Any]) -> None:
    found = []
    for threads in (1, 2):
        with torch_threads(threads):
            found.append(drawn(drawing_of(small_generator(hidden=8), rows=70_000, **options)))
            assert torch.get_num_threads() == threads
    assert found[0].equals(found[1])
    assert not found[0].equals(drawn(drawing_of(small_generator(hidden=8), rows=70_000, seed=1, **options)))


def test_of_a_large_cohort_several_rows_are_of_one_part_and_the_cohort_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthehr.models.drawing._PARTS_ENOUGH", 1000)
    small, large = (drawing_of(small_generator(hidden=8), rows=rows) for rows in (999, 20_000))
    assert drawn(small).height == 999
    assert drawn(large).height == 20_000
    assert (small.most_of_one, large.most_of_one) == (1, 20)
    unrefined = drawing_of(small_generator(), rows=20_000)
    assert drawn(unrefined).height == 20_000
    assert unrefined.most_of_one == 1
