"""The schema of the tables that the shipped views make, and of those that a user's views add."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from synthehr._files import shipped
from synthehr.connectors.fhir.viewset import TableView, ViewColumnRole, ViewSet
from synthehr.schema.files import dump_schema, load_schema
from synthehr.schema.model import Schema

__all__ = ["default_schema"]

_FIRST_DAY, _LAST_DAY = -400, 45_000  # of a life, before birth and 123 years after
_TEXT: dict[str, Any] = {"kind": "text"}
_WHOLE: dict[str, Any] = {"kind": "integer", "nullable": True}
_KINDS: dict[str, dict[str, Any]] = {
    "boolean": {"kind": "boolean", "nullable": True},
    "code": {"kind": "category", "discover": True, "nullable": True},
    "decimal": {"kind": "number", "nullable": True},
    "integer": _WHOLE,
    "integer64": _WHOLE,
    "positiveInt": _WHOLE,
    "unsignedInt": _WHOLE,
}


def default_schema(views: ViewSet | None = None) -> Schema:
    """``schemas/fhir/r4/schema.yaml``, with a table for each view of the user's own."""
    shipped_schema = _shipped()
    added = {} if views is None else {n: v for n, v in views.tables.items() if n not in shipped_schema.tables}
    if not added:
        return shipped_schema
    contents = dump_schema(shipped_schema)
    contents["tables"] |= {name: _table(view) for name, view in added.items()}
    return load_schema(contents)


@cache
def _shipped() -> Schema:
    return load_schema(shipped("schemas/fhir/r4/schema.yaml"))


def _table(view: TableView) -> dict[str, Any]:
    key = {view.key: {"kind": "id"}} if view.key is not None else {}
    columns = {name: kind for column in view.columns for name, kind in _column(column).items()}
    order = next((f"{column.name}_{column.unit}" for column in view.with_role("offset")), None)
    return {
        "parent": "patient",
        "foreign_key": view.subject,
        "max_rows": view.most,
        "columns": {**key, **columns},
        **({"order_by": order} if order is not None else {}),
    }


def _column(column: ViewColumnRole) -> Mapping[str, dict[str, Any]]:
    if column.role == "offset":
        many = 24 if column.unit == "hour" else 1
        bounds = [_FIRST_DAY * many, _LAST_DAY * many]
        kind = {"kind": "integer", "bounds": bounds, "unit": "h" if many > 1 else "d", "nullable": True}
        return {f"{column.name}_{column.unit}": kind}
    if column.role == "after":
        return {f"duration_{column.unit}": {"kind": "integer", "nullable": True}}
    if column.role == "lookup":
        return {}
    kind = {"kind": "id"} if column.role in ("subject", "reference") else _KINDS.get(column.type or "", _TEXT)
    return {column.name: kind}
