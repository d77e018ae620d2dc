"""Real patients in three tables: other real patients pass, planted faults fail the check that should see them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import synthehr
from synthehr.cli import main
from synthehr.cohort import Cohort
from synthehr.evaluation.bench import Bench
from synthehr.evaluation.longitudinal import METRICS as LONGITUDINAL
from synthehr.evaluation.metrics import measure, sections
from synthehr.evaluation.suite import Suite, SuiteResult, load_suite, run_suite
from synthehr.schema.files import load_schema

BENCH = Path(__file__).parents[2] / "evaluation" / "bench"
ROWS = tuple(name for name, metric in LONGITUDINAL.items() if metric.section == "longitudinal")
MANY = ("as-many-rows[lab]", "as-many-rows[event]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    train: Cohort
    holdout: Cohort
    others: Cohort

    def plant(self, **tables: pl.DataFrame) -> Cohort:
        return Cohort({**self.others.tables, **tables}, schema=self.others.schema)


@pytest.fixture(scope="module")
def whole() -> Iterator[Cohort]:
    sys.path.insert(0, str(BENCH))
    try:
        from nafld_tables import SCHEMA, nafld_tables
    finally:
        sys.path.remove(str(BENCH))
    yield synthehr.read(nafld_tables(), schema=SCHEMA)


@pytest.fixture(scope="module")
def split(whole: Cohort) -> Split:
    order = np.random.default_rng(1).permutation(len(whole))[:9000]
    train, holdout, others = (whole.take(np.sort(part)) for part in np.split(order, [5400, 7200]))
    return Split(train=train, holdout=holdout, others=others)


def rows_alone(suite: str = "quick") -> Suite:
    loaded = load_suite(suite)
    kept = tuple(gate for gate in loaded.checks if gate.metric in LONGITUDINAL and gate.metric != "patient_tstr")
    return loaded.model_copy(update={"checks": kept})


def judged(split: Split, synthetic: Cohort) -> SuiteResult:
    return run_suite(train=split.train, holdout=split.holdout, synthetic=synthetic, suite=rows_alone())


def failed(result: SuiteResult) -> set[str]:
    return {check.id for check in result.checks if check.verdict == "fail"}


def test_other_real_patients_pass_every_gate_on_rows(split: Split) -> None:
    result = judged(split, split.others)
    assert result.verdict == "pass", [check for check in result.checks if check.counts_as != "pass"]
    # All of them, and rows per patient for each of two tables.
    assert len(result.checks) == len(rows_alone().checks) + 1


def test_other_real_patients_hardly_ever_fail_even_where_few(whole: Cohort) -> None:
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(len(whole))[:2000]
        parts = [whole.take(np.sort(part)) for part in np.split(order, [1200, 1600])]
        result = judged(Split(train=parts[0], holdout=parts[1], others=parts[2]), parts[2])
        assert not failed(result), seed


def test_days_shuffled_within_patients_fail(split: Split) -> None:
    shuffled = {
        name: split.others.tables[name].with_columns(pl.col("days").shuffle(seed=3).over("id"))
        for name in ("lab", "event")
    }
    caught = failed(judged(split, split.plant(**shuffled)))
    assert "what-follows-a-code" in caught
    assert not caught & {
        "as-many-rows[lab]",
        "as-many-rows[event]",
        "rows-alike",
        "codes-as-common",
        "values-by-code",
        "rows-go-with-patients",
    }


def test_histories_turned_around_in_time_fail(split: Split) -> None:
    turned = {
        name: split.others.tables[name].with_columns(
            days=pl.col("days").min().over("id") + pl.col("days").max().over("id") - pl.col("days")
        )
        for name in ("lab", "event")
    }
    caught = failed(judged(split, split.plant(**turned)))
    assert "codes-of-the-next-visit" in caught
    assert not caught & {"as-many-rows[lab]", "as-many-rows[event]", "codes-as-common", "values-by-code"}


def test_histories_given_to_other_patients_fail(split: Split) -> None:
    patients = split.others.tables["patient"]
    given = patients.select("id", new=pl.col("id").shuffle(seed=5))
    moved = {
        name: split.others.tables[name].join(given, on="id").with_columns(id=pl.col("new")).drop("new")
        for name in ("lab", "event")
    }
    caught = failed(judged(split, split.plant(**moved)))
    assert {"rows-go-with-patients", "orders-in-time"} <= caught
    assert not caught & {
        "as-many-rows[lab]",
        "as-many-rows[event]",
        "gaps-alike",
        "what-follows-a-code",
        "values-by-code",
        "values-stay",
    }


def privacy_alone() -> Suite:
    loaded = load_suite("ci")
    return loaded.model_copy(update={"checks": tuple(gate for gate in loaded.checks if gate.section == "privacy")})


def test_other_real_patients_pass_every_attack_on_whole_patients(split: Split) -> None:
    result = run_suite(train=split.train, holdout=split.holdout, synthetic=split.others, suite=privacy_alone())
    assert result.verdict == "pass", [check for check in result.checks if check.counts_as != "pass"]
    assert {"no-copied-histories", "no-copied-outliers[patient]", "no-copied-outliers[with rows]"} <= {
        check.id for check in result.checks
    }


def test_histories_of_train_given_to_other_patients_fail_as_copies(split: Split) -> None:
    given = pl.DataFrame({"id": split.train.root["id"][: len(split.others)], "new": split.others.root["id"]})
    moved = {
        name: split.train.tables[name].join(given, on="id").with_columns(id=pl.col("new")).drop("new")
        for name in ("lab", "event")
    }
    synthetic = split.plant(**moved)
    result = run_suite(train=split.train, holdout=split.holdout, synthetic=synthetic, suite=privacy_alone())
    assert failed(result) == {"no-copied-histories"}


def test_values_shuffled_within_a_test_fail_by_what_stays_with_a_patient(split: Split) -> None:
    lab = split.others.tables["lab"].with_columns(pl.col("value").shuffle(seed=1).over("test"))
    caught = failed(judged(split, split.plant(lab=lab)))
    assert "values-stay" in caught
    assert not caught & {"values-by-code", "codes-of-a-visit", "what-follows-a-code"}


def test_tests_shuffled_over_rows_fail_values_visits_and_order(split: Split) -> None:
    lab = split.others.tables["lab"].with_columns(pl.col("test").shuffle(seed=1))
    assert {"values-by-code", "codes-of-a-visit", "what-follows-a-code"} <= failed(judged(split, split.plant(lab=lab)))


def test_half_of_the_rows_and_all_rows_twice_fail(split: Split) -> None:
    tables = split.others.tables
    half = failed(judged(split, split.plant(lab=tables["lab"].sample(fraction=0.5, seed=1))))
    assert {"as-many-rows[lab]", "gaps-alike"} <= half
    assert "as-many-rows[event]" not in half
    twice = failed(judged(split, split.plant(event=pl.concat([tables["event"], tables["event"]]))))
    assert {"as-many-rows[event]", "gaps-alike", "orders-in-time"} <= twice


def test_values_in_another_unit_fail(split: Split) -> None:
    lab = split.others.tables["lab"].with_columns(pl.col("value") * 0.0259)
    assert {"values-by-code", "rows-alike"} <= failed(judged(split, split.plant(lab=lab)))


def test_a_few_impossible_pressures_fail_by_name_though_no_distance_sees_them(split: Split) -> None:
    lab = split.others.tables["lab"]
    few = pl.Series(np.random.default_rng(2).random(lab.height) < 0.1) & (lab["test"] == "sbp")
    changed = lab.with_columns(pl.when(few).then(pl.col("value") * 5).otherwise("value").alias("value"))
    assert failed(judged(split, split.plant(lab=changed))) == {"no-far-numbers-in-rows"}


def test_order_of_rows_and_types_do_not_matter(split: Split) -> None:
    tables = split.others.tables
    other = split.plant(
        patient=tables["patient"].with_columns(pl.col("age").cast(pl.Float32)),
        lab=tables["lab"]
        .sample(fraction=1.0, shuffle=True, seed=0)
        .with_columns(pl.col("days", "value").cast(pl.String)),
        event=tables["event"].reverse().with_columns(pl.col("days").cast(pl.Float64)),
    )
    # Where rows are cut at max_rows, which of them stay depends on the order of the file; so none is here.
    schema = _unbounded(split.train)
    made = [Cohort(one.tables, schema=schema) for one in (split.train, split.holdout, split.others, other)]
    plain, changed = (Bench.open(train=made[0], holdout=made[1], synthetic=one, seed=0) for one in made[2:])
    for name in ROWS:
        if not name.startswith("patient_"):
            first, second = measure(plain, name, "all"), measure(changed, name, "all")
            assert second.value.value == pytest.approx(first.value.value, abs=1e-9), name


def _unbounded(cohort: Cohort):
    declared = cohort.schema.model_dump(mode="json", exclude_none=True)
    for table in declared["tables"].values():
        table.pop("max_rows", None)
    return load_schema(declared)


def test_rows_beyond_max_rows_are_cut_in_all_cohorts_alike(split: Split) -> None:
    draws = np.random.default_rng(0)
    release_like = split.others.bounded({"lab": 40, "event": 20}, draws=draws)
    bench = Bench.open(train=split.train, holdout=split.holdout, synthetic=release_like, seed=0)
    assert measure(bench, "rows_per_patient", "lab").excess.value < 0.03
    assert measure(bench, "value_by_code", "lab").excess.value < 0.03


def test_whole_patients_are_told_apart_and_teach_the_outcome(split: Split) -> None:
    bench = Bench.open(train=split.train, holdout=split.holdout, synthetic=split.others, seed=0)
    assert measure(bench, "patient_c2st_auc", "all").value.value < 0.55
    real = measure(bench, "patient_tstr", "all")
    rows_help = real.value.value - measure(bench, "tstr", "all").value.value
    assert real.value.value > 0.8 and rows_help > 0, rows_help
    flipped = split.plant(patient=split.others.tables["patient"].with_columns(~pl.col("died")))
    broken = Bench.open(train=split.train, holdout=split.holdout, synthetic=flipped, seed=0)
    assert measure(broken, "patient_tstr", "died").excess.low > 0.1


def test_the_profile_names_what_is_declared_and_holds_no_patient(split: Split) -> None:
    bench = Bench.open(train=split.train, holdout=split.holdout, synthetic=split.others, seed=0)
    assert sections(bench).longitudinal is None, "no check has asked"
    measure(bench, "regularity_violations", "all")
    found = sections(bench).longitudinal
    assert {(one.table, one.what) for one in found.histograms} == {
        ("lab", "rows"),
        ("event", "rows"),
        ("lab", "gaps"),
        ("event", "gaps"),
        ("", "codes"),
    }
    assert all(sum(one.train) == pytest.approx(1.0, abs=0.01) for one in found.histograms)
    assert {one.label for one in found.codes if one.table == "lab"} == {"chol", "dbp", "fib4", "hdl", "sbp", "smoke"}
    assert "lab.days is not after patient.futime" in {one.text for one in found.regularities}
    assert [one.band for one in found.bands] == ["common", "medium", "rare"]
    hdl = next(one for one in found.trajectories if one.code == "hdl")
    assert all(40 < mean < 70 for mean in hdl.train if mean is not None)


def test_a_flat_cohort_leaves_the_gates_on_rows_out(split: Split) -> None:
    declared = split.train.schema.model_dump(mode="json", exclude_none=True)
    flat = load_schema({**declared, "tables": {"patient": declared["tables"]["patient"]}, "rules": []})
    cohorts = [Cohort({"patient": one.root}, schema=flat) for one in (split.train, split.holdout, split.others)]
    result = run_suite(train=cohorts[0], holdout=cohorts[1], synthetic=cohorts[2], suite=load_suite("quick"))
    assert not {check.metric for check in result.checks} & set(LONGITUDINAL)
    with pytest.raises(synthehr.errors.ConfigError, match="no check of suite 'quick' applies"):
        run_suite(train=cohorts[0], holdout=cohorts[1], synthetic=cohorts[2], suite=rows_alone())
    bench = Bench.open(train=cohorts[0], holdout=cohorts[1], synthetic=cohorts[2], seed=0)
    for name in ROWS:
        assert measure(bench, name, "all").why.startswith("The schema declares one table"), name


def test_evaluate_works_from_the_command_line_on_several_tables(split: Split, tmp_path: Path, capsys) -> None:
    folders = []
    for name in ("train", "holdout", "others"):
        cohort = getattr(split, name)
        folder = tmp_path / name
        folder.mkdir()
        for table, frame in cohort.tables.items():
            frame.write_parquet(folder / f"{table}.parquet")
        folders.append(str(folder))
    arguments = ["--train", folders[0], "--holdout", folders[1], "--synthetic", folders[2]]
    arguments += ["--schema", str(BENCH / "nafld.yaml"), "--suite", "quick", "-o", str(tmp_path / "report")]
    assert main(["evaluate", *arguments]) == 0, capsys.readouterr()
    report = (tmp_path / "report" / "report.json").read_text()
    assert '"regularity_violations"' in report
    assert (tmp_path / "report" / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_all_of_nafld_takes_seconds_and_whole_patients_are_in_the_reference_column(whole: Cohort) -> None:
    order = np.random.default_rng(0).permutation(len(whole))
    train, holdout, others = (whole.take(np.sort(part)) for part in np.split(order, [10_000, 13_700]))
    begun = time.perf_counter()
    bench = Bench.open(train=train, holdout=holdout, synthetic=others, seed=0)
    for name in ROWS:
        if not name.startswith("patient_"):
            found = measure(bench, name, "all")
            print(f"{name}: {found.value.value:.4f}, other real patients {found.reference:.4f}")  # noqa: T201 - by -s
            assert found.excess.low <= 0.0, name
    sections(bench)
    assert time.perf_counter() - begun < 60, "2 s alone on 2 cores, with 400,123 labs and 34,340 events"


def test_every_gate_on_rows_names_a_metric_of_rows() -> None:
    assert {gate.metric for gate in rows_alone("ci").checks} == {gate.metric for gate in rows_alone().checks}
    assert {gate.metric for gate in load_suite("research").checks} >= set(ROWS) - {"patient_c2st_auc"}
