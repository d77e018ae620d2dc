"""A Common Data Model keeps what every connector must keep, in files and in databases."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import ClassVar

import psycopg
import pytest
from conformance import ConnectorConformance
from made_cdm import agreeing_cohort
from postgresql_server import PostgresqlServer

from synthehr.cohort import Cohort
from synthehr.connectors.folders import new_folder
from synthehr.connectors.omop.conversion import convert_to_omop
from synthehr.connectors.sql.address import parse_address
from synthehr.schema.model import Schema


class _Files(ConnectorConformance):
    format: ClassVar[str]

    def cohort(self) -> Cohort[Schema]:
        return agreeing_cohort()

    def write(self, cohort: Cohort[Schema], place: str) -> str:
        with new_folder(place) as folder:
            convert_to_omop(cohort, folder, format=self.format, seed=1, synthetic=True)
        return f"omop:{place}"


class TestParquet(_Files):
    format = "omop"


class TestCsv(_Files):
    format = "omop-csv"


class TestDuckDb(ConnectorConformance):
    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return f"duckdb:///{tmp_path}/first.duckdb"

    @pytest.fixture
    def another_place(self, tmp_path: Path) -> str:
        return f"duckdb:///{tmp_path}/second.duckdb"

    def cohort(self) -> Cohort[Schema]:
        return agreeing_cohort()

    def write(self, cohort: Cohort[Schema], place: str) -> str:
        convert_to_omop(cohort, place, seed=1, synthetic=True)
        return f"omop+{place}"

    def shows(self, place: str) -> bool:
        return parse_address(place).path.exists()


class TestPostgreSql(ConnectorConformance):
    keeps_order: ClassVar[bool] = False

    @pytest.fixture
    def place(self, postgresql_server: PostgresqlServer) -> str:
        return f"{postgresql_server.uri}?schema=cdm_{secrets.token_hex(4)}"

    @pytest.fixture
    def another_place(self, postgresql_server: PostgresqlServer) -> str:
        return f"{postgresql_server.uri}?schema=cdm_{secrets.token_hex(4)}"

    def cohort(self) -> Cohort[Schema]:
        return agreeing_cohort()

    def write(self, cohort: Cohort[Schema], place: str) -> str:
        convert_to_omop(cohort, place, seed=1, synthetic=True)
        return f"omop+{place}"

    def shows(self, place: str) -> bool:
        with psycopg.connect(parse_address(place).target) as connection:
            schemas = connection.execute("SELECT schema_name FROM information_schema.schemata").fetchall()
        return (parse_address(place).schema,) in schemas
