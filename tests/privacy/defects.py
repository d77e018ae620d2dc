"""Mechanisms broken on purpose, the checks that must catch them, and what both need. See test_planted_defects.py.

A check takes :class:`Mechanisms` and raises :class:`Caught` where they break the promise. Checks by arithmetic never
raise a false alarm; those by statistics do so with a chance of at most ``FALSE_ALARM`` each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy import stats
from torch import Tensor, nn

from synthehr.errors import InternalError
from synthehr.models import ctgan, tvae
from synthehr.models.ctgan import CriticPhase, CriticSettings
from synthehr.models.dpsgd import PrivateNetwork
from synthehr.models.marginals import Targets
from synthehr.models.networks import Critic, Encoder, Generator, one_hot
from synthehr.models.phase import conditions_of_rows
from synthehr.models.tvae import Variational, VariationalPhase, VariationalSettings
from synthehr.privacy.accountant import Account, EpsilonDelta, Event, Gaussian, PoissonSampledGaussian
from synthehr.privacy.budget import Budget
from synthehr.privacy.gradients import Outer, PatientGradients, clipped_sum
from synthehr.privacy.partition import Values
from synthehr.privacy.rows import GRAIN, GradientMechanism, PrivateCodes, PrivateRows
from synthehr.randomness import FloatArray, InsecureNoise, IntArray, NoiseSource, SystemNoise, seeded

# Per check; the tails are computed in closed form or as chi-square of hundreds of terms, at a tenth of this.
FALSE_ALARM = 1e-6
_LEVEL = FALSE_ALARM / 10

PerPatient = Callable[[IntArray, FloatArray], PatientGradients]
Phase = CriticPhase | VariationalPhase


class Caught(AssertionError):
    """A check found the promise broken."""


def hold(condition: bool, says: str) -> None:
    """Raise :class:`Caught` unless the condition holds."""
    if not condition:
        raise Caught(says)


# What tests of mechanisms need.


class Recorder(InsecureNoise):
    """Adds no noise, and remembers what it was given and at which scale."""

    def __init__(self) -> None:
        super().__init__(0)
        self.given: list[tuple[np.ndarray, float]] = []

    def discrete_gaussian(self, values: IntArray, *, scale: float) -> IntArray:
        self.given.append((values.copy(), scale))
        return values

    def discrete_laplace(self, value: int, *, scale: float) -> int:
        self.given.append((np.array([value]), scale))
        return value

    def gaussian(self, size: int, *, scale: float) -> FloatArray:
        self.given.append((np.zeros(size), scale))
        return np.zeros(size)


class Unlimited(Account):
    """Lets through what was planned, without composing it: these tests are of the mechanisms."""

    def plan(self, events: Iterable[Event]) -> None:
        for event in events:
            single = event.model_copy(update={"count": 1})
            self._planned[single] = self._planned.get(single, 0) + event.count


def open_account(*events: Event) -> Account:
    """An account on which these can be spent."""
    account = Unlimited(Budget(epsilon=1.0, delta=1e-3))
    account.plan(events)
    return account


VALUES = Values(values=("a", "b", "c"), other=True, nullable=True)
Patients = Sequence[Sequence[str | None]]


def frame_of(cohort: Patients) -> tuple[pl.DataFrame, IntArray]:
    """Two equal columns c and d, and the owner of each row."""
    flat = [value for patient in cohort for value in patient]
    frame = pl.DataFrame({"c": flat, "d": flat}, schema={"c": pl.String, "d": pl.String})
    return frame, np.repeat(np.arange(len(cohort)), [len(patient) for patient in cohort])


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks of a hundred weights are slower on several threads, by far where other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Mechanisms, real ones unless a defect is put in their place.


def critic_gradients(critic: Critic) -> PerPatient:
    """The real side of dp-ctgan's critic, as the model builds it, with conditions on the first column."""
    private = PrivateNetwork(critic)

    def gradients(codes: IntArray, mask: FloatArray) -> PatientGradients:
        return private(
            lambda network: ctgan._real_loss(
                network, codes, mask, sizes=critic.sizes, draws=StillDraws(), device=torch.device("cpu")
            )
        )

    return gradients


def variational_gradients(network: Variational, generator: Generator) -> PerPatient:
    """The real side of dp-tvae's encoder and refiner, as the model builds it, with draws that stand still."""
    private = PrivateNetwork(network)

    def gradients(codes: IntArray, mask: FloatArray) -> PatientGradients:
        return private(
            lambda twin: tvae._real_loss(twin, codes, mask, decoder=generator, draws=StillDraws())  # type: ignore[arg-type]
        )

    return gradients


class StillDraws:
    """Draws that are the same for a patient alone and in company, so that both can be compared.

    The first column is the condition of each row, components and noise depend on a row's place in its patient alone.
    """

    def integers(self, low: int, high: int, size: tuple[int, ...]) -> IntArray:
        return np.full(size, low, dtype=np.int64)

    def random(self, size: tuple[int, ...]) -> FloatArray:
        return np.broadcast_to((0.5 + 0.37 * np.arange(size[-1])) % 1.0, size).copy()

    def standard_normal(self, size: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
        *_, rows, latent = size
        place = np.arange(rows)[:, None] * latent + np.arange(latent)
        return np.broadcast_to(np.sin(1.0 + place), size).astype(dtype)


def conditions_from_the_system(draws: np.random.Generator) -> np.random.Generator:
    """Where conditions of real rows are drawn from, given the seeded stream: not from it."""
    return SystemNoise().spawn()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mechanisms:
    """Everything that touches rows, and where its randomness comes from."""

    noise: Callable[[], NoiseSource] = SystemNoise
    rows: type[PrivateRows] = PrivateRows
    codes: type[PrivateCodes] = PrivateCodes
    critic: Callable[[Critic], PerPatient] = critic_gradients
    variational: Callable[[Variational, Generator], PerPatient] = variational_gradients
    private_draws: Callable[[np.random.Generator], np.random.Generator] = conditions_from_the_system
    critic_phase: type[CriticPhase] = CriticPhase
    variational_phase: type[VariationalPhase] = VariationalPhase

    def open_rows(self, cohort: Patients, noise: NoiseSource, *, max_rows: int = 8) -> PrivateRows:
        frame, owners = frame_of(cohort)
        return self.rows(frame, owners=owners, patients=len(cohort), max_rows=max_rows, noise=noise)

    def open_codes(self, cohort: Patients, noise: NoiseSource) -> PrivateCodes:
        frame, owners = frame_of(cohort)
        codes = np.stack([VALUES.codes(frame[name]) for name in ("c", "d")], axis=1)
        sizes = (VALUES.size, VALUES.size)
        return self.codes(codes, sizes=sizes, owners=owners, patients=len(cohort), noise=noise)


def step_of(*, rate: float, sigma: float, clip: float, expected: float) -> GradientMechanism:
    """One gradient step."""
    event = PoissonSampledGaussian(stage="g", sampling_probability=rate, noise_multiplier=sigma)
    return GradientMechanism(event=event, clip_norm=clip, expected_batch=expected)


def long_gradients(m: Mechanisms, sizes: tuple[int, ...] = (VALUES.size, VALUES.size)) -> dict[str, PerPatient]:
    """Gradients of small networks, by phase, whose weights are such that most are longer than a clip of 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        critic, (network, generator) = Critic(sizes=sizes, hidden=6), small_variational(sizes)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(20.0)
        for parameter in network.parameters():
            parameter.mul_(4.0)
    return {"critic": m.critic(critic), "encoder": m.variational(network, generator)}


def small_variational(sizes: tuple[int, ...]) -> tuple[Variational, Generator]:
    """Encoder and refiner whose last layer is no longer zero, and the generator of the refiner; by torch's seed."""
    generator = Generator(sizes=sizes, components=7, latent=3, hidden=6)
    assert generator.refiner is not None
    with torch.no_grad():
        for parameter in (generator.mixture.logits, *generator.refiner.out.parameters()):
            parameter.normal_()
    generator.mixture.requires_grad_(requires_grad=False)
    encoder = Encoder(sizes=sizes, hidden=6, latent=generator.latent)
    return Variational(encoder, generator.refiner, sizes=sizes), generator


def neighbours(pairs: int) -> Iterable[tuple[Patients, Patients]]:
    """Random cohorts with and without one patient of one to eight rows, the same in every run."""
    draws = np.random.default_rng(0)
    for _ in range(pairs):
        cohort = [list(draws.choice(list("abcz"), draws.integers(1, 9))) for _ in range(draws.integers(1, 7))]
        at = int(draws.integers(len(cohort)))
        yield cohort, cohort[:at] + cohort[at + 1 :]


# Checks.


def check_histograms_move_by_at_most_one(m: Mechanisms) -> None:
    """What is noised, in L2: histograms of values and marginals, for patients of several rows."""
    event = Gaussian(stage="h", noise_multiplier=1.0)
    for pair in neighbours(100):
        seen = []
        for cohort in pair:
            noise = Recorder()
            account = open_account(event, event)
            rows = m.open_rows(cohort, noise)
            rows.histogram(account, "c", VALUES, event=event)
            m.open_codes(cohort, noise).marginals(account, [(0, 1)], shares=[1.0], event=event)
            seen.append(noise.given)
        for (more, scale), (less, _) in zip(*seen, strict=True):
            moved = float(np.linalg.norm(more - less)) / scale
            hold(moved <= 1.0 + 1e-9, f"one patient moves a histogram by {moved:.3g}")


def check_stacked_marginals_move_by_at_most_one(m: Mechanisms) -> None:
    """Each histogram in units of its own noise, all together in L2. To refuse the shares is right as well."""
    event = Gaussian(stage="h", noise_multiplier=1.0)
    for shares in ([0.5, 0.5], [0.9, 0.9]):
        seen = []
        for cohort in ([["a"], ["b"]], [["a"]]):
            noise = Recorder()
            try:
                m.open_codes(cohort, noise).marginals(open_account(event), [(0,), (1,)], shares=shares, event=event)
            except InternalError:
                continue
            seen.append(noise.given)
        if seen:
            squares = [(float(np.linalg.norm(x - y)) / s) ** 2 for (x, s), (y, _) in zip(*seen, strict=True)]
            hold(sum(squares) <= 1.0 + 1e-9, f"shares {shares} move by {sum(squares) ** 0.5:.3g}")


def check_gradients_move_by_at_most_the_clip(m: Mechanisms) -> None:
    """The divided sum without noise, all patients drawn, for patients of several rows and long gradients."""
    mechanism = step_of(rate=1.0, sigma=1.0, clip=0.3, expected=2.0)
    for name, gradients in long_gradients(m).items():
        for pair in neighbours(60):
            with_, without = (
                m.open_codes(cohort, Recorder()).noisy_gradient(
                    open_account(mechanism.event), gradients, mechanism=mechanism
                )
                for cohort in pair
            )
            moved = float((with_ - without).norm()) * 2.0 / 0.3
            hold(moved <= 1 + 1e-5, f"one patient moves the gradients of the {name} by {moved:.3g} times the clip")


def check_a_patients_gradient_is_its_own(m: Mechanisms) -> None:
    """The gradient of a patient in company equals its gradient alone."""
    draws = np.random.default_rng(1)
    codes = draws.integers(0, VALUES.size, (6, 1, 2))
    mask = np.ones((6, 1))
    for name, gradients in long_gradients(m).items():
        together = gradients(codes, mask).matrix()
        for at in range(6):
            alone = gradients(codes[at : at + 1], mask[at : at + 1]).matrix()[0]
            same = torch.allclose(together[at], alone, rtol=1e-4, atol=1e-4)
            hold(same, f"a patient's gradient of the {name} depends on who else is in the batch")


def check_noise_is_as_strong_as_booked(m: Mechanisms) -> None:
    """Sum of squares of gradient noise (at clips 0.25 and 4) and of histogram noise, as chi-square, both sides."""
    width = 2000
    for clip in (0.25, 4.0):
        mechanism = step_of(rate=0.5, sigma=1.5, clip=clip, expected=10.0)
        noisy = m.open_codes([["a"]] * 4, m.noise()).noisy_gradient(
            open_account(mechanism.event),
            lambda codes, _: PatientGradients([torch.zeros(len(codes), width)]),
            mechanism=mechanism,
        )
        _as_strong(noisy.double().numpy() * 10.0 / (1.5 * clip), "gradient")
    event = Gaussian(stage="h", noise_multiplier=3.0)
    many = Values(values=tuple(f"v{at}" for at in range(width)), other=False, nullable=False)
    counts = m.open_rows([], m.noise()).histogram(open_account(event), "c", many, event=event)
    _as_strong(counts / 3.0, "histogram")


def _as_strong(standard: FloatArray, name: str) -> None:
    total, terms = float((standard**2).sum()), len(standard)
    chance = min(stats.chi2.sf(total, terms), stats.chi2.cdf(total, terms))
    hold(chance > _LEVEL / 6, f"{name} noise has {np.sqrt(total / terms):.3g} times its stated scale")


def check_the_count_is_noised_as_booked(m: Mechanisms) -> None:
    """400 counts, against discrete Laplace noise of scale 10: their mean distance from the truth, by its normal law.

    The distance |k| has mean about 10 and variance about 100, so the mean of 400 lies within 10 +- 3, six sigmas.
    """
    event = EpsilonDelta(stage="count", epsilon=0.1, delta=0.0)
    account = open_account(event.model_copy(update={"count": 400}))
    rows = m.open_rows([["a"]] * 500, m.noise())
    distance = np.abs(np.array([rows.count_patients(account, event=event) for _ in range(400)]) - 500).mean()
    hold(7.0 < distance < 13.0, f"counts lie {distance:.3g} from the truth, not 10")


def check_noise_is_fresh(m: Mechanisms) -> None:
    """Two fits of one seed draw different noise; 64 draws of continuous noise agree by chance never."""
    mechanism = step_of(rate=0.5, sigma=1.0, clip=1.0, expected=1.0)
    event = Gaussian(stage="h", noise_multiplier=100.0)
    seen = []
    for _ in range(2):
        np.random.seed(5)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            noise = m.noise()
            step = m.open_codes([["a"]], noise).noisy_gradient(
                open_account(mechanism.event),
                lambda codes, _: PatientGradients([torch.zeros(len(codes), 64)]),
                mechanism=mechanism,
            )
            counts = m.open_rows([["a"]], noise).histogram(open_account(event), "c", VALUES, event=event)
        seen.append((step.numpy(), counts))
    hold(not np.array_equal(seen[0][0], seen[1][0]), "gradient noise repeats with the seed")
    hold(not np.array_equal(seen[0][1], seen[1][1]), "histogram noise repeats with the seed")


def check_patients_are_drawn_alone_at_the_rate(m: Mechanisms) -> None:
    """Sizes of 600 batches, and how often each of 200 patients was in one, against their binomial laws (chi-square).

    A quarter of the patients hold a rare value, for samplers that look. Under Poisson sampling at rate 0.2 sizes have
    mean 40 and variance 32, a patient's presences mean 120 and variance 96; both sums have about chi-square laws.
    """
    steps, rate, patients = 600, 0.2, 200
    sizes, present = np.zeros(steps), np.zeros(patients)
    codes = np.stack([np.arange(patients), np.repeat([0, 1], [150, 50])], axis=1)
    held = m.codes(codes, sizes=(patients, 2), owners=np.arange(patients), patients=patients, noise=m.noise())
    mechanism = step_of(rate=rate, sigma=1.0, clip=1.0, expected=rate * patients)
    account = open_account(mechanism.event.model_copy(update={"count": steps}))

    for at in range(steps):

        def see(batch: IntArray, mask: FloatArray, at: int = at) -> PatientGradients:
            sizes[at] = len(batch)
            present[batch[:, 0, 0]] += 1
            return PatientGradients([torch.zeros(len(batch), 1)])

        held.noisy_gradient(account, see, mechanism=mechanism)
    spread = rate * (1 - rate)
    for seen, trials, name in ((sizes, patients, "batch sizes"), (present, steps, "presences of a patient")):
        total = float(((seen - trials * rate) ** 2 / (trials * spread)).sum())
        chance = min(stats.chi2.sf(total, len(seen)), stats.chi2.cdf(total, len(seen)))
        hold(chance > _LEVEL / 4, f"{name} are not those of Poisson sampling: {total:.0f} for {len(seen)}")


def check_the_sum_is_divided_by_a_constant(m: Mechanisms) -> None:
    """50 patients of one unit gradient, expected batch 20: 2.5, whoever is drawn."""
    mechanism = step_of(rate=1.0, sigma=1.0, clip=1.0, expected=20.0)
    for patients in (1, 50):
        mean = m.open_codes([["a"]] * patients, Recorder()).noisy_gradient(
            open_account(mechanism.event),
            lambda codes, _: PatientGradients([torch.ones(len(codes), 1)]),
            mechanism=mechanism,
        )
        hold(abs(float(mean) - patients / 20.0) < 1e-4, f"{patients} patients over 20 give {float(mean):.3g}")


def check_values_of_one_patient_stay_hidden(m: Mechanisms) -> None:
    """10,000 values of one patient each, at delta 1e-3 each: binomial, one side."""
    event = Gaussian(stage="d", noise_multiplier=2.0)
    failure = EpsilonDelta(stage="d", epsilon=0.0, delta=1e-3)
    rows = m.open_rows([["common"]] * 100 + [[f"only-{at}"] for at in range(10_000)], m.noise(), max_rows=1)
    found = rows.select_values(open_account(event, failure), "c", event=event, failure=failure)
    alone = sum(value.startswith("only-") for value in found)
    hold(stats.binom.sf(alone - 1, 10_000, 1e-3) > _LEVEL, f"{alone} of 10,000 values of one patient were named")


def check_the_seeded_stream_does_not_feel_the_batch(m: Mechanisms) -> None:
    """After two rounds of a phase on 40 and on 400 patients the seeded generator is in the same state.

    Two columns: of one column numpy draws the condition without moving the generator, and nothing would show.
    """
    mechanism = step_of(rate=0.5, sigma=2.0, clip=1.0, expected=20.0)
    for begin in (small_critic_phase, small_variational_phase):
        states = []
        for patients in (40, 400):
            codes = PrivateCodes(
                np.zeros((patients, 2), dtype=np.int64),
                sizes=(2, 2),
                owners=np.arange(patients),
                patients=patients,
                noise=SystemNoise(),
            )
            draws = seeded(0, 1)
            phase, _ = begin(m, draws, m.private_draws(draws))
            account = open_account(mechanism.event.model_copy(update={"count": 4}))
            for _ in range(2):
                phase.round(codes, account, mechanism=mechanism)
            states.append(draws.bit_generator.state)
        hold(states[0] == states[1], "who knows the seed can read the number of patients drawn off later draws")


def small_critic_phase(
    m: Mechanisms, draws: np.random.Generator, private_draws: np.random.Generator
) -> tuple[Phase, Generator]:
    """An adversarial phase over two columns of two values, the same weights in every call, and its generator."""
    generator, targets = _small_generator()
    settings = CriticSettings(steps=2, critic_steps=2, hidden=8, expected_batch=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        phase = m.critic_phase(generator, targets, settings=settings, draws=draws, private_draws=private_draws)
    return phase, generator


def small_variational_phase(
    m: Mechanisms, draws: np.random.Generator, private_draws: np.random.Generator
) -> tuple[Phase, Generator]:
    """A variational phase likewise."""
    generator, targets = _small_generator()
    settings = VariationalSettings(steps=2, hidden=8, expected_batch=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(8)
        phase = m.variational_phase(generator, targets, settings=settings, draws=draws, private_draws=private_draws)
    return phase, generator


def _small_generator() -> tuple[Generator, Targets]:
    targets = Targets([2, 2], patients=40, device=torch.device("cpu"))
    targets.add_pair((0, 1), np.eye(2) * 20.0, weight=1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        generator = Generator(sizes=[2, 2], components=12, latent=4, hidden=8)
        with torch.no_grad():
            generator.mixture.logits.normal_()
    return generator, targets


class _Silent(PrivateCodes):
    """Shows all patients to the gradients' function, and gives nothing of what it says."""

    def noisy_gradient(self, account: Account, per_patient: PerPatient, *, mechanism: GradientMechanism) -> Tensor:
        return torch.zeros_like(per_patient(*self._padded(np.arange(self._patients))).matrix().sum(dim=0))


def check_networks_know_rows_by_noisy_gradients_alone(m: Mechanisms) -> None:
    """With no gradient coming through the door, two cohorts leave the very same networks behind."""
    mechanism = step_of(rate=1.0, sigma=1.0, clip=1.0, expected=20.0)
    for begin in (small_critic_phase, small_variational_phase):
        left = []
        for value in (0, 1):
            codes = np.full((20, 2), value, dtype=np.int64)
            held = _Silent(codes, sizes=(2, 2), owners=np.arange(20), patients=20, noise=SystemNoise())
            phase, generator = begin(m, seeded(0, 1), seeded(0, 2))
            for _ in range(2):
                phase.round(held, open_account(), mechanism=mechanism)
            left.append(phase.tensors() | generator.state_dict())
        same = all(torch.equal(left[0][name], left[1][name]) for name in left[0])
        hold(same, f"weights of the {phase.name} feel the rows by another way than the noisy gradient")


def check_misfits_move_by_at_most_one(m: Mechanisms) -> None:
    """Distances of several histograms, each in units of its noise, together in L2."""
    event = Gaussian(stage="w", noise_multiplier=1.0)
    sets = [(0,), (1,), (0, 1)]
    expected = [np.full(VALUES.size, 0.7), np.full(VALUES.size, 0.2), np.full((VALUES.size, VALUES.size), 0.1)]
    for pair in neighbours(100):
        seen = []
        for cohort in pair:
            noise = Recorder()
            m.open_codes(cohort, noise).misfits(open_account(event), sets, expected, event=event)
            seen.append(noise.given[0])
        moved = float(np.linalg.norm(seen[0][0] - seen[1][0])) / seen[0][1]
        hold(moved <= 1.0 + 1e-9, f"one patient moves the distances by {moved:.3g}")


CHECKS: tuple[Callable[[Mechanisms], None], ...] = (
    check_histograms_move_by_at_most_one,
    check_stacked_marginals_move_by_at_most_one,
    check_gradients_move_by_at_most_the_clip,
    check_a_patients_gradient_is_its_own,
    check_noise_is_as_strong_as_booked,
    check_the_count_is_noised_as_booked,
    check_noise_is_fresh,
    check_patients_are_drawn_alone_at_the_rate,
    check_the_sum_is_divided_by_a_constant,
    check_values_of_one_patient_stay_hidden,
    check_the_seeded_stream_does_not_feel_the_batch,
    check_networks_know_rows_by_noisy_gradients_alone,
    check_misfits_move_by_at_most_one,
)


# Defects.


class HalvedNoise(SystemNoise):
    """All noise at half its scale."""

    def discrete_gaussian(self, values: IntArray, *, scale: float) -> IntArray:
        return super().discrete_gaussian(values, scale=scale / 2.0)

    def discrete_laplace(self, value: int, *, scale: float) -> int:
        return super().discrete_laplace(value, scale=scale / 2.0)

    def gaussian(self, size: int, *, scale: float) -> FloatArray:
        return super().gaussian(size, scale=scale / 2.0)


class SeededNoise(InsecureNoise):
    """Noise from the user's seed."""

    def __init__(self) -> None:
        super().__init__(5)


class FixedBatches(SystemNoise):
    """A shuffled batch of one size, booked as if it were Poisson sampling."""

    def poisson_draw(self, size: int, *, rate: float) -> np.ndarray:
        chosen = np.zeros(size, dtype=np.bool_)
        chosen[self._generator.permutation(size)[: round(size * rate)]] = True
        return chosen


class CopiedGradient(PrivateCodes):
    """The gradient mechanism in parts that defects replace one by one. As it stands it is right."""

    def noisy_gradient(self, account: Account, per_patient: PerPatient, *, mechanism: GradientMechanism) -> Tensor:
        account.spend(mechanism.event)
        drawn = self.draw(mechanism.event.sampling_probability)
        total = self.clipped(per_patient, drawn, mechanism.clip_norm)
        noise = self._noise.gaussian(total.numel(), scale=self.scale(mechanism))
        return ((total + torch.from_numpy(noise)) / self.divisor(mechanism, drawn)).float()

    def draw(self, rate: float) -> IntArray:
        return np.flatnonzero(self._noise.poisson_draw(self._patients, rate=rate))

    def clipped(self, per_patient: PerPatient, drawn: IntArray, norm: float) -> Tensor:
        """The sum over patients of what is left of each, in float64."""
        return scaled_sum(gradients := per_patient(*self._padded(drawn)), lengths_of(gradients), norm=norm)

    def scale(self, mechanism: GradientMechanism) -> float:
        return mechanism.event.noise_multiplier * mechanism.clip_norm

    def divisor(self, mechanism: GradientMechanism, drawn: IntArray) -> float:
        return mechanism.expected_batch


def lengths_of(gradients: PatientGradients) -> Tensor:
    """The L2 norm of each patient's gradient, from all of it written out."""
    return gradients.matrix().double().norm(dim=1)


def scaled_sum(gradients: PatientGradients, lengths: Tensor, *, norm: float) -> Tensor:
    """The sum of the patients' gradients, each scaled down as if it had that length."""
    return (norm * (1 - 1e-9) / lengths.clamp(min=norm)) @ gradients.matrix().double()


class NoClip(CopiedGradient):
    """Gradients as long as they come."""

    def clipped(self, per_patient: PerPatient, drawn: IntArray, norm: float) -> Tensor:
        return per_patient(*self._padded(drawn)).matrix().double().sum(dim=0)


class ClipPerRow(CopiedGradient):
    """The row as the unit: each row has its own loss and its own clip, and weighs 1 in histograms."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._weight = np.full(len(self._codes), GRAIN)

    def clipped(self, per_patient: PerPatient, drawn: IntArray, norm: float) -> Tensor:
        codes, mask = self._padded(drawn)
        rows = per_patient(codes[mask > 0][:, None, :], np.ones((int(mask.sum()), 1)))
        return scaled_sum(rows, lengths_of(rows), norm=norm)


class ClipPerLayer(CopiedGradient):
    """A clip of its own for each layer's part, as many as there are."""

    def clipped(self, per_patient: PerPatient, drawn: IntArray, norm: float) -> Tensor:
        parts = per_patient(*self._padded(drawn)).parts
        return torch.cat([clipped_sum(PatientGradients([part]), norm=norm) for part in parts])


class LengthOfTheFirstRow(CopiedGradient):
    """Products of rows left out: what a layer's factors say of a patient's first row is taken for its length."""

    def clipped(self, per_patient: PerPatient, drawn: IntArray, norm: float) -> Tensor:
        gradients = per_patient(*self._padded(drawn))
        first = [Outer(p.left[:, :1], p.right[:, :1]) if isinstance(p, Outer) else p for p in gradients.parts]
        return scaled_sum(gradients, lengths_of(PatientGradients(first)), norm=norm)


class LengthsOfRowsAsIfApart(CopiedGradient):
    """The diagonal of the products of rows alone, as if a patient's rows never pulled in one direction."""

    def clipped(self, per_patient: PerPatient, drawn: IntArray, norm: float) -> Tensor:
        gradients = per_patient(*self._padded(drawn))
        squares = [
            (p.left.double().square().sum(dim=2) * p.right.double().square().sum(dim=2)).sum(dim=1)
            if isinstance(p, Outer)
            else p.double().square().sum(dim=1)
            for p in gradients.parts
        ]
        return scaled_sum(gradients, torch.stack(squares).sum(dim=0).sqrt(), norm=norm)


class LayerNormLeftOut(CopiedGradient):
    """Lengths of linear layers, each a matrix with its bias behind it; what stands elsewhere is summed unmeasured."""

    def clipped(self, per_patient: PerPatient, drawn: IntArray, norm: float) -> Tensor:
        gradients = per_patient(*self._padded(drawn))
        first, *others = gradients.parts
        follows = zip(others, gradients.parts, strict=False)
        linear = [first, *(p for p, last in follows if isinstance(p, Outer) or isinstance(last, Outer))]
        return scaled_sum(gradients, lengths_of(PatientGradients(linear)), norm=norm)


class RowsAsUnits(PrivateRows):
    """Each row weighs 1."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._weight = np.full(len(self._owners), GRAIN)


class ChosenByCategory(CopiedGradient):
    """CTGAN's training by sampling: the rare values of the last column as often as the common ones.

    The mean rate is what it should be, batches vary as they should, and rare patients are drawn more often.
    """

    def draw(self, rate: float) -> IntArray:
        if self._patients == 0:
            return np.zeros(0, dtype=np.int64)
        value = self._codes[self._first, -1]
        share = np.bincount(value) / len(value)
        chance = rate / (np.count_nonzero(share) * share[value])
        return np.flatnonzero(self._noise.spawn().random(len(value)) < chance)


class NoiseWithoutTheClip(CopiedGradient):
    """The noise multiplier alone as the scale."""

    def scale(self, mechanism: GradientMechanism) -> float:
        return mechanism.event.noise_multiplier


class DividedByTheDrawn(CopiedGradient):
    """The mean over the batch that was drawn."""

    def divisor(self, mechanism: GradientMechanism, drawn: IntArray) -> float:
        return float(max(len(drawn), 1))


class UncheckedShares(PrivateCodes):
    """Marginals that take any shares."""

    def marginals(
        self,
        account: Account,
        column_sets: Sequence[tuple[int, ...]],
        *,
        shares: Sequence[float],
        event: Gaussian,
        groups: Sequence[IntArray] | None = None,
    ) -> list[FloatArray]:
        # Each alone is within what the real method allows; their sum is not looked at.
        wide = Unlimited(Budget(epsilon=1.0, delta=1e-3))
        noisy = []
        for columns, share in zip(column_sets, shares, strict=True):
            part = event.model_copy(update={"noise_multiplier": event.noise_multiplier / share**0.5})
            wide.plan([part])
            noisy += super().marginals(wide, [columns], shares=[1.0], event=part, groups=groups)
        account.spend(event)
        return noisy


class MisfitsAsOne(PrivateCodes):
    """Noise on each distance as if it were the only one."""

    def misfits(
        self,
        account: Account,
        column_sets: Sequence[tuple[int, ...]],
        expected: Sequence[FloatArray],
        *,
        event: Gaussian,
        groups: Sequence[IntArray] | None = None,
    ) -> FloatArray:
        less = event.model_copy(update={"noise_multiplier": event.noise_multiplier / len(column_sets) ** 0.5})
        account.spend(event)
        return super().misfits(open_account(less), column_sets, expected, event=less, groups=groups)


class ExactCategories(PrivateRows):
    """All values present are named, with noise on their counts."""

    def select_values(
        self, account: Account, column: str, *, event: Gaussian, failure: EpsilonDelta
    ) -> dict[str, float]:
        present = Values(values=tuple(self._frame[column].drop_nulls().unique().sort()), other=False, nullable=False)
        account.spend(failure)
        return dict(zip(present.values, self.histogram(account, column, present, event=event), strict=True))


class ExactCount(PrivateRows):
    """The number of patients as it is."""

    def count_patients(self, account: Account, *, event: EpsilonDelta) -> int:
        account.spend(event)
        return self._patients


def penalty_on_real_pairs(critic: Critic) -> PerPatient:
    """WGAN-GP over the real batch: the slope is taken halfway to the next patient."""

    def gradients(codes: IntArray, mask: FloatArray) -> PatientGradients:
        rows = one_hot(torch.from_numpy(codes), sizes=critic.sizes)[:, 0]
        return _one_by_one(critic, [_with_penalty(critic, rows[at], rows[at - 1]) for at in range(len(rows))])

    return gradients


def _with_penalty(critic: Critic, row: Tensor, other: Tensor) -> Tensor:
    between = (0.5 * (row + other)).requires_grad_()
    condition = torch.zeros_like(row)
    (slope,) = torch.autograd.grad(critic(between, condition).sum(), between, create_graph=True)
    loss: Tensor = -critic(row, condition).sum() + (slope.norm() - 1.0).square()
    return loss


def codes_of_a_batch(network: Variational, generator: Generator) -> PerPatient:
    """An encoder that sees each row as its distance from the batch's mean: batch norm by another name."""

    def gradients(codes: IntArray, mask: FloatArray) -> PatientGradients:
        rows, condition = conditions_of_rows(
            codes[:, 0],
            sizes=network.sizes,
            draws=StillDraws(),  # type: ignore[arg-type]
            device=torch.device("cpu"),
        )
        scores = generator.mixture.logits[torch.zeros(len(rows), dtype=torch.int64)]
        noise = torch.ones(len(rows), generator.latent)
        losses = network(rows - rows.mean(dim=0), scores, condition, noise) if len(rows) else rows.sum(dim=1)
        return _one_by_one(network, list(losses))

    return gradients


def _one_by_one(network: nn.Module, losses: list[Tensor]) -> PatientGradients:
    parameters = list(network.parameters())
    made = []
    for loss in losses:
        found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        made.append(torch.cat([part.flatten() for part in parts]))
    return PatientGradients([torch.stack(made) if made else torch.zeros(0, sum(p.numel() for p in parameters))])


def conditions_from_the_seed(draws: np.random.Generator) -> np.random.Generator:
    """The seeded stream itself, which then moves by as much as patients were drawn."""
    return draws


class GeneratorShownRows(CriticPhase):
    """A generator whose scores are moved towards real rows, without clip and noise."""

    def _real_side(self, batch: IntArray, mask: FloatArray) -> PatientGradients:
        rows = one_hot(torch.from_numpy(batch), sizes=self._critic.sizes)[:, 0]
        assert self._generator.refiner is not None
        with torch.no_grad():
            self._generator.refiner.out.bias += 0.1 * rows.mean(dim=0)
        return super()._real_side(batch, mask)


class EncoderLeftOut(VariationalPhase):
    """An encoder that is trained on rows as they are; the clip and the noise are the decoder's alone."""

    def _real_side(self, batch: IntArray, mask: FloatArray) -> PatientGradients:
        both = self._private_learner.network
        assert isinstance(both, Variational)
        encoder = list(both.encoder.parameters())
        losses = tvae._real_loss(both, batch, mask, decoder=self._generator, draws=self._private_draws)
        slopes = torch.autograd.grad(losses.sum(), encoder)
        with torch.no_grad():
            for parameter, slope in zip(encoder, slopes, strict=True):
                parameter.sub_(1e-3 * slope)
        return super()._real_side(batch, mask)
