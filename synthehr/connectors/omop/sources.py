"""Where a Common Data Model is kept: a folder of files, a DuckDB file or a PostgreSQL database, opened alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from synthehr.connectors.columnar import read_batches
from synthehr.connectors.delimited import delimited_batches
from synthehr.connectors.files import ENDINGS
from synthehr.connectors.omop.cdm import cdm_tables
from synthehr.connectors.sql.address import is_sql, parse_address
from synthehr.connectors.sql.session import Relation, Session, open_session
from synthehr.errors import ConfigError, DataError

__all__ = ["FolderSession", "is_omop", "open_source", "place_of"]

_URI = re.compile(r"omop(?:\+(?=\w+:)|:)(.+)", re.DOTALL)
_DELIMITED = (".csv", ".csv.gz", ".tsv", ".tsv.gz")


def is_omop(source: str | Path) -> bool:
    """Whether a source is named as a Common Data Model: ``omop:folder``, ``omop+duckdb:…`` or ``omop+postgresql:…``."""
    return _URI.fullmatch(str(source)) is not None


def place_of(source: str | Path) -> str:
    """What stands behind ``omop:`` or ``omop+``: a path, or the URI of a database.

    Raises:
        ConfigError: it is a URI of something else.
    """
    match = _URI.fullmatch(str(source))
    assert match is not None, "only asked of OMOP sources"
    if str(source).startswith("omop+") and not is_sql(match[1]):
        raise ConfigError(
            "OMOP is read from omop:folder, omop+duckdb:///file.duckdb or omop+postgresql://host/database"
        )
    return match[1]


class FolderSession:
    """A folder with one file a table: CSV, TSV, Parquet or Arrow, by the names of the tables in whatever case."""

    def __init__(self, folder: Path) -> None:
        self._paths: dict[str, Path] = {}
        for path in sorted(folder.iterdir()):
            ending = next((e for e in ENDINGS if path.name.lower().endswith(e)), None)
            if ending is None or not path.is_file():
                continue
            name = path.name[: -len(ending)]
            if name.lower() in (known.lower() for known in self._paths):
                raise DataError(f"the OMOP folder has several files for table {name.lower()!r}: keep one")
            self._paths[name] = path

    def names(self) -> tuple[str, ...]:
        """Names of the tables, sorted."""
        return tuple(sorted(self._paths))

    def table(self, name: str) -> Relation:
        """The file of a table."""
        if name not in self._paths:
            raise DataError(f"the OMOP folder has no file for table {name!r}: name it {name}.csv or {name}.parquet")
        path = self._paths[name]
        first = next(self._parts(path, skip=frozenset()))
        return Relation(sql=name, columns=tuple(first.columns), label=f"file {path.name!r}")

    def query(self, sql: str, *, label: str) -> Relation:  # noqa: ARG002 - as databases have it
        """No folder can be asked."""
        raise ConfigError(f"{label}: a folder of files takes no query")

    def batches(self, relation: Relation, columns: Sequence[str], *, distinct: bool = False) -> Iterator[pl.DataFrame]:
        """These columns of a file, part by part."""
        skip = frozenset(relation.columns) - frozenset(columns)
        for part in self._parts(self._paths[relation.sql], skip=skip):
            chosen = part.select(columns)
            yield chosen.unique(maintain_order=True) if distinct else chosen

    def _parts(self, path: Path, *, skip: frozenset[str]) -> Iterator[pl.DataFrame]:
        if path.name.lower().endswith(_DELIMITED):
            table = cdm_tables().get(path.name.partition(".")[0].lower())
            return delimited_batches(path, skip=skip, known=() if table is None else tuple(table.columns))
        return read_batches(path, skip=skip)


@contextmanager
def open_source(source: str | Path) -> Iterator[Session]:
    """Open a Common Data Model for reading.

    Raises:
        ConfigError: the URI is none.
        DataError: it is missing or cannot be reached.
    """
    place = place_of(source)
    if is_sql(place):
        address = parse_address(place)
        if address.tables or address.queries:
            raise ConfigError("the tables of an OMOP database have their own names: leave table and query out")
        with open_session(address) as session:
            yield session
        return
    folder = Path(place)
    if not folder.is_dir():
        raise DataError(f"{place!r} is no folder: OMOP in files is a folder with person.csv or person.parquet in it")
    yield FolderSession(folder)
