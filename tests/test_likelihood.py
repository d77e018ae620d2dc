"""The likelihood of a patient under a release's mixture."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.likelihood import Likelihood
from synthehr.privacy.partition import Values
from synthehr.schema.files import load_schema


def test_a_mixture_of_two_products_by_hand() -> None:
    categories = {"kind": "category", "values": ["a", "b"]}
    schema = load_schema(
        {"synthehr": 1, "subject": "p", "tables": {"p": {"columns": {"x": categories, "y": categories}}}}
    )
    cells = Values(values=("a", "b"), other=False, nullable=False)
    domain = [SimpleNamespace(name=name, cells=cells) for name in ("x", "y")]
    shares = [np.log([[0.9, 0.1], [0.2, 0.8]]), np.log([[0.5, 0.5], [0.3, 0.7]])]
    likelihood = Likelihood(SimpleNamespace(schema=schema, domain=domain), shares)  # type: ignore[arg-type]
    cohort = Cohort({"p": pl.DataFrame({"x": ["a", "b"], "y": ["a", "b"]})}, schema=schema)
    # a, a: (0.9 * 0.5 + 0.2 * 0.3) / 2; b, b: (0.1 * 0.5 + 0.8 * 0.7) / 2.
    first, second = likelihood(cohort, cohort.take(np.array([1])))
    assert np.exp(first).tolist() == pytest.approx([0.255, 0.305])
    assert np.exp(second).tolist() == pytest.approx([0.305])
