"""What is written down of the Common Data Model agrees with itself."""

from __future__ import annotations

import pytest

from synthehr.connectors.omop.cdm import DURATION, PERSON, VERSIONS, cdm_tables, default_schema
from synthehr.schema.model import CodeColumn, IdColumn, IntegerColumn, NumberColumn

KEPT = sorted(name for name, table in cdm_tables().items() if table.keeps_rows)


def test_the_schema_declares_the_nine_tables_and_hangs_them_from_person() -> None:
    schema = default_schema()
    assert sorted(schema.tables) == KEPT
    assert schema.subject == PERSON
    assert {table.parent for name, table in schema.tables.items() if name != PERSON} == {PERSON}


@pytest.mark.parametrize("name", KEPT)
def test_the_columns_of_the_schema_are_those_that_the_table_set_keeps(name: str) -> None:
    table, declared = cdm_tables()[name], default_schema().tables[name].columns
    made = {"person_id", *table.keeps, *table.links, *([table.key] if table.key else [])}
    made |= {"birth_known"} if name == PERSON else {table.day}
    made |= {DURATION} if table.end is not None else set()
    assert set(declared) == made
    for column in table.keeps:
        held = table.columns[column]
        if held.refers_to == "concept":
            assert isinstance(declared[column], CodeColumn)
        else:
            assert isinstance(declared[column], NumberColumn if held.type == "number" else IntegerColumn)
        if column in declared and not isinstance(declared[column], IdColumn):
            assert getattr(declared[column], "nullable", False) is not held.required


@pytest.mark.parametrize("name", sorted(cdm_tables()))
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_has_the_columns_that_the_table_set_names(name: str, version: str) -> None:
    table = cdm_tables()[name]
    there = {column.name for column in table.of(version)}
    named = {table.key, table.start, table.type, *(table.name_in(version, column) for column in table.keeps)}
    assert named - {None} <= there
    assert {column.refers_to for column in table.of(version)} - {None} <= {
        *cdm_tables(), "location", "provider", "care_site", "visit_detail", "domain", "vocabulary", "concept_class"
    }  # fmt: skip


def test_versions_differ_where_they_are_known_to() -> None:
    visit, procedure = cdm_tables()["visit_occurrence"], cdm_tables()["procedure_occurrence"]
    assert visit.name_in("5.3", "admitted_from_concept_id") == "admitting_source_concept_id"
    assert visit.name_in("5.4", "admitted_from_concept_id") == "admitted_from_concept_id"
    assert "procedure_end_date" not in {column.name for column in procedure.of("5.3")}
    assert "procedure_end_date" in {column.name for column in procedure.of("5.4")}
