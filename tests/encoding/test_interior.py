"""Values inside cells lie where the bought mass does."""

from __future__ import annotations

import numpy as np
import pytest

from synthehr.encoding.subsets import Interior


class _Even:
    """Draws that are spread evenly, in place of chance."""

    def random(self, count: int) -> np.ndarray:
        return (np.arange(count) + 0.5) / count


@pytest.mark.parametrize(
    "mass",
    [
        [1.0],
        [3.0, 1.0, 0.0, 4.0],
        # A guide of even steps points to the first of these for all: what is left is searched.
        [0.1, *[1e-7] * 40, 0.9],
        [1e-9, 1.0, 1e-9, 0.0, 2.0, 1e-9],
    ],
)
def test_pieces_are_drawn_as_often_as_their_mass_says(mass: list[float]) -> None:
    rows, pieces = 100_000, len(mass)
    interior = Interior(np.arange(pieces + 1), np.asarray(mass), np.zeros(pieces, dtype=np.int64))
    drawn = interior.draw(np.zeros(rows, dtype=np.int64), _Even())  # type: ignore[arg-type]
    found = np.bincount(drawn, minlength=pieces)
    # Evenly spread points leave each piece its share, up to the one at either border.
    assert np.abs(found - rows * np.asarray(mass) / sum(mass)).max() <= 1.0 + 1e-6


def test_a_value_lies_in_its_own_cell() -> None:
    # Cells of two pieces each: positions 0 to 9, 10 to 19, 20 to 29.
    interior = Interior(
        np.arange(0, 31, 5), np.array([1.0, 0.0, 0.0, 1e-9, 5.0, 1.0]), np.array([0, 0, 1, 1, 2, 2], dtype=np.int64)
    )
    cells = np.repeat([0, 1, 2], 1000)
    drawn = interior.draw(cells, np.random.default_rng(0))
    assert (drawn[cells == 0] < 5).all()
    assert ((drawn[cells == 1] >= 15) & (drawn[cells == 1] < 20)).all()
    assert ((drawn[cells == 2] >= 20) & (drawn[cells == 2] < 30)).all()
