"""The audit sees mechanisms that are broken by what they give away; how often, and the rest, by make evidence.

evaluation/bench/results/audit_power.csv has ten audits of every defect, audit_own.csv of our own mechanisms.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from defects import (
    ChosenByCategory,
    ClipPerRow,
    DividedByTheDrawn,
    ExactCategories,
    ExactCount,
    FixedBatches,
    LengthOfTheFirstRow,
    LengthsOfRowsAsIfApart,
    MisfitsAsOne,
    NoClip,
    NoiseWithoutTheClip,
    RowsAsUnits,
    SeededNoise,
)

from synthehr.auditing.door import Door, noise_multiplier_for
from synthehr.auditing.gradients import GRADIENTS
from synthehr.auditing.mechanisms import COUNTS, Setting
from synthehr.privacy.accountant import PoissonSampledGaussian, epsilon_of

SMALL = {"canaries": 20_000, "runs": 1_500}
CAUGHT = {
    "seeded noise": (Door(noise=SeededNoise), COUNTS["marginals"]["noise played back"]),
    "rows as units": (Door(rows=RowsAsUnits), COUNTS["histogram"]["cells of their own"]),
    "exact categories": (Door(rows=ExactCategories), COUNTS["partition"]["values of their own"]),
    "exact count": (Door(rows=ExactCount), COUNTS["count"]["one patient more"]),
    "no clip": (Door(codes=NoClip), GRADIENTS["directions of their own"]),
    "noise without the clip": (Door(codes=NoiseWithoutTheClip), GRADIENTS["directions of their own"]),
    "first row": (Door(codes=LengthOfTheFirstRow), GRADIENTS["rows that pull together"]),
    "a clip a row": (Door(codes=ClipPerRow), GRADIENTS["rows that pull together"]),
    "mean over the drawn": (Door(codes=DividedByTheDrawn), GRADIENTS["a batch of one"]),
}


@pytest.mark.parametrize("name", CAUGHT)
def test_a_small_audit_catches_what_breaks_the_promise_by_far(name: str) -> None:
    door, experiment = CAUGHT[name]
    assert experiment(Setting(epsilon=1.0, delta=1e-6, door=door, **SMALL), 0.001).epsilon > 1.0


@pytest.mark.parametrize("name", sorted({**COUNTS["marginals"], **COUNTS["histogram"], **COUNTS["partition"]}))
def test_our_own_counts_are_not_accused(name: str) -> None:
    experiments = {**COUNTS["marginals"], **COUNTS["histogram"], **COUNTS["partition"]}
    # At a true epsilon of 1 these certify 0.5 at best; the level of a false alarm is 1e-6.
    assert experiments[name](Setting(epsilon=1.0, delta=1e-6, **SMALL), 1e-6).epsilon < 1.0


@pytest.mark.parametrize("name", ["directions of their own", "rows that pull together", "one of its kind"])
def test_our_own_gradients_are_not_accused(name: str) -> None:
    setting = Setting(epsilon=1.0, delta=1e-6, canaries=5_000, runs=600)
    assert GRADIENTS[name](setting, 1e-6).epsilon < 1.0


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.01])
@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_the_noise_of_an_audit_spends_its_claim_by_the_account_too(rate: float, epsilon: float) -> None:
    sigma = noise_multiplier_for(epsilon=epsilon, delta=1e-6, rate=rate)
    event = PoissonSampledGaussian(stage="a", sampling_probability=rate, noise_multiplier=sigma)
    assert epsilon_of([event], delta=1e-6) == pytest.approx(epsilon, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("defect", [FixedBatches, ChosenByCategory, LengthsOfRowsAsIfApart, MisfitsAsOne])
def test_a_whole_audit_catches_what_breaks_the_promise_by_less(defect: type) -> None:
    door = Door(noise=defect) if defect is FixedBatches else Door(codes=defect)
    titles = {
        FixedBatches: GRADIENTS["one of a few"],
        ChosenByCategory: GRADIENTS["one of its kind"],
        LengthsOfRowsAsIfApart: GRADIENTS["rows that pull together"],
        MisfitsAsOne: COUNTS["misfits"]["every distance moved"],
    }
    assert titles[defect](Setting(epsilon=1.0, delta=1e-6, door=door), 0.0017).epsilon > 1.0


@pytest.mark.slow
@pytest.mark.parametrize(("mechanism", "least"), [("marginals", 0.5), ("critic", 0.3)])
def test_white_box_audits_are_tight_enough_to_matter(mechanism: str, least: float) -> None:
    """At a claim of epsilon 1; measured three times in evaluation/bench/results/audit_tight.csv."""
    from synthehr.auditing.networks import critic_canaries

    setting = Setting(epsilon=1.0, delta=1e-6, canaries=400_000)
    experiment = critic_canaries if mechanism == "critic" else COUNTS["marginals"]["cells of their own"]
    assert least <= experiment(setting, setting.alpha).epsilon <= 1.0


@pytest.mark.slow
def test_each_planted_defect_has_an_experiment_that_is_meant_to_see_it() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "evaluation" / "bench"))
    import audit
    from test_planted_defects import DEFECTS

    assert set(audit.planted()) == set(DEFECTS)


def test_an_audit_too_small_to_mean_anything_is_refused() -> None:
    from synthehr.errors import ConfigError

    for settings in ({"canaries": 50}, {"runs": 10}):
        with pytest.raises(ConfigError, match="at least 100"):
            replace(Setting(epsilon=1.0, delta=1e-6), **settings)


def test_coins_are_fair_and_new_each_time() -> None:
    from synthehr.auditing.door import fair_coins

    first, second = fair_coins(10_000), fair_coins(10_000)
    assert abs(first.mean() - 0.5) < 0.04  # eight deviations
    assert not np.array_equal(first, second)
