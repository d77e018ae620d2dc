"""The encoded store holds what was checked, without keys, and gives a fit what the records give it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import polars as pl
import pytest
from conformance import SCHEMA, ConnectorConformance, made_cohort
from polars.testing import assert_frame_equal

import synthehr as se
from synthehr._files import shipped
from synthehr.cohort import Cohort
from synthehr.connectors import columnar, records
from synthehr.connectors.conversion import convert
from synthehr.connectors.files import TableFiles
from synthehr.connectors.folders import new_folder
from synthehr.connectors.store import KeyNumbers, StoreWriter, in_text, is_store, read_store
from synthehr.encoding.unroll import conditional_tables, unroll
from synthehr.errors import ConfigError, DataError
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema


def written(cohort: Cohort[Schema], place: Path) -> Path:
    with new_folder(place) as folder:
        StoreWriter(folder, schema=cohort.schema).write(cohort)
    return place


def with_numbers_for_keys() -> Cohort[Schema]:
    """The cohort of the conformance test with keys as a store gives them."""
    tables = made_cohort().tables
    for name, column in (("patient", "patient id"), ("visit", "visit_id")):
        keys = tables[name][column].to_list()
        number = {key: str(at) for at, key in enumerate(keys)}
        for other, frame in tables.items():
            for theirs in {("patient", "patient id"): ["patient id", "patient_id"]}.get(
                (name, column), ["visit_id", "visit"]
            ):
                if theirs in frame.columns:
                    tables[other] = tables[other].with_columns(frame[theirs].replace_strict(number))
    return Cohort(tables, schema=SCHEMA)


class TestStore(ConnectorConformance):
    def write(self, cohort: Cohort[Schema], place: str) -> str:
        return str(written(cohort, Path(place)))

    def cohort(self) -> Cohort[Schema]:
        return with_numbers_for_keys()

    def read(self, source: str, *, schema: Schema) -> Cohort[Schema]:
        return in_text(records.read(source, schema=schema))


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same records in Parquet; batches are of five rows."""
    defaults = columnar.read_batches.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "rows", 5)
    TableFiles().write(made_cohort(), tmp_path / "records", format="parquet")
    return tmp_path / "records"


def test_a_store_that_is_streamed_holds_what_one_that_is_written_whole_does(tables: Path, tmp_path: Path) -> None:
    convert(tables, out=tmp_path / "streamed", format="store", schema=SCHEMA)
    whole = read_store(written(made_cohort(), tmp_path / "whole"))
    for name, frame in in_text(read_store(tmp_path / "streamed")).tables.items():
        assert_frame_equal(frame, in_text(whole).tables[name])


def test_a_fit_gets_from_a_store_what_it_gets_from_the_records(tables: Path, tmp_path: Path) -> None:
    convert(tables, out=tmp_path / "store", format="store", schema=SCHEMA)
    bounds = {"patient": 1, "visit": 2, "lab": 2}
    made = conditional_tables(SCHEMA, bounds)
    found = []
    for source in (tables, tmp_path / "store"):
        cohort = records.read(source, schema=SCHEMA)
        bounded = cohort.bounded({"visit": 2, "lab": 2}, draws=np.random.default_rng(3))
        found.append(unroll(bounded, made, draws=np.random.default_rng(4)))
    for name, expected in found[0].items():
        assert_frame_equal(found[1][name].frame, expected.frame)
        assert found[1][name].owners.tolist() == expected.owners.tolist()
        assert found[1][name].parents.tolist() == expected.parents.tolist()


def test_no_key_of_a_patient_is_in_a_store(tables: Path, tmp_path: Path) -> None:
    patients = pl.read_parquet(tables / "patient.parquet")
    visits = pl.read_parquet(tables / "visit.parquet")
    named = {key: f"KEYNUMBER{at}" for at, key in enumerate(patients["patient id"])}
    patients.with_columns(pl.col("patient id").replace_strict(named)).write_parquet(tables / "patient.parquet")
    visits.with_columns(pl.col("patient_id").replace_strict(named)).write_parquet(tables / "visit.parquet")
    convert(tables, out=tmp_path / "store", format="store", schema=SCHEMA)
    for path in (tmp_path / "store").iterdir():
        assert b"KEYNUMBER" not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0, "it is as private as the records"


def test_a_store_needs_no_schema_and_is_converted_back(tables: Path, tmp_path: Path) -> None:
    convert(tables, out=tmp_path / "store", format="store", schema=SCHEMA)
    assert records.schema_of(tmp_path / "store", None) == SCHEMA
    convert(tmp_path / "store", out=tmp_path / "back")
    again = records.read(tmp_path / "back", schema=SCHEMA)
    for name, frame in with_numbers_for_keys().tables.items():
        assert_frame_equal(again.tables[name], frame)


def test_its_manifest_follows_the_published_schema(tables: Path, tmp_path: Path) -> None:
    convert(tables, out=tmp_path / "store", format="store", schema=SCHEMA)
    published = json.loads(shipped("schemas/config/store.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(json.loads((tmp_path / "store" / "STORE.json").read_text(encoding="utf-8")), published)


def test_another_schema_is_checked_row_by_row(tables: Path, tmp_path: Path) -> None:
    convert(tables, out=tmp_path / "store", format="store", schema=SCHEMA)
    contents = SCHEMA.model_dump(mode="json", exclude_defaults=True)
    contents["tables"]["patient"]["columns"]["age"]["bounds"] = [-1, 2**53]
    with pytest.raises(DataError, match=r"column 'age' in table 'patient', row 4: lies outside the declared bounds"):
        records.read(tmp_path / "store", schema=load_schema(contents))
    contents["tables"]["patient"]["columns"]["age"]["bounds"] = [-(2**53), 2**53]
    wider = records.read(tmp_path / "store", schema=load_schema(contents))
    assert wider.root["age"].to_list() == made_cohort().root["age"].to_list()
    del contents["tables"]["lab"]
    assert set(records.read(tmp_path / "store", schema=load_schema(contents)).tables) == {"patient", "visit"}
    contents["tables"]["other"] = contents["tables"]["visit"]
    with pytest.raises(DataError, match="has no table 'other'"):
        records.read(tmp_path / "store", schema=load_schema(contents))


def flat(**columns: Any) -> Schema:
    return load_schema(
        {"synthehr": 1, "subject": "p", "tables": {"p": {"key": "id", "columns": {"id": {"kind": "id"}, **columns}}}}
    )


def test_ages_are_capped_on_the_way_out_where_the_schema_says_so(tmp_path: Path) -> None:
    schema = flat(age={"kind": "integer", "bounds": [0, 120], "unit": "a"})
    frame = pl.DataFrame({"id": ["a", "b"], "age": [50, 101]})
    cohort = records.read(frame, schema=schema)
    place = written(cohort, tmp_path / "store")
    limited = flat(age={"kind": "integer", "bounds": [0, 90], "unit": "a"}).model_copy(update={"cap_age": 90})
    assert records.read(place, schema=limited).root["age"].to_list() == [50, 90]


def test_patients_who_opted_out_are_not_in_a_store_and_cannot_be_left_out_of_it_later(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": ["a", "b", "c"], "age": [1, 2, 3]})
    frame.write_csv(tmp_path / "p.csv")
    (tmp_path / "out.txt").write_text("b\n")
    schema = flat(age={"kind": "integer", "bounds": [0, 9]})
    convert(tmp_path / "p.csv", out=tmp_path / "store", format="store", schema=schema, opt_out=tmp_path / "out.txt")
    assert read_store(tmp_path / "store").root["age"].to_list() == [1, 3]
    with pytest.raises(ConfigError, match="a store has no keys of patients"):
        records.read(tmp_path / "store", opt_out=tmp_path / "out.txt")


def test_synthetic_tables_keep_values_that_are_not_declared(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    pl.DataFrame({"id": ["S1", "S2"], "sex": ["f", "OTHER"]}).write_parquet(tmp_path / "made" / "p.parquet")
    (tmp_path / "made" / "PROVENANCE.json").write_text("{}")
    convert(
        tmp_path / "made",
        out=tmp_path / "store",
        format="store",
        schema=flat(sex={"kind": "category", "values": ["f"]}),
    )
    assert read_store(tmp_path / "store").root["sex"].to_list() == ["f", "OTHER"]
    assert (tmp_path / "store" / "PROVENANCE.json").read_text() == "{}"


def of_more_than_a_byte(at: int) -> str:
    return f"value {at:03d}"


@pytest.mark.parametrize("declared", [256, 257])
def test_every_value_has_a_code_of_its_own_however_many_there_are(declared: int, tmp_path: Path) -> None:
    values = [of_more_than_a_byte(at) for at in range(declared)]
    schema = flat(kind={"kind": "category", "values": values, "nullable": True})
    frame = pl.DataFrame({"id": [str(at) for at in range(declared + 1)], "kind": [*reversed(values), None]})
    place = written(records.read(frame, schema=schema), tmp_path / "store")
    assert read_store(place).root["kind"].to_list() == [*reversed(values), None]


def cut_off(store: Path) -> None:
    whole = (store / "visit.arrow").read_bytes()
    (store / "visit.arrow").write_bytes(whole[: len(whole) // 2])


def without_a_file(store: Path) -> None:
    (store / "lab.arrow").unlink()


def no_json(store: Path) -> None:
    (store / "STORE.json").write_text("{", encoding="utf-8")


def another_file(store: Path) -> None:
    (store / "lab.arrow").write_bytes((store / "visit.arrow").read_bytes())


def with_manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        contents = json.loads((store / "STORE.json").read_text(encoding="utf-8"))
        change(contents)
        (store / "STORE.json").write_text(json.dumps(contents), encoding="utf-8")

    return damage


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut off": cut_off,
    "a file is missing": without_a_file,
    "a file of another table": another_file,
    "no JSON": no_json,
    "another version": with_manifest(lambda told: told.update(store=2)),
    "an unknown key": with_manifest(lambda told: told.update(more=1)),
    "no schema": with_manifest(lambda told: told.update(schema={"synthehr": 1})),
    "a row too few": with_manifest(lambda told: told["rows"].update(lab=4)),
    "a code without a value": with_manifest(lambda told: told["values"]["lab"].update(select=["1"])),
    "a value twice": with_manifest(lambda told: told["values"]["lab"].update(select=["1", "1", "1.0", "0012"])),
    "no values": with_manifest(lambda told: told["values"].clear()),
    "a table that leads out": with_manifest(
        lambda told: told["schema"]["tables"].update({"../lab": told["schema"]["tables"].pop("lab")})
    ),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_store_is_refused_in_one_line(how: str, tmp_path: Path) -> None:
    place = written(made_cohort(), tmp_path / "store")
    DAMAGES[how](place)
    with pytest.raises(DataError) as told:
        records.read(place, schema=SCHEMA)
    assert "\n" not in str(told.value)


def test_a_reference_to_a_row_that_is_not_there_is_refused(tmp_path: Path) -> None:
    place = written(made_cohort(), tmp_path / "store")
    frame = columnar.read_columnar(place / "lab.arrow", skip=frozenset())
    frame.with_columns(pl.lit(99, dtype=pl.UInt32).alias("visit")).write_ipc(
        place / "lab.arrow", compression="uncompressed"
    )
    with pytest.raises(DataError, match="some rows point to none"):
        read_store(place)


def test_a_folder_is_a_store_by_its_manifest_alone(tmp_path: Path) -> None:
    place = written(made_cohort(), tmp_path / "store")
    assert is_store(place) and is_store(str(place))
    (place / "STORE.json").unlink()
    assert not is_store(place)
    assert not is_store("postgresql://host/database")


def chain(*, key: str) -> Schema:
    """A table of one row for each patient, whose key may be the patient's own, with a table below it."""
    return load_schema(
        {
            "synthehr": 1,
            "subject": "p",
            "tables": {
                "p": {"key": "id", "columns": {"id": {"kind": "id"}, "age": {"kind": "integer"}}},
                "stay": {
                    "key": key,
                    "parent": "p",
                    "foreign_key": "id",
                    "columns": {"id": {"kind": "id"}, "stay": {"kind": "id"}, "days": {"kind": "integer"}},
                },
                "lab": {
                    "parent": "stay",
                    "foreign_key": "of",
                    "columns": {"of": {"kind": "id"}, "value": {"kind": "integer"}},
                },
            },
        }
    )


@pytest.mark.parametrize("key", ["id", "stay"])
def test_rows_find_their_parents_where_a_key_is_the_parents_own(key: str, tmp_path: Path) -> None:
    stays = {"id": ["c", "a"], "stay": ["c", "a"], "days": [3, 1]}
    frames = {
        "p": pl.DataFrame({"id": ["a", "b", "c"], "age": [1, 2, 3]}),
        "stay": pl.DataFrame(stays),
        "lab": pl.DataFrame({"of": ["a", "c", "a"], "value": [10, 30, 11]}),
    }
    schema = chain(key=key)
    for name, frame in frames.items():
        (tmp_path / "records").mkdir(exist_ok=True)
        frame.write_parquet(tmp_path / "records" / f"{name}.parquet")
    convert(tmp_path / "records", out=tmp_path / "streamed", format="store", schema=schema)
    for place in (tmp_path / "streamed", written(records.read(frames, schema=schema), tmp_path / "whole")):
        cohort = read_store(place)
        assert cohort.owners("stay").tolist() == [2, 0]
        assert cohort.owners("lab").tolist() == [0, 2, 0]  # of a, c and a: patients 0, 2 and 0


def test_keys_are_numbered_across_parts_and_told_from_each_other() -> None:
    keys = KeyNumbers(SCHEMA)
    keys.add("patient", pl.Series("patient id", ["b", "a"]))
    keys.add("patient", pl.Series("patient id", [], dtype=pl.String))
    keys.add("patient", pl.Series("patient id", [f"n{at}" for at in range(5000)]))
    assert keys.rows_of("visit", pl.Series("patient_id", ["n4999", "a", "b", "a"])).to_list() == [5001, 1, 0, 1]
    for repeated in (["a"], ["x", "x"], ["n4999"]):
        with pytest.raises(DataError, match="must be unique"):
            keys.add("patient", pl.Series("patient id", repeated))
    for wrong in (["nobody"], ["a", None]):
        with pytest.raises(DataError, match="some rows point to none"):
            keys.rows_of("visit", pl.Series("patient_id", wrong))
    with pytest.raises(DataError, match="must not be missing"):
        keys.add("patient", pl.Series("patient id", ["c", None]))


def test_times_keep_their_type(tmp_path: Path) -> None:
    schema = flat(
        day={"kind": "date", "bounds": ["2000-01-01", "2020-01-01"]},
        moment={"kind": "datetime", "bounds": ["2000-01-01T00:00:00", "2020-01-01T00:00:00"], "nullable": True},
    )
    frame = pl.DataFrame(
        {"id": ["a", "b"], "day": [dt.date(2001, 2, 3)] * 2, "moment": [dt.datetime(2002, 3, 4, 5, 6), None]}
    )
    cohort = records.read(frame, schema=schema)
    assert read_store(written(cohort, tmp_path / "store")).root.drop("id").equals(cohort.root.drop("id"))


def test_an_evaluation_refuses_a_store_since_it_could_not_see_patients_in_both_parts(tmp_path: Path) -> None:
    place = written(made_cohort(), tmp_path / "store")
    with pytest.raises(ConfigError, match="a store has no keys"):
        se.evaluate(train=place, holdout=made_cohort(), synthetic=made_cohort(), schema=SCHEMA)
