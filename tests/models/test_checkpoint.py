"""A fit that is interrupted goes on: nothing is bought twice, nothing counted is taken again, no row is kept."""

from __future__ import annotations

import re
import stat
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from synthehr.cohort import Cohort
from synthehr.encoding.records import record_of
from synthehr.errors import ConfigError, DataError
from synthehr.models.base import GeneratorShape, Trained
from synthehr.models.checkpoint import Checkpoint
from synthehr.models.ctgan import CriticSettings
from synthehr.models.learner import Learner
from synthehr.models.marginals import FitSettings
from synthehr.models.planning import ChoiceSettings, TrainingSettings
from synthehr.models.training import Progress, train
from synthehr.models.tvae import VariationalSettings
from synthehr.privacy.accountant import Account
from synthehr.privacy.budget import Budget
from synthehr.privacy.rows import PrivateCodes, PrivateRows
from synthehr.randomness import InsecureNoise
from synthehr.schema.files import load_schema

SETTINGS = TrainingSettings(
    bins=8,
    shape=GeneratorShape(components=100, latent=8, hidden=16),
    fit=FitSettings(steps=12),
    choice=ChoiceSettings(price=1e-6),  # all are worth it, so that no stage is left out by chance
    critic=CriticSettings(steps=10, critic_steps=2, hidden=8, block=4),
    variational=VariationalSettings(steps=10, hidden=8, block=4),
)
STAGES = ["count", "domain", "pairs", "mixture", "triples", "mixture with triples"]
# The stage of a model's gradients, and how many there are a round.
GRADIENTS = {"dp-ctgan": ("critic", 2), "dp-tvae": ("encoder", 1)}
OPTIONS = {"epsilon": 3.0, "seed": 5}


def fit(cohort, checkpoint: Checkpoint, on_progress=None, **options) -> Trained:
    given = {"epsilon": 3.0, "delta": 1e-6, "model": "dp-ctgan", "seed": 5, "device": "cpu", "settings": SETTINGS}
    # Test noise: of the same bought count comes the same plan, whose noise is solved for once and not for each fit.
    given["noise"] = InsecureNoise(1)
    return train(cohort, checkpoint=checkpoint, on_progress=on_progress, **(given | options))


def interrupted(cohort, path: Path, *, stage: str, step: int = 1, model: str = "dp-ctgan") -> Account:
    """A fit that ends in a stage, and what was on its account then."""
    account = Account(Budget(epsilon=3.0, delta=1e-6))

    def stop(progress: Progress) -> None:
        if progress.stage == stage and progress.step == step:
            raise KeyboardInterrupt

    checkpoint = Checkpoint.begin(path, options=OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        fit(cohort, checkpoint, stop, account=account, model=model)
    checkpoint.release()
    return account


@pytest.fixture
def touches(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each mechanism ran."""
    counts: Counter[str] = Counter()

    def watch(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def watched(*args, **kwargs):
            counts[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    for name in ("count_patients", "histogram", "select_values"):
        watch(PrivateRows, name)
    for name in ("marginals", "misfits", "noisy_gradient"):
        watch(PrivateCodes, name)
    return counts


def total(trained: Trained) -> Counter:
    events: Counter = Counter()
    for event in trained.events:
        events[event.model_copy(update={"count": 1})] += event.count
    return events


@pytest.fixture(scope="module")
def whole(small_cohort) -> dict[str, Trained]:
    """A fit of each model that nobody interrupted."""
    return {model: fit(small_cohort, Checkpoint.begin(None, options={}), model=model) for model in GRADIENTS}


@pytest.mark.parametrize(
    ("model", "stage"),
    [("dp-ctgan", stage) for stage in [*STAGES, "critic"]] + [("dp-tvae", stage) for stage in [*STAGES, "encoder"]],
)
def test_what_was_bought_is_not_bought_again_and_the_account_is_the_same(
    small_cohort, tmp_path: Path, whole: dict[str, Trained], touches: Counter[str], model: str, stage: str
) -> None:
    path = tmp_path / "c"
    last, each = GRADIENTS[model]
    interrupted(small_cohort, path, stage=stage, model=model)
    before = touches.copy()
    trained = fit(small_cohort, Checkpoint.resume(path, options=OPTIONS), model=model)
    assert trained.events == whole[model].events
    assert 0.97 * 3.0 <= trained.epsilon_spent <= 3.0
    after = touches - before
    done = [*STAGES, last].index(stage)
    assert before["count_patients"] == 1  # and none after, for the next three lines see which were left
    assert (before["histogram"] > 0) == (done >= STAGES.index("domain"))
    assert before["marginals"] == (done >= STAGES.index("pairs")) + (done >= STAGES.index("triples"))
    # Rounds are counted by fours: stopped after the first of ten, the other three of its block are lost.
    assert before["noisy_gradient"] == (each if stage == last else 0)
    assert after["noisy_gradient"] == (6 * each if stage == last else 10 * each)
    assert after["marginals"] == 2 - before["marginals"]


def test_an_end_inside_a_stage_leaves_it_written_down_as_begun(
    small_cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    checkpoint = Checkpoint.begin(tmp_path / "c", options=OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(PrivateCodes, "marginals", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(small_cohort, checkpoint)
    checkpoint.release()
    again = Checkpoint.resume(tmp_path / "c", options=OPTIONS)
    assert again.state["begun"] == ["count", "domain", "pairs"]
    assert "pairs" not in again.state
    assert 0.97 * 3.0 <= fit(small_cohort, again).epsilon_spent <= 3.0


@pytest.mark.parametrize("model", GRADIENTS)
def test_gradients_are_counted_on_disk_before_they_are_taken(
    small_cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    path, taken, ahead = tmp_path / "c", 0, []
    _, each = GRADIENTS[model]
    take = PrivateCodes.noisy_gradient

    def watched(self, *args, **kwargs):
        nonlocal taken
        taken += 1
        ahead.append(each * counted_rounds(path) - taken)
        return take(self, *args, **kwargs)

    monkeypatch.setattr(PrivateCodes, "noisy_gradient", watched)
    checkpoint = Checkpoint.begin(path, options=OPTIONS)
    fit(small_cohort, checkpoint, model=model)
    assert taken == 10 * each
    assert min(ahead) == 0  # the last of a block
    assert max(ahead) == 4 * each - 1  # the first of a block of four rounds


def counted_rounds(path: Path) -> int:
    """Rounds that the file on disk has as counted."""
    from safetensors import safe_open

    with safe_open(path / "fit.safetensors", framework="pt") as file:
        found = re.search(r'"rounds": (\d+)', file.metadata()["state"])
    return int(found.group(1)) if found else 0


@pytest.mark.parametrize("model", GRADIENTS)
def test_a_fit_that_was_done_comes_out_the_same_when_it_goes_on(
    small_cohort, tmp_path: Path, touches: Counter[str], model: str
) -> None:
    checkpoint = Checkpoint.begin(tmp_path / "c", options=OPTIONS)
    first = fit(small_cohort, checkpoint, model=model)
    checkpoint.release()
    touches.clear()
    second = fit(small_cohort, Checkpoint.resume(tmp_path / "c", options=OPTIONS), model=model)
    assert not touches
    assert second.events == first.events
    assert second.epsilon_spent == first.epsilon_spent
    assert [record_of(column) for column in second.domain] == [record_of(column) for column in first.domain]
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_a_network_put_aside_goes_on_as_if_it_had_not_been() -> None:
    data = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))

    def learner() -> Learner:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return Learner(torch.nn.Linear(3, 1), rate=0.1, steps=20, betas=(0.5, 0.9))

    def steps(this: Learner, times: int) -> Learner:
        for _ in range(times):
            this.follow((this.network(data) - data.sum(dim=1, keepdim=True)).square().mean())
        return this

    whole = steps(learner(), 20)
    aside = {name: value.clone() for name, value in steps(learner(), 9).tensors().items()}
    again = learner()
    again.restore(aside)
    steps(again, 11)
    assert again.done == whole.done == 20
    assert all(torch.equal(value, again.tensors()[name]) for name, value in whole.tensors().items())


def test_only_its_owner_can_enter(small_cohort, tmp_path: Path) -> None:
    interrupted(small_cohort, tmp_path / "c", stage="pairs")
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o700
    (file,) = (tmp_path / "c").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_interrupted_fit_is_not_overwritten_nor_gone_on_with_under_other_options(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with pytest.raises(ConfigError, match="no interrupted fit"):
        Checkpoint.resume(path, options=OPTIONS)
    first = Checkpoint.begin(path, options=OPTIONS)
    with pytest.raises(ConfigError, match="--resume"):
        Checkpoint.begin(path, options=OPTIONS)
    with pytest.raises(ConfigError, match="another process"):
        Checkpoint.resume(path, options=OPTIONS)
    first.release()
    with pytest.raises(ConfigError, match="another epsilon and another seed"):
        Checkpoint.resume(path, options={"epsilon": 1.0, "seed": 6})
    held = Checkpoint.resume(path, options={"epsilon": 3.0, "seed": None})
    assert held.fit == first.fit
    assert (held.options["seed"], held.resumed) == (5, 1)


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_file_that_is_no_checkpoint_is_told_in_words(tmp_path: Path, content: bytes) -> None:
    Checkpoint.begin(tmp_path / "c", options=OPTIONS).release()
    (tmp_path / "c" / "fit.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="checkpoint"):
        Checkpoint.resume(tmp_path / "c", options=OPTIONS)


@pytest.mark.parametrize("model", GRADIENTS)
def test_nothing_of_one_patient_is_in_the_file(tmp_path: Path, model: str) -> None:
    schema = load_schema(
        {
            "synthehr": 1,
            "subject": "p",
            "tables": {
                "p": {
                    "key": "id",
                    "columns": {
                        "id": {"kind": "id"},
                        "code": {"kind": "category"},
                        "cost": {"kind": "number"},
                        "died": {"kind": "boolean"},
                    },
                }
            },
        }
    )
    draws = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "id": [f"ID-CANARY-{at}" for at in range(3000)],
            "code": ["ZQX-CANARY", *draws.choice(["a", "b"], 2999)],
            "cost": [918_273_645.5, *draws.normal(100, 10, 2999)],
            "died": draws.random(3000) < 0.5,
        }
    )
    path = tmp_path / "c"
    checkpoint = Checkpoint.begin(path, options=OPTIONS)
    fit(Cohort({"p": frame}, schema=schema), checkpoint, model=model)
    content = (path / "fit.safetensors").read_bytes()
    assert b"CANARY" not in content
    assert "rows" not in checkpoint.state
    numbers = [float(text) for text in re.findall(rb"-?\d+\.?\d*(?:e[+-]?\d+)?", content[:200_000])]
    assert not any(abs(number - 918_273_645.5) < 1.0 for number in numbers)
    # Names of what is kept: bought histograms, weights and moments; no batch, no generator of noise.
    kinds = {re.sub(r"\d+", "0", name).split(".")[0] for name in checkpoint.tensors}
    last, _ = GRADIENTS[model]
    assert {"pairs", "mixture", last} <= kinds
    assert kinds <= {"pairs", "triples", "mixture", "mixture with triples", last}
    assert set(checkpoint.state) == {"begun", "windows", "patients", "domain", "pairs", "triples", "rounds"}
