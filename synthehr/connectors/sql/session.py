"""What reading and writing need of a database, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import polars as pl

from synthehr.connectors.sql.address import SqlAddress
from synthehr.errors import ConfigError, DataError

__all__ = [
    "BATCH_ROWS",
    "NewColumn",
    "NewTable",
    "Relation",
    "Session",
    "Target",
    "open_session",
    "open_target",
    "quoted",
    "sql_type",
]

BATCH_ROWS = 65_536


def quoted(name: str) -> str:
    """An identifier in SQL: whatever stands in ``name`` is a name and no statement.

    Raises:
        ConfigError: the name is empty or holds a NUL byte, which no identifier can.
    """
    if not name or "\0" in name:
        raise ConfigError("the name of a table, column or database schema must be text without NUL bytes")
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """Something that rows can be selected from.

    Attributes:
        sql: what stands after FROM.
        columns: names, in order.
        label: what messages call it.
    """

    sql: str
    columns: tuple[str, ...]
    label: str


class Session(Protocol):
    """A database that is open for reading, and for nothing else."""

    def names(self) -> tuple[str, ...]:
        """Names of the tables and views in the database schema, sorted."""

    def table(self, name: str) -> Relation:
        """A table or view.

        Raises:
            DataError: there is none of this name.
        """

    def query(self, sql: str, *, label: str) -> Relation:
        """The rows of one SELECT.

        Raises:
            DataError: it is not one statement that can be selected from.
        """

    def batches(self, relation: Relation, columns: Sequence[str], *, distinct: bool = False) -> Iterator[pl.DataFrame]:
        """These columns, at most ``BATCH_ROWS`` rows at a time, in the same types; at least one batch, perhaps empty.

        Raises:
            DataError: the database fails. The message quotes none of its own, which may hold a value.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class NewColumn:
    """A column to be made.

    Attributes:
        name: of the column.
        type: SQL's name of the type.
        required: may not be null.
    """

    name: str
    type: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTable:
    """A table to be made.

    Attributes:
        name: of the table.
        columns: in order.
        key: column that is the primary key.
        references: column, and the table and column that its values are in.
    """

    name: str
    columns: tuple[NewColumn, ...]
    key: str | None = None
    references: tuple[tuple[str, str, str], ...] = ()


class Target(Protocol):
    """A database that is open for writing: all that is done appears when the block ends well, or nothing does."""

    def has(self, table: str) -> bool:
        """Whether a table of this name is there."""

    def create(self, table: NewTable) -> None:
        """Make a table.

        Raises:
            ConfigError: it exists.
        """

    def insert(self, table: str, rows: pl.DataFrame) -> None:
        """Append rows to a table that was made here, by the names of their columns.

        Raises:
            DataError: the database refuses a row.
        """


def sql_type(dtype: pl.DataType) -> str:
    """SQL's type for a polars type.

    Raises:
        DataError: there is none.
    """
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_integer():
        return "bigint"
    if dtype.is_float():
        return "double precision"
    if dtype == pl.Date:
        return "date"
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        return "timestamp"
    if dtype in (pl.String, pl.Null):
        return "text"
    raise DataError(f"a column of type {dtype} cannot be written into a database: make it text")


def open_session(address: SqlAddress) -> AbstractContextManager[Session]:
    """Open a database for reading.

    Raises:
        DataError: it is missing, or cannot be reached or read.
    """
    if address.engine == "duckdb":
        from synthehr.connectors.sql.duckdb_engine import read_duckdb

        return read_duckdb(address)
    from synthehr.connectors.sql.postgresql_engine import read_postgresql

    return read_postgresql(address)


def open_target(address: SqlAddress) -> AbstractContextManager[Target]:
    """Open a database for writing: a new DuckDB file, or one transaction in a database that exists.

    Raises:
        ConfigError: it cannot be reached or written.
    """
    if address.tables or address.queries:
        raise ConfigError("the URI of an output can name a database schema, but no table and no query")
    if address.engine == "duckdb":
        from synthehr.connectors.sql.duckdb_engine import write_duckdb

        return write_duckdb(address)
    from synthehr.connectors.sql.postgresql_engine import write_postgresql

    return write_postgresql(address)
