"""References between rows of one patient: that a row has one is learned, which row it leads to is found by time.

A reference is a column of kind ``id`` that ``references`` another table: a diagnosis made at a visit, a drug that a
visit gave, the visit before a visit. In its place a conditional table has an own column: whether a row has one.
"""

from __future__ import annotations

from typing import Any

from synthehr.schema.model import (
    BooleanColumn,
    DateColumn,
    DatetimeColumn,
    IdColumn,
    IntegerColumn,
    NumberColumn,
    OffsetColumn,
    Table,
)

__all__ = ["flag_of", "flags_of", "minutes_of_both", "references_of"]

_MINUTES = {"d": 1440.0, "h": 60.0, "min": 1.0}


def references_of(table: Table) -> dict[str, str]:
    """The columns that refer to rows, and the tables that these are in."""
    return {
        name: column.references
        for name, column in table.columns.items()
        if isinstance(column, IdColumn) and column.references is not None
    }


def flag_of(column: str) -> str:
    """The own column that tells whether a row has a reference."""
    return f"[{column} known]"


def flags_of(table: Table) -> dict[str, BooleanColumn]:
    """The own columns that stand for a table's references."""
    return {flag_of(name): BooleanColumn(kind="boolean") for name in references_of(table)}


def minutes_of_both(one: Any, other: Any) -> tuple[float, float] | None:
    """The minutes of a unit of two columns that order tables, on one axis; None where they cannot be compared."""
    kinds, minutes = zip(*(_axis(column) for column in (one, other)), strict=True)
    return (minutes[0], minutes[1]) if kinds[0] == kinds[1] else None


def _axis(column: Any) -> tuple[str, float]:
    match column:
        case DateColumn():
            return "date", _MINUTES["d"]
        case DatetimeColumn():
            return "date", _MINUTES["min"]
        case OffsetColumn():
            return "time", _MINUTES[column.unit]
        case IntegerColumn() | NumberColumn() if column.unit in _MINUTES:
            return "time", _MINUTES[str(column.unit)]
        case _:
            return f"in {getattr(column, 'unit', None)}", 1.0
