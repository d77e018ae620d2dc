"""What every connector does: give the tables of a source as they stand, and write a cohort."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.badrows import Misshapen, OnLeftOut, numbered, sift, without_numbers
from synthehr.connectors.deidentify import as_offsets
from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.connectors.gathering import gathered
from synthehr.connectors.optout import Admission
from synthehr.schema.conform import across_tables, conform
from synthehr.schema.model import Schema

__all__ = ["Connector", "conform_tables", "read", "through_the_door"]


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


def read(
    connector: Connector,
    source: str | Path,
    *,
    schema: Schema,
    lenient: bool = False,
    admission: Admission | None = None,
) -> Cohort[Schema]:
    """The cohort in ``source``, every cell checked against the schema.

    Args:
        connector: reads the form that ``source`` is in.
        source: path of the records.
        schema: what they are declared to be.
        lenient: for synthetic records: see :func:`synthehr.schema.conform.conform`.
        admission: who comes in; see :class:`synthehr.connectors.optout.Admission`.

    Raises:
        DataError: the records cannot be read or do not follow the schema.
    """
    tables = connector.tables(source, schema=schema)
    return conform_tables(tables, schema=schema, lenient=lenient, admission=admission)


def through_the_door(
    tables: Mapping[str, pl.DataFrame],
    *,
    schema: Schema,
    admission: Admission | None = None,
    lenient: bool = False,
) -> dict[str, pl.DataFrame]:
    """Tables as they were read, without patients who opted out, one row for each key, and dates as offsets.

    Args:
        tables: by the schema's names.
        schema: what is declared.
        admission: who comes in; all do where left out, and so do synthetic patients.
        lenient: for synthetic records: see :func:`synthehr.connectors.deidentify.as_offsets`.

    Raises:
        DataError: nobody is left, or rows of one key differ where they must not.
    """
    admitted = tables if admission is None else admission.admit(tables, schema=schema)
    return as_offsets(gathered(admitted, schema=schema), schema=schema, lenient=lenient)


def conform_tables(
    tables: Mapping[str, pl.DataFrame],
    *,
    schema: Schema,
    lenient: bool = False,
    admission: Admission | None = None,
    on_bad: BadRowPolicy | None = None,
    on_left_out: OnLeftOut | None = None,
    misshapen: Misshapen | None = None,
) -> Cohort[Schema]:
    """The cohort of these tables, through the door and every cell checked against the schema.

    Args:
        tables: as they were read.
        schema: what they are declared to be.
        lenient: for synthetic records: see :func:`synthehr.schema.conform.conform`.
        admission: who comes in; see :class:`synthehr.connectors.optout.Admission`.
        on_bad: what a row that breaks the schema does; without it the first is refused.
        on_left_out: called once with the rows that were left out, where ``on_bad`` leaves rows out.
        misshapen: by table, rows that the reader could not cut into cells: see
            :func:`synthehr.connectors.badrows.sift`.

    Raises:
        DataError: the tables do not follow the schema.
    """
    admission = None if lenient else admission or Admission()
    known = {name: frame for name, frame in tables.items() if name in schema.tables}
    rows = numbered(known, schema=schema, misshapen=misshapen)
    entered = through_the_door(rows, schema=schema, admission=admission, lenient=lenient)
    if on_bad is not None and on_bad.mode != "fail":
        good, left_out = sift(entered, schema=schema, policy=on_bad, lenient=lenient, misshapen=misshapen)
        cohort = Cohort({**tables, **good}, schema=schema)
        if on_left_out is not None:
            on_left_out(left_out)
        return cohort
    conformed, numbers = {}, {}
    for name, frame in entered.items():
        plain, numbers[name] = without_numbers(frame)
        conformed[name] = conform(plain, schema=schema, table=name, lenient=lenient, numbers=numbers[name])
    cohort = Cohort({**tables, **conformed}, schema=schema)
    for name in conformed if not lenient else ():
        for broken in across_tables(cohort.tables, schema=schema, table=name):
            broken.refuse(table=name, numbers=numbers[name])
    return cohort
