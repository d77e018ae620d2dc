"""The domain: for every column its cells and how many patients fall in each, declared or bought with budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import norm

from synthehr.encoding.lattice import FINEST, Lattice, lattice_of
from synthehr.encoding.refining import Leaves, even_cells, on_simplex, refined
from synthehr.privacy.accountant import Account, EpsilonDelta, Event, Gaussian
from synthehr.privacy.partition import Cells, Intervals, JointCells, PerCode, Values
from synthehr.privacy.rows import PrivateRows
from synthehr.randomness import FloatArray, IntArray
from synthehr.schema.model import BooleanColumn, CategoryColumn, IntegerColumn, NumberColumn, Table

__all__ = ["OTHER", "ColumnDomain", "ColumnPlan", "Joint", "buy_domain", "plan_domain", "sharpen"]

OTHER = "OTHER"
# Measured against 16, 256 and bins at private quantiles: evaluation/bench/bins.py.
_FANOUT = 4
_RANGE = 0.25
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
        parts: for a column that depends on a code, in place of lattice and leaves, its domain for each cell of the
            code; their counts sum to the patients of that code.
    """

    name: str
    cells: Cells
    counts: FloatArray
    variance: FloatArray
    lattice: Lattice | None = None
    leaf_starts: IntArray | None = None
    leaf_counts: FloatArray | None = None
    leaf_cells: IntArray | None = None
    parts: tuple[ColumnDomain, ...] = ()


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


def plan_domain(
    table: Table, *, precision: float, selection_delta: float, prefix: str = "", by_levels: bool = False
) -> dict[str, ColumnPlan]:
    """What buying the domain of every kept column will cost; fixed before any row is touched.

    Args:
        table: the declared columns.
        precision: sum of 1 / noise_multiplier**2 over all Gaussian events.
        selection_delta: sum of the chances that a selection of values names a value of one patient.
        prefix: of the events' stages.
        by_levels: whether columns share ``precision`` by the levels in which they are measured, those of a category
            for four, else equally.
    """
    kept = table.kept
    discovered = [n for n, c in kept.items() if isinstance(c, CategoryColumn) and c.values is None]
    parts = {name: _levels(column) * _parts_of_level(column) for name, column in kept.items()}
    plans = {}
    for name, column in kept.items():
        unbounded = isinstance(column, IntegerColumn | NumberColumn) and column.bounds is None
        levels = _levels(column)
        mine = precision * (parts[name] / sum(parts.values()) if by_levels else 1.0 / len(kept))
        part = _RANGE if unbounded else 0.0
        event = Gaussian(stage=f"{prefix}domain:{name}", noise_multiplier=math.sqrt(levels / ((1.0 - part) * mine)))
        failure = None
        if name in discovered:
            failure = EpsilonDelta(stage=f"{prefix}domain:{name}", epsilon=0.0, delta=selection_delta / len(discovered))
        plans[name] = ColumnPlan(
            range_event=Gaussian(stage=f"{prefix}range:{name}", noise_multiplier=1.0 / math.sqrt(part * mine))
            if unbounded
            else None,
            cell_events=(event,) * levels,
            selection_failure=failure,
        )
    return plans


# What part of the levels' precision a category counts as: a code that few rows have hangs on one histogram.
_CATEGORY = 4


def _parts_of_level(column: Any) -> int:
    return _CATEGORY if isinstance(column, CategoryColumn) else 1


def _levels(column: Any) -> int:
    if isinstance(column, CategoryColumn | BooleanColumn):
        # Which values there are to name does not tell how much of the rest is other values, and how much missing.
        return 2 if isinstance(column, CategoryColumn) and column.values is None and column.nullable else 1
    bounds = getattr(column, "bounds", None)
    if bounds is None:
        points = FINEST
    elif isinstance(bounds, Mapping):
        points = max(lattice_of(column, bounds=pair).points for pair in bounds.values())
    else:
        points = lattice_of(column).points
    return max(1, math.ceil(math.log(points) / math.log(_FANOUT) - 1e-9))


def buy_domain(
    rows: PrivateRows,
    account: Account,
    table: Table,
    *,
    plans: Mapping[str, ColumnPlan],
    patients: float,
    bins: int,
) -> list[ColumnDomain]:
    """Buy the cells of every kept column and the number of patients in each.

    A column that depends on a code comes after the code, whose cells it needs.

    Args:
        rows: behind the door.
        account: on which ``plans`` are booked.
        table: the declared columns.
        plans: from :func:`plan_domain`.
        patients: the bought count.
        bins: how many cells a numeric column gets, about.
    """
    buyer = _Buyer(rows=rows, account=account, patients=patients, bins=bins)
    bought: dict[str, ColumnDomain] = {}
    for name, column in sorted(table.kept.items(), key=lambda item: _code_of(item[1]) is not None):
        code = _code_of(column)
        bought[name] = buyer.column(name, column, plans[name], code=None if code is None else bought[code])
    return [bought[name] for name in table.kept]


def _code_of(column: Any) -> str | None:
    return column.per if isinstance(column, IntegerColumn | NumberColumn) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Buyer:
    """Buys columns one after the other on one account."""

    rows: PrivateRows
    account: Account
    patients: float
    bins: int

    def column(self, name: str, declared: Any, plan: ColumnPlan, *, code: ColumnDomain | None) -> ColumnDomain:
        """The domain of one column, in the way its kind asks for; ``code`` is that of the column it depends on."""
        if isinstance(declared, BooleanColumn):
            cells = Values(values=("false", "true"), other=False, nullable=declared.nullable)
            return self._values(name, cells, plan)
        if isinstance(declared, CategoryColumn) and declared.values is not None:
            return self._values(name, Values(values=declared.values, other=False, nullable=declared.nullable), plan)
        if isinstance(declared, CategoryColumn):
            return self._selected(name, declared, plan)
        if code is not None:
            return self._per_code(name, declared, plan, code)
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
        event, *again = plan.cell_events
        assert plan.selection_failure is not None, "planned for every column whose values are bought"
        found = self.rows.select_values(self.account, name, event=event, failure=plan.selection_failure)
        values = tuple(value for value in found if value != OTHER)
        cells = Values(values=values, other=True, nullable=declared.nullable)
        named = np.array([found[value] for value in values])
        rest = max(0.0, self.patients - float(named.sum()))
        # What is left may be other values or missing: the second histogram tells them apart, until then half each.
        tails = 1 + int(declared.nullable)
        counts = np.concatenate([named, np.full(tails, rest / tails)])
        known = np.full(len(values), event.noise_multiplier**2)
        variance = np.concatenate([known, np.full(tails, self.patients**2 / 4.0)])
        for second in again:
            noisy, its = self.rows.histogram(self.account, name, cells, event=second), second.noise_multiplier**2
            counts = (its * counts + variance * noisy) / (its + variance)
            variance = its * variance / (its + variance)
        return ColumnDomain(name=name, cells=cells, counts=on_simplex(counts, total=self.patients), variance=variance)

    def _intervals(self, name: str, declared: Any, plan: ColumnPlan) -> ColumnDomain:
        bounds = None
        if plan.range_event is not None:
            magnitudes = Intervals(edges=_MAGNITUDES, nullable=True)
            noisy = self.rows.histogram(self.account, name, magnitudes, event=plan.range_event)
            whole = isinstance(declared, IntegerColumn)
            bounds = _range(noisy[:-1], least=_SURE * plan.range_event.noise_multiplier, whole=whole) or _NO_RANGE
        lattice = lattice_of(declared, bounds=bounds)
        (leaves,) = refined(
            lambda parts, event: [self.rows.histogram(self.account, name, parts[0], event=event)],
            [lattice],
            events=plan.cell_events,
            nullable=declared.nullable,
            masses=[self.patients],
            bins=self.bins,
        )
        return _group(name, lattice, leaves.summing_to(self.patients), bins=self.bins)

    def _per_code(self, name: str, declared: Any, plan: ColumnPlan, code: ColumnDomain) -> ColumnDomain:
        """One histogram a level over all codes: a row falls into one cell of one code, so it costs what one does.

        Each code's cells are split, and joined, by the patients that hold the code: few of them, few cells.
        """
        assert isinstance(code.cells, Values), "a column depends on one that has values"
        codes = code.cells

        def measure(parts: Sequence[Intervals], event: Gaussian) -> list[FloatArray]:
            joint = JointCells(per=code.name, codes=codes, parts=tuple(parts))
            return joint.split(self.rows.histogram(self.account, name, joint, event=event))

        bounds = self._bounds_per_code(declared, plan, codes, measure)
        lattices = [lattice_of(declared, bounds=pair) for pair in bounds]
        noise = plan.cell_events[0].noise_multiplier
        leaves = refined(
            measure,
            lattices,
            events=plan.cell_events,
            nullable=declared.nullable,
            masses=None,
            bins=self.bins,
        )
        # A code's rows count otherwise here than they do in the code's own histogram, which its cells are made to meet.
        parts = []
        for lattice, leaf, mass in zip(lattices, leaves, _masses(code, leaves, total=self.patients), strict=True):
            here = max(leaf.total, noise)
            bins = max(1, min(self.bins, int(here / (4.0 * noise))))
            part = _group(name, lattice, leaf.summing_to(here), bins=bins)
            parts.append(_times(part, float(mass) / here))
        return _aligned(name, code.name, codes, tuple(parts))

    def _bounds_per_code(
        self,
        declared: Any,
        plan: ColumnPlan,
        codes: Values,
        measure: Callable[[Sequence[Intervals], Gaussian], list[FloatArray]],
    ) -> list[tuple[float, float]]:
        """The bounds of each cell of the code: its own where declared or bought, else those around all."""
        if plan.range_event is None:
            labels: list[str | None] = [*codes.values, *[None] * (codes.size - len(codes.values))]
            return [declared.bounds_of(label) for label in labels]
        noise = plan.range_event.noise_multiplier
        # The chance that noise alone passes for patients stays what it is for one column, however many codes.
        least = float(norm.isf(norm.sf(_SURE) / codes.size)) * noise
        whole = isinstance(declared, IntegerColumn)
        magnitudes = [Intervals(edges=_MAGNITUDES, nullable=True)] * codes.size
        noisy = [counts[:-1] for counts in measure(magnitudes, plan.range_event)]
        found = [_range(counts, least=least, whole=whole) for counts in noisy]
        known = [bounds for bounds in found if bounds is not None]
        around = (min(b[0] for b in known), max(b[1] for b in known)) if known else _NO_RANGE
        return [around if bounds is None else bounds for bounds in found]


_SURE = 4.0
_NO_RANGE = (0.0, 1.0)


def _range(noisy: FloatArray, *, least: float, whole: bool) -> tuple[float, float] | None:
    """The outermost magnitudes that surely hold patients, down to zero where it is near; None where none does.

    Each step towards zero holds fewer values: those of few patients, lost in the noise, would all be cut off there.
    """
    held = np.flatnonzero(noisy > least)
    if len(held) == 0:
        return None
    lower, upper = float(_MAGNITUDES[held[0]]), float(_MAGNITUDES[held[-1] + 1])
    lower = 0.0 if lower == -_SMALLEST or 0.0 < lower <= upper / 4.0 else lower
    upper = 0.0 if upper == _SMALLEST or lower / 4.0 <= upper < 0.0 else upper
    if not lower < upper:
        return _NO_RANGE
    return (math.floor(lower), math.ceil(upper)) if whole else (lower, upper)


def _group(name: str, lattice: Lattice, leaves: Leaves, *, bins: int) -> ColumnDomain:
    """Join finer cells into about ``bins``."""
    cell = even_cells(leaves, bins)
    first = np.concatenate([[True], np.diff(cell) > 0])
    starts = np.append(leaves.starts[:-1][first], leaves.starts[-1])
    size = int(cell[-1]) + 1
    counts: FloatArray = np.bincount(cell, weights=leaves.counts, minlength=size).astype(np.float64)
    variance: FloatArray = np.bincount(cell, weights=leaves.variance, minlength=size).astype(np.float64)
    if leaves.missing is not None:
        counts = np.append(counts, leaves.missing)
        variance = np.append(variance, leaves.missing_variance)
    return ColumnDomain(
        name=name,
        cells=Intervals(edges=lattice.edges(starts), nullable=leaves.missing is not None),
        counts=counts,
        variance=variance,
        lattice=lattice,
        leaf_starts=leaves.starts,
        leaf_counts=leaves.counts,
        leaf_cells=cell.astype(np.int64),
    )


# How much the parts of codes may differ, by how rows count: among those of one value column, and in the code's own.
_OTHERWISE = 0.25


def _masses(code: ColumnDomain, leaves: Sequence[Leaves], *, total: float) -> FloatArray:
    """The patients of each cell of a code: what was bought of the code, and of what was not, what its intervals say."""
    sums = np.array([max(leaf.total, 0.0) for leaf in leaves])
    variance = np.array([float(leaf.top_variance.sum()) + leaf.missing_variance for leaf in leaves])
    unit = total / max(float(sums.sum()), 1e-9)
    pull = code.variance / (code.variance + unit**2 * (variance + (_OTHERWISE * sums) ** 2))
    return on_simplex(code.counts + pull * (unit * sums - code.counts), total=total)


def _times(part: ColumnDomain, factor: float) -> ColumnDomain:
    """The same numeric column with another unit of counts."""
    return replace(
        part,
        counts=part.counts * factor,
        variance=part.variance * factor**2,
        leaf_counts=None if part.leaf_counts is None else part.leaf_counts * factor,
    )


def intervals_of(parts: Sequence[ColumnDomain]) -> tuple[Intervals, ...]:
    """The cells of numeric columns."""
    return tuple(part.cells for part in parts if isinstance(part.cells, Intervals))


def _aligned(name: str, per: str, codes: Values, parts: tuple[ColumnDomain, ...]) -> ColumnDomain:
    """One column of the parts of all codes: its cells are places in the order of a code's own values."""
    intervals = intervals_of(parts)
    own = [len(part.edges) - 1 for part in intervals]
    cells = PerCode(
        per=per,
        codes=codes,
        parts=intervals,
        firsts=tuple(_places(part.counts[:size], max(own)) for part, size in zip(parts, own, strict=True)),
        places=max(own),
    )
    counts, variance = np.zeros(cells.size), np.zeros(cells.size)
    for at, part in enumerate(parts):
        counts[cells.middles(at)] += part.counts
        variance[cells.middles(at)] += part.variance
    return ColumnDomain(name=name, cells=cells, counts=counts, variance=variance, parts=parts)


def _places(counts: FloatArray, places: int) -> IntArray:
    """The first of the neighbouring places that each cell takes: as many as its share asks for, one at least."""
    upto = np.concatenate([[0.0], np.cumsum(counts)[:-1]])
    total = float(counts.sum())
    wanted = np.arange(len(counts)) if total <= 0.0 else np.rint(places * upto / total)
    at = np.arange(len(counts))
    ahead = np.maximum.accumulate(wanted - at) + at  # each at least one after the one before it
    return np.minimum(ahead, places - len(counts) + at).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """A bought joint histogram.

    Attributes:
        columns: the columns it is of.
        counts: noisy patients per cell, may be negative, of the shape of the columns' cells.
        variance: of the noise in each cell.
    """

    columns: tuple[int, ...]
    counts: FloatArray
    variance: float


def sharpen(domain: Sequence[ColumnDomain], joints: Sequence[Joint], *, patients: float) -> list[ColumnDomain]:
    """The domain with each column's counts averaged, by precision, with what bought histograms say of them.

    Post-processing: all of it was bought.

    Args:
        domain: columns with their own counts.
        joints: bought histograms; those of one or two columns, in the columns' own cells, are used.
        patients: the bought count, to which counts are made to sum.
    """
    precision = [1.0 / column.variance for column in domain]
    total = [column.counts * weight for column, weight in zip(domain, precision, strict=True)]
    for joint in joints:
        if len(joint.columns) > 2 or len(set(joint.columns)) < len(joint.columns):
            continue
        for axis, at in enumerate(joint.columns):
            counts = joint.counts.sum(axis=tuple(other for other in range(joint.counts.ndim) if other != axis))
            weight = len(counts) / (joint.variance * joint.counts.size)
            total[at] = total[at] + weight * counts
            precision[at] = precision[at] + weight
    return [
        replace(column, counts=on_simplex(t / w, total=patients), variance=1.0 / w)
        for column, t, w in zip(domain, total, precision, strict=True)
    ]
