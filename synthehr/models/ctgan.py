"""dp-ctgan: the generator that was fitted to bought marginals, sharpened by a critic with private gradients."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from synthehr.models.dpsgd import PatientGradients
from synthehr.models.marginals import Conditions, FitSettings, PairTargets, sample_rows
from synthehr.models.networks import Critic, Generator, one_hot, relaxed
from synthehr.privacy.accountant import Account
from synthehr.privacy.rows import GradientMechanism, PrivateCodes
from synthehr.randomness import FloatArray, IntArray

__all__ = ["CriticSettings", "train_with_critic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticSettings:
    """The adversarial phase. ``steps`` times ``critic_steps`` private gradients are planned before it starts."""

    steps: int = 200
    critic_steps: int = 4
    expected_batch: int = 256
    clip_norm: float = 1.0
    hidden: int = 64
    learning_rate: float = 1e-3
    penalty: float = 1.0
    weight: float = 1.0


def train_with_critic(
    generator: Generator,
    targets: PairTargets,
    conditions: Conditions,
    codes: PrivateCodes,
    account: Account,
    *,
    mechanism: GradientMechanism,
    settings: CriticSettings,
    fit: FitSettings,
    draws: np.random.Generator,
    private_draws: np.random.Generator,
) -> Iterator[int]:
    """Alternate private critic steps with generator steps that follow critic and marginals; yields steps done.

    Args:
        generator: already fitted to the marginals; trained further in place.
        targets: bought marginals.
        conditions: drawn from bought counts.
        codes: private rows, behind the door.
        account: where each critic step is booked.
        mechanism: clip, noise and rate of a critic step.
        settings: of the adversarial phase.
        fit: of the phase before it.
        draws: reproducible; their number does not depend on private rows.
        private_draws: for conditions of real rows, whose number is private; never from a known seed.

    Privacy: one run of ``mechanism.event`` a critic step. The generator, the fake side of the critic's loss and
    the penalty see no private row: they are post-processing.
    """
    device = targets.share.device
    critic = Critic(sizes=conditions.sizes, hidden=settings.hidden).to(device)
    private = PatientGradients(critic)
    anchor = copy.deepcopy(generator)
    anchor.requires_grad_(requires_grad=False)
    critic_optimiser = torch.optim.Adam(critic.parameters(), lr=settings.learning_rate, betas=(0.0, 0.9))
    optimiser = torch.optim.Adam(generator.parameters(), lr=fit.learning_rate / 10.0, betas=(0.5, 0.9))
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)

    def real_side(batch: IntArray, mask: FloatArray) -> Tensor:
        return private(
            lambda network: _real_loss(network, batch, mask, sizes=critic.sizes, draws=private_draws, device=device)
        )

    for step in range(settings.steps):
        for _ in range(settings.critic_steps):
            noisy = codes.noisy_gradient(account, real_side, mechanism=mechanism)
            fake = _fake_loss(critic, generator, anchor, conditions, settings=settings, draws=draws)
            critic_optimiser.zero_grad(set_to_none=True)
            fake.backward()
            private.set_gradient(noisy)
            critic_optimiser.step()
        noise = torch.from_numpy(draws.standard_normal((fit.batch, generator.latent), dtype=np.float32)).to(device)
        condition = conditions.draw(fit.batch, draws)
        rows = generator(noise, condition)
        score = critic(_drawn(rows, draws=draws, sizes=generator.sizes), condition).mean()
        loss = targets.loss(rows) - settings.weight * score
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        rate.step()
        yield step + 1


def _real_loss(
    critic: nn.Module,
    codes: IntArray,
    mask: FloatArray,
    *,
    sizes: tuple[int, ...],
    draws: np.random.Generator,
    device: torch.device,
) -> Tensor:
    """Minus the critic's mean score of each patient's rows, shape ``(patients,)``.

    The condition is read off the row itself: a uniformly random column, its own cell. Nothing is looked up.
    """
    at = torch.from_numpy(codes).to(device)
    rows = one_hot(at, sizes=sizes)
    weight = torch.from_numpy(mask).to(device=device, dtype=rows.dtype)
    column = draws.integers(0, codes.shape[-1], codes.shape[:-1])
    chosen = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(device)
    condition = rows * (chosen == torch.from_numpy(column).to(device).unsqueeze(-1))
    scores = critic(rows, condition) * weight
    per_patient: Tensor = -scores.sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
    return per_patient


def _drawn(probabilities: Tensor, *, draws: np.random.Generator, sizes: tuple[int, ...]) -> Tensor:
    gumbel = torch.from_numpy(draws.gumbel(size=tuple(probabilities.shape)).astype(np.float32))
    return relaxed(probabilities, gumbel.to(probabilities.device), sizes=sizes)


def _fake_loss(
    critic: Critic,
    generator: Generator,
    anchor: Generator,
    conditions: Conditions,
    *,
    settings: CriticSettings,
    draws: np.random.Generator,
) -> Tensor:
    """The critic's mean score of fakes, plus a penalty on its slope between fakes and draws of the first fit.

    NOTE[DIFF] the slope is taken between two synthetic rows: between a real and a fake one it would spend budget
    outside the account (WGAN-GP under Opacus's hooks does).
    """
    rows = settings.expected_batch
    device = next(critic.parameters()).device
    with torch.no_grad():
        noise = torch.from_numpy(draws.standard_normal((rows, generator.latent), dtype=np.float32)).to(device)
        condition = conditions.draw(rows, draws)
        fakes = _drawn(generator(noise, condition), draws=draws, sizes=generator.sizes)
    other = sample_rows(anchor, conditions, rows, draws)
    part = torch.from_numpy(draws.random((rows, 1), dtype=np.float32)).to(device)
    between = (part * fakes + (1.0 - part) * other).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between, condition).sum(), between, create_graph=True)
    penalty: Tensor = (slope.norm(dim=1) - 1.0).clamp(min=0.0).square().mean()
    score: Tensor = critic(fakes, condition).mean()
    return score + settings.penalty * penalty
