from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from synthehr.cohort import Cohort
from synthehr.errors import BudgetExceededError, ConfigError
from synthehr.models.base import GeneratorShape, Trained
from synthehr.models.checkpoint import Checkpoint
from synthehr.models.ctgan import CriticSettings
from synthehr.models.marginals import FitSettings, Targets, draw_codes
from synthehr.models.networks import one_hot
from synthehr.models.planning import ChoiceSettings, TrainingSettings
from synthehr.models.training import Progress, train
from synthehr.models.tvae import VariationalSettings
from synthehr.privacy.accountant import PoissonSampledGaussian, epsilon_of
from synthehr.randomness import InsecureNoise, SystemNoise
from synthehr.release import Release
from synthehr.reporting.datasheet import render_datasheet
from synthehr.schema.conform import conform
from synthehr.schema.model import Schema

QUICK = TrainingSettings(
    bins=8,
    shape=GeneratorShape(components=200, latent=8, hidden=16),
    fit=FitSettings(steps=30),
    choice=ChoiceSettings(price=1e-6),  # all are worth it, so that no stage is left out by chance
    critic=CriticSettings(steps=3, critic_steps=2, hidden=8),
    variational=VariationalSettings(steps=5, hidden=8),
)
MODELS = ["marginal", "dp-ctgan", "dp-tvae"]


def fit(cohort: Cohort[Schema], **options) -> Trained:
    """A quick fit. Test noise buys the same count each time, so that the noise of its plan is solved for once."""
    given = {"epsilon": 3.0, "settings": QUICK, "device": "cpu", "delta": 1e-6, "noise": InsecureNoise(1)}
    return train(cohort, **(given | options))


@pytest.mark.parametrize(("model", "gradients"), [("marginal", []), ("dp-ctgan", [3 * 2]), ("dp-tvae", [5])])
def test_the_account_is_within_the_request_and_hardly_below_it(small_cohort, model: str, gradients: list[int]) -> None:
    trained = fit(small_cohort, model=model)
    assert 0.97 * 3.0 <= trained.epsilon_spent <= 3.0
    assert epsilon_of(trained.events, delta=1e-6) == trained.epsilon_spent
    steps = [event for event in trained.events if isinstance(event, PoissonSampledGaussian)]
    assert [event.count for event in steps] == gradients
    for event in steps:
        assert event.sampling_probability == pytest.approx(256 / trained.patients_bought)
        assert event.stage == "gradients"


def test_the_same_seed_does_not_move_the_noise(small_cohort) -> None:
    first, second = (fit(small_cohort, seed=5, model="marginal", noise=SystemNoise()) for _ in range(2))
    # Two draws of continuous noise on shares agree by chance never.
    assert not np.array_equal(first.domain[1].counts, second.domain[1].counts)


@pytest.mark.parametrize("model", MODELS)
def test_a_seed_repeats_weights_under_test_noise_and_another_moves_them_but_not_the_account(
    small_cohort, model: str
) -> None:
    first, again, other = (fit(small_cohort, seed=s, model=model) for s in (5, 5, 6))
    for name, value in first.weights.items():
        assert torch.equal(value, again.weights[name])
        assert not torch.equal(value, other.weights[name]) or "norm" in name
    assert first.patients_bought == other.patients_bought
    assert np.array_equal(first.domain[1].variance, other.domain[1].variance)
    assert first.events == other.events


def test_a_fit_with_test_noise_says_that_it_is_not_private(small_cohort) -> None:
    assert fit(small_cohort).why_not_private is not None
    assert fit(small_cohort, noise=None).why_not_private is None


@pytest.mark.parametrize("model", MODELS)
def test_gradients_leave_the_mixture_as_it_was_fitted(small_cohort, model: str) -> None:
    kept = Checkpoint.begin(None, options={})
    trained = fit(small_cohort, model=model, checkpoint=kept)
    assert torch.equal(trained.weights["mixture.logits"], kept.tensors["mixture with triples.weight.logits"])
    assert not torch.equal(trained.weights["mixture.logits"], kept.tensors["mixture.weight.logits"])
    refiner = [name for name in trained.weights if name.startswith("refiner.")]
    assert bool(refiner) == (model != "marginal")
    for name in refiner:  # all of it is trained: the last layer starts at zero, norms at one and zero
        assert trained.weights[name].isfinite().all()
        assert trained.weights[name].std() > 0


@pytest.mark.parametrize(("model", "last"), [("marginal", []), ("dp-ctgan", ["critic"]), ("dp-tvae", ["encoder"])])
def test_progress_counts_up_and_holds_no_loss(small_cohort, model: str, last: list[str]) -> None:
    seen: list[Progress] = []
    fit(small_cohort, model=model, on_progress=seen.append)
    stages = ["count", "domain", "pairs", "mixture", "triples", "mixture with triples", *last]
    assert [p.stage for p in seen if p.step == p.total] == stages
    spent = [p.epsilon_spent for p in seen if p.epsilon_spent is not None]
    assert spent == sorted(spent)
    assert set(Progress.__slots__) == {"stage", "step", "total", "epsilon_spent", "seconds"}


@pytest.mark.parametrize("model", ["dp-ctgan", "dp-tvae"])
def test_a_release_of_refined_rows_comes_back_from_disk_and_samples(small_cohort, model: str, tmp_path: Path) -> None:
    release = Release.of(fit(small_cohort, model=model, noise=SystemNoise()), datasheet=render_datasheet)
    release.save(tmp_path / "r")
    again = Release.load(tmp_path / "r")
    made = again.sample(300, seed=1).root
    assert made.height == 300
    assert made.equals(release.sample(300, seed=1).root)
    conform(made, schema=again.schema, table="patient")


def test_policies_refuse_what_they_do_not_allow(small_cohort) -> None:
    with pytest.raises(BudgetExceededError, match="strict"):
        fit(small_cohort, policy="strict", epsilon=1.5)
    with pytest.raises(BudgetExceededError, match="lower --delta"):
        fit(small_cohort, delta=1e-3)
    with pytest.raises(ConfigError, match="unknown"):
        fit(small_cohort, model="gan")
    with pytest.raises(ConfigError, match="neither one of"):
        fit(small_cohort, policy="lenient")
    with pytest.raises(ConfigError, match="device"):
        fit(small_cohort, device="cuda:99")


def test_auto_says_which_and_why(small_cohort) -> None:
    trained = fit(small_cohort, model="auto")
    assert trained.model in MODELS
    assert trained.chosen_because.startswith("auto: ")


def test_a_generator_fitted_to_pairs_learns_who_dies(small_cohort) -> None:
    trained = train(
        small_cohort,
        epsilon=50.0,
        delta=1e-6,
        policy="exploratory",
        model="marginal",
        settings=TrainingSettings(bins=8),
    )
    made = Release.of(trained, datasheet=render_datasheet).sample(20_000, seed=0).root
    cells = {column.name: column.cells for column in trained.domain}["age"]
    shares = []
    for rows in (made, small_cohort.root):
        old = cells.codes(rows["age"]) >= cells.size // 2
        dead = rows["died"].to_numpy()
        shares.append([dead[old].mean(), dead[~old].mean()])
    assert shares[0] == pytest.approx(shares[1], abs=0.04)


def test_the_loss_of_pairs_and_triples_by_hand() -> None:
    # One pair of two-cell columns; half of 40 patients in (0, 0), half in (1, 1). The third column is not in it.
    targets = Targets([2, 2, 3], patients=40, device=torch.device("cpu"))
    targets.add_pair((0, 1), np.array([[20.0, 0.0], [0.0, 20.0]]), weight=1.0)
    perfect = one_hot(torch.tensor([[0, 0, 0], [1, 1, 2]]), sizes=[2, 2, 3])
    alike = one_hot(torch.tensor([[0, 0, 0]]), sizes=[2, 2, 3])
    assert float(targets.loss(perfect)) == 0.0
    # All in (0, 0): errors of 0.5 and 0.5, squared and summed 0.5, times 40 / 10.
    assert float(targets.loss(alike)) == pytest.approx(2.0)
    # A triple with the third column's cells 1 and 2 as one group: half in (0, 0, 0), half in (1, 1, 1 or 2).
    whole = np.array([0, 1])
    targets.set_groups([whole, whole, np.array([0, 1, 1])])
    wanted = np.zeros((2, 2, 2))
    wanted[0, 0, 0] = wanted[1, 1, 1] = 20.0
    targets.add_triples([(0, 1, 2)], [wanted], weight=np.array([3.0]))
    assert float(targets.loss(perfect)) == 0.0
    assert float(targets.loss(alike)) == pytest.approx(2.0 + 3.0 * 2.0)


def test_cells_are_drawn_by_their_probability() -> None:
    probabilities = np.tile(np.array([[0.2, 0.8, 1.0, 0.0]], dtype=np.float32), (20_000, 1))
    codes = draw_codes(probabilities, sizes=[2, 2], draws=np.random.default_rng(0))
    assert codes[:, 0].mean() == pytest.approx(0.8, abs=0.015)
    assert (codes[:, 1] == 0).all()
