"""Steps of their own kind: names of a loop, the present, sort()."""

from __future__ import annotations

from synthehr.connectors.fhir.fhirpath import sets, temporal
from synthehr.connectors.fhir.fhirpath.collections import each_bound, loop_over
from synthehr.connectors.fhir.fhirpath.operators import Test
from synthehr.connectors.fhir.fhirpath.plan import Plan, Scope, Sink, Types, unboxed
from synthehr.connectors.fhir.fhirpath.writer import Writer

__all__ = ["Bound", "Moment", "Named", "Sorted"]


class Named(Test):
    """``$index`` and ``$total`` of a loop, and ``%rowIndex`` of the rows of a view."""

    def __init__(self, scope: Scope, name: str, types: Types, *, source: str) -> None:
        super().__init__(source=source, types=types)
        self.scope, self.name = scope, name

    def value(self, w: Writer) -> str:
        """See :meth:`Test.value`."""
        # a copy: the loop goes on changing its own
        return w.assign(str(getattr(self.scope, self.name)) or "None")


class Bound(Plan):
    """A plan with ``$this`` bound to the only item of another, or to nothing: ``base.iif(…)``."""

    def __init__(self, base: Plan, scope: Scope, body: Plan) -> None:
        super().__init__(body.types, many=body.many, source=body.source)
        self.base, self.scope, self.body = base, scope, body

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        if self.scope.boxed:
            self.scope.element = self.base.single(w, boxed=True)
            self.scope.raw = w.assign(f"{self.scope.element}.value if {self.scope.element} is not None else None")
        else:
            self.scope.raw = self.base.single(w)
        self.body.emit(w, sink, boxed=boxed)


class Moment(Test):
    """now(), today(), timeOfDay()."""

    def __init__(self, kind: str, *, source: str) -> None:
        super().__init__(source=source, types=(f"System.{kind}",))
        self.kind = kind

    def value(self, w: Writer) -> str:
        """See :meth:`Test.value`."""
        return w.assign(f"{w.bind(temporal.now)}({w.bind(self.kind)})", present=True)


class Sorted(Plan):
    """sort(keys): by the items themselves, or by keys; a key with a minus before it counts down."""

    def __init__(self, base: Plan, scope: Scope, keys: tuple[Plan, ...], descending: tuple[bool, ...]) -> None:
        super().__init__(base.types, many=base.many, source=base.source)
        self.base, self.scope, self.keys, self.descending = base, scope, keys, descending

    def emit(self, w: Writer, sink: Sink, *, boxed: bool) -> None:
        """See :meth:`Plan.emit`."""
        give = sink if boxed else unboxed(w, sink)
        rows = w.assign("[]", present=True)

        def body(item: str) -> None:
            keys = [key.own_single(w) for key in self.keys]
            w.line(f"{rows}.append(({item}, ({', '.join(keys)},)))")

        each_bound(self.base, self.scope, w, body, boxed=True)

        def each(item: str) -> None:
            give(item)

        loop_over(w, f"{w.bind(sets.sort)}({rows}, {w.bind(self.descending)})", each)
