"""The scorer of whole patients, worked out by hand, and what the methods' adapters share."""

from __future__ import annotations

import nafld_tables
import numpy as np
import pandas as pd
import patients_cell
import patients_common
import patients_score
import patients_summary
import polars as pl
import pytest
import yaml


def tables(events: list[tuple[int, int, str]], patients: int = 40) -> dict[str, pl.DataFrame]:
    """Patients of whom every fifth died, three labs each, and these events."""
    at = np.arange(patients)
    patient = pl.DataFrame(
        {
            "id": at,
            "age": 50 + at % 7,
            "male": at % 2 == 0,
            "weight": 80.0,
            "height": 170.0,
            "bmi": 25.0,
            "futime": 1000,
            "died": at % 5 == 0,
        }
    )
    rows = [
        (int(i), day, test, value)
        for i in at
        for day, test, value in ((0, "hdl", 50.0), (0, "chol", 50.0), (9, "hdl", 60.0))
    ]
    lab = pl.DataFrame(rows, schema=["id", "days", "test", "value"], orient="row")
    event = pl.DataFrame(events, schema=["id", "days", "event"], orient="row")
    return {"patient": patient, "lab": lab, "event": event}


# All have htn; ten days later three in four have nafld, the others htn again.
TWO = [(at, day, event) for at in range(40) for day, event in ((0, "htn"), (10, "nafld" if at < 30 else "htn"))]


def test_equal_cohorts_have_no_distance_and_teach_alike() -> None:
    figures = patients_score.score(train=tables(TWO), holdout=tables(TWO), synthetic=tables(TWO))
    # Everyone has hdl and chol, so that these shares have no spread to be explained.
    left_out = {"lab_prevalence_r2", "lab_prevalence_r2_floor"}
    assert set(figures) == set(patients_score.FIGURES) - left_out
    for name, value in figures.items():
        if name.endswith(("tv", "ks", "floor")) and "r2" not in name:
            assert value == 0.0, name
        elif "r2" in name:
            assert value == 1.0, name
    assert figures["death_auc"] == figures["death_auc_real"]


def test_figures_of_events_by_hand() -> None:
    # Half of the patients have one event, ten days later, and the other half none.
    made = [(at, 10, "htn") for at in range(20)] + [(at, 30, "nafld") for at in range(20)]
    figures = patients_score.score(train=tables(TWO), holdout=tables(TWO), synthetic=tables(made))
    assert figures["event_rows_tv"] == pytest.approx(0.5)
    # Gaps: 20 days against 10 for all who have any.
    assert figures["event_gaps_ks"] == pytest.approx(1.0)
    # After htn comes nafld with 1 for 3/4 and htn with 0 for 1/4; squares about the mean are 2/16 as well.
    assert figures["event_bigrams_r2"] == pytest.approx(0.0)
    assert figures["lab_rows_tv"] == 0.0
    late = patients_score.score(
        train=tables(TWO), holdout=tables(TWO), synthetic=tables([(at, 1001, "htn") for at in range(40)])
    )
    # 40 of 160 rows (three labs and one event each) stand after day 1000.
    assert late["after_end"] == pytest.approx(0.25)


def test_a_table_without_rows_leaves_its_figures_out() -> None:
    figures = patients_score.score(
        train=tables(TWO), holdout=tables(TWO), synthetic=tables(TWO) | {"lab": tables(TWO)["lab"][:0]}
    )
    assert "lab_rows_tv" not in figures
    assert figures["event_rows_tv"] == 0.0
    assert "death_auc" not in figures


def test_windows_keep_consecutive_rows_and_split_shares_no_patient() -> None:
    whole = nafld_tables.nafld_tables()
    train, holdout = nafld_tables.split_by_patient(whole, patients=500)
    assert len(train["patient"]) == 500
    assert len(holdout["patient"]) == round(0.2 * len(whole["patient"]))
    for name in whole:
        assert not set(train[name]["id"]) & set(holdout[name]["id"])
    cut = nafld_tables.bounded(train, most=10)
    counts = train["lab"].group_by("id").len()
    assert cut["lab"].group_by("id").len()["len"].max() == 10
    assert len(cut["lab"]) == counts["len"].clip(0, 10).sum()
    kept = cut["lab"].group_by("id").agg(first=pl.col("days").min(), last=pl.col("days").max())
    strictly = (pl.col("days") > pl.col("first")) & (pl.col("days") < pl.col("last"))
    inside = [of["lab"].join(kept, on="id").filter(strictly).height for of in (train, cut)]
    assert inside[0] == inside[1] > 500


def test_what_methods_make_is_brought_into_the_declared_form() -> None:
    cell = {"schema": yaml.safe_load(nafld_tables.SCHEMA.read_text())}
    made = {
        "patient": pd.DataFrame(
            {
                "id": ["1", "2"],
                "age": [50.4, 130.0],
                "male": ["True", "False"],
                "weight": [80.04, None],
                "height": 170.2,
                "bmi": 25.0,
                "futime": -5.0,
                "died": [True, False],
            }
        ),
        "lab": pd.DataFrame({"id": [1, 7], "days": [3.6, 1.0], "test": ["hdl", "hdl"], "value": [999.0, 1.0]}),
        "event": pd.DataFrame({"id": [2], "days": [1.2], "event": ["MI"]}),
    }
    formed = patients_common.in_form(made, cell)
    assert formed["patient"]["age"].tolist() == [50, 120]
    assert formed["patient"]["male"].tolist() == [True, False]
    assert formed["patient"]["futime"].tolist() == [0, 0]
    assert formed["patient"]["weight"].tolist()[0] == pytest.approx(80.0)
    assert np.isnan(formed["patient"]["weight"].tolist()[1])
    # A row of no patient is left out; a value is clipped to the bounds of its test.
    assert formed["lab"].to_dict("list") == {"id": [1], "days": [4], "test": ["hdl"], "value": [500.0]}


def test_results_are_read_back_and_rendered(tmp_path) -> None:
    results = tmp_path / "patients.csv"
    line = dict.fromkeys(patients_cell.FIELDS, "")
    line |= {
        "method": "ours-auto",
        "patients": "40",
        "epsilon": "3.0",
        "seed": "0",
        "status": "ok",
        "lab_rows_tv": "0.05",
    }
    line |= {"lab_rows_tv_floor": "0.03", "versions": "python 3"}
    pd.DataFrame([line]).to_csv(results, index=False)
    assert patients_cell.finished(results)[patients_cell.Cell("ours-auto", 40, 3.0, 0)]["lab_rows_tv"] == "0.05"
    patients_summary.render(results, tmp_path / "patients.md")
    assert "| labs per patient, TV | 0.030 | 0.050 |" in (tmp_path / "patients.md").read_text()
    results.write_text("other,columns\n1,2\n")
    with pytest.raises(ValueError, match="other columns"):
        patients_cell.finished(results)
