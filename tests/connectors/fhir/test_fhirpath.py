"""FHIRPath on one made patient and one made observation; every answer is worked out from the language by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from synthehr.connectors.fhir.fhirpath import Element, compile_path, parse_json
from synthehr.connectors.fhir.views import compile_view
from synthehr.errors import DataError, SchemaError

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "active": True,
    "gender": "female",
    "birthDate": "1974-12-25",
    "_birthDate": {"extension": [{"url": "http://x.org/birthTime", "valueDateTime": "1974-12-25T14:35:45-05:00"}]},
    "deceasedDateTime": "2015-02-14T13:42:00+10:00",
    "multipleBirthInteger": 2,
    "name": [
        {"use": "official", "family": "Dahl", "given": ["Anna", "Maria"]},
        {"use": "nickname", "given": ["Mia"]},
        {"use": "maiden", "family": "Berg", "given": ["Anna", None], "_given": [None, {"extension": [{"url": "u"}]}]},
    ],
    "managingOrganization": {"reference": "Organization/o1"},
    "contained": [{"resourceType": "Organization", "id": "c1", "name": "Ward"}],
    "extension": [
        {
            "url": "http://x.org/race",
            "extension": [{"url": "code", "valueCoding": {"code": "2106-3"}}, {"url": "text", "valueString": "White"}],
        }
    ],
}

OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}, {"system": "s", "code": "bp"}]},
    "effectivePeriod": {"start": "2020-03", "end": "2020-04-02"},
    "component": [
        {
            "code": {"coding": [{"code": "8480-6"}]},
            "valueQuantity": {"value": Decimal("120"), "system": "http://unitsofmeasure.org", "code": "mm[Hg]"},
        },
        {"code": {"coding": [{"code": "8462-4"}]}, "valueQuantity": {"value": Decimal("79.50"), "unit": "mmHg"}},
        {"code": {"coding": [{"code": "comment"}]}, "valueString": "lying"},
    ],
}


def run(text: str, resource: dict[str, Any] = PATIENT, **constants: Any) -> list[Any]:
    """The answer, which a path (typed items all along) and a view (bare JSON values) must both give."""
    found = compile_path(text, root_type=resource["resourceType"], constants=constants)(resource)
    column = {"name": "x", "path": text, "collection": True}
    try:
        view = compile_view({"resource": resource["resourceType"], "select": [{"column": [column]}]})
    except SchemaError as error:
        reasons = ("no single value", "choose one by ofType", "is not defined")
        assert any(reason in str(error) for reason in reasons)  # what a column cannot hold, and constants
        return found
    assert list(view.rows(resource)) == [(found,)]
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name.given", ["Anna", "Maria", "Mia", "Anna"]),
        ("Patient.name.family", ["Dahl", "Berg"]),
        ("`name`.`family`", ["Dahl", "Berg"]),
        ("name[1].given", ["Mia"]),
        ("name[7].given", []),
        ("name.where(use = 'maiden').family", ["Berg"]),
        ("name.where(family.exists().not()).use", ["nickname"]),
        ("name.where($index = 1).use", ["nickname"]),
        ("name.first().given.last()", ["Maria"]),
        ("name.tail().use", ["nickname", "maiden"]),
        ("name.skip(2).use", ["maiden"]),
        ("name.take(1).use", ["official"]),
        ("name.skip(-1).count()", [3]),
        ("name.select(given.count())", [2, 1, 2]),
        ("name.given.distinct()", ["Anna", "Maria", "Mia"]),
        ("name.given | name.family", ["Anna", "Maria", "Mia", "Dahl", "Berg"]),
        ("name.given.combine(name.family).count()", [7]),
        ("name.given.exclude('Anna')", ["Maria", "Mia"]),
        ("name.given.intersect('Mia' | 'Eva')", ["Mia"]),
        ("name.all(given.exists())", [True]),
        ("name.all(family.exists())", [False]),
        ("name.exists(use = 'old')", [False]),
        ("photo.empty()", [True]),
        ("name.use.isDistinct()", [True]),
        ("('Anna' | 'Mia').subsetOf(name.given)", [True]),
        ("name.given.join('-')", ["Anna-Maria-Mia-Anna"]),
        ("photo.title.join(',')", [""]),
        ("(3 | 1 | 2).sort()", [1, 2, 3]),
        ("name.sort(-use).use", ["official", "nickname", "maiden"]),
        ("(1 | 2 | 3).aggregate($this + $total, 10)", [16]),
        ("iif(gender = 'female', 'F', 'M')", ["F"]),
        ("iif(photo.exists(), 'yes')", []),
        ("name.where(text = period.start.toString()).count()", [0]),
        ("name.where($this.family = 'Dahl' and $this.use is code).use", ["official"]),
        ("name.given.where($this is string and $this.exists()).first()", ["Anna"]),
        ("gender.iif($this = 'female', 1, 2)", [1]),
        ("getResourceKey()", ["p1"]),
        ("managingOrganization.getReferenceKey()", ["o1"]),
        ("managingOrganization.getReferenceKey(Organization)", ["o1"]),
        ("managingOrganization.getReferenceKey(Patient)", []),
        ("extension('http://x.org/race').extension('code').value.ofType(Coding).code", ["2106-3"]),
        ("extension('http://x.org/race').extension.where(url = 'text').value.ofType(string)", ["White"]),
        ("birthDate.extension('http://x.org/birthTime').value", ["1974-12-25T14:35:45-05:00"]),
        ("birthDate.where(extension.exists())", ["1974-12-25"]),
        ("gender.where(extension.exists())", []),
        ("contained.ofType(Organization).name", ["Ward"]),
        ("contained.name", ["Ward"]),
        ("contained.ofType(Patient)", []),
        ("descendants().where($this is Coding).code", ["2106-3"]),
        ("repeat(extension).url", ["http://x.org/race", "code", "text"]),
        ("%resource.id = id", [True]),
        ("{}", []),
    ],
)
def test_collections_and_paths(text: str, found: list[Any]) -> None:
    assert run(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("deceased.ofType(dateTime)", ["2015-02-14T13:42:00+10:00"]),
        ("deceased.ofType(boolean)", []),
        ("deceased", ["2015-02-14T13:42:00+10:00"]),
        ("deceased is dateTime", [True]),
        ("deceased is boolean", [False]),
        ("(deceased as dateTime) > @2014", [True]),
        ("multipleBirth.ofType(integer) + 1", [3]),
        ("gender is string", [True]),
        ("gender.ofType(string)", []),
        ("gender is System.String", [False]),
        ("active.type().name", ["boolean"]),
        ("Patient is DomainResource", [True]),
        ("photo is Attachment", []),
    ],
)
def test_types_come_from_the_table_of_r4(text: str, found: list[Any]) -> None:
    assert run(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("component.value.ofType(Quantity).value", [Decimal(120), Decimal("79.50")]),
        ("component.where(value is string).value", ["lying"]),
        ("component.value.ofType(string)", ["lying"]),
        ("component.select(value is Quantity)", [True, True, False]),
        ("component.value.where($this is string)", ["lying"]),
        ("component.value.where($this is Quantity).count()", [2]),
        ("component.where(value.ofType(Quantity) > 100 'mm[Hg]').code.coding.code", ["8480-6"]),
        ("effective.ofType(Period).start", ["2020-03"]),
        ("effective.ofType(Period).start < effective.ofType(Period).end", [True]),
        ("code.coding.where(system = 'http://loinc.org').code = '85354-9'", [True]),
        ("code.coding.code = 'bp'", [False]),
        ("'bp' in code.coding.code", [True]),
        ("code.coding.code contains 'x'", [False]),
        ("component.code.coding.code.first()", ["8480-6"]),
        ("code.coding.where(system = 'none').combine(code.coding).first().code", ["85354-9"]),
    ],
)
def test_choices_inside_components(text: str, found: list[Any]) -> None:
    assert run(text, OBSERVATION) == found


@pytest.mark.parametrize(
    ("left", "right", "both", "either", "one", "follows"),
    [
        ("true", "true", [True], [True], [False], [True]),
        ("true", "false", [False], [True], [True], [False]),
        ("true", "{}", [], [True], [], []),
        ("false", "true", [False], [True], [True], [True]),
        ("false", "false", [False], [False], [False], [True]),
        ("false", "{}", [False], [], [], [True]),
        ("{}", "true", [], [True], [], [True]),
        ("{}", "false", [False], [], [], []),
        ("{}", "{}", [], [], [], []),
    ],
)
def test_logic_has_three_values(
    left: str, right: str, both: list[bool], either: list[bool], one: list[bool], follows: list[bool]
) -> None:
    found = [run(f"{left} {operator} {right}") for operator in ("and", "or", "xor", "implies")]
    assert found == [both, either, one, follows]
    # where() asks for truth alone and takes a shorter way
    taken = [bool(run(f"name.first().where({left} {operator} {right})")) for operator in ("and", "or")]
    assert taken == [both == [True], either == [True]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1 + 2 * 3", [7]),
        ("(1 + 2) * 3", [9]),
        ("-2 + 1", [-1]),
        ("7 div 2", [3]),
        ("-7 div 2", [-3]),
        ("-7 mod 2", [-1]),
        ("5 / 2", [Decimal("2.5")]),
        ("1 / 0", []),
        ("0.1 + 0.2 = 0.3", [True]),
        ("'a' + 'b'", ["ab"]),
        ("'a' + {}", []),
        ("'a' & {}", ["a"]),
        ("1 | 2 = 2 | 1", [False]),
        ("(1 | 2) ~ (2 | 1)", [True]),
        ("1 = 1.0", [True]),
        ("1.10 ~ 1.1", [True]),
        ("'A b' ~ 'a  B'", [True]),
        ("true = 1", [False]),
        ("1 = {}", []),
        ("{} ~ {}", [True]),
        ("not true", None),
        ("true.not()", [False]),
        ("1 < 2 and 'a' < 'b'", [True]),
        ("2.5.round()", [Decimal(3)]),
        ("1.2345.round(2)", [Decimal("1.23")]),
        ("(-1.5).ceiling()", [-1]),
        ("(-1.5).floor()", [-2]),
        ("81.sqrt() = 9", [True]),
        ("8.log(2) = 3", [True]),
        ("(-1).sqrt()", []),
        ("'42'.toInteger() + 1", [43]),
        ("'3000000000'.toInteger()", []),
        ("'x'.toInteger()", []),
        ("1.50.toString()", ["1.50"]),
        ("'1 \\'mg\\''.toQuantity() = 1 'mg'", [True]),
        ("'abc'.substring(1, 1)", ["b"]),
        ("'abc'.substring(5)", []),
        ("'abc'.matches('^a.c$')", [True]),
        ("'a-b'.replaceMatches('(.)-(.)', '$2-$1')", ["b-a"]),
        ("'a,b'.split(',')", ["a", "b"]),
        ("'\\u0041'", ["A"]),
        ("/* c */ 1 // d", [1]),
    ],
)
def test_values_and_operators(text: str, found: list[Any] | None) -> None:
    if found is None:
        with pytest.raises(SchemaError):
            run(text)
    else:
        assert run(text) == found


def test_a_chain_of_operators_binds_as_the_language_has_it() -> None:
    # (1 | 2) first, then =, then and, then or, then implies: false or (true and true) implies false
    assert run("false or 1 | 2 = 1 | 2 and true implies false") == [False]


def test_elements_with_extensions_alone_exist_but_have_no_value() -> None:
    record = {"resourceType": "Patient", "_birthDate": {"extension": [{"url": "u", "valueCode": "unknown"}]}}
    assert run("birthDate", record) == []
    assert run("birthDate.exists()", record) == [True]
    assert run("birthDate.hasValue()", record) == [False]
    assert run("birthDate.distinct().count()", record) == [1]
    assert run("birthDate.extension('u').value.ofType(code)", record) == ["unknown"]
    assert run("name.given.count()") == [5]
    assert run("name.given.where($this.exists()).count()") == [5]


def test_an_element_without_a_value_keeps_its_place() -> None:
    # R4: the null stands for a given name that has extensions alone
    record = {"resourceType": "Patient", "name": [{"given": [None, "Mia"], "_given": [{"extension": [{"url": "u"}]}]}]}
    assert run("name.given", record) == ["Mia"]
    assert run("name.given.first()", record) == []
    assert run("name.given.last()", record) == ["Mia"]
    assert run("name.given[1]", record) == ["Mia"]
    assert run("name.given.tail()", record) == ["Mia"]
    assert run("name.given.where($index = 1)", record) == ["Mia"]
    assert run("name.given.select($index)", record) == [0, 1]
    assert run("name.given.first().extension.url", record) == ["u"]


def test_constants_bring_their_types() -> None:
    assert run("gender = %wanted", wanted="female") == [True]
    assert run("birthDate = %day", day=Element("1974-12-25", "date")) == [True]
    assert run("multipleBirth.ofType(integer) < %most", most=2.5) == [True]


def test_without_a_root_type_the_resource_brings_it() -> None:
    path = compile_path("status.exists() or gender = 'female'")
    assert path(PATIENT) == [True]
    assert path(OBSERVATION) == [True]


def test_results_carry_their_types() -> None:
    found = compile_path("gender | birthDate | 1 | 'a' | today()", root_type="Patient").elements(PATIENT)
    assert [element.type for element in found] == ["code", "date", "System.Integer", "System.String", "System.Date"]


def test_several_items_where_one_is_needed_are_an_error_and_never_the_first() -> None:
    with pytest.raises(DataError, match=r"needs one value .* add first\(\)"):
        run("name.given + 'x'")
    with pytest.raises(DataError, match="needs one value"):
        run("name.family.startsWith('D')")


def test_decimals_keep_their_digits_where_the_reader_keeps_them() -> None:
    record = parse_json(b'{"resourceType": "Observation", "valueQuantity": {"value": 1.50}}')
    assert str(run("value.ofType(Quantity).value", record)[0]) == "1.50"
    assert run("value.ofType(Quantity).value.precision()", record) == [2]
    # 1.50 was at least 1.495, 1.5 would have been at least 1.45
    assert run("value.ofType(Quantity).value.lowBoundary(3)", record) == [Decimal("1.495")]


def test_floats_are_refused_where_digits_matter_and_compared_as_written_elsewhere() -> None:
    record = {"resourceType": "Observation", "valueQuantity": {"value": 0.1}}
    assert run("value.ofType(Quantity).value + 0.2 = 0.3", record) == [True]
    for text in ("lowBoundary()", "precision()", "toString()"):
        path = compile_path(f"value.ofType(Quantity).value.{text}", root_type="Observation")
        assert path.needs_exact_decimals
        with pytest.raises(DataError, match="parse_json"):
            path(record)
    assert not compile_path("value.ofType(Quantity).value > 0.05", root_type="Observation").needs_exact_decimals


@pytest.mark.parametrize(
    ("text", "value"),
    [("value.ofType(Quantity).value = 1", float("nan")), ("value.ofType(Quantity).value ~ 1.5", 1e30)],
)
def test_numbers_out_of_range_are_data_errors(text: str, value: float) -> None:
    with pytest.raises(DataError):
        run(text, {"resourceType": "Observation", "valueQuantity": {"value": value}})


@pytest.mark.parametrize("text", [b'{"a": NaN}', b"{", b"[" * 100_000])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(DataError, match="not JSON"):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("name.given", {"resourceType": "Patient", "name": "Dahl"}),
        ("name.given", {"resourceType": "Patient", "name": [{"given": "Anna"}]}),
        ("name.given", {"resourceType": "Patient", "name": ["Dahl"]}),
        ("gender", {"resourceType": "Patient", "gender": {"code": "female"}}),
        ("active", {"resourceType": "Patient", "active": "true"}),
        ("multipleBirth.ofType(integer)", {"resourceType": "Patient", "multipleBirthInteger": 1.5}),
        (
            "managingOrganization.getReferenceKey()",
            {"resourceType": "Patient", "managingOrganization": "Organization/1"},
        ),
        ("extension('u').value.ofType(code)", {"resourceType": "Patient", "extension": {"url": "u"}}),
        ("birthDate < today()", {"resourceType": "Patient", "birthDate": "yesterday"}),
        ("deceased.ofType(boolean)", {"resourceType": "Patient", "deceasedBoolean": 1}),
    ],
)
def test_a_record_of_another_shape_is_a_data_error_that_quotes_no_value(text: str, record: dict[str, Any]) -> None:
    column = {"name": "x", "path": text, "collection": True}
    view = compile_view({"resource": "Patient", "select": [{"column": [column]}]})
    with pytest.raises(DataError):
        list(view.rows(record))
    with pytest.raises(DataError) as caught:
        compile_path(text, root_type="Patient")(record)
    for value in ("Dahl", "Anna", "female", "yesterday", "Organization/1", "1.5"):
        assert value not in str(caught.value)
