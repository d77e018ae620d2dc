"""Databases keep what every connector must keep."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import ClassVar

import psycopg
import pytest
from conformance import ConnectorConformance
from postgresql_server import PostgresqlServer

from synthehr.cohort import Cohort
from synthehr.connectors.sql.address import parse_address
from synthehr.connectors.sql.tables import SqlTables
from synthehr.schema.model import Schema


class TestDuckDb(ConnectorConformance):
    keeps_order: ClassVar[bool] = True

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return f"duckdb:///{tmp_path}/first.duckdb"

    @pytest.fixture
    def another_place(self, tmp_path: Path) -> str:
        return f"duckdb:///{tmp_path}/second.duckdb?schema=clinic"

    def write(self, cohort: Cohort[Schema], place: str) -> str:
        SqlTables().write(cohort, place)
        return place

    def shows(self, place: str) -> bool:
        return parse_address(place).path.exists()


class TestPostgreSql(ConnectorConformance):
    keeps_order: ClassVar[bool] = False

    @pytest.fixture
    def place(self, postgresql_server: PostgresqlServer) -> str:
        return f"{postgresql_server.uri}?schema=first_{secrets.token_hex(4)}"

    @pytest.fixture
    def another_place(self, postgresql_server: PostgresqlServer) -> str:
        return f"{postgresql_server.uri}?schema=second%22%3B{secrets.token_hex(4)}"

    def write(self, cohort: Cohort[Schema], place: str) -> str:
        SqlTables().write(cohort, place)
        return place

    def shows(self, place: str) -> bool:
        with psycopg.connect(parse_address(place).target) as connection:
            schemas = connection.execute("SELECT schema_name FROM information_schema.schemata").fetchall()
        return (parse_address(place).schema,) in schemas
