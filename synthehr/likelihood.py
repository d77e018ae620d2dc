"""How likely real patients are under a release's own generator: what an attacker who has the release can compute."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from synthehr.cohort import Cohort
from synthehr.encoding.unroll import ConditionalTable, Unrolled, changes, unroll
from synthehr.models.columns import Learned, cells_above, repeated_columns
from synthehr.models.loglinear import seen_by_rows
from synthehr.models.outcomes import chances_of
from synthehr.privacy.history import history_of, together
from synthehr.privacy.partition import cells_of
from synthehr.randomness import IntArray
from synthehr.release import Release
from synthehr.schema.model import Schema

__all__ = ["Likelihood", "likelihood_of"]

_CHUNK = 2_000
_LEAST = 1e-12
Floats = NDArray[np.float64]


class Likelihood:
    """Log-likelihoods of whole patients: a mixture of products for what they are, and their rows one after the other.

    Rows beyond a table's bound are left out, as they are from a fit, and rows that nothing orders are taken in a random
    order. What else limits a draw counts for nothing (rules, bounds that times keep to), so that chances of rows with a
    time are a little too small, those of all patients alike.

    Args:
        made: the tables as the release learns them, ancestors first.
        learned: what it learned of them.
        shares: of each column of the patients' table that its mixture tells the log shares of its cells in each
            component, shape ``(components, cells)``.
    """

    def __init__(
        self, made: Mapping[str, ConditionalTable], learned: Mapping[str, Learned], shares: Mapping[str, Floats]
    ) -> None:
        self._made, self._learned, self._shares = made, learned, shares

    def __call__(self, train: Cohort[Schema], holdout: Cohort[Schema]) -> tuple[Floats, Floats]:
        """Of both cohorts, shape ``(patients,)`` each."""
        return self._of(train), self._of(holdout)

    def _of(self, cohort: Cohort[Schema]) -> Floats:
        draws = np.random.default_rng(0)
        most = {name: made.most for name, made in self._made.items() if made.depth}
        bounded = cohort.bounded(most, draws=draws) if most else cohort
        codes: dict[str, dict[str, IntArray]] = {}
        found = np.zeros(len(cohort))
        for name, part in unroll(bounded, self._made, draws=draws).items():
            if name not in self._learned:
                continue
            learned = self._learned[name]
            codes[name] = {own: cells_of(part.frame, own, learned.cells[own]) for own in learned.made.own}
            if not learned.made.depth:
                found += self._of_patients(codes[name]) + _of_outcomes(learned, codes[name])
                continue
            parent = bounded.schema.tables[name].parent
            assert parent is not None, "only the patients' table has none"
            codes[name] |= {here: codes[parent][there][part.parents] for here, there in learned.made.context.items()}
            found += _of_rows(learned, part, codes[name], self._learned[parent], patients=len(cohort))
        return found

    def _of_patients(self, codes: Mapping[str, IntArray]) -> Floats:
        patients = len(next(iter(codes.values())))
        found = np.zeros(patients)
        if not self._shares:
            return found
        components = len(next(iter(self._shares.values())))
        for start in range(0, patients, _CHUNK):
            rows = slice(start, start + _CHUNK)
            logs = sum(share[:, codes[name][rows]] for name, share in self._shares.items())
            found[rows] = np.logaddexp.reduce(np.asarray(logs), axis=0) - np.log(components)
        return found


def _of_outcomes(learned: Learned, codes: Mapping[str, IntArray]) -> Floats:
    """The log-likelihood of patients' outcomes given their other columns, shape ``(patients,)``."""
    patients = len(next(iter(codes.values())))
    found = np.zeros(patients)
    for outcome in learned.conditionals:
        chances = chances_of(outcome, codes, patients)
        found += np.log(np.maximum(chances[np.arange(patients), codes[outcome.target]], _LEAST))
    return found


def _of_rows(
    learned: Learned, part: Unrolled, codes: Mapping[str, IntArray], above: Learned, *, patients: int
) -> Floats:
    """The log-likelihood of the rows of each patient in one table, shape ``(patients,)``."""
    made = learned.made
    own = {name: learned.cells[name] for name in made.own}
    past = repeated_columns(made, own, cells_above(made, above.cells))
    cells = np.stack([codes[name] for name in made.own], axis=1)
    repeated = history_of(past, cells, part.frame, owners=part.owners, parents=part.parents)
    known = {**codes, **{column.name: found for column, found in zip(past, repeated, strict=True)}}
    found = np.zeros(patients)
    gap = next((column.gap for column in past if column.role == "seen"), None)
    beside = together(part.frame, part.parents, gap=gap)
    for piece in _pieces(part.owners):
        mine = {name: column[piece] for name, column in known.items()}
        owners = part.owners[piece] - part.owners[piece[0]]
        for conditional in learned.conditionals:
            seen = None
            if conditional.of_candidate is not None:
                cells, rows = mine[conditional.target], np.arange(len(piece))
                seen = seen_by_rows(cells, owners, beside[piece], places=rows, size=conditional.size)
            scores = conditional.scores(mine, len(piece), seen=seen).astype(np.float64)
            logs = scores[np.arange(len(piece)), mine[conditional.target]] - np.logaddexp.reduce(scores, axis=1)
            found += np.bincount(part.owners[piece], weights=logs, minlength=patients)
    return found


def _pieces(owners: IntArray) -> list[IntArray]:
    """The rows of whole patients, some thousand at a time: what was there before was there in the same patient."""
    starts = np.flatnonzero(changes(owners))
    cuts = starts[np.flatnonzero(np.diff(starts // _CHUNK)) + 1]
    return [piece for piece in np.split(np.arange(len(owners)), cuts) if len(piece)]


def likelihood_of(release: Release) -> Likelihood | None:
    """The likelihood of a release without a refiner; None of others, whose likelihood is no sum."""
    made, learned = release.tables, release.learned
    subject = learned[release.schema.subject]
    generator = subject.generator
    assert generator is not None, "patients have one"
    if generator.refiner is not None:
        return None
    chances = generator.mixture().detach().double().numpy()
    sizes = [subject.cells[name].size for name in subject.made.own]
    parts = np.split(chances, np.cumsum(sizes)[:-1], axis=1)
    outcomes = {outcome.target for outcome in subject.conditionals}
    shares = {
        name: np.log(np.maximum(part, _LEAST))
        for name, part in zip(subject.made.own, parts, strict=True)
        if name not in outcomes
    }
    return Likelihood(made, learned, shares)
