"""``schema draft``, ``schema export``, ``check`` and ``--opt-out``, as a person at a terminal uses them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import polars as pl
import pytest
import yaml

from synthehr.cli import main
from synthehr.connectors.records import read
from synthehr.schema.files import load_schema

N = 60


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame(
        {
            "pid": [f"p{at}" for at in range(N)],
            "ssn": [f"999-17-{5000 + at}" for at in range(N)],
            "dob": [f"19{30 + at}-02-03" for at in range(N)],
            "admitted": [f"2020-05-{1 + at % 28:02d} 10:30:00" for at in range(N)],
            "sex": ["f", "m"] * (N // 2),
            "died": [0, 1] * (N // 2),
        }
    ).write_csv("clinic.csv")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


def test_a_draft_is_written_for_its_owner_alone_and_holds_for_its_records(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "schema", "draft", "clinic.csv", "-o", "schema.yaml")
    assert (code, err) == (0, "")
    assert "review it" in out
    assert stat.S_IMODE(Path("schema.yaml").stat().st_mode) == 0o600
    assert Path("schema.yaml").read_text().startswith("# yaml-language-server: $schema=file://")
    assert run(capsys, "schema", "check", "clinic.csv", "--schema", "schema.yaml")[0] == 0
    assert "bounds" not in str(read("clinic.csv", schema="schema.yaml").schema.model_dump(exclude_defaults=True))


def test_a_draft_goes_to_stdout_and_as_json(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "schema", "draft", "clinic.csv")
    assert load_schema(yaml.safe_load(out)).root.columns["ssn"].kind == "identifier"
    _, out, _ = run(capsys, "schema", "draft", "clinic.csv", "--json")
    told = json.loads(out)
    assert told["schema"]["reviewed"] is False
    assert told["reasons"]["clinic"]["ssn"] == "a social security number, by its name: dropped"


def test_an_output_that_exists_is_not_replaced(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("schema.yaml").write_text("mine")
    code, _, err = run(capsys, "schema", "draft", "clinic.csv", "-o", "schema.yaml")
    assert (code, Path("schema.yaml").read_text()) == (2, "mine")
    assert "exists" in err
    assert sorted(path.name for path in records.iterdir()) == ["clinic.csv", "schema.yaml"]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: None, "does not exist"),
        (lambda: Path("x").mkdir(), "holds no table"),
        (lambda: Path("x").write_text("{}"), "holds no table"),
        (lambda: (Path("x").mkdir(), Path("x/1 a.csv").write_text("a\n1\n")), "cannot name a table"),
        (lambda: (Path("x").mkdir(), [Path(f"x/a.{e}").write_text("a\n1\n") for e in ("csv", "tsv")]), "several files"),
        (lambda: (Path("x").mkdir(), Path("x/a.csv").write_text("")), "empty"),
        (lambda: (Path("x").mkdir(), Path("x/a.json").write_text('{"METADATA_SPEC_VERSION": "V1"}')), "SDV metadata"),
        (lambda: (Path("x").mkdir(), Path("x/a.json").write_text('{"expectations": []}')), "schema"),
    ],
)
def test_sources_that_cannot_be_drafted_end_with_3_and_one_line(
    records: Path, capsys: pytest.CaptureFixture[str], make: object, what: str
) -> None:
    make()  # type: ignore[operator]
    code, out, err = run(capsys, "schema", "draft", "x", "-o", "new.yaml")
    assert (code, out) == (3, "")
    assert what in err
    assert err.count("\n") == 1
    assert not Path("new.yaml").exists()


def test_check_tells_the_fate_of_each_column(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema", "draft", "clinic.csv", "-o", "schema.yaml", "-q"])
    code, out, _ = run(capsys, "check", "clinic.csv", "--schema", "schema.yaml", "--policy", "strict")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "dropped" in lines["clinic.ssn"]
    assert "age, capped" in lines["clinic.dob"]
    assert "offset, capped" in lines["clinic.admitted"]
    assert "bought" in lines["clinic.sex"]
    assert "999-17" not in out
    told = json.loads(run(capsys, "check", "clinic.csv", "--schema", "schema.yaml", "--json")[1])
    assert told["readable"]
    assert [c["column"] for c in told["columns"]] == ["pid", "ssn", "dob", "admitted", "sex", "died"]


def test_check_ends_with_3_where_a_column_is_not_declared(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema", "draft", "clinic.csv", "-o", "schema.yaml", "-q"])
    Path("less.yaml").write_text(
        "".join(line for line in Path("schema.yaml").read_text().splitlines(True) if " ssn:" not in line)
    )
    code, out, _ = run(capsys, "check", "clinic.csv", "--schema", "less.yaml")
    assert code == 3
    assert "1 keep these records from being read" in out


@pytest.mark.parametrize("to", ["gx", "sdv"])
def test_a_schema_goes_to_another_tool_and_is_drafted_back(
    records: Path, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    Path("schema.yaml").write_text(
        """
        synthehr: 1
        subject: clinic
        tables:
          clinic:
            key: pid
            columns:
              pid: {kind: id}
              ssn: {kind: identifier}
              sex: {kind: category, values: [f, m]}
              weight: {kind: number, bounds: [20, 300], nullable: true}
        """
    )
    assert run(capsys, "schema", "export", "--schema", "schema.yaml", "--to", to, "-o", "made.json")[0] == 0
    assert run(capsys, "schema", "draft", "made.json", "-o", "again.yaml")[0] == 0
    first, again = load_schema("schema.yaml"), load_schema("again.yaml")
    assert not again.reviewed
    if to == "gx":
        assert again.tables == first.tables
    else:  # SDV's ranges may be of the records: they are not taken over
        assert {n: c.kind for n, c in again.root.columns.items()} == {n: c.kind for n, c in first.root.columns.items()}
        assert again.root.columns["weight"].bounds is None


def test_opt_out_reaches_convert_and_is_counted_for_the_custodian(
    records: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["schema", "draft", "clinic.csv", "-o", "schema.yaml", "-q"])
    Path("out.txt").write_text("p0\np1\n")
    words = ("convert", "clinic.csv", "--schema", "schema.yaml", "--opt-out", "out.txt", "-o", "tables")
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    kept = pl.read_parquet("tables/clinic.parquet")
    assert kept["pid"].to_list() == [f"p{at}" for at in range(2, N)]
    audit = json.loads(Path("tables/AUDIT.json").read_text())
    assert audit["opted out"] == {"list": 2}
    assert not any(character.isdigit() for character in out)  # no count of patients
    assert run(capsys, "schema", "check", "clinic.csv", "--schema", "schema.yaml", "--opt-out", "out.txt")[0] == 0
    assert run(capsys, "schema", "check", "clinic.csv", "--schema", "schema.yaml", "--opt-out", "none.txt")[0] == 3


@pytest.mark.parametrize("with_schema", [False, True])
def test_opt_out_reaches_fhir(records: Path, capsys: pytest.CaptureFixture[str], with_schema: bool) -> None:
    people = [
        {"resourceType": "Patient", "id": f"a{at}", "gender": "female", "birthDate": "1970-01-01"} for at in (1, 2)
    ]
    seen = [
        {
            "resourceType": "Condition",
            "id": f"c{at}",
            "subject": {"reference": f"Patient/a{at}"},
            "onsetDateTime": "2001-01-01",
            "code": {"coding": [{"system": "http://snomed.info/sct", "code": "38341003"}]},
        }
        for at in (1, 2)
    ]
    Path("people.ndjson").write_text("\n".join(json.dumps(resource) for resource in (*people, *seen)))
    main(["convert", "people.ndjson", "-o", "all", "-q"])
    key = pl.read_parquet("all/patient.parquet")["patient_id"].sort()[0]
    Path("out.txt").write_text(f"{key}\n")
    schema = ("--schema", "fhir.yaml") if with_schema else ()
    Path("fhir.yaml").write_text(
        "{synthehr: 1, subject: patient, tables: {patient: {key: patient_id, columns: "
        "{patient_id: {kind: id}, gender: {kind: category}}}}}"
    )
    capsys.readouterr()
    code, _, err = run(capsys, "convert", "people.ndjson", *schema, "--opt-out", "out.txt", "-o", "less")
    assert (code, err) == (0, "")
    for file in Path("less").glob("*.parquet"):
        whole, less = pl.read_parquet(f"all/{file.name}"), pl.read_parquet(file)
        assert less["patient_id"].to_list() == [k for k in whole["patient_id"] if k != key], file.name
    assert json.loads(Path("less/AUDIT.json").read_text())["opted out"] == {"list": 1}


def test_help_and_drafts_of_layouts(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "check", "--help")[0] == run(capsys, "schema", "draft", "--help")[0] == 0
    code, _, err = run(capsys, "check", "clinic.csv", "--schema", "synthea")
    assert code == 3
    assert "synthea-csv" in err


def test_fit_buys_what_an_unreviewed_draft_says_and_tells_so(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema", "draft", "clinic.csv", "-o", "schema.yaml", "-q"])
    Path("out.txt").write_text("p0\np1\n")
    words = ("fit", "clinic.csv", "--schema", "schema.yaml", "--epsilon", "5", "--model", "marginal", "--opt-out")
    split = ("--holdout", "0.2", "--split-out", "split")
    code, out, err = run(capsys, *words, "out.txt", *split, "-o", "release", "--seed", "1")
    assert (code, err) == (0, "")
    parts = pl.concat([pl.read_parquet(f"split/{part}/clinic.parquet") for part in ("train", "holdout")])
    assert sorted(parts["pid"]) == sorted(f"p{at}" for at in range(2, N))
    assert json.loads(Path("split/AUDIT.json").read_text()) == {"left_out": {"list": 2}}
    assert "a draft that is not reviewed" in out
    manifest = json.loads(Path("release/manifest.json").read_text())
    columns = manifest["schema"]["tables"]["clinic"]["columns"]
    assert not manifest["schema"]["reviewed"]
    assert not any({"bounds", "values", "precision"} & set(column) for column in columns.values())
    stages = {event["stage"] for event in manifest["privacy"]["events"]}
    assert {"range:clinic.dob", "domain:clinic.sex"} <= stages or {"range:dob", "domain:sex"} <= stages
    assert run(capsys, "sample", "release", "-n", "20", "--format", "csv", "--seed", "1", "-o", "made")[0] == 0
    made = pl.read_csv("made/clinic.csv", try_parse_dates=True)
    assert made.columns == ["pid", "dob", "admitted", "sex", "died"]
    assert (made.schema["dob"], made.schema["admitted"]) == (pl.Date, pl.Datetime("us"))
    again = read("made/clinic.csv", schema="schema.yaml", lenient=True).root
    assert again.schema["dob"] == again.schema["admitted"] == pl.Int64
