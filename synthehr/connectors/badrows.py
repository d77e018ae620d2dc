"""Rows of tables that break the schema: left out by policy, with all that hangs from them, listed and counted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

import polars as pl

from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.errors import ConfigError, DataError
from synthehr.schema.conform import across_tables, judge, named_as_declared
from synthehr.schema.model import Schema

__all__ = ["QUARANTINE", "LeftOut", "Misshapen", "OnLeftOut", "numbered", "sift", "without_numbers"]

QUARANTINE = "quarantine"
_ROW = "\0row"  # cannot be declared: names of columns are printable
_WITH_PARENT = "belongs to a row that was left out"
_LISTED = {"table": pl.String, "row": pl.UInt32, "column": pl.String, "rule": pl.String}


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The rows that were left out of tables as bad.

    Attributes:
        listed: one row for each of them: its table, its row (from 1, header left out), the column that the rule is
            about (null where it is about the row) and the first rule that it breaks. No value of a record.
        rows: by table, the rows themselves as they were checked (dates that are read as offsets are offsets by then),
            in the order of ``listed``; those of CSV that are too long or short are empty. Columns that are dropped when
            records are read are not among them.
        read: by table, how many rows there were in all.
    """

    listed: pl.DataFrame
    rows: Mapping[str, pl.DataFrame]
    read: Mapping[str, int]

    def counts(self) -> dict[str, dict[str, int]]:
        """For each table how many rows were read, and how many were left out by each rule."""
        counted: dict[str, dict[str, int]] = {name: {"rows read": rows} for name, rows in self.read.items()}
        rule = pl.concat_str([pl.col("column"), pl.col("rule")], separator=": ", ignore_nulls=True)
        for table, why, rows in self.listed.group_by("table", rule.alias("why")).len().sort("table", "why").iter_rows():
            counted[table][f"left out, {why}"] = rows
        return counted

    def write_audit(self, path: Path) -> None:
        """Write the counts as JSON that its owner alone can read."""
        with _private(path) as out:
            out.write(json.dumps({"rows": self.counts()}, indent=2, ensure_ascii=False).encode() + b"\n")

    def write(self, folder: Path) -> None:
        """Write the list as ``quarantine.csv`` and the rows as ``quarantine/<table>.csv``, for their owner alone.

        Raises:
            ConfigError: something of that name is there.
        """
        self._write(self.listed, folder / f"{QUARANTINE}.csv")
        try:
            (folder / QUARANTINE).mkdir(mode=0o700)
        except OSError as error:
            raise ConfigError(f"the quarantine cannot be written: {error.strerror}") from None
        for table, rows in self.rows.items():
            self._write(rows, folder / QUARANTINE / f"{table}.csv")

    @staticmethod
    def _write(rows: pl.DataFrame, path: Path) -> None:
        nested = [name for name, dtype in rows.schema.items() if dtype.is_nested() or dtype in (pl.Binary, pl.Object)]
        with _private(path) as out:
            rows.with_columns(pl.lit("(nested or binary)").alias(name) for name in nested).write_csv(out)


def _private(path: Path) -> IO[bytes]:
    """A new file that its owner alone can read."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
    except OSError as error:
        raise ConfigError(f"{path.name!r} cannot be written: {error.strerror}") from None


OnLeftOut: TypeAlias = Callable[[LeftOut], None]
Misshapen: TypeAlias = Mapping[str, Mapping[int, str]]


def numbered(
    tables: Mapping[str, pl.DataFrame], *, schema: Schema, misshapen: Misshapen | None = None
) -> dict[str, pl.DataFrame]:
    """The tables with the number of each row in its file, from 1, as a column of their own.

    Tables of which one row for each key will be gathered are not numbered; rows of theirs that are misshapen are left
    out, since they stand in the table below, which is of the same source.
    """
    marked = {}
    for name, frame in tables.items():
        if name not in schema.gathered:
            marked[name] = frame.with_row_index(_ROW, offset=1)
        else:
            wrong = pl.Series(list((misshapen or {}).get(name, {})), dtype=pl.Int64)
            marked[name] = frame.filter(~pl.int_range(frame.height, eager=True).is_in(wrong.implode()))
    return marked


def without_numbers(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Series]:
    """The table as it was before :func:`numbered`, and the number of each of its rows."""
    if _ROW in frame.columns:
        return frame.drop(_ROW), frame[_ROW]
    return frame, pl.int_range(1, frame.height + 1, dtype=pl.UInt32, eager=True)


def sift(
    tables: Mapping[str, pl.DataFrame],
    *,
    schema: Schema,
    policy: BadRowPolicy,
    lenient: bool = False,
    misshapen: Misshapen | None = None,
) -> tuple[dict[str, pl.DataFrame], LeftOut]:
    """The declared columns of each table in their types, without the rows that break a rule, and what was left out.

    Whether a row stays depends on its own patient's rows alone: on what it holds, on the row that it belongs to, and on
    whether it shares its key with another row of the same parent (then none of them stays). A key that stands in rows
    of several parents is left for :class:`~synthehr.cohort.Cohort` to refuse.

    Args:
        tables: as they were read, by the schema's names; rows may be :func:`numbered`.
        schema: what is declared.
        policy: ``drop`` or ``quarantine``, and the share above which it stops.
        lenient: see :func:`synthehr.schema.conform.conform`.
        misshapen: by table, rows that the reader could not cut into cells, with the rule; by number from 0.

    Raises:
        DataError: a table or column is absent or not declared, too many rows are bad, or no patient is left.
    """
    sifted: dict[str, pl.DataFrame] = {}
    keys: dict[str, pl.Series] = {}
    findings: list[pl.DataFrame] = []
    raw: dict[str, pl.DataFrame] = {}
    for name in (name for name in schema.top_down if name in tables):
        frame, numbers = without_numbers(tables[name])
        named_as_declared(frame.columns, declared=schema.tables[name], table=name)
        conformed, broken = judge(frame, schema=schema, table=name, lenient=lenient)
        found = [(one.column, one.rule, one.rows) for one in broken]
        found += _of_keys(conformed, sifted, keys, schema=schema, table=name)
        if not lenient:
            across = across_tables({**sifted, name: conformed}, schema=schema, table=name)
            found += [(one.column, one.rule, one.rows) for one in across]
        key = schema.links[name].key
        if key is not None:
            keys[name] = conformed[key]
        shapes = {} if name in schema.gathered else (misshapen or {}).get(name, {})
        bad = _first_rules(found, shapes=_by_row(shapes, numbers=numbers), table=name)
        sifted[name] = conformed.filter(bad["rule"].is_null())
        bad = bad.filter(pl.col("rule").is_not_null())
        if bad.height:
            raw[name] = frame[bad["row"]]
            findings.append(bad.with_columns(numbers.gather(bad["row"]).alias("row")))
    listed = pl.concat(findings) if findings else pl.DataFrame(schema=_LISTED)
    left_out = LeftOut(listed=listed, rows=raw, read={name: frame.height for name, frame in tables.items()})
    _check(left_out, policy=policy)
    if schema.subject in sifted and not sifted[schema.subject].height:
        raise DataError(f"table {schema.subject!r} has no rows that follow the schema: it needs at least one")
    return sifted, left_out


def _by_row(shapes: Mapping[int, str], *, numbers: pl.Series) -> pl.Series:
    """For each row the rule of cutting it into cells that it breaks, null where it breaks none."""
    return numbers.replace_strict(
        [at + 1 for at in shapes], list(shapes.values()), default=None, return_dtype=pl.String
    )


def _first_rules(found: Sequence[tuple[str | None, str, pl.Series]], *, shapes: pl.Series, table: str) -> pl.DataFrame:
    """For each row, from 0, the first rule that it breaks and the column that it is about; null where none."""
    why, column = shapes, pl.repeat(None, len(shapes), dtype=pl.String, eager=True)
    for name, rule, rows in found:
        new = rows.fill_null(value=False) & why.is_null()
        if new.any():
            why = pl.select(pl.when(new).then(pl.lit(rule)).otherwise(why)).to_series()
            column = pl.select(pl.when(new).then(pl.lit(name)).otherwise(column)).to_series()
    listed = pl.DataFrame({"column": column, "rule": why}).with_row_index("row")
    return listed.select(pl.lit(table).alias("table"), "row", "column", "rule")


def _of_keys(
    rows: pl.DataFrame,
    parents: Mapping[str, pl.DataFrame],
    keys: Mapping[str, pl.Series],
    *,
    schema: Schema,
    table: str,
) -> Iterator[tuple[str, str, pl.Series]]:
    """What is wrong with the keys of a table's rows: the column, the rule, and where."""
    link = schema.links[table]
    if link.foreign_key is not None and link.parent is not None and link.parent in keys:
        points = rows[link.foreign_key]
        there = points.is_in(keys[link.parent].implode()).fill_null(value=False)
        yield link.foreign_key, f"is no key of table {link.parent!r}", ~there
        stays = points.is_in(parents[link.parent][keys[link.parent].name].implode()).fill_null(value=False)
        yield link.foreign_key, _WITH_PARENT, ~stays
    if link.key is not None:
        yield link.key, "is a key and is missing", rows[link.key].is_null()
        of_one_parent = pl.lit(value=True)
        if link.foreign_key is not None:
            of_one_parent = pl.col(link.foreign_key).n_unique().over(link.key) == 1
        twice = (pl.len().over(link.key) > 1) & pl.col(link.key).is_not_null() & of_one_parent
        yield link.key, "is a key and stands in several rows", rows.select(twice.alias("_")).to_series()


def _check(left_out: LeftOut, *, policy: BadRowPolicy) -> None:
    """Refuse a source of which too much is bad; rows left out with their parents do not count."""
    broken = left_out.listed.filter(pl.col("rule") != _WITH_PARENT)
    if broken.height > policy.most * sum(left_out.read.values()):
        often = broken.group_by("table", "column", "rule").len().sort("len", "table", "column", descending=True).row(0)
        where = f"column {often[1]!r} in table {often[0]!r}" if often[1] is not None else f"a row of table {often[0]!r}"
        raise DataError(
            f"more than {policy.most:g} of the rows are bad (most often: {where} {often[2]}): "
            "correct the source, or raise --max-bad-share"
        )
