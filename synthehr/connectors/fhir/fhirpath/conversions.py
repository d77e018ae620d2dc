"""FHIRPath's conversions, mathematics and boundaries, on one value that is there."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal, InvalidOperation, Overflow, localcontext
from typing import Any

from synthehr.connectors.fhir.fhirpath import quantity as quantities
from synthehr.connectors.fhir.fhirpath import temporal
from synthehr.connectors.fhir.fhirpath.parser import CALENDAR_UNITS
from synthehr.connectors.fhir.fhirpath.quantity import Quantity
from synthehr.connectors.fhir.fhirpath.temporal import Temporal
from synthehr.connectors.fhir.fhirpath.values import LARGEST_EXPONENT
from synthehr.errors import DataError

__all__ = ["CONVERSIONS", "MATHEMATICS", "comparable", "high_boundary", "low_boundary", "precision"]

MAX_PRECISION = 28
_DEFAULT_PRECISION = 8
_INTEGER = re.compile(r"[+-]?\d{1,10}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?\d{1,300}(\.\d{1,300})?", re.ASCII)
_QUANTITY = re.compile(r"([+-]?\d{1,300}(?:\.\d{1,300})?)\s*(?:'([^']+)'|([a-z]+))?", re.ASCII)
_OUT_OF_RANGE = "a FHIRPath expression's mathematics gives a number out of range"
_TRUE = frozenset({"true", "t", "yes", "y", "1", "1.0"})
_FALSE = frozenset({"false", "f", "no", "n", "0", "0.0"})


def _number(value: Any) -> bool:
    return isinstance(value, int | Decimal) and type(value) is not bool


def to_boolean(value: Any) -> bool | None:
    """True and false, yes and no, 1 and 0."""
    if type(value) is bool:
        return value
    if _number(value):
        return {0: False, 1: True}.get(value)
    word = value.lower() if isinstance(value, str) else ""
    return True if word in _TRUE else False if word in _FALSE else None


def to_integer(value: Any) -> int | None:
    """Integers, their texts, and booleans."""
    if isinstance(value, int):
        return int(value)
    number = int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else None
    return number if number is not None and -(2**31) <= number < 2**31 else None


def to_decimal(value: Any) -> Decimal | None:
    """Numbers, their texts, and booleans."""
    if isinstance(value, int | Decimal):
        return Decimal(value)
    return Decimal(value) if isinstance(value, str) and _DECIMAL.fullmatch(value) else None


def to_text(value: Any) -> str | None:
    """How the value is written in FHIRPath; None for objects."""
    if type(value) is bool:
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value) if isinstance(value, str | int | Temporal | Quantity) else None


def to_date(value: Any) -> Temporal | None:
    """A date, the date of a dateTime, or the text of either."""
    if isinstance(value, str):
        value = temporal.from_text(value, "DateTime")
    if isinstance(value, Temporal) and value.kind != "Time":
        return Temporal("Date", value.parts[:3])
    return None


def to_date_time(value: Any) -> Temporal | None:
    """A dateTime, a date, or the text of either."""
    if isinstance(value, str):
        return temporal.from_text(value, "DateTime")
    if isinstance(value, Temporal) and value.kind != "Time":
        return Temporal("DateTime", value.parts, value.offset)
    return None


def to_time(value: Any) -> Temporal | None:
    """A time of day, or its text."""
    if isinstance(value, str):
        return temporal.from_text(value, "Time")
    return value if isinstance(value, Temporal) and value.kind == "Time" else None


def to_quantity(value: Any) -> Quantity | None:
    """Quantities, numbers and booleans (of unit 1), and texts such as ``1 day`` and ``4 'mg'``."""
    if isinstance(value, Quantity):
        return value
    if isinstance(value, int | Decimal):
        return Quantity(Decimal(value), "1")
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    number, unit, word = match.groups()
    if word is not None:
        return Quantity(Decimal(number), CALENDAR_UNITS[word], calendar=True) if word in CALENDAR_UNITS else None
    return Quantity(Decimal(number), unit or "1")


CONVERSIONS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "Boolean": (to_boolean, "System.Boolean"),
    "Integer": (to_integer, "System.Integer"),
    "Decimal": (to_decimal, "System.Decimal"),
    "String": (to_text, "System.String"),
    "Date": (to_date, "System.Date"),
    "DateTime": (to_date_time, "System.DateTime"),
    "Time": (to_time, "System.Time"),
    "Quantity": (to_quantity, "System.Quantity"),
}
"""Target type -> the conversion behind to…() and convertsTo…(), and its result's type."""


# -- mathematics -------------------------------------------------------------------------------------------------------


def _calculated(function: Callable[..., Decimal | None]) -> Callable[..., Decimal | None]:
    """``function`` at 34 digits, its result refused where it is out of range."""

    def run(*values: Any) -> Decimal | None:
        try:
            with localcontext() as context:
                context.prec = 34
                found = function(*(Decimal(value) for value in values))
        except (InvalidOperation, Overflow) as error:
            raise DataError(_OUT_OF_RANGE) from error
        if found is not None and (not found.is_finite() or abs(found.adjusted()) > LARGEST_EXPONENT):
            raise DataError(_OUT_OF_RANGE)
        return found

    return run


def _absolute(value: Any) -> Any:
    if isinstance(value, Quantity):
        return Quantity(abs(value.value), value.unit, value.calendar)
    return abs(value)


def _rounded(value: Decimal, digits: Decimal = Decimal(0)) -> Decimal | None:
    if not 0 <= digits <= MAX_PRECISION:
        raise DataError(f"FHIRPath's round() takes 0 to {MAX_PRECISION} digits")
    return value.quantize(Decimal(1).scaleb(-int(digits)), rounding=ROUND_HALF_UP)


def _log(value: Decimal, base: Decimal) -> Decimal | None:
    if value <= 0 or base <= 0 or base == 1:
        return None
    with localcontext() as context:
        context.prec = 40
        found = value.ln() / base.ln()
    return found.quantize(Decimal("1e-30")).normalize() if abs(found) < 1000 else found


def _power(value: Any, exponent: Any) -> Any:
    if value < 0 and exponent != int(exponent):
        return None
    if type(value) is int and type(exponent) is int and 0 <= exponent <= 64:
        return value**exponent
    return _calculated(lambda a, b: a**b)(value, exponent)


MATHEMATICS: dict[str, tuple[Callable[..., Any], int, int, str | None]] = {
    "abs": (_absolute, 0, 0, None),
    "ceiling": (math.ceil, 0, 0, "System.Integer"),
    "floor": (math.floor, 0, 0, "System.Integer"),
    "truncate": (math.trunc, 0, 0, "System.Integer"),
    "round": (_calculated(_rounded), 0, 1, "System.Decimal"),
    "exp": (_calculated(lambda value: value.exp()), 0, 0, "System.Decimal"),
    "ln": (_calculated(lambda value: value.ln() if value > 0 else None), 0, 0, "System.Decimal"),
    "log": (_calculated(_log), 1, 1, "System.Decimal"),
    "sqrt": (_calculated(lambda value: value.sqrt() if value >= 0 else None), 0, 0, "System.Decimal"),
    "power": (_power, 1, 1, None),
}
"""Name -> function, fewest and most arguments, type of the result (None: as the operand's)."""


# -- boundaries --------------------------------------------------------------------------------------------------------


def _exact(value: Any) -> Any:
    if type(value) is float:
        raise DataError(
            "FHIRPath's boundary and precision functions need decimals as they were written, and the JSON reader made "
            "floats of them: read the records with fhirpath.parse_json"
        )
    return value


def _number_boundary(value: Decimal, *, high: bool, digits: int | None) -> Decimal | None:
    digits = _DEFAULT_PRECISION if digits is None else digits
    if not 0 <= digits <= MAX_PRECISION:
        return None
    with localcontext() as context:
        context.prec = 60
        if value.adjusted() > 30:
            raise DataError(_OUT_OF_RANGE)
        half = Decimal(5).scaleb(min(int(value.as_tuple().exponent), 0) - 1)
        edge = value + half if high else value - half
        return edge.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_CEILING if high else ROUND_FLOOR)


def _boundary(value: Any, digits: int | None, *, high: bool) -> Any:
    value = _exact(value)
    if isinstance(value, Temporal):
        return temporal.boundary(value, high=high, precision=digits)
    if isinstance(value, Quantity):
        edge = _number_boundary(value.value, high=high, digits=digits)
        return None if edge is None else Quantity(edge, value.unit, value.calendar)
    if _number(value):
        return _number_boundary(Decimal(value), high=high, digits=digits)
    raise DataError("a FHIRPath expression asks for the boundary of what is no number, quantity, date or time")


def low_boundary(value: Any, digits: int | None = None) -> Any:
    """The least that the value may have been before it was rounded to how it is written."""
    return _boundary(value, digits, high=False)


def high_boundary(value: Any, digits: int | None = None) -> Any:
    """The most that the value may have been before it was rounded to how it is written."""
    return _boundary(value, digits, high=True)


def precision(value: Any) -> int:
    """Digits after the point of a number, or digits written of a date or time."""
    value = _exact(value)
    if isinstance(value, Temporal):
        return temporal.digits(value)
    if _number(value):
        return max(-int(Decimal(value).as_tuple().exponent), 0)
    raise DataError("a FHIRPath expression asks for the precision of what is no number, date or time")


def comparable(left: Any, right: Any) -> bool:
    """Whether two quantities have one dimension; a unit that is no UCUM has none."""
    if not isinstance(left, Quantity) or not isinstance(right, Quantity):
        raise DataError("FHIRPath's comparable() takes quantities")
    if left.unit != right.unit and not (quantities.is_known(left.unit) and quantities.is_known(right.unit)):
        return False
    return quantities.comparable(left, right) is True
