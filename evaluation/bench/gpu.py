"""What the private models do on one GPU, all of it in one call: step times, throughput, a million patients, numerics.

    python evaluation/bench/gpu.py [--device cuda] [--patients 1000000] [--data DIR]

Prints one JSON object and, with --results FILE, writes it there. ``--device cpu`` runs the same on the processor, with
``--patients`` small enough to wait for: the twin that shows the checks themselves to work. Figures:

* ``critic`` and ``encoder``: milliseconds of one private gradient step and of the same step without privacy (one
  backward pass of the mean loss, Adam), their ratio, and rows a second of each on the device and on the processor.
* ``million``: seconds, peak memory of the device and epsilon of whole fits on a cohort resampled to ``--patients``.
* ``agreement``: the largest difference between clipped sums of gradients on the device and on the processor, in parts
  of the clip, and between the mixture's losses after 20 steps, relative.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from cohorts import AbsentTable, load_table
from torch import Tensor

from synthehr.cohort import Cohort
from synthehr.models.ctgan import CriticPhase, CriticSettings, _real_loss
from synthehr.models.learner import Learner
from synthehr.models.marginals import FitSettings, Targets, fit_to_targets
from synthehr.models.networks import Generator, Mixture
from synthehr.models.training import train
from synthehr.models.tvae import VariationalPhase, VariationalSettings
from synthehr.models.tvae import _real_loss as _variational_loss
from synthehr.privacy.accountant import Account, PoissonSampledGaussian
from synthehr.privacy.budget import Budget
from synthehr.privacy.gradients import clipped_sum
from synthehr.privacy.rows import GradientMechanism, PrivateCodes
from synthehr.randomness import SystemNoise
from synthehr.schema.conform import conform
from synthehr.schema.files import load_schema

SIZES = (26,) * 12 + (6,) * 20 + (2,) * 8
PHASES = {"critic": (CriticPhase, CriticSettings()), "encoder": (VariationalPhase, VariationalSettings())}


def _generator(device: torch.device, *, sizes: Sequence[int] = SIZES) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = Generator(sizes=sizes, components=1000, latent=32, hidden=64)
        torch.nn.init.normal_(generator.mixture.logits)
    return generator.to(device)


def _targets(device: torch.device, *, patients: int) -> Targets:
    """Pairs that have to do with each other, made of two random kinds of patient."""
    draws = np.random.default_rng(0)
    targets = Targets(SIZES, patients=patients, device=device)
    kinds = [[draws.dirichlet(np.ones(size)) for size in SIZES] for _ in range(2)]
    for i in range(len(SIZES)):
        for j in range(i + 1, len(SIZES)):
            counts = sum(np.outer(kind[i], kind[j]) for kind in kinds) * patients / 2
            targets.add_pair((i, j), np.asarray(counts), weight=1.0)
    return targets


def _phase(name: str, device: torch.device) -> Any:
    build, settings = PHASES[name]
    generator, targets = _generator(device), _targets(device, patients=10_000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(
            generator,
            targets,
            settings=settings,
            draws=np.random.default_rng(0),
            private_draws=np.random.default_rng(1),
        )


def _timed(device: torch.device, step: Callable[[], object], *, times: int) -> float:
    """Milliseconds of a step, the median of several, each waited for."""
    for _ in range(3):
        step()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken)) * 1e3


def _rows(patients: int) -> np.ndarray:
    draws = np.random.default_rng(2)
    return np.stack([draws.integers(0, size, patients) for size in SIZES], axis=1)


def step_times(name: str, device: torch.device, *, batch: int, times: int) -> dict[str, float]:
    """One private gradient step of a phase beside the same step without privacy."""
    phase, codes = _phase(name, device), _rows(20 * batch)
    event = PoissonSampledGaussian(stage="gradients", sampling_probability=0.05, noise_multiplier=1.0)
    mechanism = GradientMechanism(event=event, clip_norm=1.0, expected_batch=batch)
    held = PrivateCodes(codes, sizes=SIZES, owners=np.arange(len(codes)), patients=len(codes), noise=SystemNoise())
    account = Account(Budget(epsilon=1e6, delta=1e-5))
    account.plan([event.model_copy(update={"count": times + 3})])
    learner = phase._critic_learner if name == "critic" else phase._private_learner

    def private() -> None:
        noisy = held.noisy_gradient(account, phase._real_side, mechanism=mechanism)
        learner.clear()
        phase._private.set_gradient(noisy)
        learner.step()

    draws = np.random.default_rng(3)

    def without() -> None:
        chosen = codes[draws.integers(0, len(codes), batch)][:, None, :]
        learner.follow(_loss(name, phase, chosen, draws=draws, device=device).mean())

    with_privacy, plain = _timed(device, private, times=times), _timed(device, without, times=times)
    return {
        "private_ms": round(with_privacy, 3),
        "without_privacy_ms": round(plain, 3),
        "ratio": round(with_privacy / plain, 3),
        "rows_per_second": round(batch / with_privacy * 1e3),
    }


def _loss(name: str, phase: Any, codes: np.ndarray, *, draws: np.random.Generator, device: torch.device) -> Tensor:
    mask = np.ones(codes.shape[:2])
    if name == "critic":
        return _real_loss(phase._critic, codes, mask, sizes=SIZES, draws=draws, device=device)
    network = phase._private_learner.network
    return _variational_loss(network, codes, mask, decoder=phase._generator, draws=draws)


def agreement(device: torch.device) -> dict[str, float]:
    """How far the device's numbers are from the processor's, for the same weights, rows and draws."""
    sums, losses = {}, []
    for at in (torch.device("cpu"), device):
        for name in PHASES:
            phase = _phase(name, at)
            total = clipped_sum(phase._real_side(_rows(64)[:, None, :], np.ones((64, 1))), norm=1.0)
            sums.setdefault(name, []).append(total.cpu())
        mixture, targets = Mixture(sizes=SIZES, components=200).to(at), _targets(at, patients=10_000)
        with torch.no_grad():
            mixture.logits.copy_(torch.randn(mixture.logits.shape, generator=torch.Generator().manual_seed(0)))
        learner = Learner(mixture, rate=0.1, steps=20, betas=(0.5, 0.9))
        for _ in fit_to_targets(learner, mixture, targets, settings=FitSettings(steps=20)):
            pass
        losses.append(float(targets.loss(mixture()).detach()))
    apart = {name: float((both[0] - both[1]).norm()) for name, both in sums.items()}
    return {**apart, "mixture": abs(losses[0] - losses[1]) / losses[0]}


def whole_fit(model: str, device: torch.device, *, patients: int, data: Path | None) -> dict[str, Any]:
    """A fit of the hospital table, resampled to so many patients."""
    try:
        parts = load_table("diabetes130", folder=data)
    except AbsentTable as absent:
        return {"left_out": str(absent)}
    schema = load_schema(parts.meta["schema"])
    table = conform(pl.from_pandas(parts.train), schema=schema, table="patient")
    rows = table.sample(patients, with_replacement=True, seed=0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    trained = train(
        Cohort({"patient": rows}, schema=schema),
        epsilon=3.0,
        delta=1e-8,
        model=model,
        policy="exploratory",
        seed=0,
        device=str(device),
    )
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {
        "patients": patients,
        "seconds": round(seconds, 1),
        "peak_device_mib": peak,
        "epsilon_spent": trained.epsilon_spent,
    }


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--patients", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--models", nargs="*", default=["marginal", "dp-ctgan", "dp-tvae"])
    parser.add_argument("--data", type=Path, help="folder of the tables that no package holds")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    device, cpu = torch.device(options.device), torch.device("cpu")
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "torch": torch.__version__,
        "agreement": agreement(device),
    }
    for name in PHASES:
        found[name] = step_times(name, device, batch=options.batch, times=options.times)
        if device != cpu:
            there = step_times(name, cpu, batch=options.batch, times=max(3, options.times // 10))
            found[name]["times_the_processor"] = round(found[name]["rows_per_second"] / there["rows_per_second"], 1)
    found["million"] = {
        model: whole_fit(model, device, patients=options.patients, data=options.data) for model in options.models
    }
    text = json.dumps(found, indent=1)
    print(text)
    if options.results is not None:
        options.results.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
