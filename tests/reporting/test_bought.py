"""What the public sees of columns comes from the release and the synthetic patients alone."""

from __future__ import annotations

import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.manifest import Manifest
from synthehr.reporting.bought import bought_profiles
from synthehr.schema.files import load_schema

COLUMNS = {
    "sex": {"kind": "category", "values": ["female", "male", "x"]},
    "age": {"kind": "integer", "bounds": [0, 120]},
    "weight": {"kind": "number", "bounds": [20, 300], "precision": 0.5, "nullable": True},
    "smokes": {"kind": "boolean"},
}
SCHEMA = {"synthehr": 1, "subject": "p", "tables": {"p": {"columns": COLUMNS}}}


def numeric(name: str, edges: list[float], counts: list[float], **lattice: object) -> dict:
    cells = len(edges) - 1
    starts = {"starts": list(range(cells)), "counts": counts[:cells], "cells": list(range(cells)), **lattice}
    return {"name": name, "counts": counts, "variance": [9.0] * len(counts), "edges": edges, "lattice": starts}


def manifest(**privacy: object) -> Manifest:
    domain = [
        {"name": "sex", "nullable": False, "values": ["female", "male", "x"]}
        | {"counts": [612.3, 378.1, 9.6], "variance": [9.0] * 3},
        numeric("age", [-0.5, 19.5, 39.5, 59.5, 79.5, 120.5], [200.0] * 5, origin=0, step=1, points=121, kind="integer")
        | {"nullable": False},
        numeric("weight", [19.75, 59.75, 99.75, 300.25], [400.0, 300.0, 100.0, 200.0]) | {"nullable": True},
        {
            "name": "smokes",
            "nullable": False,
            "values": ["false", "true"],
            "counts": [990.0, 10.0],
            "variance": [9.0] * 2,
        },
    ]
    domain[2]["lattice"] |= {"origin": 20.0, "step": 0.5, "points": 561, "kind": "number"}
    return Manifest.model_validate(
        {
            "schema": SCHEMA,
            "domain": domain,
            "model": {"name": "marginal", "chosen_because": "asked for", "seed": 0, "generator": {}},
            "patients_bought": 1000,
            "privacy": {"epsilon": 3.0, "delta": 1e-6, "private": True, "policy": "standard", "noise": "system"}
            | {"epsilon_spent": 2.9, "events": [], **privacy},
            "versions": {},
        }
    )


@pytest.fixture
def cohort() -> Cohort:
    """Ten patients: 7 women, 3 men; two of every twenty years; five light, three heavy, two not weighed."""
    return Cohort(
        {
            "p": pl.DataFrame(
                {
                    "sex": ["female"] * 7 + ["male"] * 3,
                    "age": [0, 19, 20, 39, 40, 59, 60, 79, 80, 120],
                    "weight": [50.0] * 5 + [60.0, 80.0, 99.5] + [None] * 2,
                    "smokes": [False] * 10,
                }
            )
        },
        schema=load_schema(SCHEMA),
    )


def test_shares_are_those_that_were_bought_beside_those_of_synthetic_patients(cohort):
    sex, age, weight = bought_profiles(manifest(), cohort)
    # 612.3, 378.1 and 9.6 of 1000: the last is below one in twenty and leaves no trace.
    assert (sex.labels, sex.bought, sex.synthetic) == (("female", "male"), (0.61, 0.38), (0.7, 0.3))
    assert sex.distance == pytest.approx((0.09 + 0.08) / 2)
    assert age.labels == ("19 or less", "20 to 39", "40 to 59", "60 to 79", "80 or more")
    assert age.bought == age.synthetic == (0.2,) * 5
    # From 100 on a tenth of the patients was bought, but no synthetic one is there: the cell joins the one below.
    assert weight.labels == ("59.5 or less", "60 or more", "missing")
    assert (weight.bought, weight.synthetic) == ((0.4, 0.4, 0.2), (0.5, 0.3, 0.2))


def test_a_column_of_which_one_cell_is_left_is_not_told(cohort):
    assert "smokes" not in [one.column for one in bought_profiles(manifest(), cohort)]


def test_a_release_that_promises_nothing_has_nothing_bought_to_show(cohort):
    assert bought_profiles(manifest(private=False, why_not="the noise was a test's"), cohort) == ()


def test_calendar_times_are_told_by_their_order(cohort):
    dated = manifest().model_dump(mode="json", by_alias=True)
    dated["domain"] = [dated["domain"][1]]
    dated["domain"][0]["lattice"]["kind"] = "date"
    [age] = bought_profiles(Manifest.model_validate(dated), cohort)
    assert age.labels == tuple(f"part {at} of 5, from the lowest" for at in range(1, 6))
