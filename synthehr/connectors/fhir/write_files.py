"""Resources into files: NDJSON as a bulk export has it, or one transaction bundle a patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from synthehr.connectors.fhir.bindings import TypeOf, check_resource, validate_r4b
from synthehr.connectors.fhir.labels import RECORDED
from synthehr.connectors.fhir.write_rows import bare
from synthehr.connectors.fhir.write_run import RUN, Links, Run

__all__ = ["NdjsonWriter", "Writer"]


@dataclass(slots=True)
class Writer:
    """What writers of both forms do: let nothing out that is not checked and labelled, and count what goes out."""

    run: Run
    folder: Path
    validate: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def labelled(self, resources: Sequence[str], *, kind: str, before: str = "") -> Sequence[str]:
        """Resources that passed every other check, once their labels were seen in what will be written.

        Args:
            resources: their JSON, as entries of a bundle where something stands before it.
            kind: their type.
            before: see :meth:`Labels.check`.
        """
        self.run.labels.check(resources, kind=kind, before=before)
        if self.validate:
            validate_r4b(orjson.loads(text)["resource"] if before else orjson.loads(text) for text in resources)
        self.counts[kind] += len(resources)
        return resources

    def checked(self, resource: Mapping[str, Any], *, type_of: TypeOf | None = None) -> Sequence[str]:
        """A resource of the run's own as JSON, once it has passed every check."""
        check_resource(resource, type_of=type_of)
        return self.labelled([orjson.dumps(resource).decode()], kind=str(resource["resourceType"]))


class NdjsonWriter(Writer):
    """One file a type of resource, as a bulk export has them."""

    def write(self) -> Counter[str]:
        """Write everything; the Provenance of each file, and the manifest, come last."""
        run = self.run
        practitioner, device, group = (run.names(kind, RUN) for kind in ("Practitioner", "Device", "Group"))
        links = Links(form=bare, before=_relative, typed=True, one_for_all=True)
        with ExitStack() as stack:
            files: dict[str, IO[bytes]] = {}

            def put(kind: str, lines: Sequence[str]) -> None:
                if kind not in files:
                    files[kind] = stack.enter_context((self.folder / f"{kind}.ndjson").open("wb"))
                files[kind].write("\n".join([*lines, ""]).encode())

            for chunk in run.chunks(links=links):
                for table, each in run.maps.items():
                    found = chunk.resources(table)
                    if found is not None:
                        put(each.resource, self.labelled(found[1].data.to_list(), kind=each.resource))
            put("Device", self.checked(run.labels.device(device)))
            put("Group", self.checked(run.labels.group(group, patients=run.patients)))
            put("Practitioner", self.checked(run.labels.practitioner(practitioner)))
            for kind in (*files, "Provenance"):
                told = run.labels.provenance(
                    run.names("Provenance", kind),
                    device=f"Device/{device}",
                    targets=[f"Group/{group}"],
                    file=f"{kind}.ndjson",
                )
                put("Provenance", self.checked(told))
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


def _relative(kind: str) -> str:
    return f"{kind}/"
