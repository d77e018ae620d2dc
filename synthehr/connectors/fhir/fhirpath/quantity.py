"""Quantities: values with UCUM or calendar units, converted where the unit is built of known parts.

Units are read by UCUM's grammar (prefixes, ``.``, ``/``, exponents) over the atoms below. A unit with any other part
equals only itself: comparing it with a different one is an error, not a guess.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from decimal import Decimal

from synthehr.errors import DataError

__all__ = ["FOREIGN", "Quantity", "comparable", "compare", "converted", "divide", "is_known", "multiply"]

_PREFIXES = {
    "T": Decimal("1e12"),
    "G": Decimal("1e9"),
    "M": Decimal("1e6"),
    "k": Decimal("1e3"),
    "h": Decimal("1e2"),
    "da": Decimal("1e1"),
    "d": Decimal("1e-1"),
    "c": Decimal("1e-2"),
    "m": Decimal("1e-3"),
    "u": Decimal("1e-6"),
    "n": Decimal("1e-9"),
    "p": Decimal("1e-12"),
    "f": Decimal("1e-15"),
}

FOREIGN = "\0"
"""Begins the unit of a quantity whose unit is not UCUM: it equals itself, and is never read as UCUM."""

_Dimension = tuple[tuple[str, int], ...]

_METRIC: dict[str, tuple[Decimal, dict[str, int]]] = {
    "g": (Decimal(1), {"g": 1}),
    "m": (Decimal(1), {"m": 1}),
    "s": (Decimal(1), {"s": 1}),
    "mol": (Decimal(1), {"mol": 1}),
    "L": (Decimal("0.001"), {"m": 3}),
    "l": (Decimal("0.001"), {"m": 3}),
    "K": (Decimal(1), {"K": 1}),
    "J": (Decimal(1000), {"g": 1, "m": 2, "s": -2}),
    "Pa": (Decimal(1000), {"g": 1, "m": -1, "s": -2}),
    "m[Hg]": (Decimal("133322000"), {"g": 1, "m": -1, "s": -2}),
    "eq": (Decimal(1), {"mol": 1}),
    "cal": (Decimal(4184), {"g": 1, "m": 2, "s": -2}),
    "[iU]": (Decimal(1), {"[iU]": 1}),
    "U": (Decimal(1), {"U": 1}),
}

_PLAIN: dict[str, tuple[Decimal, dict[str, int]]] = {
    "1": (Decimal(1), {}),
    "%": (Decimal("0.01"), {}),
    "10*": (Decimal(10), {}),
    "10^": (Decimal(10), {}),
    "min": (Decimal(60), {"s": 1}),
    "h": (Decimal(3600), {"s": 1}),
    "d": (Decimal(86400), {"s": 1}),
    "wk": (Decimal(604800), {"s": 1}),
    "a": (Decimal(31557600), {"s": 1}),
    "mo": (Decimal(2629800), {"s": 1}),
    "[in_i]": (Decimal("0.0254"), {"m": 1}),
    "[ft_i]": (Decimal("0.3048"), {"m": 1}),
    "[lb_av]": (Decimal("453.59237"), {"g": 1}),
    "[oz_av]": (Decimal("28.349523125"), {"g": 1}),
    "Cel": (Decimal(1), {"Cel": 1}),
    "[degF]": (Decimal(1), {"[degF]": 1}),
    "[pH]": (Decimal(1), {"[pH]": 1}),
}

_CALENDAR = {"week": "wk", "day": "d", "hour": "h", "minute": "min", "second": "s", "millisecond": "ms"}

_TERM = re.compile(
    r"([./]?)(10[*^]|(?:\[[^\]]*\]|[A-Za-z%]|1(?![0-9]))+?)([+-]?\d+)?(?:\{[^}]*\})?(?=[./]|$)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """``value`` of ``unit``; ``calendar`` says that the unit is a calendar duration (``year``), not UCUM (``a``)."""

    value: Decimal
    unit: str
    calendar: bool = False

    def __str__(self) -> str:
        if self.unit[:1] == FOREIGN:
            return f"{self.value} {self.unit[1:]}"
        if not self.calendar:
            return f"{self.value} '{self.unit}'"
        return f"{self.value} {self.unit}{'' if self.value == 1 else 's'}"


@functools.lru_cache(maxsize=2048)
def _factor(unit: str) -> tuple[Decimal, _Dimension] | None:
    """What one ``unit`` is in base units, and its dimension; None for a unit with an unknown part."""
    text = re.sub(r"\{[^}]*\}", "", unit)
    if not text:
        return (Decimal(1), ()) if unit else None
    scale, dimension, at = Decimal(1), dict[str, int](), 0
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None or (at > 0 and not match.group(1)):
            return None
        operator, atom, power = match.groups()
        found = _atom(atom)
        if found is None:
            return None
        exponent = int(power or 1) * (-1 if operator == "/" else 1)
        if abs(exponent) > 20:
            return None
        scale *= found[0] ** exponent
        for base, of_base in found[1].items():
            dimension[base] = dimension.get(base, 0) + of_base * exponent
        at = match.end()
    return scale, tuple(sorted((base, n) for base, n in dimension.items() if n))


def _atom(text: str) -> tuple[Decimal, dict[str, int]] | None:
    found = _PLAIN.get(text) or _METRIC.get(text)
    if found is not None:
        return found
    for length in (1, 2):
        if text[:length] in _PREFIXES and text[length:] in _METRIC:
            scale, dimension = _METRIC[text[length:]]
            return scale * _PREFIXES[text[:length]], dimension
    return None


def _ucum(quantity: Quantity) -> str | None:
    return _CALENDAR.get(quantity.unit) if quantity.calendar else quantity.unit


def is_known(unit: str) -> bool:
    """Whether every part of a UCUM unit is in the tables here."""
    return _factor(unit) is not None


def comparable(left: Quantity, right: Quantity) -> bool | None:
    """Whether the two have one dimension; None if a calendar year, a month or no UCUM unit meets another unit.

    Raises:
        DataError: the units differ and one has a part that the tables here lack.
    """
    if (left.unit, left.calendar) == (right.unit, right.calendar):
        return True
    if FOREIGN in (left.unit[:1], right.unit[:1]):
        return None
    ours, theirs = _ucum(left), _ucum(right)
    if left.calendar and right.calendar and None in (ours, theirs):
        return None if {left.unit, right.unit} != {"year", "month"} else True
    if ours is None or theirs is None:
        return None
    a, b = _factor(ours), _factor(theirs)
    if a is None or b is None:
        raise DataError("a FHIRPath expression compares quantities whose units are not known here: convert them first")
    return a[1] == b[1]


def _base(quantity: Quantity) -> Decimal:
    if quantity.calendar and quantity.unit in ("year", "month"):
        return quantity.value * (12 if quantity.unit == "year" else 1)
    known = _factor(_ucum(quantity) or "")
    return quantity.value * known[0] if known else quantity.value


def compare(left: Quantity, right: Quantity) -> int | None:
    """-1, 0 or 1 by value; None if the units have different dimensions or cannot be told apart for certain.

    Raises:
        DataError: the units differ and one has a part that the tables here lack.
    """
    if (left.unit, left.calendar) == (right.unit, right.calendar):
        ours, theirs = left.value, right.value
    elif comparable(left, right):
        ours, theirs = _base(left), _base(right)
    else:
        return None
    return (ours > theirs) - (ours < theirs)


def converted(quantity: Quantity, to: Quantity) -> Quantity:
    """``quantity`` in the unit of ``to``, with which it is comparable."""
    one = _base(Quantity(Decimal(1), to.unit, to.calendar))
    return Quantity(_base(quantity) / one, to.unit, to.calendar)


def _joined(left: Quantity, right: Quantity, *, sign: int) -> Quantity:
    ours, theirs = _factor(_ucum(left) or ""), _factor(_ucum(right) or "")
    if ours is None or theirs is None:
        raise DataError("a FHIRPath expression multiplies or divides quantities whose units are not known here")
    dimension = dict(ours[1])
    for base, n in theirs[1]:
        dimension[base] = dimension.get(base, 0) + sign * n
    unit = ".".join(base + (str(n) if n != 1 else "") for base, n in sorted(dimension.items()) if n) or "1"
    a, b = left.value * ours[0], right.value * theirs[0]
    return Quantity(a * b if sign > 0 else a / b, unit)


def multiply(left: Quantity, right: Quantity) -> Quantity:
    """The product, in base units."""
    return _joined(left, right, sign=1)


def divide(left: Quantity, right: Quantity) -> Quantity | None:
    """The quotient, in base units; None for a divisor of zero."""
    return None if right.value == 0 else _joined(left, right, sign=-1)
