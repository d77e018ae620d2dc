"""Verbatim copies: do the synthetic patients repeat those who were learned from more than those who were not?

The holdout is the control: whoever was not learned from can only be met by chance. That holds only while
holdout and train are exchangeable, which is looked at first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthehr.cohort import Cohort
from synthehr.evaluation.attacks_histories import copied_histories, equal_form
from synthehr.evaluation.bench import Bench, Metric, MetricWords
from synthehr.evaluation.cohorts import Parts, recoded
from synthehr.evaluation.discriminator import TwoSample, discrimination
from synthehr.evaluation.findings import CopyProfile, Measurement, undefined
from synthehr.evaluation.intervals import (
    difference_of_proportions,
    normal_interval,
    paired_proportion_difference,
    wilson,
)
from synthehr.evaluation.longitudinal_patients import whole_bench, whole_patients
from synthehr.evaluation.longitudinal_rows import child_tables
from synthehr.schema.model import Schema

__all__ = [
    "METRICS",
    "Exchangeability",
    "Matches",
    "copies",
    "copy_profile",
    "exchangeability",
    "exchangeable",
    "match_records",
    "matches",
    "shared_keys",
]

_FEWEST = 30
_ALARM = 0.001
BEYOND_CHANCE = 1.5  # times the holdout's share of unique patients who reappear; more than that is copying
_Z_ALARM = 3.2905267314919255
"""Two-sided level 0.001, so that an honest split is hardly ever turned away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchangeability:
    """Whether train and holdout look like two draws from one population, and if not, why.

    Attributes:
        small: nothing speaks against it but that there are too few patients to look.
    """

    holds: bool
    why: str = ""
    small: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """Which records are equal, over all kept columns, missing equal to missing.

    Attributes:
        train: number of the record of each patient, shape ``(patients,)``; equal records share a number.
        holdout: the same for the holdout.
        synthetic: the same for the synthetic cohort.
        records: how many different records there are.
    """

    train: NDArray[np.int64]
    holdout: NDArray[np.int64]
    synthetic: NDArray[np.int64]
    records: int

    def verbatim_copies(self) -> Measurement:
        """Share of synthetic patients equal to one of ``m`` train patients, beside ``m`` holdout patients.

        ``m`` is the size of the smaller part; the share is averaged over all draws of ``m``. Lower is
        better; range 0 to 1. The interval covers the draw of all three cohorts: paired over synthetic
        patients, jackknife over real ones.
        """
        size = min(len(self.train), len(self.holdout))
        chances, variances = [], []
        for real in (self.train, self.holdout):
            met, variance = self._met(real, size)
            chances.append(met)
            variances.append(variance)
        value = paired_proportion_difference(chances[0], extra_variance=variances[0])
        return Measurement(
            metric="verbatim_copies",
            scope="all",
            direction="lower",
            value=normal_interval(value.value, error=(value.high - value.value) / 1.96, lower=0.0, upper=1.0),
            reference=float(chances[1].mean()),
            excess=paired_proportion_difference(chances[0] - chances[1], extra_variance=sum(variances)),
        )

    def rare_copies(self, *, times: float = 1.0) -> Measurement:
        """Share of train patients with a record of their own who reappear verbatim, beside the holdout's.

        A record of one's own occurs once among all real patients. Lower is better; range 0 to 1. The
        interval is Newcombe's for two groups of patients.

        Args:
            times: what the holdout's share is multiplied by before it is the reference.
        """
        name = "rare_copies" if times == 1.0 else "rare_copies_beyond_chance"
        in_train, in_holdout, in_synthetic = (
            np.bincount(rows, minlength=self.records) for rows in (self.train, self.holdout, self.synthetic)
        )
        alone = in_train + in_holdout == 1
        train, holdout = (
            in_synthetic[alone & (in_train == 1)] > 0,
            in_synthetic[alone & (in_holdout == 1)] > 0,
        )
        if len(train) == 0 or len(holdout) == 0:
            return undefined(name, "all", "lower", "No real patient has a record that no one else has.")
        value = wilson(float(train.sum()), of=len(train))
        reference = wilson(float(holdout.sum()), of=len(holdout))
        return Measurement(
            metric=name,
            scope="all",
            direction="lower",
            value=value,
            reference=min(1.0, times * reference.value),
            excess=difference_of_proportions(value, reference, times=times),
        )

    def _met(self, real: NDArray[np.int64], size: int) -> tuple[NDArray[np.float64], float]:
        """For each synthetic patient the chance that ``size`` of these real patients hold an equal record,
        and the jackknife variance of its mean over those real patients.
        """
        counts = np.bincount(real, minlength=self.records)
        chance = _chance_of_one(np.arange(int(counts.max()) + 1), among=len(real), drawn=size)
        share = np.bincount(self.synthetic, minlength=self.records) / len(self.synthetic)
        held = counts > 0
        pull = share[held] * (chance[counts[held]] - chance[counts[held] - 1])
        return chance[counts[self.synthetic]], float((counts[held] * np.square(pull)).sum())


def match_records(parts: Parts) -> Matches:
    """Number the records of all patients so that equal ones share a number."""
    columns = parts.schema.root.kept
    frames = [equal_form(part.values, columns) for part in (parts.train, parts.holdout, parts.synthetic)]
    everyone = pl.concat(frames)
    numbered = everyone.unique(maintain_order=True).with_row_index("record")
    record = everyone.join(numbered, on=everyone.columns, how="left", nulls_equal=True, maintain_order="left")["record"]
    cuts = np.cumsum([len(frame) for frame in frames])[:-1]
    train, holdout, synthetic = np.split(record.to_numpy().astype(np.int64), cuts)
    return Matches(train=train, holdout=holdout, synthetic=synthetic, records=numbered.height)


def shared_keys(train: Cohort[Schema], holdout: Cohort[Schema]) -> bool:
    """Whether any patient's key is in both parts."""
    key = train.schema.root.key
    if key is None or key not in train.root.columns or key not in holdout.root.columns:
        return False
    return bool(train.root[key].cast(pl.String).is_in(holdout.root[key].cast(pl.String).to_list()).any())


def exchangeability(
    parts: Parts, matches: Matches, *, keys_shared: bool, told_apart: TwoSample | None
) -> Exchangeability:
    """Look for signs, at level 0.001 each, that holdout and train are not two parts of one random split.

    Args:
        parts: the three cohorts, as whole patients.
        matches: which records are equal.
        keys_shared: whether a patient is in both parts.
        told_apart: the two-sample test of train against holdout, if it ran.
    """
    if min(len(parts.train), len(parts.holdout)) < _FEWEST:
        return Exchangeability(holds=False, small=True, why=f"Train or holdout has fewer than {_FEWEST} patients.")
    if keys_shared:
        return Exchangeability(holds=False, why="Some patients are in both train and holdout.")
    if _matching_differs(matches):
        return Exchangeability(
            holds=False,
            why="Holdout patients equal train patients more, or less, often than these equal each other.",
        )
    column = _differing_column(parts)
    if column is not None:
        return Exchangeability(holds=False, why=f"Column '{column}' is distributed otherwise in holdout than in train.")
    if told_apart is not None and told_apart.auc - _Z_ALARM * told_apart.error > 0.5:
        return Exchangeability(holds=False, why="A classifier can tell holdout patients from train patients.")
    return Exchangeability(holds=True)


def copy_profile(measurement: Measurement) -> CopyProfile | None:
    """What the plot of one measure of copying shows; None where it is undefined."""
    value, excess = measurement.value, measurement.excess
    if value is None or excess is None or measurement.reference is None:
        return None
    return CopyProfile(
        measure="rare_copies" if measurement.metric == "rare_copies" else "verbatim_copies",
        train_share=value.value,
        train_ci=(value.low, value.high),
        holdout_share=measurement.reference,
        excess=excess.value,
        excess_ci=(excess.low, excess.high),
    )


def _chance_of_one(copies: NDArray[np.int64], *, among: int, drawn: int) -> NDArray[np.float64]:
    """Chance that ``drawn`` of ``among`` patients, without replacement, include one of ``copies`` of them."""
    from scipy.special import gammaln

    left = among - copies
    possible = left >= drawn
    kept = np.where(possible, left, drawn)
    log_none = (gammaln(kept + 1) - gammaln(kept - drawn + 1)) - (gammaln(among + 1) - gammaln(among - drawn + 1))
    chance = np.where(possible, 1.0 - np.exp(np.minimum(log_none, 0.0)), 1.0)
    chance[copies == 0] = 0.0
    return np.asarray(chance)


def _matching_differs(matches: Matches) -> bool:
    counts = np.bincount(matches.train, minlength=matches.records)
    across, within = counts[matches.holdout] > 0, counts[matches.train] > 1
    shares = across.mean(), within.mean()
    # Equal records come in groups, so matches are not independent: twice the variance.
    spread = sum(
        2 * (share * (1 - share) + 1.0 / size) / size
        for share, size in zip(shares, (len(across), len(within)), strict=True)
    )
    return bool(abs(shares[0] - shares[1]) > _Z_ALARM * math.sqrt(spread))


def _differing_column(parts: Parts) -> str | None:
    from scipy.stats import chi2_contingency

    for at, column in enumerate(parts.coding.columns):
        table = np.stack(
            [np.bincount(part.codes[:, at], minlength=len(column.labels)) for part in (parts.train, parts.holdout)]
        )
        expected = table.sum(axis=0) * (table.sum(axis=1).min() / table.sum())
        common = expected >= 5
        table = np.concatenate([table[:, common], table[:, ~common].sum(axis=1, keepdims=True)], axis=1)
        table = table[:, table.sum(axis=0) > 0]
        if table.shape[1] >= 2 and chi2_contingency(table).pvalue < _ALARM / len(parts.coding.columns):
            return column.name
    return None


def matches(bench: Bench) -> Matches:
    """Which records are equal."""
    return match_records(bench.parts)


def exchangeable(bench: Bench) -> Exchangeability:
    """Whether the holdout can stand for patients who were not learned from.

    Where the schema declares several tables, whole patients are looked at. Where the suite runs a classifier
    two-sample test, that looks too.
    """
    told_apart = None
    if child_tables(bench.schema) and "patient_c2st_auc" in bench.asked:
        told_apart = bench.once(whole_bench).once(discrimination).holdout
    elif "c2st_auc" in bench.asked:
        told_apart = bench.once(discrimination).holdout
    shared = shared_keys(bench.train, bench.holdout)
    parts = whole_patients(bench)
    parts = recoded(parts, parts.train, parts.holdout)
    return exchangeability(parts, bench.once(matches), keys_shared=shared, told_apart=told_apart)


def copies(bench: Bench, metric: str) -> Measurement:
    """A measure of copying; undefined where the holdout is no control for train."""
    control = bench.once(exchangeable)
    if not control.holds:
        why = f"The holdout is no control for train, so copying cannot be judged. {control.why}"
        return undefined(metric, "all", "lower", why)
    if metric == "history_copies":
        return copied_histories(bench)
    found = bench.once(matches)
    if metric == "verbatim_copies":
        return found.verbatim_copies()
    return found.rare_copies(times=1.0 if metric == "rare_copies" else BEYOND_CHANCE)


METRICS: Mapping[str, Metric] = {
    "verbatim_copies": Metric(
        section="privacy",
        direction="lower",
        measure=lambda bench, _: bench.once(copies, "verbatim_copies"),
        words=MetricWords(
            title="Copies of real patients",
            failed="Synthetic patients repeat the patients learned from more often than chance explains: "
            "records may have leaked. Do not publish.",
            question="whether synthetic patients repeat the patients learned from",
            measured="learned from",
            compared="held out",
        ),
    ),
    "rare_copies": Metric(
        section="privacy",
        direction="lower",
        measure=lambda bench, _: bench.once(copies, "rare_copies"),
        words=MetricWords(
            title="Copies of patients with a unique record",
            failed="Patients with a record no one else has reappear among the synthetic ones because they were "
            "learned from: they can be singled out. Do not publish.",
            question="whether patients with a unique record reappear among the synthetic ones",
            measured="learned from",
            compared="held out",
        ),
    ),
    "rare_copies_beyond_chance": Metric(
        section="privacy",
        direction="lower",
        measure=lambda bench, _: bench.once(copies, "rare_copies_beyond_chance"),
        words=MetricWords(
            title="Copies of patients with a unique record, beyond chance",
            failed="Patients with a record no one else has reappear among the synthetic ones because they were "
            "learned from: they can be singled out. Do not publish.",
            question="whether patients with a unique record reappear more often than half again by chance",
            measured="learned from",
            compared="held out, and half as many again",
        ),
    ),
    "history_copies": Metric(
        section="privacy",
        direction="lower",
        measure=lambda bench, _: bench.once(copies, "history_copies"),
        applies=lambda bench: bool(child_tables(bench.schema)),
        words=MetricWords(
            title="Copies of real histories",
            failed="Rows that one real patient alone has reappear together in a synthetic patient because they were "
            "learned from: that patient can be singled out. Do not publish.",
            question="whether rows that one real patient alone has reappear together in a synthetic patient",
            measured="learned from",
            compared="held out",
        ),
    ),
}
"""The metrics of copying by name."""
