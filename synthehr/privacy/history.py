"""Cells of history, behind the door: what rows repeat of the patient's rows before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import polars as pl

from synthehr.privacy.partition import Cells, cells_of
from synthehr.randomness import IntArray

__all__ = ["Repeated", "cell_of_none", "history_of", "together"]

Role: TypeAlias = Literal["last", "beside", "before", "seen", "index", "remaining", "elapsed", "left", "pace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """One column of history.

    Attributes:
        role: ``last``: a column's cell in the patient's row before; ``beside``: the same where that row is together
            with this one, of the same parent and at the same time; ``before``: its cell in the patient's last row of
            the same code; ``seen``: whether there was such a row, 1, and one together with this, 2; ``index``: the
            number of the row among its parent's, from 1; ``remaining``: how many of these are left, with this one;
            ``elapsed``, ``left``, ``pace``: a value that the rows bring, see ``name``.
        name: of the column.
        cells: its cells; the last one stands for nothing.
        of: place of the own column that is repeated.
        code: place of the own column with the code.
        gap: what the rows call the time from the row before; None where they have no order, and those of one parent
            are together.
    """

    role: Role
    name: str
    cells: Cells
    of: int = 0
    code: int = 0
    gap: str | None = None


def cell_of_none(cells: Cells) -> int:
    """The cell that stands for nothing: that of missing values."""
    return cells.size - 1


def history_of(
    history: Sequence[Repeated], own: IntArray, frame: pl.DataFrame, *, owners: IntArray, parents: IntArray
) -> list[IntArray]:
    """The cells of each column of history, each of shape ``(rows,)``.

    Args:
        history: the columns.
        own: cells of the rows' own columns, shape ``(rows, columns)``, in the order of patients and time.
        frame: what the rows bring besides.
        owners: the patient of each row, in order.
        parents: the parent of each row, in order.
    """
    found = []
    for column in history:
        none = cell_of_none(column.cells)
        match column.role:
            case "last":
                found.append(_shifted(own[:, column.of], owners, none=none))
            case "before":
                found.append(_last_of_code(own[:, column.of], own[:, column.code], owners, none=none))
            case "beside":
                groups = np.cumsum(~together(frame, parents, gap=column.gap))
                found.append(_shifted(own[:, column.of], groups, none=none))
            case "seen":
                ones, code = np.ones(len(own), dtype=np.int64), own[:, column.code]
                groups = np.cumsum(~together(frame, parents, gap=column.gap))
                found.append(_last_of_code(ones, code, owners, none=0) + _last_of_code(ones, code, groups, none=0))
            case "index" | "remaining":
                starts = np.flatnonzero(_begins(parents))
                rows = np.diff(np.append(starts, len(parents)))
                number = np.arange(len(parents)) - np.repeat(starts, rows) + 1
                if column.role == "remaining":
                    number = np.repeat(rows, rows) - number + 1
                found.append(cells_of(pl.DataFrame({"index": number}), "index", column.cells))
            case "elapsed" | "left" | "pace":
                found.append(cells_of(frame, column.name, column.cells))
    return found


def _begins(groups: IntArray) -> np.ndarray:
    return np.concatenate([[True], groups[1:] != groups[:-1]])[: len(groups)]


def together(frame: pl.DataFrame, parents: IntArray, *, gap: str | None) -> np.ndarray:
    """Whether each row is of the same parent, and where rows have times of the same time, as the row before."""
    follows = ~_begins(parents)
    return follows if gap is None else follows & (frame[gap] == 0).fill_null(value=False).to_numpy()


def _shifted(cells: IntArray, groups: IntArray, *, none: int) -> IntArray:
    """The cell of the row before in the same group, ``none`` where there is none."""
    before = np.concatenate([[none], cells[:-1]])[: len(cells)]
    return np.where(_begins(groups), none, before).astype(np.int64)


def _last_of_code(cells: IntArray, code: IntArray, owners: IntArray, *, none: int) -> IntArray:
    order = np.lexsort((np.arange(len(code)), code, owners))
    sorted_owners, sorted_code = owners[order], code[order]
    begins = _begins(sorted_owners) | _begins(sorted_code)
    before = np.concatenate([[none], cells[order][:-1]])[: len(cells)]
    found = np.empty(len(cells), dtype=np.int64)
    found[order] = np.where(begins, none, before)
    return found
