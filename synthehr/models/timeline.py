"""When the rows of made-up patients may be: what their own row says of the first and last, and what that leaves open.

Times are on the scale of the column that orders a table. A window is a pair of borders, half a step beside the times
that are within, as those of :class:`~synthehr.privacy.partition.Intervals` are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from synthehr.encoding.domain import ColumnDomain
from synthehr.encoding.lattice import as_number, span_of
from synthehr.encoding.unroll import AT, ENDS, GAP
from synthehr.privacy.partition import Cells, Intervals
from synthehr.randomness import FloatArray, IntArray

__all__ = ["Open", "Timeline", "first_and_last", "floats", "known_beforehand", "open_cells", "order_of_times"]


# What part of the gaps must be none for gaps to be drawn before times.
_OF_ONE_VISIT = 0.25


def floats(column: pl.Series) -> FloatArray:
    """A numeric column, NaN where missing."""
    return column.cast(pl.Float64).fill_null(np.nan).to_numpy()


def first_and_last(
    patients: pl.DataFrame, child: str, *, limit: str | None, order: Any
) -> tuple[FloatArray, FloatArray]:
    """The times of each patient's first and last row in a table, as the patient's own row tells them.

    Args:
        patients: own columns of the patients' conditional table.
        child: the table.
        limit: see :class:`~synthehr.encoding.unroll.ConditionalTable`.
        order: the declared column that orders the table.

    Returns:
        On the column's scale, NaN where there is none, both of shape ``(patients,)``.
    """
    several = floats(patients[f"[rows of {child}]"]) > 1.0
    told = f"[span of {child}]"
    span = np.where(several, np.nan_to_num(floats(patients[told])), 0.0) if told in patients.columns else 0.0 * several
    low, high = span_of(order)
    if limit is None:
        first = floats(as_number(patients[f"[first of {child}]"]))
        return np.clip(first, low, high), np.clip(first + span, low, high)
    last = np.clip(floats(as_number(patients[limit])) - floats(patients[f"[after {child}]"]), low, high)
    return np.clip(last - span, low, high), last


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """What is open to some rows before they are drawn, all of shape ``(rows,)``.

    Attributes:
        first, final: whether it is the patient's first row, the patient's last.
        before: the time of the row before, NaN where there is none.
        begin, end: the times of the patient's first and last row as they are known so far.
        firsts, lasts: windows that these lie in, each of shape ``(2, rows)``.
        remaining: how many rows are left, with this one.
        half: half a step of times.
    """

    first: np.ndarray
    final: np.ndarray
    remaining: IntArray
    before: FloatArray
    begin: FloatArray
    end: FloatArray
    firsts: FloatArray
    lasts: FloatArray
    half: float

    def of(self, rows: np.ndarray) -> Open:
        """That of some of the rows."""
        return Open(
            first=self.first[rows],
            final=self.final[rows],
            remaining=self.remaining[rows],
            before=self.before[rows],
            begin=self.begin[rows],
            end=self.end[rows],
            firsts=self.firsts[:, rows],
            lasts=self.lasts[:, rows],
            half=self.half,
        )

    @staticmethod
    def joined(pieces: Sequence[Open]) -> Open:
        """That of the rows of all pieces, one after the other; there is one piece at least."""
        return Open(
            first=np.concatenate([piece.first for piece in pieces]),
            final=np.concatenate([piece.final for piece in pieces]),
            remaining=np.concatenate([piece.remaining for piece in pieces]),
            before=np.concatenate([piece.before for piece in pieces]),
            begin=np.concatenate([piece.begin for piece in pieces]),
            end=np.concatenate([piece.end for piece in pieces]),
            firsts=np.concatenate([piece.firsts for piece in pieces], axis=1),
            lasts=np.concatenate([piece.lasts for piece in pieces], axis=1),
            half=pieces[0].half,
        )

    @property
    def left(self) -> FloatArray:
        """From the row before to the patient's last, NaN where there is none."""
        return self.end - self.before

    def ends(self) -> np.ndarray:
        """Whether each row may not, and may, be at the time of its patient's last row. Shape: ``(rows, 2)``."""
        must = np.where(self.first, self.end <= self.begin, self.final | (self.left <= 0.0))
        return np.stack([~must, must | ~self.first], axis=1)

    def window(self, ends: np.ndarray) -> FloatArray:
        """Where each row's time lies, shape ``(2, rows)``.

        Args:
            ends: whether it is at the time of the patient's last, shape ``(rows,)``.
        """
        half, reached = self.half, self.left <= 0.0
        inside = np.stack([self.before - half, self.end - half])
        last = np.stack([np.fmax(self.lasts[0], self.before + half), self.lasts[1]])
        begins = np.stack([self.firsts[0], np.fmin(self.firsts[1], self.end - half)])
        found = np.where(self.first, np.where(ends, self.lasts, begins), np.where(ends, last, inside))
        point = np.where(self.first & ~ends, self.begin, self.end)
        found = np.where((reached & ends) | ~(found[0] < found[1]), np.stack([point - half, point + half]), found)
        return np.asarray(found, dtype=np.float64)

    def after(self, window: FloatArray, gaps: Cells, gap: IntArray) -> FloatArray:
        """The part of each row's window that the cell of its gap leaves open, shape ``(2, rows)``."""
        there = _within(gaps, np.minimum(gap, gaps.size - 2), window - self.before) + self.before
        return np.where(self.first, window, there)

    def drawn(
        self,
        window: FloatArray,
        cells: tuple[Cells, Cells],
        codes: tuple[IntArray, IntArray],
        values: tuple[FloatArray, FloatArray],
        draws: np.random.Generator,
    ) -> FloatArray:
        """A time for each row that lies in its cells, shape ``(rows,)``.

        Args:
            window: see above.
            cells: of times and of gaps.
            codes: that of each row in both.
            values: a time and a gap from these cells, NaN for no gap: one of them serves where it lies in both.
            draws: for the place within, where neither does.
        """
        low, high = _within(cells[0], codes[0], self.after(window, cells[1], codes[1]))
        steps = np.maximum(np.rint((high - low) / (2.0 * self.half)), 1.0)
        time = low + self.half * (1.0 + 2.0 * np.floor(draws.random(len(low)) * steps))
        for said in (values[0], self.before + values[1]):
            time = np.where((low < said) & (said < high), said, time)
        return np.asarray(time, dtype=np.float64)


def open_cells(name: str, cells: Mapping[str, Cells], rows: Open, codes: Mapping[str, IntArray]) -> FloatArray:
    """What is added to the scores of a column of times: minus infinity for cells it may not have in a row.

    Noise says of any row that it may be at the end or a day before, and a patient of many rows hears that many times:
    all rows that are left would be there. So the more are left, the less a row is taken for the end or brought near it,
    unless what was bought says more. Of rows spread evenly over the time left, all others fall into what a gap leaves
    of it with the chance of one to the power of how many they are. Half of that power where gaps are drawn first, which
    is where rows of one visit are as one, see :func:`order_of_times`.

    Args:
        name: the column: whether the row is at the time of the patient's last, its time, or its gap.
        cells: of all columns.
        rows: what is open to each of them.
        codes: of the columns drawn before. Of time and gap either may be the first.

    Returns:
        shape ``(rows, cells)``.
    """
    if name == ENDS:
        unlikely = np.column_stack([np.zeros(len(rows.first)), 1.0 - rows.remaining])
        return np.where(rows.ends(), unlikely, -np.inf)
    ends = codes[ENDS] == 1
    window = rows.window(ends)
    if name == AT:
        within = rows.after(window, cells[GAP], codes[GAP]) if GAP in codes else window
        even = 0.0 if GAP in codes else _spread(cells[AT], rows, within, ends=ends, origin=rows.before, power=1.0)
        return np.where(_overlap(cells[AT], within), even, -np.inf)
    within = (_within(cells[AT], codes[AT], window) if AT in codes else window) - rows.before
    found = np.zeros((len(rows.first), cells[GAP].size))
    known = np.where(np.isnan(within), [[-np.inf], [np.inf]], within)
    even = 0.0 if AT in codes else _spread(cells[GAP], rows, known, ends=ends, origin=np.zeros(len(ends)), power=0.5)
    found[:, :-1] = np.where(_overlap(cells[GAP], known), even, -np.inf)
    return found


# The least part of the time left that the middle of a gap's cell is taken to leave.
_LEAST_LEFT = 1e-3


def _spread(
    cells: Cells, rows: Open, window: FloatArray, *, ends: np.ndarray, origin: FloatArray, power: float
) -> FloatArray:
    """How much less a time or gap is taken for it the less time it leaves to rows that are left.

    Args:
        cells: of times or gaps.
        rows: what is open to each row.
        window: where each lies, shape ``(2, rows)``.
        ends: whether it is at the time of the patient's last, so that no time is left.
        origin: the row before, on the scale of the cells.
        power: for each row that is left besides the last.

    Returns:
        shape ``(rows, intervals)``.
    """
    borders = _borders(cells)
    low = np.maximum(borders[None, :-1], window[0][:, None])
    high = np.minimum(borders[None, 1:], window[1][:, None])
    counts = (rows.left > 0.0) & ~ends
    known = np.isfinite(low) & np.isfinite(high) & counts[:, None]
    gap = 0.5 * (np.where(known, low, 0.0) + np.where(known, high, 0.0)) - np.where(counts, origin, 0.0)[:, None]
    part = np.clip(1.0 - gap / np.where(counts, rows.left, 1.0)[:, None], _LEAST_LEFT, 1.0)
    others = power * np.maximum(rows.remaining - 2, 0)[:, None]
    return np.asarray(np.where(known, others * np.log(part), 0.0), dtype=np.float64)


def order_of_times(drawn: Sequence[str], domain: Sequence[ColumnDomain]) -> tuple[str, ...]:
    """The columns in the order in which they are drawn, of a row's time and its gap the one that tells more first.

    Where many rows are at the time of the row before, the gap: it says which rows are of one visit. Elsewhere the time.
    Measured on the two child tables of nafld: gaps first, those of labs (half of them none) lie 0.02 to 0.03 from the
    real ones in KS, else 0.12; times first, events on a patient's day 0 (a tenth of them) are as many as they should
    be, else less than half.

    Args:
        drawn: the columns, the time before the gap where there are both.
        domain: the bought histograms of these.
    """
    found = {column.name: column for column in domain}
    if AT not in found or GAP not in found:
        return tuple(drawn)
    counts = found[GAP].counts[:-1]
    if counts[0] <= _OF_ONE_VISIT * counts.sum():
        return tuple(drawn)
    swapped = {AT: GAP, GAP: AT}
    return tuple(swapped.get(name, name) for name in drawn)


def _borders(cells: Cells) -> FloatArray:
    assert isinstance(cells, Intervals), "times and gaps are numbers"
    return np.concatenate([[-np.inf], cells.edges[1:-1], [np.inf]])


def _overlap(cells: Cells, window: FloatArray) -> np.ndarray:
    """Which intervals share a time with each window. Shape: ``(rows, intervals)``."""
    borders = _borders(cells)
    return np.asarray((borders[None, :-1] < window[1][:, None]) & (borders[None, 1:] > window[0][:, None]))


def _within(cells: Cells, code: IntArray, window: FloatArray) -> FloatArray:
    """The part of each window that lies in a cell, shape ``(2, rows)``."""
    borders = _borders(cells)
    return np.stack([np.fmax(window[0], borders[code]), np.fmin(window[1], borders[code + 1])])


@dataclass(slots=True, kw_only=True)
class Timeline:
    """What is known of the times of each patient's rows, all of shape ``(patients,)``; NaN for what there is not.

    Attributes:
        time, start: of the row before, and of the first.
        begin, end: of the first row and the last as they are known beforehand.
        firsts, lasts: windows in which these lie, each of shape ``(2, patients)``.
        span: window of the time between them, where it is the last that follows from the first.
        bounds: borders of all times.
        half: half a step.
    """

    time: FloatArray
    start: FloatArray
    begin: FloatArray
    end: FloatArray
    firsts: FloatArray
    lasts: FloatArray
    span: FloatArray | None
    bounds: tuple[float, float]
    half: float

    @classmethod
    def unknown(cls, patients: int) -> Timeline:
        """Nothing is known beforehand."""
        nothing = np.full((8, patients), np.nan)
        return cls(
            time=nothing[0],
            start=nothing[1],
            begin=nothing[2],
            end=nothing[3],
            firsts=nothing[4:6],
            lasts=nothing[6:8],
            span=None,
            bounds=(-np.inf, np.inf),
            half=0.5,
        )

    def open_to(self, of_patient: IntArray, *, first: np.ndarray, remaining: IntArray) -> Open:
        """What is open to the next row of these patients, of which so many are left."""
        return Open(
            first=first,
            final=remaining == 1,
            remaining=remaining,
            before=self.time[of_patient],
            begin=self.begin[of_patient],
            end=self.end[of_patient],
            firsts=self.firsts[:, of_patient],
            lasts=self.lasts[:, of_patient],
            half=self.half,
        )

    def remember(self, of_patient: IntArray, time: FloatArray, *, first: np.ndarray, ends: np.ndarray) -> None:
        """Rows of these patients were drawn at these times; ``ends`` says which are at that of the patient's last."""
        self.time[of_patient] = time
        begun, ended = of_patient[first], of_patient[ends]
        self.start[begun] = time[first]
        if self.span is not None:
            moved = time[first] - self.begin[begun]
            self.end[begun] = np.clip(self.end[begun] + moved, self.bounds[0] + self.half, self.bounds[1] - self.half)
            self.lasts[:, begun] = np.clip(time[first] + self.span[:, begun], *self.bounds)
        self.end[ended] = time[ends]
        self.lasts[:, ended] = time[ends] + np.array([[-self.half], [self.half]])


def known_beforehand(
    patients: pl.DataFrame,
    codes: Mapping[str, IntArray],
    cells: Mapping[str, Cells],
    child: str,
    *,
    limit: str | None,
    order: Any,
    step: float,
) -> Timeline:
    """What patients' own rows say of the times of their rows in a child table.

    Args:
        patients: own columns of the patients' conditional table.
        codes: their cells, by name.
        cells: the cells of these columns, by name.
        child: the table.
        limit: see :class:`~synthehr.encoding.unroll.ConditionalTable`.
        order: the declared column that orders the table.
        step: between one time and the next.
    """
    low, high = span_of(order)
    half = 0.5 * step
    begin, end = first_and_last(patients, child, limit=limit, order=order)
    lowest, highest = low - half, high + half
    told = f"[span of {child}]"
    span = _window(cells[told], codes[told]) if told in cells else np.tile([[-half], [half]], len(begin))
    span = np.where(end > begin, span, [[-half], [half]])
    if limit is None:
        first = f"[first of {child}]"
        firsts = np.clip(_window(cells[first], codes[first]), lowest, highest)
        lasts = np.where(end > begin, begin + span, firsts)
    else:
        after = f"[after {child}]"
        whole = floats(as_number(patients[limit]))
        lasts = whole - _window(cells[after], codes[after])[::-1]
        lasts = np.clip(lasts, lowest, np.minimum(highest, whole + half))
        firsts = np.clip(end - span[::-1], lowest, highest)
    nothing = np.full(len(begin), np.nan)
    return Timeline(
        time=nothing.copy(),
        start=nothing.copy(),
        begin=begin,
        end=end,
        firsts=firsts,
        lasts=np.clip(lasts, lowest, highest),
        span=span if limit is None else None,
        bounds=(lowest, highest),
        half=half,
    )


def _window(cells: Cells, codes: IntArray) -> FloatArray:
    """The borders of numbers' cells, NaN where missing. Shape: ``(2, rows)``."""
    assert isinstance(cells, Intervals), "times are numbers"
    low, high = np.append(cells.edges[:-1], np.nan), np.append(cells.edges[1:], np.nan)
    known = np.minimum(codes, len(low) - 1)
    return np.stack([low[known], high[known]])
