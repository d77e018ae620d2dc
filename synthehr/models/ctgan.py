"""dp-ctgan: the generator that was fitted to bought marginals, sharpened by a critic with private gradients."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from synthehr.models.dpsgd import PatientGradients
from synthehr.models.learner import Learner
from synthehr.models.marginals import Conditions, FitSettings, Targets, sample_rows
from synthehr.models.networks import Critic, Generator, one_hot, relaxed
from synthehr.privacy.accountant import Account
from synthehr.privacy.rows import GradientMechanism, PrivateCodes
from synthehr.randomness import FloatArray, IntArray

__all__ = ["CriticPhase", "CriticSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticSettings:
    """The adversarial phase. ``steps`` times ``critic_steps`` private gradients are planned before it starts.

    ``block`` rounds at a time are counted ahead of running.
    """

    steps: int = 200
    critic_steps: int = 4
    expected_batch: int = 256
    clip_norm: float = 1.0
    hidden: int = 64
    learning_rate: float = 1e-3
    penalty: float = 1.0
    weight: float = 1.0
    block: int = 10


class CriticPhase:
    """Rounds of private critic steps, each followed by a generator step that follows critic and marginals.

    Args:
        generator: already fitted to the marginals; trained further in place.
        targets: bought marginals.
        conditions: drawn from bought counts.
        settings: of the adversarial phase.
        fit: of the phase before it.
        draws: reproducible; their number does not depend on private rows.
        private_draws: for conditions of real rows, whose number is private; never from a known seed.
    """

    def __init__(
        self,
        generator: Generator,
        targets: Targets,
        conditions: Conditions,
        *,
        settings: CriticSettings,
        fit: FitSettings,
        draws: np.random.Generator,
        private_draws: np.random.Generator,
    ) -> None:
        self._device = targets.share.device
        self._generator, self._targets, self._conditions = generator, targets, conditions
        self._settings, self._batch = settings, fit.batch
        self._draws, self._private_draws = draws, private_draws
        self._critic = Critic(sizes=conditions.sizes, hidden=settings.hidden).to(self._device)
        self._private = PatientGradients(self._critic)
        self._anchor = copy.deepcopy(generator)
        self._anchor.requires_grad_(requires_grad=False)
        self._critic_learner = Learner(self._critic, rate=settings.learning_rate, steps=None, betas=(0.0, 0.9))
        self._learner = Learner(generator, rate=fit.learning_rate / 10.0, steps=settings.steps, betas=(0.5, 0.9))

    def tensors(self) -> dict[str, Tensor]:
        """Both networks and their optimisers, to go on from."""
        parts = {"critic": self._critic_learner, "generator": self._learner}
        return {f"{part}.{n}": value for part, learner in parts.items() for n, value in learner.tensors().items()}

    def restore(self, held: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`tensors` gave."""
        for part, learner in (("critic.", self._critic_learner), ("generator.", self._learner)):
            learner.restore({n.removeprefix(part): value for n, value in held.items() if n.startswith(part)})

    def round(self, codes: PrivateCodes, account: Account, *, mechanism: GradientMechanism) -> None:
        """The critic's steps and one of the generator.

        Args:
            codes: private rows, behind the door.
            account: where each critic step is booked.
            mechanism: clip, noise and rate of a critic step.

        Privacy: one run of ``mechanism.event`` a critic step. The generator, the fake side of the critic's loss and
        the penalty see no private row: they are post-processing.
        """
        settings, generator, draws = self._settings, self._generator, self._draws
        for _ in range(settings.critic_steps):
            noisy = codes.noisy_gradient(account, self._real_side, mechanism=mechanism)
            fake = _fake_loss(self._critic, generator, self._anchor, self._conditions, settings=settings, draws=draws)
            self._critic_learner.clear()
            fake.backward()
            self._private.set_gradient(noisy)
            self._critic_learner.step()
        noise = torch.from_numpy(draws.standard_normal((self._batch, generator.latent), dtype=np.float32))
        condition = self._conditions.draw(self._batch, draws)
        rows = generator(noise.to(self._device), condition)
        score = self._critic(_drawn(rows, draws=draws, sizes=generator.sizes), condition).mean()
        self._learner.follow(self._targets.loss(rows) - settings.weight * score)

    def _real_side(self, batch: IntArray, mask: FloatArray) -> Tensor:
        return self._private(
            lambda network: _real_loss(
                network, batch, mask, sizes=self._critic.sizes, draws=self._private_draws, device=self._device
            )
        )


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
