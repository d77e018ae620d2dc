"""How likely real patients are under a release's own generator: what an attacker who has the release can compute."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from synthehr.cohort import Cohort
from synthehr.encoding.unroll import door_columns
from synthehr.models.base import load_generator
from synthehr.privacy.partition import cells_of
from synthehr.release import Release
from synthehr.schema.model import Schema

__all__ = ["likelihood_of"]

_CHUNK = 2_000
_LEAST = 1e-12


class Likelihood:
    """Log-likelihoods of patients under a mixture of products."""

    def __init__(self, release: Release, shares: list[NDArray[np.float64]]) -> None:
        self._release = release
        self._shares = shares

    def __call__(
        self, train: Cohort[Schema], holdout: Cohort[Schema]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of both cohorts, shape ``(patients,)`` each."""
        return self._of(train), self._of(holdout)

    def _of(self, cohort: Cohort[Schema]) -> NDArray[np.float64]:
        frame = pl.DataFrame(door_columns(cohort.root, self._release.schema.root.kept))
        codes = [cells_of(frame, column.name, column.cells) for column in self._release.domain]
        found = np.zeros(len(cohort))
        for start in range(0, len(cohort), _CHUNK):
            rows = slice(start, start + _CHUNK)
            logs = sum(share[:, code[rows]] for share, code in zip(self._shares, codes, strict=True))
            found[rows] = np.logaddexp.reduce(np.asarray(logs), axis=0) - np.log(len(self._shares[0]))
        return found


def likelihood_of(release: Release) -> Likelihood | None:
    """The likelihood of a release of one table without a refiner; None of others, whose likelihood is no sum."""
    if len(release.schema.tables) > 1:
        return None
    cells = [column.cells.size for column in release.domain]
    generator = load_generator(cells, release.manifest.model.generator, release.weights())
    if generator.refiner is not None:
        return None
    chances = generator.mixture().detach().double().numpy()
    parts = np.split(chances, np.cumsum(cells)[:-1], axis=1)
    return Likelihood(release, [np.log(np.maximum(part, _LEAST)) for part in parts])
