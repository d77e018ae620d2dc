"""Who opted out is left out with all that hangs from them, before their records are looked at."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from synthehr.connectors.base import conform_tables
from synthehr.connectors.optout import Admission, read_opt_out
from synthehr.connectors.records import read
from synthehr.errors import ConfigError, DataError
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema


def schema(consent: dict | None = None, *, key: bool = True) -> Schema:
    columns = {"id": {"kind": "id"}, "age": {"kind": "integer", "bounds": [0, 120]}}
    if consent is not None:
        columns["research"] = {"kind": "consent", **consent}
    return load_schema(
        {
            "synthehr": 1,
            "subject": "patient",
            "tables": {
                "patient": {"key": "id", "columns": columns} if key else {"columns": columns},
                **(
                    {
                        "visit": {
                            "key": "vid",
                            "parent": "patient",
                            "foreign_key": "pid",
                            "columns": {"vid": {"kind": "id"}, "pid": {"kind": "id"}, "n": {"kind": "integer"}},
                        },
                        "lab": {
                            "parent": "visit",
                            "foreign_key": "vid",
                            "columns": {"vid": {"kind": "id"}, "value": {"kind": "number"}},
                        },
                    }
                    if key
                    else {}
                ),
            },
        }
    )


def tables(research: list[object] | None = None) -> dict[str, pl.DataFrame]:
    patient = pl.DataFrame({"id": ["1", "2", "3"], "age": ["30", "40", "50"]})
    if research is not None:
        patient = patient.with_columns(pl.Series("research", research))
    return {
        "patient": patient,
        "visit": pl.DataFrame({"vid": ["a", "b", "c", "d"], "pid": ["1", "2", "2", "3"], "n": ["1", "2", "3", "4"]}),
        "lab": pl.DataFrame({"vid": ["d", "c", "a", "b", "c"], "value": ["1", "2", "3", "4", "5"]}),
    }


def ids(cohort: object) -> list[list[object]]:
    found = cohort.tables  # type: ignore[attr-defined]
    return [found["patient"]["id"].to_list(), found["visit"]["vid"].to_list(), found["lab"]["value"].to_list()]


def test_a_listed_patient_is_gone_from_every_table_and_counted() -> None:
    admission = Admission(opted_out=frozenset({"2", "elsewhere"}))
    cohort = conform_tables(tables(), schema=schema(), admission=admission)
    assert ids(cohort) == [["1", "3"], ["a", "d"], [1.0, 3.0]]
    assert admission.left_out == {"list": 1}


def test_records_of_who_opted_out_are_not_looked_at() -> None:
    broken = tables()
    broken["patient"] = broken["patient"].with_columns(pl.Series("age", ["30", "canary", "50"]))
    broken["lab"] = broken["lab"].with_columns(pl.Series("value", ["1", "canary", "3", "canary", "canary"]))
    with pytest.raises(DataError):
        conform_tables(broken, schema=schema())
    conform_tables(broken, schema=schema(), admission=Admission(opted_out=frozenset({"2"})))


@pytest.mark.parametrize(
    ("rule", "cells", "stay"),
    [
        ({"opt_out": ["refused"]}, ["agreed", " Refused ", ""], ["1", "3"]),
        ({"opt_out": [False]}, ["yes", "NO", "0"], ["1"]),  # YAML reads a bare no as false
        ({"opt_out": [False]}, [True, False, None], ["1", "3"]),
        ({"opt_in": ["agreed"]}, ["agreed", "unknown", None], ["1"]),
        ({"opt_in": [True]}, [1.0, 0.0, None], ["1"]),
        ({"opt_in": [1]}, ["1", "2", "1"], ["1", "3"]),
    ],
)
def test_a_consent_column_says_who_stays(rule: dict, cells: list[object], stay: list[str]) -> None:
    admission = Admission()
    cohort = conform_tables(tables(cells), schema=schema(rule), admission=admission)
    assert ids(cohort)[0] == stay
    assert admission.left_out == {"column research": 3 - len(stay)}
    assert "research" not in cohort.schema.root.kept


def test_a_patient_by_list_and_by_column_is_counted_once() -> None:
    admission = Admission(opted_out=frozenset({"1", "2"}))
    conform_tables(tables(["no", "no", "yes"]), schema=schema({"opt_out": ["no"]}), admission=admission)
    assert admission.left_out == {"list": 2, "column research": 0}


def test_one_row_that_says_no_keeps_the_patient_out_where_rows_repeat() -> None:
    columns = {"id": {"kind": "id"}, "sex": {"kind": "category"}, "ok": {"kind": "consent", "opt_out": ["no"]}}
    declared = load_schema(
        {
            "synthehr": 1,
            "subject": "p",
            "tables": {
                "p": {"key": "id", "source": "all", "columns": columns},
                "all": {
                    "parent": "p",
                    "foreign_key": "id",
                    "columns": {"id": {"kind": "id"}, "n": {"kind": "integer"}},
                },
            },
        }
    )
    rows = pl.DataFrame({"id": ["1", "1", "2"], "sex": ["f", "f", "m"], "ok": ["yes", "no", "yes"]})
    below = pl.DataFrame({"id": ["1", "1", "2"], "n": [1, 2, 3]})
    admission = Admission()
    cohort = conform_tables({"p": rows, "all": below}, schema=declared, admission=admission)
    assert cohort.root["id"].to_list() == ["2"]
    assert cohort.tables["all"]["n"].to_list() == [3]
    assert admission.left_out == {"column ok": 1}


def test_a_consent_column_that_is_not_there_is_refused_but_for_synthetic_patients() -> None:
    declared = schema({"opt_out": ["no"]})
    with pytest.raises(DataError, match="'research' is declared for table 'patient' but is not in the data"):
        conform_tables(tables(), schema=declared)
    assert len(conform_tables(tables(), schema=declared, lenient=True)) == 3


def test_synthetic_patients_are_never_left_out() -> None:
    cohort = conform_tables(tables(["no"] * 3), schema=schema({"opt_out": ["no"]}), lenient=True)
    assert len(cohort) == 3


def test_nobody_left_is_told() -> None:
    with pytest.raises(DataError, match="no patient is left"):
        conform_tables(tables(["no"] * 3), schema=schema({"opt_out": ["no"]}))


def test_an_orphan_is_still_an_error_and_not_left_out() -> None:
    broken = tables()
    broken["visit"] = broken["visit"].with_columns(pl.Series("pid", ["1", "2", "2", "9"]))
    with pytest.raises(DataError, match="foreign key 'pid'"):
        conform_tables(broken, schema=schema(), admission=Admission(opted_out=frozenset({"2"})))


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("1\n2\n", {"1", "2"}),
        ("\ufeffid\r\n1\r\n\r\n 2 \r\n", {"1", "2"}),
        ('name,id\nAnn,1\n"Bo, Jr",2\n', {"1", "2"}),
        ("id\n007\n", {"007"}),
    ],
)
def test_lists_of_keys(tmp_path: Path, text: str, keys: set[str]) -> None:
    file = tmp_path / "out.txt"
    file.write_bytes(text.encode())
    assert read_opt_out(file, key="id") == keys


@pytest.mark.parametrize("text", ["", "\n\n", "id\n", "a,b\n1,2\n", "id\n1\n2,3\n", 'id\n"1\n', b"\xff\xfe1"])
def test_a_list_that_is_none_is_refused_and_not_taken_for_empty(tmp_path: Path, text: str | bytes) -> None:
    file = tmp_path / "out.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match="opted out"):
        read_opt_out(file, key="id")


def test_a_list_needs_a_file_and_a_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_opt_out(tmp_path / "none", key="id")
    with pytest.raises(ConfigError, match="needs a key"):
        read_opt_out(tmp_path / "none", key=None)


def test_the_list_reaches_reading(tmp_path: Path) -> None:
    for name, frame in tables().items():
        frame.write_csv(tmp_path / f"{name}.csv")
    (tmp_path / "out.txt").write_text("3\n")
    assert ids(read(tmp_path, schema=schema(), opt_out=tmp_path / "out.txt"))[0] == ["1", "2"]
