"""Great Expectations suites in and out: what a schema says of each table as a suite, and back as far as it maps.

A suite is JSON of one table, on the columns as they stand in the records. What no expectation can say (kinds, units,
links between tables) goes along in its ``meta`` and is read from there; bounds, values and whether a value may be
missing are read from the expectations, which may have been edited since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from synthehr.errors import SchemaError
from synthehr.schema.columns import CategoryColumn, DroppedColumn, IntegerColumn, NumberColumn, is_learned, is_read
from synthehr.schema.files import dump_schema, load_schema
from synthehr.schema.model import Schema, Table

__all__ = ["schema_from_suites", "suites_of"]

_META = "synthehr"
_SAID_BY_EXPECTATIONS = ("bounds", "values", "discover", "nullable")
_KIND_OF_TYPE = {
    "bool": "boolean",
    "boolean": "boolean",
    "int": "integer",
    "int64": "integer",
    "integer": "integer",
    "bigint": "integer",
    "float": "number",
    "float64": "number",
    "double": "number",
    "number": "number",
}
_OF_THE_WHOLE = ("subject", "rules", "reviewed", "cap_age")
_LEARNED_IN_TIME = ("offset", "age")


def suites_of(schema: Schema) -> dict[str, dict[str, Any]]:
    """A suite for each table, as the JSON of Great Expectations.

    Bounds of offsets and ages are not among the expectations: what stands in the records are dates.
    """
    return {
        name: {
            "name": name,
            "id": None,
            "expectations": [{"type": kind, "kwargs": arguments, "meta": {}} for kind, arguments in _expected(table)],
            "meta": {"great_expectations_version": version("great-expectations"), _META: _meta(schema, name)},
            "notes": None,
        }
        for name, table in schema.tables.items()
    }


def schema_from_suites(suites: Mapping[str, Mapping[str, Any]]) -> tuple[Schema, tuple[str, ...]]:
    """The schema that suites describe, and what of them has no place in a schema.

    Args:
        suites: by table, the JSON of Great Expectations. A suite from elsewhere tells columns by its expectations
            alone: one with a set of values is a category, one with bounds a number, one that nothing is said of text.

    Raises:
        SchemaError: something is no suite, or the suites make no schema: no root table or no column to learn.
    """
    document: dict[str, Any] = {"synthehr": 1, "subject": next(iter(suites), ""), "tables": {}}
    for suite in suites.values():
        document |= {key: _own(suite)[key] for key in _OF_THE_WHOLE if key in _own(suite)}
    left: list[str] = []
    for name, suite in suites.items():
        if not isinstance(suite.get("expectations"), list):
            raise SchemaError(f"suite of table {name!r} is no Great Expectations suite: it has no list of expectations")
        document["tables"][name] = _table_of(name, suite, left=left)
    return load_schema(document), tuple(left)


def _own(suite: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = suite.get("meta") if isinstance(suite, Mapping) else None
    own = meta.get(_META) if isinstance(meta, Mapping) else None
    return own if isinstance(own, Mapping) else {}


def _meta(schema: Schema, table: str) -> dict[str, Any]:
    contents = dump_schema(schema)
    declared = contents["tables"][table]
    columns = {
        name: entry
        if entry["kind"] in _LEARNED_IN_TIME
        else {k: v for k, v in entry.items() if k not in _SAID_BY_EXPECTATIONS or _only_here(k, v)}
        for name, entry in declared["columns"].items()
    }
    root = table == schema.subject
    whole: dict[str, Any] = {key: contents[key] for key in _OF_THE_WHOLE if key in contents} if root else {}
    return {**whole, "table": {**declared, "columns": columns}}


def _only_here(key: str, value: object) -> bool:
    """Bounds by code are conditions on rows, which are not read back."""
    return key == "bounds" and isinstance(value, Mapping)


def _expected(table: Table) -> Iterator[tuple[str, dict[str, Any]]]:
    needed = [name for name, column in table.columns.items() if not isinstance(column, DroppedColumn)]
    yield from (("expect_column_to_exist", {"column": name}) for name in needed)
    if table.key is not None:
        yield "expect_column_values_to_not_be_null", {"column": table.key}
        yield "expect_column_values_to_be_unique", {"column": table.key}
    if table.foreign_key is not None:
        yield "expect_column_values_to_not_be_null", {"column": table.foreign_key}
    for name, column in table.columns.items():
        if not is_read(column) or not is_learned(column):
            continue
        if not column.nullable:
            yield "expect_column_values_to_not_be_null", {"column": name}
        if isinstance(column, CategoryColumn) and column.values is not None:
            yield "expect_column_values_to_be_in_set", {"column": name, "value_set": list(column.values)}
        if column.kind in _LEARNED_IN_TIME:
            continue
        if isinstance(column, IntegerColumn | NumberColumn) and column.per_code:
            for code, (low, high) in column.per_code.items():
                where = {"row_condition": f"{column.per} == {code!r}", "condition_parser": "pandas"}
                yield (
                    "expect_column_values_to_be_between",
                    {"column": name, "min_value": low, "max_value": high, **where},
                )
            continue
        bounds = getattr(column, "bounds", None)
        if bounds is not None:
            low, high = (b.isoformat() if hasattr(b, "isoformat") else b for b in bounds)
            yield "expect_column_values_to_be_between", {"column": name, "min_value": low, "max_value": high}


def _table_of(name: str, suite: Mapping[str, Any], *, left: list[str]) -> dict[str, Any]:
    own = _own(suite).get("table")
    table: dict[str, Any] = {k: v for k, v in own.items() if k != "columns"} if isinstance(own, Mapping) else {}
    known: dict[str, dict[str, Any]] = (
        {c: dict(entry) for c, entry in own["columns"].items()} if isinstance(own, Mapping) else {}
    )
    columns = {c: dict(entry) for c, entry in known.items()}
    given: set[str] = set()
    for expectation in suite["expectations"]:
        kind = str(expectation.get("type", expectation.get("expectation_type", "")))
        said = expectation.get("kwargs", {})
        column = said.get("column")
        for declared in said.get("column_set") or said.get("column_list") or ():
            columns.setdefault(str(declared), {})
        if isinstance(column, str):
            columns.setdefault(column, {})
        if said.get("row_condition"):
            if column not in known:
                left.append(f"{name}.{column}: {kind} under a condition on rows")
            continue
        if not _put(kind, said, columns.get(str(column), {}), table=table, given=given):
            left.append(f"{name}{'.' + str(column) if column else ''}: {kind}")
    for column, entry in columns.items():
        linked = column in (table.get("key"), table.get("foreign_key"))
        whole = entry if "kind" in entry else {"kind": _kind(entry, linked=linked), **entry}
        if whole["kind"] in ("category", "code") and "values" not in whole:
            whole["discover"] = True
        learned = whole["kind"] not in ("id", "identifier", "text", "anchor", "consent")
        if learned and column not in given:
            whole["nullable"] = True
        columns[column] = whole
    return {**table, "columns": columns}


def _put(kind: str, said: Mapping[str, Any], entry: dict[str, Any], *, table: dict[str, Any], given: set[str]) -> bool:
    """Take one expectation over; False where a schema has no place for it."""
    column = str(said.get("column"))
    match kind:
        case (
            "expect_column_to_exist"
            | "expect_table_columns_to_match_set"
            | "expect_table_columns_to_match_ordered_list"
        ):
            return True
        case "expect_column_values_to_not_be_null" if said.get("mostly", 1) == 1:
            given.add(column)
        case "expect_column_values_to_be_unique":
            table.setdefault("key", column)
            return bool(table["key"] == column)
        case "expect_column_values_to_be_in_set" if said.get("mostly", 1) == 1:
            entry["values"] = list(said.get("value_set") or ())
        case "expect_column_values_to_be_between" if (
            said.get("mostly", 1) == 1 and said.get("min_value") is not None and said.get("max_value") is not None
        ):
            entry["bounds"] = [said["min_value"], said["max_value"]]
        case "expect_column_values_to_be_of_type":
            found = _KIND_OF_TYPE.get(str(said.get("type_", "")).lower())
            if found is None:
                return False
            entry.setdefault("kind", found)
        case _:
            return False
    return True


def _kind(entry: Mapping[str, Any], *, linked: bool) -> str:
    """The kind of a column that only its expectations tell of."""
    if linked:
        return "id"
    if "values" in entry:
        return "category"
    if "bounds" in entry:
        whole = all(isinstance(b, int) for b in entry["bounds"])
        if all(isinstance(b, str) for b in entry["bounds"]):
            return "datetime" if "T" in str(entry["bounds"][0]) else "date"
        return "integer" if whole else "number"
    return "text"
