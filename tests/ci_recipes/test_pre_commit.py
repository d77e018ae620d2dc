"""The hook under pre-commit itself: a commit that holds real records does not come about."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytest.importorskip("pre_commit", reason="pre-commit is not installed")


def pre_commit(*words: str, at: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", *words],
        cwd=at,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_pre_commit_takes_the_definition_of_the_hook(tmp_path):
    done = pre_commit("validate-manifest", str(ROOT / ".pre-commit-hooks.yaml"), at=tmp_path)
    assert done.returncode == 0, done.stdout
    broken = tmp_path / "hooks.yaml"
    broken.write_text((ROOT / ".pre-commit-hooks.yaml").read_text().replace("language:", "tongue:"))
    assert pre_commit("validate-manifest", str(broken), at=tmp_path).returncode != 0


@pytest.fixture
def repository(clinic, tmp_path, monkeypatch) -> Path:
    """A git repository with the hook installed, a private split of real patients, and this synthehr to run."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # these tests may themselves run inside a hook
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    here = tmp_path / "repository"
    (here / "work" / "split" / "train").mkdir(parents=True)
    shutil.copy(clinic / "train.csv", here / "work" / "split" / "train" / "p.csv")
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    # What a repository of hooks gives, taken from this environment in the place of a fresh one.
    hook |= {"language": "system", "entry": f"{sys.executable} -m {hook['entry']}"}
    config = {"repos": [{"repo": "local", "hooks": [hook]}]}
    (here / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    git(here, "init", "--quiet")
    done = pre_commit("install", at=here)
    assert done.returncode == 0, done.stdout
    return here


def git(here: Path, *words: str) -> subprocess.CompletedProcess[str]:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *who, *words], cwd=here, capture_output=True, text=True, check=False)


def commits(here: Path) -> int:
    return len(git(here, "log", "--oneline", "--all").stdout.splitlines())


def test_a_commit_of_real_records_is_refused_and_one_of_labelled_synthetic_ones_is_made(clinic, repository):
    data = repository / "data"
    data.mkdir()
    shutil.copy(clinic / "copying.csv", data / "patients.csv")
    git(repository, "add", "data")
    refused = git(repository, "commit", "-m", "records")
    assert refused.returncode != 0 and commits(repository) == 0
    assert "it holds rows of the private records" in refused.stdout + refused.stderr

    shutil.copy(clinic / "good.csv", data / "patients.csv")
    git(repository, "add", "data")
    assert "no PROVENANCE.json" in git(repository, "commit", "-m", "unlabelled").stderr and commits(repository) == 0

    (data / "PROVENANCE.json").write_text(json.dumps({"synthetic": True, "private": True}))
    git(repository, "add", "data")
    made = git(repository, "commit", "-m", "synthetic")
    assert made.returncode == 0, made.stderr
    assert commits(repository) == 1


def test_the_split_itself_cannot_be_committed(repository):
    git(repository, "add", "--force", "work/split")
    refused = git(repository, "commit", "-m", "split")
    assert refused.returncode != 0 and commits(repository) == 0
