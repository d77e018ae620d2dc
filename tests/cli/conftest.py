from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

import synthehr.models.training as training
from synthehr.cli import main
from synthehr.models.marginals import FitSettings

CANARY = "ZQX-CANARY"
CANARY_NUMBER = "7777.25"

SCHEMA = {
    "synthehr": 1,
    "subject": "patient",
    "tables": {
        "patient": {
            "key": "id",
            "outcome": "died",
            "columns": {
                "id": {"kind": "id"},
                "name": {"kind": "identifier"},
                "age": {"kind": "integer", "bounds": [0, 120]},
                "sex": {"kind": "category", "values": ["f", "m"]},
                "weight": {"kind": "number", "bounds": [20, 300], "precision": 0.1, "nullable": True},
                "died": {"kind": "boolean"},
            },
        }
    },
    "rules": ["weight is null or weight > 21"],
}
HEADER = "id,name,age,sex,weight,died"


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def lines(patients: int, *, seed: int = 0) -> list[str]:
    """Rows of a CSV file; every patient's name holds the canary."""
    draws = np.random.default_rng(seed)
    age = draws.integers(20, 95, patients)
    weight = draws.normal(75, 10, patients).round(1)
    died = draws.random(patients) < 1.0 / (1.0 + np.exp(-(age - 70.0) / 8.0))
    return [
        f"p{at},{CANARY} {at},{age[at]},{'fm'[at % 2]},{'' if at % 9 == 0 else weight[at]},{int(died[at])}"
        for at in range(patients)
    ]


QUICK = training.TrainingSettings(bins=8, fit=FitSettings(steps=20))


@pytest.fixture(autouse=True)
def quick_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of a second: what is tested here is the command, not the model."""
    monkeypatch.setattr(training, "TrainingSettings", lambda: QUICK)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with records and their schema."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "records.csv").write_text("\n".join([HEADER, *lines(400)]) + "\n")
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run_command(*words: object) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run_command


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``synthesize`` left, made once."""
    base = tmp_path_factory.mktemp("made")
    (base / "records.csv").write_text("\n".join([HEADER, *lines(600)]) + "\n")
    (base / "schema.yaml").write_text(yaml.safe_dump(SCHEMA))
    words = ["synthesize", base / "records.csv", "--schema", base / "schema.yaml", "--epsilon", 3, "-o", base / "out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainingSettings", lambda: QUICK)
        code = main([str(word) for word in [*words, "--policy", "exploratory", "--suite", "quick", "--seed", 1, "-q"]])
    assert code in {0, 5, 6}
    return base / "out"


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    """A release of one's own, to be broken."""
    return Path(shutil.copytree(made / "release", tmp_path / "release"))
