"""What real visits hardly ever do is counted as by hand, a cell is kept and told, and the cohorts are as declared."""

from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest
import visits
import visits_tables

import synthehr

DATA = Path(__file__).parents[3] / "shared" / "data" / "tables"
# Patients 1 to 3. Patient 1 dies in the first of three encounters, grows ten years younger, then thirty older.
ENCOUNTERS = pl.DataFrame(
    [
        (1, 1, "11", "[50-60)"),
        (1, 2, "1", "[40-50)"),
        (1, 4, "13", "[70-80)"),
        (2, 2, "11", "[50-60)"),
    ],
    schema=["id", "number", "discharge_disposition_id", "age"],
    orient="row",
)
STAYS = pl.DataFrame(
    [(1, 0, "2"), (1, 5, "4"), (1, 5, "3"), (2, 3, "1"), (2, 900, "2")], schema=["id", "day", "stage"], orient="row"
)


def rates(cohort: str, visit: pl.DataFrame) -> list[float]:
    tables = {"patient": pl.DataFrame({"id": [1, 2, 3], "futime": [100, 899, 5]}), "visit": visit}
    found = list(visits.looks(cohort, real=tables, synthetic=tables))
    assert [one["name"] for one in found] == list(visits.LOOKS[cohort])
    assert all(one["value"] == one["reference"] and one["verdict"] == "as real" for one in found)
    return [float(str(one["value"])) for one in found]


def test_regularities_of_encounters_are_counted_as_by_hand() -> None:
    # Deaths: 1 of 2 is followed. Hospice: the 1 is not. Steps of patient 1: -10, +30; numbers 1, 2, 4 step by 1, 2.
    # First numbers: 1 and 2. One patient of three has no encounter.
    assert rates("diabetes130", ENCOUNTERS) == pytest.approx([1 / 2, 0, 1 / 2, 1 / 2, 1 / 2, 1 / 2, 1 / 3])


def test_regularities_of_visits_in_days_are_counted_as_by_hand() -> None:
    # After the end: day 900 of 5 visits. First days: 0 and 3. Days step by 5, 0, 897; stages by +2, -1, +1.
    assert rates("pbcseq", STAYS) == pytest.approx([1 / 5, 1 / 2, 1 / 3, 1 / 3, 1 / 3, 1 / 3])


def test_a_regularity_that_synthetic_visits_break_more_often_is_marked() -> None:
    real = {"patient": pl.DataFrame({"id": [1, 2], "futime": [9, 9]}), "visit": STAYS.with_columns(day=pl.lit(0))}
    made = {**real, "visit": STAYS}
    found = {str(one["name"]): one["verdict"] for one in visits.looks("pbcseq", real=real, synthetic=made)}
    assert found["a visit after the end of follow-up"] == "more"
    assert found["two visits on one day"] == "as real"  # all real ones are


def test_finished_cells_are_read_again_and_told_in_one_table(tmp_path: Path) -> None:
    results = tmp_path / "visits.csv"
    for epsilon, value in (("3", 0.2), ("10", 0.05)):
        cell = {"cohort": "pbcseq", "epsilon": epsilon, "seed": 0}
        check = {"kind": "check, excess", "name": "gaps-alike", "value": value, "low": 0.01, "high": 0.3}
        visits._append(
            results,
            [
                cell | check | {"allowed": "<= 0.1", "verdict": "fail" if value > 0.1 else "pass"},
                cell | {"kind": "check, value", "name": "as-many-rows", "value": 0.0, "verdict": "pass"},
                cell
                | {"kind": "look", "name": "two visits on one day", "value": 0.25, "reference": 0, "verdict": "more"},
                *(
                    cell | {"kind": "cost", "name": name, "value": "x"}
                    for name in ("fit, CPU s", "versions", "sources", "machine")
                ),
            ],
        )
    cells = visits.finished(results)
    assert set(cells) == {("pbcseq", "3", "0"), ("pbcseq", "10", "0")}
    told = visits.table_of(cells)
    assert "| checks that pass | 2 of 2 | 1 of 2 |" in told or "| checks that pass | 1 of 2 | 2 of 2 |" in told
    assert "fail: 0.200 (0.010 to 0.300), allowed <= 0.1" in told
    assert "| two visits on one day | **more**: 25.00% (0.00%) | **more**: 25.00% (0.00%) |" in told
    assert "as-many-rows" not in told  # it passes everywhere


def test_a_results_file_of_another_form_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "visits.csv").open("w", newline="") as file:
        csv.writer(file).writerow(["cohort", "score"])
    with pytest.raises(ValueError, match="other columns"):
        visits.finished(tmp_path / "visits.csv")


@pytest.mark.parametrize(("name", "patients", "rows"), [("diabetes130", 71_518, 101_766), ("pbcseq", 312, 1_945)])
def test_the_published_tables_are_cohorts_as_declared_and_keep_their_rules(name: str, patients: int, rows: int) -> None:
    if not DATA.is_dir():
        pytest.skip("the tables of shared/data are not here")
    tables, schema = visits_tables.visits_of(name, DATA)
    assert schema["rules"]
    cohort = synthehr.read(tables, schema=schema)  # refuses rows that break a rule
    assert (len(cohort), cohort.tables["visit"].height) == (patients, rows)
    assert max(rate for rate in (one["value"] for one in visits.looks(name, real=tables, synthetic=tables))) < 0.1
