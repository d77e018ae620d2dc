"""What a pipeline sees of real evaluations: exit codes, waivers, checks that could not be made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import synthehr.outputs as outputs
import synthehr.randomness as randomness
from synthehr.cli import main


def gate(name: str, metric: str, section: str, bound: float, **more: object) -> dict:
    made = {"id": name, "section": section, "metric": metric, "statistic": "excess", "op": "<=", "bound": bound}
    return {**made, "rationale": "A gate of a test.", **more}


COPIES = gate("copies", "verbatim_copies", "privacy", 0.05)
COLUMNS = gate("columns", "one_way_tv", "fidelity", 0.1)


def waiver(until: str) -> dict:
    return {"until": until, "reason": "the study of 2025 is known to repeat", "by": "A. Steward"}


@pytest.fixture
def evaluate(clinic, tmp_path, capsys):
    """Runs ``synthehr evaluate`` with these gates; gives the exit code, the report's folder, and what was told."""

    def run(synthetic: str, *checks: dict, options: tuple[str, ...] = (), **more: object) -> tuple[int, Path, str]:
        suite = tmp_path / "suite.yaml"
        suite.write_text(yaml.safe_dump({"synthehr": 1, "suite": "mine", "checks": list(checks), **more}))
        given = {"train": "train.csv", "holdout": "holdout.csv", "synthetic": synthetic, "schema": "schema.yaml"}
        words = [word for name, file in given.items() for word in (f"--{name}", str(clinic / file))]
        code = main(["evaluate", *words, "--suite", str(suite), "-o", str(tmp_path / "report"), *options])
        told = capsys.readouterr()
        return code, tmp_path / "report", told.out + told.err

    return run


def test_a_cohort_that_passes_exits_0(evaluate):
    code, folder, _ = evaluate("good.csv", COLUMNS, COPIES)
    assert code == 0 and json.loads((folder / "report.json").read_text())["verdict"] == "pass"


def test_a_cohort_that_copies_exits_5(evaluate):
    code, folder, told = evaluate("copying.csv", COLUMNS, COPIES)
    assert code == 5 and "verdict: fail" in told
    assert "records may have leaked" in (folder / "report.md").read_text()


def test_a_gate_that_cannot_be_decided_exits_6(evaluate):
    # Half of a sample's excess lies above 0: no interval lies wholly within a bound of 0, nor past it.
    assert evaluate("good.csv", gate("columns", "one_way_tv", "fidelity", 0.0))[0] == 6


def test_a_check_that_could_not_be_made_exits_6_and_says_why(evaluate):
    code, folder, told = evaluate("good.csv", gate("rules", "rule_violations", "validity", 0.01))
    assert code == 6 and "declares no rule" in told
    assert "Could not be measured" in (folder / "report.html").read_text()


def test_a_waived_failure_exits_0_and_is_told_on_every_form(evaluate):
    code, folder, told = evaluate("copying.csv", COLUMNS, {**COPIES, "waiver": waiver("2999-12-31")})
    assert code == 0
    assert "verdict: pass (1 of 2 checks pass, 1 waived)" in told and "lets stand" not in told
    assert "fail, waived: copies: Waived until 2999-12-31 by A. Steward" in told
    assert "no check failed" not in (folder / "report.html").read_text()
    [check] = [one for one in json.loads((folder / "report.json").read_text())["checks"] if one["id"] == "copies"]
    assert (check["verdict"], check["counts_as"]) == ("fail", "pass")
    for name in ("report.html", "report.md", "junit.xml"):
        text = (folder / name).read_text().replace("\\", "")
        assert "Waived until 2999-12-31 by A. Steward: the study of 2025 is known to repeat" in text, name
    assert 'skipped="1"' in (folder / "junit.xml").read_text()
    assert "1 of them by a waiver" in (folder / "report.md").read_text()


def test_a_waived_failure_is_told_from_one_that_passed_in_json(evaluate):
    waived = {**COPIES, "waiver": waiver("2999-12-31")}
    code, _, told = evaluate("copying.csv", COLUMNS, waived, options=("--json",))
    columns, copies = json.loads(told)["checks"]
    assert code == 0 and columns["waiver"] == ""
    assert (copies["verdict"], copies["counts_as"]) == ("fail", "pass") and "A. Steward" in copies["waiver"]


def test_a_waiver_that_ended_exits_5_and_says_so(evaluate):
    code, folder, told = evaluate("copying.csv", COLUMNS, {**COPIES, "waiver": waiver("2001-01-01")})
    assert code == 5 and "Its waiver ended on 2001-01-01." in told
    assert "Its waiver ended on 2001-01-01." in (folder / "report.html").read_text()


@pytest.mark.parametrize("where", ["suite", "gate"])
def test_an_unknown_key_in_a_suite_exits_3_and_writes_nothing(evaluate, where):
    more = {"cheks": []} if where == "suite" else {}
    checks = [COLUMNS] if where == "suite" else [{**COLUMNS, "bond": 1}]
    code, folder, told = evaluate("good.csv", *checks, **more)
    assert code == 3 and not folder.exists()
    assert ("cheks" if where == "suite" else "bond") in told


def test_reports_are_shown_compared_and_published_from_the_command_line(evaluate, tmp_path, capsys):
    _, bad, _ = evaluate("copying.csv", COLUMNS, COPIES)
    bad = bad.rename(tmp_path / "bad")
    _, good, _ = evaluate("good.csv", COLUMNS, COPIES)
    assert main(["report", "show", str(bad)]) == 0
    assert "Synthetic cohort: fail" in capsys.readouterr().out
    assert main(["report", "diff", str(bad), str(good), "--gate"]) == 0
    assert "better: copies" in capsys.readouterr().out
    assert main(["report", "diff", str(good), str(bad), "--gate"]) == 5
    assert main(["report", "diff", str(good), str(bad), "--markdown"]) == 0
    assert "| worse | copies |" in capsys.readouterr().out
    page = tmp_path / "trend.html"
    assert main(["report", "trend", str(bad), str(good), "-o", str(page)]) == 0
    assert "FAIL" in capsys.readouterr().out and "<svg" in page.read_text()
    public = tmp_path / "public"
    assert main(["report", "show", str(good), "--audience", "public", "-o", str(public)]) == 0
    assert json.loads((public / "report.json").read_text())["audience"] == "public"


def test_a_report_that_is_none_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "report.json").write_text('{"verdict": "splendid"}')
    for path in (tmp_path, tmp_path / "nowhere"):
        assert main(["report", "show", str(path)]) == 3
        assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "report.json").write_text("{")
    assert main(["report", "show", str(tmp_path)]) == 3


def test_the_draws_of_a_public_evaluation_are_of_a_seed_that_is_not_told(clinic, tmp_path, capsys, monkeypatch):
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"synthehr": 1, "suite": "mine", "checks": [COLUMNS]}))
    drawn, used = [], []
    monkeypatch.setattr(randomness, "fresh_seed", lambda: drawn.append(31_415_926) or drawn[-1])
    run = outputs.evaluate
    monkeypatch.setattr(outputs, "evaluate", lambda **options: used.append(options["seed"]) or run(**options))
    given = {"train": "train.csv", "holdout": "holdout.csv", "synthetic": "good.csv", "schema": "schema.yaml"}
    words = [word for name, file in given.items() for word in (f"--{name}", str(clinic / file))]
    for audience, folder in (("public", tmp_path / "public"), ("internal", tmp_path / "internal")):
        words_of = [*words, "--suite", str(suite), "--audience", audience, "-o", str(folder)]
        assert main(["evaluate", *words_of]) == 0
    assert used == [31_415_926, 0] and drawn == [31_415_926]
    public = "".join(path.read_text(encoding="utf-8") for path in sorted((tmp_path / "public").iterdir()))
    assert "31415926" not in public + capsys.readouterr().out
    assert json.loads((tmp_path / "internal" / "report.json").read_text())["seed"] == 0
