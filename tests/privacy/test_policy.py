from __future__ import annotations

from pathlib import Path

import pytest

from synthehr.errors import BudgetExceededError, ConfigError
from synthehr.privacy.policy import Policy, load_policy

GOOD = "name: ours\ndescription: d\nmax_epsilon: 2\ndelta_ratio: 0.1\n"


@pytest.mark.parametrize("name", ["strict", "standard", "exploratory"])
def test_shipped_policies_are_whole_and_named_after_their_file(name: str) -> None:
    policy = load_policy(name)
    assert policy.name == name
    shares = policy.shares.model_dump()
    assert sum(shares.values()) - shares["count"] == pytest.approx(1.0)


def test_stricter_policies_allow_less() -> None:
    strict, standard, exploratory = (load_policy(n) for n in ("strict", "standard", "exploratory"))
    assert strict.max_epsilon < standard.max_epsilon < exploratory.max_epsilon
    assert strict.delta_ratio < standard.delta_ratio < exploratory.delta_ratio
    assert (strict.max_rows, standard.max_rows, exploratory.max_rows) == (50, 200, 1000)
    assert (strict.suite, standard.suite, exploratory.suite) == ("ci", "ci", None)


def test_a_file_can_be_a_policy(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD)
    assert load_policy(tmp_path / "p.yaml").max_epsilon == 2.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "max_epsilom: 1\n", "max_epsilom: unknown key"),
        (GOOD + "shares: {domain: 0.5}\n", "sum to 1"),
        (GOOD.replace("max_epsilon: 2", "max_epsilon: -2"), "max_epsilon"),
        (GOOD + "max_rows: 0\n", "max_rows"),
        (GOOD + "models: []\n", "models"),
        (GOOD + "noise: loud\n", "noise"),
        (GOOD + "suite: ''\n", "suite"),
        ("[1, 2]", "file"),
        ("a: [", "not a readable YAML"),
    ],
)
def test_a_broken_policy_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        load_policy(tmp_path / "p.yaml")
    assert "\n" not in str(error.value)


def ours(tmp_path: Path, more: str = "") -> Policy:
    (tmp_path / "p.yaml").write_text(GOOD + more)
    return load_policy(tmp_path / "p.yaml")


def test_a_policy_that_says_no_more_allows_every_model_and_noise_and_requires_nothing(tmp_path: Path) -> None:
    policy = ours(tmp_path)
    assert (policy.suite, policy.audit, policy.max_rows) == (None, False, 200)
    for model in ("auto", "dp-ctgan", "marginal"):
        for noise in ("system", "cryptographic", "insecure"):
            policy.check({"lab": 200, "visit": None}, epsilon=2.0, model=model, noise=noise)


def test_a_table_gets_what_it_declares_or_what_the_policy_says(tmp_path: Path) -> None:
    assert ours(tmp_path, "max_rows: 9\n").row_bounds({"lab": 4, "visit": None}) == {"lab": 4, "visit": 9}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"epsilon": 2.1}, "allows epsilon up to 2, but 2.1"),
        ({"declared": {"visit": None, "lab": 10}}, "allows max_rows up to 9, but table 'lab' declares 10"),
        ({"model": "dp-ctgan"}, "allows the models marginal, but 'dp-ctgan'"),
        ({"model": "auto"}, "allows the models marginal, but 'auto'"),
        ({"noise": "system"}, "requires 'cryptographic' noise, but 'system'"),
    ],
)
def test_what_a_policy_does_not_allow_is_refused_with_a_way_out(tmp_path: Path, asked: dict, says: str) -> None:
    policy = ours(tmp_path, "max_rows: 9\nmodels: [marginal]\nnoise: cryptographic\n")
    good = {"declared": {"visit": None, "lab": 9}, "epsilon": 2.0, "model": "marginal", "noise": "cryptographic"}
    policy.check(**good)
    with pytest.raises(BudgetExceededError, match=says) as error:
        policy.check(**{**good, **asked})
    assert "another policy" in str(error.value)
    assert "\n" not in str(error.value)
