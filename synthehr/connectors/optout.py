"""Patients who are left out before their records are looked at: by a list of keys, or by a column that says so."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from synthehr.errors import ConfigError, DataError
from synthehr.schema.conform import parse_column
from synthehr.schema.model import ConsentColumn, IdColumn, Schema

__all__ = ["Admission", "read_opt_out", "write_audit"]

_KEY = IdColumn(kind="id")
_MEANS = {"true": ("true", "t", "yes", "y", "1", "1.0"), "false": ("false", "f", "no", "n", "0", "0.0")}


def read_opt_out(path: str | Path, *, key: str | None) -> frozenset[str]:
    """The keys in a list of patients who opted out.

    Args:
        path: one key a line, or a CSV file; of several columns the one that is named as the key is read.
        key: the root table's key.

    Raises:
        ConfigError: the root table has no key to tell patients by.
        DataError: the file cannot be read, lists nobody, or has several columns and none of them is the key.
    """
    if key is None:
        raise ConfigError("a list of patients who opted out needs a key of the root table: declare it in the schema")
    file = Path(path)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = [row for row in csv.reader(lines, strict=True) if any(cell.strip() for cell in row)]
    except (OSError, UnicodeDecodeError, csv.Error):
        raise DataError(
            f"list {str(path)!r} of patients who opted out cannot be read: give a UTF-8 text file"
        ) from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    at = header.index(key) if key in header else 0
    if any(len(row) != len(header) for row in rows) or (len(header) > 1 and key not in header):
        raise DataError(
            f"list {str(path)!r} of patients who opted out has several columns, and none that its first line names "
            f"{key!r}: give one key a line, or name the column"
        )
    cells = pl.Series([row[at] for row in (rows[1:] if key in header else rows)], dtype=pl.String)
    keys = parse_column(cells, _KEY).values.drop_nulls()
    if keys.is_empty():
        raise DataError(f"list {str(path)!r} of patients who opted out names nobody: leave it out if nobody did")
    return frozenset(keys)


@dataclass(slots=True, kw_only=True)
class Admission:
    """Who comes in, and how many were left out: those counts are of patients, and so for the custodian alone.

    Attributes:
        opted_out: keys of patients who are left out, from :func:`read_opt_out`.
        left_out: patients left out, by what said so; filled when tables are admitted.
    """

    opted_out: frozenset[str] = frozenset()
    left_out: dict[str, int] = field(default_factory=dict)

    @classmethod
    def by(cls, opt_out: str | Path | None, *, schema: Schema) -> Admission:
        """By a list of keys, where there is one, and the schema's consent columns."""
        return cls() if opt_out is None else cls(opted_out=read_opt_out(opt_out, key=schema.root.key))

    def admit(self, tables: Mapping[str, pl.DataFrame], *, schema: Schema) -> dict[str, pl.DataFrame]:
        """The tables without the patients who are left out, and without any row of theirs.

        Rows whose key leads to no patient stay, for the check of keys to find.
        """
        root = tables.get(schema.subject)
        if root is None:
            return dict(tables)
        out, self.left_out = self._decided(root, schema=schema)
        if not out.any():
            return dict(tables)
        admitted = {**tables, schema.subject: root.filter(~out)}
        gone = {schema.subject: root.filter(out)}
        for name in schema.top_down:
            table = schema.tables[name]
            if table.parent not in gone or name not in tables:
                continue
            key, foreign = schema.tables[table.parent].key, table.foreign_key
            if key not in gone[table.parent].columns or foreign not in tables[name].columns:
                continue
            of_gone = parse_column(gone[table.parent][key], _KEY).values.drop_nulls().unique()
            leaves = parse_column(tables[name][foreign], _KEY).values.is_in(of_gone.to_list()).fill_null(value=False)
            admitted[name], gone[name] = tables[name].filter(~leaves), tables[name].filter(leaves)
        if admitted[schema.subject].is_empty():
            raise DataError("no patient is left: all of them opted out or did not agree")
        return admitted

    def admit_lazily(self, table: pl.LazyFrame, name: str, *, schema: Schema) -> pl.LazyFrame:
        """A table that names its patient in each row, without those of the list; for tables that are not held.

        Its rows are looked at to count, where it is the root table.
        """
        declared = schema.tables[name]
        column = declared.key if name == schema.subject else declared.foreign_key
        if not self.opted_out:
            return table
        if column is None or declared.parent not in (None, schema.subject):
            raise ConfigError(f"rows of table {name!r} do not name their patient: give a schema with --opt-out")
        leaves = pl.col(column).cast(pl.String).is_in(list(self.opted_out)).fill_null(value=False)
        if name == schema.subject:
            self.left_out = {"list": int(table.select(leaves.sum()).collect().item())}
        return table.filter(~leaves)

    def _decided(self, root: pl.DataFrame, *, schema: Schema) -> tuple[pl.Series, dict[str, int]]:
        """Whether each row of the root table is left out, and how many patients are by what; the list comes first."""
        keys = _keys(root, schema=schema)
        reasons: dict[str, pl.Series] = {}
        if self.opted_out:
            reasons["list"] = keys.is_in(list(self.opted_out))
        for name, column in schema.root.columns.items():
            if isinstance(column, ConsentColumn) and name in root.columns:
                reasons[f"column {name}"] = _refuses(root[name], column)
        out = pl.Series([False] * root.height, dtype=pl.Boolean)
        counts = {}
        for reason, says_out in reasons.items():
            now = out | keys.is_in(keys.filter(says_out.fill_null(value=False)).unique().to_list())
            counts[reason] = keys.filter(now & ~out).n_unique()
            out = now
        return out, counts


def _keys(root: pl.DataFrame, *, schema: Schema) -> pl.Series:
    """What tells the patients of the rows apart: the key, or where there is none the row itself."""
    key = schema.root.key
    rows = pl.int_range(root.height, eager=True).cast(pl.String)
    if key is None or key not in root.columns:
        return rows
    keys = parse_column(root[key], _KEY).values
    return keys.zip_with(keys.is_not_null(), "row " + rows)


def _refuses(raw: pl.Series, column: ConsentColumn) -> pl.Series:
    """Where a consent column keeps the patient out; a missing cell is no agreement, and no refusal either."""
    says = parse_column(raw, column).values.str.to_lowercase()
    listed = column.opt_out if column.opt_out is not None else column.opt_in
    assert listed is not None, "a column has one of the two"
    named = [text for value in listed for text in _MEANS.get(value.lower(), (value.lower(),))]
    there = says.is_in(named).fill_null(value=False)
    return there if column.opt_out is not None else ~there


def write_audit(path: Path, left_out: Mapping[str, int]) -> None:
    """Write how many patients were left out, by what said so, as JSON that its owner alone can read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump({"left_out": dict(left_out)}, out, indent=2, ensure_ascii=False)
        out.write("\n")
