"""A row given what is known before it: each of its columns in turn, by a log-linear model of the columns before.

The score of a column's cell is a sum of weights, one for each term: the cell itself, the cell with that of another
column, the cell with those of two others in coarser groups. Fitted to bought histograms this is the distribution of
most entropy that has them as its own (Jaynes 1957; Berger et al. 1996): the gradient of its likelihood in a term's
weights is that term's histogram, as bought, less what the model makes of it. No private row is at hand here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from synthehr.randomness import FloatArray, IntArray

__all__ = ["Conditional", "Counted", "Measured", "Rows", "Term", "fit_conditional", "seen_by_rows"]

Floats = NDArray[np.float32]
# As good as minus infinity, of which differences can be taken.
_CLOSED = -1e9
Counted: TypeAlias = Literal["rows", "length", "code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """Weights of a column's cells, alone or with those of others.

    Attributes:
        given: the other columns: none, one or two.
        weights: shape ``(cells or groups of each of them, then of the column)``.
        groups: for coarser cells, the group of each cell of each column, the column's own last; else empty.
    """

    given: tuple[str, ...]
    weights: Floats
    groups: tuple[IntArray, ...] = ()

    def places(self, codes: Mapping[str, IntArray]) -> IntArray:
        """For each row, which row of the flat weights counts. Shape: ``(rows,)``."""
        place: IntArray = np.zeros(1, dtype=np.int64)
        for at, name in enumerate(self.given):
            mine = self.groups[at][codes[name]] if self.groups else codes[name]
            place = place * self.weights.shape[at] + mine
        return place

    @property
    def flat(self) -> Floats:
        """The weights, shape ``(places, cells of the column)``."""
        flat = self.weights.reshape(-1, self.weights.shape[-1])
        return flat[:, self.groups[-1]] if self.groups else flat


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional:
    """One column given others.

    Attributes:
        target: the column.
        size: of its cells.
        terms: what its score is the sum of.
        of_candidate: weights of each cell by whether that cell was never there, there before, or beside, shape
            ``(cells, 3)``; None where the column does not look at that.
    """

    target: str
    size: int
    terms: tuple[Term, ...]
    of_candidate: Floats | None = None

    def towards(self, other: Conditional, *, part: float) -> Conditional:
        """The model with each weight moved by a part of the way to another's."""
        terms = [
            replace(mine, weights=mine.weights + np.float32(part) * (theirs.weights - mine.weights))
            for mine, theirs in zip(self.terms, other.terms, strict=True)
        ]
        candidate = self.of_candidate
        if candidate is not None and other.of_candidate is not None:
            candidate = candidate + np.float32(part) * (other.of_candidate - candidate)
        return replace(self, terms=tuple(terms), of_candidate=candidate)

    def scores(self, codes: Mapping[str, IntArray], rows: int, *, seen: NDArray[np.int8] | None = None) -> Floats:
        """The score of each cell. Shape: ``(rows, size)``.

        Args:
            codes: of the other columns, each of shape ``(rows,)``.
            rows: how many there are.
            seen: whether each cell was there: 0 never, 1 before, 2 beside; shape ``(rows, size)``.
        """
        total = np.zeros((rows, self.size), dtype=np.float32)
        for term in self.terms:
            total += term.flat[term.places(codes)]
        if self.of_candidate is not None and seen is not None:
            total += self.of_candidate[np.arange(self.size), seen]
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A bought histogram of a column with others.

    Attributes:
        given: the other columns, none to two.
        share: of the patients with rows, in each cell, shape as :attr:`Term.weights`; noisy.
        noise: standard deviation of each share, one for all or by cell of the other columns, of the shape of ``share``
            without its last axis; of a set that is looked at by candidate, by the column's own cell.
        groups: as :attr:`Term.groups`.
        of_candidate: whether the other column tells if the column's own cell was never there, before, or beside.
        counted: how the rows of one patient count in it, see :class:`~synthehr.privacy.rows.PrivateRows`: ``rows``,
            each 1 / their number; ``length``, as often as brings the patient's part to length 1; ``code``, by those of
            the same code.
    """

    given: tuple[str, ...]
    share: FloatArray
    noise: float | FloatArray
    groups: tuple[IntArray, ...] = ()
    of_candidate: bool = False
    counted: Counted = "rows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Made-up rows that a column's model is fitted on, of which only what is known before it counts.

    Attributes:
        codes: of other columns, by name, each of shape ``(rows,)``.
        weight: of each row; they sum to the share of patients with rows that these rows stand for.
        seen: whether each cell of the column was there, as :meth:`Conditional.scores` takes it, shape ``(rows, size)``,
            where that is looked at.
    """

    codes: Mapping[str, IntArray]
    weight: FloatArray
    seen: NDArray[np.int8] | None = None


def fit_conditional(
    before: Conditional,
    measured: Sequence[Measured],
    rows: Rows,
    *,
    open_to: FloatArray,
    ridge: float,
    ridge_of_three: float | None = None,
    held: float = 0.0,
    steps: int,
) -> Conditional:
    """Pull a column's model towards bought histograms, from where it is.

    A histogram is taken for what it says of the column given the others: how often those are what they are is up to
    the rows. Weights are held back by the histogram's noise, and by ``held`` at least: where rows are not yet what they
    should be, histograms contradict each other, and weights that nothing holds grow without end.

    Args:
        before: the model so far, with a term for each measured histogram, in order.
        measured: histograms with the column.
        rows: made up by the model so far.
        open_to: what is added to the scores, shape ``(rows, size)``, or ``(1, size)`` for all rows: minus infinity for
            cells that the column may not have.
        ridge: 1 / the variance that weights are taken to have before anything is bought.
        ridge_of_three: the same of weights for three columns; ``ridge`` where left out.
        held: how much they are at least, where a cell of the other columns has as many rows as others on average;
            less where it has fewer, in proportion, so that what few rows have is not made alike.
        steps: of L-BFGS, at most.
    """
    somewhere: np.ndarray = np.any(np.isfinite(open_to), axis=0)
    alone = next((one.share for one in measured if not one.given), np.ones(before.size))
    parts = [
        _Part.of(
            one,
            term,
            rows,
            somewhere,
            alone=alone,
            ridge=ridge if len(one.given) < 2 or ridge_of_three is None else ridge_of_three,
            held=held,
        )
        for one, term in zip(measured, _terms(before, measured), strict=True)
    ]
    problem = _Problem(parts, rows.weight, np.maximum(open_to, _CLOSED))
    flat = torch.from_numpy(problem.start)
    solver = torch.optim.LBFGS([flat], max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        value, gradient = problem.at(flat.numpy())
        flat.grad = torch.from_numpy(gradient)
        return torch.tensor(value, dtype=torch.float64)

    solver.step(closure)
    found = [weights.astype(np.float32) for weights in problem.weights(flat.numpy())]
    return _with_weights(before, measured, found)


def _terms(model: Conditional, measured: Sequence[Measured]) -> list[Floats]:
    """The weights for each histogram."""
    terms = iter(model.terms)
    found = []
    for one in measured:
        if one.of_candidate:
            assert model.of_candidate is not None, "it has weights for what it looks at"
            found.append(model.of_candidate)
        else:
            found.append(next(terms).weights)
    return found


def _with_weights(model: Conditional, measured: Sequence[Measured], weights: Sequence[Floats]) -> Conditional:
    terms, candidate = [], model.of_candidate
    old = iter(model.terms)
    for one, found in zip(measured, weights, strict=True):
        if one.of_candidate:
            candidate = found
        else:
            term = next(old)
            terms.append(replace(term, weights=found.reshape(term.weights.shape)))
    return replace(model, terms=tuple(terms), of_candidate=candidate)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One histogram of a fit: its places in the rows, its target, its weights' start, how much these are held back."""

    start: FloatArray
    scale: FloatArray
    share: FloatArray
    held: FloatArray
    places: np.ndarray
    fine: IntArray | None
    candidate: bool

    @classmethod
    def of(
        cls,
        one: Measured,
        start: Floats,
        rows: Rows,
        allowed: np.ndarray,
        *,
        alone: FloatArray,
        ridge: float,
        held: float,
    ) -> _Part:
        if one.of_candidate:
            assert rows.seen is not None, "rows tell what they saw where it counts"
            # The histogram's rows are cells of the column, and its columns whether they were there before.
            total = float(one.share[allowed].clip(0.0).sum())
            share = np.where(allowed[:, None], one.share.clip(0.0), 0.0) * (rows.weight.sum() / max(total, 1e-12))
            even = np.ones(share.shape[1])
            held_back = _held(share.sum(axis=1), even, one.noise, ridge=ridge, least=held)
            return cls(
                start=start.astype(np.float64),
                scale=_scale(share.sum(axis=1, keepdims=True), held_back, share.shape),
                share=share,
                held=held_back,
                places=rows.seen,
                fine=None,
                candidate=True,
            )
        term = Term(given=one.given, weights=start, groups=one.groups)
        places = np.broadcast_to(term.places(rows.codes), rows.weight.shape)
        flat = one.share.reshape(-1, one.share.shape[-1])
        open_groups = np.zeros(flat.shape[1], dtype=bool)
        open_groups[one.groups[-1][allowed] if one.groups else np.flatnonzero(allowed)] = True
        mass = np.bincount(places, weights=rows.weight, minlength=len(flat)).astype(np.float64)
        cells = np.bincount(one.groups[-1], weights=alone) if one.groups else alone
        held_back = _held(mass, np.where(open_groups, cells, 0.0), one.noise, ridge=ridge, least=held)
        return cls(
            start=start.reshape(flat.shape).astype(np.float64),
            scale=_scale(mass[:, None], held_back, flat.shape),
            share=_as_conditional(np.where(open_groups, flat, 0.0), mass),
            held=held_back,
            places=places,
            fine=one.groups[-1] if one.groups else None,
            candidate=False,
        )


class _Problem:
    """What a fit makes small, with its gradient, as a function of all weights in one array.

    The scores of all rows are one sparse product: a row has a one for each term, where the term's weights for it stand.

    Args:
        parts: the histograms.
        weight: of each row.
        closed: what is added to the scores, shape ``(rows, size)`` or ``(1, size)``.
    """

    def __init__(self, parts: Sequence[_Part], weight: FloatArray, closed: FloatArray) -> None:
        self._parts, self._mass, self._closed = parts, weight, closed
        self._ends = np.cumsum([part.start.size for part in parts])[:-1]
        plain = [part for part in parts if not part.candidate]
        self._begins = np.cumsum([0, *(len(part.start) for part in plain)])
        places = np.stack([part.places + begin for part, begin in zip(plain, self._begins, strict=False)], axis=1)
        upto = np.arange(0, places.size + 1, len(plain))
        self._of_row = csr_array(
            (np.ones(places.size), places.ravel(), upto), shape=(len(weight), int(self._begins[-1]))
        )
        self._of_place = self._of_row.T.tocsr()

    @property
    def start(self) -> FloatArray:
        """Where the search begins."""
        return np.concatenate([(part.start / part.scale).ravel() for part in self._parts])

    def weights(self, flat: FloatArray) -> list[FloatArray]:
        """The weights of each part."""
        pieces = np.split(flat, self._ends)
        return [mine.reshape(part.start.shape) * part.scale for mine, part in zip(pieces, self._parts, strict=True)]

    def at(self, flat: FloatArray) -> tuple[float, FloatArray]:
        """The value and its gradient."""
        weights = self.weights(flat)
        total, likely = self._likely(weights)
        value = float(self._mass @ total)
        likely *= self._mass[:, None]
        pulled = iter(np.split(self._of_place @ likely, self._begins[1:-1]))
        gradients = []
        for mine, part in zip(weights, self._parts, strict=True):
            held = part.held * mine
            value += float((mine * (0.5 * held - part.share)).sum())
            gradients.append(((_gathered(part, pulled, likely) - part.share + held) * part.scale).ravel())
        return value, np.concatenate(gradients)

    def _likely(self, weights: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
        """The logarithm of each row's summed exponentials of scores, and how likely each cell is, ``(rows, size)``."""
        both = list(zip(weights, self._parts, strict=True))
        fine = [mine if part.fine is None else mine[:, part.fine] for mine, part in both if not part.candidate]
        scores = self._of_row @ np.concatenate(fine)
        scores += self._closed
        for mine, part in both:
            if part.candidate:
                scores += mine[np.arange(len(mine)), part.places]
        most = scores.max(axis=1)
        scores -= most[:, None]
        np.exp(scores, out=scores)
        summed = scores.sum(axis=1)
        scores /= summed[:, None]
        return most + np.log(summed), scores


# Of even shares, what is the least that a cell is taken to have where its weights are held back.
_LEAST_SHARE = 0.05


def _held(mass: FloatArray, cells: FloatArray, noise: float | FloatArray, *, ridge: float, least: float) -> FloatArray:
    """How much the weights of each cell in each place are held back, shape ``(places, cells)``.

    Where a cell is expected to have share m and its noise variance v, what is most likely of a weight that is normal
    with variance 1 is held back by v / m: to first order its share moves by m for each unit of the weight.

    Args:
        mass: of the rows in each place, shape ``(places,)``.
        cells: the shares of the column's cells whatever the others are, or of a candidate's states.
        noise: of a share.
        ridge: 1 / the variance of weights.
        least: how much they are held at least, where the cells of a place have a hundredth on average; less in
            proportion elsewhere.
    """
    here = np.maximum(mass, 1e-9)[:, None]
    part = np.maximum(cells / max(float(cells.sum()), 1e-12), _LEAST_SHARE / len(cells))
    by_noise = ridge * np.square(np.broadcast_to(np.ravel(noise), mass.shape))[:, None] / (here * part)
    return np.asarray(np.maximum(by_noise, least * np.minimum(100.0 * here / len(cells), 1.0)), dtype=np.float64)


def _scale(mass: FloatArray, held: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """What weights are divided by in the search: those of few rows, or held back, are as easy to move as others.

    ``mass`` has shape ``(places, 1)``, ``held`` that of the weights. Without the second a search of a dozen steps
    hardly leaves where it begins.
    """
    return np.broadcast_to(1.0 / np.sqrt(mass + held + 1e-3), shape)


def _gathered(part: _Part, pulled: Iterator[FloatArray], likely: FloatArray) -> FloatArray:
    """What the model makes of a part's histogram; ``pulled`` has those of the plain parts in order."""
    if part.candidate:
        later = [(likely * (part.places == state)).sum(axis=0) for state in range(1, part.share.shape[1])]
        return np.stack([likely.sum(axis=0) - np.sum(later, axis=0), *later], axis=1)
    mine = next(pulled)
    return mine if part.fine is None else mine @ np.eye(part.start.shape[1])[part.fine]


def _as_conditional(share: FloatArray, mass: FloatArray) -> FloatArray:
    """What a noisy histogram says of its last column given the others, for rows of this mass.

    Args:
        share: shape ``(places, cells)``.
        mass: of the rows, shape ``(places,)``.
    """
    total = np.maximum(share.sum(axis=1), 0.0)
    clean = simplex_rows(share, total)
    known = total > 0.0
    conditional = np.where(known[:, None], clean / np.where(known, total, 1.0)[:, None], 1.0 / share.shape[1])
    return np.asarray(conditional * mass[:, None], dtype=np.float64)


def seen_by_rows(
    cells: IntArray, owners: IntArray, together: np.ndarray, *, places: IntArray, size: int
) -> NDArray[np.int8]:
    """For some rows which cells the rows before them had: 0 none of the owner's, 1 some, 2 some beside it.

    Args:
        cells: of all rows, in order.
        owners: of each, those of one together.
        together: whether each row is beside the one before it.
        places: which rows are asked for.
        size: how many cells there are.

    Returns:
        shape ``(places, size)``.
    """
    first = np.full((int(owners.max(initial=-1)) + 1, size), len(cells), dtype=np.int64)
    np.minimum.at(first, (owners, cells), np.arange(len(cells)))
    found = (first[owners[places]] < places[:, None]).astype(np.int8)
    begins = np.maximum.accumulate(np.where(together, 0, np.arange(len(cells))))[places]
    for back in range(1, int((places - begins).max(initial=0)) + 1):
        beside = np.flatnonzero(places - back >= begins)
        found[beside, cells[places[beside] - back]] = 2
    return found


def simplex_rows(noisy: FloatArray, total: FloatArray) -> FloatArray:
    """For each row the nearest one, in least squares, that has no negative entry and sums to ``total``.

    To cut negative entries off would leave the positive noise of empty cells, and pull every row towards even shares.
    """
    ordered = -np.sort(-noisy, axis=1)
    excess = (np.cumsum(ordered, axis=1) - total[:, None]) / np.arange(1, noisy.shape[1] + 1)
    last = (ordered > excess).cumsum(axis=1).argmax(axis=1)
    shift = np.take_along_axis(excess, last[:, None], axis=1)
    return np.asarray(np.maximum(noisy - shift, 0.0), dtype=np.float64)
