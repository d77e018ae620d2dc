"""Mechanisms broken on purpose are caught, and the real ones are not.

| defect | caught by |
|---|---|
| noise halved | `check_noise_is_as_strong_as_booked`, `check_the_count_is_noised_as_booked` |
| noise not multiplied by the clip | `check_noise_is_as_strong_as_booked` |
| no clip | `check_gradients_move_by_at_most_the_clip` |
| seeded noise | `check_noise_is_fresh` |
| fixed batches for Poisson | `check_patients_are_drawn_alone_at_the_rate` |
| rows chosen by category | `check_patients_are_drawn_alone_at_the_rate` |
| lengths of the first row alone | `check_gradients_move_by_at_most_the_clip` |
| lengths of rows as if apart | `check_gradients_move_by_at_most_the_clip` |
| a clip a layer | `check_gradients_move_by_at_most_the_clip` |
| layer norm left out of the length | `check_gradients_move_by_at_most_the_clip` |
| penalty on real pairs | `check_a_patients_gradient_is_its_own`, `check_gradients_move_by_at_most_the_clip` |
| codes of a batch | `check_a_patients_gradient_is_its_own`, `check_gradients_move_by_at_most_the_clip` |
| exact categories | `check_values_of_one_patient_stay_hidden` |
| exact count | `check_the_count_is_noised_as_booked` |
| row for patient as unit, histograms | `check_histograms_move_by_at_most_one` |
| row for patient as unit, gradients | `check_gradients_move_by_at_most_the_clip`, \
`check_histograms_move_by_at_most_one`, `check_misfits_move_by_at_most_one` |
| mean over the drawn batch | `check_the_sum_is_divided_by_a_constant`, `check_noise_is_as_strong_as_booked`, \
`check_gradients_move_by_at_most_the_clip` |
| shares that sum to more than 1 | `check_stacked_marginals_move_by_at_most_one` |
| conditions of real rows from the seeded stream | `check_the_seeded_stream_does_not_feel_the_batch` |
| encoder left out | `check_networks_know_rows_by_noisy_gradients_alone` |
| generator shown rows | `check_networks_know_rows_by_noisy_gradients_alone` |
| distances noised as if there were one | `check_misfits_move_by_at_most_one` |

Each defect is caught by these checks and by no other: a defect that any check would catch proves little. Checks by
statistics raise a false alarm with a chance of at most `defects.FALSE_ALARM`, 1e-6, each.
"""

from __future__ import annotations

import pytest
from defects import (
    CHECKS,
    Caught,
    ChosenByCategory,
    ClipPerLayer,
    ClipPerRow,
    CopiedGradient,
    DividedByTheDrawn,
    EncoderLeftOut,
    ExactCategories,
    ExactCount,
    FixedBatches,
    GeneratorShownRows,
    HalvedNoise,
    LayerNormLeftOut,
    LengthOfTheFirstRow,
    LengthsOfRowsAsIfApart,
    Mechanisms,
    MisfitsAsOne,
    NoClip,
    NoiseWithoutTheClip,
    RowsAsUnits,
    SeededNoise,
    UncheckedShares,
    codes_of_a_batch,
    conditions_from_the_seed,
    one_thread,
    penalty_on_real_pairs,
)

DEFECTS: dict[str, Mechanisms] = {
    "noise halved": Mechanisms(noise=HalvedNoise),
    "noise not multiplied by the clip": Mechanisms(codes=NoiseWithoutTheClip),
    "no clip": Mechanisms(codes=NoClip),
    "seeded noise": Mechanisms(noise=SeededNoise),
    "fixed batches for Poisson": Mechanisms(noise=FixedBatches),
    "rows chosen by category": Mechanisms(codes=ChosenByCategory),
    "lengths of the first row alone": Mechanisms(codes=LengthOfTheFirstRow),
    "lengths of rows as if apart": Mechanisms(codes=LengthsOfRowsAsIfApart),
    "a clip a layer": Mechanisms(codes=ClipPerLayer),
    "layer norm left out of the length": Mechanisms(codes=LayerNormLeftOut),
    "penalty on real pairs": Mechanisms(critic=penalty_on_real_pairs),
    "codes of a batch": Mechanisms(variational=codes_of_a_batch),
    "exact categories": Mechanisms(rows=ExactCategories),
    "exact count": Mechanisms(rows=ExactCount),
    "row for patient as unit, histograms": Mechanisms(rows=RowsAsUnits),
    "row for patient as unit, gradients": Mechanisms(codes=ClipPerRow),
    "mean over the drawn batch": Mechanisms(codes=DividedByTheDrawn),
    "shares that sum to more than 1": Mechanisms(codes=UncheckedShares),
    "conditions of real rows from the seeded stream": Mechanisms(private_draws=conditions_from_the_seed),
    "encoder left out": Mechanisms(variational_phase=EncoderLeftOut),
    "generator shown rows": Mechanisms(critic_phase=GeneratorShownRows),
    "distances noised as if there were one": Mechanisms(codes=MisfitsAsOne),
}


def stated() -> dict[str, set[str]]:
    """The table above."""
    assert __doc__ is not None
    rows = [line.strip("| ").split(" | ") for line in __doc__.splitlines() if line.startswith("| ")][1:]
    return {name: {check.strip("` ") for check in checks.split(",")} for name, checks in rows}


def catching(mechanisms: Mechanisms) -> dict[str, str]:
    """The checks that find these mechanisms broken, with what they say."""
    found = {}
    for check in CHECKS:
        try:
            with one_thread():
                check(mechanisms)
        except Caught as caught:
            found[check.__name__] = str(caught)
    return found


@pytest.mark.parametrize(
    "mechanisms", [Mechanisms(), Mechanisms(codes=CopiedGradient)], ids=["ours", "the copy that defects start from"]
)
def test_no_check_finds_a_fault_in_mechanisms_without_one(mechanisms: Mechanisms) -> None:
    assert catching(mechanisms) == {}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_caught_by_the_checks_that_are_named_for_it(name: str) -> None:
    assert set(catching(DEFECTS[name])) == stated()[name]


def test_the_table_names_every_defect_and_every_check_catches_one() -> None:
    assert set(stated()) == set(DEFECTS)
    assert set.union(*stated().values()) == {check.__name__ for check in CHECKS}
