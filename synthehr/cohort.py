"""Cohort: the tables of a set of patients, held in polars and linked by keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
import polars as pl

from synthehr.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cohort", "Structure", "TableLink"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableLink:
    """How one table hangs in the tree of tables: its own key, its parent, and the key into it."""

    key: str | None = None
    parent: str | None = None
    foreign_key: str | None = None


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
        parent_key = self.schema.links[link.parent].key
        assert link.foreign_key is not None and parent_key is not None, "checked by the schema"
        numbered = self.tables[link.parent].select(pl.col(parent_key).alias("key")).with_row_index("at")
        at = frame.select(pl.col(link.foreign_key).alias("key")).join(
            numbered, on="key", how="left", maintain_order="left"
        )["at"]
        if at.null_count():
            raise DataError(
                f"foreign key {link.foreign_key!r} of table {table!r} must be a key of {link.parent!r}, "
                "but some rows point to none"
            )
        owners: np.ndarray = self._owner_rows(link.parent)[at.to_numpy()]
        return owners
