"""Dates of partial precision and quantities, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from synthehr.connectors.fhir.fhirpath import compile_path
from synthehr.errors import DataError


def run(text: str) -> list[Any]:
    return compile_path(text, root_type="Patient")({"resourceType": "Patient", "birthDate": "1974-12"})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("@2012-04 = @2012-04", [True]),
        ("@2012-04 = @2012-05", [False]),
        ("@2012-04 = @2012-04-15", []),
        ("@2012-04 < @2012-05-15", [True]),
        ("@2012-04 < @2012-04-15", []),
        ("@2012 > @2011-12-31", [True]),
        ("birthDate < @1975", [True]),
        ("birthDate < @1974-12-24", []),
        ("@2012-04-15T10:00:00Z = @2012-04-15T12:00:00+02:00", [True]),
        ("@2012-04-15T23:30:00-05:00 > @2012-04-16T03:00:00Z", [True]),
        ("@2012-04-15T10:00:00 = @2012-04-15T10:00:00Z", []),
        ("@2012-04-15T09:00:00 < @2012-04-15T10:00:00Z", []),
        ("@2012-04-15T10:00:00 < @2012-04-20T10:00:00Z", [True]),
        ("@2012-04-15T10:00:00.0 = @2012-04-15T10:00:00", [True]),
        ("@2012-04-15T10:00 = @2012-04-15T10:00:00", []),
        ("@2012-04-15 ~ @2012-04", [False]),
        ("@T10:30 < @T10:31:00", [True]),
        ("@2012 = @T10:30", [False]),
        ("@2012-01-31 + 1 month", ["2012-02-29"]),
        ("@2012-02-29 + 1 year", ["2013-02-28"]),
        ("@2012-01-31 + 36 hours", ["2012-02-01"]),
        ("@2012 + 25 months", ["2014"]),
        ("@2012-03 - 1 month", ["2012-02"]),
        ("@2012-01-31 + 1.9 days", ["2012-02-01"]),
        ("@2012-12-31T23:59:59.5Z + 1 second", ["2013-01-01T00:00:00.5Z"]),
        ("@2012-12-31T23:30:00+05:30 + 1 'h'", ["2013-01-01T00:30:00+05:30"]),
        ("@T23:30 + 45 minutes", ["00:15"]),
        ("birthDate.lowBoundary()", ["1974-12-01"]),
        ("birthDate.highBoundary()", ["1974-12-31"]),
        ("@2012-02.highBoundary()", ["2012-02-29"]),
        ("@2012-02-03T10:00.lowBoundary()", ["2012-02-03T10:00:00.000+14:00"]),
        ("@2012-02-03T10:00Z.highBoundary()", ["2012-02-03T10:00:59.999Z"]),
        ("@2012-02-03T10:00.highBoundary(4)", ["2012"]),
        ("@2012-02.lowBoundary(17)", []),
        ("'2012-02-30'.toDate()", []),
        ("'2012-02'.convertsToDate()", [True]),
        ("'24:00'.convertsToTime()", [False]),
        ("'2012-02-03T10:00'.toDate()", ["2012-02-03"]),
    ],
)
def test_dates_say_what_their_precision_allows(text: str, found: list[Any]) -> None:
    assert run(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1 'g' = 1000 'mg'", [True]),
        ("1 'mg/dL' = 10 'mg/L'", [True]),
        ("1 'mmol/L' = 1 'mol/m3'", [True]),
        ("1 'kg' > 2 '[lb_av]'", [True]),
        ("1 'm' = 1 's'", [False]),
        ("1 'm' < 1 's'", []),
        ("7 days = 1 'wk'", [True]),
        ("1 year = 12 months", [True]),
        ("1 year = 1 'a'", []),
        ("1 year ~ 1 'a'", [True]),
        ("5 '10*3/uL' = 5 '10*9/L'", [True]),
        ("1 '{score}' = 1 '1'", [True]),
        ("2 'cm' * 3 'cm' = 6 'cm2'", [True]),
        ("6 'g' / 2 = 3 'g'", [True]),
        ("1 'g' + 1 'g'", [{"value": 2, "unit": "g", "system": "http://unitsofmeasure.org", "code": "g"}]),
        ("3 '[arb]' = 3 '[arb]'", [True]),
    ],
)
def test_quantities_are_converted_where_units_are_known(text: str, found: list[Any]) -> None:
    assert run(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 '[arb]' = 1 'g'", "units are not known"),
        ("1 'g' + 1 'mg'", "different units"),
        ("@2012-01-01 + 1 'mo'", "no calendar duration"),
        ("@2012-01-01 + 1 'g'", "no calendar duration"),
        ("@9999 + 1 year", "years 1 to 9999"),
        ("@T10 + 1 year", "time of day"),
        ("@T10:00 < @2012", "not"),
    ],
)
def test_what_cannot_be_converted_is_an_error(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        run(text)


def test_a_quantity_outside_ucum_equals_itself_alone() -> None:
    def found(text: str, **quantity: Any) -> list[Any]:
        record = {"resourceType": "Observation", "valueQuantity": quantity}
        return compile_path(text, root_type="Observation")(record)

    text = "value.ofType(Quantity) > 5 'm'"
    assert found(text, value=6, unit="m") == []  # months, metres or minutes: nobody says
    assert found(text, value=6, code="m", system="http://unitsofmeasure.org") == [True]
    assert found(text, value=6, code="m", system="http://unitsofmeasure.org", comparator="<") == []
    assert found("value.ofType(Quantity) = value.ofType(Quantity)", value=6, unit="m") == [True]
    assert found("value.ofType(Quantity) > 5", value=6) == [True]


def test_numbers_too_long_to_write_out_are_refused() -> None:
    from decimal import Decimal

    path = compile_path("value.ofType(Quantity).value.toString()", root_type="Observation")
    with pytest.raises(DataError):
        path({"resourceType": "Observation", "valueQuantity": {"value": Decimal("1e999999")}})
