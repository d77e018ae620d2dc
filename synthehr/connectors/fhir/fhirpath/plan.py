"""What every compiled step is: its types, whether it gives many items, and the Python that it writes.

A plan is written push-wise: ``emit`` writes loops and calls ``sink`` with the name of each item at their heart, so a
whole path becomes one nest of loops without lists between its steps. Items travel **raw** (the JSON value) wherever
the types are known from the expression, and **boxed** (:class:`.values.Element`) where a step asks for type, id or
extensions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from synthehr.connectors.fhir.fhirpath.model import (
    BOOLEANS,
    DATE_TIMES,
    DATES,
    INTEGERS,
    NUMBERS,
    STRINGS,
    TEMPORALS,
    TIMES,
    is_a,
    is_primitive,
)
from synthehr.connectors.fhir.fhirpath.values import Element, number_of, one, system, system_of
from synthehr.connectors.fhir.fhirpath.writer import Writer
from synthehr.errors import SchemaError

__all__ = ["Nothing", "Plan", "Scope", "Sink", "This", "Types", "Value", "family", "may_lack_value", "merge", "unboxed"]

Types = tuple[str, ...] | None
"""FHIR and System types that an item may have: None if R4 does not tell, ``()`` if there never is an item."""

Sink = Callable[[str], None]

_FAMILIES = {
    "string": STRINGS,
    "boolean": BOOLEANS,
    "integer": INTEGERS,
    "number": NUMBERS,
    "date": DATES,
    "dateTime": DATE_TIMES,
    "time": TIMES,
}


def family(types: Types) -> str | None:
    """What the items are to comparisons: one of the families above, quantity or complex; None if not one for all."""
    if not types:
        return None
    for name, members in _FAMILIES.items():
        if members.issuperset(types):
            return name
    if all(name == "System.Quantity" or is_a(name, "Quantity") for name in types):
        return "quantity"
    if all(not is_primitive(name) and not name.startswith("System.") for name in types):
        return "complex"
    return None


def merge(*types: Types) -> Types:
    """The types of items that come from several places."""
    if any(some is None for some in types):
        return None
    return tuple(dict.fromkeys(name for some in types for name in some or ()))


def may_lack_value(types: Types) -> bool:
    """Whether items of these types may be primitives without a value."""
    return types is None or any(is_primitive(name) for name in types)


def unboxed(w: Writer, sink: Sink) -> Sink:
    """A sink for boxed items that gives ``sink`` their values, where they have one."""

    def give(item: str) -> None:
        value = w.assign(f"{item}.value")
        with w.block(f"if {value} is not None:"):
            w.present.add(value)
            sink(value)

    return give


class Plan(ABC):
    """One compiled step. ``source`` is the text of the whole expression, for messages."""

    def __init__(self, types: Types, *, many: bool, source: str) -> None:
        self.types = types
        self.many = many
        self.source = source

    @abstractmethod
    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """Write the loops over the items, with ``sink`` at their heart. Raw items are never None."""

    def single(self, w: Writer, *, boxed: bool = False) -> str:
        """Write the step and return the variable of its only item, or None; several items raise at run time."""
        if self.many:
            return w.assign(f"{w.bind(one)}({self.collect(w, boxed=boxed)}, {w.bind(self.source)})")
        out = w.assign("None")
        self.emit(w, lambda item: w.line(f"{out} = {item}"), boxed=boxed)
        return out

    def collect(self, w: Writer, *, boxed: bool = False) -> str:
        """Write the step and return the variable of the list of its items."""
        out = w.assign("[]", present=True)
        self.emit(w, lambda item: w.line(f"{out}.append({item})"), boxed=boxed)
        return out

    def truth(self, w: Writer) -> str:
        """Write the step and return the variable of its truth: True, False or None.

        One item that is not a boolean counts as true (FHIRPath's singleton evaluation of collections).
        """
        item = self.single(w)
        if self.types and all(name in BOOLEANS for name in self.types):
            return item
        if self.types and not any(name in BOOLEANS for name in self.types):
            return w.assign(f"True if {item} is not None else None")
        return w.assign(f"{item} if {item} is None or {item} is False else True")

    def condition(self, w: Writer) -> str:
        """Write the step and return an expression that is truthy if and only if its truth is True."""
        return self.truth(w)

    # -- FHIRPath's own values ---------------------------------------------------------------------------------------

    def _conversion(self, w: Writer) -> tuple[bool, str]:
        """Whether items must be boxed to be read as FHIRPath's own values, and the call that reads them."""
        kind = family(self.types)
        if self.types is None or kind is None or (kind in ("quantity", "complex") and len(self.types) > 1):
            return True, f"{w.bind(system_of)}({{}})"
        if kind in ("string", "boolean", "integer"):
            return False, "{}"
        if kind == "number":
            return False, f"{w.bind(number_of)}({{}})"
        if all(name.startswith("System.") for name in self.types):
            return False, "{}"
        return False, f"{w.bind(system)}({{}}, {w.bind(self.types[0])})"

    def own_single(self, w: Writer) -> str:
        """The variable of the only item as FHIRPath's own value, or None."""
        boxed, call = self._conversion(w)
        item = self.single(w, boxed=boxed)
        if call == "{}":
            return item
        return w.assign(f"{call.format(item)} if {item} is not None else None")

    def own_list(self, w: Writer) -> str:
        """The variable of the list of the items as FHIRPath's own values."""
        boxed, call = self._conversion(w)
        out = w.assign("[]", present=True)
        self.emit(w, lambda item: w.line(f"{out}.append({call.format(item)})"), boxed=boxed)
        return out

    def require(self, *families: str, what: str) -> None:
        """Refuse the expression if R4 says that the items are of no family named.

        Raises:
            SchemaError: they are not.
        """
        if not self.types:
            return
        allowed = frozenset().union(*(_FAMILIES.get(name, frozenset()) for name in families))
        if "text" in families:
            allowed |= STRINGS | {name for name in TEMPORALS if not name.startswith("System.")}
        if "quantity" in families:
            allowed |= {name for name in self.types if name == "System.Quantity" or is_a(name, "Quantity")}
        if allowed.isdisjoint(self.types):
            found = " or ".join(self.types)
            raise SchemaError(f"{self.source}: {what} does not take {found}")


class Scope:
    """Where ``$this`` is bound: the names of the item, its box, its index and the running total, while writing."""

    def __init__(self, types: Types, *, raw: str = "", index: str = "", total: str = "") -> None:
        self.types = types
        self.raw = raw
        self.index = index
        self.total = total
        self.element = ""
        self.boxed = False
        self.uses_index = False

    def bind(self, w: Writer, item: str, *, boxed: bool) -> None:
        """Take ``item`` as ``$this``; a boxed one gives its raw value a name of its own, which may be None."""
        if boxed:
            self.element = item
            self.raw = w.assign(f"{item}.value")
        else:
            self.element = ""
            self.raw = item
            w.present.add(item)


class This(Plan):
    """``$this`` of a scope."""

    def __init__(self, scope: Scope, *, source: str) -> None:
        super().__init__(scope.types, many=False, source=source)
        self.scope = scope

    def _boxed_name(self, w: Writer) -> str:
        scope = self.scope
        if scope.element:
            return scope.element
        if scope.types is None or len(scope.types) != 1 or is_primitive(scope.types[0]):
            # the loop that binds this scope was written with raw items: it is written again with boxed ones
            scope.boxed = w.again = True
        kind = scope.types[0] if scope.types and len(scope.types) == 1 else None
        box = f"{w.bind(Element)}({scope.raw}, {w.bind(kind)})"
        return box if scope.raw in w.present else f"{box} if {scope.raw} is not None else None"

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        if boxed:
            item = w.assign(self._boxed_name(w))
            with w.block(f"if {item} is not None:"):
                w.present.add(item)
                sink(item)
        elif self.scope.raw in w.present:
            sink(self.scope.raw)
        else:
            with w.block(f"if {self.scope.raw} is not None:"):
                sink(self.scope.raw)

    def single(self, w: Writer, *, boxed: bool = False) -> str:
        """See :meth:`Plan.single`."""
        return w.assign(self._boxed_name(w)) if boxed else self.scope.raw


class Value(Plan):
    """A value known while compiling."""

    def __init__(self, value: Any, type_name: str | None, *, source: str) -> None:
        super().__init__(None if type_name is None else (type_name,), many=False, source=source)
        self.value = value
        self.type = type_name

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        sink(self.single(w, boxed=boxed))

    def single(self, w: Writer, *, boxed: bool = False) -> str:
        """See :meth:`Plan.single`."""
        name = w.bind(Element(self.value, self.type) if boxed else self.value)
        w.present.add(name)
        return name


class Nothing(Plan):
    """``{}``."""

    def __init__(self, *, source: str) -> None:
        super().__init__((), many=False, source=source)

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
