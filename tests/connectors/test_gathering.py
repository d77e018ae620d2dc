"""One file may hold the patients and their visits: the patients are gathered by key."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from synthehr.connectors.records import read
from synthehr.errors import DataError, SchemaError
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema


def schema(**patient: object) -> Schema:
    columns = {"pid": {"kind": "id"}, "sex": {"kind": "category", "values": ["f", "m"], "nullable": True}}
    return load_schema(
        {
            "synthehr": 1,
            "subject": "person",
            "tables": {
                "person": {"source": "visits", "key": "pid", "columns": columns, **patient},
                "visits": {
                    "parent": "person",
                    "foreign_key": "pid",
                    "columns": {"pid": {"kind": "id"}, "day": {"kind": "integer"}, "note": {"kind": "text"}},
                },
            },
        }
    )


ROWS = {"pid": ["b", "a", "b"], "sex": ["f", "", "f"], "day": ["1", "2", "3"], "note": ["x", "y", "z"]}


def written(folder: Path, **changed: list[str]) -> Path:
    pl.DataFrame({**ROWS, **changed}).write_csv(folder / "visits.csv")
    return folder


@pytest.mark.parametrize("whole_folder", [True, False])
def test_patients_come_once_in_the_order_of_their_keys_and_rows_stay(tmp_path: Path, whole_folder: bool) -> None:
    folder = written(tmp_path)
    cohort = read(folder if whole_folder else folder / "visits.csv", schema=schema())
    assert cohort.root.to_dict(as_series=False) == {"pid": ["b", "a"], "sex": ["f", None]}
    assert cohort.tables["visits"].to_dict(as_series=False) == {"pid": ["b", "a", "b"], "day": [1, 2, 3]}


@pytest.mark.parametrize("form", ["a frame", "by source", "by table"])
def test_tables_in_memory_are_gathered_too(form: str) -> None:
    rows = pl.DataFrame(ROWS)
    given = {
        "a frame": rows,
        "by source": {"visits": rows.to_pandas()},
        "by table": {"person": rows.select("pid", "sex"), "visits": rows.drop("sex")},
    }[form]
    cohort = read(given, schema=schema())
    assert cohort.root.rows() == [("b", "f"), ("a", None)]
    assert cohort.tables["visits"]["day"].to_list() == [1, 2, 3]


def test_what_differs_within_a_patient_is_told_by_row_and_not_by_value(tmp_path: Path) -> None:
    with pytest.raises(DataError) as told:
        read(written(tmp_path, sex=["f", "m", "m"]), schema=schema())
    assert "column 'sex' in table 'person', row 3: differs from an earlier row of the same 'pid'" in str(told.value)


def test_a_row_without_a_key_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'pid' in table 'person', row 2: is missing"):
        read(written(tmp_path, pid=["b", "", "b"]), schema=schema())


def test_a_column_that_no_table_declares_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'zip' in table '(person|visits)' is not declared"):
        read(written(tmp_path, zip=["1", "2", "3"]), schema=schema())


def test_tables_of_our_own_are_read_by_their_names(tmp_path: Path) -> None:
    cohort = read(written(tmp_path), schema=schema())
    for name, frame in cohort.tables.items():
        (tmp_path / "own").mkdir(exist_ok=True)
        frame.write_parquet(tmp_path / "own" / f"{name}.parquet")
    again = read(tmp_path / "own", schema=schema())
    assert all(again.tables[name].equals(frame) for name, frame in cohort.tables.items())


@pytest.mark.parametrize("source", ["../visits", "/etc/visits", "a//b", "a/../b", "", "a b", "c:/x"])
def test_a_source_cannot_leave_its_folder(source: str) -> None:
    with pytest.raises(SchemaError, match="source"):
        schema(source=source)


def test_patients_that_are_gathered_need_a_key() -> None:
    with pytest.raises(SchemaError, match="needs a key"):
        schema(key=None)
