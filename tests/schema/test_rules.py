from __future__ import annotations

import polars as pl
import pytest

from synthehr.schema.rules import parse_rule

COLUMNS = {
    "patient": {
        "age": pl.Int64(),
        "sex": pl.String(),
        "flc.grp": pl.Int64(),
        "died": pl.Boolean(),
        "weight": pl.Float64(),
        "born": pl.Date(),
    },
    "lab": {"value": pl.Float64()},
}
ROWS = pl.DataFrame(
    {
        "age": [1, 5, None],
        "sex": ["f", "it's; patient.x -- ok", None],
        "flc.grp": [1, 4, None],
        "died": [True, False, None],
        "weight": [0.0, 2.0, None],
    }
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("age > 3", [False, True, False]),  # unknown is not met
        ("weight is null or weight > 0", [False, True, True]),
        ("not died", [False, True, False]),
        ("patient.died", [True, False, False]),
        ('patient."flc.grp" > 2', [False, True, False]),
        ("sex = 'it''s; patient.x -- ok'", [False, True, False]),
        ("age between 1 and 3", [True, False, False]),
        ("age not in (1, 2)", [False, True, False]),
        ("case when age > 3 then true else (weight = 0) end", [True, True, False]),
        ("coalesce(age, 0) < 2", [True, False, True]),
        ("age / weight > 1", [True, True, False]),  # division by zero is infinite, and no failure
    ],
)
def test_a_rule_judges_each_row(text: str, holds: list[bool]) -> None:
    rule = parse_rule(text, columns=COLUMNS, default="patient")
    assert rule.table == "patient"
    assert rule.holds(ROWS).to_list() == holds


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not an SQL condition"),
        ("age >", "not an SQL condition"),
        ("true", "names no column"),
        ("nope > 1", "'nope', which is not a kept column"),
        ('sex = "f"', "'f', which is not a kept column"),
        ("flc.grp > 1", 'write "flc.grp" in double quotes'),
        ("age", "a value, not a condition"),
        ("age > 1 as x", "a value, not a condition"),
        ("sex > 3", "unlike types"),
        ("age = 'a'", "unlike types"),
        ("not sex", "unlike types"),
        ("born > 'soon'", "unlike types"),
        ("sum(age) > 3", "function 'sum'"),
        ("random() > age", "function 'random'"),
        ("cast(sex as int) > 1", "function 'cast'"),
        ("sex::int > 1", "cast"),
        ("age > (select 1)", "subquery"),
        ("age > 1; age > 2", "no condition on single rows"),
        ("age > 1 -- and more", "comment"),
        ("lab.value > patient.age", "several tables"),
        ("lab.value > 1 and age > 1", "'age', which is not a kept column of table 'lab'"),
    ],
)
def test_what_is_no_condition_on_rows_is_refused(text: str, what: str) -> None:
    with pytest.raises(ValueError, match="rule ") as told:
        parse_rule(text, columns=COLUMNS, default="patient")
    assert what in str(told.value)


ABOVE = {"visit": ("patient",), "lab": ("visit", "patient")}
NESTED = {**COLUMNS, "visit": {"day": pl.Int64(), "the end": pl.Int64()}, "lab": {"value": pl.Float64()}}


@pytest.mark.parametrize(
    ("text", "reads", "holds"),
    [
        ("lab.value <= patient.age", (("patient", "age"),), [True, False, False]),
        ('lab.value < visit."the end"', (("visit", "the end"),), [True, False, True]),
        ("patient.died or visit.day > lab.value", (("patient", "died"), ("visit", "day")), [True, True, False]),
        ("lab.value is null or patient.sex = 'a visit.day ''quoted'''", (("patient", "sex"),), [False, True, False]),
        ('lab.value < 7 and patient."flc.grp" = 1', (("patient", "flc.grp"),), [True, False, False]),
    ],
)
def test_a_rule_judges_rows_by_what_their_ancestors_hold(
    text: str, reads: tuple[tuple[str, str], ...], holds: list[bool]
) -> None:
    rule = parse_rule(text, columns=NESTED, default="patient", ancestors=ABOVE)
    assert (rule.table, rule.columns, set(rule.above)) == ("lab", ("value",), set(reads))
    held = {
        ("patient", "age"): [5, 1, None],
        ("patient", "died"): [True, False, None],
        ("patient", "sex"): ["f", "a visit.day 'quoted'", None],
        ("patient", "flc.grp"): [1, 1, 2],
        ("visit", "day"): [0, 20, 0],
        ("visit", "the end"): [5, 5, 9],
    }
    rows = pl.DataFrame({"value": [2.0, 9.0, 3.0]})
    assert rule.holds(rows, lambda table, column: pl.Series(held[table, column])).to_list() == holds


@pytest.mark.parametrize("text", ["lab.value > other.x", "visit.day > other.x and lab.value > 1"])
def test_a_rule_does_not_judge_rows_by_those_beside_them(text: str) -> None:
    columns = {**NESTED, "other": {"x": pl.Int64()}}
    with pytest.raises(ValueError, match="none hangs from the others"):
        parse_rule(text, columns=columns, default="patient", ancestors={**ABOVE, "other": ("patient",)})
