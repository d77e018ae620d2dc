"""The adversarial phase: what it learns, what it leaves alone, and its generator's steps without private rows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from synthehr.errors import InternalError
from synthehr.models.ctgan import CriticPhase, CriticSettings
from synthehr.models.marginals import Targets
from synthehr.models.networks import Generator
from synthehr.privacy.rows import PrivateCodes
from synthehr.randomness import seeded

sys.path.insert(0, str(Path(__file__).parent.parent / "privacy"))

from defects import Recorder, open_account, step_of

CODES = np.repeat([[0, 0], [1, 1]], 32, axis=0)
MECHANISM = step_of(rate=1.0, sigma=1.0, clip=1.0, expected=64.0)


def generator_of(*, hidden: int = 16) -> Generator:
    torch.manual_seed(0)
    return Generator(sizes=(2, 2), components=16, latent=4, hidden=hidden)


def phase_of(generator: Generator, **settings) -> CriticPhase:
    targets = Targets([2, 2], patients=40, device=torch.device("cpu"))
    targets.add_pair((0, 1), np.full((2, 2), 10.0), weight=1.0)
    given = CriticSettings(steps=20, critic_steps=3, hidden=8, expected_batch=64, **settings)
    torch.manual_seed(1)
    return CriticPhase(generator, targets, settings=given, draws=seeded(0, 1), private_draws=seeded(0, 2))


def held_by(codes: np.ndarray) -> PrivateCodes:
    return PrivateCodes(codes, sizes=(2, 2), owners=np.arange(len(codes)), patients=len(codes), noise=Recorder())


def test_a_generator_without_a_refiner_is_refused() -> None:
    with pytest.raises(InternalError, match="without a refiner"):
        phase_of(generator_of(hidden=0))


def test_a_round_books_each_of_its_gradients_and_leaves_the_mixture_alone() -> None:
    generator = generator_of()
    mixture = generator.mixture.logits.clone()
    refiner = {name: value.clone() for name, value in generator.refiner.state_dict().items()}
    phase = phase_of(generator)
    account = open_account(MECHANISM.event.model_copy(update={"count": 6}))
    for _ in range(2):
        phase.round(held_by(CODES), account, mechanism=MECHANISM)
    assert [event.count for event in account.events] == [2 * 3]
    assert torch.equal(generator.mixture.logits, mixture)
    # The last layer starts at zero, so that the first round moves it alone, and the second the others too.
    assert all(not torch.equal(value, refiner[name]) for name, value in generator.refiner.state_dict().items())
    with pytest.raises(InternalError, match="not in the plan"):
        phase.round(held_by(CODES), account, mechanism=MECHANISM)


def test_the_critic_scores_what_patients_have_above_what_they_have_not() -> None:
    # The generator stands still, at independent columns, and the clip is beyond what gradients reach.
    phase = phase_of(generator_of(), learning_rate=1e-2, refiner_rate=0.0)
    mechanism = step_of(rate=1.0, sigma=1.0, clip=100.0, expected=64.0)
    account = open_account(mechanism.event.model_copy(update={"count": 60}))
    for _ in range(20):
        phase.round(held_by(CODES), account, mechanism=mechanism)
    with torch.no_grad():
        rows = torch.tensor([[1.0, 0, 1, 0], [0, 1.0, 0, 1], [1, 0, 0, 1.0], [0, 1, 1.0, 0]])
        condition = rows * torch.tensor([1.0, 1.0, 0.0, 0.0])
        score = phase._critic(rows, condition)
    assert float(score[:2].min()) > float(score[2:].max())


def test_rounds_of_no_patient_and_no_noise_leave_finite_weights() -> None:
    generator = generator_of()
    phase = phase_of(generator)
    account = open_account(MECHANISM.event.model_copy(update={"count": 60}))
    for _ in range(20):
        phase.round(held_by(np.zeros((0, 2), dtype=np.int64)), account, mechanism=MECHANISM)
    assert all(value.isfinite().all() for value in phase.tensors().values())
