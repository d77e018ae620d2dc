from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch

from synthehr.cli.options import FORMATS, MODELS
from synthehr.connectors.files import FORMATS as WRITTEN
from synthehr.models.base import MODELS as FITTED
from synthehr.release import Release

from .conftest import CANARY

FORM = ["synthesize", "records.csv", "--schema", "schema.yaml", "--epsilon", "2"]
SYNTHESIZE = [*FORM, "--policy", "exploratory", "-o", "out", "--suite", "quick"]


def test_synthesize_leaves_release_synthetic_report_and_split(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == ["release", "report", "split", "synthetic"]
    assert sorted(path.name for path in (made / "release").iterdir()) == [
        "DATASHEET.md",
        "manifest.json",
        "weights.safetensors",
    ]
    assert sorted(path.name for path in (made / "synthetic").iterdir()) == ["PROVENANCE.json", "patient.parquet"]
    assert sorted(path.name for path in (made / "report").iterdir()) == [
        "junit.xml",
        "report.html",
        "report.json",
        "report.md",
    ]
    train = pl.read_parquet(made / "split" / "train" / "patient.parquet")
    holdout = pl.read_parquet(made / "split" / "holdout" / "patient.parquet")
    assert (train.height, holdout.height) == (480, 120)
    assert set(train["id"]).isdisjoint(holdout["id"])


def test_the_real_parts_are_their_owners_alone_and_the_synthetic_are_not(made: Path) -> None:
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in [made / "split", *(made / "split").rglob("*")]}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items())
    assert stat.S_IMODE((made / "report").stat().st_mode) == 0o700
    assert (made / "synthetic").stat().st_mode & 0o055 == 0o055


def test_the_default_number_of_patients_is_the_bought_one(made: Path) -> None:
    bought = Release.load(made / "release").manifest.patients_bought
    assert pl.read_parquet(made / "synthetic" / "patient.parquet").height == bought


def test_no_identifier_reaches_an_output(made: Path) -> None:
    for path in made.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes(), path


def test_the_report_names_the_promise_and_its_release(made: Path) -> None:
    report = json.loads((made / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["privacy"]["epsilon"] == 3.0
    assert report["provenance"]["release_digest"] == Release.load(made / "release").digest


def test_the_same_release_seed_and_n_give_the_same_bytes(run, folder: Path, made: Path) -> None:
    for out, seed in (("one", 5), ("two", 5), ("three", 6)):
        assert run("sample", made / "release", "-n", 50, "--seed", seed, "-o", out).code == 0
    files = {out: (folder / out / "patient.parquet").read_bytes() for out in ("one", "two", "three")}
    assert files["one"] == files["two"] != files["three"]
    provenance = json.loads((folder / "one" / "PROVENANCE.json").read_text(encoding="utf-8"))
    assert provenance["synthetic"] is True
    assert (provenance["patients"], provenance["seed"]) == (50, 5)


def test_sample_meets_its_conditions_and_writes_csv(run, folder: Path, made: Path) -> None:
    words = ["--where", "age >= 60", "--where", "patient.sex = 'f'", "--format", "csv", "--json"]
    outcome = run("sample", made / "release", "-n", 30, *words, "-o", "old")
    assert outcome.code == 0
    rows = pl.read_csv(folder / "old" / "patient.csv")
    assert rows.height == 30
    assert rows["age"].min() >= 60
    assert set(rows["sex"]) == {"f"}
    told = json.loads(outcome.out)["provenance"]
    assert told["where"] == ["age >= 60", "patient.sex = 'f'"]
    assert 0 < told["match_rate"] < 1


def test_sample_tells_how_many_of_the_models_patients_meet_a_condition(run, folder: Path, made: Path) -> None:
    outcome = run("sample", made / "release", "-n", 20, "--where", "age >= 60", "-o", "old")
    assert outcome.code == 0
    told = json.loads((folder / "old" / "PROVENANCE.json").read_text(encoding="utf-8"))
    assert f"; {told['match_rate']:.3g} of the model's patients meet --where, drawn directly" in outcome.out
    outcome = run("sample", made / "release", "-n", 20, "--where", "age > weight", "-o", "compared")
    assert "drawn until met" in outcome.out


def test_sample_balances_a_column_within_a_condition(run, folder: Path, made: Path) -> None:
    words = ["--balance", "died", "--where", "age < 60", "--format", "csv"]
    outcome = run("sample", made / "release", "-n", 40, *words, "-o", "even")
    assert outcome.code == 0
    assert "2 groups of died with even shares" in outcome.out
    rows = pl.read_csv(folder / "even" / "patient.csv")
    assert rows["died"].sum() == 20
    assert rows["age"].max() < 60
    told = json.loads((folder / "even" / "PROVENANCE.json").read_text(encoding="utf-8"))
    assert [group["patients"] for group in told["balance"]["groups"]] == [20, 20]
    assert "even shares by request" in told["shares"]


def test_the_same_seed_gives_the_same_bytes_whatever_the_threads(run, folder: Path, made: Path) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            words = ["--seed", 4, "--format", "csv", "-o", f"with{threads}"]
            assert run("sample", made / "release", "-n", 70_000, *words).code == 0
    finally:
        torch.set_num_threads(before)
    first, second = ((folder / f"with{threads}" / "patient.csv").read_bytes() for threads in (1, 2))
    assert first == second
    assert first.count(b"\n") == 70_001


def test_evaluate_reads_what_synthesize_and_sample_wrote(run, folder: Path, made: Path) -> None:
    words = ["--train", made / "split/train", "--holdout", made / "split/holdout", "--release", made / "release"]
    words += ["--suite", "quick", "--json"]
    outcome = run("evaluate", *words, "--synthetic", made / "synthetic", "-o", "report")
    told = json.loads(outcome.out)
    assert outcome.code == {"pass": 0, "fail": 5, "inconclusive": 6}[told["verdict"]]
    assert outcome.err == ""
    assert (folder / "report" / "report.html").is_file()


def test_synthetic_records_of_any_origin_are_judged_not_refused(run, folder: Path, made: Path) -> None:
    odd = pl.read_parquet(made / "synthetic" / "patient.parquet").with_columns(
        age=pl.lit(400), sex=pl.lit("OTHER"), weight=pl.lit(-1.0)
    )
    odd.write_csv(folder / "odd.csv")
    words = ["--train", made / "split/train", "--holdout", made / "split/holdout", "--schema", "schema.yaml"]
    outcome = run("evaluate", *words, "--synthetic", "odd.csv", "--suite", "quick", "-o", "report")
    assert outcome.code == 5
    assert "verdict: fail" in outcome.out


def test_fit_sets_patients_aside(run, folder: Path) -> None:
    words = [
        "fit",
        "records.csv",
        "--schema",
        "schema.yaml",
        "--epsilon",
        "2",
        "--model",
        "marginal",
        "-o",
        "release",
        "--json",
    ]
    outcome = run(*words, "--holdout", 0.25, "--split-out", "split", "--seed", 1)
    assert outcome.code == 0, outcome.err
    told = json.loads(outcome.out)
    assert told["private"] is True
    assert told["epsilon"] == 2.0
    assert told["epsilon_spent"] <= 2.0
    assert stat.S_IMODE((folder / "split").stat().st_mode) == 0o700
    assert pl.read_parquet(folder / "split" / "holdout" / "patient.parquet").height == 100


def test_schema_check_lists_every_broken_rule(run, folder: Path) -> None:
    good = run("schema", "check", "records.csv", "--schema", "schema.yaml")
    assert (good.code, good.err) == (0, "")
    assert "NOT MET" not in good.out
    text = (folder / "records.csv").read_text()
    (folder / "records.csv").write_text(f"{text}p1,{CANARY},7777,x,{CANARY},2\n")
    bad = run("schema", "check", "records.csv", "--schema", "schema.yaml", "--json")
    assert bad.code == 3
    assert CANARY not in bad.out
    assert "7777" not in bad.out
    told = json.loads(bad.out)
    assert not told["met"]
    assert {(rule["column"], rule["rule"]) for rule in told["rules"] if not rule["met"]} == {
        ("id", "names each row once"),
        ("age", "lies in [0, 120]"),
        ("sex", "is one of 2 declared values"),
        ("weight", "is a finite number"),
        ("died", "is true or false"),
    }


def test_quiet_says_nothing_and_verbose_names_the_stages(run, folder: Path) -> None:
    quiet = run(*SYNTHESIZE, "-q")
    assert quiet.code in {0, 5, 6}
    assert quiet.out == quiet.err == ""
    loud = run(*SYNTHESIZE[:-4], "-o", "out2", "--suite", "quick", "-v", "--json")
    assert "synthehr: evaluate" in loud.err
    assert json.loads(loud.out)["out"] == "out2"


def test_no_progress_is_drawn_where_there_is_no_terminal(run, folder: Path) -> None:
    assert run(*SYNTHESIZE).err == ""


def test_the_words_of_the_command_line_are_those_of_the_code() -> None:
    assert MODELS == FITTED
    assert FORMATS == WRITTEN


def test_without_words_there_is_help(run) -> None:
    outcome = run()
    assert outcome.code == 2
    assert "Exit codes" in outcome.out


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_fit_and_leaves_nothing(folder: Path, signal_: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "synthehr", *SYNTHESIZE, "-v"], stderr=subprocess.PIPE, text=True, cwd=folder
    )
    assert process.stderr is not None
    first = process.stderr.readline()  # the fit has begun, so its folder is there
    assert first.startswith("synthehr: ")
    process.send_signal(signal_)
    begun = time.monotonic()
    rest = process.communicate(timeout=60)[1]
    assert time.monotonic() - begun < 60
    assert process.returncode == 130
    assert rest.splitlines()[-1] == "synthehr: error: interrupted: nothing was written"
    assert sorted(path.name for path in folder.iterdir()) == ["records.csv", "schema.yaml"]


def held(made: Path, folder: Path, **demands: object) -> Path:
    """The release that was made, as under a policy with other demands."""
    release = Release.load(made / "release")
    privacy = release.manifest.privacy.model_copy(update={"policy": "ours", **demands})
    manifest = release.manifest.model_copy(update={"privacy": privacy})
    weights = (made / "release" / "weights.safetensors").read_bytes()
    Release(manifest, weights=weights, datasheet=release.datasheet).save(folder / "held")
    return folder / "held"


PASSING = """
synthehr: 1
suite: ci
checks:
  - {id: a, section: fidelity, metric: one_way_tv, statistic: value, op: <=, bound: 1, rationale: always met}
"""


@pytest.mark.parametrize(
    ("demands", "verdict", "told"),
    [
        ({}, "pass", None),
        ({"required_suite": "lenient.yaml"}, "pass", None),
        ({"required_suite": "ci"}, "inconclusive", "requires suite 'ci'; this report is by other gates of that name"),
        ({"required_suite": "quick"}, "inconclusive", "requires suite 'quick'; this report is by suite 'ci'"),
        ({"required_suite": "absent.yaml"}, "inconclusive", "requires suite 'absent.yaml'"),
        ({"audit_required": True}, "inconclusive", "requires an audit of epsilon; this report holds none"),
    ],
)
def test_a_report_that_lacks_what_the_policy_requires_does_not_pass(
    run, folder: Path, made: Path, demands: dict, verdict: str, told: str | None
) -> None:
    (folder / "lenient.yaml").write_text(PASSING)
    words = ["--train", made / "split/train", "--holdout", made / "split/holdout", "--synthetic", made / "synthetic"]
    outcome = run(
        "evaluate", *words, "--release", held(made, folder, **demands), "--suite", "lenient.yaml", "-o", "report"
    )
    assert outcome.code == {"pass": 0, "inconclusive": 6}[verdict]
    report = json.loads((folder / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"] == verdict
    assert [check["verdict"] for check in report["checks"]] == ["pass"] + ["inconclusive"] * (told is not None)
    if told is not None:
        assert told in outcome.out
        assert told in report["checks"][-1]["why"]
        page = (folder / "report" / "report.html").read_text(encoding="utf-8")
        screen = (folder / "report" / "report.md").read_text(encoding="utf-8")
        for words_ in ("does not show all that the policy", "that the release's policy requires"):
            assert words_ in page.replace("&#39;", "'")
            assert words_ in screen.replace("\\", "")


def test_a_fit_writes_down_what_its_policy_requires(run, folder: Path) -> None:
    demanding = {"name": "ours", "description": "d", "max_epsilon": 10, "delta_ratio": 1, "suite": "quick"}
    (folder / "ours.yaml").write_text(json.dumps({**demanding, "audit": True}))
    assert run(*FORM, "--policy", "ours.yaml", "-o", "out").code in {5, 6}  # no audit, so no pass
    privacy = Release.load(folder / "out" / "release").manifest.privacy
    assert (privacy.policy, privacy.required_suite, privacy.audit_required) == ("ours", "quick", True)
    report = json.loads((folder / "out" / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["suite"] == "quick", "the policy's suite is the default"
    assert report["checks"][-1]["metric"] == "required_audit"
    assert report["verdict"] != "pass"
