"""Rows that break the schema: refused, dropped or put aside, without a value in any message."""

from __future__ import annotations

import datetime as dt
import stat
from pathlib import Path

import polars as pl
import pytest

from synthehr.connectors import records
from synthehr.connectors.badrows import LeftOut
from synthehr.connectors.fhir.badlines import BadRowPolicy
from synthehr.connectors.optout import Admission
from synthehr.errors import DataError
from synthehr.schema.files import load_schema

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
            },
            "visit": {
                "key": "visit",
                "parent": "patient",
                "foreign_key": "id",
                "columns": {
                    "visit": {"kind": "id"},
                    "id": {"kind": "id"},
                    "cost": {"kind": "number", "format": {"decimal": ",", "thousands": "."}, "nullable": True},
                },
            },
            "lab": {
                "parent": "visit",
                "foreign_key": "visit",
                "columns": {"visit": {"kind": "id"}, "high": {"kind": "boolean"}},
            },
        },
        "rules": ["patient.age != 99"],
    }
)
PATIENTS = """id;name;age;sex
p1;SECRET;30;f
p2;SECRET;777;f
p3;SECRET;31;SECRET
p4;SECRET;thirty;m
p5;SECRET;32
p6;SECRET;99;m

p7;SECRET;33;m
p8;SECRET;34;m
p8;SECRET;35;m
;SECRET;36;m
"""
VISITS = "visit;id;cost\nv1;p1;1.234,5\nv2;p2;1\nv3;p7;1.2,3\nv4;nobody;1\nv5;p7;\nv6;p8;2\n"
LABS = "visit,high\nv1,yes\nv1,perhaps\nv2,no\nv3,no\nv5,no\n"
ANY = BadRowPolicy(mode="quarantine", most=1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "records"
    path.mkdir()
    for name, text in (("patient", PATIENTS), ("visit", VISITS), ("lab", LABS)):
        (path / f"{name}.csv").write_text(text)
    return path


def read(folder: Path, policy: BadRowPolicy = ANY) -> tuple[dict[str, pl.DataFrame], LeftOut]:
    told: list[LeftOut] = []
    cohort = records.read(folder, schema=SCHEMA, on_bad=policy, on_left_out=told.append)
    (left_out,) = told
    return cohort.tables, left_out


def test_bad_rows_go_with_all_that_hangs_from_them(folder: Path) -> None:
    tables, _ = read(folder)
    assert tables["patient"].rows() == [("p1", 30, "f"), ("p7", 33, "m")]
    assert tables["visit"].rows() == [("v1", "p1", 1234.5), ("v5", "p7", None)]
    assert tables["lab"].rows() == [("v1", True), ("v5", False)]


def test_each_is_listed_once_by_table_row_column_and_rule_without_a_value(folder: Path) -> None:
    _, left_out = read(folder)
    listed = {(table, row): (column, rule.partition(":")[0]) for table, row, column, rule in left_out.listed.rows()}
    assert len(listed) == left_out.listed.height
    orphan = "belongs to a row that was left out"
    assert listed == {
        ("patient", 2): ("age", "lies outside the declared bounds [0, 120]"),
        ("patient", 3): ("sex", "is none of the declared values"),
        ("patient", 4): ("age", "is not a whole number"),
        ("patient", 5): (None, "has 3 cells where the header has 4"),
        ("patient", 6): (None, "breaks the declared rule 'patient.age != 99'"),
        ("patient", 7): (None, "is a blank line"),
        ("patient", 9): ("id", "is a key and stands in several rows"),
        ("patient", 10): ("id", "is a key and stands in several rows"),
        ("patient", 11): ("id", "is a key and is missing"),
        ("visit", 2): ("id", orphan),
        ("visit", 3): ("cost", "is not a finite number in the declared format (decimal ',', thousands '.')"),
        ("visit", 4): ("id", "is no key of table 'patient'"),
        ("visit", 6): ("id", orphan),
        ("lab", 2): ("high", "is none of true, false, yes, no, 1, 0"),
        ("lab", 3): ("visit", orphan),
        ("lab", 4): ("visit", orphan),
    }
    assert "SECRET" not in str(left_out.listed.rows())


def test_they_are_counted_by_rule(folder: Path) -> None:
    counts = read(folder)[1].counts()
    assert counts["visit"] == {
        "rows read": 6,
        "left out, cost: is not a finite number in the declared format (decimal ',', thousands '.')": 1,
        "left out, id: belongs to a row that was left out": 2,
        "left out, id: is no key of table 'patient'": 1,
    }
    assert sum(n for why, n in counts["patient"].items() if why.startswith("left out")) == 9


def test_what_is_put_aside_is_its_owners_alone_and_has_no_identifier(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "aside").mkdir()
    read(folder)[1].write(tmp_path / "aside")
    files = {str(path.relative_to(tmp_path / "aside")) for path in (tmp_path / "aside").rglob("*") if path.is_file()}
    assert files == {"quarantine.csv", "quarantine/patient.csv", "quarantine/visit.csv", "quarantine/lab.csv"}
    assert {stat.S_IMODE((tmp_path / "aside" / name).stat().st_mode) for name in files} == {0o600}
    aside = pl.read_csv(tmp_path / "aside" / "quarantine" / "patient.csv", infer_schema=False)
    assert aside.columns == ["id", "age", "sex"]
    assert aside["age"].to_list() == ["777", "31", "thirty", "", "99", "", "34", "35", "36"]
    listed = pl.read_csv(tmp_path / "aside" / "quarantine.csv")
    assert listed.columns == ["table", "row", "column", "rule"]
    assert listed.height == 16


def test_without_a_policy_the_first_bad_row_is_refused_by_its_number(folder: Path) -> None:
    with pytest.raises(DataError, match=r"row 5: has 3 cells where the header has 4") as told:
        records.read(folder, schema=SCHEMA)
    assert "SECRET" not in str(told.value)
    (folder / "patient.csv").write_text(PATIENTS.replace("p5;SECRET;32\n", "").replace("\n\n", "\n"))
    with pytest.raises(DataError, match=r"column 'age' in table 'patient', row 4: is not a whole number"):
        records.read(folder, schema=SCHEMA)


def test_too_many_bad_rows_stop_the_run_by_share_and_commonest_rule(folder: Path) -> None:
    # Of 22 rows 12 are bad by themselves; those that go with their patient or visit do not count.
    with pytest.raises(DataError, match=r"more than 0.54 of the rows are bad \(most often: column 'id' in table"):
        read(folder, BadRowPolicy(mode="drop", most=0.54))
    assert read(folder, BadRowPolicy(mode="drop", most=0.55))[0]["patient"].height == 2


def test_a_key_of_several_parents_is_refused_whatever_the_policy(folder: Path) -> None:
    (folder / "visit.csv").write_text("visit;id;cost\nv1;p1;1\nv1;p7;2\n")
    with pytest.raises(DataError, match="key 'visit' of table 'visit' must be unique"):
        read(folder)


def test_no_patient_left_is_refused(folder: Path) -> None:
    (folder / "patient.csv").write_text("id;name;age;sex\np1;SECRET;300;f\n")
    with pytest.raises(DataError, match="has no rows that follow the schema"):
        read(folder)


def test_tables_in_memory_are_sifted_too() -> None:
    frames = {
        "patient": pl.DataFrame({"id": ["a", "b"], "age": [1, 300], "sex": ["f", None]}),
        "visit": pl.DataFrame({"visit": ["v", "w"], "id": ["a", "b"], "cost": [1.5, 2.5]}),
        "lab": pl.DataFrame({"visit": ["w"], "high": [True]}),
    }
    cohort = records.read(frames, schema=SCHEMA, on_bad=ANY)
    assert {name: frame.height for name, frame in cohort.tables.items()} == {"patient": 1, "visit": 1, "lab": 0}


def test_rows_keep_their_number_when_patients_before_them_opted_out() -> None:
    schema = load_schema(
        {
            "synthehr": 1,
            "subject": "p",
            "tables": {"p": {"key": "id", "columns": {"id": {"kind": "id"}, "age": {"kind": "integer"}}}},
        }
    )
    frame = pl.DataFrame({"id": ["a", "b", "c"], "age": ["1", "2", "old"]})
    admission = Admission(opted_out=frozenset({"a"}))
    with pytest.raises(DataError, match="row 3: is not a whole number"):
        records.read(frame, schema=schema, admission=admission)
    told: list[LeftOut] = []
    cohort = records.read(frame, schema=schema, admission=admission, on_bad=ANY, on_left_out=told.append)
    assert cohort.root.rows() == [("b", 2)]
    assert told[0].listed["row"].to_list() == [3]


def test_one_patient_more_moves_no_other_patients_rows(folder: Path) -> None:
    """Add-or-remove-one holds through the sieve: what one patient brings decides on that patient's rows alone."""
    before = read(folder)[0]
    with (folder / "patient.csv").open("a") as file:
        file.write("p9;SECRET;40;f\np10;SECRET;bad;f\n")
    with (folder / "visit.csv").open("a") as file:
        file.write("v7;p9;nothing\nv8;p9;7\nv9;p10;8\n")
    after = read(folder)[0]
    assert after["patient"].filter(pl.col("id") != "p9").equals(before["patient"])
    assert after["visit"].filter(pl.col("id") != "p9").equals(before["visit"])
    assert after["visit"].filter(pl.col("id") == "p9")["visit"].to_list() == ["v8"]


def test_a_date_that_is_none_is_a_bad_row_like_another() -> None:
    schema = load_schema(
        {
            "synthehr": 1,
            "subject": "p",
            "tables": {
                "p": {
                    "columns": {
                        "born": {"kind": "date", "bounds": ["1900-01-01", "2030-01-01"]},
                        "seen": {"kind": "offset", "of": "date", "unit": "d", "nullable": True},
                    }
                }
            },
        }
    )
    frame = pl.DataFrame({"born": ["1970-01-01", "1970-13-01", "1980-01-01"], "seen": ["2000-01-01", "", "soon"]})
    cohort = records.read(frame, schema=schema, on_bad=ANY)
    assert cohort.root["born"].to_list() == [dt.date(1970, 1, 1)]
