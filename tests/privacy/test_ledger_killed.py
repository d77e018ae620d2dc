"""A ledger outlives the processes that spend from it, and two of them cannot spend the same budget."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from synthehr.privacy.budget import Budget
from synthehr.privacy.ledger import Ledger

TESTS = Path(__file__).parent.parent

# Wait for the other one, then take what only one of the two can have; tell it as the command line does.
RACER = """
import sys
from synthehr.errors import SynthehrError
from synthehr.privacy.budget import Budget
from synthehr.privacy.ledger import Ledger

for path in sys.argv[1:]:
    ledger, budget = Ledger.at(path), Budget(epsilon=0.6, delta=1e-6)
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        ledger.reserve(budget, by="racer", why="race", what={"model": "none"})
        print(0, flush=True)
    except SynthehrError as error:
        print(error.exit_code, error, flush=True)
"""


def killed(script: str, kills: int, seed: int) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(TESTS / script), "--kills", str(kills), "--seed", str(seed)]
    return subprocess.run(words, capture_output=True, text=True, timeout=3600, check=False)


def test_a_kill_at_any_moment_loses_no_entry_and_returns_no_budget() -> None:
    done = killed("kill_ledger.py", 10, seed=7)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "10 kills" in done.stdout
    assert "all hold" in done.stdout


@pytest.mark.slow
def test_a_hundred_kills_at_random_moments_lose_no_entry_and_return_no_budget() -> None:
    done = killed("kill_ledger.py", 100, seed=11)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "100 kills" in done.stdout


def test_killed_fits_go_on_to_the_account_of_one_that_was_not() -> None:
    done = killed("kill_fit.py", 4, seed=5)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kills" in done.stdout


@pytest.mark.slow
def test_fits_killed_a_hundred_times_leave_no_unpaid_touch_and_go_on_to_the_same_account() -> None:
    done = killed("kill_fit.py", 100, seed=13)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100 kills" in done.stdout


def test_of_two_that_race_for_the_last_budget_exactly_one_wins(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{at}.ledger") for at in range(20)]
    for path in paths:
        Ledger.open(path, population="p", budget=Budget(epsilon=1.0, delta=1e-5), by="steward", why="race")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        for path in paths:
            for racer in racers:
                assert racer.stdout is not None
                assert racer.stdout.readline() == "ready\n"
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write("\n")
                racer.stdin.flush()
            told = sorted(racer.stdout.readline() for racer in racers if racer.stdout is not None)
            assert told[0] == "0\n"
            assert told[1].startswith("4 ")
            assert "epsilon requested 0.6, remaining 0.4, difference 0.2" in told[1]
            standing = Ledger.at(path).verify()
            assert [entry.kind for entry in standing.entries] == ["open", "reserve"]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()
