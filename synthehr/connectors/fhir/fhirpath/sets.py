"""FHIRPath's functions over whole lists of boxed items."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from synthehr.connectors.fhir.fhirpath.values import Element, compare, equal, plain, system_of
from synthehr.errors import DataError

__all__ = [
    "all_false",
    "all_true",
    "any_false",
    "any_true",
    "count",
    "difference",
    "distinct",
    "has_value",
    "intersection",
    "is_distinct",
    "is_subset",
    "is_superset",
    "join",
    "repeated",
    "sort",
    "union",
]

MAX_REPEATED = 200_000
"""Most elements that repeat() goes through in one resource: an expression may give new ones without end."""


class _Seen:
    """Values met so far, by FHIRPath's equality; texts are kept in a set."""

    def __init__(self, items: list[Element] | None = None) -> None:
        self.texts: set[str] = set()
        self.others: list[Any] = []
        for item in items or ():
            self.add(system_of(item))

    def __contains__(self, value: Any) -> bool:
        if type(value) is str and value in self.texts:
            return True
        return any(equal(value, other) is True for other in self.others)

    def add(self, value: Any) -> None:
        if type(value) is str:
            self.texts.add(value)
        else:
            self.others.append(value)


def distinct(items: list[Element]) -> list[Element]:
    """The items without those equal to an earlier one."""
    seen, kept = _Seen(), []
    for item in items:
        value = system_of(item)
        if value not in seen:
            seen.add(value)
            kept.append(item)
    return kept


def union(*lists: list[Element]) -> list[Element]:
    """The distinct items of all lists."""
    return distinct([item for some in lists for item in some])


def intersection(left: list[Element], right: list[Element]) -> list[Element]:
    """The distinct items of ``left`` that ``right`` has too."""
    other = _Seen(right)
    return [item for item in distinct(left) if system_of(item) in other]


def difference(left: list[Element], right: list[Element]) -> list[Element]:
    """The items of ``left`` that ``right`` lacks, repeated ones too."""
    other = _Seen(right)
    return [item for item in left if system_of(item) not in other]


def is_distinct(items: list[Element]) -> bool:
    """Whether no two items are equal."""
    return len(distinct(items)) == len(items)


def is_subset(items: list[Element], others: list[Element]) -> bool:
    """Whether every item is among ``others``."""
    seen = _Seen(others)
    return all(system_of(item) in seen for item in items)


def is_superset(items: list[Element], others: list[Element]) -> bool:
    """Whether every one of ``others`` is among the items."""
    return is_subset(others, items)


def count(items: list[Element]) -> int:
    """How many items there are."""
    return len(items)


def has_value(items: list[Element]) -> bool:
    """Whether there is one item and it is a primitive with a value."""
    return len(items) == 1 and items[0].value is not None and not isinstance(items[0].value, dict)


def _booleans(items: list[Element]) -> list[bool]:
    values = [item.value for item in items]
    if not all(type(value) is bool for value in values):
        raise DataError("a FHIRPath expression asks for the truth of items that are not booleans")
    return values


def all_true(items: list[Element]) -> bool:
    """Whether every item is true."""
    return all(_booleans(items))


def any_true(items: list[Element]) -> bool:
    """Whether an item is true."""
    return any(_booleans(items))


def all_false(items: list[Element]) -> bool:
    """Whether every item is false."""
    return not any(_booleans(items))


def any_false(items: list[Element]) -> bool:
    """Whether an item is false."""
    return not all(_booleans(items))


def join(items: list[Element], separator: list[Element] | None = None) -> str:
    """The texts of the items, with the separator between; an empty text for none, as SQL on FHIR has it."""
    between = separator[0].value if separator else ""
    texts = [plain(item.value) for item in items if item.value is not None]
    if not all(type(text) is str for text in (between, *texts)):
        raise DataError("a FHIRPath expression joins items that are not texts: add select(toString())")
    return str(between).join(texts)


def repeated(items: list[Element], step: Callable[[Element], list[Element]]) -> list[Element]:
    """What ``step`` gives of the items, of that again, and so on, each value once.

    Raises:
        DataError: there are more than :data:`MAX_REPEATED`.
    """
    seen, found, level = _Seen(), [], items
    while level:
        following = []
        for item in level:
            for child in step(item):
                value = system_of(child)
                if value not in seen:
                    seen.add(value)
                    following.append(child)
        found += following
        if len(found) > MAX_REPEATED:
            raise DataError(f"a FHIRPath expression repeats through more than {MAX_REPEATED} elements")
        level = following
    return found


def sort(rows: list[tuple[Element, tuple[Any, ...]]], descending: tuple[bool, ...]) -> list[Element]:
    """The elements by their keys, one direction a key; a missing key comes first in both."""

    def order(left: tuple[Element, tuple[Any, ...]], right: tuple[Element, tuple[Any, ...]]) -> int:
        for a, b, down in zip(left[1], right[1], descending, strict=True):
            if a is None or b is None:
                if (a is None) != (b is None):
                    return -1 if a is None else 1
                continue
            result = compare(a, b)
            if result:
                return -result if down else result
        return 0

    return [element for element, _ in sorted(rows, key=functools.cmp_to_key(order))]
