"""Run the official suites of SQL on FHIR v2 and of FHIRPath against synthehr's compiler; one line a case.

* ``sql_on_fhir.csv``: every case of SQL on FHIR v2, strictly: the names and order of the columns, every row with its
  values and their types (true is not 1, a missing value is not an empty text), and the rows of every record in the
  order that the case lists them; a case that expects an error passes only if synthehr refuses the view or the record by
  an error of its own, which the reason quotes.
* ``fhirpath.csv``: every case of HL7's R4 suite: the values, their types and their order; for a case marked invalid an
  error of synthehr's own. The records are HL7's R4 examples, and JSON files called as the suite calls its own where
  ``--records`` names a folder of them.

Outcomes: ``pass``; ``refused``, an expression that synthehr does not support, told when it is compiled; ``error``, a
record that synthehr refuses while the case has an answer; ``no record``, a case whose record is not published with R4's
examples; ``contested``, a case whose answer is not what FHIRPath says; ``wrong``, another answer than the suite's. The
reason says why.

    python evaluation/bench/fhir_conformance.py --suites DIR [--examples FILE] [--records DIR] [--out DIR]

``DIR`` holds ``sql-on-fhir-v2/tests`` (from github.com/FHIR/sql-on-fhir-v2) and ``fhirpath/r4`` (the suite of
github.com/FHIR/fhir-test-cases); ``FILE`` holds HL7's R4 examples, one a line.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from synthehr.connectors.fhir.fhirpath import Element, compile_path, parse_json
from synthehr.connectors.fhir.fhirpath.values import plain, type_of
from synthehr.connectors.fhir.views import CompiledView, compile_view
from synthehr.errors import DataError, SchemaError, SynthehrError

RESULTS = Path(__file__).parent / "results"

RECORDS = {
    "patient-example.xml": ("Patient", "example"),
    "observation-example.xml": ("Observation", "example"),
    "questionnaire-example.xml": ("Questionnaire", "3141"),
    "valueset-example-expansion.xml": ("ValueSet", "example-expansion"),
    "explanationofbenefit-example.json": ("ExplanationOfBenefit", "EB3500"),
    "appointment-examplereq.json": ("Appointment", "examplereq"),
    "codesystem-example.xml": ("CodeSystem", "example"),
}
"""The suite's records by type and id in HL7's R4 examples; the others are not published there."""

OTHER_RECORDS = {
    f"testFHIRPathIsFunction{number}": "the suite's own observation-example has an extension that R4's lacks"
    for number in (8, 9, 10)
}

_ROUNDED = (
    "the suite rounds to the nearest number of one digit, which is not a bound; its other cases round outwards "
    "(1.587.lowBoundary(2) is 1.58, 1.587.highBoundary(2) is 1.59), as FHIRPath says and as we do"
)

CONTESTED = {
    "testPlusDate19": "only units above the second lose their fraction; the suite's R5 edition has .100 too",
    "LowBoundaryDecimal15": _ROUNDED,
    "HighBoundaryDecimal15": _ROUNDED,
    "HighBoundaryDecimal16": _ROUNDED,
}
"""Cases whose answer is not FHIRPath's, and why ours is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one case."""

    suite: str
    case: str
    tag: str
    outcome: str
    reason: str


# -- SQL on FHIR -------------------------------------------------------------------------------------------------------


def same(found: Any, wanted: Any) -> bool:
    """Whether two cells are equal in value and kind; 1 and 1.0 are one decimal, true and 1 are not one value."""
    if isinstance(found, bool) or isinstance(wanted, bool) or found is None or wanted is None:
        return found is wanted
    if isinstance(found, list) or isinstance(wanted, list):
        return (
            isinstance(found, list)
            and isinstance(wanted, list)
            and len(found) == len(wanted)
            and all(map(same, found, wanted))
        )
    if isinstance(found, int | Decimal) and isinstance(wanted, int | Decimal):
        return found == wanted
    return type(found) is type(wanted) and found == wanted


def same_row(found: tuple[Any, ...], wanted: tuple[Any, ...]) -> bool:
    """Whether two rows are equal, cell by cell."""
    return len(found) == len(wanted) and all(map(same, found, wanted))


def in_order(found: list[list[tuple[Any, ...]]], wanted: list[tuple[Any, ...]]) -> bool:
    """Whether ``wanted`` is made of the rows of each record, in their order; records may take turns."""
    rest = [list(rows) for rows in found]
    for row in wanted:
        turn = next((rows for rows in rest if rows and same_row(rows[0], row)), None)
        if turn is None:
            return False
        del turn[0]
    return not any(rest)


def compared(view: CompiledView, rows: list[list[tuple[Any, ...]]], case: dict[str, Any]) -> tuple[str, str]:
    """Outcome and reason of a case that expects rows; ``rows`` has a list for each record."""
    names = [column.name for column in view.columns]
    if names != case.get("expectColumns", names) or any(sorted(row) != sorted(names) for row in case["expect"]):
        return "wrong", f"columns {names}"
    wanted = [tuple(row[name] for name in names) for row in case["expect"]]
    flat = [row for some in rows for row in some]
    if len(flat) == len(wanted) and all(map(same_row, flat, wanted)):
        return "pass", ""
    if in_order(rows, wanted):
        return "pass", "the case has the records take turns; each one's rows are in its order"
    return "wrong", f"{len(flat)} rows, {len(wanted)} expected, or other values"


def run_view(case: dict[str, Any], resources: list[Any]) -> tuple[str, str]:
    """Outcome and reason of one case of SQL on FHIR."""
    expected_error = bool(case.get("expectError"))
    try:
        view = compile_view(case["view"])
        rows = [list(view.rows(resource)) for resource in resources]
    except SynthehrError as error:
        if expected_error:
            return "pass", f"{type(error).__name__}: {error}"
        return ("refused" if isinstance(error, SchemaError) else "error"), str(error)
    return ("wrong", "an error is expected, rows came") if expected_error else compared(view, rows, case)


def sql_on_fhir(folder: Path) -> Iterator[Result]:
    """Every case of SQL on FHIR v2."""
    for file in sorted(folder.glob("*.json")):
        suite = parse_json(file.read_bytes())
        for case in suite["tests"]:
            outcome, reason = run_view(case, suite["resources"])
            yield Result(
                suite="sql-on-fhir-v2",
                case=f"{suite['title']}: {case['title']}",
                tag=" ".join(case.get("tags", [])),
                outcome=outcome,
                reason=reason,
            )


# -- FHIRPath ----------------------------------------------------------------------------------------------------------


def read_examples(file: Path) -> dict[tuple[str, str], Any]:
    """The records of the suite, with decimals as they are written."""
    wanted = set(RECORDS.values())
    found = {}
    with gzip.open(file, "rb") as lines:
        for line in lines:
            head = json.loads(line)
            key = (head.get("resourceType"), head.get("id"))
            if key in wanted:
                found[key] = parse_json(line)
    return found


def written(element: Element) -> tuple[str, str]:
    """Type and text of an item, as the suite writes them."""
    name = (element.type or type_of(element.value) or "object").removeprefix("System.")
    name = name if name == "Quantity" else name[0].lower() + name[1:]
    value = element.value
    if isinstance(value, bool):
        return name, str(value).lower()
    if isinstance(value, Decimal):
        return name, format(value, "f")
    shown = plain(value)
    return name, str(value) if isinstance(shown, dict) else str(shown)


def agrees(found: tuple[str, str], kind: str | None, text: str) -> bool:
    """Whether an item is what the suite lists; a type that it leaves out is any."""
    wanted = text.removeprefix("@").removeprefix("T") if kind in (None, "date", "dateTime", "time") else text
    if kind is not None and found[0] != kind:
        return False
    if found[0] == "decimal" and kind is not None:
        return Decimal(found[1]) == Decimal(wanted)
    return found[1] == wanted


def run_path(test: ElementTree.Element, record: Any) -> tuple[str, str]:
    """Outcome and reason of one case of FHIRPath."""
    expression = test.find("expression")
    assert expression is not None
    invalid = expression.get("invalid")
    try:
        path = compile_path(
            expression.text or "", root_type=record["resourceType"], strict=test.get("mode") == "strict"
        )
        items = path.elements(record)
    except SynthehrError as error:
        if invalid:
            return "pass", f"{type(error).__name__}: {error}"
        return ("error" if isinstance(error, DataError) else "refused"), str(error)
    outputs = [(output.get("type"), output.text or "") for output in test.findall("output")]
    if test.get("predicate") == "true":
        items = [Element(bool(items), "System.Boolean")]
    found = [written(item) for item in items]
    if invalid and not outputs:
        return "wrong", f"an error ({invalid}) is expected, {len(found)} items came"
    if test.get("ordered") == "false":
        found.sort(key=lambda item: item[1])
        outputs.sort(key=lambda output: output[1])
    if len(found) == len(outputs) and all(
        agrees(item, kind, text) for item, (kind, text) in zip(found, outputs, strict=True)
    ):
        return "pass", ""
    return "wrong", f"{found[:4]} where {outputs[:4]} is expected"


def fhirpath(suite: Path, examples: Path, own_records: Path | None) -> Iterator[Result]:
    """Every case of HL7's FHIRPath suite."""
    records = read_examples(examples)
    own = (
        {} if own_records is None else {file.stem: parse_json(file.read_bytes()) for file in own_records.glob("*.json")}
    )
    for group in ElementTree.parse(suite).getroot().iter("group"):
        for test in group.iter("test"):
            name = str(test.get("name"))
            file = test.get("inputfile") or "patient-example.xml"
            record = own.get(file.rpartition(".")[0]) or records.get(RECORDS.get(file, ("", "")))
            if name in OTHER_RECORDS and not own:
                outcome, reason = "no record", OTHER_RECORDS[name]
            elif record is None:
                outcome, reason = "no record", f"{file} is not among HL7's R4 examples"
            else:
                outcome, reason = run_path(test, record)
            if outcome in ("wrong", "error") and name in CONTESTED:
                outcome, reason = "contested", CONTESTED[name]
            yield Result(
                suite="fhirpath-r4", case=f"{group.get('name')}: {name}", tag="", outcome=outcome, reason=reason
            )


def write(results: Iterable[Result], file: Path) -> Counter[tuple[str, str]]:
    """Write one suite's lines; return how many cases had each tag and outcome."""
    lines = list(results)
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["case", "tag", "outcome", "reason"])
        writer.writerows([line.case, line.tag, line.outcome, " ".join(line.reason.split())] for line in lines)
    return Counter((line.tag, line.outcome) for line in lines)


def main() -> None:
    """Run both suites and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suites", type=Path, required=True)
    parser.add_argument("--examples", type=Path)
    parser.add_argument("--records", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    examples = options.examples or options.suites.parent / "data/fhir/hl7_r4_examples/examples.ndjson.gz"
    for name, results in (
        ("sql_on_fhir", sql_on_fhir(options.suites / "sql-on-fhir-v2/tests")),
        ("fhirpath", fhirpath(options.suites / "fhirpath/r4/fhirpath/tests-fhir-r4.xml", examples, options.records)),
    ):
        for (tag, outcome), count in sorted(write(results, options.out / f"{name}.csv").items()):
            print(f"{name}\t{tag}\t{outcome}\t{count}")


if __name__ == "__main__":
    main()
