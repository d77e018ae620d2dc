"""What a notebook shows of reports and cohorts."""

from __future__ import annotations

import html
import re

import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.errors import ConfigError
from synthehr.schema.files import load_schema


def test_a_report_shows_itself_in_a_frame_that_reaches_nothing_else(report):
    shown = report._repr_html_()
    assert shown.startswith("<iframe") and 'sandbox="allow-scripts"' in shown
    source = re.search(r'srcdoc="([^"]*)"', shown)
    assert source is not None and "What needs attention" in html.unescape(source[1])


def test_every_plot_is_a_figure(report, tmp_path):
    figures = report.figures()
    assert {"pairs", "discriminator", "outcomes", "column:age", "column:sex"} <= set(figures)
    page = figures["pairs"].save(tmp_path / "pairs.html").read_text(encoding="utf-8")
    assert "<svg" in page and "<script" not in page and report.document.stamp in page
    assert figures["pairs"]._repr_html_().startswith("<iframe")
    assert repr(figures["column:age"]) == "Figure('column:age': Distribution of age)"
    with pytest.raises(ConfigError, match="cannot be written"):
        figures["pairs"].save(tmp_path / "pairs.html")


def test_a_cohort_shows_names_and_neither_values_nor_counts():
    schema = load_schema(
        {
            "synthehr": 1,
            "subject": "p",
            "tables": {
                "p": {
                    "key": "id",
                    "columns": {"id": {"kind": "id"}, "<b>town": {"kind": "category", "discover": True}},
                },
                "v": {
                    "parent": "p",
                    "foreign_key": "id",
                    "columns": {"id": {"kind": "id"}, "weight": {"kind": "number", "bounds": [0, 300]}},
                },
            },
        }
    )
    towns = pl.Series("<b>town", ["Lonelyville"] * 37, dtype=pl.Enum(["Lonelyville"]))
    tables = {
        "p": pl.DataFrame([pl.Series("id", range(37)), towns]),
        "v": pl.DataFrame({"id": [1, 1], "weight": [71.3, 72.9]}),
    }
    shown = Cohort(tables, schema=schema)._repr_html_()
    for word in ("Lonelyville", "37", "36", "71.3", "72.9", "<b>town"):
        assert word not in shown, word
    assert "&lt;b&gt;town" in shown and "weight" in shown and "of p by id" in shown
