"""Arrow in its forms, and columns that are passed over."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, ipc

from synthehr.connectors.columnar import column_names, read_batches, read_columnar
from synthehr.errors import DataError

TABLE = pa.table(
    {
        "id": ["a", "b", "c"],
        "sex": pa.array(["f", None, "f"]).dictionary_encode(),
        "name.full": ["SECRET", "SECRET", "SECRET"],
        "name": ["SECRET", "SECRET", "SECRET"],
    }
)


def parquet(path: Path) -> None:
    pq.write_table(TABLE, path, row_group_size=2)


def file(path: Path) -> None:
    with ipc.new_file(str(path), TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)


def stream(path: Path) -> None:
    with ipc.new_stream(str(path), TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)


def packed(path: Path) -> None:
    feather.write_feather(TABLE, str(path), compression="lz4")


FORMS = {"a.parquet": parquet, "a.arrow": file, "b.arrow": stream, "a.ipc": file, "a.feather": packed, "A.IPC": stream}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read_alike_without_what_is_passed_over(name: str, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name)
    frame = read_columnar(tmp_path / name, skip={"name", "name.full"})
    assert frame.columns == ["id", "sex"]
    assert frame.select(pl.all().cast(pl.String)).rows() == [("a", "f"), ("b", None), ("c", "f")]
    assert column_names(tmp_path / name) == ["id", "sex", "name.full", "name"]
    assert read_columnar(tmp_path / name, skip={"name"}).columns == ["id", "sex", "name.full"]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "b.arrow"])
def test_rows_come_in_order_and_in_parts(name: str, tmp_path: Path) -> None:
    FORMS[name](tmp_path / name)
    parts = list(read_batches(tmp_path / name, skip={"sex"}, rows=1))
    assert max(part.height for part in parts) == 1
    assert pl.concat(parts)["id"].to_list() == ["a", "b", "c"]


def test_words_about_a_table_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    with_words = TABLE.replace_schema_metadata({b"k": b"\xff\xfe"})
    pq.write_table(with_words, tmp_path / "a.parquet")
    assert read_columnar(tmp_path / "a.parquet", skip=set()).height == 3


def test_a_table_without_rows_is_one_only_where_it_may_be(tmp_path: Path) -> None:
    pq.write_table(TABLE.slice(0, 0), tmp_path / "a.parquet")
    assert read_columnar(tmp_path / "a.parquet", skip=set(), may_be_empty=True).columns == TABLE.column_names
    with pytest.raises(DataError, match="has no rows"):
        read_columnar(tmp_path / "a.parquet", skip=set())
