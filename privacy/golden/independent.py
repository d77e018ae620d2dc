"""Accountants that share no code with synthehr's: what the golden numbers and the grid of plans are compared with.

``own_epsilon`` is written here from the definition of the hockey-stick divergence, for Gaussians, Poisson-sampled
Gaussians and (epsilon, delta) promises in any mix, in both directions of add-or-remove-one. The others are closed
forms and other people's libraries, each for the events it knows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

__all__ = ["analytic_gaussian", "google_pld", "google_rdp", "opacus_prv", "opacus_rdp", "own_epsilon"]

Array = NDArray[np.float64]
Events = Sequence[dict[str, Any]]


def analytic_gaussian(events: Events, delta: float) -> float | None:
    """Balle and Wang 2018, Theorem 8, in closed form; None where a Gaussian is sampled."""
    noised, pure, left = _apart(events, delta)
    if any(e["type"] != "Gaussian" for e in noised):
        return None
    mu = math.sqrt(math.fsum(e["count"] / e["noise_multiplier"] ** 2 for e in noised))

    def diverges(epsilon: float) -> float:
        second = math.exp(epsilon + float(norm.logcdf(-mu / 2.0 - epsilon / mu)))
        return float(norm.cdf(mu / 2.0 - epsilon / mu)) - second

    return float(brentq(lambda e: _with_pure(diverges, pure, e) - left, 0.0, 500.0, xtol=1e-12))


def _apart(events: Events, delta: float) -> tuple[list[dict[str, Any]], list[float], float]:
    """Noised events; the epsilons of pure promises; and the delta left: 1 - (1 - delta) / prod(1 - failures)."""
    noised, pure, survive = [], [], 1.0
    for event in events:
        if event["type"] != "EpsilonDelta":
            noised.append(event)
            continue
        survive *= (1.0 - event["delta"]) ** event["count"]
        pure += [event["epsilon"]] * event["count"] if event["epsilon"] > 0.0 else []
    return noised, pure, 1.0 - (1.0 - delta) / survive


def _with_pure(diverges: Callable[[float], float], pure: Sequence[float], epsilon: float) -> float:
    """The divergence with pure promises on top: each is randomised response, a loss of plus or minus its epsilon."""
    if not pure:
        return diverges(epsilon)
    first, others = pure[0], pure[1:]
    up = 1.0 / (1.0 + math.exp(-first))
    return up * _with_pure(diverges, others, epsilon - first) + (1.0 - up) * _with_pure(
        diverges, others, epsilon + first
    )


def own_epsilon(events: Events, delta: float, *, cells: int = 2**21, reach: float | None = None) -> float:
    """Epsilon at delta by numerical integration of the privacy loss, the worse of both directions.

    One step's loss is put on an even grid through its exact distribution function, moved so that its mean is exact
    (Gopi, Lee and Wutschitz 2021), raised to the number of steps by Fourier transform, and the hockey-stick
    divergence summed. A pure promise is randomised response: a loss of plus or minus epsilon.

    Args:
        events: as in ``accounts.json``.
        delta: above what (0, delta) events fail.
        cells: of the grid.
        reach: the grid spans plus and minus this; by default dp_accounting's RDP bound at delta 1e-14.
    """
    noised, pure, left = _apart(events, delta)
    if reach is None:
        reach = google_rdp(noised, 1e-14)
    return max(_one_direction(noised, pure, left, cells=cells, reach=reach, add=add) for add in (False, True))


def _one_direction(
    noised: Events, pure: Sequence[float], delta: float, *, cells: int, reach: float, add: bool
) -> float:
    mesh = 2.0 * reach / cells
    grid = (np.arange(cells) - cells // 2) * mesh
    squared = math.fsum(e["count"] / e["noise_multiplier"] ** 2 for e in noised if e["type"] == "Gaussian")
    spectrum: Any = np.ones(cells // 2 + 1, dtype=np.complex128)
    shift = 0.0
    if squared:
        mu = math.sqrt(squared)
        mass = np.diff(norm.cdf(np.append(grid - mesh / 2, grid[-1] + mesh / 2), loc=mu * mu / 2, scale=mu))
        spectrum = np.fft.rfft(np.fft.ifftshift(mass))
        shift = mu * mu / 2 - float(mass @ grid)
    for event in noised:
        if event["type"] == "Gaussian":
            continue
        q, sigma, count = event["sampling_probability"], event["noise_multiplier"], event["count"]
        upto = _sampled_loss(np.append(grid - mesh / 2, grid[-1] + mesh / 2), q=q, sigma=sigma, add=add)
        mass = np.diff(upto)
        spectrum = spectrum * np.fft.rfft(np.fft.ifftshift(mass)) ** count
        shift += count * (_sampled_mean(q=q, sigma=sigma, add=add) - float(mass @ grid))
    total = np.fft.fftshift(np.fft.irfft(spectrum, n=cells))
    losses = grid + shift
    above = np.append(np.cumsum(total[::-1])[::-1], 0.0)
    scaled = np.append(np.cumsum((total * np.exp(-losses))[::-1])[::-1], 0.0)

    def diverges(epsilon: float) -> float:
        at = int(np.searchsorted(losses, epsilon, side="right"))
        return float(above[at] - math.exp(epsilon) * scaled[at])

    def excess(epsilon: float) -> float:
        return _with_pure(diverges, pure, epsilon) - delta

    if excess(0.0) <= 0.0:
        return 0.0
    return float(brentq(excess, 0.0, reach + sum(pure), xtol=1e-10))


def _sampled_loss(at: Array, *, q: float, sigma: float, add: bool) -> Array:
    """P[loss <= at]. The loss of removing is ``log(1 - q + q exp((2x - 1) / (2 sigma^2)))``, which grows with x.

    Removing: x is N(0, sigma^2) with chance 1 - q and N(1, sigma^2) else. Adding: minus that loss, x is N(0, sigma^2).
    """
    t = -at if add else at
    inner = np.expm1(t) + q
    x = np.full(len(t), -np.inf)
    inside = inner > 0.0
    x[inside] = sigma**2 * np.log(inner[inside] / q) + 0.5
    if add:
        return np.asarray(norm.sf(x / sigma))
    return np.asarray((1.0 - q) * norm.cdf(x / sigma) + q * norm.cdf((x - 1.0) / sigma))


def _sampled_mean(*, q: float, sigma: float, add: bool) -> float:
    x = np.linspace(-20.0 * sigma, 1.0 + 20.0 * sigma, 400_001)
    loss = np.log1p(q * np.expm1((2.0 * x - 1.0) / (2.0 * sigma**2)))
    plain = norm.pdf(x, scale=sigma)
    density = -plain if add else (1.0 - q) * plain + q * norm.pdf(x, loc=1.0, scale=sigma)
    return float((loss * density).sum() * (x[1] - x[0]))


def opacus_prv(events: Events, delta: float, *, error: float) -> float:
    """Opacus's PRV accountant, its estimate. Gaussians that are not sampled enter as sampled at rate 1."""
    noised, pure, left = _apart(events, delta)
    from opacus.accountants import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = _history(noised)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        composed = accountant._get_dprv(eps_error=error, delta_error=left / 1000.0)
    diverges = composed.compute_delta_estimate
    top = float(composed.domain.t_max) + sum(pure)
    return float(brentq(lambda e: float(_with_pure(diverges, pure, e)) - left, 0.0, top, xtol=1e-9))


def opacus_rdp(events: Events, delta: float) -> float:
    """Opacus's RDP accountant: an upper bound. Pure promises are added to it."""
    noised, pure, left = _apart(events, delta)
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = _history(noised)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(accountant.get_epsilon(delta=left)) + sum(pure)


def _history(noised: Events) -> list[tuple[float, float, int]]:
    squared = math.fsum(e["count"] / e["noise_multiplier"] ** 2 for e in noised if e["type"] == "Gaussian")
    steps = [(e["noise_multiplier"], e["sampling_probability"], e["count"]) for e in noised if e["type"] != "Gaussian"]
    return ([(1.0 / math.sqrt(squared), 1.0, 1)] if squared else []) + steps


def _google(noised: Events) -> list[Any]:
    from dp_accounting import dp_event

    made: list[Any] = []
    for event in noised:
        one: Any = dp_event.GaussianDpEvent(event["noise_multiplier"])
        if event["type"] == "PoissonSampledGaussian":
            one = dp_event.PoissonSampledDpEvent(event["sampling_probability"], one)
        made.append(dp_event.SelfComposedDpEvent(one, event["count"]))
    return made


def google_rdp(events: Events, delta: float) -> float:
    """dp_accounting's RDP accountant: an upper bound. Pure promises are added to it."""
    from dp_accounting.rdp import RdpAccountant

    noised, pure, left = _apart(events, delta)
    accountant = RdpAccountant()
    for event in _google(noised):
        accountant.compose(event)
    return float(accountant.get_epsilon(left)) + sum(pure)


def google_pld(events: Events, delta: float, *, mesh: float) -> float | None:
    """dp_accounting's PLD accountant through its own events; None with pure promises, which it does not know.

    The library is the one that synthehr calls at a lower level: this checks how it is called, and the mesh.
    """
    from dp_accounting.pld import PLDAccountant

    noised, pure, left = _apart(events, delta)
    if pure:
        return None
    accountant = PLDAccountant(value_discretization_interval=mesh)
    for event in _google(noised):
        accountant.compose(event)
    return float(accountant.get_epsilon(left))
