"""Which written resources may claim a profile of US Core: those that pass what ``us_core.yaml`` asks of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import yaml

from synthehr._files import shipped
from synthehr.connectors.fhir.write_cells import Cells, Coded, Element, Mask, Parts, numbered, values_at

__all__ = ["Begun", "Profile", "claimed", "profiles_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A profile and what its check asks for; see the head of ``us_core.yaml``."""

    url: str
    required: Sequence[str]
    either: Sequence[str] = ()
    coded: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    extensions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    valued: bool = False
    ucum: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Rows of which some are components of a resource that another begins.

    Attributes:
        moved: the elements that a component has of its own.
        as_component: whether a row's own of these stand in a component. Shape ``(rows,)``.
        panels: the code of a resource that begins with a component, of each row.
        resource: of each row the number of its resource. Shape ``(rows,)``.
    """

    moved: frozenset[str]
    as_component: Mask
    panels: Coded
    resource: np.ndarray[Any, Any]


@cache
def profiles_of(kind: str) -> tuple[Profile, ...]:
    """The profiles that resources of a type may claim."""
    contents = yaml.safe_load(shipped("schemas/fhir/r4/us_core.yaml").read_text(encoding="utf-8"))
    base = contents["base"]
    found = []
    for name, asked in contents.get(kind, {}).items():
        extensions = {base + url: codes for url, codes in asked.get("extensions", {}).items()}
        found.append(Profile(url=base + name, **asked | {"extensions": extensions}))
    return tuple(found)


def claimed(
    kind: str, made: Sequence[Element], *, rows: int, conforming: Mask, begun: Begun | None = None
) -> tuple[list[list[str]], np.ndarray[Any, Any]]:
    """What each row's resource may claim.

    Args:
        kind: the type.
        made: the elements.
        rows: how many there are.
        conforming: whether all that the row refers to claims its own profile. Shape ``(rows,)``.
        begun: how rows make components; where they do, what holds of a row that begins none is of no meaning.

    Returns:
        lists of profiles, and of each row which of them it claims. Shape ``(rows,)``.
    """
    asked = _Asked(dict(made), rows=rows, begun=begun)
    passing = [(each.url, asked.passes(each) & conforming) for each in profiles_of(kind)]
    some = [(url, rows_of) for url, rows_of in passing if rows_of.any()]
    if not some:
        return [[]], np.zeros(rows, dtype=np.int32)
    codes, first = numbered([rows_of.astype(np.int32) for _, rows_of in some])
    return [[url for url, rows_of in some if rows_of[at]] for at in first.tolist()], codes


class _Asked:
    """Questions about the resources that rows begin; each answer has the shape ``(rows,)``."""

    def __init__(self, made: Mapping[str, Cells], *, rows: int, begun: Begun | None) -> None:
        self._made, self._rows, self._begun = made, rows, begun

    def passes(self, profile: Profile) -> Mask:
        """Whether a resource keeps to all that a profile asks for."""
        holds = np.ones(self._rows, dtype=np.bool_)
        for element in profile.required:
            holds &= self._tells(element)
        if profile.either:
            holds &= np.any([self._tells(element) for element in profile.either], axis=0)
        for element, systems in profile.coded.items():
            holds &= self._where(element, lambda value, systems=systems: _is_coded(value, systems))
        if profile.extensions:
            holds &= ~self._there("extension") | self._where("extension", lambda v: _extends(v, profile.extensions))
        if profile.valued:
            holds &= self._valued()
        for element in profile.ucum:
            holds &= self._in_ucum(element)
        return holds

    def _own(self, element: str, answer: Mask) -> Mask:
        """An answer about a row's element, false where the element stands in a component."""
        if self._begun is None or element not in self._begun.moved:
            return answer
        return answer & ~self._begun.as_component

    def _there(self, element: str) -> Mask:
        cells = self._made.get(element)
        return self._none() if cells is None else self._own(element, cells.there)

    def _tells(self, element: str) -> Mask:
        cells = self._made.get(element)
        told = self._none() if cells is None else self._own(element, cells.tells)
        return self._or_panel(element, told, self._begun.panels.tells) if self._begun is not None else told

    def _where(self, element: str, holds: Any) -> Mask:
        cells = self._made.get(element)
        told = self._own(element, cells.where(holds)) if isinstance(cells, Coded) else self._none()
        return self._or_panel(element, told, self._begun.panels.where(holds)) if self._begun is not None else told

    def _or_panel(self, element: str, told: Mask, panel: Mask) -> Mask:
        """The code of a resource that begins with a component is its panel's."""
        assert self._begun is not None
        return np.where(self._begun.as_component, panel, told) if element == "code" else told

    def _valued(self) -> Mask:
        named = [name for name in self._made if name.startswith("value") or name == "dataAbsentReason"]
        each = np.any([self._made[name].tells for name in named], axis=0) if named else self._none()
        if self._begun is None:
            return each
        inner, of = self._begun.as_component, self._begun.resource
        return (each & ~inner | _any_of(inner, of)) & ~_any_of(inner & ~each, of)

    def _in_ucum(self, element: str) -> Mask:
        cells = self._made.get(element)
        if not isinstance(cells, Parts):
            return ~self._there(element) if cells is not None else ~self._none()
        coded = next((inner.there for name, inner in cells.inner if name == "system"), self._none())
        fits = ~cells.there | coded
        if self._begun is None:
            return fits
        return ~_any_of(~fits, self._begun.resource)

    def _none(self) -> Mask:
        return np.zeros(self._rows, dtype=np.bool_)


def _any_of(rows: Mask, resource: np.ndarray[Any, Any]) -> Mask:
    """Whether any row of each row's resource is among ``rows``."""
    some = np.zeros(int(resource[-1]) + 1, dtype=np.bool_)
    some[resource[rows]] = True
    return np.asarray(some[resource], dtype=np.bool_)


def _is_coded(value: Any, systems: Mapping[str, Sequence[str]]) -> bool:
    """Whether a coding, concept or list of concepts has a coding of these systems and codes."""
    concepts = values_at([value], ())
    codings = [coding for each in concepts for coding in each.get("coding", [each])]
    return any(
        coding.get("system") in systems
        and "code" in coding
        and (not systems[coding["system"]] or coding["code"] in systems[coding["system"]])
        for coding in codings
    )


def _extends(extensions: Any, allowed: Mapping[str, Sequence[str]]) -> bool:
    """Whether the codes in each extension are of those that are allowed there."""
    for each in extensions:
        codes = [each["valueCode"]] if "valueCode" in each else values_at([each], ("extension", "valueCoding", "code"))
        if each.get("url") in allowed and not set(codes) <= set(allowed[each["url"]]):
            return False
    return True
