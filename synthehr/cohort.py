"""Cohort: the tables of a set of patients, held in polars and linked by keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import polars as pl

from synthehr.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cohort", "Structure", "TableLink"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLink:
    """How one table hangs in the tree of tables: its own key, its parent, the key into it, and what orders its rows."""

    key: str | None = None
    parent: str | None = None
    foreign_key: str | None = None
    order_by: str | None = None


class Structure(Protocol):
    """What a cohort needs to know of its schema."""

    @property
    def subject(self) -> str:
        """Name of the root table, whose rows are the patients."""

    @property
    def links(self) -> Mapping[str, TableLink]:
        """The link of every table, by name."""


S = TypeVar("S", bound=Structure)


class Cohort(Generic[S]):
    """Tables of records and the schema that links them to patients.

    Attributes:
        tables: one polars DataFrame per table, by name. The root table has one row per patient.
        schema: the structure the tables follow.

    Raises:
        DataError: a table or key column is missing or not declared, a key repeats or is null, or a row
            belongs to no patient.
    """

    __slots__ = ("_owners", "schema", "tables")

    def __init__(self, tables: Mapping[str, pl.DataFrame], *, schema: S) -> None:
        self.tables: dict[str, pl.DataFrame] = dict(tables)
        self.schema = schema
        for name in schema.links:
            if name not in self.tables:
                raise DataError(f"table {name!r} is declared in the schema but is not in the data")
        for name in self.tables:
            if name not in schema.links:
                raise DataError(f"table {name!r} is in the data but is not declared in the schema")
        self._owners = {name: self._owner_rows(name) for name in schema.links}

    @property
    def root(self) -> pl.DataFrame:
        """The root table: one row per patient."""
        return self.tables[self.schema.subject]

    def __len__(self) -> int:
        """Number of patients. Private when the cohort is."""
        return self.root.height

    def __repr__(self) -> str:
        """Names of the tables; no counts, since those of real records are private."""
        return f"Cohort(tables={sorted(self.tables)})"

    def _repr_html_(self) -> str:
        """Tables and their columns, for a notebook; no value and no count, since those of real records are private."""
        rows = []
        for name, link in self.schema.links.items():
            hangs = f" of {escape(link.parent)} by {escape(str(link.foreign_key))}" if link.parent else ""
            columns = ", ".join(escape(column) for column in self.tables[name].columns)
            rows.append(f"<tr><th scope='row'>{escape(name)}{hangs}</th><td>{columns}</td></tr>")
        head = "<tr><th scope='col'>table</th><th scope='col'>columns</th></tr>"
        told = "Values and counts are not shown: those of real records are private."
        return f"<table><caption>{type(self).__name__}. {told}</caption>{head}{''.join(rows)}</table>"

    def owners(self, table: str) -> np.ndarray:
        """For each row of ``table``, the row number of its patient in the root table. Shape ``(rows,)``."""
        return self._owners[table]

    def take(self, patients: np.ndarray) -> Cohort[S]:
        """The cohort of the patients at these row numbers of the root table, all their rows with them.

        Rows of child tables keep their order.
        """
        chosen = np.asarray(patients, dtype=np.int64)
        if np.unique(chosen).size != chosen.size:
            raise ConfigError("a patient can be taken once only")
        member = np.zeros(len(self), dtype=bool)
        member[chosen] = True
        tables = {
            name: frame[chosen] if name == self.schema.subject else frame.filter(pl.Series(member[self._owners[name]]))
            for name, frame in self.tables.items()
        }
        return Cohort(tables, schema=self.schema)

    def bounded(self, most: Mapping[str, int], *, draws: np.random.Generator) -> Cohort[S]:
        """The cohort with at most ``most[table]`` rows of each patient in each of these tables.

        From the root down: rows whose parent row was cut go first; of what is left a patient keeps a uniformly random
        contiguous window in the order of ``order_by`` (ties in file order, missing last) where the table has one, else
        a uniformly random subset. Each patient's choice is independent of all other patients. Kept rows keep their
        file order. Tables not named lose orphans alone, and the root loses nothing.

        Args:
            most: largest number of rows by table.
            draws: where the choice comes from.

        Raises:
            ConfigError: a table is not in the schema, or may keep less than one row.
            DataError: a column that orders a table is not in the data.
        """
        for table, rows in most.items():
            if table not in self.schema.links:
                raise ConfigError(f"rows of table {table!r} cannot be bounded: the schema does not declare it")
            if rows < 1:
                raise ConfigError(f"a patient must keep at least 1 row of table {table!r}, not {rows}")
        stays: dict[str, np.ndarray] = {}
        for table in self._from_the_root_down():
            link = self.schema.links[table]
            if link.parent is None:
                stays[table] = np.ones(len(self), dtype=bool)
                continue
            stay = stays[link.parent][self.parent_rows(table)]
            if table in most:
                rows_left = np.flatnonzero(stay)
                stay[rows_left] = _chosen(
                    self._owners[table][rows_left],
                    by=self._order(table)[rows_left] if link.order_by is not None else None,
                    most=most[table],
                    draws=draws,
                )
            stays[table] = stay
        tables = {name: frame.filter(pl.Series(stays[name])) for name, frame in self.tables.items()}
        return Cohort(tables, schema=self.schema)

    def split(self, *, holdout: float = 0.2, seed: int | None = None) -> tuple[Cohort[S], Cohort[S]]:
        """Split by patient into (train, holdout), uniformly at random.

        Args:
            holdout: share of the patients, in (0, 1), that goes to the holdout.
            seed: makes the split repeatable. The split is no part of the privacy guarantee.

        Raises:
            ConfigError: ``holdout`` is outside (0, 1), or ``seed`` is negative.
            DataError: one of the two parts would be empty.
        """
        if not 0.0 < holdout < 1.0:
            raise ConfigError(f"holdout must lie strictly between 0 and 1, not {holdout}")
        if seed is not None and seed < 0:
            raise ConfigError(f"seed must be a whole number from 0 on, not {seed}")
        order = np.random.default_rng(seed).permutation(len(self))
        cut = round(holdout * len(self))
        if cut == 0 or cut == len(self):
            raise DataError("too few patients to split into train and holdout: use more patients or another share")
        return self.take(np.sort(order[cut:])), self.take(np.sort(order[:cut]))

    def to_pandas(self) -> dict[str, pd.DataFrame]:
        """Each table as a pandas DataFrame."""
        return {name: frame.to_pandas() for name, frame in self.tables.items()}

    def _owner_rows(self, table: str) -> np.ndarray:
        link = self.schema.links[table]
        frame = self.tables[table]
        for column in (link.key, link.foreign_key):
            if column is not None and column not in frame.columns:
                raise DataError(f"column {column!r} is declared as a key of table {table!r} but is not in the data")
        if link.key is not None:
            if frame[link.key].null_count():
                raise DataError(f"key {link.key!r} of table {table!r} must not be missing")
            if frame[link.key].n_unique() != frame.height:
                raise DataError(
                    f"key {link.key!r} of table {table!r} must be unique, but it repeats: "
                    "declare repeated rows as a table with a parent"
                )
        if link.parent is None:
            return np.arange(frame.height, dtype=np.int64)
        owners: np.ndarray = self._owner_rows(link.parent)[self.parent_rows(table)]
        return owners

    def parent_rows(self, table: str) -> np.ndarray:
        """For each row of a child table the row number of its parent row, shape ``(rows,)``.

        Raises:
            DataError: a row points to no row of the parent.
        """
        link = self.schema.links[table]
        assert link.parent is not None, "the root has none"
        parent_key = self.schema.links[link.parent].key
        assert link.foreign_key is not None and parent_key is not None, "checked by the schema"
        numbered = self.tables[link.parent].select(pl.col(parent_key).alias("key")).with_row_index("at")
        at = (
            self.tables[table]
            .select(pl.col(link.foreign_key).alias("key"))
            .join(numbered, on="key", how="left", maintain_order="left")["at"]
        )
        if at.null_count():
            raise DataError(
                f"foreign key {link.foreign_key!r} of table {table!r} must be a key of {link.parent!r}, "
                "but some rows point to none"
            )
        return at.to_numpy()

    def _from_the_root_down(self) -> list[str]:
        def depth(table: str) -> int:
            parent = self.schema.links[table].parent
            return 0 if parent is None else 1 + depth(parent)

        return sorted(self.schema.links, key=depth)

    def _order(self, table: str) -> pl.Series:
        column = self.schema.links[table].order_by
        frame = self.tables[table]
        if column is None or column not in frame.columns:
            raise DataError(f"column {column!r} is declared to order table {table!r} but is not in the data")
        return frame[column]


def _chosen(owners: np.ndarray, *, by: pl.Series | None, most: int, draws: np.random.Generator) -> np.ndarray:
    """Which rows stay, shape ``(rows,)``: of each owner at most ``most``, a window by ``by`` or without it a subset."""
    counts = np.bincount(owners)
    if by is None:
        shuffled = draws.permutation(owners.size)
        sequence = shuffled[np.argsort(owners[shuffled], kind="stable")]
        start = np.zeros(counts.size, dtype=np.int64)
    else:
        numbered = pl.DataFrame({"owner": owners, "by": by, "at": np.arange(owners.size)})
        ordered = numbered.sort("owner", "by", nulls_last=True, maintain_order=True)
        sequence = ordered["at"].to_numpy()
        start = draws.integers(0, np.maximum(counts - most, 0), endpoint=True)
    place = np.arange(owners.size) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = np.repeat(start, counts)
    stays = np.zeros(owners.size, dtype=bool)
    stays[sequence[(begins <= place) & (place < begins + most)]] = True
    return stays
