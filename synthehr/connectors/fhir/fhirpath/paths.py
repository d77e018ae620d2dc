"""Steps along elements: names, choices, types, extensions and keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from synthehr.connectors.fhir.fhirpath import navigation
from synthehr.connectors.fhir.fhirpath.model import (
    BOOLEANS,
    INTEGERS,
    NUMBERS,
    ElementModel,
    is_primitive,
    json_key,
)
from synthehr.connectors.fhir.fhirpath.plan import Plan, Sink, Types, unboxed
from synthehr.connectors.fhir.fhirpath.values import Element, misplaced
from synthehr.connectors.fhir.fhirpath.writer import Writer

__all__ = ["Choice", "Extensions", "Member", "Produced", "ReferenceKey", "UnknownMember"]

LOOPS_IN_A_NEST = 6
"""Python nests at most 20 loops: a longer chain is gathered in a list and goes on from there."""

_NUMBER_TYPES = frozenset({int, float, Decimal})


def python_check(w: Writer, value: str, type_name: str) -> str | None:
    """An expression that is true if ``value`` (not None) is not the JSON that a primitive type is written as."""
    if not is_primitive(type_name):
        return None
    if type_name in BOOLEANS:
        return f"{value}.__class__ is not bool"
    if type_name in INTEGERS:
        return f"{value}.__class__ is not int"
    if type_name in NUMBERS:
        return f"{value}.__class__ not in {w.bind(_NUMBER_TYPES)}"
    return f"{value}.__class__ is not str"


class Step(Plan):
    """A step that looks into each item of ``base``."""

    def __init__(self, base: Plan, types: Types, *, many: bool) -> None:
        super().__init__(types, many=many or base.many, source=base.source)
        self.base = base
        self.loops: int = (base.loops if isinstance(base, Step) else 0) + 1

    def from_base(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """Write the loops over the base's items."""
        if self.base.many and self.loops % LOOPS_IN_A_NEST == 0:
            item = w.name()
            with w.block(f"for {item} in {self.base.collect(w, boxed=boxed)}:"):
                w.present.add(item)
                sink(item)
        else:
            self.base.emit(w, sink, boxed=boxed)


class Member(Step):
    """An element of one type: ``name`` of an R4 type, or a choice narrowed to one type."""

    def __init__(self, base: Plan, key: str, type_name: str, *, many: bool) -> None:
        super().__init__(base, (type_name,), many=many)
        self.key = key
        self.type = type_name
        self.own_many = many
        self.primitive = is_primitive(type_name)

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        if boxed and is_primitive(self.type):
            self._emit_primitives(w, sink)
            return

        def each(item: str) -> None:
            def give(value: str) -> None:
                w.present.add(value)
                sink(w.assign(f"{w.bind(Element)}({value}, {w.bind(self.type)})", present=True) if boxed else value)

            value = w.assign(f"{item}.get({w.bind(self.key)})")
            with w.block(f"if {value} is not None:"):
                if self.own_many:
                    self._refuse(w, f"{value}.__class__ is not list")
                    entry = w.name()
                    with w.block(f"for {entry} in {value}:"), w.block(f"if {entry} is not None:"):
                        self._refuse(w, python_check(w, entry, self.type))
                        give(entry)
                else:
                    self._refuse(w, python_check(w, value, self.type))
                    give(value)

        self.from_base(w, each, boxed=False)

    def _refuse(self, w: Writer, wrong: str | None) -> None:
        if wrong:
            w.line(f"if {wrong}: raise {w.bind(misplaced)}({w.bind(self.key)})")

    def _emit_primitives(self, w: Writer, sink: Sink) -> None:
        def each(item: str) -> None:
            found = w.name()
            arguments = f"{item}, {w.bind(self.key)}, {w.bind(self.type)}, {self.own_many}"
            with w.block(f"for {found} in {w.bind(navigation.primitives)}({arguments}):"):
                w.present.add(found)
                sink(found)

        self.from_base(w, each, boxed=False)

    def single(self, w: Writer, *, boxed: bool = False) -> str:
        """See :meth:`Plan.single`: a chain of elements that are no lists needs no blocks."""
        if self.many or (boxed and is_primitive(self.type)):
            return super().single(w, boxed=boxed)
        item = self.base.single(w)
        get = f"{item}.get({w.bind(self.key)})"
        value, new = w.pure(get if item in w.present else f"{get} if {item} is not None else None")
        wrong = python_check(w, value, self.type)
        if wrong and new:
            self._refuse(w, f"{wrong} and {value} is not None")
        if boxed:
            box = f"{w.bind(Element)}({value}, {w.bind(self.type)})"
            return w.assign(f"{box} if {value} is not None else None")
        return value


class Choice(Step):
    """An element of several possible types, such as value[x]: each has a JSON key of its own."""

    def __init__(self, base: Plan, name: str, types: tuple[str, ...]) -> None:
        super().__init__(base, types, many=False)
        self.name = name
        self.keys = tuple((json_key(name, type_name), type_name) for type_name in types)

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        give = sink if boxed else unboxed(w, sink)

        def each(item: str) -> None:
            found = w.assign(f"{w.bind(navigation.choice)}({item}, {w.bind(self.keys)})")
            with w.block(f"if {found} is not None:"):
                give(found)

        self.from_base(w, each, boxed=False)


class UnknownMember(Step):
    """An element of a parent whose type the expression does not tell, or one that R4 does not have."""

    def __init__(self, base: Plan, name: str) -> None:
        super().__init__(base, None, many=True)
        self.name = name

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        give = sink if boxed else unboxed(w, sink)

        def each(item: str) -> None:
            found = w.name()
            with w.block(f"for {found} in {w.bind(navigation.members)}({item}, {w.bind(self.name)}):"):
                w.present.add(found)
                give(found)

        self.from_base(w, each, boxed=True)


class Extensions(Step):
    """``extension(url)``: of resources and complex elements, and of primitives by their sibling object."""

    def __init__(self, base: Plan, url: Plan) -> None:
        super().__init__(base, ("Extension",), many=True)
        self.url = url

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        url = self.url.single(w)
        known = "" if url in w.present else f" and {url} is not None"
        boxed_base = self.base.types is None or any(is_primitive(name) for name in self.base.types)

        def each(item: str) -> None:
            found = w.name()
            holder = f"{w.bind(navigation.extension_holder)}({item})" if boxed_base else item
            with (
                w.block(f"for {found} in {holder}.get({w.bind('extension')}) or ():"),
                w.block(f"if {found}.get({w.bind('url')}) == {url}{known}:"),
            ):
                w.present.add(found)
                sink(w.assign(f"{w.bind(Element)}({found}, {w.bind('Extension')})", present=True) if boxed else found)

        self.from_base(w, each, boxed=boxed_base)


ReferenceReader = Callable[[Mapping[str, Any], str | None], str | None]
"""The key of the resource that a Reference names, if it is of the type asked for (None asks for any)."""


class ReferenceKey(Step):
    """``getReferenceKey(type)``."""

    def __init__(self, base: Plan, type_name: str | None, reader: ReferenceReader) -> None:
        super().__init__(base, ("System.String",), many=False)
        self.type = type_name
        self.reader = reader

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""

        def each(item: str) -> None:
            key = w.assign(f"{w.bind(self.reader)}({item}, {w.bind(self.type)})")
            with w.block(f"if {key} is not None:"):
                w.present.add(key)
                sink(w.assign(f"{w.bind(Element)}({key}, {w.bind('System.String')})") if boxed else key)

        self.from_base(w, each, boxed=False)


class Produced(Step):
    """Items that a function of this package makes of each boxed item: children(), descendants(), type()."""

    def __init__(self, base: Plan, function: Callable[[Element], list[Element]], *, many: bool) -> None:
        super().__init__(base, None, many=many)
        self.function = function

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        give = sink if boxed else unboxed(w, sink)

        def each(item: str) -> None:
            found = w.name()
            with w.block(f"for {found} in {w.bind(self.function)}({item}):"):
                w.present.add(found)
                give(found)

        self.from_base(w, each, boxed=True)


def member(base: Plan, found: ElementModel) -> Plan:
    """The step to an element that R4 has."""
    if found.choice:
        return Choice(base, found.name, found.types)
    return Member(base, found.name, found.types[0], many=found.many)
