"""Codes, concepts and quantities of FHIR made of the columns of a table, as write-back maps describe them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import orjson
import polars as pl

from synthehr.connectors.fhir.write_cells import Cells, Coded, Mask, Parts, Texts, combined
from synthehr.connectors.fhir.write_part import Part
from synthehr.connectors.fhir.write_units import is_ucum
from synthehr.encoding.domain import OTHER
from synthehr.errors import DataError

__all__ = ["code", "codeable", "coding", "concept", "omb", "quantity", "split_concept"]

_NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_UCUM = "http://unitsofmeasure.org"
_OMB = "urn:oid:2.16.840.1.113883.6.238"
_CODE = re.compile(r"[^\s]+(\s[^\s]+)*")
_SPACE = re.compile(r"\s")
_COMPARATORS = frozenset({"<", "<=", ">=", ">"})
_NO_PLACE = "is no code that FHIR R4 has a place for"
_LARGEST_WHOLE = 10**15  # beyond it a whole number is written as the float that it is


def code(spec: Mapping[str, Any], part: Part) -> Coded:
    """A code as it stands, or the nearest of R4 where it is of R5."""
    codes = spec.get("codes", {})
    cells = part.cells(spec["code"])
    if not codes:
        return cells
    part.lose(spec["code"], "is a code of R5, written as the nearest of R4", cells.where(codes.__contains__))
    return cells.mapped(lambda cell: codes.get(cell, cell))


def coding(spec: Mapping[str, Any], part: Part) -> Coded:
    """A Coding of a column that holds codes alone."""
    return _coded(spec, part, spec["coding"])


def concept(spec: Mapping[str, Any], part: Part) -> Coded:
    """A CodeableConcept of a column that holds codes alone."""
    return _coded(spec, part, spec["concept"]).mapped(lambda made: {"coding": [made]})


def _coded(spec: Mapping[str, Any], part: Part, column: str) -> Coded:
    """Codings of a column that holds codes alone; the map knows the systems of some."""
    systems = {code: system for system, codes in spec.get("systems", {}).items() for code in codes}

    def make(cell: str) -> dict[str, Any] | None:
        if cell == OTHER:
            return {"system": _NULL_FLAVOR, "code": "OTH"}
        if cell in systems:
            return {"system": systems[cell], "code": cell}
        return {"code": cell} if not spec.get("closed") and _CODE.fullmatch(cell) else None

    cells = part.cells(column)
    made = cells.mapped(make)
    part.lose(column, _NO_PLACE, (cells.there & ~made.there) | cells.where(lambda cell: cell == OTHER))
    return made


def codeable(spec: Mapping[str, Any], part: Part) -> Coded:
    """Concepts of columns for system, code and display; or, where the table lacks these, of ``system|code``."""
    system, code, display, concept = spec["codeable"]
    if all(part.empty(column) for column in spec["codeable"]):
        return part.missing()
    if code not in part.frame.columns:
        split = partial(split_concept, measured=bool(spec.get("measured")))
        told = part.cells(concept).mapped(lambda cell: (*split(cell)[:2], None))
    else:
        displays = part.cells(display)
        if not part.words:
            part.lose(display, "words are not written of synthetic records", displays.there)
            displays = part.missing()
        told = combined([part.cells(system), part.cells(code), displays], lambda *triple: triple)
    made = told.mapped(lambda triple: _codeable_of(*triple))
    there = told.where(lambda triple: triple[1] is not None)
    part.lose(code, _NO_PLACE, (there & ~made.there) | told.where(lambda triple: triple[1] == OTHER))
    return made


def _codeable_of(system: str | None, code: str | None, display: str | None) -> dict[str, Any] | None:
    if (code is not None and not _CODE.fullmatch(code)) or (system is not None and _SPACE.search(system)):
        return None
    if code == OTHER and system is None:
        system, code = _NULL_FLAVOR, "OTH"
    parts = {"system": system, "code": code, "display": display}
    coding = {name: text for name, text in parts.items() if text is not None}
    return {"coding": [coding]} if coding else None


def split_concept(text: str | None, *, measured: bool) -> tuple[str | None, str | None, str | None]:
    """System, code and (of what is measured) unit of a concept column's cell."""
    if text is None:
        return None, None, None
    system, bar, rest = text.partition("|")
    if not bar:
        return None, text, None
    code, bar, unit = rest.rpartition("|") if measured else (rest, "", "")
    if not bar:
        code, unit = rest, ""
    return system or None, code or None, unit or None


def quantity(spec: Mapping[str, Any], part: Part) -> Cells:
    """Quantities of columns for value, comparator and unit; the unit of the concept where there is no such column."""
    value, comparator, unit, concept = spec["quantity"]
    if all(part.empty(column) for column in (value, comparator, unit)):
        return part.missing()
    numbers = Texts(numerals(part, value), quoted=False)
    signs = part.cells(comparator)
    part.lose(comparator, "is a comparator of R5", signs.where(lambda sign: sign not in _COMPARATORS))
    if unit in part.frame.columns:
        units = part.cells(unit)
    else:
        units = part.cells(concept).mapped(lambda cell: split_concept(cell, measured=True)[2])
        units = units.kept(numbers.there | signs.there)
    signs = signs.mapped(lambda sign: sign if sign in _COMPARATORS else None)
    measured = units.where(is_ucum)
    parts: list[tuple[str, Cells]] = [
        ("value", numbers),
        ("comparator", signs),
        ("unit", units),
        ("system", Coded.of(_UCUM, measured)),
        ("code", units.kept(measured)),
    ]
    told: Mask = numbers.there | signs.there | units.there
    return Parts([(name, cells) for name, cells in parts if not cells.nothing], told)


def numerals(part: Part, column: str) -> pl.Series:
    """A column of numbers as JSON has them: the shortest text that reads back as each.

    Where the schema declares a precision, with at least so many digits after the point.

    Raises:
        DataError: one is infinite or no number.
    """
    if part.empty(column):
        return pl.Series([None] * part.height, dtype=pl.String)
    given = part.frame[column].cast(pl.Float64)
    there = given.is_not_null()
    numbers = given.filter(there).to_numpy()
    if not np.isfinite(numbers).all():
        raise DataError(f"column {column!r} of table {part.table!r} must hold finite numbers: FHIR has no others")
    places = part.decimals.get(column) or 0
    texts = _shortest(numbers) if places <= 0 else _padded(numbers, places)
    every = pl.Series([*texts, None], dtype=pl.String)
    return every[np.where(there.to_numpy(), np.cumsum(there.to_numpy()) - 1, len(texts))]


def _shortest(numbers: np.ndarray[Any, Any]) -> list[str]:
    if not numbers.size:
        return []
    whole = (np.floor(numbers) == numbers) & (np.abs(numbers) < _LARGEST_WHOLE)
    texts = np.empty(numbers.size, dtype=object)
    for rows, kind in ((whole, np.int64), (~whole, np.float64)):
        if rows.any():
            told = orjson.dumps(np.ascontiguousarray(numbers[rows].astype(kind)), option=orjson.OPT_SERIALIZE_NUMPY)
            texts[rows] = told.decode()[1:-1].split(",")
    return list(texts)


def _padded(numbers: np.ndarray[Any, Any], places: int) -> list[str]:
    distinct, at = np.unique(numbers, return_inverse=True)
    texts = [_decimal(number, places) for number in distinct.tolist()]
    return [texts[each] for each in at.tolist()]


def _decimal(number: float, places: int) -> str:
    text = Decimal(repr(number))
    exponent = text.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > places:
        return orjson.dumps(number).decode()
    return f"{text:.{places}f}"


def omb(spec: Mapping[str, Any], part: Part) -> Coded:
    """US Core's extension of race or ethnicity."""
    made: dict[str, dict[str, Any]] = {}
    for code, display in spec["displays"].items():
        system = _NULL_FLAVOR if code in ("ASKU", "UNK") else _OMB
        made[code] = {
            "url": spec["url"],
            "extension": [
                {"url": "ombCategory", "valueCoding": {"system": system, "code": code, "display": display}},
                {"url": "text", "valueString": display},
            ],
        }
    cells = part.cells(spec["omb"])
    part.lose(spec["omb"], _NO_PLACE, cells.where(lambda cell: cell not in made))
    return cells.mapped(made.get)
