"""A release's account played back on canaries: each event by the door's own mechanism, with the release's own noise.

No patient is at hand. Canaries are as far from each other as patients can be, each in a cell or a direction of its own
in whatever was bought, and the attacker sees all of it, not only what the release kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from synthehr.auditing.door import Door, RunAccount
from synthehr.auditing.gradients import directions
from synthehr.auditing.mechanisms import Setting, members, one_run
from synthehr.evaluation.audit_result import Audited
from synthehr.privacy.accountant import EpsilonDelta, Event, Gaussian, PoissonSampledGaussian
from synthehr.privacy.rows import GradientMechanism
from synthehr.randomness import FloatArray

__all__ = ["replay", "replayed_stages"]

_CLIP = 1.0


def replayed_stages(events: Sequence[Event]) -> tuple[list[Event], list[str]]:
    """The events that a replay runs, and the stages that it leaves out.

    Left out are the count and the distances by which joints are chosen (in one run they would add up all canaries),
    and the part of delta for naming values. What is left out only weakens the attacker.
    """
    run: list[Event] = [e for e in events if not isinstance(e, EpsilonDelta) and not e.stage.startswith("weigh ")]
    left = [event.stage for event in events if event not in run]
    return run, list(dict.fromkeys(left))


def replay(
    events: Sequence[Event],
    setting: Setting,
    *,
    alpha: float,
    on_progress: Callable[[str], None] | None = None,
) -> Audited:
    """One run of all of a release's events on canaries.

    Args:
        events: the release's account.
        setting: the claim, the canaries and the door.
        alpha: chance of accusing a correct release.
        on_progress: told each stage.
    """
    run, _ = replayed_stages(events)

    def scores(setting: Setting, coins: np.ndarray, canaries: int) -> FloatArray:
        total = np.zeros(canaries)
        for event in run:
            if on_progress is not None:
                on_progress(event.stage)
            if isinstance(event, Gaussian):
                total += _counted(setting.door, event, coins)
            elif isinstance(event, PoissonSampledGaussian):
                total += _pulled(setting.door, event, coins)
        return total

    return Audited(
        mechanism="account",
        claimed=setting.epsilon,
        experiments={"cells and directions of their own": one_run(scores)(setting, alpha)},
    )


def _counted(door: Door, event: Gaussian, coins: np.ndarray) -> FloatArray:
    """The noisy count of each canary's cell, in the units in which counts of different noise add up."""
    who, owners, patients = members(coins, rows=1)
    codes = door.open_codes(who[:, None], sizes=(len(coins),), owners=owners, patients=patients)
    single = event.model_copy(update={"count": 1})
    total = np.zeros(len(coins))
    for _ in range(event.count):
        (counts,) = codes.marginals(RunAccount(), [(0,)], shares=[1.0], event=single)
        total += counts / event.noise_multiplier**2
    return total


def _pulled(door: Door, event: PoissonSampledGaussian, coins: np.ndarray) -> FloatArray:
    """Each canary's direction of the noisy gradients, likewise."""
    single = event.model_copy(update={"count": 1})
    mechanism = GradientMechanism(event=single, clip_norm=_CLIP, expected_batch=1.0)
    codes, gradients = directions(door, coins, length=math.sqrt(2.0) * _CLIP)
    total = np.zeros(len(coins))
    for _ in range(event.count):
        noisy = codes.noisy_gradient(RunAccount(), gradients, mechanism=mechanism)
        total += noisy.double().numpy()[: len(coins)]
    return total * event.sampling_probability / event.noise_multiplier**2
