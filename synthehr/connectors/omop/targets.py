"""Where a Common Data Model is written to: a folder of files, a new DuckDB file, or a PostgreSQL database."""

from __future__ import annotations

from pathlib import Path

from synthehr.connectors.omop.cdm import CdmColumn
from synthehr.connectors.omop.writing import CdmWriter, WrittenTable
from synthehr.connectors.sql.address import parse_address
from synthehr.connectors.sql.session import BATCH_ROWS, NewColumn, NewTable, open_target
from synthehr.connectors.writing import TableWriter

__all__ = ["OMOP_FORMATS", "new_table", "write_omop_database", "write_omop_files"]

OMOP_FORMATS = ("omop", "omop-csv")
_VOCABULARY = "concept"


def write_omop_files(writer: CdmWriter, folder: Path, *, format: str = "omop") -> tuple[str, ...]:
    """Write one file a table into an existing folder: ``omop`` is Parquet, ``omop-csv`` CSV.

    Returns:
        names of the tables.
    """
    names = []
    for table in writer.tables():
        with TableWriter(folder, table.cdm.name, format="csv" if format == "omop-csv" else "parquet") as file:
            file.write(table.rows)
        names.append(table.cdm.name)
    return tuple(names)


def write_omop_database(writer: CdmWriter, place: str) -> tuple[str, ...]:
    """Write the tables into a database, whole or not at all, with the types and keys of the Common Data Model.

    References to tables that are not there (providers, places, the vocabulary) are left out. A vocabulary that is
    there stays as it is, and the concepts that are written must be in it.

    Args:
        writer: what is written.
        place: the URI of a database.

    Returns:
        names of the tables that were made.

    Raises:
        ConfigError: the URI is none, a table exists, or the database cannot be written.
        DataError: the rows break a constraint of the tables that are there.
    """
    names = []
    with open_target(parse_address(place)) as target:
        for table in writer.tables():
            if table.cdm.name == _VOCABULARY and target.has(_VOCABULARY):
                continue
            target.create(new_table(table))
            for part in table.rows.iter_slices(BATCH_ROWS):
                target.insert(table.cdm.name, part)
            names.append(table.cdm.name)
    return tuple(names)


def new_table(table: WrittenTable) -> NewTable:
    """A table of the Common Data Model with its types, required columns, key and references."""
    return NewTable(
        name=table.cdm.name,
        columns=tuple(NewColumn(name=c.name, type=_type(c), required=c.required) for c in table.columns),
        key=table.cdm.key,
        references=tuple((c.name, c.refers_to, f"{c.refers_to}_id") for c in table.columns if c.refers_to is not None),
    )


def _type(column: CdmColumn) -> str:
    """SQL's name of a type."""
    if column.type == "text":
        return "text" if column.longest is None else f"varchar({column.longest})"
    return {"number": "numeric", "datetime": "timestamp"}.get(column.type, column.type)
