"""A draft says what a table seems to hold, in words of the schema language, and gives no rare value away."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthehr.connectors.undeclared import undeclared_tables
from synthehr.errors import DataError, SchemaError
from synthehr.schema.draft import Draft, draft_schema, schema_text
from synthehr.schema.files import load_schema

TODAY = dt.date(2026, 11, 23)
TABLES = Path(__file__).parents[3] / "shared" / "data" / "tables"
N = 40


def patients(**more: list[object]) -> pl.DataFrame:
    columns = {
        "patient_id": [f"p{at}" for at in range(N)],
        "age": [str(20 + at) for at in range(N)],
        "weight_kg": [f"{60 + at / 10:.1f}" for at in range(N)],
        "sex": ["f", "m"] * (N // 2),
        "died": ["0", "1"] * (N // 2),
    }
    return pl.DataFrame({**columns, **more})


def draft(frame: pl.DataFrame, name: str = "clinic", **options: object) -> Draft:
    return draft_schema({name: frame}, today=TODAY, **options)


def entries(made: Draft, table: str = "clinic") -> dict:
    return yaml.safe_load(made.text())["tables"][table]["columns"]


def test_kinds_bounds_units_and_outcome_of_a_small_table() -> None:
    made = draft(patients())
    assert entries(made) == {
        "patient_id": {"kind": "id"},
        "age": {"kind": "integer", "bounds": [0, 120], "unit": "a"},
        # 60.0 to 63.9: a span of 3.9, so whole units outward, and 60 is the least itself: one further
        "weight_kg": {"kind": "number", "bounds": [59, 64], "unit": "kg", "precision": 0.1},
        "sex": {"kind": "category", "values": ["f", "m"]},
        "died": {"kind": "boolean"},
    }
    assert made.schema.root.key == "patient_id"
    assert made.schema.root.outcome == ("died",)
    assert made.schema.root.groups == ("sex",)


def test_a_draft_is_marked_as_not_reviewed_and_loads_as_it_is_written() -> None:
    made = draft(patients())
    assert not made.schema.reviewed
    assert load_schema(yaml.safe_load(made.text(editor_schema="file:///x.json"))) == made.schema
    assert made.text(editor_schema="file:///x.json").startswith("# yaml-language-server: $schema=file:///x.json\n")


def test_a_value_of_few_patients_is_not_in_the_draft() -> None:
    rare = ["canary"] * 10 + ["common"] * 30
    text = draft(patients(group=rare)).text()
    assert "canary" not in text
    assert entries(draft(patients(group=rare)))["group"] == {"kind": "category", "discover": True}
    assert "canary" in draft(patients(group=rare), least=10).text()


def test_rows_of_one_patient_do_not_make_a_value_common() -> None:
    visits = pl.DataFrame(
        {
            "patient_id": [f"p{at % 20}" for at in range(100)],
            "born": ["1950-01-01"] * 100,
            "ward": ["canary" if at % 20 == 0 else "surgery" for at in range(100)],  # 5 rows, but one patient
            "day": [str(at) for at in range(100)],
        }
    )
    assert "canary" not in draft(visits, least=2).text()


def test_exact_extremes_are_not_in_the_draft() -> None:
    made = entries(draft(patients(charge=[str(1234 + at * 17) for at in range(N)])))
    # 1234 to 1897: a span of 663, rounded to hundreds
    assert made["charge"]["bounds"] == [1200, 1900]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("SSN", ["999-17-5017"]),
        ("contact", ["ann@example.org"]),
        ("reach_at", ["(617) 555-0143"]),
        ("link", ["https://example.org/p/1"]),
        ("seen_from", ["192.168.0.1"]),
        ("ref", ["3edac2e3-d223-6fae-d515-daf96ef6bc76"]),
        ("FirstName", ["Ann"]),
        ("home_address", ["1 Main Street"]),
        ("zip", ["02138"]),
        ("LAT", ["42.3"]),
        ("mrn", ["12345"]),
        ("medicare_number", ["1EG4"]),
        ("device_id", ["7"]),
        ("fax", ["1"]),
        ("licence", ["A1"]),
        ("year_of_birth", ["1950"]),
    ],
)
def test_direct_identifiers_are_found_by_name_or_pattern(name: str, cells: list[str]) -> None:
    values = [f"{cells[0]}" for _ in range(N)]
    assert entries(draft(patients(**{name: values})))[name] == {"kind": "identifier"}


@pytest.mark.parametrize("name", ["white_cell_count", "drug_name", "test_code", "image_quality", "place_of_service"])
def test_names_that_only_sound_like_identifiers_stay(name: str) -> None:
    assert entries(draft(patients(**{name: ["a", "b"] * (N // 2)})))[name]["kind"] == "category"


def test_dates_become_offsets_and_a_birth_the_age_of_a_single_table() -> None:
    made = entries(
        draft(patients(birth_date=["1950-02-03"] * N, admitted=["2020-01-01 10:00:00"] * N, seen=["2020-01-02"] * N))
    )
    assert made["birth_date"] == {"kind": "age", "at": "2026-01-01", "bounds": [0, 120]}
    assert made["admitted"] == {"kind": "offset", "of": "datetime", "bounds": [-9600, 1080000], "unit": "h"}
    assert made["seen"] == {"kind": "offset", "bounds": [-400, 45000]}


def test_free_text_empty_and_nested_columns_are_dropped() -> None:
    prose = [
        f"Patient {at} was seen and complained of a cough that has lasted for some {at} weeks now" for at in range(N)
    ]
    nested = pl.Series("list", [[1]] * N)
    frame = patients(notes=["ok"] * N, story=prose, empty=[""] * N).with_columns(nested)
    made = entries(draft(frame))
    assert [made[name]["kind"] for name in ("notes", "story", "empty", "list")] == [
        "text",
        "text",
        "text",
        "identifier",
    ]


def test_large_whole_numbers_are_codes_and_amounts_are_not() -> None:
    codes = [str(195_662_009 + at % 2) for at in range(N)]
    made = entries(draft(patients(finding=codes, charges=codes)))
    assert made["finding"]["kind"] == "category"
    assert made["charges"]["kind"] == "integer"


def test_patients_that_repeat_become_a_table_of_their_own() -> None:
    visits = pl.DataFrame(
        {
            "patient_id": [f"p{at // 2}" for at in range(2 * N)],
            "sex": ["f" if at // 2 % 2 else "m" for at in range(2 * N)],
            "died": [str(at // 2 % 2) for at in range(2 * N)],
            "day": [str(at % 2 * 30) for at in range(2 * N)],
            "sbp": [str(100 + at % 30) for at in range(2 * N)],
        }
    )
    schema = draft(visits, name="visits").schema
    root, below = schema.tables["patient"], schema.tables["visits"]
    assert (root.key, root.source, tuple(root.columns)) == ("patient_id", "visits", ("patient_id", "sex", "died"))
    assert (below.parent, below.foreign_key, below.order_by) == ("patient", "patient_id", "day")
    assert tuple(below.columns) == ("patient_id", "day", "sbp")
    assert schema.gathered == {"patient"}


def test_tables_hang_together_by_name_and_inclusion() -> None:
    encounters = pl.DataFrame(
        {
            "Id": [f"e{at}" for at in range(2 * N)],
            "PATIENT": [f"p{at // 2}" for at in range(2 * N)],
            "COST": ["1.5"] * 80,
        }
    )
    labs = pl.DataFrame(
        {
            "ENCOUNTER": [f"e{at}" for at in range(2 * N)],
            "PATIENT": [f"p{at // 2}" for at in range(2 * N)],
            "V": ["1"] * 80,
        }
    )
    stray = pl.DataFrame({"ENCOUNTER": ["elsewhere"] * 3, "V": ["1"] * 3})
    wards = pl.DataFrame({"Id": ["w1", "w2"], "beds": ["10", "20"]})
    tables = {
        "labs": labs,
        "stray": stray,
        "encounters": encounters,
        "patients": patients().rename({"patient_id": "Id"}),
        "wards": wards,
    }
    made = draft_schema(tables, today=TODAY)
    links = {name: (t.key, t.parent, t.foreign_key) for name, t in made.schema.tables.items()}
    assert links == {
        "patients": ("Id", None, None),
        "encounters": ("Id", "patients", "PATIENT"),
        "labs": (None, "encounters", "ENCOUNTER"),
    }
    assert any("stray, wards" in note for note in made.notes)


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ({}, "nothing to draft"),
        ({"a": pl.DataFrame({"x": []})}, "nothing to draft"),
        ({"a": pl.DataFrame({"name": ["x"], "ssn": ["1"]})}, "no column to learn"),
        ({"a": pl.DataFrame({"x": ["1"]}), "b": pl.DataFrame({"y": ["1"]})}, "no table seems to hold one row"),
    ],
)
def test_what_cannot_be_drafted_is_told(tables: dict[str, pl.DataFrame], what: str) -> None:
    with pytest.raises(DataError, match=what):
        draft_schema(tables)


def test_names_and_values_that_yaml_would_misread_come_through() -> None:
    frame = patients(**{"no": ["yes, really", "no: #1"] * (N // 2), "1.5": ["on", "'"] * (N // 2)})
    made = draft(frame)
    assert entries(made)["no"]["values"] == ["no: #1", "yes, really"]
    assert load_schema(yaml.safe_load(schema_text(made.schema))) == made.schema


CELLS = st.one_of(
    st.none(),
    st.sampled_from(["", "NA", "?", "0", "1.5", "-3", "1e400", "inf", "2020-01-01", "2020-02-30", "yes", "a: b", "#x"]),
    st.text(max_size=6),
)
NAMES = st.sampled_from(
    ["id", "patient_id", "age", "dob", "date", "no", "1.5", "ssn", "value", "a b", "x.y", "é", "^a$"]
)


@st.composite
def odd_table(draw: st.DrawFn) -> pl.DataFrame:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    rows = draw(st.integers(0, 6))
    return pl.DataFrame([pl.Series(name, [draw(CELLS) for _ in range(rows)], dtype=pl.String) for name in names])


@settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(st.sampled_from(["patient", "visit", "t"]), odd_table(), min_size=1, max_size=3), st.integers(1, 3)
)
def test_whatever_stands_in_tables_a_draft_loads_or_the_reason_is_told(
    tables: dict[str, pl.DataFrame], least: int
) -> None:
    try:
        made = draft_schema(tables, least=least, today=TODAY)
    except (DataError, SchemaError) as error:
        assert "\n" not in str(error)
    else:
        assert load_schema(yaml.safe_load(made.text())) == made.schema


@pytest.mark.skipif(not (TABLES / "synthea_csv").is_dir(), reason="Synthea's tables are not here")
def test_synthea_patients_has_all_its_identifiers_found() -> None:
    made = draft_schema(undeclared_tables(TABLES / "synthea_csv" / "patients.csv"), today=TODAY)
    columns = made.schema.tables["patients"].columns
    dropped = {name for name, column in columns.items() if column.kind == "identifier"}
    asked = {"SSN", "DRIVERS", "PASSPORT", "PREFIX", "FIRST", "LAST", "MAIDEN", "BIRTHPLACE", "ADDRESS", "CITY", "ZIP"}
    assert asked | {"COUNTY", "LAT", "LON"} == dropped
    assert (columns["BIRTHDATE"].kind, columns["DEATHDATE"].kind) == ("age", "offset")


@pytest.mark.parametrize(
    ("file", "subject", "outcome"),
    [
        ("stroke.csv", "stroke", ("stroke",)),
        ("support2.csv.gz", "support2", ("death",)),
        ("framingham.csv.gz", "patient", ("DEATH",)),
    ],
)
def test_drafts_of_real_tables_hold_for_their_records(file: str, subject: str, outcome: tuple[str, ...]) -> None:
    from synthehr.connectors.base import conform_tables
    from synthehr.connectors.files import TableFiles

    if not (TABLES / file).is_file():
        pytest.skip(f"{file} is not here")
    schema = draft_schema(undeclared_tables(TABLES / file), today=TODAY).schema
    assert schema.subject == subject
    assert schema.root.outcome == outcome
    conform_tables(TableFiles().tables(TABLES / file, schema=schema), schema=schema)  # refuses what does not fit
