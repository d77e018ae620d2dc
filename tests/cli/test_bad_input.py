"""Every bad input is told in one line, with the right exit code, and leaves nothing behind or given away."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from .conftest import CANARY, CANARY_NUMBER, HEADER, SCHEMA, lines

USAGE, INPUT, REFUSED = 2, 3, 4


def records(*rows: str, header: str = HEADER) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "records.csv").write_text("\n".join([header, *rows]) + "\n")

    return write


def raw(content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "records.csv").write_bytes(content) and None


def schema(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        changed = copy.deepcopy(SCHEMA)
        change(changed)
        (folder / "schema.yaml").write_text(yaml.safe_dump(changed))

    return write


def age(**entry: object) -> Callable[[Path], None]:
    return schema(lambda whole: whole["tables"]["patient"]["columns"].update(age=entry))


def as_is(folder: Path) -> None:
    """The records and the schema are good; the options are not."""


GOOD = lines(30)
BAD_RECORDS = {
    "missing file": (lambda folder: (folder / "records.csv").unlink(), "does not exist"),
    "empty file": (raw(b""), "is empty"),
    "header alone": (records(), "no rows"),
    "duplicate header": (records(*GOOD, header=HEADER.replace("died", "age")), "'age' stands twice"),
    "two encodings": (
        raw(f"{HEADER}\np1,{CANARY} é,30,f,70,0\n".encode() + b"p2,\xe9,30,f,70,0\n"),
        "bytes in it that",
    ),
    "half a UTF-16 letter": (raw(f"{HEADER}\np1,{CANARY},30,f,70,0\n".encode("utf-16")[:-1]), "no known encoding"),
    "short row": (records(*GOOD, f"p99,{CANARY},30"), "row 31: has 3 cells"),
    "long row": (records(*GOOD, f"p99,{CANARY},30,f,70,0,{CANARY_NUMBER}"), "row 31: has 7 cells"),
    "blank line": (records(*GOOD[:3], "", *GOOD[3:]), "row 4: is a blank line"),
    "open quote": (records(*GOOD, f'p99,"{CANARY},30,f,70,0'), "not well-formed CSV"),
    "NUL byte": (records(*GOOD, f"p99,{CANARY}\0,30,f,70,0"), "NUL byte"),
    "column absent": (records("p1,x,30,f,0", header="id,name,age,sex,died"), "'weight' is declared"),
    "unknown column": (records(*(f"{row},{CANARY}" for row in GOOD), header=f"{HEADER},ward"), "'ward'"),
    "value out of bounds": (records(*GOOD, f"p99,x,30,f,{CANARY_NUMBER},0"), "row 31: lies outside"),
    "unknown category": (records(*GOOD, f"p99,x,30,{CANARY},70,0"), "row 31: is none of the declared"),
    "not a number": (records(*GOOD, f"p99,x,{CANARY},f,70,0"), "row 31: is not a whole number"),
    "not a truth": (records(*GOOD, f"p99,x,30,f,70,{CANARY_NUMBER}"), "row 31: is none of true, false"),
    "all missing": (records(*(f"p{at},x,,f,70,0" for at in range(30))), "row 1: is missing"),
    "NaN": (records(*GOOD, "p99,x,NaN,f,70,0"), "row 31: is missing"),
    "infinity": (records(*GOOD, "p99,x,30,f,inf,0"), "row 31: is not a finite number"),
    "broken rule": (records(*GOOD, "p99,x,30,f,20.5,0"), "row 31: breaks the declared rule"),
    "one row": (records(GOOD[0]), "too few patients"),
    "duplicate key": (records(*GOOD, GOOD[0]), "must be unique"),
    "missing key": (records(*GOOD, ",x,30,f,70,0"), "must not be missing"),
    "schema missing": (lambda folder: (folder / "schema.yaml").unlink(), "cannot be read"),
    "schema no YAML": (lambda folder: (folder / "schema.yaml").write_text("a: ["), "not valid YAML"),
    "schema unknown key": (schema(lambda whole: whole.update(tabels={})), "tabels: unknown key"),
    "schema wrong type": (age(kind="integer", bounds="wide"), "columns.age.bounds: must be a list"),
    "schema bad bounds": (age(kind="integer", bounds=[120, 0]), "lower below upper"),
    "schema unknown kind": (age(kind="whole"), "columns.age: unknown kind"),
    "schema bad rule": (schema(lambda whole: whole.update(rules=["agee > 3"])), "'agee'"),
}


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def check(outcome, code: int, what: str) -> None:
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1, outcome.err
    assert outcome.err.startswith("synthehr: error: ")
    assert what in outcome.err
    for secret in (CANARY, CANARY_NUMBER, "7777"):
        assert secret not in outcome.err


@pytest.mark.parametrize("case", BAD_RECORDS)
def test_bad_records_or_schema(run, folder: Path, case: str) -> None:
    prepare, what = BAD_RECORDS[case]
    prepare(folder)
    before = contents(folder)
    outcome = run("synthesize", "records.csv", "--schema", "schema.yaml", "--epsilon", "1", "-o", "out")
    check(outcome, INPUT, what)
    assert contents(folder) == before


SYNTHESIZE = "synthesize records.csv --schema schema.yaml --epsilon 1 -o out"
FIT = "fit records.csv --schema schema.yaml --epsilon 1 -o out"
BAD_OPTIONS = {
    "no epsilon": ("fit records.csv --schema schema.yaml -o out", "--epsilon"),
    "epsilon 0": (f"{FIT} --epsilon 0", "epsilon must be a finite number above 0"),
    "epsilon negative": (f"{FIT} --epsilon -1", "epsilon must be a finite number above 0"),
    "epsilon NaN": (f"{SYNTHESIZE} --epsilon nan", "epsilon must be a finite number above 0"),
    "epsilon infinite": (f"{SYNTHESIZE} --epsilon inf", "epsilon must be a finite number above 0"),
    "epsilon no number": (f"{SYNTHESIZE} --epsilon much", "--epsilon"),
    "delta 0": (f"{SYNTHESIZE} --delta 0", "delta must lie strictly between 0 and 1"),
    "delta 1": (f"{FIT} --delta 1", "delta must lie strictly between 0 and 1"),
    "delta NaN": (f"{FIT} --delta nan", "delta must lie strictly between 0 and 1"),
    "unknown model": (f"{FIT} --model gpt", "--model"),
    "unknown policy": (f"{FIT} --policy lax", "policy 'lax'"),
    "unknown suite": (f"{SYNTHESIZE} --suite lax", "'lax'"),
    "suite of another policy": (f"{SYNTHESIZE} --suite quick", "requires suite 'ci', but 'quick' was asked for"),
    "unknown format": (f"{SYNTHESIZE} --format xlsx", "--format"),
    "unknown device": (f"{FIT} --device abacus", "device 'abacus'"),
    "no patients": (f"{SYNTHESIZE} -n 0", "-n"),
    "negative seed": (f"{SYNTHESIZE} --seed -1", "--seed"),
    "holdout 1": (f"{SYNTHESIZE} --holdout 1", "holdout must lie strictly between 0 and 1"),
    "holdout NaN": (f"{FIT} --holdout nan --split-out split", "holdout must lie strictly"),
    "holdout without a place": (f"{FIT} --holdout 0.2", "--split-out"),
    "release and split in one": (f"{FIT} --holdout 0.2 --split-out out", "folders of their own"),
    "output exists": (f"{SYNTHESIZE} -o records.csv", "exists"),
    "release exists": (f"{FIT} -o schema.yaml", "exists"),
    "parent is a file": (f"{SYNTHESIZE} -o records.csv/out", "cannot be written"),
    "parent is missing": (f"{FIT} -o nowhere/out", "cannot be written"),
    "unknown option": (f"{FIT} --audience x", "--audience"),
    "unknown command": ("publish records.csv", "publish"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options(run, folder: Path, case: str) -> None:
    words, what = BAD_OPTIONS[case]
    before = contents(folder)
    check(run(*words.split()), USAGE, what)
    assert contents(folder) == before


@pytest.mark.parametrize("case", ["epsilon 0", "delta 1", "output exists", "unknown suite", "suite of another policy"])
def test_options_are_refused_before_a_record_is_read(run, folder: Path, case: str) -> None:
    if case != "output exists":
        (folder / "records.csv").unlink()
    words, what = BAD_OPTIONS[case]
    check(run(*words.split()), USAGE, what)


@pytest.mark.parametrize(
    ("words", "what"),
    [(f"{FIT} --epsilon 1000", "epsilon up to"), (f"{FIT} --delta 0.01", "allows delta up to")],
)
def test_a_promise_that_the_policy_forbids_is_refused(run, folder: Path, words: str, what: str) -> None:
    before = contents(folder)
    check(run(*words.split()), REFUSED, what)
    assert contents(folder) == before


POLICY = {
    "name": "ours",
    "description": "d",
    "max_epsilon": 10,
    "delta_ratio": 1,
    "max_rows": 40,
    "models": ["marginal"],
    "noise": "cryptographic",
}
ALLOWED = f"{FIT} --policy ours.yaml --model marginal --noise cryptographic"


def two_tables(max_rows: int) -> Callable[[Path], None]:
    lab = {
        "parent": "patient",
        "foreign_key": "id",
        "max_rows": max_rows,
        "columns": {"id": {"kind": "id"}, "value": {"kind": "number", "bounds": [0, 1]}},
    }
    return schema(lambda whole: whole["tables"].update(lab=lab))


NOT_ALLOWED = {
    "epsilon": (as_is, f"{ALLOWED} --epsilon 11", "allows epsilon up to 10, but 11"),
    "rows": (two_tables(41), ALLOWED, "allows max_rows up to 40, but table 'lab' declares 41"),
    "model": (as_is, f"{ALLOWED} --model dp-ctgan", "allows the models marginal, but 'dp-ctgan'"),
    "model left open": (as_is, f"{ALLOWED} --model auto", "allows the models marginal, but 'auto'"),
    "noise": (as_is, f"{ALLOWED} --noise system", "requires 'cryptographic' noise, but 'system'"),
}


@pytest.mark.parametrize("case", NOT_ALLOWED)
def test_a_fit_that_the_policy_forbids_is_refused_before_a_record_is_read(run, folder: Path, case: str) -> None:
    prepare, words, what = NOT_ALLOWED[case]
    prepare(folder)
    (folder / "ours.yaml").write_text(yaml.safe_dump(POLICY))
    (folder / "records.csv").unlink()
    before = contents(folder)
    check(run(*words.split()), REFUSED, what)
    assert contents(folder) == before


def test_a_fit_that_the_policy_allows_goes_on_to_the_records(run, folder: Path) -> None:
    (folder / "ours.yaml").write_text(yaml.safe_dump(POLICY))
    (folder / "records.csv").unlink()
    two_tables(40)(folder)
    check(run(*ALLOWED.split()), INPUT, "does not exist")


def cut(name: str) -> Callable[[Path], None]:
    return lambda release: (release / name).write_bytes((release / name).read_bytes()[:-100]) and None


def edited(release: Path) -> None:
    text = (release / "manifest.json").read_text()
    document = json.loads(text)
    document["privacy"]["epsilon"] = 0.1
    (release / "manifest.json").write_text(json.dumps(document))


def flipped(release: Path) -> None:
    weights = bytearray((release / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (release / "weights.safetensors").write_bytes(bytes(weights))


BAD_RELEASES = {
    "no folder": (lambda release: [path.unlink() for path in release.iterdir()], "lacks manifest.json"),
    "truncated manifest": (cut("manifest.json"), "not a whole manifest"),
    "truncated weights": (cut("weights.safetensors"), "is not the file that the manifest names"),
    "no weights": (lambda release: (release / "weights.safetensors").unlink(), "lacks weights.safetensors"),
    "edited manifest": (edited, "edited"),
    "wrong weights digest": (flipped, "is not the file that the manifest names"),
    "manifest is a list": (lambda release: (release / "manifest.json").write_text("[1]"), "not a whole manifest"),
}


@pytest.mark.parametrize("case", BAD_RELEASES)
def test_a_broken_release_is_not_sampled(run, folder: Path, release: Path, case: str) -> None:
    breaks, what = BAD_RELEASES[case]
    breaks(release)
    before = contents(folder)
    check(run("sample", "release", "-n", "5", "-o", "out"), INPUT, what)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("-n 0", "-n"),
        ("-n 5 --where agee>3", "--where"),
        ("-n 5 --where age", "--where"),
        ("-n 5 --seed -1", "--seed"),
        ("-n 5 --format fhir", "--format"),
        ("-n 5 -o records.csv", "exists"),
    ],
)
def test_bad_options_of_sample(run, folder: Path, release: Path, words: str, what: str) -> None:
    before = contents(folder)
    check(run("sample", "release", "-o", "out", *words.split()), USAGE, what)
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["--where", "age > 300"], INPUT, "impossible"),
        (["--where", "sex = 'x'"], INPUT, "impossible"),
        (["--where", "age > 60", "--where", "age < 50"], INPUT, "exclude each other"),
        (["--where", "weight < 20.5"], INPUT, "declared rules exclude each other"),
        (["--where", "sex = 'f'", "--balance", "sex"], INPUT, "nothing to balance"),
        (["--balance", "age"], USAGE, "of kind integer"),
        (["--balance", "agee"], USAGE, "not a kept column"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_one_line(
    run, folder: Path, release: Path, words: list[str], code: int, what: str
) -> None:
    before = contents(folder)
    check(run("sample", "release", "-n", "5", "-o", "out", *words), code, what)
    assert contents(folder) == before


def test_evaluate_needs_to_know_what_the_columns_mean(run, folder: Path) -> None:
    words = ["--train", "records.csv", "--holdout", "records.csv", "--synthetic", "records.csv", "-o", "out"]
    check(run("evaluate", *words), USAGE, "give --schema")


@pytest.mark.parametrize("wrong", ["train", "holdout", "synthetic"])
def test_evaluate_tells_which_part_is_wrong(run, folder: Path, wrong: str) -> None:
    (folder / "wrong.csv").write_text("\n".join([HEADER.replace("died", "dead"), *GOOD]) + "\n")
    parts = {part: "wrong.csv" if part == wrong else "records.csv" for part in ("train", "holdout", "synthetic")}
    words = [word for part, file in parts.items() for word in (f"--{part}", file)]
    before = contents(folder)
    check(run("evaluate", *words, "--schema", "schema.yaml", "-o", "out"), INPUT, f"{wrong}: ")
    assert contents(folder) == before


def test_an_unexpected_failure_is_told_by_its_type_alone(run, folder: Path, monkeypatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError(f"{CANARY} weighs {CANARY_NUMBER}")

    monkeypatch.setattr("synthehr.outputs.fit", fail)
    before = contents(folder)
    check(run(*SYNTHESIZE.split()), 1, "internal error: RuntimeError")
    assert contents(folder) == before


def test_an_interrupt_leaves_nothing_behind(run, folder: Path, monkeypatch) -> None:
    def interrupt(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("synthehr.outputs.evaluate", interrupt)
    before = contents(folder)
    check(run(*SYNTHESIZE.split(), "--policy", "exploratory", "--suite", "quick"), 130, "interrupted")
    assert contents(folder) == before
