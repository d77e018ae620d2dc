"""Names from schemas, suites and manifests are data in every format, never markup."""

from __future__ import annotations

import json
from xml.etree import ElementTree as Tree

import pytest

from synthehr.reporting.escape import markdown_text, printable
from synthehr.reporting.report import PrivacyClaim, Report

ATTACK = "<img src=x onerror=alert(1)>\x0b\"'|`\n\n# [x](javascript:alert(1)) ]]> \u202e"


@pytest.fixture(scope="module")
def folder(hostile, tmp_path_factory):
    claim = PrivacyClaim(
        epsilon=1.0,
        delta=1e-6,
        unit=ATTACK,
        neighbours=ATTACK,
        private=True,
        events=({"stage": ATTACK, "type": ATTACK, ATTACK: ATTACK},),
        release_digest=ATTACK,
    )
    report = Report(hostile, privacy=claim, provenance={ATTACK: {ATTACK: [ATTACK]}})
    return report.save(tmp_path_factory.mktemp("hostile") / "report")


def test_html_escapes_every_name(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert text.count("<script") == 1 and "<img" not in text
    assert "&lt;script&gt;" in text and "&lt;img src=x" in text
    assert not any(character in text for character in "\x00\x0b\u202e")


def test_junit_stays_well_formed(folder):
    text = (folder / "junit.xml").read_text(encoding="utf-8")
    assert "\x00" not in text
    assert Tree.fromstring(text).tag == "testsuites"


def test_markdown_renders_no_tag_link_or_extra_cell(hostile, folder, tmp_path):
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert "<script" not in text and "<img" not in text
    assert "](" not in text.replace("\\](", "").replace("]\\(", "")
    claim = PrivacyClaim(epsilon=1.0, delta=1e-6, private=False, why_not=ATTACK)
    said = (Report(hostile, privacy=claim, provenance={}).save(tmp_path / "r") / "report.md").read_text()
    assert "<img" not in said
    assert [line for line in said.splitlines() if line.startswith("# ")] == [said.splitlines()[0]]
    for line in (line for line in said.splitlines() if line.startswith("|")):
        assert line.replace("\\|", "").count("|") == 7


def test_json_holds_the_names_as_they_are(folder):
    contents = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert contents["privacy"]["unit"] == ATTACK


def test_printable_drops_what_xml_forbids_and_keeps_the_rest():
    assert printable("a\x00b\x1fc\ud800d\ufffee") == "a\ufffdb\ufffdc\ufffdd\ufffde"
    assert printable("é 漢 😀 \t\n") == "é 漢 😀 \t\n"


def test_markdown_text_is_one_line_without_markup():
    assert markdown_text("a\n# b") == "a \\# b"
    assert markdown_text("<b>|x|</b>") == "&lt;b&gt;\\|x\\|&lt;/b&gt;"
    assert markdown_text("see http://evil.example") == "see http:&#47;/evil.example"
