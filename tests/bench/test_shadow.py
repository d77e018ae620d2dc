"""The nightly attacks with shadow fits: who is attacked, what is kept, and what one fit says of a patient."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from shadow import Fits, furthest, kept_scores, lines

from synthehr.cohort import Cohort
from synthehr.evaluation.shadow import attack_by_shadows
from synthehr.schema.files import load_schema

SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "p",
        "tables": {
            "p": {
                "columns": {
                    "x": {"kind": "number", "bounds": [0, 1000]},
                    "y": {"kind": "number", "bounds": [0, 1000]},
                }
            }
        },
    }
)


def cohort(patients: int) -> Cohort:
    draws = np.random.default_rng(0)
    frame = pl.DataFrame({"x": draws.normal(100, 10, patients), "y": draws.normal(100, 10, patients)})
    apart = pl.int_range(pl.len()).is_in([3, 17])
    return Cohort(
        {"p": frame.with_columns(pl.when(apart).then(pl.col("x") * pl.int_range(2, pl.len() + 2)).otherwise("x"))},
        schema=SCHEMA,
    )


def test_those_who_stand_apart_are_attacked() -> None:
    assert furthest(cohort(200), 2).tolist() == [3, 17]


def test_a_fit_that_is_kept_is_not_made_again(tmp_path) -> None:
    made = []

    def refit(member):
        made.append(int(member.sum()))
        return member.astype(float)

    first, second = np.arange(9) < 4, np.arange(9) < 5
    for _ in range(2):
        scores = kept_scores(refit, tmp_path / "work")
        assert scores(first).tolist() == first.tolist()
        assert scores(second).tolist() == second.tolist()
    assert made == [4, 5]


def test_a_fit_that_copies_its_patients_gives_them_away(monkeypatch) -> None:
    class Copying:
        def __init__(self, learned: Cohort) -> None:
            self._learned = learned

        def sample(self, _: int) -> Cohort:
            return self._learned

    monkeypatch.setattr("synthehr.fit", lambda members, **_: Copying(members))
    member = np.arange(200) % 2 == 0
    scores = Fits(epsilon=1.0, model="marginal", by="distance")(cohort(200), member)
    assert scores[member].min() > scores[~member].max()


def test_a_real_fit_scores_every_patient_by_likelihood() -> None:
    scores = Fits(epsilon=50.0, model="marginal", by="likelihood")(cohort(300), np.arange(300) < 200)
    assert scores.shape == (300,)
    assert np.isfinite(scores).all()


def test_each_attack_is_a_line() -> None:
    noise = np.random.default_rng(1)
    found = attack_by_shadows(
        lambda member: noise.normal(size=len(member)) + 8.0 * member,
        patients=30,
        attacked=np.arange(20),
        fits=40,
        delta=1e-6,
        generator=np.random.default_rng(2),
    )
    table = lines(found)
    assert [line["attack"] for line in table] == ["lira", "rmia"]
    # Members score 8 deviations above the others: all are told.
    assert table[0]["auc"] == pytest.approx(1.0, abs=0.01)
