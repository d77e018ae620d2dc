"""How the rows of one patient count in a bought histogram, and what that makes of it where they count otherwise.

Post-processing: the rows here are made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from synthehr.models.loglinear import Measured
from synthehr.models.rollout import Rolled
from synthehr.randomness import FloatArray, IntArray

__all__ = ["as_rows_count", "counted_rows", "first_rows", "row_weights"]

# Rows of made-up patients that are looked at, about; and rows that each cell has besides, as they are on average.
_LOOKED_AT, _BESIDES = 40_000, 30.0


def row_weights(of_patient: IntArray) -> FloatArray:
    """Each row's part of its patient, as a share of all patients with rows; they sum to 1."""
    rows = np.bincount(of_patient).astype(np.float64)
    return np.asarray(1.0 / (rows[of_patient] * max(int(np.count_nonzero(rows)), 1)), dtype=np.float64)


def first_rows(of_patient: IntArray, rows: int) -> int:
    """How many of the first rows are of whole patients, about ``rows`` at most; all where that is one patient's."""
    return int(np.searchsorted(of_patient, of_patient[min(rows, len(of_patient)) - 1])) or len(of_patient)


def counted_rows(of_patient: IntArray, codes: Sequence[IntArray], *, code: IntArray | None = None) -> FloatArray:
    """How often each row counts where a patient's part of a histogram has length 1 in L2.

    Args:
        of_patient: ascending, shape ``(rows,)``.
        codes: the cells of the histogram's columns, each of shape ``(rows,)``.
        code: of each row; where it is told, the rows of each of a patient's k codes have length 1 / the root of k.
    """
    sizes = tuple(int(cells.max(initial=0)) + 1 for cells in codes)
    size = np.prod(sizes, dtype=np.int64)
    cell = of_patient * size + np.ravel_multi_index(tuple(codes), sizes)
    places, first, at, rows = np.unique(cell, return_index=True, return_inverse=True, return_counts=True)
    owner = places // size
    unit, codes_had = (owner, np.ones(len(owner))) if code is None else _units(owner, code[first])
    squares = np.bincount(unit, weights=rows.astype(np.float64) ** 2)[unit]
    return np.asarray((1.0 / np.sqrt(squares * codes_had))[at], dtype=np.float64)


def _units(owner: IntArray, code: IntArray) -> tuple[IntArray, IntArray]:
    """The number of each owner's code, and how many codes the owner has; all of one length."""
    size = int(code.max(initial=0)) + 1
    had, unit = np.unique(owner * size + code, return_inverse=True)
    return unit, np.bincount(had // size)[owner]


def _rows_of_code(of_patient: IntArray, code: IntArray) -> FloatArray:
    """How often each row counts where those of one code are a patient's 1 / the root of the number of its codes."""
    unit, codes_had = _units(of_patient, code)
    return np.asarray(1.0 / (np.bincount(unit)[unit] * np.sqrt(codes_had)), dtype=np.float64)


def as_rows_count(
    one: Measured, target: str, rolled: Rolled, *, code: str | None, alone: FloatArray | None = None
) -> Measured:
    """A bought histogram as it would be if the rows of a patient counted 1 / their number each.

    Made-up rows tell for each cell how much more or less its rows count: exactly so once they are as the real ones.

    Args:
        one: the histogram.
        target: its last column.
        rolled: made-up rows with their history.
        code: the column that tells the code. Where the last column is given it, the rows of each code have a length of
            their own.
        alone: the shares of the last column's cells as they were bought of rows that count so, shape ``(cells,)``, if
            the histogram is made to say the same.
    """
    if one.counted == "rows":
        return one
    upto = first_rows(rolled.of_patient, _LOOKED_AT)
    of_patient = rolled.of_patient[:upto]
    names = (*one.given, target)
    codes = [rolled.codes[name][:upto] for name in names]
    if one.groups:
        codes = [group[found] for group, found in zip(one.groups, codes, strict=True)]
    if one.counted == "code":
        assert code is not None, "it counts by code"
        here = _rows_of_code(of_patient, rolled.codes[code][:upto])
    else:
        here = counted_rows(of_patient, codes, code=codes[names.index(code)] if code in one.given else None)
    share = one.share.T if one.of_candidate else one.share
    cell = np.ravel_multi_index(tuple(codes), share.shape)
    both: list[FloatArray] = [
        np.bincount(cell, weights=weight, minlength=share.size).reshape(share.shape).astype(np.float64)
        for weight in (row_weights(of_patient), here / here.sum())
    ]
    besides = _BESIDES / len(of_patient)
    # Those of a code that each patient has once count much more here than those of one that comes every month.
    smooth = [part + besides * share.shape[-1] * _of_last(part) for part in both]
    places = [part.sum(axis=0 if one.of_candidate else -1) + besides for part in both]
    noise = one.noise * places[0] / places[1]
    share = share * smooth[0] / smooth[1]
    if alone is not None:
        share = _made_to_meet(share, _joined(alone, one.groups))
    return replace(one, share=share.T if one.of_candidate else share, noise=noise, counted="rows")


def _joined(alone: FloatArray, groups: Sequence[IntArray]) -> FloatArray:
    return np.bincount(groups[-1], weights=alone).astype(np.float64) if groups else alone


# How many times more or less of a cell a histogram may be made to say.
_AT_MOST = 5.0


def _made_to_meet(share: FloatArray, alone: FloatArray) -> FloatArray:
    """The histogram with each cell of its last column scaled to the share that it has alone."""
    says = share.reshape(-1, share.shape[-1]).sum(axis=0)
    factor = np.maximum(alone, 1e-9) / np.maximum(says, 1e-9)
    return np.asarray(share * np.clip(factor, 1.0 / _AT_MOST, _AT_MOST), dtype=np.float64)


def _of_last(part: FloatArray) -> FloatArray:
    """The shares of the last column's cells, none of them zero."""
    alone = part.reshape(-1, part.shape[-1]).sum(axis=0) + 1e-9
    return np.asarray(alone / alone.sum(), dtype=np.float64)
