"""Tables that no schema describes yet, as they stand: what a draft looks at."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from synthehr.connectors.fhir.sources import is_fhir
from synthehr.connectors.files import ENDINGS, read_table
from synthehr.connectors.forms import default_schema_of
from synthehr.connectors.sql.address import is_sql, parse_address
from synthehr.connectors.sql.session import open_session
from synthehr.errors import ConfigError, DataError

__all__ = ["undeclared_tables"]


def undeclared_tables(source: str | Path) -> dict[str, pl.DataFrame]:
    """All tables of a source by name, with all their columns.

    Args:
        source: a file of a table, a folder of them, or the URI of a database.

    Raises:
        ConfigError: the source is of a form that needs no schema of its own.
        DataError: it is missing or cannot be read, or two files are of one table.
    """
    if default_schema_of(source) is not None:
        raise ConfigError("OMOP, MEDS and stores need no draft: their own table sets are the default")
    if is_sql(source):
        return _in_database(source)
    path = Path(source)
    if path.is_file() and path.name.lower().endswith(ENDINGS):
        return {_table_name(path): read_table(path)}
    if path.is_dir() and (files := sorted(f for f in path.iterdir() if f.name.lower().endswith(ENDINGS))):
        return _in_files(files)
    if is_fhir(source):
        raise ConfigError("FHIR needs no draft: its own schema, schemas/fhir/r4/schema.yaml, is the default")
    if not path.exists():
        raise DataError(f"{str(source)!r} does not exist: give a file of a table, a folder of them, or a database")
    raise DataError(f"{str(source)!r} holds no table to draft a schema from: known are {', '.join(ENDINGS)}")


def _in_files(files: list[Path]) -> dict[str, pl.DataFrame]:
    tables: dict[str, pl.DataFrame] = {}
    for file in files:
        name = _table_name(file)
        if name in tables:
            raise DataError(f"folder {str(file.parent)!r} has several files for table {name!r}: keep one")
        tables[name] = read_table(file)
    return tables


def _in_database(source: str | Path) -> dict[str, pl.DataFrame]:
    address = parse_address(source)
    with open_session(address) as session:
        frames = {}
        for name in session.names():
            relation = session.table(name)
            frames[name] = pl.concat(session.batches(relation, relation.columns), rechunk=False)
    return frames


def _table_name(path: Path) -> str:
    """The file's name without its ending, as the name of a table can be."""
    name = path.name
    ending = next(ending for ending in sorted(ENDINGS, key=len, reverse=True) if name.lower().endswith(ending))
    stem = name[: -len(ending)]
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in stem)
    if plain != stem or not stem or stem[0].isdigit() or stem[0] == "-":
        raise DataError(
            f"file {name!r} cannot name a table: give it a name of letters, digits, _ and -, that begins with a letter"
        )
    return stem
