"""The data behind the plots of rows in time; nothing that no check asked for is computed here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench
from synthehr.evaluation.findings_longitudinal import (
    BandProfile,
    BigramProfile,
    CodeProfile,
    HistogramProfile,
    LongitudinalProfile,
    RegularityProfile,
    TrajectoryProfile,
    ValueProfile,
)
from synthehr.evaluation.longitudinal_cells import followers, histogram_labels, step_edges, together
from synthehr.evaluation.longitudinal_codes import (
    BANDS,
    STATES,
    abundance_block,
    band_of,
    bigram_block,
    prevalence_block,
)
from synthehr.evaluation.longitudinal_counts import Block, Counts, Statistic, steps_apart, totals_of, variation
from synthehr.evaluation.longitudinal_orders import regularities
from synthehr.evaluation.longitudinal_rows import CodeStream, Histories, Person, child_tables, read_histories
from synthehr.evaluation.longitudinal_values import ValueCells, gap_blocks, row_block, value_blocks

__all__ = ["profile"]

_MOST_SHOWN = 200
_GAPS = 12
_STRETCHES = 8
_TRAJECTORIES = 6
_FEWEST = 20
Floats = NDArray[np.float64]
What = Literal["rows", "gaps", "codes"]


def profile(bench: Bench) -> LongitudinalProfile | None:
    """What the plots show; None where no check looked at rows in time."""
    h = bench.found(read_histories)
    if h is None:
        return None
    tables = child_tables(h.schema)
    prevalences = [(stream, prevalence_block(h, stream)) for stream in h.streams]
    measured = value_blocks(h, tables)
    found = bench.found(regularities) or ()
    return LongitudinalProfile(
        histograms=_histograms(h, tables),
        codes=tuple(one for stream, block in prevalences for one in _codes(stream, block))[:_MOST_SHOWN],
        bands=_bands([block for _, block in prevalences]),
        bigrams=_bigrams(h),
        values=tuple(_value(h, cells, block) for cells, block in measured),
        trajectories=tuple(
            _trajectory(h, cells)
            for cells, _ in [one for one in measured if h.train.tables[one[0][0]].time is not None][:_TRAJECTORIES]
        ),
        regularities=tuple(
            RegularityProfile(
                text=one.text,
                train=_rounded(one.broken[0].mean()),
                synthetic=_rounded(one.broken[1].mean()),
                holdout=_rounded(one.broken[2].mean()),
            )
            for one in found[:_MOST_SHOWN]
        ),
    )


def _rounded(number: float) -> float:
    return round(float(number), 4)


def _shares(shares: Floats) -> tuple[float, ...]:
    return tuple(_rounded(share) for share in shares)


def _apart(block: Block, statistic: Callable[[NDArray[np.int64]], Statistic]) -> tuple[float, float]:
    counts = Counts.of([block])
    if counts is None:
        return 0.0, 0.0
    of = statistic(counts.starts)
    train, synthetic, holdout = (part.sum(axis=0) for part in (counts.train, counts.synthetic, counts.holdout))
    return _rounded(float(of(train, synthetic))), _rounded(float(of(train, holdout)))


def _histograms(h: Histories, tables: tuple[str, ...]) -> tuple[HistogramProfile, ...]:
    shown: list[tuple[str, What, tuple[str, ...], Block, Callable[[NDArray[np.int64]], Statistic]]] = []
    for table in tables:
        block, edges = row_block(h, table)
        shown.append((table, "rows", histogram_labels(edges.tolist()), block, variation))
    for table, block, ends in gap_blocks(h, tables, steps=_GAPS):
        shown.append((table, "gaps", ("less", *_steps(ends[1:])), block, steps_apart))
    if h.streams:
        block, edges = abundance_block(h, tables)
        shown.append(("", "codes", histogram_labels(edges.tolist()), block, variation))
    found = []
    for table, what, labels, block, statistic in shown:
        train, synthetic, holdout = totals_of(block)
        distance, reference = _apart(block, statistic)
        found.append(
            HistogramProfile(
                table=table,
                what=what,
                labels=labels,
                train=_shares(train),
                holdout=_shares(holdout),
                synthetic=_shares(synthetic),
                distance=distance,
                reference=reference,
            )
        )
    return tuple(found)


def _steps(ends: Floats) -> tuple[str, ...]:
    """Labels of steps by their upper ends, to two digits, since an end is some patient's gap."""
    return (*(f"up to {float(f'{end:.2g}'):g}" for end in ends), "more")


def _codes(stream: CodeStream, block: Block) -> list[CodeProfile]:
    sizes = [part[:, -1].sum() for part in block.parts]
    train, synthetic, holdout = (part.sum(axis=0) / size for part, size in zip(block.parts, sizes, strict=True))
    order = np.argsort(-train[: len(stream.values)], kind="stable")
    return [
        CodeProfile(
            table=stream.table,
            column=stream.column,
            label=stream.labels[at],
            train=_rounded(train[at]),
            holdout=_rounded(holdout[at]),
            synthetic=_rounded(synthetic[at]),
        )
        for at in order
    ]


def _bands(blocks: Sequence[Block]) -> tuple[BandProfile, ...]:
    found = []
    for band in BANDS:
        off, beside, total, codes = 0.0, 0.0, 0.0, 0
        for block in blocks:
            chosen = band_of(block, band)
            train, synthetic, holdout = (part.sum(axis=0) / part[:, -1].sum() for part in block.parts)
            off += float(np.abs(train - synthetic)[chosen].sum())
            beside += float(np.abs(train - holdout)[chosen].sum())
            total += float(train[chosen].sum())
            codes += int(chosen.sum())
        if codes:
            found.append(
                BandProfile(band=band, codes=codes, error=_rounded(off / total), reference=_rounded(beside / total))
            )
    return tuple(found)


def _bigrams(h: Histories) -> tuple[BigramProfile, ...]:
    found = []
    for stream in h.streams:
        labels = (*stream.labels[:STATES], "others", "missing")
        for when, pairs in (("same visit", together), ("next visit", followers)):
            if when == "next visit" and h.train.tables[stream.table].time is None:
                continue
            train, synthetic, holdout = totals_of(bigram_block(h, stream, pairs))
            order = np.argsort(-np.maximum(train, synthetic), kind="stable")[: _MOST_SHOWN // 4]
            found += [
                BigramProfile(
                    table=stream.table,
                    column=stream.column,
                    when=when,
                    first=labels[at // len(labels)],
                    second=labels[at % len(labels)],
                    train=_rounded(train[at]),
                    holdout=_rounded(holdout[at]),
                    synthetic=_rounded(synthetic[at]),
                )
                for at in order
                if max(train[at], synthetic[at]) > 0
            ]
    return tuple(found[:_MOST_SHOWN])


def _label(h: Histories, cells: ValueCells) -> str:
    table, _, per, code, _ = cells
    return next((s.labels[code] for s in h.streams_of((table,)) if s.column == per), "")


def _value(h: Histories, cells: ValueCells, block: Block) -> ValueProfile:
    distance, reference = _apart(block, steps_apart)
    return ValueProfile(table=cells[0], column=cells[1], code=_label(h, cells), distance=distance, reference=reference)


def _trajectory(h: Histories, cells: ValueCells) -> TrajectoryProfile:
    table, column, per, code, _ = cells
    time = h.train.tables[table].time
    assert time is not None, "asked of tables in order of time alone"
    edges = step_edges(time, steps=_STRETCHES)
    means = [_means(person, cells, edges) for person in (h.train, h.holdout, h.synthetic)]
    return TrajectoryProfile(
        table=table,
        column=column,
        code=_label(h, (table, column, per, code, edges)),
        labels=_steps(edges),
        train=means[0],
        holdout=means[1],
        synthetic=means[2],
    )


def _means(person: Person, cells: ValueCells, edges: Floats) -> tuple[float | None, ...]:
    """Mean over patients of a patient's mean value in each stretch of time; None where fewer than 20 have one."""
    table, column, per, code, _ = cells
    rows = person.tables[table]
    number = rows.values[column].number
    assert number is not None and rows.time is not None
    here = np.isfinite(number) & np.isfinite(rows.time)
    if per is not None:
        here &= rows.codes[per] == code
    stretch = np.searchsorted(edges, rows.time[here], side="left")
    many = len(edges) + 1
    flat = rows.owner[here] * many + stretch
    size = len(person) * many
    counted = np.bincount(flat, minlength=size).reshape(len(person), many)
    summed = np.bincount(flat, weights=number[here], minlength=size).reshape(len(person), many)
    found: list[float | None] = []
    for at in range(many):
        has = counted[:, at] > 0
        mean = (summed[has, at] / counted[has, at]).mean() if has.sum() >= _FEWEST else None
        found.append(None if mean is None else float(f"{mean:.3g}"))
    return tuple(found)
