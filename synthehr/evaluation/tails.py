"""Numbers of impossible size: a few of them hardly move a distance between distributions, and mislead all who look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords
from synthehr.evaluation.cohorts import Part
from synthehr.evaluation.distributions import declares_numbers, numeric_columns
from synthehr.evaluation.longitudinal_rows import Histories, Person, child_tables, histories
from synthehr.evaluation.longitudinal_values import measured_columns, values_of
from synthehr.evaluation.measurement import Measurement, Scope, undefined
from synthehr.evaluation.validity import rates
from synthehr.schema.model import IntegerColumn, NumberColumn

__all__ = ["METRICS", "declares_row_numbers", "far_row_values", "reach"]

_LEARNED = 50
_MOST_CODES = 50
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Limits = tuple[float, float]


def reach(values: Floats) -> Limits:
    """Between which numbers others of the same kind may lie: as far beyond the middle 98 % as these are wide.

    Where these are one number, as far as any of the values lies.

    Args:
        values: of train, not NaN, at least one.
    """
    low, high = np.quantile(values, [0.01, 0.99])
    width = high - low
    return (float(low - width), float(high + width)) if width > 0.0 else (float(values.min()), float(values.max()))


def far_values(bench: Bench, scope: Scope) -> Measurement:
    """Share of patients with a number of their own beyond train's reach, in any column or in one.

    Lower is better; range 0 to 1; intervals are Wilson's, and Newcombe's of the excess.
    """
    names = [name for name in bench.once(numeric_columns) if scope in ("all", name)]
    train = bench.parts.train.values
    limits = {name: reach(given) for name in names if len(given := _given(train[name].number)) >= _LEARNED}
    if not limits:
        return undefined("far_values", scope, "lower", f"No column of numbers has {_LEARNED} values in train.")

    def far(part: Part) -> Flags:
        found = np.zeros(len(part), dtype=bool)
        for name, limit in limits.items():
            number = part.values[name].number
            assert number is not None, "read as numbers in every part"
            found |= _beyond(number, limit)
        return found

    return rates("far_values", scope, far(bench.parts.synthetic), far(bench.parts.holdout))


def far_row_values(bench: Bench, scope: Scope) -> Measurement:
    """Share of patients with a number in any of their rows beyond the reach of train's of the same code."""
    tables = child_tables(bench.schema)
    if not tables:
        why = "The schema declares one table, so no patient has rows below."
        return undefined("far_row_values", scope, "lower", why)
    h = histories(bench)
    limits = [one for table in tables if scope in ("all", table) for one in _reaches(h, table)]
    if not limits:
        return undefined("far_row_values", scope, "lower", f"No column of numbers has {_LEARNED} values in train.")

    def far(person: Person) -> Flags:
        found = np.zeros(len(person), dtype=bool)
        for table, column, per, code, limit in limits:
            owner, values = values_of(person.tables[table], column, per, code)
            found[owner[_beyond(values, limit)]] = True
        return found

    return rates("far_row_values", scope, far(h.synthetic), far(h.holdout))


def _reaches(h: Histories, table: str) -> Iterator[tuple[str, str, str | None, int, Limits]]:
    """Table, column, code column, code and reach of everything that has enough values in train."""
    for column, per, codes in measured_columns(h, table):
        for code in range(min(codes, _MOST_CODES)):
            _, values = values_of(h.train.tables[table], column, per, code)
            if len(values) >= _LEARNED:
                yield table, column, per, code, reach(values)


def _given(number: Floats | None) -> Floats:
    assert number is not None, "asked of numbers alone"
    return number[~np.isnan(number)]


def _beyond(number: Floats, limit: Limits) -> Flags:
    low, high = limit
    return np.asarray((number < low) | (number > high))  # missing ones are neither


def declares_row_numbers(bench: Bench) -> bool:
    """Whether the schema declares a number in a table below the patients'."""
    declared = bench.schema.tables
    columns = [column for name in child_tables(bench.schema) for column in declared[name].kept.values()]
    return any(isinstance(column, IntegerColumn | NumberColumn) for column in columns)


METRICS: Mapping[str, Metric] = {
    "far_values": Metric(
        section="fidelity",
        direction="lower",
        measure=far_values,
        scopes=numeric_columns,
        measurable=declares_numbers,
        words=MetricWords(
            title="Numbers of impossible size",
            failed="Too many synthetic patients have a number far larger or smaller than is usual in real patients.",
            question="whether numbers far beyond the usual are as rare as among real patients",
        ),
    ),
}
"""The metrics of far values by name."""
