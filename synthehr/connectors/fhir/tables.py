"""Rows of views made into the tables of a cohort: keys, offsets, units, concepts; nobody's date or id is left.

Rows are read twice from where they were put aside, some ten thousand at a time: once to learn whose they are, and once
to make tables of them. What is held of all of them at once are numbers: of patients, and of what references lead to.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import polars as pl

from synthehr.connectors.fhir.badlines import BadRecord
from synthehr.connectors.fhir.consent import ConsentPolicy, ConsentRecord
from synthehr.connectors.fhir.offsets import after, offset, wall_clock
from synthehr.connectors.fhir.ownership import OwnedRows, Patients, Seen, see_owners
from synthehr.connectors.fhir.references import Index, by_id, leads_in_circles, read_references, resolve
from synthehr.connectors.fhir.spool import Spool
from synthehr.connectors.fhir.units import in_one_unit
from synthehr.connectors.fhir.viewset import TableView, ViewSet
from synthehr.schema.model import CategoryColumn, IntegerColumn, NumberColumn, Schema

__all__ = ["Built", "build_tables"]

_T = TypeVar("_T")
_U = TypeVar("_U")

DUPLICATE = "is a second resource with the same type and id"
_SPARSE_ZIP3 = frozenset(  # HIPAA safe harbour, 45 CFR 164.514(b)(2)(i)(B): at most 20,000 people by the census of 2010
    "036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893".split()  # noqa: SIM905 - read as words
)


@dataclass(slots=True, kw_only=True)
class Built:
    """The tables, and what was left out on the way. All counts are private.

    Attributes:
        tables: queries by name; columns as ``schemas/fhir/r4/README.md`` says.
        rows: by table: made by the view, and how many of them went where.
        cells: by table and column: cells made null, by reason.
        bad: records left out here, by place.
        consent: patients left out, and consents that could not be tied to a patient.
    """

    tables: dict[str, pl.LazyFrame] = field(default_factory=dict)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    cells: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    bad: list[BadRecord] = field(default_factory=list)
    consent: Counter[str] = field(default_factory=Counter)


def build_tables(
    spool: Spool, views: ViewSet, *, consent: ConsentPolicy, declared: Schema, folder: Path, at_once: int = 1
) -> Built:
    """The tables of everything that was read.

    Args:
        spool: the rows.
        views: that made them.
        consent: whom to leave out, before anything else is counted.
        declared: the schema whose value sets and bounds the cells must fit; others become null and are counted.
        folder: takes the tables where the spool keeps its rows in files.
        at_once: how many views are looked at, and batches of rows worked on, side by side.

    Raises:
        DataError: there is no patient, or the patient view made more or less than one row of one.
    """
    built = Built()
    duplicates = _duplicates(spool, views)
    built.bad += spool.places(duplicates, reason=DUPLICATE)
    index = Index(spool.aliases(), left_out=duplicates, absolute=spool.absolute)
    refused = _refused(spool.consents, index=index, policy=consent, built=built, secret=spool.secret)
    rows = OwnedRows(spool, index=index, duplicates=duplicates, refused=refused)
    patients = Patients()
    owners = {}

    def seen(name: str) -> Seen:
        view = views.tables[name]
        return see_owners(rows, view, patients, target=view.resource in views.targets)

    first = [name for name, view in views.tables.items() if view.resource == "Patient"]
    others = [name for name in views.tables if name not in first]
    with _side_by_side(at_once) as spread:  # the work is done in polars, which lets other threads go on
        for name, found in zip([*first, *others], [*map(seen, first), *spread(seen, others)], strict=True):
            built.rows[name], owners[views.tables[name].resource] = found.rows, found.owners
            built.bad += found.bad
    built.consent["patients left out"] = built.rows["patient"]["left out by consent"]
    anchors = patients.anchors()
    lookups = {view.resource: rows.of_lookup(view) for view in views.lookups.values()}

    for name, view in views.tables.items():
        around = _Around(view, index, anchors, owners, lookups, declared)
        put = folder / f"table.{name}" if spool.on_disk else None
        built.tables[name], built.cells[name] = _finished(around, rows, put=put, at_once=at_once)
    return built


def _duplicates(spool: Spool, views: ViewSet) -> pl.Series:
    """Numbers of resources whose type and id stood before; found by hashes, then by the names themselves."""
    tables = sorted({view.resource for view in views.tables.values()})
    again = spool.repeated()
    if again.is_empty():
        return again
    named = spool.resources(again).select("_r", "type", "name")
    return named.filter(~pl.col("name").is_first_distinct()).filter(pl.col("type").is_in(tables))["_r"]


def _refused(
    records: list[ConsentRecord], *, index: Index, policy: ConsentPolicy, built: Built, secret: int
) -> pl.Series:
    """Numbers of the patients who are left out."""
    by_patient: dict[int, list[ConsentRecord]] = defaultdict(list)
    if policy.mode != "ignore" and records:
        named = read_references([record.patient for record in records], secret=secret)
        named = named.select(pl.col("exact").alias("patient"), pl.col("id").alias(by_id("patient")))
        found = resolve(named.lazy(), "patient", target="Patient", index=index, to="_patient").collect()["_patient"]
        for record, patient in zip(records, found, strict=True):
            if patient is None:
                built.consent["consents of no patient in the source"] += 1
            else:
                by_patient[patient].append(record)
    everyone = index.of("Patient")["_r"].unique().sort()
    return pl.Series(
        "_refused",
        [patient for patient in everyone if not policy.keeps(by_patient.get(patient, []))],
        dtype=pl.UInt64,
    )


@dataclass(frozen=True, slots=True)
class _Around:
    """What rows of a view need to become rows of a table.

    Attributes:
        view: that made them.
        index: of what references lead to.
        patients: as :meth:`Patients.anchors` has them.
        owners: by type, whose each resource is.
        lookups: by type, what references to it are filled in from.
        declared: the schema that the cells must fit.
    """

    view: TableView
    index: Index
    patients: pl.DataFrame
    owners: Mapping[str, pl.DataFrame]
    lookups: Mapping[str, pl.LazyFrame]
    declared: Schema

    def led(self, frame: pl.LazyFrame, column: str, target: str) -> pl.LazyFrame:
        """Rows with ``_to``, the resource that a reference leads to, and ``_of``, its patient."""
        owners = self.owners.get(target, pl.DataFrame(schema={"_to": pl.UInt64, "_of": pl.UInt64}))
        here = resolve(frame, column, target=target, index=self.index, to="_to")
        return here.join(owners.lazy(), on="_to", how="left", maintain_order="left")


def _finished(
    around: _Around, rows: OwnedRows, *, put: Path | None, at_once: int
) -> tuple[pl.LazyFrame, dict[str, dict[str, int]]]:
    """A table, and by column the cells that were made null, by reason.

    Args:
        around: what its rows need.
        rows: what it is made of.
        put: how the names of the files begin that take it; held in memory where left out.
        at_once: how many batches of rows are worked on side by side.
    """
    circles = _find_circles(around, rows)

    def made(batch: tuple[int, pl.DataFrame]) -> tuple[pl.LazyFrame | Path, Counter[tuple[str, str]]]:
        number, kept = batch
        frame, notes = _Batch(kept, around, circles=circles).made()
        if put is None:
            return frame.lazy(), notes
        path = put.with_name(f"{put.name}.{number}.parquet")
        frame.write_parquet(path, compression="lz4", statistics=False)
        return path, notes

    counted: dict[str, dict[str, int]] = defaultdict(dict)
    parts: list[pl.LazyFrame] = []
    paths: list[Path] = []
    with _side_by_side(at_once) as spread:
        for part, notes in spread(made, enumerate(rows.kept(around.view))):
            for (column, what), count in notes.items():
                counted[column][what] = counted[column].get(what, 0) + count
            if isinstance(part, Path):
                paths.append(part)
            else:
                parts.append(part)
    return pl.concat(parts) if put is None else pl.scan_parquet(paths, glob=False), dict(counted)


def _find_circles(around: _Around, rows: OwnedRows) -> dict[str, pl.Series]:
    """By column, the references from one row of a table to another that come back to where they began."""
    found = {}
    for column in around.view.with_role("reference"):
        if column.target != around.view.resource:
            continue
        edges = []
        for frame in rows.kept(around.view):
            there = frame.lazy().filter(pl.col(column.name).is_not_null())
            led = around.led(there, column.name, column.target).filter(pl.col("_of") == pl.col("_owner"))
            edges.append(led.select("_r", "_to").collect())
        found[column.name] = _circles(pl.concat(edges))
    return found


class _Batch:
    """Some rows of a view on their way to be rows of a table; each step notes which cells it made null, and why."""

    def __init__(self, kept: pl.DataFrame, around: _Around, *, circles: Mapping[str, pl.Series]) -> None:
        self._around = around
        self._circles = circles
        self._frame = kept.lazy().join(around.patients.lazy(), on="_owner", how="left", maintain_order="left")
        self._notes: list[tuple[str, str]] = []

    def made(self) -> tuple[pl.DataFrame, Counter[tuple[str, str]]]:
        """The table's rows, and the cells that were made null: by column and reason."""
        view = self._around.view
        for column in view.with_role("lookup"):
            self._look_up(column.name, str(column.target))
        for column in view.with_role("reference"):
            self._refer(column.name, str(column.target))
        names = {column.name: column.name for column in view.columns if column.role != "lookup"}
        for column in view.with_role("after"):
            names[column.name] = self._after(column.name, start=str(column.after), unit=str(column.unit))
        for column in view.with_role("offset"):
            names[column.name] = self._offset(column.name, unit=str(column.unit))
        if view.resource == "Patient":
            self._describe_patient(names)
        if {"code", "value", "unit"} <= set(names):
            self._frame = in_one_unit(self._frame)
        concepts = self._concepts(names)
        if view.key is not None:
            self._frame = self._frame.with_columns(_key(pl.col("_r")).alias(view.key))
        if view.resource != "Patient":
            self._frame = self._frame.with_columns(_key(pl.col("_owner")).alias(view.subject))
        columns = [*([view.key] if view.key else []), *names.values(), *concepts]
        self._fit(columns)
        noted = [_note(at) for at in range(len(self._notes))]
        made = self._frame.select(*columns, *noted).collect()
        counts: Counter[tuple[str, str]] = Counter()
        for note, what in zip(noted, self._notes, strict=True):
            counts[what] += int(made[note].sum())
        return made.drop(noted), +counts

    def _noted(self, column: str, what: str, where: pl.Expr) -> None:
        """Count the rows where something is so."""
        self._frame = self._frame.with_columns(where.fill_null(value=False).alias(_note(len(self._notes))))
        self._notes.append((column, what))

    def _null(self, column: str, what: str, where: pl.Expr, *, noted: str | None = None) -> None:
        """Make cells null and count them."""
        at = _note(len(self._notes))
        self._noted(noted or column, what, where)
        self._frame = self._frame.with_columns(pl.when(~pl.col(at)).then(pl.col(column)).alias(column))

    def _look_up(self, column: str, target: str) -> None:
        """Fill in what the resource that a reference leads to says, where the row says nothing itself."""
        found = self._around.lookups.get(target)
        if found is None:
            self._frame = self._frame.drop(column)
            return
        here = resolve(self._frame, column, target=target, index=self._around.index, to="_at")
        filled = [name for name in found.collect_schema().names() if name in self._frame.collect_schema().names()]
        theirs = found.rename({"_r": "_at"} | {name: f"_{name}" for name in filled if name != "_r"})
        filled.remove("_r")
        empty = pl.all_horizontal(pl.col(name).is_null() for name in filled)
        here = here.join(theirs.unique("_at", keep="first"), on="_at", how="left", maintain_order="left")
        self._frame = here
        self._noted(column, "leads nowhere", pl.col(column).is_not_null() & pl.col("_at").is_null())
        self._frame = self._frame.with_columns(
            pl.when(empty).then(pl.col(f"_{name}")).otherwise(pl.col(name)).alias(name) for name in filled
        ).drop("_at", column, *(f"_{name}" for name in filled))

    def _refer(self, column: str, target: str) -> None:
        """A reference becomes the key of a row of the same patient, or null."""
        self._frame = self._around.led(self._frame, column, target)
        self._noted(column, "leads nowhere", pl.col(column).is_not_null() & pl.col("_of").is_null())
        self._noted(column, "leads to another patient's record", pl.col("_of") != pl.col("_owner"))
        valid = pl.when(pl.col("_of") == pl.col("_owner")).then(pl.col("_to"))
        self._frame = self._frame.with_columns(valid.alias("_to"))
        circles = self._circles.get(column)
        if circles is not None:
            self._null("_to", "leads in a circle", pl.col("_r").is_in(circles.implode()), noted=column)
        self._frame = self._frame.with_columns(_key(pl.col("_to")).alias(column)).drop("_to", "_of")

    def _offset(self, column: str, *, unit: str) -> str:
        name = f"{column}_{unit}"
        raw = pl.col(column)
        self._frame = self._frame.with_columns(offset(raw, anchor=pl.col("_anchor"), unit=unit).alias(name))
        self._noted(name, "is no FHIR date or time", raw.is_not_null() & wall_clock(raw).is_null())
        return name

    def _after(self, column: str, *, start: str, unit: str) -> str:
        name = f"duration_{unit}"
        length = after(pl.col(column), start=pl.col(start), unit=unit)
        self._frame = self._frame.with_columns(length.alias(name))
        self._null(name, "ends before it begins", pl.col(name) < 0)
        return name

    def _describe_patient(self, names: dict[str, str]) -> None:
        del names["birth_date"]
        dead = pl.col("deceased").fill_null(value=False) | pl.col("death").is_not_null()
        self._frame = self._frame.with_columns(dead.alias("deceased"))
        if "zip3" in names:
            self._null("zip3", "covers at most 20,000 people", pl.col("zip3").is_in(sorted(_SPARSE_ZIP3)))
        names["anchor"] = "anchor"

    def _concepts(self, names: Mapping[str, str]) -> list[str]:
        """Beside each system and code, both in one column; an observation's unit belongs to it."""
        made = []
        for system, code, concept in _codings(names):
            token = pl.concat_str(pl.col(system).fill_null(""), pl.lit("|"), pl.col(code))
            if code == "code" and {"value", "unit"} <= set(names):
                measured = pl.col("value").is_not_null() & pl.col("unit").is_not_null()
                token = pl.when(measured).then(token + "|" + pl.col("unit")).otherwise(token)
            self._frame = self._frame.with_columns(token.alias(concept))
            made.append(concept)
        return made

    def _fit(self, columns: list[str]) -> None:
        """Make null what the default schema's value sets and bounds leave no place for."""
        table = self._around.declared.tables.get(self._around.view.name)
        for name, column in (table.kept if table is not None else {}).items():
            if name not in columns:
                continue
            if isinstance(column, CategoryColumn) and column.values is not None:
                self._null(name, "is no code of its value set", ~pl.col(name).is_in(list(column.values)))
            elif isinstance(column, IntegerColumn | NumberColumn) and isinstance(column.bounds, tuple):
                low, high = column.bounds
                self._null(name, "lies outside the bounds", (pl.col(name) < low) | (pl.col(name) > high))


@contextmanager
def _side_by_side(at_once: int) -> Iterator[Callable[[Callable[[_T], _U], Iterable[_T]], Iterator[_U]]]:
    """A ``map()`` that does this many at once, and keeps the order; what waits is never much more."""
    if at_once == 1:
        yield map
        return
    with ThreadPoolExecutor(at_once) as pool:

        def spread(work: Callable[[_T], _U], items: Iterable[_T]) -> Iterator[_U]:
            waiting: deque[Future[_U]] = deque()
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        yield spread


def _codings(names: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """System, code and concept columns of each coding of a table."""
    for system in names:
        stem = system.removesuffix("_system")
        if stem == system:
            continue
        code = next((name for name in (f"{stem}_code", stem) if name in names), None)
        if code is not None:
            yield system, code, "concept" if stem == "code" else f"{stem}_concept"


def _circles(edges: pl.DataFrame) -> pl.Series:
    """Resources whose chain of references comes back to where it was. Columns ``_r`` and ``_to``."""
    rows = edges.unique("_r", keep="first", maintain_order=True).with_row_index("_at")
    parents = rows.join(
        rows.select(pl.col("_r").alias("_to"), pl.col("_at").alias("_p")), on="_to", how="left", maintain_order="left"
    )["_p"]
    circling = leads_in_circles(parents.cast(pl.Int64).fill_null(-1).to_numpy())
    return rows["_r"].filter(pl.Series(circling))


def _key(number: pl.Expr) -> pl.Expr:
    """A key made of a resource's number; nothing of its id is in it."""
    return (number + 1).cast(pl.String)


def _note(at: int) -> str:
    return f"_note{at}"
