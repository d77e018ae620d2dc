"""How outcomes of patients follow from all else that is known of them: log-linear models, fitted to bought histograms.

A mixture that is pulled to noisy histograms makes each patient's outcome almost without chance: what noise says of a
cell, some component obeys. Risks that are learned from its patients are too sure of themselves, and rank real patients
worse. So declared outcomes are drawn anew, given the patient's other columns, from scores that are sums over the cells
of these and of pairs of them, held back by normal priors.

Post-processing: it is fitted to what was bought, on rows that are made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from synthehr.encoding.domain import ColumnDomain, Joint
from synthehr.models.loglinear import Conditional, Term
from synthehr.privacy.partition import Values
from synthehr.randomness import FloatArray, IntArray

__all__ = ["OutcomeSettings", "chances_of", "drawn_outcome", "fit_outcome"]

# Of what all patients have, in logits: hardly held back.
_OF_ALL = 5.0
# The fractional part of the golden ratio: multiples of it, modulo 1, are as even as a sequence of any length can be.
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeSettings:
    """How far outcomes may follow other columns; none of it moves the guarantee.

    Attributes:
        value: standard deviation, in logits between two values of the outcome, of what one value of a category does.
        slope: of what a number does from its lowest to its highest interval, on a straight line.
        bend: of what it does beside that, from one interval to the next.
        triple: of what a cell of two columns does beside what each does.
        rows: made up to fit on.
        steps: of L-BFGS, at most; 0 leaves outcomes as the mixture has them.
    """

    value: float = 1.0
    slope: float = 2.0
    bend: float = 0.3
    triple: float = 0.1
    rows: int = 10_000
    steps: int = 200


def fit_outcome(
    outcome: int,
    codes: Sequence[IntArray],
    domain: Sequence[ColumnDomain],
    joints: Sequence[Joint],
    *,
    groups: Sequence[IntArray] | None,
    patients: float,
    settings: OutcomeSettings,
) -> Conditional:
    """An outcome given the other columns of made-up rows.

    Args:
        outcome: its place among the columns; its own codes are not looked at.
        codes: of each column, of shape ``(rows,)`` each.
        domain: all columns.
        joints: bought histograms, each with the outcome and one or two other columns. They count by the precision of
            their noise.
        groups: the coarser cells that histograms of three columns are of, one array a column.
        patients: the bought number of them, for whom the rows stand.
        settings: how far the outcome may follow.
    """
    parts = [_Part.of(joint, codes, domain, outcome, groups=groups, settings=settings) for joint in joints]
    rows, values = len(codes[outcome]), domain[outcome].cells.size
    problem = _Problem(parts, rows=rows, values=values, unit=patients / rows)
    of_all, *weights = problem.weights(problem.solved(steps=settings.steps))
    terms = [Term(given=(), weights=of_all[0].astype(np.float32))]
    for part, mine in zip(parts, weights, strict=True):
        terms.append(
            Term(
                given=tuple(domain[at].name for at in part.others),
                weights=mine.reshape((*part.shape, mine.shape[1])).astype(np.float32),
                groups=part.groups,
            )
        )
    return Conditional(target=domain[outcome].name, size=values, terms=tuple(terms))


def drawn_outcome(
    conditional: Conditional, codes: Mapping[str, IntArray], rows: int, draws: np.random.Generator
) -> IntArray:
    """A cell of the outcome for each row, shape ``(rows,)``.

    Each row has the distribution that the model gives it. Rows of like risk are drawn one after the other, from points
    that are even among any number of them, so that a group of patients has about as many of an outcome as it should.
    """
    scores = conditional.scores(codes, rows)
    mass = np.exp(scores - scores.max(axis=1, keepdims=True)).T.copy()
    total = mass.sum(axis=0)
    order = np.argsort(np.arange(conditional.size, dtype=np.float32) @ mass / total)
    points = np.empty(rows)
    points[order] = (draws.random() + _GOLDEN * np.arange(rows)) % 1.0
    points *= total
    found, upto = np.zeros(rows, dtype=np.int64), np.zeros(rows)
    for cell in range(conditional.size - 1):
        upto += mass[cell]
        found += upto <= points
    return found


def chances_of(conditional: Conditional, codes: Mapping[str, IntArray], rows: int) -> FloatArray:
    """How likely each cell of the outcome is. Shape: ``(rows, cells)``."""
    return _softmax(conditional.scores(codes, rows).astype(np.float64))


def _softmax(scores: FloatArray) -> FloatArray:
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    found: FloatArray = likely / likely.sum(axis=1, keepdims=True)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What one histogram says of the outcome, and what follows from its other columns.

    Attributes:
        others: places of these.
        shape: how many cells each of them has.
        places: of each row its cell among all of theirs, shape ``(rows,)``.
        prior: what makes of independent normal weights the weights of cells, shape ``(cells, weights)``.
        counts: patients in each cell and each value or group of values, shape ``(cells, groups)``.
        variance: of the noise of each.
        values: of each value of the outcome its group, as ones, shape ``(values, groups)``.
        groups: for coarser cells the group of each cell of each column, the outcome's last; else empty.
    """

    others: tuple[int, ...]
    shape: tuple[int, ...]
    places: IntArray
    prior: FloatArray
    counts: FloatArray
    variance: float
    values: FloatArray
    groups: tuple[IntArray, ...] = ()

    @classmethod
    def of(
        cls,
        joint: Joint,
        codes: Sequence[IntArray],
        domain: Sequence[ColumnDomain],
        outcome: int,
        *,
        groups: Sequence[IntArray] | None,
        settings: OutcomeSettings,
    ) -> _Part:
        others = tuple(column for column in joint.columns if column != outcome)
        counts = np.moveaxis(joint.counts, joint.columns.index(outcome), -1).astype(np.float64)
        shape, size = counts.shape[:-1], counts.shape[-1]
        if len(others) == 1:
            (other,) = others
            return cls(
                others=others,
                shape=shape,
                places=codes[other],
                prior=_prior(domain[other], settings),
                counts=counts,
                variance=joint.variance,
                values=np.eye(size),
            )
        assert groups is not None, "histograms of three columns are of coarser cells"
        coarse = tuple(groups[at][codes[at]] for at in others)
        return cls(
            others=others,
            shape=shape,
            places=np.ravel_multi_index(coarse, shape).astype(np.int64),
            prior=settings.triple * np.eye(int(np.prod(shape))),
            counts=counts.reshape(-1, size),
            variance=joint.variance,
            values=np.eye(size)[groups[outcome]],
            groups=tuple(groups[at] for at in (*others, outcome)),
        )


def _prior(column: ColumnDomain, settings: OutcomeSettings) -> FloatArray:
    """Weights of a column's cells as sums of independent normal ones: steps and a slope where cells are in order."""
    size = column.cells.size
    if isinstance(column.cells, Values):
        return settings.value * np.eye(size)
    ordered = size - int(column.cells.nullable)
    found = np.zeros((size, size))
    found[:ordered, : ordered - 1] = settings.bend * np.tril(np.ones((ordered, ordered)), k=-1)[:, :-1]
    found[:ordered, ordered - 1] = settings.slope * np.linspace(0.0, 1.0, ordered)
    if column.cells.nullable:
        found[-1, -1] = settings.value
    return found


class _Problem:
    """Weights under which outcomes of made-up rows meet histograms, and are no larger than priors let them be.

    The scores of all rows are one sparse product: a row has a one for each histogram, where its weights for it stand.

    Args:
        parts: the histograms.
        rows: made up.
        values: of the outcome.
        unit: patients that one row stands for.
    """

    def __init__(self, parts: Sequence[_Part], *, rows: int, values: int, unit: float) -> None:
        self._parts, self._values, self._unit = tuple(parts), values, unit
        # A score of each value: the prior is of the difference of two. What all have is the first cell.
        self._priors = [np.full((1, 1), _OF_ALL), *(part.prior for part in parts)]
        self._priors = [prior / np.sqrt(2.0) for prior in self._priors]
        self._begins = np.cumsum([0, *(len(prior) for prior in self._priors)])
        self._shapes = [
            (self._priors[0].shape[1], values),
            *((part.prior.shape[1], part.values.shape[1]) for part in parts),
        ]
        everywhere = np.zeros(rows, dtype=np.int64)
        places = np.stack([everywhere, *(part.places for part in parts)], axis=1) + self._begins[:-1]
        upto = np.arange(0, places.size + 1, places.shape[1])
        self._of_row = csr_array((np.ones(places.size), places.ravel(), upto), shape=(rows, int(self._begins[-1])))
        self._of_cell = self._of_row.T.tocsr()

    @property
    def start(self) -> FloatArray:
        """Where the search begins."""
        return np.zeros(sum(rows * columns for rows, columns in self._shapes))

    def weights(self, flat: FloatArray) -> list[FloatArray]:
        """The weights of cells and values or groups of values: those of all, then each histogram's."""
        pieces = np.split(flat, np.cumsum([rows * columns for rows, columns in self._shapes])[:-1])
        return [
            prior @ piece.reshape(shape) for prior, piece, shape in zip(self._priors, pieces, self._shapes, strict=True)
        ]

    def solved(self, *, steps: int) -> FloatArray:
        """Where the value is smallest."""
        from scipy.optimize import minimize

        found = minimize(self.at, self.start, jac=True, method="L-BFGS-B", options={"maxiter": steps})
        return np.asarray(found.x, dtype=np.float64)

    def at(self, flat: FloatArray) -> tuple[float, NDArray[np.float64]]:
        """Half the squared misfits in units of their noise, and half the squared weights; with its gradient."""
        of_all, *others = self.weights(flat)
        fine = [of_all, *(mine @ part.values.T for mine, part in zip(others, self._parts, strict=True))]
        likely = _softmax(self._of_row @ np.concatenate(fine))
        found = self._unit * (self._of_cell @ likely)
        value, errors = 0.5 * float(flat @ flat), np.zeros_like(found)
        for at, part in enumerate(self._parts, start=1):
            mine = slice(self._begins[at], self._begins[at + 1])
            apart = found[mine] @ part.values - part.counts
            value += 0.5 * float(np.square(apart).sum()) / part.variance
            errors[mine] = (apart / part.variance) @ part.values.T
        pull = self._unit * (self._of_row @ errors)
        pulled = self._of_cell @ (likely * (pull - (likely * pull).sum(axis=1, keepdims=True)))
        pieces = np.split(pulled, self._begins[1:-1])
        pieces[1:] = [piece @ part.values for piece, part in zip(pieces[1:], self._parts, strict=True)]
        gradient = [(prior.T @ piece).ravel() for prior, piece in zip(self._priors, pieces, strict=True)]
        return value, np.concatenate(gradient) + flat
