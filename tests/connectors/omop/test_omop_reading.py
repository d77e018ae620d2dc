"""A Common Data Model is read as days from each person's anchor, and no source value comes along."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import duckdb
import polars as pl
import pytest
from made_cdm import TABLES, write_cdm

from synthehr.cli import main
from synthehr.cohort import Cohort
from synthehr.connectors import records
from synthehr.connectors.badrows import LeftOut
from synthehr.connectors.conversion import convert
from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.errors import ConfigError, DataError
from synthehr.schema.model import Schema


@pytest.fixture
def made(tmp_path: Path) -> Cohort[Schema]:
    return records.read(write_cdm(tmp_path / "cdm"))


def changed(table: str, old: str, new: str) -> dict[str, str]:
    assert old in TABLES[table]
    return {**TABLES, table: TABLES[table].replace(old, new)}


def test_the_anchor_is_the_birth_or_the_first_of_the_month_or_the_first_of_july(made: Cohort[Schema]) -> None:
    assert made.root["birth_known"].to_list() == ["day", "month", "year"]
    conditions = made.tables["condition_occurrence"]
    # 2000-01-31 to 2010-01-31 is 10 years with three leap days; 1950-03-01 to 1950-03-02; 1980-07-01 to 1979-07-01
    assert conditions["condition_start_day"].to_list() == [3653, 1, -366]


def test_an_end_becomes_a_duration_and_one_before_the_start_is_missing(made: Cohort[Schema]) -> None:
    assert made.tables["condition_occurrence"]["duration_days"].to_list() == [2, None, None]
    assert made.tables["visit_occurrence"]["duration_days"].to_list() == [3, 0]


def test_a_time_of_day_does_not_move_the_day(made: Cohort[Schema]) -> None:
    # 2010-02-01 is a day after 3653; from there to 2010-06-01 it is 120 days
    assert made.tables["measurement"]["measurement_day"].to_list() == [3654, 3774]


def test_ids_are_text_without_fractions_and_visits_are_kept_as_they_are(made: Cohort[Schema]) -> None:
    assert made.tables["measurement"]["measurement_id"].to_list() == ["1", "1"]
    assert made.tables["measurement"]["visit_occurrence_id"].to_list() == ["100", "999"]
    assert made.tables["visit_occurrence"]["preceding_visit_occurrence_id"].to_list() == [None, "100"]


def test_the_names_of_columns_before_5_4_are_known(made: Cohort[Schema]) -> None:
    assert made.tables["visit_occurrence"]["admitted_from_concept_id"].to_list() == ["8870", None]


def test_a_table_that_is_not_there_has_no_rows(made: Cohort[Schema]) -> None:
    assert made.tables["drug_exposure"].height == 0
    assert made.tables["death"]["death_day"].to_list() == [25568]  # 70 years of 365 days and 18 leap days


def test_a_stand_in_without_any_of_the_columns_has_no_rows_either(tmp_path: Path) -> None:
    cohort = records.read(write_cdm(tmp_path / "cdm", {**TABLES, "death": "column0,column1\nPERSON_ID,DEATH_DATE\n"}))
    assert cohort.tables["death"].height == 0


def test_source_values_are_in_nothing_that_is_written(tmp_path: Path) -> None:
    source = write_cdm(tmp_path / "cdm")
    for form in ("csv", "omop-csv"):
        convert(source, out=tmp_path / form, format=form, seed=1)
        for path in (tmp_path / form).iterdir():
            assert "canary" not in path.read_text(encoding="utf-8")


def test_files_may_be_packed_columnar_and_in_capital_letters(tmp_path: Path) -> None:
    plain = records.read(write_cdm(tmp_path / "plain"))
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name, text in TABLES.items():
        if name == "person":
            pl.read_csv(text.encode(), infer_schema_length=9).write_parquet(folder / "PERSON.parquet")
        else:
            (folder / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
    again = records.read(f"omop:{folder}")
    assert all(again.tables[name].equals(frame) for name, frame in plain.tables.items())


def test_a_database_gives_the_same_as_files(tmp_path: Path) -> None:
    files = records.read(write_cdm(tmp_path / "cdm"))
    with duckdb.connect(tmp_path / "cdm.duckdb") as connection:
        for name in TABLES:
            path = next(p for p in (tmp_path / "cdm").iterdir() if p.stem.lower() == name)
            connection.execute(f"CREATE TABLE {name.upper()} AS SELECT * FROM read_csv('{path}', header=true)")
    database = records.read(f"omop+duckdb:///{tmp_path}/cdm.duckdb")
    for name, frame in files.tables.items():
        assert database.tables[name].equals(frame), name


def test_names_of_concepts_come_along_where_the_vocabulary_is_there(tmp_path: Path) -> None:
    source = write_cdm(tmp_path / "cdm")
    convert(source, out=tmp_path / "out", format="csv")
    told = pl.read_csv(tmp_path / "out" / "concept.csv", infer_schema_length=0)
    assert told.select("concept_id", "concept_name", "valid_start_date").rows() == [
        ("201826", "Type 2 diabetes mellitus", "2002-01-31")
    ]
    (tmp_path / "cdm" / "concept.csv").unlink()
    convert(source, out=tmp_path / "without", format="csv")
    assert not (tmp_path / "without" / "concept.csv").exists()


def test_rows_of_no_person_and_without_a_date_are_bad_rows(tmp_path: Path) -> None:
    tables = {
        **TABLES,
        "measurement": TABLES["measurement"] + "5,77,3004410,2010-02-01,32817,6.5,8554,\n",
        "death": TABLES["death"] + "9,sometime,32817,\n",
    }
    source = write_cdm(tmp_path / "cdm", tables)
    with pytest.raises(DataError, match=r"table 'death', row 2|table 'measurement'") as told:
        records.read(source)
    assert "sometime" not in str(told.value)
    left: list[LeftOut] = []
    cohort = records.read(source, on_bad=BadRowPolicy(mode="drop", most=0.5), on_left_out=left.append)
    assert cohort.tables["measurement"].height == 2
    assert cohort.tables["death"].height == 1
    assert sorted(left[0].listed.select("table", "row").rows()) == [("death", 2), ("measurement", 3)]


@pytest.mark.parametrize(
    ("tables", "rule"),
    [
        ({k: v for k, v in TABLES.items() if k != "person"}, "has no table 'person'"),
        (changed("person", "year_of_birth", "year"), "no column 'year_of_birth'"),
        (changed("measurement", "measurement_date", "day"), "no column 'measurement_date'"),
        (changed("measurement", "measurement_concept_id", "concept"), "no column 'measurement_concept_id'"),
        (changed("person", "8507,2000", "8507,birth"), "column 'birth_known' in table 'person', row 1"),
        (changed("person", "8507,2000", "12345,2000"), "column 'gender_concept_id' in table 'person', row 1"),
        (changed("person", "\n8,", "\n7,"), "must be unique"),
        (changed("measurement", "6.5", "six"), "column 'value_as_number' in table 'measurement', row 1"),
        (changed("condition_occurrence", "1979-07-01", "1900-01-01"), "row 3: lies outside the declared bounds"),
        (changed("death", "person_id,", "person_id,person_id,"), "stands twice in the header"),
        ({**TABLES, "death": "a;b\n1;2\n"}, "no column 'person_id'"),
        ({**TABLES, "person": ""}, "person"),
        ({**TABLES, "person": TABLES["person"].split("\n")[0] + "\n"}, "has no rows"),
    ],
)
def test_what_is_no_common_data_model_is_refused_in_one_line(tables: dict[str, str], rule: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rule) as told:
        records.read(write_cdm(tmp_path / "cdm", tables))
    assert "\n" not in str(told.value)
    assert "canary" not in str(told.value)


def test_two_files_of_one_table_are_refused(tmp_path: Path) -> None:
    source = write_cdm(tmp_path / "cdm")
    (tmp_path / "cdm" / "Person.csv").write_text(TABLES["person"], encoding="utf-8")
    with pytest.raises(DataError, match="several files for table 'person'"):
        records.read(source)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("omop:{0}/nowhere", DataError),
        ("omop+duckdb:///{0}/nowhere.duckdb", DataError),
        ("omop+duckdb:///{0}/a.duckdb?query=SELECT+1", ConfigError),
        ("omop+https://server/base", ConfigError),
    ],
)
def test_a_source_that_is_none_is_refused_in_one_line(
    source: str, error: type[Exception], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error):
        records.read(source.format(tmp_path))
    assert main(["convert", source.format(tmp_path), "-o", str(tmp_path / "out")]) in (2, 3)
    assert capfd.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_schema_of_fewer_tables_and_columns_reads_only_these(tmp_path: Path) -> None:
    schema = {
        "synthehr": 1,
        "subject": "person",
        "tables": {
            "person": {
                "key": "person_id",
                "columns": {"person_id": {"kind": "id"}, "birth_known": {"kind": "category"}},
            },
            "death": {
                "parent": "person",
                "foreign_key": "person_id",
                "columns": {"person_id": {"kind": "id"}, "death_day": {"kind": "integer"}},
            },
        },
    }
    cohort = records.read(write_cdm(tmp_path / "cdm"), schema=schema)
    assert {name: frame.columns for name, frame in cohort.tables.items()} == {
        "person": ["person_id", "birth_known"],
        "death": ["person_id", "death_day"],
    }
    schema["tables"]["note"] = dict(schema["tables"]["death"])  # type: ignore[index]
    with pytest.raises(DataError, match="'note' of the schema is none that is read of OMOP"):
        records.read(f"omop:{tmp_path}/cdm", schema=schema)


def test_schema_check_needs_no_schema(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "check", write_cdm(tmp_path / "cdm"), "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["met"] is True
    assert len(told["rules"]) > 50


@pytest.mark.parametrize("format", ["parquet", "store"])
def test_a_clean_source_is_written_part_by_part_as_it_is_held(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_cdm(tmp_path / "cdm")
    held = records.read(source)
    monkeypatch.setattr("synthehr.connectors.conversion.read", None)  # so that nothing is held
    convert(source, out=tmp_path / "out", format=format)
    found = records.read(tmp_path / "out", schema=held.schema)
    for name, frame in held.tables.items():
        expected = frame.select(list(held.schema.tables[name].kept))
        assert found.tables[name].select(expected.columns).cast(expected.schema).equals(expected)
        assert found.owners(name).tolist() == held.owners(name).tolist()
    assert (tmp_path / "out" / "concept.parquet").is_file() == (format == "parquet" and "concept" in TABLES)
