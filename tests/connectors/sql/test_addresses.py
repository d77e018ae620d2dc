"""URIs of databases: what they name, and what of them is never printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthehr.connectors.sql.address import is_sql, parse_address, shown
from synthehr.connectors.sql.session import open_target, quoted
from synthehr.errors import ConfigError, SynthehrError


def test_a_duckdb_uri_is_a_path_from_here_or_from_the_root() -> None:
    assert parse_address("duckdb:///a/b.duckdb").path == Path("a/b.duckdb")
    assert parse_address("duckdb:////a/b.duckdb").path == Path("/a/b.duckdb")
    assert parse_address("duckdb:///a%20b%3F.duckdb").path == Path("a b?.duckdb")


def test_parameters_of_ours_are_taken_and_the_others_left_to_libpq() -> None:
    found = parse_address(
        "postgres://host/db?sslmode=require&schema=a%22b&table.lab=x%3By&query=SELECT%201%20WHERE%20a%20%3D%20%27%26%27"
    )
    assert found.target == "postgresql://host/db?sslmode=require"
    assert found.schema == 'a"b'
    assert found.of("lab", subject="patient") == (None, "x;y")
    assert found.of("patient", subject="patient") == ("SELECT 1 WHERE a = '&'", "patient")
    assert found.of("visit", subject="patient") == (None, "visit")


@pytest.mark.parametrize(
    "uri",
    [
        "duckdb:/a.duckdb",  # what a Path makes of it
        "duckdb://a.duckdb",
        "duckdb:///",
        "duckdb:///a.duckdb?sslmode=require",
        "duckdb:///a.duckdb?query=",
        "duckdb:///a.duckdb?table=a&query=SELECT+1",
        "postgresql:/host/db",
        "mysql://host/db",
    ],
)
def test_what_is_no_uri_of_a_database_is_refused_with_the_way_out(uri: str) -> None:
    with pytest.raises(ConfigError) as told:
        parse_address(uri)
    assert "\n" not in str(told.value)


def test_a_path_of_pathlib_is_refused_rather_than_read_as_another_file() -> None:
    assert is_sql(Path("duckdb:///a.duckdb"))
    with pytest.raises(ConfigError, match="as text"):
        parse_address(Path("duckdb:///a.duckdb"))


@pytest.mark.parametrize("before", ["", "omop+"])
@pytest.mark.parametrize("secret", ["hunter2", "a@b", "a:b", "a/b", "#?&"[:1]])
def test_a_password_is_never_shown(before: str, secret: str) -> None:
    for uri in (f"postgresql://me:{secret}@host/db", f"postgresql://host/db?user=me&password={secret}"):
        told = shown(before + uri)
        assert secret not in told.replace("host/db", "")
        assert told.startswith(f"{before}postgresql://")
        assert secret not in repr(parse_address(uri))
        assert secret not in parse_address(uri).shown.replace("host/db", "")


def test_a_path_is_shown_as_it_is() -> None:
    assert shown("a/b.csv") == "a/b.csv"


@given(st.text(max_size=60))
def test_no_uri_makes_a_traceback(rest: str) -> None:
    for scheme in ("duckdb:///", "postgresql://", "postgresql:"):
        shown(scheme + rest)
        try:
            parse_address(scheme + rest)
        except SynthehrError as error:
            assert "\n" not in str(error)


def test_an_output_has_no_query() -> None:
    with pytest.raises(ConfigError, match="no query"):
        open_target(parse_address("duckdb:///a.duckdb?query=SELECT+1"))


def test_no_identifier_has_a_nul_byte_or_is_empty() -> None:
    assert quoted('a"; DROP TABLE b; --') == '"a""; DROP TABLE b; --"'
    for name in ("", "a\0b"):
        with pytest.raises(ConfigError):
            quoted(name)
