"""SDV's Metadata in and out: what it says of tables in the schema language, and back.

Metadata is read by its ``to_dict()``, so that reading one needs no sdv; only :func:`metadata_of` imports it.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from synthehr.errors import SchemaError
from synthehr.schema.files import load_schema
from synthehr.schema.model import (
    BooleanColumn,
    CategoryColumn,
    Column,
    DateColumn,
    DatetimeColumn,
    IdColumn,
    IntegerColumn,
    NumberColumn,
    Schema,
)

if TYPE_CHECKING:
    from sdv.metadata import Metadata

__all__ = [
    "MetadataSource",
    "entries_for",
    "entries_of",
    "load_metadata",
    "metadata_of",
    "schema_of",
]

_DEFAULT_TABLE = "table"
_TABLE_KEYS = {"columns", "primary_key", "alternate_keys", "METADATA_SPEC_VERSION"}
_COLUMN_KEYS = {
    "sdtype",
    "pii",
    "range_min",
    "range_max",
    "range_values",
    "range_is_nullable",
    "decimal_places",
    "datetime_format",
    "high_cardinality",
    "regex_format",
    "computer_representation",
    "order",
    "order_by",
}
_TIME_OF_DAY = re.compile(r"%-?[HIMSfpcXTRrs]")
_FINEST_PLACES = 12


class _HasDict(Protocol):
    def to_dict(self) -> dict[str, Any]:
        """The metadata as a mapping."""


MetadataSource: TypeAlias = "_HasDict | Mapping[str, Any]"
Bounds: TypeAlias = "Mapping[str, tuple[Any, Any] | Sequence[Any]]"
Categories: TypeAlias = Mapping[str, Sequence[str | int | float]]
Kinds: TypeAlias = Mapping[str, Literal["integer", "boolean"]]


def schema_of(
    metadata: MetadataSource,
    *,
    public_ranges: bool = False,
    bounds: Bounds | None = None,
    categories: Categories | None = None,
    kinds: Kinds | None = None,
    outcome: str | Sequence[str] = (),
) -> Schema:
    """The schema that SDV metadata describes; every row of the root table is taken for one patient.

    Names, sdtypes, keys, relationships and whether numbers are whole are taken as the tables' design. What SDV's
    detection reads off the records (``range_min``, ``range_max``, ``range_values``, ``range_is_nullable`` and
    ``decimal_places``) is not public unless a person says so: without ``public_ranges`` it is left out, ranges and sets
    of values are bought from the budget, and every column may be missing.

    An sdtype of personal data (and ``unknown``) becomes an identifier, which is dropped, unless ``pii`` is false.
    ``regex_format`` and ``high_cardinality`` have no meaning here: keys are made anew.

    Args:
        metadata: SDV's ``Metadata``, or the mapping that its ``to_dict()`` gives.
        public_ranges: what the metadata says of ranges, values, rounding and missing values was reviewed by a person
            and is public.
        bounds: public (lowest, highest) by column, before what the metadata says. Where there are several tables a
            column is named ``table.column``, here and below.
        categories: public values by column, before what the metadata says.
        kinds: ``integer`` or ``boolean`` by column, where the metadata does not tell.
        outcome: columns of the root table that utility is measured on.

    Raises:
        SchemaError: the metadata says what the schema language cannot hold, or a date has no public bounds.
    """
    contents = entries_of(metadata)
    tables: dict[str, Mapping[str, Any]] = contents["tables"]
    parents = _parents(contents.get("relationships", ()), tables)
    roots = [name for name in tables if name not in parents]
    if len(roots) != 1:
        found = ", ".join(map(repr, roots)) if roots else "none"
        raise SchemaError(f"SDV metadata needs one table that has no parent, the patients'; found {found}")
    given = _Given(tables, public=public_ranges, bounds=bounds or {}, categories=categories or {}, kinds=kinds or {})
    document: dict[str, Any] = {"synthehr": 1, "subject": roots[0], "tables": {}}
    for name, table in tables.items():
        document["tables"][name] = _table(name, table, parents=parents, given=given)
    if outcome:
        document["tables"][roots[0]]["outcome"] = [outcome] if isinstance(outcome, str) else list(outcome)
    return load_schema(document)


def entries_of(metadata: MetadataSource) -> dict[str, Any]:
    """The metadata as a mapping with ``tables`` and ``relationships``, also where it is of a single table.

    Raises:
        SchemaError: it is no SDV metadata.
    """
    contents = metadata if isinstance(metadata, Mapping) else getattr(metadata, "to_dict", lambda: None)()
    if isinstance(contents, Mapping) and "columns" in contents:
        contents = {"tables": {_DEFAULT_TABLE: contents}}
    if not (isinstance(contents, Mapping) and isinstance(contents.get("tables"), Mapping) and contents["tables"]):
        kind = type(metadata).__name__
        raise SchemaError(f"SDV metadata must be a sdv.metadata.Metadata with tables, or its to_dict(), not {kind}")
    return dict(contents)


def metadata_of(schema: Schema) -> Metadata:
    """The schema as SDV's ``Metadata``.

    What only describes or steers is left out: units, descriptions, terminologies, outcomes, groups, ``order_by`` and
    ``max_rows``; so is a ``precision`` that is no power of ten. Identifiers and text become ``unknown`` with ``pii``.

    Raises:
        SchemaError: rules, or values that depend on a code, cannot be carried over.
    """
    return load_metadata(entries_for(schema))


def load_metadata(entries: Mapping[str, Any]) -> Metadata:
    """SDV's ``Metadata`` of a mapping.

    Raises:
        SchemaError: SDV refuses it.
    """
    from sdv.metadata import Metadata
    from sdv.metadata.errors import InvalidMetadataError

    made: Metadata = Metadata.load_from_dict(dict(entries))
    try:
        made.validate()
    except InvalidMetadataError as error:
        raise SchemaError(f"SDV refuses the schema as metadata: {' '.join(str(error).split())}") from error
    return made


def entries_for(schema: Schema) -> dict[str, Any]:
    """What :func:`metadata_of` gives, as the mapping of its ``to_dict()``, without sdv.

    Raises:
        SchemaError: rules, or values that depend on a code, cannot be carried over.
    """
    if schema.rules:
        raise SchemaError("rules cannot be carried over to SDV metadata: leave them out, and give SDV constraints")
    tables = {}
    for name, table in schema.tables.items():
        columns = {column: _entry(declared, name=column) for column, declared in table.columns.items()}
        tables[name] = {"columns": columns, **({"primary_key": table.key} if table.key is not None else {})}
    relationships = [
        {
            "parent_table_name": table.parent,
            "parent_primary_key": schema.tables[table.parent].key,
            "child_table_name": name,
            "child_foreign_key": table.foreign_key,
        }
        for name, table in schema.tables.items()
        if table.parent is not None
    ]
    return {"tables": tables, "relationships": relationships}


class _Given:
    """What the caller says beside the metadata, by table and column."""

    def __init__(
        self,
        tables: Mapping[str, Mapping[str, Any]],
        *,
        public: bool,
        bounds: Bounds,
        categories: Categories,
        kinds: Kinds,
    ) -> None:
        self.public = public
        self._several = len(tables) > 1
        self._bounds, self._categories, self._kinds = bounds, categories, kinds
        known = {self._key(table, column) for table, entry in tables.items() for column in entry.get("columns", {})}
        for what, names in (("bounds", bounds), ("categories", categories), ("kinds", kinds)):
            for name in names:
                if name not in known:
                    form = "as table.column" if self._several else "as in the metadata"
                    raise SchemaError(f"{what} are given for {name!r}, which is no column: name columns {form}")

    def bounds(self, table: str, column: str) -> list[Any] | None:
        pair = self._bounds.get(self._key(table, column))
        return None if pair is None else [_plain(value) for value in pair]

    def categories(self, table: str, column: str) -> list[Any] | None:
        values = self._categories.get(self._key(table, column))
        return None if values is None else [_plain(value) for value in values]

    def kind(self, table: str, column: str) -> str | None:
        return self._kinds.get(self._key(table, column))

    def _key(self, table: str, column: str) -> str:
        return f"{table}.{column}" if self._several else column


def _parents(
    relationships: Sequence[Mapping[str, Any]], tables: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[str, str]]:
    """The parent of each child table and the foreign key that leads to it."""
    parents: dict[str, tuple[str, str]] = {}
    for relationship in relationships:
        parent, child = relationship["parent_table_name"], relationship["child_table_name"]
        key, foreign = relationship["parent_primary_key"], relationship["child_foreign_key"]
        for table in (parent, child):
            if table not in tables:
                raise SchemaError(f"SDV metadata has a relationship of table {table!r}, which it does not describe")
        if not isinstance(foreign, str):
            raise SchemaError(f"table {child!r} has a foreign key of several columns: join them into one column")
        if child in parents:
            raise SchemaError(f"table {child!r} has several parents, but here a row belongs to one: keep one of them")
        if key != tables[parent].get("primary_key"):
            raise SchemaError(f"table {child!r} points to {key!r}, which is not the primary key of table {parent!r}")
        parents[child] = (parent, foreign)
    return parents


def _table(
    name: str, table: Mapping[str, Any], *, parents: Mapping[str, tuple[str, str]], given: _Given
) -> dict[str, Any]:
    key = table.get("primary_key")
    if key is not None and not isinstance(key, str):
        raise SchemaError(f"table {name!r} has a primary key of several columns: join them into one column")
    if table.get("sequence_key") or table.get("sequence_index"):
        raise SchemaError(
            f"table {name!r} is a table of sequences: describe the patients in a table of their own, "
            "with the rows of the sequences as its child"
        )
    parent, foreign = parents.get(name, (None, None))
    columns = {
        column: {"kind": "id"} if column in (key, foreign) else _column(name, column, entry, given=given)
        for column, entry in table.get("columns", {}).items()
    }
    for relationship in table.get("column_relationships") or ():
        for column in relationship.get("column_names", ()):
            if columns.get(column, {}).get("kind") not in {"identifier", "id"}:
                raise SchemaError(
                    f"table {name!r} has a column relationship with {column!r}, which would be lost: "
                    "declare its columns as personal data (pii), or leave the relationship out"
                )
    for entry, value in table.items():
        if value and entry not in _TABLE_KEYS | {"sequence_key", "sequence_index", "column_relationships"}:
            raise SchemaError(
                f"table {name!r} has {entry!r} in its SDV metadata, which cannot be carried over: leave it out, and "
                "state conditions on rows as rules of a schema"
            )
    links = {"key": key, "parent": parent, "foreign_key": foreign}
    return {**{link: column for link, column in links.items() if column is not None}, "columns": columns}


def _column(table: str, name: str, entry: Mapping[str, Any], *, given: _Given) -> dict[str, Any]:
    """One column in the schema language."""
    sdtype, where = entry.get("sdtype"), f"column {name!r} in table {table!r}"
    strange = sorted(set(entry) - _COLUMN_KEYS)
    if strange:
        raise SchemaError(f"{where} has {strange[0]!r} in its SDV metadata, which cannot be carried over: leave it out")
    bounds, categories = given.bounds(table, name), given.categories(table, name)
    if bounds is not None and sdtype not in {"numerical", "datetime"}:
        raise SchemaError(f"{where} is of sdtype {sdtype!r}, which has no bounds: leave them out")
    learned = sdtype in {"categorical", "ordinal"} or (entry.get("pii") is False and sdtype != "unknown")
    if categories is not None and not learned:
        raise SchemaError(f"{where} is of sdtype {sdtype!r}, which has no set of values: leave categories out")
    kept: dict[str, Any]
    match sdtype:
        case "id":
            return {"kind": "id"}
        case "numerical":
            kept = _number(entry, given=given, kind=given.kind(table, name), bounds=bounds)
        case "datetime":
            kept = _time(where, entry, public=given.public, bounds=bounds)
        case "boolean":
            kept = {"kind": "boolean"}
        case None:
            raise SchemaError(f"{where} has no sdtype")
        case "unknown" if entry.get("pii") is False:
            raise SchemaError(f"{where} is of sdtype 'unknown': say what it is, or that it is personal data (pii)")
        case _ if learned:
            kept = _category(entry, public=given.public, kind=given.kind(table, name), categories=categories)
        case _:
            return {"kind": "identifier"}
    nullable = bool(entry.get("range_is_nullable", True)) if given.public else True
    return {**kept, **({"nullable": True} if nullable else {})}


def _category(
    entry: Mapping[str, Any], *, public: bool, kind: str | None, categories: list[Any] | None
) -> dict[str, Any]:
    found = entry.get("range_values") or entry.get("order")
    if categories is not None:
        return {"kind": "category", "values": categories}
    if kind == "boolean" or (found and all(isinstance(value, bool) for value in found)):
        return {"kind": "boolean"}
    if public and found:
        return {"kind": "category", "values": [_plain(value) for value in found]}
    return {"kind": "category", "discover": True}


def _number(entry: Mapping[str, Any], *, given: _Given, kind: str | None, bounds: list[Any] | None) -> dict[str, Any]:
    places = entry.get("decimal_places")
    stored = str(entry.get("computer_representation", ""))
    whole = kind == "integer" or places == 0 or stored.startswith(("Int", "UInt"))
    if bounds is None and given.public and {"range_min", "range_max"} <= set(entry):
        bounds = [_plain(entry["range_min"]), _plain(entry["range_max"])]
    column: dict[str, Any] = {"kind": "integer" if whole else "number"}
    if bounds is not None:
        column["bounds"] = bounds
    if not whole and given.public and places is not None and places <= _FINEST_PLACES:
        column["precision"] = float(Decimal(1).scaleb(-int(places)))
    return column


def _time(where: str, entry: Mapping[str, Any], *, public: bool, bounds: list[Any] | None) -> dict[str, Any]:
    form = entry.get("datetime_format")
    kind = "date" if form is not None and not _TIME_OF_DAY.search(form) else "datetime"
    if bounds is None and public and {"range_min", "range_max"} <= set(entry):
        bounds = [_moment(where, entry[end], form=form) for end in ("range_min", "range_max")]
    if bounds is None:
        raise SchemaError(
            f"{where} needs public bounds, since the range of dates cannot be bought: "
            "give bounds={'column': (first, last)}, or review the metadata's ranges and give public_ranges=True"
        )
    return {"kind": kind, "bounds": bounds}


def _moment(where: str, text: object, *, form: str | None) -> dt.datetime:
    try:
        return dt.datetime.fromisoformat(str(text)) if form is None else dt.datetime.strptime(str(text), form)
    except ValueError as error:
        raise SchemaError(f"{where} has a range that does not follow its datetime_format: correct either") from error


def _plain(value: Any) -> Any:
    """A value of numpy or pandas in Python's own type."""
    if hasattr(value, "to_pydatetime"):
        return value.to_pydatetime()
    return value.item() if hasattr(value, "item") else value


def _entry(column: Column, *, name: str) -> dict[str, Any]:
    """One column in SDV's words."""
    entry: dict[str, Any]
    match column:
        case IdColumn():
            return {"sdtype": "id"}
        case CategoryColumn():
            entry = {"sdtype": "categorical"}
            if column.values is not None:
                entry["range_values"] = list(column.values)
        case BooleanColumn():
            entry = {"sdtype": "boolean"}
        case IntegerColumn() | NumberColumn():
            if column.per is not None:
                raise SchemaError(
                    f"column {name!r} depends on {column.per!r}, which SDV metadata cannot say: leave 'per' out"
                )
            entry = {"sdtype": "numerical", **_places(column), **_range(column.bounds)}
        case DateColumn() | DatetimeColumn():
            form = "%Y-%m-%d" if isinstance(column, DateColumn) else "%Y-%m-%dT%H:%M:%S"
            ends = tuple(bound.strftime(form) for bound in column.bounds)
            entry = {"sdtype": "datetime", "datetime_format": form, **_range(ends)}
        case _:
            return {"sdtype": "unknown", "pii": True}
    return {**entry, "range_is_nullable": column.nullable}


def _places(column: IntegerColumn | NumberColumn) -> dict[str, int]:
    """``decimal_places``, where the column's values are rounded to a power of ten."""
    if isinstance(column, IntegerColumn):
        return {"decimal_places": 0}
    if column.precision is None:
        return {}
    _, digits, exponent = Decimal(repr(column.precision)).normalize().as_tuple()
    return {"decimal_places": -int(exponent)} if digits == (1,) and int(exponent) < 0 else {}


def _range(bounds: Any) -> dict[str, Any]:
    return {} if bounds is None else {"range_min": bounds[0], "range_max": bounds[1]}
