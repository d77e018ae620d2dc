"""Differentially private synthetic electronic health records.

Public names are loaded when they are first used: importing the package loads neither torch nor polars.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synthehr.cohort import Cohort
    from synthehr.comparison import baseline
    from synthehr.errors import (
        BudgetExceededError,
        ConfigError,
        DataError,
        InternalError,
        SchemaError,
        SynthehrError,
    )
    from synthehr.outputs import Synthesis, synthesize
    from synthehr.pipeline import evaluate, fit, load_release, read
    from synthehr.release import Release, SyntheticCohort
    from synthehr.reporting.publish import assert_fit_to_publish
    from synthehr.reporting.report import Report
    from synthehr.schema.files import load_schema
    from synthehr.schema.model import Schema

__all__ = [
    "BudgetExceededError",
    "Cohort",
    "ConfigError",
    "DataError",
    "InternalError",
    "Release",
    "Report",
    "Schema",
    "SchemaError",
    "SynthehrError",
    "Synthesis",
    "SyntheticCohort",
    "assert_fit_to_publish",
    "baseline",
    "evaluate",
    "fit",
    "load_release",
    "load_schema",
    "read",
    "synthesize",
]

__version__ = version("synthehr")

_HOMES = {
    "Cohort": "synthehr.cohort",
    "Release": "synthehr.release",
    "Report": "synthehr.reporting.report",
    "Schema": "synthehr.schema.model",
    "SyntheticCohort": "synthehr.release",
    "Synthesis": "synthehr.outputs",
    "assert_fit_to_publish": "synthehr.reporting.publish",
    "baseline": "synthehr.comparison",
    "evaluate": "synthehr.pipeline",
    "fit": "synthehr.pipeline",
    "load_release": "synthehr.pipeline",
    "load_schema": "synthehr.schema.files",
    "read": "synthehr.pipeline",
    "synthesize": "synthehr.outputs",
}


def __getattr__(name: str) -> object:
    """Load a public name from where it lives."""
    if name not in __all__:
        raise AttributeError(f"module 'synthehr' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "synthehr.errors")), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
