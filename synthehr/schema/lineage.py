"""What the rows above a table's rows hold, for rules that read both."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from synthehr.schema.model import Schema
from synthehr.schema.rules import Above

__all__ = ["above_rows"]


def above_rows(frame: pl.DataFrame, tables: Mapping[str, pl.DataFrame], *, schema: Schema, table: str) -> Above:
    """What the ancestors of a table's rows hold, by the keys of the schema.

    Args:
        frame: rows of the table, with the key of their parent.
        tables: the ancestors' rows, with their keys, by name.
        schema: what links them.
        table: name of the rows' table.

    Returns:
        From an ancestor and a column of it to the value for each row; null where a row has no such ancestor.
    """

    def above(of: str, column: str) -> pl.Series:
        link = schema.links[table]
        keys = frame.select(pl.col(str(link.foreign_key)).alias("key"))
        while True:
            assert link.parent is not None, "a rule reads ancestors alone"
            parent = schema.links[link.parent]
            wanted = column if link.parent == of else str(parent.foreign_key)
            known = tables[link.parent].select(pl.col(str(parent.key)).alias("key"), pl.col(wanted).alias("wanted"))
            found = keys.join(known.unique("key", keep="first"), on="key", how="left", maintain_order="left")["wanted"]
            if link.parent == of:
                return found
            keys, link = found.alias("key").to_frame(), parent

    return above
