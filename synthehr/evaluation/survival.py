"""Survival: Kaplan-Meier curves and restricted mean survival time of the declared event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthehr.evaluation.bench import Bench, Metric, MetricWords, declares_survival
from synthehr.evaluation.cohorts import Part
from synthehr.evaluation.findings import SurvivalCurve, SurvivalProfile
from synthehr.evaluation.influence import from_errors, grouped_error, groups_of
from synthehr.evaluation.measurement import Measurement, undefined

__all__ = ["METRICS", "Followed", "Survivals", "survival_curve", "survival_profile", "survivals"]

_FEWEST = 40
_EVENTS = 10
_POINTS = 200
_HORIZON = 0.9
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """How long patients were followed, and whether the event ended it. Shape ``(patients,)`` each."""

    time: Floats
    event: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of patients."""
        return len(self.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survivals:
    """Survival of the three cohorts on one grid of times, and standard errors of what is gated.

    Attributes:
        grid: times from 0 to the horizon, by which nine in ten of train's patients left; shape ``(points,)``.
        train: share of patients without the event at each time.
        synthetic: the same.
        holdout: the same.
        errors: of the value and excess of the area between curves, then of the difference of the restricted means.
    """

    grid: Floats
    train: Floats
    synthetic: Floats
    holdout: Floats
    errors: Floats


def survivals(bench: Bench) -> Survivals | str:
    """Kaplan-Meier curves of the three cohorts up to train's horizon; else why there are none."""
    declared = bench.schema.root.survival
    if declared is None:
        return "The schema declares no survival, an outcome with a time."
    parts = bench.parts
    cohorts = {
        "train": _followed(parts.train, declared.time, declared.event),
        "synthetic": _followed(parts.synthetic, declared.time, declared.event),
        "holdout": _followed(parts.holdout, declared.time, declared.event),
    }
    if min(len(one) for one in cohorts.values()) < _FEWEST:
        return f"A cohort has fewer than {_FEWEST} patients with a time and an event."
    if min(int(cohorts[name].event.sum()) for name in ("train", "holdout")) < _EVENTS:
        return f"Train or holdout has fewer than {_EVENTS} patients with the event."
    horizon = float(np.quantile(cohorts["train"].time, _HORIZON, method="inverted_cdf"))
    if horizon <= 0:
        return "Follow-up has no length."
    grid = np.linspace(0.0, horizon, _POINTS)
    full = {name: survival_curve(one, grid) for name, one in cohorts.items()}
    draw = parts.generator(27)
    groups = {name: groups_of(len(one), generator=draw) for name, one in cohorts.items()}

    def estimate(left_out: Mapping[str, int]) -> Sequence[float]:
        now = dict(full)
        for name, group in left_out.items():
            kept = groups[name] != group
            now[name] = survival_curve(Followed(time=cohorts[name].time[kept], event=cohorts[name].event[kept]), grid)
        return _gaps(now)

    errors = grouped_error(estimate, {name: int(one.max()) + 1 for name, one in groups.items()})
    return Survivals(grid=grid, errors=errors, **full)


def survival_curve(followed: Followed, grid: Floats) -> Floats:
    """Share of patients without the event at each time of the grid (Kaplan and Meier 1958)."""
    times, at = np.unique(followed.time, return_inverse=True)
    events = np.bincount(at, weights=followed.event, minlength=len(times))
    left = np.bincount(at, minlength=len(times))
    at_risk = len(followed) - np.concatenate([[0], np.cumsum(left)[:-1]])
    survival = np.concatenate([[1.0], np.cumprod(1.0 - events / at_risk)])
    return np.asarray(survival[np.searchsorted(times, grid, side="right")])


def survival_profile(bench: Bench) -> SurvivalProfile | None:
    """The curves, where a check asked for them."""
    found = bench.found(survivals)
    declared = bench.schema.root.survival
    if found is None or isinstance(found, str) or declared is None:
        return None

    def curve(shares: Floats) -> SurvivalCurve:
        return SurvivalCurve(share=tuple(round(float(one), 4) for one in shares[::4]), mean=round(_mean(shares), 4))

    return SurvivalProfile(
        time=declared.time,
        event=declared.event,
        times=tuple(float(f"{one:.4g}") for one in found.grid[::4]),
        train=curve(found.train),
        synthetic=curve(found.synthetic),
        holdout=curve(found.holdout),
    )


def _followed(part: Part, time: str, event: str) -> Followed:
    times, events = part.values[time].number, part.values[event].text
    assert times is not None and events is not None
    known = np.isfinite(times) & (events.is_not_null()).to_numpy() & (np.nan_to_num(times, nan=-1.0) >= 0)
    return Followed(
        time=times[known], event=(events == "true").fill_null(value=False).filter(pl.Series(known)).to_numpy()
    )


def _mean(shares: Floats) -> float:
    """The restricted mean survival time as a share of the horizon."""
    return float((shares[:-1] + shares[1:]).mean() / 2)


def _gaps(curves: Mapping[str, Floats]) -> tuple[float, float, float, float]:
    """Area between curves and absolute difference of means, synthetic's and its excess over the holdout's, each."""
    apart = [_mean(np.abs(curves[name] - curves["train"])) for name in ("synthetic", "holdout")]
    means = [abs(_mean(curves[name]) - _mean(curves["train"])) for name in ("synthetic", "holdout")]
    return apart[0], apart[0] - apart[1], means[0], means[0] - means[1]


def _measured(bench: Bench, metric: str) -> Measurement:
    found = bench.once(survivals)
    if isinstance(found, str):
        return undefined(metric, "all", "lower", found)
    gaps = _gaps({"train": found.train, "synthetic": found.synthetic, "holdout": found.holdout})
    at = 0 if metric == "km_distance" else 2
    return from_errors(
        metric,
        "all",
        "lower",
        value=gaps[at],
        reference=gaps[at] - gaps[at + 1],
        errors=(float(found.errors[at]), float(found.errors[at + 1])),
    )


METRICS: Mapping[str, Metric] = {
    "km_distance": Metric(
        section="inference",
        direction="lower",
        applies=declares_survival,
        measure=lambda bench, _: _measured(bench, "km_distance"),
        words=MetricWords(
            title="Survival curves",
            failed="Synthetic patients survive clearly longer or shorter than real ones, at some time or all along.",
            question="whether survival follows that of real patients",
        ),
    ),
    "rmst_difference": Metric(
        section="inference",
        direction="lower",
        applies=declares_survival,
        measure=lambda bench, _: _measured(bench, "rmst_difference"),
        words=MetricWords(
            title="Mean survival within the time of follow-up",
            failed="The mean time that synthetic patients survive is clearly not that of real ones.",
            question="whether mean survival is that of real patients",
        ),
    ),
}
"""The metrics of survival by name."""
