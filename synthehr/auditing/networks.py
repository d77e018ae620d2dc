"""Experiments on the gradients and the phases of the models themselves, as small networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from synthehr.auditing.door import RunAccount, fair_coins
from synthehr.auditing.gradients import step_of
from synthehr.auditing.mechanisms import Experiment, Setting, grid_of, pair_of
from synthehr.evaluation.audit import EpsilonBound, audit_guesses
from synthehr.randomness import FloatArray, IntArray, SystemNoise, seeded

if TYPE_CHECKING:
    from torch import Tensor

    from synthehr.models.marginals import Targets
    from synthehr.models.networks import Critic, Generator
    from synthehr.models.phase import GradientPhase
    from synthehr.privacy.gradients import PatientGradients

__all__ = ["CRITIC", "ENCODER", "batch_gradients", "critic_canaries", "phase_rounds"]

_CELLS, _HIDDEN = 1_000, 8
_COHORTS = 100


class Begin(Protocol):
    """Begins a phase over two columns of two values, the same weights in every call."""

    def __call__(
        self, draws: np.random.Generator, private_draws: np.random.Generator
    ) -> tuple[GradientPhase, Generator]:
        """A phase, and the generator that it trains."""


def critic_canaries(setting: Setting, alpha: float) -> EpsilonBound:
    """The critic's gradients of many cohorts: each canary alone has its cell, and so a column of the first layer.

    Cohorts of a thousand canaries with none in common are one mechanism on all of them, with the promise of each
    (parallel composition). The weights are chosen so that most of a gradient lies in the canary's own column; they
    are public, and so is each canary's gradient: the score is the noisy gradient's part along it.
    """
    import torch

    from synthehr.models.ctgan import _real_loss
    from synthehr.models.dpsgd import PrivateNetwork
    from synthehr.models.networks import Critic

    cohorts = max(setting.canaries // _CELLS, 1)
    mechanism = step_of(setting, rate=1.0)
    critic = _steep_critic(Critic, cells=_CELLS)
    private = PrivateNetwork(critic)

    def gradients(codes: IntArray, mask: FloatArray) -> PatientGradients:
        return private(
            lambda network: _real_loss(
                network, codes, mask, sizes=critic.sizes, draws=SystemNoise().spawn(), device=torch.device("cpu")
            )
        )

    own = _own_parts(gradients, mechanism.clip_norm)
    scores, coins = [], []
    for _ in range(cohorts):
        inside = fair_coins(_CELLS)
        who = np.flatnonzero(inside)
        codes = setting.door.open_codes(who[:, None], sizes=(_CELLS,), owners=np.arange(len(who)), patients=len(who))
        noisy = codes.noisy_gradient(RunAccount(), gradients, mechanism=mechanism).double()
        scores.append((_columns(noisy) * own).sum(dim=1).numpy())
        coins.append(inside)
    everyone = np.concatenate(coins)
    return audit_guesses(
        np.concatenate(scores), everyone, grid=grid_of(len(everyone)), delta=setting.delta, alpha=alpha
    )


def _steep_critic(kind: type[Critic], *, cells: int) -> Critic:
    """A critic whose later layers pass on much and hold little."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        critic = kind(sizes=(cells,), hidden=_HIDDEN)
    with torch.no_grad():
        for at, parameter in enumerate(critic.parameters()):
            parameter.mul_(0.01 if at < 2 else 100.0 if parameter.ndim == 2 else 1.0)
    return critic


def _columns(flat: Tensor) -> Tensor:
    """Of a flat gradient each cell's part of the first layer, as a row and as a condition. Shape ``(cells, n)``."""
    import torch

    first = flat[: _HIDDEN * 2 * _CELLS].view(_HIDDEN, 2 * _CELLS).T
    return torch.cat([first[:_CELLS], first[_CELLS:]], dim=1)


def _own_parts(gradients: Callable[[IntArray, FloatArray], PatientGradients], norm: float) -> Tensor:
    """Each canary's clipped gradient in its own column, all of length about 1. Shape ``(cells, n)``."""
    import torch

    rows = []
    for part in np.array_split(np.arange(_CELLS), 20):
        matrix = gradients(part[:, None, None], np.ones((len(part), 1))).matrix().double()
        rows += [_columns(one)[at] for one, at in zip(matrix, part, strict=True)]
    own = torch.stack(rows)
    scaled: Tensor = own * (norm / own.norm(dim=1, keepdim=True))
    return scaled


def batch_gradients(gradients: Callable[[IntArray, FloatArray], PatientGradients]) -> Experiment:
    """A cohort with and without one patient: all are drawn, and that one's gradient must be all that moves.

    Of many made-up cohorts the one is taken in which a patient moves the clipped sum most. The attacker knows both
    sums, and looks along the line between them.

    Args:
        gradients: of patients with two columns of five cells; taken once for each batch. They must not draw at
            random: draws that stand still in each cohort and differ between the two are no work of one patient.
    """

    def run(setting: Setting, present: bool) -> Callable[[], FloatArray]:
        from synthehr.privacy.gradients import PatientGradients

        values, at, moved = _worst_cohort(gradients)
        kept = values if present else np.delete(values, at)
        along = (moved / moved.norm()).numpy()
        codes, patients = np.stack([kept, kept], axis=1), len(kept)
        held = setting.door.open_codes(
            codes, sizes=(5, 5), owners=np.arange(patients), patients=patients, noise=setting.door.noise()
        )
        found = PatientGradients([gradients(codes[:, None, :], np.ones((patients, 1))).matrix()])
        mechanism = step_of(setting, rate=1.0, clip=1.0)

        def once() -> FloatArray:
            noisy = held.noisy_gradient(RunAccount(), lambda *_: found, mechanism=mechanism)
            return np.array([noisy.double().numpy() @ along])

        return once

    return pair_of(run)


def _worst_cohort(
    gradients: Callable[[IntArray, FloatArray], PatientGradients],
) -> tuple[IntArray, int, Tensor]:
    """The cell of each patient, the patient who moves the clipped sum most, and by what."""
    from synthehr.privacy.gradients import clipped_sum

    def total(values: IntArray) -> Tensor:
        codes = np.stack([values, values], axis=1)[:, None, :]
        return clipped_sum(gradients(codes, np.ones((len(values), 1))), norm=1.0)

    draws, found, most = np.random.default_rng(0), None, -1.0
    for _ in range(_COHORTS):
        values = draws.integers(0, 5, int(draws.integers(2, 13)))
        at = int(draws.integers(len(values)))
        moved = total(values) - total(np.delete(values, at))
        if float(moved.norm()) > most:
            found, most = (values, at, moved), float(moved.norm())
    assert found is not None
    return found


def phase_rounds(begin: Begin, draws_of: Callable[[np.random.Generator], np.random.Generator]) -> Experiment:
    """A round of a phase on one patient, or on two, all drawn: all weights after it, and the public seed's next draw.

    (A generator that draws 64 bits at a time may hide one draw more among many; between one patient and two it shows.)

    Args:
        begin: the phase.
        draws_of: where conditions of rows are drawn from, given the seeded stream.
    """

    def run(setting: Setting, present: bool) -> Callable[[], FloatArray]:
        codes = np.zeros((1 + present, 2), dtype=np.int64)
        codes[1:] = 1
        patients = len(codes)
        mechanism = step_of(setting, rate=1.0, clip=1.0, expected=2.0)

        def once() -> FloatArray:
            held = setting.door.open_codes(codes, sizes=(2, 2), owners=np.arange(patients), patients=patients)
            draws = seeded(0, 1)
            phase, generator = begin(draws, draws_of(draws))
            phase.round(held, RunAccount(), mechanism=mechanism)
            left = [value.double().numpy().ravel() for value in (phase.tensors() | generator.state_dict()).values()]
            return np.concatenate([*left, [draws.random()]])

        return once

    return pair_of(run, runs=450)


def _small_generator() -> tuple[Generator, Targets]:
    """A generator of two columns of two values, and made-up marginals."""
    import torch

    from synthehr.models.marginals import Targets
    from synthehr.models.networks import Generator

    targets = Targets([2, 2], patients=20, device=torch.device("cpu"))
    targets.add_pair((0, 1), np.eye(2) * 10.0, weight=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        generator = Generator(sizes=[2, 2], components=12, latent=4, hidden=8)
        with torch.no_grad():
            generator.mixture.logits.normal_()
    return generator, targets


def _begin_critic(draws: np.random.Generator, private_draws: np.random.Generator) -> tuple[GradientPhase, Generator]:
    import torch

    from synthehr.models.ctgan import CriticPhase, CriticSettings

    generator, targets = _small_generator()
    settings = CriticSettings(steps=1, critic_steps=1, hidden=8, expected_batch=10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        return CriticPhase(generator, targets, settings=settings, draws=draws, private_draws=private_draws), generator


def _begin_encoder(draws: np.random.Generator, private_draws: np.random.Generator) -> tuple[GradientPhase, Generator]:
    import torch

    from synthehr.models.tvae import VariationalPhase, VariationalSettings

    generator, targets = _small_generator()
    settings = VariationalSettings(steps=1, hidden=8, expected_batch=10)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        phase = VariationalPhase(generator, targets, settings=settings, draws=draws, private_draws=private_draws)
    return phase, generator


def _from_the_system(_: np.random.Generator) -> np.random.Generator:
    return SystemNoise().spawn()


CRITIC: Mapping[str, Experiment] = {
    "cells of their own": critic_canaries,
    "rounds of training": phase_rounds(_begin_critic, _from_the_system),
}
"""Experiments on the gradients of dp-ctgan's critic, and on what its training leaves behind."""

ENCODER: Mapping[str, Experiment] = {
    "rounds of training": phase_rounds(_begin_encoder, _from_the_system),
}
"""The same of dp-tvae's encoder and refiner."""
