"""The views that a source is read through: their subject, their keys, their times, and the bound on their rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import orjson

from synthehr._files import shipped
from synthehr.connectors.fhir.resources import is_resource_type
from synthehr.connectors.fhir.views import compile_view
from synthehr.errors import SchemaError

__all__ = ["REFERENCES", "ROWS_PER_PATIENT", "TableView", "ViewColumnRole", "ViewSet", "load_views"]

REFERENCES = ("subject", "reference", "lookup")  # the roles of columns that hold references
ROWS_PER_PATIENT = "urn:synthehr:rows-per-patient"
_OFFSET, _LOOKUP = "synthehr/offset", "synthehr/lookup"
_AFTER = {"synthehr/minutes-after": "minutes", "synthehr/days-after": "days"}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_KEY = re.compile(r"\s*getResourceKey\(\s*\)\s*")
_REFERENCE = re.compile(r"\s*(?P<base>.+?)\s*\.\s*getReferenceKey\(\s*(?P<type>\w*)\s*\)\s*", re.DOTALL)
_TIMES = frozenset({"date", "dateTime", "instant"})
_PRIVATE = frozenset({"_r", "_owner"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewColumnRole:
    """A column of a view and what becomes of it in the table.

    Attributes:
        name: of the column.
        place: of its cell in a row of the view.
        type: FHIR type of its cells.
        role: ``plain`` stays; ``subject`` and ``reference`` become keys; ``offset`` becomes the time since the
            patient's anchor; ``after`` becomes the time since another column; ``lookup`` is filled in from another
            resource and then dropped.
        target: type of the resource that a reference leads to.
        unit: ``hour``, ``day``, ``minutes`` or ``days``.
        after: the column that a time is counted from.
        element: the JSON name of the reference's element, where it stands at the top of the resource.
    """

    name: str
    place: int
    type: str | None
    role: Literal["plain", "subject", "reference", "lookup", "offset", "after"]
    target: str | None = None
    unit: str | None = None
    after: str | None = None
    element: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TableView:
    """A view, taken apart for reading.

    Attributes:
        name: of the view and of the table.
        resource: type of the resources it reads.
        key: the column that names each row, or None.
        columns: all other columns, in order.
        width: cells in a row of the view, the key's too.
        most: rows that one patient may have in it.
        definition: the ViewDefinition.
    """

    name: str
    resource: str
    key: str | None
    columns: tuple[ViewColumnRole, ...]
    width: int
    most: int
    definition: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """The column that leads to the patient; the key itself in the patients' own view."""
        found = next((column.name for column in self.columns if column.role == "subject"), None)
        assert found is not None or self.key is not None
        return found or str(self.key)

    def with_role(self, *roles: str) -> Iterator[ViewColumnRole]:
        """The columns with one of these roles."""
        return (column for column in self.columns if column.role in roles)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSet:
    """All views of one reading.

    Attributes:
        tables: by name; ``patient`` is the first.
        lookups: views of resources that others point to and that are no tables, by name.
    """

    tables: Mapping[str, TableView]
    lookups: Mapping[str, TableView]

    @property
    def types(self) -> frozenset[str]:
        """Types of resources that some view reads."""
        return frozenset(view.resource for view in (*self.tables.values(), *self.lookups.values()))

    @property
    def targets(self) -> frozenset[str]:
        """Types of resources that some column points to."""
        columns = (column for view in self.tables.values() for column in view.columns)
        return frozenset({"Patient", *(column.target for column in columns if column.target is not None)})


def load_views(extra: Path | None = None) -> ViewSet:
    """The shipped views, and those in a folder of the user's; one of the same name takes the place of ours.

    Raises:
        SchemaError: a view is no ViewDefinition, has no subject or row bound, or a patient view may make more than
            one row.
    """
    shipped_views, lookups = _shipped()
    views = dict(shipped_views)
    if extra is not None:
        if not extra.is_dir():
            raise SchemaError(f"views {str(extra)!r}: must be a folder of ViewDefinitions (.json)")
        paths = sorted(extra.glob("*.json"))
        if not paths:
            raise SchemaError(f"views {str(extra)!r}: the folder holds no ViewDefinition (.json)")
        views |= {view.name: view for view in (_view(path, compiled=True) for path in paths)}
    root = views.pop("patient")
    return ViewSet(tables={"patient": root, **views}, lookups=lookups)


@cache
def _shipped() -> tuple[dict[str, TableView], dict[str, TableView]]:
    """The shipped views and lookups by name."""
    folder = shipped("schemas/fhir/r4")
    views = [_view(path) for path in sorted(folder.glob("*.json"))]
    lookups = [_view(path, lookup=True) for path in sorted(folder.glob("lookups/*.json"))]
    return {view.name: view for view in views}, {view.name: view for view in lookups}


def _view(path: Path, *, lookup: bool = False, compiled: bool = False) -> TableView:
    """The view in a file; ``compiled`` tries whether the compiler takes it, too."""
    try:
        definition = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        raise SchemaError(f"view {path.name!r}: must be a JSON file that holds one ViewDefinition") from None
    try:
        if compiled:
            compile_view(definition)
        return _taken_apart(definition, lookup=lookup)
    except SchemaError as error:
        raise SchemaError(f"view {path.name!r}: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise SchemaError(f"view {path.name!r}: is no ViewDefinition: see schemas/fhir/r4 for how one looks") from None


def _taken_apart(definition: dict[str, Any], *, lookup: bool) -> TableView:
    name, resource = definition.get("name"), definition["resource"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise SchemaError("needs a 'name' of letters, digits and _, which names the table")
    if not is_resource_type(resource):
        raise SchemaError(f"resource {resource!r} is no type of FHIR R4")
    if (name == "patient") != (resource == "Patient"):
        raise SchemaError("the view of resource Patient must be named patient, and no other may be")
    columns = {column["name"]: column for column in _columns(definition)}
    keys = [each for each, column in columns.items() if _KEY.fullmatch(column["path"])]
    roles = [
        _role(column, place=place, resource=resource)
        for place, (each, column) in enumerate(columns.items())
        if each not in keys
    ]
    if len(keys) > 1:
        raise SchemaError("may have one column with getResourceKey()")
    subjects = [column.name for column in roles if column.role == "subject"]
    roles = [replace(c, role="reference") if c.name in subjects[1:] else c for c in roles]
    if not lookup and not (keys if resource == "Patient" else subjects):
        path = "getResourceKey()" if resource == "Patient" else "subject.getReferenceKey(Patient)"
        raise SchemaError(f"needs a column for its subject, the patient, such as {path}")
    most = 1 if lookup else _bound(definition)
    if resource == "Patient" and most != 1:
        raise SchemaError(f"the patient view makes one row of each patient: {ROWS_PER_PATIENT} must be 1")
    for column in roles:
        if column.after is not None and column.after not in {c.name for c in roles if c.role == "offset"}:
            raise SchemaError(f"column {column.name!r} is counted from {column.after!r}, which is no offset")
        if column.name in _PRIVATE:
            raise SchemaError(f"column name {column.name!r} is taken")
    return TableView(
        name=name,
        resource=resource,
        key=keys[0] if keys else None,
        columns=tuple(roles),
        width=len(columns),
        most=most,
        definition=definition,
    )


def _bound(definition: Mapping[str, Any]) -> int:
    bound = next(
        (
            part.get("valuePositiveInt")
            for part in definition.get("extension", [])
            if part.get("url") == ROWS_PER_PATIENT
        ),
        None,
    )
    if not isinstance(bound, int) or isinstance(bound, bool) or bound < 1:
        raise SchemaError(f"needs a bound on the rows of a patient: extension {ROWS_PER_PATIENT}, valuePositiveInt")
    return bound


def _columns(select: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The columns of a select in their order; of a union, those of its first branch."""
    yield from select.get("column", [])
    for inner in select.get("select", []):
        yield from _columns(inner)
    for branch in select.get("unionAll", [])[:1]:
        yield from _columns(branch)


def _role(column: Mapping[str, Any], *, place: int, resource: str) -> ViewColumnRole:
    name, kind = column["name"], column.get("type")
    if column.get("collection"):
        raise SchemaError(f"column {name!r} is a collection: a table holds one value in a cell")
    tags = {tag["name"]: tag["value"] for tag in column.get("tag", [])}
    reference = _REFERENCE.fullmatch(column["path"])
    if reference is not None:
        target = reference["type"]
        if not is_resource_type(target):
            raise SchemaError(f"column {name!r}: getReferenceKey needs the type of resource that it leads to")
        subject = target == "Patient" and resource != "Patient" and _LOOKUP not in tags
        role = "lookup" if _LOOKUP in tags else "subject" if subject else "reference"
        element = _element(reference["base"])
        return ViewColumnRole(name=name, place=place, type=kind, role=role, target=target, element=element)  # type: ignore[arg-type]
    after = next((tag for tag in tags if tag in _AFTER), None)
    if after is not None:
        return ViewColumnRole(name=name, place=place, type=kind, role="after", unit=_AFTER[after], after=tags[after])
    if _OFFSET in tags:
        if tags[_OFFSET] not in ("hour", "day"):
            raise SchemaError(f"column {name!r}: {_OFFSET} must be hour or day")
        return ViewColumnRole(name=name, place=place, type=kind, role="offset", unit=tags[_OFFSET])
    if kind in _TIMES and (resource, name) != ("Patient", "birth_date"):
        return ViewColumnRole(
            name=name, place=place, type=kind, role="offset", unit="day" if kind == "date" else "hour"
        )
    return ViewColumnRole(name=name, place=place, type=kind, role="plain")


def _element(base: str) -> str | None:
    """The JSON name of a reference's element that stands at the top of the resource."""
    if re.fullmatch(r"\w+", base):
        return base
    choice = re.fullmatch(r"(\w+)\.ofType\(\s*Reference\s*\)", base)
    return f"{choice[1]}Reference" if choice is not None else None
