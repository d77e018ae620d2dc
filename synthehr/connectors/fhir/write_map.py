"""Rows of a table into resources, as its write-back map says: the other direction of a view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson

from synthehr._files import shipped
from synthehr.connectors.fhir.calendar import Moment
from synthehr.connectors.fhir.write_columns import Part, columns_of, elements
from synthehr.connectors.fhir.write_rows import Grouping, Made, Rows
from synthehr.errors import SchemaError

__all__ = ["Resource", "WriteMap", "load_map"]

Resource = dict[str, Any]
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


@dataclass(frozen=True, slots=True, kw_only=True)
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

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it reads."""
        found = {name for spec in self.elements.values() for name in columns_of(spec)}
        if self.components is not None:
            found |= columns_of(self.components["code"]) | {self.components["group"], self.components["index"]}
        return frozenset(found)

    @property
    def references(self) -> dict[str, str]:
        """The columns of references, and the tables that they lead to."""
        return {spec["reference"]: spec["to"] for spec in _specs(self.elements) if "reference" in spec}

    @property
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
        self, part: Part, *, names: Callable[[list[int]], list[str]], meta: Mapping[str, Any], linked: bool
    ) -> Iterator[Made]:
        """The resources of some rows.

        Args:
            part: the rows; those of one group (``components``) stand together, in the order of their index.
            names: the ids of the resources whose first rows have these numbers in the table.
            meta: of every resource.
            linked: whether references name the type that they lead to, and are checked by it.
        """
        every = (element for each, spec in self.elements.items() for element in elements(each, spec, part))
        made = [(each, cells) for each, cells in every if cells.count(None) < len(cells)]
        if not made:
            return iter(())
        moved = frozenset(self.components["moved"]) if self.components is not None else frozenset()
        made.sort(key=lambda element: element[0] in moved)  # what components may have of their own stands last
        rows = Rows(self.resource, made, keys=names(part.cells("_row")), meta=meta, linked=linked)
        grouping = self._grouping(part) if self.components is not None else None
        return rows.each() if grouping is None else rows.grouped(grouping)

    def _grouping(self, part: Part) -> Grouping | None:
        """Which rows are components of which resource; None where none is."""
        assert self.components is not None
        index = self.components["index"]
        places = [place or 0 for place in part.cells(index)]
        if not any(places):
            return None
        starts: list[int] = []
        before = (-1, -1)
        for at, (group, place) in enumerate(zip(part.cells("_group"), places, strict=True)):
            if group != before[0] or place == 0 or place <= before[1]:
                starts.append(at)
                expected = place and 1
            else:
                expected += 1
            if place != expected:
                part.lose(index, "components are numbered without gaps")
            before = (group, place)
        return Grouping(
            moved=frozenset(self.components["moved"]),
            starts=starts,
            places=places,
            panels=elements("code", self.components["code"], part)[0][1],
        )


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
