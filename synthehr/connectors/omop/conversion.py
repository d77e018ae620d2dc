"""A cohort into OMOP, and the names of an OMOP source's concepts along with its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.omop.cdm import default_schema
from synthehr.connectors.omop.reading import OmopRecords, open_omop
from synthehr.connectors.omop.sources import FolderSession, is_omop
from synthehr.connectors.omop.targets import write_omop_database, write_omop_files
from synthehr.connectors.omop.writing import CdmWriter, UsedConcepts
from synthehr.connectors.writing import TableWriter
from synthehr.randomness import fresh_seed
from synthehr.schema.model import Schema

__all__ = ["VOCABULARY", "convert_to_omop", "write_vocabulary"]

VOCABULARY = "concept"


def convert_to_omop(
    cohort: Cohort[Schema],
    out: Path | str,
    *,
    synthetic: bool,
    source: str | Path | None = None,
    format: str = "omop",
    version: str = "5.4",
    seed: int | None = None,
    told: str = "",
    audit: dict[str, Any] | None = None,
) -> tuple[str, ...]:
    """Write a cohort as a Common Data Model, with the vocabulary of its source where that covers what is written.

    Args:
        cohort: tables of the default OMOP schema, or some of them.
        out: an existing folder, or the URI of a database as text.
        synthetic: whether the rows were drawn from a model.
        source: where the cohort was read from.
        format: of files: ``omop`` (Parquet) or ``omop-csv``.
        version: of the Common Data Model.
        seed: of the calendar; a fresh one where left out.
        told: what else ``cdm_source`` says.
        audit: takes what had to be changed, as counts.

    Returns:
        names of the tables that were written.

    Raises:
        ConfigError: a table of the cohort is none of OMOP's, or the output cannot be written.
        DataError: a row cannot be held, or the source's vocabulary cannot be read.
    """
    writer = CdmWriter(
        cohort=cohort,
        version=version,
        seed=fresh_seed() if seed is None else seed,
        synthetic=synthetic,
        told=told,
        concepts=None if source is None else _vocabulary(source, UsedConcepts.of(cohort), schema=cohort.schema),
    )
    names = write_omop_files(writer, out, format=format) if isinstance(out, Path) else write_omop_database(writer, out)
    if audit is not None and writer.changed:
        audit["changed to fit OMOP"] = {table: dict(counts) for table, counts in sorted(writer.changed.items())}
    return names


def write_vocabulary(source: str | Path, concepts: UsedConcepts, folder: Path, *, schema: Schema, format: str) -> None:
    """Write the rows of an OMOP source's vocabulary for the concepts of a cohort, so that their names are at hand."""
    found = _vocabulary(source, concepts, schema=schema)
    if found is not None and VOCABULARY not in schema.tables:
        with TableWriter(folder, VOCABULARY, format=format) as writer:
            writer.write(found.sort("concept_id"))


def _vocabulary(source: str | Path, concepts: UsedConcepts, *, schema: Schema) -> pl.DataFrame | None:
    """What an OMOP source, or a folder of tables made of one, knows of the concepts that a cohort uses."""
    if not set(schema.tables) <= set(default_schema().tables):
        return None
    ids = concepts.ids.cast(pl.String).to_list()
    if is_omop(source):
        with open_omop(source) as records:
            return records.concepts(ids)
    folder = Path(source)
    if not folder.is_dir():
        return None
    session = FolderSession(folder)
    return OmopRecords(session).concepts(ids) if VOCABULARY in session.names() else None
