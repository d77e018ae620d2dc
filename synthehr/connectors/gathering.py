"""Patients out of a table that has a row for each of their visits: one row for each key, of what is the same in all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from synthehr.errors import DataError
from synthehr.schema.conform import parse_column
from synthehr.schema.model import Schema, Table

__all__ = ["by_table", "gathered", "has_own_tables"]


def has_own_tables(source: Path, *, schema: Schema) -> bool:
    """Whether a folder holds a file for each table of the schema under its own name, as those that we write do."""
    return all(any(source.glob(f"{name}.*")) for name in schema.tables)


def by_table(frames: Mapping[str, pl.DataFrame], *, schema: Schema) -> dict[str, pl.DataFrame]:
    """Tables in memory by the schema's names, where they may be given by the names of their sources.

    Each table gets the columns that it declares, and those that no table of its source does, for the check of names to
    find. Frames that no table of the schema comes from stay as they are.
    """
    if all(name in frames for name in schema.tables):
        return dict(frames)
    sources = {schema.source_of(name) for name in schema.tables}
    tables = {name: frame for name, frame in frames.items() if name not in sources}
    for name, table in schema.tables.items():
        source = schema.source_of(name)
        if source in frames:
            others = {
                c for n, t in schema.tables.items() if n != name and schema.source_of(n) == source for c in t.columns
            }
            mine = [c for c in frames[source].columns if c in table.columns or c not in others]
            tables[name] = frames[source].select(mine)
    return tables


def gathered(tables: Mapping[str, pl.DataFrame], *, schema: Schema) -> dict[str, pl.DataFrame]:
    """The tables, with one row for each key where a table shares its source with one below it.

    Rows come in the order in which their keys do.

    Args:
        tables: by the schema's names, each with all rows of its source.
        schema: what is declared.

    Raises:
        DataError: a key is missing, or a column differs between the rows of one key.
    """
    return {
        name: _one_row_a_key(frame, schema.tables[name], name) if name in schema.gathered else frame
        for name, frame in tables.items()
    }


def _one_row_a_key(frame: pl.DataFrame, table: Table, name: str) -> pl.DataFrame:
    key = table.key
    if key is None or key not in frame.columns:
        return frame
    keys = parse_column(frame[key], table.columns[key]).values
    if keys.null_count():
        at = keys.is_null().arg_max()
        assert at is not None, "one is missing"
        raise DataError(f"column {key!r} in table {name!r}, row {at + 1}: is missing, so the row is of no patient")
    firsts = frame.with_columns(keys.alias(key)).unique(key, keep="first", maintain_order=True)
    whole = frame.with_columns(keys.alias(key)).join(
        firsts, on=key, how="left", maintain_order="left", suffix=" of first"
    )
    for column in frame.columns:
        if column != key and column in table.columns:  # what no table declares is refused by the check of names
            differs = ~whole[column].eq_missing(whole[f"{column} of first"])
            if differs.any():
                at = differs.arg_max()
                assert at is not None, "one differs"
                raise DataError(
                    f"column {column!r} in table {name!r}, row {at + 1}: differs from an earlier row of the same "
                    f"{key!r}: declare it in the table below, which keeps all rows"
                )
    return firsts
