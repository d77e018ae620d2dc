from __future__ import annotations

from pathlib import Path

import pytest

from synthehr.errors import ConfigError
from synthehr.privacy.policy import load_policy

GOOD = "name: ours\ndescription: d\nmax_epsilon: 2\ndelta_ratio: 0.1\n"


@pytest.mark.parametrize("name", ["strict", "standard", "exploratory"])
def test_shipped_policies_are_whole_and_named_after_their_file(name: str) -> None:
    policy = load_policy(name)
    assert policy.name == name
    assert policy.shares.domain + policy.shares.pairs + policy.shares.gradients == pytest.approx(1.0)


def test_stricter_policies_allow_less() -> None:
    strict, standard, exploratory = (load_policy(n) for n in ("strict", "standard", "exploratory"))
    assert strict.max_epsilon < standard.max_epsilon < exploratory.max_epsilon
    assert strict.delta_ratio < standard.delta_ratio < exploratory.delta_ratio


def test_a_file_can_be_a_policy(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(GOOD)
    assert load_policy(tmp_path / "p.yaml").max_epsilon == 2.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "max_epsilom: 1\n", "max_epsilom: unknown key"),
        (GOOD + "shares: {domain: 0.5}\n", "sum to 1"),
        (GOOD.replace("max_epsilon: 2", "max_epsilon: -2"), "max_epsilon"),
        ("[1, 2]", "file"),
        ("a: [", "not a readable YAML"),
    ],
)
def test_a_broken_policy_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        load_policy(tmp_path / "p.yaml")
    assert "\n" not in str(error.value)
