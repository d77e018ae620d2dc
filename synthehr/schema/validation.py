"""Judge records against their schema with Great Expectations: every rule is tried, none stops the next."""

from __future__ import annotations

import datetime as dt
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from synthehr.errors import InternalError
from synthehr.schema.conform import bounds_text, outside_of_code, parse_column, read_columns
from synthehr.schema.lineage import above_rows
from synthehr.schema.model import (
    CategoryColumn,
    Column,
    IntegerColumn,
    NumberColumn,
    Schema,
    Table,
    is_learned,
)
from synthehr.schema.rules import Rule

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Expectation", "check_tables"]

_KIND_RULES = {
    "boolean": "is true or false",
    "integer": "is a whole number",
    "number": "is a finite number",
    "date": "is a date",
    "datetime": "is a time without zone",
    "offset": "is a date, or a whole number of units after the anchor",
    "age": "is a date of birth, or an age in whole years",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """One rule of the schema and whether the records meet it; how many do not is private and not told."""

    table: str
    column: str | None
    rule: str
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """One rule, and the expectation of Great Expectations that tries it."""

    column: str | None
    rule: str
    expectation: str
    arguments: dict[str, Any] = field(default_factory=dict)


def check_tables(tables: Mapping[str, pl.DataFrame], *, schema: Schema) -> tuple[Expectation, ...]:
    """Try every rule that the schema states on tables as they were read.

    Args:
        tables: by name, as text or in any types; identifier and text columns need not be there.
        schema: what is declared.

    Returns:
        One entry for each rule, in the order of the schema. A rule on a column that is absent is not met.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "False"
    found: list[Expectation] = []
    for name in schema.tables:
        frame = tables.get(name)
        there = Expectation(table=name, column=None, rule="is in the data", met=frame is not None)
        found.append(there)
        if frame is not None:
            parents = {n: f for n, f in tables.items() if n in schema.tables}
            plan, judged = _plan(frame, schema=schema, table=name, tables=parents)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # importing the library warns of its own dependencies
                met = _judge(judged, plan)
            found.extend(
                Expectation(table=name, column=planned.column, rule=planned.rule, met=is_met)
                for planned, is_met in zip(plan, met, strict=True)
            )
    return tuple(found)


def _plan(
    frame: pl.DataFrame, *, schema: Schema, table: str, tables: Mapping[str, pl.DataFrame]
) -> tuple[list[_Planned], pd.DataFrame]:
    """The rules of one table and the columns they are tried on."""
    declared = schema.tables[table]
    plan = [
        _Planned(
            column=None,
            rule="has rows",
            expectation="ExpectTableRowCountToBeBetween",
            arguments={"min_value": 1 if declared.parent is None else 0},
        ),
    ]
    judged: dict[str, pl.Series] = {}
    typed: dict[str, pl.Series] = {}
    limits = schema.age_limits(table)
    for name in read_columns(declared):
        if name not in frame.columns:
            absent = _Planned(
                column=name,
                rule="is in the data",
                expectation="ExpectColumnToExist",
                arguments={"column": name},
            )
            plan.append(absent)
            continue
        column = declared.columns[name]
        parsed = parse_column(frame[name], column)
        if name in limits:
            parsed = replace(parsed, values=parsed.values.clip(-limits[name], limits[name]))
        typed[name] = parsed.values
        judged[f"{name}: valid"] = ~parsed.invalid
        judged[name] = parsed.values.cast(pl.Datetime("us")) if parsed.values.dtype == pl.Date else parsed.values
        judged[f"{name}: given"] = parsed.values.is_not_null() | parsed.invalid
        plan.extend(_column_rules(name, column, whole=not parsed.invalid.any()))
    plan.extend(_per_code_rules(judged, typed, declared=declared))
    plan.extend(_key_rules(judged, typed, schema=schema, table=table, tables=tables))
    for rule in schema.parsed_rules:
        if rule.table == table:
            label = f"rule: {rule.text}"
            judged[label] = _holds(rule, typed, tables, schema=schema, rows=frame.height)
            plan.append(_true(label, column=None, rule=f"meets {rule.text!r}"))
    declared_only = {"column_set": list(judged), "exact_match": True}
    undeclared = [name for name in frame.columns if name not in declared.columns]
    judged.update({f"undeclared: {name}": pl.Series([True] * frame.height, dtype=pl.Boolean) for name in undeclared})
    plan.insert(
        1,
        _Planned(
            column=None,
            rule="has declared columns only",
            expectation="ExpectTableColumnsToMatchSet",
            arguments=declared_only,
        ),
    )
    return plan, pl.DataFrame([series.alias(name) for name, series in judged.items()]).to_pandas()


def _true(judged: str, *, column: str | None, rule: str) -> _Planned:
    """A rule that was worked out row by row: every row must say true."""
    return _Planned(
        column=column,
        rule=rule,
        expectation="ExpectColumnValuesToBeInSet",
        arguments={"column": judged, "value_set": [True]},
    )


def _holds(
    rule: Rule, typed: Mapping[str, pl.Series], tables: Mapping[str, pl.DataFrame], *, schema: Schema, rows: int
) -> pl.Series:
    """Whether each row meets a declared rule; none does where a column or table that it reads is absent."""
    link = schema.links[rule.table]
    needed = [*rule.columns, *((str(link.foreign_key),) if rule.above else ())]
    above = _typed_ancestors(rule, tables, schema=schema) if rule.above else {}
    if above is None or any(name not in typed for name in needed):
        return pl.Series([False] * rows, dtype=pl.Boolean)
    frame = pl.DataFrame([typed[name] for name in needed])
    return rule.holds(frame, above_rows(frame, above, schema=schema, table=rule.table))


def _typed_ancestors(
    rule: Rule, tables: Mapping[str, pl.DataFrame], *, schema: Schema
) -> dict[str, pl.DataFrame] | None:
    """The rows above those that a rule judges, in declared types, with what it reads; None where some is absent."""
    found: dict[str, pl.DataFrame] = {}
    up = schema.links[rule.table].parent
    while up is not None:
        link, frame = schema.links[up], tables.get(up)
        keys = [name for name in (link.key, link.foreign_key) if name is not None]
        wanted = [*keys, *(column for table, column in rule.above if table == up and column not in keys)]
        if frame is None or any(name not in frame.columns for name in wanted):
            return None
        declared = schema.tables[up].columns
        found[up] = pl.DataFrame([parse_column(frame[name], declared[name]).values for name in wanted])
        up = link.parent
    return found


def _column_rules(name: str, column: Column, *, whole: bool) -> Iterator[_Planned]:
    if column.kind in _KIND_RULES:
        yield _true(f"{name}: valid", column=name, rule=_KIND_RULES[column.kind])
    elif not whole:
        yield _true(f"{name}: valid", column=name, rule="is a single value")
    if isinstance(column, CategoryColumn) and column.values is not None:
        yield _Planned(
            column=name,
            rule=f"is one of {len(column.values)} declared values",
            expectation="ExpectColumnValuesToBeInSet",
            arguments={"column": name, "value_set": list(column.values)},
        )
    bounds = getattr(column, "bounds", None)
    if bounds is not None and not isinstance(bounds, Mapping):
        yield _Planned(
            column=name,
            rule=f"lies in {bounds_text(bounds)}",
            expectation="ExpectColumnValuesToBeBetween",
            arguments={
                "column": name,
                "min_value": _comparable(bounds[0]),
                "max_value": _comparable(bounds[1]),
            },
        )
    if is_learned(column) and not getattr(column, "nullable", False):
        yield _true(f"{name}: given", column=name, rule="is never missing")


def _per_code_rules(
    judged: dict[str, pl.Series], typed: Mapping[str, pl.Series], *, declared: Table
) -> Iterator[_Planned]:
    """Bounds by code, worked out row by row: no expectation has bounds that depend on another column."""
    for name, column in declared.kept.items():
        if not isinstance(column, IntegerColumn | NumberColumn) or not column.per_code:
            continue
        codes = typed.get(str(column.per))
        if name in typed and codes is not None:
            label = f"{name}: within"
            judged[label] = ~outside_of_code(typed[name], codes, column)
            yield _true(label, column=name, rule=f"lies in the bounds of its {column.per}")


def _comparable(bound: object) -> object:
    """A bound in the type of the pandas column it is compared with, where days are times at midnight."""
    if isinstance(bound, dt.date) and not isinstance(bound, dt.datetime):
        return dt.datetime(bound.year, bound.month, bound.day)
    return bound


def _key_rules(
    judged: dict[str, pl.Series],
    typed: Mapping[str, pl.Series],
    *,
    schema: Schema,
    table: str,
    tables: Mapping[str, pl.DataFrame],
) -> Iterator[_Planned]:
    """Keys are given and unique; foreign keys are keys of the parent."""
    link = schema.links[table]
    if link.key in typed:
        yield _true(f"{link.key}: given", column=link.key, rule="is never missing")
        yield _Planned(
            column=link.key,
            rule="names each row once",
            expectation="ExpectColumnValuesToBeUnique",
            arguments={"column": link.key},
        )
    if link.foreign_key in typed and link.parent is not None:
        key = schema.links[link.parent].key
        parent = tables.get(link.parent)
        if parent is not None and key is not None and key in parent.columns:
            keys = parse_column(parent[key], schema.tables[link.parent].columns[key]).values
            known = typed[str(link.foreign_key)].is_in(keys.drop_nulls().unique().to_list())
            label = f"{link.foreign_key}: known"
            judged[label] = known.fill_null(value=False)
            yield _true(label, column=link.foreign_key, rule=f"is a key of {link.parent}")


def _judge(frame: pd.DataFrame, plan: list[_Planned]) -> list[bool]:
    """Whether each expectation is met, tried by Great Expectations in memory: no files, no network."""
    import great_expectations as gx
    from great_expectations import expectations
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    context = gx.get_context(mode="ephemeral", project_config=DataContextConfig(store_backend_defaults=stores))
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("records")
    batch = (
        source.add_dataframe_asset("table").add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    )
    suite = gx.ExpectationSuite(
        name="schema",
        expectations=[
            getattr(expectations, planned.expectation)(**planned.arguments, meta={"at": at})
            for at, planned in enumerate(plan)
        ],
    )
    outcome = batch.validate(suite, result_format="BOOLEAN_ONLY")
    met: dict[int, bool] = {}
    for result in outcome.results:
        if result.exception_info.get("raised_exception") is not False:
            raise InternalError("a rule of the schema could not be tried: report this with the schema alone")
        met[int(result.expectation_config.meta["at"])] = bool(result.success)
    return [met[at] for at in range(len(plan))]
