"""How the report writes numbers."""

from __future__ import annotations

from collections.abc import Sequence

from synthehr.reporting.document import CheckEntry

__all__ = ["NONE", "limit", "number", "percent", "points", "scope_text", "span"]

NONE = "\u2013"
_MINUS = "\u2212"


def number(value: float | None) -> str:
    """Three decimals, or a dash for none; large and tiny numbers to three significant digits."""
    if value is None:
        return NONE
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f").replace("-", _MINUS)
    shown = f"{value:.3f}"
    return ("0.000" if float(shown) == 0 else shown).replace("-", _MINUS)


def span(interval: Sequence[float] | None) -> str:
    """An interval, or a dash for none."""
    return NONE if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def percent(share: float) -> str:
    """A share of patients."""
    if 0 < share < 0.001:
        return "<0.1 %"
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """A difference of shares, in percent with two decimals."""
    shown = f"{100 * share:.2f}"
    return ("0.00" if float(shown) == 0 else shown).replace("-", _MINUS) + " %"


def scope_text(scope: str | Sequence[str]) -> str:
    """A column, an outcome, or two columns."""
    return scope if isinstance(scope, str) else " \u00d7 ".join(scope)


def limit(check: CheckEntry) -> str:
    """The bound of a check, with what it bounds."""
    what = "excess " if check.statistic == "excess" else ""
    return f"{what}{'≤' if check.op == '<=' else '≥'} {check.bound:g}"
