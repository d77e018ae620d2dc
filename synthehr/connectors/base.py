"""What every connector does: give the tables of a source as they stand, and write a cohort."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import polars as pl

from synthehr.cohort import Cohort
from synthehr.schema.conform import conform
from synthehr.schema.model import Schema

__all__ = ["Connector", "conform_tables", "read"]


class Connector(Protocol):
    """One form that records are kept in.

    A connector reads tables as they stand: it checks what its own format demands (rows of equal length, one
    name a column) and leaves types and values to :func:`synthehr.schema.conform.conform`.
    """

    def tables(self, source: str | Path, *, schema: Schema) -> dict[str, pl.DataFrame]:
        """The tables of ``source`` by the schema's names for them, without identifier and text columns.

        Raises:
            DataError: the source is missing or breaks a rule of its format. The message quotes no value.
        """

    def write(self, cohort: Cohort[Schema], out: Path, *, format: str) -> None:
        """Write the cohort into the new folder ``out``, whole or not at all.

        Raises:
            ConfigError: ``out`` exists or cannot be made, or ``format`` is not known.
        """


def read(connector: Connector, source: str | Path, *, schema: Schema, lenient: bool = False) -> Cohort[Schema]:
    """The cohort in ``source``, every cell checked against the schema.

    Args:
        connector: reads the form that ``source`` is in.
        source: path of the records.
        schema: what they are declared to be.
        lenient: for synthetic records: see :func:`synthehr.schema.conform.conform`.

    Raises:
        DataError: the records cannot be read or do not follow the schema.
    """
    return conform_tables(connector.tables(source, schema=schema), schema=schema, lenient=lenient)


def conform_tables(tables: Mapping[str, pl.DataFrame], *, schema: Schema, lenient: bool = False) -> Cohort[Schema]:
    """The cohort of these tables, every cell checked against the schema."""
    conformed = {
        name: conform(frame, schema=schema, table=name, lenient=lenient) if name in schema.tables else frame
        for name, frame in tables.items()
    }
    return Cohort(conformed, schema=schema)
