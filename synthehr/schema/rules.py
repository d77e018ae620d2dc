"""Conditions on rows, written as SQL boolean expressions: declared rules and ``--where``."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import polars as pl
from polars.exceptions import PolarsError

__all__ = ["Above", "Rule", "named_above", "parse_rule"]

_PIECES = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""")
_FUNCTION = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
_NOT_OF_ONE_ROW = re.compile(r"\b(select|over|exists|distinct)\b|--|/\*|;|::", re.IGNORECASE)
_NAME = "(?=[A-Za-z_]|$)"  # a column's name begins here, or in quotes after this
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


Above: TypeAlias = Callable[[str, str], pl.Series]
"""From a table and a column of it to its value in that ancestor of each row, shape ``(rows,)``."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on the rows of one table.

    Attributes:
        text: the expression as it was written.
        table: name of the table whose rows it judges.
        columns: the columns of that table that it reads.
        expression: the same in polars; true, false or null for each row.
        above: columns of the rows' ancestors that it reads, as pairs of table and column.
    """

    text: str
    table: str
    columns: tuple[str, ...]
    expression: pl.Expr = field(compare=False)  # polars gives an expression for ==, not a truth
    above: tuple[tuple[str, str], ...] = ()

    def holds(self, frame: pl.DataFrame, above: Above | None = None) -> pl.Series:
        """Whether each row of ``frame`` meets the rule; null (unknown) is not met. Shape ``(rows,)``.

        Args:
            frame: rows of the table.
            above: what their ancestors hold, which a rule that reads some of it needs.
        """
        if self.above:
            assert above is not None, "a rule across tables needs the rows above"
            beside = [above(table, column).alias(named_above(table, column)) for table, column in self.above]
            frame = frame.select(self.columns).hstack(beside)
        return frame.select(self.expression.fill_null(value=False).alias("holds"))["holds"]


def named_above(table: str, column: str) -> str:
    """How the expression of a rule names a column of an ancestor."""
    return f"[{table}] {column}"


def parse_rule(
    text: str,
    *,
    columns: Mapping[str, Mapping[str, pl.DataType]],
    default: str,
    ancestors: Mapping[str, Sequence[str]] | None = None,
) -> Rule:
    """Parse an SQL boolean expression over the columns of one table and of its rows' ancestors.

    Args:
        text: for example ``weight is null or weight > 0``, ``patient.died`` or ``lab.days <= patient.futime``.
        columns: for each table, the columns that may be named and the types they are held in.
        default: the table of names that carry none, where no table is named.
        ancestors: of each table that has some.

    Raises:
        ValueError: the text is no condition on single rows, names an unknown table, column or function, names tables
            of which none hangs from all the others, or compares a column with what its type cannot be compared with.
    """
    bare, table = _of_one_table(text, tables=tuple(columns), default=default, ancestors=ancestors or {})
    above = {named_above(of, name): (of, name) for of in (ancestors or {}).get(table, ()) for name in columns[of]}
    try:
        expression = pl.sql_expr(bare)
        names = tuple(dict.fromkeys(expression.meta.root_names()))
        named_anew = expression.meta.output_name(raise_if_undetermined=False) not in (None, *names, "literal")
    except PolarsError as error:
        raise ValueError(f"rule {text!r} is not an SQL condition such as \"age >= 18 and sex = 'female'\"") from error
    if not names:
        raise ValueError(f"rule {text!r} names no column")
    for name in names:
        if name not in columns[table] and name not in above:
            dotted = next((c for c in columns[table] if c.startswith(f"{name}.")), None)
            hint = f': write "{dotted}" in double quotes' if dotted is not None else ""
            raise ValueError(f"rule {text!r} names {name!r}, which is not a kept column of table {table!r}{hint}")
    types = {n: columns[above[n][0]][above[n][1]] if n in above else columns[table][n] for n in names}
    trial = pl.DataFrame([pl.Series(n, [_TRIAL[dtype.base_type()], None], dtype) for n, dtype in types.items()])
    try:
        result = trial.select(expression.alias("holds")).schema["holds"]
    except PolarsError as error:
        raise ValueError(f"rule {text!r} compares or computes with values of unlike types") from error
    if result != pl.Boolean or named_anew:
        raise ValueError(f"rule {text!r} is a value, not a condition that is true or false")
    return Rule(
        text=text,
        table=table,
        columns=tuple(name for name in names if name not in above),
        expression=expression,
        above=tuple(above[name] for name in names if name in above),
    )


def _of_one_table(
    text: str, *, tables: tuple[str, ...], default: str, ancestors: Mapping[str, Sequence[str]]
) -> tuple[str, str]:
    """The expression with its own table's name taken off, other tables' columns named anew, and that table."""
    pieces = _PIECES.split(text)
    for piece in pieces[::2]:  # the odd pieces are quoted
        if _NOT_OF_ONE_ROW.search(piece):
            raise ValueError(
                f"rule {text!r} is no condition on single rows: it holds a subquery, window, cast or comment"
            )
        for function in _FUNCTION.findall(piece):
            if function.lower() not in _KEYWORDS | _FUNCTIONS:
                raise ValueError(f"rule {text!r} uses function {function!r}; known are {', '.join(sorted(_FUNCTIONS))}")
    prefixes = {table: rf"(?<![\w.-]){re.escape(table)}\." for table in tables}
    named = [table for table, start in prefixes.items() if any(re.search(start + _NAME, p) for p in pieces[::2])]
    own = _lowest(named, ancestors=ancestors) if named else default
    if own is None:
        raise ValueError(
            f"rule {text!r} names several tables of which none hangs from the others; a rule judges the rows of one"
        )
    for table in named:
        _name_anew(pieces, prefixes[table], within=None if table == own else table)
    return "".join(pieces), own


def _lowest(named: Sequence[str], *, ancestors: Mapping[str, Sequence[str]]) -> str | None:
    """The table of which all others that are named are ancestors; None where there is none."""
    return next((table for table in named if {*named} <= {table, *ancestors.get(table, ())}), None)


def _name_anew(pieces: list[str], prefix: str, *, within: str | None) -> None:
    """Take a table's name off its columns, and where they are an ancestor's write that before them, in quotes."""
    for at in range(0, len(pieces), 2):
        if within is None:
            pieces[at] = re.sub(prefix + _NAME, "", pieces[at])
            continue
        before_quotes = re.search(prefix + "$", pieces[at])
        if before_quotes is not None:
            pieces[at] = pieces[at][: before_quotes.start()]
            if at + 1 < len(pieces) and pieces[at + 1].startswith('"'):
                pieces[at + 1] = f'"[{within}] {pieces[at + 1][1:]}'
        pieces[at] = re.sub(rf"{prefix}([A-Za-z_]\w*)", rf'"[{within}] \1"', pieces[at])
