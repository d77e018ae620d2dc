"""dp-ctgan: a generator that refines the mixture fitted to bought marginals, by a critic with private gradients."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from synthehr.errors import InternalError
from synthehr.models.dpsgd import PrivateNetwork
from synthehr.models.learner import Learner
from synthehr.models.marginals import Targets, sample_rows
from synthehr.models.networks import Critic, Generator, relaxed
from synthehr.models.phase import GradientSettings, conditions_of_rows
from synthehr.privacy.accountant import Account
from synthehr.privacy.gradients import PatientGradients
from synthehr.privacy.rows import GradientMechanism, PrivateCodes
from synthehr.randomness import FloatArray, IntArray

__all__ = ["CriticPhase", "CriticSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticSettings(GradientSettings):
    """The adversarial phase: ``critic_steps`` private gradients a round, then a step of the generator's refiner."""

    critic_steps: int = 4
    hidden: int = 64
    learning_rate: float = 1e-3
    penalty: float = 1.0
    weight: float = 1.0

    @property
    def gradients(self) -> int:
        """Private gradients a round."""
        return self.critic_steps


class CriticPhase:
    """Rounds of private critic steps, each followed by a generator step that follows critic and marginals.

    Args:
        generator: its mixture already fitted to the marginals, and left as it is; its refiner is trained in place.
        targets: bought marginals.
        settings: of the adversarial phase.
        draws: reproducible; their number does not depend on private rows.
        private_draws: for conditions of real rows, whose number is private; never from a known seed.
    """

    name = "critic"

    def __init__(
        self,
        generator: Generator,
        targets: Targets,
        *,
        settings: CriticSettings,
        draws: np.random.Generator,
        private_draws: np.random.Generator,
    ) -> None:
        if generator.refiner is None:
            raise InternalError("a generator without a refiner has nothing that a critic could train")
        self._device = targets.share.device
        self._generator, self._targets, self._settings = generator, targets, settings
        self._draws, self._private_draws = draws, private_draws
        self._critic = Critic(sizes=generator.sizes, hidden=settings.hidden).to(self._device)
        self._private = PrivateNetwork(self._critic)
        self._anchor = copy.deepcopy(generator)
        self._anchor.requires_grad_(requires_grad=False)
        generator.mixture.requires_grad_(requires_grad=False)
        self._critic_learner = Learner(self._critic, rate=settings.learning_rate, steps=None, betas=(0.0, 0.9))
        self._learner = Learner(generator.refiner, rate=settings.refiner_rate, steps=settings.steps, betas=(0.5, 0.9))

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
            fake = _fake_loss(self._critic, generator, self._anchor, settings=settings, draws=draws)
            self._critic_learner.clear()
            fake.backward()
            self._private.set_gradient(noisy)
            self._critic_learner.step()
        given = generator.draw(len(generator.mixture.logits), draws)
        rows = generator(given)
        score = self._critic(_drawn(rows, draws=draws, sizes=generator.sizes), given.condition).mean()
        self._learner.follow(self._targets.loss(rows) - settings.weight * score)

    def _real_side(self, batch: IntArray, mask: FloatArray) -> PatientGradients:
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
    """Minus the critic's mean score of each patient's rows, shape ``(patients,)``; conditions are read off the rows."""
    rows, condition = conditions_of_rows(codes, sizes=sizes, draws=draws, device=device)
    weight = torch.from_numpy(mask).to(device=device, dtype=rows.dtype)
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
        given = generator.draw(rows, draws)
        condition = given.condition
        fakes = _drawn(generator(given), draws=draws, sizes=generator.sizes)
    other = sample_rows(anchor, rows, draws)
    part = torch.from_numpy(draws.random((rows, 1), dtype=np.float32)).to(device)
    between = (part * fakes + (1.0 - part) * other).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between, condition).sum(), between, create_graph=True)
    penalty: Tensor = (slope.norm(dim=1) - 1.0).clamp(min=0.0).square().mean()
    score: Tensor = critic(fakes, condition).mean()
    return score + settings.penalty * penalty
