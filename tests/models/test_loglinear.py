"""One column given others: histograms that agree are met, and those that contradict each other end somewhere."""

from __future__ import annotations

import numpy as np
import pytest

from synthehr.models.loglinear import Conditional, Measured, Rows, Term, fit_conditional

ROWS = 4000


def column(*given: tuple[str, int], size: int) -> Conditional:
    terms = [Term(given=(), weights=np.zeros(size, dtype=np.float32))]
    terms += [Term(given=(name,), weights=np.zeros((cells, size), dtype=np.float32)) for name, cells in given]
    return Conditional(target="y", size=size, terms=tuple(terms))


def made(model: Conditional, codes: dict[str, np.ndarray]) -> np.ndarray:
    """How likely each cell is in each row."""
    scores = np.exp(model.scores(codes, ROWS).astype(float))
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def test_a_column_comes_to_have_the_histograms_that_were_bought() -> None:
    draw = np.random.default_rng(0)
    codes = {"a": draw.integers(0, 3, ROWS), "b": draw.integers(0, 2, ROWS)}
    score = np.array([[0.0, 1.0, -1.0], [0.5, 0.0, 1.0], [-1.0, 0.2, 0.0]])[codes["a"]]
    score = score + np.array([[0.0, 0.7, 0.0], [1.0, 0.0, -0.5]])[codes["b"]]
    truth = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)

    def share(name: str | None, cells: int) -> np.ndarray:
        at = np.zeros(ROWS, dtype=int) if name is None else codes[name]
        return np.stack([truth[at == cell].sum(axis=0) for cell in range(cells)]) / ROWS

    measured = [
        Measured(given=(), share=share(None, 1)[0], noise=1e-6),
        Measured(given=("a",), share=share("a", 3), noise=1e-6),
        Measured(given=("b",), share=share("b", 2), noise=1e-6),
    ]
    rows = Rows(codes=codes, weight=np.full(ROWS, 1.0 / ROWS))
    everywhere = np.zeros((1, 3))
    fitted = fit_conditional(
        column(("a", 3), ("b", 2), size=3), measured, rows, open_to=everywhere, ridge=0.3, steps=200
    )
    assert made(fitted, codes) == pytest.approx(truth, abs=0.01)


def contradiction() -> tuple[list[Measured], Rows]:
    """Two columns that are the same in the rows at hand, of which one says yes and the other says no."""
    same = np.arange(ROWS) % 2
    rows = Rows(codes={"a": same, "b": same}, weight=np.full(ROWS, 1.0 / ROWS))
    yes, no = np.array([[0.25, 0.25], [0.05, 0.45]]), np.array([[0.25, 0.25], [0.45, 0.05]])
    measured = [
        Measured(given=(), share=np.array([0.5, 0.5]), noise=1e-6),
        Measured(given=("a",), share=yes, noise=1e-6),
        Measured(given=("b",), share=no, noise=1e-6),
    ]
    return measured, rows


@pytest.mark.parametrize(("held", "within"), [(0.01, True), (0.0, False)])
def test_histograms_that_contradict_each_other_do_not_drive_weights_away(held: float, within: bool) -> None:
    measured, rows = contradiction()
    fitted = fit_conditional(
        column(("a", 2), ("b", 2), size=2),
        measured,
        rows,
        open_to=np.zeros((1, 2)),
        ridge=0.3,
        held=held,
        steps=100,
    )
    assert (max(float(np.abs(term.weights).max()) for term in fitted.terms) < 50.0) is within


def test_a_cell_that_a_row_may_not_have_is_not_counted_on() -> None:
    codes = {"a": np.arange(ROWS) % 2}
    allowed = np.ones((ROWS, 3), dtype=bool)
    allowed[codes["a"] == 1, 2] = False
    open_to = np.where(allowed, 0.0, -np.inf)
    share = np.array([[0.1, 0.1, 0.3], [0.2, 0.3, 0.0]])
    measured = [
        Measured(given=(), share=share.sum(axis=0), noise=1e-6),
        Measured(given=("a",), share=share, noise=1e-6),
    ]
    rows = Rows(codes=codes, weight=np.full(ROWS, 1.0 / ROWS))
    fitted = fit_conditional(column(("a", 2), size=3), measured, rows, open_to=open_to, ridge=0.3, steps=200)
    likely = np.exp(np.where(allowed, fitted.scores(codes, ROWS), -np.inf))
    likely /= likely.sum(axis=1, keepdims=True)
    assert likely[codes["a"] == 1].mean(axis=0) == pytest.approx([0.4, 0.6, 0.0], abs=0.01)
    assert likely[codes["a"] == 0].mean(axis=0) == pytest.approx([0.2, 0.2, 0.6], abs=0.01)


def rare() -> tuple[Rows, np.ndarray]:
    """One of 500 rows is of a code of its own, which has the third cell where all others have the first."""
    codes = {"a": (np.arange(ROWS) % 500 == 0).astype(int)}
    share = np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]) * np.array([[0.998], [0.002]])
    return Rows(codes=codes, weight=np.full(ROWS, 1.0 / ROWS)), share


def test_what_few_rows_have_is_met_as_well_as_what_many_have() -> None:
    rows, share = rare()
    measured = [
        Measured(given=(), share=share.sum(axis=0), noise=1e-5),
        Measured(given=("a",), share=share, noise=1e-5),
    ]
    fitted = fit_conditional(
        column(("a", 2), size=3), measured, rows, open_to=np.zeros((1, 3)), ridge=1.0, held=0.0004, steps=200
    )
    found = made(fitted, dict(rows.codes))[0]  # the first row is of the rare code
    assert found == pytest.approx([0.1, 0.1, 0.8], abs=0.06)
