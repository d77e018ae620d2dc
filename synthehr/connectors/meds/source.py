"""Where a MEDS dataset lies: its data files, its metadata, and which column holds the numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from synthehr.connectors.columnar import column_names, read_columnar
from synthehr.errors import DataError

__all__ = ["Dataset", "is_meds", "open_dataset", "root_of"]

_SCHEME = "meds:"
_OPTION = "?numeric_value="
_REQUIRED = ("subject_id", "time", "code")
_SPLITS = Path("metadata") / "subject_splits.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The files of a MEDS dataset.

    Attributes:
        root: the folder, or the one file.
        files: the data files, by path.
        numeric: the column that holds the numbers; None where the SOURCE says that there is none.
        named: does the SOURCE itself say so?
    """

    root: Path
    files: tuple[Path, ...]
    numeric: str | None
    named: bool

    def columns(self) -> Iterator[tuple[Path, list[str]]]:
        """The names of the columns of each file.

        Raises:
            DataError: a file is damaged, or lacks a column that MEDS requires.
        """
        for path in self.files:
            names = column_names(path)
            lacking = [name for name in _REQUIRED if name not in names]
            if lacking:
                raise DataError(f"{path.name!r} has no column {lacking[0]!r}, which MEDS requires of data files")
            yield path, names

    def splits(self) -> pl.DataFrame | None:
        """Subject and split, where the dataset has ``metadata/subject_splits.parquet``.

        Raises:
            DataError: it is damaged or not as MEDS wants it.
        """
        path = self.root / _SPLITS
        if not path.is_file():
            return None
        frame = read_columnar(path, skip=frozenset(), may_be_empty=True)
        if set(frame.columns) != {"subject_id", "split"} or frame["subject_id"].dtype != pl.Int64:
            raise DataError(f"{path.name!r} must have the columns subject_id (64-bit integer) and split (text) alone")
        if frame["subject_id"].null_count() or frame["subject_id"].is_duplicated().any():
            raise DataError(f"{path.name!r} must name each subject once")
        return frame.with_columns(pl.col("split").cast(pl.String))

    def check_metadata(self) -> dict[str, Any]:
        """What ``metadata/dataset.json`` says, after it and ``codes.parquet`` were found to be valid MEDS.

        Raises:
            DataError: one of them is not.
        """
        from meds import CodeMetadataSchema, DatasetMetadataSchema

        told: dict[str, Any] = {}
        path = self.root / "metadata" / "dataset.json"
        if path.is_file():
            try:
                told = dict(json.loads(path.read_bytes()))
                DatasetMetadataSchema.validate(told)
            except (OSError, ValueError, RecursionError):
                raise DataError(f"{path.name!r} cannot be read as JSON") from None
            except _invalid():
                raise DataError(f"{path.name!r} is no dataset metadata as MEDS has it") from None
        codes = self.root / "metadata" / "codes.parquet"
        if codes.is_file():
            table = read_columnar(codes, skip=frozenset(), may_be_empty=True).to_arrow()
            try:
                CodeMetadataSchema.align(table)
            except _invalid():
                raise DataError(f"{codes.name!r} is no code metadata as MEDS has it") from None
        return told


def is_meds(source: str | Path) -> bool:
    """Whether a SOURCE is MEDS: ``meds:folder``."""
    return str(source).startswith(_SCHEME)


def root_of(source: str | Path) -> Path:
    """The folder, or the one file, that a SOURCE names."""
    return Path(str(source).removeprefix(_SCHEME).partition(_OPTION)[0])


def open_dataset(source: str | Path) -> Dataset:
    """The dataset that a SOURCE names: ``meds:PATH`` or ``meds:PATH?numeric_value=COLUMN``.

    PATH is a folder with ``data/`` (Parquet files, in folders or not, and ``metadata/`` beside it), a folder of
    nothing but data files, or one data file.

    Raises:
        DataError: there is no such dataset.
    """
    _, option, column = str(source).partition(_OPTION)
    root = root_of(source)
    if not root.exists():
        raise DataError(f"{str(root)!r} does not exist: give meds:FOLDER, with data/ in it")
    if root.is_file():
        files = [root]
    elif (root / "data").is_dir():
        files = sorted((root / "data").rglob("*.parquet"))
    else:
        files = sorted(root.glob("*.parquet"))
    if not files:
        raise DataError(f"folder {str(root)!r} holds no MEDS: there is no Parquet file in it or its data/")
    return Dataset(
        root=root, files=tuple(files), numeric=(column or None) if option else "numeric_value", named=bool(option)
    )


def _invalid() -> tuple[type[Exception], ...]:
    """What the meds package raises on data that is not MEDS."""
    import pyarrow as pa
    from flexible_schema.exceptions import SchemaValidationError, TableValidationError

    return SchemaValidationError, TableValidationError, pa.ArrowException, TypeError
