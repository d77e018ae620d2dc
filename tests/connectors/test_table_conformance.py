"""Files of tables keep what every connector must keep."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from conformance import ConnectorConformance

from synthehr.cohort import Cohort
from synthehr.connectors.files import TableFiles
from synthehr.schema.model import Schema


class _Files(ConnectorConformance):
    format: ClassVar[str]

    def write(self, cohort: Cohort[Schema], place: str) -> str:
        TableFiles().write(cohort, Path(place), format=self.format)
        return place


class TestParquet(_Files):
    format = "parquet"


class TestCsv(_Files):
    format = "csv"


class TestTsv(_Files):
    format = "tsv"


class TestArrow(_Files):
    format = "arrow"
