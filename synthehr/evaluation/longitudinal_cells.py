"""What rows of patients are counted in: cells of numbers, codes and columns, from train alone, with open ends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthehr.evaluation.coding import Values
from synthehr.evaluation.longitudinal_rows import CodeStream, Histories, Rows
from synthehr.schema.model import IntegerColumn, NumberColumn

__all__ = [
    "Cells",
    "by_visit_and_name",
    "count_edges",
    "fold",
    "followers",
    "histogram_labels",
    "is_measured",
    "root_cells",
    "step_edges",
    "table_cells",
    "together",
]

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
Triple = tuple[Values, Values, Values]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """One column of a table in the three cohorts: the cell of each row, shape ``(rows,)`` each.

    Attributes:
        name: the column.
        size: number of cells, one for missing and what cannot be read among them.
        parts: train, synthetic, holdout.
    """

    name: str
    size: int
    parts: tuple[Whole, Whole, Whole]


def is_measured(declared: object) -> bool:
    """Whether a column is a number whose values are compared (and no date, code or truth value)."""
    return isinstance(declared, IntegerColumn | NumberColumn)


def step_edges(values: Floats, *, steps: int, below: bool = False) -> Floats:
    """Quantiles of the values that are there, each once; a cell holds what is above one and at most the next.

    Args:
        values: of train; NaN is left out.
        steps: of how many equal shares.
        below: give what is less than all of them a cell of its own, as distances between steps need.
    """
    given = values[np.isfinite(values)]
    if len(given) == 0:
        return np.zeros(1)
    edges = np.unique(np.quantile(given, np.arange(1, steps) / steps, method="inverted_cdf"))
    return np.concatenate([[np.nextafter(given.min(), -np.inf)], edges]) if below else edges


def count_edges(counts: Whole, *, cap: int | None = None, cells: int = 10) -> Whole:
    """Least count of each cell but the first, which is zero; with a cap, the last cell is the cap alone.

    Args:
        counts: of train's patients, shape ``(patients,)``.
        cap: the most there can be.
        cells: about how many, of equal shares of the patients who have any.
    """
    some = counts[counts > 0]
    inner = np.quantile(some, np.arange(1, cells) / cells, method="inverted_cdf") if len(some) else np.zeros(0)
    return np.unique(np.concatenate([[1], inner, [cap] if cap is not None else []]).astype(np.int64))


def histogram_labels(edges: Sequence[int]) -> tuple[str, ...]:
    """What each cell of :func:`count_edges` is."""
    inner = [str(low) if high - low == 1 else f"{low} to {high - 1}" for low, high in itertools.pairwise(edges)]
    return ("0", *inner, f"{edges[-1]} or more")


def fold(codes: Whole, known: int, most: int) -> Whole:
    """Codes with all but the ``most`` most common values in one cell; what is none of the values goes there too.

    The cell is ``min(known, most)``; missing is the one after.
    """
    kept = min(known, most)
    return np.where(codes == known + 1, kept + 1, np.minimum(codes, kept))


def by_visit_and_name(rows: Rows, stream: CodeStream) -> Whole:
    """The order of rows by visit and, within one, by the names of their codes, shape ``(rows,)``.

    Rows of one visit have no order of their own. Names give them the same one whatever train's frequencies are.
    """
    place = np.empty(stream.size, dtype=np.int64)
    place[np.argsort(np.array(stream.values, dtype=str), kind="stable")] = np.arange(len(stream.values))
    place[len(stream.values) :] = (len(stream.values), len(stream.values) + 1)
    return np.lexsort((place[rows.codes[stream.column]], rows.visit))


def root_cells(histories: Histories, *, bins: int, most: int = 30) -> list[Cells]:
    """The columns of the patients' own table."""
    kept = histories.schema.root.kept
    parts = [person.root.values for person in histories.parts]
    return [
        _cells(name, (parts[0][name], parts[1][name], parts[2][name]), per=None, bins=bins, most=most) for name in kept
    ]


def table_cells(histories: Histories, table: str, *, bins: int, most: int = 30) -> list[Cells]:
    """The columns of a table below the root; a value that depends on a code is cut for each code on its own."""
    kept = histories.schema.tables[table].kept
    rows = [person.tables[table] for person in histories.parts]
    streams = {stream.column: stream for stream in histories.streams_of((table,))}
    cells = []
    for name, column in kept.items():
        code = getattr(column, "per", None)
        per = None
        if code is not None:
            known = len(streams[code].values)
            per = tuple(fold(one.codes[code], known, most) for one in rows)
        values = (rows[0].values[name], rows[1].values[name], rows[2].values[name])
        cells.append(_cells(name, values, per=per, bins=bins, most=most))
    return cells


def _cells(name: str, values: Triple, *, per: tuple[Whole, ...] | None, bins: int, most: int) -> Cells:
    if values[0].text is not None:
        size, codes = _categories(values, most=most)
    elif per is None:
        edges = step_edges(_numbers(values[0]), steps=bins)
        size = len(edges) + 2
        codes = tuple(_binned(_numbers(one), edges) for one in values)
    else:
        size, codes = _by_code(values, per, bins=max(2, bins // 2))
    return Cells(name=name, size=size, parts=(codes[0], codes[1], codes[2]))


def _numbers(values: Values) -> Floats:
    assert values.number is not None, "a column that is no text is read as numbers"
    return values.number


def _binned(numbers: Floats, edges: Floats) -> Whole:
    """Cell of each number; the one after the last for what is not there."""
    return np.where(np.isnan(numbers), len(edges) + 1, np.searchsorted(edges, numbers, side="left"))


def _categories(values: Triple, *, most: int) -> tuple[int, tuple[Whole, ...]]:
    assert values[0].text is not None
    counted = values[0].text.rename("code").drop_nulls().value_counts()
    common = counted.sort(["count", "code"], descending=[True, False])["code"].head(most).cast(pl.String)
    codes = []
    for one in values:
        assert one.text is not None
        text = one.text.cast(pl.String)
        known = (
            text.replace_strict(common, pl.Series(range(len(common))), default=len(common), return_dtype=pl.Int64)
            if len(common)
            else pl.repeat(0, len(text), dtype=pl.Int64, eager=True)
        )
        codes.append(np.where(one.missing, len(common) + 1, known.fill_null(len(common)).to_numpy()))
    return len(common) + 2, tuple(codes)


def _by_code(values: Triple, per: tuple[Whole, ...], *, bins: int) -> tuple[int, tuple[Whole, ...]]:
    known = int(max(one.max(initial=0) for one in per)) + 1
    width = bins + 1
    codes = [one * width + bins for one in per]
    for code in range(known):
        here = [one == code for one in per]
        edges = step_edges(_numbers(values[0])[here[0]], steps=bins)
        for at, one in enumerate(values):
            numbers = _numbers(one)[here[at]]
            inside = np.minimum(np.searchsorted(edges, numbers, side="left"), bins - 1)
            codes[at][here[at]] = code * width + np.where(np.isnan(numbers), bins, inside)
    return known * width, tuple(codes)


def together(rows: Rows, codes: Whole) -> tuple[Whole, Whole, Whole]:
    """Unordered pairs of different codes of one visit: its patient and the two codes, the lesser first."""
    owner, visit, code = _once(rows, codes)
    ends = np.append(np.flatnonzero(np.diff(visit)) + 1, len(visit))
    last = np.repeat(ends, np.diff(ends, prepend=0))
    at = np.arange(len(visit))
    first, second = _paired(at + 1, last)
    return owner[first], code[first], code[second]


def followers(rows: Rows, codes: Whole) -> tuple[Whole, Whole, Whole]:
    """Pairs of a code of one visit and a code of the patient's next: the patient and the two codes in order."""
    owner, visit, code = _once(rows, codes)
    begins = np.flatnonzero(np.diff(visit, prepend=-1))
    ends = np.append(begins[1:], len(visit))
    of = np.repeat(np.arange(len(begins)), ends - begins)
    following = np.minimum(of + 1, max(len(begins) - 1, 0))
    if len(begins) == 0:
        return owner, code, code
    same = (owner[begins[following]] == owner) & (of + 1 < len(begins))
    first, second = _paired(np.where(same, begins[following], 0), np.where(same, ends[following], 0))
    return owner[first], code[first], code[second]


def _once(rows: Rows, codes: Whole) -> tuple[Whole, Whole, Whole]:
    """Each code of each visit once, by visit and code."""
    if len(rows) == 0:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing
    span = int(codes.max()) + 1
    kept, first = np.unique(rows.visit * span + codes, return_index=True)
    return rows.owner[first], kept // span, kept % span


def _paired(low: Whole, high: Whole) -> tuple[Whole, Whole]:
    """For each element every position from ``low`` to below ``high``: the element and the position."""
    many = np.maximum(high - low, 0)
    first = np.repeat(np.arange(len(low)), many)
    begun = np.repeat(np.cumsum(many) - many, many)
    return first, np.repeat(low, many) + np.arange(len(first)) - begun
