"""From a planned view to the one Python function that makes the rows of a resource."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from synthehr.connectors.fhir.fhirpath.compiled import guarded
from synthehr.connectors.fhir.fhirpath.compiler import Settings
from synthehr.connectors.fhir.fhirpath.model import is_primitive
from synthehr.connectors.fhir.fhirpath.plan import Scope, This, family, may_lack_value
from synthehr.connectors.fhir.fhirpath.special import Named
from synthehr.connectors.fhir.fhirpath.values import Element, plain
from synthehr.connectors.fhir.fhirpath.writer import Writer
from synthehr.connectors.fhir.view_definition import Definition
from synthehr.connectors.fhir.view_plan import PlannedColumn, PlannedSelect, ViewPlan, kind_of
from synthehr.errors import DataError

__all__ = ["PlannedView", "plan_view"]

Row = tuple[Any, ...]

MAX_ROWS = 100_000
"""Most rows that a resource may make: loops beside each other multiply, and one record must not fill the memory."""

_READY = frozenset({"System.Boolean", "System.Integer", "System.Decimal", "System.String"})
"""System types whose values are cells as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedView:
    """The function of a view, and the type of each column as far as it is declared or known."""

    rows: Callable[[Any], list[Row]]
    types: tuple[str | None, ...]
    unknown: tuple[str, ...]
    needs_exact_decimals: bool


_PYTHON_KINDS: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda value: type(value) is bool,
    "integer": lambda value: type(value) is int,
    "number": lambda value: not isinstance(value, bool | str | dict | list),
    "text": lambda value: type(value) is str,
    "object": lambda value: type(value) is dict,
}


def _cell(value: Any, kind: str | None, label: str) -> Any:
    """A value as its cell holds it.

    Raises:
        DataError: it is not of the declared kind, or is an object where none is declared.
    """
    value = plain(value)
    if type(value) is list or not (_PYTHON_KINDS[kind](value) if kind else type(value) is not dict):
        raise DataError(f"{label} gives a value that its column cannot hold: it is no {kind or 'single value'}")
    return value


# -- writing -----------------------------------------------------------------------------------------------------------

Continuation = Callable[[], None]


@dataclass(slots=True)
class _RowWriter:
    w: Writer
    cells: dict[str, str] = field(default_factory=dict)

    def columns(self, select: PlannedSelect) -> None:
        for column in select.columns:
            self.cells[column.name] = self.cell(column)

    def cell(self, column: PlannedColumn) -> str:
        w, plan = self.w, column.plan
        kinds = {kind_of(name) for name in plan.types or ()}
        sure = bool(plan.types) and all(is_primitive(name) or name in _READY for name in plan.types or ())
        sure = sure and (column.declared is None or kinds == {kind_of(column.declared)})
        kind = kind_of(column.declared) if column.declared else None
        call = f"{w.bind(_cell)}({{}}, {w.bind(kind)}, {w.bind(plan.source)})"
        if column.collection:
            items = plan.collect(w)
            return items if sure else w.assign(f"[{call.format('one')} for one in {items}]")
        item = plan.single(w)
        return item if sure else w.assign(f"{call.format(item)} if {item} is not None else None")

    def rows(self, select: PlannedSelect, then: Continuation) -> None:
        """Write the rows of a select: ``then`` is written once, where each row is complete."""
        if select.or_null and (select.selects or select.union):
            self.gathered(select, then)
        elif select.or_null:
            self.each_or_null(select, then)
        elif select.through is not None:
            self.each(select, lambda: self.inside(select, then))
        elif select.repeat:
            self.repeat(select, lambda: self.inside(select, then))
        else:
            self.inside(select, then)

    def inside(self, select: PlannedSelect, then: Continuation) -> None:
        """Write own columns, then selects of one row, then loops: the last part goes round slowest."""
        self.columns(select)
        for one in select.selects:
            if not one.iterates:
                self.inside(one, lambda: None)
        parts: list[Callable[[Continuation], None]] = [
            lambda following, part=one: self.rows(part, following)  # type: ignore[misc]
            for one in select.selects
            if one.iterates
        ]
        if select.union:
            parts.append(lambda following: self.united(select, following))
        chain = then
        for part in parts:
            chain = functools.partial(part, chain)
        chain()

    def each(self, select: PlannedSelect, body: Continuation) -> None:
        """Write the loop of a forEach."""
        w, scope = self.w, select.scope
        assert select.through is not None
        counter = w.assign("-1", present=True) if select.counter.uses_index else ""

        def item(name: str) -> None:
            if counter:
                w.line(f"{counter} += 1")
                select.counter.index = counter
            scope.bind(w, name, boxed=boxed)
            body()

        # a primitive with extensions alone is an item too: it makes a row without its value
        boxed = scope.boxed or may_lack_value(scope.types)
        select.through.emit(w, item, boxed=boxed)

    def each_or_null(self, select: PlannedSelect, then: Continuation) -> None:
        w, scope = self.w, select.scope
        assert select.through is not None
        boxed = scope.boxed or may_lack_value(scope.types)
        items = select.through.collect(w, boxed=boxed)
        item = w.name()
        cells = {column.name: w.name() for column in select.columns}
        counter = w.assign("-1", present=True) if select.counter.uses_index else ""
        with w.block(f"for {item} in {items} or (None,):"):
            if counter:
                w.line(f"{counter} += 1")
                select.counter.index = counter
            with w.block(f"if {item} is None:"):
                w.line(f"{''.join(cells[name] + ', ' for name in select.names)}= {self.null_row(select)}")
            with w.block("else:"):
                scope.bind(w, item, boxed=boxed)
                for column in select.columns:
                    w.line(f"{cells[column.name]} = {self.cell(column)}")
            self.cells.update(cells)
            then()

    def repeat(self, select: PlannedSelect, body: Continuation) -> None:
        w, found, step, item = self.w, self.w.assign("[]", present=True), self.w.name("f"), self.w.name()
        with w.block(f"def {step}({item}):"):
            for scope, plan in select.repeat:
                scope.boxed = True
                scope.bind(w, item, boxed=True)
                child = w.name()
                with w.block(f"for {child} in {plan.collect(w, boxed=True)}:"):
                    w.line(f"{found}.append({child})")
                    w.line(f"{step}({child})")
        w.line(f"{step}({This(select.outer, source='').single(w, boxed=True)})")
        counter = w.assign("-1", present=True) if select.counter.uses_index else ""
        one = w.name()
        with w.block(f"for {one} in {found}:"):
            if counter:
                w.line(f"{counter} += 1")
                select.counter.index = counter
            select.scope.bind(w, one, boxed=True)
            body()

    def gathered(self, select: PlannedSelect, then: Continuation) -> None:
        """Write a forEachOrNull with rows inside: they are listed first, as no item at all gives a row too."""
        w, rows, some = self.w, self.w.assign("[]", present=True), self.w.assign("False", present=True)

        def body() -> None:
            w.line(f"{some} = True")
            self.inside(select, lambda: self.append(rows, select.names))

        self.each(select, body)
        with w.block(f"if not {some}:"):
            w.line(f"{rows}.append({self.null_row(select)})")
        self.go_over(rows, select.names, then)

    def united(self, select: PlannedSelect, then: Continuation) -> None:
        """Write a unionAll: the rows of its branches are listed first."""
        rows, names = self.w.assign("[]", present=True), select.union[0].names
        for branch in select.union:
            self.rows(branch, lambda: self.append(rows, names))
        self.go_over(rows, names, then)

    def append(self, rows: str, names: tuple[str, ...]) -> None:
        """Write that the row that is complete here joins a list."""
        self.w.line(f"{rows}.append(({''.join(self.cells[name] + ', ' for name in names)}))")
        self.w.line(f"if len({rows}) > {MAX_ROWS}: raise {self.w.bind(_too_many)}()")

    def go_over(self, rows: str, names: tuple[str, ...], then: Continuation) -> None:
        """Write the loop over a list of rows."""
        fresh = {name: self.w.name() for name in names}
        with self.w.block(f"for {''.join(fresh[name] + ', ' for name in names)}in {rows}:"):
            self.cells.update(fresh)
            then()

    def null_row(self, select: PlannedSelect) -> str:
        """The row of a forEachOrNull without items: 0 for its %rowIndex, and else nothing."""
        zero = {column.name for column in _with_counter(select, select.counter)}
        return f"({''.join(('0' if name in zero else 'None') + ', ' for name in select.names)})"


def _too_many() -> DataError:
    return DataError(f"a resource makes more than {MAX_ROWS} rows of a view: drop it or take a loop out of the view")


def _with_counter(select: PlannedSelect, counter: Scope) -> Iterator[PlannedColumn]:
    for column in select.columns:
        if isinstance(column.plan, Named) and column.plan.scope is counter:
            yield column
    for one in (*select.selects, *select.union):
        yield from _with_counter(one, counter)


def _holds(value: Any, label: str) -> bool:
    """Whether a where of a type that R4 does not tell is true.

    Raises:
        DataError: it is no boolean.
    """
    if value is not None and type(value) is not bool:
        raise DataError(f"{label} must be a boolean, and a record gives something else")
    return value is True


def _written(planner: ViewPlan, names: tuple[str, ...]) -> Writer:
    """The body of the function; ``again`` of it says that a loop must give its steps other items."""
    resource, w = planner.resource, Writer()
    resource.raw, resource.element = "r", ""
    w.present.add("r")
    if resource.boxed:
        kind = resource.types[0] if resource.types else None
        resource.element = w.assign(f"{w.bind(Element)}(r, {w.bind(kind)})", present=True)
    for where in planner.where:
        if family(where.types) == "boolean":
            head = f"if not ({where.condition(w)}):"
        else:
            head = f"if not {w.bind(_holds)}({where.single(w)}, {w.bind(where.source)}):"
        with w.block(head):
            w.line("return ()")
    rows, out = _RowWriter(w), w.assign("[]", present=True)
    rows.rows(planner.select, lambda: rows.append(out, names))
    w.line(f"return {out}")
    return w


def plan_view(definition: Definition, settings: Settings) -> PlannedView:
    """The function of a view.

    Raises:
        SchemaError: a path uses what is not supported, or gives what its column cannot hold.
    """
    planner = ViewPlan(definition, settings)
    names = tuple(column.name for column in definition.select.all_columns())
    w = _written(planner, names)
    while w.again:
        w = _written(planner, names)
    run = w.function("r")
    return PlannedView(
        rows=guarded(run, f"view '{definition.name}'"),
        types=tuple(column.type for column in planner.select.all_columns()),
        unknown=tuple(settings.unknown),
        needs_exact_decimals=settings.needs_exact_decimals,
    )
