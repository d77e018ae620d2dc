"""The one door to private rows: a type whose methods are the mechanisms, each booked on the account.

Sums are held in whole numbers of 1 / 2**20 of a patient, so that integer noise is exact. One patient moves one
histogram by at most 1 in L2. A patient's rows weigh 1 / (number of its rows), rounded down, which holds it by 1 in L1
even; where the length in L2 is all that counts, the patient's own part of the histogram is scaled to it, so that rows
that fall into many cells say more through the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy.stats import norm

from synthehr.errors import InternalError
from synthehr.privacy.accountant import Account, EpsilonDelta, Gaussian, PoissonSampledGaussian
from synthehr.privacy.history import Repeated, history_of
from synthehr.privacy.partition import JointCells, Partition, cells_of
from synthehr.randomness import FloatArray, IntArray, NoiseSource

if TYPE_CHECKING:
    from torch import Tensor

    from synthehr.privacy.gradients import PatientGradients

__all__ = [
    "GRAIN",
    "GradientMechanism",
    "PrivateCodes",
    "PrivateRows",
    "selection_threshold",
]

GRAIN = 2**20


def selection_threshold(*, noise_multiplier: float, delta: float, max_values: int) -> float:
    """The noisy weight, in patients, that a value must pass to be named.

    A patient holds at most ``max_values`` values that nobody else holds, each with weight at most 1; the chance
    that noise lifts any of them over the threshold is at most ``delta`` (Gopi et al. 2020, Theorem 5.1, with
    every weight at its largest).
    """
    tail = -math.expm1(math.log1p(-delta) / max_values)
    return 1.0 + noise_multiplier * float(norm.isf(tail))


def _weights(owners: IntArray, patients: int) -> IntArray:
    rows = np.bincount(owners, minlength=patients)
    return GRAIN // rows[owners]


# More than all rounding of three float64 operations together, so that what is rounded down is never above the true one.
_MARGIN = 1.0 - 2.0**-50


def _scaled_parts(
    owners: IntArray, cell: IntArray, size: int, code: IntArray | None = None
) -> tuple[IntArray, IntArray]:
    """Cells of each patient and what it adds to them, in grains: its row counts, divided by their length in L2.

    Where each cell belongs to a code, the counts of each of a patient's k codes are divided by their own length times
    the root of k: a code that comes once says as much as one that comes every month.

    Rounded down: the squares of what one patient adds sum to at most ``GRAIN**2``.
    """
    code = np.zeros_like(cell) if code is None else code
    places, first, rows = np.unique(owners * np.int64(size) + cell, return_index=True, return_counts=True)
    owner, mine = places // size, code[first]
    had, unit = np.unique(owner * np.int64(size) + mine, return_inverse=True)
    squares = np.bincount(unit, weights=rows.astype(np.float64) ** 2)[unit]
    codes = np.bincount(had // size)[owner]
    part = np.floor(GRAIN * _MARGIN * (rows / np.sqrt(squares * codes))).astype(np.int64)
    # A patient of one cell alone adds 1, without a root that is rounded.
    return places % size, np.where((squares == rows.astype(np.float64) ** 2) & (codes == 1), GRAIN, part)


def _weights_by_code(owners: IntArray, code: IntArray, size: int) -> IntArray:
    """Of each row, in grains: 1 / (the patient's rows of its code * the root of the number of the patient's codes).

    Rounded down. The rows of one code sum to at most 1 / that root, so that in any histogram whose cells each belong to
    one code a patient's part has a length of at most 1 in L2.
    """
    places, at, rows = np.unique(owners * np.int64(size) + code, return_inverse=True, return_counts=True)
    root = np.sqrt(np.bincount(places // size).astype(np.float64))[owners]
    weight: IntArray = np.floor(GRAIN * _MARGIN / (rows[at] * root)).astype(np.int64)
    return weight


class PrivateRows:
    """The rows of one table, as they were read.

    Args:
        frame: the table; only kept columns.
        owners: for each row the number of its patient, from 0, shape ``(rows,)``.
        patients: how many patients there are, those without rows included.
        max_rows: public bound on the rows of one patient.
        noise: where noise comes from.
        parents: for each row the number of its parent row in the parent's table, shape ``(rows,)``; None for patients.
            Rows come in the order of patients, parents and time where there are parents.

    Raises:
        InternalError: a patient has more rows than the bound.
    """

    def __init__(
        self,
        frame: pl.DataFrame,
        *,
        owners: IntArray,
        patients: int,
        max_rows: int,
        noise: NoiseSource,
        parents: IntArray | None = None,
    ) -> None:
        if parents is not None and len(owners) and (np.any(np.diff(owners) < 0) or np.any(np.diff(parents) < 0)):
            raise InternalError("rows with parents must be sorted by patient and parent before they pass the door")
        if len(owners) and int(np.bincount(owners).max()) > max_rows:
            raise InternalError("rows must be bounded per patient before they pass the door")
        self._frame = frame
        self._owners = owners
        self._patients = patients
        self._noise = noise
        self._weight = _weights(owners, patients)
        self._max_rows = max_rows
        self._parents = parents

    def __repr__(self) -> str:
        """Nothing of the rows."""
        return "PrivateRows()"

    def count_patients(self, account: Account, *, event: EpsilonDelta) -> int:
        """The number of patients with discrete Laplace noise of scale 1 / epsilon, at least 1.

        Privacy: ``event``, an (epsilon, 0) promise; one patient moves the count by 1.
        """
        account.spend(event)
        scale = (1.0 + 1e-9) / event.epsilon  # the margin covers rounding
        return max(1, self._noise.discrete_laplace(self._patients, scale=scale))

    def count_with_rows(self, account: Account, *, event: Gaussian) -> float:
        """The number of patients with at least one row, with noise; may be negative.

        Privacy: ``event``; one patient moves the count by at most 1.
        """
        account.spend(event)
        exact = np.array([len(np.unique(self._owners)) * GRAIN], dtype=np.int64)
        return float(self._noise.discrete_gaussian(exact, scale=event.noise_multiplier * GRAIN)[0] / GRAIN)

    def histogram(self, account: Account, column: str, cells: Partition, *, event: Gaussian) -> FloatArray:
        """Patients per cell of a public partition, with noise; shape ``(cells.size,)``, may be negative.

        Where the cells depend on a code, those of one code count a patient's rows of it by 1 / (their number * the root
        of how many codes the patient has): what a few rows of a rare code say does not drown in those of other codes.

        Privacy: ``event``; one patient moves the histogram by at most 1 in L2.
        """
        account.spend(event)
        weight = self._weight
        if isinstance(cells, JointCells):
            code = cells.codes.codes(self._frame[cells.per])
            weight = _weights_by_code(self._owners, code, cells.codes.size)
        exact = _sum_by_code(cells_of(self._frame, column, cells), weight, cells.size)
        return self._noise.discrete_gaussian(exact, scale=event.noise_multiplier * GRAIN) / GRAIN

    def select_values(
        self, account: Account, column: str, *, event: Gaussian, failure: EpsilonDelta
    ) -> dict[str, float]:
        """The values of a column whose noisy count of patients passes the threshold, with that count.

        Privacy: ``event`` for values that others hold too, and ``failure``, the chance that a value held by one
        patient is named. Order of the result is alphabetical, so that the order of rows does not show.
        """
        if failure.epsilon != 0.0:
            raise InternalError("a selection of values fails with a delta alone")
        account.spend(event)
        account.spend(failure)
        text = self._frame[column].cast(pl.String)
        present = text.drop_nulls().unique().sort()
        if present.is_empty():
            return {}
        code = text.replace_strict(present, np.arange(len(present)), default=len(present), return_dtype=pl.Int64)
        exact = _sum_by_code(code.fill_null(len(present)).to_numpy(), self._weight, len(present) + 1)[:-1]
        noisy = self._noise.discrete_gaussian(exact, scale=event.noise_multiplier * GRAIN) / GRAIN
        threshold = selection_threshold(
            noise_multiplier=event.noise_multiplier, delta=failure.delta, max_values=self._max_rows
        )
        return {value: float(count) for value, count in zip(present, noisy, strict=True) if count > threshold}

    def encode(
        self,
        partitions: Mapping[str, Partition],
        *,
        above: PrivateCodes | None = None,
        context: Sequence[int] = (),
        history: Sequence[Repeated] = (),
    ) -> PrivateCodes:
        """The same rows as cell numbers, still behind the door: own columns, then context, then history.

        Args:
            partitions: the cells of the own columns.
            above: the parent's rows.
            context: which of their columns each row repeats.
            history: what each row repeats of the patient's rows before it.
        """
        own = np.stack([cells_of(self._frame, name, cells) for name, cells in partitions.items()], axis=1)
        columns, sizes = [own], [cells.size for cells in partitions.values()]
        if self._parents is not None:
            if above is not None:
                columns.append(above._codes[self._parents][:, list(context)])
                sizes += [above.sizes[at] for at in context]
            columns += [
                part[:, None]
                for part in history_of(history, own, self._frame, owners=self._owners, parents=self._parents)
            ]
            sizes += [column.cells.size for column in history]
        return PrivateCodes(
            np.concatenate(columns, axis=1),
            sizes=tuple(sizes),
            owners=self._owners,
            patients=self._patients,
            noise=self._noise,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientMechanism:
    """One clipped and noised sum of patients' gradients.

    Attributes:
        event: sampling rate and noise multiplier.
        clip_norm: L2 norm to which each patient's gradient is scaled down.
        expected_batch: what the sum is divided by: rate times the bought count, never the drawn number.
    """

    event: PoissonSampledGaussian
    clip_norm: float
    expected_batch: float


class PrivateCodes:
    """Encoded rows of one table; ``codes`` has shape ``(rows, columns)``, ``sizes`` one entry a column."""

    def __init__(
        self, codes: IntArray, *, sizes: tuple[int, ...], owners: IntArray, patients: int, noise: NoiseSource
    ) -> None:
        order = np.argsort(owners, kind="stable")
        self._codes = codes[order]
        self._owners = owners[order]
        self._patients = patients
        self._noise = noise
        self._weight = _weights(self._owners, patients)
        self._rows = np.bincount(self._owners, minlength=patients)
        self._first = np.concatenate([[0], np.cumsum(self._rows)[:-1]])
        self.sizes = sizes

    def __repr__(self) -> str:
        """Nothing of the rows."""
        return "PrivateCodes()"

    def marginals(
        self,
        account: Account,
        column_sets: Sequence[tuple[int, ...]],
        *,
        shares: Sequence[float],
        event: Gaussian,
        groups: Sequence[IntArray] | None = None,
        scaled: bool = False,
        by: Sequence[int | None] = (),
    ) -> list[FloatArray]:
        """Noisy joint histograms, each of shape ``sizes`` of its columns, all under one Gaussian event.

        Args:
            account: where the event is booked.
            column_sets: the columns of each histogram.
            shares: the part of the event's precision that each gets; they sum to at most 1. A histogram with
                share s has noise of standard deviation ``noise_multiplier / sqrt(s)``, in patients.
            event: what all of them cost together.
            groups: for coarser histograms, the group of each cell, one array a column of shape ``(size,)``.
            scaled: whether a patient's rows count as many times as brings its part of the histogram to length 1 in L2,
                in place of 1 / (their number) each. Then a histogram sums to between the number of patients with rows
                and that times the root of the most rows that one has.
            by: for scaled histograms, a column of each, or None: the rows of each of a patient's k values of it have
                length 1 / the root of k, so that a code of few rows does not drown in one of many. Empty for no column.

        Privacy: ``event``; the stacked histograms, each scaled by sqrt(share), move by at most 1 in L2.
        """
        if len(shares) != len(column_sets) or min(shares) <= 0 or math.fsum(shares) > 1.0 + 1e-9:
            raise InternalError("the shares of the marginals must be positive and sum to at most 1")
        account.spend(event)
        noisy = []
        for columns, share, code in zip(column_sets, shares, by or [None] * len(column_sets), strict=True):
            scale = event.noise_multiplier / math.sqrt(share) * GRAIN
            exact = self._exact(columns, groups, scaled=scaled, code=code)
            noisy.append(self._noise.discrete_gaussian(exact, scale=scale) / GRAIN)
        return noisy

    def misfits(
        self,
        account: Account,
        column_sets: Sequence[tuple[int, ...]],
        expected: Sequence[FloatArray],
        *,
        event: Gaussian,
        groups: Sequence[IntArray] | None = None,
    ) -> FloatArray:
        """How far each joint histogram lies from what is expected of it, in L1 and patients, with noise.

        Args:
            account: where the event is booked.
            column_sets: the columns of each histogram.
            expected: bought or public guesses of the histograms, of their shapes.
            event: what all of them cost together. Each distance has noise of standard deviation
                ``noise_multiplier * sqrt(len(column_sets))``.
            groups: for coarser histograms, the group of each cell, one array a column of shape ``(size,)``.

        Returns:
            Distances, shape ``(len(column_sets),)``; may be negative.

        Privacy: ``event``; a patient's weights sum to at most 1, so each distance moves by at most 1 (triangle
        inequality), and n of them by at most sqrt(n) in L2.
        """
        if len(expected) != len(column_sets):
            raise InternalError("each histogram needs what is expected of it")
        account.spend(event)
        exact = np.array(
            [
                np.abs(self._exact(columns, groups) - np.rint(guess * GRAIN).astype(np.int64)).sum()
                for columns, guess in zip(column_sets, expected, strict=True)
            ],
            dtype=np.int64,
        )
        scale = event.noise_multiplier * math.sqrt(len(column_sets)) * GRAIN
        return self._noise.discrete_gaussian(exact, scale=scale) / GRAIN

    def _exact(
        self,
        columns: tuple[int, ...],
        groups: Sequence[IntArray] | None,
        *,
        scaled: bool = False,
        code: int | None = None,
    ) -> IntArray:
        """The joint histogram in grains, shape ``sizes`` of its columns."""
        if groups is None:
            shape = tuple(self.sizes[c] for c in columns)
            parts = tuple(self._codes[:, c] for c in columns)
        else:
            shape = tuple(int(groups[c].max()) + 1 for c in columns)
            parts = tuple(groups[c][self._codes[:, c]] for c in columns)
        cell = np.ravel_multi_index(parts, shape)
        weight = self._weight
        if scaled:
            mine = None if code is None else parts[columns.index(code)]
            cell, weight = _scaled_parts(self._owners, cell, math.prod(shape), mine)
        return _sum_by_code(cell, weight, math.prod(shape)).reshape(shape)

    def noisy_gradient(
        self,
        account: Account,
        per_patient: Callable[[IntArray, FloatArray], PatientGradients],
        *,
        mechanism: GradientMechanism,
    ) -> Tensor:
        """One private gradient, shape ``(parameters,)``, in expectation the mean over patients.

        Each patient is drawn independently with the event's rate; no patient drawn is a step of noise alone.

        Args:
            account: where the step is booked, before it runs.
            per_patient: from codes ``(patients, rows, columns)`` and a mask ``(patients, rows)`` that is 1 for
                real rows and 0 for padding, the gradient of each patient's loss.
            mechanism: clip, noise and divisor.

        Privacy: one run of ``mechanism.event``; the sum's sensitivity to one patient is ``clip_norm``
        (Abadi et al. 2016, Algorithm 1).
        """
        from synthehr.privacy.gradients import clipped_sum

        account.spend(mechanism.event)
        drawn = np.flatnonzero(self._noise.poisson_draw(self._patients, rate=mechanism.event.sampling_probability))
        total = clipped_sum(per_patient(*self._padded(drawn)), norm=mechanism.clip_norm)
        scale = mechanism.event.noise_multiplier * mechanism.clip_norm
        noise = self._noise.gaussian_on(total.device, total.numel(), scale=scale)
        return ((total + noise) / mechanism.expected_batch).float()

    def _padded(self, patients: IntArray) -> tuple[IntArray, FloatArray]:
        rows = self._rows[patients]
        width = max(int(rows.max(initial=0)), 1)
        mask = np.arange(width)[None, :] < rows[:, None]
        padded = np.zeros((*mask.shape, len(self.sizes)), dtype=np.int64)
        padded[mask] = self._codes[(self._first[patients][:, None] + np.arange(width)[None, :])[mask]]
        return padded, mask.astype(np.float64)


def _sum_by_code(codes: IntArray, weight: IntArray, size: int) -> IntArray:
    """Exact weight per code, in grains; float64 holds whole numbers up to 2**53, beyond 8 billion patients."""
    return np.rint(np.bincount(codes, weights=weight, minlength=size)).astype(np.int64)
