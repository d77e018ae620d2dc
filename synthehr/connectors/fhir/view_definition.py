"""A ViewDefinition of SQL on FHIR v2, checked and frozen: everything about it that needs no FHIRPath compiled."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from synthehr.connectors.fhir.fhirpath.model import BOOLEANS, INTEGERS, NUMBERS, is_a, is_type
from synthehr.connectors.fhir.fhirpath.parser import parse
from synthehr.connectors.fhir.fhirpath.syntax import Expression
from synthehr.connectors.fhir.fhirpath.values import system
from synthehr.errors import DataError, SchemaError

__all__ = ["ColumnDefinition", "Definition", "Path", "SelectDefinition", "read_definition"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)

# fmt: off
_ABOUT = frozenset({
    "resourceType", "id", "meta", "implicitRules", "language", "text", "contained", "extension",
    "modifierExtension", "url", "identifier", "version", "versionAlgorithmString", "versionAlgorithmCoding", "name",
    "title", "status", "experimental", "date", "publisher", "contact", "description", "useContext", "jurisdiction",
    "purpose", "copyright", "copyrightLabel", "approvalDate", "lastReviewDate", "effectivePeriod", "topic",
    "author", "editor", "reviewer", "endorser", "relatedArtifact", "fhirVersion", "profile",
})
# fmt: on
"""Keys of a ViewDefinition that describe it and change no row."""

_ELEMENT = frozenset({"id", "extension", "modifierExtension"})

# fmt: off
_CONSTANT_TYPES = {
    f"value{name[0].upper()}{name[1:]}": name
    for name in (
        "base64Binary", "boolean", "canonical", "code", "date", "dateTime", "decimal", "id", "instant", "integer",
        "oid", "string", "positiveInt", "time", "unsignedInt", "uri", "url", "uuid",
    )
}
# fmt: on

_TYPE_PREFIXES = ("http://hl7.org/fhir/StructureDefinition/", "http://hl7.org/fhirpath/System.")

MAX_DEPTH = 30


@dataclass(frozen=True, slots=True)
class Path:
    """An expression with the label that messages name it by."""

    tree: Expression
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDefinition:
    """One column as the definition has it."""

    name: str
    path: Path
    type: str | None
    collection: bool
    description: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectDefinition:
    """One select: what it goes through (at most one of ``each``, ``each_or_null``, ``repeat``) and what it gives."""

    each: Path | None
    each_or_null: Path | None
    repeat: tuple[Path, ...]
    columns: tuple[ColumnDefinition, ...]
    selects: tuple[SelectDefinition, ...]
    union: tuple[SelectDefinition, ...]

    def all_columns(self) -> Iterator[ColumnDefinition]:
        """The columns in the order of the table: own ones, those of selects, those of the union."""
        yield from self.columns
        for select in self.selects:
            yield from select.all_columns()
        if self.union:
            yield from self.union[0].all_columns()

    @property
    def iterates(self) -> bool:
        """Whether it may give other than one row."""
        return bool(
            self.each or self.each_or_null or self.repeat or self.union or any(one.iterates for one in self.selects)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A whole ViewDefinition."""

    name: str
    resource: str
    constants: Mapping[str, tuple[Any, str | None]]
    where: tuple[Path, ...]
    select: SelectDefinition


class _Reader:
    def __init__(self, name: str) -> None:
        self.label = f"view '{name}'"

    def refuse(self, why: str) -> SchemaError:
        return SchemaError(f"{self.label}: {why}")

    def mapping(self, value: Any, what: str, allowed: frozenset[str]) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self.refuse(f"{what} must be an object")
        unknown = sorted(str(key) for key in value if key not in allowed and not str(key).startswith("_"))
        if unknown:
            raise self.refuse(f"{what} has the key {unknown[0]!r}, which SQL on FHIR does not know")
        return value

    def items(self, holder: Mapping[str, Any], key: str) -> list[Any]:
        value = holder.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.refuse(f"'{key}' must be a list")
        return value

    def path(self, value: Any, what: str) -> Path:
        if not isinstance(value, str) or not value.strip():
            raise self.refuse(f"{what} must be a FHIRPath text")
        try:
            tree = parse(value)
        except SchemaError as error:
            raise self.refuse(f"{what}: {error}") from None
        return Path(tree, f"{self.label}: {what}: FHIRPath '{' '.join(value.split())}'")

    def column(self, value: Any) -> ColumnDefinition:
        keys = frozenset({"name", "path", "type", "collection", "description", "tag"}) | _ELEMENT
        holder = self.mapping(value, "a column", keys)
        name = holder.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise self.refuse("a column needs a 'name' of letters, digits and _, a letter first")
        kind, collection, description = holder.get("type"), holder.get("collection"), holder.get("description")
        if collection is not None and not isinstance(collection, bool):
            raise self.refuse(f"column '{name}': 'collection' must be true or false")
        if kind is not None:
            kind = self.type_name(kind, name)
        return ColumnDefinition(
            name=name,
            path=self.path(holder.get("path"), f"column '{name}'"),
            type=kind,
            collection=bool(collection),
            description=description if isinstance(description, str) else None,
        )

    def type_name(self, value: Any, column: str) -> str:
        if not isinstance(value, str):
            raise self.refuse(f"column '{column}': 'type' must be the name of a FHIR type")
        name = value
        for prefix in _TYPE_PREFIXES:
            if value.startswith(prefix):
                name = value.removeprefix(prefix)
                if prefix.endswith("System.") and name != "Quantity":
                    name = name[0].lower() + name[1:]
        if not is_type(name):
            raise self.refuse(f"column '{column}': R4 has no type '{value}'")
        return name

    def select(self, value: Any, depth: int = 0) -> SelectDefinition:
        if depth > MAX_DEPTH:
            raise self.refuse(f"selects are nested deeper than {MAX_DEPTH} levels")
        keys = frozenset({"column", "select", "forEach", "forEachOrNull", "repeat", "unionAll"}) | _ELEMENT
        holder = self.mapping(value, "a select", keys)
        through = [key for key in ("forEach", "forEachOrNull", "repeat") if holder.get(key) is not None]
        if len(through) > 1:
            raise self.refuse(f"a select has both {through[0]} and {through[1]}")
        repeat = self.items(holder, "repeat")
        if "repeat" in through and not repeat:
            raise self.refuse("a 'repeat' needs at least one path")
        select = SelectDefinition(
            each=self.path(holder["forEach"], "forEach") if "forEach" in through else None,
            each_or_null=self.path(holder["forEachOrNull"], "forEachOrNull") if "forEachOrNull" in through else None,
            repeat=tuple(self.path(one, "repeat") for one in repeat),
            columns=tuple(self.column(one) for one in self.items(holder, "column")),
            selects=tuple(self.select(one, depth + 1) for one in self.items(holder, "select")),
            union=tuple(self.select(one, depth + 1) for one in self.items(holder, "unionAll")),
        )
        if not (select.columns or select.selects or select.union):
            raise self.refuse("a select needs 'column', 'select' or 'unionAll'")
        self.check_union(select)
        return select

    def check_union(self, select: SelectDefinition) -> None:
        branches = [
            [(column.name, column.collection, column.type) for column in branch.all_columns()]
            for branch in select.union
        ]
        for branch in branches[1:]:
            for (name, collection, kind), (other, other_collection, other_kind) in zip(
                branches[0], branch, strict=False
            ):
                kinds = {kind, other_kind} - {None}
                if name != other or collection != other_collection or len(kinds) > 1:
                    raise self.refuse(
                        f"the branches of a unionAll differ in column '{name}': name, order, type and "
                        "'collection' must be the same in all"
                    )
            if len(branch) != len(branches[0]):
                raise self.refuse("the branches of a unionAll have different numbers of columns")

    def constants(self, holder: Mapping[str, Any]) -> dict[str, tuple[Any, str | None]]:
        found: dict[str, tuple[Any, str | None]] = {}
        for value in self.items(holder, "constant"):
            one = self.mapping(value, "a constant", frozenset({"name", *_CONSTANT_TYPES}) | _ELEMENT)
            name = one.get("name")
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise self.refuse("a constant needs a 'name' of letters, digits and _, a letter first")
            given = [key for key in one if key in _CONSTANT_TYPES]
            if len(given) != 1:
                raise self.refuse(f"constant '{name}' needs one value: one of {', '.join(sorted(_CONSTANT_TYPES))}")
            if name in found:
                raise self.refuse(f"there are two constants '{name}'")
            found[name] = self.constant(name, one[given[0]], _CONSTANT_TYPES[given[0]])
        return found

    def constant(self, name: str, value: Any, kind: str) -> tuple[Any, str | None]:
        if kind in BOOLEANS:
            fits = isinstance(value, bool)
        elif kind in NUMBERS:
            whole = isinstance(value, int) and not isinstance(value, bool)
            fits = whole or (kind not in INTEGERS and isinstance(value, float | Decimal))
        else:
            fits = isinstance(value, str)
        if not fits:
            raise self.refuse(f"constant '{name}': the value is no {kind}")
        try:
            own = system(value, kind)
        except DataError:
            raise self.refuse(f"constant '{name}': the value is no {kind}") from None
        return (own if kind in NUMBERS else value), kind

    def definition(self, value: Mapping[str, Any], name: str) -> Definition:
        holder = self.mapping(value, "the view", _ABOUT | {"resource", "constant", "select", "where"})
        resource = holder.get("resource")
        if not isinstance(resource, str) or not resource:
            raise self.refuse("it needs 'resource', the type of the resources that it reads")
        if not is_type(resource) or not is_a(resource, "Resource"):
            raise self.refuse(f"R4 has no resource '{resource}'")
        selects = self.items(holder, "select")
        if not selects:
            raise self.refuse("it needs 'select'")
        select = SelectDefinition(
            each=None,
            each_or_null=None,
            repeat=(),
            columns=(),
            selects=tuple(self.select(one) for one in selects),
            union=(),
        )
        names = [column.name for column in select.all_columns()]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise self.refuse(f"there are two columns '{twice}'")
        keys = frozenset({"path", "description"}) | _ELEMENT
        where = tuple(
            self.path(self.mapping(one, "a where", keys).get("path"), "where") for one in self.items(holder, "where")
        )
        return Definition(name=name, resource=resource, constants=self.constants(holder), where=where, select=select)


def read_definition(value: Mapping[str, Any]) -> Definition:
    """The definition in a parsed ViewDefinition.

    Raises:
        SchemaError: it breaks a rule of SQL on FHIR, or names what R4 does not have.
    """
    if not isinstance(value, Mapping):
        raise SchemaError("a ViewDefinition must be an object")
    name = value.get("name")
    if name is not None and (not isinstance(name, str) or not _NAME.fullmatch(name)):
        raise SchemaError("a ViewDefinition's 'name' must be of letters, digits and _, a letter first")
    return _Reader(name or str(value.get("resource") or "without name")).definition(
        value, name or str(value.get("resource"))
    )
