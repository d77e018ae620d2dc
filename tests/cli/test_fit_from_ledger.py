"""``fit`` and ``synthesize`` spend from a ledger: before any row is touched, and never more than it holds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import synthehr.models.fitting as fitting
import synthehr.models.training as training
from synthehr.privacy.ledger import Ledger
from synthehr.privacy.rows import PrivateRows
from synthehr.release import Release

from .conftest import CANARY, Outcome

REFUSED = 4


@pytest.fixture
def ledger(run, folder: Path) -> Ledger:
    words = ["ledger", "open", "clinic.ledger", "--population", "clinic", "--epsilon", 3, "--delta", 0.1]
    assert run(*words, "--signed-off-by", "A. Steward", "--purpose", "teaching").code == 0
    return Ledger(folder / "clinic.ledger")


@pytest.fixture
def fit(run, ledger: Ledger):
    def run_fit(out: str, *words: object, epsilon: float = 2, source: str = "records.csv") -> Outcome:
        base = ["fit", source, "--schema", "schema.yaml", "--epsilon", epsilon, "-o", out, "--ledger", "clinic.ledger"]
        return run(*base, *words)

    return run_fit


def test_a_fit_reserves_before_rows_are_touched_and_settles_its_release(
    fit, ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched = []
    door, count = training.all_behind_the_door, PrivateRows.count_patients

    def watched(original):
        def touch(*args, **kwargs):
            touched.append(float(ledger.standing().reserved.epsilon))
            return original(*args, **kwargs)

        return touch

    monkeypatch.setattr(training, "all_behind_the_door", watched(door))
    monkeypatch.setattr(PrivateRows, "count_patients", watched(count))
    signed = ["--purpose", "course data", "--signed-off-by", "B. Analyst", "--population", "clinic"]
    outcome = fit("release", *signed, "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert touched == [2.0, 2.0]
    assert json.loads(outcome.out)["ledger"] == {
        "file": "clinic.ledger",
        "remaining": {"epsilon": 1.0, "delta": 0.099999},
    }
    opening, reserved, settled = ledger.verify().entries
    assert reserved.kind == "reserve"
    assert (reserved.by, reserved.why) == ("B. Analyst", "course data")
    named = reserved.what.pop("fit")
    assert len(bytes.fromhex(named)) == 16
    assert reserved.what == {"task": "fit", "model": "auto", "policy": "standard"}
    release = Release.load(folder / "release")
    assert settled.kind == "settle"
    assert settled.release == release.digest
    assert settled.events == release.manifest.privacy.events
    assert not any(CANARY in entry.to_json() for entry in (opening, reserved, settled))


def test_a_fit_that_does_not_fit_is_refused_before_records_are_read(fit, ledger: Ledger, folder: Path) -> None:
    assert fit("one").code == 0
    before = ledger.standing()
    outcome = fit("two", source="no-such-records.csv")
    assert (outcome.code, outcome.out) == (REFUSED, "")
    assert "epsilon requested 2, remaining 1, difference 1" in outcome.err
    assert outcome.err.count("\n") == 1
    assert not (folder / "two").exists()
    assert ledger.standing() == before


def test_records_that_break_the_schema_cost_nothing(fit, ledger: Ledger, folder: Path) -> None:
    (folder / "records.csv").write_text("id\np1\n")
    assert fit("release").code == 3
    assert len(ledger.standing().entries) == 1


def test_a_delta_too_large_for_the_bought_count_costs_the_count_alone(fit, ledger: Ledger) -> None:
    assert fit("release", "--delta", 0.05).code == REFUSED
    # The count's share is 1 % of epsilon, 2.
    assert float(ledger.standing().spent.epsilon) == pytest.approx(0.02)
    assert (ledger.standing().spent.delta, ledger.standing().reserved.epsilon) == (0, 0)


def test_what_the_policy_or_the_machine_refuses_costs_nothing(fit, ledger: Ledger) -> None:
    assert fit("release", "--policy", "strict", epsilon=2.5).code == REFUSED
    assert fit("release", "--device", "cuda:9").code == 2
    assert ledger.remaining().epsilon == 3
    assert not ledger.standing().unsettled


def test_a_fit_that_breaks_down_counts_in_full(fit, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*args: object, **kwargs: object) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(fitting, "buy_domain", breaks)
    assert fit("release").code == 1
    assert float(ledger.standing().reserved.epsilon) == 2
    assert fit("again").code == REFUSED


def test_a_release_that_cannot_be_saved_stays_paid(
    fit, ledger: Ledger, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Release, "save", fails)
    assert fit("release").code == 1
    assert float(ledger.standing().spent.epsilon) == 2
    assert not (folder / "release").exists()


def test_who_and_why_need_a_ledger_and_the_population_must_be_its_own(run, fit, ledger: Ledger) -> None:
    bare = ["fit", "records.csv", "--schema", "schema.yaml", "--epsilon", 1, "-o", "out"]
    for words in (["--purpose", "x"], ["--signed-off-by", "x"], ["--population", "x"]):
        outcome = run(*bare, *words)
        assert outcome.code == 2
        assert "--ledger" in outcome.err
    assert fit("out", "--population", "ward").code == 2
    assert fit("out", "--ledger", "absent.ledger").code == 3
    assert len(ledger.standing().entries) == 1


def test_synthesize_pays_too(run, ledger: Ledger, folder: Path) -> None:
    words = ["synthesize", "records.csv", "--schema", "schema.yaml", "--epsilon", 2, "--json"]
    words += ["--policy", "exploratory", "--suite", "quick"]
    outcome = run(*words, "-o", "one", "--ledger", "clinic.ledger")
    assert outcome.code in {0, 5, 6}
    assert json.loads(outcome.out)["ledger"]["remaining"]["epsilon"] == 1.0
    settled = ledger.verify().entries[-1]
    assert settled.kind == "settle"
    assert settled.release == Release.load(folder / "one" / "release").digest
    assert run(*words, "-o", "two", "--ledger", "clinic.ledger").code == REFUSED
    assert not (folder / "two").exists()


def start(out: str, epsilon: float) -> subprocess.Popen[str]:
    words = ["fit", "records.csv", "--schema", "schema.yaml", "--epsilon", str(epsilon), "-o", out, "-v"]
    return subprocess.Popen(
        [sys.executable, "-m", "synthehr", *words, "--ledger", "clinic.ledger"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_of_two_fits_that_race_for_the_last_budget_one_is_refused(ledger: Ledger, folder: Path) -> None:
    fits = [start(out, 2) for out in ("one", "two")]
    told = [process.communicate(timeout=300)[1] for process in fits]
    assert sorted(process.returncode for process in fits) == [0, REFUSED]
    loser = next(at for at, process in enumerate(fits) if process.returncode == REFUSED)
    assert "epsilon requested 2, remaining 1, difference 1" in told[loser]
    assert [path.is_dir() for path in (folder / "one", folder / "two")] == [loser == 1, loser == 0]
    assert float(ledger.verify().spent.epsilon) == 2
