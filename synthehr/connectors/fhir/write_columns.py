"""Elements of FHIR resources made of the columns of a table, a column at a time, as write-back maps describe them.

A write-back map (``schemas/fhir/r4/write/README.md``) names for each element what makes it. What makes an element gives
a list with one value for each row: JSON, or None where the row has nothing for it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson
import polars as pl

from synthehr.connectors.fhir.calendar import date_text, time_text
from synthehr.connectors.fhir.write_units import is_ucum
from synthehr.encoding.domain import OTHER
from synthehr.errors import DataError

__all__ = ["ABSENT", "Cells", "Element", "Part", "elements"]

Cells = list[Any]
Element = tuple[str, Cells]

ABSENT = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}
_NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_UCUM = "http://unitsofmeasure.org"
_OMB = "urn:oid:2.16.840.1.113883.6.238"
_CODE = re.compile(r"[^\s]+(\s[^\s]+)*")
_SPACE = re.compile(r"\s")
_COMPARATORS = frozenset({"<", "<=", ">=", ">"})
_LARGEST_INT = 2**31 - 1


@dataclass(slots=True, kw_only=True)
class Part:
    """Rows of one table on their way into resources.

    Attributes:
        table: its name.
        frame: the rows, with ``_anchor``, the day that their patient's offsets count from.
        link: the reference to a row of a table, by table and row number.
        made: references to resources that no row stands for, by type.
        decimals: places after the point that a number column's precision declares, by column.
        words: whether free text and displays may be written.
        lost: cells that have no place in the resource, by column and reason.
    """

    table: str
    frame: pl.DataFrame
    link: Callable[[str, int], str]
    made: Callable[[str], Cells]
    decimals: Mapping[str, int]
    words: bool
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)
    _texts: pl.DataFrame | None = None

    def cells(self, column: str) -> Cells:
        """A column's cells; None throughout where the table lacks it."""
        if self.empty(column):
            return [None] * self.frame.height
        return self.frame[column].to_list()

    def empty(self, column: str) -> bool:
        """Whether no row has anything in a column."""
        return column not in self.frame.columns or self.frame[column].null_count() == self.frame.height

    def texts(self, column: str) -> Cells:
        """A column's cells, with text that FHIR cannot hold (none, or spaces alone) as None."""
        if self.empty(column):
            return [None] * self.frame.height
        if self._texts is None:
            kept = (pl.when(pl.col(name).str.contains(r"\S")).then(pl.col(name)) for name in _texts(self.frame))
            self._texts = self.frame.select(kept)
        return self._texts[column].to_list()

    def lose(self, column: str, why: str, count: int = 1) -> None:
        """Count cells that cannot be written."""
        if count:
            self.lost[column, why] += count


def _texts(frame: pl.DataFrame) -> list[str]:
    return [name for name, dtype in frame.schema.items() if dtype == pl.String]


def elements(name: str, spec: Mapping[str, Any], part: Part) -> list[Element]:
    """The elements that a map's entry makes: one, or all alternatives of a choice, or a value and why it is absent."""
    if "choice" in spec:
        return _choice(spec, part)
    kind = next(kind for kind in _MAKERS if kind in spec)
    cells = _limited(_MAKERS[kind](spec, part), spec, part)
    if not spec.get("required") or None not in cells:
        return [(name, cells)]
    if kind == "code":  # why a primitive is absent stands beside it
        return [(name, cells), (f"_{name}", [ABSENT if cell is None else None for cell in cells])]
    if "unless" in spec:
        keep = _allowed(spec, part)
        return [(name, [ABSENT if cell is None and may else cell for cell, may in zip(cells, keep, strict=True)])]
    return [(name, [ABSENT if cell is None else cell for cell in cells])]


def _one(spec: Mapping[str, Any], part: Part) -> Cells:
    return elements("", spec, part)[0][1]


def _choice(spec: Mapping[str, Any], part: Part) -> list[Element]:
    """Alternatives of which each row gets the first that has a value."""
    taken = [False] * part.frame.height
    made: list[Element] = []
    for name, inner in spec["choice"]:
        found = _one(inner, part)
        if _nothing(found):
            continue
        if spec.get("exclusive"):
            both = sum(cell is not None and before for cell, before in zip(found, taken, strict=True))
            part.lose(name, "another value stands in the same row", both)
        cells = [None if before else cell for cell, before in zip(found, taken, strict=True)]
        taken = [before or cell is not None for cell, before in zip(cells, taken, strict=True)]
        made.append((name, cells))
    return made


def _nothing(cells: Cells) -> bool:
    return cells.count(None) == len(cells)


def _allowed(spec: Mapping[str, Any], part: Part) -> list[bool]:
    """Rows in which the element may stand beside what the others say."""
    may = [True] * part.frame.height
    for column, values in spec.get("where", {}).items():
        may = [before and cell in values for before, cell in zip(may, part.cells(column), strict=True)]
    for column, values in spec.get("unless", {}).items():
        may = [before and cell not in values for before, cell in zip(may, part.cells(column), strict=True)]
    return may


def _limited(cells: Cells, spec: Mapping[str, Any], part: Part) -> Cells:
    if "where" not in spec and "unless" not in spec:
        return cells
    may = _allowed(spec, part)
    name = str(spec.get("plus_days") or spec.get("concept"))
    part.lose(
        name, "FHIR forbids it beside the status", sum(c is not None and not m for c, m in zip(cells, may, strict=True))
    )
    return [cell if allowed else None for cell, allowed in zip(cells, may, strict=True)]


def _code(spec: Mapping[str, Any], part: Part) -> Cells:
    codes = spec.get("codes", {})
    cells = part.texts(spec["code"])
    part.lose(spec["code"], "is a code of R5, written as the nearest of R4", sum(cell in codes for cell in cells))
    return [codes.get(cell, cell) for cell in cells] if codes else cells


def _coded(spec: Mapping[str, Any], part: Part, column: str) -> list[dict[str, Any] | None]:
    """Codings of a column that holds codes alone; the map knows the systems of some."""
    systems = {code: system for system, codes in spec.get("systems", {}).items() for code in codes}
    known: dict[Any, dict[str, Any] | None] = {None: None, OTHER: {"system": _NULL_FLAVOR, "code": "OTH"}}
    made = []
    for cell in part.texts(column):
        if cell not in known:
            if cell in systems:
                known[cell] = {"system": systems[cell], "code": cell}
            else:
                writable = not spec.get("closed") and _CODE.fullmatch(cell)
                known[cell] = {"code": cell} if writable else None
        if cell is not None and (known[cell] is None or cell == OTHER):
            part.lose(column, "is no code that FHIR R4 has a place for")
        made.append(known[cell])
    return made


def _coding(spec: Mapping[str, Any], part: Part) -> Cells:
    return _coded(spec, part, spec["coding"])


def _concept(spec: Mapping[str, Any], part: Part) -> Cells:
    return _each_once(_coded(spec, part, spec["concept"]), lambda coding: {"coding": [coding]})


def _codeable(spec: Mapping[str, Any], part: Part) -> Cells:
    """Concepts of columns for system, code and display; or, where the table lacks these, of ``system|code``."""
    system, code, display, concept = spec["codeable"]
    if all(part.empty(column) for column in spec["codeable"]):
        return [None] * part.frame.height
    if code not in part.frame.columns:
        measured = bool(spec.get("measured"))
        triples = [(*split_concept(cell, measured=measured)[:2], None) for cell in part.texts(concept)]
    else:
        displays = part.texts(display)
        if not part.words:
            part.lose(display, "words are not written of synthetic records", sum(cell is not None for cell in displays))
            displays = [None] * len(displays)
        triples = list(zip(part.texts(system), part.texts(code), displays, strict=True))
    known: dict[Any, dict[str, Any] | None] = {}
    made = []
    for triple in triples:
        if triple not in known:
            known[triple] = _codeable_of(*triple)
        if triple[1] is not None and (known[triple] is None or triple[1] == OTHER):
            part.lose(code, "is no code that FHIR R4 has a place for")
        made.append(known[triple])
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


def _quantity(spec: Mapping[str, Any], part: Part) -> Cells:
    value, comparator, unit, concept = spec["quantity"]
    if all(part.empty(column) for column in (value, comparator, unit)):
        return [None] * part.frame.height
    numbers, signs = part.cells(value), part.texts(comparator)
    stated = unit in part.frame.columns
    units = part.texts(unit) if stated else [split_concept(c, measured=True)[2] for c in part.texts(concept)]
    places = part.decimals.get(value)
    known: dict[tuple[Any, ...], dict[str, Any] | None] = {}
    made: Cells = []
    for told in zip(numbers, signs, units, strict=True):
        if told not in known:
            number, sign, measure = told
            quantity: dict[str, Any] = {}
            if number is not None:
                quantity["value"] = decimal(number, places=places, column=value, table=part.table)
            if sign in _COMPARATORS:
                quantity["comparator"] = sign
            if measure is not None and (stated or number is not None or sign is not None):
                quantity["unit"] = measure
                if is_ucum(measure):
                    quantity |= {"system": _UCUM, "code": measure}
            known[told] = quantity or None
        made.append(known[told])
    part.lose(comparator, "is a comparator of R5", sum(s is not None and s not in _COMPARATORS for s in signs))
    return made


def decimal(number: float, *, places: int | None, column: str, table: str) -> object:
    """A number as JSON: the shortest text that reads back as it, with at least ``places`` digits after the point.

    Raises:
        DataError: it is infinite or no number.
    """
    if not math.isfinite(number):
        raise DataError(f"column {column!r} of table {table!r} must hold finite numbers: FHIR has no others")
    whole = int(number)
    if places is None or places <= 0:
        return whole if whole == number and abs(whole) < 10**15 else number
    text = Decimal(repr(float(number)))
    exponent = text.as_tuple().exponent
    if isinstance(exponent, int) and -exponent > places:
        return number
    return orjson.Fragment(f"{text:.{places}f}".encode())


def _reference(spec: Mapping[str, Any], part: Part) -> Cells:
    known: dict[Any, dict[str, str] | None] = {None: None}
    rows = part.cells(f"_to_{spec['reference']}")
    for row in set(rows) - {None}:
        known[row] = {"reference": part.link(spec["to"], row)}
    return [known[row] for row in rows]


def _moment(spec: Mapping[str, Any], part: Part) -> Cells:
    day = "date" in spec
    column = spec["date"] if day else spec["time"]
    more = spec.get("plus_days") or spec.get("plus_minutes")
    if column not in part.frame.columns or (more is not None and more not in part.frame.columns):
        if more is not None:
            part.lose(more, "its beginning is missing", sum(cell is not None for cell in part.cells(more)))
        return [None] * part.frame.height
    start = pl.col(column).cast(pl.Int64)
    if more is None:
        text = date_text(start) if day else time_text(start)
        return part.frame.select(text.alias("_"))["_"].to_list()
    length = pl.col(more).cast(pl.Int64)
    text = date_text(start + length) if day else time_text(start, minutes=length)
    beginless = (length.is_not_null() & start.is_null()).sum()
    found = part.frame.select(text.alias("_"), beginless.alias("_without"))
    part.lose(more, "its beginning is missing", found["_without"][0] if found.height else 0)
    return found["_"].to_list()


def _anchor(spec: Mapping[str, Any], part: Part) -> Cells:
    days = part.frame["_anchor"].dt.strftime("%Y-%m-%d").to_list()
    if spec["anchor"] not in part.frame.columns:
        return days
    return [
        day if is_birth == "birth_date" else None
        for day, is_birth in zip(days, part.cells(spec["anchor"]), strict=True)
    ]


def _words(spec: Mapping[str, Any], part: Part) -> Cells:
    cells = part.texts(spec["words"])
    if part.words:
        return cells
    part.lose(spec["words"], "words are not written of synthetic records", sum(cell is not None for cell in cells))
    return [None] * len(cells)


def _string(spec: Mapping[str, Any], part: Part) -> Cells:
    cells = part.texts(spec["string"])
    part.lose(spec["string"], f"{OTHER} stands for no value of its own", cells.count(OTHER))
    return [None if cell == OTHER else cell for cell in cells]


def _integer(spec: Mapping[str, Any], part: Part) -> Cells:
    cells = part.cells(spec["integer"])
    large = sum(cell is not None and abs(cell) > _LARGEST_INT for cell in cells)
    part.lose(spec["integer"], "is larger than an integer of FHIR", large)
    return [cell if cell is not None and abs(cell) <= _LARGEST_INT else None for cell in cells]


def _omb(spec: Mapping[str, Any], part: Part) -> Cells:
    """US Core's extension of race or ethnicity."""
    made: dict[str | None, dict[str, Any] | None] = {None: None}
    for code, display in spec["displays"].items():
        system = _NULL_FLAVOR if code in ("ASKU", "UNK") else _OMB
        made[code] = {
            "url": spec["url"],
            "extension": [
                {"url": "ombCategory", "valueCoding": {"system": system, "code": code, "display": display}},
                {"url": "text", "valueString": display},
            ],
        }
    cells = part.texts(spec["omb"])
    part.lose(spec["omb"], "is no code that FHIR R4 has a place for", sum(cell not in made for cell in cells))
    return [made.get(cell) for cell in cells]


def _object(spec: Mapping[str, Any], part: Part) -> Cells:
    """Objects of several elements; None where no element that rows decide has a value."""
    inner = [element for name, each in spec["object"].items() for element in elements(name, each, part)]
    telling = [cells for name, cells in inner if not _is_fixed(spec["object"].get(name))]
    needs = [cells for name, cells in inner if name in spec.get("needs", ())]
    if all(_nothing(cells) for cells in telling):
        return [None] * part.frame.height
    names = [name for name, _ in inner]
    made: Cells = []
    for at, row in enumerate(zip(*(cells for _, cells in inner), strict=True)):
        told = any(cells[at] is not None and not _is_absent(cells[at]) for cells in telling)
        if told and all(cells[at] is not None for cells in needs):
            made.append({name: cell for name, cell in zip(names, row, strict=True) if cell is not None})
        else:
            made.append(None)
    return made


def _is_fixed(spec: Mapping[str, Any] | None) -> bool:
    return spec is not None and "constant" in spec


def _is_absent(cell: Any) -> bool:
    return cell is ABSENT or (isinstance(cell, list) and len(cell) == 1 and cell[0] is ABSENT)


def _each(spec: Mapping[str, Any], part: Part) -> Cells:
    columns = [_one(inner, part) for inner in spec["each"]]
    rows = ([cell for cell in row if cell is not None] for row in zip(*columns, strict=True))
    return [row or None for row in rows]


def _each_once(cells: Cells, make: Callable[[Any], Any]) -> Cells:
    """What is made of each cell; of one and the same object it is made once, so that it is known to be the same."""
    distinct = dict(zip(map(id, cells), cells, strict=True))
    known = {key: None if cell is None else make(cell) for key, cell in distinct.items()}
    return [known[key] for key in map(id, cells)]


_MAKERS: dict[str, Callable[[Mapping[str, Any], Part], Cells]] = {
    "code": _code,
    "coding": _coding,
    "concept": _concept,
    "codeable": _codeable,
    "quantity": _quantity,
    "reference": _reference,
    "date": _moment,
    "time": _moment,
    "anchor": _anchor,
    "words": _words,
    "string": _string,
    "boolean": lambda spec, part: part.cells(spec["boolean"]),
    "integer": _integer,
    "constant": lambda spec, part: [spec["constant"]] * part.frame.height,
    "made": lambda spec, part: part.made(spec["made"]),
    "omb": _omb,
    "object": _object,
    "list": lambda spec, part: _each_once(_one(spec["list"], part), lambda cell: [cell]),
    "each": _each,
}


def columns_of(spec: Mapping[str, Any] | Sequence[Any]) -> set[str]:
    """The columns of a table that an entry of a map reads."""
    if not isinstance(spec, Mapping):
        return {name for _, inner in spec for name in columns_of(inner)}
    found: set[str] = set()
    for kind, what in spec.items():
        if kind in ("codeable", "quantity"):
            found |= set(what)
        elif kind == "object":
            found |= {name for inner in what.values() for name in columns_of(inner)}
        elif kind == "each":
            found |= {name for inner in what for name in columns_of(inner)}
        elif kind in ("choice", "list"):
            found |= columns_of(what)
        elif kind in ("where", "unless"):
            found |= set(what)
        elif kind in _READS:
            found.add(what)
    return found


_READS = frozenset(
    ("code", "coding", "concept", "reference", "date", "time", "anchor", "words", "string", "boolean", "integer", "omb",
     "plus_days", "plus_minutes")
)  # fmt: skip
