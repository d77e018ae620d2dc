"""Read a Common Data Model: dates become days from the person's anchor, concepts stay ids, the rest stays behind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from synthehr.connectors.omop.cdm import DURATION, PERSON, CdmTable, cdm_tables
from synthehr.connectors.omop.sources import open_source
from synthehr.connectors.sql.session import Relation, Session
from synthehr.errors import DataError
from synthehr.schema.model import IdColumn, Schema, Table, is_read

__all__ = ["OmopRecords", "OmopTables", "open_omop"]

_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d", "%Y%m%d")
_ANCHOR = "\0anchor"  # no column of a table is named so
_BIRTH = ("year_of_birth", "month_of_birth", "day_of_birth", "birth_datetime")
_NAMELESS = re.compile(r"column\d+")  # what DuckDB calls the columns of a file of which it takes no line for names
_FIRST_YEAR, _LAST_YEAR = 1800, 2200


class OmopRecords:
    """A Common Data Model that is open.

    Args:
        session: what it is kept in.

    Raises:
        DataError: there is no table ``person``, or a table stands there twice.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._names: dict[str, str] = {}
        for name in session.names():
            if name.lower() in self._names and name.lower() in cdm_tables():
                raise DataError(f"table {name.lower()!r} stands twice in the OMOP source, in capital and small letters")
            self._names[name.lower()] = name
        if PERSON not in self._names:
            raise DataError("the OMOP source has no table 'person': name the database schema with ?schema=")
        self._anchors: pl.DataFrame | None = None

    @property
    def tables(self) -> tuple[str, ...]:
        """The clinical tables that are there, ``person`` first; one whose columns have no names is but a stand-in."""
        return tuple(
            name
            for name, table in cdm_tables().items()
            if name in self._names
            and table.keeps_rows
            and not all(_NAMELESS.fullmatch(column) for column in self._relation(name).columns)
        )

    def batches(self, table: str, *, declared: Table) -> Iterator[pl.DataFrame]:
        """A table in the columns that are declared, part by part, at least one part.

        Ids and concepts are text; days and durations are whole numbers, null where a date is missing or none, or the
        end lies before the start; all else stands as it is in the source. Columns that the source lacks and that may be
        missing are null. Rows of no person have a day too, so that what is told of them is that there is none.

        Raises:
            DataError: the table, or a column that it must have, is not there.
        """
        cdm = cdm_tables()[table]
        relation = self._relation(table)
        there = {name.lower(): name for name in relation.columns}
        wanted = [name for name, column in declared.columns.items() if is_read(column)]
        if table == PERSON:
            yield from (frame.select(_wanted_of(frame, wanted)) for frame in self._persons(relation, there))
            return
        sources = _sources(cdm, there, wanted=wanted)
        for part in self._session.batches(relation, [there[name] for name in dict.fromkeys(sources.values())]):
            read = part.rename({there[name]: name for name in sources.values()})
            frame = self._in_days(read, cdm)
            columns = []
            for name in wanted:
                if name in sources:
                    kept = frame[sources[name]].alias(name)
                elif name in (cdm.day, DURATION):
                    kept = frame[name]
                else:
                    kept = pl.Series(name, [None] * frame.height, dtype=pl.String)
                is_id = isinstance(declared.columns[name], IdColumn) or name in cdm.concepts
                columns.append(_as_id(kept) if is_id else kept)
            yield pl.DataFrame(columns)

    def parts(self, schema: Schema, table: str) -> Iterator[pl.DataFrame]:
        """A table of the schema as :meth:`batches` gives it; one that the source lacks, or has a stand-in of, is empty.

        Raises:
            DataError: OMOP has no such table, or see :meth:`batches`.
        """
        known = [name for name, cdm in cdm_tables().items() if cdm.keeps_rows]
        if table not in known:
            raise DataError(f"table {table!r} of the schema is none that is read of OMOP: these are {', '.join(known)}")
        declared = schema.tables[table]
        if table in self.tables:
            return self.batches(table, declared=declared)
        return iter(
            [pl.DataFrame(schema={name: pl.String for name, column in declared.columns.items() if is_read(column)})]
        )

    def concepts(self, ids: Sequence[str]) -> pl.DataFrame | None:
        """The rows of the vocabulary for these concepts; None where the source has no vocabulary."""
        if "concept" not in self._names:
            return None
        relation = self._relation("concept")
        there = {name.lower(): name for name in relation.columns}
        known = [name for name in cdm_tables()["concept"].columns if name in there]
        if not {"concept_id", "concept_name"} <= set(known):
            return None
        wanted = pl.Series(list(ids), dtype=pl.String).implode()
        found = []
        for part in self._session.batches(relation, [there[name] for name in known]):
            read = part.rename({there[name]: name for name in known})
            rows = read.with_columns(_as_id(read["concept_id"])).filter(pl.col("concept_id").is_in(wanted))
            found.append(
                rows.with_columns(
                    _dates(rows[name]) if name.endswith("_date") else rows[name].cast(pl.String) for name in known
                )
            )
        return pl.concat(found).unique("concept_id", maintain_order=True)

    def _relation(self, table: str) -> Relation:
        if table not in self._names:
            raise DataError(f"the OMOP source has no table {table!r}: leave it out of the schema, or add an empty one")
        return self._session.table(self._names[table])

    def _persons(self, relation: Relation, there: Mapping[str, str]) -> Iterator[pl.DataFrame]:
        cdm = cdm_tables()[PERSON]
        for name in ("person_id", "year_of_birth", *cdm.keeps):
            if name not in there:
                raise DataError(f"table 'person' of the OMOP source has no column {name!r}, which every version has")
        chosen = [name for name in ("person_id", *cdm.keeps, *_BIRTH) if name in there]
        for part in self._session.batches(relation, [there[name] for name in chosen]):
            read = part.rename({there[name]: name for name in chosen})
            known, anchor = _births(read)
            ids = [_as_id(read[name]) for name in ("person_id", *cdm.keeps)]
            yield pl.DataFrame([*ids, known.alias("birth_known"), anchor.alias(_ANCHOR)])

    def _in_days(self, rows: pl.DataFrame, cdm: CdmTable) -> pl.DataFrame:
        """The rows with days and durations, in their order."""
        assert cdm.start is not None, "events have a start"
        persons = _as_id(rows["person_id"])
        anchor = persons.to_frame("person_id").join(
            self._all_anchors(), on="person_id", how="left", maintain_order="left"
        )[_ANCHOR]
        start = _dates(rows[cdm.start])
        day = (start - anchor.zip_with(anchor.is_not_null(), start)).dt.total_days().alias(cdm.day)
        if cdm.end is None or cdm.end not in rows.columns:
            duration = pl.Series(DURATION, [None] * rows.height, dtype=pl.Int64)
        else:
            length = (_dates(rows[cdm.end]) - start).dt.total_days()
            duration = length.set(length < 0, None).alias(DURATION)
        return rows.with_columns(day, duration)

    def _all_anchors(self) -> pl.DataFrame:
        """The anchor of every person. A person who stands twice has none, and is told of when the persons are read."""
        if self._anchors is None:
            relation = self._relation(PERSON)
            there = {name.lower(): name for name in relation.columns}
            parts = [part.select("person_id", _ANCHOR) for part in self._persons(relation, there)]
            self._anchors = pl.concat(parts).unique("person_id", keep="none")
        return self._anchors


@contextmanager
def open_omop(source: str | Path) -> Iterator[OmopRecords]:
    """Open a Common Data Model: ``omop:folder``, ``omop+duckdb:///file`` or ``omop+postgresql://host/database``.

    Raises:
        ConfigError: the URI is none.
        DataError: it is missing, cannot be reached, or holds no persons.
    """
    with open_source(source) as session:
        yield OmopRecords(session)


class OmopTables:
    """A Common Data Model as tables: the reading half of a :class:`synthehr.connectors.base.Connector`."""

    def tables(self, source: str | Path, *, schema: Schema) -> dict[str, pl.DataFrame]:
        """The tables that the schema declares, in days from each person's anchor.

        A table that the source lacks, or that is but a stand-in, has no rows.

        Raises:
            ConfigError: the URI is none.
            DataError: the source cannot be read, or the schema declares a table that OMOP has not.
        """
        with open_omop(source) as records:
            parts = {name: records.parts(schema, name) for name in schema.tables}
            return {name: pl.concat(frames, how="vertical") for name, frames in parts.items()}


def _wanted_of(frame: pl.DataFrame, wanted: Sequence[str]) -> list[str]:
    """The columns that are wanted and there; what else is wanted is told of when types are checked."""
    return [name for name in wanted if name in frame.columns]


def _sources(cdm: CdmTable, there: Mapping[str, str], *, wanted: Sequence[str]) -> dict[str, str]:
    """The columns to read, by what they become."""
    assert cdm.start is not None, "events have a start"
    for name in ("person_id", cdm.start):
        if name not in there:
            raise DataError(f"table {cdm.name!r} of the OMOP source has no column {name!r}, which every version has")
    sources = {"person_id": "person_id", cdm.start: cdm.start}
    if cdm.end is not None and cdm.end in there:
        sources[cdm.end] = cdm.end
    for name in (*cdm.keeps, *cdm.links, *([cdm.key] if cdm.key is not None else [])):
        older = cdm.before_5_4.get(name)
        found = name if name in there else older if older is not None and older in there else None
        if found is not None and name in wanted:
            sources[name] = found
        elif found is None and name in cdm.columns and cdm.columns[name].required:
            raise DataError(f"table {cdm.name!r} of the OMOP source has no column {name!r}, which every version has")
    return sources


def _births(rows: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """How well each person's birth is known (``day``, ``month``, ``year``), and the anchor; null without a year."""
    year, month, day = (_whole(rows[name]) if name in rows.columns else None for name in _BIRTH[:3])
    frame = pl.DataFrame({"year": year}).with_columns(
        pl.Series("month", month if month is not None else [None] * rows.height, dtype=pl.Int64),
        pl.Series("day", day if day is not None else [None] * rows.height, dtype=pl.Int64),
        _dates(rows["birth_datetime"]).alias("moment")
        if "birth_datetime" in rows.columns
        else pl.lit(None, dtype=pl.Date).alias("moment"),
    )
    year_known = pl.when(pl.col("year").is_between(_FIRST_YEAR, _LAST_YEAR)).then(pl.col("year"))
    text = [
        pl.format("{}-{}-{}", year_known, month, day).str.to_date("%Y-%m-%d", strict=False)
        for month, day in (("month", "day"), ("month", pl.lit(1)), (pl.lit(7), pl.lit(1)))
    ]
    whole = pl.coalesce(text[0], "moment")
    answers = frame.select(
        pl.when(whole.is_not_null())
        .then(pl.lit("day"))
        .when(text[1].is_not_null())
        .then(pl.lit("month"))
        .when(text[2].is_not_null())
        .then(pl.lit("year"))
        .alias("known"),
        pl.coalesce(whole, text[1], text[2]).alias("anchor"),
    )
    return answers["known"], answers["anchor"]


def _whole(values: pl.Series) -> pl.Series:
    number = values.cast(pl.Float64, strict=False)
    return number.cast(pl.Int64, strict=False)


def _dates(values: pl.Series) -> pl.Series:
    """The dates of a column of dates, times or text; null where there is none."""
    if values.dtype == pl.String:
        text = values.str.strip_chars().str.replace(" ", "T", literal=True)
        tries = [pl.lit(text).str.to_datetime(form, strict=False, time_unit="us") for form in _FORMATS]
        return pl.select(pl.coalesce(tries).cast(pl.Date).alias(values.name)).to_series()
    if values.dtype == pl.Date or isinstance(values.dtype, pl.Datetime):
        return values.cast(pl.Date)
    return pl.Series(values.name, [None] * len(values), dtype=pl.Date)


def _as_id(values: pl.Series) -> pl.Series:
    """Ids as text; whole numbers that some tool made fractional are whole again."""
    if values.dtype.is_float():
        return values.cast(pl.Int64, strict=False).cast(pl.String)
    text = values.cast(pl.String).str.strip_chars().str.replace(r"^(\d+)\.0+$", "$1")
    return text.set(text == "", None)
