"""What identifies a person: the 18 identifiers of HIPAA's Safe Harbor, by name and by pattern, and quasi-identifiers.

Source: 45 CFR 164.514(b)(2)(i), letters A to R. Dates (C) are not among them here: they become offsets.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from synthehr.schema.ages import says_age, words_of

__all__ = ["identifier_by_name", "identifier_by_pattern", "quasi_identifier"]

# What is dropped, by what HIPAA calls it: a word of the name, or words that must all stand in it.
_NAMES: Mapping[str, str] = {
    "a name": "name firstname lastname surname forename givenname familyname fname lname maiden nickname initials "
    "prefix suffix guardian ownername",
    "a place smaller than a state": "address addr street city town village county district zip zipcode postcode postal "
    "postalcode lat lon lng latitude longitude geocode fips birthplace precinct parish neighborhood neighbourhood "
    "place|birth",
    "a part of a date of birth": "year|birth month|birth day|birth birthyear birthmonth birthdate birthday dob yob",
    "a telephone number": "phone telephone cellphone phonenumber",
    "a fax number": "fax faxnumber",
    "an electronic mail address": "email emailaddress",
    "a social security number": "ssn socialsecurity social|security nationalid national|id nhsnumber nhs|number nino",
    "a medical record number": "mrn medicalrecord medical|record chart|number hospital|number",
    "a health plan number": "memberid member|id beneficiary policy|number insurance|number insuranceid medicare|number "
    "subscriber subscriberid",
    "an account number": "account accountnumber acct iban card|number creditcard",
    "a certificate or licence number": "license licence licensenumber driverslicense passport certificate npi",
    "a vehicle identifier": "licenseplate license|plate vehicle",
    "a device identifier": "udi serial serialnumber device|id imei",
    "a web address": "url uri website homepage",
    "an internet address": "ipaddress ip|address",
    "a biometric identifier": "fingerprint biometric voiceprint",
    "a photograph": "photo photograph",
    "another unique number": "uuid guid uid username",
}
# Too common in other names to count but alone.
_ALONE: Mapping[str, str] = {
    "first": "a name",
    "last": "a name",
    "middle": "a name",
    "mail": "an electronic mail address",
    "mobile": "a telephone number",
    "drivers": "a certificate or licence number",
    "vin": "a vehicle identifier",
    "ip": "an internet address",
}
_OF_NO_PERSON = frozenset(
    (
        "test",
        "drug",
        "item",
        "code",
        "concept",
        "department",
        "dept",
        "unit",
        "lab",
        "procedure",
        "diagnosis",
        "medication",
        "disease",
        "condition",
    )
)
_PATTERNS: Mapping[str, str] = {
    "a social security number": r"^\d{3}-\d{2}-\d{4}$",
    "an electronic mail address": r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$",
    "a telephone number": r"^(\+?1[ .-]?)?(\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}$|^\+\d{9,15}$",
    "a web address": r"^(https?|ftp)://",
    "an internet address": r"^(\d{1,3}\.){3}\d{1,3}$|^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$",
    "another unique number": r"^[0-9A-Fa-f]{8}-([0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}$",
}
_QUASI: Mapping[str, str] = {
    "sex": "sex gender male female birthsex",
    "race or ethnicity": "race ethnicity ethnic ethnicgroup",
    "marital status": "marital maritalstatus married",
    "religion": "religion",
    "language": "language",
    "education": "education educ edu school",
    "occupation": "occupation job profession work worktype employment",
    "income": "income salary",
    "a state or region": "state province region residence country nationality",
    "a three-digit zip code": "zip3",
}
_MOSTLY = 0.5


def identifier_by_name(name: str) -> str | None:
    """Which of HIPAA's identifiers a column is by its name; None where it is none."""
    words = words_of(name)
    if not words or set(words) & _OF_NO_PERSON or "zip3" in name.lower():
        return None
    joined = "".join(words)
    if joined in _ALONE:
        return _ALONE[joined]
    for what, names in _NAMES.items():
        for entry in names.split():
            parts = entry.split("|")
            if joined == entry or (set(parts) <= set(words) and (len(parts) > 1 or len(words) <= 3)):
                return what
    return None


def identifier_by_pattern(values: pl.Series) -> str | None:
    """Which of HIPAA's identifiers most of the values look like; None where they look like none.

    Shape: ``(values,)``, text, none missing.
    """
    if values.is_empty():
        return None
    for what, pattern in _PATTERNS.items():
        if float(values.str.contains(pattern).sum()) > _MOSTLY * len(values):
            return what
    return None


def quasi_identifier(name: str) -> str | None:
    """What a column tells of a person that others may know too, by its name; None where it tells no such thing."""
    if says_age(name):
        return "age"
    words = {*words_of(name), "".join(words_of(name)), name.lower()}
    return next((what for what, names in _QUASI.items() if words & set(names.split())), None)
