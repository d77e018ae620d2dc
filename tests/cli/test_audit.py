"""``synthehr audit`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthehr.auditing.verb import MECHANISMS, audit
from synthehr.cli import main
from synthehr.cli.audit import MECHANISMS as OFFERED
from synthehr.errors import ConfigError
from synthehr.evaluation.audit import EpsilonBound
from synthehr.evaluation.audit_result import Audited, audit_result


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


def test_an_unknown_mechanism_is_named() -> None:
    with pytest.raises(ConfigError, match="'luck' is unknown"):
        audit(mechanisms=["luck"])
