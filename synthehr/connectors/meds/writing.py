"""Write a cohort as a MEDS dataset, on a calendar that is made up."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.fhir.calendar import Moment, anchors
from synthehr.connectors.meds.layout import BORN, DEATH, EVENT, SPLIT, Layout
from synthehr.connectors.meds.reading import BIRTH_CODE, DEATH_CODE
from synthehr.errors import DataError, InternalError
from synthehr.schema.model import Schema

__all__ = ["WrittenMeds", "write_meds"]

EVENTS_PER_FILE = 1_048_576
_MINUTE_DAY = 1440


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenMeds:
    """What was written.

    Attributes:
        files: the files, by their path in the dataset.
        subjects: patients of whom something is written.
        without_events: patients of whom MEDS has nothing to write: no birth, death, static value or event.
    """

    files: tuple[str, ...]
    subjects: int
    without_events: int


def write_meds(
    cohort: Cohort[Schema], folder: Path, *, seed: int, synthetic: bool, release_digest: str | None = None
) -> WrittenMeds:
    """Write a cohort as MEDS into an existing folder: ``data/``, ``metadata/``.

    Each patient gets a day of its own that its offsets count from, drawn from the seed, so that the last event of each
    lies in the ten years up to 2024. Keys that are whole numbers are the subjects' ids; else subjects are numbered from
    1. A subject's events stand in one file, by time, those without time first.

    Args:
        cohort: tables like those of ``schemas/meds``.
        folder: where to.
        seed: of the calendar.
        synthetic: what the dataset's name says of it: synthetic patients, or real records.
        release_digest: of the release that synthetic patients were drawn from.

    Raises:
        ConfigError: the schema's tables are not such as MEDS has.
        DataError: a time is too far from its anchor, or a number too large for MEDS's 32 bits.
    """
    layout = Layout.of(cohort.schema)
    subjects = _subjects(cohort, layout, seed=seed)
    events = _all_events(cohort, layout, subjects)
    (folder / "data").mkdir()
    (folder / "metadata").mkdir()
    files = []
    for number, part in enumerate(_shards(events)):
        path = folder / "data" / f"{number}.parquet"
        _write_data(part, path, layout=layout)
        files.append(path)
    files.append(_write_codes(events["code"], folder))
    files.append(_write_about(folder, synthetic=synthetic, release_digest=release_digest))
    if layout.split:
        files.append(_write_splits(cohort, subjects, folder))
    there = events["subject_id"].n_unique()
    return WrittenMeds(
        files=tuple(str(path.relative_to(folder)) for path in files),
        subjects=there,
        without_events=len(cohort) - there,
    )


def _subjects(cohort: Cohort[Schema], layout: Layout, *, seed: int) -> pl.DataFrame:
    """By row of the root table the subject's id, and the midnight that its offsets count from."""
    keys = cohort.root[layout.key]
    ids = keys.cast(pl.Int64, strict=False)
    if ids.null_count() or not ids.cast(pl.String).equals(keys) or ids.n_unique() < len(ids):
        ids = pl.int_range(1, len(keys) + 1, dtype=pl.Int64, eager=True)
    moments: dict[str, Sequence[Moment]] = {EVENT: [Moment("time", _MINUTE_DAY // layout.time_unit)]}
    if layout.death_unit is not None:
        moments[layout.subject] = [Moment(DEATH, _MINUTE_DAY // layout.death_unit)]
    days = anchors(cohort, moments, seed=seed)
    return pl.DataFrame({"subject_id": ids, "anchor": days.cast(pl.Datetime("us"))})


def _all_events(cohort: Cohort[Schema], layout: Layout, subjects: pl.DataFrame) -> pl.DataFrame:
    """All events in MEDS's types, by subject and time: of one time the birth first, then as tables have them."""
    root = pl.concat([subjects, cohort.root.drop(layout.key)], how="horizontal")
    parts = []
    if layout.born:
        born = root.filter(pl.col(BORN).fill_null(value=False))
        parts.append(born.select("subject_id", pl.col("anchor").alias("time"), pl.lit(BIRTH_CODE).alias("code")))
    for beginning, column in layout.statics.items():
        known = root.filter(pl.col(column).is_not_null())
        code = (pl.lit(beginning) + pl.col(column)).alias("code")
        parts.append(known.select("subject_id", pl.lit(None, dtype=pl.Datetime("us")).alias("time"), code))
    events = cohort.tables[EVENT]
    owners = subjects[cohort.owners(EVENT).astype(np.int64)]
    listed = pl.concat([owners, events.drop(layout.foreign_key)], how="horizontal")
    listed = listed.with_columns(_moment("time", minutes=layout.time_unit))
    if layout.numeric:
        listed = listed.with_columns(_in_32_bits(listed["numeric_value"]))
    numbers = ["numeric_value"] * layout.numeric
    parts.append(listed.select("subject_id", "time", "code", *numbers, *layout.further))
    if layout.death_unit is not None:
        dead = root.filter(pl.col(DEATH).is_not_null())
        time = _moment(DEATH, minutes=layout.death_unit).alias("time")
        parts.append(dead.select("subject_id", time, pl.lit(DEATH_CODE).alias("code")))
    whole = pl.concat(parts, how="diagonal")
    if not layout.numeric:
        whole = whole.with_columns(pl.lit(None, dtype=pl.Float32).alias("numeric_value"))
    if not whole.height:
        raise DataError("the cohort has nothing that MEDS could hold: no birth, death, static value or event")
    return whole.sort("subject_id", "time", nulls_last=False, maintain_order=True)


def _moment(column: str, *, minutes: int) -> pl.Expr:
    return (pl.col("anchor") + pl.duration(minutes=pl.col(column) * minutes)).alias(column)


def _in_32_bits(values: pl.Series) -> pl.Series:
    small = values.cast(pl.Float32)
    if (small.is_infinite() & values.is_finite()).any():
        raise DataError("column 'numeric_value' in table 'event' holds a number beyond the 32 bits that MEDS gives it")
    return small


def _shards(events: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The events cut between subjects, into parts of about a million."""
    first = events["subject_id"].ne_missing(events["subject_id"].shift(1)).arg_true().to_numpy()
    start = 0
    while start < events.height:
        after = first[first >= start + EVENTS_PER_FILE]
        stop = int(after[0]) if after.size else events.height
        yield events[start:stop]
        start = stop


def _write_data(events: pl.DataFrame, path: Path, *, layout: Layout) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from meds import DataSchema

    core = DataSchema.schema()
    further = [name for name in layout.further if name not in core.names]
    names = [name for name in core.names if name in events.columns] + further
    table = events.select(names).to_arrow(compat_level=pl.CompatLevel.oldest())
    types = [core.field(name).type if name in core.names else table.schema.field(name).type for name in names]
    exact = table.cast(pa.schema(list(zip(names, types, strict=True))))
    _validate(DataSchema, exact)
    pq.write_table(exact, path, compression="zstd", compression_level=1)


def _write_codes(codes: pl.Series, folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from meds import CodeMetadataSchema, code_metadata_filepath

    named = codes.unique().sort().to_list()
    nothing = pa.nulls(len(named), pa.string())
    parents = pa.nulls(len(named), CodeMetadataSchema.schema().field("parent_codes").type)
    table = pa.table([pa.array(named, pa.string()), nothing, parents], schema=CodeMetadataSchema.schema())
    _validate(CodeMetadataSchema, table)
    path = Path(folder, code_metadata_filepath)
    pq.write_table(table, path, compression="zstd", compression_level=1)
    return path


def _write_about(folder: Path, *, synthetic: bool, release_digest: str | None) -> Path:
    """What the dataset is: synthetic, with the release that it was drawn from, or real records."""
    import meds

    name = "REAL RECORDS, converted by synthehr"
    if synthetic:
        name = (
            f"SYNTHETIC patients, drawn by synthehr from {f'release {release_digest}' if release_digest else 'a model'}"
        )
    about = {
        "dataset_name": name,
        "etl_name": "synthehr",
        "etl_version": version("synthehr"),
        "meds_version": meds.__version__,
    }
    _validate(meds.DatasetMetadataSchema, about)
    path = Path(folder, meds.dataset_metadata_filepath)
    path.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return path


def _write_splits(cohort: Cohort[Schema], subjects: pl.DataFrame, folder: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from meds import SubjectSplitSchema, subject_splits_filepath

    known = subjects.select("subject_id").with_columns(cohort.root[SPLIT].alias("split")).drop_nulls("split")
    arrow = known.sort("subject_id").to_arrow(compat_level=pl.CompatLevel.oldest())
    table = arrow.cast(pa.schema([("subject_id", pa.int64()), ("split", pa.string())]))
    _validate(SubjectSplitSchema, table)
    path = Path(folder, subject_splits_filepath)
    pq.write_table(table, path, compression="zstd", compression_level=1)
    return path


def _validate(schema: Any, data: Any) -> None:
    """Check with the meds package that what is about to be written is MEDS."""
    from flexible_schema.exceptions import SchemaValidationError, TableValidationError

    try:
        schema.validate(data)
    except (SchemaValidationError, TableValidationError):
        raise InternalError(f"what was to be written is not valid by MEDS's {schema.__name__}") from None
