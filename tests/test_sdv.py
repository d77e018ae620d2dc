"""Synthesizers in SDV's manner: its Metadata and conditions in, pandas out, and the promise kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sdv.metadata import Metadata
from sdv.sampling import Condition, DataFrameCondition
from sklearn.base import clone

from synthehr.errors import BudgetExceededError, ConfigError, DataError, SchemaError
from synthehr.models import training
from synthehr.models.ctgan import CriticSettings
from synthehr.models.marginals import FitSettings
from synthehr.models.tvae import VariationalSettings
from synthehr.privacy.budget import Budget
from synthehr.privacy.ledger import Ledger
from synthehr.sdv import DPCTGANSynthesizer, DPMarginalSynthesizer, DPSynthesizer, DPTVAESynthesizer

QUICK = training.TrainingSettings(
    bins=8,
    fit=FitSettings(steps=30),
    critic=CriticSettings(steps=20, critic_steps=1, hidden=8, expected_batch=32),
    variational=VariationalSettings(steps=20, hidden=8, expected_batch=32),
)
PUBLIC: dict[str, Any] = {
    "bounds": {"age": (20, 90), "weight": (40, 120), "seen": ("2020-01-01", "2021-12-31")},
    "categories": {"sex": ["f", "m"], "grade": [1, 2, 3]},
    "kinds": {"age": "integer", "died": "boolean"},
}
ROWS = 800


@pytest.fixture(autouse=True)
def quick_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "TrainingSettings", lambda: QUICK)


def records(rows: int = ROWS) -> pd.DataFrame:
    draws = np.random.default_rng(0)
    seen = pd.Timestamp("2020-01-01") + pd.to_timedelta(draws.integers(0, 700, rows), "D")
    return pd.DataFrame(
        {
            "key": np.arange(rows),
            "age": draws.integers(20, 90, rows),
            "weight": np.where(np.arange(rows) % 9 == 0, np.nan, draws.normal(75, 9, rows).round(1)),
            "sex": draws.choice(["f", "m"], rows),
            "grade": draws.integers(1, 4, rows),
            "died": draws.random(rows) < 0.4,
            "seen": seen.strftime("%d/%m/%Y"),
            "email": [f"p{at}@clinic.example" for at in range(rows)],
        }
    )


def metadata() -> Metadata:
    made = Metadata()
    made.add_table("patient")
    sdtypes: dict[str, dict[str, Any]] = {
        "key": {"sdtype": "id"},
        "age": {"sdtype": "numerical"},
        "weight": {"sdtype": "numerical"},
        "sex": {"sdtype": "categorical"},
        "grade": {"sdtype": "categorical"},
        "died": {"sdtype": "categorical"},
        "seen": {"sdtype": "datetime", "datetime_format": "%d/%m/%Y"},
        "email": {"sdtype": "email"},
    }
    for name, entry in sdtypes.items():
        made.add_column(name, table_name="patient", **entry)
    made.set_primary_key("key", table_name="patient")
    return made


def new(kind: type[DPSynthesizer] = DPMarginalSynthesizer, **options: Any) -> DPSynthesizer:
    return kind(metadata(), **({"epsilon": 5.0, "policy": "exploratory"} | PUBLIC | options))


@pytest.fixture(scope="module")
def fitted() -> Iterator[DPSynthesizer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "TrainingSettings", lambda: QUICK)
        yield new().fit(records())


@pytest.mark.parametrize(("kind", "model"), [(DPTVAESynthesizer, "dp-tvae"), (DPMarginalSynthesizer, "marginal")])
def test_a_synthesizer_fits_its_model_and_keeps_the_promise(kind: type[DPSynthesizer], model: str) -> None:
    synthesizer = new(kind, epsilon=4.0, seed=1)
    assert synthesizer.fit(records()) is synthesizer
    manifest = synthesizer.release.manifest
    assert manifest.model.name == model
    assert manifest.privacy.private
    assert manifest.privacy.epsilon_spent <= manifest.privacy.epsilon == 4.0
    assert len(synthesizer.sample(num_rows=70)) == 70


def test_samples_look_like_the_records(fitted) -> None:
    sample = fitted.sample(num_rows=500, seed=1)
    given = records()
    assert list(sample.columns) == [name for name in given.columns if name != "email"]
    for name in ("age", "grade", "seen"):
        if not sample[name].isna().any():  # every column may be missing, since nothing public says that it is not
            assert sample[name].dtype == given[name].dtype
    assert sample["age"].dropna().between(20, 90).all()
    assert set(sample["grade"].dropna()) <= {1, 2, 3}
    assert set(sample["died"].dropna()) <= {True, False}
    assert pd.to_datetime(sample["seen"].dropna(), format="%d/%m/%Y").between("2020-01-01", "2021-12-31").all()
    assert sample["key"].is_unique
    assert sample.equals(fitted.sample(500, seed=1))
    assert not sample.equals(fitted.sample(500, seed=2))


def test_tables_by_name_come_back_by_name() -> None:
    synthesizer = new().fit({"patient": records()})
    sample = synthesizer.sample(5)
    assert list(sample) == ["patient"]
    assert len(sample["patient"]) == 5


def test_metadata_is_taken_from_whatever_has_to_dict() -> None:
    class Like:
        def to_dict(self) -> dict[str, Any]:
            return metadata().to_dict()

    for source in (Like(), metadata().to_dict()):
        assert DPMarginalSynthesizer(source, epsilon=1.0, **PUBLIC).get_metadata().to_dict() == metadata().to_dict()


def test_what_detection_read_off_the_records_is_not_released(tmp_path) -> None:
    given = records()[["age", "weight", "sex"]].astype({"weight": float})
    given.loc[7, "weight"] = 98765.4321
    given["sex"] = given["sex"].where(given.index != 7, "CANARYVILLE")
    found = Metadata.detect_from_dataframes({"patient": given}, infer_keys=None)
    assert "98765.4321" in str(found.to_dict())
    synthesizer = DPMarginalSynthesizer(found, epsilon=5.0, policy="exploratory").fit(given)
    synthesizer.save(tmp_path / "r")
    texts = [path.read_bytes() for path in (tmp_path / "r").iterdir()]
    texts += [synthesizer.sample(2000).to_csv().encode(), repr(synthesizer).encode()]
    # As the beginning of a number: the same digits stand within others by chance, thousands of which are released.
    for canary in (rb"(?<![\d.])98765", rb"98765\.4", rb"CANARY"):
        assert not any(re.search(canary, text) for text in texts)


def test_the_schema_of_a_release_is_of_the_metadata_and_not_of_the_records() -> None:
    """Where one patient's value is missing pandas holds whole numbers as floats, and truth as objects."""
    options = {"kinds": {}, "bounds": PUBLIC["bounds"], "categories": {"sex": ["f", "m"]}}
    complete, one_more = records(), records()
    gone = one_more.index == 3
    for name in ("age", "died", "sex"):
        one_more[name] = one_more[name].mask(gone)
    assert list(one_more.dtypes) != list(complete.dtypes)
    schemas = [new(**options).fit(given).release.schema for given in (complete, one_more)]
    assert schemas[0] == schemas[1]


def test_it_is_not_sampled_or_saved_before_it_is_fitted(tmp_path) -> None:
    for call in (
        lambda s: s.sample(1),
        lambda s: s.save(tmp_path / "r"),
        lambda s: s.sample_from_conditions([Condition({"sex": "f"})]),
        lambda s: s.sample_remaining_columns(pd.DataFrame({"sex": ["f"]})),
        lambda s: s.release,
    ):
        with pytest.raises(ConfigError, match="is not fitted: call fit first"):
            call(new())
    assert not (tmp_path / "r").exists()


def test_a_second_fit_is_refused_and_a_clone_is_not_fitted(fitted) -> None:
    digest = fitted.release.digest
    with pytest.raises(ConfigError, match=r"would spend epsilon 5\.0 on the same patients again"):
        fitted.fit(records())
    assert fitted.release.digest == digest
    again = clone(fitted)
    with pytest.raises(ConfigError, match="not fitted"):
        again.sample(1)
    assert again.get_parameters() == fitted.get_parameters()


def test_a_ledger_pays_and_refuses(tmp_path) -> None:
    Ledger.open(tmp_path / "l", population="clinic", budget=Budget(epsilon=5.0, delta=1e-5), by="us", why="a test")
    new(epsilon=4.0).fit(records(), ledger=tmp_path / "l", population="clinic", why="a test")
    with pytest.raises(BudgetExceededError):
        new(epsilon=4.0).fit(records(), ledger=tmp_path / "l", population="clinic", why="a test")


def test_parameters_are_read_and_changed_as_scikit_learn_does() -> None:
    synthesizer = new(seed=3)
    params = synthesizer.get_params()
    assert params.pop("metadata") is synthesizer.metadata
    assert params == synthesizer.get_parameters()
    assert synthesizer.set_params(epsilon=1.5, outcome="died") is synthesizer
    assert (synthesizer.epsilon, synthesizer.outcome) == (1.5, "died")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"epsilon": 0.0}, ConfigError, "epsilon"),
        ({"delta": 1.0}, ConfigError, "delta"),
        ({"enforce_min_max_values": False}, ConfigError, "enforce_min_max_values must be true"),
        ({"enforce_rounding": False}, ConfigError, "enforce_rounding must be true"),
        ({"bounds": {}}, SchemaError, "'seen' in table 'patient' needs public bounds"),
        ({"outcome": "email"}, SchemaError, "email"),
        ({"metadata": {}}, SchemaError, "must be a sdv.metadata.Metadata"),
    ],
)
def test_parameters_that_cannot_be_right_are_refused_and_change_nothing(options, error: type, says: str) -> None:
    with pytest.raises(error, match=says):
        DPMarginalSynthesizer(**({"metadata": metadata(), "epsilon": 5.0} | PUBLIC | options))
    synthesizer = new()
    before = synthesizer.get_params()
    with pytest.raises(error, match=says):
        synthesizer.set_params(device="cpu", **options)
    assert synthesizer.get_params() == before


def test_parameters_that_there_are_not_or_that_come_too_late_are_refused(fitted) -> None:
    with pytest.raises(ConfigError, match="has no parameter 'epochs'"):
        new().set_params(epochs=3)
    with pytest.raises(ConfigError, match="keeps its parameters"):
        fitted.set_params(epsilon=1.0)


def test_several_tables_are_refused() -> None:
    several = metadata()
    several.add_table("visit")
    several.add_column("patient", table_name="visit", sdtype="id")
    several.add_column("day", table_name="visit", sdtype="numerical")
    several.add_relationship("patient", "visit", parent_primary_key="key", child_foreign_key="patient")
    with pytest.raises(ConfigError, match="the metadata has several"):
        DPCTGANSynthesizer(several, epsilon=1.0)


CANARY = "ZQX-CANARY"


@pytest.mark.parametrize(
    ("harm", "error", "says"),
    [
        (lambda f: 3, ConfigError, "not int"),
        (lambda f: {"visit": f}, ConfigError, "the table 'patient'"),
        (lambda f: {"patient": f, "visit": f}, ConfigError, "and no other"),
        (lambda f: f.drop(columns="age"), DataError, "'age' is declared"),
        (lambda f: f.assign(more=CANARY), DataError, "'more'.*not declared"),
        (lambda f: f.set_axis(["age", *f.columns[1:]], axis="columns"), DataError, "two columns of one name"),
        (lambda f: f.assign(seen=CANARY), DataError, "'seen' in table 'patient' is not written as its datetime_format"),
        (lambda f: f.assign(age=[*f["age"][1:], CANARY]), DataError, "'age' in table 'patient', row 800"),
        (lambda f: f.assign(sex=[*f["sex"][1:], CANARY]), DataError, "'sex' in table 'patient', row 800"),
        (lambda f: f.assign(age=7777), DataError, "outside the declared bounds"),
        (lambda f: f.head(0), DataError, "no rows"),
    ],
)
def test_records_that_do_not_follow_the_metadata_are_refused_without_a_value(
    harm: Callable, error: type, says: str
) -> None:
    synthesizer = new()
    with pytest.raises(error, match=says) as caught:
        synthesizer.fit(harm(records()))
    assert CANARY not in str(caught.value)
    assert "7777" not in str(caught.value)
    with pytest.raises(ConfigError, match="not fitted"):
        synthesizer.sample(1)


def test_the_records_are_left_as_they_were() -> None:
    given = records()
    new().fit(given)
    assert given.equals(records())


def test_columns_of_mixed_types_are_text() -> None:
    given = records().assign(sex=[None if at % 5 == 0 else ("f", 1, 2.0, True)[at % 4] for at in range(ROWS)])
    sample = new(categories={"sex": ["f", "1", "2", "true"], "grade": [1, 2, 3]}).fit(given).sample(300)
    assert set(sample["sex"].dropna()) == {"f", "1", "2", "true"}


def test_conditions_of_sdv_are_met_in_their_order(fitted) -> None:
    wanted = pd.DataFrame({"sex": ["f", "m", "f"], "grade": [3, 1, 3]})
    sample = fitted.sample_from_conditions(
        [
            Condition({"sex": "m", "died": True}, num_rows=4),
            DataFrameCondition(wanted, table_name="patient"),
            Condition({"weight": None}, num_rows=2),
        ],
        seed=1,
    )
    assert (sample["sex"][:4] == "m").all()
    assert sample["died"][:4].all()
    assert list(sample["sex"][4:7]) == ["f", "m", "f"]
    assert list(sample["grade"][4:7].astype(int)) == [3, 1, 3]
    assert sample["weight"][7:].isna().all()
    assert list(sample.index) == list(range(9))
    assert sample["key"].is_unique


def test_remaining_columns_are_drawn_around_known_ones(fitted) -> None:
    known = fitted.sample(200, seed=0)[["age", "seen"]].dropna().tail(3).reset_index(drop=True)
    sample = fitted.sample_remaining_columns(known)
    assert list(sample["seen"]) == list(known["seen"])
    assert list(sample["age"]) == list(known["age"])
    assert list(sample.columns) == [name for name in records().columns if name != "email"]


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        (Condition({"email": "a"}), "'email', which is no column that was learned"),
        (Condition({"key": 1}), "'key', which is no column that was learned"),
        (Condition({"sex": "f"}, table_name="visit"), "on table 'visit'"),
        (Condition({"age": "old"}), "'age' has a value that is no integer"),
        (Condition({"died": "perhaps"}), "'died' has a value that is no boolean"),
        (Condition({"seen": "2020-13-45"}), "'seen' has a value that is no date"),
        ("sex = 'f'", "SDV's Condition or DataFrameCondition"),
    ],
)
def test_conditions_that_cannot_be_are_refused(fitted, condition: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fitted.sample_from_conditions([condition])


def test_no_condition_is_refused_and_one_that_nobody_meets_too(fitted) -> None:
    with pytest.raises(ConfigError, match="no condition"):
        fitted.sample_from_conditions([])
    with pytest.raises(DataError):
        fitted.sample_from_conditions([Condition({"age": 500})])
    with pytest.raises(DataError):
        fitted.sample_from_conditions([Condition({"sex": "' or sex = 'f"})])


def test_a_saved_synthesizer_is_a_release_and_comes_back(fitted, tmp_path) -> None:
    fitted.save(tmp_path / "r")
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [
        "DATASHEET.md",
        "manifest.json",
        "weights.safetensors",
    ]
    again = DPMarginalSynthesizer.load(tmp_path / "r")
    assert again.release.digest == fitted.release.digest
    loaded = again.sample(200, seed=3)["patient"]
    assert loaded["age"].equals(fitted.sample(200, seed=3)["age"].astype(loaded["age"].dtype))
    assert (again.epsilon, again.delta, again.policy) == (5.0, 1e-6, "exploratory")
    assert again.get_metadata().tables["patient"].primary_key == "key"
    with pytest.raises(ConfigError, match="is fitted"):
        again.fit(records())
    with pytest.raises(ConfigError, match="is of model 'marginal', not 'dp-ctgan'"):
        DPCTGANSynthesizer.load(tmp_path / "r")
    with pytest.raises(DataError):
        DPMarginalSynthesizer.load(tmp_path / "absent")
    with pytest.raises(ConfigError, match="exists"):
        fitted.save(tmp_path / "r")


def test_text_about_a_synthesizer_names_its_promise_and_no_value() -> None:
    found = Metadata.detect_from_dataframes({"t": pd.DataFrame({"sex": ["f", "m", CANARY] * 3})}, infer_keys=None)
    synthesizer = DPCTGANSynthesizer(found, epsilon=3.0)
    assert CANARY in json.dumps(found.to_dict())
    assert repr(synthesizer) == "DPCTGANSynthesizer(epsilon=3.0, delta=1e-06, not fitted)"


def test_the_lines_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    section = readme.split("## For people who know SDV", 1)[1].split("\n## ", 1)[0]
    code = section.split("```python\n", 1)[1].split("```", 1)[0]
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {"df": records().drop(columns=["seen", "email"])}
    exec(code, values)
    assert len(values["sample"]) == 1000
    assert values["synthesizer"].release.manifest.privacy.epsilon_spent <= 3.0
    loaded = DPCTGANSynthesizer.load(tmp_path / "out")
    assert loaded.release.manifest.model.name == "dp-ctgan"
