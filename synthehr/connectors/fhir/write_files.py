"""Resources into files: NDJSON as a bulk export has it, or one transaction bundle a patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from synthehr.connectors.fhir.bindings import TypeOf, check_resource, validate_r4b
from synthehr.connectors.fhir.labels import RECORDED
from synthehr.connectors.fhir.write_map import Resource
from synthehr.connectors.fhir.write_rows import Made
from synthehr.connectors.fhir.write_run import Links, Run
from synthehr.errors import InternalError

__all__ = ["BundleWriter", "NdjsonWriter"]

_PATIENTS_AT_ONCE = 512
_RUN = "run"


@dataclass(slots=True)
class _Writer:
    run: Run
    folder: Path
    validate: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def labelled(self, resources: list[bytes], *, kind: str) -> list[bytes]:
        """Resources that passed every other check, once their labels were seen in their bytes."""
        for data in resources:
            self.run.labels.check(data, kind=kind)
        if self.validate:
            validate_r4b(orjson.loads(data) for data in resources)
        self.counts[kind] += len(resources)
        return resources

    def checked(self, resource: Resource, *, type_of: TypeOf | None = None) -> bytes:
        """A resource of the run's own as bytes, once it has passed every check."""
        check_resource(resource, type_of=type_of)
        return self.labelled([orjson.dumps(resource)], kind=resource["resourceType"])[0]

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Patients, some hundreds at a time: memory beyond the cohort's does not grow with it."""
        for first in range(0, self.run.patients, _PATIENTS_AT_ONCE):
            yield first, min(first + _PATIENTS_AT_ONCE, self.run.patients)


class NdjsonWriter(_Writer):
    """One file a type of resource, as a bulk export has them."""

    def write(self) -> Counter[str]:
        """Write everything; the Provenance of each file, and the manifest, come last."""
        run = self.run
        practitioner, device, group = (run.names(kind, _RUN) for kind in ("Practitioner", "Device", "Group"))
        links = Links(to=_relative, typed=True, made_up=lambda kind, _: run.names(kind, _RUN))
        with ExitStack() as stack:
            files: dict[str, IO[bytes]] = {}

            def put(kind: str, lines: list[bytes]) -> None:
                if kind not in files:
                    files[kind] = stack.enter_context((self.folder / f"{kind}.ndjson").open("wb"))
                files[kind].write(b"\n".join([*lines, b""]))

            for first, last in self.chunks():
                for table, each in run.maps.items():
                    kind = each.resource
                    found = run.resources(table, first, last, links=links)
                    lines = [made.data for _, made in found]
                    if lines:
                        put(kind, self.labelled(lines, kind=kind))
            put("Device", [self.checked(run.labels.device(device))])
            put("Group", [self.checked(run.labels.group(group, patients=run.patients))])
            put("Practitioner", [self.checked(run.labels.practitioner(practitioner))])
            for kind in (*files, "Provenance"):
                told = run.labels.provenance(
                    run.names("Provenance", kind),
                    device=_relative("Device", device),
                    targets=[_relative("Group", group)],
                    file=f"{kind}.ndjson",
                )
                put("Provenance", [self.checked(told)])
        (self.folder / "manifest.json").write_bytes(orjson.dumps(self._manifest(), option=orjson.OPT_INDENT_2) + b"\n")
        return self.counts

    def _manifest(self) -> dict[str, Any]:
        labels = self.run.labels
        told: dict[str, Any] = {"synthetic": labels.synthetic}
        told |= {} if labels.release_digest is None else {"release_digest": labels.release_digest}
        told |= {} if labels.epsilon is None else {"epsilon": labels.epsilon, "delta": labels.delta}
        told |= {} if labels.private else {"private": False}
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


class BundleWriter(_Writer):
    """One transaction bundle a patient: everything it refers to is in it, by ``urn:uuid:``."""

    def write(self) -> Counter[str]:
        """Write ``patient-<number>.json`` for each patient."""
        run = self.run
        digits = max(6, len(str(run.patients)))
        links = Links(to=_in_bundle, typed=False, made_up=run.names)
        for first, last in self.chunks():
            bundles: list[list[tuple[str, Made]]] = [[] for _ in range(first, last)]
            for table, each in run.maps.items():
                for patient, made in run.resources(table, first, last, links=links):
                    bundles[patient - first].append((each.resource, made))
            for patient, parts in enumerate(bundles, start=first):
                path = self.folder / f"patient-{patient + 1:0{digits}}.json"
                path.write_bytes(self._bundle(patient, parts))
        return self.counts

    def _bundle(self, patient: int, parts: list[tuple[str, Made]]) -> bytes:
        run = self.run
        device, requester = run.names("Device", patient), run.names("Practitioner", patient)
        needed = {link for _, made in parts for link in made.links}
        own = [run.labels.device(device)]
        if any(to == _in_bundle("", requester) for to, _ in needed):
            own.insert(0, run.labels.practitioner(requester))
        types = {_in_bundle("", made.key): kind for kind, made in parts}
        types |= {_in_bundle("", resource["id"]): resource["resourceType"] for resource in own}
        if any(types.get(to) not in targets for to, targets in needed):
            raise InternalError("a bundle is about to be written that refers to what it lacks, or to a wrong type")
        told = run.labels.provenance(
            run.names("Provenance", patient), device=_in_bundle("", device), targets=list(types)
        )
        entries = [_entry(made.key, made.data, kind=kind) for kind, made in parts]
        for kind, made in parts:
            self.labelled([made.data], kind=kind)
        for resource in (*own, told):
            data = self.checked(resource, type_of=types.get)
            entries.append(_entry(resource["id"], data, kind=resource["resourceType"]))
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


def _entry(key: str, data: bytes, *, kind: str) -> dict[str, Any]:
    return {
        "fullUrl": _in_bundle("", key),
        "resource": orjson.Fragment(data),
        "request": {"method": "POST", "url": kind},
    }


def _relative(kind: str, key: str) -> str:
    return f"{kind}/{key}"


def _in_bundle(kind: str, key: str) -> str:  # noqa: ARG001 - one form of link, like the other
    return f"urn:uuid:{key}"
