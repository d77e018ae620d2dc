"""Nothing that was read off records passes for public before a person has reviewed it; ages are capped."""

from __future__ import annotations

import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.errors import SchemaError
from synthehr.privacy.policy import load_policy
from synthehr.schema.ages import age_limit, says_age
from synthehr.schema.conform import conform
from synthehr.schema.files import dump_schema, load_schema
from synthehr.schema.model import Schema
from synthehr.schema.review import capped, for_release, public_part
from synthehr.schema.validation import check_tables


def schema(columns: dict, **more: object) -> Schema:
    return load_schema({"synthehr": 1, "subject": "p", "tables": {"p": {"columns": columns}}, **more})


def columns_of(made: Schema) -> dict:
    return dump_schema(made)["tables"]["p"]["columns"]


DRAFTED = {
    "age": {"kind": "integer", "bounds": [18, 97], "unit": "a"},
    "weight": {"kind": "number", "bounds": [41, 180], "precision": 0.1, "unit": "kg"},
    "sex": {"kind": "category", "values": ["f", "m"]},
    "died": {"kind": "boolean"},
    "seen": {"kind": "offset", "bounds": [0, 400], "unit": "d"},
}


def test_an_unreviewed_draft_loses_bounds_values_steps_and_presence() -> None:
    assert columns_of(public_part(schema(DRAFTED, reviewed=False))) == {
        "age": {"kind": "integer", "unit": "a", "nullable": True},
        "weight": {"kind": "number", "unit": "kg", "nullable": True},
        "sex": {"kind": "category", "discover": True, "nullable": True},
        "died": {"kind": "boolean", "nullable": True},
        "seen": {"kind": "offset", "nullable": True},
    }


def test_a_reviewed_schema_is_public_as_it_is() -> None:
    reviewed = schema(DRAFTED, reviewed=True)
    assert public_part(reviewed) is reviewed
    assert schema(DRAFTED).reviewed


def test_bounds_by_code_of_a_draft_are_bought_too() -> None:
    lab = {
        "test": {"kind": "category", "values": ["hdl"]},
        "value": {"kind": "number", "per": "test", "bounds": {"hdl": [1, 2]}},
    }
    assert columns_of(public_part(schema(lab, reviewed=False)))["value"] == {
        "kind": "number",
        "per": "test",
        "nullable": True,
    }


def test_a_calendar_date_in_a_draft_is_refused_since_its_range_cannot_be_bought() -> None:
    dated = schema({"day": {"kind": "date", "bounds": ["2000-01-01", "2020-01-01"]}}, reviewed=False)
    with pytest.raises(SchemaError, match=r"'day'.*cannot be bought.*reviewed: true"):
        public_part(dated)


def test_a_cohort_under_a_draft_is_released_under_its_public_part() -> None:
    draft = schema({"age": {"kind": "integer", "bounds": [0, 120], "unit": "a"}}, reviewed=False)
    cohort = for_release(Cohort({"p": pl.DataFrame({"age": [30, 95]})}, schema=draft), cap_age=None)
    assert cohort.schema.root.columns["age"].bounds is None
    assert cohort.root["age"].to_list() == [30, 95]
    assert for_release(cohort, cap_age=None) is cohort


def test_ages_and_times_of_as_many_years_are_capped_by_the_policy() -> None:
    columns = {
        "age": {"kind": "integer", "bounds": [0, 120], "unit": "a"},
        "Age": {"kind": "number", "bounds": [0, 120]},  # no unit, but named so
        "seen": {"kind": "offset", "bounds": [-400, 45000]},
        "waited": {"kind": "integer", "unit": "h"},
        "weight": {"kind": "number", "bounds": [0, 300], "unit": "kg"},
        "year": {"kind": "integer", "bounds": [1990, 2030], "unit": "a"},
    }
    held = capped(schema(columns), years=90)
    # 90 x 365.25 = 32,872.5 days and 788,940 hours
    assert {n: getattr(c, "bounds", None) for n, c in held.root.columns.items()} == {
        "age": (0, 90),
        "Age": (0.0, 90.0),
        "seen": (-400, 32872),
        "waited": (-788940, 788940),
        "weight": (0.0, 300.0),
        "year": (1990, 2030),
    }
    frame = pl.DataFrame(
        {
            "age": [89, 90, 104],
            "Age": [1.0, 95.5, None],
            "seen": [40000, 1, 2],
            "waited": [1, 2, -999_999],
            "weight": [95.0, 200.0, 1.0],
            "year": [1999, 2000, 2001],
        }
    )
    kept = for_release(Cohort({"p": frame}, schema=schema(columns)), cap_age=90).root
    assert kept["age"].to_list() == [89, 90, 90]
    assert kept["Age"].to_list() == [1.0, 90.0, None]
    assert kept["seen"].to_list() == [32872, 1, 2]
    assert kept["waited"].to_list() == [1, 2, -788940]
    assert kept["weight"].to_list() == [95.0, 200.0, 1.0]
    assert kept["year"].to_list() == [1999, 2000, 2001]


def test_a_lower_cap_of_the_schema_stays() -> None:
    lower = schema({"age": {"kind": "integer", "bounds": [0, 80], "unit": "a"}}, cap_age=80)
    assert capped(lower, years=90) is lower
    assert capped(lower, years=None) is lower


def test_bounds_beyond_the_schemas_own_cap_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"'age'.*beyond the cap on ages: write at most 90 a"):
        schema({"age": {"kind": "integer", "bounds": [0, 120], "unit": "a"}}, cap_age=90)


@pytest.mark.parametrize("name", ["age", "AGE", "anchor_age", "ageYears", "age_at_entry"])
def test_names_that_say_age(name: str) -> None:
    assert says_age(name)


@pytest.mark.parametrize("name", ["age_group", "ageDays", "stage", "dosage", "years", "page"])
def test_names_that_do_not_say_age_in_years(name: str) -> None:
    assert not says_age(name)


def test_a_value_that_depends_on_a_code_is_no_age() -> None:
    made = schema({"test": {"kind": "category", "values": ["x"]}, "age": {"kind": "number", "per": "test"}})
    assert age_limit("age", made.root.columns["age"], years=90) is None


def test_records_read_under_a_cap_have_no_age_beyond_it_and_synthetic_ones_neither() -> None:
    columns = {"age": {"kind": "integer", "bounds": [0, 90], "unit": "a"}, "sex": {"kind": "category"}}
    declared = schema(columns, cap_age=90)
    frame = pl.DataFrame({"age": ["104", "89"], "sex": ["f", "m"]})
    assert conform(frame, schema=declared, table="p")["age"].to_list() == [90, 89]
    assert conform(frame, schema=declared, table="p", lenient=True)["age"].to_list() == [90, 89]
    assert all(expectation.met for expectation in check_tables({"p": frame}, schema=declared))


def test_the_strict_policy_caps_ages_and_the_others_leave_them() -> None:
    caps = {name: load_policy(name).cap_age for name in ("strict", "standard", "exploratory")}
    assert caps == {"strict": 90, "standard": None, "exploratory": None}
