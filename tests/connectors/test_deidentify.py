"""No calendar date passes the door: dates come in as offsets and ages, and go out on a calendar that is made up."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.connectors.base import conform_tables
from synthehr.connectors.deidentify import as_offsets
from synthehr.connectors.made_up_calendar import CALENDAR_END, MadeUpCalendar
from synthehr.connectors.meds.layout import default_schema
from synthehr.errors import DataError, SchemaError
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

HOUR = {"kind": "offset", "of": "datetime", "unit": "h", "nullable": True}
DAY = {"kind": "offset", "nullable": True}


def schema(patient: dict, visit: dict | None = None, lab: dict | None = None) -> Schema:
    tables: dict = {"patient": {"key": "id", "columns": {"id": {"kind": "id"}, "sex": {"kind": "category"}, **patient}}}
    if visit is not None:
        columns = {"vid": {"kind": "id"}, "pid": {"kind": "id"}, **visit}
        tables["visit"] = {"key": "vid", "parent": "patient", "foreign_key": "pid", "columns": columns}
    if lab is not None:
        tables["lab"] = {"parent": "visit", "foreign_key": "vid", "columns": {"vid": {"kind": "id"}, **lab}}
    return load_schema({"synthehr": 1, "subject": "patient", "tables": tables})


def patients(**columns: list[object]) -> pl.DataFrame:
    return pl.DataFrame({"id": ["1", "2"], "sex": ["f", "m"], **columns})


def test_days_and_hours_count_from_the_birth_in_every_table() -> None:
    declared = schema({"born": {"kind": "anchor"}, "died": DAY}, {"start": HOUR}, {"drawn": DAY})
    cohort = conform_tables(
        {
            "patient": patients(born=["2000-01-01", "2000-03-01"], died=["", "2000-03-31"]),
            "visit": pl.DataFrame(
                {
                    "vid": ["a", "b", "c"],
                    "pid": ["2", "1", "1"],
                    "start": ["2000-03-02T01:59:00Z", "1999-12-31 23:00", "2000-01-01T00:30:00.5+02:00"],
                }
            ),
            "lab": pl.DataFrame({"vid": ["c", "a"], "drawn": ["2000-01-11", "2000-03-01 00:00:00"]}),
        },
        schema=declared,
    )
    assert "born" not in cohort.root.columns
    assert cohort.root["died"].to_list() == [None, 30]
    # 25 h 59 min after midnight of the birth; one hour before it; the clock on the wall counts, not the zone
    assert cohort.tables["visit"]["start"].to_list() == [25, -1, 0]
    assert cohort.tables["lab"]["drawn"].to_list() == [10, 0]


def test_without_a_birth_times_count_from_the_first_date_in_any_table() -> None:
    declared = schema({"died": DAY}, {"start": HOUR})
    tables = {
        "patient": patients(died=["2010-01-03", None]),
        "visit": pl.DataFrame(
            {"vid": ["a", "b", "c"], "pid": ["1", "1", "2"], "start": ["2010-01-02 05:00", "2010-01-01 09:00", None]}
        ),
    }
    read = as_offsets(tables, schema=declared)
    assert read["patient"]["died"].to_list() == [2, None]
    assert read["visit"]["start"].to_list() == [29, 9, None]


def test_a_birth_becomes_an_age_on_a_public_day_and_anchors_the_rest() -> None:
    declared = schema({"born": {"kind": "age", "at": "2024-06-30"}, "seen": DAY})
    cohort = conform_tables(
        {"patient": patients(born=["2000-06-30", "2000-07-01"], seen=["2000-07-01", "2000-06-30"])}, schema=declared
    )
    assert cohort.root["born"].to_list() == [24, 23]
    assert cohort.root["seen"].to_list() == [1, -1]


def test_dates_of_a_database_and_times_with_a_zone_are_read_alike() -> None:
    declared = schema({"born": {"kind": "anchor"}, "seen": HOUR})
    zoned = pl.Series([dt.datetime(2000, 1, 1, 10), None]).dt.replace_time_zone("Europe/Berlin")
    frame = patients(born=[dt.date(2000, 1, 1), dt.date(2001, 1, 1)]).with_columns(zoned.alias("seen"))
    assert as_offsets({"patient": frame}, schema=declared)["patient"]["seen"].to_list() == [10, None]


def test_offsets_that_were_read_before_stay() -> None:
    declared = schema({"born": {"kind": "anchor"}, "seen": HOUR, "n": {"kind": "integer"}})
    again = patients(seen=["10", "-3"], n=["1", "2"])
    assert conform_tables({"patient": again}, schema=declared).root["seen"].to_list() == [10, -3]
    assert as_offsets({"patient": again}, schema=declared)["patient"].equals(again)


def test_a_date_written_as_a_number_is_no_offset() -> None:
    declared = schema({"born": {"kind": "anchor"}, "seen": DAY})
    with pytest.raises(DataError, match="column 'seen' in table 'patient', row 2: is no date"):
        conform_tables({"patient": patients(born=["2000-01-01"] * 2, seen=[14, 20_210_531])}, schema=declared)


def test_a_cohort_with_calendar_dates_and_no_anchor_stays_as_it_is() -> None:
    declared = schema({"seen": {"kind": "date", "bounds": ["1990-01-01", "2030-01-01"]}})
    cohort = conform_tables({"patient": patients(seen=["2000-01-01", "2001-01-01"])}, schema=declared)
    assert cohort.root["seen"].to_list() == [dt.date(2000, 1, 1), dt.date(2001, 1, 1)]


@pytest.mark.parametrize(
    "cells",
    [
        ["2000-02-01", "soon"],
        ["2000-02-01", "2000-13-01"],
        ["2000-02-01", "47"],  # a number among dates is no date
        ["2000-02-01", "2000-02-01 10:00"],  # a day alone is declared, and the time would be lost
        ["2000-02-01", "02/03/2000"],
    ],
)
def test_a_cell_that_is_no_date_is_told_by_row_and_not_by_value(cells: list[str]) -> None:
    declared = schema({"born": {"kind": "anchor"}, "seen": DAY})
    with pytest.raises(DataError) as told:
        conform_tables({"patient": patients(born=["2000-01-01"] * 2, seen=cells)}, schema=declared)
    assert "column 'seen' in table 'patient', row 2: is no date" in str(told.value)
    assert cells[1] not in str(told.value)


def test_a_date_of_a_patient_without_an_anchor_is_told() -> None:
    declared = schema({"born": {"kind": "anchor"}, "seen": DAY})
    with pytest.raises(DataError, match=r"row 2: is no date .* of a patient who has an anchor"):
        conform_tables({"patient": patients(born=["2000-01-01", ""], seen=["2000-01-05"] * 2)}, schema=declared)


def test_synthetic_patients_without_a_birth_count_from_their_first_date() -> None:
    declared = schema({"born": {"kind": "age", "at": "2024-01-01", "nullable": True}, "seen": DAY, "died": DAY})
    frame = patients(born=["2000-01-01", ""], seen=["2000-01-05", "2010-01-01"], died=["", "2010-01-04"])
    root = conform_tables({"patient": frame}, schema=declared, lenient=True).root
    assert root.select("born", "seen", "died").rows() == [(24, 4, None), (None, 0, 3)]


@pytest.mark.parametrize(
    ("patient", "visit", "what"),
    [
        ({"a": {"kind": "anchor"}, "b": {"kind": "age", "at": "2020-01-01"}}, None, "both anchor the times"),
        ({}, {"b": {"kind": "anchor"}}, "belongs to a patient"),
        ({"b": {"kind": "age"}}, None, "at: is required"),
        ({"b": {"kind": "offset", "unit": "wk"}}, None, "unit: must be 'd', 'h' or 'min'"),
        ({"b": {"kind": "offset", "bounds": [5, 1]}}, None, "lower below upper"),
        ({"b": {"kind": "consent"}}, None, "either opt_out or opt_in"),
        ({"b": {"kind": "consent", "opt_out": []}}, None, "at least one value"),
    ],
)
def test_what_the_schema_language_refuses(patient: dict, visit: dict | None, what: str) -> None:
    with pytest.raises(SchemaError, match=what):
        schema(patient, visit)


def made_up(declared: Schema, tables: dict[str, pl.DataFrame], seed: int = 1) -> dict[str, pl.DataFrame]:
    return MadeUpCalendar(declared, seed=seed).dated(tables)


FULL = schema(
    {"born": {"kind": "anchor"}, "died": {**DAY, "bounds": [0, 40000]}},
    {"start": HOUR},
    {"drawn": {**DAY, "unit": "d"}},
)


def synthetic(n: int, seed: int = 0) -> dict[str, pl.DataFrame]:
    draws = np.random.default_rng(seed)
    ids = [f"S{at}" for at in range(n)]
    visits = 3 * n
    return {
        "patient": pl.DataFrame({"id": ids, "sex": ["f"] * n, "died": draws.integers(0, 40000, n)}).with_columns(
            pl.when(pl.int_range(n) % 3 > 0).then(pl.col("died"))
        ),
        "visit": pl.DataFrame(
            {
                "vid": [f"V{at}" for at in range(visits)],
                "pid": [ids[at % n] for at in range(visits)],
                "start": draws.integers(-24, 900_000, visits),
            }
        ),
        "lab": pl.DataFrame({"vid": [f"V{at}" for at in range(visits)], "drawn": draws.integers(0, 30000, visits)}),
    }


def test_what_is_written_is_read_back_as_it_was_in_the_types_of_the_records() -> None:
    tables = synthetic(50)
    dated = made_up(FULL, tables)
    assert dated["patient"].columns == ["id", "sex", "born", "died"]
    assert dated["patient"].schema["born"] == dated["patient"].schema["died"] == pl.Date
    assert dated["visit"].schema["start"] == pl.Datetime("us")
    read = as_offsets(dated, schema=FULL)
    for name in tables:
        assert read[name].equals(tables[name].select(read[name].columns)), name


def test_nothing_lies_in_the_future_and_last_dates_spread_over_ten_years() -> None:
    dated = made_up(FULL, synthetic(400))
    visits = (
        dated["visit"]
        .join(dated["lab"], on="vid")
        .group_by("pid")
        .agg(pl.max_horizontal(pl.col("start").cast(pl.Date).max(), pl.col("drawn").max()).alias("last"))
    )
    last = visits.join(dated["patient"], left_on="pid", right_on="id").select(pl.max_horizontal("last", "died"))
    days = last.to_series()
    assert days.max() <= CALENDAR_END
    assert days.min() > CALENDAR_END - dt.timedelta(days=3653)
    assert days.n_unique() > 300


def test_the_calendar_follows_from_the_seed_and_not_from_how_patients_are_cut() -> None:
    whole = synthetic(30)
    parts = MadeUpCalendar(FULL, seed=5)
    cut = []
    for ids in (whole["patient"]["id"][:11], whole["patient"]["id"][11:]):
        visit = whole["visit"].filter(pl.col("pid").is_in(ids.implode()))
        part = {
            "patient": whole["patient"].filter(pl.col("id").is_in(ids.implode())),
            "visit": visit,
            "lab": whole["lab"].filter(pl.col("vid").is_in(visit["vid"].implode())),
        }
        cut.append(parts.dated(part)["patient"])
    assert pl.concat(cut).equals(made_up(FULL, whole, seed=5)["patient"])
    assert not pl.concat(cut).equals(made_up(FULL, whole, seed=6)["patient"])


def test_a_birth_that_is_written_gives_its_age_back_on_the_public_day() -> None:
    declared = schema({"born": {"kind": "age", "at": "2024-02-29"}, "seen": DAY})
    ages = [*range(-1, 120), None]
    n = len(ages)
    tables = {
        "patient": pl.DataFrame({"id": [str(at) for at in range(n)], "sex": ["f"] * n, "born": ages, "seen": [3] * n})
    }
    for seed in range(20):
        dated = made_up(declared, tables, seed=seed)["patient"]
        assert dated["born"].null_count() == 1
        known = dated.filter(pl.col("born").is_not_null())
        read = as_offsets({"patient": known}, schema=declared)["patient"]
        assert read["born"].to_list() == ages[:-1]
        assert set(read["seen"]) == {3}


def test_an_offset_that_no_calendar_holds_is_told() -> None:
    declared = schema({"seen": DAY})
    with pytest.raises(DataError, match="within 120000 days"):
        made_up(declared, {"patient": patients(seen=[1, 120_001])})


def test_a_schema_without_times_leaves_tables_as_they_are() -> None:
    tables = {"patient": patients()}
    assert made_up(schema({}), tables)["patient"].equals(tables["patient"])


def test_times_of_meds_stay_whole_units_since_births_that_no_column_tells() -> None:
    tables = {
        "patient": pl.DataFrame({"subject_id": ["S1", "S2"], "born": [True, True], "death": [None, 40_000_000]}),
        "event": pl.DataFrame({"subject_id": ["S1", "S2"], "time": [20_000_000, 30_000_000], "code": ["a", "b"]}),
    }
    written = made_up(default_schema(), tables)
    assert written["event"]["time"].to_list() == [20_000_000, 30_000_000]
    read = as_offsets(written, schema=default_schema())
    assert read["event"].equals(tables["event"])
    assert read["patient"].equals(tables["patient"])


def test_what_was_read_makes_a_cohort_of_offsets_that_can_be_split() -> None:
    declared = schema({"born": {"kind": "anchor"}, "seen": DAY})
    cohort = conform_tables(
        {"patient": patients(born=["2000-01-01"] * 2, seen=["2000-01-05", "2000-02-05"])}, schema=declared
    )
    train, holdout = cohort.split(holdout=0.5, seed=0)
    again = [conform_tables(part.tables, schema=declared) for part in (train, holdout)]
    assert sorted(day for part in again for day in part.root["seen"]) == [4, 35]
    assert all(isinstance(part, Cohort) for part in again)
