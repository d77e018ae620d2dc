"""Observation periods that agree with the events: they do not overlap, and every event lies in one."""

from __future__ import annotations

import polars as pl

__all__ = ["consistent_periods"]

_SCHEMA: dict[str, type[pl.DataType]] = {"patient": pl.Int64, "start": pl.Int64, "end": pl.Int64, "row": pl.Int64}


def consistent_periods(periods: pl.DataFrame, events: pl.DataFrame) -> pl.DataFrame:
    """The periods of observation, changed as little as the rules of the Common Data Model need.

    Periods of a patient that overlap become one. A day of an event that lies in none widens the period that began
    last before it, or else the first. A patient with events and no period gets one, from the first event to the last.

    Args:
        periods: ``patient``, ``start``, ``end`` (days, the end no earlier than the start) and ``row`` (any number).
        events: ``patient`` and ``day``, one row for each first and last day of an event.

    Returns:
        ``patient``, ``start``, ``end`` and ``row`` (the first of those that became one; null for a new period), by
        patient and start.
    """
    merged = _without_overlap(periods.select(list(_SCHEMA)).cast(pl.Schema(_SCHEMA)))
    days = events.select(pl.col("patient", "day").cast(pl.Int64)).unique().sort("patient", "day")
    firsts = merged.group_by("patient").agg(pl.col("start").min().alias("first"))
    known = days.join(firsts, on="patient", how="inner").with_columns(
        pl.max_horizontal("day", "first").alias("at")  # what lies before the first period belongs to it
    )
    reached = (
        known.sort("at")
        .join_asof(
            merged.select("patient", "start", pl.col("start").alias("begins")).sort("start"),
            left_on="at",
            right_on="start",
            by="patient",
            strategy="backward",
            check_sortedness=False,
        )
        .group_by("patient", "begins")
        .agg(pl.col("day").min().alias("earliest"), pl.col("day").max().alias("latest"))
    )
    widened = merged.join(reached, left_on=["patient", "start"], right_on=["patient", "begins"], how="left").select(
        "patient",
        pl.min_horizontal("start", "earliest").alias("start"),
        pl.max_horizontal("end", "latest").alias("end"),
        "row",
    )
    added = (
        days.join(firsts, on="patient", how="anti")
        .group_by("patient")
        .agg(pl.col("day").min().alias("start"), pl.col("day").max().alias("end"))
        .with_columns(pl.lit(None, dtype=pl.Int64).alias("row"))
    )
    return pl.concat([widened, added.select(widened.columns)]).sort("patient", "start")


def _without_overlap(periods: pl.DataFrame) -> pl.DataFrame:
    ordered = periods.sort("patient", "start", "end", "row")
    before = pl.col("end").cum_max().shift(1).over("patient")
    fresh = (before.is_null() | (pl.col("start") > before)).cast(pl.Int64)
    return (
        ordered.with_columns(fresh.cum_sum().over("patient").alias("group"))
        .group_by("patient", "group", maintain_order=True)
        .agg(pl.col("start").min(), pl.col("end").max(), pl.col("row").first())
        .select(list(_SCHEMA))
    )
