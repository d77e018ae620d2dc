"""DuckDB files: read-only sessions, and new files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import polars as pl

from synthehr.connectors.folders import check_new
from synthehr.connectors.sql.address import SqlAddress
from synthehr.connectors.sql.session import BATCH_ROWS, NewTable, Relation, quoted
from synthehr.errors import ConfigError, DataError

__all__ = ["DuckDbSession", "read_duckdb", "write_duckdb"]

_SAFE: dict[
    str, str | bool | int | float | list[str]
] = {  # nothing but the one file: no other files, no network, no code
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
}
_AS_THEY_ARE = (
    "BOOLEAN",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "FLOAT",
    "DOUBLE",
    "DATE",
    "TIMESTAMP",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "VARCHAR",
    "BLOB",
)
_DEFAULT_SCHEMA = "main"


class DuckDbSession:
    """A DuckDB connection that rows are selected from."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, schema: str) -> None:
        self._connection = connection
        self._schema = schema

    def names(self) -> tuple[str, ...]:
        """Names of the tables and views in the database schema, sorted."""
        rows = self._connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_catalog = current_database() "
            "AND table_schema = ? ORDER BY table_name",
            [self._schema],
        ).fetchall()
        return tuple(name for (name,) in rows)

    def table(self, name: str) -> Relation:
        """A table or view, by its name in whatever case; ``schema/name`` is one of another database schema."""
        schema, _, last = name.rpartition("/")
        return self._relation(f"{quoted(schema or self._schema)}.{quoted(last)}", label=f"table {name!r}")

    def query(self, sql: str, *, label: str) -> Relation:
        """The rows of one SELECT."""
        try:
            statements = self._connection.extract_statements(sql)
        except duckdb.Error:
            raise DataError(f"{label} is no SQL that DuckDB understands") from None
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise DataError(f"{label} must be one SELECT statement")
        return self._relation(f"({statements[0].query.strip().rstrip(';')}\n) AS query", label=label)

    def batches(self, relation: Relation, columns: Sequence[str], *, distinct: bool = False) -> Iterator[pl.DataFrame]:
        """The rows of a relation, part by part; types that polars has no match for come as text."""
        chosen = ", ".join(_selected(name, self._types(relation)[name]) for name in columns)
        select = f"SELECT {'DISTINCT ' if distinct else ''}{chosen} FROM {relation.sql}"  # noqa: S608 - quoted names
        try:
            cursor = self._connection.cursor()  # held while its rows are read
            reader = cursor.sql(select).to_arrow_reader(BATCH_ROWS)
            empty = pl.from_arrow(reader.schema.empty_table())
            assert isinstance(empty, pl.DataFrame), "a schema makes a table"
            some = False
            for batch in reader:
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame), "a batch makes a table"
                some = True
                yield frame.cast(empty.schema)
        except duckdb.Error as error:
            raise DataError(f"{relation.label} cannot be read: DuckDB reports {type(error).__name__}") from None
        if not some:
            yield empty

    def _relation(self, sql: str, *, label: str) -> Relation:
        try:
            described = self._connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()  # noqa: S608 - quoted
        except duckdb.CatalogException:
            raise DataError(f"{label} is not in the database") from None
        except duckdb.Error as error:
            raise DataError(f"{label} cannot be read: DuckDB reports {type(error).__name__}") from None
        names = [str(row[0]) for row in described]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise DataError(f"{label} has column {repeated[0]!r} twice: give each a name of its own with AS")
        return Relation(sql=sql, columns=tuple(names), label=label)

    def _types(self, relation: Relation) -> dict[str, str]:
        described = self._connection.execute(f"DESCRIBE SELECT * FROM {relation.sql}").fetchall()  # noqa: S608 - quoted
        return {str(row[0]): str(row[1]) for row in described}


@contextmanager
def read_duckdb(address: SqlAddress) -> Iterator[DuckDbSession]:
    """Open a file read-only, shut off from all else."""
    path = address.path
    if not path.is_file():
        raise DataError(f"{str(path)!r} is no file: give the path of a DuckDB database")
    try:
        connection = duckdb.connect(path, read_only=True, config=_SAFE)
    except duckdb.Error as error:
        raise DataError(f"{str(path)!r} cannot be opened: {_why(error)}") from None
    try:
        yield DuckDbSession(connection, schema=address.schema or _DEFAULT_SCHEMA)
    finally:
        connection.close()


class DuckDbTarget:
    """A new DuckDB file, for its owner alone."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, schema: str) -> None:
        self._connection = connection
        self._schema = schema
        self._made: set[str] = set()

    def has(self, table: str) -> bool:
        """Whether a table of this name was made: the file is new."""
        return table in self._made

    def create(self, table: NewTable) -> None:
        """Make a table. Of its constraints DuckDB keeps types, required columns and the primary key."""
        rounded = ("numeric",)  # to three decimal places
        types = {c.name: "double" if c.type in rounded else c.type for c in table.columns}
        columns = [f"{quoted(c.name)} {types[c.name]}{' NOT NULL' if c.required else ''}" for c in table.columns]
        key = [f"PRIMARY KEY ({quoted(table.key)})"] if table.key is not None else []
        try:
            self._connection.execute(f"CREATE TABLE {self._named(table.name)} ({', '.join((*columns, *key))})")
        except duckdb.CatalogException:
            raise ConfigError(
                f"table {table.name!r} has two columns of one name, or one of its name exists; DuckDB takes capital "
                "and small letters for the same"
            ) from None
        self._made.add(table.name)

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Append rows."""
        names = ", ".join(quoted(name) for name in rows.columns)
        self._connection.register("rows", rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
        try:
            self._connection.execute(f"INSERT INTO {self._named(table)} ({names}) SELECT {names} FROM rows")  # noqa: S608 - quoted names
        except duckdb.Error as error:
            raise DataError(
                f"table {table!r} breaks a constraint of the database: DuckDB reports {type(error).__name__}"
            ) from None
        finally:
            self._connection.unregister("rows")

    def _named(self, table: str) -> str:
        return f"{quoted(self._schema)}.{quoted(table)}"


@contextmanager
def write_duckdb(address: SqlAddress) -> Iterator[DuckDbTarget]:
    """A new file beside its place, which takes its name when the block ends well.

    Raises:
        ConfigError: the file exists or cannot be made.
    """
    target = check_new(address.path)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    schema = address.schema or _DEFAULT_SCHEMA
    try:
        connection = duckdb.connect(aside, config={**_SAFE, "temp_directory": ""})
    except duckdb.Error as error:
        raise ConfigError(f"{str(target)!r} cannot be written: {_why(error)}") from None
    try:
        try:
            aside.chmod(0o600)
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
            yield DuckDbTarget(connection, schema=schema)
            connection.execute("CHECKPOINT")
        finally:
            connection.close()
        check_new(address.path)  # a rename would take the place of a file made meanwhile
        os.rename(aside, target)  # noqa: PTH104 - as the folders do
    finally:
        aside.unlink(missing_ok=True)
        Path(f"{aside}.wal").unlink(missing_ok=True)


def _selected(name: str, type_name: str) -> str:
    """A column as it is selected: as it stands where polars has its type, else as text."""
    if type_name in _AS_THEY_ARE:
        return quoted(name)
    return f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}"


def _why(error: duckdb.Error) -> str:
    text = str(error)
    if "lock" in text:
        return "another program has it open for writing"
    if "not a valid DuckDB" in text:
        return "it is no DuckDB database, or one of a newer version"
    return f"DuckDB reports {type(error).__name__}"
