"""The encoded store: records that were checked once, on disk as what a fit reads, and mapped into memory from there.

A folder with ``STORE.json`` and one Arrow file a table. Categories are whole numbers that stand for the values which
``STORE.json`` lists; keys are the numbers of rows, so that no key of a patient is in it; all else is in the type that
the schema gives it. Nothing is compressed, so that a table is mapped into memory and not held there. A reference to a
row of another table may stand before that row does: it is a number of its own, and one more file tells its row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from synthehr.cohort import Cohort
from synthehr.connectors.columnar import mapped
from synthehr.encoding.references import references_of
from synthehr.errors import DataError, SchemaError
from synthehr.randomness import IntArray
from synthehr.schema.files import dump_schema, load_schema
from synthehr.schema.model import CategoryColumn, ConsentColumn, Schema, Table, dtype_of, is_read

__all__ = [
    "STORE",
    "KeyNumbers",
    "StoreManifest",
    "StoreTables",
    "StoreWriter",
    "TableCodes",
    "in_text",
    "is_store",
    "read_store",
    "schema_in_store",
]

STORE = "store"
_MANIFEST = "STORE.json"
_KEY_TYPE = pl.UInt32()
_MISSING = -1
_DAMAGED = "store {!r} is damaged, or of another version: make it anew"


class StoreManifest(BaseModel):
    """What ``STORE.json`` says. It lists values of records: it is as private as they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    store: int = Field(default=1, ge=1, le=1, description="Version of the form.")
    schema_: dict[str, Any] = Field(alias="schema", description="What the records were checked against.")
    rows: dict[str, int] = Field(description="Rows of each table.")
    values: dict[str, dict[str, tuple[str, ...]]] = Field(description="By table and column, what each code stands for.")


class _Texts:
    """Numbers texts in the order in which they are first met, the given ones first."""

    def __init__(self, first: tuple[str, ...] = ()) -> None:
        self._known = pl.Categories.random()
        self._type = pl.Categorical(self._known)
        self._alive = pl.Series(first, dtype=pl.String).cast(self._type)  # polars forgets texts that no column holds

    def codes(self, texts: pl.Series) -> pl.Series:
        """The number of each text, null where there is none, shape ``(rows,)``."""
        return texts.cast(self._type).to_physical()

    def values(self) -> tuple[str, ...]:
        """All texts so far, by number."""
        return tuple(self._known.to_series())


class KeyNumbers:
    """Numbers the rows of parents by their keys, so that a reference becomes the number of a row.

    Args:
        schema: of the tables, which come parents first.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._keys = {name: _Texts() for name, link in schema.links.items() if link.key is not None}
        self._row_of: dict[str, IntArray] = {name: np.full(1024, _MISSING, dtype=np.int64) for name in self._keys}
        self._rows = dict.fromkeys(self._keys, 0)

    def add(self, table: str, keys: pl.Series) -> None:
        """Take the keys of further rows of a table.

        Raises:
            DataError: a key is missing or was there before.
        """
        if keys.null_count():
            raise DataError(f"key {keys.name!r} of table {table!r} must not be missing")
        codes = self._codes(table, keys)
        known = self._row_of[table]
        if len(codes) and int(codes.max()) + 1 >= len(known):  # the last place stays free: see rows_of
            grown = np.full(2 * int(codes.max()) + 4, _MISSING, dtype=np.int64)
            grown[: len(known)] = known
            self._row_of[table] = known = grown
        if (known[codes] != _MISSING).any() or len(np.unique(codes)) != len(codes):
            raise DataError(
                f"key {keys.name!r} of table {table!r} must be unique, but it repeats: "
                "declare repeated rows as a table with a parent"
            )
        link = self._schema.links[table]
        first = self._rows[table]
        numbers = np.arange(first, first + len(codes))
        known[codes] = numbers if link.key != link.foreign_key else self.rows_of(table, keys).to_numpy()
        self._rows[table] += len(codes)

    def rows_of(self, table: str, references: pl.Series) -> pl.Series:
        """The row of the parent that each row of a table refers to, shape ``(rows,)``.

        Raises:
            DataError: a reference is missing or leads to no row.
        """
        parent = self._schema.links[table].parent
        assert parent is not None, "only tables below the root refer to a parent"
        found = np.full(0, _MISSING)
        if not references.null_count():
            known = self._row_of[parent]
            found = known[np.minimum(self._codes(parent, references), len(known) - 1)]
        if references.null_count() or (found == _MISSING).any():
            raise DataError(
                f"foreign key {references.name!r} of table {table!r} must be a key of {parent!r}, "
                "but some rows point to none"
            )
        return pl.Series(references.name, found, dtype=_KEY_TYPE)

    def numbers_of(self, table: str, references: pl.Series) -> pl.Series:
        """A number for each reference to a row of ``table`` that may come later, null where there is none."""
        return self._keys[table].codes(references).cast(_KEY_TYPE).alias(references.name)

    def rows_by_number(self, table: str) -> pl.Series:
        """The row of each number of :meth:`numbers_of`, null where no row has the key, once all rows were added."""
        known, size = self._row_of[table], len(self._keys[table].values())
        rows = pl.Series("row", np.append(known, np.full(max(size - len(known), 0), _MISSING))[:size])
        return rows.set(rows == _MISSING, None).cast(_KEY_TYPE)

    def _codes(self, table: str, keys: pl.Series) -> IntArray:
        return self._keys[table].codes(keys).to_numpy().astype(np.int64)


class StoreWriter:
    """Writes tables that were checked into a store, part by part, parents first.

    Args:
        folder: an existing one.
        schema: what the tables were checked against.
        lenient: for synthetic records: values that are not declared have codes too.
    """

    def __init__(self, folder: Path, *, schema: Schema, lenient: bool = False) -> None:
        self._folder = folder
        self._schema = schema
        self._lenient = lenient
        self._made: dict[str, TableCodes] = {}
        self.keys = KeyNumbers(schema)

    def linked(self, name: str, part: pl.DataFrame) -> pl.DataFrame:
        """A part of a table with its keys checked, and with numbers in place of the keys of other rows.

        Raises:
            DataError: a key is missing or repeated, or leads to no row of the parent.
        """
        link = self._schema.links[name]
        columns = []
        if link.key is not None:
            self.keys.add(name, part[link.key].cast(pl.String))
        if link.foreign_key is not None:
            columns.append(self.keys.rows_of(name, part[link.foreign_key].cast(pl.String)))
        for column, to in references_of(self._schema.tables[name]).items():
            columns.append(self.keys.numbers_of(to, part[column].cast(pl.String)))
        return part.with_columns(columns)

    def table(self, name: str) -> TableCodes:
        """What writes the parts of one table; it is to be left as a context before the next one is begun."""
        self._made[name] = TableCodes(
            self._folder / f"{name}.arrow", declared=self._schema.tables[name], lenient=self._lenient
        )
        return self._made[name]

    def close(self) -> None:
        """Write where references lead to, and ``STORE.json``, without which the folder is no store."""
        for to in sorted(_referred_to(self._schema)):
            self.keys.rows_by_number(to).to_frame().write_ipc(self._folder / _rows_file(to), compression="uncompressed")
        manifest = StoreManifest(
            schema=dump_schema(self._schema),
            rows={name: self._made[name].rows for name in self._schema.tables},
            values={name: self._made[name].values() for name in self._schema.tables},
        )
        text = json.dumps(manifest.model_dump(mode="json", by_alias=True), ensure_ascii=False)
        (self._folder / _MANIFEST).write_text(text + "\n", encoding="utf-8")

    def write(self, cohort: Cohort[Schema]) -> None:
        """Write a whole cohort."""
        for name in self._schema.top_down:
            frame = self.linked(name, cohort.tables[name])
            with self.table(name) as codes:
                codes.write(frame)
        self.close()


class TableCodes:
    """Writes one table of a store, part by part in flat memory.

    Args:
        path: of the file.
        declared: the table.
        lenient: see :class:`StoreWriter`.

    Attributes:
        rows: how many were written so far.
    """

    def __init__(self, path: Path, *, declared: Table, lenient: bool) -> None:
        self.rows = 0
        self._path = path
        self._types = _types(declared, lenient=lenient)
        self._texts = {
            name: _Texts(getattr(column, "values", None) or ())
            for name, column in declared.columns.items()
            if isinstance(column, CategoryColumn | ConsentColumn)
        }
        self._file: Any = None

    def __enter__(self) -> TableCodes:
        from pyarrow import ipc

        empty = pl.DataFrame(schema=self._types).to_arrow(compat_level=pl.CompatLevel.oldest())
        self._file = ipc.new_file(str(self._path), empty.schema)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, part: pl.DataFrame) -> None:
        """Append rows as :func:`synthehr.schema.conform.judge` gives them, the foreign key as the parent's row."""
        columns = []
        for name, dtype in self._types.items():
            values = part[name]
            if name in self._texts:
                values = self._texts[name].codes(values)
            columns.append(values.cast(dtype))
        coded = pl.DataFrame(columns)
        self.rows += coded.height
        self._file.write_table(coded.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()))

    def values(self) -> dict[str, tuple[str, ...]]:
        """By column, the value of each code in order."""
        return {name: texts.values() for name, texts in self._texts.items()}


def is_store(source: str | Path) -> bool:
    """Whether a source is the folder of a store."""
    return "://" not in str(source) and (Path(source) / _MANIFEST).is_file()


def schema_in_store(source: str | Path) -> Schema:
    """The schema that a store was checked against.

    Raises:
        DataError: see :func:`read_store`.
    """
    return _manifest(source)[1]


def read_store(source: str | Path) -> Cohort[Schema]:
    """The cohort in a store, under the schema that it was checked against; its tables are mapped into memory.

    Keys and the references to them are numbers; other ids are not in a store, and null.

    Raises:
        DataError: a file is missing or damaged, or does not belong to the others.
    """
    manifest, schema = _manifest(source)
    tables = {}
    for name, declared in schema.tables.items():
        frame = mapped(Path(source) / f"{name}.arrow")
        values = manifest.values.get(name, {})
        if not _is_whole(frame, declared, values=values, rows=manifest.rows.get(name)):
            raise DataError(_DAMAGED.format(str(source)))
        tables[name] = _decoded(frame, declared, values=values)
        for column, to in references_of(declared).items():
            leads = mapped(Path(source) / _rows_file(to)) if (Path(source) / _rows_file(to)).is_file() else None
            if (
                leads is None
                or leads.schema != {"row": _KEY_TYPE}
                or not _stand_for(frame[column], range(leads.height))
            ):
                raise DataError(_DAMAGED.format(str(source)))
            tables[name] = tables[name].with_columns(leads["row"].gather(frame[column]).alias(column))
    return Cohort(tables, schema=schema)


def in_text(cohort: Cohort[Schema]) -> Cohort[Schema]:
    """The cohort of a store with its categories and keys as text, as every other source gives them."""
    tables = {
        name: frame.with_columns(
            frame[column].cast(pl.String)
            for column, declared in cohort.schema.tables[name].columns.items()
            if column in frame.columns and dtype_of(declared) == pl.String
        )
        for name, frame in cohort.tables.items()
    }
    return Cohort(tables, schema=cohort.schema)


def _manifest(source: str | Path) -> tuple[StoreManifest, Schema]:
    try:
        manifest = StoreManifest.model_validate_json((Path(source) / _MANIFEST).read_bytes())
        return manifest, load_schema(manifest.schema_)
    except (OSError, ValidationError, SchemaError):
        raise DataError(_DAMAGED.format(str(source))) from None


class StoreTables:
    """A store as tables for another schema than its own: the reading half of a connector."""

    def tables(self, source: str | Path, *, schema: Schema) -> dict[str, pl.DataFrame]:
        """The tables that the schema declares, as they were checked when the store was made."""
        held = read_store(source).tables
        for name in schema.tables:
            if name not in held:
                raise DataError(f"store {str(source)!r} has no table {name!r}: make it anew with this schema")
        return {name: held[name] for name in schema.tables}


def _referred_to(schema: Schema) -> set[str]:
    return {to for table in schema.tables.values() for to in references_of(table).values()}


def _rows_file(table: str) -> str:
    return f"{table}.rows.arrow"


def _types(declared: Table, *, lenient: bool) -> dict[str, pl.DataType]:
    """The columns that are stored, and their types in the file."""
    types: dict[str, pl.DataType] = {}
    referring = references_of(declared)
    for name, column in declared.columns.items():
        if not is_read(column):
            continue
        if name == declared.foreign_key or name in referring:
            types[name] = _KEY_TYPE
        elif isinstance(column, CategoryColumn | ConsentColumn):
            known = column.values if isinstance(column, CategoryColumn) and not lenient else None
            types[name] = pl.UInt8() if known is not None and len(known) <= 2**8 else pl.UInt32()
        elif dtype_of(column) != pl.String:
            types[name] = dtype_of(column)
    return types


def _is_whole(frame: pl.DataFrame, declared: Table, *, values: Mapping[str, tuple[str, ...]], rows: int | None) -> bool:
    """Whether a file has the columns that it must have, and every code in it stands for a value."""
    types = _types(declared, lenient=False)
    if frame.columns != list(types) or frame.height != rows:
        return False
    return all(
        _stand_for(frame[name], values.get(name))
        if isinstance(declared.columns[name], CategoryColumn | ConsentColumn)
        else frame.schema[name] == dtype
        for name, dtype in types.items()
    )


def _stand_for(codes: pl.Series, values: Sequence[object] | None) -> bool:
    """Whether every code stands for a value of its own."""
    if values is None or len(set(values)) < len(values) or not codes.dtype.is_unsigned_integer():
        return False
    highest: Any = codes.max()
    return highest is None or highest < len(values)


def _decoded(frame: pl.DataFrame, declared: Table, *, values: Mapping[str, tuple[str, ...]]) -> pl.DataFrame:
    """The columns that a cohort has."""
    columns = []
    for name, column in declared.columns.items():
        if not is_read(column):
            continue
        if name in values:
            known = pl.Enum(values[name])
            found = frame[name].cast(pl.Series(dtype=known).to_physical().dtype).cat.to(known)
        elif name in frame.columns:
            found = frame[name]
        elif name == declared.key:
            found = pl.int_range(frame.height, dtype=_KEY_TYPE, eager=True)
        else:
            found = pl.repeat(None, frame.height, dtype=pl.String, eager=True)
        columns.append(found.alias(name))
    return pl.DataFrame(columns)
