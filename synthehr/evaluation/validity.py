"""Validity: do synthetic patients obey what the schema declares, as real ones do?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthehr.evaluation.cohorts import Part, Parts
from synthehr.evaluation.findings import Measurement, ViolationProfile, undefined
from synthehr.evaluation.intervals import difference_of_proportions, wilson
from synthehr.schema.conform import dtype_of, outside_of_code
from synthehr.schema.model import CategoryColumn, DateColumn, DatetimeColumn, Schema
from synthehr.schema.rules import Rule

__all__ = ["rule_violations", "schema_violations", "violation_profiles"]


def schema_violations(parts: Parts, *, column: str | None = None) -> Measurement:
    """Share of patients with a value the schema forbids, beside the share in the holdout.

    Forbidden are an undeclared category, a value outside the bounds, one of another kind, and a missing
    value in a column that is not nullable. Lower is better; range 0 to 1.

    Args:
        parts: the three cohorts.
        column: judge this column alone.
    """
    names = parts.coding.names if column is None else (column,)
    broken = [_any_broken(part, parts.schema, names) for part in (parts.synthetic, parts.holdout)]
    return _rates("schema_violations", column or "all", *broken)


def rule_violations(parts: Parts, *, rule: Rule | None = None) -> Measurement:
    """Share of patients who break a declared rule (or this one), beside the share in the holdout.

    Lower is better; range 0 to 1. Undefined where the schema declares no rule for the root table.
    """
    rules = _root_rules(parts.schema) if rule is None else (rule,)
    scope = rule.text if rule is not None else "all"
    if not rules:
        return undefined("rule_violations", scope, "lower", "The schema declares no rule for the patients' table.")
    broken = [_any_rule_broken(part, parts.schema, rules) for part in (parts.synthetic, parts.holdout)]
    return _rates("rule_violations", scope, *broken)


def violation_profiles(parts: Parts) -> tuple[ViolationProfile, ...]:
    """The violation rate of each column and each rule, synthetic beside holdout."""
    columns = [
        ViolationProfile(
            what="column",
            name=name,
            synthetic=float(_any_broken(parts.synthetic, parts.schema, (name,)).mean()),
            real=float(_any_broken(parts.holdout, parts.schema, (name,)).mean()),
        )
        for name in parts.coding.names
    ]
    rules = [
        ViolationProfile(
            what="rule",
            name=rule.text,
            synthetic=float(_any_rule_broken(parts.synthetic, parts.schema, (rule,)).mean()),
            real=float(_any_rule_broken(parts.holdout, parts.schema, (rule,)).mean()),
        )
        for rule in _root_rules(parts.schema)
    ]
    return (*columns, *rules)


def _root_rules(schema: Schema) -> tuple[Rule, ...]:
    return tuple(rule for rule in schema.parsed_rules if rule.table == schema.subject)


def _rates(metric: str, scope: str, synthetic: NDArray[np.bool_], real: NDArray[np.bool_]) -> Measurement:
    value = wilson(float(synthetic.sum()), of=len(synthetic))
    reference = wilson(float(real.sum()), of=len(real))
    return Measurement(
        metric=metric,
        scope=scope,
        direction="lower",
        value=value,
        reference=reference.value,
        excess=difference_of_proportions(value, reference),
    )


def _any_broken(part: Part, schema: Schema, names: tuple[str, ...]) -> NDArray[np.bool_]:
    broken = np.zeros(len(part), dtype=bool)
    for name in names:
        broken |= _broken(part, schema, name)
    return broken


def _broken(part: Part, schema: Schema, name: str) -> NDArray[np.bool_]:
    column: Any = schema.root.kept[name]
    values = part.values[name]
    broken: NDArray[np.bool_] = values.unreadable.copy()
    if not column.nullable:
        broken |= values.missing
    if isinstance(column, CategoryColumn) and column.values is not None:
        assert values.text is not None
        broken |= ~values.text.is_in(list(column.values)).fill_null(value=True).to_numpy()
    bounds = getattr(column, "bounds", None)
    if isinstance(bounds, Mapping):
        codes = part.values[column.per].text
        assert codes is not None, "a number depends on a category or code"
        broken |= outside_of_code(pl.Series(values.number).fill_nan(None), codes, column).to_numpy()
    elif bounds is not None and values.number is not None:
        if isinstance(column, DateColumn | DatetimeColumn):
            bounds = (np.datetime64(bound, "us").astype(np.int64) / 86_400e6 for bound in bounds)
        low, high = bounds
        broken |= (values.number < low) | (values.number > high)
    return broken


def _any_rule_broken(part: Part, schema: Schema, rules: tuple[Rule, ...]) -> NDArray[np.bool_]:
    frame = _declared_types(part, schema)
    broken = np.zeros(len(part), dtype=bool)
    for rule in rules:
        broken |= ~rule.holds(frame).to_numpy()
    return broken


def _declared_types(part: Part, schema: Schema) -> pl.DataFrame:
    """The kept columns in their declared types; what cannot be read is missing."""
    columns = []
    for name, column in schema.root.kept.items():
        values, dtype = part.values[name], dtype_of(column)
        if values.text is not None:
            series = (values.text == "true") if dtype == pl.Boolean else values.text
        else:
            number = pl.Series(name, values.number).fill_nan(None)
            temporal = dtype.is_temporal()
            series = (number * 86_400e6).round().cast(pl.Int64).cast(pl.Datetime("us")) if temporal else number
            series = series.cast(dtype, strict=False)
        columns.append(series.alias(name))
    return pl.DataFrame(columns)
