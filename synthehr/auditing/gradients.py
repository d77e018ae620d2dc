"""Experiments on the gradient mechanism: canaries with gradients of their own making, so that any clip is tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from synthehr.auditing.door import Door, RunAccount, noise_multiplier_for
from synthehr.auditing.mechanisms import Experiment, Setting, members, one_run, pair_of
from synthehr.privacy.accountant import PoissonSampledGaussian
from synthehr.privacy.rows import GradientMechanism, PrivateCodes
from synthehr.randomness import FloatArray, IntArray

if TYPE_CHECKING:
    from synthehr.privacy.gradients import PatientGradients

__all__ = ["GRADIENTS", "directions", "step_of"]

_RATE, _CLIP = 0.01, 10.0
_LONG = 10.0 * _CLIP
_ROWS, _PARTS, _WIDTH = 26, 62, 64


def step_of(setting: Setting, *, rate: float, clip: float = _CLIP, expected: float = 1.0) -> GradientMechanism:
    """One step that spends the promise."""
    sigma = noise_multiplier_for(epsilon=setting.epsilon, delta=setting.delta, rate=rate)
    event = PoissonSampledGaussian(stage="audit", sampling_probability=rate, noise_multiplier=sigma)
    return GradientMechanism(event=event, clip_norm=clip, expected_batch=expected)


def directions(
    door: Door, coins: np.ndarray, *, length: float
) -> tuple[PrivateCodes, Callable[[IntArray, FloatArray], PatientGradients]]:
    """The canaries that are in, each with three rows, and gradients of a direction of their own.

    The first row's gradient is 0; each of the two others has this length. A canary's direction is the coordinate of
    its number.
    """
    import torch

    from synthehr.privacy.gradients import Outer, PatientGradients

    side = math.isqrt(len(coins) - 1) + 1
    who, owners, patients = members(coins, rows=3)
    codes = door.open_codes(who[:, None], sizes=(len(coins),), owners=owners, patients=patients)

    def gradients(batch: IntArray, mask: FloatArray) -> PatientGradients:
        canary = torch.from_numpy(batch[:, :, 0])
        left = torch.nn.functional.one_hot(canary // side, side).double()
        right = torch.nn.functional.one_hot(canary % side, side).double()
        left *= torch.tensor([0.0, length, length])[: mask.shape[1], None]
        return PatientGradients([Outer(left, right)])

    return codes, gradients


def _directions(setting: Setting, coins: np.ndarray, canaries: int) -> FloatArray:
    """Each canary's gradient points in a direction of its own, twenty clips long over its rows."""
    codes, gradients = directions(setting.door, coins, length=_LONG)
    noisy = codes.noisy_gradient(RunAccount(), gradients, mechanism=step_of(setting, rate=1.0))
    return np.asarray(noisy.double().numpy())[:canaries]


def _patients(
    setting: Setting,
    codes: IntArray,
    gradients: Callable[[IntArray], PatientGradients],
    mechanism: GradientMechanism,
    *,
    rows: int = 1,
) -> Callable[[], FloatArray]:
    """Runs of one step on patients of ``rows`` rows each, one column of codes, shape ``(patients,)``."""
    door, patients = setting.door, len(codes)
    noise = door.noise()
    held = door.open_codes(
        np.repeat(codes, rows)[:, None],
        sizes=(2,),
        owners=np.repeat(np.arange(patients), rows),
        patients=patients,
        noise=noise,
    )

    def once() -> FloatArray:
        noisy = held.noisy_gradient(RunAccount(), lambda batch, _: gradients(batch[:, 0, 0]), mechanism=mechanism)
        return np.asarray(noisy.double().numpy())

    return once


def _aligned_rows(setting: Setting, present: bool) -> Callable[[], FloatArray]:
    """No patient, or one whose rows, but for an empty first one, all pull in one direction."""
    import torch

    from synthehr.privacy.gradients import Outer, PatientGradients

    def gradients(values: IntArray) -> PatientGradients:
        left = torch.full((len(values), _ROWS, 1), _LONG, dtype=torch.float64)
        left[:, 0] = 0.0
        return PatientGradients([Outer(left, torch.ones_like(left))])

    mechanism = step_of(setting, rate=1.0)
    return _patients(setting, np.zeros(int(present), dtype=np.int64), gradients, mechanism, rows=_ROWS)


def _many_layers(setting: Setting, present: bool) -> Callable[[], FloatArray]:
    """No patient, or one whose gradient is long in each part, and longest in those that stand behind a layer's bias."""
    import torch

    from synthehr.privacy.gradients import Outer, PatientGradients

    def gradients(values: IntArray) -> PatientGradients:
        one = torch.full((len(values), 1, 1), _LONG, dtype=torch.float64)
        return PatientGradients([Outer(one, torch.ones_like(one)), one[:, 0], *[100.0 * one[:, 0]] * _PARTS])

    return _patients(setting, np.zeros(int(present), dtype=np.int64), gradients, step_of(setting, rate=1.0))


def _one_of_a_few(setting: Setting, present: bool) -> Callable[[], FloatArray]:
    """Fifty patients with one gradient, or 51: a sampler that draws a fixed number draws none, or one."""
    return _patients(
        setting,
        np.zeros(50 + present, dtype=np.int64),
        lambda values: _plain(np.full(len(values), _LONG)),
        step_of(setting, rate=_RATE),
    )


def _one_of_its_kind(setting: Setting, present: bool) -> Callable[[], FloatArray]:
    """Patients without a gradient, or with one more, of a category of its own, who has one."""
    return _patients(
        setting,
        np.concatenate([np.zeros(300, dtype=np.int64), np.ones(int(present), dtype=np.int64)]),
        lambda values: _plain(_LONG * values.astype(np.float64)),
        step_of(setting, rate=_RATE),
    )


def _batch_of_one(setting: Setting, present: bool) -> Callable[[], FloatArray]:
    """One patient without a gradient, or two: what is divided by the number drawn has half the noise."""
    import torch

    from synthehr.privacy.gradients import PatientGradients

    return _patients(
        setting,
        np.zeros(1 + present, dtype=np.int64),
        lambda values: PatientGradients([torch.zeros(len(values), _WIDTH, dtype=torch.float64)]),
        step_of(setting, rate=1.0, expected=2.0),
    )


def _plain(lengths: FloatArray) -> PatientGradients:
    import torch

    from synthehr.privacy.gradients import PatientGradients

    return PatientGradients([torch.from_numpy(np.asarray(lengths, dtype=np.float64))[:, None]])


GRADIENTS: Mapping[str, Experiment] = {
    "directions of their own": one_run(_directions, canaries=20_000),
    "rows that pull together": pair_of(_aligned_rows),
    "many layers": pair_of(_many_layers, runs=2_000),
    "one of a few": pair_of(_one_of_a_few),
    "one of its kind": pair_of(_one_of_its_kind),
    "a batch of one": pair_of(_batch_of_one),
}
"""Experiments on the gradient mechanism."""
