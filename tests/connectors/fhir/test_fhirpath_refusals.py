"""What is not supported or cannot be meant is refused when the expression is compiled, in one clear line."""

from __future__ import annotations

import pytest

from synthehr.connectors.fhir.fhirpath import compile_path
from synthehr.connectors.fhir.fhirpath.functions import NAMES
from synthehr.errors import SchemaError


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has the end at character 1"),
        ("name.", "has the end"),
        ("name given", "has 'given' at character 6"),
        ("name.where(", "has the end"),
        ("@@", "begins nothing of the language"),
        ("'open", "begins nothing of the language"),
        ("1 /* open", "unfinished comment"),
        ("'\\q'", "unknown escape"),
        ("1 +", "has the end"),
        ("@2020-13-01", "there is no Date @2020-13-01"),
        ("99999999999", "32 bits"),
        ("name.resolve()", "a view sees one resource at a time"),
        ("name.trace('x')", "would write values of patients to a log"),
        ("name.memberOf('v')", "terminology"),
        ("name.exist()", r"exist\(\) is not supported; did you mean exists\(\)\?"),
        ("name.where()", "where.. takes 1 arguments, not 0"),
        ("name.first(1)", "takes 0 arguments"),
        ("name.where(use)", r"where\(\) needs a boolean, not code"),
        ("name.ofType(Nme)", "there is no type Nme"),
        ("name.ofType('Patient')", "needs the name of a type"),
        ("%nothing", "the constant %nothing is not defined"),
        ("$total", "stands outside"),
        ("%rowIndex", "is not defined"),
        ("Encounter.id", "begins with Encounter and is evaluated on a Patient"),
        ("deceasedBoolean", r"Patient has no element deceasedBoolean: write deceased.ofType\(boolean\)"),
        ("birthDate = '1974-12-25'", "compares a text with a date"),
        ("maritalStatus = 'M'", "compares CodeableConcept with System.String"),
        ("birthDate < 5", "orders"),
        ("active < true", "orders"),
        ("name < name", "orders"),
        ("gender + 1", "does not take string and integer"),
        ("name.upper()", r"upper\(\) does not take HumanName"),
        ("gender.abs()", r"abs\(\) does not take code"),
        ("gender.substring('a')", "does not take System.String"),
        ("gender.matches('(')", "regular expression"),
        ("'a'.family", "a System.String has no element family"),
        ("-gender", "does not take code"),
        ("name[gender]", "does not take code"),
        ("name.getReferenceKey()", "needs a Reference"),
        ("(" * 100 + "1" + ")" * 100, "nested deeper"),
        ("name" + ".first()" * 500, "more than 400 steps"),
        ("'" + "a" * 30_000 + "'", "at most 20000"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(SchemaError, match=why) as caught:
        compile_path(text, root_type="Patient")
    assert "\n" not in str(caught.value)


def test_an_element_that_r4_lacks_is_refused_when_strict_and_else_told() -> None:
    with pytest.raises(SchemaError, match=r"R4 has no element Patient\.animal"):
        compile_path("animal.species", root_type="Patient", strict=True)
    path = compile_path("animal.species", root_type="Patient")
    assert path.unknown == ("Patient.animal",)
    assert path({"resourceType": "Patient", "animal": {"species": "dog"}}) == ["dog"]


def test_children_have_no_order_when_strict() -> None:
    with pytest.raises(SchemaError, match="children have none"):
        compile_path("children().first()", root_type="Patient", strict=True)


def nested(levels: int) -> str:
    return "descendants().where(" * levels + "true" + ").exists()" * levels


def test_loops_are_nested_as_deep_as_python_has_room_and_else_refused() -> None:
    record = {"resourceType": "Patient", "name": [{"family": "Dahl"}]}
    # two descendants have none themselves: nothing is left from the second level on
    assert compile_path(nested(10), root_type="Patient")(record) == [False]
    with pytest.raises(SchemaError, match="too many loops"):
        compile_path(nested(25), root_type="Patient")
    long = "contact" + ".extension" * 60 + ".url"
    assert compile_path(long, root_type="Patient")(record) == []


def test_every_function_that_is_named_as_supported_is_known() -> None:
    # a name that is not built says "not supported"; a known one complains of its arguments at most
    for name in NAMES:
        try:
            compile_path(f"{name}()")
        except SchemaError as error:
            assert "not supported" not in str(error)


def test_text_of_an_expression_never_becomes_python() -> None:
    text = "name.`given) or __import__('os').getpid() #`.where(`\"\"\"` = '\\'); raise SystemExit #')"
    assert compile_path(text, root_type="Patient")({"resourceType": "Patient", "name": [{}]}) == []
