"""Tables that go through batch by batch come out as those that are held, and are checked alike."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import polars as pl
import pytest
from conformance import SCHEMA, made_cohort

from synthehr.connectors import columnar, delimited
from synthehr.connectors.conversion import convert
from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.connectors.files import TableFiles, write_tables
from synthehr.connectors.records import read
from synthehr.connectors.streaming import can_stream, stream_tables
from synthehr.errors import DataError
from synthehr.schema.files import load_schema


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source in Parquet; batches are of five rows."""
    monkeypatch.setitem(columnar.read_batches.__kwdefaults__, "rows", 5)
    TableFiles().write(made_cohort(), tmp_path / "records", format="parquet")
    (tmp_path / "out").mkdir()
    return tmp_path


@pytest.mark.parametrize("format", ["parquet", "csv", "arrow"])
def test_what_is_streamed_has_the_bytes_of_what_is_held(format: str, folder: Path) -> None:
    rows = stream_tables(folder / "records", folder / "out", schema=SCHEMA, format=format)
    (folder / "held").mkdir()
    write_tables(read(folder / "records", schema=SCHEMA), folder / "held", format=format)
    assert rows == {"patient": 12, "visit": 8, "lab": 5}
    for name in rows:
        out = folder / "out" / f"{name}.{format}"
        assert out.read_bytes() == (folder / "held" / f"{name}.{format}").read_bytes()


def changed(folder: Path, table: str, column: str, row: int, value: str | None) -> None:
    path = folder / "records" / f"{table}.parquet"
    frame = pl.read_parquet(path)
    cells = frame[column].to_list()
    cells[row] = value
    frame.with_columns(pl.Series(column, cells, dtype=pl.String)).write_parquet(path)


@pytest.mark.parametrize(
    ("table", "column", "row", "value"),
    [
        ("patient", "sex", 11, "unknown"),
        ("patient", "patient id", 11, "001"),
        ("patient", "patient id", 7, None),
        ("visit", "patient_id", 6, "nobody"),
        ("visit", "patient_id", 7, None),
        ("visit", "visit_id", 7, "v0"),
        ("lab", "visit", 4, "v99"),
    ],
)
def test_what_is_wrong_is_told_alike(table: str, column: str, row: int, value: str | None, folder: Path) -> None:
    changed(folder, table, column, row, value)
    with pytest.raises(DataError) as held:
        read(folder / "records", schema=SCHEMA)
    with pytest.raises(DataError) as streamed:
        stream_tables(folder / "records", folder / "out", schema=SCHEMA, format="parquet")
    assert str(streamed.value) == str(held.value)


def test_a_table_without_rows_is_refused_as_the_root_alone(folder: Path) -> None:
    path = folder / "records" / "lab.parquet"
    pl.read_parquet(path).clear().write_parquet(path)
    assert stream_tables(folder / "records", folder / "out", schema=SCHEMA, format="parquet")["lab"] == 0
    assert pl.read_parquet(folder / "out" / "lab.parquet").columns == ["visit", "select", "value"]
    for table in ("visit", "patient"):
        path = folder / "records" / f"{table}.parquet"
        pl.read_parquet(path).clear().write_parquet(path)
    with pytest.raises(DataError, match="'patient' has no rows"):
        stream_tables(folder / "records", folder / "out", schema=SCHEMA, format="parquet")


def test_conversion_streams_and_holds_to_the_same_end(folder: Path) -> None:
    convert(folder / "records", out=folder / "streamed", schema=SCHEMA)
    policy = BadRowPolicy(mode="drop")
    convert(folder / "records", out=folder / "held", schema=SCHEMA, on_bad=policy)
    for name in SCHEMA.tables:
        one, two = (pl.read_parquet(folder / kind / f"{name}.parquet") for kind in ("streamed", "held"))
        assert one.equals(two)


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(delimited.delimited_batches.__kwdefaults__, "rows", 1000)
    schema = load_schema(
        {"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"a": {"kind": "integer"}, "b": {"kind": "id"}}}}}
    )

    def most(rows: int) -> int:
        folder, out = tmp_path / f"in{rows}", tmp_path / f"out{rows}"
        folder.mkdir()
        out.mkdir()
        (folder / "p.csv").write_text("a,b\n" + "".join(f"{at},{at}\n" for at in range(rows)))
        tracemalloc.start()
        stream_tables(folder, out, schema=schema, format="csv")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    most(1000)  # what is loaded once
    assert most(20_000) < 1.5 * most(4000)


def test_rows_that_need_others_are_not_streamed() -> None:
    assert can_stream(SCHEMA)
    offsets = {"a": {"kind": "offset"}}
    assert not can_stream(load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": offsets}}}))
