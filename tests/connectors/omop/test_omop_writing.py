"""What is written is a valid Common Data Model: types, required columns, keys, references, dates."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import duckdb
import polars as pl
import psycopg
import pytest
from made_cdm import agreeing_cohort, cohort_of, write_cdm
from postgresql_server import PostgresqlServer

from synthehr.cli import main
from synthehr.cohort import Cohort
from synthehr.connectors.omop.cdm import cdm_tables, default_schema
from synthehr.connectors.omop.conversion import convert_to_omop
from synthehr.connectors.omop.targets import new_table
from synthehr.connectors.omop.writing import CdmWriter
from synthehr.connectors.sql.address import parse_address
from synthehr.connectors.sql.session import open_target
from synthehr.errors import ConfigError, DataError
from synthehr.outputs import check_format
from synthehr.schema.files import dump_schema, load_schema
from synthehr.schema.model import Schema

PERSON = {"birth_known": "day", "gender_concept_id": "8507", "race_concept_id": "8527", "ethnicity_concept_id": "0"}


def written(cohort: Cohort[Schema], *, version: str = "5.4", seed: int = 3) -> dict[str, pl.DataFrame]:
    writer = CdmWriter(cohort=cohort, version=version, seed=seed, synthetic=True)
    return {table.cdm.name: table.rows for table in writer.tables()}


@pytest.mark.parametrize("version", ["5.4", "5.3"])
def test_columns_types_and_what_is_required_are_those_of_the_version(version: str) -> None:
    for name, rows in written(agreeing_cohort(), version=version).items():
        columns = cdm_tables()[name].of(version)
        assert rows.columns == [column.name for column in columns]
        for column in columns:
            dtype = {"integer": pl.Int32, "number": pl.Float64, "date": pl.Date, "datetime": pl.Datetime("us")}
            assert rows.schema[column.name] == dtype.get(column.type, pl.String)
            assert not (column.required and rows[column.name].null_count()), (name, column.name)
            if column.longest is not None:
                assert (rows[column.name].str.len_chars() <= column.longest).all()


def test_the_calendar_is_made_up_and_the_offsets_stay() -> None:
    tables = written(agreeing_cohort())
    person = {row["person_id"]: row for row in tables["person"].iter_rows(named=True)}
    visit = tables["visit_occurrence"].row(0, named=True)
    born = dt.date(person[70]["year_of_birth"], person[70]["month_of_birth"], person[70]["day_of_birth"])
    assert visit["visit_start_date"] - born == dt.timedelta(days=100)
    assert visit["visit_end_date"] - visit["visit_start_date"] == dt.timedelta(days=4)
    assert visit["visit_start_datetime"] == dt.datetime.combine(visit["visit_start_date"], dt.time())
    last = tables["observation_period"]["observation_period_end_date"].max()
    assert dt.date(2015, 1, 1) <= last <= dt.date(2024, 12, 31)
    assert not written(agreeing_cohort(), seed=4)["person"].equals(tables["person"])
    assert written(agreeing_cohort())["person"].equals(tables["person"])


def test_a_birth_is_written_as_well_as_it_is_known() -> None:
    rows = {row["person_id"]: row for row in written(agreeing_cohort())["person"].iter_rows(named=True)}
    assert rows[70]["day_of_birth"] is not None and rows[70]["birth_datetime"] is not None
    assert rows[8]["month_of_birth"] is not None and rows[8]["day_of_birth"] is None
    assert rows[9]["month_of_birth"] is None and rows[9]["birth_datetime"] is None
    assert all(row["year_of_birth"] is not None for row in rows.values())


def test_keys_that_are_no_numbers_are_made_anew_and_references_follow() -> None:
    cohort = cohort_of(
        person=[{"person_id": "a", **PERSON}, {"person_id": "b", **PERSON}],
        visit_occurrence=[
            {"visit_occurrence_id": "v", "person_id": "b", "visit_concept_id": "9201", "visit_start_day": 5}
        ],
        measurement=[
            {"person_id": "b", "visit_occurrence_id": "v", "measurement_concept_id": "1", "measurement_day": 5},
            {"person_id": "a", "visit_occurrence_id": "v", "measurement_concept_id": "1", "measurement_day": 5},
            {"person_id": "a", "visit_occurrence_id": "?", "measurement_concept_id": "1", "measurement_day": 5},
        ],
    )
    tables = written(cohort)
    assert tables["person"]["person_id"].to_list() == [1, 2]
    assert tables["measurement"]["measurement_id"].to_list() == [1, 2, 3]
    assert tables["measurement"]["person_id"].to_list() == [2, 1, 1]
    assert tables["measurement"]["visit_occurrence_id"].to_list() == [1, None, None]  # never another patient's visit


def test_keys_that_repeat_are_made_anew() -> None:
    rows = [{"measurement_id": "4", "person_id": "1", "measurement_concept_id": "1", "measurement_day": 1}] * 2
    tables = written(cohort_of(person=[{"person_id": "1", **PERSON}], measurement=rows))
    assert tables["measurement"]["measurement_id"].to_list() == [1, 2]


def test_what_is_no_concept_becomes_0_and_is_counted() -> None:
    cohort = cohort_of(
        person=[{"person_id": "1", **PERSON, "race_concept_id": "OTHER", "gender_concept_id": None}],
        measurement=[
            {"person_id": "1", "measurement_concept_id": "OTHER", "measurement_day": 1, "unit_concept_id": None}
        ],
    )
    writer = CdmWriter(cohort=cohort, seed=1, synthetic=True)
    tables = {table.cdm.name: table.rows for table in writer.tables()}
    assert tables["person"].select("gender_concept_id", "race_concept_id").row(0) == (0, 0)
    assert tables["measurement"].select("measurement_concept_id", "unit_concept_id").row(0) == (0, None)
    assert writer.changed["person"] == {"race_concept_id: no number of a concept, now 0": 1}


def test_every_type_concept_is_ehr() -> None:
    tables = written(agreeing_cohort())
    for name, table in cdm_tables().items():
        if table.type is not None:
            assert set(tables[name][table.type]) <= {32817}


def test_a_required_end_that_is_missing_is_the_start() -> None:
    cohort = cohort_of(
        person=[{"person_id": "1", **PERSON}],
        drug_exposure=[{"person_id": "1", "drug_concept_id": "1", "drug_exposure_start_day": 9}],
        condition_occurrence=[{"person_id": "1", "condition_concept_id": "1", "condition_start_day": 9}],
    )
    tables = written(cohort)
    drug = tables["drug_exposure"].row(0, named=True)
    assert drug["drug_exposure_end_date"] == drug["drug_exposure_start_date"]
    assert tables["condition_occurrence"]["condition_end_date"].to_list() == [None]


def test_every_event_lies_in_a_period_of_its_patient() -> None:
    cohort = cohort_of(
        person=[{"person_id": "1", **PERSON}, {"person_id": "2", **PERSON}],
        observation_period=[
            {"observation_period_id": "1", "person_id": "1", "observation_period_start_day": 10, "duration_days": 5}
        ],
        visit_occurrence=[
            {"visit_occurrence_id": "1", "person_id": "1", "visit_concept_id": "1", "visit_start_day": 14,
             "duration_days": 20},
            {"visit_occurrence_id": "2", "person_id": "2", "visit_concept_id": "1", "visit_start_day": 3,
             "duration_days": 4},
        ],
        death=[{"person_id": "2", "death_day": 90}],
    )  # fmt: skip
    tables = written(cohort)
    periods = tables["observation_period"].select(
        "person_id",
        (pl.col("observation_period_end_date") - pl.col("observation_period_start_date")).dt.total_days().alias("days"),
    )
    assert periods.rows() == [(1, 24), (2, 87)]  # days 10 to 34, and 3 to 90
    assert tables["observation_period"]["observation_period_id"].to_list() == [1, 2]


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ({"death": [{"person_id": "1", "death_day": None}]}, "never missing"),
        ({"death": [{"person_id": "1", "death_day": 200_000}]}, "120000 days"),
        (
            {
                "drug_exposure": [
                    {"person_id": "1", "drug_concept_id": "1", "drug_exposure_start_day": 1, "refills": 3_000_000_000}
                ]
            },
            "32 bits",
        ),
    ],
)
def test_what_cannot_be_held_is_refused(rows: dict[str, list[dict[str, object]]], error: str) -> None:
    with pytest.raises(DataError, match=error):
        written(cohort_of(person=[{"person_id": "1", **PERSON}], **rows))


def test_other_tables_and_versions_are_refused() -> None:
    schema = load_schema(
        {"synthehr": 1, "subject": "patient", "tables": {"patient": {"columns": {"sex": {"kind": "category"}}}}}
    )
    with pytest.raises(ConfigError, match="the root must be 'person'"):
        written(Cohort({"patient": pl.DataFrame({"sex": ["f"]})}, schema=schema))
    with pytest.raises(ConfigError, match=r"5\.4, 5\.3"):
        written(agreeing_cohort(), version="6.0")


def test_a_schema_that_omop_has_no_place_for_is_refused_before_anything_is_sampled() -> None:
    contents = dump_schema(default_schema())
    check_format("omop", schema=load_schema(contents))
    del contents["tables"]["death"]["columns"]["death_day"]
    with pytest.raises(ConfigError, match="'death' cannot be written as OMOP without column 'death_day'"):
        check_format("omop-csv", schema=load_schema(contents))


def test_cdm_source_says_what_the_rows_are(tmp_path: Path) -> None:
    for synthetic, words in ((True, "synthetic records"), (False, "real records")):
        writer = CdmWriter(cohort=agreeing_cohort(), seed=1, synthetic=synthetic, told="release abc")
        row = next(table.rows for table in writer.tables() if table.cdm.name == "cdm_source").row(0, named=True)
        assert row["source_description"].startswith(words)
        assert row["source_description"].endswith("release abc")
        assert row["cdm_version_concept_id"] == 756265


def _vocabulary(ids: list[int]) -> pl.DataFrame:
    names = [name for name in cdm_tables()["concept"].columns if name != "invalid_reason"]
    row = ("name", "d", "v", "c", "S", "x", dt.date(1970, 1, 1), dt.date(2099, 12, 31))
    return pl.DataFrame([(one, *row) for one in ids], schema=names, orient="row")


USED = [0, 8507, 8532, 8527, 9201, 9202, 8870, 201826, 32902, 320128, 1503297, 4132161, 4107731, 3004410, 4172703]
USED += [8554, 4275495, 4188540]


def test_the_vocabulary_is_written_where_it_covers_all_concepts_and_left_out_where_not() -> None:
    whole = CdmWriter(cohort=agreeing_cohort(), seed=1, synthetic=True, concepts=_vocabulary([*USED, 99]))
    tables = {table.cdm.name: table.rows for table in whole.tables()}
    assert set(tables["concept"]["concept_id"]) == {*USED, 32817, 756265}  # 99 is used nowhere
    part = CdmWriter(cohort=agreeing_cohort(), seed=1, synthetic=True, concepts=_vocabulary(USED[1:-1]))
    assert "concept" not in {table.cdm.name for table in part.tables()}


def test_postgresql_takes_the_tables_under_the_types_keys_and_references_of_5_4(
    postgresql_server: PostgresqlServer,
) -> None:
    """Providers, places and the vocabulary are made first, so that every reference of 5.4 is in force."""
    schema = "cdm_5_4"
    with psycopg.connect(postgresql_server.uri, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        for name in ("location", "provider", "care_site", "visit_detail"):
            connection.execute(f"CREATE TABLE {schema}.{name} ({name}_id integer PRIMARY KEY)")
        for name in ("domain", "vocabulary", "concept_class"):
            connection.execute(f"CREATE TABLE {schema}.{name} ({name}_id varchar(20) PRIMARY KEY)")
            connection.execute(
                f"INSERT INTO {schema}.{name} VALUES ('d'), ('v'), ('c'), ('Metadata'), ('None'), ('Undefined'), "
                "('Type Concept'), ('CDM')"
            )
        writer = CdmWriter(cohort=agreeing_cohort(), seed=1, synthetic=True, concepts=_vocabulary(USED))
        with open_target(parse_address(f"{postgresql_server.uri}?schema={schema}")) as target:
            for table in writer.tables():
                target.create(new_table(table))
                target.insert(table.cdm.name, table.rows)
        made = connection.execute(
            "SELECT table_name, constraint_type, count(*) FROM information_schema.table_constraints "
            "WHERE table_schema = %s AND constraint_type IN ('PRIMARY KEY', 'FOREIGN KEY') GROUP BY 1, 2",
            [schema],
        ).fetchall()
        told = connection.execute(
            "SELECT column_name, data_type, character_maximum_length, is_nullable FROM information_schema.columns "
            "WHERE table_schema = %s AND table_name = 'drug_exposure' ORDER BY ordinal_position",
            [schema],
        ).fetchall()
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute(f"INSERT INTO {schema}.death VALUES (12345, '2020-01-01')")
    counted = {(table, kind): many for table, kind, many in made}
    for name, cdm in cdm_tables().items():
        references = sum(column.refers_to is not None for column in cdm.of("5.4"))
        assert counted.get((name, "FOREIGN KEY"), 0) == references, name
        assert counted.get((name, "PRIMARY KEY"), 0) == (cdm.key is not None), name
    assert told[:5] == [
        ("drug_exposure_id", "integer", None, "NO"),
        ("person_id", "integer", None, "NO"),
        ("drug_concept_id", "integer", None, "NO"),
        ("drug_exposure_start_date", "date", None, "NO"),
        ("drug_exposure_start_datetime", "timestamp without time zone", None, "YES"),
    ]
    assert ("stop_reason", "character varying", 20, "YES") in told
    assert ("quantity", "numeric", None, "YES") in told


def test_a_vocabulary_that_lacks_a_concept_keeps_the_tables_out(postgresql_server: PostgresqlServer) -> None:
    schema = "cdm_with_vocabulary"
    with psycopg.connect(postgresql_server.uri, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"CREATE TABLE {schema}.concept (concept_id integer PRIMARY KEY)")
        place = f"{postgresql_server.uri}?schema={schema}"
        with pytest.raises(DataError, match="keys of the tables break a constraint") as told:
            convert_to_omop(agreeing_cohort(), place, seed=1, synthetic=True)
        assert "201826" not in str(told.value)
        connection.execute(f"INSERT INTO {schema}.concept SELECT unnest(%s::integer[])", [[*USED, 32817, 756265]])
        convert_to_omop(agreeing_cohort(), place, seed=1, synthetic=True)
        assert connection.execute(f"SELECT count(*) FROM {schema}.person").fetchone() == (4,)


def test_duckdb_keeps_types_required_columns_and_primary_keys(tmp_path: Path) -> None:
    convert_to_omop(agreeing_cohort(), f"duckdb:///{tmp_path}/a.duckdb", seed=1, synthetic=True)
    with duckdb.connect(tmp_path / "a.duckdb") as connection:
        assert connection.execute("SELECT value_as_number FROM measurement WHERE measurement_id = 1").fetchone() == (
            0.1 + 0.2,
        )
        with pytest.raises(duckdb.ConstraintException):
            connection.execute("INSERT INTO person SELECT * FROM person LIMIT 1")
        with pytest.raises(duckdb.ConstraintException):
            connection.execute("UPDATE person SET year_of_birth = NULL")


def test_the_command_goes_from_omop_to_tables_and_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_cdm(tmp_path / "cdm")
    schema = str(Path(__file__).parents[3] / "schemas" / "omop" / "schema.yaml")
    tables, back = tmp_path / "tables", tmp_path / "back"
    assert main(["convert", source, "-o", str(tables)]) == 0
    assert (
        main(["convert", str(tables), "--schema", schema, "--format", "omop-csv", "-o", str(back), "--seed", "1"]) == 0
    )
    again = tmp_path / "again"
    assert main(["convert", f"omop:{back}", "-o", str(again)]) == 0
    for name in ("person", "condition_occurrence", "death"):
        assert pl.read_parquet(again / f"{name}.parquet").equals(pl.read_parquet(tables / f"{name}.parquet"))
    audit = json.loads((back / "AUDIT.json").read_text(encoding="utf-8"))
    assert audit["changed to fit OMOP"]["measurement"] == {
        "visit_occurrence_id: leads to no visit of the patient, now null": 1
    }
    assert oct((back / "person.csv").stat().st_mode)[-3:] == "600"
    out = f"omop+duckdb:///{tmp_path}/cdm.duckdb"
    assert main(["convert", source, "-o", out]) == 0
    assert main(["convert", source, "-o", out]) == 2
    assert main(["convert", out, "-o", str(tmp_path / "from-duckdb")]) == 0
    assert main(["convert", str(tables), "--schema", schema, "--format", "omop", "-o", str(tables)]) == 2
    assert "Traceback" not in capfd.readouterr().err
