"""Rows made into the JSON of resources, a column at a time: each distinct cell is encoded and checked once.

What a resource must keep to (:mod:`synthehr.connectors.fhir.bindings`) is asked of every distinct cell, and what its
elements must keep to together of every distinct set of elements: no resource goes out unchecked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import polars as pl

from synthehr.connectors.fhir.bindings import (
    STATUSES,
    are_ids,
    problems_between,
    problems_of_element,
    problems_of_links,
    targets_of,
)
from synthehr.connectors.fhir.us_core import Begun, claimed
from synthehr.connectors.fhir.write_cells import Cells, Coded, Element, Mask, Texts, joined, numbered
from synthehr.errors import InternalError

__all__ = ["Form", "Grouping", "Link", "Made", "Rows", "bare"]

Places: TypeAlias = np.ndarray[Any, Any]


class Form(NamedTuple):
    """What stands around a resource in the output.

    Attributes:
        begin: texts between which its id is put; the last ends where the resource's id has ended.
        end: what follows its last element.
    """

    begin: tuple[str, ...]
    end: str

    @property
    def before(self) -> str:
        """What stands before the resource itself, with zeros for the id."""
        around = ("0" * 36).join(self.begin)
        return around[: around.index('{"resourceType"')]


def bare(kind: str) -> Form:
    """A resource that stands by itself."""
    return Form((f'{{"resourceType":"{kind}","id":"', '"'), "}")


class Link(NamedTuple):
    """References of resources that are still to be checked.

    Attributes:
        texts: of each resource where it leads; null where it has no such reference.
        targets: the types that it may lead to.
    """

    texts: pl.Series
    targets: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Resources of one type that were made.

    Attributes:
        at: of each the place of its first row among the rows. Shape ``(resources,)``.
        keys: their ids.
        data: their JSON, in its form.
        claims: whether each claims a profile. Shape ``(resources,)``.
        links: their references, where these are still to be checked.
    """

    at: Places
    keys: pl.Series
    data: pl.Series
    claims: Mask
    links: tuple[Link, ...] = ()


class Grouping(NamedTuple):
    """How rows make components of one resource.

    Attributes:
        moved: the elements that a component has of its own.
        starts: the rows that start a resource, in order; the first row does.
        places: of each row: 0 for the resource's own elements, from 1 on for a component.
        panels: of each row: the code of a resource that begins with a component.
    """

    moved: frozenset[str]
    starts: Places
    places: Places
    panels: Coded


class Rows:
    """The elements of some rows that become resources of one type.

    Args:
        kind: the type.
        made: the elements, each of which some row has.
        meta: of every resource, without the profiles that it may claim.
        conforming: whether all that the row refers to claims its own profile. Shape ``(rows,)``.
        linked: whether references are checked here, by the type that they name. Where they name none, whoever knows
            the resources that they lead to must check :attr:`Made.links`.

    Raises:
        InternalError: a cell breaks a rule of R4; so do the methods, where elements break one together.
    """

    def __init__(
        self, kind: str, made: Sequence[Element], *, meta: Mapping[str, Any], conforming: Mask, linked: bool
    ) -> None:
        self._kind, self._made, self._meta, self._linked = kind, made, meta, linked
        self._conforming = conforming
        for element, cells in made:
            self._refuse(problems_of_element(kind, element, cells.at))
            if linked and targets_of(kind, element):
                self._check_typed(element, cells)

    def each(self, names: Callable[[Places], pl.Series], *, form: Form) -> Made:
        """A resource of each row.

        Args:
            names: the ids of the resources that begin in these rows.
            form: what stands around each.
        """
        every = np.arange(self._conforming.size)
        _, first = self._marks()
        for at in first:
            self._refuse(problems_between(self._elements(at), kind=self._kind))
        keys = self._named(names(every))
        meta, claims = self._with_profiles(None)
        data = self._text(keys, [], meta=meta, form=form)
        return Made(at=every, keys=keys, data=data, claims=claims, links=self._links(every))

    def grouped(self, by: Grouping, names: Callable[[Places], pl.Series], *, form: Form) -> Made:
        """A resource of each row that starts one, with the rows up to the next start as its components."""
        inner = np.ones(by.places.size, dtype=np.bool_)
        inner[by.starts] = by.places[by.starts] > 0
        for element, cells in self._made:
            if element in by.moved:
                at = partial(_below, element, cells.kept(inner))
                self._refuse(problems_of_element(self._kind, "component", at))
        self._check_groups(by, inner)
        sizes = np.diff([*by.starts, len(inner)])
        of = np.repeat(np.arange(len(by.starts)), sizes)  # of each row the number of its resource
        begun = Begun(moved=by.moved, as_component=inner, panels=by.panels, resource=of)
        meta, claims = self._with_profiles(begun)
        keys = self._named(names(by.starts))
        own = joined(cells.json(before=f',"{name}":') for name, cells in self._made if name in by.moved)
        panels = joined([by.panels.json(before=',"code":')])
        code = pl.when(pl.Series(by.places[by.starts] == 0)).then(own[by.starts]).otherwise(panels[by.starts])
        more = [code, _components(own, inner, of=of)]
        data = self._text(keys, more, meta=meta, form=form, at=by.starts, without=by.moved)
        return Made(at=by.starts, keys=keys, data=data, claims=claims[by.starts], links=self._links(by.starts))

    def _with_profiles(self, begun: Begun | None) -> tuple[Coded, Mask]:
        """The ``meta`` of each row's resource, and whether it claims a profile."""
        rows = self._conforming.size
        lists, codes = claimed(self._kind, self._made, rows=rows, conforming=self._conforming, begun=begun)
        metas = [{**self._meta, "profile": urls} if urls else self._meta for urls in lists]
        return Coded(metas, codes), np.array([bool(urls) for urls in lists])[codes]

    def _text(
        self,
        keys: pl.Series,
        more: Sequence[pl.Expr],
        *,
        meta: Coded,
        form: Form,
        at: Places | None = None,
        without: frozenset[str] = frozenset(),
    ) -> pl.Series:
        """The JSON of resources: ids, meta, the elements of their first rows, and what else they have."""
        begin = [piece for text in form.begin for piece in (text, keys)][:-1]
        shared = [meta.json(before=',"meta":')]
        shared += [cells.json(before=f',"{name}":') for name, cells in self._made if name not in without]
        if at is not None:
            shared = [pl.lit(joined(shared)[at])]
        return joined([*begin, *shared, *more, form.end])

    def _named(self, keys: pl.Series) -> pl.Series:
        if not are_ids(keys):
            raise InternalError(f"a {self._kind} is about to be written with an id that is none")
        return keys

    def _check_groups(self, by: Grouping, inner: Mask) -> None:
        """Ask each distinct set of elements, and of the elements of components, what they break together."""
        marks, _ = self._marks()
        parts = []
        for at in np.unique(marks[inner], return_index=True)[1]:
            told = self._elements(np.flatnonzero(inner)[at])
            parts.append({name: cell for name, cell in told.items() if name in by.moved})
        begins = by.places[by.starts] > 0
        kinds = [marks[by.starts], begins.astype(np.int32), by.panels.codes[by.starts]]
        for at in numbered(kinds)[1]:
            row = by.starts[at]
            resource = self._elements(row)
            if by.places[row] > 0:
                resource = {name: cell for name, cell in resource.items() if name not in by.moved}
                resource |= {} if by.panels.row(row) is None else {"code": by.panels.row(row)}
            self._refuse(problems_between(resource | ({"component": parts} if parts else {}), kind=self._kind))

    def _elements(self, at: int) -> dict[str, Any]:
        """A row's elements, with an id that stands for any."""
        told = ((name, cells.row(int(at))) for name, cells in self._made)
        return {"id": "0"} | {name: cell for name, cell in told if cell is not None}

    def _marks(self) -> tuple[Places, Places]:
        """Rows that have the same elements and, of ``STATUSES``, the same values numbered alike.

        Returns:
            the number of each row, shape ``(rows,)``; a row of each number.
        """
        telling = [np.zeros(self._conforming.size, dtype=np.int32)]
        for name, cells in self._made:
            if name in STATUSES and isinstance(cells, Coded):
                telling.append(cells.codes)
            elif not cells.there.all():
                telling.append(cells.there.astype(np.int32))
        return numbered(telling)

    def _check_typed(self, element: str, cells: Cells) -> None:
        """Ask of each reference whether the type that it names is one that it may lead to."""
        if isinstance(cells, Texts) and cells.under == "reference":
            kinds = {text.partition("/")[0] for text in set(cells.at(("reference",)))}
            told: list[Any] = [{"reference": f"{kind}/"} for kind in kinds]
        else:
            told = cells.at(())
        for each in told:
            self._refuse(problems_of_links(self._kind, element, each))

    def _links(self, rows: Places) -> tuple[Link, ...]:
        """What references there are, where they are not checked here."""
        if self._linked:
            return ()
        found = []
        for name, cells in self._made:
            if isinstance(cells, Texts) and cells.under == "reference":
                found.append(Link(cells.text[rows], targets_of(self._kind, name)))
            elif targets_of(self._kind, name):
                self._refuse([f"{name} is in no form that can be checked"])
        return tuple(found)

    def _refuse(self, problems: Sequence[str]) -> None:
        if problems:
            raise InternalError(f"a {self._kind} is about to be written that breaks R4: {problems[0]}")


def _components(own: pl.Series, inner: Mask, *, of: Places) -> pl.Expr:
    """What resources have of the rows that are their components, each beginning with a comma; nothing without any.

    Args:
        own: of each row its elements, as a component has them.
        inner: which rows are components.
        of: of each row its resource's number.
    """
    parts = pl.DataFrame({"of": of[inner], "part": own[np.flatnonzero(inner)]}).with_columns(pl.col("of").set_sorted())
    parts = parts.group_by("of", maintain_order=True).agg(pl.col("part").str.strip_prefix(",").str.join("},{"))
    texts = pl.select(pl.concat_str(pl.lit(',"component":[{'), parts["part"], pl.lit("}]")).alias("text"))["text"]
    places = np.full(int(of[-1]) + 1, len(texts))
    places[parts["of"].to_numpy()] = np.arange(len(texts))
    return pl.lit(texts.extend(pl.Series([""]))[places])


def _below(element: str, cells: Cells, path: Sequence[str]) -> list[Any]:
    """The values at a path that begins with the name of an element."""
    return cells.at(path[1:]) if path and path[0] == element else []
