"""Dates become offsets and ages when records are read; :mod:`synthehr.connectors.made_up_calendar` puts them back.

No calendar date passes: what a cohort holds is how long after the patient's own anchor something was. The anchor is the
birth (a column of kind anchor or age), or the day of the patient's first date in any table.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

import polars as pl

from synthehr.schema.conform import parse_column
from synthehr.schema.model import AgeColumn, AnchorColumn, IdColumn, OffsetColumn, Schema

__all__ = ["MINUTES", "MOST_DAYS", "as_offsets", "owner_rows", "timed_columns"]

MINUTES = {"d": 1440, "h": 60, "min": 1}  # in a unit of offsets
MOST_DAYS = 120_000  # from an anchor; keeps every date within years of four digits
_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d")
_ZONE = r"(Z|[+-]\d{2}:?\d{2})$"
_MISSING = ("", "na", "nan", "null", "none", "n/a", "<na>", "nat")
_NO_DATE = "no date"  # what stands for a cell that is none, for the check of values to find; no record's own text
_KEY = IdColumn(kind="id")


def as_offsets(tables: Mapping[str, pl.DataFrame], *, schema: Schema, lenient: bool = False) -> dict[str, pl.DataFrame]:
    """The tables with whole units since the patient's anchor in place of dates, and without the anchor.

    The time zone of a time is left aside: what counts is the clock on the patient's wall. A column of whole numbers
    stays as it is: it was read before. A cell that is no date, or whose patient has no anchor, becomes text that is no
    number, so that the check of values reports it by row.

    Args:
        tables: by the schema's names.
        schema: what is declared.
        lenient: for synthetic records: where a patient's birth is missing, times count from the patient's first date.
    """
    root = tables.get(schema.subject)
    if root is None or not any(timed_columns(schema, name) for name in schema.tables):
        return dict(tables)
    owners = owner_rows(tables, schema=schema)
    moments = {
        name: {
            column: _moments(frame[column], declared)
            for column, declared in timed_columns(schema, name).items()
            if column in frame.columns
        }
        for name, frame in tables.items()
        if name in schema.tables
    }
    anchors = _anchors(root, schema=schema, owners=owners, moments=moments, lenient=lenient)
    read = dict(tables)
    for name, columns in moments.items():
        changed = []
        for column, (times, valid) in columns.items():
            declared, raw = timed_columns(schema, name)[column], tables[name][column]
            if isinstance(declared, AnchorColumn):
                continue
            if not (valid & times.is_not_null()).any():
                changed += _within_a_life(raw, declared)
                continue
            if isinstance(declared, AgeColumn):
                units = _years(times, at=declared.at)
            else:
                units = _since(times, anchors.gather(owners[name]), minutes=MINUTES[declared.unit])
            bad = ~valid | (times.is_not_null() & units.is_null())
            whole = units.cast(pl.String)
            changed.append(
                pl.select(pl.when(bad).then(pl.lit(_NO_DATE)).otherwise(whole).alias(raw.name)).to_series()
                if bad.any()
                else units.alias(raw.name)
            )
        read[name] = tables[name].with_columns(changed)
    gone = [n for n, c in schema.root.columns.items() if isinstance(c, AnchorColumn) and n in root.columns]
    read[schema.subject] = read[schema.subject].drop(gone)
    return read


def _within_a_life(raw: pl.Series, declared: AgeColumn | OffsetColumn) -> list[pl.Series]:
    """A column of whole numbers in which none can be a date in disguise, such as 20210531; nothing where none can."""
    if isinstance(declared, AgeColumn) or raw.dtype.is_nested():
        return []
    far = (raw.cast(pl.Float64, strict=False).abs() * MINUTES[declared.unit] > MOST_DAYS * 1440).fill_null(value=False)
    if not far.any():
        return []
    told = pl.when(far).then(pl.lit(_NO_DATE)).otherwise(raw.cast(pl.String))
    return [pl.select(told.alias(raw.name)).to_series()]


def timed_columns(schema: Schema, table: str) -> dict[str, AnchorColumn | AgeColumn | OffsetColumn]:
    """The columns of a table that stand for dates or times in the records."""
    columns = schema.tables[table].columns.items()
    return {name: c for name, c in columns if isinstance(c, AnchorColumn | AgeColumn | OffsetColumn)}


def _moments(raw: pl.Series, declared: AnchorColumn | AgeColumn | OffsetColumn) -> tuple[pl.Series, pl.Series]:
    """Each cell as the moment that a clock on the wall showed, and whether it is a date, a time or missing."""
    day_alone = not isinstance(declared, AgeColumn) and declared.of == "date"
    series = raw.cast(pl.String) if raw.dtype in (pl.Categorical, pl.Enum, pl.Null) else raw
    if series.dtype == pl.String:
        text = series.str.strip_chars()
        given = ~text.str.to_lowercase().is_in(_MISSING).fill_null(value=True)
        clock = text.str.replace(" ", "T", literal=True).str.replace(_ZONE, "")
        clock = pl.select(pl.when(clock.str.contains("T") | (text == clock)).then(clock)).to_series()
        tries = [pl.lit(clock).str.to_datetime(form, strict=False, time_unit="us") for form in _FORMATS]
        times = pl.select(pl.when(pl.lit(given)).then(pl.coalesce(tries))).to_series()
    elif series.dtype == pl.Date or isinstance(series.dtype, pl.Datetime):
        given = series.is_not_null()
        naive = series if series.dtype == pl.Date else series.dt.replace_time_zone(None)
        times = naive.cast(pl.Datetime("us"))
    else:
        nothing = pl.Series([None] * len(series), dtype=pl.Datetime("us"))
        return nothing, series.is_null()
    valid = ~given | times.is_not_null()
    if day_alone:  # a time of day would be lost
        valid &= (times.is_null() | (times.dt.truncate("1d") == times)).fill_null(value=True)
    return pl.select(pl.when(pl.lit(valid)).then(pl.lit(times))).to_series(), valid


def owner_rows(tables: Mapping[str, pl.DataFrame], *, schema: Schema) -> dict[str, pl.Series]:
    """For each row of each table the row number of its patient in the root table, null where there is none."""
    owners = {schema.subject: pl.int_range(tables[schema.subject].height, dtype=pl.UInt32, eager=True)}

    def find(name: str) -> pl.Series:
        if name in owners:
            return owners[name]
        table, frame = schema.tables[name], tables.get(name)
        assert table.parent is not None and table.foreign_key is not None, "checked by the schema"
        parent, key = tables.get(table.parent), schema.tables[table.parent].key
        if frame is None or parent is None or key not in parent.columns or table.foreign_key not in frame.columns:
            height = 0 if frame is None else frame.height
            owners[name] = pl.Series([None] * height, dtype=pl.UInt32)
            return owners[name]
        known = pl.DataFrame({"key": parse_column(parent[key], _KEY).values, "owner": find(table.parent)})
        mine = pl.DataFrame({"key": parse_column(frame[table.foreign_key], _KEY).values})
        joined = mine.join(known.unique("key", keep="first"), on="key", how="left", maintain_order="left")
        owners[name] = joined["owner"]
        return owners[name]

    for name in schema.tables:
        find(name)
    return owners


def _anchors(
    root: pl.DataFrame,
    *,
    schema: Schema,
    owners: Mapping[str, pl.Series],
    moments: Mapping[str, Mapping[str, tuple[pl.Series, pl.Series]]],
    lenient: bool,
) -> pl.Series:
    """The day that each patient's offsets count from, by row of the root table."""
    declared = [n for n, c in schema.root.columns.items() if isinstance(c, AnchorColumn | AgeColumn)]
    births = pl.Series([None] * root.height, dtype=pl.Date)
    if declared and declared[0] in moments[schema.subject]:
        births = moments[schema.subject][declared[0]][0].cast(pl.Date)
    if declared and not lenient:
        return births
    days = [
        pl.DataFrame({"owner": owners[name], "day": times.cast(pl.Date)}).drop_nulls()
        for name, columns in moments.items()
        for times, _ in columns.values()
    ]
    everyone = pl.DataFrame({"owner": owners[schema.subject]})
    if not days:
        return births
    first = pl.concat(days).group_by("owner").agg(pl.col("day").min())
    firsts = everyone.join(first, on="owner", how="left", maintain_order="left")["day"]
    return births.zip_with(births.is_not_null(), firsts)


def _since(times: pl.Series, anchors: pl.Series, *, minutes: int) -> pl.Series:
    """Whole units of so many minutes from midnight of the anchor's day; negative before it."""
    since = times - anchors.cast(pl.Datetime("us"))
    return since.dt.total_minutes().cast(pl.Int64) // minutes


def _years(births: pl.Series, *, at: dt.date) -> pl.Series:
    """Whole years from birth to a day."""
    birth = pl.lit(births).dt
    later = birth.month().cast(pl.Int64) * 32 + birth.day().cast(pl.Int64) > at.month * 32 + at.day
    return pl.select(at.year - birth.year().cast(pl.Int64) - later.cast(pl.Int64)).to_series()
