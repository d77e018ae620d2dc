"""Which row of the same synthetic patient a reference leads to: the one that is there at the time."""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from synthehr.models.rollout import Rolled
from synthehr.randomness import FloatArray

__all__ = ["linked", "linked_to_row_before"]


def linked(
    rows: Rolled,
    known: np.ndarray,
    target: Rolled,
    keys: pl.Series,
    *,
    minutes: tuple[float, float] | None,
    draws: np.random.Generator,
) -> pl.Series:
    """The key of the row that each row refers to: the last that began by then, else the first one after.

    Where either has no time, or none that can be compared, any row of the patient; null where the patient has none.

    Args:
        rows: those that refer.
        known: whether each of them does, shape ``(rows,)``.
        target: the rows they refer to, of the same patients.
        keys: of these.
        minutes: of a unit of either's time, in the coarser of which both are compared; None where they cannot be.
        draws: where any row will do.
    """
    asked = pl.DataFrame({"at": np.flatnonzero(known), "patient": rows.of_patient[known]})
    offered = pl.DataFrame({"patient": target.of_patient, "row": np.arange(len(target.of_patient))})
    asked = _any_row(asked, target, draws)
    if minutes is not None and rows.time is not None and target.time is not None:
        mine, theirs = _comparable(rows.time[known], target.time, minutes)
        asked = asked.with_columns(pl.Series("time", mine))
        timed = offered.with_columns(pl.Series("time", theirs)).filter(pl.col("time").is_not_nan())
        asked = _by_time(_by_time(asked, timed, "backward"), timed, "forward")
        asked = asked.with_columns(pl.coalesce("backward", "forward", "any").alias("any"))
    found = np.full(len(known), -1, dtype=np.int64)
    found[asked["at"].to_numpy()] = asked["any"].fill_null(-1).to_numpy()
    return _keys_at(found, keys)


def linked_to_row_before(rows: Rolled, known: np.ndarray, keys: pl.Series) -> pl.Series:
    """The key of the patient's row before each row; null where it refers to none, or is the first."""
    before = np.arange(len(known)) - 1
    same = np.concatenate([[False], rows.of_patient[1:] == rows.of_patient[:-1]])[: len(known)]
    return _keys_at(np.where(known & same, before, -1), keys)


def _keys_at(places: np.ndarray, keys: pl.Series) -> pl.Series:
    return keys.gather(pl.Series(places).set(pl.Series(places < 0), None))


def _any_row(asked: pl.DataFrame, target: Rolled, draws: np.random.Generator) -> pl.DataFrame:
    """Any row of the patient, in the column ``any``; target's rows are in the order of patients."""
    patient = asked["patient"].to_numpy()
    first = np.searchsorted(target.of_patient, patient, side="left")
    many = np.searchsorted(target.of_patient, patient, side="right") - first
    chosen = first + (draws.random(len(patient)) * many).astype(np.int64)
    return asked.with_columns(pl.Series("any", chosen).set(pl.Series(many == 0), None))


def _comparable(mine: FloatArray, theirs: FloatArray, minutes: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Times in the coarser unit of both, whole ones where the units differ."""
    one, other = minutes
    if one == other:
        return mine, theirs
    unit = max(one, other)
    return np.floor(mine * one / unit), np.floor(theirs * other / unit)


def _by_time(asked: pl.DataFrame, timed: pl.DataFrame, way: Literal["backward", "forward"]) -> pl.DataFrame:
    """The nearest row of the patient in time, on one side, in a column of that name."""
    there = asked.filter(pl.col("time").is_not_nan()).sort("time", maintain_order=True)
    found = there.join_asof(
        timed.sort("time", maintain_order=True).rename({"row": way}),
        on="time",
        by="patient",
        strategy=way,
        check_sortedness=False,
    )
    return asked.join(found.select("at", way), on="at", how="left", maintain_order="left")
