"""The likelihood of a patient under a release's own generator."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import synthehr
from synthehr.cohort import Cohort
from synthehr.encoding.unroll import conditional_tables
from synthehr.likelihood import Likelihood, likelihood_of
from synthehr.models.columns import Learned
from synthehr.models.loglinear import Conditional, Term
from synthehr.privacy.partition import Values
from synthehr.schema.files import load_schema

CODES = ("u", "v", "w")
SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "p",
        "tables": {
            "p": {"key": "id", "columns": {"id": {"kind": "id"}, "x": {"kind": "category", "values": ["a", "b"]}}},
            "visit": {
                "parent": "p",
                "foreign_key": "id",
                "max_rows": 2,
                "columns": {"id": {"kind": "id"}, "code": {"kind": "category", "values": list(CODES)}},
            },
        },
    }
)


def cohort(kinds: list[tuple[str, tuple[str, ...]]], *, start: int = 0) -> Cohort:
    """Patients with what they are and the codes of their rows; their keys are numbers from ``start`` on."""
    return Cohort(
        {
            "p": pl.DataFrame({"id": [str(start + at) for at in range(len(kinds))], "x": [x for x, _ in kinds]}),
            "visit": pl.DataFrame(
                {
                    "id": [str(at) for at, (_, codes) in enumerate(kinds, start) for _ in codes],
                    "code": [code for _, codes in kinds for code in codes],
                },
                schema={"id": pl.String, "code": pl.String},
            ),
        },
        schema=SCHEMA,
    )


def every_patient() -> list[tuple[str, tuple[str, ...]]]:
    """The 26 patients that can be: one of two, with up to two of three codes in order."""
    histories = [(), *((code,) for code in CODES), *((one, two) for one in CODES for two in CODES)]
    return [(x, codes) for x in ("a", "b") for codes in histories]


def test_a_mixture_of_two_products_by_hand() -> None:
    categories = {"kind": "category", "values": ["a", "b"]}
    schema = load_schema(
        {"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"x": categories, "y": categories}}}}
    )
    cells = Values(values=("a", "b"), other=False, nullable=False)
    made = conditional_tables(schema, {"p": 1})
    domain = tuple(SimpleNamespace(name=name, cells=cells) for name in ("x", "y"))
    learned = {"p": Learned(made=made["p"], domain=domain, cells={"x": cells, "y": cells})}  # type: ignore[arg-type]
    shares = {"x": np.log([[0.9, 0.1], [0.2, 0.8]]), "y": np.log([[0.5, 0.5], [0.3, 0.7]])}
    likelihood = Likelihood(made, learned, shares)
    both = Cohort({"p": pl.DataFrame({"x": ["a", "b"], "y": ["a", "b"]})}, schema=schema)
    # a, a: (0.9 * 0.5 + 0.2 * 0.3) / 2; b, b: (0.1 * 0.5 + 0.8 * 0.7) / 2.
    first, second = likelihood(both, both.take(np.array([1])))
    assert np.exp(first).tolist() == pytest.approx([0.255, 0.305])
    assert np.exp(second).tolist() == pytest.approx([0.305])
    # With y an outcome: what x is, times what y is given that.
    given = Term(given=("x",), weights=np.log(np.array([[0.75, 0.25], [0.4, 0.6]], dtype=np.float32)))
    outcome = Conditional(target="y", size=2, terms=(given,))
    drawn = {"p": replace(learned["p"], conditionals=(outcome,))}
    first, _ = Likelihood(made, drawn, {"x": shares["x"]})(both, both)
    assert np.exp(first).tolist() == pytest.approx([0.55 * 0.75, 0.45 * 0.6])


@pytest.fixture(scope="module")
def release() -> synthehr.Release:
    draws = np.random.default_rng(1)
    kinds = []
    for _ in range(800):
        x = "a" if draws.random() < 0.6 else "b"
        first = str(draws.choice(CODES, p=[0.7, 0.2, 0.1] if x == "a" else [0.1, 0.3, 0.6]))
        second = first if draws.random() < 0.7 else str(draws.choice(CODES))
        kinds.append((x, (first, second)[: int(draws.integers(0, 3))]))
    return synthehr.fit(cohort(kinds), epsilon=50.0, delta=1e-5, policy="exploratory", seed=0)


COPIES = 400


def chances(release: synthehr.Release) -> dict[tuple[str, tuple[str, ...]], float]:
    """The chance of each patient that can be, whatever the order of the rows, which nothing orders."""
    likelihood = likelihood_of(release)
    assert likelihood is not None
    kinds = every_patient()
    everyone = cohort(kinds * COPIES)
    mean = np.exp(likelihood(everyone, everyone.take(np.array([0])))[0]).reshape(COPIES, len(kinds)).mean(axis=0)
    found: dict[tuple[str, tuple[str, ...]], float] = {}
    for (x, codes), chance in zip(kinds, mean, strict=True):
        kind = (x, tuple(sorted(codes)))
        found[kind] = found.get(kind, 0.0) + float(chance)
    return found


def test_the_chances_of_all_patients_that_can_be_sum_to_one(release) -> None:
    # Each copy has its rows in one of two orders; the mean over 400 is off by less than 0.01 in all.
    assert sum(chances(release).values()) == pytest.approx(1.0, abs=0.01)


def test_patients_are_as_likely_as_a_sample_has_them(release) -> None:
    made = release.sample(20_000, seed=3)
    rows = made.tables["visit"].group_by("id").agg(pl.col("code").sort())
    told = made.root.join(rows, on="id", how="left").with_columns(pl.col("code").fill_null([])).select("x", "code")
    counted = Counter((x, tuple(codes)) for x, codes in told.iter_rows())
    for kind, chance in chances(release).items():
        # Six standard errors of the sample, and what the orders of the copies leave open.
        assert abs(counted[kind] / 20_000 - chance) <= 6 * np.sqrt(chance / 20_000) + 0.002, kind


def test_rows_in_pieces_are_as_likely_as_in_one(release, monkeypatch) -> None:
    likelihood = likelihood_of(release)
    assert likelihood is not None
    everyone = cohort([(x, codes) for x, codes in every_patient() if len(set(codes)) < 2] * 3)
    whole, _ = likelihood(everyone, everyone)
    monkeypatch.setattr("synthehr.likelihood._CHUNK", 5)
    pieces, _ = likelihood(everyone, everyone)
    assert pieces == pytest.approx(whole)


def test_an_evaluation_with_the_release_has_the_attack_of_its_generator_on_whole_patients(release) -> None:
    train, holdout = (cohort(every_patient() * 12, start=start) for start in (0, 1_000))
    made = release.sample(200, seed=1)
    report = synthehr.evaluate(
        train=train, holdout=holdout, synthetic=made, release=release, suite="ci", sections=["privacy"]
    )
    attacks = report.result.sections.attacks
    assert attacks is not None
    assert {one.attack for one in attacks.membership} >= {"known_generator", "whole_density_ratio", "combined"}
