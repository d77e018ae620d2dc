"""Ages of a cap and over are read as the cap, so that the oldest patients are not told apart.

HIPAA's Safe Harbor (45 CFR 164.514(b)(2)(i)(C)) lets no age over 89 stand, nor a date that tells one. Any time span of
that many years within a life tells one too, so the cap holds for every column that is measured in a unit of time.
"""

from __future__ import annotations

import math
import re

from synthehr.schema.columns import Column, IntegerColumn, NumberColumn

__all__ = ["age_limit", "says_age", "words_of"]

_PER_YEAR = {"a": 1.0, "mo": 12.0, "wk": 365.25 / 7, "d": 365.25, "h": 8766.0, "min": 525_960.0}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_NOT_YEARS = frozenset(
    {"group", "grp", "band", "class", "bin", "cat", "day", "days", "month", "months", "week", "weeks"}
)


def words_of(name: str) -> tuple[str, ...]:
    """The words of a column's name in small letters: ``anchorAge_2`` gives anchor, age, 2."""
    return tuple(word.lower() for word in _WORD.findall(name))


def says_age(name: str) -> bool:
    """Whether a name says that the column is an age in years."""
    words = set(words_of(name))
    return bool(words & {"age", "ageyears", "years"}) and not words & _NOT_YEARS and words != {"years"}


def age_limit(name: str, column: Column, *, years: int) -> int | None:
    """What values of a column are capped at, in its own unit, so that none tells an age of more than ``years``.

    None where the column measures no time. A column without a unit counts in years where its name says age; one whose
    least value is above the cap is a calendar year, not an age.
    """
    if not isinstance(column, IntegerColumn | NumberColumn) or column.per is not None:
        return None
    unit = column.unit if column.unit is not None else ("a" if says_age(name) else "")
    if unit not in _PER_YEAR:
        return None
    limit = math.floor(years * _PER_YEAR[unit])
    bounds = column.bounds_of(None)
    return None if bounds is not None and (bounds[0] >= limit or bounds[1] <= -limit) else limit
