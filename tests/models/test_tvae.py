"""The variational phase: its loss by hand, its component of the mixture, and what it learns and leaves alone."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synthehr.errors import InternalError
from synthehr.models import tvae
from synthehr.models.marginals import Targets, sample_rows
from synthehr.models.networks import Encoder, Generator
from synthehr.models.phase import conditions_of_rows
from synthehr.models.tvae import Variational, VariationalPhase, VariationalSettings
from synthehr.privacy.rows import PrivateCodes
from synthehr.randomness import seeded

sys.path.insert(0, str(Path(__file__).parent.parent / "privacy"))

from defects import Recorder, StillDraws, one_thread, open_account, step_of

CPU = torch.device("cpu")


def untrained(sizes: tuple[int, ...], latent: int = 2) -> Variational:
    """Encoder and refiner of zeros: mean 0, variance 1 and nothing added to scores."""
    generator = Generator(sizes=sizes, components=1, latent=latent, hidden=4)
    assert generator.refiner is not None
    encoder = Encoder(sizes=sizes, hidden=4, latent=latent)
    for parameter in encoder.parameters():
        nn.init.zeros_(parameter)
    return Variational(encoder, generator.refiner, sizes=sizes)


def test_the_loss_by_hand() -> None:
    # The component has 3/4 and 1/4 for the second column's cells; the first column is the condition, of chance 1.
    network = untrained((2, 2))
    scores = torch.tensor([[0.0, 0.0, math.log(3.0), 0.0]]).expand(2, 4)
    rows = torch.tensor([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]])
    condition = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(2, 4)
    noise = torch.ones(2, 2)
    found = network(rows, scores, condition, noise)
    assert found.tolist() == pytest.approx([-math.log(0.75), -math.log(0.25)], abs=1e-5)
    # Means 1 and 0, log-variances 0 and 2: a divergence of (1 + 1 - 0 - 1) / 2 + (0 + e^2 - 2 - 1) / 2 from N(0, 1).
    with torch.no_grad():
        network.encoder.layers[2].bias.copy_(torch.tensor([1.0, 0.0, 0.0, 2.0]))
    further = 0.5 + 0.5 * (math.exp(2.0) - 3.0)
    moved = network(rows, scores, condition, noise)
    assert moved.tolist() == pytest.approx([further - math.log(0.75), further - math.log(0.25)], abs=1e-5)


def test_a_rows_condition_is_its_own_cell_and_depends_on_nothing_else() -> None:
    codes = np.array([[[1, 2], [0, 0]], [[1, 1], [0, 2]]])
    rows, condition = conditions_of_rows(codes, sizes=(2, 3), draws=np.random.default_rng(0), device=CPU)
    assert rows.shape == condition.shape == (2, 2, 5)
    assert torch.equal(condition.sum(dim=-1), torch.ones(2, 2))
    assert torch.equal(rows * condition, condition)
    many = np.zeros((3000, 1, 2), dtype=np.int64)
    _, drawn = conditions_of_rows(many, sizes=(2, 3), draws=np.random.default_rng(0), device=CPU)
    assert float(drawn[:, 0, 0].mean()) == pytest.approx(0.5, abs=0.05)


class Listener(nn.Module):
    """Keeps what it is given in place of a network."""

    def forward(self, rows: Tensor, scores: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
        self.heard = rows, scores, condition, noise
        return rows.sum(dim=-1)


def posterior_shares(codes: list[int], weights: list[list[float]], patients: int) -> Tensor:
    """How often each component is drawn for such a row, of a mixture over one pair of columns of two cells."""
    decoder = Generator(sizes=(2, 2), components=len(weights), latent=2, hidden=4)
    with torch.no_grad():
        decoder.mixture.logits.copy_(torch.tensor(weights))
    listener = Listener()
    batch = np.broadcast_to(np.array(codes), (patients, 1, 2)).copy()
    tvae._real_loss(listener, batch, np.ones((patients, 1)), decoder=decoder, draws=np.random.default_rng(0))
    _, scores, _, _ = listener.heard
    same = (scores[:, 0, None, :] == decoder.mixture.logits).all(dim=-1)
    return same.double().mean(dim=0)


def test_a_component_is_drawn_by_its_chance_given_the_row() -> None:
    # Row (0, 1). Component 0 gives it 1/2 x 1/4, component 1 gives 1/2 x 3/4, component 2 next to nothing.
    weights = [[0.0, 0.0, math.log(3.0), 0.0], [0.0, 0.0, 0.0, math.log(3.0)], [-30.0, 0.0, 0.0, 0.0]]
    found = posterior_shares([0, 1], weights, 20_000)
    assert found.tolist() == pytest.approx([0.25, 0.75, 0.0], abs=0.02)


def test_a_patients_loss_is_the_mean_over_its_rows_and_padding_weighs_nothing() -> None:
    decoder = Generator(sizes=(2, 2), components=3, latent=2, hidden=4)

    class Scored(nn.Module):
        def forward(self, rows: Tensor, scores: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
            return rows @ torch.tensor([1.0, 10.0, 0.0, 0.0])  # 1 where the first cell is 0, 10 where it is 1

    codes = np.array([[[0, 0], [1, 0], [1, 1]], [[1, 0], [0, 0], [0, 0]], [[0, 0], [0, 0], [0, 0]]])
    mask = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    found = tvae._real_loss(Scored(), codes, mask, decoder=decoder, draws=StillDraws())
    assert found.tolist() == pytest.approx([7.0, 10.0, 0.0])


def phase_of(
    generator: Generator, *, weight: float, rate: float = 1e-2, seed: int = 0
) -> tuple[VariationalPhase, np.random.Generator]:
    """A phase whose targets are independence, pulled to with that weight."""
    targets = Targets([2, 2], patients=40, device=CPU)
    targets.add_pair((0, 1), np.full((2, 2), 10.0), weight=weight)
    settings = VariationalSettings(steps=150, hidden=16, learning_rate=rate, refiner_rate=rate, expected_batch=64)
    draws = seeded(seed, 1)
    torch.manual_seed(seed)
    return (
        VariationalPhase(generator, targets, settings=settings, draws=draws, private_draws=seeded(seed, 2)),
        draws,
    )


def test_a_decoder_without_a_refiner_is_refused() -> None:
    with pytest.raises(InternalError, match="without a refiner"):
        phase_of(Generator(sizes=(2, 2), components=5), weight=0.0)


def test_gradients_teach_the_decoder_what_the_marginals_did_not_say() -> None:
    # Rows (0, 0) and (1, 1) alone; the mixture knows nothing of it, and no marginal pulls.
    torch.manual_seed(0)
    generator = Generator(sizes=(2, 2), components=16, latent=4, hidden=16)
    before = generator.mixture.logits.clone()
    phase, _ = phase_of(generator, weight=0.0)
    codes = np.repeat([[0, 0], [1, 1]], 32, axis=0)
    held = PrivateCodes(codes, sizes=(2, 2), owners=np.arange(64), patients=64, noise=Recorder())
    mechanism = step_of(rate=1.0, sigma=1.0, clip=10.0, expected=64.0)
    account = open_account(mechanism.event.model_copy(update={"count": 100}))

    def alike() -> float:
        rows = sample_rows(generator, 4000, np.random.default_rng(3))
        return float((rows[:, :2] * rows[:, 2:]).sum(dim=1).mean())

    assert alike() == pytest.approx(0.5, abs=0.05)
    with one_thread():
        for _ in range(100):
            phase.round(held, account, mechanism=mechanism)
    assert alike() > 0.9
    assert torch.equal(generator.mixture.logits, before)
    assert [(e.stage, e.count) for e in account.events] == [("g", 100)]


def test_rounds_of_no_patient_and_no_noise_leave_finite_weights() -> None:
    torch.manual_seed(0)
    generator = Generator(sizes=(2, 2), components=16, latent=4, hidden=16)
    phase, _ = phase_of(generator, weight=1.0)
    held = PrivateCodes(
        np.zeros((0, 2), dtype=np.int64), sizes=(2, 2), owners=np.zeros(0, dtype=np.int64), patients=0, noise=Recorder()
    )
    mechanism = step_of(rate=0.5, sigma=1.0, clip=1.0, expected=64.0)
    before = {name: value.clone() for name, value in phase.tensors().items() if "encoder" in name}
    for _ in range(20):
        phase.round(held, open_account(mechanism.event), mechanism=mechanism)
    assert all(value.isfinite().all() for value in phase.tensors().values())
    weights = [name for name in before if name.startswith("both.weight.encoder")]
    assert weights
    for name in weights:  # a gradient of zeros moves nothing
        assert torch.equal(phase.tensors()[name], before[name])
    assert sample_rows(generator, 50, np.random.default_rng(0)).isfinite().all()


def test_a_phase_put_aside_goes_on_as_if_it_had_not_been() -> None:
    mechanism = step_of(rate=1.0, sigma=1.0, clip=1.0, expected=64.0)
    codes = np.repeat([[0, 0], [1, 1]], 32, axis=0)

    def begun(seed: int) -> tuple[VariationalPhase, Generator, np.random.Generator]:
        torch.manual_seed(seed)
        generator = Generator(sizes=(2, 2), components=16, latent=4, hidden=16)
        phase, draws = phase_of(generator, weight=1.0, seed=seed)
        return phase, generator, draws

    def rounds(phase: VariationalPhase, times: int) -> None:
        held = PrivateCodes(codes, sizes=(2, 2), owners=np.arange(64), patients=64, noise=Recorder())
        for _ in range(times):
            phase.round(held, open_account(mechanism.event), mechanism=mechanism)

    first, generator, draws = begun(0)
    rounds(first, 3)
    aside = {name: value.clone() for name, value in first.tensors().items()}
    again, other, later = begun(1)
    assert not torch.equal(generator.refiner.out.bias, other.refiner.out.bias)
    again.restore(aside)
    for name, value in generator.refiner.state_dict().items():
        assert torch.equal(value, other.refiner.state_dict()[name])
    # With the draws of the one that went on, and its mixture, the other comes out the same.
    other.mixture.load_state_dict(generator.mixture.state_dict())
    later.bit_generator.state = draws.bit_generator.state
    again._private_draws.bit_generator.state = first._private_draws.bit_generator.state
    rounds(first, 2)
    rounds(again, 2)
    for name, value in first.tensors().items():
        torch.testing.assert_close(value, again.tensors()[name])
