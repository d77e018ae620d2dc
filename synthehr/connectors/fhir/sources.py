"""What a FHIR source is made of: its files, in order, cut into pieces of whole records."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import orjson

from synthehr.connectors.fhir.resources import is_resource_type
from synthehr.errors import DataError

__all__ = [
    "PACKED_TO",
    "PIECE_BYTES",
    "InputFile",
    "Listing",
    "Piece",
    "is_fhir",
    "is_server",
    "list_files",
    "pieces",
    "server_url",
]

Form: TypeAlias = Literal["lines", "document"]

PIECE_BYTES = 8 << 20
PACKED_TO = 8  # bytes that one of a gzip file unpacks to, about
_MOST_DOCUMENTS = 1000
_SNIFF_BYTES = 1 << 13
_FORMS: dict[str, Form] = {".ndjson": "lines", ".jsonl": "lines", ".json": "document"}
_TABLES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
_NAMED_AFTER_TYPE = re.compile(r"(?:\d+[._-])?([A-Z][A-Za-z]+)(?:[._-]\d+)*")
_SERVER = re.compile(r"fhir\+(https?):/{1,2}([^/].*)")
_RESOURCE_TYPE = re.compile(rb'"resourceType"\s*:')
_OUTPUT = re.compile(rb'"output"\s*:\s*\[')


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One file to read.

    Attributes:
        path: where it lies; plain, or gzipped where its name ends in ``.gz``.
        form: ``lines`` holds one resource or bundle a line, ``document`` one in all.
        type: the one resource type that bulk data keeps in it, where its name or the manifest tells.
    """

    path: Path
    form: Form
    type: str | None = None

    @property
    def packed(self) -> bool:
        """Is it gzipped?"""
        return self.path.suffix == ".gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The files of a source.

    Attributes:
        files: in the order of reading.
        passed_over: names of files of the folder that hold no FHIR.
    """

    files: tuple[InputFile, ...]
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Whole records for one process to read: a part of a file of lines, or several files that are one record each.

    Attributes:
        number: counts from 0 in the order of reading.
        file: number of the (first) file in the listing.
        path: what to read lines from; None where there are ``documents``.
        documents: number and path of each file that holds one record.
        start: first byte.
        stop: byte after the last.
        data: the lines themselves, where the file had to be unpacked on the way.
        broken: the file ends in damage behind this piece.
    """

    number: int
    file: int
    path: Path | None = None
    documents: tuple[tuple[int, Path], ...] = ()
    start: int = 0
    stop: int = 0
    data: bytes | None = None
    broken: bool = False


def is_fhir(source: str | Path) -> bool:
    """Whether a path or URI is a FHIR source: a server, or files that hold FHIR and no tables beside them."""
    if is_server(source):
        return True
    if "://" in str(source):  # of a database, whose query may be longer than a path can be
        return False
    path = Path(source)
    if path.is_file():
        return _form(path) is not None
    if not path.is_dir():
        return False
    names = sorted(path.iterdir())
    if any(name.name.lower().endswith(_TABLES) for name in names):
        return False
    return any(_form(name) is not None and _sniff(name) != "other" for name in names if name.is_file())


def is_server(source: str | Path) -> bool:
    """Whether a source is the URI of a FHIR server."""
    return _SERVER.fullmatch(str(source)) is not None


def server_url(source: str | Path) -> str:
    """The server's address in the URI of a FHIR server; a path may have lost one of its slashes."""
    match = _SERVER.fullmatch(str(source))
    assert match is not None, "only asked of servers"
    return f"{match[1]}://{match[2]}"


def list_files(source: Path) -> Listing:
    """The files of a file, a folder, or a bulk export with its manifest.

    Raises:
        DataError: there is nothing to read, or the manifest names a file that is not there.
    """
    if not source.exists():
        raise DataError(f"{str(source)!r} does not exist: give a FHIR bundle, an NDJSON file, or a folder of them")
    if source.is_file():
        form = _form(source)
        if form is None:
            raise DataError(f"{str(source)!r} is of an unknown kind: known are {', '.join(_FORMS)}, plain or .gz")
        if form == "document" and _sniff(source) == "manifest":
            return _of_manifest(source)
        return Listing(files=(InputFile(path=source, form=form, type=_type_in_name(source)),))
    return _of_folder(source)


def pieces(files: Sequence[InputFile], *, read: Callable[[InputFile], bool], size: int) -> Iterator[Piece]:
    """Cut files into pieces of about ``size`` bytes that end where a line ends.

    Plain files are cut without being held; packed ones are unpacked here, a piece at a time.

    Args:
        files: what to cut, in order.
        read: says of each file whether it is read at all.
        size: bytes in a piece; a longer line makes a longer piece.

    Raises:
        DataError: a file cannot be opened.
    """
    number = 0
    wanted = [(at, file) for at, file in enumerate(files) if read(file)]
    for lined, group in groupby(wanted, key=lambda one: one[1].form == "lines"):
        run = list(group)
        made = chain.from_iterable(_of_lines(at, file, size) for at, file in run) if lined else _of_documents(run, size)
        for piece in made:
            yield replace(piece, number=number)
            number += 1


def _of_lines(at: int, file: InputFile, size: int) -> Iterator[Piece]:
    try:
        for start, stop, data, broken in _packed(file, size) if file.packed else _plain(file, size):
            yield Piece(number=0, file=at, path=file.path, start=start, stop=stop, data=data, broken=broken)
    except OSError as error:
        raise DataError(f"input file {at + 1} cannot be read: {error.strerror or 'no readable file'}") from None


def _of_documents(files: Iterable[tuple[int, InputFile]], size: int) -> Iterator[Piece]:
    held: list[tuple[int, Path]] = []
    total = 0
    for at, file in files:
        held.append((at, file.path))
        total += file.path.stat().st_size * (PACKED_TO if file.packed else 1)
        if total >= size or len(held) >= _MOST_DOCUMENTS:
            yield Piece(number=0, file=held[0][0], documents=tuple(held))
            held, total = [], 0
    if held:
        yield Piece(number=0, file=held[0][0], documents=tuple(held))


def _plain(file: InputFile, size: int) -> Iterator[tuple[int, int, None, bool]]:
    with file.path.open("rb") as raw:
        end = raw.seek(0, 2)
        start = 0
        while start < end:
            stop = min(start + size, end)
            raw.seek(stop)
            while stop < end:
                block = raw.read(1 << 16)
                newline = block.find(b"\n")
                stop += len(block) if newline < 0 else newline + 1
                if newline >= 0 or not block:
                    break
            yield start, stop, None, False
            start = stop


def _packed(file: InputFile, size: int) -> Iterator[tuple[int, int, bytes, bool]]:
    start, rest = 0, [b""]
    for block, broken in _unpacked(file.path, size):
        cut = block.rfind(b"\n") + 1
        if not cut and not broken:
            rest.append(block)
            continue
        data = b"".join((*rest, block[:cut]))
        rest = [block[cut:]]
        if broken:  # what stands after the last newline is cut short, and is no record
            data = data[: data.rfind(b"\n") + 1]
        yield start, start + len(data), data, broken
        start += len(data)
        if broken:
            return
    if last := b"".join(rest):
        yield start, start + len(last), last, False


def _unpacked(path: Path, size: int) -> Iterator[tuple[bytes, bool]]:
    """Blocks of a gzip file of one or more members, and whether the file is damaged behind each."""
    with path.open("rb") as raw:
        held: list[bytes] = []
        packed, unpacker = raw.read(1 << 16), zlib.decompressobj(wbits=31)
        while packed:
            try:
                held.append(unpacker.decompress(packed, size))
            except zlib.error:
                yield b"".join(held), True
                return
            if sum(map(len, held)) >= size:
                yield b"".join(held), False
                held = []
            packed = unpacker.unconsumed_tail or unpacker.unused_data.lstrip(b"\0") or raw.read(1 << 16)
            if unpacker.eof and packed:
                unpacker = zlib.decompressobj(wbits=31)
        if held or not unpacker.eof:
            yield b"".join(held), not unpacker.eof


def _form(path: Path) -> Form | None:
    name = path.name.lower().removesuffix(".gz")
    if path.name.startswith("."):
        return None
    return next((form for ending, form in _FORMS.items() if name.endswith(ending)), None)


def _stem(path: Path) -> str:
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return name.rpartition(".")[0]


def _type_in_name(path: Path) -> str | None:
    match = _NAMED_AFTER_TYPE.fullmatch(_stem(path))
    kind = match.group(1) if match is not None else None
    return kind if kind is not None and kind != "Bundle" and is_resource_type(kind) else None


def _sniff(path: Path) -> Literal["fhir", "manifest", "other"]:
    """What the beginning of a file holds. A file that cannot be unpacked counts as FHIR, so that it is reported."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as raw:
            head = raw.read(_SNIFF_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return "fhir"
    except OSError as error:
        raise DataError(f"{str(path)!r} cannot be read: {error.strerror or 'no readable file'}") from None
    if _RESOURCE_TYPE.search(head):
        return "fhir"
    if b'"transactionTime"' in head and _OUTPUT.search(head):
        return "manifest"
    return "other"


def _of_folder(folder: Path) -> Listing:
    files, over, manifest = [], [], None
    for path in sorted(folder.iterdir()):
        if not path.is_file() or path.name.startswith("."):
            continue
        form = _form(path)
        kind = _type_in_name(path) if form == "lines" else None
        holds = "fhir" if kind is not None else _sniff(path) if form is not None else "other"
        if holds == "manifest":
            manifest = path
        elif form is None or holds == "other":
            over.append(path.name)
        else:
            files.append(InputFile(path=path, form=form, type=kind))
    listed = _of_manifest(manifest) if manifest is not None else None
    if listed is not None:
        named = {file.path for file in listed.files}
        more = [file.path.name for file in files if file.path not in named]
        return Listing(files=listed.files, passed_over=(*over, *more))
    if not files:
        raise DataError(f"folder {str(folder)!r} holds no FHIR: bundles (.json) or NDJSON (.ndjson), plain or .gz")
    return Listing(files=tuple(files), passed_over=tuple(over))


def _of_manifest(path: Path) -> Listing:
    """The files that an export manifest lists, by the last part of their URLs, in its order."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        output = orjson.loads(data)["output"]
        listed = [(entry["url"], entry.get("type")) for entry in output]
        names = [(Path(unquote(urlsplit(url).path)).name, kind) for url, kind in listed]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError, OSError, EOFError, zlib.error):
        raise DataError(f"export manifest {str(path)!r} is damaged: export again, or remove it") from None
    files = []
    for name, kind in names:
        here = next((path.parent / n for n in (name, f"{name}.gz") if n and (path.parent / n).is_file()), None)
        if here is None:
            raise DataError(
                f"export manifest {str(path)!r} lists a file that is not there: download it, or export again"
            )
        known = kind if isinstance(kind, str) and is_resource_type(kind) else None
        files.append(InputFile(path=here, form=_form(here) or "lines", type=known))
    if not files:
        raise DataError(f"export manifest {str(path)!r} lists no files: there is nothing to read")
    return Listing(files=tuple(files))
