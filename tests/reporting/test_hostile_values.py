"""Hostile names and values of columns, in all four forms of a report, come out as the text that they are."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from synthehr.evaluation.suite import SuiteResult
from synthehr.reporting.document import BoughtProfile, PrivacyClaim, ReportDocument
from synthehr.reporting.publish import public_document
from synthehr.reporting.report import Report, save_document

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "image": '"><img src=x onerror=alert(1)>',
    "template": "{{7*7}}{% raw %}${7*7}",
    "newlines": "a\r\nb\n\n# c\n| d |",
    "right to left": "\u202egnp.exe\u2066 \u05d0\u05d1\u05d2 \u0627\u0628\u062c",
    "ten thousand letters": "x" * 10_000,
    "markdown": "[x](javascript:alert(1)) `code` **b** | ![i](http://e.example/i.png) <!-- ]]>",
    "controls": "a\x00b\x08c\x1bd\ufffe",
    "formula": "=HYPERLINK(1)",
}


def replaced(value: object, names: dict[str, str]) -> object:
    """The JSON value with these strings in the place of others, wherever one stands alone or inside brackets."""
    if isinstance(value, dict):
        return {key: replaced(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, names) for inner in value]
    if not isinstance(value, str):
        return value
    for old, new in names.items():
        if value == old:
            return new
        value = value.replace(f"[{old}]", f"[{new}]")
    return value


@pytest.fixture(scope="module", params=HOSTILE.values(), ids=HOSTILE.keys())
def attack(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def document(result: SuiteResult, claim: PrivacyClaim, attack: str) -> ReportDocument:
    """The report of a schema whose column, outcome and category have the hostile name."""
    bought = BoughtProfile(column="sex", labels=("female", "male"), bought=(0.5, 0.5), synthetic=(0.4, 0.6))
    report = Report(result, privacy=claim, provenance={"seed": 7}, bought=(bought,))
    contents = report.document.model_dump(mode="json")
    return ReportDocument.model_validate(replaced(contents, {"sex": attack, "female": attack, "died": attack}))


@pytest.fixture(scope="module", params=["internal", "public"])
def folder(request, document, tmp_path_factory) -> Path:
    shown = document if request.param == "internal" else public_document(document)
    return save_document(shown, tmp_path_factory.mktemp("hostile") / "report")


class Text(HTMLParser):
    """Tags and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.words.append(data)


def test_html_shows_it_as_text(folder, attack):
    page = Text()
    page.feed((folder / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("script") == 1 and "img" not in page.tags and page.handlers == []
    shown = "\x01".join(page.words)
    assert "7*7" not in attack or "{{7*7}}{% raw %}${7*7}" in shown
    assert not re.search("[\x00\x08\x1b\u202a-\u202e\u2066-\u2069\ufffe]", shown)
    assert "x" * 500 not in shown
    assert attack not in {HOSTILE["script"], HOSTILE["image"], HOSTILE["markdown"]} or attack[:50] in shown


def test_markdown_shows_it_as_text(folder):
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"<(script|img|!--)", text) and "](" not in text.replace("\\](", "")
    assert "{{" not in text and "http://" not in text
    assert [line for line in text.splitlines() if line.startswith("#")] == [text.splitlines()[0]]
    bars = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert bars == {5 if "For the public" in text else 7}
    assert len(text) < 20_000


def test_junit_stays_valid(folder):
    xmlschema = pytest.importorskip("xmlschema", reason="xmlschema is not installed")
    schema = xmlschema.XMLSchema(str(Path(__file__).with_name("junit.xsd")))
    assert [error.reason for error in schema.iter_errors(str(folder / "junit.xml"))] == []


def test_json_holds_it_as_it_is(folder, attack):
    contents = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    shown = contents["bought"] if contents["audience"] == "public" else contents["sections"]["columns"]
    assert attack in {column["column"] for column in shown}
    assert ReportDocument.model_validate(contents).model_dump(mode="json") == contents
