"""The two kinds of randomness: reproducible draws from a user's seed, and noise from the operating system.

A seed may move initial weights and everything after the release. It never moves the noise, the draws of
patients or anything else that the guarantee rests on: those come from a :class:`NoiseSource`.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from synthehr.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = [
    "CryptographicNoise",
    "DeviceStream",
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

    def gaussian_on(self, device: torch.device, size: int, *, scale: float) -> torch.Tensor:
        """As :meth:`gaussian`, on a device: made by the processor and brought there, unless the source knows better."""
        import torch

        return torch.from_numpy(self.gaussian(size, scale=scale)).to(device)

    @abstractmethod
    def poisson_draw(self, size: int, *, rate: float) -> NDArray[np.bool_]:
        """Independent coins, shape ``(size,)``, each true with probability ``rate``."""


class DeviceStream:
    """Gaussian draws made on a device from the ChaCha20 key stream (Bernstein 2008), block after block.

    Args:
        key: 256 bits of entropy, which no other stream has.
        device: where the draws are made and stay.
        counter: of the next block of 64 bytes.
        nonce: 64 bits, little end first.
    """

    _CONSTANTS = b"expand 32-byte k"

    def __init__(self, key: bytes, *, device: torch.device, counter: int = 0, nonce: bytes = bytes(8)) -> None:
        import torch

        if len(key) != 32 or len(nonce) != 8:
            raise ConfigError(f"a key has 32 bytes and a nonce 8, not {len(key)} and {len(nonce)}")
        words = np.frombuffer(self._CONSTANTS + key + bytes(8) + nonce, dtype="<i4").astype(np.int32)
        self._start = torch.from_numpy(words).to(device).view(4, 4, 1)
        self._counter = counter

    def words(self, blocks: int) -> torch.Tensor:
        """The next words of the stream, as signed 32-bit integers. Shape: ``(16, blocks)``, a block a column."""
        import torch

        start = self._start.repeat(1, 1, blocks)
        counter = self._counter + torch.arange(blocks, dtype=torch.int64, device=start.device)
        start[3, 0], start[3, 1] = _low_word(counter), _low_word(counter >> 32)
        self._counter += blocks
        a, b, c, d = start.clone()
        for half in range(20):
            for turn_d, turn_b in ((16, 12), (8, 7)):
                a += b
                d = _turned(d ^ a, turn_d)
                c += d
                b = _turned(b ^ c, turn_b)
            # Columns, then diagonals: a row is turned by its number, and back after the odd half rounds.
            way = -1 if half % 2 == 0 else 1
            b, c, d = b.roll(way, 0), c.roll(2 * way, 0), d.roll(3 * way, 0)
        return (torch.stack([a, b, c, d]) + start).view(16, blocks)

    def gaussian(self, size: int, *, scale: float) -> torch.Tensor:
        """As :meth:`NoiseSource.gaussian`: each the sum of four draws of half the scale, each of 53 bits of its own."""
        import torch

        blocks = -(-8 * size // 16)
        words = self.words(blocks).view(2, -1)[:, : 4 * size].to(torch.int64) & 0xFFFFFFFF
        bits = ((words[0] >> 5) << 26) | (words[1] >> 6)
        draws: torch.Tensor = torch.special.ndtri((bits.double() + 0.5) * 2.0**-53)
        return draws.view(4, size).sum(dim=0) * (scale / 2.0)


def _low_word(values: torch.Tensor) -> torch.Tensor:
    """The low 32 bits of 64-bit integers, as signed 32-bit ones."""
    import torch

    low = values & 0xFFFFFFFF
    return torch.where(low >= 2**31, low - 2**32, low).to(torch.int32)


def _turned(words: torch.Tensor, by: int) -> torch.Tensor:
    """Each word's bits turned to the left, those that fall off coming in on the right."""
    return (words << by) | ((words >> (32 - by)) & ((1 << by) - 1))


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
    patients come from a generator keyed with 256 bits of that entropy; on an accelerator gradient noise is made there,
    from a cryptographic stream keyed alike. (Torch's own generators would not do: they fold any seed to 32 bits on the
    processor, few enough to try them all, and to 64 on an accelerator.)
    """

    name = "system"

    def __init__(self) -> None:
        super().__init__(self.spawn())
        self._streams: dict[torch.device, DeviceStream] = {}

    def gaussian_on(self, device: torch.device, size: int, *, scale: float) -> torch.Tensor:
        """On an accelerator from a :class:`DeviceStream` there, so that no step waits for the processor."""
        if device.type == "cpu":
            return super().gaussian_on(device, size, scale=scale)
        if device not in self._streams:
            self._streams[device] = DeviceStream(secrets.token_bytes(32), device=device)
        return self._streams[device].gaussian(size, scale=scale)

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

    def gaussian_on(self, device: torch.device, size: int, *, scale: float) -> torch.Tensor:
        """Of the operating system on every device."""
        return NoiseSource.gaussian_on(self, device, size, scale=scale)

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
