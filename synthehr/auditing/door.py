"""The door as an audit opens it: to patients who were made up, on accounts of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.optimize import brentq
from scipy.stats import norm

from synthehr.privacy.accountant import Account, Event
from synthehr.privacy.budget import Budget
from synthehr.privacy.rows import PrivateCodes, PrivateRows
from synthehr.randomness import IntArray, NoiseSource, SystemNoise

__all__ = ["Door", "RunAccount", "fair_coins", "noise_multiplier_for"]


class RunAccount(Account):
    """Lets every event through: each run of an audit stands for a fit of its own, on patients who do not exist."""

    def __init__(self) -> None:
        super().__init__(Budget(epsilon=1.0, delta=0.5))

    def spend(self, event: Event) -> None:
        """Book nothing: there is no patient to protect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What private rows live behind, and where its noise comes from. A test puts broken parts here."""

    rows: type[PrivateRows] = PrivateRows
    codes: type[PrivateCodes] = PrivateCodes
    noise: Callable[[], NoiseSource] = SystemNoise

    def open_rows(self, values: Sequence[str], *, owners: IntArray, patients: int) -> PrivateRows:
        """One column ``c`` of text; shape of both ``(rows,)``."""
        most = max(int(np.bincount(owners).max()) if len(owners) else 0, 1)
        frame = pl.DataFrame({"c": values}, schema={"c": pl.String})
        return self.rows(frame, owners=owners, patients=patients, max_rows=most, noise=self.noise())

    def open_codes(
        self,
        codes: IntArray,
        *,
        sizes: tuple[int, ...],
        owners: IntArray,
        patients: int,
        noise: NoiseSource | None = None,
    ) -> PrivateCodes:
        """Encoded rows, shape ``(rows, columns)``; with new noise where none is given."""
        source = noise if noise is not None else self.noise()
        return self.codes(codes, sizes=sizes, owners=owners, patients=patients, noise=source)


def fair_coins(size: int) -> np.ndarray:
    """Who is in: coins of the operating system, shape ``(size,)``."""
    return np.asarray(SystemNoise().spawn().random(size) < 0.5)


def noise_multiplier_for(*, epsilon: float, delta: float, rate: float = 1.0) -> float:
    """The noise at which one Gaussian step on a Poisson sample of patients spends exactly (epsilon, delta).

    In closed form, where the account's numbers come from privacy-loss distributions: an audit should not lean on what
    it audits. With one patient more the sum is a mixture of 1 with chance ``rate`` and 0, with noise; delta is the
    larger of the two hockey-stick divergences between mixture and noise alone.
    """
    return float(brentq(lambda sigma: _delta(sigma, epsilon=epsilon, rate=rate) - delta, 0.05, 1e4, xtol=1e-12)) * (
        1.0 + 1e-9
    )


def _delta(sigma: float, *, epsilon: float, rate: float) -> float:
    """The hockey-stick divergence at ``epsilon`` of one step."""

    def above(at: float) -> tuple[float, float]:
        """Chance of more than ``at``, with the patient and without."""
        without = float(norm.sf(at / sigma))
        return (1.0 - rate) * without + rate * float(norm.sf((at - 1.0) / sigma)), without

    more, less = above(sigma**2 * math.log((math.expm1(epsilon) + rate) / rate) + 0.5)
    found = more - math.exp(epsilon) * less
    rest = math.exp(-epsilon) - 1.0 + rate
    if rest > 0:  # else noise alone is nowhere that much more likely
        more, less = above(sigma**2 * math.log(rest / rate) + 0.5)
        found = max(found, (1.0 - less) - math.exp(epsilon) * (1.0 - more))
    return found
