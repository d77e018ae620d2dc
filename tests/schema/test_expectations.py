"""Suites of Great Expectations go out and come back; what a schema has no place for is told."""

from __future__ import annotations

import copy
import json
import os
import warnings

import pandas as pd
import pytest

from synthehr.errors import SchemaError
from synthehr.schema.expectations import schema_from_suites, suites_of
from synthehr.schema.files import dump_schema, load_schema

SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "patient",
        "reviewed": False,
        "tables": {
            "patient": {
                "key": "id",
                "outcome": "died",
                "columns": {
                    "id": {"kind": "id"},
                    "name": {"kind": "identifier"},
                    "born": {"kind": "age", "at": "2024-01-01", "bounds": [0, 120]},
                    "sex": {"kind": "category", "values": ["f", "m"]},
                    "city": {"kind": "category", "discover": True, "nullable": True},
                    "weight": {"kind": "number", "bounds": [20, 300], "unit": "kg", "precision": 0.1, "nullable": True},
                    "died": {"kind": "boolean"},
                    "seen": {"kind": "date", "bounds": ["2000-01-01", "2020-12-31"]},
                },
            },
            "lab": {
                "parent": "patient",
                "foreign_key": "pid",
                "order_by": "day",
                "columns": {
                    "pid": {"kind": "id"},
                    "day": {"kind": "offset", "bounds": [0, 45000], "nullable": True},
                    "test": {"kind": "category", "values": ["hdl", "sbp"]},
                    "value": {"kind": "number", "per": "test", "bounds": {"hdl": [5, 150], "sbp": [50, 260]}},
                },
            },
        },
        "rules": ["weight is null or weight > 0"],
    }
)


@pytest.fixture(scope="module")
def suites() -> dict:
    return json.loads(json.dumps(suites_of(SCHEMA)))


def test_a_schema_comes_back_from_its_suites_as_it_was(suites: dict) -> None:
    again, left = schema_from_suites(suites)
    assert again == SCHEMA
    assert left == ()


def test_bounds_and_values_that_were_edited_in_the_suite_are_taken(suites: dict) -> None:
    edited = copy.deepcopy(suites)
    for expectation in edited["patient"]["expectations"]:
        said = expectation["kwargs"]
        if said.get("column") == "weight" and "min_value" in said:
            said["max_value"] = 400
        if said.get("column") == "sex" and "value_set" in said:
            said["value_set"] = ["f", "m", "x"]
    columns = schema_from_suites(edited)[0].root.columns
    assert columns["weight"].bounds == (20.0, 400.0)
    assert columns["sex"].values == ("f", "m", "x")


def test_great_expectations_itself_judges_records_by_an_exported_suite(suites: dict) -> None:
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx

        def met(frame: pd.DataFrame) -> dict:
            context = gx.get_context(mode="ephemeral")
            context.variables.progress_bars = {"globally": False}
            asset = context.data_sources.add_pandas("p").add_dataframe_asset("lab")
            batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
            suite = gx.ExpectationSuite(**copy.deepcopy(suites["lab"]))
            return {
                (r.expectation_config.kwargs.get("column"), r.expectation_config.kwargs.get("min_value")): r.success
                for r in batch.validate(suite).results
                if "min_value" in r.expectation_config.kwargs
            }

        good = pd.DataFrame(
            {"pid": ["1", "1"], "day": ["2000-01-01"] * 2, "test": ["hdl", "sbp"], "value": [150.0, 50.0]}
        )
        bad = good.assign(value=[151.0, 50.0])
        assert met(good) == {("value", 5.0): True, ("value", 50.0): True}
        assert met(bad) == {("value", 5.0): False, ("value", 50.0): True}


def test_a_suite_from_elsewhere_tells_what_it_can() -> None:
    def one(kind: str, **kwargs: object) -> dict:
        return {"type": kind, "kwargs": kwargs, "meta": {}}

    suite = {
        "name": "visits",
        "expectations": [
            one("expect_table_columns_to_match_set", column_set=["id", "sex", "age", "height", "flag", "free"]),
            one("expect_column_values_to_be_unique", column="id"),
            one("expect_column_values_to_not_be_null", column="sex"),
            one("expect_column_values_to_be_in_set", column="sex", value_set=["f", "m"]),
            one("expect_column_values_to_be_between", column="age", min_value=0, max_value=120),
            one("expect_column_values_to_be_between", column="height", min_value=0.5, max_value=2.5),
            one("expect_column_values_to_be_of_type", column="flag", type_="bool"),
            one("expect_column_values_to_be_between", column="free", min_value=0, max_value=None),
            one("expect_column_mean_to_be_between", column="age", min_value=40, max_value=60),
            one("expect_column_values_to_not_be_null", column="age", mostly=0.9),
        ],
    }
    schema, left = schema_from_suites({"visits": suite})
    assert dump_schema(schema)["tables"]["visits"] == {
        "key": "id",
        "columns": {
            "id": {"kind": "id"},
            "sex": {"kind": "category", "values": ["f", "m"]},
            "age": {"kind": "integer", "bounds": [0, 120], "nullable": True},
            "height": {"kind": "number", "bounds": [0.5, 2.5], "nullable": True},
            "flag": {"kind": "boolean", "nullable": True},
            "free": {"kind": "text"},
        },
    }
    assert left == (
        "visits.free: expect_column_values_to_be_between",
        "visits.age: expect_column_mean_to_be_between",
        "visits.age: expect_column_values_to_not_be_null",
    )


@pytest.mark.parametrize("suite", [{}, {"expectations": 3}, {"name": "x", "expectations": []}])
def test_what_is_no_suite_is_told(suite: dict) -> None:
    with pytest.raises(SchemaError):
        schema_from_suites({"t": suite})
