"""The domain: for every column its cells and how many patients fall in each, declared or bought with budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from synthehr.encoding.lattice import FINEST, Lattice, lattice_of
from synthehr.privacy.accountant import Account, EpsilonDelta, Event, Gaussian
from synthehr.privacy.partition import Intervals, Partition, Values
from synthehr.privacy.rows import PrivateRows
from synthehr.randomness import FloatArray, IntArray
from synthehr.schema.model import BooleanColumn, CategoryColumn, IntegerColumn, NumberColumn, Table

__all__ = ["OTHER", "ColumnDomain", "ColumnPlan", "buy_domain", "plan_domain", "sharpen"]

OTHER = "OTHER"
_FANOUT = 256
_SMALLEST = 2.0**-10
_MAGNITUDES = np.concatenate([-(2.0 ** np.arange(40, -11, -1)), 2.0 ** np.arange(-10, 41)])


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDomain:
    """The cells of one column, and what was bought about them.

    Attributes:
        name: the column.
        cells: the public partition that the model works on.
        counts: bought number of patients per cell, none negative, shape ``(cells.size,)``.
        variance: of the noise in each count, about, shape ``(cells.size,)``.
        lattice: for numeric columns, the values there can be.
        leaf_starts: for numeric columns, first lattice position of each finer cell, shape ``(leaves + 1,)``.
        leaf_counts: bought number of patients per finer cell, shape ``(leaves,)``.
        leaf_cells: the cell each finer cell lies in, shape ``(leaves,)``.
    """

    name: str
    cells: Partition
    counts: FloatArray
    variance: FloatArray
    lattice: Lattice | None = None
    leaf_starts: IntArray | None = None
    leaf_counts: FloatArray | None = None
    leaf_cells: IntArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnPlan:
    """The events that buying one column's domain takes: the range, where it is not declared, then the cells."""

    range_event: Gaussian | None
    cell_events: tuple[Gaussian, ...]
    selection_failure: EpsilonDelta | None

    @property
    def events(self) -> tuple[Event, ...]:
        """All of them."""
        optional = (self.range_event, self.selection_failure)
        return (*self.cell_events, *(event for event in optional if event is not None))


def plan_domain(table: Table, *, precision: float, selection_delta: float) -> dict[str, ColumnPlan]:
    """What buying the domain of every kept column will cost; fixed before any row is touched.

    Args:
        table: the declared columns.
        precision: sum of 1 / noise_multiplier**2 over all Gaussian events, shared equally by the columns.
        selection_delta: sum of the chances that a selection of values names a value of one patient.
    """
    kept = table.kept
    discovered = [n for n, c in kept.items() if isinstance(c, CategoryColumn) and c.values is None]
    plans = {}
    for name, column in kept.items():
        unbounded = isinstance(column, IntegerColumn | NumberColumn) and column.bounds is None
        levels = _levels(column)
        noise = math.sqrt(len(kept) * (levels + int(unbounded)) / precision)
        event = Gaussian(stage=f"domain:{name}", noise_multiplier=noise)
        failure = None
        if name in discovered:
            failure = EpsilonDelta(stage=f"domain:{name}", epsilon=0.0, delta=selection_delta / len(discovered))
        plans[name] = ColumnPlan(
            range_event=event.model_copy(update={"stage": f"range:{name}"}) if unbounded else None,
            cell_events=(event,) * levels,
            selection_failure=failure,
        )
    return plans


def _levels(column: Any) -> int:
    if isinstance(column, CategoryColumn | BooleanColumn):
        return 1
    points = FINEST if getattr(column, "bounds", None) is None else lattice_of(column).points
    return min(4, max(1, math.ceil(math.log(points) / math.log(_FANOUT) - 1e-9)))


def buy_domain(
    rows: PrivateRows,
    account: Account,
    table: Table,
    *,
    plans: Mapping[str, ColumnPlan],
    patients: int,
    bins: int,
) -> list[ColumnDomain]:
    """Buy the cells of every kept column and the number of patients in each.

    Args:
        rows: behind the door.
        account: on which ``plans`` are booked.
        table: the declared columns.
        plans: from :func:`plan_domain`.
        patients: the bought count.
        bins: how many cells a numeric column gets, about.
    """
    buyer = _Buyer(rows=rows, account=account, patients=patients, bins=bins)
    return [buyer.column(name, column, plans[name]) for name, column in table.kept.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Buyer:
    """Buys columns one after the other on one account."""

    rows: PrivateRows
    account: Account
    patients: int
    bins: int

    def column(self, name: str, declared: Any, plan: ColumnPlan) -> ColumnDomain:
        """The domain of one column, in the way its kind asks for."""
        if isinstance(declared, BooleanColumn):
            cells = Values(values=("false", "true"), other=False, nullable=declared.nullable)
            return self._values(name, cells, plan)
        if isinstance(declared, CategoryColumn) and declared.values is not None:
            return self._values(name, Values(values=declared.values, other=False, nullable=declared.nullable), plan)
        if isinstance(declared, CategoryColumn):
            return self._selected(name, declared, plan)
        return self._intervals(name, declared, plan)

    def _values(self, name: str, cells: Values, plan: ColumnPlan) -> ColumnDomain:
        (event,) = plan.cell_events
        noisy = self.rows.histogram(self.account, name, cells, event=event)
        return ColumnDomain(
            name=name,
            cells=cells,
            counts=on_simplex(noisy, total=self.patients),
            variance=np.full(cells.size, event.noise_multiplier**2),
        )

    def _selected(self, name: str, declared: CategoryColumn, plan: ColumnPlan) -> ColumnDomain:
        (event,) = plan.cell_events
        assert plan.selection_failure is not None, "planned for every column whose values are bought"
        found = self.rows.select_values(self.account, name, event=event, failure=plan.selection_failure)
        values = tuple(value for value in found if value != OTHER)
        cells = Values(values=values, other=True, nullable=declared.nullable)
        named = np.array([found[value] for value in values])
        rest = max(0.0, self.patients - float(named.sum()))
        # What is left may be other values or missing: the marginals tell them apart, until then half each.
        tails = 1 + int(declared.nullable)
        counts = np.concatenate([named, np.full(tails, rest / tails)])
        known = np.full(len(values), event.noise_multiplier**2)
        return ColumnDomain(
            name=name,
            cells=cells,
            counts=on_simplex(counts, total=self.patients),
            variance=np.concatenate([known, np.full(tails, self.patients**2 / 4.0)]),
        )

    def _intervals(self, name: str, declared: Any, plan: ColumnPlan) -> ColumnDomain:
        bounds = None
        if plan.range_event is not None:
            magnitudes = Intervals(edges=_MAGNITUDES, nullable=True)
            noisy = self.rows.histogram(self.account, name, magnitudes, event=plan.range_event)
            whole = isinstance(declared, IntegerColumn)
            bounds = _range(noisy[:-1], noise=plan.range_event.noise_multiplier, whole=whole)
        lattice = lattice_of(declared, bounds=bounds)
        leaves = _refine(
            lambda cells, event: self.rows.histogram(self.account, name, cells, event=event),
            lattice,
            events=plan.cell_events,
            nullable=declared.nullable,
            patients=self.patients,
            bins=self.bins,
        )
        return _group(name, lattice, leaves, nullable=declared.nullable, bins=self.bins)


def _range(noisy: FloatArray, *, noise: float, whole: bool) -> tuple[float, float]:
    """The outermost magnitudes that surely hold patients, down to zero where it is near; zero to one where none does.

    Each step towards zero holds fewer values: those of few patients, lost in the noise, would all be cut off there.
    """
    held = np.flatnonzero(noisy > 4.0 * noise)
    if len(held) == 0:
        return 0.0, 1.0
    lower, upper = float(_MAGNITUDES[held[0]]), float(_MAGNITUDES[held[-1] + 1])
    lower = 0.0 if lower == -_SMALLEST or 0.0 < lower <= upper / 4.0 else lower
    upper = 0.0 if upper == _SMALLEST or lower / 4.0 <= upper < 0.0 else upper
    if not lower < upper:
        return 0.0, 1.0
    return (math.floor(lower), math.ceil(upper)) if whole else (lower, upper)


@dataclass(slots=True)
class _Leaves:
    """Cells of a numeric column while they are refined: lattice positions, counts, variances, missing."""

    starts: IntArray
    counts: FloatArray
    variance: FloatArray
    missing: float
    missing_variance: float


def _refine(
    measure: Callable[[Intervals, Gaussian], FloatArray],
    lattice: Lattice,
    *,
    events: tuple[Gaussian, ...],
    nullable: bool,
    patients: int,
    bins: int,
) -> _Leaves:
    """Measure level by level, each time splitting the cells that hold enough patients to be worth it.

    Every level measures all present cells, so that cells that stay as they are become sharper.
    """
    fanout = max(2, math.ceil(lattice.points ** (1.0 / len(events))))
    starts = np.unique(np.linspace(0, lattice.points, min(fanout, lattice.points) + 1).round().astype(np.int64))
    leaves: _Leaves | None = None
    for event in events:
        if leaves is not None:
            heavy = leaves.counts > max(2.0 * event.noise_multiplier, patients / (4.0 * bins))
            starts = _split(leaves.starts, heavy & (np.diff(leaves.starts) > 1), fanout)
        noisy = measure(Intervals(edges=lattice.edges(starts), nullable=nullable), event)
        counts = noisy[:-1] if nullable else noisy
        leaves = _merge(leaves, starts, counts, event.noise_multiplier**2, noisy[-1] if nullable else 0.0)
    assert leaves is not None, "there is at least one level"
    whole = on_simplex(np.append(leaves.counts, leaves.missing) if nullable else leaves.counts, total=patients)
    leaves.counts = whole[: len(leaves.counts)]
    leaves.missing = float(whole[-1]) if nullable else 0.0
    return leaves


def _split(starts: IntArray, chosen: np.ndarray, fanout: int) -> IntArray:
    pieces = [starts]
    for at in np.flatnonzero(chosen):
        width = int(starts[at + 1] - starts[at])
        pieces.append(np.linspace(starts[at], starts[at + 1], min(fanout, width) + 1).round().astype(np.int64))
    return np.unique(np.concatenate(pieces))


def _merge(old: _Leaves | None, starts: IntArray, counts: FloatArray, variance: float, missing: float) -> _Leaves:
    """Combine a finer measurement with the coarser one before it, each by its precision."""
    if old is None:
        return _Leaves(starts, counts.copy(), np.full(len(counts), variance), missing, variance)
    parent = np.searchsorted(old.starts, starts[:-1], side="right") - 1
    children = np.bincount(parent, minlength=len(old.counts))
    sums = np.bincount(parent, weights=counts, minlength=len(old.counts))
    pull = old.variance / (old.variance + children * variance)
    total = pull * sums + (1.0 - pull) * old.counts
    fitted = counts + ((total - sums) / children)[parent]
    for at in np.flatnonzero(children > 1):
        mine = parent == at
        fitted[mine] = on_simplex(fitted[mine], total=max(0.0, total[at]))
    share = old.missing_variance / (old.missing_variance + variance)
    return _Leaves(
        starts,
        fitted,
        np.where(children[parent] > 1, variance, variance * pull[parent]),
        share * missing + (1.0 - share) * old.missing,
        share * variance,
    )


def _group(name: str, lattice: Lattice, leaves: _Leaves, *, nullable: bool, bins: int) -> ColumnDomain:
    """Join finer cells into about ``bins`` cells of even mass; a cell heavier than that stays alone."""
    cell = np.arange(len(leaves.counts)) if len(leaves.counts) <= bins else _even_cells(leaves.counts, bins)
    first = np.concatenate([[True], np.diff(cell) > 0])
    starts = np.append(leaves.starts[:-1][first], leaves.starts[-1])
    size = int(cell[-1]) + 1
    counts: FloatArray = np.bincount(cell, weights=leaves.counts, minlength=size).astype(np.float64)
    variance: FloatArray = np.bincount(cell, weights=leaves.variance, minlength=size).astype(np.float64)
    if nullable:
        counts = np.append(counts, leaves.missing)
        variance = np.append(variance, leaves.missing_variance)
    return ColumnDomain(
        name=name,
        cells=Intervals(edges=lattice.edges(starts), nullable=nullable),
        counts=counts,
        variance=variance,
        lattice=lattice,
        leaf_starts=leaves.starts,
        leaf_counts=leaves.counts,
        leaf_cells=cell.astype(np.int64),
    )


def _even_cells(counts: FloatArray, bins: int) -> IntArray:
    total = float(counts.sum())
    alone = counts >= 0.8 * total / bins
    target = max(float(counts[~alone].sum()), 1e-9) / max(bins - int(alone.sum()), 1)
    cell = np.zeros(len(counts), dtype=np.int64)
    now, held = 0, 0.0
    for at, count in enumerate(counts):
        if at and (alone[at] or alone[at - 1] or held + 0.5 * count >= target):
            now, held = now + 1, 0.0
        cell[at] = now
        held += float(count)
    return cell


def sharpen(
    domain: Sequence[ColumnDomain],
    pairs: Sequence[tuple[int, int]],
    noisy: Sequence[FloatArray],
    *,
    variance: float,
    patients: int,
) -> list[ColumnDomain]:
    """The domain with each column's counts averaged, by precision, with what the bought pairs say of them.

    Post-processing: all of it was bought.

    Args:
        domain: columns with their own counts.
        pairs: columns of each bought pair.
        noisy: its histogram.
        variance: of the noise in each cell of a pair.
        patients: the bought count, to which counts are made to sum.
    """
    precision = [1.0 / column.variance for column in domain]
    total = [column.counts * weight for column, weight in zip(domain, precision, strict=True)]
    for pair, counts in zip(pairs, noisy, strict=True):
        if pair[0] == pair[1]:
            continue
        for axis, at in enumerate(pair):
            weight = 1.0 / (variance * counts.shape[1 - axis])
            total[at] = total[at] + weight * counts.sum(axis=1 - axis)
            precision[at] = precision[at] + weight
    return [
        replace(column, counts=on_simplex(t / w, total=patients), variance=1.0 / w)
        for column, t, w in zip(domain, total, precision, strict=True)
    ]


def on_simplex(noisy: FloatArray, *, total: float) -> FloatArray:
    """The nearest vector, in least squares, that has no negative entry and sums to ``total``."""
    if total <= 0.0:
        return np.zeros_like(noisy)
    ordered = np.sort(noisy)[::-1]
    excess = (np.cumsum(ordered) - total) / np.arange(1, len(ordered) + 1)
    shift = excess[np.flatnonzero(ordered > excess)[-1]]
    return np.asarray(np.maximum(noisy - shift, 0.0), dtype=np.float64)
