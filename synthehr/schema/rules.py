"""Conditions on rows, written as SQL boolean expressions: declared rules and ``--where``."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl
from polars.exceptions import PolarsError

__all__ = ["Rule", "parse_rule"]

_PIECES = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""")
_FUNCTION = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
_NOT_OF_ONE_ROW = re.compile(r"\b(select|over|exists|distinct)\b|--|/\*|;|::", re.IGNORECASE)
_KEYWORDS = {"in", "and", "or", "not", "between", "is", "when", "then", "else", "case", "like"}
_FUNCTIONS = {"abs", "round", "floor", "ceil", "coalesce", "length", "lower", "upper", "least", "greatest"}
_TRIAL: dict[type[pl.DataType], object] = {
    pl.Boolean: True,
    pl.Int64: 1,
    pl.Float64: 1.0,
    pl.String: "a",
    pl.Date: dt.date(2000, 1, 1),
    pl.Datetime: dt.datetime(2000, 1, 1),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on the rows of one table.

    Attributes:
        text: the expression as it was written.
        table: name of the table whose rows it judges.
        columns: the columns it reads.
        expression: the same in polars; true, false or null for each row.
    """

    text: str
    table: str
    columns: tuple[str, ...]
    expression: pl.Expr = field(compare=False)  # polars gives an expression for ==, not a truth

    def holds(self, frame: pl.DataFrame) -> pl.Series:
        """Whether each row of ``frame`` meets the rule; null (unknown) is not met. Shape ``(rows,)``."""
        return frame.select(self.expression.fill_null(value=False).alias("holds"))["holds"]


def parse_rule(text: str, *, columns: Mapping[str, Mapping[str, pl.DataType]], default: str) -> Rule:
    """Parse an SQL boolean expression over the columns of one table.

    Args:
        text: for example ``weight is null or weight > 0`` or ``patient.died``.
        columns: for each table, the columns that may be named and the types they are held in.
        default: the table of names that carry none.

    Raises:
        ValueError: the text is no condition on single rows, names an unknown table, column or function,
            mixes tables, or compares a column with what its type cannot be compared with.
    """
    bare, table = _without_table(text, tables=tuple(columns), default=default)
    try:
        expression = pl.sql_expr(bare)
        names = tuple(dict.fromkeys(expression.meta.root_names()))
        named_anew = expression.meta.output_name(raise_if_undetermined=False) not in (None, *names, "literal")
    except PolarsError as error:
        raise ValueError(f"rule {text!r} is not an SQL condition such as \"age >= 18 and sex = 'female'\"") from error
    if not names:
        raise ValueError(f"rule {text!r} names no column")
    for name in names:
        if name not in columns[table]:
            dotted = next((c for c in columns[table] if c.startswith(f"{name}.")), None)
            hint = f': write "{dotted}" in double quotes' if dotted is not None else ""
            raise ValueError(f"rule {text!r} names {name!r}, which is not a kept column of table {table!r}{hint}")
    trial = pl.DataFrame(
        [pl.Series(n, [_TRIAL[columns[table][n].base_type()], None], columns[table][n]) for n in names]
    )
    try:
        result = trial.select(expression.alias("holds")).schema["holds"]
    except PolarsError as error:
        raise ValueError(f"rule {text!r} compares or computes with values of unlike types") from error
    if result != pl.Boolean or named_anew:
        raise ValueError(f"rule {text!r} is a value, not a condition that is true or false")
    return Rule(text=text, table=table, columns=names, expression=expression)


def _without_table(text: str, *, tables: tuple[str, ...], default: str) -> tuple[str, str]:
    """The expression with ``table.`` taken off its names, and the table they carried."""
    pieces = _PIECES.split(text)
    found: set[str] = set()
    for at in range(0, len(pieces), 2):  # the odd pieces are quoted
        if _NOT_OF_ONE_ROW.search(pieces[at]):
            raise ValueError(
                f"rule {text!r} is no condition on single rows: it holds a subquery, window, cast or comment"
            )
        for function in _FUNCTION.findall(pieces[at]):
            if function.lower() not in _KEYWORDS | _FUNCTIONS:
                raise ValueError(f"rule {text!r} uses function {function!r}; known are {', '.join(sorted(_FUNCTIONS))}")
        for table in tables:
            prefix = re.compile(rf"(?<![\w.-]){re.escape(table)}\.(?=[A-Za-z_]|$)")
            pieces[at], count = prefix.subn("", pieces[at])
            if count:
                found.add(table)
    if len(found) > 1:
        raise ValueError(f"rule {text!r} names several tables; a rule judges the rows of one")
    return "".join(pieces), found.pop() if found else default
