"""What each function of FHIRPath compiles to."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING

from synthehr.connectors.fhir.fhirpath import calls, navigation, sets, syntax, texts
from synthehr.connectors.fhir.fhirpath.collections import (
    Aggregate,
    All,
    Exists,
    If,
    Joined,
    ListFunction,
    Only,
    Repeat,
    Select,
    Subset,
    Where,
)
from synthehr.connectors.fhir.fhirpath.model import is_primitive
from synthehr.connectors.fhir.fhirpath.operators import Not
from synthehr.connectors.fhir.fhirpath.paths import Extensions, Member, Produced, ReferenceKey
from synthehr.connectors.fhir.fhirpath.plan import Nothing, Plan, Scope, Types, Value, family
from synthehr.connectors.fhir.fhirpath.special import Bound, Moment, Sorted
from synthehr.connectors.fhir.fhirpath.values import Element
from synthehr.errors import SchemaError

if TYPE_CHECKING:
    from synthehr.connectors.fhir.fhirpath.compiler import Compiler

__all__ = ["NAMES", "build"]

Builder = Callable[["Compiler", Plan, syntax.Call], Plan]


def _argument(c: Compiler, tree: syntax.Call, at: int = 0) -> Plan:
    return c.plan(tree.arguments[at])


def _truth(c: Compiler, plan: Plan, name: str) -> Plan:
    """A criterion: where R4 tells its type, it must be boolean."""
    if plan.types and family(plan.types) != "boolean" and "boolean" not in plan.types:
        raise c.refuse(f"{name}() needs a boolean, not {' or '.join(plan.types)}")
    return plan


def _where(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    scope, condition = c.body(base, tree.arguments[0])
    return Where(base, scope, _truth(c, condition, "where"))


def _exists(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    return Exists(_where(c, base, tree) if tree.arguments else base, wanted=True)


def _all(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    scope, condition = c.body(base, tree.arguments[0])
    return All(base, scope, _truth(c, condition, "all"))


def _select(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    scope, projection = c.body(base, tree.arguments[0])
    return Select(base, scope, projection)


def _repeat(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    def projected(types: Types) -> tuple[Scope, Plan]:
        return c.bound(types, lambda: c.plan(tree.arguments[0]))

    # the projection is applied to its own items too
    scope, projection = projected(c.widened(base.types, lambda types: projected(types)[1].types))
    return Repeat(base, scope, projection, projection.types)


def _branches(c: Compiler, tree: syntax.Call) -> Plan:
    condition, then, *rest = (c.plan(argument) for argument in tree.arguments)
    return If(_truth(c, condition, "iif"), then, rest[0] if rest else Nothing(source=c.source))


def _iif(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    if tree.base is None:
        return _branches(c, tree)
    only = Only(base, base.types)
    scope, branches = c.bound(only.types, lambda: _branches(c, tree), iterating=False)
    return Bound(only, scope, branches)


def _aggregate(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    scope, aggregator = c.body(base, tree.arguments[0])
    start = _argument(c, tree, 1) if len(tree.arguments) > 1 else None
    return Aggregate(base, scope, aggregator, start)


def _sort(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    directions = [isinstance(key, syntax.Unary) and key.operator == "-" for key in tree.arguments]
    bare = [key.operand if isinstance(key, syntax.Unary) else key for key in tree.arguments]
    scope, keys = c.bound(base.types, lambda: [c.plan(key) for key in bare or [syntax.Variable("this")]])
    return Sorted(base, scope, tuple(keys), tuple(directions) or (False,))


def _subset(kind: str) -> Builder:
    def builder(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
        number = _argument(c, tree) if tree.arguments else None
        if number is not None:
            number.require("integer", what=f"{kind}()")
        return Subset(c.ordered(base, f"{kind}()"), kind, number)

    return builder


def _of_type(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    name = c.type_name(_type_argument(c, tree))
    return c.of_type(base, name)


def _type_argument(c: Compiler, tree: syntax.Call) -> str:
    argument: syntax.Expression | None = tree.arguments[0]
    parts: list[str] = []
    while isinstance(argument, syntax.Member):
        parts.insert(0, argument.name)
        argument = argument.base
    if argument is not None or not parts:
        raise c.refuse(f"{tree.name}() needs the name of a type")
    return ".".join(parts)


def _type_operation(operator: str) -> Builder:
    return lambda c, base, tree: c.type_operation(operator, base, _type_argument(c, tree))


def _extension(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    url = _argument(c, tree)
    url.require("string", what="extension()")
    return Extensions(base, url)


def _resource_key(_c: Compiler, base: Plan, _tree: syntax.Call) -> Plan:
    return Member(base, "id", "id", many=False)


def _reference_key(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    if base.types and base.types != ("Reference",):
        raise c.refuse(f"getReferenceKey() needs a Reference, not {' or '.join(base.types)}")
    name = c.type_name(_type_argument(c, tree)) if tree.arguments else None
    return ReferenceKey(base, name, c.settings.reference_reader)


def _set(function: Callable[..., object]) -> Builder:
    def builder(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
        arguments = [_argument(c, tree)] if tree.arguments else []
        return ListFunction(function, base, *arguments, types=base.types, many=True)

    return builder


def _union(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    return c.union(base, _argument(c, tree))


def _combine(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    return Joined(base, _argument(c, tree), source=c.source)


def _join(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    base.require("text", what="join()")
    arguments = [_argument(c, tree)] if tree.arguments else []
    for argument in arguments:
        argument.require("string", what="join()")
    return ListFunction(sets.join, base, *arguments, types=("System.String",), many=False)


def _has_value(_c: Compiler, base: Plan, _tree: syntax.Call) -> Plan:
    return ListFunction(sets.has_value, base, types=("System.Boolean",), many=False)


def _get_value(_c: Compiler, base: Plan, _tree: syntax.Call) -> Plan:
    if base.types and not all(is_primitive(name) or name.startswith("System.") for name in base.types):
        return Nothing(source=base.source)
    return Only(base, base.types)


def _produced(function: Callable[[Element], list[Element]], *, many: bool) -> Builder:
    return lambda _c, base, _tree: Produced(base, function, many=many)


def _single(_c: Compiler, base: Plan, _tree: syntax.Call) -> Plan:
    return Only(base, base.types)


def _moment(_c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    return Moment(calls.MOMENTS[tree.name], source=base.source)


_BUILDERS: dict[str, tuple[Builder, int, int]] = {
    "where": (_where, 1, 1),
    "exists": (_exists, 0, 1),
    "empty": (lambda _c, base, _tree: Exists(base, wanted=False), 0, 0),
    "not": (lambda _c, base, _tree: Not(base), 0, 0),
    "all": (_all, 1, 1),
    "select": (_select, 1, 1),
    "repeat": (_repeat, 1, 1),
    "iif": (_iif, 2, 3),
    "aggregate": (_aggregate, 1, 2),
    "sort": (_sort, 0, 8),
    "first": (_subset("first"), 0, 0),
    "last": (_subset("last"), 0, 0),
    "tail": (_subset("tail"), 0, 0),
    "skip": (_subset("skip"), 1, 1),
    "take": (_subset("take"), 1, 1),
    "single": (_single, 0, 0),
    "ofType": (_of_type, 1, 1),
    "is": (_type_operation("is"), 1, 1),
    "as": (_type_operation("as"), 1, 1),
    "extension": (_extension, 1, 1),
    "getResourceKey": (_resource_key, 0, 0),
    "getReferenceKey": (_reference_key, 0, 1),
    "distinct": (_set(sets.distinct), 0, 0),
    "intersect": (_set(sets.intersection), 1, 1),
    "exclude": (_set(sets.difference), 1, 1),
    "union": (_union, 1, 1),
    "combine": (_combine, 1, 1),
    "join": (_join, 0, 1),
    "hasValue": (_has_value, 0, 0),
    "getValue": (_get_value, 0, 0),
    "children": (_produced(navigation.children, many=True), 0, 0),
    "descendants": (_produced(navigation.descendants, many=True), 0, 0),
    "type": (_produced(navigation.type_info, many=False), 0, 0),
    "now": (_moment, 0, 0),
    "today": (_moment, 0, 0),
    "timeOfDay": (_moment, 0, 0),
}

NAMES = tuple(sorted({*_BUILDERS, *calls.ITEM_FUNCTIONS, *calls.LIST_FUNCTIONS}))
"""Every function that is supported."""


def _arity(c: Compiler, tree: syntax.Call, least: int, most: int) -> None:
    if not least <= len(tree.arguments) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise c.refuse(f"{tree.name}() takes {wanted} arguments, not {len(tree.arguments)}")


def _item_call(c: Compiler, base: Plan, tree: syntax.Call) -> Plan:
    function = calls.ITEM_FUNCTIONS[tree.name]
    most = len(function.arguments)
    _arity(c, tree, most if function.least is None else function.least, most)
    base.require(*function.takes, what=f"{tree.name}()")
    arguments = tuple(c.plan(argument) for argument in tree.arguments)
    for argument, wanted in zip(arguments, function.arguments, strict=False):
        argument.require(wanted, *(("integer",) if wanted == "number" else ()), what=f"an argument of {tree.name}()")
    if tree.name in ("matches", "matchesFull", "replaceMatches") and isinstance(arguments[0], Value):
        texts.pattern(str(arguments[0].value))
    if function.exact and family(base.types) not in ("string", "boolean", "integer", "date", "dateTime", "time"):
        c.settings.needs_exact_decimals = True
    call = calls.ItemCall(function, base, arguments)
    return calls.ListProduct(call) if function.many else call


def build(c: Compiler, tree: syntax.Call) -> Plan:
    """The plan of a call.

    Raises:
        SchemaError: the function is not supported, or its arguments are not what it takes.
    """
    name = tree.name
    known = name in _BUILDERS or name in calls.ITEM_FUNCTIONS or name in calls.LIST_FUNCTIONS
    if not known:
        close = difflib.get_close_matches(name, NAMES, n=1)
        raise SchemaError(f"{c.source}: {name}() is not supported" + (f"; did you mean {close[0]}()?" if close else ""))
    base = c.plan(tree.base) if tree.base is not None else c.this()
    if name in _BUILDERS:
        builder, least, most = _BUILDERS[name]
        _arity(c, tree, least, most)
        return builder(c, base, tree)
    if name in calls.ITEM_FUNCTIONS:
        return _item_call(c, base, tree)
    function, count, types = calls.LIST_FUNCTIONS[name]
    _arity(c, tree, count, count)
    return ListFunction(function, base, *(c.plan(argument) for argument in tree.arguments), types=types, many=False)
