from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import stat
from html.parser import HTMLParser
from xml.etree import ElementTree as Tree

import jsonschema
import pytest

from synthehr.errors import ConfigError
from synthehr.evaluation.demands import DEMANDS
from synthehr.evaluation.metrics import METRICS
from synthehr.reporting import report as report_module
from synthehr.reporting.document import ReportDocument
from synthehr.reporting.report import PrivacyClaim, Report
from synthehr.reporting.words import METRIC_WORDS, power, promise

FILES = {"report.json", "report.html", "report.md", "junit.xml"}


def test_a_report_is_four_files_that_only_the_owner_reads(report, tmp_path):
    folder = report.save(tmp_path / "deep" / "report")
    assert {path.name for path in folder.iterdir()} == FILES
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.parent.iterdir()] == ["report"]


def test_json_validates_against_its_published_schema(report, tmp_path):
    contents = json.loads((report.save(tmp_path / "r") / "report.json").read_text())
    jsonschema.validate(contents, ReportDocument.model_json_schema(mode="serialization"))
    assert contents == report.to_json()
    assert ReportDocument.model_validate(contents) == report.document


def test_json_keeps_the_contract(report):
    contents = report.to_json()
    assert {"verdict", "privacy", "checks", "sections", "provenance"} <= set(contents)
    assert {"epsilon", "delta", "unit", "claimed", "audited_epsilon_lower_bound"} <= set(contents["privacy"])
    assert contents["privacy"]["audited_epsilon_lower_bound"] is None
    named = [
        "id",
        "section",
        "metric",
        "scope",
        "value",
        "ci",
        "reference",
        "op",
        "bound",
        "direction",
        "verdict",
        "why",
    ]
    for check in contents["checks"]:
        assert set(named) <= set(check)
        if check["value"] is not None:
            assert check["ci"][0] <= check["value"] <= check["ci"][1]
    assert contents["verdict"] == report.verdict


def test_numbers_that_are_not_finite_become_null(result, tmp_path):
    provenance = {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": float("-inf")}, "path": tmp_path}
    contents = Report(result, privacy=None, provenance=provenance).to_json()
    assert contents["provenance"] == {"a": None, "b": [None, 1.5], "c": {"d": None}, "path": str(tmp_path)}
    json.dumps(contents, allow_nan=False)


@pytest.mark.parametrize("there", ["file", "full folder"])
def test_what_is_there_is_not_overwritten(report, tmp_path, there):
    path = tmp_path / "report"
    if there == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="must be new or empty"):
        report.save(path)
    assert (path if there == "file" else path / "mine.txt").read_text() == "mine"


def test_an_empty_folder_is_taken(report, tmp_path):
    assert {path.name for path in report.save(tmp_path).iterdir()} == FILES


def test_the_folder_appears_whole_or_not_at_all(report, tmp_path, monkeypatch):
    def full_disk(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_module.Path, "rename", full_disk)
    with pytest.raises(ConfigError, match="No space left"):
        report.save(tmp_path / "report")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(report, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        report.save(tmp_path / "report")


def test_a_parent_that_is_a_file_is_refused(report, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        report.save(tmp_path / "file" / "report")


def test_the_text_form_holds_no_number(report):
    assert repr(report) == f"Report(suite='ci', verdict='{report.verdict}')"


def test_every_metric_has_words():
    assert set(METRIC_WORDS) >= {*METRICS, *DEMANDS}
    assert all(words.title and words.failed.endswith(".") and words.question for words in METRIC_WORDS.values())


class Page(HTMLParser):
    """Tags, texts and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def page_of(report: Report, tmp_path) -> Page:
    return Page((report.save(tmp_path / "page") / "report.html").read_text(encoding="utf-8"))


def test_html_needs_no_network_and_lets_no_script_run_but_its_own(report, tmp_path):
    page = page_of(report, tmp_path)
    assert not {"link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert [attributes for tag, attributes in page.tags if tag == "script"] == [{}]
    [policy] = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    text = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy and policy.startswith("default-src 'none';")
    for _, attributes in page.tags:
        assert not {"src", "srcset", "onload", "onclick"} & set(attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in "".join(page.text) and "@import" not in "".join(page.text)


def test_html_can_be_read_without_seeing_it(report, tmp_path):
    page = page_of(report, tmp_path)
    tags = [tag for tag, _ in page.tags]
    assert ("html", {"lang": "en"}) in page.tags
    assert tags.count("h1") == 1 and tags.count("main") == 1 and tags.count("title") >= 1
    levels = [int(tag[1]) for tag in tags if tag in {"h1", "h2", "h3"}]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
        if attributes.get("role") in {"img", "region"}:
            assert attributes.get("aria-label")
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {a["href"][1:] for tag, a in page.tags if tag == "a"} <= targets
    assert {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a} <= targets
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_html_says_what_matters_first(report, tmp_path):
    text = " ".join(" ".join(page_of(report, tmp_path).text).split())
    order = [
        "For the custodian: computed on real records, not itself private.",
        "What needs attention",
        "What was promised to patients",
        "What this does not prove",
        "Where the cohorts and the code came from",
        "The reference is the same number with the holdout",
    ]
    places = [text.index(piece) for piece in order]
    assert places == sorted(places)
    assert "about 20, except" in text and "1 in 1 000 000" in text


def test_the_html_is_the_same_each_time(report, tmp_path):
    first, second = (report.save(tmp_path / name) / "report.html" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_no_release_means_no_claim(result, tmp_path):
    report = Report(result, privacy=None, provenance={})
    privacy = report.to_json()["privacy"]
    assert (privacy["claimed"], privacy["epsilon"]) == (False, None)
    folder = report.save(tmp_path / "r")
    assert "No release was given" in (folder / "report.html").read_text()
    assert "**No privacy guarantee.** No release was given" in (folder / "report.md").read_text()


def test_a_release_that_is_not_private_says_why(result, tmp_path):
    claim = PrivacyClaim.model_validate(
        {
            "epsilon": 3.0,
            "delta": 1e-6,
            "private": False,
            "why_not": "noise was made for a test",
            "later_key": 1,
        }
    )
    folder = Report(result, privacy=claim, provenance={}).save(tmp_path / "r")
    assert json.loads((folder / "report.json").read_text())["privacy"]["claimed"] is False
    for name in ("report.html", "report.md"):
        assert "noise was made for a test" in (folder / name).read_text()


def test_an_infinite_epsilon_is_no_claim(result):
    claim = PrivacyClaim.model_validate({"epsilon": float("inf"), "delta": 0.0})
    privacy = Report(result, privacy=claim, provenance={}).to_json()["privacy"]
    assert (privacy["claimed"], privacy["epsilon"]) == (False, None)


def test_events_keep_their_parameters(report):
    events = report.to_json()["privacy"]["events"]
    assert events[1] == {
        "stage": "training",
        "type": "PoissonSampledGaussian",
        "count": 400,
        "sampling_probability": 0.02,
        "noise_multiplier": 1.5,
    }


@pytest.mark.parametrize(
    ("epsilon", "words"), [(0.0, "about 1,"), (1.0, "about 2.7,"), (6.0, "about 400,"), (50.0, "nothing")]
)
def test_the_promise_in_words(result, epsilon, words):
    claim = PrivacyClaim(epsilon=epsilon, delta=1e-6, unit="patient", neighbours="add-or-remove-one")
    said = promise(Report(result, privacy=claim, provenance={}).document.privacy)
    assert words in said and "adding or removing all records of any one patient" in said


def test_small_numbers_are_written_as_powers_of_ten():
    assert [power(1e-6), power(2.5e-7), power(0.01), power(0.0)] == ["10⁻⁶", "2.5 · 10⁻⁷", "0.01", "0"]


def test_markdown_fits_one_screen(report, tmp_path):
    lines = (report.save(tmp_path / "r") / "report.md").read_text().splitlines()
    assert lines[0] == "# ❌ Synthetic cohort: fail"
    assert len(lines) <= 40
    assert lines[-1] == "_For the custodian: computed on real records, not itself private._"


def test_junit_has_a_suite_a_section_and_a_case_a_check(report, tmp_path):
    root = Tree.parse(report.save(tmp_path / "r") / "junit.xml").getroot()
    assert [suite.get("name") for suite in root] == list(dict.fromkeys(check.section for check in report.checks))
    cases = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    tags = {"fail": ["failure"], "inconclusive": ["failure"], "pass": []}
    for check in report.checks:
        lets_stand = check.verdict == "inconclusive" and check.counts_as == "pass"
        assert cases[check.id] == (["skipped"] if lets_stand else tags[check.counts_as])
    assert sum(int(suite.get("tests")) for suite in root) == len(report.checks)
    assert sum(int(suite.get("failures")) for suite in root) == sum(one.counts_as != "pass" for one in report.checks)
    assert {case.get("type") for case in root.iter("failure")} <= {"fail", "inconclusive"}
    assert all("bound" in case.get("message") or "excess" in case.get("message") for case in root.iter("failure"))


def luminance(colour: str) -> float:
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_enough_in_light_and_dark(report, tmp_path):
    # WCAG 2.2: 4.5 for text, 3 for graphics.
    text = (report.save(tmp_path / "r") / "report.html").read_text(encoding="utf-8")
    themes = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{(.*?)\}", text, re.S)
    ]
    assert len(themes) == 3
    for theme in themes[:2]:
        for ground in ("paper", "card"):
            assert all(contrast(theme[ink], theme[ground]) >= 4.5 for ink in ("ink", "muted", "synthetic"))
            assert all(contrast(theme[mark], theme[ground]) >= 3 for mark in ("real", "synthetic", "heat"))
        for verdict in ("pass", "fail", "inconclusive"):
            assert contrast(theme[verdict], theme[f"{verdict}-wash"]) >= 4.5
