"""dp-tvae: a decoder that refines the mixture fitted to bought marginals, with its encoder in one private gradient.

Xu et al. 2019, section 4.4. Departures are marked NOTE[DIFF].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from synthehr.errors import InternalError
from synthehr.models.dpsgd import PrivateNetwork
from synthehr.models.learner import Learner
from synthehr.models.marginals import Targets
from synthehr.models.networks import Encoder, Generator, Refiner, conditioned
from synthehr.models.phase import GradientSettings, conditions_of_rows
from synthehr.privacy.accountant import Account
from synthehr.privacy.gradients import PatientGradients
from synthehr.privacy.rows import GradientMechanism, PrivateCodes
from synthehr.randomness import FloatArray, IntArray

__all__ = ["VariationalPhase", "VariationalSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariationalSettings(GradientSettings):
    """The variational phase: a private gradient of encoder and decoder a round, then a step of the decoder."""

    steps: int = 400
    hidden: int = 64
    learning_rate: float = 3e-4

    @property
    def gradients(self) -> int:
        """Private gradients a round."""
        return 1


class Variational(nn.Module):
    """Encoder and refiner with their loss, so that both lie inside one private gradient."""

    def __init__(self, encoder: Encoder, refiner: Refiner, *, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.refiner = refiner
        self.sizes = sizes

    def forward(self, rows: Tensor, scores: Tensor, condition: Tensor, noise: Tensor) -> Tensor:
        """Minus the evidence lower bound of each row given its component and condition, in nats.

        Shape: one-hot ``rows``, a component's ``scores`` and ``condition (..., cells)``, standard normal
        ``noise (..., latent)``; result ``(...)``.
        """
        component = conditioned(scores, condition, sizes=self.sizes)
        mean, log_variance = self.encoder(rows, component)
        refined = scores + self.refiner(mean + (0.5 * log_variance).exp() * noise, component)
        made = conditioned(refined, condition, sizes=self.sizes)
        likelihood = (rows * (made + 1e-6).log()).sum(dim=-1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - log_variance - 1.0).sum(dim=-1)
        return torch.as_tensor(divergence - likelihood)


class VariationalPhase:
    """Rounds of a private step of encoder and decoder, each followed by a decoder step towards the marginals.

    NOTE[DIFF] beside the normal noise the code of a row has a component of the mixture, drawn from its exact posterior.
    NOTE[DIFF] the decoder gets a condition, read off the row, so that it makes rows as dp-ctgan's generator does.
    NOTE[DIFF] no free sigma: numbers are cells here, and their likelihood is a category's.

    Args:
        generator: the decoder. Its mixture is already fitted to the marginals, and left as it is; its refiner is
            trained in place.
        targets: bought marginals.
        settings: of the variational phase.
        draws: reproducible; their number does not depend on private rows.
        private_draws: for codes and conditions of real rows, whose number is private; never from a known seed.
    """

    name = "encoder"

    def __init__(
        self,
        generator: Generator,
        targets: Targets,
        *,
        settings: VariationalSettings,
        draws: np.random.Generator,
        private_draws: np.random.Generator,
    ) -> None:
        if generator.refiner is None:
            raise InternalError("a decoder without a refiner has nothing that gradients could train")
        self._device = targets.share.device
        self._generator, self._targets = generator, targets
        self._draws, self._private_draws = draws, private_draws
        generator.mixture.requires_grad_(requires_grad=False)
        encoder = Encoder(sizes=generator.sizes, hidden=settings.hidden, latent=generator.latent).to(self._device)
        both = Variational(encoder, generator.refiner, sizes=generator.sizes)
        self._private = PrivateNetwork(both)
        self._private_learner = Learner(both, rate=settings.learning_rate, steps=None, betas=(0.5, 0.999))
        self._learner = Learner(generator.refiner, rate=settings.refiner_rate, steps=settings.steps, betas=(0.5, 0.9))

    def tensors(self) -> dict[str, Tensor]:
        """Both networks and their optimisers, to go on from."""
        parts = {"both": self._private_learner, "decoder": self._learner}
        return {f"{part}.{n}": value for part, learner in parts.items() for n, value in learner.tensors().items()}

    def restore(self, held: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`tensors` gave."""
        for part, learner in (("both.", self._private_learner), ("decoder.", self._learner)):
            learner.restore({n.removeprefix(part): value for n, value in held.items() if n.startswith(part)})

    def round(self, codes: PrivateCodes, account: Account, *, mechanism: GradientMechanism) -> None:
        """One private step of encoder and decoder, and one of the decoder towards the marginals.

        Args:
            codes: private rows, behind the door.
            account: where the private step is booked.
            mechanism: its clip, noise and rate.

        Privacy: one run of ``mechanism.event``; every weight that it trains lies inside the clip. The step towards
        the marginals sees no private row: it is post-processing.
        """
        noisy = codes.noisy_gradient(account, self._real_side, mechanism=mechanism)
        self._private_learner.clear()
        self._private.set_gradient(noisy)
        self._private_learner.step()
        rows = self._generator(self._generator.draw(len(self._generator.mixture.logits), self._draws))
        self._learner.follow(self._targets.loss(rows))

    def _real_side(self, batch: IntArray, mask: FloatArray) -> PatientGradients:
        return self._private(
            lambda network: _real_loss(network, batch, mask, decoder=self._generator, draws=self._private_draws)
        )


def _real_loss(
    network: nn.Module, codes: IntArray, mask: FloatArray, *, decoder: Generator, draws: np.random.Generator
) -> Tensor:
    """The mean loss of each patient's rows, shape ``(patients,)``; each row's condition is read off itself."""
    logits = decoder.mixture.logits
    rows, condition = conditions_of_rows(codes, sizes=decoder.sizes, draws=draws, device=logits.device)
    weight = torch.from_numpy(mask).to(rows)
    with torch.no_grad():
        upto = (rows @ decoder.mixture().clamp(min=1e-9).log().T).softmax(dim=-1).cumsum(dim=-1)
        point = torch.from_numpy(draws.random(mask.shape)).to(upto).unsqueeze(-1) * upto[..., -1:]
        component = (upto <= point).sum(dim=-1).clamp(max=len(logits) - 1)
    noise = torch.from_numpy(draws.standard_normal((*mask.shape, decoder.latent), dtype=np.float32)).to(rows)
    losses = network(rows, logits[component], condition, noise) * weight
    per_patient: Tensor = losses.sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)
    return per_patient
