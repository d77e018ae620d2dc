"""Validity: do synthetic patients obey what the schema declares, as real ones do?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords, columns
from synthehr.evaluation.coding import Values
from synthehr.evaluation.cohorts import Part, Parts
from synthehr.evaluation.findings import Measurement, Scope, ViolationProfile, undefined
from synthehr.evaluation.intervals import difference_of_proportions, wilson
from synthehr.schema.conform import dtype_of, outside_of_code
from synthehr.schema.model import CategoryColumn, DateColumn, DatetimeColumn, Schema, Table
from synthehr.schema.rules import Rule

__all__ = [
    "METRICS",
    "declared_types",
    "forbidden",
    "rates",
    "rule_violations",
    "schema_violations",
    "violation_profiles",
]


def schema_violations(parts: Parts, *, column: str | None = None) -> Measurement:
    """Share of patients with a value that the schema forbids in their own row, beside the share in the holdout.

    Forbidden are an undeclared category, a value outside the bounds, one of another kind, and a missing
    value in a column that is not nullable. Lower is better; range 0 to 1.

    Args:
        parts: the three cohorts.
        column: judge this column alone.
    """
    names = parts.coding.names if column is None else (column,)
    root = parts.schema.root
    broken = [_any_broken(part, root, names) for part in (parts.synthetic, parts.holdout)]
    return rates("schema_violations", column or "all", *broken)


def rule_violations(parts: Parts, *, rule: Rule | None = None) -> Measurement:
    """Share of patients whose own row breaks a declared rule (or this one), beside the share in the holdout.

    Lower is better; range 0 to 1. Undefined where the schema declares no rule for the root table.
    """
    rules = _root_rules(parts.schema) if rule is None else (rule,)
    scope = rule.text if rule is not None else "all"
    if not rules:
        return undefined("rule_violations", scope, "lower", "The schema declares no rule for the patients' table.")
    root = parts.schema.root
    broken = [_any_rule_broken(part, root, rules) for part in (parts.synthetic, parts.holdout)]
    return rates("rule_violations", scope, *broken)


def violation_profiles(parts: Parts) -> tuple[ViolationProfile, ...]:
    """The violation rate of each column and each rule of the root table, synthetic beside holdout."""
    root = parts.schema.root
    columns = [
        ViolationProfile(
            what="column",
            name=name,
            synthetic=float(_any_broken(parts.synthetic, root, (name,)).mean()),
            real=float(_any_broken(parts.holdout, root, (name,)).mean()),
        )
        for name in parts.coding.names
    ]
    rules = [
        ViolationProfile(
            what="rule",
            name=rule.text,
            synthetic=float(_any_rule_broken(parts.synthetic, root, (rule,)).mean()),
            real=float(_any_rule_broken(parts.holdout, root, (rule,)).mean()),
        )
        for rule in _root_rules(parts.schema)
    ]
    return (*columns, *rules)


def _root_rules(schema: Schema) -> tuple[Rule, ...]:
    return tuple(rule for rule in schema.parsed_rules if rule.table == schema.subject)


def rates(metric: str, scope: Scope, synthetic: NDArray[np.bool_], real: NDArray[np.bool_]) -> Measurement:
    """Shares of patients, synthetic beside held out. Wilson's intervals, and Newcombe's of the excess."""
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


def _any_broken(part: Part, root: Table, names: tuple[str, ...]) -> NDArray[np.bool_]:
    broken = np.zeros(len(part), dtype=bool)
    for name in names:
        broken |= forbidden(part.values, root, name)
    return broken


def forbidden(table: Mapping[str, Values], declared: Table, name: str) -> NDArray[np.bool_]:
    """Which rows of a table hold a value in this column that the schema forbids. Shape ``(rows,)``."""
    column: Any = declared.kept[name]
    values = table[name]
    broken: NDArray[np.bool_] = values.unreadable.copy()
    if not column.nullable:
        broken |= values.missing
    if isinstance(column, CategoryColumn) and column.values is not None:
        assert values.text is not None
        broken |= ~values.text.is_in(list(column.values)).fill_null(value=True).to_numpy()
    bounds = getattr(column, "bounds", None)
    if isinstance(bounds, Mapping):
        codes = table[column.per].text
        assert codes is not None, "a number depends on a category or code"
        broken |= outside_of_code(pl.Series(values.number).fill_nan(None), codes, column).to_numpy()
    elif bounds is not None and values.number is not None:
        if isinstance(column, DateColumn | DatetimeColumn):
            bounds = (np.datetime64(bound, "us").astype(np.int64) / 86_400e6 for bound in bounds)
        low, high = bounds
        broken |= (values.number < low) | (values.number > high)
    return broken


def _any_rule_broken(part: Part, root: Table, rules: tuple[Rule, ...]) -> NDArray[np.bool_]:
    frame = declared_types(part.values, root)
    broken = np.zeros(len(part), dtype=bool)
    for rule in rules:
        broken |= ~rule.holds(frame).to_numpy()
    return broken


def declared_types(table: Mapping[str, Values], declared: Table) -> pl.DataFrame:
    """The kept columns of a table in their declared types; what cannot be read is missing."""
    columns = []
    for name, column in declared.kept.items():
        values, dtype = table[name], dtype_of(column)
        if values.text is not None:
            series = (values.text == "true") if dtype == pl.Boolean else values.text
        else:
            number = pl.Series(name, values.number).fill_nan(None)
            temporal = dtype.is_temporal()
            series = (number * 86_400e6).round().cast(pl.Int64).cast(pl.Datetime("us")) if temporal else number
            series = series.cast(dtype, strict=False)
        columns.append(series.alias(name))
    return pl.DataFrame(columns)


def _rules(bench: Bench) -> tuple[str, ...]:
    return tuple(rule.text for rule in _root_rules(bench.schema))


def _rule_violations(bench: Bench, scope: Scope) -> Measurement:
    named = [rule for rule in _root_rules(bench.schema) if rule.text == scope]
    return rule_violations(bench.parts, rule=named[0] if scope != "all" else None)


METRICS: Mapping[str, Metric] = {
    "schema_violations": Metric(
        section="validity",
        direction="lower",
        measure=lambda bench, scope: schema_violations(bench.parts, column=None if scope == "all" else str(scope)),
        scopes=columns,
        words=MetricWords(
            title="Values the schema allows",
            failed="Synthetic patients have values that the schema forbids more often than real patients do.",
            question="whether synthetic patients break the schema more often than real ones",
        ),
    ),
    "rule_violations": Metric(
        section="validity",
        direction="lower",
        measure=_rule_violations,
        measurable=lambda bench: bool(_root_rules(bench.schema)),
        scopes=_rules,
        words=MetricWords(
            title="Declared rules",
            failed="Synthetic patients break a declared rule more often than real patients do.",
            question="whether synthetic patients break the declared rules more often than real ones",
        ),
    ),
}
"""The metrics of validity by name."""
