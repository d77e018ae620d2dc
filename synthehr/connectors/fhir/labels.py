"""What says of a resource that it is synthetic, or that it is not; and the gate that lets nothing out without it.

In the manner of HL7 Europe's SYNDERAI policy (https://synderai.net, version 1.2): a security label, a tag, a Device
that generated, and Provenance. Its own tag and address are not claimed, since it speaks of data that no patient's data
went into; what went in here, and at what epsilon, stands in the Provenance.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from typing import Any

import numpy as np
import orjson

from synthehr.connectors.fhir.calendar import CALENDAR_END
from synthehr.connectors.fhir.us_core import profiles_of
from synthehr.connectors.fhir.write_cells import ABSENT
from synthehr.errors import InternalError

__all__ = ["EXTENSION", "Labels", "Names"]

EXTENSION = "urn:synthehr:"
_TAGS = "urn:synthehr:tags"
_SYNTHETIC_TAG = {"system": _TAGS, "code": "synthetic", "display": "Synthetic: no patient's record"}
_NOT_PRIVATE_TAG = {"system": _TAGS, "code": "not-private", "display": "NOT PRIVATE: rows may repeat patients"}
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:synthehr:fhir")
_ANY_ID = "0" * 36
RECORDED = f"{CALENDAR_END.isoformat()}T23:59:59+00:00"
_HTEST = '"security":[{"system":"http://terminology.hl7.org/CodeSystem/v3-ActReason","code":"HTEST"'
_SYNTHETIC = '"tag":[{"system":"urn:synthehr:tags","code":"synthetic"'


class Names:
    """Ids made anew: uuid5 of a resource's type and number in a namespace of the run.

    Neither a key nor anything else of a row goes in, so that no id can be tried against a list of known keys.
    """

    def __init__(self, *, seed: int, release_digest: str | None) -> None:
        self._run = uuid.uuid5(_NAMESPACE, f"{seed}:{release_digest or ''}").bytes

    def __call__(self, kind: str, number: int | str) -> str:
        """The id of the resource of this type with this number."""
        return self.of(kind, [number])[0]

    def of(self, kind: str, numbers: Iterable[int | str]) -> list[str]:
        """The ids of the resources of this type with these numbers."""
        begun = self._run + f"{kind}/".encode()
        hashed = b"".join([sha1(begun + str(number).encode(), usedforsecurity=False).digest() for number in numbers])
        octets = np.frombuffer(hashed, dtype=np.uint8).reshape(-1, 20)[:, :16].copy()
        octets[:, 6] = octets[:, 6] & 0x0F | 0x50  # version 5
        octets[:, 8] = octets[:, 8] & 0x3F | 0x80  # RFC 9562: 10xx
        digits = np.frombuffer(octets.tobytes().hex().encode(), dtype=np.uint8).reshape(-1, 32)
        text = np.full((len(digits), 36), ord("-"), dtype=np.uint8)
        for begin, end, at in ((0, 8, 0), (8, 12, 9), (12, 16, 14), (16, 20, 19), (20, 32, 24)):
            text[:, at : at + end - begin] = digits[:, begin:end]
        whole = text.tobytes().decode()
        return [whole[at : at + 36] for at in range(0, len(whole), 36)]


@dataclass(frozen=True)
class Labels:
    """The labels of one run.

    Attributes:
        synthetic: whether the rows were drawn from a model. Where not, they are real records, and say so.
        release_digest: of the release that the cohort was drawn from; None where there is none.
        epsilon: what was promised to the patients that the release was learned from.
        delta: its slack.
        private: false of synthetic records that were made without a promise to anyone.
        version: of synthehr.
    """

    synthetic: bool
    version: str
    release_digest: str | None = None
    epsilon: float | None = None
    delta: float | None = None
    private: bool = True

    @cached_property
    def meta(self) -> dict[str, Any]:
        """``meta`` of every resource and bundle."""
        if self.synthetic:
            return {
                "security": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/v3-ActReason",
                        "code": "HTEST",
                        "display": "test health data",
                    }
                ],
                "tag": [_SYNTHETIC_TAG]
                if self.private
                else [{**_SYNTHETIC_TAG, "display": "Synthetic"}, _NOT_PRIVATE_TAG],
            }
        return {
            "security": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
                    "code": "R",
                    "display": "restricted",
                }
            ],
            "tag": [{"system": _TAGS, "code": "real-records", "display": "Converted from real records: not synthetic"}],
        }

    @cached_property
    def _begin(self) -> str:
        return '"meta":' + orjson.dumps(self.meta)[:-1].decode()

    @cached_property
    def _claims(self) -> bool:
        """Whether the label says synthetic."""
        return _HTEST in self._begin and _SYNTHETIC in self._begin

    def check(self, resources: Iterable[str], *, kind: str, before: str = "") -> None:
        """Refuse resources, as they will be written, of which one's label is not where and what it must be.

        Args:
            resources: their JSON, each with an id of 36 characters.
            kind: their type.
            before: what stands before each resource's own, with any 36 characters for the id.

        Raises:
            InternalError: a label is missing, or real records are labelled synthetic.
        """
        at = len(f'{before}{{"resourceType":"{kind}","id":"{_ANY_ID}",')
        begin = self._begin
        if self._claims != self.synthetic or not all(text.startswith(begin, at) for text in resources):
            wanted = "synthetic" if self.synthetic else "real"
            raise InternalError(f"a {kind} is about to be written without the label that its records are {wanted}")

    def device(self, key: str) -> dict[str, Any]:
        """The software that made the resources."""
        what = "Generator of synthetic patient records" if self.synthetic else "Converter of patient records"
        return {
            "resourceType": "Device",
            "id": key,
            "meta": self.meta,
            "status": "active",
            "deviceName": [{"name": "synthehr", "type": "model-name"}],
            "type": {"text": what},
            "version": [{"value": self.version}],
        }

    def practitioner(self, key: str) -> dict[str, Any]:
        """Who requests what somebody must request: made up, with no name and no identifier but the id made here."""
        resource = {
            "resourceType": "Practitioner",
            "id": key,
            "meta": self.meta,
            "identifier": [{"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{key}"}],
            "active": True,
            "name": [{"_family": ABSENT}],
        }
        return resource | {"meta": self.meta | {"profile": [each.url for each in profiles_of("Practitioner")]}}

    def group(self, key: str, *, patients: int) -> dict[str, Any]:
        """The patients of the run, counted and not listed."""
        return {
            "resourceType": "Group",
            "id": key,
            "meta": self.meta,
            "type": "person",
            "actual": True,
            "quantity": patients,
        }

    def provenance(self, key: str, *, device: str, targets: Sequence[str], file: str | None = None) -> dict[str, Any]:
        """Where the resources of a file or bundle come from, and at what price to the patients learned from.

        ``recorded`` is the end of the calendar: the time of day would make every run's bytes differ.
        """
        told: list[dict[str, Any]] = [{"url": f"{EXTENSION}synthetic", "valueBoolean": self.synthetic}]
        if not self.private:
            told.append({"url": f"{EXTENSION}private", "valueBoolean": False})
        for name, text in (("release-digest", self.release_digest), ("file", file)):
            if text is not None:
                told.append({"url": EXTENSION + name, "valueString": text})
        for name, number in (("epsilon", self.epsilon), ("delta", self.delta)):
            if number is not None:
                told.append({"url": EXTENSION + name, "valueDecimal": number})
        activity = "CREATE" if self.synthetic else "UPDATE"
        return {
            "resourceType": "Provenance",
            "id": key,
            "meta": self.meta,
            "extension": told,
            "target": [{"reference": target} for target in targets],
            "recorded": RECORDED,
            "activity": {
                "coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-DataOperation", "code": activity}]
            },
            "agent": [
                {
                    "type": {
                        "coding": [
                            {
                                "system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type",
                                "code": "assembler",
                            }
                        ]
                    },
                    "who": {"reference": device},
                }
            ],
        }
