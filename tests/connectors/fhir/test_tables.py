from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from made_records import audited, condition, encounter, lines, observation, options, patient, quantity, read_lines

import synthehr as se
from synthehr.connectors.fhir.schema_default import default_schema
from synthehr.connectors.fhir.viewset import ROWS_PER_PATIENT, load_views
from synthehr.errors import DataError, SchemaError
from synthehr.schema.validation import check_tables

VIEWS = Path(__file__).parents[3] / "schemas" / "fhir" / "r4"


def one(tables: dict[str, pl.DataFrame], table: str, *columns: str) -> tuple[object, ...]:
    return tables[table].select(columns).row(0)


def test_patients_are_described_without_date_name_or_address(tmp_path: Path) -> None:
    us_core = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
    omb = [{"url": "ombCategory", "valueCoding": {"code": "2106-3"}}, {"url": "text", "valueString": "White"}]
    person = patient(
        name=[{"family": "SECRET"}],
        address=[{"state": "MA", "postalCode": "02139-4307", "city": "SECRET"}],
        deceasedDateTime="1980-03-01T10:00:00-05:00",
        maritalStatus={"coding": [{"code": "M"}]},
        extension=[
            {"url": f"{us_core}race", "extension": omb},
            {"url": f"{us_core}birthsex", "valueCode": "F"},
            {"url": "http://hl7.org/fhir/StructureDefinition/patient-mothersMaidenName", "valueString": "SECRET"},
        ],
    )
    table = read_lines(tmp_path, person)["patient"]
    assert table.row(0, named=True) == {
        "patient_id": "1",
        "gender": "female",
        "deceased": True,
        "death_day": 60,
        "state": "MA",
        "zip3": "021",
        "race": "2106-3",
        "ethnicity": None,
        "birth_sex": "F",
        "marital_status": "M",
        "anchor": "birth_date",
    }  # 31 + 29 days from 1 January to 1 March 1980


@pytest.mark.parametrize(
    ("address", "zip3"),
    [
        ({"postalCode": "02139"}, "021"),
        ({"postalCode": "021"}, "021"),
        ({"postalCode": "02139", "country": "US"}, "021"),
        ({"postalCode": "03601"}, None),
        ({"postalCode": "02139", "country": "DE"}, None),
        ({"postalCode": "9105 PZ"}, None),
        ({"postalCode": "0213"}, None),
    ],
)
def test_only_large_us_areas_keep_three_digits(address: dict[str, str], zip3: str | None, tmp_path: Path) -> None:
    assert one(read_lines(tmp_path, patient(address=[address])), "patient", "zip3") == (zip3,)


def test_times_count_from_the_birth_date_by_the_clock_on_the_wall(tmp_path: Path) -> None:
    # Summer and winter in Boston: what the patient's clock showed counts, not what UTC says.
    tables = read_lines(
        tmp_path,
        patient(),
        encounter("a", period={"start": "1980-01-02T23:30:00-05:00", "end": "1980-01-03T00:15:00-05:00"}),
        encounter("b", period={"start": "1980-07-01T00:30:00-04:00", "end": "1980-07-01T00:00:00-05:00"}),
        encounter("c", period={"start": "1980-02", "end": "1980-02"}),
        encounter("d", period={"start": "1979-12-31"}),
        encounter("e"),
    )
    got = tables["encounter"].select("start_hour", "duration_minutes").rows()
    # a: one day and 23 hours; b: 31+29+31+30+31+30 = 182 days; c: 31 days; d: the day before
    assert got == [(47, 45), (182 * 24, 30), (31 * 24, 0), (-24, None), (None, None)]


def test_a_duration_that_is_negative_is_missing_and_counted(tmp_path: Path) -> None:
    source = [patient(), encounter(period={"start": "1990-01-02T10:00:00Z", "end": "1990-01-02T09:00:00Z"})]
    records, tables = audited(lines(tmp_path / "all.ndjson", source))
    assert one(tables, "encounter", "duration_minutes") == (None,)
    assert records.audit["cells_made_null"]["encounter"] == {"duration_minutes": {"ends before it begins": 1}}


def test_without_birth_date_the_first_event_is_the_anchor(tmp_path: Path) -> None:
    unborn, never = patient("p"), patient("q")
    del unborn["birthDate"], never["birthDate"]
    tables = read_lines(
        tmp_path,
        unborn,
        never,
        condition(onsetDateTime="2001-03-05", recordedDate="2001-03-07"),
        encounter(period={"start": "2001-03-06T01:00:00Z"}),
        condition("d", "Patient/q"),
    )
    assert tables["patient"]["anchor"].to_list() == ["first_event", None]
    assert tables["condition"].select("onset_day", "recorded_day").rows() == [(0, 2), (None, None)]
    assert one(tables, "encounter", "start_hour") == (25,)


def test_what_is_no_date_is_missing_and_counted(tmp_path: Path) -> None:
    source = [
        patient(),
        condition("a", onsetDateTime="last spring"),
        condition("b", onsetDateTime="1990-02-30"),
        condition("c", onsetDateTime="0200-01-01"),
    ]
    records, tables = audited(lines(tmp_path / "all.ndjson", source))
    assert tables["condition"]["onset_day"].to_list() == [None, None, None]
    counted = records.audit["cells_made_null"]["condition"]["onset_day"]
    assert counted == {"is no FHIR date or time": 2, "lies outside the bounds": 1}


def test_an_observation_makes_a_row_for_each_value_or_component(tmp_path: Path) -> None:
    def part(code: str, **more: object) -> dict[str, object]:
        return {"code": {"coding": [{"system": "http://loinc.org", "code": code}]}, **more}

    panel = observation(
        "bp",
        code="85354-9",
        component=[
            part("8480-6", valueQuantity=quantity(120, "mm[Hg]")),
            part("8462-4", dataAbsentReason={"coding": [{"code": "unknown"}]}),
        ],
    )
    both = observation("both", code="A", valueString="seen", component=[part("B", valueBoolean=False)])
    neither = observation("neither", code="C")
    table = read_lines(tmp_path, patient(), panel, both, neither)["observation"]
    rows = table.select(
        "panel_code", "component_index", "code", "value", "value_string", "value_boolean", "absent_reason"
    ).rows()
    assert rows == [
        ("85354-9", 1, "8480-6", 120.0, None, None, None),
        ("85354-9", 2, "8462-4", None, None, None, "unknown"),
        (None, 0, "A", None, "seen", None, None),
        ("A", 1, "B", None, None, False, None),
        (None, 0, "C", None, None, None, None),
    ]
    assert table["observation_id"].to_list() == ["2", "2", "3", "3", "4"]


def test_values_come_by_their_type(tmp_path: Path) -> None:
    coded = {"coding": [{"system": "http://local", "code": "x"}, {"system": "http://snomed.info/sct", "code": "7"}]}
    table = read_lines(
        tmp_path,
        patient(),
        observation("a", valueCodeableConcept=coded),
        observation("b", valueInteger=3),
        observation("c", valueDateTime="1980-01-11"),
        observation("d", valueQuantity={"value": 5, "comparator": "<"}),
    )["observation"]
    assert table.row(0, named=True) | {"value_code": "7", "value_concept": "http://snomed.info/sct|7"} == table.row(
        0, named=True
    )
    assert table["value_integer"].to_list() == [None, 3, None, None]
    assert table["value_time_day"].to_list() == [None, None, 10, None]
    assert table.select("value", "comparator").row(3) == (5.0, "<")


def test_the_stated_preference_of_systems_decides(tmp_path: Path) -> None:
    codings = [
        {"system": "http://local", "code": "l"},
        {"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "i"},
        {"system": "http://snomed.info/sct", "code": "s", "display": "S"},
    ]
    tables = read_lines(
        tmp_path,
        patient(),
        condition("a", code={"coding": codings}),
        condition("b", code={"coding": codings[:2]}),
        condition("c", code={"coding": codings[:1]}),
        condition("d", code={"text": "only words"}),
    )
    assert tables["condition"].select("code_system", "code", "code_display", "concept").rows() == [
        ("http://snomed.info/sct", "s", "S", "http://snomed.info/sct|s"),
        ("http://hl7.org/fhir/sid/icd-10-cm", "i", None, "http://hl7.org/fhir/sid/icd-10-cm|i"),
        ("http://local", "l", None, "http://local|l"),
        (None, None, None, None),
    ]


def test_a_code_has_one_unit_where_a_public_conversion_exists_else_the_unit_is_of_the_concept(tmp_path: Path) -> None:
    def measured(name: str, code: str, value: float, unit: str) -> dict[str, object]:
        return observation(name, code=code, valueQuantity=quantity(value, unit))

    words = observation("w", code="8867-4", valueQuantity={"value": 61, "unit": "beats/minute"})
    table = read_lines(
        tmp_path,
        patient(),
        measured("a", "29463-7", 150, "[lb_av]"),  # 150 * 0.45359237
        measured("b", "2093-3", 5, "mmol/L"),  # cholesterol: 5 * 38.665
        measured("c", "9999-9", 5, "mmol/L"),  # nobody knows the substance
        measured("d", "8310-5", 98.6, "[degF]"),  # 37 °C
        measured("e", "4548-4", 53, "mmol/mol"),  # HbA1c: 0.09148 * 53 + 2.152
        words,
    )["observation"]
    assert table.select("value", "unit").rows() == [
        (pytest.approx(68.03886), "kg"),
        (pytest.approx(193.325), "mg/dL"),
        (5.0, "mmol/L"),
        (pytest.approx(37.0), "Cel"),
        (pytest.approx(7.00044), "%"),
        (61.0, "/min"),
    ]
    assert table["concept"][1] == "http://loinc.org|2093-3|mg/dL"
    assert table["concept"][2] == "http://loinc.org|9999-9|mmol/L"


def test_codes_outside_a_required_value_set_are_missing_and_counted(tmp_path: Path) -> None:
    records, tables = audited(lines(tmp_path / "all.ndjson", [patient(gender="foo"), encounter(status="banana")]))
    assert one(tables, "patient", "gender") + one(tables, "encounter", "status") == (None, None)
    assert records.audit["cells_made_null"]["patient"] == {"gender": {"is no code of its value set": 1}}


def test_reading_needs_no_schema_and_its_tables_meet_the_default_one(tmp_path: Path) -> None:
    source = lines(
        tmp_path / "all.ndjson", [patient(), encounter(), condition(), observation(valueQuantity=quantity(1, "cm"))]
    )
    cohort = se.read(source)
    assert cohort.schema == default_schema()
    assert cohort.tables["immunization"].height == 0
    assert "code_display" not in cohort.tables["condition"].columns
    assert [rule for rule in check_tables(cohort.tables, schema=cohort.schema) if not rule.met] == []


def test_a_schema_may_ask_for_less_than_the_views_give(tmp_path: Path) -> None:
    whole = {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "patient": {
                "key": "patient_id",
                "columns": {"patient_id": {"kind": "id"}, "gender": {"kind": "category", "discover": True}},
            }
        },
    }
    cohort = se.read(lines(tmp_path / "all.ndjson", [patient(), encounter()]), schema=whole)
    assert {name: frame.columns for name, frame in cohort.tables.items()} == {"patient": ["patient_id", "gender"]}


def test_the_default_schema_declares_what_the_views_make(tmp_path: Path) -> None:
    tables = read_lines(tmp_path, patient())
    schema = default_schema()
    assert {name: set(frame.columns) for name, frame in tables.items()} == {
        name: set(table.columns) for name, table in schema.tables.items()
    }
    bounds = {name: view.most for name, view in load_views().tables.items() if name != "patient"}
    assert bounds == {name: table.max_rows for name, table in schema.tables.items() if name != "patient"}


def a_view(folder: Path, **changed: object) -> Path:
    view = {
        "resourceType": "ViewDefinition",
        "name": "weight",
        "resource": "Observation",
        "status": "active",
        "extension": [{"url": ROWS_PER_PATIENT, "valuePositiveInt": 9}],
        "where": [{"path": "code.coding.exists(code = '29463-7')"}],
        "select": [
            {
                "column": [
                    {"name": "id", "path": "getResourceKey()", "type": "id"},
                    {"name": "who", "path": "subject.getReferenceKey(Patient)", "type": "id"},
                    {"name": "at", "path": "effective.ofType(dateTime)", "type": "dateTime"},
                    {"name": "kilograms", "path": "value.ofType(Quantity).value", "type": "decimal"},
                ]
            }
        ],
    } | changed
    (folder / "views").mkdir(exist_ok=True)
    (folder / "views" / "w.json").write_text(
        json.dumps({key: value for key, value in view.items() if value is not None})
    )
    return folder / "views"


def test_a_users_view_makes_a_table_beside_ours(tmp_path: Path) -> None:
    views = a_view(tmp_path)
    heavy = observation(code="29463-7", effectiveDateTime="1980-01-02", valueQuantity=quantity(70, "kg"))
    tables = read_lines(tmp_path, patient(), heavy, observation("o2"), settings=options(views=views))
    assert tables["weight"].rows() == [("2", "1", 24, 70.0)]
    assert tables["weight"].columns == ["id", "who", "at_hour", "kilograms"]
    added = default_schema(load_views(views)).tables["weight"]
    assert (added.foreign_key, added.order_by, added.max_rows) == ("who", "at_hour", 9)


NO_SUBJECT = [{"column": [{"name": "id", "path": "getResourceKey()"}]}]
PATIENTS = [{"column": [{"name": "id", "path": "getResourceKey()"}]}]
NO_KEY = [{"column": [{"name": "gender", "path": "gender"}]}]
BAD_VIEWS = {
    "no subject": ({"select": NO_SUBJECT}, "needs a column for its subject"),
    "no bound": ({"extension": None}, "needs a bound on the rows of a patient"),
    "bound of nothing": ({"extension": [{"url": ROWS_PER_PATIENT, "valuePositiveInt": 0}]}, "needs a bound"),
    "patients under another name": ({"resource": "Patient"}, "must be named patient"),
    "another under the patients' name": ({"name": "patient"}, "must be named patient"),
    "patients without key": (
        {"name": "patient", "resource": "Patient", "select": NO_KEY},
        "needs a column for its subject",
    ),
    "many rows of a patient": ({"name": "patient", "resource": "Patient", "select": PATIENTS}, "must be 1"),
    "unknown resource": ({"resource": "Weight"}, "no resource 'Weight'"),
    "no name": ({"name": None}, "needs a 'name'"),
}


@pytest.mark.parametrize(("changed", "message"), BAD_VIEWS.values(), ids=BAD_VIEWS)
def test_a_view_without_subject_or_bound_is_refused(changed: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=message) as told:
        load_views(a_view(tmp_path, **changed))
    assert str(told.value).startswith("view 'w.json': ")


def test_a_patient_view_that_makes_several_rows_of_one_is_refused(tmp_path: Path) -> None:
    # the published view that made 75 rows of 9 patients looped over names and addresses like this
    definition = json.loads((VIEWS / "patient.json").read_text())
    definition["select"].append({"forEachOrNull": "name", "column": [{"name": "family", "path": "family"}]})
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "patient.json").write_text(json.dumps(definition))
    settings = options("drop", views=tmp_path / "views")
    read_lines(tmp_path, patient(name=[{"family": "A"}]), settings=settings)
    with pytest.raises(DataError, match="must make exactly one"):
        read_lines(tmp_path, patient(name=[{"family": "A"}, {"family": "B"}]), settings=settings)


def test_a_source_without_patients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no patient that may be used"):
        read_lines(tmp_path, condition(), settings=options("drop"))
