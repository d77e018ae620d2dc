"""Rows of views made into the tables of a cohort: keys, offsets, units, concepts; nobody's date or id is left.

Everything is a query over the spooled rows, so that a table can be written without being held.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import polars as pl

from synthehr.connectors.fhir.badlines import BadRecord
from synthehr.connectors.fhir.cells import dtype_of_fhir
from synthehr.connectors.fhir.consent import ConsentPolicy, ConsentRecord
from synthehr.connectors.fhir.offsets import after, offset, wall_clock
from synthehr.connectors.fhir.references import Index, leads_elsewhere, leads_in_circles, resolve
from synthehr.connectors.fhir.spool import Spool
from synthehr.connectors.fhir.units import in_one_unit
from synthehr.connectors.fhir.viewset import TableView, ViewSet
from synthehr.errors import DataError
from synthehr.schema.model import CategoryColumn, IntegerColumn, NumberColumn, Schema

__all__ = ["Built", "build_tables"]

DUPLICATE = "is a second resource with the same type and id"
NO_PATIENT = "has a subject that is not in the source"
_SPARSE_ZIP3 = frozenset(  # HIPAA safe harbour, 45 CFR 164.514(b)(2)(i)(B): at most 20,000 people by the census of 2010
    "036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893".split()  # noqa: SIM905 - read as words
)
_KEPT, _NOBODY, _DANGLING, _REFUSED = range(4)


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


def build_tables(spool: Spool, views: ViewSet, *, consent: ConsentPolicy, declared: Schema) -> Built:
    """The tables of everything that was read.

    Args:
        spool: the rows.
        views: that made them.
        consent: whom to leave out, before anything else is counted.
        declared: the schema whose value sets and bounds the cells must fit; others become null and are counted.

    Raises:
        DataError: there is no patient, or the patient view made more or less than one row of one.
    """
    built = Built()
    duplicates = _duplicates(spool, views)
    built.bad += spool.places(duplicates, reason=DUPLICATE)
    index = Index(spool.aliases(), left_out=duplicates)
    made = {name: _rows_of(spool, view, duplicates) for name, view in views.tables.items()}
    refused = _refused(spool.consents, index=index, policy=consent, built=built)
    owned = {name: _owned(frame, views.tables[name], index=index, refused=refused) for name, frame in made.items()}
    for name, frame in owned.items():
        _count_rows(frame, name=name, spool=spool, built=built)
    kept = {name: frame.filter(pl.col("_status") == _KEPT).drop("_status") for name, frame in owned.items()}
    patients = _patients(kept, views=views)
    owners = _owners(kept, views=views)
    lookups = {view.resource: _rows_of(spool, view, duplicates) for view in views.lookups.values()}
    for name, frame in kept.items():
        table = _Table(views.tables[name], frame, index=index, patients=patients, owners=owners, lookups=lookups)
        built.tables[name], counted = table.finished(declared)
        built.cells[name] = counted
    return built


def _rows_of(spool: Spool, view: TableView, duplicates: pl.Series) -> pl.LazyFrame:
    frame = spool.table(view.name)
    if frame is None:
        columns = {column.name: dtype_of_fhir(column.type) for column in view.columns}
        return pl.LazyFrame(schema={"_r": pl.UInt64(), **columns})
    return frame if duplicates.is_empty() else frame.filter(~pl.col("_r").is_in(duplicates.implode()))


def _duplicates(spool: Spool, views: ViewSet) -> pl.Series:
    """Numbers of resources whose type and id stood before; found by hashes, then by the names themselves."""
    tables = {view.resource for view in views.tables.values()}
    named = spool.resources().filter(pl.col("hash").is_not_null())
    hashes = named.select("_r", "hash").collect(engine="streaming")
    again = hashes.filter(pl.col("hash").is_duplicated())["_r"]
    if again.is_empty():
        return again
    names = (
        named.filter(pl.col("_r").is_in(again.implode()))
        .select("_r", "type", "name")
        .collect(engine="streaming")
        .sort("_r")
    )
    later = names.filter(~pl.col("name").is_first_distinct())
    return later.filter(pl.col("type").is_in(sorted(tables)))["_r"]


def _refused(records: list[ConsentRecord], *, index: Index, policy: ConsentPolicy, built: Built) -> pl.DataFrame:
    """Patients who are left out, ``_r``; with ``require-opt-in``, all but those who stay, told by ``_in``."""
    by_patient: dict[int, list[ConsentRecord]] = defaultdict(list)
    if policy.mode != "ignore":
        named = pl.LazyFrame({"patient": [record.patient for record in records]}, schema={"patient": pl.String})
        found = resolve(named, "patient", target="Patient", index=index, to="_patient").collect(engine="streaming")[
            "_patient"
        ]
        for record, patient in zip(records, found, strict=True):
            if patient is None:
                built.consent["consents of no patient in the source"] += 1
            else:
                by_patient[patient].append(record)
    everyone = index.of("Patient")["_r"].unique().sort()
    out = [patient for patient in everyone if not policy.keeps(by_patient.get(patient, []))]
    return pl.DataFrame({"_owner": out}, schema={"_owner": pl.UInt64}).with_columns(pl.lit(value=True).alias("_out"))


def _owned(frame: pl.LazyFrame, view: TableView, *, index: Index, refused: pl.DataFrame) -> pl.LazyFrame:
    """The rows with ``_owner``, the number of their patient, and ``_status``, whether and why they go."""
    if view.resource == "Patient":
        here = frame.with_columns(pl.col("_r").alias("_owner"))
        nobody = pl.lit(value=False)
    else:
        here = resolve(frame, view.subject, target="Patient", index=index, to="_owner")
        raw = pl.col(view.subject)
        nobody = raw.is_null() | leads_elsewhere(raw, target="Patient")
    here = here.join(refused.lazy(), on="_owner", how="left", maintain_order="left")
    status = (
        pl.when(nobody)
        .then(_NOBODY)
        .when(pl.col("_owner").is_null())
        .then(_DANGLING)
        .when(pl.col("_out").is_not_null())
        .then(_REFUSED)
        .otherwise(_KEPT)
    )
    return here.with_columns(status.cast(pl.Int8).alias("_status")).drop("_out")


def _count_rows(frame: pl.LazyFrame, *, name: str, spool: Spool, built: Built) -> None:
    counts = frame.group_by("_status").agg(pl.len()).collect(engine="streaming")
    by_status: dict[int, int] = dict(counts.iter_rows())
    built.rows[name] = {
        "made": sum(by_status.values()),
        "kept": by_status.get(_KEPT, 0),
        "not of a patient": by_status.get(_NOBODY, 0),
        "of a patient not in the source": by_status.get(_DANGLING, 0),
        "left out by consent": by_status.get(_REFUSED, 0),
    }
    if by_status.get(_DANGLING):
        lost = frame.filter(pl.col("_status") == _DANGLING).select("_r").unique().collect(engine="streaming")["_r"]
        built.bad += spool.places(lost, reason=NO_PATIENT)
    if name == "patient":
        if (
            frame.select((pl.col("_r").len() != pl.col("_r").n_unique()).alias("more"))
            .collect(engine="streaming")
            .item()
        ):
            raise DataError("view 'patient' makes more than one row of a patient: it must make exactly one")
        built.consent["patients left out"] = by_status.get(_REFUSED, 0)


def _patients(kept: Mapping[str, pl.LazyFrame], *, views: ViewSet) -> pl.DataFrame:
    """Each kept patient: ``_owner``, ``_anchor`` (a date, null where nothing of the patient has one) and ``anchor``."""
    born = (
        kept["patient"]
        .select("_owner", wall_clock(pl.col("birth_date")).dt.date().alias("_born"))
        .collect(engine="streaming")
    )
    if born.is_empty():
        raise DataError("the source has no patient that may be used: it needs Patient resources")
    unknown = born.filter(pl.col("_born").is_null()).select("_owner")
    first = pl.DataFrame(schema={"_owner": pl.UInt64, "_first": pl.Date})
    if unknown.height:
        times = [
            frame.join(unknown.lazy(), on="_owner", how="semi").select(
                "_owner", wall_clock(pl.col(column.name)).dt.date().alias("_first")
            )
            for name, frame in kept.items()
            for column in views.tables[name].with_role("offset")
        ]
        first = pl.concat(times).group_by("_owner").agg(pl.col("_first").min()).collect(engine="streaming")
    both = born.join(first, on="_owner", how="left", maintain_order="left")
    kind = (
        pl.when(pl.col("_born").is_not_null())
        .then(pl.lit("birth_date"))
        .when(pl.col("_first").is_not_null())
        .then(pl.lit("first_event"))
    )
    return both.select("_owner", pl.coalesce("_born", "_first").alias("_anchor"), kind.alias("anchor"))


def _owners(kept: Mapping[str, pl.LazyFrame], *, views: ViewSet) -> dict[str, pl.DataFrame]:
    """For each type of resource that a reference leads to: ``_r`` of those kept, and ``_of``, their patient."""
    owners: dict[str, pl.DataFrame] = {}
    for target in sorted(views.targets):
        view = next((view for view in views.tables.values() if view.resource == target and view.key), None)
        if view is not None:
            frame = kept[view.name].select(pl.col("_r").alias("_to"), pl.col("_owner").alias("_of")).unique()
            owners[target] = frame.collect(engine="streaming")
    return owners


class _Table:
    """One table on its way from rows to columns; each step notes which cells it made null, and why."""

    def __init__(
        self,
        view: TableView,
        frame: pl.LazyFrame,
        *,
        index: Index,
        patients: pl.DataFrame,
        owners: Mapping[str, pl.DataFrame],
        lookups: Mapping[str, pl.LazyFrame],
    ) -> None:
        self._view = view
        self._frame = frame.join(patients.lazy(), on="_owner", how="left", maintain_order="left")
        self._index = index
        self._owners = owners
        self._lookups = lookups
        self._notes: list[tuple[str, str]] = []

    def finished(self, declared: Schema) -> tuple[pl.LazyFrame, dict[str, dict[str, int]]]:
        """The query of the table, and by column the cells that were made null, by reason."""
        view = self._view
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
        self._fit(declared, columns)
        noted = self._frame.select(pl.col(_note(at)).sum() for at in range(len(self._notes))).collect(
            engine="streaming"
        )
        counted: dict[str, dict[str, int]] = defaultdict(dict)
        for at, (column_name, what) in enumerate(self._notes):
            if noted[_note(at)][0]:
                counted[column_name][what] = counted[column_name].get(what, 0) + noted[_note(at)][0]
        return self._frame.select(columns), dict(counted)

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
        found = self._lookups.get(target)
        if found is None:
            self._frame = self._frame.drop(column)
            return
        here = resolve(self._frame, column, target=target, index=self._index, to="_at")
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
        owners = self._owners.get(target, pl.DataFrame(schema={"_to": pl.UInt64, "_of": pl.UInt64}))
        here = resolve(self._frame, column, target=target, index=self._index, to="_to")
        self._frame = here.join(owners.lazy(), on="_to", how="left", maintain_order="left")
        self._noted(column, "leads nowhere", pl.col(column).is_not_null() & pl.col("_of").is_null())
        self._noted(column, "leads to another patient's record", pl.col("_of") != pl.col("_owner"))
        valid = pl.when(pl.col("_of") == pl.col("_owner")).then(pl.col("_to"))
        self._frame = self._frame.with_columns(valid.alias("_to"))
        if self._view.resource == target:
            circles = _circles(self._frame.select("_r", "_to").collect(engine="streaming"))
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

    def _fit(self, declared: Schema, columns: list[str]) -> None:
        """Make null what the default schema's value sets and bounds leave no place for."""
        table = declared.tables.get(self._view.name)
        for name, column in (table.kept if table is not None else {}).items():
            if name not in columns:
                continue
            if isinstance(column, CategoryColumn) and column.values is not None:
                self._null(name, "is no code of its value set", ~pl.col(name).is_in(list(column.values)))
            elif isinstance(column, IntegerColumn | NumberColumn) and isinstance(column.bounds, tuple):
                low, high = column.bounds
                self._null(name, "lies outside the bounds", (pl.col(name) < low) | (pl.col(name) > high))


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
