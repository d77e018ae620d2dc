"""Which codes patients have, how they come together and how they follow each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench
from synthehr.evaluation.longitudinal_cells import by_visit_and_name, count_edges, fold, followers, together
from synthehr.evaluation.longitudinal_counts import Block, Statistic, block_of, judged, r_squared, variation
from synthehr.evaluation.longitudinal_rows import CodeStream, Histories, Person, Rows
from synthehr.evaluation.measurement import Measurement, Scope

__all__ = [
    "BANDS",
    "STATES",
    "abundance_block",
    "band_of",
    "bigram_block",
    "bigrams",
    "code_prevalence",
    "codes_together",
    "concept_abundance",
    "prevalence_bands",
    "prevalence_block",
    "transitions",
]

BANDS = {"common": (0.1, 1.01), "medium": (0.01, 0.1), "rare": (0.0, 0.01)}
"""Bands of frequency: share of train's patients who have the code, from the first number to below the second."""
STATES = 40
"""Codes that are looked at by themselves where pairs are counted; the rest are one."""

_PAIRED = 30.0
_UNBOUNDED = (-np.inf, 1.0)
Whole = NDArray[np.int64]
Floats = NDArray[np.float64]


def code_prevalence(bench: Bench, scope: Scope) -> Measurement:
    """How well the shares of patients who have each code give train's (coefficient of determination)."""
    blocks = lambda h, tables: [prevalence_block(h, stream) for stream in h.streams_of(tables)]  # noqa: E731
    statistic = partial(r_squared, of_patients=True)
    why = "There are no codes, or all are equally common."
    return judged(bench, "code_prevalence", scope, blocks, statistic, direction="higher", why=why, limits=_UNBOUNDED)


def prevalence_block(h: Histories, stream: CodeStream) -> Block:
    """Patients who have each code, missing ones left out; the last cell is all patients."""
    cells = stream.size - 1

    def occurrences(person: Person) -> tuple[Whole, Whole]:
        rows = person.tables[stream.table]
        code = rows.codes[stream.column]
        given = code < cells
        once = np.unique(rows.owner[given] * cells + code[given])
        everyone = np.arange(len(person))
        return np.concatenate([once // cells, everyone]), np.concatenate([once % cells, np.full(len(person), cells)])

    return block_of(h, occurrences, cells + 1)


def prevalence_bands(bench: Bench, scope: Scope) -> Measurement:
    """By how much prevalences are off, relative to train's, in one band of frequency or in all, averaged."""
    wanted = list(BANDS) if scope == "all" else [str(scope)]

    def blocks(h: Histories, _: tuple[str, ...]) -> list[Block]:
        whole = [prevalence_block(h, stream) for stream in h.streams]
        found = []
        for band in wanted:
            parts: list[list[Floats]] = [[], [], []]
            for block in whole:
                chosen = band_of(block, band)
                for kept, part in zip(parts, block.parts, strict=True):
                    kept.append(part[:, chosen])
            if whole and sum(part.shape[1] for part in parts[0]):
                sizes = [part[:, -1:] for part in whole[0].parts]
                joined = [np.concatenate([*kept, size], axis=1) for kept, size in zip(parts, sizes, strict=True)]
                found.append(Block(train=joined[0], synthetic=joined[1], holdout=joined[2]))
        return found

    why = "No code of train falls into this band."
    limits = (0.0, np.inf)
    return judged(bench, "code_prevalence_bands", scope, blocks, _relative, why=why, limits=limits)


def band_of(block: Block, band: str) -> NDArray[np.bool_]:
    """Which codes of a prevalence block lie in a band, the last cell (all patients) left out."""
    counts = block.train.sum(axis=0)
    share = counts / counts[-1]
    low, high = BANDS[band]
    inside = (share >= low) & (share < high) & (counts > 0)
    inside[-1] = False
    return np.asarray(inside)


def _relative(starts: Whole) -> Statistic:
    def statistic(real: Floats, other: Floats) -> Floats:
        last = np.append(starts[1:], real.shape[-1]) - 1
        lengths = last - starts + 1
        p, q = (x / np.repeat(np.maximum(x[..., last], 1.0), lengths, axis=-1) for x in (real, other))
        off = np.abs(p - q)
        p[..., last] = 0.0
        total = np.add.reduceat(p, starts, axis=-1)
        apart = np.add.reduceat(off, starts, axis=-1)
        return np.asarray(np.divide(apart, total, out=np.ones_like(apart), where=total > 0).mean(axis=-1))

    return statistic


def bigrams(bench: Bench, scope: Scope, *, metric: str) -> Measurement:
    """How well the shares of pairs of codes, in a visit or from one to the next, give train's."""
    pairs = together if metric == "bigrams_same_visit" else followers

    def blocks(h: Histories, tables: tuple[str, ...]) -> list[Block]:
        streams = [s for s in h.streams_of(tables) if pairs is together or h.train.tables[s.table].time is not None]
        return [bigram_block(h, stream, pairs) for stream in streams]

    why = "Train has no such pair of codes, or all pairs are equally common."
    return judged(
        bench, metric, scope, blocks, r_squared, direction="higher", why=why, fewest=_PAIRED, limits=_UNBOUNDED
    )


def bigram_block(h: Histories, stream: CodeStream, pairs: Callable[[Rows, Whole], tuple[Whole, Whole, Whole]]) -> Block:
    """Pairs of codes by first and second, the 40 most common codes by themselves."""
    states = min(len(stream.values), STATES) + 2

    def occurrences(person: Person) -> tuple[Whole, Whole]:
        rows = person.tables[stream.table]
        owner, first, second = pairs(rows, fold(rows.codes[stream.column], len(stream.values), STATES))
        return owner, first * states + second

    return block_of(h, occurrences, states * states)


def transitions(bench: Bench, scope: Scope) -> Measurement:
    """Total variation distance of what follows a code, weighed by how common it is; begin and end are states."""

    def blocks(h: Histories, tables: tuple[str, ...]) -> list[Block]:
        found = []
        for stream in h.streams_of(tables):
            if h.train.tables[stream.table].time is not None:
                states = min(len(stream.values), STATES) + 3
                whole = block_of(h, partial(_steps, stream=stream, states=states), states * states)
                for at in range(states):
                    kept = [part[:, at * states : (at + 1) * states] for part in whole.parts]
                    found.append(Block(train=kept[0], synthetic=kept[1], holdout=kept[2]))
        return found

    statistic = partial(variation, weighted=True)
    why = "No table with codes has its rows in order of time."
    return judged(bench, "transition_tv", scope, blocks, statistic, why=why)


def _steps(person: Person, *, stream: CodeStream, states: int) -> tuple[Whole, Whole]:
    """From each code to the next of the patient, from the beginning to the first and from the last to the end."""
    rows = person.tables[stream.table]
    code = fold(rows.codes[stream.column], len(stream.values), STATES)
    order = by_visit_and_name(rows, stream)
    owner, code = rows.owner[order], code[order]
    outside = states - 1
    new = np.diff(owner, prepend=-1) != 0
    last = np.append(new[1:], True) if len(owner) else new
    before = np.where(new, outside, np.roll(code, 1))
    cell = np.concatenate([before * states + code, code[last] * states + outside])
    return np.concatenate([owner, owner[last]]), cell


def concept_abundance(bench: Bench, scope: Scope) -> Measurement:
    """Total variation distance of the number of different codes a patient has (Yan et al. 2022)."""
    blocks = lambda h, tables: [abundance_block(h, tables)[0]] if h.streams_of(tables) else []  # noqa: E731
    return judged(bench, "concept_abundance", scope, blocks, variation, why="No table has codes.")


def abundance_block(h: Histories, tables: tuple[str, ...]) -> tuple[Block, Whole]:
    """Patients by number of different codes, and the least number of each cell but the first."""
    streams = h.streams_of(tables)

    def distinct(person: Person) -> Whole:
        many = np.zeros(len(person), dtype=np.int64)
        for stream in streams:
            rows = person.tables[stream.table]
            code = rows.codes[stream.column]
            once = np.unique((rows.owner * stream.size + code)[code < stream.size - 1])
            many += np.bincount(once // stream.size, minlength=len(person))
        return many

    edges = count_edges(distinct(h.train))
    cells = lambda person: (np.arange(len(person)), np.searchsorted(edges, distinct(person), side="right"))  # noqa: E731
    return block_of(h, cells, len(edges) + 1), edges


def codes_together(bench: Bench, scope: Scope) -> Measurement:
    """Total variation distance of whether a patient has one code and another, of all tables; averaged over pairs."""

    def blocks(h: Histories, tables: tuple[str, ...]) -> list[Block]:
        chosen = _commonest(h, tables)
        if len(chosen) < 2:
            return []
        parts = [_pairs_of_patients(person, chosen) for person in h.parts]
        return [Block(train=parts[0], synthetic=parts[1], holdout=parts[2])]

    return judged(bench, "codes_together", scope, blocks, _joint_presence, why="Train has fewer than two codes.")


def _commonest(h: Histories, tables: tuple[str, ...]) -> list[tuple[CodeStream, int]]:
    counted = [
        (-float(count), stream.table, stream.column, code, stream)
        for stream in h.streams_of(tables)
        for code, count in enumerate(prevalence_block(h, stream).train.sum(axis=0)[: len(stream.values)])
        if count > 0
    ]
    return [(one[4], one[3]) for one in sorted(counted, key=lambda one: one[:4])[:STATES]]


def _pairs_of_patients(person: Person, chosen: list[tuple[CodeStream, int]]) -> Floats:
    """Patients who have both of two codes, for all pairs, then all patients; by group."""
    has = np.zeros((len(person), len(chosen) + 1), dtype=np.float32)
    has[:, -1] = 1.0
    for at, (stream, code) in enumerate(chosen):
        rows = person.tables[stream.table]
        has[rows.owner[rows.codes[stream.column] == code], at] = 1.0
    by_group = [has[person.group == group] for group in range(int(person.group.max()) + 1)]
    return np.stack([(one.T @ one).ravel() for one in by_group]).astype(np.float64)


def _joint_presence(starts: Whole) -> Statistic:  # noqa: ARG001 - one histogram
    def statistic(real: Floats, other: Floats) -> Floats:
        apart = []
        for counts in (real, other):
            wide = round(counts.shape[-1] ** 0.5)
            share = counts.reshape(*counts.shape[:-1], wide, wide)
            share = share / np.maximum(share[..., -1:, -1:], 1.0)
            both, one = share[..., :-1, :-1], share[..., -1, :-1]
            only, others = one[..., :, None] - both, one[..., None, :] - both
            apart.append((both, only, others, 1.0 - both - only - others))
        distance = sum(np.abs(p - q) for p, q in zip(*apart, strict=True)) / 2
        first, second = np.triu_indices(distance.shape[-1], k=1)
        return np.asarray(distance[..., first, second].mean(axis=-1))

    return statistic
