from __future__ import annotations

import gzip
import time
from pathlib import Path

import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.connectors.base import read
from synthehr.connectors.columnar import column_names
from synthehr.connectors.files import TableFiles, TableWriter, read_table
from synthehr.errors import ConfigError, DataError
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "patient": {
                "key": "id",
                "columns": {
                    "id": {"kind": "id"},
                    "name": {"kind": "identifier"},
                    "age": {"kind": "integer", "bounds": [0, 120]},
                    "sex": {"kind": "category", "values": ["f", "m"], "nullable": True},
                },
            }
        },
    }
)
ONE_COLUMN = load_schema(
    {
        "synthehr": 1,
        "subject": "p",
        "tables": {"p": {"columns": {"age": {"kind": "integer", "nullable": True}}}},
    }
)
TEXT = 'id,name,age,sex\n007,"Ann, ""A""\nB",30,f\n8,Bo,40,\n'


def written(folder: Path, content: str | bytes, name: str = "patient.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_is_read_as_text_without_identifiers(tmp_path: Path) -> None:
    tables = TableFiles().tables(written(tmp_path, TEXT), schema=SCHEMA)
    assert tables["patient"].to_dict(as_series=False) == {
        "id": ["007", "8"],
        "age": ["30", "40"],
        "sex": ["f", ""],
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"\xef\xbb\xbf" + TEXT.encode()),  # a byte order mark
        ("a.csv", TEXT.replace("\n", "\r\n").encode()),
        ("a.csv", TEXT.encode() + b"\n\n"),  # blank lines at the end
        ("a.csv", TEXT.rstrip("\n").encode()),
        ("a.csv.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("a.tsv", TEXT.replace("Ann, ", "Ann ").replace(",", "\t").encode()),
        ("A.CSV", TEXT.encode()),
        ("a.csv", TEXT.replace("Ann, ", "Ann ").replace(",", ";").encode()),
        ("a.csv", TEXT.replace("Ann, ", "Ann ").replace(",", "\t").encode()),
        ("a.csv", TEXT.replace("Ann, ", "Ann ").replace(",", "|").encode()),
        ("a.csv", TEXT.encode("utf-16")),
        ("a.csv", TEXT.encode("utf-16-be")),
        ("a.csv.gz", gzip.compress(TEXT.replace(",", ";").encode("utf-16-le"), mtime=0)),
    ],
)
def test_csv_is_read_in_its_usual_dresses(tmp_path: Path, name: str, content: bytes) -> None:
    cohort = read(TableFiles(), written(tmp_path, content, name), schema=SCHEMA)
    assert cohort.root.to_dict(as_series=False) == {"id": ["007", "8"], "age": [30, 40], "sex": ["f", None]}


def test_a_blank_line_in_a_file_of_one_column_is_a_missing_value(tmp_path: Path) -> None:
    cohort = read(TableFiles(), written(tmp_path, "age\n1\n\n2\n\n"), schema=ONE_COLUMN)
    assert cohort.root["age"].to_list() == [1, None, 2]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty or its first line is blank"),
        (b"id,name,age,sex\n", "has a header but no rows"),
        (b"id,age,age,sex\n7,7,7,f\n", "'age' stands twice"),
        (b"id,name,age,sex,\n7,7,7,f,\n", "column 5 of the header has no name"),
        (b"id,name,age,sex\n1,a,3,f\n7777,a,3\n", "row 2: has 3 cells where the header has 4"),
        (b"id,name,age,sex\n1,a,3,f,7777\n", "row 1: has 5 cells where the header has 4"),
        (b"id,name,age,sex\n1,a,3,f\n\n2,a,3,f\n", "row 2: is a blank line"),
        (b"id,name,age,sex\n1,7777\x81,3,f\n", "is text in no known encoding"),
        (
            "id,name,age,sex\n1,7777é,3,f\n".encode() + b"2,\xe97777,3,f\n",
            "is UTF-8 text with bytes in it that are not",
        ),
        ("id,name,age,sex\n1,7777,3,f\n".encode("utf-16")[:-1], "is text in no known encoding"),
        (b"id,name,age,sex\n1,7777\x00,3,f\n", "line 2: holds a NUL byte"),
        (b'id,name,age,sex\n1,"7777,3,f\n', "not well-formed CSV"),
        (b'id,name,age,sex\n1,"7777"x,3,f\n', "not well-formed CSV"),
    ],
)
def test_a_broken_csv_is_told_by_rule_and_row_never_by_value(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(DataError) as told:
        TableFiles().tables(written(tmp_path, content), schema=SCHEMA)
    assert what in str(told.value)
    assert "777" not in str(told.value)
    assert told.value.__cause__ is None  # a parser's own text may quote a record


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.csv.gz", gzip.compress(TEXT.encode(), mtime=0)[:-20], "truncated or damaged gzip"),
        ("a.csv.gz", TEXT.encode(), "truncated or damaged gzip"),
        ("a.parquet", TEXT.encode(), "no readable Parquet"),
        ("a.parquet", b"PAR1", "no readable Parquet"),
        ("a.xlsx", b"", "unknown kind"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_told(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        TableFiles().tables(written(tmp_path, content, name), schema=SCHEMA)


def test_a_missing_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        TableFiles().tables(tmp_path / "none.csv", schema=SCHEMA)


def test_a_folder_holds_one_file_for_each_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file for table 'patient'"):
        TableFiles().tables(tmp_path, schema=SCHEMA)
    written(tmp_path, TEXT)
    assert len(read(TableFiles(), tmp_path, schema=SCHEMA)) == 2
    written(tmp_path, TEXT, "patient.tsv")
    with pytest.raises(DataError, match="2 files for table 'patient'"):
        TableFiles().tables(tmp_path, schema=SCHEMA)


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort[Schema]:
    return read(TableFiles(), written(tmp_path, TEXT), schema=SCHEMA)


@pytest.mark.parametrize("format", ["parquet", "csv", "tsv", "arrow"])
def test_what_is_written_is_read_back_the_same_and_equal_tables_give_equal_bytes(
    tmp_path: Path, cohort: Cohort[Schema], format: str
) -> None:
    for out in ("one", "two"):
        TableFiles().write(cohort, tmp_path / out, format=format)
    again = read(TableFiles(), tmp_path / "one", schema=SCHEMA)
    assert again.root.equals(cohort.root)
    name = f"patient.{format}"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    # The same rows in other chunks are the same table.
    chunks = pl.concat([cohort.root.head(1), cohort.root.tail(1)], rechunk=False)
    TableFiles().write(Cohort({"patient": chunks}, schema=SCHEMA), tmp_path / "three", format=format)
    assert (tmp_path / "three" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_format_that_is_not_known_leaves_nothing_behind(tmp_path: Path, cohort: Cohort[Schema]) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="format must be one of"):
        TableFiles().write(cohort, tmp_path / "out", format="xlsx")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("format", ["parquet", "csv", "tsv", "arrow"])
def test_however_a_table_is_cut_into_parts_its_file_has_the_same_bytes(tmp_path: Path, format: str) -> None:
    rows = 300_000
    at = pl.int_range(rows, eager=True)
    table = pl.DataFrame(
        {
            "id": at.cast(pl.String),
            "age": at % 90,
            "weight": (at % 7).cast(pl.Float64) / 4,
            "died": at % 3 == 0,
            "seen": (at * 60_000_000).cast(pl.Datetime("us")),
            "sex": pl.select(pl.when(at % 5 > 0).then(pl.lit("f"))).to_series(),
        }
    )
    for name, size in (("one", rows), ("even", 32_768), ("odd", 131_073)):
        (tmp_path / name).mkdir()
        with TableWriter(tmp_path / name, "patient", format=format) as writer:
            for start in range(0, rows, size):
                writer.write(table[start : start + size])
    files = [(tmp_path / name / f"patient.{format}").read_bytes() for name in ("one", "even", "odd")]
    assert files[0] == files[1] == files[2]
    path = tmp_path / "odd" / f"patient.{format}"
    if format in ("csv", "tsv"):
        back = pl.read_csv(path, schema=table.schema, separator="\t" if format == "tsv" else ",")
    else:
        back = read_table(path)
    assert back.equals(table)


@pytest.mark.parametrize("format", ["parquet", "csv", "tsv", "arrow"])
def test_a_table_without_rows_is_a_file_with_its_columns(tmp_path: Path, format: str) -> None:
    with TableWriter(tmp_path, "patient", format=format) as writer:
        writer.write(pl.DataFrame(schema={"id": pl.String, "age": pl.Int64}))
    path = tmp_path / f"patient.{format}"
    mark = {"csv": ",", "tsv": "\t"}.get(format)
    names = path.read_text().rstrip("\n").split(mark) if mark is not None else column_names(path)
    assert names == ["id", "age"]


def test_a_hundred_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    path = written(tmp_path, "id,name,age,sex\n" + "".join(f"{at},n,{at % 100},f\n" for at in range(100_000)))
    start = time.perf_counter()
    assert len(read(TableFiles(), path, schema=SCHEMA)) == 100_000
    assert time.perf_counter() - start < 10.0
