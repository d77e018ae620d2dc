"""Public records written as FHIR come back as they were, and nothing of who they are of is in synthetic output."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made_records import options, tables_of
from made_tables import canonical, cohort, made, resources_in, without_words
from polars.testing import assert_frame_equal

from synthehr.connectors.fhir.bindings import problems_of, validate_r4b
from synthehr.connectors.fhir.write import write_fhir

SHARED = Path(__file__).parents[4] / "shared" / "data" / "fhir"
SETS = [
    pytest.param("bulk_ndjson_10pt", "bulk_ndjson_10pt/*.ndjson*", id="bulk data"),
    pytest.param("mimic_iv_on_fhir_demo", "mimic_iv_on_fhir_demo/*.ndjson*", id="MIMIC-IV on FHIR"),
    *(
        pytest.param(f"{name}.bundles.ndjson.gz", f"{name}.bundles.ndjson.gz", marks=pytest.mark.slow, id=name)
        for name in ("google_fhir_data_pipes", "andrew_nguyen")
    ),
]
MAPS = Path(__file__).parents[3] / "schemas" / "fhir" / "r4" / "write"
VOCABULARY = {  # elements of the input whose texts are codes, systems and units, which synthetic records may hold
    "resourceType", "code", "system", "unit", "url", "status", "intent", "gender", "type", "category", "criticality",
    "severity", "comparator", "state", "valueCode", "use", "mode", "profile",
}  # fmt: skip
DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def records(source: str) -> dict[str, pl.DataFrame]:
    if not (SHARED / source).exists():
        pytest.skip("the public records are not here")
    return _records(source)


@cache
def _records(source: str) -> dict[str, pl.DataFrame]:
    return tables_of(SHARED / source, options("drop", consent="ignore"))


def resources(pattern: str) -> Iterator[Any]:
    for path in sorted(SHARED.glob(pattern)):
        data = path.read_bytes()
        for line in (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines():
            yield json.loads(line)


def texts(value: Any, *, under: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a piece of JSON, each with the name of the element that it is of."""
    if isinstance(value, str):
        yield under, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from texts(inner, under=name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, under=under)


def pieces(whole: set[str]) -> set[str]:
    """Texts, and the parts of those that are references, addresses or several words."""
    return whole | {part for text in whole for part in re.split(r"[/:|#?=\s]", text)}


def written(source: str, folder: Path, *, format: str, synthetic: bool) -> Path:
    tables = without_words(records(source)) if synthetic else records(source)
    write_fhir(cohort(tables), folder, format=format, seed=3, synthetic=synthetic)
    return folder


@pytest.mark.parametrize(("source", "pattern"), SETS)
@pytest.mark.parametrize("format", ["fhir-ndjson", "fhir-bundle"])
def test_public_records_come_back_from_fhir_as_they_were(
    source: str, pattern: str, format: str, tmp_path: Path
) -> None:
    folder = written(source, tmp_path / "out", format=format, synthetic=False)
    before, after = canonical(records(source)), canonical(tables_of(folder))
    assert before.keys() == after.keys()
    for name in before:
        assert_frame_equal(after[name], before[name], check_exact=True)


@pytest.mark.parametrize(("source", "pattern"), SETS)
def test_all_that_is_written_of_public_records_is_valid(source: str, pattern: str, tmp_path: Path) -> None:
    found = list(resources_in(written(source, tmp_path / "out", format="fhir-ndjson", synthetic=True)))
    there = {f"{each['resourceType']}/{each['id']}": each["resourceType"] for each in found}
    assert [problem for each in found for problem in problems_of(each, type_of=there.get)] == []
    assert validate_r4b(found[:: max(1, len(found) // 2000)]) >= 2000


@pytest.mark.parametrize(("source", "pattern"), SETS)
@pytest.mark.parametrize("format", ["fhir-ndjson", "fhir-bundle"])
def test_no_id_name_date_or_word_of_public_records_is_in_a_synthetic_output(
    source: str, pattern: str, format: str, tmp_path: Path
) -> None:
    folder = written(source, tmp_path / "out", format=format, synthetic=True)
    given = [pair for each in resources(pattern) for pair in texts(each)]
    codes = {text for element, text in given if element in VOCABULARY}
    own = {text for path in MAPS.glob("*.json") for _, text in texts(json.loads(path.read_text()))}
    made_of_others = tmp_path / "others"  # what is written of anybody: the labels and their words
    write_fhir(cohort(without_words(made())), made_of_others, format=format, seed=3, synthetic=True)
    own |= {text for each in resources_in(made_of_others) for _, text in texts(each)}
    private = {text for _, text in given if len(text) > 1} - codes - pieces(own)
    assert len(private) > 1000, "the scan must have something to find"
    told = {text for each in resources_in(folder) for _, text in texts(each)}
    days = {text for text in private if DATE.fullmatch(text)}  # some day of another patient's can be any day
    assert not (private - days) & pieces(told)


def test_the_scan_finds_words_where_they_are_written(tmp_path: Path) -> None:
    source, pattern = SETS[0].values[:2]
    folder = written(str(source), tmp_path / "out", format="fhir-ndjson", synthetic=False)
    displays = {text for each in resources(str(pattern)) for element, text in texts(each) if element == "display"}
    told = {text for each in resources_in(folder) for _, text in texts(each)}
    assert len(displays & pieces(told)) > 100


@pytest.mark.parametrize(("source", "pattern"), SETS)
def test_no_patient_keeps_a_birth_date(source: str, pattern: str, tmp_path: Path) -> None:
    records(source)
    born = {each["id"]: each.get("birthDate") for each in of_patients(pattern)}
    folder = written(source, tmp_path / "out", format="fhir-ndjson", synthetic=True)
    anew = [json.loads(line).get("birthDate") for line in (folder / "Patient.ndjson").read_text().splitlines()]
    assert len(anew) == len(born)
    kept = [one for one, other in zip(born.values(), anew, strict=True) if one is not None and one == other]
    assert kept == []


def of_patients(pattern: str) -> Iterator[dict[str, Any]]:
    for each in resources(pattern):
        inner = [entry.get("resource", {}) for entry in each.get("entry", [])] or [each]
        yield from (one for one in inner if one.get("resourceType") == "Patient")
