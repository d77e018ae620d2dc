"""The action and the GitLab template: their files are valid, and their shell runs as a runner would run it."""

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
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
GITLAB = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text(encoding="utf-8"))


@pytest.fixture
def on_path(tmp_path) -> dict[str, str]:
    """The environment of a runner that has this synthehr."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "synthehr").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m synthehr "$@"\n')
    (programs / "synthehr").chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}


def run_action(clinic: Path, tmp_path: Path, environment: dict[str, str], **inputs: str):
    """The evaluating step as the runner runs it: inputs filled in, bash with its flags, files for what it writes."""
    [step] = [one for one in ACTION["runs"]["steps"] if one.get("id") == "evaluate"]
    given = {name: str(spec.get("default", "")) for name, spec in ACTION["inputs"].items()} | inputs
    filled = {key: given[value.removeprefix("${{ inputs.").removesuffix(" }}")] for key, value in step["env"].items()}
    summary, output = tmp_path / "summary.md", tmp_path / "output"
    summary.touch()
    output.touch()
    script = tmp_path / "step.sh"
    script.write_text(step["run"])
    done = subprocess.run(
        [shutil.which("bash") or "bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
        cwd=clinic,
        env={**environment, **filled, "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_OUTPUT": str(output)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, summary.read_text(encoding="utf-8"), output.read_text(encoding="utf-8").strip()


@pytest.mark.parametrize(
    ("synthetic", "suite", "allow", "code", "verdict", "sign"),
    [
        ("good.csv", "suite.yaml", "false", 0, "pass", "✅"),
        ("copying.csv", "suite.yaml", "false", 5, "fail", "❌"),
        ("good.csv", "open.yaml", "true", 0, "inconclusive", "❔"),
    ],
)
def test_the_action_is_green_on_the_good_synthesizer_and_red_on_the_copying_one(
    clinic, tmp_path, on_path, synthetic, suite, allow, code, verdict, sign
):
    done, summary, output = run_action(
        clinic,
        tmp_path,
        on_path,
        train="train.csv",
        holdout="holdout.csv",
        synthetic=synthetic,
        schema="schema.yaml",
        suite=suite,
        report=str(tmp_path / "report"),
        **{"allow-inconclusive": allow},
    )
    assert done.returncode == code, done.stderr
    assert output == f"verdict={verdict}"
    assert summary.startswith(f"# {sign} Synthetic cohort: {verdict}")
    contents = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert contents["audience"] == "public" and contents["verdict"] == verdict
    assert "interval" not in done.stdout


def test_the_action_is_red_where_the_evaluation_cannot_run(clinic, tmp_path, on_path):
    done, summary, output = run_action(
        clinic, tmp_path, on_path, train="none.csv", holdout="none.csv", synthetic="none.csv", schema="schema.yaml"
    )
    assert done.returncode == 3 and (summary, output) == ("", "")


def test_an_input_is_never_shell():
    # An expression inside a script is filled in before the shell reads it: whoever names a file could run a command.
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")


def test_the_gitlab_job_runs_as_its_runner_would(clinic, tmp_path, on_path):
    job = GITLAB[".synthehr-evaluate"]
    here = tmp_path / "builds"
    shutil.copytree(clinic, here)
    variables = job["variables"] | {
        "SYNTHEHR_TRAIN": "train.csv",
        "SYNTHEHR_HOLDOUT": "holdout.csv",
        "SYNTHEHR_SYNTHETIC": "copying.csv",
        "SYNTHEHR_SCHEMA": "schema.yaml",
        "SYNTHEHR_SUITE": "suite.yaml",
        "SYNTHEHR_INSTALL": "",
    }
    script = tmp_path / "job.sh"
    script.write_text("\n".join(["set -eo pipefail", *job["before_script"], *job["script"]]))
    done = subprocess.run(
        ["bash", str(script)], cwd=here, env={**on_path, **variables}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 5, done.stderr
    for kept in (job["artifacts"]["reports"]["junit"], *job["artifacts"]["paths"]):
        assert (here / kept).exists()
    assert json.loads((here / "synthehr-report" / "report.json").read_text(encoding="utf-8"))["audience"] == "public"
    assert job["allow_failure"]["exit_codes"] == [6]


def test_what_is_kept_is_the_public_report_alone():
    [kept] = [step for step in ACTION["runs"]["steps"] if "upload-artifact" in step.get("uses", "")]
    assert kept["with"]["path"] == "${{ inputs.report }}"
    assert GITLAB[".synthehr-evaluate"]["artifacts"]["paths"] == ["synthehr-report/"]


@pytest.mark.parametrize(
    ("file", "schema"), [("action.yml", "vendor.github-actions"), ("ci/gitlab.yml", "vendor.gitlab-ci")]
)
def test_the_files_follow_the_forms_of_their_servers(file, schema):
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(ROOT / file)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_linter_finds_nothing_in_the_shell(tmp_path):
    linter = Path(sys.executable).with_name("shellcheck")
    if not linter.exists():
        pytest.skip("shellcheck is not installed")
    [step] = [one for one in ACTION["runs"]["steps"] if one.get("id") == "evaluate"]
    job = GITLAB[".synthehr-evaluate"]
    (tmp_path / "action.sh").write_text("#!/bin/bash\n" + step["run"])
    (tmp_path / "gitlab.sh").write_text("\n".join(["#!/bin/bash", *job["before_script"], *job["script"], ""]))
    files = [str(tmp_path / "action.sh"), str(tmp_path / "gitlab.sh")]
    done = subprocess.run([str(linter), *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
