"""The paths of a checked ViewDefinition compiled to plans, each with the scope that it is evaluated in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from synthehr.connectors.fhir.fhirpath.compiler import Compiler, Settings
from synthehr.connectors.fhir.fhirpath.model import BOOLEANS, INTEGERS, NUMBERS, is_primitive
from synthehr.connectors.fhir.fhirpath.plan import Plan, Scope, Types, family, merge
from synthehr.connectors.fhir.view_definition import ColumnDefinition, Definition, Path, SelectDefinition
from synthehr.errors import SchemaError

__all__ = ["PlannedColumn", "PlannedSelect", "ViewPlan", "kind_of"]

_SYSTEM_TYPES = {"Boolean", "Integer", "Decimal", "String", "Date", "DateTime", "Time"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedColumn:
    """A column with its path planned; ``type`` is the declared one, else the one that R4 tells, else None."""

    name: str
    plan: Plan
    type: str | None
    declared: str | None
    collection: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSelect:
    """A select with its paths planned; ``scope`` is the item that its columns are evaluated on."""

    outer: Scope
    scope: Scope
    counter: Scope
    through: Plan | None
    or_null: bool
    repeat: tuple[tuple[Scope, Plan], ...]
    columns: tuple[PlannedColumn, ...]
    selects: tuple[PlannedSelect, ...]
    union: tuple[PlannedSelect, ...]
    iterates: bool
    names: tuple[str, ...]

    def all_columns(self) -> Iterator[PlannedColumn]:
        """The columns in the order of the table."""
        yield from self.columns
        for select in self.selects:
            yield from select.all_columns()
        for same in zip(*(branch.all_columns() for branch in self.union), strict=True):
            yield _joined(same)


def _joined(columns: tuple[PlannedColumn, ...]) -> PlannedColumn:
    """The column that stands for those of a union's branches: the widest of their types.

    Raises:
        SchemaError: R4 gives them types that no one column can hold.
    """
    known = [column for column in columns if column.type is not None]
    kinds = {kind_of(str(column.type)) for column in known}
    if len(kinds) > 1 and kinds != {"integer", "number"}:
        types = " and ".join(dict.fromkeys(str(column.type) for column in known))
        raise SchemaError(f"{columns[0].plan.source}: the branches of the unionAll give {types}")
    wide = (column for column in known if kind_of(str(column.type)) != "integer")
    return next(wide, known[0] if known else columns[0])


class ViewPlan:
    """All plans of a view.

    Raises:
        SchemaError: a path uses what is not supported, or gives what its column cannot hold.
    """

    def __init__(self, definition: Definition, settings: Settings) -> None:
        self.settings = settings
        self.resource = Scope((definition.resource,))
        self.where = [self.plan(path, self.resource, Scope(None, index="0")) for path in definition.where]
        for where in self.where:
            if where.types and family(where.types) != "boolean" and "boolean" not in where.types:
                raise SchemaError(f"{where.source} must be a boolean, not {' or '.join(where.types)}")
        self.select = self.planned(definition.select, self.resource, Scope(None, index="0"))

    def plan(self, path: Path, scope: Scope, counter: Scope) -> Plan:
        """The plan of one path; ``counter`` has the %rowIndex that it sees."""
        self.settings.row_counter = counter
        return Compiler(path.label, scope, self.resource, self.settings).plan(path.tree)

    def planned(self, select: SelectDefinition, outer: Scope, counter: Scope) -> PlannedSelect:
        """A select, evaluated on the item of ``outer``."""
        path = select.each or select.each_or_null
        through = self.plan(path, outer, counter) if path else None
        repeat = self.repeated(select.repeat, outer, counter) if select.repeat else ()
        scope = outer
        if through is not None or repeat:
            scope = Scope(through.types if through else merge(*(one.types for _, one in repeat)))
            counter = Scope(None)
        return PlannedSelect(
            outer=outer,
            scope=scope,
            counter=counter,
            through=through,
            or_null=select.each_or_null is not None,
            repeat=repeat,
            columns=tuple(self.column(one, scope, counter) for one in select.columns),
            selects=tuple(self.planned(one, scope, counter) for one in select.selects),
            union=tuple(self.planned(one, scope, counter) for one in select.union),
            iterates=select.iterates,
            names=tuple(column.name for column in select.all_columns()),
        )

    def repeated(self, paths: tuple[Path, ...], outer: Scope, counter: Scope) -> tuple[tuple[Scope, Plan], ...]:
        """The paths of ``repeat``: evaluated on the outer item, then on all that they give, so with all those types."""

        def planned(types: Types) -> list[tuple[Scope, Plan]]:
            scopes = [Scope(types) for _ in paths]
            return [(scope, self.plan(path, scope, counter)) for scope, path in zip(scopes, paths, strict=True)]

        compiler = Compiler("", outer, self.resource, self.settings)
        types = compiler.widened(outer.types, lambda types: merge(*(plan.types for _, plan in planned(types))))
        return tuple(planned(types))

    def column(self, column: ColumnDefinition, scope: Scope, counter: Scope) -> PlannedColumn:
        """A column, its declared type held against the one that R4 tells."""
        plan = self.plan(column.path, scope, counter)
        known = _known_type(plan)
        if column.type is not None and not _fits(column.type, plan):
            raise SchemaError(
                f"{plan.source} gives {' or '.join(plan.types or ())}, and type {column.type} is declared"
            )
        if column.type is None and plan.types and len({kind_of(name) for name in plan.types}) > 1:
            raise SchemaError(f"{plan.source} gives {' or '.join(plan.types)}: choose one by ofType(…)")
        if column.type is None and plan.types and not is_simple(plan.types[0]):
            raise SchemaError(
                f"{plan.source} gives {' or '.join(plan.types)}, which is no single value: go on to an element of it, "
                "or declare its type"
            )
        return PlannedColumn(
            name=column.name, plan=plan, type=column.type or known, declared=column.type, collection=column.collection
        )


def is_simple(name: str) -> bool:
    return is_primitive(name) or (name.startswith("System.") and name != "System.Quantity")


def _known_type(plan: Plan) -> str | None:
    """The FHIR type of a column whose type R4 tells."""
    if not plan.types or len(plan.types) != 1:
        return None
    name = plan.types[0].removeprefix("System.")
    return name[0].lower() + name[1:] if name in _SYSTEM_TYPES else name


def kind_of(name: str) -> str:
    """How a type is kept in a cell: boolean, integer, number, text, or object."""
    for kind, members in (("boolean", BOOLEANS), ("integer", INTEGERS), ("number", NUMBERS)):
        if name in members:
            return kind
    return "text" if is_simple(name) else "object"


def _fits(declared: str, plan: Plan) -> bool:
    if not plan.types:
        return True
    wanted = kind_of(declared)
    found = {kind_of(name) for name in plan.types}
    return wanted in found or (wanted == "number" and "integer" in found)
