"""How files of separated values are written is found, and what cannot be found is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from synthehr.connectors.delimited import read_delimited
from synthehr.connectors.dialect import Dialect, find_dialect
from synthehr.connectors.files import TableFiles, read_table
from synthehr.connectors.records import read
from synthehr.errors import DataError
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema


def written(folder: Path, content: bytes, name: str = "a.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("known", [(), ("one", "two")])
def test_the_separator_is_found_with_and_without_the_names(
    separator: str, known: tuple[str, ...], tmp_path: Path
) -> None:
    rows = [["one", "two"], ["1,5", "a;b"], ["2", "c|d"]]
    text = "\n".join(separator.join(f'"{cell}"' for cell in row) for row in rows)
    assert find_dialect(written(tmp_path, text.encode()), known=known).separator == separator


def test_a_header_of_known_names_outweighs_what_cells_look_like(tmp_path: Path) -> None:
    # Cut at commas, every line has two cells as well; the names say that it is not meant so.
    content = b"one,more;two\n1,5;2\n3,5;4\n"
    assert find_dialect(written(tmp_path, content)).separator == ","
    assert find_dialect(written(tmp_path, content), known=("two",)).separator == ";"


def test_decimal_commas_do_not_make_commas_separators(tmp_path: Path) -> None:
    assert find_dialect(written(tmp_path, b"a;b\n1;2,5\n2;3,5\n")).separator == ";"


def test_a_tsv_is_separated_by_tabs_whatever_stands_in_it(tmp_path: Path) -> None:
    path = written(tmp_path, gzip.compress(b"a,b\n1,2\n"), "a.TSV.gz")
    assert find_dialect(path, known=("a", "b")).separator == "\t"


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("utf-32", "utf-32"),
        ("latin-1", "cp1252"),
        ("cp1252", "cp1252"),
    ],
)
def test_the_encoding_is_found_by_all_bytes(encoding: str, found: str, tmp_path: Path) -> None:
    filler = "name,id\n" + ("A" * 999 + ",1\n") * 1500  # the one letter that tells stands behind the first megabyte
    path = written(tmp_path, (filler + "Zoë Müller,2\n").encode(encoding))
    assert find_dialect(path) == Dialect(found, ",")
    assert read_delimited(path).row(-1) == ("Zoë Müller", "2")


def test_a_letter_cut_by_the_edge_of_a_chunk_is_still_utf_8(tmp_path: Path) -> None:
    content = b"a\n" + b"x" * ((1 << 20) - 3) + "é\n".encode()  # its two bytes lie on both sides of 1 MiB
    assert content[(1 << 20) - 1 : (1 << 20) + 1] == "é".encode()
    assert find_dialect(written(tmp_path, content)).encoding == "utf-8"


def test_typographic_signs_of_windows_are_read_as_such(tmp_path: Path) -> None:
    assert read_delimited(written(tmp_path, b"a,b\n\x80 5,\x93x\x94\n")).row(0) == ("€ 5", "\u201cx\u201d")


def test_a_utf_8_file_with_a_broken_byte_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is UTF-8 text with bytes in it that are not"):
        find_dialect(written(tmp_path, "a,b\né,\n".encode() + b"\xe9,1\n"))


def test_what_was_found_is_told_to_the_custodian(tmp_path: Path) -> None:
    schema = load_schema(
        {"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"a": {"kind": "integer"}, "b": {"kind": "id"}}}}}
    )
    notes: dict[str, object] = {}
    TableFiles(notes=notes).tables(written(tmp_path, b"a;b\n1;\xe9\n", "p.csv"), schema=schema)
    assert notes == {"text files": {"p.csv": {"encoding": "cp1252", "separator": ";"}}}


def numbers(decimal: str, thousands: str | None) -> Schema:
    form = {"decimal": decimal, "thousands": thousands}
    kinds = {"n": {"kind": "number", "nullable": True, "format": form}, "w": {"kind": "integer", "format": form}}
    return load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": kinds}}})


@pytest.mark.parametrize(
    ("decimal", "thousands", "number", "whole"),
    [
        (",", ".", "1.234.567,5", "1.234"),
        (",", ".", "-1234567,5", "1234"),
        (".", ",", "+1,234,567.5", "1,234"),
        (",", " ", "1\u202f234\u00a0567,5", "1 234"),
        (".", "'", "1\u2019234'567.5", "1'234"),
        (",", None, "1234567,5", "1234"),
        (",", ".", "1,2345675E6", "1.234,0"),
        (",", ".", ",5", "7"),
    ],
)
def test_numbers_are_read_with_the_signs_that_are_declared(
    decimal: str, thousands: str | None, number: str, whole: str
) -> None:
    frame = pl.DataFrame({"n": [number, "NA"], "w": [whole, whole]})
    root = read(frame, schema=numbers(decimal, thousands)).root
    by_hand = {",5": 0.5, "-1234567,5": -1_234_567.5}.get(number, 1_234_567.5)
    assert root["n"].to_list() == [by_hand, None]
    assert root["w"][0] == (7 if whole == "7" else 1234)


@pytest.mark.parametrize(
    ("decimal", "thousands", "number"),
    [
        (",", ".", "1.5"),
        (",", ".", "12.34,5"),
        (",", ".", "1.2345"),
        (",", ".", ".123"),
        (",", ".", "1,234.5"),
        (",", None, "1.234,5"),
        (".", ",", "1,5"),
        (",", " ", "1 23"),
        (",", ".", "1..234"),
        (",", ".", "0x10"),
        (",", ".", "inf"),
    ],
)
def test_numbers_written_otherwise_are_refused_not_guessed(decimal: str, thousands: str | None, number: str) -> None:
    frame = pl.DataFrame({"n": [number], "w": ["1"]})
    with pytest.raises(DataError, match=r"column 'n' in table 'p', row 1: is not a finite number in the declared"):
        read(frame, schema=numbers(decimal, thousands))


@pytest.mark.parametrize("format", ["csv", "tsv", "parquet", "arrow"])
def test_numbers_with_declared_signs_are_written_so_that_the_schema_reads_them_again(
    format: str, tmp_path: Path
) -> None:
    schema = numbers(",", ".")
    values = [1.5, -1e300, 1234.567, 1.234, None, 3.0]
    cohort = read(pl.DataFrame({"n": values, "w": [0, -1, 12345, 7, 8, 9]}), schema=schema)
    TableFiles().write(cohort, tmp_path / "out", format=format)
    assert read(tmp_path / "out", schema=schema).root.equals(cohort.root)


def test_one_sign_for_two_things_is_refused() -> None:
    with pytest.raises(ValueError, match="must be two signs"):
        numbers(",", ",")


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "arrow"])
def test_a_table_can_be_read_before_there_is_a_schema(ending: str, tmp_path: Path) -> None:
    schema = load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"a": {"kind": "integer"}}}}})
    TableFiles().write(read(pl.DataFrame({"a": [1, 2]}), schema=schema), tmp_path / "out", format=ending)
    found = read_table(tmp_path / "out" / f"p.{ending}")
    assert found["a"].cast(pl.Int64).to_list() == [1, 2]
