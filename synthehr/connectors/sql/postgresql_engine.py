"""PostgreSQL: read-only sessions that stream, and writing in one transaction."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import polars as pl
import psycopg
from psycopg.conninfo import conninfo_to_dict

from synthehr.connectors.sql.address import SqlAddress
from synthehr.connectors.sql.session import BATCH_ROWS, NewTable, Relation, quoted
from synthehr.errors import ConfigError, DataError

__all__ = ["read_postgresql", "write_postgresql"]

_WAIT_SECONDS = 20
_TYPES: dict[str, pl.DataType] = {  # by the name that pg_type has; all else is asked for as text
    "bool": pl.Boolean(),
    "int2": pl.Int64(),
    "int4": pl.Int64(),
    "int8": pl.Int64(),
    "float4": pl.Float64(),
    "float8": pl.Float64(),
    "date": pl.Date(),
    "timestamp": pl.Datetime("us"),
}
_NOT_TOLD = "the server's own message may quote a record, so that it is not told"


class PostgreSqlSession:
    """A PostgreSQL connection in a read-only transaction."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], *, schema: str | None) -> None:
        self._connection = connection
        self._schema = schema
        self._cursors = 0

    def names(self) -> tuple[str, ...]:
        """Names of the tables and views in the database schema, sorted."""
        rows = self._connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = coalesce(%s, current_schema()) "
            "ORDER BY table_name",
            [self._schema],
        ).fetchall()
        return tuple(str(name) for (name,) in rows)

    def table(self, name: str) -> Relation:
        """A table or view; ``schema/name`` is one of another database schema."""
        schema, _, last = name.rpartition("/")
        within = schema or self._schema
        named = quoted(last) if within is None else f"{quoted(within)}.{quoted(last)}"
        return self._relation(named, label=f"table {name!r}")

    def query(self, sql: str, *, label: str) -> Relation:
        """The rows of one SELECT."""
        return self._relation(f"({sql.strip().rstrip(';')}\n) AS query", label=label)

    def batches(self, relation: Relation, columns: Sequence[str], *, distinct: bool = False) -> Iterator[pl.DataFrame]:
        """The rows of a relation by a cursor on the server, part by part."""
        types = self._types(relation)
        dtypes = {name: _TYPES.get(types[name], pl.String()) for name in columns}
        chosen = ", ".join(quoted(n) if types[n] in _TYPES else f"{quoted(n)}::text" for n in columns)
        select = f"SELECT {'DISTINCT ' if distinct else ''}{chosen} FROM {relation.sql}"  # noqa: S608 - quoted names
        self._cursors += 1
        some = False
        try:
            with self._connection.cursor(f"synthehr_{self._cursors}", binary=True) as cursor:
                cursor.execute(select.encode())
                while rows := cursor.fetchmany(BATCH_ROWS):
                    some = True
                    yield pl.DataFrame(rows, schema=dtypes, orient="row")
        except psycopg.Error as error:
            raise DataError(f"{relation.label} cannot be read: {_named(error)}") from None
        if not some:
            yield pl.DataFrame(schema=dtypes)

    def _relation(self, sql: str, *, label: str) -> Relation:
        try:
            names = list(self._described(sql))
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            raise DataError(f"{label} is not in the database, or its database schema is another one") from None
        except psycopg.errors.SyntaxError:
            raise DataError(f"{label} must be one SELECT statement") from None
        except psycopg.Error as error:
            raise DataError(f"{label} cannot be read: {_named(error)}") from None
        columns = [name for name, _ in names]
        repeated = [name for name in columns if columns.count(name) > 1]
        if repeated:
            raise DataError(f"{label} has column {repeated[0]!r} twice: give each a name of its own with AS")
        return Relation(sql=sql, columns=tuple(columns), label=label)

    def _types(self, relation: Relation) -> dict[str, str]:
        return dict(self._described(relation.sql))

    def _described(self, sql: str) -> list[tuple[str, str]]:
        """Name and type of each column. The statement is prepared, so that it can be but one."""
        with self._connection.transaction(), self._connection.cursor(binary=True) as cursor:
            cursor.execute(f"SELECT * FROM {sql} LIMIT 0".encode(), prepare=True)  # noqa: S608 - quoted names
            assert cursor.description is not None, "a SELECT has columns"
            described = [(column.name, column.type_code) for column in cursor.description]
            known = cursor.execute(
                "SELECT oid, typname FROM pg_type WHERE oid = ANY(%s)", [[code for _, code in described]]
            ).fetchall()
        names = {code: str(name) for code, name in known}
        return [(name, names[code]) for name, code in described]


@contextmanager
def read_postgresql(address: SqlAddress) -> Iterator[PostgreSqlSession]:
    """Open a database for reading: one transaction that sees one state of it and can change nothing."""
    try:
        connection = _connect(address)
    except ConfigError as error:
        raise DataError(str(error)) from None
    with connection:
        connection.read_only = True
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        try:
            yield PostgreSqlSession(connection, schema=address.schema)
        finally:
            if not connection.closed:
                connection.rollback()


class PostgreSqlTarget:
    """A transaction that makes tables and fills them."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], *, schema: str | None) -> None:
        self._connection = connection
        self._schema = schema
        self._made: list[NewTable] = []

    def has(self, table: str) -> bool:
        """Whether a table of this name is there."""
        found = self._connection.execute("SELECT to_regclass(%s) IS NOT NULL", [self._named(table)]).fetchone()
        return found is not None and bool(found[0])

    def create(self, table: NewTable) -> None:
        """Make a table; its keys are made when all rows are in."""
        columns = ", ".join(f"{quoted(c.name)} {c.type}{' NOT NULL' if c.required else ''}" for c in table.columns)
        try:
            self._connection.execute(f"CREATE TABLE {self._named(table.name)} ({columns})".encode())
        except (psycopg.errors.DuplicateTable, psycopg.errors.UniqueViolation):
            raise ConfigError(
                f"table {table.name!r} exists in the database: name another database schema with ?schema=, or drop it"
            ) from None
        except psycopg.errors.InsufficientPrivilege:
            raise ConfigError(f"table {table.name!r} cannot be made: the user may not create tables there") from None
        except psycopg.Error as error:
            raise ConfigError(f"table {table.name!r} cannot be made: {_named(error)}") from None
        self._made.append(table)

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Append rows by COPY."""
        names = ", ".join(quoted(name) for name in rows.columns)
        text = io.BytesIO()
        rows.write_csv(text, include_header=False, quote_style="non_numeric", datetime_format="%Y-%m-%dT%H:%M:%S%.6f")
        statement = f"COPY {self._named(table)} ({names}) FROM STDIN (FORMAT csv, NULL '')"
        try:
            with self._connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
                copy.write(text.getvalue())
        except psycopg.Error as error:
            raise DataError(f"table {table!r} cannot be filled: {_named(error)}") from None

    def finish(self) -> None:
        """Make the keys: first those that others point to."""
        try:
            for table in self._made:
                if table.key is not None:
                    self._alter(table, f"PRIMARY KEY ({quoted(table.key)})")
            for table in self._made:
                for column, to, key in table.references:
                    if self.has(to):
                        reference = f"REFERENCES {self._named(to)} ({quoted(key)})"
                        self._alter(table, f"FOREIGN KEY ({quoted(column)}) {reference}")
        except psycopg.Error as error:
            raise DataError(f"the keys of the tables break a constraint: {_named(error)}") from None

    def _alter(self, table: NewTable, constraint: str) -> None:
        self._connection.execute(f"ALTER TABLE {self._named(table.name)} ADD {constraint}".encode())

    def _named(self, table: str) -> str:
        return quoted(table) if self._schema is None else f"{quoted(self._schema)}.{quoted(table)}"


@contextmanager
def write_postgresql(address: SqlAddress) -> Iterator[PostgreSqlTarget]:
    """One transaction, committed when the block ends well; its database schema is made where there is none."""
    connection = _connect(address)
    try:
        target = PostgreSqlTarget(connection, schema=address.schema)
        if address.schema is not None:
            try:
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(address.schema)}".encode())
            except psycopg.Error as error:
                raise ConfigError(f"database schema {address.schema!r} cannot be made: {_named(error)}") from None
        yield target
        target.finish()
        try:
            connection.commit()
        except psycopg.Error as error:
            raise DataError(f"{address.shown} did not take the tables: {_named(error)}") from None
    finally:
        connection.close()  # what was not committed is undone


def _connect(address: SqlAddress) -> psycopg.Connection[tuple[object, ...]]:
    """A connection as libpq makes it: what the URI leaves out comes from PG* variables, the password or service file.

    Raises:
        ConfigError: the URI is not as libpq wants it, or the server refuses or cannot be reached. The message has
            no password in it.
    """
    try:
        given = conninfo_to_dict(address.target)
    except psycopg.Error:
        raise ConfigError(
            "the URI of the PostgreSQL database cannot be read: write it as postgresql://user@host:5432/database, "
            "with characters such as @ : / ? # in user or password as percent codes"
        ) from None
    given.setdefault("connect_timeout", _WAIT_SECONDS)
    given.setdefault("application_name", "synthehr")
    given["client_encoding"] = "utf8"
    try:
        return psycopg.connect(**given)  # type: ignore[arg-type, unused-ignore]
    except psycopg.Error as error:
        raise ConfigError(f"{address.shown}: {_refusal(error)}") from None


def _refusal(error: psycopg.Error) -> str:
    text = str(error)
    if "password" in text or "authentication" in text or "pg_hba" in text:
        return "the server refuses the user or the password: see PGUSER, PGPASSWORD, PGPASSFILE or a service file"
    if "does not exist" in text:
        return "the server has no such database or user"
    if "service" in text:
        return "the service is not in the service file: see PGSERVICEFILE"
    return "the server cannot be reached: see host and port, or PGHOST and PGPORT"


def _named(error: psycopg.Error) -> str:
    """What PostgreSQL calls the error, without its message."""
    return f"PostgreSQL reports {type(error).__name__}{f' ({error.sqlstate})' if error.sqlstate else ''}; {_NOT_TOLD}"
