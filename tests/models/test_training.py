from __future__ import annotations

import numpy as np
import pytest
import torch

from synthehr.cohort import Cohort
from synthehr.errors import BudgetExceededError, ConfigError
from synthehr.models.base import Trained, load_generator, sample_codes
from synthehr.models.ctgan import CriticSettings
from synthehr.models.marginals import Conditions, FitSettings, Targets, draw_codes
from synthehr.models.networks import Generator, one_hot
from synthehr.models.planning import ChoiceSettings, TrainingSettings
from synthehr.models.training import Progress, train
from synthehr.privacy.accountant import PoissonSampledGaussian, epsilon_of
from synthehr.randomness import InsecureNoise
from synthehr.schema.model import Schema

QUICK = TrainingSettings(
    bins=8,
    fit=FitSettings(steps=30, batch=200),
    choice=ChoiceSettings(price=1e-6),  # all are worth it, so that no stage is left out by chance
    critic=CriticSettings(steps=3, critic_steps=2, hidden=8),
)


def fit(cohort: Cohort[Schema], **options) -> Trained:
    return train(cohort, **({"epsilon": 3.0, "settings": QUICK, "device": "cpu", "delta": 1e-6} | options))


@pytest.mark.parametrize("model", ["marginal", "dp-ctgan"])
def test_the_account_is_within_the_request_and_hardly_below_it(small_cohort, model: str) -> None:
    trained = fit(small_cohort, model=model)
    assert 0.97 * 3.0 <= trained.epsilon_spent <= 3.0
    assert epsilon_of(trained.events, delta=1e-6) == trained.epsilon_spent
    steps = [event for event in trained.events if isinstance(event, PoissonSampledGaussian)]
    if model == "dp-ctgan":
        assert [event.count for event in steps] == [6]
        assert steps[0].sampling_probability == pytest.approx(256 / trained.patients_bought)
    else:
        assert steps == []


def test_the_same_seed_moves_weights_and_not_the_noise(small_cohort) -> None:
    first, second = fit(small_cohort, seed=5), fit(small_cohort, seed=5)
    assert first.patients_bought != second.patients_bought or not np.array_equal(
        first.domain[1].counts, second.domain[1].counts
    )
    shape = QUICK.shape
    weights = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            weights.append(Generator(sizes=[2, 3], latent=shape.latent, hidden=shape.hidden).first.weight)
    assert torch.equal(*weights)


def test_a_fit_with_test_noise_repeats_and_says_that_it_is_not_private(small_cohort) -> None:
    first, second = (fit(small_cohort, seed=5, noise=InsecureNoise(1)) for _ in range(2))
    assert first.why_not_private is not None
    assert fit(small_cohort).why_not_private is None
    for name, value in first.weights.items():
        assert torch.equal(value, second.weights[name])


def test_progress_counts_up_and_holds_no_loss(small_cohort) -> None:
    seen: list[Progress] = []
    fit(small_cohort, model="dp-ctgan", on_progress=seen.append)
    assert [p.stage for p in seen if p.step == p.total] == [
        "count",
        "domain",
        "pairs",
        "generator",
        "triples",
        "generator with triples",
        "critic",
    ]
    spent = [p.epsilon_spent for p in seen if p.epsilon_spent is not None]
    assert spent == sorted(spent)
    assert set(Progress.__slots__) == {"stage", "step", "total", "epsilon_spent", "seconds"}


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
    assert trained.model in {"marginal", "dp-ctgan"}
    assert trained.chosen_because.startswith("auto: ")


def test_a_generator_fitted_to_pairs_learns_who_dies(small_cohort) -> None:
    trained = train(
        small_cohort,
        epsilon=50.0,
        delta=1e-6,
        policy="exploratory",
        model="marginal",
        settings=TrainingSettings(bins=8, fit=FitSettings(steps=600, batch=500)),
    )
    generator = load_generator(trained.domain, trained.shape, trained.weights)
    codes = sample_codes(generator, trained.domain, rows=20_000, draws=np.random.default_rng(0))
    names = [column.name for column in trained.domain]
    age, died = (codes[:, names.index(name)] for name in ("age", "died"))
    cells = trained.domain[names.index("age")].cells
    real = small_cohort.root
    old_real = cells.codes(real["age"]) >= cells.size // 2
    dead_real = real["died"].to_numpy()
    for old in (True, False):
        ours = died[(age >= cells.size // 2) == old].mean()
        assert ours == pytest.approx(dead_real[old_real == old].mean(), abs=0.04)


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


def test_a_condition_is_met_and_every_column_sums_to_one(small_cohort) -> None:
    trained = fit(small_cohort)
    generator = load_generator(trained.domain, trained.shape, trained.weights)
    condition = Conditions(trained.domain, device=torch.device("cpu")).draw(500, np.random.default_rng(0))
    assert torch.equal(condition.sum(dim=1), torch.ones(500))
    with torch.no_grad():
        out = generator(torch.randn(500, generator.latent), condition)
    for part, given in zip(out.split(generator.sizes, 1), condition.split(generator.sizes, 1), strict=True):
        torch.testing.assert_close(part.sum(dim=1), torch.ones(500))
        asked = given.sum(dim=1) == 1
        assert torch.equal(part[asked], given[asked])


def test_conditions_follow_the_bought_counts_at_every_prefix(small_cohort) -> None:
    trained = fit(small_cohort)
    drawn = Conditions(trained.domain, device=torch.device("cpu")).draw(8000, np.random.default_rng(0))
    sizes = [column.cells.size for column in trained.domain]
    for rows in (drawn, drawn[:2000]):  # a chunk that is cut short is no other population
        for part, column in zip(rows.split(sizes, 1), trained.domain, strict=True):
            share = part.sum(dim=0) / part.sum()
            expected = torch.from_numpy(column.counts / column.counts.sum())
            assert float((share - expected).abs().max()) < 0.06


def test_cells_are_drawn_by_their_probability() -> None:
    probabilities = np.tile(np.array([[0.2, 0.8, 1.0, 0.0]], dtype=np.float32), (20_000, 1))
    codes = draw_codes(probabilities, sizes=[2, 2], draws=np.random.default_rng(0))
    assert codes[:, 0].mean() == pytest.approx(0.8, abs=0.015)
    assert (codes[:, 1] == 0).all()
