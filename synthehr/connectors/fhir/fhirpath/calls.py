"""FHIRPath's functions of one item, called with values of FHIRPath's own, and the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from synthehr.connectors.fhir.fhirpath import conversions, sets, texts
from synthehr.connectors.fhir.fhirpath.model import STRINGS, TEMPORALS
from synthehr.connectors.fhir.fhirpath.operators import Test
from synthehr.connectors.fhir.fhirpath.plan import Plan, Sink, Types, family
from synthehr.connectors.fhir.fhirpath.values import Element, quantity_of, system
from synthehr.connectors.fhir.fhirpath.writer import Writer
from synthehr.errors import DataError

__all__ = ["ITEM_FUNCTIONS", "LIST_FUNCTIONS", "ItemCall", "ItemFunction", "ListProduct"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemFunction:
    """A function of one item.

    ``takes`` are the families of the item, ``arguments`` those of each argument, of which the first ``least`` must be
    given. ``result`` is its type (None: the item's). ``exact`` refuses floats: their digits as written are lost.
    ``many`` says that it gives a list.
    """

    function: Callable[..., Any]
    takes: tuple[str, ...]
    result: str | None
    arguments: tuple[str, ...] = ()
    least: int | None = None
    exact: bool = False
    many: bool = False


_TEXT = ("text",)
_NUMBER = ("integer", "number")
_ANY = ("string", "boolean", "integer", "number", "date", "dateTime", "time", "quantity")


def _text(function: Callable[..., Any], result: str, *arguments: str, least: int | None = None) -> ItemFunction:
    return ItemFunction(function=function, takes=_TEXT, result=f"System.{result}", arguments=arguments, least=least)


_TEXTS = {
    "indexOf": _text(texts.index_of, "Integer", "text"),
    "lastIndexOf": _text(texts.last_index_of, "Integer", "text"),
    "substring": _text(texts.substring, "String", "integer", "integer", least=1),
    "startsWith": _text(texts.starts_with, "Boolean", "text"),
    "endsWith": _text(texts.ends_with, "Boolean", "text"),
    "contains": _text(texts.contains, "Boolean", "text"),
    "upper": _text(str.upper, "String"),
    "lower": _text(str.lower, "String"),
    "replace": _text(texts.replace, "String", "text", "text"),
    "matches": _text(texts.matches, "Boolean", "text"),
    "matchesFull": _text(texts.matches_full, "Boolean", "text"),
    "replaceMatches": _text(texts.replace_matches, "String", "text", "text"),
    "length": _text(len, "Integer"),
    "trim": _text(str.strip, "String"),
    "encode": _text(texts.encode, "String", "text"),
    "decode": _text(texts.decode, "String", "text"),
    "escape": _text(texts.escape, "String", "text"),
    "unescape": _text(texts.unescape, "String", "text"),
    "toChars": ItemFunction(function=list, takes=_TEXT, result="System.String", many=True),
    "split": ItemFunction(function=texts.split, takes=_TEXT, result="System.String", arguments=_TEXT, many=True),
}

_MATHEMATICS = {
    name: ItemFunction(
        function=function,
        takes=(*_NUMBER, "quantity") if name == "abs" else _NUMBER,
        result=result,
        arguments=("number",) * most,
        least=least,
    )
    for name, (function, least, most, result) in conversions.MATHEMATICS.items()
}


def _converts(function: Callable[[Any], Any]) -> Callable[[Any], bool]:
    return lambda value: function(value) is not None


_CONVERSIONS = {
    f"to{name}": ItemFunction(function=function, takes=_ANY, result=result, exact=name == "String")
    for name, (function, result) in conversions.CONVERSIONS.items()
} | {
    f"convertsTo{name}": ItemFunction(function=_converts(function), takes=_ANY, result="System.Boolean")
    for name, (function, _) in conversions.CONVERSIONS.items()
}

_MEASURED = ("integer", "number", "date", "dateTime", "time", "quantity")

_BOUNDARIES = {
    "lowBoundary": ItemFunction(
        function=conversions.low_boundary, takes=_MEASURED, result=None, arguments=("integer",), least=0, exact=True
    ),
    "highBoundary": ItemFunction(
        function=conversions.high_boundary, takes=_MEASURED, result=None, arguments=("integer",), least=0, exact=True
    ),
    "precision": ItemFunction(function=conversions.precision, takes=_MEASURED, result="System.Integer", exact=True),
    "comparable": ItemFunction(
        function=conversions.comparable, takes=("quantity",), result="System.Boolean", arguments=("quantity",)
    ),
}

ITEM_FUNCTIONS: dict[str, ItemFunction] = _TEXTS | _MATHEMATICS | _CONVERSIONS | _BOUNDARIES

LIST_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, Types]] = {
    "count": (sets.count, 0, ("System.Integer",)),
    "isDistinct": (sets.is_distinct, 0, ("System.Boolean",)),
    "subsetOf": (sets.is_subset, 1, ("System.Boolean",)),
    "supersetOf": (sets.is_superset, 1, ("System.Boolean",)),
    "allTrue": (sets.all_true, 0, ("System.Boolean",)),
    "anyTrue": (sets.any_true, 0, ("System.Boolean",)),
    "allFalse": (sets.all_false, 0, ("System.Boolean",)),
    "anyFalse": (sets.any_false, 0, ("System.Boolean",)),
}
"""Name -> function of boxed lists, number of arguments, type of the one value that it gives."""

MOMENTS = {"now": "DateTime", "today": "Date", "timeOfDay": "Time"}


def exact(value: Any, type_name: str | None) -> Any:
    """FHIRPath's own value of a raw one, refusing floats.

    Raises:
        DataError: the JSON reader made a float of a decimal.
    """
    number = value.get("value") if type(value) is dict else value
    if type(number) is float:
        raise DataError(
            "this FHIRPath expression needs decimals as they were written, and the JSON reader made floats of them: "
            "read the records with fhirpath.parse_json"
        )
    found = system(value, type_name)
    if type(found) is dict and type_name is None and "value" in found:
        return quantity_of(found)
    return found


def exact_of(element: Element) -> Any:
    """FHIRPath's own value of an element, refusing floats."""
    return exact(element.value, element.type)


class ItemCall(Test):
    """``item.function(arguments)``: empty if the item or an argument is."""

    def __init__(self, function: ItemFunction, base: Plan, arguments: tuple[Plan, ...]) -> None:
        super().__init__(source=base.source, types=self._result(function, base))
        self.function, self.base, self.arguments = function, base, arguments

    @staticmethod
    def _result(function: ItemFunction, base: Plan) -> Types:
        if function.result is not None:
            return (function.result,)
        kind = family(base.types)
        own = {
            "integer": "System.Integer",
            "number": "System.Decimal",
            "date": "System.Date",
            "dateTime": "System.DateTime",
            "time": "System.Time",
            "quantity": "System.Quantity",
        }.get(kind or "")
        if own == "System.Integer" and (function.arguments or function.exact):
            own = "System.Decimal"  # a boundary or a power of an integer need not be one
        return (own,) if own else None

    def _item(self, w: Writer) -> str:
        base = self.base
        if self.function.takes == _TEXT:
            item = base.single(w)
            sure = base.types and all(name in STRINGS or name in TEMPORALS for name in base.types)
            if not sure:
                item = w.assign(f"{w.bind(texts.text_of)}({item}) if {item} is not None else None")
            return item
        if not self.function.exact or family(base.types) in ("string", "boolean", "integer"):
            return base.own_single(w)
        if base.types is None or len(base.types) > 1:
            item = base.single(w, boxed=True)
            return w.assign(f"{w.bind(exact_of)}({item}) if {item} is not None else None")
        item = base.single(w)
        kind = base.types[0] if base.types else None
        return w.assign(f"{w.bind(exact)}({item}, {w.bind(kind)}) if {item} is not None else None")

    def call(self, w: Writer) -> str:
        """Write the arguments and the call, empty where one of them is."""
        names = [self._item(w), *(argument.own_single(w) for argument in self.arguments)]
        known = " and ".join(f"{name} is not None" for name in names if name not in w.present) or "True"
        return f"{w.bind(self.function.function)}({', '.join(names)}) if {known} else None"

    def value(self, w: Writer) -> str:
        """See :meth:`Test.value`."""
        return w.assign(self.call(w))


class ListProduct(Plan):
    """A function of one item that gives a list of values: split(), toChars()."""

    def __init__(self, call: ItemCall) -> None:
        super().__init__(call.types, many=True, source=call.source)
        self.inner = call

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        items, item = w.assign(self.inner.call(w)), w.name()
        with w.block(f"for {item} in {items} or ():"):
            w.present.add(item)
            kind = self.types[0] if self.types else None
            sink(w.assign(f"{w.bind(Element)}({item}, {w.bind(kind)})", present=True) if boxed else item)
