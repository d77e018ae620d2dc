"""The public form: verdicts and bought shares, and nothing from which a patient can be read."""

from __future__ import annotations

import json
import re
import stat

import numpy as np
import polars as pl
import pytest

from synthehr.cohort import Cohort
from synthehr.errors import DataError, NotFitToPublishError
from synthehr.evaluation.suite import Suite, run_suite
from synthehr.reporting.document import BoughtProfile, ReportDocument
from synthehr.reporting.markdown import render_markdown
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


BOUGHT = BoughtProfile(column="sex", labels=("female", "male"), bought=(0.52, 0.48), synthetic=(0.49, 0.51))


def evaluated(train: pl.DataFrame, holdout: pl.DataFrame | None = None) -> Report:
    schema = load_schema(SCHEMA)

    def cohort(rows: pl.DataFrame) -> Cohort:
        return Cohort({"p": rows}, schema=schema)

    found = run_suite(
        train=cohort(train),
        holdout=cohort(frame(411, 1) if holdout is None else holdout),
        synthetic=cohort(frame(903, 2)),
        suite=Suite.model_validate({"synthehr": 1, "suite": "mine", "checks": GATES}),
    )
    claim = PrivacyClaim(epsilon=1.0, delta=1e-6, unit="patient", neighbours="add-or-remove-one", private=True)
    provenance = {"seed": 3, "path": "/records/of/patients.csv", "train_digest": "sha256:abc", "versions": {"a": "1"}}
    return Report(found, privacy=claim, provenance=provenance, bought=(BOUGHT,))


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


def plus(rows: pl.DataFrame, *patients: dict) -> pl.DataFrame:
    return pl.concat([rows, pl.DataFrame(list(patients), schema=rows.schema)])


PLAIN = {"sex": "female", "city": "Northtown", "age": 50, "cost": 2000.0, "died": False}


@pytest.mark.parametrize("added", [ONE, PLAIN, PLAIN | {"cost": None}, PLAIN | {"city": None, "died": None}])
@pytest.mark.parametrize("part", ["train", "holdout"])
def test_neighbours_cannot_be_told_apart_by_the_public_report(without, added, part):
    """An attacker knows every record but one, and makes the public report with and without it."""
    train, holdout = frame(1_807, 0), frame(411, 1)
    report = evaluated(plus(train, added), holdout) if part == "train" else evaluated(train, plus(holdout, added))
    assert report.document != without.document  # the custodian's report does tell them apart
    assert report.public() == without.public()


def test_a_patient_left_out_cannot_be_told_by_the_public_report(without):
    train = frame(1_807, 0)
    for left_out in (0, 903, 1_806):
        report = evaluated(train.filter(pl.int_range(pl.len()) != left_out))
        assert report.document != without.document and report.public() == without.public()


def test_a_report_far_from_its_bounds_in_another_population_differs(without):
    # The equalities above can fail: a cohort that breaks a check has another public report.
    other = frame(1_807, 0).with_columns(pl.lit(30).alias("age"), pl.lit(True).alias("died"))
    assert evaluated(other).public() != without.public()


def test_no_value_of_a_patient_and_no_rare_category_is_in_any_of_the_four_files(with_one, tmp_path):
    text = all_text(with_one, tmp_path / "r")
    text = re.sub(r"<svg.*?</svg>|<style>.*?</style>|<script>.*?</script>", "", text, flags=re.S)
    for value in ("Lonelyville", "Northtown", "Easton", "intersex", "117", "987654"):
        assert value not in text, value


def test_no_exact_number_of_patients_is_in_any_of_the_four_files(with_one, tmp_path):
    text = re.sub(r"sha256-[^']+|timestamp=\"[^\"]+\"", "", all_text(with_one, tmp_path / "r"))
    for count in ("1808", "1,808", "1\u202f808", "1807", "1800", "1\u202f800", "411", "410"):
        assert not re.search(rf"(?<![0-9.]){count}(?![0-9])", text), count


def test_no_number_that_real_records_gave_is_in_it(with_one):
    public = with_one.public()
    for check in public.checks:
        assert {check.value, check.ci, check.reference, check.excess, check.excess_ci} == {None}
    sections = public.sections.model_dump(exclude_defaults=True)
    assert sections == {"sizes": {"train": 0, "holdout": 0, "synthetic": with_one.document.sections.sizes.synthetic}}
    assert public.bought == (BOUGHT,)


def test_its_files_show_bought_shares_and_no_empty_columns_of_numbers(with_one, tmp_path):
    folder = with_one.save(tmp_path / "r", audience="public")
    page, text = ((folder / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    assert "52.0 %" in page and "Bought" in page and "95 % interval</th>" not in page
    assert "Other real patients" not in text + page
    assert "one patient can turn it" in page  # what is left of a trace is said


def test_it_is_not_told_whether_an_undecided_check_could_be_measured(with_one):
    def undecided(**change: object) -> dict:
        [first, *others] = with_one.document.model_dump()["checks"]
        return {**first, "verdict": "inconclusive", "counts_as": "inconclusive", **change}, *others

    contents = with_one.document.model_dump() | {"verdict": "inconclusive"}
    wide = ReportDocument.model_validate(contents | {"checks": undecided()})
    nothing = undecided(value=None, ci=None, excess=None, excess_ci=None, why="Fewer than 20 patients died.")
    unmeasured = ReportDocument.model_validate(contents | {"checks": nothing})
    assert public_document(wide) == public_document(unmeasured)
    assert "Undecided" in render_markdown(public_document(wide))


def test_the_verdicts_and_the_promise_stay(with_one):
    public, internal = with_one.public(), with_one.document
    assert public.verdict == internal.verdict and public.privacy == internal.privacy
    assert [(one.id, one.verdict, one.counts_as) for one in public.checks] == [
        (one.id, one.verdict, one.counts_as) for one in internal.checks
    ]


def test_only_known_provenance_is_public(with_one):
    assert with_one.public().provenance == {"versions": {"a": "1"}}
    assert with_one.public().seed is None  # who knows the seed can repeat the draws with and without a patient


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
