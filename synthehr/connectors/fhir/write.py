"""Write a cohort as FHIR R4: tables in the default schema of ``schemas/fhir/r4`` into labelled resources.

Everything is made anew from the seed: ids, the calendar, the references between them. The same cohort and seed give
the same bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import polars as pl

from synthehr.cohort import Cohort
from synthehr.connectors.fhir.bindings import check_resource, validate_r4b
from synthehr.connectors.fhir.calendar import anchors
from synthehr.connectors.fhir.labels import RECORDED, Labels, Names
from synthehr.connectors.fhir.write_columns import Part
from synthehr.connectors.fhir.write_map import Resource, WriteMap, load_map, lost
from synthehr.connectors.folders import new_folder, withhold
from synthehr.errors import ConfigError, DataError, SchemaError
from synthehr.schema.model import NumberColumn, Schema

__all__ = ["FHIR_FORMATS", "Written", "write_fhir", "write_resources"]

FHIR_FORMATS = ("fhir-ndjson", "fhir-bundle")
_PATIENTS_AT_ONCE = 512
_RUN = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written. Of real records, the counts are private.

    Attributes:
        resources: how many, by type.
        lost: cells that FHIR R4 has no place for: by table, column and reason.
    """

    resources: Mapping[str, int]
    lost: Mapping[str, Mapping[str, Mapping[str, int]]]


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
    validate: bool = False,
) -> Written:
    """Write a cohort as FHIR R4 into an existing folder; see :func:`write_fhir`."""
    if format not in FHIR_FORMATS:
        raise ConfigError(f"format must be one of {', '.join(FHIR_FORMATS)}, not {format!r}")
    if not synthetic and (release_digest is not None or epsilon is not None or delta is not None):
        raise ConfigError("records that are not synthetic come of no release: leave release_digest, epsilon, delta out")
    labels = Labels(
        synthetic=synthetic, version=_version(), release_digest=release_digest, epsilon=epsilon, delta=delta
    )
    run = _Run(cohort, labels=labels, names=Names(seed=seed, release_digest=release_digest), seed=seed)
    writer = _NdjsonWriter if format == "fhir-ndjson" else _BundleWriter
    counts = writer(run, folder, validate=validate).write()
    return Written(resources=dict(sorted(counts.items())), lost=lost(run.lost))


@dataclass(slots=True)
class _Prepared:
    """A table ready to be cut by patient: rows sorted by patient, and where each patient's begin."""

    map: WriteMap
    frame: pl.DataFrame
    starts: np.ndarray[Any, Any]
    decimals: Mapping[str, int]


class _Run:
    """A cohort prepared for writing: rows numbered, references resolved, patients put on a calendar."""

    def __init__(self, cohort: Cohort[Schema], *, labels: Labels, names: Names, seed: int) -> None:
        self.labels = labels
        self.names = names
        self.patients = len(cohort)
        self.lost: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        self._cohort = cohort
        if cohort.schema.subject != "patient":
            raise SchemaError("FHIR is written of tables whose root is 'patient': see schemas/fhir/r4/schema.yaml")
        self.maps = {table: load_map(table) for table in cohort.schema.links}
        self._anchors = anchors(cohort, {table: each.moments for table, each in self.maps.items()}, seed=seed)
        self.tables = {table: self._prepared(table) for table in self.maps}

    def _prepared(self, table: str) -> _Prepared:
        each, frame = self.maps[table], self._cohort.tables[table]
        link = self._cohort.schema.links[table]
        strange = sorted(set(frame.columns) - each.columns - {str(link.key), str(link.foreign_key)})
        if strange:
            raise SchemaError(
                f"column {strange[0]!r} of table {table!r} has no place in FHIR: leave it out, or write tables"
            )
        owners = self._cohort.owners(table)
        columns = [
            pl.Series("_row", np.arange(frame.height)),
            pl.Series("_patient", owners),
            self._anchors.gather(pl.Series(owners)),
            *(self._targets(table, column, to) for column, to in each.references.items()),
        ]
        frame = frame.with_columns(columns)
        order = ["_patient"]
        if each.components is not None:
            frame = _grouped(frame, group=each.components["group"])
            order += ["_group", *({each.components["index"]} & set(frame.columns))]
        frame = frame.sort(order, maintain_order=True, nulls_last=False)
        starts = np.searchsorted(frame["_patient"].to_numpy(), np.arange(self.patients + 1))
        return _Prepared(each, frame, starts, _decimals(self._cohort.schema, table))

    def _targets(self, table: str, column: str, to: str) -> pl.Series:
        """The row number that each reference of a column leads to; null where the row has none."""
        name = f"_to_{column}"
        frame, owners = self._cohort.tables[table], self._cohort.owners(table)
        if to == "patient":
            return pl.Series(name, owners if table != "patient" else np.arange(frame.height))
        if column not in frame.columns:
            return pl.Series(name, [None] * frame.height, dtype=pl.Int64)
        key = self._cohort.schema.links[to].key if to in self._cohort.schema.links else None
        if key is None:
            self.lost[table][column, f"table {to!r} is not there"] += frame.height - frame[column].null_count()
            return pl.Series(name, [None] * frame.height, dtype=pl.Int64)
        theirs = self._cohort.tables[to].select(
            pl.col(key).cast(pl.String).alias("_key"), pl.Series(name, np.arange(self._cohort.tables[to].height))
        )
        ours = frame.select(pl.col(column).cast(pl.String).alias("_key"))
        found = ours.join(theirs, on="_key", how="left", maintain_order="left")[name]
        if found.null_count() != frame[column].null_count():
            raise DataError(f"column {column!r} of table {table!r} must hold keys of rows of table {to!r}, or nothing")
        at = found.fill_null(0).to_numpy()
        elsewhere = self._cohort.owners(to)[at] != owners if len(self._cohort.owners(to)) else np.zeros(len(at), bool)
        if bool((elsewhere & found.is_not_null().to_numpy()).any()):
            raise DataError(f"column {column!r} of table {table!r} must lead to rows of the same patient")
        return found

    def resources(
        self, table: str, first: int, last: int, *, link: Callable[[str, str], str], requester: Callable[[int], str]
    ) -> Iterator[tuple[int, Resource]]:
        """The resources of a table of the patients ``first`` up to ``last``, each with the number of its patient."""
        ready = self.tables[table]
        rows = ready.frame[int(ready.starts[first]) : int(ready.starts[last])]
        owners = rows["_patient"].to_list()
        part = Part(
            table=table,
            frame=rows,
            link=lambda to, row: link(self.maps[to].resource, self.names(self.maps[to].resource, row)),
            made=lambda kind: [{"reference": link(kind, requester(owner))} for owner in owners],
            decimals=ready.decimals,
            words=not self.labels.synthetic,
            lost=self.lost[table],
        )
        kind = ready.map.resource
        for at, resource in ready.map.resources(part, name=lambda row: self.names(kind, row), meta=self.labels.meta):
            yield owners[at], resource


def _grouped(frame: pl.DataFrame, *, group: str) -> pl.DataFrame:
    """Rows with ``_group``, the number of the first row of the resource that they belong to."""
    if group not in frame.columns:
        return frame.with_columns(pl.col("_row").alias("_group"))
    of_one = pl.col("_row").min().over("_patient", group)
    return frame.with_columns(pl.when(pl.col(group).is_null()).then(pl.col("_row")).otherwise(of_one).alias("_group"))


def _decimals(schema: Schema, table: str) -> dict[str, int]:
    """Digits after the point that the schema's precision declares, by column."""
    found = {}
    for name, column in schema.tables[table].columns.items():
        if isinstance(column, NumberColumn) and column.precision is not None:
            exponent = Decimal(repr(column.precision)).normalize().as_tuple().exponent
            found[name] = max(0, -int(exponent))
    return found


def _version() -> str:
    try:
        return version("synthehr")
    except PackageNotFoundError:  # run from a folder that is not installed
        return "unknown"


@dataclass(slots=True)
class _Writer:
    run: _Run
    folder: Path
    validate: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def checked(self, resource: Resource, *, type_of: Callable[[str], str | None] | None = None) -> bytes:
        """A resource as bytes, once it has passed every check."""
        kind = resource["resourceType"]
        check_resource(resource, type_of=type_of)
        data = orjson.dumps(resource)
        self.run.labels.check(data, kind=kind)
        if self.validate:
            validate_r4b([orjson.loads(data)])
        self.counts[kind] += 1
        return data

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Patients, some hundreds at a time: memory beyond the cohort's does not grow with it."""
        for first in range(0, self.run.patients, _PATIENTS_AT_ONCE):
            yield first, min(first + _PATIENTS_AT_ONCE, self.run.patients)


class _NdjsonWriter(_Writer):
    """One file a type of resource, as a bulk export has them."""

    def write(self) -> Counter[str]:
        """Write everything; the Provenance of each file, and the manifest, come last."""
        run = self.run
        practitioner, device, group = (run.names(kind, _RUN) for kind in ("Practitioner", "Device", "Group"))
        with ExitStack() as stack:
            files: dict[str, IO[bytes]] = {}

            def put(resource: Resource) -> None:
                kind = resource["resourceType"]
                if kind not in files:
                    files[kind] = stack.enter_context((self.folder / f"{kind}.ndjson").open("wb"))
                files[kind].write(self.checked(resource) + b"\n")

            for first, last in self.chunks():
                for table in run.maps:
                    found = run.resources(table, first, last, link=_relative, requester=lambda _: practitioner)
                    for _, resource in found:
                        put(resource)
            put(run.labels.device(device))
            put(run.labels.group(group, patients=run.patients))
            put(run.labels.practitioner(practitioner))
            for kind in (*files, "Provenance"):
                put(
                    run.labels.provenance(
                        run.names("Provenance", kind),
                        device=_relative("Device", device),
                        targets=[_relative("Group", group)],
                        file=f"{kind}.ndjson",
                    )
                )
        (self.folder / "manifest.json").write_bytes(orjson.dumps(self._manifest(), option=orjson.OPT_INDENT_2) + b"\n")
        return self.counts

    def _manifest(self) -> dict[str, Any]:
        labels = self.run.labels
        told: dict[str, Any] = {"synthetic": labels.synthetic}
        told |= {} if labels.release_digest is None else {"release_digest": labels.release_digest}
        told |= {} if labels.epsilon is None else {"epsilon": labels.epsilon, "delta": labels.delta}
        return {
            "transactionTime": RECORDED,
            "request": "urn:synthehr:write",
            "requiresAccessToken": False,
            "output": [
                {"type": kind, "url": f"{kind}.ndjson", "count": count} for kind, count in sorted(self.counts.items())
            ],
            "error": [],
            "extension": {"urn:synthehr": told},
        }


class _BundleWriter(_Writer):
    """One transaction bundle a patient: everything it refers to is in it, by ``urn:uuid:``."""

    def write(self) -> Counter[str]:
        """Write ``patient-<number>.json`` for each patient."""
        run = self.run
        digits = max(6, len(str(run.patients)))
        for first, last in self.chunks():
            bundles: list[list[Resource]] = [[] for _ in range(first, last)]
            for table in run.maps:
                found = run.resources(
                    table, first, last, link=_in_bundle, requester=lambda patient: run.names("Practitioner", patient)
                )
                for patient, of_patient in groupby(found, key=lambda pair: pair[0]):
                    bundles[patient - first] += [resource for _, resource in of_patient]
            for patient, resources in enumerate(bundles, start=first):
                path = self.folder / f"patient-{patient + 1:0{digits}}.json"
                path.write_bytes(self._bundle(patient, resources))
        return self.counts

    def _bundle(self, patient: int, resources: list[Resource]) -> bytes:
        run = self.run
        if any("requester" in resource for resource in resources):
            resources.append(run.labels.practitioner(run.names("Practitioner", patient)))
        device = run.names("Device", patient)
        resources.append(run.labels.device(device))
        targets = [_in_bundle("", resource["id"]) for resource in resources]
        key = run.names("Provenance", patient)
        resources.append(run.labels.provenance(key, device=_in_bundle("", device), targets=targets))
        types = {_in_bundle("", resource["id"]): resource["resourceType"] for resource in resources}
        entries = [
            {
                "fullUrl": _in_bundle("", resource["id"]),
                "resource": orjson.Fragment(self.checked(resource, type_of=types.get)),
                "request": {"method": "POST", "url": resource["resourceType"]},
            }
            for resource in resources
        ]
        bundle = {
            "resourceType": "Bundle",
            "id": run.names("Bundle", patient),
            "meta": run.labels.meta,
            "type": "transaction",
            "entry": entries,
        }
        data = orjson.dumps(bundle)
        run.labels.check(data, kind="Bundle")
        self.counts["Bundle"] += 1
        return data


def _relative(kind: str, key: str) -> str:
    return f"{kind}/{key}"


def _in_bundle(kind: str, key: str) -> str:  # noqa: ARG001 - one form of link, like the other
    return f"urn:uuid:{key}"
