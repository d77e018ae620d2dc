from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import polars as pl
import pytest

from synthehr.errors import ConfigError, SchemaError, SynthehrError
from synthehr.evaluation.intervals import Estimate
from synthehr.evaluation.measurement import SectionName
from synthehr.evaluation.metrics import METRICS
from synthehr.evaluation.suite import Suite, decide, load_suite, run_suite

GOOD = """
synthehr: 1
suite: mine
checks:
  - id: one
    section: fidelity
    metric: pair_tv
    statistic: excess
    op: <=
    bound: 0.1
    rationale: because
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file_loads(tmp_path):
    suite = load_suite(write(tmp_path, GOOD))
    assert suite.suite == "mine"
    assert (suite.checks[0].scope, suite.checks[0].on_inconclusive) == ("all", "inconclusive")


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (("bound: 0.1", "bound: 0.1\n    colour: red"), r"checks\.0\.colour: unknown key"),
        (("metric: pair_tv", "metric: pair_vt"), "unknown metric 'pair_vt'"),
        (("bound: 0.1", "bound: much"), r"checks\.0\.bound"),
        (("bound: 0.1", "bound: .nan"), r"checks\.0\.bound"),
        (("bound: 0.1", "bound: .inf"), r"checks\.0\.bound"),
        (("op: <=", "op: <"), r"checks\.0\.op"),
        (("op: <=", "op: '>='"), "larger is worse"),
        (("section: fidelity", "section: privacy"), "belongs to section 'fidelity'"),
        (("section: fidelity", "section: beauty"), r"checks\.0\.section"),
        (("statistic: excess", "statistic: median"), r"checks\.0\.statistic"),
        (("rationale: because", "scope: all"), r"checks\.0\.rationale: is required"),
        (("rationale: because", "rationale: ''"), r"checks\.0\.rationale"),
        (
            ("rationale: because", "rationale: because\n    on_inconclusive: maybe"),
            r"checks\.0\.on_inconclusive",
        ),
        (("metric: pair_tv", "metric: c2st_auc\n    scope: age"), "knows no scope 'age'"),
        (("metric: pair_tv", "metric: one_way_tv\n    scope: [a, b]"), "knows no scope"),
        (("id: one", "id: 'two words'"), r"checks\.0\.id"),
        (("suite: mine", "suite: mine\nextra: 1"), "extra: unknown key"),
        (("synthehr: 1", "synthehr: 2"), "synthehr"),
        (("bound: 0.1", "bound: 0.1\n    bound: 0.2"), "stands twice"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_names_the_key(tmp_path, change, where):
    with pytest.raises(SchemaError, match=where) as raised:
        load_suite(write(tmp_path, GOOD.replace(*change)))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "- a list", "checks: []\nsynthehr: 1\nsuite: x", "a: [", "just text"])
def test_what_is_no_suite_is_refused(tmp_path, text):
    with pytest.raises(SchemaError) as raised:
        load_suite(write(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_one_wrong_key_is_one_problem(tmp_path):
    with pytest.raises(SchemaError) as raised:
        load_suite(write(tmp_path, GOOD.replace("rationale: because", "rationale: because\n    bond: 1")))
    assert str(raised.value).endswith("checks.0.bond: unknown key")


def test_a_suite_has_a_check(tmp_path):
    with pytest.raises(SchemaError, match="checks: must hold at least one check"):
        load_suite(write(tmp_path, "synthehr: 1\nsuite: x\nchecks: []"))


def test_an_id_stands_once(tmp_path):
    twice = GOOD + GOOD[GOOD.index("  - id") :]
    with pytest.raises(SchemaError, match="'one' stands twice"):
        load_suite(write(tmp_path, twice))


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="ci, quick"):
        load_suite("nightly")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SynthehrError, match="cannot be read"):
        load_suite(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["quick", "ci", "release", "research"])
def test_shipped_suites_load_and_give_a_reason_for_every_bound(name):
    suite = load_suite(name)
    assert suite.suite == name
    assert all(len(gate.rationale) > 40 for gate in suite.checks)


def test_quick_runs_no_classifier():
    assert not {"c2st_auc", "tstr", "tstr_linear", "coefficient_overlap"} & {
        gate.metric for gate in load_suite("quick").checks
    }


def test_each_suite_asks_for_what_the_one_before_asks_for():
    asked = [{gate.id for gate in load_suite(name).checks} for name in ("quick", "ci", "release", "research")]
    assert asked[0] <= asked[1] <= asked[2] <= asked[3]


def test_every_flat_metric_is_gated_or_shown_by_the_research_suite():
    flat = {
        name for name, metric in METRICS.items() if metric.section in {"fidelity", "utility", "inference", "fairness"}
    }
    assert flat <= {gate.metric for gate in load_suite("research").checks}


def test_ci_uses_every_section_but_the_audit():
    assert {gate.section for gate in load_suite("ci").checks} == set(get_args(SectionName)) - {"audit"}


@pytest.mark.parametrize(
    ("low", "high", "op", "verdict"),
    [
        (0.00, 0.09, "<=", "pass"),
        (0.00, 0.10, "<=", "pass"),
        (0.05, 0.15, "<=", "inconclusive"),
        (0.10, 0.15, "<=", "inconclusive"),
        (0.11, 0.15, "<=", "fail"),
        (0.10, 0.15, ">=", "pass"),
        (0.05, 0.15, ">=", "inconclusive"),
        (0.05, 0.10, ">=", "inconclusive"),
        (0.05, 0.09, ">=", "fail"),
    ],
)
def test_a_gate_looks_at_the_whole_interval(low, high, op, verdict):
    assert decide(Estimate(value=(low + high) / 2, low=low, high=high), op=op, bound=0.1) == verdict


def gates(*changes: dict) -> Suite:
    base = {
        "section": "fidelity",
        "metric": "one_way_tv",
        "statistic": "value",
        "op": "<=",
        "bound": 0.5,
        "rationale": "because",
    }
    checks = [{"id": f"g{at}"} | base | change for at, change in enumerate(changes)]
    return Suite.model_validate({"synthehr": 1, "suite": "mine", "checks": checks})


def run(nafld, suite: Suite):
    return run_suite(train=nafld.train, holdout=nafld.holdout, synthetic=nafld.cohort(nafld.others), suite=suite)


def test_scopes_name_columns_pairs_and_each(nafld):
    suite = gates(
        {"scope": "age"},
        {"scope": "each"},
        {"metric": "pair_tv", "scope": ["weight", "bmi"]},
        {"metric": "pair_tv"},
    )
    found = [check.id for check in run(nafld, suite).checks]
    assert found[0] == "g0"
    assert found[1:8] == [f"g1[{name}]" for name in nafld.schema.root.kept]
    assert found[8:] == ["g2", "g3"]


@pytest.mark.parametrize(
    "change",
    [
        {"scope": "colour"},
        {"metric": "pair_tv", "scope": ["age", "colour"]},
        {"metric": "pair_tv", "scope": ["age", "age"]},
    ],
)
def test_a_scope_the_schema_has_not_is_refused(nafld, change):
    with pytest.raises(ConfigError, match="g0"):
        run(nafld, gates(change))


@pytest.mark.parametrize(
    ("bound", "choice", "overall"),
    [
        (0.5, "pass", "pass"),
        (0.0, "pass", "fail"),
        (None, "inconclusive", "inconclusive"),
        (None, "fail", "fail"),
        (None, "pass", "pass"),
    ],
)
def test_the_suite_says_what_undecided_counts_as(nafld, bound, choice, overall):
    value = run(nafld, gates({})).checks[0].value
    change = {"bound": value if bound is None else bound, "on_inconclusive": choice}
    result = run(nafld, gates(change))
    assert result.verdict == overall
    if bound is None:
        assert result.checks[0].verdict == "inconclusive"


def test_one_failure_outweighs_the_undecided(nafld):
    value = run(nafld, gates({})).checks[0].value
    assert run(nafld, gates({}, {"bound": value}, {"bound": 0.0})).verdict == "fail"
    assert run(nafld, gates({}, {"bound": value})).verdict == "inconclusive"


def test_every_metric_has_a_place_of_its_own_with_formula_direction_and_pitfalls():
    readme = (Path(__file__).parents[2] / "evaluation" / "README.md").read_text(encoding="utf-8")
    places = {}
    for part in re.split(r"^#+ ", readme, flags=re.MULTILINE):
        places |= dict.fromkeys(re.findall(r"`(\w+)`", part.split("\n")[0]), part)
    wanted = ("**Formula**", "**Range, direction", "**Pitfalls**")
    missing = [(name, word) for name in METRICS for word in wanted if word not in places.get(name, "")]
    assert missing == []


def test_importing_the_suite_loads_no_heavy_library():
    heavy = "torch sklearn scipy matplotlib jinja2 threadpoolctl"
    program = (
        "import sys, synthehr.evaluation.suite, synthehr.reporting.report\n"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_gate_may_ask_for_more_than_95_percent() -> None:
    from synthehr.evaluation.intervals import Estimate
    from synthehr.evaluation.suite import _widened

    # 99.9 % of a normal distribution lie within 3.2905 deviations, 95 % within 1.9600.
    wide = _widened(Estimate(value=1.0, low=0.0, high=3.0), confidence=0.999)
    assert wide is not None
    assert (wide.low, wide.high) == pytest.approx((1 - 3.2905 / 1.96, 1 + 2 * 3.2905 / 1.96), rel=1e-4)
    same = Estimate(value=1.0, low=0.0, high=3.0)
    assert _widened(same, confidence=0.95) is same


WAIVED = {
    "bound": 0.0,
    "waiver": {"until": "2026-12-31", "reason": "the source changes its units until then", "by": "A. Steward"},
}


@pytest.mark.parametrize(
    ("day", "counts_as", "verdict"),
    [("2026-12-31", "pass", "pass"), ("2027-01-01", "fail", "fail")],
)
def test_a_waiver_lets_a_failure_stand_until_its_last_day_and_no_longer(nafld, day, counts_as, verdict):
    result = run_suite(
        train=nafld.train,
        holdout=nafld.holdout,
        synthetic=nafld.cohort(nafld.others),
        suite=gates(WAIVED),
        today=dt.date.fromisoformat(day),
    )
    (check,) = result.checks
    assert (check.verdict, check.counts_as, result.verdict) == ("fail", counts_as, verdict)
    if counts_as == "pass":
        assert "2026-12-31" in check.waiver and "A. Steward" in check.waiver and "units" in check.waiver
    else:
        assert check.waiver == "" and "ended on 2026-12-31" in check.why


def test_a_waiver_says_nothing_of_a_check_that_passes(nafld):
    (check,) = run(nafld, gates(WAIVED | {"bound": 0.5})).checks
    assert (check.counts_as, check.waiver) == ("pass", "")


@pytest.mark.parametrize(
    "waiver", [{"until": "2026-12-31"}, {"until": "soon", "reason": "r", "by": "b"}, {"reason": "r"}]
)
def test_a_waiver_needs_an_end_a_reason_and_a_name(waiver):
    with pytest.raises(ValueError, match="waiver"):
        gates({"waiver": waiver})


def test_sections_leave_the_rest_out_and_the_result_says_so():
    ci = load_suite("ci")
    part = ci.only(["fidelity", "validity"])
    assert {gate.section for gate in part.checks} == {"fidelity", "validity"}
    assert part.suite == "ci (validity, fidelity only)"
    assert ci.only(None) is ci
    assert ci.only(["validity", *{gate.section for gate in ci.checks}]) is ci


@pytest.mark.parametrize(("names", "match"), [(["audits"], "no check of section 'audits'"), ([], "name one")])
def test_a_section_the_suite_has_not_is_refused(names, match):
    with pytest.raises(ConfigError, match=match):
        load_suite("ci").only(names)


def test_a_holdout_of_other_patients_makes_no_cohort_good(nafld):
    """Beside the old alone, a synthetic cohort of the old alone is as near to train as can be."""
    old = nafld.cohort(nafld.holdout.root.filter(pl.col("age") > 60))
    cohort = nafld.cohort(nafld.others.filter(pl.col("age") > 60))
    suite = load_suite("quick").only(["fidelity"])
    beside_old = run_suite(train=nafld.train, holdout=old, synthetic=cohort, suite=suite)
    assert beside_old.verdict == "inconclusive"
    assert all(check.excess is None and check.value is not None for check in beside_old.checks)
    assert all("no control for train" in check.why and "'age'" in check.why for check in beside_old.checks)
    beside_all = run_suite(train=nafld.train, holdout=nafld.holdout, synthetic=cohort, suite=suite)
    assert beside_all.verdict == "fail"


def test_a_failure_beside_a_holdout_of_other_patients_stands(nafld):
    old = nafld.cohort(nafld.holdout.root.filter(pl.col("age") > 60))
    cohort = nafld.cohort(nafld.others.with_columns(age=0, futime=0, status=True))
    result = run_suite(train=nafld.train, holdout=old, synthetic=cohort, suite=load_suite("quick").only(["fidelity"]))
    assert result.verdict == "fail"


def test_a_bound_on_the_value_asks_nothing_of_the_holdout(nafld):
    old = nafld.cohort(nafld.holdout.root.filter(pl.col("age") > 60))
    suite = gates({"statistic": "value"})
    result = run_suite(train=nafld.train, holdout=old, synthetic=nafld.cohort(nafld.others), suite=suite)
    assert result.verdict == "pass"
