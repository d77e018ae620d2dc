"""What every connector must do, as tests that a new one inherits.

A connector's test module has one class for each form that it writes::

    from conformance import ConnectorConformance

    class TestParquet(ConnectorConformance):
        def write(self, cohort: Cohort[Schema], place: str) -> str:
            TableFiles().write(cohort, Path(place), format="parquet")
            return place

and pytest runs all tests below on it. ``write`` puts the cohort at a new place and returns the SOURCE that
:func:`synthehr.connectors.records.read` reads it from. What may be overridden:

- ``cohort``: a connector whose tables are fixed (OMOP, MEDS) gives a cohort of its own schema;
- ``place``, a fixture: a new place as text that nothing lies at (the default is a path in ``tmp_path``); a database
  gives the URI of a new database or schema;
- ``shows``: whether anything can be seen at a place (the default: the path exists);
- ``read``: where the default, ``records.read``, needs more options;
- ``keeps_order``: False where rows may come back in another order (a database); keys then tell which is which.

``write`` runs in a process of its own in one test, by the class's name: it must not need fixtures.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from synthehr.cohort import Cohort
from synthehr.connectors import records
from synthehr.errors import ConfigError, DataError
from synthehr.schema.files import load_schema
from synthehr.schema.model import Schema

SCHEMA = load_schema(
    {
        "synthehr": 1,
        "subject": "patient",
        "tables": {
            "patient": {
                "key": "patient id",
                "columns": {
                    "patient id": {"kind": "id"},
                    "sex": {"kind": "category", "values": ["f", "m", "NA"], "nullable": True},
                    'note"; DROP TABLE patient; --': {"kind": "category", "nullable": True},
                    "age": {"kind": "integer", "nullable": True},
                    "weight": {"kind": "number", "nullable": True},
                    "died": {"kind": "boolean", "nullable": True},
                    "born": {"kind": "date", "bounds": ["1800-01-01", "2100-01-01"], "nullable": True},
                },
            },
            "visit": {
                "key": "visit_id",
                "parent": "patient",
                "foreign_key": "patient_id",
                "order_by": "begun",
                "columns": {
                    "visit_id": {"kind": "id"},
                    "patient_id": {"kind": "id"},
                    "begun": {"kind": "datetime", "bounds": ["1800-01-01", "2100-01-01"], "nullable": True},
                },
            },
            "lab": {
                "parent": "visit",
                "foreign_key": "visit",
                "columns": {
                    "visit": {"kind": "id"},
                    "select": {"kind": "code", "system": "http://loinc.org"},
                    "value": {"kind": "number", "per": "select", "nullable": True},
                },
            },
        },
    }
)
_TEXTS = [
    "a,b",
    'said "no"',
    "two\nlines",
    "win\r\ndows",
    "tab\there",
    "semi;colon",
    "it's",
    "Łódź 脈 😀",
    "1e5",
    "007",
]


def made_cohort() -> Cohort[Schema]:
    """Twelve patients with every kind of column, values that are hard to write, and nulls in every column but keys."""
    n = 12
    patient = pl.DataFrame(
        {
            "patient id": [f"{at:03d}" if at % 2 else f"p {at};'\"" for at in range(n)],
            "sex": [None, "NA", *["f", "m"] * 5],
            'note"; DROP TABLE patient; --': [*_TEXTS, None, "x"],
            "age": [0, -1, 2**53, -(2**53), None, 7, 8, 9, 10, 11, 12, 13],
            "weight": [0.1 + 0.2, 1e-300, -1.5e300, 5.0, None, 1 / 3, 1e22, 2.0**-1074, 123456.789, 0.0, 1e16, 3.0],
            "died": [True, False, None, *[True, False, None] * 3],
            "born": [dt.date(1800, 1, 1), dt.date(2100, 1, 1), None, *[dt.date(1970, 2, at) for at in range(1, 10)]],
        },
        schema_overrides={"age": pl.Int64, "weight": pl.Float64},
    )
    keys = patient["patient id"].to_list()
    moments = [dt.datetime(1999, 12, 31, 23, 59, 59, 999_999), None, dt.datetime(2000, 2, 29), dt.datetime(1800, 1, 1)]
    visit = pl.DataFrame(
        {
            "visit_id": [f"v{at}" for at in range(8)],
            "patient_id": [keys[at] for at in (0, 0, 1, 2, 3, 3, 11, 11)],
            "begun": moments * 2,
        },
        schema_overrides={"begun": pl.Datetime("us")},
    )
    lab = pl.DataFrame(
        {
            "visit": ["v7", "v0", "v0", "v1", "v5"],
            "select": ["718-7", "1", "1.0", "0012", "718-7"],
            "value": [1.25, None, -0.5, 1e-7, 140.0],
        }
    )
    return Cohort({"patient": patient, "visit": visit, "lab": lab}, schema=SCHEMA)


class BreakingTables(Mapping[str, pl.DataFrame]):
    """The tables of a cohort; whoever asks for the rows of the last one meets what ``end`` does."""

    def __init__(self, tables: Mapping[str, pl.DataFrame], end: Callable[[], None]) -> None:
        self._tables, self._end = dict(tables), end

    def __getitem__(self, name: str) -> pl.DataFrame:
        if name == list(self._tables)[-1]:
            self._end()
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tables)

    def __len__(self) -> int:
        return len(self._tables)


def breaking(cohort: Cohort[Schema], end: Callable[[], None]) -> Cohort[Schema]:
    """The cohort, except that its last table cannot be had."""
    broken = Cohort(cohort.tables, schema=cohort.schema)
    broken.tables = BreakingTables(cohort.tables, end)  # type: ignore[assignment]
    return broken


def assert_same(found: Cohort[Schema], expected: Cohort[Schema], *, in_order: bool = True) -> None:
    """The same tables, columns, types, nulls and values; the same rows belong to the same patients."""
    assert set(found.tables) == set(expected.tables)
    for name, frame in expected.tables.items():
        there = found.tables[name]
        assert there.schema == frame.schema, name
        if not in_order:
            assert_frame_equal(there, frame, check_exact=True, check_row_order=False)
        else:
            assert_frame_equal(there, frame, check_exact=True)
    if in_order:
        for name in expected.schema.links:
            assert found.owners(name).tolist() == expected.owners(name).tolist()


class ConnectorConformance(ABC):
    """Read → write → read is the identity on tables, keys, nulls and types; half a write never shows."""

    keeps_order: ClassVar[bool] = True

    @abstractmethod
    def write(self, cohort: Cohort[Schema], place: str) -> str:
        """Write the cohort at a new place; the SOURCE that it is read from."""

    def cohort(self) -> Cohort[Schema]:
        """Records that this form can hold, as they are when they were read."""
        return made_cohort()

    def read(self, source: str, *, schema: Schema) -> Cohort[Schema]:
        """The records in a SOURCE."""
        return records.read(source, schema=schema)

    def shows(self, place: str) -> bool:
        """Whether anything can be seen at a place."""
        return os.path.lexists(place)

    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return str(tmp_path / "first")

    @pytest.fixture
    def another_place(self, tmp_path: Path) -> str:
        return str(tmp_path / "second")

    def test_what_is_written_is_read_back_the_same(self, place: str) -> None:
        cohort = self.cohort()
        found = self.read(self.write(cohort, place), schema=cohort.schema)
        assert_same(found, cohort, in_order=self.keeps_order)

    def test_reading_writing_and_reading_again_changes_nothing(self, place: str, another_place: str) -> None:
        cohort = self.cohort()
        once = self.read(self.write(cohort, place), schema=cohort.schema)
        twice = self.read(self.write(once, another_place), schema=cohort.schema)
        assert_same(twice, once, in_order=self.keeps_order)

    def test_tables_without_rows_stay_tables(self, place: str) -> None:
        cohort = self.cohort()
        tables = {
            name: frame if cohort.schema.links[name].parent is None else frame.clear()
            for name, frame in cohort.tables.items()
        }
        empty = Cohort(tables, schema=cohort.schema)
        found = self.read(self.write(empty, place), schema=cohort.schema)
        assert set(found.tables) == set(tables)
        assert {n: f.schema for n, f in found.tables.items()} == {n: f.schema for n, f in tables.items()}
        assert all(found.tables[n].height == 0 for n, link in cohort.schema.links.items() if link.parent is not None)

    @pytest.mark.parametrize("failure", [DataError, RuntimeError, KeyboardInterrupt])
    def test_a_write_that_breaks_off_in_the_middle_shows_nothing(
        self, failure: type[BaseException], place: str
    ) -> None:
        def end() -> None:
            raise failure("broken off")

        with pytest.raises(failure):
            self.write(breaking(self.cohort(), end), place)
        assert not self.shows(place)
        self.write(self.cohort(), place)  # and is no hindrance to the next
        assert self.shows(place)

    def test_a_write_that_is_killed_in_the_middle_shows_nothing(self, place: str) -> None:
        module = sys.modules[type(self).__module__].__file__
        assert module is not None
        done = subprocess.run(
            [sys.executable, __file__, module, type(self).__name__, place],
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert not self.shows(place)

    def test_what_is_there_is_not_written_over(self, place: str) -> None:
        cohort = self.cohort()
        source = self.write(cohort, place)
        with pytest.raises((ConfigError, DataError)):
            self.write(cohort.take(np.arange(3)), place)
        assert_same(self.read(source, schema=cohort.schema), cohort, in_order=self.keeps_order)

    def test_a_source_that_is_not_there_is_refused_in_one_line(self, place: str) -> None:
        cohort = self.cohort()
        source = self.write(cohort, place)
        with pytest.raises(DataError) as told:
            self.read(source.replace(place, f"{place}-not-there"), schema=cohort.schema)
        assert "\n" not in str(told.value)


def _write_and_be_killed(module: str, name: str, place: str) -> None:
    """Write in this process, which is killed when the last table is asked for."""
    spec = importlib.util.spec_from_file_location(Path(module).stem, module)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    sys.path.insert(0, str(Path(module).parent))
    spec.loader.exec_module(loaded)
    connector = getattr(loaded, name)()
    connector.write(breaking(connector.cohort(), lambda: os.kill(os.getpid(), signal.SIGKILL)), place)


if __name__ == "__main__":
    _write_and_be_killed(*sys.argv[1:])
