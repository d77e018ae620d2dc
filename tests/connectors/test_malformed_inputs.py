"""Inputs that are wrong in every way: one line says what is, no value is quoted, and nothing is left behind."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from synthehr.cli import main

CANARY = "7777"
SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "id",
            "columns": {
                "id": {"kind": "id"},
                "name": {"kind": "identifier"},
                "age": {"kind": "integer", "bounds": [0, 120]},
                "sex": {"kind": "category", "values": ["f", "m"]},
                "weight": {"kind": "number", "nullable": True, "format": {"decimal": ",", "thousands": "."}},
                "seen": {"kind": "date", "bounds": ["2000-01-01", "2030-01-01"], "nullable": True},
                "died": {"kind": "boolean", "nullable": True},
            },
        },
        "visit": {
            "key": "visit",
            "parent": "patient",
            "foreign_key": "id",
            "columns": {"visit": {"kind": "id"}, "id": {"kind": "id"}, "days": {"kind": "integer", "nullable": True}},
        },
    },
    "rules": ["patient.age != 99"],
}
HEADER = "id|name|age|sex|weight|seen|died"
ROW = "p1|Ann|30|f|1.234,5|2020-01-31|no"
VISITS = "visit,id,days\nv1,p1,3\n"
Make = Callable[[Path], None]


def csv(*rows: str, header: str = HEADER) -> Make:
    return text("\n".join([header, ROW, *rows]) + "\n")


def text(content: str | bytes, name: str = "patient.csv") -> Make:
    def make(folder: Path) -> None:
        if name.startswith("patient"):
            (folder / "patient.csv").unlink()
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def table(name: str, columns: dict[str, object] | pa.Table) -> Make:
    def make(folder: Path) -> None:
        (folder / "patient.csv").unlink()
        found = columns if isinstance(columns, pa.Table) else pa.table(columns)
        if name.endswith(".parquet"):
            pq.write_table(found, folder / name)
        else:
            with ipc.new_file(str(folder / name), found.schema) as writer:
                writer.write_table(found)

    return make


def cut(name: str, keep: float) -> Make:
    def make(folder: Path) -> None:
        table(name, GOOD)(folder)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(len(whole) * keep)])

    return make


def good(**changed: object) -> dict[str, object]:
    return {"id": ["p1"], "age": [30], "sex": ["f"], "weight": [1.5], "seen": [None], "died": [True], **changed}


def both(folder: Path) -> None:
    (folder / "patient.tsv").write_text(HEADER.replace("|", "\t"))


def folder_for_a_file(folder: Path) -> None:
    (folder / "visit.csv").unlink()
    (folder / "visit.csv").mkdir()


def dangling(folder: Path) -> None:
    (folder / "visit.csv").unlink()
    (folder / "visit.csv").symlink_to(folder / "nowhere.csv")


GOOD = good()
LONG = "x" * 200_000
TABLES: dict[str, tuple[Make, str]] = {
    "no bytes": (text(b""), "is empty"),
    "a blank first line": (text(f"\n{HEADER}\n{ROW}\n"), "first line is blank"),
    "a header alone": (text(HEADER + "\n"), "has no rows"),
    "a column twice": (csv(header=HEADER.replace("sex", "age")), "'age' stands twice"),
    "a column without a name": (csv(header=HEADER.replace("sex", "")), "column 4 of the header has no name"),
    "a column that is not declared": (csv(header=HEADER.replace("sex", "gender")), "'gender' in table 'patient'"),
    "a column too few": (text("id|name|age\np1|Ann|30\n"), "'sex' is declared for table 'patient' but is not"),
    "a row too short": (csv(f"p2|{CANARY}|30"), "row 2: has 3 cells"),
    "a row too long": (csv(f"{ROW}|{CANARY}"), "row 2: has 8 cells"),
    "a blank line": (csv("", ROW), "row 2: is a blank line"),
    "an open quote": (csv(f'p2|"{CANARY}|30|f|||'), "not well-formed CSV"),
    "text behind a quote": (csv(f'p2|"A"{CANARY}|30|f|||'), "not well-formed CSV"),
    "a cell beyond all measure": (csv(f"p2|{LONG}|30|f|||"), "not well-formed CSV"),
    "a NUL": (csv(f"p2|{CANARY}\0|30|f|||"), "NUL byte"),
    "two encodings": (text(f"{HEADER}\np1|é|30|f|||\np2|".encode() + b"\xe9|30|f|||\n"), "bytes in it that are not"),
    "no encoding": (text(f"{HEADER}\np1|".encode() + b"\x81\xff|30|f|||\n"), "no known encoding"),
    "half a UTF-16 letter": (text(f"{HEADER}\n{ROW}\n".encode("utf-16")[:-1]), "no known encoding"),
    "a cut gzip": (text(gzip.compress(f"{HEADER}\n{ROW}\n".encode() * 99)[:60], "patient.csv.gz"), "damaged gzip"),
    "no gzip": (text(f"{HEADER}\n{ROW}\n", "patient.csv.gz"), "damaged gzip"),
    "a gzip with a wrong sum": (text(gzip.compress(b"id\n1\n")[:-8] + bytes(8), "patient.csv.gz"), "damaged gzip"),
    "words for a whole number": (csv(f"p2|A|{CANARY}x|f|||"), "column 'age' in table 'patient', row 2: is not a whole"),
    "half a whole number": (csv("p2|A|3.5|f|||"), "row 2: is not a whole number"),
    "infinity": (csv("p2|A|30|f|inf||"), "row 2: is not a finite number in the declared format"),
    "thousands in the wrong place": (csv("p2|A|30|f|1.2,5||"), "column 'weight' in table 'patient', row 2"),
    "a point for a comma": (csv("p2|A|30|f|12.5||"), "column 'weight' in table 'patient', row 2"),
    "a value out of bounds": (csv(f"p2|A|{CANARY}|f|||"), "row 2: lies outside the declared bounds [0, 120]"),
    "an unknown category": (csv(f"p2|A|30|{CANARY}|||"), "row 2: is none of the declared values"),
    "a missing value": (csv("p2|A||f|||"), "row 2: is missing"),
    "a day that is none": (csv("p2|A|30|f||2020-02-30|"), "row 2: is not a date"),
    "a date the other way round": (csv("p2|A|30|f||31.01.2020|"), "row 2: is not a date"),
    "perhaps": (csv("p2|A|30|f|||perhaps"), "row 2: is none of true, false"),
    "a broken rule": (csv("p2|A|99|f|||"), "row 2: breaks the declared rule"),
    "a key twice": (csv(f"{CANARY}|A|30|f|||", f"{CANARY}|A|31|f|||"), "must be unique"),
    "no key": (csv("|A|30|f|||"), "must not be missing"),
    "an orphan": (text(f"visit,id,days\nv1,{CANARY},3\n", "visit.csv"), "some rows point to none"),
    "no parent": (text("visit,id,days\nv1,,3\n", "visit.csv"), "some rows point to none"),
    "a table without a file": (lambda folder: (folder / "visit.csv").unlink(), "no file for table 'visit'"),
    "two files for a table": (both, "2 files for table 'patient'"),
    "a folder for a file": (folder_for_a_file, "no file for table 'visit'"),
    "a link to nowhere": (dangling, "no file for table 'visit'"),
    "text called Parquet": (text(f"{HEADER}\n{ROW}\n", "patient.parquet"), "no readable Parquet"),
    "a magic number alone": (text(b"PAR1PAR1", "patient.parquet"), "no readable Parquet"),
    "half a Parquet file": (cut("patient.parquet", 0.5), "no readable Parquet"),
    "nested cells": (table("patient.parquet", good(age=[[30]])), "column 'age' in table 'patient', row 1"),
    "binary cells": (table("patient.parquet", good(age=[b"30"])), "column 'age' in table 'patient', row 1"),
    "a time of day in a date": (table("patient.parquet", good(seen=[dt.datetime(2020, 1, 1, 5)])), "is not a date"),
    "no rows": (table("patient.parquet", pa.table(GOOD).slice(0, 0)), "has no rows"),
    "no columns": (table("patient.parquet", pa.table({})), "has no columns"),
    "text called Arrow": (text(f"{HEADER}\n{ROW}\n", "patient.arrow"), "no readable Arrow"),
    "half an Arrow file": (cut("patient.arrow", 0.5), "no readable Arrow"),
    "an Arrow column twice": (
        table("patient.ipc", pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["id", "id"])),
        "'id' stands twice",
    ),
    "the first Feather": (text(b"FEA1" + bytes(64) + b"FEA1", "patient.feather"), "Feather of version 1"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "records"
    source.mkdir()
    (source / "patient.csv").write_text(f"{HEADER}\n{ROW}\n")
    (source / "visit.csv").write_text(VISITS)
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(SCHEMA, sort_keys=False))
    return tmp_path


def refused(folder: Path, capfd: pytest.CaptureFixture[str], source: str, *more: str) -> str:
    """What is said of a source: exit 3, in one line, nothing written, nothing quoted."""
    before = sorted(folder.rglob("*"))
    capfd.readouterr()
    code = main(["convert", source, "-o", str(folder / "out"), *more])
    out, err = capfd.readouterr()
    assert (code, out) == (3, ""), err
    assert err.startswith("synthehr: error: ")
    assert err.count("\n") == 1
    assert CANARY not in err.replace(str(folder), "")
    assert sorted(folder.rglob("*")) == before
    return err


def test_what_is_not_broken_is_read(folder: Path) -> None:
    argv = ["convert", str(folder / "records"), "--schema", str(folder / "schema.yaml"), "-o", str(folder / "out")]
    assert main(argv) == 0
    row = ("p1", 30, "f", 1234.5, dt.date(2020, 1, 31), False)
    assert pl.read_parquet(folder / "out" / "patient.parquet").rows() == [row]


@pytest.mark.parametrize("mode", ["fail", "drop"])  # read as a stream, and whole
@pytest.mark.parametrize(("make", "what"), TABLES.values(), ids=TABLES)
def test_broken_tables(make: Make, what: str, mode: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    make(folder / "records")
    more = ["--schema", str(folder / "schema.yaml"), "--on-bad-row", mode, "--max-bad-share", "0"]
    told = refused(folder, capfd, str(folder / "records"), *more)
    assert what in told or mode == "drop"


EVENTS: dict[str, list[object]] = {
    "subject_id": [1, 1, 2],
    "time": [dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 2), None],
    "code": ["MEDS_BIRTH", CANARY, "GENDER//F"],
    "numeric_value": [None, 1.0, None],
}


def dataset(folder: Path, *parts: dict[str, list[object]], **metadata: bytes) -> None:
    (folder / "records" / "data").mkdir(parents=True)
    (folder / "records" / "metadata").mkdir()
    for number, columns in enumerate(parts):
        pl.DataFrame(columns).write_parquet(folder / "records" / "data" / f"{number}.parquet")
    for name, content in metadata.items():
        (folder / "records" / "metadata" / ".".join(name.rsplit("_", 1))).write_bytes(content)


def parquet(columns: dict[str, list[object]]) -> bytes:
    file = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), file)
    return bytes(file.getvalue())


def without(name: str) -> dict[str, list[object]]:
    return {column: values for column, values in EVENTS.items() if column != name}


MEDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "nothing": (lambda at: None, "holds no MEDS"),
    "no data files": (dataset, "holds no MEDS"),
    "no code": (lambda at: dataset(at, without("code")), "no column 'code', which MEDS requires"),
    "no time": (lambda at: dataset(at, without("time")), "no column 'time', which MEDS requires"),
    "ids that are words": (lambda at: dataset(at, {**EVENTS, "subject_id": ["a", "b", "c"]}), "column 'subject_id'"),
    "times that are words": (lambda at: dataset(at, {**EVENTS, "time": ["2020", "a", "b"]}), "column 'time'"),
    "numbers that are words": (lambda at: dataset(at, {**EVENTS, "numeric_value": ["1", "a", None]}), "type that MEDS"),
    "times with a zone": (
        lambda at: dataset(at, {**EVENTS, "time": [dt.datetime(2020, 1, 1, tzinfo=dt.UTC), None, None]}),
        "has a time zone",
    ),
    "no id": (lambda at: dataset(at, {**EVENTS, "subject_id": [1, None, 2]}), "row 2: column 'subject_id' is missing"),
    "an event without code": (lambda at: dataset(at, {**EVENTS, "code": ["a", "b", None]}), "row 3: column 'code'"),
    "value for numeric_value": (
        lambda at: dataset(at, {**without("numeric_value"), "value": [1.0, None, None]}),
        "has a column 'value' and no 'numeric_value'",
    ),
    "a subject in two files": (lambda at: dataset(at, EVENTS, EVENTS), "more than one data file"),
    "no events": (lambda at: dataset(at, {name: values[:0] for name, values in EVENTS.items()}), "MEDS"),
    "metadata that is no JSON": (lambda at: dataset(at, EVENTS, dataset_json=b"{"), "cannot be read as JSON"),
    "metadata that is a list": (lambda at: dataset(at, EVENTS, dataset_json=b"[1]"), "'dataset.json'"),
    "metadata of other types": (
        lambda at: dataset(at, EVENTS, dataset_json=b'{"dataset_name": 7}'),
        "no dataset metadata as MEDS has it",
    ),
    "codes without code": (
        lambda at: dataset(at, EVENTS, codes_parquet=parquet({"kode": ["a"]})),
        "no code metadata as MEDS has it",
    ),
    "a subject in two splits": (
        lambda at: dataset(
            at, EVENTS, subject_splits_parquet=parquet({"subject_id": [1, 1], "split": ["train", "held_out"]})
        ),
        "must name each subject once",
    ),
    "splits of another form": (
        lambda at: dataset(at, EVENTS, subject_splits_parquet=parquet({"subject_id": ["1"], "split": ["train"]})),
        "must have the columns subject_id",
    ),
    "a death before the birth": (
        lambda at: dataset(
            at,
            {**EVENTS, "code": ["MEDS_BIRTH", "x", "y"], "time": EVENTS["time"]}
            | {
                "subject_id": [1, 2, 1],
                "code": ["MEDS_BIRTH", "x", "MEDS_DEATH"],
                "time": [dt.datetime(2020, 1, 1), dt.datetime(2020, 1, 2), dt.datetime(2019, 1, 1)],
            },
        ),
        "column 'death' in table 'patient', row 1: lies outside the declared bounds",
    ),
}


@pytest.mark.parametrize(("make", "what"), MEDS.values(), ids=MEDS)
def test_broken_meds(
    make: Callable[[Path], None], what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "records").mkdir(exist_ok=True)
    make(tmp_path)
    assert what in refused(tmp_path, capfd, f"meds:{tmp_path / 'records'}")


@pytest.mark.parametrize("source", ["meds:/nowhere", "meds:", "/nowhere.csv", "records/patient.xlsx"])
def test_sources_that_are_not_there_or_of_no_known_kind(
    source: str, folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "records" / "patient.xlsx").write_bytes(b"PK")
    schema = {"synthehr": 1, "subject": "patient", "tables": {"patient": SCHEMA["tables"]["patient"]}}  # type: ignore[index]
    (folder / "one.yaml").write_text(yaml.safe_dump(schema))
    refused(folder, capfd, source, *([] if source.startswith("meds") else ["--schema", "one.yaml"]))


PATIENT = {"resourceType": "Patient", "id": f"p{CANARY}", "birthDate": "1980-01-01"}


@pytest.mark.parametrize(
    "url",
    [
        "../outside.ndjson",
        "../../{folder}/outside.ndjson",
        "{folder}/outside.ndjson",
        "file://{folder}/outside.ndjson",
        "https://server/%2e%2e/outside.ndjson",
        "https://server/..%2Foutside.ndjson",
        "https://server/..",
        "",
    ],
)
def test_a_path_in_a_manifest_cannot_leave_its_folder(
    url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "outside.ndjson").write_text(json.dumps(PATIENT) + "\n")
    (tmp_path / "export").mkdir()
    listed = [{"type": "Patient", "url": url.format(folder=tmp_path)}]
    manifest = {"transactionTime": "2020-01-01T00:00:00Z", "output": listed}
    (tmp_path / "export" / "manifest.json").write_text(json.dumps(manifest))
    assert "lists a file that is not there" in refused(tmp_path, capfd, str(tmp_path / "export"))


@pytest.mark.parametrize("source", ["../outside", "/etc/passwd", "a/../../outside", "~/outside", "a\\..\\b"])
def test_the_source_of_a_table_cannot_leave_its_folder(
    source: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "outside.csv").write_text(f"{HEADER}\n{ROW}\n")
    schema = json.loads(json.dumps(SCHEMA))
    schema["tables"]["patient"]["source"] = source
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema))
    told = refused(folder, capfd, str(folder / "records"), "--schema", str(folder / "schema.yaml"))
    assert "source" in told


ONE = {
    "synthehr": 1,
    "subject": "p",
    "tables": {
        "p": {
            "key": "id",
            "columns": {
                "id": {"kind": "id"},
                "age": {"kind": "integer", "nullable": True},
                "sex": {"kind": "category", "nullable": True},
                "seen": {"kind": "datetime", "bounds": ["1800-01-01", "2200-01-01"], "nullable": True},
            },
        }
    },
}


def seeds(folder: Path) -> dict[str, bytes]:
    """Small whole files of every kind, to be broken."""
    frame = pl.DataFrame(
        {"id": ["a", "b"], "age": [3, None], "sex": ["fé", None], "seen": [dt.datetime(2020, 1, 1), None]}
    )
    plain = frame.write_csv(datetime_format="%Y-%m-%dT%H:%M:%S").encode()
    arrow = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    stream, file = pa.BufferOutputStream(), pa.BufferOutputStream()
    with ipc.new_stream(stream, arrow.schema) as writer:
        writer.write_table(arrow)
    pq.write_table(arrow, file)
    with ipc.new_file(str(folder / "seed.arrow"), arrow.schema) as writer:
        writer.write_table(arrow)
    return {
        "p.csv": plain,
        "p.tsv": plain.replace(b",", b"\t"),
        "p.csv.gz": gzip.compress(plain, mtime=0),
        "p.parquet": bytes(file.getvalue()),
        "p.arrow": (folder / "seed.arrow").read_bytes(),
        "p.ipc": bytes(stream.getvalue()),
    }


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.csv.gz", "p.parquet", "p.arrow", "p.ipc"])
def test_files_with_any_bytes_changed_are_read_or_refused(
    name: str, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    whole = seeds(folder)[name]
    (folder / "schema.yaml").write_text(yaml.safe_dump(ONE))
    (folder / "p").mkdir()
    changes = st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=4)

    @settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(changes=changes, end=st.one_of(st.none(), st.integers(0, len(whole))))
    def try_all(changes: list[tuple[int, int]], end: int | None) -> None:
        broken = bytearray(whole)
        for at, byte in changes:
            broken[at] = byte
        (folder / "p" / name).write_bytes(bytes(broken[:end]))
        capfd.readouterr()
        out = folder / "out"
        code = main(["convert", str(folder / "p" / name), "--schema", str(folder / "schema.yaml"), "-o", str(out)])
        told = "".join(capfd.readouterr())
        assert code in {0, 3}, told
        assert told.count("\n") == 1
        assert out.exists() == (code == 0)
        if code == 0:
            for file in out.iterdir():
                file.unlink()
            out.rmdir()
        assert sorted(path.name for path in folder.iterdir()) == ["p", "schema.yaml", "seed.arrow"]

    try_all()
