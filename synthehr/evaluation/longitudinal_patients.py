"""Whole patients as one row each, for learners and attacks that take a table with one row per patient.

``whole_patients`` gives, and ``whole_bench`` measures, the three cohorts with the patients' own columns and, behind
them, columns that sum up their rows: how many there are in each table and of each common code, the last value of each
code, and when the first and the last row stand. Where the schema declares one table, the cohorts are as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench
from synthehr.evaluation.coding import Coding, ColumnCoding, Values, code
from synthehr.evaluation.cohorts import Part, Parts
from synthehr.evaluation.discriminator import discrimination
from synthehr.evaluation.longitudinal_cells import is_measured, step_edges
from synthehr.evaluation.longitudinal_rows import (
    CodeStream,
    Name,
    Person,
    child_tables,
    read_person,
    read_streams,
    with_streams,
)
from synthehr.evaluation.measurement import Measurement, Scope, undefined
from synthehr.evaluation.utility import prediction, worst_outcome
from synthehr.schema.model import Schema

__all__ = ["patient_features", "whole_bench", "whole_discrimination", "whole_patients", "whole_prediction"]

_MOST_CODES = 30
_BINS = 10
_NAMES: tuple[Name, ...] = ("train", "holdout", "synthetic")
Floats = NDArray[np.float64]


def whole_patients(bench: Bench) -> Parts:
    """The three cohorts with columns that sum up each patient's rows; kept by the bench."""
    return bench.once(_widened)


def patient_features(person: Person, *, schema: Schema, streams: tuple[CodeStream, ...]) -> dict[str, Floats]:
    """Columns that sum up the rows of each patient, shape ``(patients,)`` each; NaN where there is nothing to sum up.

    Args:
        person: one cohort.
        schema: what it is declared to be.
        streams: the code columns, of which the first 30 values are counted by themselves.
    """
    found: dict[str, Floats] = {}
    for table in child_tables(schema):
        found |= dict(_of_table(person, table, schema, tuple(s for s in streams if s.table == table)))
    return found


def whole_discrimination(bench: Bench, scope: Scope) -> Measurement:
    """The classifier two-sample test on whole patients, see :mod:`synthehr.evaluation.discriminator`."""
    metric = "patient_c2st_auc"
    if not child_tables(bench.schema):
        return undefined(metric, scope, "lower", "The schema declares one table, so patients have no rows in time.")
    return bench.once(whole_bench).once(discrimination).measurement(metric)


def whole_prediction(bench: Bench, scope: Scope) -> Measurement:
    """Train on synthetic, test on real with whole patients, for one outcome or the one with the largest gap."""
    metric = "patient_tstr"
    declared = bench.schema.root.outcome
    if not child_tables(bench.schema) or not declared:
        why = (
            "declares no outcome to predict." if not declared else "declares one table: patients have no rows in time."
        )
        return undefined(metric, scope, "higher", f"The schema {why}")
    whole = bench.once(whole_bench)
    asked = declared if scope == "all" else (str(scope),)
    found = {name: replace(whole.once(prediction, name).measurement, metric=metric) for name in asked}
    return found[str(scope)] if scope != "all" else worst_outcome(whole, found, empty=found[asked[0]])


def whole_bench(bench: Bench) -> Bench:
    """A bench of the same cohorts on which everything that looks at patients' own columns sees whole patients.

    Where the schema declares one table it is the bench itself.
    """
    if not child_tables(bench.schema):
        return bench
    return Bench(
        train=bench.train,
        holdout=bench.holdout,
        synthetic=bench.synthetic,
        parts=whole_patients(bench),
        asked=bench.asked,
        likelihood=bench.likelihood,
    )


def _widened(bench: Bench) -> Parts:
    parts = bench.parts
    if not child_tables(bench.schema):
        return parts
    streams = _counted_streams(bench)
    found = {
        name: patient_features(
            with_streams(bench.once(read_person, name), streams), schema=bench.schema, streams=streams
        )
        for name in _NAMES
    }
    columns = tuple(_coding(name, values) for name, values in found["train"].items())
    coding = Coding(columns=(*parts.coding.columns, *columns))
    train, holdout, synthetic = (_with(getattr(parts, name), found[name], columns) for name in _NAMES)
    return replace(parts, coding=coding, train=train, holdout=holdout, synthetic=synthetic)


def _counted_streams(bench: Bench) -> tuple[CodeStream, ...]:
    """The code columns, values by how common they are: in train and holdout together where not all are counted.

    Which codes are the most common of train alone would tell its patients from those of the holdout.
    """
    of_train = bench.once(read_streams)
    if all(len(stream.values) <= _MOST_CODES for stream in of_train):
        return of_train
    return read_streams(bench, of=("train", "holdout"))


def _coding(name: str, values: Floats) -> ColumnCoding:
    edges = step_edges(values, steps=_BINS)
    labels = tuple(f"step {at}" for at in range(len(edges) + 1))
    return ColumnCoding(name=name, labels=(*labels, "undeclared", "missing"), values=None, edges=edges)


def _with(part: Part, columns: Mapping[str, Floats], codings: tuple[ColumnCoding, ...]) -> Part:
    values = {
        name: Values(text=None, number=column, missing=np.isnan(column), unreadable=np.zeros(len(column), dtype=bool))
        for name, column in columns.items()
    }
    codes = np.concatenate([part.codes, code(values, Coding(columns=codings))], axis=1)
    return Part(values={**part.values, **values}, codes=codes)


def _of_table(
    person: Person, table: str, schema: Schema, streams: tuple[CodeStream, ...]
) -> Iterator[tuple[str, Floats]]:
    rows, patients = person.tables[table], len(person)
    yield f"{table}: rows", person.rows_each(table).astype(np.float64)
    if rows.time is not None:
        timed = np.isfinite(rows.time)
        owner, time = rows.owner[timed], rows.time[timed]
        for which, at in (("first", _firsts(owner)), ("last", _lasts(owner))):
            yield f"{table}: time of the {which}", _put(owner[at], time[at], patients)
    for stream in streams:
        codes = rows.codes[stream.column]
        for value in range(min(len(stream.values), _MOST_CODES)):
            many = np.bincount(rows.owner[codes == value], minlength=patients)
            yield f"{table}: rows with {stream.column} {stream.labels[value]}", many.astype(np.float64)
    declared = schema.tables[table]
    for name, column in declared.kept.items():
        if is_measured(column) and name != declared.order_by:
            yield from _last_values(person, table, name, next((s for s in streams if s.column == _per(column)), None))


def _per(column: object) -> str | None:
    return getattr(column, "per", None)


def _last_values(person: Person, table: str, name: str, stream: CodeStream | None) -> Iterator[tuple[str, Floats]]:
    rows = person.tables[table]
    number = rows.values[name].number
    assert number is not None, "a measured column is read as numbers"
    given = np.isfinite(number)
    if stream is None:
        yield f"{table}: last {name}", _last(rows.owner[given], number[given], len(person))
        return
    for at in range(min(len(stream.values), _MOST_CODES)):
        here = given & (rows.codes[stream.column] == at)
        yield f"{table}: last {name} of {stream.labels[at]}", _last(rows.owner[here], number[here], len(person))


def _last(owner: NDArray[np.int64], number: Floats, patients: int) -> Floats:
    at = _lasts(owner)
    return _put(owner[at], number[at], patients)


def _firsts(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.flatnonzero(np.diff(owner, prepend=-1))


def _lasts(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.flatnonzero(np.diff(owner, append=-1))


def _put(owner: NDArray[np.int64], values: Floats, patients: int) -> Floats:
    placed = np.full(patients, np.nan)
    placed[owner] = values
    return placed
