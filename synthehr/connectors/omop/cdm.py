"""``schemas/omop``: the tables of the Common Data Model, what becomes of them, and the schema of what they become."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from synthehr._files import shipped
from synthehr.errors import InternalError
from synthehr.schema.files import load_schema, load_yaml
from synthehr.schema.model import Schema

__all__ = ["DURATION", "PERSON", "VERSIONS", "CdmColumn", "CdmTable", "cdm_tables", "default_schema"]

VERSIONS = ("5.4", "5.3")
PERSON, DURATION = "person", "duration_days"
_COLUMN = re.compile(
    r"(?P<type>integer|number|date|datetime|text(?:\((?P<longest>\d+)\))?)"
    r"(?P<required> required)?(?: in (?P<table>\w+))?(?:, (?P<only>5\.[34]))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CdmColumn:
    """A column of the Common Data Model.

    Attributes:
        name: of the column.
        type: ``integer``, ``number``, ``date``, ``datetime`` or ``text``.
        longest: characters that a text may have.
        required: may not be null.
        refers_to: table whose key the values are.
        only: the one version that has the column; None where all have it.
    """

    name: str
    type: str
    longest: int | None = None
    required: bool = False
    refers_to: str | None = None
    only: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CdmTable:
    """A table of the Common Data Model, and what becomes of it.

    Attributes:
        name: of the table.
        columns: by name.
        key: column that names each row.
        start: column of the date that becomes days from the anchor.
        end: column of the date that becomes a duration from ``start``.
        type: column of the concept that says how a row came about.
        keeps: columns that are kept as they are.
        links: columns that are kept as ids of visits.
        before_5_4: names that ``keeps`` have in version 5.3.
    """

    name: str
    columns: Mapping[str, CdmColumn]
    key: str | None
    start: str | None
    end: str | None
    type: str | None
    keeps: tuple[str, ...]
    links: tuple[str, ...]
    before_5_4: Mapping[str, str]

    def of(self, version: str) -> tuple[CdmColumn, ...]:
        """The columns that a version has, in order."""
        return tuple(column for column in self.columns.values() if column.only in (None, version))

    def name_in(self, version: str, column: str) -> str:
        """The name that a kept column has in a version."""
        return self.before_5_4.get(column, column) if version == "5.3" else column

    @property
    def concepts(self) -> tuple[str, ...]:
        """The columns that are kept and hold concepts."""
        return tuple(name for name in self.keeps if self.columns[name].refers_to == "concept")

    @property
    def keeps_rows(self) -> bool:
        """Whether the rows become a table of the cohort."""
        return self.start is not None or self.name == PERSON

    @property
    def day(self) -> str:
        """The column that ``start`` becomes."""
        assert self.start is not None, "events alone have a day"
        return self.start.removesuffix("_date") + "_day"


@cache
def cdm_tables() -> Mapping[str, CdmTable]:
    """The clinical tables by name, ``person`` first, then ``concept`` and ``cdm_source``."""
    contents: Any = load_yaml(shipped("schemas/omop/cdm.yaml"), what="table set")
    return {name: _table(name, told) for name, told in {**contents["clinical"], **contents["other"]}.items()}


@cache
def default_schema() -> Schema:
    """``schemas/omop/schema.yaml``."""
    return load_schema(shipped("schemas/omop/schema.yaml"))


def _table(name: str, told: Mapping[str, Any]) -> CdmTable:
    return CdmTable(
        name=name,
        columns={column: _column(column, text) for column, text in told["columns"].items()},
        key=told.get("key"),
        start=told.get("start"),
        end=told.get("end"),
        type=told.get("type"),
        keeps=tuple(told.get("keeps", ())),
        links=tuple(told.get("links", ())),
        before_5_4=told.get("before_5_4", {}),
    )


def _column(name: str, text: str) -> CdmColumn:
    match = _COLUMN.fullmatch(text)
    if match is None:
        raise InternalError(f"column {name!r} in schemas/omop/cdm.yaml cannot be read")
    return CdmColumn(
        name=name,
        type=match["type"].partition("(")[0],
        longest=None if match["longest"] is None else int(match["longest"]),
        required=match["required"] is not None,
        refers_to=match["table"],
        only=match["only"],
    )
