"""A synthetic cohort of all tables of GiBleed, fitted here, is a Common Data Model that PostgreSQL takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psycopg
import pytest
from postgresql_server import PostgresqlServer

import synthehr as se
from synthehr.connectors import records
from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.connectors.omop.cdm import cdm_tables, default_schema
from synthehr.connectors.omop.conversion import convert_to_omop
from synthehr.schema.files import dump_schema, load_schema

GIBLEED = Path(__file__).parents[4] / "shared" / "data" / "omop" / "omop_gibleed" / "eunomia.duckdb"
PATIENTS, ROWS, MADE = 200, 3, 120


@pytest.mark.slow
@pytest.mark.skipif(not GIBLEED.is_file(), reason="needs GiBleed in ../shared/data/omop/omop_gibleed")
def test_a_cohort_fitted_on_all_tables_loads_under_the_types_and_constraints_of_the_cdm(
    postgresql_server: PostgresqlServer,
) -> None:
    contents = dump_schema(default_schema())
    for table in (t for name, t in contents["tables"].items() if name != "person"):
        table["max_rows"] = min(table.get("max_rows", ROWS), ROWS)
    schema = load_schema(contents)
    source = f"omop+duckdb:///{GIBLEED}"
    real = records.read(source, schema=schema, on_bad=BadRowPolicy(mode="drop", most=0.02))
    release = se.fit(real.take(np.arange(PATIENTS)), epsilon=8.0, delta=1e-5, seed=1)
    made = release.sample(MADE, seed=2)
    place = f"{postgresql_server.uri}?schema=fitted"
    names = convert_to_omop(made, place, source=source, seed=3, synthetic=True)
    with psycopg.connect(postgresql_server.uri) as connection:

        def count(query: str) -> int:
            row = connection.execute(query).fetchone()
            assert row is not None
            return int(row[0])

        kinds = "SELECT count(*) FROM information_schema.table_constraints WHERE constraint_schema = 'fitted'"
        assert count(f"{kinds} AND constraint_type = 'PRIMARY KEY'") >= 8
        assert count(f"{kinds} AND constraint_type = 'FOREIGN KEY'") >= 8
        assert set(names) >= {name for name, cdm in cdm_tables().items() if cdm.keeps_rows}
        assert count("SELECT count(*) FROM fitted.person") == MADE
        for name, cdm in cdm_tables().items():
            if not cdm.keeps_rows:
                continue
            rows = made.tables[name].height
            if name != "observation_period":
                assert count(f"SELECT count(*) FROM fitted.{name}") == rows
            if cdm.start is not None and name != "observation_period":
                last = f"coalesce(e.{cdm.end}, e.{cdm.start})" if cdm.end is not None else f"e.{cdm.start}"
                outside = (
                    f"SELECT count(*) FROM fitted.{name} e WHERE NOT EXISTS (SELECT 1 FROM fitted.observation_period o "
                    f"WHERE o.person_id = e.person_id AND e.{cdm.start} >= o.observation_period_start_date "
                    f"AND {last} <= o.observation_period_end_date)"
                )
                assert count(outside) == 0, name
