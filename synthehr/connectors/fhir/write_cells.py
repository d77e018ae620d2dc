"""What the rows of a table have for one element of FHIR, held so that each distinct value is made and checked once.

Where values repeat, they stand in a list and each row has a number into it (:class:`Coded`); where hardly any repeats,
they are text that needs no escaping, a column of it (:class:`Texts`); an object that has such text in it keeps its
elements apart (:class:`Parts`). All three become JSON a column at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, TypeAlias

import numpy as np
import orjson
import polars as pl

__all__ = [
    "ABSENT",
    "Cells",
    "Coded",
    "Element",
    "Listed",
    "Mask",
    "Parts",
    "Texts",
    "coded_numbers",
    "coded_texts",
    "combined",
    "joined",
    "numbered",
    "one_after_other",
    "values_at",
]

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]

ABSENT = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}


class Cells(ABC):
    """A value of JSON for each of some rows, or nothing."""

    @property
    @abstractmethod
    def there(self) -> Mask:
        """Whether each row has a value. Shape ``(rows,)``."""

    @property
    def tells(self) -> Mask:
        """Whether each row has a value that is more than the note that it is absent. Shape ``(rows,)``."""
        return self.there

    @abstractmethod
    def kept(self, rows: Mask) -> Cells:
        """The same where ``rows`` says so, and nothing elsewhere."""

    @abstractmethod
    def json(self, *, before: str = "", after: str = "") -> pl.Expr:
        """Each value as JSON between two texts; an empty text where there is none."""

    @abstractmethod
    def at(self, path: Sequence[str]) -> list[Any]:
        """The values at a path of element names inside these, repeated ones perhaps once; of lists every item."""

    @abstractmethod
    def row(self, at: int) -> Any:
        """One row's value as JSON has it, or None."""

    @property
    def nothing(self) -> bool:
        """Whether no row has a value."""
        return not bool(self.there.any())


Element: TypeAlias = tuple[str, Cells]


@dataclass(frozen=True, slots=True)
class Coded(Cells):
    """Values that repeat.

    Attributes:
        values: what JSON can hold, none of them None.
        codes: of each row the place of its value among ``values``, -1 for none. Shape ``(rows,)``.
    """

    values: list[Any]
    codes: Numbers

    @classmethod
    def none(cls, rows: int) -> Coded:
        """No value in any row."""
        return cls([], np.full(rows, -1, dtype=np.int32))

    @classmethod
    def of(cls, value: Any, there: Mask) -> Coded:
        """One value where ``there`` says so."""
        return cls([value], np.where(there, 0, -1).astype(np.int32))

    @property
    def there(self) -> Mask:
        """See :class:`Cells`."""
        return self.codes >= 0

    @property
    def tells(self) -> Mask:
        """See :class:`Cells`."""
        return self.where(lambda value: value is not ABSENT and value != [ABSENT])

    def kept(self, rows: Mask) -> Coded:
        """See :class:`Cells`."""
        return Coded(self.values, np.where(rows, self.codes, -1).astype(np.int32))

    def filled(self, value: Any, rows: Mask) -> Coded:
        """The same, with a value where there is none and ``rows`` says so."""
        codes = np.where(rows & ~self.there, len(self.values), self.codes).astype(np.int32)
        return Coded([*self.values, value], codes)

    def mapped(self, make: Callable[[Any], Any]) -> Coded:
        """What is made of each value; nothing where that is None."""
        made = [make(value) for value in self.values]
        there = np.array([*(value is not None for value in made), False])
        places = np.where(there, np.cumsum(there) - 1, -1).astype(np.int32)
        return Coded([value for value in made if value is not None], places[self.codes])

    def where(self, holds: Callable[[Any], bool]) -> Mask:
        """Rows whose value a question holds of. Shape ``(rows,)``."""
        return np.array([*(bool(holds(value)) for value in self.values), False])[self.codes]

    def json(self, *, before: str = "", after: str = "") -> pl.Expr:
        """See :class:`Cells`."""
        used = self._used()
        texts = [before + orjson.dumps(v).decode() + after if u else "" for v, u in zip(self.values, used, strict=True)]
        places = np.where(self.codes < 0, len(self.values), self.codes)
        return pl.lit(pl.Series([*texts, ""], dtype=pl.String)[places])

    def at(self, path: Sequence[str]) -> list[Any]:
        """See :class:`Cells`."""
        return values_at((value for value, used in zip(self.values, self._used(), strict=True) if used), path)

    def row(self, at: int) -> Any:
        """See :class:`Cells`."""
        return self.values[self.codes[at]] if self.codes[at] >= 0 else None

    def _used(self) -> Mask:
        """Which values some row has. Shape ``(values,)``."""
        used = np.zeros(len(self.values) + 1, dtype=np.bool_)
        used[self.codes] = True
        return used[:-1]


@dataclass(frozen=True)
class Texts(Cells):
    """Text of which JSON needs nothing escaped: days, times, references, numbers.

    Attributes:
        text: of each row, null for none.
        under: the one element of the object that the text stands in; None where it stands by itself.
        quoted: whether it is a string, not a number.
    """

    text: pl.Series
    under: str | None = None
    quoted: bool = True

    @cached_property
    def there(self) -> Mask:
        """See :class:`Cells`."""
        if not self.text.null_count():
            return np.ones(self.text.len(), dtype=np.bool_)
        return np.asarray(self.text.is_not_null().to_numpy(), dtype=np.bool_)

    def kept(self, rows: Mask) -> Texts:
        """See :class:`Cells`."""
        if rows.all():
            return self
        text = pl.select(pl.when(pl.Series(rows)).then(self.text).alias("text"))["text"]
        return Texts(text, self.under, self.quoted)

    def json(self, *, before: str = "", after: str = "") -> pl.Expr:
        """See :class:`Cells`."""
        quote = '"' if self.quoted else ""
        begin, end = (f'{{"{self.under}":', "}") if self.under is not None else ("", "")
        whole = one_after_other([before + begin + quote, self.text, quote + end + after])
        return whole.fill_null("") if self.text.null_count() else whole

    def at(self, path: Sequence[str]) -> list[Any]:
        """See :class:`Cells`."""
        told = self.text.drop_nulls().to_list()
        if self.quoted and tuple(path) == (() if self.under is None else (self.under,)):
            return told
        return values_at((self._read(text) for text in told), path)

    def row(self, at: int) -> Any:
        """See :class:`Cells`."""
        text = self.text[at]
        return None if text is None else self._read(text)

    def _read(self, text: str) -> Any:
        value = text if self.quoted else orjson.loads(text)
        return value if self.under is None else {self.under: value}


@dataclass(frozen=True, slots=True)
class Parts(Cells):
    """Objects whose elements are held apart.

    Attributes:
        inner: the elements of which any has a value, in order.
        rows: whether each row has the object; it has then a value in one of ``inner`` at least. Shape ``(rows,)``.
    """

    inner: list[Element]
    rows: Mask

    @property
    def there(self) -> Mask:
        """See :class:`Cells`."""
        return self.rows

    def kept(self, rows: Mask) -> Parts:
        """See :class:`Cells`."""
        return Parts([(name, cells.kept(rows)) for name, cells in self.inner], self.rows & rows)

    def json(self, *, before: str = "", after: str = "") -> pl.Expr:
        """See :class:`Cells`."""
        parts = one_after_other(cells.json(before=f',"{name}":') for name, cells in self.inner).str.strip_prefix(",")
        whole = one_after_other([before + "{", parts, "}" + after])
        return whole if self.rows.all() else pl.when(pl.Series(self.rows)).then(whole).otherwise(pl.lit(""))

    def at(self, path: Sequence[str]) -> list[Any]:
        """See :class:`Cells`."""
        if not path:
            return [self.row(int(at)) for at in np.flatnonzero(self.rows)]
        return [value for name, cells in self.inner if name == path[0] for value in cells.at(path[1:])]

    def row(self, at: int) -> Any:
        """See :class:`Cells`."""
        if not self.rows[at]:
            return None
        told = {name: cells.row(at) for name, cells in self.inner}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Listed(Cells):
    """Lists of one value each."""

    inner: Cells

    @property
    def there(self) -> Mask:
        """See :class:`Cells`."""
        return self.inner.there

    @property
    def tells(self) -> Mask:
        """See :class:`Cells`."""
        return self.inner.tells

    def kept(self, rows: Mask) -> Listed:
        """See :class:`Cells`."""
        return Listed(self.inner.kept(rows))

    def json(self, *, before: str = "", after: str = "") -> pl.Expr:
        """See :class:`Cells`."""
        return self.inner.json(before=f"{before}[", after=f"]{after}")

    def at(self, path: Sequence[str]) -> list[Any]:
        """See :class:`Cells`."""
        return self.inner.at(path)

    def row(self, at: int) -> Any:
        """See :class:`Cells`."""
        value = self.inner.row(at)
        return None if value is None else [value]


def one_after_other(pieces: Iterable[str | pl.Series | pl.Expr]) -> pl.Expr:
    """Columns and fixed texts one after the other; null where a column is."""
    return pl.concat_str([each if isinstance(each, pl.Expr) else pl.lit(each) for each in pieces])


def joined(pieces: Iterable[str | pl.Series | pl.Expr]) -> pl.Series:
    """Columns and fixed texts one after the other, at once; null where a column is."""
    return pl.select(one_after_other(pieces).alias("text"))["text"]


def values_at(values: Iterable[Any], path: Sequence[str]) -> list[Any]:
    """What stands at a path in each of these values, in every item where a list is on the way."""
    found = _flat(list(values))
    for name in path:
        found = _flat([each[name] for each in found if type(each) is dict and name in each])
    return found


def _flat(values: list[Any]) -> list[Any]:
    if any(type(value) is list for value in values):
        return [item for value in values for item in (value if type(value) is list else [value])]
    return values


def coded_numbers(column: pl.Series) -> Coded:
    """A table's column of numbers."""
    there = column.is_not_null().to_numpy()
    distinct, codes = np.unique(column.fill_null(0).to_numpy(), return_inverse=True)
    return Coded(distinct.tolist(), np.where(there, codes, -1).astype(np.int32))


def coded_texts(frame: pl.DataFrame) -> dict[str, Coded]:
    """A table's columns of text and of truth values; blank text counts as missing."""
    words = frame.select(pl.col(pl.String, pl.Categorical, pl.Enum).cast(pl.String))
    values: dict[str, list[str]] = {}
    if words.width:
        kept = (pl.col(name).filter(pl.col(name).str.contains(r"\S")) for name in words.columns)
        values = words.select(each.unique().implode() for each in kept).row(0, named=True)
    codes = words.hstack(frame.select(pl.col(pl.Boolean))).select(
        (pl.col(name).cast(pl.Enum(values[name]), strict=False).to_physical() if name in values else pl.col(name))
        .cast(pl.Int32)
        .fill_null(-1)
        for name in frame.columns
        if values.get(name, frame.schema[name] == pl.Boolean)
    )
    none = np.full(frame.height, -1, dtype=np.int32)
    found = {name: Coded(values.get(name, [False, True]), codes[name].to_numpy()) for name in codes.columns}
    return {name: Coded([], none) for name in values} | found


def combined(columns: Sequence[Coded], make: Callable[..., Any]) -> Coded:
    """What is made of the values of several columns together, None for those that are missing; of each set once."""
    codes, rows = numbered([each.codes for each in columns])
    made = [make(*told) for told in zip(*([each.row(at) for at in rows.tolist()] for each in columns), strict=True)]
    return Coded(list(range(len(made))), codes).mapped(made.__getitem__)


def numbered(columns: Sequence[Numbers]) -> tuple[Numbers, np.ndarray[Any, Any]]:
    """Rows that are equal in several columns of codes (-1 and up) numbered alike.

    Returns:
        the number of each row, shape ``(rows,)``; a row of each number, shape ``(numbers,)``.
    """
    codes, rows = reduce(_both, columns[1:], _distinct(columns[0].astype(np.int64) + 1))
    return codes.astype(np.int32), rows


def _both(
    known: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]], column: Numbers
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    more, first = _distinct(column.astype(np.int64) + 1)
    return _distinct(known[0] * (len(first) or 1) + more)


def _distinct(key: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Whole numbers from 0 on numbered without gaps, and of each number a row that has it."""
    if not key.size:
        return key, key
    largest = int(key.max()) + 1
    if largest > 4 * key.size + 1024:
        _, first, key = np.unique(key, return_index=True, return_inverse=True)
        return key, first
    row = np.full(largest, -1, dtype=np.int64)
    row[key] = np.arange(key.size)
    there = row >= 0
    return (np.cumsum(there) - 1)[key], row[there]
