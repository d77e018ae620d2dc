"""The metrics by name, and the bench that measures each once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from synthehr.cohort import Cohort
from synthehr.errors import InternalError
from synthehr.evaluation.attacks import (
    Exchangeability,
    Matches,
    copy_profile,
    exchangeability,
    match_records,
    shared_keys,
)
from synthehr.evaluation.cohorts import Parts, read_parts
from synthehr.evaluation.discriminator import Discrimination, discriminate
from synthehr.evaluation.fidelity import Distances, bin_distances, column_profiles, missing_distances
from synthehr.evaluation.findings import (
    CopyProfile,
    Direction,
    Measurement,
    Scope,
    Sections,
    Sizes,
    public_size,
    undefined,
)
from synthehr.evaluation.utility import Prediction, predict_outcome
from synthehr.evaluation.validity import rule_violations, schema_violations, violation_profiles
from synthehr.schema.model import Schema

__all__ = ["METRICS", "Bench", "Metric"]

ScopeKind = Literal["column", "pair", "outcome", "rule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric a suite may name: its section, direction, scopes besides ``all``, and how it is taken."""

    section: Literal["validity", "fidelity", "utility", "privacy"]
    direction: Direction
    scopes: tuple[ScopeKind, ...] = ()
    measure: Callable[[Bench, Scope], Measurement]


@dataclass(kw_only=True)
class Bench:
    """The three cohorts and what was measured of them so far; each is measured once, when asked for."""

    parts: Parts
    keys_shared: bool
    discriminates: bool
    outcomes: dict[str, Prediction] = field(default_factory=dict)
    copies: dict[str, Measurement] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        *,
        train: Cohort[Schema],
        holdout: Cohort[Schema],
        synthetic: Cohort[Schema],
        seed: int,
        discriminates: bool,
    ) -> Bench:
        """Read and code the cohorts.

        Args:
            train: the patients learned from.
            holdout: patients not learned from.
            synthetic: the synthetic patients.
            seed: of every draw.
            discriminates: whether the suite runs the classifier two-sample test, which then also
                looks at whether holdout and train are exchangeable.

        Raises:
            DataError: a cohort does not fit the schema.
        """
        parts = read_parts(train=train, holdout=holdout, synthetic=synthetic, seed=seed)
        return cls(parts=parts, keys_shared=shared_keys(train, holdout), discriminates=discriminates)

    @cached_property
    def distances(self) -> Distances:
        """Distances over bins and categories."""
        return bin_distances(self.parts)

    @cached_property
    def missing(self) -> Distances:
        """Distances over missing or not."""
        return missing_distances(self.parts)

    @cached_property
    def discrimination(self) -> Discrimination:
        """The classifier two-sample test."""
        return discriminate(self.parts)

    @cached_property
    def matches(self) -> Matches:
        """Which records are equal."""
        return match_records(self.parts)

    @cached_property
    def exchangeable(self) -> Exchangeability:
        """Whether the holdout can stand for patients who were not learned from."""
        told_apart = self.discrimination.holdout if self.discriminates else None
        return exchangeability(self.parts, self.matches, keys_shared=self.keys_shared, told_apart=told_apart)

    def scopes(self, metric: Metric) -> tuple[str, ...]:
        """The names a scope of this metric may take under the schema."""
        schema = self.parts.schema
        names: list[str] = []
        if "column" in metric.scopes or "pair" in metric.scopes:
            names += self.parts.coding.names
        if "outcome" in metric.scopes:
            names += schema.root.outcome
        if "rule" in metric.scopes:
            names += [rule.text for rule in schema.parsed_rules if rule.table == schema.subject]
        return tuple(names)

    def measure(self, name: str, scope: Scope) -> Measurement:
        """The measurement of one metric.

        Raises:
            InternalError: the measurement answers for another metric or scope than was asked.
        """
        found = METRICS[name].measure(self, scope)
        if found.metric != name or found.direction != METRICS[name].direction:
            raise InternalError(f"metric {name!r} was answered by {found.metric!r}")
        return found

    def sections(self) -> Sections:
        """The data behind the plots; the costly ones only where a check asked for them."""
        parts = self.parts
        asked = self.__dict__
        found = self.discrimination.profile() if "discrimination" in asked else None
        copies = [copy_profile(measurement) for measurement in self.copies.values()]
        shown: list[CopyProfile] = [profile for profile in copies if profile is not None]
        return Sections(
            sizes=Sizes(
                train=public_size(len(parts.train)),
                holdout=public_size(len(parts.holdout)),
                synthetic=public_size(len(parts.synthetic)),
            ),
            exchangeable=self.exchangeable.holds if "exchangeable" in asked else None,
            exchangeable_why=self.exchangeable.why if "exchangeable" in asked else "",
            columns=column_profiles(parts, self.distances),
            pairs=self.distances.pair_profile(),
            discriminator=found,
            outcomes=tuple(one.profile for one in self.outcomes.values() if one.profile is not None),
            copies=tuple(shown),
            violations=violation_profiles(parts),
        )

    def predict(self, outcome: str) -> Measurement:
        """Utility for one outcome, or for the worst of all of them."""
        declared = self.parts.schema.root.outcome
        if not declared:
            return undefined("tstr", "all", "higher", "The schema declares no outcome to predict.")
        for name in declared if outcome == "all" else (outcome,):
            if name not in self.outcomes:
                self.outcomes[name] = predict_outcome(self.parts, name)
        if outcome != "all":
            return self.outcomes[outcome].measurement
        found = [self.outcomes[name].measurement for name in declared]
        unmeasured = [one for one in found if one.excess is None]
        if unmeasured:
            return unmeasured[0]
        return max(found, key=lambda one: one.excess.value if one.excess is not None else 0.0)

    def copying(self, metric: Literal["verbatim_copies", "rare_copies"]) -> Measurement:
        """A measure of copying; undefined where the holdout is no control for train."""
        if not self.exchangeable.holds:
            why = f"The holdout is no control for train, so copying cannot be judged. {self.exchangeable.why}"
            return undefined(metric, "all", "lower", why)
        if metric not in self.copies:
            found = self.matches.verbatim_copies() if metric == "verbatim_copies" else self.matches.rare_copies()
            self.copies[metric] = found
        return self.copies[metric]


def _column(distances: Distances, metric: str, scope: Scope) -> Measurement:
    return distances.columns_mean(metric) if scope == "all" else distances.column(metric, str(scope))


def _pair(bench: Bench, scope: Scope) -> Measurement:
    if isinstance(scope, tuple):
        return bench.distances.pair("pair_tv", *scope)
    return bench.distances.pairs_mean("pair_tv")


def _rule(bench: Bench, scope: Scope) -> Measurement:
    named = [rule for rule in bench.parts.schema.parsed_rules if rule.text == scope]
    return rule_violations(bench.parts, rule=named[0] if scope != "all" else None)


METRICS: dict[str, Metric] = {
    "schema_violations": Metric(
        section="validity",
        direction="lower",
        scopes=("column",),
        measure=lambda bench, scope: schema_violations(bench.parts, column=None if scope == "all" else str(scope)),
    ),
    "rule_violations": Metric(section="validity", direction="lower", scopes=("rule",), measure=_rule),
    "one_way_tv": Metric(
        section="fidelity",
        direction="lower",
        scopes=("column",),
        measure=lambda bench, scope: _column(bench.distances, "one_way_tv", scope),
    ),
    "one_way_tv_worst": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: bench.distances.columns_worst("one_way_tv_worst"),
    ),
    "pair_tv": Metric(section="fidelity", direction="lower", scopes=("pair",), measure=_pair),
    "pair_tv_worst": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: bench.distances.pairs_worst("pair_tv_worst"),
    ),
    "missing_rate": Metric(
        section="fidelity",
        direction="lower",
        scopes=("column",),
        measure=lambda bench, scope: _column(bench.missing, "missing_rate", scope),
    ),
    "missing_rate_worst": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: bench.missing.columns_worst("missing_rate_worst"),
    ),
    "c2st_auc": Metric(
        section="fidelity",
        direction="lower",
        measure=lambda bench, _: bench.discrimination.measurement("c2st_auc"),
    ),
    "tstr": Metric(
        section="utility",
        direction="higher",
        scopes=("outcome",),
        measure=lambda bench, scope: bench.predict(str(scope)),
    ),
    "verbatim_copies": Metric(
        section="privacy", direction="lower", measure=lambda bench, _: bench.copying("verbatim_copies")
    ),
    "rare_copies": Metric(section="privacy", direction="lower", measure=lambda bench, _: bench.copying("rare_copies")),
}
"""Every metric a suite may name; ``evaluation/README.md`` documents each."""
