"""The coarse shares of a public report: what a release bought under its promise, beside its synthetic patients.

Neither side is computed on real records: the bought shares stand in the release, noise and all, and the synthetic
patients are what is to be published. One patient more or less moves them as far as the promise lets it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.encoding.records import ColumnRecord, LatticeRecord, column_of
from synthehr.encoding.unroll import door_columns
from synthehr.manifest import Manifest
from synthehr.privacy.partition import cells_of
from synthehr.reporting.document import BoughtProfile
from synthehr.schema.model import Schema

__all__ = ["bought_profiles"]

SMALLEST = 0.05
"""Cells are pooled until each has this share of the patients, as bought and as sampled."""

_MOST_CELLS = 5


def bought_profiles(manifest: Manifest, synthetic: Cohort[Schema]) -> tuple[BoughtProfile, ...]:
    """The patients' columns, bought beside synthetic, in few large cells.

    Left out are columns whose cells depend on a code, columns of which not two cells are left, and everything where the
    release promises nothing.

    Args:
        manifest: of the release.
        synthetic: the cohort that is to be published.
    """
    kept = synthetic.schema.root.kept
    known = [record for record in manifest.domain if record.name in kept and record.per is None]
    if not manifest.privacy.private or not len(synthetic):
        return ()
    frame = pl.DataFrame(door_columns(synthetic.root, {record.name: kept[record.name] for record in known}))
    return tuple(made for record in known if (made := _profile(record, frame)) is not None)


def _profile(record: ColumnRecord, frame: pl.DataFrame) -> BoughtProfile | None:
    column = column_of(record)
    counts = np.maximum(np.asarray(record.counts), 0.0)
    codes = cells_of(frame, record.name, column.cells)
    if counts.sum() <= 0:
        return None
    bought = counts / counts.sum()
    sampled = np.bincount(codes, minlength=len(bought)) / len(codes)
    least = np.minimum(bought, sampled)
    pools = _ranges(record, bought, least) if record.values is None else _common(record, least)
    if record.nullable:
        pools.append(("missing", [len(bought) - 1]))
    taken = {at for _, pool in pools for at in pool}
    rest = [at for at in range(len(bought)) if at not in taken]
    pools += [("all others", rest)] if rest else []
    pools = [(label, pool) for label, pool in pools if min(bought[pool].sum(), sampled[pool].sum()) >= SMALLEST]
    if len(pools) < 2:
        return None
    return BoughtProfile(
        column=record.name,
        labels=tuple(label for label, _ in pools),
        bought=tuple(round(float(bought[pool].sum()), 2) for _, pool in pools),
        synthetic=tuple(round(float(sampled[pool].sum()), 2) for _, pool in pools),
    )


def _common(record: ColumnRecord, least: np.ndarray) -> list[tuple[str, list[int]]]:
    """The values that are common on both sides, each by itself, in the order of the release."""
    values = record.values or ()
    common = sorted((at for at in range(len(values)) if least[at] >= SMALLEST), key=lambda at: -least[at])
    return [(values[at], [at]) for at in sorted(common[:_MOST_CELLS])]


def _ranges(record: ColumnRecord, bought: np.ndarray, least: np.ndarray) -> list[tuple[str, list[int]]]:
    """Neighbouring cells pooled into about five ranges."""
    pools: list[list[int]] = [[]]
    for at in range(len(record.edges or ()) - 1):
        last = pools[-1]
        if last and least[last].sum() >= SMALLEST and bought[last].sum() >= 1.0 / _MOST_CELLS - 1e-9:
            pools.append([])
        pools[-1].append(at)
    if len(pools) > 1 and least[pools[-1]].sum() < SMALLEST:
        last = pools.pop()
        pools[-1].extend(last)
    return [(_label(record, pools, place), pool) for place, pool in enumerate(pools)]


def _label(record: ColumnRecord, pools: Sequence[Sequence[int]], place: int) -> str:
    """The range of a pool, whose edges the release declared or bought; calendar times by their order alone."""
    lattice, edges = record.lattice, record.edges
    if lattice is None or edges is None or lattice.kind not in ("integer", "number"):
        return f"part {place + 1} of {len(pools)}, from the lowest"
    first, last = _point(lattice, edges[pools[place][0]], up=True), _point(lattice, edges[pools[place][-1] + 1])
    if place == 0:
        return f"{last} or less"
    return f"{first} or more" if place == len(pools) - 1 else f"{first} to {last}"


def _point(lattice: LatticeRecord, edge: float, *, up: bool = False) -> str:
    """The value of the column next to an edge, above or below it."""
    steps = (edge - lattice.origin) / lattice.step
    at = math.ceil(steps - 1e-9) if up else math.floor(steps + 1e-9)
    return f"{round(lattice.origin + at * lattice.step, 9):.10g}"
