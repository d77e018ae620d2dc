"""Rows of a mixture are its own in distribution, and a cohort of them shows less noise than independent draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synthehr.models.networks import Generator
from synthehr.models.sampling import Sampler, sample_codes
from synthehr.randomness import FloatArray, IntArray

SIZES = (3, 4, 2)
COMPONENTS = 3


def told_apart(*, hidden: int = 0) -> tuple[Generator, list[FloatArray]]:
    """Three components, of which the first column tells which it is, and the other columns' shares in each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        generator = Generator(sizes=SIZES, components=COMPONENTS, latent=2 if hidden else 0, hidden=hidden)
        with torch.no_grad():
            generator.mixture.logits.normal_()
            generator.mixture.logits[:, : SIZES[0]] = 40.0 * torch.eye(COMPONENTS)
            shares = [part.numpy().astype(np.float64) for part in generator.mixture().split(SIZES, 1)]
    return generator.eval(), shares


def counted(codes: IntArray, *columns: int) -> IntArray:
    """How many rows each set of cells has."""
    found = np.zeros([SIZES[at] for at in columns], dtype=np.int64)
    np.add.at(found, tuple(codes[:, at] for at in columns), 1)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_of_a_components_rows_each_cell_has_as_many_as_it_should_to_within_one(seed: int) -> None:
    generator, shares = told_apart()
    codes = sample_codes(generator, rows=40 * COMPONENTS, draws=np.random.default_rng(seed))
    for column in (1, 2):
        assert np.abs(counted(codes, 0, column) - 40 * shares[column]).max() < 1.0


def test_given_a_component_columns_are_independent() -> None:
    generator, shares = told_apart()
    rows = 40_000 * COMPONENTS
    codes = sample_codes(generator, rows=rows, draws=np.random.default_rng(0))
    expected = np.einsum("ca,cb,cd->cabd", *shares) / COMPONENTS
    # Six standard deviations of the share of a cell that independent draws would give.
    atol = 6.0 * np.sqrt(expected.max() / rows)
    np.testing.assert_allclose(counted(codes, 0, 1, 2) / rows, expected.sum(axis=0), atol=float(atol))


def test_one_row_has_the_mixtures_distribution() -> None:
    generator, shares = told_apart()
    sampler, draws = Sampler(generator), np.random.default_rng(0)
    drawn = np.stack([np.concatenate(sampler.plain(1, draws)) for _ in range(4000)])
    for column, share in enumerate(shares):
        found = np.bincount(drawn[:, column], minlength=SIZES[column]) / 4000
        np.testing.assert_allclose(found, share.mean(axis=0), atol=0.04)  # five standard deviations of one half


def test_rows_come_in_random_order() -> None:
    generator, _ = told_apart()
    codes = sample_codes(generator, rows=900, draws=np.random.default_rng(0))
    # Of the first third each component has 100 but for chance: standard deviation 6.7.
    assert np.abs(np.bincount(codes[:300, 0]) - 100).max() < 50


@pytest.mark.parametrize("each", [1, 7, 16])
def test_parts_that_make_several_rows_leave_the_distribution_as_it_is(each: int) -> None:
    generator, _ = told_apart(hidden=8)
    assert generator.refiner is not None
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(6)
        generator.refiner.out.weight.normal_(std=0.3)
    sampler = Sampler(generator)
    codes = np.stack(sampler.plain(60_000, np.random.default_rng(1), each=each), axis=1)
    assert len(codes) == 60_000
    with torch.no_grad():
        made = [part.numpy() for part in generator(generator.draw(60_000, np.random.default_rng(2))).split(SIZES, 1)]
    expected = np.einsum("ra,rb->ab", made[1], made[2]) / 60_000
    # From 3,750 parts at least: six standard deviations of a share of one half.
    np.testing.assert_allclose(counted(codes, 1, 2) / 60_000, expected, atol=0.05)


def test_the_refiner_runs_once_for_the_rows_of_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, _ = told_apart(hidden=8)
    sampler, made = Sampler(generator), 0
    features = Sampler._features

    def counting(self: Sampler, components: IntArray, *rest: object) -> torch.Tensor:
        nonlocal made
        made += len(components)
        return features(self, components, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Sampler, "_features", counting)
    sampler.plain(32_768, np.random.default_rng(0), each=16)
    assert made == 2048
