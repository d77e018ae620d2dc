"""FHIR dates and times as offsets: what leaves the reader is how long after the patient's anchor something was."""

from __future__ import annotations

import polars as pl

__all__ = ["after", "offset", "wall_clock"]

_TEXT = r"^\d{4}(-\d{2}(-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?)?)?$"
_ZONE = r"([+-])(\d{2}):(\d{2})$"


def wall_clock(text: pl.Expr) -> pl.Expr:
    """The moment that a clock on the wall showed, without zone; null where the text is no FHIR date or time.

    The zone is left aside: what counts is the patient's own day, and offsets that switch between summer and winter
    must not move it. A year or month alone stands for its first day.
    """
    known = pl.when(text.str.contains(_TEXT)).then(text)
    day = known.str.slice(0, 10)
    length = day.str.len_bytes()
    full = pl.when(length == 4).then(day + "-01-01").when(length == 7).then(day + "-01").otherwise(day)
    time = known.str.slice(11, 8)
    clock = (
        pl.when(known.str.len_bytes() <= 10)
        .then(pl.lit("00:00:00"))
        .when(time.str.contains(r"^\d{2}:\d{2}:\d{2}$"))
        .then(time)
        .otherwise(time.str.slice(0, 5) + ":00")
    )
    clock = clock.str.replace(r":60$", ":59").str.replace("^24:", "23:")
    return (full + "T" + clock).str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="us")


def offset(text: pl.Expr, *, anchor: pl.Expr, unit: str) -> pl.Expr:
    """Whole hours or days from midnight of the anchor's day to a time; negative before it."""
    clock = wall_clock(text)
    if unit == "day":
        return (clock.dt.date() - anchor).dt.total_days()
    return (clock - anchor.cast(pl.Datetime("us"))).dt.total_minutes().floordiv(60)


def after(text: pl.Expr, *, start: pl.Expr, unit: str) -> pl.Expr:
    """Whole minutes or days from ``start`` to a time, by the zones where both have one."""
    if unit == "days":
        return (wall_clock(text).dt.date() - wall_clock(start).dt.date()).dt.total_days()
    elapsed = (wall_clock(text) - wall_clock(start)).dt.total_seconds()
    shift = (_zone_minutes(text) - _zone_minutes(start)).fill_null(0) * 60
    return (elapsed - shift).floordiv(60)


def _zone_minutes(text: pl.Expr) -> pl.Expr:
    """Minutes that a time's zone is ahead of UTC; null without a zone."""
    groups = text.str.extract_groups(_ZONE)
    size = groups.struct[1].cast(pl.Int64) * 60 + groups.struct[2].cast(pl.Int64)
    signed = pl.when(groups.struct[0] == "-").then(-size).otherwise(size)
    return pl.when(text.str.ends_with("Z")).then(0).otherwise(signed)
