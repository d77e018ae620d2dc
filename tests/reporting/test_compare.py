"""Two reports side by side, and a row of them."""

from __future__ import annotations

import pytest

from synthehr.errors import ConfigError
from synthehr.reporting.compare import compare, render_trend, trend_rows
from synthehr.reporting.document import ReportDocument


def changed(document: ReportDocument, at: int, **update) -> ReportDocument:
    """The document with one check changed, and the verdict that follows."""
    checks = [check.model_dump() for check in document.checks]
    checks[at] |= update
    counted = {check["counts_as"] for check in checks}
    verdict = "fail" if "fail" in counted else "inconclusive" if "inconclusive" in counted else "pass"
    return ReportDocument.model_validate({**document.model_dump(), "checks": checks, "verdict": verdict})


@pytest.fixture
def before(report) -> ReportDocument:
    return changed(report.document, 0, verdict="pass", counts_as="pass", excess=0.0, excess_ci=(-0.01, 0.01))


def test_the_same_report_twice_has_no_change(before):
    found = compare(before, before)
    assert {change.kind for change in found.changes} == {"same"} and found.notes == () and not found.worse
    assert f"{len(before.checks)} of {len(before.checks)} checks are the same" in found.to_text()


def test_a_verdict_that_falls_is_worse_and_stands_first(before):
    after = changed(before, 0, verdict="inconclusive", counts_as="inconclusive")
    found = compare(before, after)
    assert found.worse and (found.changes[0].id, found.changes[0].kind) == (before.checks[0].id, "worse")
    assert not compare(after, before).worse and compare(after, before).changes[0].kind == "better"


def test_a_number_has_moved_if_the_intervals_share_nothing(before):
    # -0.01..0.01 and 0.02..0.03 share no number; -0.01..0.01 and 0.01..0.03 share 0.01.
    apart = changed(before, 0, excess=0.025, excess_ci=(0.02, 0.03))
    touching = changed(before, 0, excess=0.02, excess_ci=(0.01, 0.03))
    assert compare(before, apart).changes[0].kind == "moved" and not compare(before, apart).worse
    assert {change.kind for change in compare(before, touching).changes} == {"same"}


def test_a_check_that_is_gone_is_worse_and_a_new_one_is_not(before):
    fewer = before.model_copy(update={"checks": before.checks[1:]})
    assert compare(before, fewer).changes[0].kind == "gone" and compare(before, fewer).worse
    assert compare(fewer, before).changes[0].kind == "new" and not compare(fewer, before).worse


def test_what_cannot_be_compared_is_told(before, report):
    other = changed(before.model_copy(update={"suite": "mine"}), 0, bound=0.5)
    told = compare(before, other).to_text()
    assert "The suites differ: 'ci' and 'mine'." in told
    assert f"held against another bound than before: {before.checks[0].id}" in told
    assert "the public form" in compare(before, report.public()).to_text()


def test_markdown_of_a_comparison_escapes_ids(before):
    after = changed(before, 0, verdict="fail", counts_as="fail", id="<b>|x|")
    text = compare(before, after).to_markdown()
    assert "<b>" not in text and "&lt;b&gt;\\|x\\|" in text


def test_json_of_a_comparison_has_both_sides(before):
    contents = compare(before, changed(before, 0, verdict="fail", counts_as="fail")).to_json()
    assert contents["verdict"][1] == "fail" and contents["worse"] is True
    first = contents["checks"][0]
    assert (first["before"]["verdict"], first["after"]["verdict"]) == ("pass", "fail")


def test_a_trend_has_a_row_a_check_and_a_column_a_report(before):
    fewer = before.model_copy(update={"checks": before.checks[1:]})
    rows = dict(trend_rows([before, fewer, before]))
    assert list(rows) == [check.id for check in before.checks]
    assert [entry is None for entry in rows[before.checks[0].id]] == [False, True, False]
    with pytest.raises(ConfigError, match="at least one"):
        trend_rows([])


def test_the_page_of_a_trend_escapes_and_carries_the_stamp(before):
    page = render_trend([before, before], names=["<script>1</script>", "b"])
    assert "<script" not in page and before.stamp in page and page.count("<figure") >= 1
