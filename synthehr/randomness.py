"""The two kinds of randomness: reproducible draws from a user's seed, and noise from the operating system.

A seed may move initial weights and everything after the release. It never moves the noise, the draws of
patients or anything else that the guarantee rests on: those come from a :class:`NoiseSource`.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from synthehr.errors import ConfigError

__all__ = [
    "CryptographicNoise",
    "InsecureNoise",
    "IntArray",
    "NoiseSource",
    "SystemNoise",
    "fresh_seed",
    "noise_source",
    "seeded",
]

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


def fresh_seed() -> int:
    """A seed from the operating system for draws that need no secrecy, below 2**63."""
    return secrets.randbits(63)


def seeded(seed: int, *stream: int) -> np.random.Generator:
    """A reproducible generator; ``stream`` numbers keep independent uses of one seed apart.

    Raises:
        ConfigError: the seed is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed must be 0 or larger, not {seed}")
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence((seed, *stream))))


class NoiseSource(ABC):
    """Where the noise of every private mechanism comes from."""

    name: str
    why_not_private: str | None = None

    @abstractmethod
    def discrete_gaussian(self, values: IntArray, *, scale: float) -> IntArray:
        """``values`` plus discrete Gaussian noise of standard deviation ``scale`` each. Any shape, kept."""

    @abstractmethod
    def discrete_laplace(self, value: int, *, scale: float) -> int:
        """``value`` plus discrete Laplace noise: P[k] proportional to exp(-|k| / scale)."""

    @abstractmethod
    def spawn(self) -> np.random.Generator:
        """A generator for draws inside a patient's own loss, and for which of its rows are kept.

        Such draws are as many as the patients drawn, which is private: taken from a seeded stream they would shift
        all that comes after, and who knows the seed could read the size of every batch off the release.
        """

    @abstractmethod
    def gaussian(self, size: int, *, scale: float) -> FloatArray:
        """Continuous Gaussian draws in float64, shape ``(size,)``, standard deviation ``scale``."""

    @abstractmethod
    def poisson_draw(self, size: int, *, rate: float) -> NDArray[np.bool_]:
        """Independent coins, shape ``(size,)``, each true with probability ``rate``."""


class _GeneratorNoise(NoiseSource):
    """Continuous draws and coins from a numpy generator."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def gaussian(self, size: int, *, scale: float) -> FloatArray:
        """Sum of four float64 draws of half the scale: no draw's floating-point grid shows alone."""
        draws = self._generator.standard_normal((4, size))
        return np.asarray(draws.sum(axis=0) * (scale / 2.0), dtype=np.float64)

    def poisson_draw(self, size: int, *, rate: float) -> NDArray[np.bool_]:
        """Coins from uniform float64 draws."""
        return np.asarray(self._generator.random(size) < rate)


class SystemNoise(_GeneratorNoise):
    """Noise for real releases.

    Integer noise is OpenDP's exact sampler over the operating system's entropy. Gradient noise and draws of
    patients come from a generator keyed with 256 bits of that entropy. (A torch CPU generator would not do:
    it folds any seed to 32 bits, few enough to try them all.)
    """

    name = "system"

    def __init__(self) -> None:
        super().__init__(self.spawn())

    def spawn(self) -> np.random.Generator:
        """Keyed with 256 new bits of the operating system's entropy; numpy's own pool would fold them to 128."""
        return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(secrets.randbits(256), pool_size=8)))

    def discrete_gaussian(self, values: IntArray, *, scale: float) -> IntArray:
        """OpenDP's discrete Gaussian (Canonne, Kamath, Steinke 2020)."""
        import opendp.prelude as dp

        dp.enable_features("contrib")
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="f64")
        measurement = dp.m.make_gaussian(*space, scale=scale)
        return np.asarray(measurement(values.ravel().tolist()), dtype=np.int64).reshape(values.shape)

    def discrete_laplace(self, value: int, *, scale: float) -> int:
        """OpenDP's discrete Laplace."""
        import opendp.prelude as dp

        dp.enable_features("contrib")
        space = dp.atom_domain(T="i64"), dp.absolute_distance(T="i64")
        return int(dp.m.make_laplace(*space, scale=scale)(value))


class CryptographicNoise(SystemNoise):
    """As :class:`SystemNoise`, but each gradient draw and each coin is fresh output of the operating system.

    Slower; nothing of one draw can be told from any other, whatever is known of them.
    """

    name = "cryptographic"

    def gaussian(self, size: int, *, scale: float) -> FloatArray:
        """Sum of four draws of half the scale, each by the inverse of the normal distribution function."""
        from scipy.special import ndtri

        draws = ndtri(self._uniform(4 * size)).reshape(4, size)
        return np.asarray(draws.sum(axis=0) * (scale / 2.0), dtype=np.float64)

    def poisson_draw(self, size: int, *, rate: float) -> NDArray[np.bool_]:
        """Coins of 53 random bits each."""
        return np.asarray(self._uniform(size) < rate)

    @staticmethod
    def _uniform(size: int) -> FloatArray:
        """Draws strictly between 0 and 1, in the middles of 2**53 equal steps."""
        bits = np.frombuffer(secrets.token_bytes(8 * size), dtype=np.uint64) >> np.uint64(11)
        return np.asarray((bits.astype(np.float64) + 0.5) * 2.0**-53, dtype=np.float64)


class InsecureNoise(_GeneratorNoise):
    """Repeatable noise for tests. A fit that uses it is stamped NOT PRIVATE."""

    name = "insecure"
    why_not_private = "the noise was seeded for a test"

    def __init__(self, seed: int) -> None:
        super().__init__(seeded(seed))
        self._seed = seed

    def spawn(self) -> np.random.Generator:
        """Repeatable."""
        return seeded(self._seed, 1)

    def discrete_gaussian(self, values: IntArray, *, scale: float) -> IntArray:
        """Rounded Gaussian draws."""
        return values + np.rint(self._generator.normal(0.0, scale, values.shape)).astype(np.int64)

    def discrete_laplace(self, value: int, *, scale: float) -> int:
        """Difference of two geometric draws."""
        chance = -np.expm1(-1.0 / scale)
        up, down = self._generator.geometric(chance, 2)
        return value + int(up) - int(down)


def noise_source(name: str) -> NoiseSource:
    """The noise source ``system`` or ``cryptographic``.

    Raises:
        ConfigError: there is none of that name.
    """
    sources: dict[str, type[SystemNoise]] = {source.name: source for source in (SystemNoise, CryptographicNoise)}
    if name not in sources:
        raise ConfigError(f"noise {name!r} is unknown: choose one of {', '.join(sources)}")
    return sources[name]()
