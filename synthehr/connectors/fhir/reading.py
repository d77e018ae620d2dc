"""Read a FHIR source into tables: find its files, spread them over processes, and account for every record."""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from synthehr.connectors.fhir.badlines import BadRecord, BadRowPolicy, write_quarantine
from synthehr.connectors.fhir.consent import ConsentPolicy
from synthehr.connectors.fhir.extracted import Extracted
from synthehr.connectors.fhir.extraction import Extractor
from synthehr.connectors.fhir.resources import TOO_OLD
from synthehr.connectors.fhir.schema_default import default_schema
from synthehr.connectors.fhir.sources import (
    PACKED_TO,
    PIECE_BYTES,
    InputFile,
    Listing,
    Piece,
    is_server,
    list_files,
    pieces,
)
from synthehr.connectors.fhir.spool import Spilled, Spool, spill
from synthehr.connectors.fhir.tables import Built, build_tables
from synthehr.connectors.fhir.viewset import ViewSet, load_views
from synthehr.errors import ConfigError, DataError
from synthehr.schema.model import Schema

__all__ = ["FhirOptions", "FhirRecords", "open_fhir"]

_PIECES = 64  # that a large source is cut into; more of them cost time and memory when tables are made
_LARGEST_PIECE = 16 << 20  # bytes; a process holds about eight times as much
_HELD_BELOW = 256 << 20  # bytes of input whose rows one process keeps in memory until tables are made of them
_ALONE_BELOW = _HELD_BELOW  # bytes of input that one process reads as soon as two, since the second must start first


@dataclass(frozen=True, slots=True, kw_only=True)
class FhirOptions:
    """How a FHIR source is read.

    Attributes:
        on_bad: what a record that cannot be read does.
        consent: whom to leave out.
        views: folder of the user's own ViewDefinitions.
        processes: how many read at once; by the number of cores where left out. The result does not depend on it.
        notes: an existing folder for its owner alone, which takes ``FHIR_AUDIT.json`` and the list of quarantine.
    """

    on_bad: BadRowPolicy = field(default_factory=BadRowPolicy)
    consent: ConsentPolicy = field(default_factory=ConsentPolicy)
    views: Path | None = None
    processes: int | None = None
    notes: Path | None = None

    def __post_init__(self) -> None:
        if self.processes is not None and self.processes < 1:
            raise ConfigError(f"the number of processes must be at least 1, not {self.processes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FhirRecords:
    """The tables of a FHIR source while it is open.

    Attributes:
        tables: queries by name; they hold until the source is closed.
        schema: the default schema of these tables.
        bad: every record that was left out as bad.
        files: names of the input files, in order.
        audit: all that was counted, for the custodian alone.
    """

    tables: Mapping[str, pl.LazyFrame]
    schema: Schema
    bad: tuple[BadRecord, ...]
    files: tuple[str, ...]
    audit: Mapping[str, Any]

    def frames(self, schema: Schema) -> dict[str, pl.DataFrame]:
        """The tables that a schema declares, with the columns that it declares and keeps."""
        frames = {}
        for name, table in schema.tables.items():
            if name not in self.tables:
                raise DataError(f"table {name!r} of the schema is not among the views: add a view with --views")
            there = self.tables[name].collect_schema().names()
            wanted = [column for column, kind in table.columns.items() if kind.kind not in ("identifier", "text")]
            frames[name] = (
                self.tables[name].select([column for column in wanted if column in there]).collect(engine="streaming")
            )
        return frames

    def write_notes(self, folder: Path, *, quarantine: bool) -> None:
        """Write the audit, and the list of quarantine where it is asked for, into a folder for its owner alone."""
        if quarantine:
            write_quarantine(folder / "quarantine.csv", self.bad, files=self.files)
        self.write_audit(folder / "FHIR_AUDIT.json")

    def write_audit(self, path: Path) -> None:
        """Write the audit as JSON that its owner alone can read."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(self.audit, out, indent=2, ensure_ascii=False)
            out.write("\n")


@contextmanager
def open_fhir(source: str | Path, *, options: FhirOptions | None = None) -> Iterator[FhirRecords]:
    """Read a source through the views; the tables hold while the block runs.

    While it runs, rows lie in a folder of the system's temporary folder that its owner alone can enter.

    Args:
        source: a bundle, a folder of bundles, NDJSON (of bundles or resources; plain or .gz), a bulk export with or
            without its manifest, or ``fhir+https://server/base`` (``…/$export`` for a bulk export).
        options: see :class:`FhirOptions`.

    Raises:
        DataError: the source cannot be read, holds no patient, or has more bad records than the policy lets pass.
        SchemaError: a view breaks a rule.
    """
    settings = options or FhirOptions()
    views = load_views(settings.views)
    schema = default_schema(views)
    folder = Path(tempfile.mkdtemp(prefix="synthehr-fhir-"))
    try:
        listing = _listing(source, views=views, settings=settings, folder=folder)
        names = _names(listing)
        spool, skipped = _read(listing.files, views=views, settings=settings, folder=folder)
        _refuse_old(spool.bad, records=spool.records, policy=settings.on_bad)
        settings.on_bad.check(spool.bad, records=spool.records, names=names)
        built = build_tables(
            spool,
            views,
            consent=settings.consent,
            declared=schema,
            folder=folder,
            at_once=(settings.processes or _cores()) if spool.on_disk else 1,
        )
        bad = sorted((*spool.bad, *built.bad), key=lambda one: (one.file, one.line, one.offset))
        settings.on_bad.check(bad, records=spool.records, names=names)
        yield FhirRecords(
            tables=built.tables,
            schema=schema,
            bad=tuple(bad),
            files=tuple(file.path.name for file in listing.files),
            audit=_audit(listing, spool, built, bad, skipped=skipped, settings=settings),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _listing(source: str | Path, *, views: ViewSet, settings: FhirOptions, folder: Path) -> Listing:
    if not is_server(source):
        return list_files(Path(source))
    from synthehr.connectors.fhir.server import download

    wanted = views.types if settings.consent.mode == "ignore" else views.types | {"Consent"}
    (folder / "download").mkdir()
    return download(str(source), into=folder / "download", types=sorted(wanted))


def _read(
    files: tuple[InputFile, ...], *, views: ViewSet, settings: FhirOptions, folder: Path
) -> tuple[Spool, list[str]]:
    """Every piece of every file, in order, by as many processes as are worth starting."""
    consents = settings.consent.mode != "ignore"
    secret = secrets.randbits(64)
    extractor = Extractor(views, consents=consents, secret=secret)
    skipped = [file.path.name for file in files if file.type is not None and not extractor.wants(file.type)]
    spool = Spool(secret=secret)
    fail = settings.on_bad.mode == "fail"
    processes = settings.processes or _cores()
    size = sum(
        file.path.stat().st_size * (PACKED_TO if file.packed else 1) for file in files if file.path.name not in skipped
    )
    largest = min(max(PIECE_BYTES, size // _PIECES), _LARGEST_PIECE)
    work = pieces(files, read=lambda file: file.type is None or extractor.wants(file.type), size=largest)
    read: Iterator[tuple[Extracted, dict[str, Path] | None]]
    if processes == 1 or (settings.processes is None and size < _ALONE_BELOW):
        hold = size < _HELD_BELOW
        alone = (extractor.read(piece) for piece in work)
        read = ((one, None) for one in alone) if hold else (spill(one, folder) for one in alone)
    else:
        read = _spread(work, extractor, prepare=(views, consents, secret, folder), others=processes - 1)
    for extracted, parts in read:
        spool.add(extracted, parts)
        if fail and spool.bad:
            break
    return spool, skipped


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _spread(
    work: Iterator[Piece], extractor: Extractor, *, prepare: tuple[ViewSet, bool, int, Path], others: int
) -> Iterator[Spilled]:
    """Pieces read by this process and ``others``, in the order of the pieces; never many of them wait."""
    folder = prepare[-1]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(others, mp_context=context, initializer=_prepare, initargs=prepare) as pool:
        given: deque[Future[Spilled]] = deque()
        try:
            for piece in work:
                if sum(not each.done() for each in given) <= others:
                    with _without_main(), _one_thread():
                        given.append(pool.submit(_work, piece))
                else:  # all have one to read and one to go on with: this one is read here
                    given.append(Future())
                    given[-1].set_result(spill(extractor.read(piece), folder))
                while given and given[0].done():
                    yield given.popleft().result()
            while given:
                yield given.popleft().result()
        except BrokenProcessPool:
            raise DataError("a reading process was killed, most likely for memory: use fewer processes") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _without_main() -> Iterator[None]:
    """Keep new processes from running the caller's script: one without a guard would start over in each of them."""
    main = sys.modules["__main__"]
    file, spec = main.__dict__.pop("__file__", None), main.__spec__
    main.__spec__ = None
    try:
        yield
    finally:
        main.__spec__ = spec
        if file is not None:
            main.__file__ = file


@contextmanager
def _one_thread() -> Iterator[None]:
    """Have new processes do polars' part by one thread each, since there is one of them for each core."""
    if "POLARS_MAX_THREADS" in os.environ:
        yield
        return
    os.environ["POLARS_MAX_THREADS"] = "1"
    try:
        yield
    finally:
        del os.environ["POLARS_MAX_THREADS"]


_prepared: tuple[Extractor, Path] | None = None


def _prepare(views: ViewSet, consents: bool, secret: int, folder: Path) -> None:
    """Set up one process: compile the views once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool, in one line
    global _prepared  # noqa: PLW0603 - a process of the pool has no other place
    _prepared = (Extractor(views, consents=consents, secret=secret), folder)


def _work(piece: Piece) -> Spilled:
    assert _prepared is not None, "the pool prepares each process"
    extractor, folder = _prepared
    return spill(extractor.read(piece), folder)


def _refuse_old(bad: list[BadRecord], *, records: int, policy: BadRowPolicy) -> None:
    """Refuse a source of an older FHIR as a whole, rather than leave out what happens to show it."""
    old = sum(one.reason == TOO_OLD for one in bad)
    if old and (bad[0].reason == TOO_OLD if policy.mode == "fail" else old > policy.most * records):
        raise DataError("the source is FHIR DSTU2 or STU3: R4, R4B and R5 are read: convert it to R4 first")


def _names(listing: Listing) -> list[str]:
    """What messages call the files: by number where there are several, since names of bundles are often of patients."""
    if len(listing.files) == 1:
        return [repr(listing.files[0].path.name)]
    return [f"input file {number} (by name)" for number in range(1, len(listing.files) + 1)]


def _audit(
    listing: Listing, spool: Spool, built: Built, bad: list[BadRecord], *, skipped: list[str], settings: FhirOptions
) -> dict[str, Any]:
    return {
        "private": "counts of real records: for their custodian alone",
        "files": len(listing.files),
        "files_of_types_without_view": skipped,
        "files_passed_over": list(listing.passed_over),
        "records": spool.records,
        "resources": dict(sorted(spool.types.items())),
        "bad_records": dict(sorted(Counter(one.reason for one in bad).items())),
        "rows": built.rows,
        "cells_made_null": built.cells,
        "consent": {"mode": settings.consent.mode, **dict(sorted(built.consent.items()))},
    }
