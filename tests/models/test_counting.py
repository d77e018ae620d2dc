"""What a histogram in which rows count otherwise would be if they counted one over their number each."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from synthehr.models.counting import as_rows_count, counted_rows, row_weights
from synthehr.models.loglinear import Counted, Measured
from synthehr.models.rollout import Rolled


def made_up(patients: int, seed: int) -> Rolled:
    """Patients of one to twelve rows: who has many has hardly any but the last cell, others have all."""
    draws = np.random.default_rng(seed)
    rows = draws.integers(1, 13, patients)
    of_patient = np.repeat(np.arange(patients), rows)
    many = rows[of_patient] > 6
    last = draws.random(len(of_patient)) < np.where(many, 0.95, 0.1)
    code = np.where(last, 2, draws.integers(0, 3, len(of_patient)))
    value = np.where(last, 3, draws.integers(0, 4, len(of_patient)))
    return Rolled(
        frame=pl.DataFrame(),
        codes={"code": code, "value": value},
        of_patient=of_patient,
        parents=of_patient,
        time=None,
        table="rows",
    )


def histogram(rolled: Rolled, weight: np.ndarray) -> np.ndarray:
    cell = rolled.codes["code"] * 4 + rolled.codes["value"]
    found = np.bincount(cell, weights=weight, minlength=12).reshape(3, 4)
    return found / found.sum()


@pytest.mark.parametrize("counted", ["length", "code"])
def test_rows_that_count_otherwise_are_counted_back_by_made_up_rows_that_are_alike(counted: Counted) -> None:
    real, other = made_up(3000, 0), made_up(3000, 1)
    codes = [real.codes["code"], real.codes["value"]]
    weight = counted_rows(real.of_patient, codes, code=codes[0])
    if counted == "code":
        table = pl.DataFrame({"owner": real.of_patient, "code": real.codes["code"]})
        of_code = table.select(pl.len().over("owner", "code")).to_series().to_numpy()
        weight = 1.0 / (of_code * np.sqrt(table.select(pl.col("code").n_unique().over("owner")).to_series().to_numpy()))
    given, wanted = histogram(real, weight), histogram(real, row_weights(real.of_patient))
    assert np.abs(given - wanted).sum() > 0.05, "it matters how rows count"
    one = Measured(given=("code",), share=given, noise=0.0, counted=counted)
    found = as_rows_count(one, "value", other, code="code").share
    assert np.abs(found / found.sum() - wanted).sum() < 0.02


def test_rows_of_a_patient_in_two_cells_count_by_their_length() -> None:
    weight = counted_rows(np.array([0, 0, 0, 0, 0, 0, 0, 5]), [np.array([1, 1, 1, 2, 2, 2, 2, 1])])
    assert weight.tolist() == pytest.approx([0.2] * 7 + [1.0])


def test_rows_of_two_codes_count_by_the_length_of_each() -> None:
    # Code 0 in cells of 3 and 4 rows: 1 / 5 each; code 1 once: 1. Both by the root of 2.
    code, cell = np.array([0] * 7 + [1]), np.array([1, 1, 1, 2, 2, 2, 2, 1])
    weight = counted_rows(np.zeros(8, dtype=np.int64), [code, cell], code=code)
    assert weight.tolist() == pytest.approx([0.2 / 2**0.5] * 7 + [1.0 / 2**0.5])


def test_a_histogram_of_codes_is_made_to_say_how_much_there_is_of_each() -> None:
    real, other = made_up(3000, 0), made_up(3000, 1)
    given = histogram(real, row_weights(real.of_patient)).T
    one = Measured(given=("value",), share=given, noise=0.0, counted="length")
    alone = np.array([0.2, 0.1, 0.7])
    found = as_rows_count(one, "code", other, code="code", alone=alone).share
    assert found.sum(axis=0).tolist() == pytest.approx(alone.tolist())


def test_each_patient_weighs_as_much_as_another_however_many_rows_it_has() -> None:
    weight = row_weights(np.array([0, 0, 0, 7]))
    assert weight.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])
