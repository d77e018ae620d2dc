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
from synthehr.connectors.fhir.write_columns import Cells, Element, Part, columns_of, elements
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
        self, part: Part, *, name: Callable[[int], str], meta: Mapping[str, Any]
    ) -> Iterator[tuple[int, Resource]]:
        """The resources of some rows, each with the place of its first row among them.

        Args:
            part: the rows; those of one group (``components``) stand together, in the order of their index.
            name: the id of the resource whose first row has this number in the table.
            meta: of every resource.
        """
        every = (element for each, spec in self.elements.items() for element in elements(each, spec, part))
        made = [(each, cells) for each, cells in every if cells.count(None) < len(cells)]
        if not made:
            return
        rows = part.cells("_row")
        if self.components is None:
            names = [each for each, _ in made]
            for at, values in enumerate(zip(*(cells for _, cells in made), strict=True)):
                yield at, _with(_begin(self.resource, name(rows[at]), meta), names, values)
        else:
            yield from self._grouped(made, part, name=name, meta=meta)

    def _grouped(
        self, made: list[Element], part: Part, *, name: Callable[[int], str], meta: Mapping[str, Any]
    ) -> Iterator[tuple[int, Resource]]:
        assert self.components is not None
        ours = [element for element in made if element[0] in self.components["moved"]]
        shared = [element for element in made if element[0] not in self.components["moved"]]
        index = [cell or 0 for cell in part.cells(self.components["index"])]
        panels: Cells = [None] * len(index)
        if any(index):
            panels = elements("code", self.components["code"], part)[0][1]
        places = zip(part.cells("_row"), part.cells("_group"), index, panels, strict=True)
        current: tuple[int, Resource] | None = None
        before = (-1, -1)
        for at, ((row, group, place, panel), own, others) in enumerate(
            zip(places, _by_row(ours), _by_row(shared), strict=True)
        ):
            if current is None or group != before[0] or place == 0 or place <= before[1]:
                if current is not None:
                    yield current
                resource = _begin(self.resource, name(row), meta) | others
                current = (at, resource)
                if place == 0:
                    resource |= own
                else:
                    resource["code"] = panel
            if place > 0:
                components = current[1].setdefault("component", [])
                components.append(own)
                if len(components) != place:
                    part.lose(self.components["index"], "components are numbered without gaps")
            before = (group, place)
        if current is not None:
            yield current


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


def _begin(kind: str, key: str, meta: Mapping[str, Any]) -> Resource:
    return {"resourceType": kind, "id": key, "meta": meta}


def _with(resource: Resource, names: list[str], values: tuple[Any, ...]) -> Resource:
    for name, value in zip(names, values, strict=True):
        if value is not None:
            resource[name] = value
    return resource


def _by_row(made: list[Element]) -> Iterator[Resource]:
    names = [name for name, _ in made]
    for values in zip(*(cells for _, cells in made), strict=True):
        yield {name: value for name, value in zip(names, values, strict=True) if value is not None}


def lost(counted: Mapping[str, Counter[tuple[str, str]]]) -> dict[str, dict[str, dict[str, int]]]:
    """Cells that could not be written: by table, column and reason."""
    told: dict[str, dict[str, dict[str, int]]] = {}
    for table, counter in counted.items():
        for (column, why), count in sorted(counter.items()):
            told.setdefault(table, {}).setdefault(column, {})[why] = count
    return told
