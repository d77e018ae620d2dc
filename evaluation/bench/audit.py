"""The audit audited: false alarms, power against planted defects, our own mechanisms, and how much it certifies.

    python evaluation/bench/audit.py alarms|power|own|tight -o evaluation/bench/results

Each part writes one table, a line a run, as it goes; lines that are there already are kept and not run again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "privacy"))

import defects
from defects import Mechanisms

from synthehr.auditing.door import Door
from synthehr.auditing.gradients import GRADIENTS
from synthehr.auditing.mechanisms import COUNTS, Experiment, Setting, audit_mechanism
from synthehr.auditing.networks import CRITIC, ENCODER, batch_gradients, critic_canaries, phase_rounds
from synthehr.evaluation.audit import ALPHA, Counts, audit_guesses, many_run_bound

DELTA = 1e-6
SMALL = (5, 5)

Line = dict[str, object]


def setting_of(mechanisms: Mechanisms, *, epsilon: float = 1.0, **more: Any) -> Setting:
    """The audit as it runs by default, on mechanisms that may be broken."""
    door = Door(rows=mechanisms.rows, codes=mechanisms.codes, noise=mechanisms.noise)
    return Setting(epsilon=epsilon, delta=DELTA, door=door, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A defect, and the experiment of the audit that is meant to see it, at the level that it has there."""

    setting: Setting
    experiment: Experiment
    alpha: float


def planted() -> Mapping[str, Planted]:
    """Every planted defect."""
    m, found = Mechanisms, dict[str, Planted]()

    def plant(name: str, mechanisms: Mechanisms, audited: Mapping[str, Experiment], title: str, **more: Any) -> None:
        setting = setting_of(mechanisms, **more)
        found[name] = Planted(setting=setting, experiment=audited[title], alpha=setting.alpha / len(audited))

    marginals, own = COUNTS["marginals"], "cells of their own"
    plant("noise halved", m(noise=defects.HalvedNoise), marginals, own, canaries=400_000)
    plant("seeded noise", m(noise=defects.SeededNoise), marginals, "noise played back")
    too_large = m(codes=defects.UncheckedShares)
    plant("shares that sum to more than 1", too_large, marginals, own, shares=(0.9,) * 9, canaries=20_000)
    plant("row for patient as unit, histograms", m(rows=defects.RowsAsUnits), COUNTS["histogram"], own)
    plant("exact categories", m(rows=defects.ExactCategories), COUNTS["partition"], "values of their own")
    plant("exact count", m(rows=defects.ExactCount), COUNTS["count"], "one patient more")
    plant(
        "distances noised as if there were one",
        m(codes=defects.MisfitsAsOne),
        COUNTS["misfits"],
        "every distance moved",
    )
    for name, mechanisms, title in (
        ("noise not multiplied by the clip", m(codes=defects.NoiseWithoutTheClip), "directions of their own"),
        ("no clip", m(codes=defects.NoClip), "directions of their own"),
        ("fixed batches for Poisson", m(noise=defects.FixedBatches), "one of a few"),
        ("rows chosen by category", m(codes=defects.ChosenByCategory), "one of its kind"),
        ("lengths of the first row alone", m(codes=defects.LengthOfTheFirstRow), "rows that pull together"),
        ("lengths of rows as if apart", m(codes=defects.LengthsOfRowsAsIfApart), "rows that pull together"),
        ("row for patient as unit, gradients", m(codes=defects.ClipPerRow), "rows that pull together"),
        ("a clip a layer", m(codes=defects.ClipPerLayer), "many layers"),
        ("layer norm left out of the length", m(codes=defects.LayerNormLeftOut), "many layers"),
        ("mean over the drawn batch", m(codes=defects.DividedByTheDrawn), "a batch of one"),
    ):
        plant(name, mechanisms, GRADIENTS, title)
    critic = defects.long_gradients(m(critic=defects.penalty_on_real_pairs), SMALL)["critic"]
    batches = "batches with and without"
    pairs = {**CRITIC, batches: batch_gradients(critic)}
    # It moves a gradient by less than two clips: more runs, at a claim that they can refute.
    plant("penalty on real pairs", m(), pairs, batches, epsilon=2.0, runs=200_000)
    encoder = defects.long_gradients(m(variational=defects.codes_of_a_batch), SMALL)["encoder"]
    plant("codes of a batch", m(), {**ENCODER, batches: batch_gradients(encoder)}, batches)
    rounds = "rounds of training"
    for name, mechanisms, begin in (
        ("encoder left out", m(variational_phase=defects.EncoderLeftOut), defects.small_variational_phase),
        ("generator shown rows", m(critic_phase=defects.GeneratorShownRows), defects.small_critic_phase),
        (
            "conditions of real rows from the seeded stream",
            m(private_draws=defects.conditions_from_the_seed),
            defects.small_critic_phase,
        ),
    ):
        one = phase_rounds(lambda draws, private, b=begin, k=mechanisms: b(k, draws, private), mechanisms.private_draws)
        plant(name, m(), {**CRITIC, rounds: one}, rounds)
    return found


def power(done: set[tuple[str, ...]]) -> Iterator[Line]:
    """Ten audits of each planted defect, most at a claim of epsilon 1."""
    every = planted()
    # The one that takes minutes a run comes last.
    slow = [name for name, one in every.items() if one.setting.runs > 100_000]
    for names in ([name for name in every if name not in slow], slow):
        for run, name in itertools.product(range(10), names):
            if (name, str(run)) in done:
                continue
            started, one = time.monotonic(), every[name]
            bound = one.experiment(one.setting, one.alpha)
            yield {
                "defect": name,
                "run": run,
                "claimed": one.setting.epsilon,
                "lower_bound": round(bound.epsilon, 4),
                "ceiling": round(bound.ceiling, 4),
                "caught": bound.epsilon > one.setting.epsilon,
                "seconds": round(time.monotonic() - started, 1),
            }


def own(done: set[tuple[str, ...]]) -> Iterator[Line]:
    """Fifty audits of each of our own mechanisms, at claims of epsilon 1 and 3, with fewer canaries and runs."""
    quick = {**COUNTS, "gradients": GRADIENTS}
    slow = {"critic": CRITIC, "encoder": ENCODER}  # their rounds of training come last
    for everything in (quick, slow):
        for run, epsilon, name in itertools.product(range(50), (1.0, 3.0), everything):
            if (name, f"{epsilon:g}", str(run)) in done:
                continue
            setting = replace(setting_of(Mechanisms(), epsilon=epsilon), canaries=10_000, runs=300)
            audit = audit_mechanism(name, everything[name], setting)
            yield {
                "mechanism": name,
                "claimed": f"{epsilon:g}",
                "run": run,
                "lower_bound": round(audit.best.epsilon, 4),
                "ceiling": round(audit.best.ceiling, 4),
                "stays_under": audit.best.epsilon <= epsilon,
            }


def alarms(_: set[tuple[str, ...]]) -> Iterator[Line]:
    """400 audits each of randomised response, which spends all that it claims, at the 5 % level of the bounds."""
    draws = np.random.default_rng(8)
    for epsilon in (1.0, 3.0):
        truth = 1.0 / (1.0 + np.exp(-epsilon))
        for kind in ("one run, guesses fixed", "one run, grid of four", "many runs"):
            accused = 0
            for _run in range(400):
                coins = draws.random(1000) < 0.5
                answers = np.where(draws.random(1000) < truth, coins, ~coins)
                if kind == "many runs":
                    counts = Counts(
                        hits=int((answers & coins).sum()),
                        runs_in=int(coins.sum()),
                        alarms=int((answers & ~coins).sum()),
                        runs_out=int((~coins).sum()),
                    )
                    bound = many_run_bound(counts, delta=0.0)
                else:
                    scores = answers + 0.5 * draws.random(1000)
                    grid = [1000] if kind == "one run, guesses fixed" else [100, 200, 500, 1000]
                    bound = audit_guesses(scores, coins, grid=grid, delta=0.0)
                accused += bound.epsilon > epsilon
            yield {
                "audit": kind,
                "claimed": epsilon,
                "level": ALPHA,
                "runs": 400,
                "accused": accused,
                "rate": accused / 400,
            }


def tight(done: set[tuple[str, ...]]) -> Iterator[Line]:
    """How much white-box audits certify at a claim of epsilon 1."""
    marginals = {"cells of their own": COUNTS["marginals"]["cells of their own"]}
    for name, experiments in (("marginals", marginals), ("critic", {"cells of their own": critic_canaries})):
        for run in range(3):
            if (name, str(run)) in done:
                continue
            setting = replace(setting_of(Mechanisms()), canaries=400_000)
            started = time.monotonic()
            audit = audit_mechanism(name, experiments, setting)
            yield {
                "mechanism": name,
                "run": run,
                "claimed": setting.epsilon,
                "canaries": setting.canaries,
                "lower_bound": round(audit.best.epsilon, 4),
                "ceiling": round(audit.best.ceiling, 4),
                "seconds": round(time.monotonic() - started, 1),
            }


KEYS = {"power": ("defect", "run"), "own": ("mechanism", "claimed", "run"), "tight": ("mechanism", "run"), "alarms": ()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=sorted(KEYS))
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the tables")
    options = parser.parse_args()
    parts: Mapping[str, Callable[[set[tuple[str, ...]]], Iterator[Line]]] = {
        "power": power,
        "own": own,
        "alarms": alarms,
        "tight": tight,
    }
    path = options.out / f"audit_{options.part}.csv"
    keys = KEYS[options.part]
    done: set[tuple[str, ...]] = set()
    if path.exists() and keys:
        with path.open(newline="") as table:
            done = {tuple(line[key] for key in keys) for line in csv.DictReader(table)}
    with path.open("a" if done else "w", newline="") as table:
        writer: csv.DictWriter[str] | None = None
        for line in parts[options.part](done):
            if writer is None:
                writer = csv.DictWriter(table, fieldnames=list(line), lineterminator="\n")
                if not done:
                    writer.writeheader()
            writer.writerow(line)
            table.flush()
            print(line, flush=True)


if __name__ == "__main__":
    main()
