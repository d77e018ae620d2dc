"""Views over small made resources; every expected row is worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from synthehr.connectors.fhir.fhirpath import parse_json
from synthehr.connectors.fhir.views import compile_view
from synthehr.errors import DataError, SchemaError

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "active": False,
    "name": [{"family": "Dahl", "given": ["Anna", "Mia"]}, {"family": "Berg"}],
    "telecom": [{"value": "1"}, {"value": "2"}],
}


def column(name: str, path: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "path": path, **more}


def view(*selects: dict[str, Any], resource: str = "Patient", **more: Any) -> dict[str, Any]:
    return {"resource": resource, "select": list(selects), **more}


def rows(definition: dict[str, Any], resource: dict[str, Any] = PATIENT) -> list[tuple[Any, ...]]:
    return list(compile_view(definition).rows(resource))


FAMILY = {"forEach": "name", "column": [column("family", "family")]}
PHONE = {"forEach": "telecom", "column": [column("phone", "value")]}
KEY = {"column": [column("id", "id")]}


def test_columns_come_in_the_order_of_the_definition_with_their_types() -> None:
    compiled = compile_view(
        view(
            {
                "column": [column("a", "id"), column("b", "name.given", collection=True, description="first names")],
                "select": [{"column": [column("c", "birthDate")]}],
                "unionAll": [{"column": [column("d", "'x'", type="code")]}],
            },
            {"column": [column("e", "name.count()"), column("f", "animal")]},
            name="people",
        )
    )
    assert (compiled.name, compiled.resource) == ("people", "Patient")
    assert [(c.name, c.type, c.collection) for c in compiled.columns] == [
        ("a", "id", False),
        ("b", "string", True),
        ("c", "date", False),
        ("d", "code", False),
        ("e", "integer", False),
        ("f", None, False),
    ]
    assert compiled.columns[1].description == "first names"
    assert compiled.unknown == ("Patient.animal",)
    assert list(compiled.rows(PATIENT)) == [("p1", ["Anna", "Mia"], None, "x", 2, None)]


def test_for_each_makes_a_row_of_each_item_and_none_of_nothing() -> None:
    assert rows(view(KEY, FAMILY)) == [("p1", "Dahl"), ("p1", "Berg")]
    assert rows(view(KEY, {"forEach": "photo", "column": [column("url", "url")]})) == []


def test_an_item_without_a_value_makes_a_row_without_it() -> None:
    made = {**PATIENT, "name": [{"given": [None, "Mia"], "_given": [{"extension": [{"url": "u"}]}, None]}]}
    for way in ("forEach", "forEachOrNull"):
        select = {way: "name.given", "column": [column("given", "$this"), column("at", "%rowIndex")]}
        assert rows(view(select), made) == [(None, 0), ("Mia", 1)]


def test_for_each_or_null_keeps_the_resource_with_empty_cells() -> None:
    photo = {
        "forEachOrNull": "photo",
        "column": [
            column("url", "url"),
            column("there", "url.exists()"),
            column("at", "%rowIndex"),
            column("x", "'x'"),
        ],
    }
    assert rows(view(KEY, photo)) == [("p1", None, None, 0, None)]
    # with selects inside it is one empty row as well, whatever they would give
    inside = {"forEachOrNull": "photo", "column": [column("url", "url")], "select": [
        {"forEach": "extension", "column": [column("e", "url")]}]}  # fmt: skip
    assert rows(view(KEY, inside)) == [("p1", None, None)]
    # an item without anything inside gives no row, as the item is there
    assert rows(view(KEY, inside), {**PATIENT, "photo": [{"url": "u"}]}) == []


def test_two_loops_make_all_pairs_the_last_one_going_round_slowest() -> None:
    assert rows(view(FAMILY, PHONE)) == [("Dahl", "1"), ("Berg", "1"), ("Dahl", "2"), ("Berg", "2")]


def test_nested_loops_stay_inside_their_item() -> None:
    nested = {**FAMILY, "select": [{"forEachOrNull": "given", "column": [column("given", "$this")]}]}
    assert rows(view(nested)) == [("Dahl", "Anna"), ("Dahl", "Mia"), ("Berg", None)]


def test_a_union_lists_its_branches_one_after_the_other() -> None:
    union = {"unionAll": [
        {"forEach": "telecom", "column": [column("value", "value"), column("at", "%rowIndex")]},
        {"column": [column("value", "id"), column("at", "%rowIndex")]},
        {"unionAll": [{"forEach": "name.given", "column": [column("value", "$this"), column("at", "%rowIndex")]}]},
    ]}  # fmt: skip
    found = [("1", 0), ("2", 1), ("p1", 0), ("Anna", 0), ("Mia", 1)]
    assert rows(view(union)) == found
    assert rows(view(union, FAMILY)) == [(*row, name) for name in ("Dahl", "Berg") for row in found]


def test_the_branches_of_a_union_share_the_widest_of_their_types() -> None:
    def union(*paths: str) -> dict[str, Any]:
        return view({"unionAll": [{"column": [column("x", path)]} for path in paths]})

    assert compile_view(union("{}", "birthDate", "'a'")).columns[0].type == "date"
    assert compile_view(union("1", "2.5")).columns[0].type == "decimal"
    assert compile_view(union("{}", "{}")).columns[0].type is None
    with pytest.raises(SchemaError, match="branches of the unionAll give boolean and code"):
        compile_view(union("active", "gender"))


def test_repeat_goes_down_all_its_paths_depth_first() -> None:
    # 1 has 1.1, whose answer has 1.1.1; 2 has nothing inside
    leaf = {"linkId": "1.1.1"}
    response = {"resourceType": "QuestionnaireResponse", "id": "q", "item": [
        {"linkId": "1", "item": [{"linkId": "1.1", "answer": [{"valueString": "a", "item": [leaf]}]}]},
        {"linkId": "2"}]}  # fmt: skip

    def found(*paths: str) -> list[tuple[Any, ...]]:
        select = {"repeat": list(paths), "column": [column("link", "linkId"), column("at", "%rowIndex")]}
        return rows(view(select, resource="QuestionnaireResponse"), response)

    # 'answer' is an element of the items that 'item' gives, not of the response: strict knows that
    compile_view(view({"repeat": ["item", "answer.item"], **KEY}, resource="QuestionnaireResponse"), strict=True)
    assert found("item") == [("1", 0), ("1.1", 1), ("2", 2)]
    assert found("item", "answer.item") == [("1", 0), ("1.1", 1), ("1.1.1", 2), ("2", 3)]


def test_where_keeps_resources_of_which_it_is_true_and_not_unknown() -> None:
    def kept(path: str, **more: Any) -> bool:
        return bool(rows(view(KEY, where=[{"path": path}]), {**PATIENT, **more}))

    assert kept("active = false")
    assert not kept("active")
    assert not kept("deceased.ofType(boolean)")
    assert kept("deceased.ofType(boolean)", deceasedBoolean=True)
    assert not rows(view(KEY, where=[{"path": "true"}, {"path": "id = 'p2'"}]))
    with pytest.raises(DataError, match="must be a boolean"):
        kept("deceased", deceasedDateTime="2020")


def test_what_one_condition_looked_up_is_not_taken_for_granted_elsewhere() -> None:
    # the text is looked at by the where only if the patient is not active
    definition = view(
        {"column": [column("text", "maritalStatus.text")]}, where=[{"path": "active or maritalStatus.text = 'M'"}]
    )
    assert rows(definition, {**PATIENT, "active": True, "maritalStatus": {"text": "S"}}) == [("S",)]
    assert rows(definition, {**PATIENT, "active": True}) == [(None,)]
    assert rows(definition, {**PATIENT, "active": False}) == []


def test_loops_that_multiply_beyond_bounds_are_an_error() -> None:
    many = {**PATIENT, "name": [{"family": "x"}] * 400, "telecom": [{"value": "1"}] * 400}
    with pytest.raises(DataError, match="more than 100000 rows"):
        rows(view(FAMILY, PHONE), many)


@pytest.mark.parametrize("resource", [None, "Patient", [PATIENT]])
def test_what_is_no_object_is_a_data_error(resource: Any) -> None:
    with pytest.raises(DataError, match="JSON object"):
        rows(view(KEY), resource)


def test_a_resource_of_another_type_makes_no_row() -> None:
    assert rows(view(KEY), {"resourceType": "Practitioner", "id": "p1"}) == []
    assert rows(view(KEY), {"id": "p1"}) == []


def test_constants_keep_their_types() -> None:
    constants = [
        {"name": "day", "valueDate": "2020-02-01"},
        {"name": "most", "valueDecimal": 1.5},
        {"name": "flag", "valueBoolean": False},
    ]
    columns = {"column": [
        column("before", "birthDate < %day"),
        column("few", "name.count() < %most"),
        column("same", "active = %flag"),
        column("day", "%day"),
    ]}  # fmt: skip
    made = {**PATIENT, "birthDate": "2020-01"}
    assert rows(view(columns, constant=constants), made) == [(True, False, True, "2020-02-01")]


def test_cells_are_json_values_and_dates_are_text() -> None:
    columns = {"column": [
        column("soon", "@2020-01-31 + 1 day"), column("half", "1 / 2"), column("count", "name.count()"),
        column("name", "name.first()", type="HumanName"),
    ]}  # fmt: skip
    assert rows(view(columns)) == [("2020-02-01", Decimal("0.5"), 2, PATIENT["name"][0])]


def test_several_values_in_a_cell_are_an_error_that_names_the_column() -> None:
    definition = view({"column": [column("family", "name.family")]}, name="people")
    assert rows(definition, {**PATIENT, "name": [{"family": "Dahl"}]}) == [("Dahl",)]
    with pytest.raises(DataError, match=r"view 'people': column 'family'.* gives several") as caught:
        rows(definition)
    assert "Dahl" not in str(caught.value)


@pytest.mark.parametrize("animal", [{"a": 1}, ["a", "b"], [[1]]])
def test_an_element_that_r4_lacks_must_still_be_one_value(animal: Any) -> None:
    with pytest.raises(DataError):
        rows(view({"column": [column("animal", "animal")]}), {**PATIENT, "animal": animal})


def test_an_element_that_r4_lacks_must_be_of_the_declared_kind() -> None:
    definition = view({"column": [column("animal", "animal", type="integer")]})
    assert rows(definition, {**PATIENT, "animal": 3}) == [(3,)]
    with pytest.raises(DataError, match="cannot hold"):
        rows(definition, {**PATIENT, "animal": "3"})


def test_exact_decimals_are_asked_for_where_they_matter() -> None:
    low = view({"column": [column("low", "value.ofType(Quantity).value.lowBoundary()")]}, resource="Observation")
    compiled = compile_view(low)
    assert compiled.needs_exact_decimals
    text = b'{"resourceType": "Observation", "valueQuantity": {"value": 1.50}}'
    assert list(compiled.rows(parse_json(text))) == [(Decimal("1.495"),)]
    assert not compile_view(view(KEY)).needs_exact_decimals


def test_references_can_be_read_by_an_index_of_the_callers() -> None:
    keys = {"Organization?identifier=1": "o7"}
    compiled = compile_view(
        view({"column": [column("organization", "managingOrganization.getReferenceKey(Organization)")]}),
        reference_reader=lambda reference, _type: keys.get(reference["reference"]),
    )
    made = {**PATIENT, "managingOrganization": {"reference": "Organization?identifier=1"}}
    assert list(compiled.rows(made)) == [("o7",)]


@pytest.mark.parametrize(
    ("reference", "any_type", "organization"),
    [
        ({"reference": "Organization/o1"}, "o1", "o1"),
        ({"reference": "http://x.org/fhir/Organization/o1/_history/2"}, "o1", "o1"),
        ({"reference": "Practitioner/r1"}, "r1", None),
        ({"reference": "urn:uuid:c0ffee"}, "c0ffee", "c0ffee"),
        ({"reference": "urn:uuid:c0ffee", "type": "Practitioner"}, "c0ffee", None),
        ({"reference": "#c1"}, None, None),
        ({"reference": "Organization?identifier=1"}, None, None),
        ({"identifier": {"value": "1"}}, None, None),
    ],
)
def test_reference_keys(reference: dict[str, Any], any_type: str | None, organization: str | None) -> None:
    columns = {"column": [
        column("a", "managingOrganization.getReferenceKey()"),
        column("b", "managingOrganization.getReferenceKey(Organization)"),
    ]}  # fmt: skip
    assert rows(view(columns), {**PATIENT, "managingOrganization": reference}) == [(any_type, organization)]


@pytest.mark.parametrize(
    ("definition", "why"),
    [
        ([], "must be an object"),
        ({}, "needs 'resource'"),
        (view(KEY, resource="Patiant"), "R4 has no resource 'Patiant'"),
        (view(KEY, resource="HumanName"), "R4 has no resource"),
        (view(), "needs 'select'"),
        (view({}), "a select needs 'column'"),
        (view({"forEach": "name"}), "a select needs 'column'"),
        (view({**KEY, "forEach": 1}), "forEach must be a FHIRPath text"),
        (view({**KEY, "forEach": "@@"}), "forEach: FHIRPath '@@'"),
        (view({**KEY, "forEach": "name", "forEachOrNull": "name"}), "both forEach and forEachOrNull"),
        (view({**KEY, "repeat": []}), "at least one path"),
        (view({**KEY, "foreach": "name"}), "the key 'foreach'"),
        (view(KEY, were=[]), "the key 'were'"),
        (view({"column": {"name": "a"}}), "'column' must be a list"),
        (view({"column": [column("a b", "id")]}), "'name' of letters"),
        (view({"column": [{"name": "a"}]}), "column 'a' must be a FHIRPath text"),
        (view({"column": [column("a", "id", type="text")]}), "R4 has no type 'text'"),
        (view({"column": [column("a", "id", collection="yes")]}), "'collection' must be"),
        (view(KEY, KEY), "two columns 'id'"),
        (view({"column": [column("a", "name")]}), "which is no single value"),
        (view({"column": [column("a", "deceased")]}), "choose one by ofType"),
        (view({"column": [column("a", "active", type="string")]}), "type string is declared"),
        (view({"column": [column("a", "gender", type="integer")]}), "type integer is declared"),
        (view({"column": [column("a", "deceasedBoolean")]}), r"write deceased.ofType\(boolean\)"),
        (view({"column": [column("a", "name.resolve()")]}), "one resource at a time"),
        (view(KEY, where=[{"path": "name.family"}]), "must be a boolean, not string"),
        (view(KEY, where=[{"path": ""}]), "where must be a FHIRPath text"),
        (view(KEY, constant=[{"name": "c"}]), "constant 'c' needs one value"),
        (view(KEY, constant=[{"name": "c", "valueCode": "a", "valueId": "b"}]), "needs one value"),
        (view(KEY, constant=[{"name": "c", "valueQuantity": {}}]), "the key 'valueQuantity'"),
        (view(KEY, constant=[{"name": "c", "valueInteger": "1"}]), "the value is no integer"),
        (view(KEY, constant=[{"name": "c", "valueDate": "2020-13"}]), "the value is no date"),
        (view(KEY, constant=[{"name": "c", "valueCode": "a"}] * 2), "two constants 'c'"),
        (view({"unionAll": [KEY, {"column": [column("no", "id")]}]}), "differ in column 'id'"),
        (view({"unionAll": [KEY, {"column": [column("id", "id"), column("b", "id")]}]}), "numbers of columns"),
        (
            view(
                {"unionAll": [{"column": [column("a", "id", type="id")]}, {"column": [column("a", "id", type="code")]}]}
            ),
            "differ in column 'a'",
        ),
    ],
)
def test_a_wrong_definition_is_refused_with_its_reason(definition: Any, why: str) -> None:
    with pytest.raises(SchemaError, match=why) as caught:
        compile_view(definition)
    assert "\n" not in str(caught.value)


def test_unknown_elements_are_refused_when_strict() -> None:
    with pytest.raises(SchemaError, match=r"R4 has no element Patient\.animal"):
        compile_view(view({"column": [column("a", "animal")]}), strict=True)
