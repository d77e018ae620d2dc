"""Steps over whole collections: filters, subsets, projections, unions, and choices between branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from synthehr.connectors.fhir.fhirpath import navigation
from synthehr.connectors.fhir.fhirpath.model import is_primitive
from synthehr.connectors.fhir.fhirpath.paths import Member
from synthehr.connectors.fhir.fhirpath.plan import Plan, Scope, Sink, Types, may_lack_value, merge, unboxed
from synthehr.connectors.fhir.fhirpath.sets import repeated
from synthehr.connectors.fhir.fhirpath.values import Element
from synthehr.connectors.fhir.fhirpath.writer import Writer
from synthehr.errors import DataError

__all__ = [
    "Aggregate",
    "All",
    "Exists",
    "If",
    "Joined",
    "ListFunction",
    "OfType",
    "Only",
    "Repeat",
    "Select",
    "Subset",
    "Where",
]


def loop_over(w: Writer, items: str, sink: Sink) -> None:
    """Write a loop over a list variable."""
    item = w.name()
    with w.block(f"for {item} in {items}:"):
        w.present.add(item)
        sink(item)


def each_bound(base: Plan, scope: Scope, w: Writer, body: Sink, *, boxed: bool) -> None:
    """Write the loop over ``base`` with ``scope`` bound to each item, boxed if the body or the caller needs it."""
    need = boxed or scope.boxed or (scope.uses_index and may_lack_value(base.types))
    counter = ""
    if scope.uses_index:
        counter = w.assign("-1", present=True)

    def each(item: str) -> None:
        outer = scope.raw, scope.element, scope.index
        if counter:
            w.line(f"{counter} += 1")
            scope.index = counter
        scope.bind(w, item, boxed=need)
        body(item)
        scope.raw, scope.element, scope.index = outer

    base.emit(w, each, boxed=need)


class Where(Plan):
    """``base.where(condition)``."""

    def __init__(self, base: Plan, scope: Scope, condition: Plan) -> None:
        super().__init__(base.types, many=base.many, source=base.source)
        self.base, self.scope, self.criterion = base, scope, condition

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""

        def body(item: str) -> None:
            raw = self.scope.raw
            with w.block(f"if {self.criterion.condition(w)}:"):
                if boxed or raw in w.present:
                    sink(item if boxed else raw)
                else:
                    with w.block(f"if {raw} is not None:"):
                        sink(raw)

        each_bound(self.base, self.scope, w, body, boxed=boxed)


class Select(Plan):
    """``base.select(projection)``."""

    def __init__(self, base: Plan, scope: Scope, projection: Plan) -> None:
        super().__init__(projection.types, many=base.many or projection.many, source=base.source)
        self.base, self.scope, self.projection = base, scope, projection

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        each_bound(
            self.base,
            self.scope,
            w,
            lambda _item: self.projection.emit(w, sink, boxed=boxed),
            boxed=may_lack_value(self.base.types),
        )


_SLICES: dict[str, Callable[[list[Any], int], list[Any]]] = {
    "index": lambda items, n: items[n : n + 1] if n >= 0 else [],
    "skip": lambda items, n: items[max(n, 0) :],
    "take": lambda items, n: items[: max(n, 0)],
}

_FIXED_SLICES = {"last": "[-1:]", "tail": "[1:]"}


def sliced(items: list[Any], number: Any, kind: str) -> list[Any]:
    """``items`` cut by index, skip or take; none if the number is missing.

    Raises:
        DataError: the number is no integer.
    """
    if number is None:
        return []
    if type(number) is not int:
        raise DataError("a FHIRPath expression needs an integer as index, for skip() or for take()")
    return _SLICES[kind](items, number)


class Subset(Plan):
    """A part of the items by position: first, last, tail; index, skip and take with a number."""

    def __init__(self, base: Plan, kind: str, number: Plan | None = None) -> None:
        super().__init__(base.types, many=base.many and kind not in ("first", "last", "index"), source=base.source)
        self.base, self.kind, self.number = base, kind, number

    @property
    def _counts_boxes(self) -> bool:
        """Whether a place counts items that raw lists lack: primitives with extensions alone."""
        return may_lack_value(self.base.types)

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        if not self.base.many and self.kind in ("first", "last"):
            self.base.emit(w, sink, boxed=boxed)
            return
        inner = boxed or self._counts_boxes
        give = sink if boxed or not inner else unboxed(w, sink)
        if self.kind == "first":
            found = self._first(w, self.base, boxed=inner)
            with w.block(f"if {found} is not None:"):
                w.present.add(found)
                give(found)
                w.present.discard(found)
            return
        items = self.base.collect(w, boxed=inner)
        if self.number is None:
            loop_over(w, f"{items}{_FIXED_SLICES[self.kind]}", give)
        else:
            number = self.number.own_single(w)
            loop_over(w, f"{w.bind(sliced)}({items}, {number}, {w.bind(self.kind)})", give)

    def single(self, w: Writer, *, boxed: bool = False) -> str:
        """See :meth:`Plan.single`."""
        if self.kind in ("first", "last") and not self.base.many:
            return self.base.single(w, boxed=boxed)
        if self.kind == "first" and boxed >= self._counts_boxes:
            return self._first(w, self.base, boxed=boxed)
        return super().single(w, boxed=boxed)

    def _first(self, w: Writer, base: Plan, *, boxed: bool) -> str:
        """Write the variable of the first item of ``base``, or None, without a list of them all."""
        out = w.assign("None")
        if isinstance(base, Joined):
            # the later parts run only where the earlier ones give nothing
            for part in base.parts:
                with w.block(f"if {out} is None:"):
                    w.line(f"{out} = {self._first(w, part, boxed=boxed)}")
            return out
        direct = isinstance(base, Member) and base.own_many and not base.base.many and (not boxed or not base.primitive)

        def take(item: str) -> None:
            if direct:
                w.line(f"{out} = {item}")
                w.line("break")
            else:
                w.line(f"if {out} is None: {out} = {item}")

        base.emit(w, take, boxed=boxed)
        return out


class Only(Plan):
    """single(): the only item; several raise. ``as(type)`` keeps it if it is of the type."""

    def __init__(self, base: Plan, types: Types) -> None:
        super().__init__(types, many=False, source=base.source)
        self.base = base

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        item = self.single(w, boxed=boxed)
        with w.block(f"if {item} is not None:"):
            w.present.add(item)
            sink(item)

    def single(self, w: Writer, *, boxed: bool = False) -> str:
        """See :meth:`Plan.single`."""
        return self.base.single(w, boxed=boxed)


class OfType(Plan):
    """The items of a type; used where only the record tells the type."""

    def __init__(self, base: Plan, type_name: str) -> None:
        super().__init__((type_name,), many=base.many, source=base.source)
        self.base, self.type = base, type_name

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        give = sink if boxed else unboxed(w, sink)

        def each(item: str) -> None:
            with w.block(f"if {w.bind(navigation.is_of)}({item}, {w.bind(self.type)}, exact=True):"):
                give(item)

        self.base.emit(w, each, boxed=True)


class Exists(Plan):
    """exists() or empty(): whether there is any item, one with extensions alone too."""

    def __init__(self, base: Plan, *, wanted: bool) -> None:
        super().__init__(("System.Boolean",), many=False, source=base.source)
        self.base, self.wanted = base, wanted

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        found = self.single(w)
        sink(w.assign(f"{w.bind(Element)}({found}, 'System.Boolean')", present=True) if boxed else found)

    def condition(self, w: Writer) -> str:
        """See :meth:`Plan.condition`."""
        base = self.base
        if isinstance(base, Member) and not base.many:
            item = base.base.single(w)
            keys = [base.key, "_" + base.key] if is_primitive(base.type) else [base.key]
            there = " or ".join(f"{item}.get({w.bind(key)}) is not None" for key in keys)
            absent = "" if item in w.present else f"{item} is not None and "
            return f"({absent}({there}))" if self.wanted else f"(not ({absent}({there})))"
        primitive = base.types is None or any(is_primitive(name) for name in base.types)
        found = w.assign("False", present=True)
        base.emit(w, lambda _item: w.line(f"{found} = True"), boxed=primitive)
        return found if self.wanted else f"(not {found})"

    def single(self, w: Writer, *, boxed: bool = False) -> str:
        """See :meth:`Plan.single`."""
        found = w.assign(self.condition(w), present=True)
        return w.assign(f"{w.bind(Element)}({found}, 'System.Boolean')", present=True) if boxed else found


class All(Plan):
    """all(condition): whether the condition is true of every item."""

    def __init__(self, base: Plan, scope: Scope, condition: Plan) -> None:
        super().__init__(("System.Boolean",), many=False, source=base.source)
        self.base, self.scope, self.criterion = base, scope, condition

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        out = w.assign("True", present=True)

        def body(_item: str) -> None:
            with w.block(f"if not ({self.criterion.condition(w)}):"):
                w.line(f"{out} = False")

        each_bound(self.base, self.scope, w, body, boxed=may_lack_value(self.base.types))
        sink(w.assign(f"{w.bind(Element)}({out}, 'System.Boolean')", present=True) if boxed else out)


class If(Plan):
    """iif(condition, then, otherwise): only the branch taken is evaluated."""

    def __init__(self, condition: Plan, then: Plan, otherwise: Plan) -> None:
        super().__init__(merge(then.types, otherwise.types), many=then.many or otherwise.many, source=condition.source)
        self.criterion, self.then, self.otherwise = condition, then, otherwise

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        out = w.assign("[]", present=True)
        for head, branch in ((f"if {self.criterion.condition(w)}:", self.then), ("else:", self.otherwise)):
            with w.block(head):
                branch.emit(w, lambda item: w.line(f"{out}.append({item})"), boxed=boxed)
        loop_over(w, out, sink)


class Joined(Plan):
    """Several plans' items, one after the other: combine(), and what union and the set functions start from."""

    def __init__(self, *parts: Plan, source: str) -> None:
        super().__init__(merge(*(part.types for part in parts)), many=True, source=source)
        self.parts = parts

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        out = w.assign("[]", present=True)
        for part in self.parts:
            part.emit(w, lambda item: w.line(f"{out}.append({item})"), boxed=boxed)
        loop_over(w, out, sink)


class Repeat(Plan):
    """repeat(projection): the projection of the items, of what that gave, and so on, each value once."""

    def __init__(self, base: Plan, scope: Scope, projection: Plan, types: Types) -> None:
        super().__init__(types, many=True, source=base.source)
        self.base, self.scope, self.projection = base, scope, projection

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        give = sink if boxed else unboxed(w, sink)
        step, item = w.name("f"), w.name()
        items = self.base.collect(w, boxed=True)
        self.scope.boxed = True
        with w.block(f"def {step}({item}):"):
            outer = self.scope.raw, self.scope.element
            self.scope.bind(w, item, boxed=True)
            w.line(f"return {self.projection.collect(w, boxed=True)}")
            self.scope.raw, self.scope.element = outer

        def each(found: str) -> None:
            give(found)

        loop_over(w, f"{w.bind(repeated)}({items}, {step})", each)


class Aggregate(Plan):
    """aggregate(aggregator, start): ``$total`` carried over the items."""

    def __init__(self, base: Plan, scope: Scope, aggregator: Plan, start: Plan | None) -> None:
        super().__init__(None, many=False, source=base.source)
        self.base, self.scope, self.aggregator, self.start = base, scope, aggregator, start

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        total = w.assign(self.start.own_single(w) if self.start else "None")
        outer, self.scope.total = self.scope.total, total
        each_bound(
            self.base,
            self.scope,
            w,
            lambda _item: w.line(f"{total} = {self.aggregator.own_single(w)}"),
            boxed=may_lack_value(self.base.types),
        )
        self.scope.total = outer
        with w.block(f"if {total} is not None:"):
            sink(w.assign(f"{w.bind(Element)}({total}, None)", present=True) if boxed else total)


class ListFunction(Plan):
    """A function of this package over the list of boxed items, and over lists of boxed items as arguments."""

    def __init__(
        self,
        function: Callable[..., Any],
        base: Plan,
        *arguments: Plan,
        types: Types,
        many: bool,
    ) -> None:
        super().__init__(types, many=many, source=base.source)
        self.function, self.base, self.arguments = function, base, arguments

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        give = sink if boxed else unboxed(w, sink)
        lists = [part.collect(w, boxed=True) for part in (self.base, *self.arguments)]
        call = f"{w.bind(self.function)}({', '.join(lists)})"
        if not self.many:
            found = w.assign(call)
            with w.block(f"if {found} is not None:"):
                w.present.add(found)
                kind = self.types[0] if self.types else None
                sink(w.assign(f"{w.bind(Element)}({found}, {w.bind(kind)})", present=True) if boxed else found)
            return

        def each(item: str) -> None:
            give(item)

        loop_over(w, call, each)
