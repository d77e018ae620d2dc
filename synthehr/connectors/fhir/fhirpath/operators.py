"""Operators: three-valued logic, equality, order, arithmetic, membership, type tests."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from decimal import Decimal, DivisionByZero, InvalidOperation, localcontext
from typing import Any

from synthehr.connectors.fhir.fhirpath import navigation, quantity, temporal
from synthehr.connectors.fhir.fhirpath.parser import CALENDAR_UNITS
from synthehr.connectors.fhir.fhirpath.plan import Plan, Sink, Types, family
from synthehr.connectors.fhir.fhirpath.quantity import Quantity
from synthehr.connectors.fhir.fhirpath.temporal import Temporal
from synthehr.connectors.fhir.fhirpath.values import Element, compare, equal, equal_lists, equivalent_lists
from synthehr.connectors.fhir.fhirpath.writer import Writer
from synthehr.errors import DataError, SchemaError

__all__ = ["Arithmetic", "Contained", "Equality", "Logic", "Not", "Order", "Test", "arithmetic"]

BOOLEAN: Types = ("System.Boolean",)


class Test(Plan):
    """A step whose only item is a boolean, or none: subclasses write :meth:`single_truth`."""

    def __init__(self, *, source: str, types: Types = BOOLEAN) -> None:
        super().__init__(types, many=False, source=source)

    @abstractmethod
    def value(self, w: Writer) -> str:
        """Write the step and return the variable of its value, or None."""

    def single(self, w: Writer, *, boxed: bool = False) -> str:
        """See :meth:`Plan.single`."""
        found = self.value(w)
        if not boxed:
            return found
        kind = self.types[0] if self.types and len(self.types) == 1 else None
        return w.assign(f"{w.bind(Element)}({found}, {w.bind(kind)}) if {found} is not None else None")

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        found = self.single(w, boxed=boxed)
        if found in w.present:
            sink(found)
        else:
            with w.block(f"if {found} is not None:"):
                w.present.add(found)
                sink(found)
                w.present.discard(found)


class Not(Test):
    """not()."""

    def __init__(self, operand: Plan) -> None:
        super().__init__(source=operand.source)
        self.operand = operand

    def value(self, w: Writer) -> str:
        """See :meth:`Test.value`."""
        truth = self.operand.truth(w)
        return w.assign(f"not {truth} if {truth} is not None else None")


_TRUTH_TABLES: dict[str, Callable[[bool | None, bool | None], bool | None]] = {
    "and": lambda a, b: False if a is False or b is False else (None if a is None or b is None else True),
    "or": lambda a, b: True if a or b else (None if a is None or b is None else False),
    "xor": lambda a, b: None if a is None or b is None else a is not b,
    "implies": lambda a, b: True if a is False or b is True else (None if a is None or b is None else False),
}


class Logic(Test):
    """and, or, xor, implies, with unknown as the third value."""

    def __init__(self, operator: str, left: Plan, right: Plan) -> None:
        super().__init__(source=left.source)
        self.operator, self.left, self.right = operator, left, right

    def value(self, w: Writer) -> str:
        """See :meth:`Test.value`."""
        left, right = self.left.truth(w), self.right.truth(w)
        return w.assign(f"{w.bind(_TRUTH_TABLES[self.operator])}({left}, {right})")

    def condition(self, w: Writer) -> str:
        """See :meth:`Plan.condition`: the right side runs only where it decides."""
        if self.operator not in ("and", "or"):
            return super().condition(w)
        out = w.assign(self.left.condition(w))
        with w.block(f"if {out}:" if self.operator == "and" else f"if not {out}:"):
            w.line(f"{out} = {self.right.condition(w)}")
        return out


class Equality(Test):
    """``=``, ``!=``, ``~``, ``!~``.

    Raises:
        SchemaError: a text meets a date, or an object what is none: never equal, and never what is meant.
    """

    def __init__(self, operator: str, left: Plan, right: Plan) -> None:
        super().__init__(source=left.source)
        self.operator, self.left, self.right = operator, left, right
        kinds = {family(left.types), family(right.types)}
        if "string" in kinds and kinds & {"date", "dateTime", "time"}:
            raise SchemaError(
                f"{left.source} compares a text with a date, which is never equal: write dates as @2020-01-31"
            )
        if kinds & {"complex", "quantity"} and kinds & {"string", "boolean", "date", "dateTime", "time"}:
            found = " with ".join(" or ".join(side.types or ()) for side in (left, right))
            raise SchemaError(
                f"{left.source} compares {found}, which are never equal: go on to an element of the object"
            )

    def _plain(self) -> bool:
        kinds = {family(self.left.types), family(self.right.types)}
        return len(kinds) == 1 and bool(kinds & {"string", "boolean", "integer"})

    def value(self, w: Writer) -> str:
        """See :meth:`Test.value`."""
        if self.operator in ("~", "!~"):
            call = f"{w.bind(equivalent_lists)}({self.left.own_list(w)}, {self.right.own_list(w)})"
            return w.assign(f"not {call}" if self.operator == "!~" else call, present=True)
        one_each = not self.left.many and not self.right.many
        if self._plain():
            sides = [side.single(w) if one_each else side.collect(w) for side in (self.left, self.right)]
            known = [f"{side} is not None" if one_each else side for side in sides]
            return w.assign(
                f"{sides[0]} {'==' if self.operator == '=' else '!='} {sides[1]} if {' and '.join(known)} else None"
            )
        sides = [side.own_single(w) if one_each else side.own_list(w) for side in (self.left, self.right)]
        function = w.bind(equal if one_each else equal_lists)
        found = w.assign(f"{function}({sides[0]}, {sides[1]})")
        return found if self.operator == "=" else w.assign(f"not {found} if {found} is not None else None")

    def condition(self, w: Writer) -> str:
        """See :meth:`Plan.condition`."""
        if self.operator != "=" or not self._plain() or self.left.many or self.right.many:
            return super().condition(w)
        left, right = self.left.single(w), self.right.single(w)
        if left in w.present or right in w.present:
            return f"{left} == {right}"
        return f"{left} == {right} and {left} is not None"


_ORDERS = {"<": "< 0", "<=": "<= 0", ">": "> 0", ">=": ">= 0"}
_ORDERED = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "date": "date",
    "dateTime": "date",
    "time": "time",
    "quantity": "quantity",
}


class Order(Test):
    """``<``, ``<=``, ``>``, ``>=``.

    Raises:
        SchemaError: the sides are not of one ordered family.
    """

    def __init__(self, operator: str, left: Plan, right: Plan) -> None:
        super().__init__(source=left.source)
        self.operator, self.left, self.right = operator, left, right
        kinds = [family(side.types) for side in (left, right)]
        known = [_ORDERED.get(kind or "", "") for kind, side in zip(kinds, (left, right), strict=True) if kind]
        mixed = len(set(known)) > 1 and set(known) != {"number", "quantity"}
        if "" in known or mixed:
            raise SchemaError(
                f"{left.source}: {operator} orders numbers, texts, dates, times or quantities, "
                f"not {' and '.join(' or '.join(side.types or ('unknown',)) for side in (left, right))}"
            )
        self.direct = len(known) == 2 and known[0] == known[1] and known[0] in ("string", "number")

    def value(self, w: Writer) -> str:
        """See :meth:`Test.value`."""
        left, right = self.left.own_single(w), self.right.own_single(w)
        known = " and ".join(f"{side} is not None" for side in (left, right) if side not in w.present) or "True"
        if self.direct:
            return w.assign(f"{left} {self.operator} {right} if {known} else None")
        order = w.assign(f"{w.bind(compare)}({left}, {right}) if {known} else None")
        return w.assign(f"{order} {_ORDERS[self.operator]} if {order} is not None else None")


def _contained(item: Any, items: list[Any]) -> bool:
    return any(equal(item, other) is True for other in items)


class Contained(Test):
    """``item in items``; ``contains`` is the same with its sides changed."""

    def __init__(self, item: Plan, items: Plan) -> None:
        super().__init__(source=item.source)
        self.item, self.items = item, items

    def value(self, w: Writer) -> str:
        """See :meth:`Test.value`."""
        kinds = {family(self.item.types), family(self.items.types)}
        if kinds == {"string"}:
            item, items = self.item.single(w), self.items.collect(w)
            return w.assign(f"{item} in {items} if {item} is not None else None")
        item, items = self.item.own_single(w), self.items.own_list(w)
        return w.assign(f"{w.bind(_contained)}({item}, {items}) if {item} is not None else None")


class IsType(Test):
    """``is``."""

    def __init__(self, operand: Plan, type_name: str) -> None:
        super().__init__(source=operand.source)
        self.operand, self.type = operand, type_name

    def value(self, w: Writer) -> str:
        """See :meth:`Test.value`."""
        types = self.operand.types
        known = types and len(types) == 1 and types[0] not in ("Resource", "DomainResource")
        item = self.operand.single(w, boxed=True)
        if known and types:
            answer = navigation.matches_type(types[0], self.type, exact=False)
            return w.assign(f"{answer} if {item} is not None else None")
        return w.assign(
            f"{w.bind(navigation.is_of)}({item}, {w.bind(self.type)}, exact=False) if {item} is not None else None"
        )


# -- arithmetic --------------------------------------------------------------------------------------------------------

_DATE_UNITS = {"wk": "week", "d": "day", "h": "hour", "min": "minute", "s": "second", "ms": "millisecond"}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and type(value) is not bool


def _moved(date: Temporal, by: Quantity, sign: int) -> Temporal:
    unit = by.unit if by.calendar else CALENDAR_UNITS.get(by.unit) or _DATE_UNITS.get(by.unit)
    if unit is None:
        raise DataError(
            "a FHIRPath expression moves a date by a unit that is no calendar duration: write 1 year, 1 month"
        )
    return temporal.add(date, by.value * sign, unit)


def _quantities(operator: str, left: Quantity, right: Quantity) -> Quantity | None:
    if operator == "*":
        return quantity.multiply(left, right)
    if operator == "/":
        return quantity.divide(left, right)
    if (left.unit, left.calendar) != (right.unit, right.calendar):
        raise DataError("a FHIRPath expression adds quantities of different units: convert them first")
    if operator not in ("+", "-"):
        raise DataError(f"a FHIRPath expression uses {operator} on quantities")
    value = left.value + right.value if operator == "+" else left.value - right.value
    return Quantity(value, left.unit, left.calendar)


def _numbers(operator: str, left: Any, right: Any) -> Any:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        return None
    if operator == "/":
        return Decimal(left) / Decimal(right)
    whole = int(Decimal(left) / Decimal(right)) if Decimal in (type(left), type(right)) else None
    if whole is None:
        whole = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    return whole if operator == "div" else left - right * whole


def arithmetic(operator: str, left: Any, right: Any) -> Any:
    """``left operator right`` for two of FHIRPath's own values; None for a division by zero.

    Raises:
        DataError: the operator does not take values of these types, or the result is too large.
    """
    try:
        with localcontext() as context:
            context.prec = 34
            if _is_number(left) and _is_number(right):
                return _numbers(operator, left, right)
            if isinstance(left, str) and isinstance(right, str) and operator == "+":
                return left + right
            if isinstance(left, Temporal) and isinstance(right, Quantity) and operator in ("+", "-"):
                return _moved(left, right, 1 if operator == "+" else -1)
            if isinstance(left, Quantity) and _is_number(right) and operator in ("*", "/"):
                right = Quantity(Decimal(right), "1")
            if isinstance(right, Quantity) and _is_number(left) and operator == "*":
                left = Quantity(Decimal(left), "1")
            if isinstance(left, Quantity) and isinstance(right, Quantity):
                return _quantities(operator, left, right)
    except (InvalidOperation, DivisionByZero, OverflowError) as error:
        raise DataError(f"a FHIRPath expression's {operator} gives a number out of range") from error
    raise DataError(f"a FHIRPath expression's {operator} does not take values of the types that a record gives")


def concatenated(left: Any, right: Any) -> str:
    """``left & right``: a missing side counts as an empty text.

    Raises:
        DataError: a side is no text.
    """
    if not isinstance(left, str | None) or not isinstance(right, str | None):
        raise DataError("a FHIRPath expression's & does not take what is no text: add toString()")
    return (left or "") + (right or "")


def _result(operator: str, left: Types, right: Types) -> Types:
    kinds = family(left), family(right)
    if "string" in kinds:
        return ("System.String",)
    if kinds == ("integer", "integer"):
        return ("System.Decimal",) if operator == "/" else ("System.Integer",)
    if set(kinds) <= {"integer", "number"}:
        return ("System.Integer",) if operator == "div" else ("System.Decimal",)
    if kinds[0] in ("date", "dateTime", "time"):
        return ({"date": "System.Date", "dateTime": "System.DateTime", "time": "System.Time"}[str(kinds[0])],)
    return ("System.Quantity",) if "quantity" in kinds and None not in kinds else None


_NUMERIC = ("integer", "number")
_TAKEN = {
    "+": {("string", "string"), ("date", "quantity"), ("dateTime", "quantity"), ("time", "quantity")},
    "-": {("date", "quantity"), ("dateTime", "quantity"), ("time", "quantity")},
    "*": {("quantity", "integer"), ("quantity", "number"), ("integer", "quantity"), ("number", "quantity")},
    "/": {("quantity", "integer"), ("quantity", "number")},
}


class Arithmetic(Test):
    """``+ - * / div mod`` and ``&``.

    Raises:
        SchemaError: R4 says that the operator is given types that it does not take.
    """

    def __init__(self, operator: str, left: Plan, right: Plan) -> None:
        kinds = family(left.types), family(right.types)
        ordinary = (kinds[0] in _NUMERIC and kinds[1] in _NUMERIC) or (
            kinds == ("quantity",) * 2 and operator in "+-*/"
        )
        if operator == "&":
            ordinary = kinds == ("string", "string")
        if None not in kinds and not ordinary and kinds not in _TAKEN.get(operator, ()):
            raise SchemaError(f"{left.source}: {operator} does not take {kinds[0]} and {kinds[1]}")
        types = ("System.String",) if operator == "&" else _result(operator, left.types, right.types)
        super().__init__(source=left.source, types=types)
        self.operator, self.left, self.right = operator, left, right

    def value(self, w: Writer) -> str:
        """See :meth:`Test.value`."""
        left, right = self.left.own_single(w), self.right.own_single(w)
        if self.operator == "&":
            return w.assign(f"{w.bind(concatenated)}({left}, {right})", present=True)
        known = " and ".join(f"{side} is not None" for side in (left, right) if side not in w.present) or "True"
        return w.assign(f"{w.bind(arithmetic)}({w.bind(self.operator)}, {left}, {right}) if {known} else None")
