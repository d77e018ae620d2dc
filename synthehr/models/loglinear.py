"""A row given what is known before it: each of its columns in turn, by a log-linear model of the columns before.

The score of a column's cell is a sum of weights, one for each term: the cell itself, the cell with that of another
column, the cell with those of two others in coarser groups. Fitted to bought histograms this is the distribution of
most entropy that has them as its own (Jaynes 1957; Berger et al. 1996): the gradient of its likelihood in a term's
weights is that term's histogram, as bought, less what the model makes of it. No private row is at hand here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthehr.randomness import FloatArray, IntArray

__all__ = ["Conditional", "Measured", "Rows", "Term", "fit_conditional"]

Floats = NDArray[np.float32]


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
        of_candidate: weights of each cell by whether that cell was there before, shape ``(cells, 2)``; None where the
            column does not look at that.
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

    def scores(self, codes: Mapping[str, IntArray], rows: int, *, seen: np.ndarray | None = None) -> Floats:
        """The score of each cell. Shape: ``(rows, size)``.

        Args:
            codes: of the other columns, each of shape ``(rows,)``.
            rows: how many there are.
            seen: whether each cell was there before, shape ``(rows, size)``.
        """
        total = np.zeros((rows, self.size), dtype=np.float32)
        for term in self.terms:
            total += term.flat[term.places(codes)]
        if self.of_candidate is not None and seen is not None:
            total += np.where(seen, self.of_candidate[:, 1], self.of_candidate[:, 0])
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A bought histogram of a column with others.

    Attributes:
        given: the other columns, none to two.
        share: of the patients with rows, in each cell, shape as :attr:`Term.weights`; noisy.
        noise: standard deviation of each share.
        groups: as :attr:`Term.groups`.
        of_candidate: whether the other column tells if the column's own cell was there before.
    """

    given: tuple[str, ...]
    share: FloatArray
    noise: float
    groups: tuple[IntArray, ...] = ()
    of_candidate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Made-up rows that a column's model is fitted on, of which only what is known before it counts.

    Attributes:
        codes: of other columns, by name, each of shape ``(rows,)``.
        weight: of each row; they sum to the share of patients with rows that these rows stand for.
        seen: whether each cell of the column was there before, shape ``(rows, size)``, where that is looked at.
    """

    codes: Mapping[str, IntArray]
    weight: FloatArray
    seen: np.ndarray | None = None


def fit_conditional(
    before: Conditional, measured: Sequence[Measured], rows: Rows, *, allowed: np.ndarray, ridge: float, steps: int
) -> Conditional:
    """Pull a column's model towards bought histograms, from where it is.

    A histogram is taken for what it says of the column given the others: how often those are what they are is up to
    the rows. Weights are held back in proportion to the histogram's noise.

    Args:
        before: the model so far, with a term for each measured histogram, in order.
        measured: histograms with the column.
        rows: made up by the model so far.
        allowed: which cells the column may have in each row, shape ``(rows, size)``, or in all, ``(1, size)``.
        ridge: how much weights are held back.
        steps: of L-BFGS, at most.
    """
    weight = torch.from_numpy(rows.weight)
    somewhere: np.ndarray = np.any(allowed, axis=0)
    problem = [
        _Part.of(one, term, rows, somewhere) for one, term in zip(measured, _terms(before, measured), strict=True)
    ]
    closed = torch.from_numpy(np.where(allowed, 0.0, -1e9))
    # Weights of places that few rows have are as easy to move as others once each is scaled by its own.
    parameters = [(part.start / part.scale).requires_grad_() for part in problem]

    def loss() -> Tensor:
        scores = closed.expand(len(weight), -1)
        total = torch.zeros((), dtype=torch.float64)
        for part, parameter in zip(problem, parameters, strict=True):
            weights = parameter * part.scale
            scores = scores + part.scores(weights)
            total = total - (weights * part.share).sum() + 0.5 * ridge * part.noise * weights.square().sum()
        return total + (weight * scores.logsumexp(dim=1)).sum()

    solver = torch.optim.LBFGS(parameters, max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        value = loss()
        value.backward()
        return value

    solver.step(closure)
    found = [
        (parameter.detach() * part.scale).float().numpy() for part, parameter in zip(problem, parameters, strict=True)
    ]
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
    """One histogram of a fit: its places in the rows, its target, its weights' start."""

    start: Tensor
    scale: Tensor
    share: Tensor
    noise: float
    places: Tensor
    fine: Tensor | None
    candidate: bool

    @classmethod
    def of(cls, one: Measured, start: Floats, rows: Rows, allowed: np.ndarray) -> _Part:
        if one.of_candidate:
            assert rows.seen is not None, "rows tell what they saw where it counts"
            # The histogram's rows are cells of the column, and its columns whether they were there before.
            total = float(one.share[allowed].clip(0.0).sum())
            share = np.where(allowed[:, None], one.share.clip(0.0), 0.0) * (rows.weight.sum() / max(total, 1e-12))
            return cls(
                start=torch.from_numpy(start.astype(np.float64)),
                scale=torch.ones(1, dtype=torch.float64),
                share=torch.from_numpy(share),
                noise=one.noise,
                places=torch.from_numpy(rows.seen),
                fine=None,
                candidate=True,
            )
        term = Term(given=one.given, weights=start, groups=one.groups)
        places = np.broadcast_to(term.places(rows.codes), rows.weight.shape)
        flat = one.share.reshape(-1, one.share.shape[-1])
        open_groups = np.zeros(flat.shape[1], dtype=bool)
        open_groups[one.groups[-1][allowed] if one.groups else np.flatnonzero(allowed)] = True
        mass = np.bincount(places, weights=rows.weight, minlength=len(flat)).astype(np.float64)
        return cls(
            start=torch.from_numpy(start.reshape(flat.shape).astype(np.float64)),
            scale=torch.from_numpy(1.0 / np.sqrt(mass + 1e-3))[:, None],
            share=torch.from_numpy(_as_conditional(np.where(open_groups, flat, 0.0), mass)),
            noise=one.noise,
            places=torch.from_numpy(np.array(places)),
            fine=torch.from_numpy(one.groups[-1]) if one.groups else None,
            candidate=False,
        )

    def scores(self, parameter: Tensor) -> Tensor:
        if self.candidate:
            return torch.where(self.places, parameter[:, 1], parameter[:, 0])
        flat = parameter if self.fine is None else parameter.index_select(1, self.fine)
        return flat.index_select(0, self.places)


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


def simplex_rows(noisy: FloatArray, total: FloatArray) -> FloatArray:
    """For each row the nearest one, in least squares, that has no negative entry and sums to ``total``.

    To cut negative entries off would leave the positive noise of empty cells, and pull every row towards even shares.
    """
    ordered = -np.sort(-noisy, axis=1)
    excess = (np.cumsum(ordered, axis=1) - total[:, None]) / np.arange(1, noisy.shape[1] + 1)
    last = (ordered > excess).cumsum(axis=1).argmax(axis=1)
    shift = np.take_along_axis(excess, last[:, None], axis=1)
    return np.asarray(np.maximum(noisy - shift, 0.0), dtype=np.float64)
