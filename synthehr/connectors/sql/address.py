"""The URI of a database: which one, and which of its tables or queries are meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode

from synthehr.errors import ConfigError

__all__ = ["Engine", "SqlAddress", "is_sql", "parse_address", "shown"]

Engine: TypeAlias = Literal["duckdb", "postgresql"]

_URI = re.compile(r"(duckdb|postgresql|postgres):(.*)", re.DOTALL)
_OWN = re.compile(r"(schema|table|query)(?:\.(.+))?", re.DOTALL)
_FORM = "write it as duckdb:///file.duckdb (duckdb:////srv/file.duckdb from the root) or postgresql://host/database"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlAddress:
    """A database, and where in it the tables of a schema are.

    Attributes:
        engine: what kind of database.
        target: path of the DuckDB file, or libpq's URI. The latter may hold a password, so that it is never printed.
        schema: the database schema in which tables are; the connection's own where None.
        tables: name in the database, by table of the schema; its own name where left out.
        queries: the SELECT that gives a table, by table of the schema. The key None stands for the root table.
    """

    engine: Engine
    target: str = field(repr=False)
    schema: str | None = None
    tables: Mapping[str | None, str] = field(default_factory=dict)
    queries: Mapping[str | None, str] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """The address without password and parameters, for messages."""
        if self.engine == "duckdb":
            return f"duckdb:///{self.target}"
        return _masked(self.target)

    @property
    def path(self) -> Path:
        """Path of a DuckDB file."""
        assert self.engine == "duckdb", "only a DuckDB database is a file"
        return Path(self.target)

    def of(self, table: str, *, subject: str) -> tuple[str | None, str]:
        """The query that gives a table, or None, and the name that the table has in the database."""
        keys = (table, None) if table == subject else (table,)
        query = next((self.queries[key] for key in keys if key in self.queries), None)
        return query, next((self.tables[key] for key in keys if key in self.tables), table)


def is_sql(source: str | Path) -> bool:
    """Whether a path or URI is that of a database."""
    return _URI.fullmatch(str(source)) is not None


def shown(source: str | Path) -> str:
    """A source or output as it may be printed: a URI loses its password and its parameters."""
    scheme, plus, rest = str(source).partition("+")
    if plus and scheme.isalpha() and is_sql(rest):
        return f"{scheme}+{_masked(rest)}"
    return _masked(str(source)) if is_sql(source) else str(source)


def parse_address(source: str | Path) -> SqlAddress:
    """Take a URI apart.

    ``?schema=NAME`` names the database schema, ``?table=NAME`` and ``?query=SELECT…`` what gives the root table, and
    ``?table.lab=NAME`` and ``?query.lab=SELECT…`` what gives table ``lab``. All other parameters are libpq's.

    Raises:
        ConfigError: the URI is none of a database, or names a table twice.
    """
    match = _URI.fullmatch(str(source))
    if match is None or not match[2].startswith("//"):
        raise ConfigError(f"this is no URI of a database: {_FORM}; in Python as text, since a Path loses slashes")
    engine: Engine = "duckdb" if match[1] == "duckdb" else "postgresql"
    body, _, parameters = match[2].partition("?")
    schema: str | None = None
    named: dict[str, dict[str | None, str]] = {"table": {}, "query": {}}
    others: list[tuple[str, str]] = []
    for key, value in parse_qsl(parameters, keep_blank_values=True):
        own = _OWN.fullmatch(key)
        if own is None:
            others.append((key, value))
        elif not value:
            raise ConfigError(f"parameter {key!r} of the URI of a database must not be empty")
        elif own[1] == "schema" and own[2] is None:
            schema = value
        elif own[1] != "schema":
            named[own[1]][own[2]] = value
    both = [key for key in named["table"] if key in named["query"]]
    if both:
        raise ConfigError("a table of the URI of a database is given by name and by query: keep one")
    return SqlAddress(
        engine=engine,
        target=_file(body, others) if engine == "duckdb" else _libpq(body, others),
        schema=schema,
        tables=named["table"],
        queries=named["query"],
    )


def _file(body: str, others: list[tuple[str, str]]) -> str:
    if others:
        raise ConfigError(f"parameter {others[0][0]!r} of a DuckDB URI is not known: known are schema, table, query")
    path = unquote(body.removeprefix("//").removeprefix("/"))
    if not body.startswith("///") or not path:
        raise ConfigError(f"a DuckDB URI needs three slashes and a path: {_FORM}")
    return path


def _libpq(body: str, others: list[tuple[str, str]]) -> str:
    parameters = f"?{urlencode(others, quote_via=quote)}" if others else ""
    return f"postgresql:{body}{parameters}"


def _masked(uri: str) -> str:
    """A URI without parameters, its password replaced."""
    scheme, _, rest = uri.partition("?")[0].partition("//")
    user, at, host = rest.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{scheme}//{name}{':***' if colon else ''}{at}{host}"
