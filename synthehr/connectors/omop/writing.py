"""Write a cohort as a Common Data Model: types, required columns, keys and dates as its definition wants them."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.fhir.calendar import CALENDAR_END, Moment, anchors
from synthehr.connectors.omop.cdm import DURATION, PERSON, VERSIONS, CdmColumn, CdmTable, cdm_tables
from synthehr.connectors.omop.periods import consistent_periods
from synthehr.errors import ConfigError, DataError
from synthehr.schema.model import Schema

__all__ = ["CdmWriter", "UsedConcepts", "WrittenTable", "check_writable"]

_VISIT, _PERIOD = "visit_occurrence", "observation_period"
_LARGEST = 2**31 - 1
_TYPE_CONCEPT = 32817  # EHR, a standard concept of the vocabulary Type Concept
_NO_CONCEPT = 0
_VERSION_CONCEPT = 756265  # OMOP CDM Version 5.4.0
_DTYPES: Mapping[str, pl.DataType] = {
    "integer": pl.Int32(),
    "number": pl.Float64(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us"),
    "text": pl.String(),
}
_OWN_CONCEPTS = (  # what is written whatever the records hold
    (_NO_CONCEPT, "No matching concept", "Metadata", "None", "Undefined", None, "No matching concept"),
    (_TYPE_CONCEPT, "EHR", "Type Concept", "Type Concept", "Type Concept", "S", "OMOP4976890"),
    (_VERSION_CONCEPT, "OMOP CDM Version 5.4.0", "Metadata", "CDM", "CDM", "S", "CDM v5.4.0"),
)
_FIRST_VALID, _LAST_VALID = dt.date(1970, 1, 1), dt.date(2099, 12, 31)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenTable:
    """A table as it is written.

    Attributes:
        cdm: what the Common Data Model says of it.
        columns: those of the version that is written.
        rows: with these columns, in their types.
    """

    cdm: CdmTable
    columns: tuple[CdmColumn, ...]
    rows: pl.DataFrame


@dataclass(slots=True, kw_only=True)
class CdmWriter:
    """Makes the tables of a Common Data Model of a cohort.

    Keys that are whole numbers are kept, others are made anew from 1; references follow. A calendar is drawn from the
    seed: each patient's last event lies in the ten years up to 2024, and the births follow from that. What cannot be
    held becomes null, or concept 0 (no matching concept), and is counted in ``changed``.

    Attributes:
        cohort: tables of the default OMOP schema, or some of them; ``person`` is needed.
        version: ``5.4`` or ``5.3``.
        seed: of the calendar.
        synthetic: whether the rows were drawn from a model; ``cdm_source`` says which.
        told: what else ``cdm_source`` says of where the rows come from.
        concepts: rows of the vocabulary to write along.
        changed: by table and what happened, in how many cells or rows. Of real records private.
    """

    cohort: Cohort[Schema]
    version: str = "5.4"
    seed: int
    synthetic: bool
    told: str = ""
    concepts: pl.DataFrame | None = None
    changed: dict[str, Counter[str]] = field(default_factory=dict)
    _anchors: pl.Series = field(init=False, repr=False)
    _persons: pl.Series = field(init=False, repr=False)
    _visits: pl.DataFrame = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ConfigError(f"the version of the CDM must be one of {', '.join(VERSIONS)}, not {self.version!r}")
        check_writable(self.cohort.schema)
        self._persons = _numbered(self.cohort.root["person_id"])
        self._anchors = self._drawn_anchors()
        self._visits = self._numbered_visits()

    def tables(self) -> Iterator[WrittenTable]:
        """The tables, each after those that it refers to; one that the cohort lacks has no rows."""
        concepts = self._vocabulary()
        if concepts is not None:
            yield self._written(cdm_tables()["concept"], concepts)
        for name, cdm in cdm_tables().items():
            if name == PERSON:
                yield self._written(cdm, self._person_rows())
            elif name == _PERIOD:
                yield self._written(cdm, self._period_rows(cdm))
            elif cdm.keeps_rows:
                yield self._written(cdm, self._event_rows(cdm))
        yield self._written(cdm_tables()["cdm_source"], self._source_row())

    def _drawn_anchors(self) -> pl.Series:
        moments: dict[str, list[Moment]] = {}
        for name, frame in self.cohort.tables.items():
            cdm = cdm_tables()[name]
            if cdm.start is not None:
                moments[name] = [Moment(cdm.day, 1)]
                if DURATION in frame.columns:
                    moments[name].append(Moment(cdm.day, 1, DURATION))
        drawn = anchors(self.cohort, moments, seed=self.seed)
        known = self._birth_known()
        half_a_year_before = pl.col("drawn").dt.offset_by("-181d").dt.year()  # so that the first of July is no later
        return (
            pl.DataFrame({"drawn": drawn, "known": known})
            .select(
                pl.when(pl.col("known") == "day")
                .then("drawn")
                .when(pl.col("known") == "month")
                .then(pl.col("drawn").dt.truncate("1mo"))
                .otherwise(pl.date(half_a_year_before, 7, 1))
            )
            .to_series()
        )

    def _birth_known(self) -> pl.Series:
        root = self.cohort.root
        if "birth_known" not in root.columns:
            return pl.Series(["day"] * root.height, dtype=pl.String)
        return root["birth_known"].fill_null("year")

    def _numbered_visits(self) -> pl.DataFrame:
        """The key of each visit as it was and as it is written, and the patient."""
        empty = {"old": pl.String, "new": pl.Int32, "patient": pl.Int64}
        if _VISIT not in self.cohort.tables:
            return pl.DataFrame(schema=empty)
        keys = self.cohort.tables[_VISIT]["visit_occurrence_id"]
        return pl.DataFrame({"old": keys, "new": _numbered(keys), "patient": self.cohort.owners(_VISIT)}, schema=empty)

    def _person_rows(self) -> dict[str, pl.Series]:
        root, known, anchor = self.cohort.root, self._birth_known(), self._anchors
        by_month = known.is_in(["day", "month"])
        rows = {
            "person_id": self._persons,
            "year_of_birth": anchor.dt.year(),
            "month_of_birth": anchor.dt.month().set(~by_month, None),
            "day_of_birth": anchor.dt.day().set(known != "day", None),
            "birth_datetime": anchor.cast(pl.Datetime("us")).set(known != "day", None),
        }
        cdm = cdm_tables()[PERSON]
        return rows | {name: self._kept(cdm, name, root) for name in cdm.keeps}

    def _event_rows(self, cdm: CdmTable) -> dict[str, pl.Series]:
        frame = self.cohort.tables.get(cdm.name)
        if frame is None:
            return {}
        assert cdm.start is not None, "events have a start"
        owners = self.cohort.owners(cdm.name)
        start, end = self._dates(cdm, frame, owners)
        rows = {"person_id": self._persons.gather(owners), cdm.start: start}
        rows |= {} if cdm.end is None else {cdm.end: end}
        for name in (cdm.start, *([cdm.end] if cdm.end is not None else [])):
            rows[name.removesuffix("_date") + "_datetime"] = rows[name].cast(pl.Datetime("us"))
        if cdm.type is not None:
            rows[cdm.type] = _constant(_TYPE_CONCEPT, frame.height)
        if cdm.key is not None:
            has = cdm.key in frame.columns
            rows[cdm.key] = _numbered(frame[cdm.key]) if has else _from_one(frame.height)
        for name in cdm.keeps:
            rows[cdm.name_in(self.version, name)] = self._kept(cdm, name, frame)
        for name in cdm.links:
            rows[name] = self._link(cdm, name, frame, owners)
        return rows

    def _dates(self, cdm: CdmTable, frame: pl.DataFrame, owners: np.ndarray) -> tuple[pl.Series, pl.Series]:
        """First and last day of each event; where the last is required and not known, it is the first."""
        if cdm.day not in frame.columns or frame[cdm.day].null_count():
            raise DataError(f"column {cdm.day!r} of table {cdm.name!r} must be there and never missing: OMOP needs it")
        start = _after(self._anchors.gather(owners), frame[cdm.day])
        if DURATION in frame.columns:
            end = _after(start, frame[DURATION].clip(lower_bound=0))
        else:
            end = pl.Series([None] * frame.height, dtype=pl.Date)
        if cdm.end is not None and cdm.columns[cdm.end].required:
            self._count(cdm, "ends that were missing are the start", end.null_count())
            end = end.zip_with(end.is_not_null(), start)
        return start, end

    def _period_rows(self, cdm: CdmTable) -> dict[str, pl.Series]:
        frame = self.cohort.tables.get(_PERIOD)
        periods = pl.DataFrame(schema={"patient": pl.Int64, "start": pl.Int64, "end": pl.Int64, "row": pl.Int64})
        if frame is not None:
            start, end = self._dates(cdm, frame, self.cohort.owners(_PERIOD))
            periods = pl.DataFrame(
                {
                    "patient": self.cohort.owners(_PERIOD),
                    "start": _ordinal(start),
                    "end": _ordinal(end),
                    "row": np.arange(frame.height),
                }
            )
        agreed = consistent_periods(periods, self._event_days())
        before = periods.join(agreed, on=["patient", "start", "end"], how="anti").height
        self._count(cdm, "periods that were widened or joined to agree with events", before)
        self._count(cdm, "periods that were made for patients with events and none", agreed["row"].null_count())
        if frame is not None and "observation_period_id" in frame.columns and not agreed["row"].null_count():
            keys = _numbered(frame["observation_period_id"]).gather(agreed["row"])
        else:
            keys = _from_one(agreed.height)
        return {
            "observation_period_id": keys,
            "person_id": self._persons.gather(agreed["patient"]),
            "observation_period_start_date": agreed["start"].cast(pl.Int32).cast(pl.Date),
            "observation_period_end_date": agreed["end"].cast(pl.Int32).cast(pl.Date),
            "period_type_concept_id": _constant(_TYPE_CONCEPT, agreed.height),
        }

    def _event_days(self) -> pl.DataFrame:
        days = [pl.DataFrame(schema={"patient": pl.Int64, "day": pl.Int64})]
        for name, frame in self.cohort.tables.items():
            cdm = cdm_tables()[name]
            if cdm.start is None or name == _PERIOD:
                continue
            owners = self.cohort.owners(name)
            start = _after(self._anchors.gather(owners), frame[cdm.day])
            ends = [_after(start, frame[DURATION].clip(lower_bound=0))] if DURATION in frame.columns else []
            days += [pl.DataFrame({"patient": owners, "day": _ordinal(day)}).drop_nulls() for day in (start, *ends)]
        return pl.concat(days)

    def _kept(self, cdm: CdmTable, name: str, frame: pl.DataFrame) -> pl.Series:
        """A column as OMOP has it: concepts as numbers, 0 where a required one is missing or is none."""
        column = cdm.columns[name]
        if name not in frame.columns:
            missing = pl.Series([None] * frame.height, dtype=_DTYPES[column.type])
            return missing.fill_null(_NO_CONCEPT) if column.required else missing
        if name not in cdm.concepts:
            return _number(frame[name], column, table=cdm.name)
        ids = _concept_ids(frame[name])
        unknown = ids.is_null() & frame[name].is_not_null()
        self._count(cdm, f"{name}: no number of a concept, now 0", int(unknown.sum()))
        ids = ids.set(unknown, _NO_CONCEPT)
        return ids.fill_null(_NO_CONCEPT) if column.required else ids

    def _link(self, cdm: CdmTable, name: str, frame: pl.DataFrame, owners: np.ndarray) -> pl.Series:
        """The visit that a row refers to; null where it is not there or another patient's."""
        if name not in frame.columns:
            return pl.Series([None] * frame.height, dtype=pl.Int32)
        asked = pl.DataFrame({"old": frame[name], "patient": owners}, schema={"old": pl.String, "patient": pl.Int64})
        found = asked.join(self._visits, on=["old", "patient"], how="left", maintain_order="left")["new"]
        lost = int((found.is_null() & frame[name].is_not_null()).sum())
        self._count(cdm, f"{name}: leads to no visit of the patient, now null", lost)
        return found

    def _vocabulary(self) -> pl.DataFrame | None:
        """The rows of ``concept`` to write: none unless they cover every concept that is used."""
        if self.concepts is None:
            return None
        own = pl.DataFrame(
            [(*told, _FIRST_VALID, _LAST_VALID) for told in _OWN_CONCEPTS],
            schema=[name for name in cdm_tables()["concept"].columns if name != "invalid_reason"],
            orient="row",
        ).cast({"concept_id": pl.Int32})
        given = self.concepts.with_columns(_concept_ids(self.concepts["concept_id"]).alias("concept_id"))
        known = pl.concat([given, own], how="diagonal_relaxed").unique("concept_id", keep="first", maintain_order=True)
        used = UsedConcepts.of(self.cohort).ids
        missing = used.filter(~used.is_in(known["concept_id"].implode()))
        self._count(cdm_tables()["concept"], "concepts that the vocabulary lacks, so that it is left out", len(missing))
        return None if len(missing) else known.filter(pl.col("concept_id").is_in(used.implode())).sort("concept_id")

    def _source_row(self) -> dict[str, pl.Series]:
        what = "synthetic records, drawn from a model; no row is a patient's" if self.synthetic else "real records"
        row = {
            "cdm_source_name": "synthehr",
            "cdm_source_abbreviation": "synthehr",
            "cdm_holder": "synthehr",
            "source_description": f"{what}; dates are on a made-up calendar{self.told and f'; {self.told}'}",
            "source_release_date": CALENDAR_END,
            "cdm_release_date": CALENDAR_END,
            "cdm_version": f"v{self.version}",
            "cdm_version_concept_id": _VERSION_CONCEPT,
            "vocabulary_version": "as in the source",
        }
        return {name: pl.Series([value]) for name, value in row.items()}

    def _written(self, cdm: CdmTable, found: Mapping[str, pl.Series] | pl.DataFrame) -> WrittenTable:
        columns = cdm.of(self.version)
        made = found.to_dict() if isinstance(found, pl.DataFrame) else found
        height = len(next(iter(made.values()))) if made else 0
        rows = pl.DataFrame(
            [
                made[c.name].cast(_DTYPES[c.type]).alias(c.name)
                if c.name in made
                else pl.Series(c.name, [None] * height, dtype=_DTYPES[c.type])
                for c in columns
            ]
        )
        return WrittenTable(cdm=cdm, columns=columns, rows=rows)

    def _count(self, cdm: CdmTable, what: str, many: int) -> None:
        if many:
            self.changed.setdefault(cdm.name, Counter())[what] += many


def check_writable(schema: Schema) -> None:
    """Refuse a schema whose tables are none of OMOP's, or lack what a table of OMOP cannot be without.

    Raises:
        ConfigError: says which.
    """
    known = {name for name, table in cdm_tables().items() if table.keeps_rows}
    if schema.subject != PERSON or not set(schema.tables) <= known:
        raise ConfigError(
            "only the tables of schemas/omop can be written as OMOP: "
            f"the root must be 'person', the others of {', '.join(sorted(known - {PERSON}))}"
        )
    for name, table in schema.tables.items():
        cdm = cdm_tables()[name]
        needed = ["person_id", *([cdm.day] if cdm.start is not None else [])]
        needed += [cdm.key] if name == _VISIT and cdm.key is not None else []
        for column in needed:
            if column not in table.columns:
                raise ConfigError(f"table {name!r} cannot be written as OMOP without column {column!r}")


class UsedConcepts:
    """Every concept that rows hold, and those that are written whatever the rows hold."""

    def __init__(self) -> None:
        self._found = pl.Series("concept_id", [own[0] for own in _OWN_CONCEPTS], dtype=pl.Int32)

    def add(self, table: str, rows: pl.DataFrame) -> None:
        """Take the concepts of further rows of a table."""
        kept = [column for column in cdm_tables()[table].concepts if column in rows.columns]
        here = [_concept_ids(rows[column]).rename("concept_id") for column in kept]
        self._found = pl.concat([self._found, *here]).unique().drop_nulls()

    @classmethod
    def of(cls, cohort: Cohort[Schema]) -> UsedConcepts:
        """The concepts of a cohort."""
        used = cls()
        for name, frame in cohort.tables.items():
            used.add(name, frame)
        return used

    @property
    def ids(self) -> pl.Series:
        """The concepts in order."""
        return self._found.sort()


def _concept_ids(values: pl.Series) -> pl.Series:
    return values.cast(pl.String).cast(pl.Int32, strict=False)


def _numbered(keys: pl.Series) -> pl.Series:
    """Keys that are whole numbers above 0, each once, as they are; all others anew from 1."""
    numbers = keys.cast(pl.String).cast(pl.Int32, strict=False)
    exact = numbers.null_count() == 0 and numbers.n_unique() == numbers.len() and bool((numbers > 0).all())
    return numbers if exact and numbers.len() else _from_one(keys.len())


def _from_one(rows: int) -> pl.Series:
    return pl.int_range(1, rows + 1, dtype=pl.Int32, eager=True)


def _constant(value: int, rows: int) -> pl.Series:
    return pl.repeat(value, rows, dtype=pl.Int32, eager=True)


def _number(values: pl.Series, column: CdmColumn, *, table: str) -> pl.Series:
    if column.type != "integer":
        return values.cast(pl.Float64)
    whole = values.cast(pl.Float64).round().cast(pl.Int64)
    if (whole.abs() > _LARGEST).any():
        raise DataError(f"column {column.name!r} of table {table!r} must lie within 32 bits: declare bounds for it")
    return whole.cast(pl.Int32)


def _after(dates: pl.Series, days: pl.Series) -> pl.Series:
    return (dates.cast(pl.Int32) + days.cast(pl.Int32)).cast(pl.Date)


def _ordinal(dates: pl.Series) -> pl.Series:
    return dates.cast(pl.Int32).cast(pl.Int64)
