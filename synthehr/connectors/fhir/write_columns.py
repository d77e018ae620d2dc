"""Elements of FHIR resources made of the columns of a table, a column at a time, as write-back maps describe them.

A write-back map (``schemas/fhir/r4/write/README.md``) names for each element what makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from synthehr.connectors.fhir.calendar import day_texts, time_texts
from synthehr.connectors.fhir.write_cells import (
    ABSENT,
    Cells,
    Coded,
    Element,
    Listed,
    Mask,
    Parts,
    Texts,
    combined,
    joined,
)
from synthehr.connectors.fhir.write_codes import code, codeable, coding, concept, omb, quantity
from synthehr.connectors.fhir.write_part import Part
from synthehr.encoding.domain import OTHER
from synthehr.errors import InternalError

__all__ = ["elements"]

_LARGEST_INT = 2**31 - 1


def elements(name: str, spec: Mapping[str, Any], part: Part) -> list[Element]:
    """The elements that a map's entry makes: one, or all alternatives of a choice, or a value and why it is absent."""
    if "choice" in spec:
        return _choice(spec, part)
    kind = next(kind for kind in _MAKERS if kind in spec)
    cells = _limited(_MAKERS[kind](spec, part), spec, part)
    missing = ~cells.there
    if not spec.get("required") or not missing.any():
        return [(name, cells)]
    if kind == "code":  # why a primitive is absent stands beside it
        return [(name, cells), (f"_{name}", Coded.of(ABSENT, missing))]
    if not isinstance(cells, Coded):
        raise InternalError(f"element {name!r} of a write-back map must be made of codes to be required")
    may = _allowed(spec, part) if "unless" in spec else missing
    return [(name, cells.filled(ABSENT, may))]


def _one(spec: Mapping[str, Any], part: Part) -> Cells:
    return elements("", spec, part)[0][1]


def _choice(spec: Mapping[str, Any], part: Part) -> list[Element]:
    """Alternatives of which each row gets the first that has a value."""
    free = part.all_rows()
    made: list[Element] = []
    for name, inner in spec["choice"]:
        found = _one(inner, part)
        if found.nothing:
            continue
        if spec.get("exclusive"):
            part.lose(name, "another value stands in the same row", found.there & ~free)
        cells = found if free.all() else found.kept(free)
        free = free & ~cells.there
        made.append((name, cells))
    return made


def _allowed(spec: Mapping[str, Any], part: Part) -> Mask:
    """Rows in which the element may stand beside what the others say."""
    may = part.all_rows()
    for column, values in spec.get("where", {}).items():
        may = may & part.cells(column).where(values.__contains__)
    for column, values in spec.get("unless", {}).items():
        may = may & ~part.cells(column).where(values.__contains__)
    return may


def _limited(cells: Cells, spec: Mapping[str, Any], part: Part) -> Cells:
    if "where" not in spec and "unless" not in spec:
        return cells
    may = _allowed(spec, part)
    name = str(spec.get("plus_days") or spec.get("concept"))
    part.lose(name, "FHIR forbids it beside the status", cells.there & ~may)
    return cells.kept(may)


def _reference(spec: Mapping[str, Any], part: Part) -> Cells:
    column = f"_to_{spec['reference']}"
    if part.empty(column):
        return part.missing()
    return Texts(part.link(spec["to"], part.frame[column]), under="reference")


def _made(spec: Mapping[str, Any], part: Part) -> Cells:
    return Texts(part.made(spec["made"]), under="reference")


def _own(spec: Mapping[str, Any], part: Part) -> Cells:
    return Texts(joined([spec["own"], part.own()]))


def _moment(spec: Mapping[str, Any], part: Part) -> Cells:
    """A day or time, so long after the patient's anchor; or the end of what begins there."""
    day = "date" in spec
    column = spec["date"] if day else spec["time"]
    more = spec.get("plus_days") or spec.get("plus_minutes")
    beginless = part.empty(column)
    if more is not None:
        length = pl.Series([None] * part.height) if part.empty(more) else part.frame[more]
        start = pl.Series([None] * part.height) if beginless else part.frame[column]
        part.lose(more, "its beginning is missing", int((length.is_not_null() & start.is_null()).sum()))
        beginless |= part.empty(more)
    if beginless:
        return part.missing()
    offset, anchor = part.frame[column].cast(pl.Int64), part.frame["_anchor"]
    length = None if more is None else part.frame[more].cast(pl.Int64)
    if day:
        return Texts(day_texts(anchor, offset if length is None else offset + length))
    return Texts(time_texts(anchor, offset, minutes=length))


def _anchor(spec: Mapping[str, Any], part: Part) -> Cells:
    days = Texts(day_texts(part.frame["_anchor"], pl.Series(np.zeros(part.height, dtype=np.int64))))
    if spec["anchor"] not in part.frame.columns:
        return days
    return days.kept(part.cells(spec["anchor"]).where(lambda kind: kind == "birth_date"))


def _words(spec: Mapping[str, Any], part: Part) -> Cells:
    cells = part.cells(spec["words"])
    if part.words:
        return cells
    part.lose(spec["words"], "words are not written of synthetic records", cells.there)
    return part.missing()


def _string(spec: Mapping[str, Any], part: Part) -> Cells:
    cells = part.cells(spec["string"])
    part.lose(spec["string"], f"{OTHER} stands for no value of its own", cells.where(lambda cell: cell == OTHER))
    return cells.mapped(lambda cell: None if cell == OTHER else cell)


def _integer(spec: Mapping[str, Any], part: Part) -> Cells:
    cells = part.cells(spec["integer"])
    part.lose(spec["integer"], "is larger than an integer of FHIR", cells.where(lambda cell: abs(cell) > _LARGEST_INT))
    return cells.mapped(lambda cell: cell if abs(cell) <= _LARGEST_INT else None)


def _object(spec: Mapping[str, Any], part: Part) -> Cells:
    """Objects of several elements; nothing where no element that rows decide has a value."""
    inner = [element for name, each in spec["object"].items() for element in elements(name, each, part)]
    told = np.zeros(part.height, dtype=np.bool_)
    for name, cells in inner:
        if "constant" not in spec["object"].get(name, {}):
            told |= cells.tells
    for name, cells in inner:
        if name in spec.get("needs", ()):
            told &= cells.there
    if not told.any():
        return part.missing()
    there = [(name, cells) for name, cells in inner if not cells.nothing]
    coded = [cells for _, cells in there if isinstance(cells, Coded)]
    if len(coded) < len(there):
        return Parts(there, told).kept(told)
    names = [name for name, _ in there]
    return combined(
        coded, lambda *row: {name: value for name, value in zip(names, row, strict=True) if value is not None} or None
    ).kept(told)


def _list(spec: Mapping[str, Any], part: Part) -> Cells:
    inner = _one(spec["list"], part)
    return inner.mapped(lambda cell: [cell]) if isinstance(inner, Coded) else Listed(inner)


def _each(spec: Mapping[str, Any], part: Part) -> Cells:
    columns = [_one(inner, part) for inner in spec["each"]]
    coded = [cells for cells in columns if isinstance(cells, Coded)]
    if len(coded) < len(columns):
        raise InternalError("a list of several of a write-back map must be made of codes")
    return combined(coded, lambda *row: [value for value in row if value is not None] or None)


_MAKERS: dict[str, Callable[[Mapping[str, Any], Part], Cells]] = {
    "code": code,
    "coding": coding,
    "concept": concept,
    "codeable": codeable,
    "quantity": quantity,
    "reference": _reference,
    "date": _moment,
    "time": _moment,
    "anchor": _anchor,
    "words": _words,
    "string": _string,
    "boolean": lambda spec, part: part.cells(spec["boolean"]),
    "integer": _integer,
    "constant": lambda spec, part: Coded.of(spec["constant"], part.all_rows()),
    "made": _made,
    "own": _own,
    "omb": omb,
    "object": _object,
    "list": _list,
    "each": _each,
}
