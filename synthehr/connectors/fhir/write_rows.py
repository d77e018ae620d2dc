"""Rows made into the bytes of resources, a column at a time: each distinct cell is encoded and checked once.

What a resource must keep to (:mod:`synthehr.connectors.fhir.bindings`) is asked of every distinct cell, and what its
elements must keep to together of every distinct set of elements: no resource goes out unchecked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple, TypeAlias

import orjson

from synthehr.connectors.fhir.bindings import (
    STATUSES,
    are_ids,
    problems_between,
    problems_of_element,
    problems_of_links,
    targets_of,
)
from synthehr.connectors.fhir.write_columns import Cells, Element
from synthehr.errors import InternalError

__all__ = ["Grouping", "Made", "Rows"]


Link: TypeAlias = tuple[str, frozenset[str]]


class Made(NamedTuple):
    """A resource that was made.

    Attributes:
        at: place of its first row among the rows.
        key: its id.
        data: its JSON.
        links: its references and the types that each may lead to, where these are still to be checked.
    """

    at: int
    key: str
    data: bytes
    links: tuple[Link, ...]


class Grouping(NamedTuple):
    """How rows make components of one resource.

    Attributes:
        moved: the elements that a component has of its own.
        starts: the rows that start a resource, in order; the first row does.
        places: of each row: 0 for the resource's own elements, from 1 on for a component.
        panels: of each row: the code of a resource that begins with a component.
    """

    moved: frozenset[str]
    starts: Sequence[int]
    places: Sequence[int]
    panels: Cells


class Rows:
    """The elements of some rows that become resources of one type.

    Args:
        kind: the type.
        made: the elements.
        keys: of each row, the id of the resource that it starts.
        meta: of every resource.
        linked: whether references are checked here, by the type that they name. Where they name none, whoever knows
            the resources that they lead to must check :attr:`Made.links`.

    Raises:
        InternalError: a cell breaks a rule of R4; so do the methods, where elements break one together.
    """

    def __init__(
        self, kind: str, made: Sequence[Element], *, keys: Sequence[str], meta: Mapping[str, Any], linked: bool
    ) -> None:
        self._kind, self._made, self._keys = kind, made, keys
        self._begin = b'{"resourceType":' + orjson.dumps(kind) + b',"id":"'
        self._end = b'","meta":' + orjson.dumps(meta)
        if not are_ids(keys):
            raise InternalError(f"a {kind} is about to be written with an id that is none")
        self._distinct = {element: _distinct(cells) for element, cells in made}
        for element, distinct in self._distinct.items():
            self._refuse(problems_of_element(kind, element, distinct.values()))
            if linked and targets_of(kind, element):
                for cell in distinct.values():
                    self._refuse(problems_of_links(kind, element, cell))
        self._links = [] if linked else [self._linking(*element) for element in made if _is_reference(element[1])]

    def each(self) -> Iterator[Made]:
        """A resource of each row."""
        for at in dict(zip(self._marks(), range(len(self._keys)), strict=True)).values():
            self._refuse(problems_between(self._elements(at), kind=self._kind))
        begin, end = self._begin, self._end
        rows = zip(self._keys, self._encoded(self._made), self._each_links(), strict=True)
        for at, (key, parts, links) in enumerate(rows):
            yield Made(at, key, b"".join((begin, key.encode(), end, *parts, b"}")), links)

    def grouped(self, by: Grouping) -> Iterator[Made]:
        """A resource of each row that starts one, with the rows up to the next start as its components."""
        for element, cells in self._made:
            if element in by.moved:
                inner = _distinct(list(compress(cells, by.places))).values()
                self._refuse(problems_of_element(self._kind, "component", ([{element: cell}] for cell in inner)))
        groups = [
            (first, range(first + (by.places[first] == 0), after))
            for first, after in zip(by.starts, [*by.starts[1:], len(self._keys)], strict=True)
        ]
        self._check_groups(groups, by)
        own = [b"".join(parts) for parts in self._encoded([each for each in self._made if each[0] in by.moved])]
        shared = [b"".join(parts) for parts in self._encoded([each for each in self._made if each[0] not in by.moved])]
        panels = _bytes_of("code", by.panels, _distinct(by.panels))
        links = list(self._each_links())
        for first, components in groups:
            code = own[first] if by.places[first] == 0 else panels[first]
            parts = [self._begin, self._keys[first].encode(), self._end, shared[first], code]
            if components:
                parts += [b',"component":[{', b"},{".join(own[at][1:] for at in components), b"}]"]
            yield Made(first, self._keys[first], b"".join((*parts, b"}")), links[first])

    def _check_groups(self, groups: Sequence[tuple[int, range]], by: Grouping) -> None:
        """Ask each distinct set of elements, and of the elements of components, what they break together."""
        marks = self._marks()
        kinds = [
            (by.places[first], marks[first], id(by.panels[first]), frozenset(marks[at] for at in components))
            for first, components in groups
        ]
        for at in dict(zip(kinds, range(len(groups)), strict=True)).values():
            first, components = groups[at]
            resource = self._elements(first)
            if by.places[first] > 0:
                resource = {name: cell for name, cell in resource.items() if name not in by.moved}
                resource["code"] = by.panels[first]
            inner = {frozenset(self._elements(row)): row for row in components}.values()
            if inner:
                moved = [
                    {name: cell for name, cell in self._elements(row).items() if name in by.moved} for row in inner
                ]
                resource["component"] = moved
            self._refuse(problems_between(resource, kind=self._kind))

    def _elements(self, at: int) -> dict[str, Any]:
        """A row's elements, and the id."""
        return {"id": self._keys[at]} | {name: cells[at] for name, cells in self._made if cells[at] is not None}

    def _marks(self) -> list[int]:
        """A number of each row, equal for rows that have the same elements and, of ``STATUSES``, the same values."""
        telling: list[Iterable[int]] = [
            map(id, cells) if name in STATUSES else (cell is None for cell in cells)
            for name, cells in self._made
            if name in STATUSES or None in cells
        ]
        if not telling:
            return [0] * len(self._keys)
        known: dict[tuple[int, ...], int] = {}
        return [known.setdefault(mark, len(known)) for mark in zip(*telling, strict=True)]

    def _encoded(self, made: Sequence[Element]) -> Iterator[tuple[bytes, ...]]:
        """The JSON of each row's elements, each with a comma before it."""
        if not made:
            return iter([()] * len(self._keys))
        return zip(*(_bytes_of(name, cells, self._distinct[name]) for name, cells in made), strict=True)

    def _linking(self, element: str, cells: Cells) -> list[Link | None]:
        """The references in an element, each with what it may lead to."""
        targets = targets_of(self._kind, element)
        known = {key: (cell["reference"], targets) for key, cell in self._distinct[element].items()} if targets else {}
        return [known.get(id(cell)) for cell in cells]

    def _each_links(self) -> Iterator[tuple[Link, ...]]:
        if not self._links:
            return iter([()] * len(self._keys))
        return (tuple(filter(None, row)) for row in zip(*self._links, strict=True))

    def _refuse(self, problems: Sequence[str]) -> None:
        if problems:
            raise InternalError(f"a {self._kind} is about to be written that breaks R4: {problems[0]}")


def _bytes_of(element: str, cells: Cells, distinct: Mapping[Any, Any]) -> list[bytes]:
    """Each cell as the JSON of an element with a comma before it; nothing where there is none."""
    name = b"," + orjson.dumps(element) + b":"
    known = {key: name + orjson.dumps(cell) for key, cell in distinct.items()}
    by_place = _is_json(cells)
    known[id(None) if by_place else None] = b""
    return [known[key] for key in (map(id, cells) if by_place else cells)]


def _distinct(cells: Cells) -> dict[Any, Any]:
    """The cells that differ, by what tells them apart: themselves, or of objects and lists where they lie in memory."""
    by_place = _is_json(cells)
    found: dict[Any, Any] = dict(zip(map(id, cells) if by_place else cells, cells, strict=True))
    found.pop(id(None) if by_place else None, None)
    return found


def _is_json(cells: Cells) -> bool:
    """Whether the cells are objects or lists, not text, numbers or truth values. An element's are of one kind."""
    return isinstance(next((cell for cell in cells if cell is not None), None), dict | list)


def _is_reference(cells: Cells) -> bool:
    first = next((cell for cell in cells if cell is not None), None)
    return isinstance(first, dict) and "reference" in first
