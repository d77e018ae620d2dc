"""The official suites, where they are at hand, and the runner's own strictness."""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared"
SUITES = SHARED / "suites"
EXAMPLES = SHARED / "data" / "fhir" / "hl7_r4_examples" / "examples.ndjson.gz"


def load() -> ModuleType:
    file = ROOT / "evaluation" / "bench" / "fhir_conformance.py"
    spec = importlib.util.spec_from_file_location("fhir_conformance", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fhir_conformance"] = module
    spec.loader.exec_module(module)
    return module


conformance = load()


RIGHT_ERRORS = {
    "collection: fail when 'collection' is not true": "DataError: .*column 'last_name'.* gives several",
    "constant: accessing an undefined constant": "SchemaError: .*%wrong_name is not defined",
    "constant: incorrect constant definition": "SchemaError: .*constant 'name_use' needs one value",
    "union: column mismatch": "SchemaError: .*unionAll differ in column 'b'",
    "union: column order mismatch": "SchemaError: .*unionAll differ in column 'a'",
    "validate: empty": "SchemaError: .*needs 'resource'",
    "validate: missing resource": "SchemaError: .*needs 'resource'",
    "validate: wrong fhirpath": "SchemaError: .*FHIRPath '@@'",
    "validate: wrong type in forEach": "SchemaError: .*forEach must be a FHIRPath text",
    "validate: where with path resolving to not boolean": "SchemaError: .*must be a boolean",
    "view_resource: resource not specified": "SchemaError: .*needs 'resource'",
}


def recorded(name: str) -> list[tuple[str, str]]:
    with (ROOT / "evaluation" / "bench" / "results" / f"{name}.csv").open(newline="", encoding="utf-8") as lines:
        return [(line["case"], line["outcome"]) for line in csv.DictReader(lines)]


def test_every_case_of_sql_on_fhir_passes() -> None:
    folder = SUITES / "sql-on-fhir-v2" / "tests"
    if not folder.is_dir():
        pytest.skip("the suite of SQL on FHIR is not at hand")
    results = list(conformance.sql_on_fhir(folder))
    assert [(r.case, r.reason) for r in results if r.outcome != "pass"] == []
    assert sum(r.tag == "shareable" for r in results) == 123
    told = {r.case: r.reason for r in results if "Error: " in r.reason}
    assert told.keys() == RIGHT_ERRORS.keys()
    assert [case for case, why in RIGHT_ERRORS.items() if not re.match(why, told[case])] == []
    assert recorded("sql_on_fhir") == [(r.case, r.outcome) for r in results]


def test_no_case_of_fhirpath_has_a_wrong_answer() -> None:
    suite = SUITES / "fhirpath" / "r4" / "fhirpath" / "tests-fhir-r4.xml"
    if not suite.is_file() or not EXAMPLES.is_file():
        pytest.skip("HL7's suite of FHIRPath or its R4 examples are not at hand")
    results = list(conformance.fhirpath(suite, EXAMPLES, None))
    assert [(r.case, r.reason) for r in results if r.outcome in ("wrong", "error")] == []
    refused = {r.case.split(": ")[1] for r in results if r.outcome == "refused"}
    traced = {"testSkip3", "testSplit3", "testTrace1", "testTrace2", "testPrecedence6"}
    assert refused == traced | {"testType22", "testConformsTo1", "testConformsTo2"}
    assert sum(r.outcome == "pass" for r in results) >= 903
    assert recorded("fhirpath") == [(r.case, r.outcome) for r in results]


def case(expect: Any, **more: Any) -> tuple[str, str]:
    view = {"resource": "Patient", "select": [{"column": [{"name": "a", "path": "active", "type": "boolean"}]}]}
    resources = [{"resourceType": "Patient", "active": True}, {"resourceType": "Patient"}]
    outcome: tuple[str, str] = conformance.run_view({"view": view, "expect": expect, **more}, resources)
    return outcome


def test_the_runner_tells_kinds_order_and_columns_apart() -> None:
    assert case([{"a": True}, {"a": None}])[0] == "pass"
    assert case([{"a": 1}, {"a": None}])[0] == "wrong"
    assert case([{"a": True}])[0] == "wrong"
    assert case([{"a": True}, {}])[0] == "wrong"
    assert case([{"a": True}, {"a": None}], expectColumns=["b"])[0] == "wrong"
    assert case(None, expectError=True)[0] == "wrong"


def test_the_rows_of_one_record_must_come_in_order_and_records_may_take_turns() -> None:
    first, second = [(1,), (2,)], [(3,), (4,)]
    assert conformance.in_order([first, second], [(1,), (3,), (2,), (4,)])
    assert not conformance.in_order([first, second], [(2,), (1,), (3,), (4,)])
    assert not conformance.in_order([first, second], [(1,), (2,), (3,)])
    assert not conformance.in_order([first], [(1,), (2,), (3,)])


def test_cells_are_compared_by_kind() -> None:
    assert conformance.same(Decimal("1.50"), Decimal("1.5"))
    assert conformance.same(["a"], ["a"])
    for found, wanted in ((True, 1), (None, ""), ("1", 1), (["a"], "a"), ([], None), (0, False)):
        assert not conformance.same(found, wanted)
