"""From a cohort of several tables to one conditional table each: what a row is learned as, and what it depends on.

A conditional table has columns of three roles, in this order:

- the row's own: what the table declares, where times are gaps, with the number of rows that each child table has;
- context: the own columns and the context of the row's parent, and so of all ancestors;
- history: what came before in the same patient: the last row, how far the patient has come, whether the row's code was
  there before, or even at the same time, and which value it last had.

Own columns have a domain that is declared or bought. Context and history take the cells of the columns they repeat, so
that they cost nothing. A table of patients alone has own columns only, and they are those it declares.

Everything here but :func:`unroll` depends on the schema alone, and is public.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import polars as pl

from synthehr.cohort import Cohort
from synthehr.encoding.lattice import as_number
from synthehr.encoding.references import flag_of, flags_of, references_of
from synthehr.errors import SchemaError
from synthehr.randomness import IntArray
from synthehr.schema.model import (
    BooleanColumn,
    CategoryColumn,
    CodeColumn,
    DateColumn,
    DatetimeColumn,
    IntegerColumn,
    NumberColumn,
    OffsetColumn,
    Schema,
    Table,
)
from synthehr.schema.rules import named_above

__all__ = [
    "AT",
    "ELAPSED",
    "ENDS",
    "GAP",
    "INDEX",
    "LEFT",
    "OFFSET",
    "PACE",
    "REMAINING",
    "WHEN",
    "ConditionalTable",
    "History",
    "Unrolled",
    "changes",
    "conditional_tables",
    "door_columns",
    "has_reference",
    "unroll",
]

GAP, OFFSET, ENDS, AT = "[gap]", "[offset]", "[ends]", "[at]"
INDEX, REMAINING, ELAPSED, LEFT, PACE = "[row]", "[rows left]", "[elapsed]", "[left]", "[left for a row]"
# Own columns that tell when a row is.
WHEN = (ENDS, AT, GAP, OFFSET)
Role: TypeAlias = Literal["last", "beside", "before", "seen", "index", "remaining", "elapsed", "left", "pace"]


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One column of history.

    Attributes:
        role: what it tells. ``last``: the cell of ``of`` in the row before; ``beside``: the same where that row hangs
            from the same parent and has the same time, or no time; ``before``: its cell in the last row with the same
            code; ``seen``: whether there was such a row, and whether there was one beside; ``index``: the number of the
            row among its parent's; ``remaining``: how many of these are left, with this one; ``elapsed``: the time from
            the patient's first row to the row before; ``left``: from there to the last row, where every row has a time;
            ``pace``: that by how many are left.
        of: the own column that it repeats, for ``seen`` the code, or the column whose cells it takes.
    """

    role: Role
    of: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionalTable:
    """What is learned of one table.

    Attributes:
        name: of the table.
        depth: 0 for the patients, 1 for their children.
        table: declarations of the own columns.
        most: rows of one patient, at most.
        context: column of the parent's conditional table, by its name here.
        history: by name.
        code: the own column that is drawn first once the time is, since history depends on it; None where there is
            none.
        times: own columns that are learned as a difference to the row's time, by their name in the schema.
        follows_parent: whether the first row of each parent is placed relative to the parent's time.
        limit: column of the patients that the times of the rows do not exceed by a declared rule: from there the time
            of a patient's last row is counted back, where else that of the first is told.
        outcomes_above: columns of the context that are outcomes of the ancestors.
    """

    name: str
    depth: int
    table: Table
    most: int = 1
    context: Mapping[str, str] = field(default_factory=dict)
    history: Mapping[str, History] = field(default_factory=dict)
    code: str | None = None
    times: Mapping[str, str] = field(default_factory=dict)
    follows_parent: bool = False
    limit: str | None = None
    outcomes_above: tuple[str, ...] = ()

    @property
    def own(self) -> tuple[str, ...]:
        """Names of the own columns."""
        return tuple(self.table.kept)

    @property
    def drawn(self) -> tuple[str, ...]:
        """Own columns in the order in which they are drawn: when, then the code, since history depends on both."""
        return tuple(sorted(self.own, key=lambda name: (name not in WHEN, name not in WHEN and name != self.code)))

    def target(self, columns: Iterable[str], *, drawn: Sequence[str] = ()) -> str | None:
        """The column of a set that is drawn last, given the others; ``drawn`` is the order, if it is another than ours.

        None where they are not known by then, or tell nothing: whether a patient's rows come to their end with this one
        has to do with how many and how much time are left, and with what it is.
        """
        chosen = set(columns)
        near = {ENDS, self.code, f"[last {self.code}]", f"[last {GAP}]", REMAINING, LEFT, PACE}
        if ENDS in chosen and (len(chosen) > 2 or not chosen <= near):
            return None
        target = next((name for name in reversed(drawn or self.drawn) if name in chosen), None)
        others = {self.history[name].role for name in chosen - {target} if name in self.history}
        if target is None or (target in WHEN and others & {"beside", "before", "seen"}):
            return None
        if target == self.code and ("before" in others or ("seen" in others and len(chosen) > 2)):
            return None
        return target

    def needed(self) -> tuple[tuple[str, ...], ...]:
        """Sets of columns without which rows are wrong whatever they hold.

        A code with whether it was there before: what never comes again is a small part of all rows, and yet what all
        patients have in common. A number that depends on the code with this and how many rows there are: else those who
        have many rows, which are most rows, have the numbers of those who have few.
        """
        found: list[tuple[str, ...]] = []
        for name, past in self.history.items():
            if past.role == "seen" and self.code is not None:
                found.append((self.code, name))
            if past.role == "index" and self.code is not None:
                per = [own for own, column in self.table.kept.items() if getattr(column, "per", None) == self.code]
                found += [(self.code, own, past.of) for own in per if past.of in self.context]
        return tuple(found)

    def counted_by(self, columns: Sequence[str], *, drawn: Sequence[str] = ()) -> str | None:
        """The code, where it is given to a set's column that is drawn last: each code's rows count by themselves."""
        given = set(columns) - {self.target(columns, drawn=drawn)}
        return self.code if self.code in given else None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all columns: own, context, history."""
        return (*self.own, *self.context, *self.history)


def conditional_tables(schema: Schema, bounds: Mapping[str, int]) -> dict[str, ConditionalTable]:
    """The conditional table of every table, ancestors first.

    Args:
        schema: what the records are declared to be.
        bounds: largest number of rows of a patient by table; the root's is 1.

    Raises:
        SchemaError: a column's name is one of those made here, or a table is ordered by what cannot be a time.
    """
    if len(schema.tables) > 1:
        _check_names(schema)
    made: dict[str, ConditionalTable] = {}
    for name in _top_down(schema):
        made[name] = _conditional(schema, name, bounds, made)
    return made


def _top_down(schema: Schema) -> list[str]:
    def depth(name: str) -> int:
        parent = schema.tables[name].parent
        return 0 if parent is None else 1 + depth(parent)

    return sorted(schema.tables, key=depth)


def _check_names(schema: Schema) -> None:
    for name, table in schema.tables.items():
        for column in table.kept:
            if column.startswith("["):
                raise SchemaError(f"column {column!r} of table {name!r} must not begin with '[' beside other tables")
        order = table.order_by
        if order is not None and getattr(table.kept[order], "per", None) is not None:
            raise SchemaError(f"table {name!r} is ordered by {order!r}, which depends on a code: it must be a time")
        if order is not None and isinstance(table.kept[order], CategoryColumn | BooleanColumn):
            raise SchemaError(f"table {name!r} is ordered by {order!r}, which must be a number, date or datetime")


def _conditional(
    schema: Schema, name: str, bounds: Mapping[str, int], made: Mapping[str, ConditionalTable]
) -> ConditionalTable:
    table = schema.tables[name]
    parent = made.get(table.parent) if table.parent is not None else None
    order = table.kept[table.order_by] if table.order_by is not None and parent is not None else None
    own: dict[str, Any] = {}
    times: dict[str, str] = {}
    follows = False
    timed = order is not None and not getattr(order, "nullable", False)
    if parent is not None and order is not None:
        if bounds[name] > 1:
            if timed and not parent.depth:
                own |= {ENDS: BooleanColumn(kind="boolean"), AT: order}
            own[GAP] = _difference(order, signed=False)
        if parent.depth:
            above = schema.tables[parent.name]
            reference = above.kept[above.order_by] if above.order_by is not None else None
            follows = reference is not None and _same_axis(order, reference)
            own[OFFSET] = _difference(order, signed=True) if follows else _nullable(order)
    for column, declared in table.kept.items():
        if order is not None and column == table.order_by:
            continue
        if order is not None and _same_axis(declared, order):
            times[column] = f"[{column} after {table.order_by}]"
            nullable = getattr(declared, "nullable", False) or getattr(order, "nullable", False)
            own[times[column]] = _difference(order, signed=True).model_copy(update={"nullable": nullable})
        else:
            own[column] = declared
    if parent is not None:
        own |= flags_of(table)
    for child, link in schema.tables.items():
        if link.parent == name:
            own.update(_of_child(schema, child, most=bounds[child], at_root=parent is None))
    return ConditionalTable(
        name=name,
        depth=0 if parent is None else parent.depth + 1,
        most=bounds[name],
        table=_table_of(table, own),
        context=_context(parent),
        history=_history(own, parent, name, bounds, timed=timed),
        code=_code(own),
        times=times,
        follows_parent=follows,
        limit=_limit(schema, name) if parent is not None and not parent.depth else None,
        outcomes_above=_outcomes_above(parent),
    )


def _table_of(table: Table, own: Mapping[str, Any]) -> Table:
    """A table of the own columns alone; a table without any gets none and is not learned."""
    if own == table.kept:
        return table
    return Table.model_construct(
        columns=dict(own),
        outcome=tuple(column for column in table.outcome if column in own),
        groups=tuple(column for column in table.groups if column in own),
    )


def _of_child(schema: Schema, child: str, *, most: int, at_root: bool) -> dict[str, Any]:
    """What a parent's row says of its rows in a child table."""
    link, limit = schema.tables[child], _limit(schema, child)
    own: dict[str, Any] = {f"[rows of {child}]": IntegerColumn(kind="integer", bounds=(0, most))}
    if at_root and link.order_by is not None:
        order: Any = link.kept[link.order_by]
        if limit is None:
            own[f"[first of {child}]"] = _nullable(order)
        else:
            whole: Any = schema.root.kept[limit]
            bounds = (order.bounds[0], whole.bounds[1])
            own[f"[after {child}]"] = _difference(order.model_copy(update={"bounds": bounds}), signed=False)
        if most > 1:
            own[f"[span of {child}]"] = _difference(order, signed=False)
    return own


def _limit(schema: Schema, child: str) -> str | None:
    """The patients' column of a declared rule that no time of a child table lies after it; None without one."""
    table, root = schema.tables[child], schema.root
    order = table.kept[table.order_by] if table.order_by is not None and table.parent == schema.subject else None
    if order is None or table.order_by is None or not _bounded(order):
        return None
    for rule in schema.parsed_rules:
        if rule.table != child or rule.columns != (table.order_by,) or len(rule.above) != 1:
            continue
        column = rule.above[0][1]
        declared, time, end = root.kept[column], pl.col(table.order_by), pl.col(named_above(*rule.above[0]))
        comparable = type(declared) is type(order) and _bounded(declared)
        if comparable and any(rule.expression.meta.eq(said) for said in (time <= end, end >= time)):
            return column
    return None


def _bounded(column: Any) -> bool:
    """Whether a column has a value within declared bounds in every row."""
    return not getattr(column, "nullable", True) and isinstance(getattr(column, "bounds", None), tuple)


def _nullable(column: Any) -> Any:
    return column.model_copy(update={"nullable": True})


def _difference(order: Any, *, signed: bool) -> Any:
    """A column for the time between two values of an order column, which may be missing."""
    match order:
        case DateColumn():
            width = (order.bounds[1] - order.bounds[0]).days
        case DatetimeColumn():
            width = int((order.bounds[1] - order.bounds[0]).total_seconds() // 60) + 1
        case _ if order.bounds is None:
            return order.model_copy(update={"nullable": True})
        case _:
            width = order.bounds[1] - order.bounds[0]
    if isinstance(order, NumberColumn):
        return NumberColumn(
            kind="number", bounds=(-width if signed else 0.0, width), precision=order.precision, nullable=True
        )
    return IntegerColumn(kind="integer", bounds=(-width if signed else 0, width), nullable=True)


def _same_axis(column: Any, order: Any) -> bool:
    """Whether a column tells times on the axis of an order column: of its kind, with its unit and its bounds."""
    if type(column) is not type(order) or getattr(column, "per", None) is not None:
        return False
    unit = getattr(order, "unit", None)
    if isinstance(order, DateColumn | DatetimeColumn):
        return bool(column.bounds == order.bounds)
    if isinstance(order, OffsetColumn):
        return bool(column.unit == unit)
    declared = unit is not None and order.bounds is not None
    return declared and bool((column.unit, column.bounds) == (unit, order.bounds))


def _context(parent: ConditionalTable | None) -> dict[str, str]:
    if parent is None:
        return {}
    return {
        **{f"{parent.name}.{column}": column for column in parent.own},
        **{column: column for column in parent.context},
    }


def _outcomes_above(parent: ConditionalTable | None) -> tuple[str, ...]:
    if parent is None:
        return ()
    return (*(f"{parent.name}.{column}" for column in parent.table.outcome), *parent.outcomes_above)


def _code(own: Mapping[str, Any]) -> str | None:
    """The column that rows are first known by: what numbers depend on, else the first code, else the first category."""
    for column in own.values():
        if getattr(column, "per", None) is not None:
            return str(column.per)
    for kind in (CodeColumn, CategoryColumn):
        for name, column in own.items():
            if isinstance(column, kind) and (column.values is None or len(column.values) > 2):
                return name
    return None


def _history(
    own: Mapping[str, Any], parent: ConditionalTable | None, name: str, bounds: Mapping[str, int], *, timed: bool
) -> dict[str, History]:
    if parent is None or bounds[name] == 1:
        return {}
    rows = f"{parent.name}.[rows of {name}]"
    found = {INDEX: History(role="index", of=rows), REMAINING: History(role="remaining", of=rows)}
    if GAP in own and not parent.depth:
        found[ELAPSED] = History(role="elapsed", of=f"{parent.name}.[span of {name}]")
        if timed:
            found[LEFT] = History(role="left", of=f"{parent.name}.[span of {name}]")
            found[PACE] = History(role="pace", of=GAP)
    code = _code(own)
    for column, declared in own.items():
        if column in {OFFSET, ENDS}:
            continue
        found[f"[last {column}]"] = History(role="last", of=column)
        if code is not None and getattr(declared, "per", None) == code:
            found[f"[{column} before]"] = History(role="before", of=column)
    if code is not None:
        if GAP in own or parent.depth:
            found[f"[{code} beside]"] = History(role="beside", of=code)
        found[f"[{code} seen]"] = History(role="seen", of=code)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrolled:
    """The own columns of real rows, in the order of patients, parents and time.

    Attributes:
        frame: own columns as the door takes them, and ``ELAPSED``, ``LEFT`` and ``PACE`` where history has them.
        owners: the patient of each row, shape ``(rows,)``.
        parents: the row of each row's parent in the parent's frame, shape ``(rows,)``; zero for the root.
    """

    frame: pl.DataFrame
    owners: IntArray
    parents: IntArray


def door_columns(frame: pl.DataFrame, columns: Mapping[str, Any]) -> list[pl.Series]:
    """Columns as the door takes them: categories as text, all else on its lattice's scale."""
    return [
        frame[name].cast(pl.String)
        if isinstance(column, CategoryColumn | BooleanColumn)
        else as_number(frame[name]).alias(name)
        for name, column in columns.items()
    ]


def unroll(
    cohort: Cohort[Schema], tables: Mapping[str, ConditionalTable], *, draws: np.random.Generator
) -> dict[str, Unrolled]:
    """The own columns of every conditional table; context and history repeat their cells, see the door.

    What a patient's rows become depends on that patient alone.

    Args:
        cohort: bounded by row.
        tables: from :func:`conditional_tables`.
        draws: the order of rows in tables that have none.
    """
    sorted_tables: dict[str, _Sorted] = {}
    for name, made in tables.items():
        sorted_tables[name] = _sorted(cohort, made, sorted_tables, draws)
    for name, made in tables.items():
        if made.depth:
            _tell_parent(sorted_tables, made, parent=_parent(cohort, name), patients=len(cohort))
    return {
        name: Unrolled(
            frame=pl.DataFrame([part.columns[column].alias(column) for column in _at_the_door(tables[name])]),
            owners=part.owners,
            parents=part.parents,
        )
        for name, part in sorted_tables.items()
    }


@dataclass(slots=True, kw_only=True)
class _Sorted:
    """One table's rows in order. ``place`` is where each row of the file went; ``time`` is NaN where missing."""

    columns: dict[str, pl.Series]
    owners: IntArray
    parents: IntArray
    place: IntArray
    time: np.ndarray | None


def _at_the_door(made: ConditionalTable) -> tuple[str, ...]:
    return (*made.own, *(name for name in (ELAPSED, LEFT, PACE) if name in made.history))


def _parent(cohort: Cohort[Schema], name: str) -> str:
    parent = cohort.schema.tables[name].parent
    assert parent is not None, "the root has none"
    return parent


def _sorted(
    cohort: Cohort[Schema], made: ConditionalTable, above: Mapping[str, _Sorted], draws: np.random.Generator
) -> _Sorted:
    declared, frame = cohort.schema.tables[made.name], cohort.tables[made.name]
    owners = cohort.owners(made.name)
    parents, time = np.zeros(len(owners), dtype=np.int64), None
    by: np.ndarray = np.arange(len(owners))
    if made.depth:
        parents = above[_parent(cohort, made.name)].place[cohort.parent_rows(made.name)]
        by = draws.permutation(len(owners))
        if declared.order_by is not None:
            time = as_number(frame[declared.order_by]).fill_null(np.nan).to_numpy()
            by = np.where(np.isnan(time), np.inf, time)
    order = np.lexsort((np.arange(len(owners)), by, parents, owners))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    kept = {column.name: column.gather(order) for column in door_columns(frame, declared.kept)}
    for column in references_of(declared):
        kept[flag_of(column)] = pl.Series(has_reference(cohort, made.name, column)[order]).cast(pl.String)
    part = _Sorted(
        columns=kept,
        owners=owners[order],
        parents=parents[order],
        place=place,
        time=None if time is None else time[order],
    )
    if part.time is not None:
        reference = above[_parent(cohort, made.name)].time if made.follows_parent else None
        _add_times(part, made, reference)
    return part


def has_reference(cohort: Cohort[Schema], table: str, column: str) -> np.ndarray:
    """Whether each row's reference leads to another row of the same patient, shape ``(rows,)``.

    Rows of other patients count as none, so that what a patient's rows become depends on that patient alone.
    """
    target = references_of(cohort.schema.tables[table])[column]
    key = cohort.schema.tables[target].key
    assert key is not None, "checked by the schema"
    rows, there = cohort.tables[table], cohort.tables[target]
    asked = pl.DataFrame({"key": rows[column].cast(pl.String), "owner": cohort.owners(table)})
    known = pl.DataFrame({"key": there[key].cast(pl.String), "of": cohort.owners(target)})
    found = asked.join(known, on="key", how="left", maintain_order="left")
    leads = (found["of"] == found["owner"]).fill_null(value=False)
    if target == table:
        leads &= (rows[column].cast(pl.String) != rows[key].cast(pl.String)).fill_null(value=False)
    return np.asarray(leads.to_numpy(), dtype=bool)


def _add_times(part: _Sorted, made: ConditionalTable, reference: np.ndarray | None) -> None:
    """Gaps, offsets, differences and elapsed time of the rows of one ordered table."""
    time = part.time
    assert time is not None, "an ordered table has times"
    new_patient, new_parent = changes(part.owners), changes(part.parents)
    before = np.concatenate([[np.nan], time[:-1]])[: len(time)]
    if GAP in made.own:
        part.columns[GAP] = _series(np.where(new_parent, np.nan, time - before))
    if OFFSET in made.own:
        origin = reference[part.parents] if reference is not None else 0.0
        part.columns[OFFSET] = _series(np.where(new_parent, time - origin, np.nan))
    if ELAPSED in made.history:
        starts = np.flatnonzero(new_patient)
        first = np.repeat(time[starts], np.diff(np.append(starts, len(time))))
        part.columns[ELAPSED] = _series(np.where(new_patient, np.nan, before - first))
        if LEFT in made.history:
            after = np.append(starts[1:], len(time))[: len(starts)]
            last = np.repeat(time[after - 1], after - starts)
            part.columns[LEFT] = _series(np.where(new_patient, np.nan, last - before))
            rows_left = np.repeat(after, after - starts) - np.arange(len(time))
            part.columns[PACE] = _series(np.where(new_patient, np.nan, (last - before) / rows_left))
            part.columns[ENDS] = pl.Series(time == last, dtype=pl.Boolean).cast(pl.String)
            part.columns[AT] = _series(time)
    for column, difference in made.times.items():
        part.columns[difference] = _series(part.columns[column].fill_null(np.nan).to_numpy() - time)


def changes(groups: IntArray) -> np.ndarray:
    """Where a sorted array begins another group, shape of it."""
    return np.concatenate([[True], groups[1:] != groups[:-1]])[: len(groups)]


def _series(values: np.ndarray) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64).fill_nan(None)


def _tell_parent(parts: Mapping[str, _Sorted], made: ConditionalTable, *, parent: str, patients: int) -> None:
    """Number of rows, and for patients the time of the first and from there to the last, in the parent's columns."""
    part, above = parts[made.name], parts[parent]
    counts = np.bincount(part.parents, minlength=len(above.owners))
    above.columns[f"[rows of {made.name}]"] = pl.Series(counts, dtype=pl.Float64)
    if part.time is None or made.depth > 1:
        return
    limit = above.columns[made.limit] if made.limit is not None else None
    times = (
        pl.DataFrame({"of": part.parents, "time": _series(part.time)})
        .group_by("of")
        .agg(first=pl.col("time").min(), last=pl.col("time").max())
    )
    every = pl.DataFrame({"of": np.arange(patients)}).join(times, on="of", how="left", maintain_order="left")
    if limit is None:
        above.columns[f"[first of {made.name}]"] = every["first"]
    else:
        above.columns[f"[after {made.name}]"] = limit - every["last"]
    above.columns[f"[span of {made.name}]"] = every["last"] - every["first"]
