"""A small Common Data Model made by hand, as files, and cohorts of its schema."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.omop.cdm import default_schema
from synthehr.schema.conform import dtype_of
from synthehr.schema.model import Schema

# Person 7 is born on 2000-01-31, person 8 in March 1950, person 9 in 1980; no more is known of them.
TABLES: dict[str, str] = {
    "person": (
        "person_id,gender_concept_id,year_of_birth,month_of_birth,day_of_birth,birth_datetime,race_concept_id,"
        "ethnicity_concept_id,person_source_value\n"
        "7,8507,2000,1,31,,8527,0,canary-person\n8,8532,1950,3,,,8516,38003564,x\n9,8532,1980,,,,0,0,y\n"
    ),
    "observation_period": (
        "observation_period_id,person_id,observation_period_start_date,observation_period_end_date,"
        "period_type_concept_id\n1,7,2010-01-01,2010-12-31,32817\n"
    ),
    "visit_occurrence": (
        "visit_occurrence_id,person_id,visit_concept_id,visit_start_date,visit_end_date,visit_type_concept_id,"
        "admitting_source_concept_id,preceding_visit_occurrence_id\n"
        "100,7,9201,2010-01-31,2010-02-03,44818517,8870,\n101,7,9202,2010-06-01,2010-06-01,44818517,,100\n"
    ),
    "condition_occurrence": (
        "condition_occurrence_id,person_id,condition_concept_id,condition_start_date,condition_end_date,"
        "condition_type_concept_id,visit_occurrence_id,condition_source_value\n"
        "1,7,201826,2010-01-31,2010-02-02,32020,100,canary-code\n"
        "2,8,201826,1950-03-02,,32020,,E11\n3,9,320128,1979-07-01,1979-06-01,32020,,I10\n"
    ),
    "measurement": (
        "measurement_id,person_id,measurement_concept_id,measurement_date,measurement_type_concept_id,value_as_number,"
        "unit_concept_id,visit_occurrence_id\n1.0,7,3004410,2010-02-01,32817,6.5,8554,100\n"
        "1.0,7,3004410,2010-06-01 08:15:00,32817,,8554,999\n"
    ),
    "death": "person_id,death_date,death_type_concept_id,cause_concept_id\n8,2020-03-01,32817,\n",
    "concept": (
        "concept_id\tconcept_name\tdomain_id\tvocabulary_id\tconcept_class_id\tstandard_concept\tconcept_code\t"
        "valid_start_date\tvalid_end_date\tinvalid_reason\n"
        "201826\tType 2 diabetes mellitus\tCondition\tSNOMED\tDisorder\tS\t44054006\t20020131\t20991231\t\n"
        "1\tnot in the records\tx\tx\tx\t\tx\t19700101\t20991231\t\n"
    ),
}


def write_cdm(folder: Path, tables: dict[str, str] | None = None) -> str:
    """Write the files; the SOURCE that they are read from."""
    folder.mkdir()
    for name, text in (TABLES if tables is None else tables).items():
        (folder / f"{name.upper() if name == 'death' else name}.csv").write_text(text, encoding="utf-8")
    return f"omop:{folder}"


def cohort_of(**rows: list[dict[str, object]]) -> Cohort[Schema]:
    """A cohort of the default schema; columns that a row leaves out are null."""
    schema = default_schema()
    tables = {
        name: pl.DataFrame(
            [{column: row.get(column) for column in table.columns} for row in rows.get(name, [])],
            schema={column: dtype_of(declared) for column, declared in table.columns.items()},
        )
        for name, table in schema.tables.items()
    }
    return Cohort(tables, schema=schema)


def agreeing_cohort() -> Cohort[Schema]:
    """Patients whose rows are as OMOP wants them, so that writing changes nothing."""
    day = {"birth_known": "day", "gender_concept_id": "8507", "race_concept_id": "8527", "ethnicity_concept_id": "0"}
    return cohort_of(
        person=[
            {"person_id": "70", **day},
            {"person_id": "8", **day, "birth_known": "month", "gender_concept_id": "8532"},
            {"person_id": "9", **day, "birth_known": "year", "race_concept_id": "0"},
            {"person_id": "11", **day},
        ],
        observation_period=[
            {"observation_period_id": "1", "person_id": "70", "observation_period_start_day": 0, "duration_days": 400},
            {"observation_period_id": "2", "person_id": "70", "observation_period_start_day": 500, "duration_days": 9},
            {
                "observation_period_id": "9",
                "person_id": "8",
                "observation_period_start_day": -3,
                "duration_days": 30000,
            },
            {"observation_period_id": "4", "person_id": "9", "observation_period_start_day": 7300, "duration_days": 0},
        ],
        visit_occurrence=[
            {
                "visit_occurrence_id": "31",
                "person_id": "70",
                "visit_concept_id": "9201",
                "visit_start_day": 100,
                "duration_days": 4,
                "admitted_from_concept_id": "8870",
            },
            {
                "visit_occurrence_id": "30",
                "person_id": "70",
                "preceding_visit_occurrence_id": "31",
                "visit_concept_id": "9202",
                "visit_start_day": 300,
                "duration_days": 0,
                "discharged_to_concept_id": "0",
            },
        ],
        condition_occurrence=[
            {
                "condition_occurrence_id": "5",
                "person_id": "70",
                "visit_occurrence_id": "31",
                "condition_concept_id": "201826",
                "condition_start_day": 101,
                "duration_days": 2,
                "condition_status_concept_id": "32902",
            },
            {
                "condition_occurrence_id": "4",
                "person_id": "8",
                "condition_concept_id": "320128",
                "condition_start_day": 29997,
            },
        ],
        drug_exposure=[
            {
                "drug_exposure_id": "1",
                "person_id": "8",
                "drug_concept_id": "1503297",
                "drug_exposure_start_day": 10000,
                "duration_days": 29,
                "refills": 3,
                "quantity": 30.5,
                "days_supply": 30,
                "route_concept_id": "4132161",
            }
        ],
        procedure_occurrence=[
            {
                "procedure_occurrence_id": "2",
                "person_id": "70",
                "procedure_concept_id": "4107731",
                "procedure_day": 505,
                "quantity": 2,
            },
        ],
        measurement=[
            {
                "measurement_id": "1",
                "person_id": "70",
                "visit_occurrence_id": "30",
                "measurement_concept_id": "3004410",
                "measurement_day": 300,
                "operator_concept_id": "4172703",
                "value_as_number": 0.1 + 0.2,
                "unit_concept_id": "8554",
            },
            {"measurement_id": "3", "person_id": "9", "measurement_concept_id": "0", "measurement_day": 7300},
        ],
        observation=[
            {
                "observation_id": "1",
                "person_id": "8",
                "observation_concept_id": "4275495",
                "observation_day": 20000,
                "value_as_concept_id": "4188540",
            }
        ],
        death=[{"person_id": "8", "death_day": 29997, "cause_concept_id": "320128"}],
    )


def date(text: str) -> dt.date:
    """A date as it is written."""
    return dt.date.fromisoformat(text)
