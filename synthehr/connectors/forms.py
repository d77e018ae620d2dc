"""Which connector reads a source, by its path or URI."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import polars as pl

from synthehr.connectors.files import TableFiles
from synthehr.connectors.meds.source import is_meds
from synthehr.connectors.omop.sources import is_omop
from synthehr.connectors.sql.address import is_sql
from synthehr.connectors.store import StoreTables, is_store, schema_in_store
from synthehr.schema.model import Schema

__all__ = ["Reader", "connector_of", "default_schema_of", "is_plain"]


class Reader(Protocol):
    """The half of a connector that reads."""

    def tables(self, source: str | Path, *, schema: Schema) -> dict[str, pl.DataFrame]:
        """The tables of ``source``: see :class:`synthehr.connectors.base.Connector`."""


def is_plain(source: str | Path) -> bool:
    """Whether a source is tables in files, as they stand."""
    return not (is_meds(source) or is_omop(source) or is_sql(source) or is_store(source))


def default_schema_of(source: str | Path) -> Schema | None:
    """The declared table set of a source's form, or what a store was checked against; None where there is none.

    FHIR has a door of its own.
    """
    if is_meds(source):
        from synthehr.connectors.meds.layout import default_schema

        return default_schema()
    if is_omop(source):
        from synthehr.connectors.omop.cdm import default_schema as default_of_omop

        return default_of_omop()
    return schema_in_store(source) if is_store(source) else None


def connector_of(
    source: str | Path,
    *,
    misshapen: dict[str, dict[int, str]] | None = None,
    notes: dict[str, Any] | None = None,
) -> Reader:
    """The connector for tables in files, in MEDS, in OMOP or in a database. FHIR has a door of its own.

    Args:
        source: where the records are.
        misshapen: where rows of files that are no rows are noted: see :class:`synthehr.connectors.files.TableFiles`.
        notes: takes what a connector tells of how it read the source, for the custodian alone.
    """
    if is_meds(source):
        from synthehr.connectors.meds.reading import Meds

        return Meds(notes=notes)
    if is_omop(source):
        from synthehr.connectors.omop.reading import OmopTables

        return OmopTables()
    if is_sql(source):
        from synthehr.connectors.sql.tables import SqlTables

        return SqlTables()
    if is_store(source):
        return StoreTables()
    return TableFiles(misshapen=misshapen, notes=notes)
