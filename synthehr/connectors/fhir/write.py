"""Write a cohort as FHIR R4: tables in the default schema of ``schemas/fhir/r4`` into labelled resources.

Everything is made anew from the seed: ids, the calendar, the references between them. The same cohort and seed give
the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from synthehr.cohort import Cohort
from synthehr.connectors.fhir.labels import Labels, Names
from synthehr.connectors.fhir.write_bundles import BundleWriter
from synthehr.connectors.fhir.write_files import NdjsonWriter
from synthehr.connectors.fhir.write_map import lost
from synthehr.connectors.fhir.write_run import Run, check_columns
from synthehr.connectors.folders import new_folder, withhold
from synthehr.errors import ConfigError, SchemaError
from synthehr.schema.model import DroppedColumn, Schema

__all__ = ["FHIR_FORMATS", "Written", "check_writable", "write_fhir", "write_resources"]

FHIR_FORMATS = ("fhir-ndjson", "fhir-bundle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written. Of real records, the counts are private.

    Attributes:
        resources: how many, by type.
        lost: cells that FHIR R4 has no place for: by table, column and reason.
    """

    resources: Mapping[str, int]
    lost: Mapping[str, Mapping[str, Mapping[str, int]]]


def check_writable(schema: Schema) -> None:
    """Refuse a schema that has a table or column without a place in FHIR, before there are any rows of it.

    Raises:
        SchemaError: it has; or its root is not ``patient``.
    """
    if schema.subject != "patient":
        raise SchemaError("FHIR is written of tables whose root is 'patient': see schemas/fhir/r4/schema.yaml")
    for table, declared in schema.tables.items():
        kept = [name for name, column in declared.columns.items() if not isinstance(column, DroppedColumn)]
        check_columns(kept, table=table, schema=schema)


def write_fhir(
    cohort: Cohort[Schema],
    folder: str | Path,
    *,
    format: str = "fhir-ndjson",
    seed: int,
    synthetic: bool,
    release_digest: str | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
    private: bool = True,
    validate: bool = False,
) -> Written:
    """Write a cohort as FHIR R4 into a new folder, whole or not at all.

    ``fhir-ndjson``: one file a type of resource, and ``manifest.json`` as a bulk export has it. ``fhir-bundle``: one
    transaction bundle a patient, whose references are ``urn:uuid:`` and stay inside it.

    Synthetic resources carry the security label HTEST and the tag ``synthetic``. Real ones never do: they are labelled
    restricted and tagged ``real-records``, and the folder is for its owner alone.

    Args:
        cohort: tables of the default FHIR schema, or some of them; ``patient`` is needed.
        folder: the new folder.
        format: ``fhir-ndjson`` or ``fhir-bundle``.
        seed: of ids and calendar.
        synthetic: whether the rows were drawn from a model. Never true of records of real patients.
        release_digest: of the release that they were drawn from.
        epsilon: what the release promised.
        delta: its slack.
        private: false where no promise was made to anyone whom the rows were learned from.
        validate: also validate every resource by fhir.resources' R4B models, about a millisecond each.

    Raises:
        ConfigError: the folder exists or cannot be made, the format is not known, or a release is named for records
            that are not synthetic.
        SchemaError: a table or column has no place in FHIR.
        DataError: a reference leads to no row of the same patient, or an offset or number cannot be written.
        InternalError: a resource would be written without its label, or breaks a rule of R4.
    """
    with new_folder(folder, private=not synthetic) as aside:
        written = write_resources(
            cohort,
            aside,
            format=format,
            seed=seed,
            synthetic=synthetic,
            release_digest=release_digest,
            epsilon=epsilon,
            delta=delta,
            private=private,
            validate=validate,
        )
        if not synthetic:
            withhold(aside)
    return written


def write_resources(
    cohort: Cohort[Schema],
    folder: Path,
    *,
    format: str,
    seed: int,
    synthetic: bool,
    release_digest: str | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
    private: bool = True,
    validate: bool = False,
) -> Written:
    """Write a cohort as FHIR R4 into an existing folder; see :func:`write_fhir`."""
    if format not in FHIR_FORMATS:
        raise ConfigError(f"format must be one of {', '.join(FHIR_FORMATS)}, not {format!r}")
    if not synthetic and (release_digest is not None or epsilon is not None or delta is not None):
        raise ConfigError("records that are not synthetic come of no release: leave release_digest, epsilon, delta out")
    labels = Labels(
        synthetic=synthetic,
        version=_version(),
        release_digest=release_digest,
        epsilon=epsilon,
        delta=delta,
        private=private,
    )
    run = Run(cohort, labels=labels, names=Names(seed=seed, release_digest=release_digest), seed=seed)
    writer = NdjsonWriter if format == "fhir-ndjson" else BundleWriter
    counts = writer(run, folder, validate=validate).write()
    return Written(resources=dict(sorted(counts.items())), lost=lost(run.lost))


def _version() -> str:
    try:
        return version("synthehr")
    except PackageNotFoundError:  # run from a folder that is not installed
        return "unknown"
