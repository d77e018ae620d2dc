"""Files of the Common Data Model as others made them: GiBleed (5.3, DuckDB), ten SynPUF patients (5.0, PostgreSQL)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import duckdb
import polars as pl
import psycopg
import pytest
from postgresql_server import PostgresqlServer

from synthehr.cohort import Cohort
from synthehr.connectors import records
from synthehr.connectors.badrows import LeftOut
from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.connectors.files import TableFiles
from synthehr.connectors.omop.cdm import DURATION, cdm_tables, default_schema
from synthehr.connectors.omop.conversion import convert_to_omop
from synthehr.connectors.sql.tables import SqlTables
from synthehr.errors import DataError
from synthehr.schema.model import Schema

DATA = Path(__file__).parents[4] / "shared" / "data" / "omop"
GIBLEED, DUMP = DATA / "omop_gibleed" / "eunomia.duckdb", DATA / "omop_synpuf10p_sqlite" / "synpuf-10p.pgsql.sql"
DROP = BadRowPolicy(mode="drop", most=0.02)

needs_gibleed = pytest.mark.skipif(not GIBLEED.is_file(), reason="needs GiBleed in ../shared/data/omop/omop_gibleed")
needs_dump = pytest.mark.skipif(not DUMP.is_file(), reason="needs SynPUF in ../shared/data/omop/omop_synpuf10p_sqlite")


@pytest.fixture(scope="module")
def gibleed() -> Cohort[Schema]:
    left: list[LeftOut] = []
    cohort = records.read(f"omop+duckdb:///{GIBLEED}", on_bad=DROP, on_left_out=left.append)
    # periods of 2,649 persons who are not there, and one exposure more than 400 days before its patient's birth
    assert dict(left[0].listed["table"].value_counts().iter_rows()) == {"observation_period": 2649, "drug_exposure": 1}
    return cohort


@needs_gibleed
def test_gibleed_is_read_with_as_many_rows_and_nulls_as_it_has(gibleed: Cohort[Schema]) -> None:
    with duckdb.connect(GIBLEED, read_only=True) as connection:
        for name, frame in gibleed.tables.items():
            if name == "death":  # a stand-in: one row that holds the names of the columns
                assert frame.height == 0
                continue
            there = "person_id IN (SELECT person_id FROM person)"
            if cdm_tables()[name].start is not None:
                born = f"(SELECT birth_datetime FROM person WHERE person.person_id = {name}.person_id)"
                there += f" AND {cdm_tables()[name].start} - {born} BETWEEN -400 AND 45000"
            held = {row[0].lower() for row in connection.execute(f"DESCRIBE {name}").fetchall()}
            kept = [*cdm_tables()[name].keeps, *cdm_tables()[name].links]
            same = [column for column in ("person_id", *kept) if column in held]
            counts = ", ".join(f"count(*) - count({column})" for column in same)
            told = connection.execute(f"SELECT count(*), {counts} FROM {name} WHERE {there}").fetchone()
            assert told == (frame.height, *(frame[column].null_count() for column in same)), name


@needs_gibleed
def test_gibleed_goes_to_files_and_to_postgresql_and_back_unchanged(
    gibleed: Cohort[Schema], tmp_path: Path, postgresql_server: PostgresqlServer
) -> None:
    place = f"{postgresql_server.uri}?schema=gibleed"
    for form in ("parquet", "csv"):
        TableFiles().write(gibleed, tmp_path / form, format=form)
    SqlTables().write(records.read(tmp_path / "csv", schema=default_schema()), place)
    for where in (tmp_path / "parquet", tmp_path / "csv", place):
        again = records.read(where, schema=default_schema())
        for name, frame in gibleed.tables.items():
            columns = frame.columns
            assert again.tables[name].sort(columns).equals(frame.sort(columns)), (where, name)


@needs_gibleed
def test_gibleed_written_as_omop_has_the_same_rows_keys_and_nulls_but_for_references_to_nothing(
    gibleed: Cohort[Schema], postgresql_server: PostgresqlServer
) -> None:
    place = f"{postgresql_server.uri}?schema=gibleed_cdm"
    convert_to_omop(gibleed, place, seed=1, synthetic=False)
    place = f"omop+{place}"
    again = records.read(place)
    visits = set(gibleed.tables["visit_occurrence"]["visit_occurrence_id"])
    for name, frame in gibleed.tables.items():
        found, cdm = again.tables[name], cdm_tables()[name]
        assert found.height == frame.height, name
        for column in frame.columns:
            if column in cdm.links:
                assert set(found[column].drop_nulls()) <= visits
                continue
            if column == DURATION and cdm.end is not None and cdm.columns[cdm.end].required:
                continue  # a period that was widened has another one
            assert found[column].null_count() == frame[column].null_count(), (name, column)
        unique = cdm.key is not None and frame[cdm.key].is_unique().all()
        keys = sorted({"person_id", *([cdm.key] if cdm.key is not None and unique else [])})
        assert found.select(keys).sort(keys).equals(frame.select(keys).sort(keys)), name
    events = {name: frame for name, frame in gibleed.tables.items() if name not in ("person", "observation_period")}
    for name, frame in events.items():
        what = ["person_id", cdm_tables()[name].day, *cdm_tables()[name].keeps]
        assert again.tables[name].select(what).sort(what).equals(frame.select(what).sort(what)), name


@needs_dump
def test_the_dump_is_loaded_into_postgresql_and_read_from_there(postgresql_server: PostgresqlServer) -> None:
    with psycopg.connect(postgresql_server.uri, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA synpuf")
        connection.execute("SET search_path TO synpuf")
        connection.execute(DUMP.read_text(encoding="utf-8").encode())
    schema = {
        "synthehr": 1,
        "subject": "person",
        "tables": {
            "person": {
                "key": "person_id",
                "columns": {
                    "person_id": {"kind": "id"},
                    "gender_concept_id": {"kind": "category", "values": [8507, 8532]},
                    "year_of_birth": {"kind": "integer", "bounds": [1900, 2020]},
                },
            },
            "visit": {
                "parent": "person",
                "foreign_key": "person_id",
                "columns": {
                    "person_id": {"kind": "id"},
                    "days": {"kind": "integer", "bounds": [0, 1000]},
                },
            },
        },
    }
    persons = "SELECT person_id, gender_concept_id, year_of_birth FROM synpuf.person"
    visits = "SELECT person_id, visit_end_date - visit_start_date AS days FROM synpuf.visit_occurrence"
    uri = f"{postgresql_server.uri}?query={quote(persons)}&query.visit={quote(visits)}"
    cohort = records.read(uri, schema=schema)
    assert (cohort.root.height, cohort.tables["visit"].height) == (10, 27)
    assert cohort.root.sort("person_id")["year_of_birth"].sort().to_list() == [
        1911, 1913, 1922, 1923, 1932, 1937, 1940, 1956, 1957, 1963
    ]  # fmt: skip


@needs_dump
def test_the_dump_is_read_as_omop_too(postgresql_server: PostgresqlServer) -> None:
    with psycopg.connect(postgresql_server.uri, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA synpuf_omop")
        connection.execute("SET search_path TO synpuf_omop")
        connection.execute(DUMP.read_text(encoding="utf-8").encode())
    cohort = records.read(f"omop+{postgresql_server.uri}?schema=synpuf_omop")
    rows = {name: frame.height for name, frame in cohort.tables.items() if frame.height}
    assert rows == {
        "person": 10,
        "observation_period": 10,
        "visit_occurrence": 27,
        "condition_occurrence": 26,
        "drug_exposure": 13,
    }
    stay = cohort.tables["visit_occurrence"].filter(pl.col("visit_occurrence_id") == "88179").row(0, named=True)
    # born 1940-02-01; there from 2008-04-09 to 2008-04-13: 68 years with 17 leap days, then 68 days
    assert (stay["visit_start_day"], stay["duration_days"]) == (68 * 365 + 17 + 68, 4)


@needs_gibleed
def test_gibleed_stops_at_its_first_bad_row_unless_told_otherwise() -> None:
    with pytest.raises(DataError, match=r"drug_exposure_start_day|observation_period"):
        records.read(f"omop+duckdb:///{GIBLEED}")
