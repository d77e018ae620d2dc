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

__all__ = ["as_rows_count", "counted_rows", "row_weights"]

# Rows of made-up patients that are looked at, about; and rows that each cell has besides, as they are on average.
_LOOKED_AT, _BESIDES = 40_000, 30.0


def row_weights(of_patient: IntArray) -> FloatArray:
    """Each row's part of its patient, as a share of all patients with rows; they sum to 1."""
    rows = np.bincount(of_patient).astype(np.float64)
    return np.asarray(1.0 / (rows[of_patient] * max(int(np.count_nonzero(rows)), 1)), dtype=np.float64)


def counted_rows(of_patient: IntArray, codes: Sequence[IntArray]) -> FloatArray:
    """How often each row counts where a patient's part of a histogram has length 1 in L2.

    Args:
        of_patient: ascending, shape ``(rows,)``.
        codes: the cells of the histogram's columns, each of shape ``(rows,)``.
    """
    sizes = tuple(int(code.max(initial=0)) + 1 for code in codes)
    cell = np.ravel_multi_index(tuple(codes), sizes)
    places, rows = np.unique(of_patient * np.prod(sizes, dtype=np.int64) + cell, return_counts=True)
    squares = np.bincount(places // np.prod(sizes, dtype=np.int64), weights=rows.astype(np.float64) ** 2)
    return np.asarray(1.0 / np.sqrt(squares[of_patient]), dtype=np.float64)


def _rows_of_code(of_patient: IntArray, code: IntArray) -> FloatArray:
    """How often each row counts where those of one code are a patient's 1 / the root of the number of its codes."""
    size = int(code.max(initial=0)) + 1
    places, at, rows = np.unique(of_patient * size + code, return_inverse=True, return_counts=True)
    codes = np.bincount(places // size)
    return np.asarray(1.0 / (rows[at] * np.sqrt(codes[of_patient])), dtype=np.float64)


def as_rows_count(one: Measured, target: str, rolled: Rolled, *, code: str | None) -> Measured:
    """A bought histogram as it would be if the rows of a patient counted 1 / their number each.

    Made-up rows tell for each cell how much more or less its rows count: exactly so once they are as the real ones.

    Args:
        one: the histogram.
        target: its last column.
        rolled: made-up rows with their history.
        code: the column that tells the code.
    """
    if one.counted == "rows":
        return one
    upto = int(np.searchsorted(rolled.of_patient, rolled.of_patient[min(_LOOKED_AT, len(rolled.of_patient)) - 1]))
    upto = upto or len(rolled.of_patient)
    of_patient = rolled.of_patient[:upto]
    codes = [rolled.codes[name][:upto] for name in (*one.given, target)]
    if one.groups:
        codes = [group[found] for group, found in zip(one.groups, codes, strict=True)]
    if one.counted == "code":
        assert code is not None, "it counts by code"
        here = _rows_of_code(of_patient, rolled.codes[code][:upto])
    else:
        here = counted_rows(of_patient, codes)
    share = one.share.T if one.of_candidate else one.share
    cell = np.ravel_multi_index(tuple(codes), share.shape)
    plain, counted = row_weights(of_patient), here / here.sum()
    besides = _BESIDES / len(of_patient)
    both = [np.bincount(cell, weights=weight, minlength=share.size) + besides for weight in (plain, counted)]
    share = share * (both[0] / both[1]).reshape(share.shape)
    return replace(one, share=share.T if one.of_candidate else share, counted="rows")
