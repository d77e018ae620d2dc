"""Rows of a table into resources, as its write-back map says: the other direction of a view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, TypeAlias

import numpy as np
import orjson
import polars as pl

from synthehr._files import shipped
from synthehr.connectors.fhir.calendar import Moment
from synthehr.connectors.fhir.write_cells import Coded, Mask
from synthehr.connectors.fhir.write_columns import elements
from synthehr.connectors.fhir.write_part import Part
from synthehr.connectors.fhir.write_rows import Form, Grouping, Made, Rows
from synthehr.errors import SchemaError

__all__ = ["WriteMap", "load_map", "lost"]

Names: TypeAlias = Callable[[np.ndarray[Any, Any]], pl.Series]
_TABLES = (
    "patient",
    "encounter",
    "condition",
    "observation",
    "medication_request",
    "procedure",
    "immunization",
    "allergy_intolerance",
)


@dataclass(frozen=True, kw_only=True)
class WriteMap:
    """A write-back map, ``schemas/fhir/r4/write/<table>.json``.

    Attributes:
        table: its name, the view's.
        resource: type of the resources that its rows make.
        elements: what makes each element.
        components: how rows become components of one resource, None where each row is a resource.
    """

    table: str
    resource: str
    elements: Mapping[str, Any]
    components: Mapping[str, Any] | None

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        found = {name for spec in self.elements.values() for name in _columns_of(spec)}
        if self.components is not None:
            found |= _columns_of(self.components["code"]) | {self.components["group"], self.components["index"]}
        return frozenset(found)

    @cached_property
    def references(self) -> dict[str, str]:
        """The columns of references, and the tables that they lead to."""
        return {spec["reference"]: spec["to"] for spec in _specs(self.elements) if "reference" in spec}

    @cached_property
    def moments(self) -> list[Moment]:
        """The offsets that it writes as dates."""
        found = []
        for spec in _specs(self.elements):
            if "date" in spec:
                found.append(Moment(spec["date"], 1, spec.get("plus_days")))
            elif "time" in spec:
                found.append(Moment(spec["time"], 24, spec.get("plus_minutes"), 24 * 60))
        return found

    def resources(
        self, part: Part, *, names: Names, form: Form, meta: Mapping[str, Any], conforming: Mask, linked: bool
    ) -> Made | None:
        """The resources of some rows; None where the rows have no element of any.

        Args:
            part: the rows; those of one group (``components``) stand together, in the order of their index.
            names: the ids of the resources whose first rows stand at these places.
            form: what stands around each resource.
            meta: of every resource, without the profiles that it may claim.
            conforming: whether all that a row refers to claims its own profile. Shape ``(rows,)``.
            linked: whether references name the type that they lead to, and are checked by it.
        """
        every = (element for each, spec in self.elements.items() for element in elements(each, spec, part))
        made = [(each, cells) for each, cells in every if not cells.nothing]
        if not made:
            return None
        moved = frozenset(self.components["moved"]) if self.components is not None else frozenset()
        made.sort(key=lambda element: element[0] in moved)  # what components may have of their own stands last
        rows = Rows(self.resource, made, meta=meta, conforming=conforming, linked=linked)
        grouping = self._grouping(part) if self.components is not None else None
        return rows.each(names, form=form) if grouping is None else rows.grouped(grouping, names, form=form)

    def _grouping(self, part: Part) -> Grouping | None:
        """Which rows are components of which resource; None where none is."""
        assert self.components is not None
        index = self.components["index"]
        if part.empty(index):
            return None
        places = part.frame[index].fill_null(0).to_numpy()
        if not places.any():
            return None
        group = part.frame["_group"].to_numpy()
        begins = np.ones(part.height, dtype=np.bool_)
        begins[1:] = (group[1:] != group[:-1]) | (places[1:] == 0) | (places[1:] <= places[:-1])
        starts = np.flatnonzero(begins)
        first = np.repeat(starts, np.diff([*starts, part.height]))  # of each row the first of its resource
        expected = np.arange(part.height) - first + (places[first] != 0)
        part.lose(index, "components are numbered without gaps", places != expected)
        panels = elements("code", self.components["code"], part)[0][1]
        assert isinstance(panels, Coded)
        return Grouping(moved=frozenset(self.components["moved"]), starts=starts, places=places, panels=panels)


@cache
def load_map(table: str) -> WriteMap:
    """The shipped write-back map of a table.

    Raises:
        SchemaError: there is none.
    """
    if table not in _TABLES:
        raise SchemaError(
            f"table {table!r} has no write-back map to FHIR: write tables instead, or leave it out "
            f"(maps: {', '.join(_TABLES)})"
        )
    contents = orjson.loads(shipped(f"schemas/fhir/r4/write/{table}.json").read_bytes())
    return WriteMap(
        table=table,
        resource=contents["resourceType"],
        elements=contents["elements"],
        components=contents.get("components"),
    )


def _specs(specs: Any) -> Iterator[Mapping[str, Any]]:
    """Every entry of a map, the inner ones too."""
    if isinstance(specs, Mapping):
        yield specs
        for inner in specs.values():
            yield from _specs(inner)
    elif isinstance(specs, list):
        for inner in specs:
            yield from _specs(inner)


def lost(counted: Mapping[str, Counter[tuple[str, str]]]) -> dict[str, dict[str, dict[str, int]]]:
    """Cells that could not be written: by table, column and reason."""
    told: dict[str, dict[str, dict[str, int]]] = {}
    for table, counter in counted.items():
        for (column, why), count in sorted(counter.items()):
            told.setdefault(table, {}).setdefault(column, {})[why] = count
    return told


def _columns_of(spec: Mapping[str, Any] | Sequence[Any]) -> set[str]:
    """The columns of a table that an entry of a map reads."""
    if not isinstance(spec, Mapping):
        return {name for _, inner in spec for name in _columns_of(inner)}
    found: set[str] = set()
    for kind, what in spec.items():
        if kind in ("codeable", "quantity"):
            found |= set(what)
        elif kind == "object":
            found |= {name for inner in what.values() for name in _columns_of(inner)}
        elif kind == "each":
            found |= {name for inner in what for name in _columns_of(inner)}
        elif kind in ("choice", "list"):
            found |= _columns_of(what)
        elif kind in ("where", "unless"):
            found |= set(what)
        elif kind in _READS:
            found.add(what)
    return found


_READS = frozenset(
    ("code", "coding", "concept", "reference", "date", "time", "anchor", "words", "string", "boolean", "integer", "omb",
     "plus_days", "plus_minutes")
)  # fmt: skip
