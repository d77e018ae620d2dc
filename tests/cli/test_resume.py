"""``fit --resume``: after an interrupt at any point the same release, one reservation, and nothing left over."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

import synthehr.models.fitting as fitting
import synthehr.models.training as training
import synthehr.outputs as outputs
from synthehr.models.checkpoint import Checkpoint
from synthehr.privacy.ledger import Ledger
from synthehr.release import Release

BASE = ["fit", "records.csv", "--schema", "schema.yaml", "-o", "release", "-q"]
FIT = [*BASE, "--epsilon", "2", "--ledger", "clinic.ledger"]
SPLIT = ["--holdout", "0.25", "--split-out", "split"]


@pytest.fixture
def ledger(run, folder: Path) -> Ledger:
    assert run("ledger", "open", "clinic.ledger", "--population", "c", "--epsilon", 3, "--delta", 0.1).code == 0
    return Ledger(folder / "clinic.ledger")


def interrupt(*args: object, **kwargs: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def interrupted(run, folder: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    """A fit that ended by Ctrl-C in a function of a module."""

    def run_fit(owner: object, name: str):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupt)
            return run(*FIT, *SPLIT)

    return run_fit


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"records.csv", "schema.yaml", "clinic.ledger"}


def test_an_interrupted_fit_says_how_to_go_on_and_keeps_what_it_needs(interrupted, folder: Path) -> None:
    outcome = interrupted(fitting, "fit_to_targets")
    assert outcome.code == 130
    assert outcome.err.count("\n") == 1
    assert "--resume" in outcome.err
    assert names(folder) == {"release.checkpoint", "split"}
    assert all(stat.S_IMODE((folder / name).stat().st_mode) == 0o700 for name in names(folder))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (training, "all_behind_the_door"),
        (fitting, "fit_to_targets"),
        (Release, "save"),  # settled, not saved
        (Checkpoint, "remove"),  # saved, not cleared away
    ],
)
def test_it_goes_on_to_one_release_paid_once(
    interrupted, run, folder: Path, ledger: Ledger, owner: object, name: str
) -> None:
    assert interrupted(owner, name).code == 130
    train = (folder / "split" / "train" / "patient.parquet").read_bytes()
    anew = run(*FIT, *SPLIT)
    assert anew.code == 2
    assert "--resume" in anew.err
    outcome = run(*FIT, *SPLIT, "--resume", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert names(folder) == {"release", "split"}
    assert (folder / "split" / "train" / "patient.parquet").read_bytes() == train
    release = Release.load(folder / "release")
    assert json.loads(outcome.out)["digest"] == release.digest
    kinds = [entry.kind for entry in ledger.verify().entries]
    assert kinds == ["open", "reserve", "settle"]
    assert ledger.standing().entries[-1].release == release.digest


def test_other_options_and_no_interrupted_fit_are_refused(interrupted, run, folder: Path) -> None:
    nothing = run(*FIT, *SPLIT, "--resume")
    assert (nothing.code, nothing.err.count("\n")) == (2, 1)
    assert "no interrupted fit" in nothing.err
    assert names(folder) == set()
    interrupted(fitting, "fit_to_targets")
    for words, what in ((["--epsilon", "1"], "epsilon"), (["--model", "dp-ctgan"], "model"), (["--seed", "3"], "seed")):
        other = run(*FIT, *SPLIT, "--resume", *words)
        assert (other.code, other.err.count("\n")) == (2, 1)
        assert f"another {what}" in other.err
    assert names(folder) == {"release.checkpoint", "split"}


def test_a_fit_that_fails_by_itself_leaves_nothing_to_go_on_with(
    run, folder: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no value of a record in here")

    monkeypatch.setattr(fitting, "fit_to_targets", fail)
    outcome = run(*FIT, *SPLIT)
    assert outcome.code == 1
    assert names(folder) == set()
    assert len(ledger.standing().unsettled) == 1  # what it bought stays spent


def test_a_refused_fit_leaves_nothing_and_is_charged_what_it_bought(run, folder: Path, ledger: Ledger) -> None:
    outcome = run(*FIT, *SPLIT, "--delta", "0.05")
    assert outcome.code == 4
    assert names(folder) == set()
    standing = ledger.standing()
    assert not standing.unsettled
    assert 0 < float(standing.spent.epsilon) < 0.1


def test_an_interrupt_while_reading_leaves_nothing_spent(interrupted, folder: Path, ledger: Ledger) -> None:
    outcome = interrupted(outputs, "read")
    assert outcome.code == 130
    assert len(ledger.standing().entries) == 1
    assert names(folder) == set()


@pytest.mark.parametrize("words", [["--device", "cuda:99"], ["--population", "other"]])
def test_a_slip_when_going_on_costs_nothing_and_gives_nothing_back(
    interrupted, run, folder: Path, ledger: Ledger, words: list[str]
) -> None:
    interrupted(fitting, "fit_to_targets")
    slip = run(*FIT, *SPLIT, "--resume", *words)
    assert (slip.code, slip.err.count("\n")) == (2, 1)
    assert float(ledger.standing().reserved.epsilon) == 2.0
    assert names(folder) == {"release.checkpoint", "split"}
    assert run(*FIT, *SPLIT, "--resume").code == 0
    assert [entry.kind for entry in ledger.verify().entries] == ["open", "reserve", "settle"]


def test_records_that_are_away_when_going_on_cost_nothing(run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "fit_to_targets", interrupt)
        assert run(*BASE, "--epsilon", 2).code == 130
    (folder / "records.csv").rename(folder / "away.csv")
    assert run(*BASE, "--epsilon", 2, "--resume").code == 3
    (folder / "away.csv").rename(folder / "records.csv")
    assert run(*BASE, "--epsilon", 2, "--resume").code == 0
    assert names(folder) == {"release"}


def test_another_release_in_its_place_is_not_taken_for_its_own(interrupted, run, folder: Path, made: Path) -> None:
    interrupted(fitting, "fit_to_targets")
    shutil.copytree(made / "release", folder / "release")
    outcome = run(*FIT, *SPLIT, "--resume")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "not of the interrupted fit" in outcome.err
    assert names(folder) == {"release", "release.checkpoint", "split"}
