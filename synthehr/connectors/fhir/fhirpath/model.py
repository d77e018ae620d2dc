"""What R4's types have: elements, lists, choices and ancestors, from r4.json (see :mod:`.derive`).

FHIR types go by their bare name (``Patient``, ``code``, ``ObservationComponent`` for a component inside
Observation); the types of FHIRPath itself are prefixed (``System.String``).
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "BOOLEANS",
    "DATES",
    "DATE_TIMES",
    "INTEGERS",
    "NUMBERS",
    "STRINGS",
    "TEMPORALS",
    "TIMES",
    "ElementModel",
    "ancestors",
    "choice_keys",
    "choice_of_key",
    "element",
    "is_a",
    "is_primitive",
    "is_type",
    "json_key",
]

STRINGS = frozenset(
    {
        "System.String",
        "string",
        "code",
        "id",
        "markdown",
        "uri",
        "url",
        "canonical",
        "uuid",
        "oid",
        "base64Binary",
        "xhtml",
    }
)
BOOLEANS = frozenset({"System.Boolean", "boolean"})
INTEGERS = frozenset({"System.Integer", "integer", "positiveInt", "unsignedInt"})
NUMBERS = INTEGERS | {"System.Decimal", "decimal"}
DATES = frozenset({"System.Date", "date"})
DATE_TIMES = frozenset({"System.DateTime", "dateTime", "instant"})
TIMES = frozenset({"System.Time", "time"})
TEMPORALS = DATES | DATE_TIMES | TIMES

_SYSTEM_ONLY = frozenset({"System.Quantity"})

_PRIMITIVE_PARENTS = {
    "code": "string",
    "id": "string",
    "markdown": "string",
    "url": "uri",
    "canonical": "uri",
    "uuid": "uri",
    "oid": "uri",
    "positiveInt": "integer",
    "unsignedInt": "integer",
}

_SIMPLE = STRINGS | BOOLEANS | NUMBERS | TEMPORALS
_PRIMITIVES = frozenset(name for name in _SIMPLE if not name.startswith("System."))


@dataclass(frozen=True, slots=True)
class ElementModel:
    """One element of a type: the types it may have, and whether it is a list. Two or more types make a choice."""

    name: str
    types: tuple[str, ...]
    many: bool
    choice: bool


@functools.cache
def _table() -> dict[str, tuple[str, dict[str, ElementModel]]]:
    text = Path(__file__).with_name("r4.json").read_text(encoding="utf-8")
    raw: dict[str, tuple[str, dict[str, str]]] = json.loads(text)
    return {
        name: (
            base,
            {
                element: ElementModel(element, tuple(spec.rstrip("*").split("|")), spec.endswith("*"), "|" in spec)
                for element, spec in elements.items()
            },
        )
        for name, (base, elements) in raw.items()
    }


def is_primitive(name: str) -> bool:
    """Whether ``name`` is a primitive type of FHIR."""
    return name in _PRIMITIVES


def is_type(name: str) -> bool:
    """Whether ``name`` is a type of R4 or of FHIRPath (then prefixed with ``System.``)."""
    return name in _SIMPLE or name in _SYSTEM_ONLY or name in _table()


@functools.cache
def ancestors(name: str) -> tuple[str, ...]:
    """``name`` and the types that it specialises, nearest first."""
    chain = [name]
    while True:
        last = chain[-1]
        parent = _PRIMITIVE_PARENTS.get(last) or (_table()[last][0] if last in _table() else "")
        if not parent:
            return tuple(chain)
        chain.append(parent)


def is_a(name: str, other: str) -> bool:
    """Whether type ``name`` is ``other`` or one of its specialisations."""
    return other in ancestors(name)


@functools.cache
def element(type_name: str, name: str) -> ElementModel | None:
    """The element ``name`` of a type, inherited ones too; None if R4 knows no such type or element."""
    if is_primitive(type_name):
        type_name = "Element"
    for ancestor in ancestors(type_name):
        found = _table().get(ancestor, ("", {}))[1].get(name)
        if found is not None:
            return found
    return None


def json_key(name: str, type_name: str) -> str:
    """The JSON key of choice ``name`` when its value is of ``type_name``: value, Quantity -> valueQuantity."""
    return name + type_name[0].upper() + type_name[1:]


@functools.cache
def choice_keys(name: str) -> dict[str, str]:
    """JSON key -> type of every choice called ``name`` in any R4 type, for values whose parent's type is unknown."""
    return {
        json_key(name, type_name): type_name
        for _, elements in _table().values()
        for found in [elements.get(name)]
        if found is not None and found.choice
        for type_name in found.types
    }


@functools.cache
def choice_of_key(type_name: str, key: str) -> tuple[str, str] | None:
    """The choice and type that a JSON key such as ``valueQuantity`` stands for in a type, or None."""
    for ancestor in ancestors(type_name):
        for found in _table().get(ancestor, ("", {}))[1].values():
            if found.choice and key.startswith(found.name):
                for choice in found.types:
                    if json_key(found.name, choice) == key:
                        return found.name, choice
    return None
