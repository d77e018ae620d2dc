"""Steps that need a value's type while the expression runs: choices, elements of unknown parents, children."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from synthehr.connectors.fhir.fhirpath.model import (
    BOOLEANS,
    INTEGERS,
    NUMBERS,
    choice_keys,
    choice_of_key,
    element,
    is_a,
    is_primitive,
    is_type,
)
from synthehr.connectors.fhir.fhirpath.values import Element, misplaced, type_of
from synthehr.errors import DataError

__all__ = [
    "children",
    "choice",
    "descendants",
    "extension_holder",
    "is_of",
    "members",
    "primitives",
    "reference_key",
    "type_info",
]

MAX_DESCENDANTS = 200_000
"""Most elements that descendants() goes through in one resource."""

_ABSTRACT = frozenset({"Resource", "DomainResource"})


def _object(value: Any, key: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise misplaced(key)
    return value


def _checked(value: Any, type_name: str, key: str) -> Any:
    """``value``, which must be the kind of JSON that a FHIR type is written as."""
    if value is None:
        return None
    if not is_primitive(type_name):
        fits = type(value) is dict
    elif type_name in BOOLEANS:
        fits = type(value) is bool
    elif type_name in INTEGERS:
        fits = type(value) is int
    elif type_name in NUMBERS:
        fits = type(value) in (int, float, Decimal)
    else:
        fits = type(value) is str
    if not fits:
        raise misplaced(key)
    return value


def primitives(parent: Any, key: str, type_name: str, many: bool) -> list[Element]:
    """The primitives under ``key``, those with extensions alone too, each with its sibling object."""
    holder = _object(parent, key)
    value, sibling = holder.get(key), holder.get("_" + key)
    if not many:
        if value is None and sibling is None:
            return []
        return [Element(_checked(value, type_name, key), type_name, _checked(sibling, "Element", key))]
    if not isinstance(value, list | None) or not isinstance(sibling, list | None):
        raise misplaced(key)
    pairs = itertools.zip_longest(value or (), sibling or ())
    return [
        Element(_checked(one, type_name, key), type_name, _checked(other, "Element", key))
        for one, other in pairs
        if one is not None or other is not None
    ]


def choice(parent: Any, keys: tuple[tuple[str, str], ...]) -> Element | None:
    """The value of a choice and its type, by the JSON key that is there."""
    holder = _object(parent, keys[0][0])
    for key, type_name in keys:
        value = holder.get(key)
        if value is not None or ("_" + key) in holder:
            return Element(_checked(value, type_name, key), type_name, _checked(holder.get("_" + key), "Element", key))
    return None


def _runtime_type(item: Element) -> str | None:
    if type(item.value) is dict and (item.type is None or item.type in _ABSTRACT):
        own = item.value.get("resourceType")
        if isinstance(own, str):
            return own
    return item.type


def _items(holder: dict[str, Any], key: str, type_name: str | None, many: bool | None) -> list[Element]:
    """The elements under ``key``; ``many`` says whether FHIR has a list there, None that it is not known."""
    value = holder.get(key)
    if type_name is not None and is_primitive(type_name):
        return primitives(holder, key, type_name, type(value) is list if many is None else many)
    if value is None:
        return []
    if many is not None and many != (type(value) is list):
        raise misplaced(key)
    entries = value if type(value) is list else [value]
    if type_name is not None:
        return [Element(_checked(entry, type_name, key), type_name) for entry in entries if entry is not None]
    return [Element(entry, _json_type(entry)) for entry in entries if entry is not None]


def _json_type(value: Any) -> str | None:
    # of an element that R4 does not have: a text may be a code or a date, numbers and booleans are what they are
    return None if isinstance(value, str | dict | list) else type_of(value)


def members(item: Element, name: str) -> list[Element]:
    """The elements called ``name`` of an item, typed as far as R4 tells."""
    holder = item.value
    type_name = _runtime_type(item)
    if type(holder) is not dict:
        if item.sibling is not None and name in ("id", "extension"):
            many = name == "extension"
            return _items(_object(item.sibling, name), name, "Extension" if many else "string", many)
        if type(holder) is list:
            raise misplaced(name)
        return []
    found = element(type_name, name) if type_name is not None else None
    if found is not None and not found.choice:
        return _items(holder, name, found.types[0], found.many)
    if name in holder:
        return _items(holder, name, None, None)
    keys = found.types if found is not None else ()
    known = {name + kind[0].upper() + kind[1:]: kind for kind in keys}
    if found is None and (type_name is None or not is_type(type_name)):
        known = choice_keys(name)
    one = choice(holder, tuple(known.items())) if known else None
    return [one] if one is not None else []


def children(item: Element) -> list[Element]:
    """The elements directly inside an item."""
    if type(item.value) is not dict:
        if type(item.sibling) is not dict:
            return []
        return members(item, "id") + members(item, "extension")
    type_name = _runtime_type(item)
    found: list[Element] = []
    for key in item.value:
        bare = key.removeprefix("_")
        if key == "resourceType" or (key != bare and bare in item.value):
            continue
        chosen = choice_of_key(type_name, bare) if type_name else None
        if chosen is not None:
            found += _items(item.value, bare, chosen[1], False)
        else:
            model = element(type_name, bare) if type_name else None
            found += _items(item.value, bare, model.types[0] if model else None, model.many if model else None)
    return found


def descendants(item: Element) -> list[Element]:
    """All elements inside an item, at any depth, level by level.

    Raises:
        DataError: there are more than :data:`MAX_DESCENDANTS`.
    """
    found: list[Element] = []
    level = children(item)
    while level:
        found += level
        if len(found) > MAX_DESCENDANTS:
            raise DataError(f"a resource has more than {MAX_DESCENDANTS} elements: drop it or do without descendants()")
        level = [child for one in level for child in children(one)]
    return found


def extension_holder(item: Element) -> Mapping[str, Any]:
    """The object that holds an item's extensions: itself, or a primitive's sibling."""
    holder = item.value if type(item.value) is dict else item.sibling
    return holder if type(holder) is dict else {}


def is_of(item: Element, name: str, *, exact: bool) -> bool:
    """Whether an item is of type ``name``; ``exact`` leaves out specialised primitives (a code is no string then).

    Raises:
        DataError: R4 does not tell the item's type.
    """
    own = _runtime_type(item)
    if own is None:
        own = type_of(item.value) if not isinstance(item.value, str | dict) else None
    if own is None:
        raise DataError(f"a FHIRPath expression asks whether an element is a {name}, and R4 does not tell its type")
    return matches_type(own, name, exact=exact)


def matches_type(own: str, name: str, *, exact: bool) -> bool:
    """Whether type ``own`` counts as ``name`` for ofType(), as() and is()."""
    if own == name or (name == "Quantity" and own == "System.Quantity"):
        return True
    return is_a(own, name) and not (exact and is_primitive(own))


def type_info(item: Element) -> list[Element]:
    """``type()``: an object with namespace and name."""
    own = _runtime_type(item) or type_of(item.value)
    if own is None:
        raise DataError("a FHIRPath expression asks for the type of an element that R4 does not have")
    space, _, name = own.rpartition(".")
    return [Element({"namespace": space or "FHIR", "name": name}, None)]


def reference_key(reference: Any, type_name: str | None) -> str | None:
    """The key in a Reference: the id of a relative or absolute address, or what follows ``urn:uuid:``.

    The type is that of the address or of ``Reference.type``; a ``urn`` without either counts as the one asked for,
    as only an index of the resources could tell. None for contained, conditional and logical references.
    """
    text = _object(reference, "reference").get("reference")
    if not isinstance(text, str):
        return None
    declared = reference.get("type")
    if text.startswith(("urn:uuid:", "urn:oid:")):
        fits = type_name is None or declared is None or declared == type_name
        return text.split(":", 2)[2] if fits else None
    parts = text.split("/")
    if "_history" in parts:
        parts = parts[: parts.index("_history")]
    if len(parts) < 2 or "?" in text or "#" in text or not parts[-1]:
        return None
    return parts[-1] if type_name is None or parts[-2] == type_name else None
