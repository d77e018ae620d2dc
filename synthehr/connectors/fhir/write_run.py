"""A cohort prepared for writing as FHIR: rows in order, references resolved, patients on a calendar."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.fhir.calendar import anchors
from synthehr.connectors.fhir.labels import Labels, Names
from synthehr.connectors.fhir.write_cells import Mask, joined
from synthehr.connectors.fhir.write_map import WriteMap, load_map
from synthehr.connectors.fhir.write_part import Part
from synthehr.connectors.fhir.write_rows import Form, Made
from synthehr.errors import DataError, SchemaError
from synthehr.schema.model import NumberColumn, Schema

__all__ = ["RUN", "Chunk", "Links", "Run", "check_columns"]

_ROWS_AT_ONCE = 1 << 15
RUN = "run"  # the number of a made-up resource that all patients share


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
    """How one form of output holds resources, and refers to them.

    Attributes:
        form: what stands around a resource of a type.
        before: what a reference has before the id of a resource of a type.
        typed: whether the reference names the type.
        one_for_all: whether all patients share the made-up resources, or each has its own.
    """

    form: Callable[[str], Form]
    before: Callable[[str], str]
    typed: bool
    one_for_all: bool


@dataclass(slots=True)
class Prepared:
    """A table ready to be cut by patient: rows sorted by patient, and where each patient's begin.

    Attributes:
        map: its write-back map.
        frame: its rows, with ``_row``, their number in the table, and ``_patient``, that of their patient.
        starts: of each patient the first row, and the number of rows. Shape ``(patients + 1,)``.
        decimals: digits after the point that the schema's precision declares, by column.
        places: of each row of the table its place in ``frame``. Shape ``(rows,)``.
        codes: the columns of codes, words and truth values that the map reads.
    """

    map: WriteMap
    frame: pl.DataFrame
    starts: np.ndarray[Any, Any]
    decimals: Mapping[str, int]
    places: np.ndarray[Any, Any]
    codes: Sequence[str]


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
        places = np.empty(frame.height, dtype=np.int64)
        places[frame["_row"].to_numpy()] = np.arange(frame.height)
        decimals = _decimals(self._cohort.schema, table)
        return Prepared(each, frame, starts, decimals, places, _codes(each, frame))

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

    def chunks(self, *, links: Links) -> Iterator[Chunk]:
        """The resources of some patients at a time: memory beyond the cohort's does not grow with it.

        Args:
            links: how resources are held and referred to.
        """
        rows = np.sum([ready.starts for ready in self.tables.values()], axis=0)  # before each patient
        first = 0
        while first < self.patients:
            fitting = int(np.searchsorted(rows, rows[first] + _ROWS_AT_ONCE, side="right")) - 1
            last = min(max(fitting, first + 1), self.patients)
            yield Chunk(self, first, last, links=links)
            first = last


class Chunk:
    """The resources of some patients.

    Args:
        run: the cohort.
        first: the number of the first patient.
        last: the number after that of the last.
        links: how resources are held and referred to.
    """

    def __init__(self, run: Run, first: int, last: int, *, links: Links) -> None:
        self._run, self.first, self.last, self._links = run, first, last, links
        self._ids: dict[str, pl.Series] = {}
        self._claims: dict[str, Mask] = {}  # of each row of a table whether its resource claims a profile
        self._targets = {to for each in run.maps.values() for to in each.references.values()}

    def resources(self, table: str) -> tuple[np.ndarray[Any, Any], Made] | None:
        """The resources of a table, with the number of each one's patient; None where there are none."""
        ready = self._run.tables[table]
        rows = self._rows(table)
        owners = rows["_patient"].to_numpy()
        kind = ready.map.resource
        part = Part(
            table=table,
            frame=rows,
            link=self._link,
            own=lambda: self._all_ids(table),
            made=lambda made_up: self.made_up(made_up)[owners - self.first],
            decimals=ready.decimals,
            codes=ready.codes,
            words=not self._run.labels.synthetic,
            lost=self._run.lost[table],
        )
        made = ready.map.resources(
            part,
            names=lambda at: self._named(table, at),
            form=self._links.form(kind),
            meta=self._run.labels.meta,
            conforming=self._conforming(table),
            linked=self._links.typed,
        )
        if made is None:
            return None
        self._claims[table] = np.zeros(rows.height, dtype=np.bool_)
        self._claims[table][made.at] = made.claims
        return owners[made.at], made

    def _conforming(self, table: str) -> Mask:
        """Whether all that each row refers to claims its own profile; what was not made yet does not."""
        rows = self._rows(table)
        conforming = np.ones(rows.height, dtype=np.bool_)
        for column, to in self._run.maps[table].references.items():
            if to == table:
                continue
            led = rows[f"_to_{column}"]
            claims = self._claims.get(to)
            there = led.is_not_null().to_numpy()
            if claims is None:
                conforming &= ~there
            else:
                conforming[there] &= claims[self._places(to, led.drop_nulls())]
        return conforming

    def made_up(self, kind: str) -> pl.Series:
        """References to the resource of this type that stands for nobody, of each patient."""
        names, count = self._run.names, self.last - self.first
        ids = [names(kind, RUN)] * count if self._links.one_for_all else names.of(kind, range(self.first, self.last))
        return joined([self._links.before(kind), pl.Series(ids, dtype=pl.String)])

    def _rows(self, table: str) -> pl.DataFrame:
        ready = self._run.tables[table]
        return ready.frame[int(ready.starts[self.first]) : int(ready.starts[self.last])]

    def _named(self, table: str, at: np.ndarray[Any, Any]) -> pl.Series:
        """The ids of the resources whose first rows stand at these places."""
        if table in self._targets:
            return self._all_ids(table)[at]
        return self._ids_of(table, self._rows(table)["_row"][at])

    def _all_ids(self, table: str) -> pl.Series:
        if table not in self._ids:
            self._ids[table] = self._ids_of(table, self._rows(table)["_row"])
        return self._ids[table]

    def _ids_of(self, table: str, numbers: pl.Series) -> pl.Series:
        return pl.Series(self._run.names.of(self._run.maps[table].resource, numbers.to_list()), dtype=pl.String)

    def _link(self, to: str, rows: pl.Series) -> pl.Series:
        """References to rows of a table, which are of the same patients."""
        ready = self._run.tables[to]
        before, ids = self._links.before(ready.map.resource), self._all_ids(to)
        if rows.null_count():
            ids = ids.clone().extend(pl.Series([None], dtype=pl.String))
        places = self._places(to, rows.fill_null(0))
        return joined([before, ids[np.where(rows.is_null().to_numpy(), len(ids) - 1, places)]])

    def _places(self, table: str, rows: pl.Series) -> np.ndarray[Any, Any]:
        """Where rows of a table stand among those of the chunk's patients."""
        ready = self._run.tables[table]
        places: np.ndarray[Any, Any] = ready.places[rows.to_numpy()] - int(ready.starts[self.first])
        return places


def _grouped(frame: pl.DataFrame, *, group: str) -> pl.DataFrame:
    """Rows with ``_group``, the number of the first row of the resource that they belong to."""
    if group not in frame.columns:
        return frame.with_columns(pl.col("_row").alias("_group"))
    of_one = pl.col("_row").min().over("_patient", group)
    return frame.with_columns(pl.when(pl.col(group).is_null()).then(pl.col("_row")).otherwise(of_one).alias("_group"))


def _codes(each: WriteMap, frame: pl.DataFrame) -> list[str]:
    """The columns of codes, words and truth values that a map reads; of concepts, those that no code stands beside."""
    keys = {*each.references, *(() if each.components is None else (each.components["group"],))}
    read = each.columns - keys
    plain = {"concept": "code", **{name: name.removesuffix("_concept") for name in frame.columns}}
    return [
        name
        for name, dtype in frame.schema.items()
        if name in read
        and not dtype.is_numeric()
        and (plain[name] == name or not {plain[name], f"{plain[name]}_code"} & set(frame.columns))
    ]


def _decimals(schema: Schema, table: str) -> dict[str, int]:
    """Digits after the point that the schema's precision declares, by column."""
    found = {}
    for name, column in schema.tables[table].columns.items():
        if isinstance(column, NumberColumn) and column.precision is not None:
            exponent = Decimal(repr(column.precision)).normalize().as_tuple().exponent
            found[name] = max(0, -int(exponent))
    return found
