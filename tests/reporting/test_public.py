"""The public form: verdicts and coarse shares, and nothing from which a patient can be read."""

from __future__ import annotations

import json
import re
import stat

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.errors import DataError, NotFitToPublishError
from synthehr.evaluation.findings import ColumnProfile
from synthehr.evaluation.suite import Suite, run_suite
from synthehr.reporting import publish
from synthehr.reporting.document import ReportDocument
from synthehr.reporting.publish import assert_fit_to_publish, public_document
from synthehr.reporting.report import PrivacyClaim, Report
from synthehr.schema.files import load_schema

SCHEMA = {
    "synthehr": 1,
    "subject": "p",
    "tables": {
        "p": {
            "columns": {
                "sex": {"kind": "category", "values": ["female", "male", "intersex"]},
                "city": {"kind": "category", "discover": True},
                "age": {"kind": "integer", "bounds": [0, 120]},
                "cost": {"kind": "number", "bounds": [0, 1e6], "nullable": True},
                "died": {"kind": "boolean"},
            },
            "outcome": ["died"],
        }
    },
}
GATES = [
    {"id": metric, "section": section, "metric": metric, "op": "<=", "rationale": "Far from what is found."}
    | {"statistic": "excess", "bound": bound}
    for metric, section, bound in (
        ("schema_violations", "validity", 0.2),
        ("one_way_tv", "fidelity", 0.3),
        ("pair_tv_worst", "fidelity", 0.5),
        ("verbatim_copies", "privacy", 0.3),
    )
]
ONE = {"sex": "intersex", "city": "Lonelyville", "age": 117, "cost": 987654.25, "died": True}


def frame(patients: int, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    age = draw.integers(20, 90, patients)
    return pl.DataFrame(
        {
            "sex": draw.choice(["female", "male"], patients),
            "city": draw.choice(["Northtown", "Southport", "Easton"], patients, p=[0.6, 0.38, 0.02]),
            "age": age,
            "cost": np.where(draw.random(patients) < 0.2, np.nan, draw.gamma(2.0, 1234.567, patients)),
            "died": draw.random(patients) < age / 120,
        }
    ).with_columns(pl.col("cost").fill_nan(None))


def evaluated(train: pl.DataFrame) -> Report:
    schema = load_schema(SCHEMA)

    def cohort(rows: pl.DataFrame) -> Cohort:
        return Cohort({"p": rows}, schema=schema)

    found = run_suite(
        train=cohort(train),
        holdout=cohort(frame(411, 1)),
        synthetic=cohort(frame(903, 2)),
        suite=Suite.model_validate({"synthehr": 1, "suite": "mine", "checks": GATES}),
    )
    claim = PrivacyClaim(epsilon=1.0, delta=1e-6, unit="patient", neighbours="add-or-remove-one", private=True)
    provenance = {"seed": 3, "path": "/records/of/patients.csv", "train_digest": "sha256:abc", "versions": {"a": "1"}}
    return Report(found, privacy=claim, provenance=provenance)


@pytest.fixture(scope="module")
def without() -> Report:
    return evaluated(frame(1_807, 0))


@pytest.fixture(scope="module")
def with_one() -> Report:
    rows = frame(1_807, 0)
    return evaluated(pl.concat([rows, pl.DataFrame([ONE], schema=rows.schema)]))


def all_text(report: Report, folder) -> str:
    saved = report.save(folder, audience="public")
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(saved.iterdir()))


def test_adding_one_patient_does_not_change_the_public_report(without, with_one):
    assert with_one.document != without.document
    assert with_one.public() == without.public()


def test_the_internal_report_would_tell_the_two_apart(without, with_one):
    internal = [json.dumps(report.document.sections.model_dump(mode="json")) for report in (without, with_one)]
    assert internal[0] != internal[1]


def test_no_value_of_a_patient_and_no_rare_category_is_in_any_of_the_four_files(with_one, tmp_path):
    text = all_text(with_one, tmp_path / "r")
    text = re.sub(r"<svg.*?</svg>|<style>.*?</style>|<script>.*?</script>", "", text, flags=re.S)
    for value in ("Lonelyville", "Northtown", "Easton", "intersex", "117", "987654"):
        assert value not in text, value


def test_no_exact_number_of_patients_is_in_any_of_the_four_files(with_one, tmp_path):
    text = re.sub(r"sha256-[^']+|timestamp=\"[^\"]+\"", "", all_text(with_one, tmp_path / "r"))
    for count in ("1808", "1,808", "1\u202f808", "1807", "1800", "1\u202f800", "411", "410", "903", "900"):
        assert not re.search(rf"(?<![0-9.]){count}(?![0-9])", text), count


def numbers(value: object) -> list[float]:
    if isinstance(value, dict):
        return [one for inner in value.values() for one in numbers(inner)]
    if isinstance(value, list):
        return [one for inner in value for one in numbers(inner)]
    return [float(value)] if isinstance(value, float) else []


def test_every_share_and_distance_is_a_multiple_of_a_twentieth(with_one):
    contents = with_one.public().model_dump(mode="json")
    told = numbers(contents["sections"])
    told += [one for check in contents["checks"] for key in ("value", "reference") for one in numbers([check[key]])]
    assert told
    assert all(abs(round(20 * one) - 20 * one) < 1e-9 for one in told)
    assert all(check[key] is None for check in contents["checks"] for key in ("ci", "excess", "excess_ci"))


def test_the_verdicts_and_the_promise_stay(with_one):
    public, internal = with_one.public(), with_one.document
    assert public.verdict == internal.verdict and public.privacy == internal.privacy
    assert [(one.id, one.verdict, one.counts_as) for one in public.checks] == [
        (one.id, one.verdict, one.counts_as) for one in internal.checks
    ]


def test_only_known_provenance_is_public(with_one):
    assert with_one.public().provenance == {"seed": 3, "versions": {"a": "1"}}


def test_findings_that_have_no_coarse_form_are_left_out(with_one):
    kept = {"sizes", "columns", "pairs"}
    sections = with_one.public().sections
    for name in set(type(sections).model_fields) - kept:
        assert not getattr(sections, name), name


def column(kind: str, labels, shares) -> ColumnProfile:
    return ColumnProfile(
        column="c",
        kind=kind,
        labels=labels,
        train=shares,
        holdout=shares,
        synthetic=shares,
        distance=0.0,
        reference=0.0,
    )


def test_cells_of_few_patients_are_told_together():
    # b and d have 3 % each, below 5 %, and 6 % together; missing (8 %) stands by itself.
    shares = (0.56, 0.03, 0.3, 0.03, 0.08)
    made = publish._coarse_column(column("category", ("a", "b", "c", "d", "missing"), shares), 0.05)
    assert made is not None
    assert made.labels == ("a", "c", "missing", "all others")
    assert made.train == (0.55, 0.3, 0.1, 0.05)


def test_a_cell_of_few_patients_leaves_no_trace():
    made = publish._coarse_column(column("category", ("a", "b", "c"), (0.6, 0.01, 0.39)), 0.05)
    assert made is not None and made.labels == ("a", "c")


def test_edges_of_bins_are_not_told():
    made = publish._coarse_column(column("integer", ("below 31", "31 to 40", "41 or more"), (0.3, 0.3, 0.4)), 0.05)
    assert made is not None and made.labels == tuple(f"part {at} of 3, from the lowest" for at in (1, 2, 3))


def test_a_column_of_which_one_cell_is_left_is_not_told():
    assert publish._coarse_column(column("category", ("a", "b"), (0.97, 0.03)), 0.05) is None


@pytest.mark.parametrize(
    ("size", "told"), [(0, 0), (1, 1), (9, 5), (10, 10), (411, 200), (1999, 1000), (70_000, 50_000)]
)
def test_sizes_are_told_as_a_round_number_they_reach(size, told):
    assert publish._at_least(size) == told


def test_the_public_form_is_a_report_of_the_published_format_and_its_own_public_form(with_one):
    public = with_one.public()
    assert ReportDocument.model_validate(json.loads(public.model_dump_json())) == public
    assert public_document(public) is public


def test_a_cohort_that_is_not_private_says_so_in_public_too(result, tmp_path):
    report = Report(result, privacy=PrivacyClaim(private=False, why_not="a baseline"), provenance={})
    text = all_text(report, tmp_path / "r")
    assert text.count("The synthetic cohort is NOT PRIVATE. For the public") >= 4


def test_a_public_folder_can_be_read_by_all(with_one, tmp_path):
    assert stat.S_IMODE(with_one.save(tmp_path / "r", audience="public").stat().st_mode) == 0o755


def passing(report: Report) -> ReportDocument:
    checks = [{**check.model_dump(), "verdict": "pass", "counts_as": "pass"} for check in report.document.checks]
    return ReportDocument.model_validate({**report.document.model_dump(), "verdict": "pass", "checks": checks})


def test_fit_to_publish_is_what_passes_with_a_promise(with_one, tmp_path):
    document = passing(with_one)
    assert_fit_to_publish(document)
    (tmp_path / "report.json").write_text(document.model_dump_json())
    assert_fit_to_publish(tmp_path)


def test_what_fails_or_promises_nothing_is_not_fit_to_publish(report, result, with_one):
    with pytest.raises(AssertionError, match=r"not fit to publish by suite 'ci': .*columns-alike: fail"):
        assert_fit_to_publish(report)
    nothing = passing(with_one).model_copy(
        update={"privacy": Report(result, privacy=None, provenance={}).document.privacy}
    )
    with pytest.raises(NotFitToPublishError, match="nothing is promised"):
        assert_fit_to_publish(nothing)


def test_an_audit_that_shows_more_than_was_promised_is_not_fit_to_publish(with_one):
    document = passing(with_one)
    privacy = document.privacy.model_copy(update={"audited_epsilon_lower_bound": 1.5})
    with pytest.raises(NotFitToPublishError, match="audit"):
        assert_fit_to_publish(document.model_copy(update={"privacy": privacy}))


def test_a_path_without_a_report_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        assert_fit_to_publish(tmp_path)
