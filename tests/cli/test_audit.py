"""``synthehr audit`` as a user runs it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from synthehr.auditing.verb import MECHANISMS, audit
from synthehr.cli import main
from synthehr.cli.audit import MECHANISMS as OFFERED
from synthehr.errors import ConfigError
from synthehr.evaluation.audit import EpsilonBound
from synthehr.evaluation.audit_result import Audited, audit_result

AUDITED = {
    "name": "audited",
    "description": "d",
    "max_epsilon": 10,
    "delta_ratio": 1,
    "suite": "met.yaml",
    "audit": True,
}
MET = """
synthehr: 1
suite: met
checks:
  - {id: a, section: fidelity, metric: one_way_tv, statistic: value, op: <=, bound: 1, rationale: always met}
"""
PARTS = ["--train", "out/split/train", "--holdout", "out/split/holdout", "--synthetic", "out/synthetic"]
EVALUATE = ["evaluate", *PARTS, "--release", "out/release", "--suite", "met.yaml"]


def test_a_mechanism_is_audited_into_a_report_that_says_what_was_certified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    code = main(["audit", "--mechanism", "count", "--epsilon", "2", "--runs", "300", "--json", "-o", str(out)])
    told = json.loads(capsys.readouterr().out)
    document = json.loads((out / "report.json").read_text())
    assert code == 0
    assert told["audited_epsilon_lower_bound"] == document["privacy"]["audited_epsilon_lower_bound"] <= 2.0
    assert told["claimed"] == 2.0 < told["ceiling"]
    assert document["checks"][0]["section"] == "audit"
    assert "no real record" in document["stamp"]
    assert sorted(file.name for file in out.iterdir()) == ["junit.xml", "report.html", "report.json", "report.md"]


def test_what_the_command_offers_is_what_there_is() -> None:
    assert set(OFFERED) == set(MECHANISMS)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "name what to audit"),
        (["--mechanism", "count", "--source", "x.csv"], "needs a release"),
        (["--mechanism", "count", "--ledger", "x.sqlite"], "ledger"),
        (["--mechanism", "count", "--epsilon", "-1"], "above 0"),
        (["nowhere"], "lacks manifest.json"),
    ],
)
def test_what_cannot_be_audited_is_refused_in_a_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    code = main(["audit", *options, "-o", str(tmp_path / "report")])
    error = capsys.readouterr().err
    assert code in {2, 3}
    assert says in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_bound_above_the_promise_fails_and_one_below_passes() -> None:
    for epsilon, verdict in ((1.01, "fail"), (0.99, "pass")):
        bound = EpsilonBound(epsilon=epsilon, ceiling=3.0, guesses=100, right=90)
        one = Audited(mechanism="m", claimed=1.0, experiments={"e": bound})
        result = audit_result([one], delta=1e-6, confidence=0.99, says=(), claimed=1.0)
        assert result.verdict == verdict
    result = audit_result([one], delta=1e-6, confidence=0.99, says=(), recomposed=1.1, claimed=1.0)
    assert [check.verdict for check in result.checks] == ["fail", "pass"]


def test_a_mechanism_that_promises_more_than_is_claimed_may_certify_more() -> None:
    """What counts as the audit's bound is of what was claimed; the check of the other mechanism stands beside it."""
    own, other = (
        Audited(
            mechanism=name, claimed=claimed, experiments={"e": EpsilonBound(epsilon=x, ceiling=9, guesses=9, right=9)}
        )
        for name, claimed, x in (("account", 3.0, 0.7), ("count", 6.0, 5.5))
    )
    result = audit_result([own, other], delta=1e-6, confidence=0.99, says=(), claimed=3.0)
    assert (result.verdict, result.sections.audit.lower_bound) == ("pass", 0.7)
    broken = audit_result([own, replace(other, claimed=5.0)], delta=1e-6, confidence=0.99, says=(), claimed=3.0)
    assert (broken.verdict, broken.sections.audit.lower_bound) == ("fail", 0.7)


def test_a_policy_that_asks_for_an_audit_is_met_by_one_of_that_release(run, folder: Path) -> None:
    (folder / "met.yaml").write_text(MET)
    (folder / "audited.yaml").write_text(json.dumps(AUDITED))
    fitted = ["synthesize", "records.csv", "--schema", "schema.yaml", "--epsilon", 3, "--policy", "audited.yaml"]
    assert run(*fitted, "-o", "out").code == 6, "no audit is in the report yet"

    # Beside the release's own account, at more than it promises: that certifies more, and accuses no one.
    beside = ["--mechanism", "count", "--epsilon", 8, "--runs", 300]
    assert run("audit", "out/release", *beside, "--canaries", 2_000, "-o", "audit").code == 0
    assert run(*EVALUATE, "--audit", "audit", "-o", "report").code == 0
    report = json.loads((folder / "report" / "report.json").read_text())
    assert (report["verdict"], [check["metric"] for check in report["checks"]]) == ("pass", ["one_way_tv"])
    assert 0.0 <= report["privacy"]["audited_epsilon_lower_bound"] <= 3.0

    outcome = run(*EVALUATE, "--audit", "report", "-o", "again")
    assert outcome.code == 3 and "holds no audit" in outcome.err
    assert run(*fitted, "-o", "other").code == 6
    outcome = run(
        *EVALUATE[:-4], "--release", "other/release", "--suite", "met.yaml", "--audit", "audit", "-o", "again"
    )
    assert outcome.code == 3 and "of another release" in outcome.err
    assert not (folder / "again").exists()


def test_canary_patients_are_looked_for_in_a_fit_of_its_own(run, folder: Path) -> None:
    fitted = ["synthesize", "records.csv", "--schema", "schema.yaml", "--epsilon", 3, "--policy", "exploratory"]
    assert run(*fitted, "--suite", "quick", "-o", "out").code in {0, 5, 6}
    before = sorted(path.name for path in folder.iterdir())
    words = ["--source", "records.csv", "--canary-patients", 50, "--canaries", 2_000, "-o", "audit"]
    assert run("audit", "out/release", *words).code == 0
    document = json.loads((folder / "audit" / "report.json").read_text())
    assert {one["mechanism"] for one in document["sections"]["audit"]["experiments"]} == {"account", "canaries"}
    assert "spends that epsilon on the same patients once more" in " ".join(document["sections"]["audit"]["says"])
    assert "no real record" not in document["stamp"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*before, "audit"]), "its release is thrown away"


def test_an_audit_that_failed_fails_the_evaluation(run, folder: Path) -> None:
    (folder / "met.yaml").write_text(MET)
    fitted = ["synthesize", "records.csv", "--schema", "schema.yaml", "--epsilon", 3, "--policy", "exploratory"]
    assert run(*fitted, "--suite", "met.yaml", "-o", "out").code == 0
    assert run("audit", "out/release", "--canaries", 2_000, "-o", "audit").code == 0
    path = folder / "audit" / "report.json"
    document = json.loads(path.read_text())
    document["checks"][0] |= {"verdict": "fail", "counts_as": "fail"}
    path.write_text(json.dumps(document | {"verdict": "fail"}))
    outcome = run(*EVALUATE, "--audit", "audit", "-o", "report")
    assert outcome.code == 5
    assert "The audit of the release failed" in outcome.out


def test_an_unknown_mechanism_is_named() -> None:
    with pytest.raises(ConfigError, match="'luck' is unknown"):
        audit(mechanisms=["luck"])
