from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from synthehr.errors import ConfigError
from synthehr.randomness import (
    CryptographicNoise,
    DeviceStream,
    InsecureNoise,
    NoiseSource,
    SystemNoise,
    noise_source,
    seeded,
)

DRAWS = 20_000
# A correct source fails a KS test at this level once in 100,000 runs.
LEVEL = 1e-5


def _gaussian(source: NoiseSource, scale: float) -> np.ndarray:
    return source.gaussian(DRAWS, scale=scale)


def _discrete(source: NoiseSource, scale: float) -> np.ndarray:
    grain = 2**20
    return source.discrete_gaussian(np.zeros(DRAWS, dtype=np.int64), scale=scale * grain) / grain


@pytest.mark.parametrize("source", [SystemNoise(), CryptographicNoise(), InsecureNoise(7)], ids=lambda s: s.name)
@pytest.mark.parametrize("draw", [_gaussian, _discrete])
def test_noise_has_the_stated_sigma_and_no_other(source, draw) -> None:
    values = draw(source, 3.0)
    assert stats.kstest(values, stats.norm(0, 3.0).cdf).pvalue > LEVEL
    for wrong in (2.0, 4.5):
        assert stats.kstest(values, stats.norm(0, wrong).cdf).pvalue < LEVEL


@pytest.mark.parametrize("source", [SystemNoise(), CryptographicNoise(), InsecureNoise(7)], ids=lambda s: s.name)
def test_laplace_noise_has_the_stated_scale_and_no_other(source) -> None:
    values = np.array([source.discrete_laplace(0, scale=50.0) for _ in range(4000)])
    jittered = values + np.random.default_rng(0).uniform(-0.5, 0.5, len(values))
    assert stats.kstest(jittered, stats.laplace(0, 50.0).cdf).pvalue > LEVEL
    for wrong in (50.0 * 2 / 3, 75.0):
        assert stats.kstest(jittered, stats.laplace(0, wrong).cdf).pvalue < LEVEL


def test_opendp_states_the_cost_that_the_account_books() -> None:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    grain, sigma, epsilon = 2**20, 7.3, 0.03
    gaussian = dp.m.make_gaussian(
        dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64"), scale=sigma * grain
    )
    assert gaussian.map(float(grain)) == pytest.approx(1 / (2 * sigma**2), rel=1e-12)
    laplace = dp.m.make_laplace(dp.atom_domain(T="i64"), dp.absolute_distance(T="i64"), scale=(1 + 1e-9) / epsilon)
    assert laplace.map(1) <= epsilon


@pytest.mark.parametrize("source", [SystemNoise(), CryptographicNoise()], ids=lambda s: s.name)
def test_each_patient_is_drawn_alone_with_the_rate(source) -> None:
    batches = np.array([source.poisson_draw(1000, rate=0.1).sum() for _ in range(2000)])
    # Binomial(1000, 0.1): mean 100, variance 90. A fixed batch size would have variance 0.
    assert abs(batches.mean() - 100) < 5 * np.sqrt(90 / 2000)
    assert abs(batches.var() - 90) < 5 * 90 * np.sqrt(2 / 2000)


def test_system_noise_does_not_repeat_and_test_noise_does() -> None:
    assert not np.array_equal(SystemNoise().gaussian(8, scale=1.0), SystemNoise().gaussian(8, scale=1.0))
    assert np.array_equal(InsecureNoise(1).gaussian(8, scale=1.0), InsecureNoise(1).gaussian(8, scale=1.0))


def test_numpys_and_torchs_seeds_do_not_move_system_noise() -> None:
    import torch

    values = []
    for _ in range(2):
        np.random.seed(0)
        torch.manual_seed(0)
        values.append(SystemNoise().gaussian(8, scale=1.0))
    assert not np.array_equal(values[0], values[1])


def test_streams_of_one_seed_differ_and_a_negative_seed_is_refused() -> None:
    assert seeded(3, 1).random() != seeded(3, 2).random()
    assert seeded(3, 1).random() == seeded(3, 1).random()
    with pytest.raises(ConfigError, match="seed"):
        seeded(-1)


def test_a_noise_source_is_found_by_name_and_test_noise_is_not() -> None:
    assert type(noise_source("system")) is SystemNoise
    assert type(noise_source("cryptographic")) is CryptographicNoise
    with pytest.raises(ConfigError, match="choose one of"):
        noise_source("insecure")


def test_cryptographic_noise_survives_a_fork() -> None:
    # A generator that was copied by a fork would repeat itself in both processes; the system's own output does not.
    import copy

    source = CryptographicNoise()
    assert not np.array_equal(copy.deepcopy(source).gaussian(8, scale=1.0), source.gaussian(8, scale=1.0))


def test_the_key_of_system_noise_is_as_long_as_it_is_said_to_be() -> None:
    # Words of 32 bits; the default pool of four would fold 256 bits of entropy to 128.
    assert SystemNoise().spawn().bit_generator.seed_seq.pool_size * 32 == 256


CPU = torch.device("cpu")


def test_the_devices_stream_is_chacha20() -> None:
    # RFC 8439, 2.3.2: its 32-bit counter and 96-bit nonce are a 64-bit counter and 64-bit nonce here.
    nonce = bytes.fromhex("000000090000004a00000000")
    counter = 1 + (int.from_bytes(nonce[:4], "little") << 32)
    stream = DeviceStream(bytes(range(32)), device=CPU, counter=counter, nonce=nonce[4:])
    block = stream.words(1).numpy().ravel().astype("<i4").tobytes()
    assert block.hex() == (
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )


def test_blocks_follow_each_other_past_32_bits_of_their_number_and_none_comes_twice() -> None:
    whole = DeviceStream(bytes(32), device=CPU, counter=2**32 - 2).words(4)
    parts = DeviceStream(bytes(32), device=CPU, counter=2**32 - 2)
    assert torch.equal(whole, torch.cat([parts.words(1), parts.words(3)], dim=1))
    assert torch.equal(whole[:, 2], DeviceStream(bytes(32), device=CPU, counter=2**32).words(1)[:, 0])
    assert len({tuple(block.tolist()) for block in whole.T}) == 4


def test_a_devices_noise_has_the_stated_sigma_and_no_other() -> None:
    stream = DeviceStream(bytes(range(1, 33)), device=CPU)
    values = torch.cat([stream.gaussian(size, scale=3.0) for size in (1, 7, DRAWS)]).numpy()
    assert values.dtype == np.float64
    assert len(values) == DRAWS + 8
    assert stats.kstest(values, stats.norm(0, 3.0).cdf).pvalue > LEVEL
    for wrong in (2.0, 4.5):
        assert stats.kstest(values, stats.norm(0, wrong).cdf).pvalue < LEVEL
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 5 / np.sqrt(DRAWS)


def test_an_accelerators_noise_is_made_there_with_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class There:
        type = "there"

    keys = []

    class Recorded(DeviceStream):
        def __init__(self, key: bytes, *, device: torch.device) -> None:
            keys.append(key)
            super().__init__(key, device=CPU)

    monkeypatch.setattr("synthehr.randomness.DeviceStream", Recorded)
    there, first, second = There(), SystemNoise(), SystemNoise()
    drawn = [source.gaussian_on(there, 100, scale=1.0) for source in (first, first, second)]
    assert len(keys) == 2
    assert len(set(keys)) == 2
    assert all(len(key) == 32 for key in keys)
    assert not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("source", [SystemNoise(), CryptographicNoise(), InsecureNoise(7)], ids=lambda s: s.name)
def test_the_processors_noise_is_that_of_the_source(source, monkeypatch: pytest.MonkeyPatch) -> None:
    def even(size: int, scale: float) -> np.ndarray:
        return np.full(size, scale)

    monkeypatch.setattr(source, "gaussian", even)
    assert source.gaussian_on(CPU, 3, scale=2.0).tolist() == [2.0, 2.0, 2.0]


@pytest.mark.gpu
def test_an_accelerators_stream_is_that_of_the_processor() -> None:
    streams = [DeviceStream(bytes(range(32)), device=torch.device(name)) for name in ("cpu", "cuda")]
    assert torch.equal(streams[0].words(1000), streams[1].words(1000).cpu())
    torch.testing.assert_close(streams[0].gaussian(1000, scale=2.0), streams[1].gaussian(1000, scale=2.0).cpu())
