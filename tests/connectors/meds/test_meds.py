"""What of a MEDS dataset is read, as what, and what is written of a cohort."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from meds import CodeMetadataSchema, DataSchema, DatasetMetadataSchema, SubjectSplitSchema

from synthehr._files import shipped
from synthehr.cli import main
from synthehr.cohort import Cohort
from synthehr.connectors.meds import writing
from synthehr.connectors.meds.layout import Layout, default_schema
from synthehr.connectors.meds.writing import write_meds
from synthehr.connectors.records import read
from synthehr.errors import ConfigError, DataError
from synthehr.manifest import Provenance
from synthehr.schema.files import dump_schema, load_schema
from synthehr.schema.model import Schema

SHARED = Path(__file__).parents[4] / "shared" / "data" / "meds" / "mimic_iv_demo_meds"


def at(day: int, hour: int = 0, minute: int = 0, second: int = 0) -> dt.datetime:
    return dt.datetime(2020, 1, day, hour, minute, second)


EVENTS: list[dict[str, Any]] = [
    # Subject 2 comes first in the file, and knows no birth: times count from midnight of 4 January.
    {"subject_id": 2, "time": at(5, 1), "code": "B", "numeric_value": 2.5, "text_value": "SECRET", "unit": "mg"},
    {"subject_id": 2, "time": at(4, 23, 59, 59), "code": "A"},
    {"subject_id": 2, "time": None, "code": "GENDER//M"},
    {"subject_id": 2, "time": None, "code": "GENDER//F"},
    {"subject_id": 2, "time": None, "code": "RACE//X", "numeric_value": 7.0},
    # Subject 1 was born at eight: times count from midnight of that day.
    {"subject_id": 1, "time": at(3), "code": "LATER"},
    {"subject_id": 1, "time": at(2, 8), "code": "MEDS_BIRTH"},
    {"subject_id": 1, "time": at(2, 7), "code": "BEFORE"},
    {"subject_id": 1, "time": at(9), "code": "MEDS_DEATH"},
    {"subject_id": 1, "time": at(10), "code": "MEDS_DEATH"},
]


def dataset(folder: Path, events: list[dict[str, Any]], *, files: int = 1) -> str:
    (folder / "data" / "train").mkdir(parents=True)
    frame = pl.DataFrame(events, infer_schema_length=None).with_columns(pl.col("time").cast(pl.Datetime("us")))
    if "numeric_value" in frame.columns:
        frame = frame.with_columns(pl.col("numeric_value").cast(pl.Float32))
    subjects = frame["subject_id"].unique(maintain_order=True).to_list()
    for number in range(files):
        part = frame.filter(pl.col("subject_id").is_in(subjects[number::files]))
        part.write_parquet(folder / "data" / "train" / f"{number}.parquet")
    return f"meds:{folder}"


def extended(*, patient: dict[str, Any] | None = None, event: dict[str, Any] | None = None) -> Schema:
    schema = dump_schema(default_schema())
    schema["tables"]["patient"]["columns"] |= patient or {}
    schema["tables"]["event"]["columns"] |= event or {}
    return load_schema(schema)


@pytest.mark.parametrize("files", [1, 2])
def test_births_deaths_and_static_values_are_of_patients_and_all_else_is_an_event(files: int, tmp_path: Path) -> None:
    tables = read(dataset(tmp_path, EVENTS, files=files)).tables
    day = 24 * 60
    assert tables["patient"].rows() == [("1", True, None, 7 * day), ("2", False, "M", None)]
    assert tables["event"].rows() == [
        ("1", 7 * 60, "BEFORE", None),
        ("1", day, "LATER", None),
        ("1", 8 * day, "MEDS_DEATH", None),
        ("2", None, "GENDER//F", None),
        ("2", None, "RACE//X", 7.0),
        ("2", 23 * 60 + 59, "A", None),
        ("2", day + 60, "B", 2.5),
    ]


def test_no_date_and_no_text_comes_in(tmp_path: Path) -> None:
    tables = read(dataset(tmp_path, EVENTS)).tables
    kinds = {dtype for frame in tables.values() for dtype in frame.dtypes}
    assert not any(dtype.is_temporal() for dtype in kinds)
    assert "SECRET" not in str([frame.rows() for frame in tables.values()])


def test_columns_that_are_declared_are_read_and_the_others_named_in_the_audit(tmp_path: Path) -> None:
    source = dataset(tmp_path / "in", EVENTS)
    text = {"kind": "category", "discover": True, "nullable": True}
    notes: dict[str, Any] = {}
    tables = read(source, schema=extended(event={"text_value": text}, patient={"race": text}), notes=notes).tables
    assert tables["event"]["text_value"].drop_nulls().to_list() == ["SECRET"]
    assert tables["patient"]["race"].to_list() == [None, None]  # RACE//X has a number, which the column could not hold
    assert notes["MEDS"]["columns_not_read"] == ["unit"]
    assert main(["convert", source, "-o", str(tmp_path / "out")]) == 0
    audit = json.loads((tmp_path / "out" / "AUDIT.json").read_text())
    assert audit["MEDS"]["columns_not_read"] == ["text_value", "unit"]
    assert audit["rows"] == {"patient": {"rows read": 2}, "event": {"rows read": 7}}


def test_a_column_of_numbers_by_another_name_is_read_only_where_the_source_says_so(tmp_path: Path) -> None:
    renamed = [{k if k != "numeric_value" else "value": v for k, v in event.items()} for event in EVENTS]
    source = dataset(tmp_path, renamed)
    with pytest.raises(DataError, match="has a column 'value' and no 'numeric_value'"):
        read(source)
    assert read(f"{source}?numeric_value=value").tables["event"]["numeric_value"].sum() == 9.5
    assert read(f"{source}?numeric_value=").tables["event"]["numeric_value"].null_count() == 7
    with pytest.raises(DataError, match="no column 'other', which the SOURCE names"):
        read(f"{source}?numeric_value=other")


def test_numbers_may_be_left_out_altogether_as_meds_lets_them(tmp_path: Path) -> None:
    without = [{k: v for k, v in event.items() if k != "numeric_value"} for event in EVENTS]
    assert read(dataset(tmp_path, without)).tables["event"]["numeric_value"].null_count() == 8 - 1 + 0


def test_without_a_column_for_births_they_stay_events_and_times_count_from_them_all_the_same(tmp_path: Path) -> None:
    schema = dump_schema(default_schema())
    del schema["tables"]["patient"]["columns"]["born"], schema["tables"]["patient"]["columns"]["death"]
    event = read(dataset(tmp_path, EVENTS), schema=load_schema(schema)).tables["event"]
    assert event.filter(pl.col("subject_id") == "1").rows() == [
        ("1", 420, "BEFORE", None),
        ("1", 480, "MEDS_BIRTH", None),
        ("1", 1440, "LATER", None),
        ("1", 7 * 1440, "MEDS_DEATH", None),
        ("1", 8 * 1440, "MEDS_DEATH", None),
    ]


def test_splits_come_and_go_as_a_column_of_patients(tmp_path: Path) -> None:
    source = dataset(tmp_path / "in", EVENTS)
    (tmp_path / "in" / "metadata").mkdir()
    splits = pl.DataFrame({"subject_id": [2, 3], "split": ["train", "held_out"]})
    splits.write_parquet(tmp_path / "in" / "metadata" / "subject_splits.parquet")
    schema = extended(patient={"split": {"kind": "category", "nullable": True}})
    cohort = read(source, schema=schema)
    assert cohort.root.select("subject_id", "split").rows() == [("1", None), ("2", "train"), ("3", "held_out")]
    (tmp_path / "out").mkdir()
    done = write_meds(cohort, tmp_path / "out", seed=0, synthetic=False)
    assert (done.subjects, done.without_events) == (2, 1)
    back = pq.read_table(tmp_path / "out" / "metadata" / "subject_splits.parquet")
    SubjectSplitSchema.validate(back)
    assert back.to_pydict() == {"subject_id": [2, 3], "split": ["train", "held_out"]}
    assert read(f"meds:{tmp_path / 'out'}", schema=schema).root.equals(cohort.root)


@pytest.fixture
def cohort() -> Cohort[Schema]:
    """Synthetic patients: keys that are no numbers, numbers beyond 32 bits' precision, no birth and no first day."""
    root = pl.DataFrame(
        {
            "subject_id": ["S2", "S1", "S3"],
            "born": [True, False, False],
            "gender": ["f", None, None],
            "death": [1_000_000, None, None],
        },
        schema_overrides={"death": pl.Int64},
    )
    event = pl.DataFrame(
        {
            "subject_id": ["S1", "S2", "S2", "S1"],
            "time": [50_000, 999_999, None, 4000],
            "code": ["b", "a", "c", "a"],
            "numeric_value": [0.1, None, None, 2.0],
        }
    )
    return Cohort({"patient": root, "event": event}, schema=default_schema())


def written(cohort: Cohort[Schema], folder: Path, **options: Any) -> pl.DataFrame:
    folder.mkdir()
    write_meds(cohort, folder, **{"seed": 1, "synthetic": True, **options})
    return pl.concat([pl.read_parquet(path) for path in sorted((folder / "data").iterdir())])


def test_what_is_written_is_valid_by_the_meds_package(cohort: Cohort[Schema], tmp_path: Path) -> None:
    written(cohort, tmp_path / "out", release_digest="abc")
    for path in (tmp_path / "out" / "data").iterdir():
        DataSchema.validate(pq.read_table(path))
    codes = pq.read_table(tmp_path / "out" / "metadata" / "codes.parquet")
    CodeMetadataSchema.validate(codes)
    assert codes["code"].to_pylist() == ["GENDER//f", "MEDS_BIRTH", "MEDS_DEATH", "a", "b", "c"]
    about = json.loads((tmp_path / "out" / "metadata" / "dataset.json").read_text())
    DatasetMetadataSchema.validate(about)
    assert about["dataset_name"] == "SYNTHETIC patients, drawn by synthehr from release abc"


def test_events_are_sorted_by_subject_and_time_and_births_come_before_all(
    cohort: Cohort[Schema], tmp_path: Path
) -> None:
    events = written(cohort, tmp_path / "out")
    listed = events.select("subject_id", "code", pl.col("numeric_value").round(3)).rows()
    # S2 is the first patient of the cohort, so subject 1; S3 has nothing that MEDS could tell.
    assert listed == [
        (1, "GENDER//f", None),
        (1, "c", None),
        (1, "MEDS_BIRTH", None),
        (1, "a", None),
        (1, "MEDS_DEATH", None),
        (2, "a", 2.0),
        (2, "b", pytest.approx(0.1)),
    ]
    first, last = events.row(2)[1], events.row(4)[1]
    assert last - first == dt.timedelta(minutes=1_000_000)
    assert first == first.replace(hour=0, minute=0)


def test_the_calendar_is_drawn_from_the_seed_and_ends_before_2025(cohort: Cohort[Schema], tmp_path: Path) -> None:
    frames = [written(cohort, tmp_path / str(at), seed=seed) for at, seed in enumerate((1, 1, 2))]
    assert frames[0].equals(frames[1])
    assert not frames[0].equals(frames[2])
    for frame in frames:
        for _, last in frame.group_by("subject_id").agg(pl.col("time").max()).rows():
            assert dt.datetime(2015, 1, 1) <= last < dt.datetime(2025, 1, 1)


def test_large_datasets_are_cut_between_subjects(
    cohort: Cohort[Schema], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "EVENTS_PER_FILE", 2)
    events = written(cohort, tmp_path / "out")
    parts = [pl.read_parquet(path) for path in sorted((tmp_path / "out" / "data").iterdir())]
    assert [part["subject_id"].unique().to_list() for part in parts] == [[1], [2]]
    assert read(f"meds:{tmp_path / 'out'}").tables["event"].height == events.height - 3


def test_a_number_beyond_32_bits_is_refused(cohort: Cohort[Schema], tmp_path: Path) -> None:
    event = cohort.tables["event"].with_columns(pl.lit(1e39).alias("numeric_value"))
    broken = Cohort({**cohort.tables, "event": event}, schema=cohort.schema)
    with pytest.raises(DataError, match="beyond the 32 bits"):
        written(broken, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda tables: tables.pop("event"), "a table event below it"),
        (lambda tables: tables["patient"]["columns"].update(age={"kind": "integer"}), "not 'age'"),
        (lambda tables: tables["event"]["columns"].update(time={"kind": "number"}), "a column time of kind offset"),
        (lambda tables: tables["event"]["columns"].update(code={"kind": "boolean"}), "a column code of kind code"),
        (lambda tables: tables["event"]["columns"].update(numeric_value={"kind": "boolean"}), "of kind number"),
        (lambda tables: tables["event"]["columns"].update(end={"kind": "offset"}), "not in 'end'"),
    ],
)
def test_tables_that_meds_has_no_place_for_are_refused(change: Any, what: str) -> None:
    schema = dump_schema(default_schema())
    schema["tables"]["event"]["columns"].pop("numeric_value")
    schema["tables"]["event"].pop("order_by")
    change(schema["tables"])
    with pytest.raises(ConfigError, match=what):
        Layout.of(load_schema(schema))


def test_a_conversion_of_real_records_is_labelled_so_and_for_their_owner_alone(tmp_path: Path) -> None:
    source = dataset(tmp_path / "in", EVENTS)
    assert main(["convert", source, "-o", str(tmp_path / "real"), "--format", "meds", "--seed", "1"]) == 0
    about = json.loads((tmp_path / "real" / "metadata" / "dataset.json").read_text())
    assert about["dataset_name"] == "REAL RECORDS, converted by synthehr"
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "real").rglob("*")} == {0}
    one, two = (read(f"meds:{tmp_path / name}").tables for name in ("in", "real"))
    assert all(one[name].equals(two[name]) for name in one)


def test_synthetic_patients_stay_labelled_through_conversions(cohort: Cohort[Schema], tmp_path: Path) -> None:
    told = Provenance(
        synthetic=True,
        release_digest="abc",
        epsilon=1.0,
        delta=1e-6,
        unit="patient",
        private=True,
        patients=3,
        seed=7,
        where=(),
        match_rate=None,
        rule_rate=None,
        versions={},
    )
    written(cohort, tmp_path / "first")
    (tmp_path / "first" / "PROVENANCE.json").write_text(told.model_dump_json())
    steps = [("first", "tables", "parquet"), ("tables", "last", "meds")]
    for start, end, format in steps:
        source = f"meds:{tmp_path / start}" if start == "first" else str(tmp_path / start)
        schema = [] if start == "first" else ["--schema", str(shipped("schemas/meds/schema.yaml"))]
        assert main(["convert", source, "-o", str(tmp_path / end), "--format", format, *schema]) == 0
    about = json.loads((tmp_path / "last" / "metadata" / "dataset.json").read_text())
    assert about["dataset_name"] == "SYNTHETIC patients, drawn by synthehr from release abc"
    assert (tmp_path / "last" / "PROVENANCE.json").read_text() == told.model_dump_json()


def test_the_mimic_demo_goes_through_and_back(tmp_path: Path) -> None:
    if not SHARED.is_dir():
        pytest.skip("the shared data are not here")
    source = f"meds:{SHARED}?numeric_value=value"
    cohort = read(source)
    events = pl.read_parquet(SHARED / "mimic_iv_demo_meds_events.parquet")
    assert len(cohort) == events["subject_id"].n_unique() == 100
    deaths, genders = events.filter(code="MEDS_DEATH").height, events["code"].str.starts_with("GENDER//").sum()
    assert cohort.root["death"].count() == deaths
    assert cohort.tables["event"].height == events.height - 100 - deaths - genders
    (tmp_path / "out").mkdir()
    write_meds(cohort, tmp_path / "out", seed=0, synthetic=False)
    back = pq.read_table(tmp_path / "out" / "data" / "0.parquet")
    DataSchema.validate(back)
    again = pl.from_arrow(back)
    assert isinstance(again, pl.DataFrame)
    codes = events["code"].str.strip_chars()  # spaces around a code are lost, as around every value
    counted = [names.value_counts().sort("code") for names in (codes, again["code"])]
    assert counted[0].equals(counted[1])
    assert again["numeric_value"].sum() == pytest.approx(events["value"].sum(), rel=1e-6)
    for name, frame in read(f"meds:{tmp_path / 'out'}").tables.items():
        assert frame.equals(cohort.tables[name])
