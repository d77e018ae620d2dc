"""Tables from files or a database into files, batch by batch, so that what outgrows memory goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from synthehr.connectors.files import TableWriter, table_batches, table_paths
from synthehr.connectors.sql.address import is_sql
from synthehr.connectors.sql.tables import open_records
from synthehr.errors import DataError
from synthehr.schema.conform import judge, named_as_declared
from synthehr.schema.model import AgeColumn, AnchorColumn, ConsentColumn, OffsetColumn, Schema

__all__ = ["can_stream", "stream_tables"]

_NEEDS_ALL_ROWS = (AgeColumn, AnchorColumn, ConsentColumn, OffsetColumn)


def can_stream(schema: Schema) -> bool:
    """Whether each row can be read by itself: no dates to count from an anchor, no consent, no shared source."""
    if any(table.source is not None for table in schema.tables.values()):
        return False
    return not any(isinstance(c, _NEEDS_ALL_ROWS) for table in schema.tables.values() for c in table.columns.values())


def stream_tables(
    source: str | Path, folder: Path, *, schema: Schema, format: str, lenient: bool = False
) -> dict[str, int]:
    """Write the tables of files or a database into an existing folder, every cell and key checked; the rows of each.

    Only keys that other tables point to, and those that must be unique, are held.

    Args:
        source: a file, a folder with one for each table, or the URI of a database.
        folder: where to.
        schema: what is declared; see :func:`can_stream`.
        format: of what is written.
        lenient: see :func:`synthehr.schema.conform.conform`.

    Raises:
        DataError: the files cannot be read or break the schema: as :func:`synthehr.connectors.records.read` says it.
    """
    keys: dict[str, pl.Series] = {}
    rows = {}
    with _opened(source, schema=schema) as batches:
        for name in sorted(schema.tables, key=lambda table: _depth(table, schema=schema)):
            with TableWriter(folder, name, format=format, declared=schema.tables[name]) as writer:
                own, rows[name] = _stream(batches(name), writer, schema=schema, table=name, keys=keys, lenient=lenient)
            if own is not None:
                keys[name] = own.sort()
    return {name: rows[name] for name in schema.tables}


@contextmanager
def _opened(source: str | Path, *, schema: Schema) -> Iterator[Callable[[str], Iterator[pl.DataFrame]]]:
    """What gives the parts of a table, by its name, while the source is open."""
    if is_sql(source):
        with open_records(source, schema=schema) as records:
            yield records.batches
        return
    paths = table_paths(Path(source), schema=schema)
    yield lambda table: table_batches(paths[table], schema=schema, table=table)


def _stream(
    batches: Iterator[pl.DataFrame],
    writer: TableWriter,
    *,
    schema: Schema,
    table: str,
    keys: dict[str, pl.Series],
    lenient: bool,
) -> tuple[pl.Series | None, int]:
    link = schema.links[table]
    own: list[pl.Series] = []
    rows = 0
    for batch in batches:
        named_as_declared(batch.columns, declared=schema.tables[table], table=table)
        conformed, broken = judge(batch, schema=schema, table=table, lenient=lenient)
        numbers = pl.int_range(rows + 1, rows + batch.height + 1, eager=True)
        for found in broken:
            found.refuse(table=table, numbers=numbers)
        rows += batch.height
        if link.foreign_key is not None and link.parent is not None:
            _check_parents(conformed[link.foreign_key], keys[link.parent], table=table, parent=link.parent)
        if link.key is not None:
            own.append(conformed[link.key])
        writer.write(conformed)
    if not rows and link.parent is None:
        raise DataError(f"table {table!r} has no rows: it needs at least one")
    if link.key is None:
        return None, rows
    whole = pl.concat(own)
    if whole.null_count():
        raise DataError(f"key {link.key!r} of table {table!r} must not be missing")
    if whole.n_unique() != len(whole):
        raise DataError(
            f"key {link.key!r} of table {table!r} must be unique, but it repeats: "
            "declare repeated rows as a table with a parent"
        )
    return whole, rows


def _check_parents(of_rows: pl.Series, known: pl.Series, *, table: str, parent: str) -> None:
    """Refuse rows of no parent; ``known`` are the parents' keys, sorted."""
    asked = of_rows.unique()
    at = known.search_sorted(asked.drop_nulls()).clip(upper_bound=max(len(known) - 1, 0))
    if asked.null_count() or (len(asked) and not (len(known) and (known.gather(at) == asked).all())):
        raise DataError(
            f"foreign key {of_rows.name!r} of table {table!r} must be a key of {parent!r}, but some rows point to none"
        )


def _depth(table: str, *, schema: Schema) -> int:
    parent = schema.links[table].parent
    return 0 if parent is None else 1 + _depth(parent, schema=schema)
