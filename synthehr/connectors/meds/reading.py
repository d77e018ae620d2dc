"""Read a MEDS dataset into a table of patients and a table of events, times counted from each patient's anchor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from synthehr.connectors.columnar import read_batches
from synthehr.connectors.meds.layout import BORN, DEATH, EVENT, SPLIT, Layout
from synthehr.connectors.meds.source import Dataset, open_dataset
from synthehr.errors import DataError
from synthehr.schema.conform import MISSING
from synthehr.schema.model import Schema

__all__ = ["BIRTH_CODE", "DEATH_CODE", "Meds", "read_meds"]

BIRTH_CODE, DEATH_CODE = "MEDS_BIRTH", "MEDS_DEATH"
_AT = "\0at"
_TYPES: dict[str, tuple[type[pl.DataType], ...]] = {
    "subject_id": (pl.Int64, pl.Int32, pl.UInt32, pl.Int16, pl.UInt16),
    "time": (pl.Datetime, pl.Date, pl.Null),
    "code": (pl.String, pl.Categorical, pl.Enum),
    "numeric_value": (pl.Float32, pl.Float64, pl.Int64, pl.Int32, pl.Int16, pl.Int8, pl.Null),
}
_CAST = {"subject_id": pl.Int64(), "time": pl.Datetime("us"), "code": pl.String(), "numeric_value": pl.Float64()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Meds:
    """MEDS datasets, as a connector.

    Attributes:
        notes: see :func:`read_meds`.
    """

    notes: dict[str, Any] | None = None

    def tables(self, source: str | Path, *, schema: Schema) -> dict[str, pl.DataFrame]:
        """The tables of a dataset: see :func:`read_meds`."""
        return read_meds(source, schema=schema, notes=self.notes)


def read_meds(source: str | Path, *, schema: Schema, notes: dict[str, Any] | None = None) -> dict[str, pl.DataFrame]:
    """The tables of a MEDS dataset, by the schema's names for them.

    Times are whole units since midnight of the day of the first MEDS_BIRTH, or where there is none of the first event;
    seconds are cut off where the unit is the minute. Patients and their events come in the order of their ids and
    times; events of one time keep the order of the files.

    Args:
        source: see :func:`synthehr.connectors.meds.source.open_dataset`.
        schema: tables like those of ``schemas/meds``.
        notes: takes what was read and what was not, under fixed names: for the custodian alone.

    Raises:
        ConfigError: the schema's tables are not such as MEDS has.
        DataError: the dataset is not MEDS. The message quotes no value.
    """
    layout = Layout.of(schema)
    dataset = open_dataset(source)
    metadata = dataset.check_metadata()
    events, not_read = _events(dataset, layout)
    patients, rest = _patients(events, layout, splits=dataset.splits())
    if notes is not None:
        notes["MEDS"] = {
            "files": len(dataset.files),
            "meds_version": metadata.get("meds_version"),
            "columns_not_read": not_read,
            "read_as_numeric_value": dataset.numeric,
            "events": events.height,
            "events_without_time": events["time"].null_count(),
            "subjects": patients.height,
        }
    return {layout.subject: patients, EVENT: rest}


def _events(dataset: Dataset, layout: Layout) -> tuple[pl.DataFrame, list[str]]:
    """All events by subject and time, the static ones first; and the names of columns that were not read."""
    wanted = ["subject_id", "time", "code", *layout.further]
    parts: list[pl.DataFrame] = []
    not_read: set[str] = set()
    for path, names in dataset.columns():
        numbers = _numeric_column(path, names, dataset=dataset) if layout.numeric else None
        here = [name for name in (*wanted, *([numbers] if numbers else [])) if name in names]
        not_read |= set(names) - set(here)
        frame = pl.concat(list(read_batches(path, skip=frozenset(names) - frozenset(here))))
        if numbers is not None and numbers != "numeric_value":
            frame = frame.rename({numbers: "numeric_value"})
        elif numbers is None and layout.numeric:
            frame = frame.with_columns(pl.lit(None, dtype=pl.Float64).alias("numeric_value"))
        if "text_value" in layout.further and "text_value" not in names:
            frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias("text_value"))
        parts.append(_typed(frame, path=path))
    if any(set(part.columns) != set(parts[0].columns) for part in parts):
        raise DataError("the data files of the MEDS dataset differ in a column that the schema declares")
    whole = pl.concat(part.select(parts[0].columns) for part in parts)
    if not whole.height:
        raise DataError("the MEDS dataset has no events")
    if sum(part["subject_id"].n_unique() for part in parts) > whole["subject_id"].n_unique():
        raise DataError("a subject is in more than one data file, which MEDS forbids")
    return whole.sort("subject_id", "time", nulls_last=False, maintain_order=True), sorted(not_read)


def _numeric_column(path: Path, names: list[str], *, dataset: Dataset) -> str | None:
    """The column that holds the numbers of a file; None where the file has none."""
    if dataset.named:
        if dataset.numeric is not None and dataset.numeric not in names:
            raise DataError(f"{path.name!r} has no column {dataset.numeric!r}, which the SOURCE names for the numbers")
        return dataset.numeric
    if "numeric_value" in names:
        return "numeric_value"
    if "value" in names:
        raise DataError(
            f"{path.name!r} has a column 'value' and no 'numeric_value', which is MEDS's name: say what it is with "
            f"meds:{dataset.root}?numeric_value=value, or with ?numeric_value= that there are no numbers to read"
        )
    return None


def _typed(frame: pl.DataFrame, *, path: Path) -> pl.DataFrame:
    """The events of one file in MEDS's types, every event of a subject and with a code."""
    for name, allowed in _TYPES.items():
        if name in frame.columns and frame[name].dtype.base_type() not in allowed:
            raise DataError(f"{path.name!r}: column {name!r} is not of the type that MEDS gives it")
    if isinstance(frame["time"].dtype, pl.Datetime) and frame["time"].dtype.time_zone is not None:
        raise DataError(f"{path.name!r}: column 'time' has a time zone, which MEDS forbids")
    typed = frame.with_columns(pl.col(name).cast(dtype) for name, dtype in _CAST.items() if name in frame.columns)
    for name in ("subject_id", "code"):
        if typed[name].null_count():
            at = typed[name].is_null().arg_max() or 0
            raise DataError(f"{path.name!r}, row {at + 1}: column {name!r} is missing, which MEDS forbids")
    return typed


def _patients(
    events: pl.DataFrame, layout: Layout, *, splits: pl.DataFrame | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One row a subject, and the events that none of its columns holds; times as offsets."""
    events = events.with_row_index(_AT)
    subjects = events.select("subject_id")
    if splits is not None:
        subjects = pl.concat([subjects, splits.select("subject_id")])
    patients = subjects.unique().sort("subject_id")
    births = _first(events, BIRTH_CODE)
    first = events.group_by("subject_id").agg(pl.col("time").min().alias("first"))
    patients = patients.join(first, on="subject_id", how="left").join(
        births.select("subject_id", pl.col("time").alias("birth")), on="subject_id", how="left"
    )
    patients = patients.with_columns(pl.coalesce("birth", "first").dt.truncate("1d").alias("anchor"))
    held = [events.select(_AT).clear()]
    if layout.born:
        held.append(births.select(_AT))
        patients = patients.with_columns(pl.col("birth").is_not_null().alias(BORN))
    if layout.death_unit is not None:
        deaths = _first(events, DEATH_CODE)
        held.append(deaths.select(_AT))
        patients = patients.join(deaths.select("subject_id", pl.col("time").alias(DEATH)), on="subject_id", how="left")
        patients = patients.with_columns(_since(pl.col(DEATH), minutes=layout.death_unit).alias(DEATH))
    for beginning, column in layout.statics.items():
        found = _static(events, beginning)
        held.append(found.select(_AT))
        value = pl.col("code").str.strip_prefix(beginning).alias(column)
        patients = patients.join(found.select("subject_id", value), on="subject_id", how="left")
    if layout.split:
        none = pl.DataFrame(schema={"subject_id": pl.Int64, SPLIT: pl.String})
        patients = patients.join(none if splits is None else splits, on="subject_id", how="left")
    anchors = patients.select("subject_id", "anchor")
    rest = events.join(pl.concat(held), on=_AT, how="anti").sort(_AT).join(anchors, on="subject_id", how="left")
    rest = rest.sort(_AT).with_columns(_since(pl.col("time"), minutes=layout.time_unit))
    text = pl.col("subject_id").cast(pl.String)
    columns = [BORN] * layout.born + [DEATH] * (layout.death_unit is not None)
    columns += [*layout.statics.values(), *[SPLIT] * layout.split]
    numbers = ["numeric_value"] * layout.numeric
    return (
        patients.sort("subject_id").select(text.alias(layout.key), *columns),
        rest.select(text.alias(layout.foreign_key), "time", "code", *numbers, *layout.further),
    )


def _first(events: pl.DataFrame, code: str) -> pl.DataFrame:
    """Each subject's first event with a code and a time."""
    found = events.filter((pl.col("code") == code) & pl.col("time").is_not_null())
    return found.unique("subject_id", keep="first", maintain_order=True)


def _static(events: pl.DataFrame, beginning: str) -> pl.DataFrame:
    """Each subject's first static event whose code begins so, goes on, and with nothing beside it."""
    rest = pl.col("code").str.strip_prefix(beginning)
    bare = pl.col("time").is_null() & pl.col("code").str.starts_with(beginning)
    bare &= (rest == rest.str.strip_chars()) & ~rest.str.to_lowercase().is_in(MISSING)
    for name in events.columns:
        if name not in (_AT, "subject_id", "time", "code"):
            bare &= pl.col(name).is_null()
    return events.filter(bare).unique("subject_id", keep="first", maintain_order=True)


def _since(time: pl.Expr, *, minutes: int) -> pl.Expr:
    """Whole units of so many minutes from midnight of the anchor's day; negative before it."""
    return (time - pl.col("anchor")).dt.total_seconds() // (60 * minutes)
