"""A cohort prepared for writing as FHIR: rows in order, references resolved, patients on a calendar."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.fhir.calendar import anchors
from synthehr.connectors.fhir.labels import Labels, Names
from synthehr.connectors.fhir.write_columns import Part
from synthehr.connectors.fhir.write_map import WriteMap, load_map
from synthehr.connectors.fhir.write_rows import Made
from synthehr.errors import DataError, SchemaError
from synthehr.schema.model import NumberColumn, Schema

__all__ = ["Links", "Run", "check_columns"]


def check_columns(columns: Sequence[str], *, table: str, schema: Schema) -> None:
    """Refuse a column that the table's write-back map has no place for.

    Raises:
        SchemaError: there is one, or there is no such map.
    """
    link = schema.links[table]
    strange = sorted(set(columns) - load_map(table).columns - {str(link.key), str(link.foreign_key)})
    if strange:
        raise SchemaError(
            f"column {strange[0]!r} of table {table!r} has no place in FHIR: leave it out, or write tables"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """How one form of output refers to resources.

    Attributes:
        to: the reference to a resource, by its type and id.
        typed: whether the reference names the type.
        made_up: the id of a made-up resource of a type, by the number of the patient that it is for.
    """

    to: Callable[[str, str], str]
    typed: bool
    made_up: Callable[[str, int], str]


@dataclass(slots=True)
class Prepared:
    """A table ready to be cut by patient: rows sorted by patient, and where each patient's begin."""

    map: WriteMap
    frame: pl.DataFrame
    starts: np.ndarray[Any, Any]
    decimals: Mapping[str, int]


class Run:
    """A cohort prepared for writing: rows numbered, references resolved, patients put on a calendar."""

    def __init__(self, cohort: Cohort[Schema], *, labels: Labels, names: Names, seed: int) -> None:
        self.labels = labels
        self.names = names
        self.patients = len(cohort)
        self.lost: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        self._cohort = cohort
        if cohort.schema.subject != "patient":
            raise SchemaError("FHIR is written of tables whose root is 'patient': see schemas/fhir/r4/schema.yaml")
        self.maps = {table: load_map(table) for table in cohort.schema.links}
        self._anchors = anchors(cohort, {table: each.moments for table, each in self.maps.items()}, seed=seed)
        self.tables = {table: self._prepared(table) for table in self.maps}

    def _prepared(self, table: str) -> Prepared:
        each, frame = self.maps[table], self._cohort.tables[table]
        check_columns(frame.columns, table=table, schema=self._cohort.schema)
        owners = self._cohort.owners(table)
        columns = [
            pl.Series("_row", np.arange(frame.height)),
            pl.Series("_patient", owners),
            self._anchors.gather(pl.Series(owners)),
            *(self._targets(table, column, to) for column, to in each.references.items()),
        ]
        frame = frame.with_columns(columns)
        order = ["_patient"]
        if each.components is not None:
            frame = _grouped(frame, group=each.components["group"])
            order += ["_group", *({each.components["index"]} & set(frame.columns))]
        frame = frame.sort(order, maintain_order=True, nulls_last=False)
        starts = np.searchsorted(frame["_patient"].to_numpy(), np.arange(self.patients + 1))
        return Prepared(each, frame, starts, _decimals(self._cohort.schema, table))

    def _targets(self, table: str, column: str, to: str) -> pl.Series:
        """The row number that each reference of a column leads to; null where the row has none."""
        name = f"_to_{column}"
        frame, owners = self._cohort.tables[table], self._cohort.owners(table)
        if to == "patient":
            return pl.Series(name, owners if table != "patient" else np.arange(frame.height))
        if column not in frame.columns:
            return pl.Series(name, [None] * frame.height, dtype=pl.Int64)
        key = self._cohort.schema.links[to].key if to in self._cohort.schema.links else None
        if key is None:
            self.lost[table][column, f"table {to!r} is not there"] += frame.height - frame[column].null_count()
            return pl.Series(name, [None] * frame.height, dtype=pl.Int64)
        theirs = self._cohort.tables[to].select(
            pl.col(key).cast(pl.String).alias("_key"), pl.Series(name, np.arange(self._cohort.tables[to].height))
        )
        ours = frame.select(pl.col(column).cast(pl.String).alias("_key"))
        found = ours.join(theirs, on="_key", how="left", maintain_order="left")[name]
        if found.null_count() != frame[column].null_count():
            raise DataError(f"column {column!r} of table {table!r} must hold keys of rows of table {to!r}, or nothing")
        at = found.fill_null(0).to_numpy()
        elsewhere = self._cohort.owners(to)[at] != owners if len(self._cohort.owners(to)) else np.zeros(len(at), bool)
        if bool((elsewhere & found.is_not_null().to_numpy()).any()):
            raise DataError(f"column {column!r} of table {table!r} must lead to rows of the same patient")
        return found

    def resources(self, table: str, first: int, last: int, *, links: Links) -> Iterator[tuple[int, Made]]:
        """The resources of a table of the patients ``first`` up to ``last``, each with the number of its patient."""
        ready = self.tables[table]
        rows = ready.frame[int(ready.starts[first]) : int(ready.starts[last])]
        owners = rows["_patient"].to_list()
        kind = ready.map.resource
        part = Part(
            table=table,
            frame=rows,
            link=lambda to, row: links.to(self.maps[to].resource, self.names(self.maps[to].resource, row)),
            made=lambda kind: self._made_up(kind, owners, links=links),
            decimals=ready.decimals,
            words=not self.labels.synthetic,
            lost=self.lost[table],
        )
        names = partial(self.names.of, kind)
        for resource in ready.map.resources(part, names=names, meta=self.labels.meta, linked=links.typed):
            yield owners[resource.at], resource

    def _made_up(self, kind: str, owners: list[int], *, links: Links) -> list[dict[str, str]]:
        """References to the resources of this type that stand for nobody, one a patient or one for all."""
        made = {owner: {"reference": links.to(kind, links.made_up(kind, owner))} for owner in dict.fromkeys(owners)}
        return [made[owner] for owner in owners]


def _grouped(frame: pl.DataFrame, *, group: str) -> pl.DataFrame:
    """Rows with ``_group``, the number of the first row of the resource that they belong to."""
    if group not in frame.columns:
        return frame.with_columns(pl.col("_row").alias("_group"))
    of_one = pl.col("_row").min().over("_patient", group)
    return frame.with_columns(pl.when(pl.col(group).is_null()).then(pl.col("_row")).otherwise(of_one).alias("_group"))


def _decimals(schema: Schema, table: str) -> dict[str, int]:
    """Digits after the point that the schema's precision declares, by column."""
    found = {}
    for name, column in schema.tables[table].columns.items():
        if isinstance(column, NumberColumn) and column.precision is not None:
            exponent = Decimal(repr(column.precision)).normalize().as_tuple().exponent
            found[name] = max(0, -int(exponent))
    return found
