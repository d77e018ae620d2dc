"""What may be committed: no real record, and no synthetic one without its provenance.

A hook before a commit, not a proof: it knows the files and rows of the private folders that it is shown, as they are
or with columns left out, put in another order or written in another format. Records that were changed in every row
pass, as do those of folders it was not shown.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from synthehr.errors import ConfigError
from synthehr.schema.files import load_schema

__all__ = ["Refusal", "find_splits", "refusals"]

_TABLES = (".csv", ".tsv", ".parquet", ".pq")
_RESOURCES = (".json", ".ndjson", ".jsonl")
_ENOUGH = 3
"""A row tells of a patient if it is the only one of its kind in a private table, by at least so many values."""

_SKIPPED = {".git", ".venv", "node_modules", ".tox", ".mypy_cache"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A file that must not be committed, and why. No value of it is quoted."""

    file: Path
    why: str


@dataclass(frozen=True, slots=True)
class _Private:
    """What is known of private folders: digests of all files, their tables, and the columns that records have."""

    digests: frozenset[str]
    tables: tuple[pl.DataFrame, ...]
    columns: tuple[frozenset[str], ...]


def find_splits(root: Path) -> list[Path]:
    """Folders below ``root`` with parts ``train`` and ``holdout``; one of them will do in a folder named split."""
    found = []
    folders = [root]
    while folders:
        folder = folders.pop()
        below = [one for one in _listed(folder) if one.is_dir() and not one.is_symlink() and one.name not in _SKIPPED]
        parts = {"train", "holdout"} & {one.name for one in below}
        if len(parts) == 2 or (parts and folder.name == "split"):
            found.append(folder)
        else:
            folders += below
    return sorted(found)


def refusals(files: Sequence[Path], *, private: Sequence[Path], schema: Path | None = None) -> list[Refusal]:
    """Which of the files must not be committed, and why.

    Args:
        files: about to be committed.
        private: files and folders of real records.
        schema: of the records; without it they are known by the columns of the private tables alone.

    Raises:
        ConfigError: a private path is not there.
        SchemaError: the schema breaks the schema language.
    """
    known = _known(private, schema)
    found = []
    for file in files:
        if not file.is_file():
            continue
        why = _why_not(file, known)
        if why is not None:
            found.append(Refusal(file=file, why=why))
    return found


def _known(private: Sequence[Path], schema: Path | None) -> _Private:
    absent = [path for path in private if not path.exists()]
    if absent:
        raise ConfigError(f"private path {str(absent[0])!r} is not there: name a file or folder of real records")
    files = [file for path in private for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    files = [file for file in files if file.is_file()]
    tables = tuple(frame for file in files if _kind(file) in _TABLES and (frame := _read(file)) is not None)
    columns = [frozenset(frame.columns) for frame in tables]
    if schema is not None:
        columns += [frozenset(_folded(name) for name in table.columns) for table in load_schema(schema).tables.values()]
    return _Private(frozenset(_digest(file) for file in files), tables, tuple(columns))


def _why_not(file: Path, known: _Private) -> str | None:
    kind = _kind(file)
    if file.name != "PROVENANCE.json" and _digest(file) in known.digests:
        return "it is a file of the private records"
    if kind in _TABLES:
        return _table_refused(file, known)
    if kind in _RESOURCES:
        return _resources_refused(file)
    return None


def _table_refused(file: Path, known: _Private) -> str | None:
    frame = _read(file)
    if frame is None:
        return "it cannot be read as a table, so that it cannot be told from real records"
    said = _provenance(file)
    most = max((_share_in(frame, table) for table in known.tables), default=0.0)
    if most > (0.5 if said == "synthetic" else 0.0):
        return "it holds rows of the private records"
    if said == "synthetic" or not _is_of_patients(frame, known):
        return None
    return said


def _resources_refused(file: Path) -> str | None:
    """FHIR needs provenance beside it and the label on every resource; other JSON is no record."""
    try:
        resources = list(_resources(file))
    except (OSError, ValueError, EOFError):
        return "it cannot be read as JSON, so that it cannot be told from real records" if _is_lines(file) else None
    if not resources:
        return None
    said = _provenance(file)
    if said != "synthetic":
        return said
    if not all(_is_labelled(resource) for resource in resources):
        return "it holds a resource without the label that says it is synthetic"
    return None


def _provenance(file: Path) -> str:
    """``synthetic`` where PROVENANCE.json beside the file says so, else why that is not to be relied on."""
    beside = file.parent / "PROVENANCE.json"
    try:
        said = json.loads(beside.read_bytes())
    except OSError:
        return "it looks like records of patients, and no PROVENANCE.json beside it says that they are synthetic"
    except ValueError:
        return "PROVENANCE.json beside it is not JSON"
    if not isinstance(said, dict) or said.get("synthetic") is not True:
        return "PROVENANCE.json beside it does not say that it is synthetic"
    if said.get("private") is not True:
        return "PROVENANCE.json beside it says NOT PRIVATE"
    return "synthetic"


def _is_of_patients(frame: pl.DataFrame, known: _Private) -> bool:
    """Whether a table has most of the columns of a private one."""
    have = set(frame.columns)
    return any(len(columns & have) * 2 > len(columns) for columns in known.columns)


def _share_in(frame: pl.DataFrame, private: pl.DataFrame) -> float:
    """The share of a table's rows that are rows of a private table which has no other like them."""
    shared = [name for name in private.columns if name in frame.columns]
    if len(shared) < min(_ENOUGH, private.width):
        if frame.width != private.width:
            return 0.0
        frame = frame.rename(dict(zip(frame.columns, private.columns, strict=True)))
        shared = private.columns
    told = [name for name in shared if not _is_key(private[name])]
    return max(_matched(frame, private, names) for names in (shared, told))


def _is_key(column: pl.Series) -> bool:
    """Whether a column names rows: no value stands twice, and none is a measurement with decimals."""
    number = column.cast(pl.Float64, strict=False)
    return column.n_unique() == column.len() and not bool((number != number.round(0)).any())


def _matched(frame: pl.DataFrame, private: pl.DataFrame, names: Sequence[str]) -> float:
    if len(names) < min(_ENOUGH, private.width) or frame.height == 0:
        return 0.0
    enough = pl.sum_horizontal(pl.col(name) != "" for name in names) >= min(_ENOUGH, len(names))
    row = pl.concat_str([pl.col(name) for name in names], separator="\x1f").alias("row")
    unique = private.filter(enough).select(row).group_by("row").len().filter(pl.col("len") == 1)["row"]
    return int(frame.select(row)["row"].is_in(unique.implode()).sum()) / frame.height


def _read(file: Path) -> pl.DataFrame | None:
    """A table as text, written alike whatever format it came in; None where it cannot be read."""
    try:
        if _kind(file) in (".parquet", ".pq"):
            frame = pl.read_parquet(file)
        else:
            separator = "\t" if _kind(file) == ".tsv" else ","
            frame = pl.read_csv(file, infer_schema=False, separator=separator, truncate_ragged_lines=True)
        return frame.select(_alike(name) for name in frame.columns)
    except (OSError, pl.exceptions.PolarsError):
        return None


def _alike(name: str) -> pl.Expr:
    """A column as text in which 70, 70.0 and "70" are the same, and so are true and 1."""
    text = pl.col(name).cast(pl.String, strict=False).fill_null("").str.strip_chars().str.to_lowercase()
    text = text.replace({"true": "1", "false": "0"})
    as_number = text.cast(pl.Float64, strict=False).round_sig_figs(9).cast(pl.String)
    return pl.coalesce(as_number, text).alias(_folded(name))


def _resources(file: Path) -> Iterator[dict[str, object]]:
    """The FHIR resources of a file, those in bundles by themselves."""
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    parts: Iterable[bytes] = (line for line in data.splitlines() if line.strip()) if _is_lines(file) else (data,)
    for part in parts:
        one = json.loads(part)
        if not isinstance(one, dict) or "resourceType" not in one:
            continue
        entries = one.get("entry") if one["resourceType"] == "Bundle" else None
        inner = [entry.get("resource") for entry in entries or () if isinstance(entry, dict)]
        yield from [resource for resource in inner if isinstance(resource, dict)] if entries else [one]


def _is_labelled(resource: dict[str, object]) -> bool:
    meta = resource.get("meta")
    tags = meta.get("tag") if isinstance(meta, dict) else None
    return any(isinstance(tag, dict) and tag.get("code") == "synthetic" for tag in tags or ())


def _is_lines(file: Path) -> bool:
    return _kind(file) in (".ndjson", ".jsonl")


def _kind(file: Path) -> str:
    """The ending that says what a file holds, under .gz too."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _digest(file: Path) -> str:
    with file.open("rb") as open_file:
        return hashlib.file_digest(open_file, "sha256").hexdigest()


def _folded(name: str) -> str:
    return name.strip().casefold()


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"folder {str(folder)!r} cannot be searched: {error.strerror}") from error
