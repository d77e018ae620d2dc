"""The rows of views, each with the patient it belongs to: whose they are, who is left out, when their time begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

from synthehr.connectors.fhir.badlines import BadRecord
from synthehr.connectors.fhir.cells import dtype_of_fhir
from synthehr.connectors.fhir.offsets import wall_clock
from synthehr.connectors.fhir.references import Index, by_id, resolve
from synthehr.connectors.fhir.spool import Spool
from synthehr.connectors.fhir.viewset import REFERENCES, TableView
from synthehr.errors import DataError

__all__ = ["OwnedRows", "Patients", "Seen", "see_owners"]

NO_PATIENT = "has a subject that is not in the source"
_KEPT, _NOBODY, _DANGLING, _REFUSED = range(4)


class OwnedRows:
    """The rows of views, some at a time, each with its patient and whether and why it goes.

    Args:
        spool: the rows.
        index: of what references lead to.
        duplicates: numbers of resources that count as not there.
        refused: numbers of the patients who are left out.
    """

    def __init__(self, spool: Spool, *, index: Index, duplicates: pl.Series, refused: pl.Series) -> None:
        self.spool = spool
        self._index = index
        self._duplicates = duplicates
        self._refused = refused

    def of(self, view: TableView, columns: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """The rows with ``_owner``, the number of their patient, and ``_status``."""
        for frame in self._read(view, columns):
            yield self._owned(frame.lazy(), view).collect()

    def kept(self, view: TableView) -> Iterator[pl.DataFrame]:
        """The rows that stay, with ``_owner``; where there is none, still a frame of their columns."""
        some = False
        for frame in self.of(view):
            some = True
            yield frame.filter(pl.col("_status") == _KEPT).drop("_status")
        if not some:
            yield self._owned(_empty(view).lazy(), view).collect().drop("_status")

    def of_lookup(self, view: TableView) -> pl.LazyFrame:
        """All rows of a view that others look up."""
        return pl.concat([_empty(view), *self._read(view, None)]).lazy()

    def _read(self, view: TableView, columns: Sequence[str] | None) -> Iterator[pl.DataFrame]:
        for frame in self.spool.rows(view.name, columns):
            gone = pl.col("_r").is_in(self._duplicates.implode())
            yield frame if self._duplicates.is_empty() else frame.filter(~gone)

    def _owned(self, frame: pl.LazyFrame, view: TableView) -> pl.LazyFrame:
        if view.resource == "Patient":
            here = frame.with_columns(pl.col("_r").alias("_owner"))
            nobody = pl.lit(value=False)
        else:
            here = resolve(frame, view.subject, target="Patient", index=self._index, to="_owner")
            nobody = pl.col(view.subject).is_null()
        status = (
            pl.when(nobody)
            .then(_NOBODY)
            .when(pl.col("_owner").is_null())
            .then(_DANGLING)
            .when(pl.col("_owner").is_in(self._refused.implode()))
            .then(_REFUSED)
            .otherwise(_KEPT)
        )
        return here.with_columns(status.cast(pl.Int8).alias("_status"))


def _empty(view: TableView) -> pl.DataFrame:
    """No row of a view, as the extractor makes them."""
    columns: dict[str, pl.DataType] = {"_r": pl.UInt64()}
    for column in view.columns:
        if column.role in REFERENCES:
            columns |= {column.name: pl.UInt64(), by_id(column.name): pl.UInt64()}
        else:
            columns[column.name] = dtype_of_fhir(column.type)
    return pl.DataFrame(schema=columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a first look at the rows of a view showed.

    Attributes:
        rows: how many there are, and how many of them go where.
        owners: of a view that references lead to, each resource that is kept, ``_to``, and ``_of``, its patient.
        bad: records whose patient is not in the source.
    """

    rows: dict[str, int]
    owners: pl.DataFrame
    bad: list[BadRecord] = field(default_factory=list)


def see_owners(rows: OwnedRows, view: TableView, patients: Patients, *, target: bool) -> Seen:
    """Count the rows of a view, and tell ``patients`` of them.

    Args:
        rows: of all views.
        view: which one; the patients' own comes first.
        patients: learns when patients were born or first seen.
        target: whether references lead to resources of the view.

    Raises:
        DataError: the patient view made more than one row of a patient.
    """
    by_status: Counter[int] = Counter()
    owners = [pl.DataFrame(schema={"_to": pl.UInt64, "_of": pl.UInt64})]
    lost = [pl.Series("_r", dtype=pl.UInt64)]
    for frame in rows.of(view, _columns_of_owner(view, times=patients.unknown)):
        by_status.update(dict(frame["_status"].value_counts().iter_rows()))
        lost.append(frame.filter(pl.col("_status") == _DANGLING)["_r"])
        kept = frame.filter(pl.col("_status") == _KEPT)
        if view.resource == "Patient" and frame["_r"].n_unique() != frame.height:
            raise DataError("view 'patient' makes more than one row of a patient: it must make exactly one")
        patients.see(kept, view)
        if target and view.key is not None:
            owners.append(kept.select(pl.col("_r").alias("_to"), pl.col("_owner").alias("_of")).unique())
    return Seen(
        rows={
            "made": by_status.total(),
            "kept": by_status[_KEPT],
            "not of a patient": by_status[_NOBODY],
            "of a patient not in the source": by_status[_DANGLING],
            "left out by consent": by_status[_REFUSED],
        },
        owners=pl.concat(owners),
        bad=rows.spool.places(pl.concat(lost).unique(), reason=NO_PATIENT),
    )


def _columns_of_owner(view: TableView, *, times: bool) -> list[str]:
    """The columns that say whose a row is, and, where asked for, when it was."""
    if view.resource == "Patient":
        return ["_r", "birth_date", *(column.name for column in view.with_role("offset"))]
    moments = [column.name for column in view.with_role("offset")] if times else []
    return ["_r", view.subject, by_id(view.subject), *moments]


class Patients:
    """The patients that are kept, and the days that their times are counted from."""

    def __init__(self) -> None:
        self._born: list[pl.DataFrame] = []
        self._unknown = pl.DataFrame(schema={"_owner": pl.UInt64})
        self._first: list[pl.DataFrame] = [pl.DataFrame(schema={"_owner": pl.UInt64, "_first": pl.Date})]

    @property
    def unknown(self) -> bool:
        """Whether some patient's birth date is not known, once the patients were seen."""
        return self._unknown.height > 0

    def see(self, kept: pl.DataFrame, view: TableView) -> None:
        """Take in rows that are kept: of patients when they were born, of others when they were."""
        if view.resource == "Patient":
            born = kept.select("_owner", wall_clock(pl.col("birth_date")).dt.date().alias("_born"))
            self._born.append(born)
            self._unknown = pl.concat([self._unknown, born.filter(pl.col("_born").is_null()).select("_owner")])
        days = [wall_clock(pl.col(column.name)).dt.date() for column in view.with_role("offset")]
        if self.unknown and days:
            theirs = kept.join(self._unknown, on="_owner", how="semi")
            self._first.append(theirs.group_by("_owner").agg(pl.min_horizontal(days).min().alias("_first")))

    def anchors(self) -> pl.DataFrame:
        """Each patient: ``_owner``, ``_anchor`` (a date, null where nothing of the patient has one) and ``anchor``.

        Raises:
            DataError: there is no patient.
        """
        if not sum(born.height for born in self._born):
            raise DataError("the source has no patient that may be used: it needs Patient resources")
        first = pl.concat(self._first).group_by("_owner").agg(pl.col("_first").min())
        both = pl.concat(self._born).join(first, on="_owner", how="left", maintain_order="left")
        kind = (
            pl.when(pl.col("_born").is_not_null())
            .then(pl.lit("birth_date"))
            .when(pl.col("_first").is_not_null())
            .then(pl.lit("first_event"))
        )
        return both.select("_owner", pl.coalesce("_born", "_first").alias("_anchor"), kind.alias("anchor"))
