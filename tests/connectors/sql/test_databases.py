"""Reading by table and by query, in a session that can change nothing, and writing that is whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import duckdb
import polars as pl
import psycopg
import pytest
from postgresql_server import DATABASE, USER, PostgresqlServer

from synthehr.cli import main
from synthehr.connectors import records
from synthehr.connectors.conversion import convert
from synthehr.connectors.sql.address import parse_address
from synthehr.connectors.sql.session import BATCH_ROWS, Session, open_session
from synthehr.connectors.sql.tables import open_records
from synthehr.errors import ConfigError, DataError
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "patient": {
                "key": "id",
                "columns": {
                    "id": {"kind": "id"},
                    "name": {"kind": "identifier"},
                    "sex": {"kind": "category", "values": ["f", "m"]},
                    "age": {"kind": "integer", "bounds": [0, 120], "nullable": True},
                },
            }
        },
    }
)
HARD = ['na"me', "semi;colon", "sp ace", "'; DROP TABLE patient; --", "naïve 脈", "%s", "select"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database of its own for one test.

    Attributes:
        uri: how synthehr is told of it.
        run: runs statements in it.
    """

    uri: str
    run: Callable[[str], list[tuple[object, ...]]]

    def with_parameters(self, **parameters: str) -> str:
        """The URI with more parameters; ``_`` stands for the dot."""
        mark = "&" if "?" in self.uri else "?"
        return self.uri + mark + "&".join(f"{k.replace('_', '.')}={quote(v, safe='')}" for k, v in parameters.items())


@pytest.fixture(params=["duckdb", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "duckdb":
        path = tmp_path / "of a clinic.duckdb"

        def run(statement: str) -> list[tuple[object, ...]]:
            with duckdb.connect(path) as connection:
                return connection.execute(statement).fetchall()

        run("SELECT 1")
        yield Database(uri=f"duckdb:///{quote(str(path))}", run=run)
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    schema = f"clinic_{secrets.token_hex(4)}"

    def run_there(statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(server.uri, autocommit=True, options=f"-c search_path={schema}") as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    run_there(f"CREATE SCHEMA {schema}")
    yield Database(uri=f"{server.uri}?schema={schema}", run=run_there)
    run_there(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def patients(database: Database) -> Database:
    database.run("CREATE TABLE patient (id integer, name varchar(20), sex char(1), age smallint)")
    database.run("INSERT INTO patient VALUES (1, 'Canary One', 'f', 30), (2, 'Canary Two', 'm', NULL)")
    return database


def read(uri: str, schema: Schema = SCHEMA) -> pl.DataFrame:
    return records.read(uri, schema=schema).root.sort("id")


EXPECTED = pl.DataFrame({"id": ["1", "2"], "sex": ["f", "m"], "age": [30, None]})


def test_a_table_is_read_by_its_name(patients: Database) -> None:
    assert read(patients.uri).equals(EXPECTED)


def test_a_table_of_another_name_is_read_by_that(patients: Database) -> None:
    patients.run('CREATE VIEW "a ""view""; of; it" AS SELECT * FROM patient WHERE id = 2')
    for key in ("table", "table_patient"):
        assert read(patients.with_parameters(**{key: 'a "view"; of; it'})).equals(EXPECTED[1:])


def test_a_query_gives_the_root_table_or_the_one_that_it_is_named_for(patients: Database) -> None:
    query = "WITH old AS (SELECT id, sex, age FROM {}patient WHERE id % 2 = 1) SELECT * FROM old; "
    schema = parse_address(patients.uri).schema
    text = query.format(f"{schema}." if schema else "")
    for key in ("query", "query_patient"):
        assert read(patients.with_parameters(**{key: text})).equals(EXPECTED[:1])


def test_a_query_for_a_table_that_is_not_declared_is_refused(patients: Database) -> None:
    with pytest.raises(ConfigError, match="does not declare"):
        read(patients.with_parameters(query_lab="SELECT 1"))


@pytest.mark.parametrize(
    "query",
    [
        "DROP TABLE {0}",
        "SELECT 1 AS id; DROP TABLE {0}",
        "SELECT 1 AS id) AS q; DROP TABLE {0}; SELECT * FROM (SELECT 1 AS id",
        "SELECT 1 AS id) AS q; COMMIT; DROP TABLE {0}; SELECT * FROM (SELECT 1 AS id",
        "INSERT INTO {0} VALUES (3, 'x', 'f', 1) RETURNING id",
        "WITH gone AS (DELETE FROM {0} RETURNING id) SELECT * FROM gone",
        "SELECT",
        "",
        "SELECT * FROM nowhere",
        "COPY {0} TO '/tmp/never-written-by-synthehr'",
        "SELECT 1 AS id, 2 AS id",
    ],
)
def test_no_query_changes_anything_or_makes_a_traceback(patients: Database, query: str) -> None:
    schema = parse_address(patients.uri).schema
    table = f"{schema}.patient" if schema else "patient"
    with pytest.raises((DataError, ConfigError)) as told:
        read(patients.with_parameters(query=query.format(table)))
    assert "\n" not in str(told.value)
    assert patients.run("SELECT count(*) FROM patient") == [(2,)]


def test_the_session_is_read_only_and_shut_off_from_files(tmp_path: Path) -> None:
    path, secret = tmp_path / "a.duckdb", tmp_path / "secret.csv"
    duckdb.connect(path).close()
    secret.write_text("a\n1\n", encoding="utf-8")
    with open_session(parse_address(f"duckdb:///{path}")) as session, pytest.raises(DataError):
        session.query(f"SELECT * FROM read_csv('{secret}')", label="the query")


@pytest.mark.parametrize("name", HARD)
def test_hard_names_are_names_and_no_statements(database: Database, name: str) -> None:
    hard = '"' + name.replace('"', '""') + '"'
    database.run("CREATE TABLE patient (id integer)")
    database.run(f"CREATE TABLE {hard} (id integer, {hard} varchar(9))")
    database.run(f"INSERT INTO {hard} VALUES (1, 'x')")
    schema = load_schema(
        {
            "synthehr": 1,
            "subject": "root",
            "tables": {"root": {"key": "id", "columns": {"id": {"kind": "id"}, name: {"kind": "category"}}}},
        }
    )
    assert records.read(database.with_parameters(table=name), schema=schema).root.rows() == [("1", "x")]
    assert database.run("SELECT count(*) FROM patient") == [(0,)]


def test_identifiers_are_not_asked_for(patients: Database) -> None:
    with open_records(patients.uri, schema=SCHEMA) as opened:
        assert all(part.columns == ["id", "sex", "age"] for part in opened.batches("patient"))


def test_a_column_or_table_that_is_absent_or_not_declared_is_refused(patients: Database) -> None:
    patients.run("ALTER TABLE patient ADD COLUMN secret varchar(9)")
    with pytest.raises(DataError, match="'secret' in table 'patient' is not declared"):
        read(patients.uri)
    patients.run("ALTER TABLE patient DROP COLUMN secret")
    patients.run("ALTER TABLE patient DROP COLUMN age")
    with pytest.raises(DataError, match="'age' is declared for table 'patient' but is not in the data"):
        read(patients.uri)
    with pytest.raises(DataError, match="not in the database"):
        read(patients.with_parameters(table="nowhere"))


def test_a_table_of_patients_without_rows_is_refused(database: Database) -> None:
    database.run("CREATE TABLE patient (id integer, sex char(1), age integer)")
    with pytest.raises(DataError, match="has no rows"):
        read(database.uri)


def test_types_that_have_no_match_come_as_text(database: Database) -> None:
    database.run(
        "CREATE TABLE patient AS SELECT 1 AS id, CAST(12.50 AS numeric(9, 2)) AS n, "
        "CAST('6f1d1b1e-0000-4000-8000-000000000001' AS uuid) AS u, CAST('10:30' AS time) AS t, "
        "CAST('2020-01-31 10:30:00.123456' AS timestamp) AS m, CAST('2020-01-31' AS date) AS d, "
        "CAST(1e308 AS double precision) AS x, true AS b, CAST(9007199254740993 AS bigint) AS i"
    )
    with open_session(parse_address(database.uri)) as session:
        table = session.table("patient")
        found = pl.concat(session.batches(table, table.columns))
    row = found.row(0, named=True)
    assert (row["n"], row["u"][:8], row["t"][:5]) == ("12.50", "6f1d1b1e", "10:30")
    assert (row["b"], row["i"], row["x"]) == (True, 9007199254740993, 1e308)
    assert str(row["m"]) == "2020-01-31 10:30:00.123456"
    assert str(row["d"]) == "2020-01-31"


def test_rows_come_in_parts_of_one_type_that_are_all_of_them(database: Database) -> None:
    rows = 2 * BATCH_ROWS + 17
    source = "range(1, {0} + 1) AS t(i)" if database.uri.startswith("duckdb") else "generate_series(1, {0}) AS t(i)"
    database.run(f"CREATE TABLE patient AS SELECT i, CASE WHEN i > {rows - 5} THEN 'x' END AS late FROM "
                 + source.format(rows))  # fmt: skip

    def parts(session: Session) -> list[pl.DataFrame]:
        return list(session.batches(session.table("patient"), ["late", "i"]))

    with open_session(parse_address(database.uri)) as session:
        found = parts(session)
        again = parts(session)
    assert len(found) >= 3
    assert max(part.height for part in found) <= BATCH_ROWS
    assert len({tuple(part.schema.items()) for part in found}) == 1
    whole = pl.concat(found)
    assert whole["i"].sort().to_list() == list(range(1, rows + 1))
    assert whole["late"].drop_nulls().len() == 5
    assert sum(part.height for part in again) == rows


def test_a_database_goes_to_files_part_by_part_and_no_row_is_lost(database: Database, tmp_path: Path) -> None:
    rows = BATCH_ROWS + 3
    source = "range(1, {0} + 1) AS t(i)" if database.uri.startswith("duckdb") else "generate_series(1, {0}) AS t(i)"
    database.run("CREATE TABLE patient AS SELECT i AS id, 'canary' AS name, 'f' AS sex, i % 99 AS age FROM "
                 + source.format(rows))  # fmt: skip
    convert(database.uri, out=tmp_path / "out", schema=SCHEMA)
    told = pl.read_parquet(tmp_path / "out" / "patient.parquet")
    assert told.columns == ["id", "sex", "age"]
    assert told["id"].cast(pl.Int64).sort().to_list() == list(range(1, rows + 1))
    database.run(f"UPDATE patient SET age = 777 WHERE id = {rows}")
    with pytest.raises(DataError, match="column 'age' in table 'patient', row"):
        convert(database.uri, out=tmp_path / "none", schema=SCHEMA)
    assert not (tmp_path / "none").exists()


def test_a_broken_file_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    path.write_bytes(b"canary" * 5000)
    with pytest.raises(DataError, match="no DuckDB database") as told:
        read(f"duckdb:///{path}")
    assert "canary" not in str(told.value)


def test_values_of_a_database_that_do_not_fit_are_told_of_without_the_value(patients: Database) -> None:
    patients.run("UPDATE patient SET age = 777 WHERE id = 2")
    with pytest.raises(DataError, match=r"column 'age' in table 'patient', row 2") as told:
        read(patients.uri)
    assert "777" not in str(told.value)


def test_an_error_of_the_server_does_not_quote_a_record(postgresql_server: PostgresqlServer) -> None:
    uri = f"{postgresql_server.uri}?query=" + quote("SELECT CAST(x AS integer) AS id FROM (VALUES ('canary')) AS t(x)")
    with pytest.raises(DataError, match="InvalidTextRepresentation") as told:
        read(uri)
    assert "canary" not in str(told.value)


def test_the_password_comes_from_the_environment_a_password_file_or_a_service_file(
    postgresql_server: PostgresqlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "?query=" + quote("SELECT 1 AS id, 'f' AS sex, 3 AS age")
    for name in ("PGPASSWORD", "PGPASSFILE", "PGSERVICE", "PGSERVICEFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    with pytest.raises(DataError, match="refuses the user or the password"):
        read(postgresql_server.bare_uri + query)
    monkeypatch.setenv("PGPASSWORD", postgresql_server.password)
    assert read(postgresql_server.bare_uri + query).height == 1
    monkeypatch.delenv("PGPASSWORD")
    passwords = tmp_path / "passwords"
    passwords.write_text(f"127.0.0.1:{postgresql_server.port}:*:*:{postgresql_server.password}\n", encoding="utf-8")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    assert read(postgresql_server.bare_uri + query).height == 1
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    services = tmp_path / "services"
    services.write_text(
        f"[clinic]\nhost=127.0.0.1\nport={postgresql_server.port}\nuser={USER}\ndbname={DATABASE}\n"
        f"password={postgresql_server.password}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    assert read(f"postgresql://{query}&service=clinic").height == 1
    monkeypatch.setenv("PGSERVICE", "clinic")
    assert read(f"postgresql://{query}").height == 1


@pytest.mark.parametrize(
    "authority", ["steward:{0}@127.0.0.1:{1}", "steward:{0}@127.0.0.1:1", "steward:{0}@127.0.0.1:5x", "{0}:{0}%@h"]
)
def test_a_password_in_a_uri_is_in_no_output(
    authority: str, postgresql_server: PostgresqlServer, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    secret = "canary-password"
    uri = "postgresql://" + authority.format(secret, postgresql_server.port) + f"/{DATABASE}"
    schema = tmp_path / "schema.yaml"
    schema.write_text(
        "synthehr: 1\nsubject: patient\ntables: {patient: {columns: {sex: {kind: category}}}}\n", encoding="utf-8"
    )
    told = ["--schema", str(schema), "-o", str(tmp_path / "out")]
    assert main(["convert", uri, *told]) in (2, 3)
    assert main(["convert", uri, *told, "--json"]) in (2, 3)
    assert main(["schema", "check", uri, "--schema", str(schema)]) in (2, 3)
    (tmp_path / "t.csv").write_text("sex\nf\n", encoding="utf-8")
    assert main(["convert", str(tmp_path / "t.csv"), "--schema", str(schema), "-o", uri]) in (2, 3)
    shown = capfd.readouterr()
    assert secret not in shown.out + shown.err.replace(f"//{secret}:***", "")  # the user's name is shown


def test_the_command_writes_a_database_and_reads_it_again_and_shows_no_password(
    postgresql_server: PostgresqlServer, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    schema, source = tmp_path / "schema.yaml", tmp_path / "patient.csv"
    schema.write_text(
        "synthehr: 1\nsubject: patient\n"
        "tables: {patient: {key: id, columns: {id: {kind: id}, sex: {kind: category, nullable: true}}}}\n",
        encoding="utf-8",
    )
    source.write_text('id,sex\n007,f\n8,NULL\n9,"x, ""y"""\n', encoding="utf-8")
    place = f"{postgresql_server.uri}?schema=by_command_{secrets.token_hex(4)}"
    for out in (place, f"duckdb:///{tmp_path}/a.duckdb"):
        assert main(["convert", str(source), "--schema", str(schema), "-o", out]) == 0
        assert main(["convert", str(source), "--schema", str(schema), "-o", out]) == 2
        back = tmp_path / f"back-{out[:6]}"
        assert main(["convert", out, "--schema", str(schema), "-o", str(back), "--json"]) == 0
        assert pl.read_parquet(back / "patient.parquet").rows() == [("007", "f"), ("8", None), ("9", 'x, "y"')]
    assert oct((tmp_path / "a.duckdb").stat().st_mode)[-3:] == "600"
    shown = capfd.readouterr()
    assert postgresql_server.password not in shown.out + shown.err
    assert "steward:***@" in shown.out


def test_a_quarantine_needs_a_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "patient.csv"
    source.write_text("id,sex,age\n1,f,3\n", encoding="utf-8")
    out = f"duckdb:///{tmp_path}/a.duckdb"
    schema = tmp_path / "s.yaml"
    schema.write_text(
        "synthehr: 1\nsubject: patient\ntables: {patient: {columns: {sex: {kind: category}}}}\n", encoding="utf-8"
    )
    assert main(["convert", str(source), "--schema", str(schema), "-o", out, "--on-bad-row", "quarantine"]) == 2
    assert "no folder for a quarantine" in capfd.readouterr().err
    assert not (tmp_path / "a.duckdb").exists()
