"""Validity of the rows below the patients: do they obey the schema and its rules, as real ones do?"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench
from synthehr.evaluation.longitudinal_rows import Person, child_tables, histories
from synthehr.evaluation.measurement import Measurement, Scope, undefined
from synthehr.evaluation.validity import declared_types, forbidden, rates
from synthehr.schema.model import Schema
from synthehr.schema.rules import Above, Rule

__all__ = ["row_rule_violations", "row_rules", "row_schema_violations"]

_FLAT = "The schema declares one table, so no patient has rows below."


def row_schema_violations(bench: Bench, scope: Scope) -> Measurement:
    """Share of patients with a row that the schema forbids, in any table below theirs or in one.

    Lower is better; range 0 to 1; intervals are Wilson's, and Newcombe's of the excess.
    """
    tables = child_tables(bench.schema)
    if not tables:
        return undefined("row_schema_violations", scope, "lower", _FLAT)
    h = histories(bench)
    asked = tables if scope == "all" else (str(scope),)

    def broken(person: Person) -> NDArray[np.bool_]:
        found = np.zeros(len(person), dtype=bool)
        for table in asked:
            rows, declared = person.tables[table], h.schema.tables[table]
            for name in declared.kept:
                found[rows.owner[forbidden(rows.values, declared, name)]] = True
        return found

    return rates("row_schema_violations", scope, broken(h.synthetic), broken(h.holdout))


def row_rule_violations(bench: Bench, scope: Scope) -> Measurement:
    """Share of patients with a row that breaks a declared rule (or this one) of a table below theirs.

    Lower is better; range 0 to 1. Undefined where no such rule is declared.
    """
    rules = [rule for rule in row_rules(bench) if scope in ("all", rule.text)]
    if not rules:
        why = "The schema declares no rule for a table below the patients'." if child_tables(bench.schema) else _FLAT
        return undefined("row_rule_violations", scope, "lower", why)
    h = histories(bench)

    def broken(person: Person) -> NDArray[np.bool_]:
        found = np.zeros(len(person), dtype=bool)
        for rule in rules:
            rows = person.tables[rule.table]
            frame = declared_types(rows.values, h.schema.tables[rule.table])
            holds = rule.holds(frame, _above(person, h.schema, rule.table)).to_numpy()
            found[rows.owner[~holds]] = True
        return found

    return rates("row_rule_violations", scope, broken(h.synthetic), broken(h.holdout))


def _above(person: Person, schema: Schema, table: str) -> Above:
    """What the ancestors of a table's rows hold."""

    def above(of: str, column: str) -> pl.Series:
        up, at = schema.tables[table].parent, person.tables[table].parent
        while up != of:
            assert up is not None, "a rule reads ancestors alone"
            at, up = person.tables[up].parent[at], schema.tables[up].parent
        values = person.root.values if of == schema.subject else person.tables[of].values
        return declared_types(values, schema.tables[of])[column].gather(at)

    return above


def row_rules(bench: Bench) -> tuple[Rule, ...]:
    """The declared rules of tables below the patients'."""
    return tuple(rule for rule in bench.schema.parsed_rules if rule.table != bench.schema.subject)
