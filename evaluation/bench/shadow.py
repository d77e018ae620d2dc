"""Attacks for nights: LiRA and RMIA over shadow fits, on the real patients who stand apart most.

    make nightly
    python evaluation/bench/shadow.py --table nafld1 --patients 1000 --fits 64 --epsilon 3

Each fit is a release of its own, from a fair coin's half of the patients; the other fits are its shadows. A patient's
score is its log-likelihood under the release's generator, or minus the log distance to the nearest synthetic patient
where there is no likelihood (``--by distance``, and releases of a refined generator). The scores of each fit are kept
in ``--work`` as it ends, so that a second call goes on; the table is results/shadow.csv, a line for each attack.

Every fit spends its epsilon on the same patients: this is for public records, or for those whose keeper may look.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from independent import patients
from numpy.typing import NDArray

import synthehr
from synthehr.cohort import Cohort
from synthehr.evaluation.attacks_space import nearest, space_of
from synthehr.evaluation.cohorts import read_parts
from synthehr.evaluation.shadow import Refit, ShadowAttack, attack_by_shadows
from synthehr.likelihood import likelihood_of
from synthehr.schema.model import Schema

__all__ = ["Fits", "furthest", "kept_scores", "lines"]

RESULTS = Path(__file__).parent / "results" / "shadow.csv"
WORK = Path(".bench") / "shadow"
DELTA = 1e-5
TABLES = ("nafld1", "flchain", "support2", "framingham", "stroke")
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fits:
    """How each release is fitted, and how patients are scored under it."""

    epsilon: float
    model: str
    by: str

    def __call__(self, cohort: Cohort[Schema], member: NDArray[np.bool_]) -> Scores:
        """The scores of all patients under a release of those who are in, shape ``(patients,)``."""
        release = synthehr.fit(
            cohort.take(np.flatnonzero(member)),
            epsilon=self.epsilon,
            delta=DELTA,
            model=self.model,
            policy="exploratory",
        )
        likelihood = likelihood_of(release) if self.by == "likelihood" else None
        if likelihood is not None:
            return likelihood(cohort, cohort.take(np.array([0])))[0]
        made = release.sample(int(member.sum()))
        space = space_of(read_parts(train=cohort, holdout=cohort, synthetic=made, seed=0))
        return -np.log(nearest(space.train, space.synthetic) + 1e-3)


def furthest(cohort: Cohort[Schema], count: int) -> NDArray[np.int64]:
    """The patients who lie furthest from any other in the space of all columns."""
    points = space_of(read_parts(train=cohort, holdout=cohort, synthetic=cohort, seed=0)).train
    apart = nearest(points, points, itself=np.arange(len(points)))
    return np.sort(np.argsort(-apart, kind="stable")[:count])


def kept_scores(refit: Refit, folder: Path) -> Refit:
    """The same, but what was found for a set of patients is read from its file where there is one."""
    folder.mkdir(parents=True, exist_ok=True)

    def scores(member: NDArray[np.bool_]) -> Scores:
        path = folder / f"{hashlib.sha256(np.packbits(member).tobytes()).hexdigest()[:24]}.npy"
        if not path.exists():
            found = refit(member)
            aside = path.with_suffix(".tmp")
            with aside.open("wb") as file:
                np.save(file, found)
            aside.rename(path)
        return np.asarray(np.load(path), dtype=np.float64)

    return scores


def lines(found: dict[str, ShadowAttack]) -> list[dict[str, object]]:
    """One line of the table for each attack."""
    return [
        {
            "attack": name,
            "auc": round(one.auc.value, 4),
            "auc_low": round(one.auc.low, 4),
            "auc_high": round(one.auc.high, 4),
            "tpr_at_1pct": round(one.true_positive.value, 4),
            "tpr_low": round(one.true_positive.low, 4),
            "tpr_high": round(one.true_positive.high, 4),
            "lower_bound": round(one.bound.epsilon, 4),
            "ceiling": round(one.bound.ceiling, 4),
        }
        for name, one in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="nafld1", choices=TABLES)
    parser.add_argument("--data", type=Path, help="folder of the tables that no package holds")
    parser.add_argument("--patients", type=int, default=1_000)
    parser.add_argument("--attacked", type=int, default=100)
    parser.add_argument("--fits", type=int, default=64)
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--model", default="marginal")
    parser.add_argument("--by", default="likelihood", choices=["likelihood", "distance"])
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    everyone = patients(asked.table, folder=asked.data)
    drawn = np.random.default_rng(11).permutation(len(everyone))[: asked.patients]
    cohort = everyone.take(np.sort(drawn))
    # A refined generator has no likelihood: its patients are scored by distance, whatever was asked.
    by = asked.by if asked.model == "marginal" else "distance"
    told = f"{asked.table}-{asked.patients}-{asked.model}-{asked.epsilon:g}-{by}"
    fits, start = Fits(epsilon=asked.epsilon, model=asked.model, by=by), time.process_time()
    found = attack_by_shadows(
        kept_scores(_announced(lambda member: fits(cohort, member)), asked.work / told),
        patients=len(cohort),
        attacked=furthest(cohort, asked.attacked),
        fits=asked.fits,
        delta=DELTA,
        generator=np.random.default_rng(12),
    )
    about: dict[str, object] = {
        "table": asked.table,
        "patients": len(cohort),
        "attacked": asked.attacked,
        "fits": asked.fits,
        "model": asked.model,
        "epsilon": asked.epsilon,
        "by": by,
    }
    new = not asked.out.exists()
    with asked.out.open("a", newline="") as file:
        for line in lines(found):
            row = about | line | {"cpu_s": round(time.process_time() - start), "load": round(os.getloadavg()[0], 1)}
            writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
            if new:
                writer.writeheader()
                new = False
            writer.writerow(row)
            print(row, flush=True)


def _announced(refit: Callable[[NDArray[np.bool_]], Scores]) -> Refit:
    done = 0

    def scores(member: NDArray[np.bool_]) -> Scores:
        nonlocal done
        found = refit(member)
        done += 1
        print(f"{done} fits done in this call", flush=True)
        return found

    return scores


if __name__ == "__main__":
    main()
