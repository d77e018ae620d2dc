"""Expressions ready to run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from synthehr.connectors.fhir.fhirpath import syntax
from synthehr.connectors.fhir.fhirpath.compiler import Compiler, Constants, Settings
from synthehr.connectors.fhir.fhirpath.model import is_type
from synthehr.connectors.fhir.fhirpath.parser import parse
from synthehr.connectors.fhir.fhirpath.plan import Scope
from synthehr.connectors.fhir.fhirpath.values import Element, plain, type_of
from synthehr.connectors.fhir.fhirpath.writer import Writer
from synthehr.errors import DataError, SchemaError

__all__ = ["CompiledPath", "compile_path", "guarded", "parse_json", "typed_constants"]

SHAPE_ERRORS = (AttributeError, TypeError, LookupError, ArithmeticError, RecursionError)
"""What Python raises where a record's JSON is not shaped as R4 has it (a text where an object must be)."""


def guarded(run: Callable[..., Any], what: str) -> Callable[[Any], Any]:
    """``run`` with Python's errors about a value's shape turned into a DataError that quotes nothing."""

    def safe(resource: Any) -> Any:
        try:
            return run(resource)
        except SHAPE_ERRORS as error:
            raise DataError(
                f"{what} met JSON that is not shaped as FHIR R4 has it: correct or drop the resource"
            ) from error

    return safe


def typed_constants(values: Mapping[str, Any]) -> Constants:
    """Constants with their System types; an :class:`Element` brings its own type."""
    typed: dict[str, tuple[Any, str | None]] = {}
    for name, value in values.items():
        if isinstance(value, Element):
            typed[name] = value.value, value.type
        else:
            own = Decimal(repr(value)) if type(value) is float else value
            typed[name] = own, type_of(own)
    return typed


class CompiledPath:
    """A FHIRPath expression as a function of a parsed FHIR resource or element.

    Attributes:
        source: the expression, as messages name it.
        root_type: FHIR type that the function is given; None compiles it anew for each ``resourceType`` met.
    """

    def __init__(self, source: str, tree: syntax.Expression, settings: Settings, root_type: str | None) -> None:
        self.source = f"FHIRPath '{' '.join(source.split())}'"
        self.root_type = root_type
        self._tree = tree
        self._settings = settings
        self._runs: dict[str | None, Callable[[Any], list[Element]]] = {}
        if root_type is not None:
            self._runs[root_type] = self._compile(root_type)
        else:
            # what is wrong for every type is refused now, not when the first record comes
            self._runs[None] = self._compile(None)

    def _compile(self, root_type: str | None) -> Callable[[Any], list[Element]]:
        scope = Scope(None if root_type is None else (root_type,))
        plan = Compiler(self.source, scope, scope, self._settings).plan(self._tree)
        while True:
            w = Writer()
            scope.raw, scope.element = "r", ""
            w.present.add("r")
            if scope.boxed:
                scope.element = w.assign(f"{w.bind(Element)}(r, {w.bind(root_type)})", present=True)
            w.line(f"return {plan.collect(w, boxed=True)}")
            if not w.again:
                return guarded(w.function("r"), self.source)

    @property
    def needs_exact_decimals(self) -> bool:
        """Whether the expression asks for a decimal's digits: read records by :func:`parse_json` then."""
        return self._settings.needs_exact_decimals

    @property
    def unknown(self) -> tuple[str, ...]:
        """Elements that the expression names and R4 does not have."""
        return tuple(self._settings.unknown)

    def elements(self, resource: Any) -> list[Element]:
        """The items with their types.

        Raises:
            DataError: the resource's JSON is not shaped as the expression needs it.
        """
        root = self.root_type
        if root is None and isinstance(resource, Mapping):
            own = resource.get("resourceType")
            root = own if isinstance(own, str) and is_type(own) else None
        run = self._runs.get(root)
        if run is None:
            run = self._runs[root] = self._compile(root)
        return run(resource)

    def __call__(self, resource: Any) -> list[Any]:
        """The values of the items: JSON values as they are, dates as text, quantities as FHIR Quantity objects.

        Raises:
            DataError: the resource's JSON is not shaped as the expression needs it.
        """
        return [plain(element.value) for element in self.elements(resource) if element.value is not None]


def compile_path(
    text: str,
    *,
    constants: Mapping[str, Any] | None = None,
    root_type: str | None = None,
    strict: bool = False,
) -> CompiledPath:
    """The function that evaluates ``text`` on a parsed FHIR resource or element.

    Args:
        text: a FHIRPath expression.
        constants: values of ``%name``.
        root_type: FHIR type of what the function will be given; None takes it from ``resourceType``.
        strict: refuse elements that R4 does not have, which otherwise are never there.

    Raises:
        SchemaError: the expression is not FHIRPath, or uses what is not supported; or R4 has no such root type.
    """
    if root_type is not None and not is_type(root_type):
        raise SchemaError(f"R4 has no type '{root_type}' for a FHIRPath expression to be evaluated on")
    settings = Settings(constants=typed_constants(constants or {}), strict=strict)
    return CompiledPath(text, parse(text), settings, root_type)


def _no_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def parse_json(text: bytes | str) -> Any:
    """JSON with decimals as :class:`~decimal.Decimal`, digit for digit as they are written.

    A reader that makes floats (orjson) is faster and does for all but the expressions that ask for a decimal's digits:
    see ``needs_exact_decimals`` of paths and views.

    Raises:
        DataError: the text is not JSON.
    """
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError("the text is not JSON, or is nested too deeply") from error
