"""Tables from files or a database into files, batch by batch, so that what outgrows memory goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from synthehr.connectors.files import TableWriter, table_batches, table_paths
from synthehr.connectors.omop.reading import open_omop
from synthehr.connectors.omop.sources import is_omop
from synthehr.connectors.sql.address import is_sql
from synthehr.connectors.sql.tables import open_records
from synthehr.connectors.store import STORE, KeyNumbers, StoreWriter
from synthehr.errors import DataError
from synthehr.schema.conform import judge, named_as_declared
from synthehr.schema.model import AgeColumn, AnchorColumn, ConsentColumn, OffsetColumn, Schema

__all__ = ["can_stream", "stream_tables"]

_NEEDS_ALL_ROWS = (AgeColumn, AnchorColumn, ConsentColumn, OffsetColumn)


def can_stream(schema: Schema) -> bool:
    """Whether each row can be read by itself: no dates to count from an anchor, no consent, shared source, rule across.

    A rule across tables asks what other rows hold.
    """
    if any(table.source is not None for table in schema.tables.values()) or any(r.above for r in schema.parsed_rules):
        return False
    return not any(isinstance(c, _NEEDS_ALL_ROWS) for table in schema.tables.values() for c in table.columns.values())


def stream_tables(
    source: str | Path,
    folder: Path,
    *,
    schema: Schema,
    format: str,
    lenient: bool = False,
    on_part: Callable[[str, pl.DataFrame], object] | None = None,
) -> dict[str, int]:
    """Write tables of files, a database or OMOP into an existing folder, every cell and key checked; the rows of each.

    Only keys that other tables point to, and those that must be unique, are held.

    Args:
        source: a file, a folder with one for each table, or the URI of a database or of OMOP.
        folder: where to.
        schema: what is declared; see :func:`can_stream`.
        format: of what is written; ``store`` too.
        lenient: see :func:`synthehr.schema.conform.conform`.
        on_part: called with the name of a table and each part of it, once it is checked.

    Raises:
        DataError: the files cannot be read or break the schema: as :func:`synthehr.connectors.records.read` says it.
    """
    store = StoreWriter(folder, schema=schema, lenient=lenient) if format == STORE else None
    keys = KeyNumbers(schema)
    rows = {}
    with _opened(source, schema=schema) as batches:
        for name in schema.top_down:
            declared = schema.tables[name]
            made = store.table(name) if store else TableWriter(folder, name, format=format, declared=declared)
            with made as writer:
                rows[name] = 0
                with _behind(writer.write) as write:
                    for part in _checked(batches(name), schema=schema, table=name, lenient=lenient):
                        rows[name] += part.height
                        write(
                            store.linked(name, part)
                            if store
                            else _checked_keys(part, schema=schema, table=name, keys=keys)
                        )
                        if on_part is not None:
                            on_part(name, part)
            if not rows[name] and schema.links[name].parent is None:
                raise DataError(f"table {name!r} has no rows: it needs at least one")
    if store:
        store.close()
    return {name: rows[name] for name in schema.tables}


@contextmanager
def _opened(source: str | Path, *, schema: Schema) -> Iterator[Callable[[str], Iterator[pl.DataFrame]]]:
    """What gives the parts of a table, by its name, while the source is open."""
    if is_sql(source):
        with open_records(source, schema=schema) as records:
            yield records.batches
        return
    if is_omop(source):
        with open_omop(source) as cdm:
            yield lambda table: cdm.parts(schema, table)
        return
    paths = table_paths(Path(source), schema=schema)
    yield lambda table: _ahead(table_batches(paths[table], schema=schema, table=table))


@contextmanager
def _behind(write: Callable[[pl.DataFrame], object]) -> Iterator[Callable[[pl.DataFrame], None]]:
    """What writes each part while the next one is at work; all are written, or it failed, when the block ends."""
    pending: list[Future[object]] = []

    def later(part: pl.DataFrame) -> None:
        while pending:
            pending.pop().result()
        pending.append(writer.submit(write, part))

    with ThreadPoolExecutor(max_workers=1) as writer:
        yield later
        while pending:
            pending.pop().result()


def _ahead(batches: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same parts, each read while the one before it is at work."""
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


def _checked(batches: Iterator[pl.DataFrame], *, schema: Schema, table: str, lenient: bool) -> Iterator[pl.DataFrame]:
    """The parts of a table in the types that are declared, every cell checked."""
    rows = 0
    for batch in batches:
        named_as_declared(batch.columns, declared=schema.tables[table], table=table)
        conformed, broken = judge(batch, schema=schema, table=table, lenient=lenient)
        numbers = pl.int_range(rows + 1, rows + batch.height + 1, eager=True)
        for found in broken:
            found.refuse(table=table, numbers=numbers)
        rows += batch.height
        yield conformed


def _checked_keys(part: pl.DataFrame, *, schema: Schema, table: str, keys: KeyNumbers) -> pl.DataFrame:
    """A part of a table after its keys were checked."""
    link = schema.links[table]
    if link.key is not None:
        keys.add(table, part[link.key])
    if link.foreign_key is not None:
        keys.rows_of(table, part[link.foreign_key])
    return part
