"""Copied histories: does a synthetic patient hold the rows that one real patient alone has?

A row of one's own is one that no other real patient has, over all kept columns. A history counts as copied where one
synthetic patient holds at least half of such rows, and three of them, whatever else it holds and whatever stands in its
own columns: a window of a real history, rows in another order and a history given to another patient are all found.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from synthehr.evaluation.bench import Bench
from synthehr.evaluation.coding import Values, read_table
from synthehr.evaluation.intervals import difference_of_proportions, wilson
from synthehr.evaluation.longitudinal_rows import child_tables
from synthehr.evaluation.measurement import Measurement, undefined
from synthehr.schema.columns import Column

__all__ = ["copied_histories", "equal_form"]

_FEWEST_ROWS = 3
_COHORTS = ("train", "holdout", "synthetic")


def equal_form(values: Mapping[str, Values], columns: Mapping[str, Column]) -> pl.DataFrame:
    """Columns in a form in which equal values are equal: numbers in steps of their precision, missing as null."""
    series = []
    for at, (name, column) in enumerate(columns.items()):
        one = values[name]
        if one.text is not None:
            series.append(one.text.cast(pl.String).alias(f"c{at}"))
            continue
        assert one.number is not None
        step = getattr(column, "precision", None)
        number = np.round(one.number / step) if step else one.number
        series.append(pl.Series(f"c{at}", number, dtype=pl.Float64).fill_nan(None))
    return pl.DataFrame(series)


def copied_histories(bench: Bench) -> Measurement:
    """Of the patients of train with three rows of their own or more, the share whose history is copied.

    Beside it the same of the holdout's patients. Lower is better; range 0 to 1. The interval is Wilson's, of the
    excess Newcombe's for two groups of patients. Rows are those of the cohorts as they are, before any ``max_rows``.
    """
    tables = [table for table in child_tables(bench.schema) if bench.schema.tables[table].kept]
    if not tables:
        why = "The schema declares no column of rows, so there is no history to copy."
        return undefined("history_copies", "all", "lower", why)
    own, held = [], []
    for table in tables:
        rows = _rows(bench, table)
        real = _of_one_patient(rows)
        own.append(real.group_by("cohort", "owner").len("own"))
        held.append(_held(rows, real))
    rows_each = pl.concat(own).group_by("cohort", "owner").agg(pl.col("own").sum())
    shared = pl.concat(held).group_by("cohort", "owner", "holder").agg(pl.col("held").sum())
    most = shared.group_by("cohort", "owner").agg(pl.col("held").max())
    asked = rows_each.filter(pl.col("own") >= _FEWEST_ROWS).join(most, on=["cohort", "owner"], how="left")
    enough = (pl.col("held") * 2 >= pl.col("own")) & (pl.col("held") >= _FEWEST_ROWS)
    copied = asked.select("cohort", copied=enough.fill_null(value=False))
    counts = [copied.filter(pl.col("cohort") == at)["copied"] for at in (0, 1)]
    if min(len(one) for one in counts) == 0:
        why = f"No patient of train, or none of the holdout, has {_FEWEST_ROWS} rows that no one else has."
        return undefined("history_copies", "all", "lower", why)
    train, holdout = (wilson(float(one.sum()), of=len(one)) for one in counts)
    return Measurement(
        metric="history_copies",
        scope="all",
        direction="lower",
        value=train,
        reference=holdout.value,
        excess=difference_of_proportions(train, holdout),
    )


def _rows(bench: Bench, table: str) -> pl.DataFrame:
    """Each different row of each patient once: its columns in equal form, the number of its cohort, and its owner."""
    columns = bench.schema.tables[table].kept
    frames = []
    for at, name in enumerate(_COHORTS):
        cohort = getattr(bench, name)
        frame = equal_form(read_table(cohort, table, part=name), columns)
        owner = pl.Series("owner", cohort.owners(table), dtype=pl.Int64)
        frames.append(frame.with_columns(owner, cohort=pl.lit(at, dtype=pl.Int8)))
    return pl.concat(frames).unique()


def _of_one_patient(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows that one real patient alone has."""
    real = rows.filter(pl.col("cohort") < 2)
    grouped = real.group_by(_key(rows)).agg(pl.len().alias("patients"), pl.col("cohort", "owner").first())
    return grouped.filter(pl.col("patients") == 1).drop("patients")


def _held(rows: pl.DataFrame, real: pl.DataFrame) -> pl.DataFrame:
    """How many of a real patient's own rows each synthetic patient holds."""
    synthetic = rows.filter(pl.col("cohort") == 2).rename({"owner": "holder"}).drop("cohort")
    met = synthetic.join(real, on=_key(rows), nulls_equal=True)
    return met.group_by("cohort", "owner", "holder").len("held")


def _key(rows: pl.DataFrame) -> list[str]:
    return [name for name in rows.columns if name not in {"cohort", "owner"}]
