"""The tables of a schema in a database: read by name or by query, and written in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.sql.address import SqlAddress, parse_address
from synthehr.connectors.sql.session import (
    BATCH_ROWS,
    NewColumn,
    NewTable,
    Relation,
    Session,
    Target,
    open_session,
    open_target,
    sql_type,
)
from synthehr.errors import ConfigError, DataError
from synthehr.schema.model import DroppedColumn, Schema

__all__ = ["SqlRecords", "SqlTables", "open_records", "write_frames"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlRecords:
    """The tables of a schema in a database that is open.

    Attributes:
        session: the open database.
        address: where it is.
        schema: what is declared.
    """

    session: Session
    address: SqlAddress
    schema: Schema

    def batches(self, table: str) -> Iterator[pl.DataFrame]:
        """A table of the schema as it stands, part by part; identifier and text columns are not asked for.

        Raises:
            DataError: the table is not there or cannot be read.
        """
        relation = self._relation(table)
        declared = self.schema.tables[table].columns
        wanted = [name for name in relation.columns if not isinstance(declared.get(name), DroppedColumn)]
        if not wanted:
            raise DataError(f"{relation.label} has no column that table {table!r} of the schema declares")
        return self.session.batches(relation, wanted)

    def _relation(self, table: str) -> Relation:
        query, name = self.address.of(table, subject=self.schema.subject)
        if query is not None:
            return self.session.query(query, label=f"the query of table {table!r}")
        if name == table and self.schema.tables[table].source is not None:
            return self.session.table(self.schema.source_of(table))
        return self.session.table(name)


@contextmanager
def open_records(source: str | Path, *, schema: Schema) -> Iterator[SqlRecords]:
    """Open a database to read the tables of a schema from.

    Raises:
        ConfigError: the URI is none, or names a table that the schema does not declare.
        DataError: the database is missing or cannot be reached.
    """
    address = parse_address(source)
    for named in (*address.tables, *address.queries):
        if named is not None and named not in schema.tables:
            raise ConfigError(f"the URI of the database names table {named!r}, which the schema does not declare")
    with open_session(address) as session:
        yield SqlRecords(session=session, address=address, schema=schema)


class SqlTables:
    """Tables in a DuckDB file or a PostgreSQL database: a :class:`synthehr.connectors.base.Connector`."""

    def tables(self, source: str | Path, *, schema: Schema) -> dict[str, pl.DataFrame]:
        """The tables as they stand, in the database's types where polars has them, else as text.

        Raises:
            ConfigError: the URI is none of a database.
            DataError: the database or a table is missing or cannot be read.
        """
        with open_records(source, schema=schema) as records:
            frames = {name: pl.concat(records.batches(name), rechunk=False) for name in schema.tables}
        empty = [name for name, frame in frames.items() if name == schema.subject and frame.height == 0]
        if empty:
            raise DataError(f"table {empty[0]!r} has no rows: it needs at least one")
        return frames

    def write(self, cohort: Cohort[Schema], out: str | Path) -> None:
        """Write one table for each of the cohort's, whole or not at all: a new DuckDB file, or one transaction.

        Raises:
            ConfigError: the URI is none of a database, the file or a table exists, or it cannot be written.
        """
        write_frames(cohort.tables, out, schema=cohort.schema)


def write_frames(frames: Mapping[str, pl.DataFrame], out: str | Path, *, schema: Schema) -> None:
    """Write tables by name, with the keys that the schema declares, whole or not at all."""
    with open_target(parse_address(out)) as target:
        for name in schema.top_down:
            if name in frames:
                _write(target, name, frames[name], schema=schema)


def _write(target: Target, name: str, frame: pl.DataFrame, *, schema: Schema) -> None:
    declared = schema.tables[name]
    key = declared.key if declared.key in frame.columns else None
    references: tuple[tuple[str, str, str], ...] = ()
    if declared.parent is not None and declared.foreign_key in frame.columns:
        parent_key = schema.tables[declared.parent].key
        assert declared.foreign_key is not None and parent_key is not None, "checked by the schema"
        references = ((declared.foreign_key, declared.parent, parent_key),)
    columns = tuple(
        NewColumn(name=column, type=sql_type(dtype), required=column in (key, declared.foreign_key))
        for column, dtype in frame.schema.items()
    )
    target.create(NewTable(name=name, columns=columns, key=key, references=references))
    for part in frame.iter_slices(BATCH_ROWS):
        target.insert(name, part)
