"""What happens to each column is told before anything is read, with the reason."""

from __future__ import annotations

from synthehr.schema.fate import Fate, fates
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema


def schema(**more: object) -> Schema:
    columns = {
        "id": {"kind": "id"},
        "name": {"kind": "identifier"},
        "notes": {"kind": "text"},
        "born": {"kind": "anchor"},
        "ok": {"kind": "consent", "opt_in": ["yes"]},
        "age": {"kind": "integer", "bounds": [0, 120], "unit": "a"},
        "died": {"kind": "offset", "bounds": [-400, 45000], "nullable": True},
        "sex": {"kind": "category", "values": ["f", "m"]},
        "city": {"kind": "category", "discover": True},
        "weight": {"kind": "number"},
        "smoker": {"kind": "boolean"},
    }
    visit = {
        "parent": "p",
        "foreign_key": "pid",
        "columns": {
            "pid": {"kind": "id"},
            "ward": {"kind": "id"},
            "day": {"kind": "date", "bounds": ["2000-01-01", "2020-01-01"]},
        },
    }
    if not more.get("reviewed", True):
        visit["columns"].pop("day")
    tables = {"p": {"key": "id", "columns": columns}, "visit": visit}
    return load_schema({"synthehr": 1, "subject": "p", "tables": tables, **more})


def told(**options: object) -> dict[str, Fate]:
    return {f.column: f for f in fates(options.pop("of", schema()), **options)}  # type: ignore[arg-type]


def test_each_kind_has_its_fate() -> None:
    found = {name: (fate.fate, fate.domain) for name, fate in told().items()}
    assert found == {
        "id": ("made anew", None),
        "name": ("dropped", None),
        "notes": ("dropped", None),
        "born": ("dropped", None),
        "ok": ("asked", None),
        "age": ("kept", "declared"),
        "died": ("kept", "declared"),
        "sex": ("kept", "declared"),
        "city": ("kept", "bought"),
        "weight": ("kept", "bought"),
        "smoker": ("kept", "declared"),
        "pid": ("made anew", None),
        "ward": ("made anew", None),
        "day": ("kept", "declared"),
    }


def test_offsets_and_caps_are_told() -> None:
    assert told()["died"].changed == ("offset",)
    assert "days since 'born'" in told()["died"].why
    capped = told(cap_age=90)
    assert capped["died"].changed == ("offset", "capped")
    assert "declared bounds [-400, 32872]" in capped["died"].why
    assert capped["age"].changed == ("capped",)
    assert "90 a and more are read as 90" in capped["age"].why


def test_in_a_draft_values_and_ranges_are_bought() -> None:
    draft = told(of=schema(reviewed=False))
    assert {draft[name].domain for name in ("age", "died", "sex", "city", "weight")} == {"bought"}
    assert "since the draft is not reviewed" in draft["sex"].why


def test_what_is_not_declared_or_not_there_keeps_records_from_being_read() -> None:
    here = ["id", "born", "ok", "age", "died", "sex", "city", "weight", "ssn"]
    found = told(found={"p": here, "visit": ["pid", "ward", "day"]})
    assert (found["smoker"].fate, found["smoker"].stops) == ("absent", True)
    assert (found["ssn"].fate, found["ssn"].stops) == ("refused", True)
    assert "a social security number" in found["ssn"].why
    assert found["name"].fate == "dropped"  # a connector leaves it unread, so that it is not seen


def test_a_person_is_pointed_to_what_identifies_or_stays_on_the_calendar() -> None:
    found = told()
    assert "Safe Harbor" in str(found["age"].warning)
    assert told(cap_age=90)["age"].warning == "quasi-identifier (age): others may know it too"
    assert "a place smaller than a state" in str(found["city"].warning)
    assert "on the calendar" in str(found["day"].warning)
    assert found["weight"].warning is None
