"""From tree to plan: what every name, operator and function of an expression means, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

from synthehr.connectors.fhir.fhirpath import navigation, sets, syntax, temporal
from synthehr.connectors.fhir.fhirpath.collections import (
    Joined,
    ListFunction,
    OfType,
    Only,
    Subset,
)
from synthehr.connectors.fhir.fhirpath.functions import build
from synthehr.connectors.fhir.fhirpath.model import (
    ancestors,
    choice_of_key,
    element,
    is_primitive,
    is_type,
    json_key,
)
from synthehr.connectors.fhir.fhirpath.operators import Arithmetic, Contained, Equality, IsType, Logic, Order
from synthehr.connectors.fhir.fhirpath.paths import (
    Choice,
    Member,
    Produced,
    ReferenceReader,
    UnknownMember,
    member,
)
from synthehr.connectors.fhir.fhirpath.plan import Nothing, Plan, Scope, This, Types, Value, merge
from synthehr.connectors.fhir.fhirpath.quantity import Quantity
from synthehr.connectors.fhir.fhirpath.special import Named
from synthehr.errors import SchemaError

__all__ = ["Compiler", "Constants", "Settings"]

Built = TypeVar("Built")

Constants = Mapping[str, tuple[Any, str | None]]
"""Value and type of each ``%name``; a type of None is taken from the value."""

ENVIRONMENT = {
    "ucum": "http://unitsofmeasure.org",
    "sct": "http://snomed.info/sct",
    "loinc": "http://loinc.org",
}

REFUSED = {
    "trace": "it would write values of patients to a log",
    "resolve": "a view sees one resource at a time",
    "memberOf": "it needs a terminology server",
    "subsumes": "it needs a terminology server",
    "subsumedBy": "it needs a terminology server",
    "conformsTo": "it needs a validator of profiles",
    "htmlChecks": "it needs a validator of narratives",
    "elementDefinition": "it needs profiles",
    "slice": "it needs profiles",
    "checkModifiers": "it needs profiles",
    "defineVariable": "give the expression in full instead",
}
"""Functions of FHIRPath that are known and refused, each with its reason."""


@dataclass(kw_only=True)
class Settings:
    """What an expression is compiled for."""

    constants: Constants
    strict: bool = False
    reference_reader: ReferenceReader = navigation.reference_key
    row_counter: Scope | None = None
    unknown: list[str] = field(default_factory=list)
    needs_exact_decimals: bool = False


class Compiler:
    """Plans of one expression. ``root`` is the scope of the item that it is evaluated on; ``source`` names it."""

    def __init__(self, source: str, root: Scope, resource: Scope, settings: Settings) -> None:
        self.source = source
        self.root = root
        self.resource = resource
        self.settings = settings
        self.scopes = [root]
        self.iterating = [root]
        self._planners: dict[type, Callable[[Any], Plan]] = {
            syntax.Literal: self.literal,
            syntax.Empty: lambda _: Nothing(source=source),
            syntax.Variable: lambda tree: self.variable(tree.name),
            syntax.Constant: lambda tree: self.constant(tree.name),
            syntax.Member: self.member,
            syntax.Index: self.index,
            syntax.Unary: self.unary,
            syntax.TypeOperation: lambda tree: self.type_operation(tree.operator, self.plan(tree.operand), tree.type),
            syntax.Binary: lambda tree: self.binary(tree.operator, self.plan(tree.left), self.plan(tree.right)),
            syntax.Call: self.call,
        }

    def refuse(self, why: str) -> SchemaError:
        """The error for this expression."""
        return SchemaError(f"{self.source}: {why}")

    def this(self) -> Plan:
        """``$this``."""
        return This(self.scopes[-1], source=self.source)

    def plan(self, tree: syntax.Expression) -> Plan:
        """The plan of a tree.

        Raises:
            SchemaError: it uses what is not supported, or what R4's types rule out.
        """
        return self._planners[type(tree)](tree)

    def index(self, tree: syntax.Index) -> Plan:
        """``[n]``."""
        number = self.plan(tree.index)
        number.require("integer", what="[ ]")
        return Subset(self.ordered(self.plan(tree.base), "[ ]"), "index", number)

    # -- leaves --------------------------------------------------------------------------------------------------------

    def literal(self, tree: syntax.Literal) -> Plan:
        """The value that a literal writes."""
        return Value(literal_value(tree, self.refuse), f"System.{tree.type}", source=self.source)

    def variable(self, name: str) -> Plan:
        """``$this``, ``$index``, ``$total``."""
        if name == "this":
            return self.this()
        scope = self.iterating[-1]
        if scope is self.root:
            raise self.refuse(f"${name} stands outside of a function that goes through items")
        if name == "index":
            scope.uses_index = True
            return Named(scope, "index", ("System.Integer",), source=self.source)
        return Named(scope, "total", None, source=self.source)

    def constant(self, name: str) -> Plan:
        """``%name``."""
        if name in self.settings.constants:
            value, type_name = self.settings.constants[name]
            return Value(value, type_name, source=self.source)
        if name in ("context", "resource", "rootResource"):
            return This(self.root if name == "context" else self.resource, source=self.source)
        if name == "rowIndex" and self.settings.row_counter is not None:
            self.settings.row_counter.uses_index = True
            return Named(self.settings.row_counter, "index", ("System.Integer",), source=self.source)
        text = ENVIRONMENT.get(name)
        for prefix, folder in (("vs-", "ValueSet"), ("ext-", "StructureDefinition")):
            if name.startswith(prefix):
                text = f"http://hl7.org/fhir/{folder}/{name.removeprefix(prefix)}"
        if text is None:
            raise self.refuse(f"the constant %{name} is not defined")
        return Value(text, "System.String", source=self.source)

    # -- paths ---------------------------------------------------------------------------------------------------------

    def member(self, tree: syntax.Member) -> Plan:
        """A name: an element, or at the head of a path the type of the resource itself."""
        if tree.base is not None:
            return self.element(self.plan(tree.base), tree.name)
        scope = self.scopes[-1]
        base = self.this()
        single = scope.types[0] if scope.types and len(scope.types) == 1 else None
        if single is not None and element(single, tree.name) is None and is_type(tree.name) and tree.name[0].isupper():
            if tree.name in ancestors(single):
                return base
            raise self.refuse(f"it begins with {tree.name} and is evaluated on a {single}")
        return self.element(base, tree.name)

    def element(self, base: Plan, name: str) -> Plan:
        """The step from ``base`` to the element ``name``."""
        types = base.types
        if types == ():
            return base
        if types and all(kind.startswith("System.") for kind in types):
            raise self.refuse(f"a {' or '.join(types)} has no element {name}")
        if types is None or set(types) & {"Resource", "DomainResource"}:
            found = [element(kind, name) for kind in types or ()]
            return member(base, found[0]) if len(found) == 1 and found[0] else UnknownMember(base, name)
        known = {kind: element(kind, name) for kind in types}
        if len(types) == 1 and known[types[0]] is not None:
            found_one = known[types[0]]
            assert found_one is not None
            if is_primitive(types[0]):
                return UnknownMember(base, name)
            return member(base, found_one)
        if not any(known.values()):
            self.report_unknown(types, name)
        return UnknownMember(base, name)

    def report_unknown(self, types: tuple[str, ...], name: str) -> None:
        """Note an element that R4 does not have, or refuse it when strict.

        Raises:
            SchemaError: it is the JSON key of a choice, or unknown elements are not allowed.
        """
        for kind in types:
            chosen = choice_of_key(kind, name)
            if chosen is not None:
                raise self.refuse(f"{kind} has no element {name}: write {chosen[0]}.ofType({chosen[1]})")
        text = f"{' or '.join(types)}.{name}"
        if self.settings.strict:
            raise self.refuse(f"R4 has no element {text}")
        if text not in self.settings.unknown:
            self.settings.unknown.append(text)

    # -- operators -----------------------------------------------------------------------------------------------------

    def unary(self, tree: syntax.Unary) -> Plan:
        """A sign before a number or quantity."""
        operand = self.plan(tree.operand)
        operand.require("integer", "number", "quantity", what=f"the sign {tree.operator}")
        if tree.operator == "+":
            return operand
        if isinstance(operand, Value) and isinstance(operand.value, int | Decimal):
            return Value(-operand.value, operand.type, source=self.source)
        return Arithmetic("*", operand, Value(-1, "System.Integer", source=self.source))

    def binary(self, operator: str, left: Plan, right: Plan) -> Plan:
        """An operator between two plans."""
        if operator in ("and", "or", "xor", "implies"):
            return Logic(operator, left, right)
        if operator in ("=", "!=", "~", "!~"):
            return Equality(operator, left, right)
        if operator in ("<", "<=", ">", ">="):
            return Order(operator, left, right)
        if operator == "|":
            return self.union(left, right)
        if operator in ("in", "contains"):
            return Contained(left, right) if operator == "in" else Contained(right, left)
        return Arithmetic(operator, left, right)

    def union(self, left: Plan, right: Plan) -> Plan:
        """The distinct items of both."""
        return ListFunction(
            sets.union, Joined(left, right, source=self.source), types=merge(left.types, right.types), many=True
        )

    def type_operation(self, operator: str, operand: Plan, name: str) -> Plan:
        """``is`` and ``as``, as operators or functions."""
        name = self.type_name(name)
        if operator == "is":
            return IsType(operand, name)
        return self.of_type(Only(operand, operand.types), name)

    def type_name(self, text: str) -> str:
        """A type that an expression names, as R4 or FHIRPath calls it.

        Raises:
            SchemaError: there is no such type.
        """
        space, _, name = text.rpartition(".")
        if space in ("", "FHIR") and is_type(name) and not name.startswith("System."):
            return name
        if space in ("", "System") and is_type(f"System.{name}"):
            return f"System.{name}"
        raise self.refuse(f"there is no type {text}")

    def of_type(self, base: Plan, name: str) -> Plan:
        """The items of ``base`` that are of type ``name``."""
        inner = base.base if isinstance(base, Only) else base
        if isinstance(inner, Choice) and not (isinstance(base, Only) and inner.many):
            fitting = [kind for kind in inner.types or () if navigation.matches_type(kind, name, exact=True)]
            if len(fitting) > 1:
                return Choice(inner.base, inner.name, tuple(fitting))
            if not fitting and (name.startswith("System.") or self.settings.strict):
                return Nothing(source=self.source)
            kind = fitting[0] if fitting else name
            return Member(inner.base, json_key(inner.name, kind), kind, many=False)
        types = base.types
        if types is not None and len(types) == 1 and types[0] not in ("Resource", "DomainResource"):
            fits = navigation.matches_type(types[0], name, exact=True)
            return base if fits else Nothing(source=self.source)
        return OfType(base, name) if types != () else base

    # -- functions -----------------------------------------------------------------------------------------------------

    def call(self, tree: syntax.Call) -> Plan:
        """A function: see :mod:`.functions`."""
        if tree.name in REFUSED:
            raise self.refuse(f"{tree.name}() is not supported: {REFUSED[tree.name]}")
        return build(self, tree)

    def ordered(self, base: Plan, what: str) -> Plan:
        """``base``, refused when strict if its items are in no order that FHIR defines.

        Raises:
            SchemaError: they are children or descendants.
        """
        if self.settings.strict and isinstance(base, Produced):
            raise self.refuse(f"{what} needs an order, and children have none")
        return base

    def bound(self, types: Types, build: Callable[[], Built], *, iterating: bool = True) -> tuple[Scope, Built]:
        """What ``build`` gives with ``$this`` bound to a new scope; ``iterating`` binds $index and $total too."""
        scope = Scope(types)
        self.scopes.append(scope)
        if iterating:
            self.iterating.append(scope)
        try:
            return scope, build()
        finally:
            self.scopes.pop()
            if iterating:
                self.iterating.pop()

    def widened(self, types: Types, results: Callable[[Types], Types]) -> Types:
        """``types`` joined with those of the results on them, and so on, until they add nothing.

        An element is unknown only if none of all the types has it, so nothing is noted or refused on the way.
        """
        settings, strict, unknown = self.settings, self.settings.strict, list(self.settings.unknown)
        settings.strict = False
        while True:
            wider = merge(types, results(types))
            if wider == types:
                settings.strict, settings.unknown[:] = strict, unknown
                return types
            types = wider

    def body(self, base: Plan, tree: syntax.Expression) -> tuple[Scope, Plan]:
        """The plan of an argument that is evaluated for each item of ``base``."""
        return self.bound(base.types, lambda: self.plan(tree))


def literal_value(tree: syntax.Literal, refuse: Callable[[str], SchemaError]) -> Any:
    """The Python value of a literal."""
    match tree.type:
        case "Boolean":
            return tree.text == "true"
        case "Integer":
            if len(tree.text) > 10 or int(tree.text) > 2**31 - 1:
                raise refuse("it has an integer that does not fit in 32 bits")
            return int(tree.text)
        case "Decimal":
            return Decimal(tree.text)
        case "Quantity":
            return Quantity(Decimal(tree.text), tree.unit or "1", tree.calendar)
        case "Date" | "DateTime" | "Time":
            value = temporal.from_text(tree.text, tree.type)
            if value is None:
                raise refuse(f"there is no {tree.type} @{tree.text}")
            return value
        case _:
            return tree.text
