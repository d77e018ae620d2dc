"""Damaged records and random expressions: errors of our own or an answer, never a traceback of Python's."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synthehr.connectors.fhir.fhirpath import compile_path
from synthehr.connectors.fhir.fhirpath.functions import NAMES
from synthehr.connectors.fhir.views import compile_view
from synthehr.errors import DataError, SchemaError

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "meta": {"profile": ["http://x.org/p"]},
    "active": True,
    "gender": "female",
    "birthDate": "1974-12-25",
    "_gender": {"id": "g"},
    "_birthDate": {"extension": [{"url": "u", "valueDateTime": "1974-12-25T14:35:45-05:00"}]},
    "deceasedBoolean": False,
    "name": [
        {"use": "official", "family": "Dahl", "given": ["Anna", "Mia"]},
        {"given": [None, "Eva"], "_given": [{"id": "x"}, None]},
    ],
    "address": [{"state": "MA", "postalCode": "02139", "line": ["1 Street"]}],
    "extension": [{"url": "race", "extension": [{"url": "code", "valueCoding": {"system": "s", "code": "c"}}]}],
    "managingOrganization": {"reference": "Organization/o1"},
    "contained": [{"resourceType": "Organization", "id": "c1", "name": "Ward"}],
}

OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6", "display": "Systolic"}], "text": "bp"},
    "subject": {"reference": "Patient/p1", "type": "Patient"},
    "effectiveDateTime": "2020-03-01T10:00:00Z",
    "valueQuantity": {"value": 120.5, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"},
    "component": [{"code": {"coding": [{"code": "x"}]}, "valueInteger": 3}],
}


def columns(**paths: str) -> list[dict[str, Any]]:
    return [{"name": name, "path": path} for name, path in paths.items()]


VIEWS = [
    compile_view(definition)
    for definition in (
        {
            "resource": "Patient",
            "where": [{"path": "name.exists() or deceased.ofType(boolean) = false"}],
            "select": [
                {
                    "column": columns(
                        id="getResourceKey()",
                        gender="gender",
                        active="active",
                        born="birthDate",
                        young="birthDate > @1970",
                        time="birthDate.extension('u').value.ofType(dateTime).first()",
                        died="deceased.ofType(dateTime)",
                        race="extension('race').extension('code').value.ofType(Coding).code.first()",
                        state="address.where(line.exists()).state.first()",
                        zip3="address.first().postalCode.substring(0, 3)",
                        ward="contained.ofType(Organization).name.first()",
                        organization="managingOrganization.getReferenceKey(Organization)",
                        parts="descendants().count()",
                        other="animal",
                    )
                },
                {"forEachOrNull": "name", "column": columns(family="family", names="given.join(' ')", at="%rowIndex")},
            ],
        },
        {
            "resource": "Observation",
            "select": [
                {"column": columns(key="id", subject="subject.getReferenceKey(Patient)", year="effective.toString()")},
                {
                    "unionAll": [
                        {"column": columns(value="value.ofType(Quantity).value + 1", high="value > 100 'mm[Hg]'")},
                        {
                            "repeat": ["component"],
                            "column": columns(value="value.ofType(integer) / 2", high="code.coding.code = 'x'"),
                        },
                    ]
                },
                {"forEach": "code.coding | component.code.coding", "column": columns(code="code", system="system")},
            ],
        },
    )
]

KINDS: dict[str | None, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int,),
    "decimal": (int, float, Decimal),
    None: (str, bool, int, float, Decimal),
}

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
JSON = st.recursive(
    SCALARS | st.sampled_from(["2020-01-01", "x", 1e300, Decimal("1e500"), Decimal("NaN"), [], {}]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["code", "url", "value", "a"]), inner),
    max_leaves=4,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder and key in a JSON value."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


@st.composite
def damaged(draw: st.DrawFn, record: dict[str, Any]) -> dict[str, Any]:
    made = copy.deepcopy(record)
    for _ in range(draw(st.integers(1, 3))):
        spots = [spot for spot in places(made) if spot[1] != "resourceType" or spot[0] is not made]
        if not spots:
            return made
        holder, key = draw(st.sampled_from(spots))
        action = draw(st.sampled_from(["replace", "wrap", "double", "swap"]))
        if action == "replace":
            holder[key] = draw(JSON)
        elif action == "wrap":
            holder[key] = [holder[key]]
        elif action == "double":
            holder[key] = [holder[key], holder[key]]
        else:
            other, at = draw(st.sampled_from(spots))
            holder[key] = copy.deepcopy(other[at])
    return made


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([PATIENT, OBSERVATION]).flatmap(damaged))
def test_a_damaged_record_makes_rows_of_the_right_kinds_or_a_data_error(record: dict[str, Any]) -> None:
    for view in VIEWS:
        try:
            rows = list(view.rows(record))
        except DataError:
            continue
        for row in rows:
            assert len(row) == len(view.columns)
            for cell, column in zip(row, view.columns, strict=True):
                allowed = KINDS.get(column.type, (str,))
                assert cell is None or (isinstance(cell, allowed) and (bool in allowed or cell is not True))


def test_undamaged_records_make_their_rows() -> None:
    patient, observation = (list(view.rows(record)) for view, record in zip(VIEWS, (PATIENT, OBSERVATION), strict=True))
    assert patient[0][:5] == ("p1", "female", True, "1974-12-25", True)
    assert [row[-4:] for row in observation] == [
        (Decimal("121.5"), True, "8480-6", "http://loinc.org"),
        (Decimal("1.5"), True, "8480-6", "http://loinc.org"),
        (Decimal("121.5"), True, "x", None),
        (Decimal("1.5"), True, "x", None),
    ]


TOKENS = """name given value deceased Patient Quantity string is as and or in = != ~ < + - * / & | , {} % [ ]
    . . . ( ) ( ) 1 2.5 'a' @2020 @T10 true $this $index $total `x`"""
WORDS = st.sampled_from([*NAMES, *TOKENS.split(), "4 'mg'", "3 days"])


@settings(max_examples=500, deadline=None)
@given(st.lists(WORDS, max_size=12).map("".join) | st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=12))
def test_random_text_is_compiled_and_run_or_refused_by_our_own_errors(text: str) -> None:
    try:
        compile_path(text, root_type="Patient")(PATIENT)
    except (SchemaError, DataError) as error:
        assert "\n" not in str(error)


PARTS = """name given family extension value deceased birthDate contained id address meta tail() empty() last()
    first() where($this.exists()) exists() count() distinct() extension('u') type().name children() where($index>0)
    ofType(boolean) ofType(Coding) descendants() hasValue() skip(1) combine(%resource.id) select(id|$this) [0]
    iif($this.exists(),$this,1) where($thisisstring) select($index) take(1).exists() $this=$this $this|'x'"""
STEPS = st.sampled_from([part.replace("$thisisstring", "$this is string") for part in PARTS.split()])


@settings(max_examples=500, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=5).map(lambda steps: ".".join(steps).replace(".[", "[")))
def test_paths_give_the_same_with_types_without_them_and_in_views(text: str) -> None:
    # known types take compiled short cuts, unknown ones look everything up in each record, views take bare values
    def answer(root_type: str | None) -> list[Any] | None:
        try:
            found = compile_path(text, root_type=root_type)._runs[root_type](PATIENT)
        except (SchemaError, DataError):
            return None
        return [element.value for element in found]

    def cells() -> list[Any] | None:
        column = {"name": "x", "path": text, "collection": True}
        try:
            view = compile_view({"resource": "Patient", "select": [{"column": [column]}]})
            return next(view.rows(PATIENT))[0]
        except (SchemaError, DataError):
            return None

    typed, untyped, column = answer("Patient"), answer(None), cells()
    # each way refuses some that another does not: without types less is known beforehand, cells hold single values
    if typed is not None and untyped is not None:
        assert typed == untyped
    if typed is not None and column is not None:
        assert [value for value in typed if value is not None] == column
