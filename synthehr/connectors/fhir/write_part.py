"""Rows of one table on their way into resources: their cells, and the count of those that have no place there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from synthehr.connectors.fhir.write_cells import Coded, Mask, coded_numbers, coded_texts

__all__ = ["Part"]


@dataclass(slots=True, kw_only=True)
class Part:
    """Rows of one table on their way into resources.

    Attributes:
        table: its name.
        frame: the rows, with ``_anchor``, the day that their patient's offsets count from.
        link: the references to rows of a table, by the table and a column of row numbers; null where that is.
        made: references to resources of a type that no row stands for, one for each row.
        own: the ids of the resources that the rows make, where each makes one.
        decimals: places after the point that a number column's precision declares, by column.
        codes: the columns of text or truth values that are most likely asked for; read all at once.
        words: whether free text and displays may be written.
        lost: cells that have no place in the resource, by column and reason.
    """

    table: str
    frame: pl.DataFrame
    link: Callable[[str, pl.Series], pl.Series]
    made: Callable[[str], pl.Series]
    own: Callable[[], pl.Series]
    decimals: Mapping[str, int]
    codes: Sequence[str]
    words: bool
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)
    _read: dict[str, Coded] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._read = coded_texts(self.frame.select(name for name in self.codes if not self.empty(name)))

    @property
    def height(self) -> int:
        """How many rows there are."""
        return self.frame.height

    def cells(self, column: str) -> Coded:
        """A column's cells; none throughout where the table lacks it.

        Text that FHIR cannot hold (none, or spaces alone) counts as missing.
        """
        if self.empty(column):
            return self.missing()
        if column not in self._read:
            numbers = self.frame.schema[column].is_numeric()
            one = {column: coded_numbers(self.frame[column])} if numbers else coded_texts(self.frame.select(column))
            self._read |= one
        return self._read[column]

    def empty(self, column: str) -> bool:
        """Whether no row has anything in a column."""
        return column not in self.frame.columns or self.frame[column].null_count() == self.height

    def lose(self, column: str, why: str, rows: Mask | int) -> None:
        """Count cells that cannot be written."""
        count = int(np.count_nonzero(rows)) if isinstance(rows, np.ndarray) else int(rows)
        if count:
            self.lost[column, why] += count

    def missing(self) -> Coded:
        """Nothing in any row."""
        return Coded.none(self.height)

    def all_rows(self) -> Mask:
        """Every row. Shape ``(rows,)``."""
        return np.ones(self.height, dtype=np.bool_)
