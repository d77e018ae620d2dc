"""The generator's mixture, refiner and draws, and the encoder of a TVAE."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from synthehr.models.networks import Encoder, Generator, Latent, Mixture, Refiner, conditioned, one_hot

SIZES = (2, 3, 4)


def generator(*, hidden: int = 0, components: int = 6) -> Generator:
    """One whose components differ, and whose refiner, where it has one, does something."""
    torch.manual_seed(0)
    made = Generator(sizes=SIZES, components=components, latent=5, hidden=hidden)
    with torch.no_grad():
        made.mixture.logits.normal_()
        if made.refiner is not None:
            made.refiner.out.weight.normal_()
    return made


def test_a_mixture_is_a_distribution_of_each_column_by_hand() -> None:
    mixture = Mixture(sizes=(2, 2), components=1)
    with torch.no_grad():
        mixture.logits.copy_(torch.tensor([[math.log(3.0), 0.0, 0.0, 0.0]]))
    torch.testing.assert_close(mixture(), torch.tensor([[0.75, 0.25, 0.5, 0.5]]))


def test_a_condition_replaces_its_column_and_no_other_by_hand() -> None:
    scores = torch.tensor([[math.log(3.0), 0.0, 0.0, 0.0]])
    given = conditioned(scores, torch.tensor([[0.0, 1.0, 0.0, 0.0]]), sizes=(2, 2))
    torch.testing.assert_close(given, torch.tensor([[0.0, 1.0, 0.5, 0.5]]))
    free = conditioned(scores, torch.zeros(1, 4), sizes=(2, 2))
    torch.testing.assert_close(free, torch.tensor([[0.75, 0.25, 0.5, 0.5]]))


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_condition_is_met_and_every_column_sums_to_one(hidden: int) -> None:
    made = generator(hidden=hidden)
    given = made.draw(500, np.random.default_rng(0))
    assert torch.equal(given.condition.sum(dim=1), torch.ones(500))
    with torch.no_grad():
        out = made(given)
    for part, asked in zip(out.split(SIZES, 1), given.condition.split(SIZES, 1), strict=True):
        torch.testing.assert_close(part.sum(dim=1), torch.ones(500))
        here = asked.sum(dim=1) == 1
        assert torch.equal(part[here], asked[here])


@pytest.mark.parametrize("rows", [6000, 1500])
def test_conditions_follow_the_mixture_at_every_prefix(rows: int) -> None:
    made = generator()
    given = made.draw(6000, np.random.default_rng(0))
    expected = made.mixture().mean(dim=0).detach()
    for part, wanted in zip(given.condition[:rows].split(SIZES, 1), expected.split(SIZES), strict=True):
        assert float(part.sum()) == pytest.approx(rows / 3, rel=0.1)
        assert float((part.sum(dim=0) / part.sum() - wanted).abs().max()) < 0.06


def test_a_condition_is_drawn_by_its_own_component() -> None:
    made = generator(components=2)
    with torch.no_grad():  # the first has the first cell of every column, the second the last
        made.mixture.logits.fill_(-30.0)
        made.mixture.logits[0, [0, 2, 5]] = made.mixture.logits[1, [1, 4, 8]] = 30.0
    given = made.draw(400, np.random.default_rng(0))
    cells = given.condition.argmax(dim=1)
    assert set(cells[given.component == 0].tolist()) == {0, 2, 5}
    assert set(cells[given.component == 1].tolist()) == {1, 4, 8}


def test_components_are_drawn_equally_often() -> None:
    given = generator().draw(605, np.random.default_rng(0))
    counts = torch.bincount(given.component, minlength=6)
    assert counts.sum() == 605
    assert int(counts.min()) == 100
    assert int(counts.max()) == 101


def test_an_untrained_refiner_leaves_the_mixture_as_it_is() -> None:
    torch.manual_seed(0)
    made = Generator(sizes=SIZES, components=6, latent=5, hidden=8)
    with torch.no_grad():
        made.mixture.logits.normal_()
        given = made.draw(50, np.random.default_rng(0))
        free = Latent(given.component, torch.zeros_like(given.condition), given.noise)
        assert torch.equal(made(free), made.mixture()[given.component])


def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    made = generator(hidden=8)
    given = made.draw(20, np.random.default_rng(0))
    with torch.no_grad():
        together = made(given)
        for at in range(20):
            alone = made(Latent(*(part[at : at + 1] for part in (given.component, given.condition, given.noise))))
            torch.testing.assert_close(together[at], alone[0])


def test_noise_and_condition_move_a_refined_row_and_a_mixture_has_no_noise() -> None:
    made = generator(hidden=8)
    given = made.draw(20, np.random.default_rng(0))
    with torch.no_grad():
        other = made(Latent(given.component, given.condition, given.noise + 1.0))
        assert not torch.allclose(made(given), other)
    assert generator().draw(20, np.random.default_rng(0)).noise.shape == (20, 0)
    assert generator().latent == 0
    assert generator().refiner is None


def test_the_same_draws_make_the_same_rows() -> None:
    made = generator(hidden=8)
    first, again, other = (made.draw(50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name in ("component", "condition", "noise"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


def test_the_refiner_sees_its_first_and_second_layer() -> None:
    torch.manual_seed(0)
    refiner = Refiner(sizes=SIZES, latent=5, hidden=7)
    features = refiner.features(torch.randn(3, 2, 5), torch.rand(3, 2, 9))
    assert features.shape == (3, 2, 14)
    assert not refiner(torch.randn(3, 2, 5), torch.rand(3, 2, 9)).any()


def test_a_log_variance_stays_within_eight() -> None:
    torch.manual_seed(0)
    encoder = Encoder(sizes=SIZES, hidden=7, latent=5)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.mul_(1e4)
    with torch.no_grad():
        mean, log_variance = encoder(torch.rand(30, 9), torch.rand(30, 9))
    assert mean.shape == log_variance.shape == (30, 5)
    assert float(mean.abs().max()) > 8.0
    assert float(log_variance.abs().max()) == 8.0


def test_cells_stand_side_by_side_as_one_hot() -> None:
    assert one_hot(torch.tensor([[1, 0, 3]]), sizes=SIZES).tolist() == [[0, 1, 1, 0, 0, 0, 0, 0, 1]]
