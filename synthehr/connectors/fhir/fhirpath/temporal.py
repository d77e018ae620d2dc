"""Dates, dateTimes and times of partial precision: reading, comparing, adding, boundaries.

Seconds and their fraction are one component, as FHIRPath has it. What precision leaves open is None, never a guess.
"""

from __future__ import annotations

import functools
import re
from calendar import monthrange
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from synthehr.errors import DataError

__all__ = ["Temporal", "add", "boundary", "compare", "digits", "from_text", "now"]

_DATE = r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?"
_TIME = r"(\d{2})(?::(\d{2})(?::(\d{2}(?:\.\d+)?))?)?"
_PATTERNS = {
    "Date": re.compile(_DATE, re.ASCII),
    "DateTime": re.compile(rf"{_DATE}(?:T(?:{_TIME}(Z|[+-]\d{{2}}:\d{{2}})?)?)?", re.ASCII),
    "Time": re.compile(_TIME, re.ASCII),
}
_LOW = (1, 1, 1, 0, 0, Decimal(0))
_HIGH = (9999, 12, 31, 23, 59, Decimal("59.999"))
_WIDEST_OFFSET = 14 * 60
_SECONDS = {
    "week": Decimal(604800),
    "day": Decimal(86400),
    "hour": Decimal(3600),
    "minute": Decimal(60),
    "second": Decimal(1),
    "millisecond": Decimal("0.001"),
}
_UNITS = ("year", "month", "day", "hour", "minute", "second")


@dataclass(frozen=True, slots=True)
class Temporal:
    """A point in time known to ``len(parts)`` components.

    ``kind`` is Date, DateTime or Time. ``parts`` are year, month, day, hour, minute and seconds (a Decimal, with
    as many digits as were written); a Time has the last three alone. ``offset`` is in minutes, None if not given.
    """

    kind: str
    parts: tuple[int | Decimal, ...]
    offset: int | None = None

    def __str__(self) -> str:
        padded = [f"{part:0{4 if i == 0 and self.kind != 'Time' else 2}d}" for i, part in enumerate(self._whole)]
        if self._seconds is not None:
            whole, _, fraction = str(self._seconds).partition(".")
            padded.append(whole.zfill(2) + ("." + fraction if fraction else ""))
        if self.kind == "Time":
            return ":".join(padded)
        text = "-".join(padded[:3])
        if self.kind == "DateTime" and len(padded) > 3:
            text += "T" + ":".join(padded[3:])
        if self.offset is not None:
            sign = "-" if self.offset < 0 else "+"
            text += "Z" if self.offset == 0 else f"{sign}{abs(self.offset) // 60:02d}:{abs(self.offset) % 60:02d}"
        return text

    @property
    def _seconds(self) -> Decimal | None:
        last = self.parts[-1]
        return last if isinstance(last, Decimal) else None

    @property
    def _whole(self) -> list[int]:
        return [int(part) for part in self.parts if not isinstance(part, Decimal)]


@functools.lru_cache(maxsize=8192)
def from_text(text: str, kind: str) -> Temporal | None:
    """The Date, DateTime or Time that ``text`` writes, or None if it is not one."""
    match = _PATTERNS[kind].fullmatch(text)
    if match is None:
        return None
    groups = list(match.groups())
    offset = None
    if kind == "DateTime":
        zone = groups.pop()
        if zone == "Z":
            offset = 0
        elif zone:
            offset = (int(zone[1:3]) * 60 + int(zone[4:])) * (-1 if zone[0] == "-" else 1)
    given = [group for group in groups if group is not None]
    seconds_at = 2 if kind == "Time" else 5
    parts = tuple(Decimal(group) if i == seconds_at else int(group) for i, group in enumerate(given))
    return Temporal(kind, parts, offset) if _exists(kind, parts) else None


def _exists(kind: str, parts: tuple[int | Decimal, ...]) -> bool:
    time = parts if kind == "Time" else parts[3:]
    limits = (24, 60, 61)  # FHIR allows the leap second
    if any(part >= limit for part, limit in zip(time, limits, strict=False)):
        return False
    if kind == "Time":
        return True
    year, month, day = (*[int(part) for part in parts[:3]], 1, 1)[:3]
    return year >= 1 and 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]


def now(kind: str) -> Temporal:
    """The present as a Date, DateTime or Time of this machine, in UTC."""
    moment = datetime.now(UTC)
    seconds = Decimal(f"{moment.second:02d}.{moment.microsecond // 1000:03d}")
    date: tuple[int | Decimal, ...] = (moment.year, moment.month, moment.day)
    time: tuple[int | Decimal, ...] = (moment.hour, moment.minute, seconds)
    if kind == "Date":
        return Temporal(kind, date)
    return Temporal(kind, time) if kind == "Time" else Temporal(kind, date + time, 0)


def _in_utc(value: Temporal) -> tuple[int | Decimal, ...]:
    if not value.offset or len(value.parts) < 4:
        return value.parts
    year, month, day, hour, minute = (*value._whole, 0)[:5]
    try:
        moment = datetime(year, month, day, hour, minute) - timedelta(minutes=value.offset)
    except OverflowError:
        return value.parts
    moved = (moment.year, moment.month, moment.day, moment.hour, moment.minute)
    return (*moved[: len(value._whole)], *value.parts[5:])


def compare(left: Temporal, right: Temporal) -> int | None:
    """-1, 0 or 1; None where the two are of a different precision that matters, or only one has an offset.

    Raises:
        DataError: one is a time of day and the other is not.
    """
    if (left.kind == "Time") != (right.kind == "Time"):
        raise DataError("a FHIRPath expression compares a time of day with a date: compare times with times")
    one_zone = (left.offset is None) != (right.offset is None) and len(left.parts) > 3 and len(right.parts) > 3
    ours, theirs = _in_utc(left), _in_utc(right)
    for ours_part, theirs_part in zip(ours, theirs, strict=False):
        if ours_part != theirs_part:
            if one_zone and _days_apart(ours, theirs) < 2:
                return None
            return -1 if ours_part < theirs_part else 1
    return 0 if len(ours) == len(theirs) and not one_zone else None


def _days_apart(left: tuple[int | Decimal, ...], right: tuple[int | Decimal, ...]) -> int:
    def ordinal(parts: tuple[int | Decimal, ...]) -> int:
        year, month, day = (*[int(part) for part in parts[:3]], 1, 1)[:3]
        return datetime(year, month, day).toordinal()

    return abs(ordinal(left) - ordinal(right))


def add(value: Temporal, amount: Decimal, unit: str) -> Temporal:
    """``value`` moved by ``amount`` of a calendar unit, at its own precision; fractions count for seconds alone.

    Raises:
        DataError: the result is outside the years 1 to 9999.
    """
    if unit not in ("second", "millisecond"):
        amount = Decimal(int(amount))
    units = _UNITS[3:] if value.kind == "Time" else _UNITS
    if value.kind == "Time" and unit not in _SECONDS:
        raise DataError(f"a FHIRPath expression adds {unit}s to a time of day: add hours, minutes or seconds")
    finest = units[len(value.parts) - 1]
    try:
        if unit in ("year", "month"):
            months = int(amount) * (12 if unit == "year" else 1)
            return _add_months(value, months)
        seconds = amount * _SECONDS[unit]
        if finest in ("year", "month"):
            return _add_months(
                value, int(seconds / 86400 / 365) * 12 if finest == "year" else int(seconds / 86400 / 30)
            )
        return _add_seconds(value, seconds, finest)
    except (OverflowError, ValueError) as error:
        raise DataError("a FHIRPath expression moves a date out of the years 1 to 9999") from error


def _add_months(value: Temporal, months: int) -> Temporal:
    whole = [int(part) for part in value.parts[:3]]
    if len(whole) == 1:
        year, month = whole[0] + int(months / 12), 1
    else:
        year, month = divmod(whole[0] * 12 + whole[1] - 1 + months, 12)
        month += 1
    if not 1 <= year <= 9999:
        raise OverflowError
    date = [year, month, min(whole[2], monthrange(year, month)[1])] if len(whole) == 3 else [year, month][: len(whole)]
    return replace(value, parts=(*date, *value.parts[3:]))


def _add_seconds(value: Temporal, seconds: Decimal, finest: str) -> Temporal:
    # whole steps of the finest component: a date moved by 36 hours moves by one day
    if finest != "second":
        seconds = int(seconds / _SECONDS[finest]) * _SECONDS[finest]
    is_time = value.kind == "Time"
    parts = (1970, 1, 1, *value.parts) if is_time else value.parts
    year, month, day, hour, minute = (*[int(part) for part in parts[:5]], 0, 0)[:5]
    own = parts[5] if len(parts) > 5 else Decimal(0)
    total = Decimal(own) + seconds
    whole = int(total // 1)
    base = datetime(year, month, day, hour, minute) + timedelta(seconds=whole)
    fraction = base.second + (total - whole)
    moved: tuple[int | Decimal, ...] = (base.year, base.month, base.day, base.hour, base.minute, Decimal(fraction))
    kept = moved[: len(parts)]
    return replace(value, parts=kept[3:] if is_time else kept)


def digits(value: Temporal) -> int:
    """The precision as FHIRPath counts it: digits of the written form, 4 for a year, 17 for milliseconds."""
    seconds = value._seconds
    fraction = -int(seconds.as_tuple().exponent) if seconds is not None else 0
    return 2 * len(value.parts) + (0 if value.kind == "Time" else 2) + fraction


def boundary(value: Temporal, *, high: bool, precision: int | None) -> Temporal | None:
    """The earliest or latest moment that ``value`` may mean, to ``precision`` digits (all of them if None).

    A dateTime without an offset is taken at the widest one (+14:00 for the low, -12:00 for the high boundary).
    None where the kind has no such precision. A dateTime of an hour alone is read as at that hour sharp, as HL7's
    suite has it, FHIR itself having no such dateTime.
    """
    allowed = {"Date": (4, 6, 8), "DateTime": (4, 6, 8, 10, 12, 14, 17), "Time": (2, 4, 6, 9)}[value.kind]
    precision = allowed[-1] if precision is None else precision
    if precision not in allowed:
        return None
    first = 3 if value.kind == "Time" else 0
    parts = list(value.parts)
    if value.kind == "DateTime" and len(parts) == 4:
        parts.append(0)
    limits = _HIGH if high else _LOW
    while first + len(parts) < 6:
        at = first + len(parts)
        last_day = at == 2 and high
        parts.append(monthrange(int(parts[0]), int(parts[1]))[1] if last_day else limits[at])
    seconds = Decimal(parts[-1])
    written = -int(seconds.as_tuple().exponent)
    if written < 3:
        filler = Decimal(10) ** -written - Decimal("0.001") if high else Decimal(0)
        seconds = (seconds + filler).quantize(Decimal("0.001"))
    parts[-1] = seconds
    count = allowed.index(precision) + 1
    if count + first > 6:
        kept: list[int | Decimal] = parts
    else:
        kept = parts[:count]
        if count + first == 6:
            kept[-1] = Decimal(int(seconds))
    offset = value.offset
    if value.kind == "DateTime" and offset is None and len(kept) > 3:
        offset = -12 * 60 if high else _WIDEST_OFFSET
    return Temporal(value.kind, tuple(kept), offset if len(kept) > 3 else None)
