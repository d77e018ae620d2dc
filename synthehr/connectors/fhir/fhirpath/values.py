"""Values while an expression runs: elements with a type, FHIRPath's own values, equality and order.

FHIRPath's own values are bool, int, Decimal, str, :class:`.temporal.Temporal`, :class:`.quantity.Quantity`; a complex
FHIR element is the dict that the JSON parser made. Where the type is not known from the expression, values travel as
:class:`Element`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from synthehr.connectors.fhir.fhirpath import quantity as quantities
from synthehr.connectors.fhir.fhirpath import temporal as temporals
from synthehr.connectors.fhir.fhirpath.model import (
    BOOLEANS,
    DATE_TIMES,
    DATES,
    NUMBERS,
    STRINGS,
    TIMES,
    is_a,
)
from synthehr.connectors.fhir.fhirpath.quantity import Quantity
from synthehr.connectors.fhir.fhirpath.temporal import Temporal
from synthehr.errors import DataError

__all__ = [
    "LARGEST_EXPONENT",
    "Element",
    "compare",
    "equal",
    "equal_lists",
    "equivalent_lists",
    "misplaced",
    "one",
    "plain",
    "quantity_of",
    "system",
    "system_of",
    "type_of",
]

LARGEST_EXPONENT = 400
"""Numbers of more digits than any float has are refused: to write one out could fill the memory."""

UCUM = "http://unitsofmeasure.org"


@dataclass(frozen=True, slots=True, eq=False)
class Element:
    """A value and its type (None where R4 does not tell it).

    ``value`` is None for a primitive that has extensions alone; ``sibling`` is the object that JSON keeps a
    primitive's id and extensions in.
    """

    value: Any
    type: str | None
    sibling: Any = None


def misplaced(what: str) -> DataError:
    """The error for a resource whose JSON is not shaped as R4 has it. ``what`` is an element's name, no value."""
    return DataError(f"the JSON at '{what}' is not shaped as FHIR R4 has it: correct or drop the resource")


def one(items: list[Any], source: str) -> Any:
    """The only item of ``items``, or None if there is none.

    Raises:
        DataError: there are two or more.
    """
    if len(items) > 1:
        raise DataError(f"{source} needs one value and a record gives several: add first() or where(…)")
    return items[0] if items else None


def _temporal(value: Any, kind: str) -> Temporal:
    found = temporals.from_text(value, kind) if isinstance(value, str) else None
    if found is None:
        raise DataError(f"a FHIRPath expression needs a {kind} and a record has something else there")
    return found


def quantity_of(value: Any) -> Quantity | None:
    """The Quantity in a FHIR Quantity object; None if it has no value, or a comparator that leaves its value open."""
    number = number_of(value.get("value"))
    if number is None or value.get("comparator") is not None:
        return None
    code, unit = value.get("code"), value.get("unit")
    if isinstance(code, str) and value.get("system") == UCUM:
        return Quantity(Decimal(number), code)
    return Quantity(Decimal(number), f"{quantities.FOREIGN}{code or unit}" if code or unit else "1")


def number_of(value: Any) -> int | Decimal | None:
    """A JSON number as int or Decimal; a float by its shortest writing."""
    if value is None or type(value) is int:
        return value
    if type(value) is float and math.isfinite(value):
        return Decimal(repr(value))
    if type(value) is Decimal and value.is_finite() and abs(value.adjusted()) <= LARGEST_EXPONENT:
        return value
    raise DataError("a FHIRPath expression needs a number and a record has something else there")


def _as_it_is(value: Any) -> Any:
    return value


def _quantity_or_object(value: Any) -> Any:
    return quantity_of(value) or value


def _temporals(kind: str) -> Callable[[Any], Any]:
    return lambda value: value if isinstance(value, Temporal) else _temporal(value, kind)


_READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(STRINGS | BOOLEANS, _as_it_is),
    **dict.fromkeys(NUMBERS, number_of),
    **dict.fromkeys(DATES, _temporals("Date")),
    **dict.fromkeys(DATE_TIMES, _temporals("DateTime")),
    **dict.fromkeys(TIMES, _temporals("Time")),
    "System.Quantity": _as_it_is,
}


def system(value: Any, type_name: str | None) -> Any:
    """FHIRPath's own value of a raw one, given its type; complex elements stay as they are."""
    if type_name is None:
        return Decimal(repr(value)) if type(value) is float else value
    reader = _READERS.get(type_name)
    if reader is not None:
        return reader(value)
    return _quantity_or_object(value) if is_a(type_name, "Quantity") else value


def system_of(element: Element) -> Any:
    """FHIRPath's own value of an element; None for a primitive with extensions alone."""
    return None if element.value is None else system(element.value, element.type)


def type_of(value: Any) -> str | None:
    """The System type of one of FHIRPath's own values; None for an object."""
    if type(value) is bool:
        return "System.Boolean"
    if type(value) is int:
        return "System.Integer"
    if isinstance(value, Decimal | float):
        return "System.Decimal"
    if isinstance(value, str):
        return "System.String"
    if isinstance(value, Temporal):
        return f"System.{value.kind}"
    return "System.Quantity" if isinstance(value, Quantity) else None


def plain(value: Any) -> Any:
    """The value as callers get it: dates as text, quantities as FHIR Quantity objects, the rest as it is."""
    if isinstance(value, Temporal):
        return str(value)
    if isinstance(value, Quantity):
        if value.calendar:
            return {"value": value.value, "unit": value.unit}
        return {"value": value.value, "unit": value.unit, "system": UCUM, "code": value.unit}
    return value


def _pair(left: Any, right: Any) -> tuple[Any, Any]:
    """Both values in one family where one converts to the other.

    A text beside a date comes from an element whose type R4 does not tell: the compiler refuses other such pairs.
    """
    if isinstance(left, Temporal) and isinstance(right, str):
        return left, temporals.from_text(right, left.kind) or right
    if isinstance(right, Temporal) and isinstance(left, str):
        return temporals.from_text(left, right.kind) or left, right
    if isinstance(left, Quantity) != isinstance(right, Quantity):
        return _as_quantity(left), _as_quantity(right)
    return left, right


def _as_quantity(value: Any) -> Any:
    if isinstance(value, int | Decimal) and type(value) is not bool:
        return Quantity(Decimal(value), "1")
    if isinstance(value, Mapping) and "value" in value:
        return quantity_of(value)
    return value


def equal(left: Any, right: Any) -> bool | None:
    """``left = right`` for two of FHIRPath's own values; None where precision or units leave it open."""
    left, right = _pair(left, right)
    if left is None or right is None:
        return None
    if isinstance(left, Temporal) and isinstance(right, Temporal):
        if (left.kind == "Time") != (right.kind == "Time"):
            return False
        order = temporals.compare(left, right)
        return None if order is None else order == 0
    if isinstance(left, Quantity) and isinstance(right, Quantity):
        if quantities.comparable(left, right) is False:
            return False
        order = quantities.compare(left, right)
        return None if order is None else order == 0
    return _deep_equal(left, right)


def _deep_equal(left: Any, right: Any) -> bool:
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_deep_equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_deep_equal, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    return bool(left == right)


def equal_lists(left: list[Any], right: list[Any]) -> bool | None:
    """``left = right`` for two collections: None if one is empty, else all items equal in order."""
    if not left or not right:
        return None
    if len(left) != len(right):
        return False
    result: bool | None = True
    for a, b in zip(left, right, strict=True):
        same = equal(a, b)
        if same is False:
            return False
        if same is None:
            result = None
    return result


def _rounded(left: Decimal, right: Decimal) -> bool:
    # equivalence of decimals is at the precision of the less precise one
    exponent = max(int(value.as_tuple().exponent) for value in (left.normalize(), right.normalize()))
    step = Decimal(1).scaleb(min(exponent, 0))
    return left.quantize(step) == right.quantize(step)


def _equivalent(left: Any, right: Any) -> bool:
    left, right = _pair(left, right)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    for kinds, same in _EQUIVALENCES:
        if isinstance(left, kinds) and isinstance(right, kinds):
            return same(left, right)
    return bool(left == right)


def _equivalent_texts(left: str, right: str) -> bool:
    return " ".join(left.casefold().split()) == " ".join(right.casefold().split())


def _equivalent_temporals(left: Temporal, right: Temporal) -> bool:
    return left.kind == right.kind and temporals.compare(left, right) == 0


def _equivalent_objects(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(_equivalent(value, right[key]) for key, value in left.items())


def _equivalent_quantities(left: Quantity, right: Quantity) -> bool:
    calendar = {"year": "a", "month": "mo"}
    left, right = (
        Quantity(q.value, calendar[q.unit]) if q.calendar and q.unit in calendar else q for q in (left, right)
    )
    if (left.unit, left.calendar) == (right.unit, right.calendar):
        return _rounded(left.value, right.value)
    if quantities.comparable(left, right) is not True:
        return False
    return _rounded(left.value, quantities.converted(right, left).value)


def equivalent_lists(left: list[Any], right: list[Any]) -> bool:
    """``left ~ right``: the same items in any order; two empty collections are equivalent."""
    if len(left) != len(right):
        return False
    rest = list(right)
    for item in left:
        at = next((i for i, other in enumerate(rest) if _equivalent(item, other)), None)
        if at is None:
            return False
        del rest[at]
    return True


_EQUIVALENCES: tuple[tuple[Any, Callable[[Any, Any], bool]], ...] = (
    (str, _equivalent_texts),
    (Temporal, _equivalent_temporals),
    (Quantity, _equivalent_quantities),
    ((int, Decimal), lambda left, right: _rounded(Decimal(left), Decimal(right))),
    (dict, _equivalent_objects),
    (list, equivalent_lists),
)


def compare(left: Any, right: Any) -> int | None:
    """-1, 0 or 1 by order; None where precision or units leave it open.

    Raises:
        DataError: the two are not of one ordered family.
    """
    left, right = _pair(left, right)
    if left is None or right is None:
        return None
    if isinstance(left, Temporal) and isinstance(right, Temporal):
        return temporals.compare(left, right)
    if isinstance(left, Quantity) and isinstance(right, Quantity):
        return quantities.compare(left, right)
    numbers = all(isinstance(value, int | Decimal) and type(value) is not bool for value in (left, right))
    if numbers or (isinstance(left, str) and isinstance(right, str)):
        return int(left > right) - int(left < right)
    raise DataError("a FHIRPath expression orders values of different types: compare numbers, texts or dates alone")
