"""The datasheet tells what a release is, what it promises, what is known of it and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthehr.cli import main
from synthehr.manifest import Manifest
from synthehr.privacy.accountant import EpsilonDelta, Gaussian
from synthehr.reporting.datasheet import Statement, render_datasheet

SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "id",
            "groups": ["sex"],
            "columns": {
                "id": {"kind": "id"},
                "name": {"kind": "identifier"},
                "sex": {"kind": "category", "values": ["female", "male"]},
                "city|<b>": {"kind": "category", "discover": True},
                "weight": {"kind": "number", "bounds": [20, 300], "unit": "kg", "precision": 0.1, "nullable": True},
            },
        }
    },
}


def column(name: str, counts: list[float], **more: object) -> dict:
    return {"name": name, "nullable": False, "counts": counts, "variance": [25.0] * len(counts), **more}


@pytest.fixture
def manifest() -> Manifest:
    events = [
        EpsilonDelta(stage="count", epsilon=0.03, delta=0.0),
        Gaussian(stage="pairs", noise_multiplier=1.5, count=2),
    ]
    return Manifest.model_validate(
        {
            "schema": SCHEMA,
            "domain": [
                column("sex", [612.3, 388.1], values=["female", "male"]),
                column("city|<b>", [500.0, 500.0], values=["a", "b"], other=True),
                column("weight", [1.0, 2.0, 3.0], edges=[20.0, 60.0, 300.0], nullable=True),
            ],
            "max_rows": {"visit": 40},
            "model": {
                "name": "marginal",
                "chosen_because": "it was asked for",
                "seed": 0,
                "generator": {},
            },
            "patients_bought": 1003,
            "privacy": {
                "epsilon": 3.0,
                "delta": 1e-6,
                "private": True,
                "policy": "standard",
                "noise": "system",
                "epsilon_spent": 2.9712,
                "events": [event.model_dump() for event in events],
            },
            "versions": {"synthehr": "0.1.0"},
        }
    )


def row(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_it_says_what_was_promised_and_by_which_mechanisms(manifest):
    text = render_datasheet(manifest)
    assert "(3, 1e-06)-differential privacy; unit: one patient with all of that patient's rows" in text
    assert "composes to epsilon 2.9712" in text
    assert row(text, "| count") == "| count | EpsilonDelta | 1 | epsilon 0.03, delta 0 |"
    assert row(text, "| pairs") == "| pairs | Gaussian | 2 | noise multiplier 1.5 |"
    assert "**Synthetic.** This release is a model. The records it makes belong to no patient." in text


def test_it_tells_bought_from_declared_and_what_was_dropped(manifest):
    text = render_datasheet(manifest)
    assert row(text, "| id").endswith("| id | replaced by keys made anew |  |  |")
    assert row(text, "| name").endswith("| identifier | dropped before learning |  |  |")
    assert row(text, "| sex | category") == "| sex | category | learned as categories | 2 | declared in the schema |"
    assert row(text, "| city").endswith("| learned as categories, rare ones as OTHER | 2 | bought with budget |")
    assert "unit kg; in steps of 0.1; may be missing | 3 | declared in the schema |" in row(text, "| weight")


def test_bounds_of_a_draft_that_no_one_reviewed_were_bought(manifest):
    draft = manifest.model_copy(update={"schema_": {**SCHEMA, "reviewed": False}})
    assert row(render_datasheet(draft), "| weight").endswith("| bought with budget |")


def test_subgroups_have_the_sizes_that_were_bought_with_their_noise(manifest):
    # A variance of 25 is a deviation of 5: 1.96 times 5 is 10.
    text = render_datasheet(manifest)
    assert row(text, "| sex | female") == "| sex | female | 612 ± 10 |"
    assert row(text, "| sex | male") == "| sex | male | 388 ± 10 |"


def test_it_tells_which_columns_are_drawn_given_all_others(manifest):
    assert "| Outcomes |" not in render_datasheet(manifest)
    drawn = {"target": "city|<b>", "terms": [{"given": []}, {"given": ["sex"]}], "of_candidate": False}
    contents = manifest.model_dump(mode="json", by_alias=True) | {"outcomes": [drawn]}
    told = row(render_datasheet(Manifest.model_validate(contents)), "| Outcomes |")
    assert told == "| Outcomes | city\\|&lt;b&gt;: drawn given all other columns, by log-linear models |"


def test_what_only_people_know_is_told_or_said_to_be_unknown(manifest):
    bare = render_datasheet(manifest)
    assert row(bare, "| Population") == "| Population | not stated |" and "Nobody has signed" in bare
    said = Statement(population="Adults | of <b>one</b> county", period="1997 to 2014", signed_off_by="A. Steward")
    text = render_datasheet(manifest, statement=said, digest="0123")
    assert row(text, "| Population") == "| Population | Adults \\| of &lt;b&gt;one&lt;/b&gt; county |"
    assert row(text, "| Period") == "| Period | 1997 to 2014 |" and row(text, "| Release digest").endswith("| 0123 |")
    assert text.rstrip().endswith("A. Steward")


def test_names_from_a_schema_are_no_markup(manifest):
    text = render_datasheet(manifest)
    assert "city\\|&lt;b&gt;" in text and "<b>" not in text


def test_an_evaluation_is_told_in_the_public_form(manifest, report):
    text = render_datasheet(manifest, report=report.document)
    assert "**fail.**" in text and row(text, "| Fidelity").count("fail") == 1
    assert str(report.document.sections.sizes.train) not in text


def test_a_release_that_is_not_private_says_so_first(manifest):
    privacy = manifest.privacy.model_copy(update={"private": False, "why_not": "noise was made for a test"})
    text = render_datasheet(manifest.model_copy(update={"privacy": privacy}))
    assert text.index("NOT PRIVATE: noise was made for a test. Not for release.") < text.index("## What it is")


def test_the_command_refuses_what_is_no_release(tmp_path: Path, capsys):
    (tmp_path / "manifest.json").write_text(json.dumps({"release": 1}))
    assert main(["report", "datasheet", str(tmp_path), "-o", str(tmp_path / "D.md")]) == 3
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "D.md").exists()


def test_a_release_of_several_tables_says_what_stands_for_rows_and_times(manifest):
    contents = manifest.model_dump(mode="json", by_alias=True)
    visit = {
        "parent": "patient",
        "foreign_key": "id",
        "order_by": "start",
        "max_rows": 40,
        "columns": {
            "id": {"kind": "id"},
            "ward": {"kind": "id"},
            "start": {"kind": "integer", "bounds": [0, 100]},
            "end": {"kind": "integer", "bounds": [0, 100]},
            "code": {"kind": "category", "values": ["a", "b"]},
        },
    }
    contents["schema"]["tables"]["visit"] = visit
    contents["domain"] += [column("[rows of visit]", [9.0] * 4), column("[first of visit]", [9.0] * 3)]
    made = [column("[gap]", [9.0] * 5), column("[end after start]", [9.0] * 2), column("[later]", [9.0])]
    contents["tables"] = {
        "visit": {"domain": [*made, column("code", [1.0, 2.0], values=["a", "b"])], "conditionals": []}
    }
    text = render_datasheet(Manifest.model_validate(contents))
    lines = [line.replace("\\", "") for line in text.splitlines()]
    for line in (
        "| [rows of visit] | how many rows table visit has for it | 4 |",
        "| [first of visit] | when its first row in table visit is | 3 |",
        "| [gap] | the time from the row before | 5 |",
        "| [end after start] | the time from start to end | 2 |",
        "| [later] | what the model needs to put rows together | 1 |",
        "| id | id | replaced by keys made anew |  |  |",
        "| ward | id | left empty |  |  |",
        "| start | integer | learned as the time between rows, and that of the first or the last |  |  |",
        "| end | integer | learned as the time from start |  |  |",
        "| code | category | learned as categories | 2 | declared in the schema |",
        "- Keys to rows of other tables than the one above are empty: visit.ward.",
        "Table visit, at most 40 rows of one patient:",
    ):
        assert line in lines, line
    assert "not learned by itself" not in text
