"""Resources into one transaction bundle a patient, which needs nothing outside it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import polars as pl

from synthehr.connectors.fhir.bindings import are_ids, check_resource
from synthehr.connectors.fhir.write_cells import joined
from synthehr.connectors.fhir.write_files import Writer
from synthehr.connectors.fhir.write_rows import Form, Link, Made
from synthehr.connectors.fhir.write_run import Chunk, Links
from synthehr.errors import InternalError

__all__ = ["BundleWriter"]

_URN = "urn:uuid:"
_ID, _DEVICE, _TARGETS, _ENTRIES = (f"\ue000{slot}\ue000" for slot in ("id", "device", "targets", "entries"))
_NEXT_TARGET = '"},{"reference":"'


def _entry(kind: str) -> Form:
    begin = (f'{{"fullUrl":"{_URN}', f'","resource":{{"resourceType":"{kind}","id":"', '"')
    return Form(begin, f'}},"request":{{"method":"POST","url":"{kind}"}}}}')


class BundleWriter(Writer):
    """One transaction bundle a patient: everything it refers to is in it, by ``urn:uuid:``."""

    def write(self) -> Counter[str]:
        """Write ``patient-<number>.json`` for each patient."""
        digits = max(6, len(str(self.run.patients)))
        links = Links(form=_entry, before=lambda _: _URN, typed=False, one_for_all=False)
        for chunk in self.run.chunks(links=links):
            for patient, bundle in enumerate(self._bundles(chunk), start=chunk.first + 1):
                with (self.folder / f"patient-{patient:0{digits}}.json").open("wb", buffering=0) as out:
                    out.write(bundle.encode())
        return self.counts

    def _bundles(self, chunk: Chunk) -> list[str]:
        """The bundle of each patient."""
        inside = _Inside(chunk)
        for table, each in self.run.maps.items():
            found = chunk.resources(table)
            if found is not None:
                kind = each.resource
                self.labelled(found[1].data.to_list(), kind=kind, before=_entry(kind).before)
                inside.add(kind, found[0] - chunk.first, found[1])
        requesters, devices = chunk.made_up("Practitioner"), chunk.made_up("Device")
        inside.knows("Practitioner", requesters)
        inside.knows("Device", devices)
        asked = pl.Series(inside.leading_to("Practitioner"))
        requesters = pl.select(pl.when(asked).then(requesters).alias("to"))["to"]
        targets = [*inside.targets, requesters, devices]
        labels = self.run.labels
        provenance = labels.provenance(_ID, device=_DEVICE, targets=[_TARGETS])
        told = {_DEVICE: devices, _TARGETS: _together(targets, _NEXT_TARGET)}
        entries = [
            *inside.entries,
            self._own(labels.practitioner(_ID), {_ID: requesters.str.strip_prefix(_URN)}),
            self._own(labels.device(_ID), {_ID: devices.str.strip_prefix(_URN)}),
            self._own(provenance, {_ID: self._ids("Provenance", chunk), **told}, known=inside.types()),
        ]
        whole: dict[str, Any] = {"resourceType": "Bundle", "id": _ID, "meta": labels.meta, "type": "transaction"}
        whole["entry"] = [orjson.Fragment(_ENTRIES.encode())]
        slots = {_ID: self._ids("Bundle", chunk), _ENTRIES: _together(entries, ",")}
        bundles: list[str] = _filled(whole, slots).to_list()
        labels.check(bundles, kind="Bundle")
        self.counts["Bundle"] += len(bundles)
        return bundles

    def _ids(self, kind: str, chunk: Chunk) -> pl.Series:
        return pl.Series(self.run.names.of(kind, range(chunk.first, chunk.last)))

    def _own(
        self, resource: Mapping[str, Any], slots: Mapping[str, pl.Series], *, known: Mapping[str, str] | None = None
    ) -> pl.Series:
        """Entries of a resource of the run's own, once it has passed every check; null where the patient has none.

        What is put into its slots are ids, alone or in references, so that one that passes stands for all.

        Args:
            resource: with slots.
            slots: what goes into them, for each patient.
            known: the types of the resources that it may refer to.
        """
        kind = str(resource["resourceType"])
        if not are_ids(slots[_ID].drop_nulls()):
            raise InternalError(f"a {kind} is about to be written with an id that is none")
        filled = _filled(resource, slots)
        there = filled.drop_nulls().to_list()
        if not there:
            return filled
        check_resource(orjson.loads(there[0]), type_of=None if known is None else known.get)
        self.labelled(there, kind=kind)
        before, after = '","resource":', f',"request":{{"method":"POST","url":"{kind}"}}}}'
        return joined([f'{{"fullUrl":"{_URN}', slots[_ID], before, filled, after])


class _Inside:
    """What the bundles of some patients hold, and what it refers to."""

    def __init__(self, chunk: Chunk) -> None:
        self._count = chunk.last - chunk.first
        self._known: list[pl.DataFrame] = []
        self._links: list[tuple[np.ndarray[Any, Any], Link]] = []
        self.entries: list[pl.Series] = []
        self.targets: list[pl.Series] = []

    def add(self, kind: str, owners: np.ndarray[Any, Any], made: Made) -> None:
        """Take in resources of a type, in the order of their patients."""
        urns = joined([_URN, made.keys])
        each = pl.DataFrame({"of": owners, "entry": made.data, "to": urns}).with_columns(pl.col("of").set_sorted())
        together = each.group_by("of", maintain_order=True).agg(
            pl.col("entry").str.join(","), pl.col("to").str.join(_NEXT_TARGET)
        )
        if together.height < self._count:
            every = pl.DataFrame({"of": np.arange(self._count)})
            together = every.join(together, on="of", how="left", maintain_order="left")
        self.entries.append(together["entry"])
        self.targets.append(together["to"])
        self._known.append(each.select("to", "of", pl.lit(kind).alias("kind")))
        self._links += [(owners, link) for link in made.links]

    def knows(self, kind: str, urns: pl.Series) -> None:
        """Take in a made-up resource of each patient."""
        each = pl.DataFrame({"to": urns, "of": np.arange(self._count)})
        self._known.append(each.with_columns(pl.lit(kind).alias("kind")))

    def types(self) -> dict[str, str]:
        """The types of the first patient's resources, by what refers to them."""
        return {to: kind for each in self._known for to, kind in each.filter(of=0).select("to", "kind").iter_rows()}

    def leading_to(self, kind: str) -> np.ndarray[Any, Any]:
        """Which patients have a reference to a resource of this type, once every reference was checked.

        Raises:
            InternalError: one leads out of its bundle, or to a type that it must not lead to.
        """
        found = np.zeros(self._count, dtype=np.bool_)
        if not self._links:
            return found
        led = pl.concat(
            pl.DataFrame({"to": link.texts, "of": owners}).with_columns(pl.lit(at).alias("link"))
            for at, (owners, link) in enumerate(self._links)
        )
        led = led.drop_nulls("to").join(pl.concat(self._known), on=["to", "of"], how="left")
        for at, target in led.select("link", "kind").unique().iter_rows():
            if target not in self._links[at][1].targets:
                raise InternalError("a bundle is about to be written that refers to what it lacks, or to a wrong type")
        found[led.filter(kind=kind)["of"].to_numpy()] = True
        return found


def _filled(resource: Mapping[str, Any], slots: Mapping[str, pl.Series]) -> pl.Series:
    """A resource's JSON with texts put into its slots; null where one of them is."""
    pieces = re.split(f"({'|'.join(slots)})", orjson.dumps(resource).decode())
    return joined(slots.get(piece, piece) for piece in pieces)


def _together(columns: list[pl.Series], between: str) -> pl.Series:
    """Texts one after the other, without those that are missing."""
    told = [column.alias(str(at)) for at, column in enumerate(columns)]
    return pl.select(pl.concat_str(told, separator=between, ignore_nulls=True).alias("text"))["text"]
