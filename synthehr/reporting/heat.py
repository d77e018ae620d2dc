"""Geometry of the heat map of all pairs of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synthehr.evaluation.findings import PairProfile

__all__ = ["HeatMap", "heat_map"]

_LABEL = 22
_NAMED = 40
"""Most columns of a heat map whose names can be read, and whose squares tell what they are."""

_LEVELS = 8
_DRAWN = 120
"""Most columns that a heat map draws: those in the pairs that are furthest off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Square:
    """One square of a heat map: its corner, its strength in [0, 1] and what it says."""

    x: float
    y: float
    strength: float
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """A square of pairs: below the diagonal the synthetic cohort, above it the holdout.

    Up to 40 columns have names and squares that tell their number; more are drawn as one path for each of eight
    strengths, so that the size of the file grows with what there is to see and not with the number of pairs.
    """

    side: float
    left: float
    above: float
    cell: float
    labels: tuple[str, ...]
    squares: tuple[Square, ...]
    levels: tuple[tuple[float, str], ...]
    top: float
    left_out: int

    @property
    def width(self) -> float:
        """Width of the drawing, with room for the last slanted label."""
        return round(self.left + self.side + 0.6 * self.left, 1)

    @property
    def height(self) -> float:
        """Height of the drawing."""
        return round(self.above + self.side + 2, 1)


def heat_map(profile: PairProfile) -> HeatMap:
    """The heat map of all pairs; distances below the diagonal are the synthetic cohort's."""
    left_out = len(profile.columns) - _DRAWN
    if left_out > 0:
        profile = _worst_columns(profile)
    d = len(profile.columns)
    named = d <= _NAMED
    cell = min(36.0, max(12.0, 560.0 / d)) if named else max(1.0, 560.0 / d)
    labels = tuple(name if len(name) <= _LABEL else name[: _LABEL - 1] + "…" for name in profile.columns)
    left = round(16.0 + 7.2 * max(len(label) for label in labels), 1) if named else 8.0
    above = round(8.0 + 0.84 * left, 1) if named else 8.0
    top = max(0.2, *(max(row) for row in (*profile.distance, *profile.reference)))
    strengths = [
        [min(1.0, (profile.distance if i >= j else profile.reference)[i][j] / top) for j in range(d)] for i in range(d)
    ]
    corner = (left, above, cell)
    return HeatMap(
        side=round(d * cell, 1),
        left=left,
        above=above,
        cell=round(cell, 2),
        labels=labels if named else (),
        squares=_squares(profile, strengths, corner) if named else (),
        levels=() if named else _paths(strengths, corner),
        top=top,
        left_out=max(0, left_out),
    )


def _worst_columns(profile: PairProfile) -> PairProfile:
    """The profile of the columns in the pairs whose distance exceeds the reference most, in their order."""
    excess = [
        max(one - other for one, other in zip(distances, references, strict=True))
        for distances, references in zip(profile.distance, profile.reference, strict=True)
    ]
    ranked = sorted(range(len(excess)), key=lambda at: -excess[at])
    kept = sorted(ranked[:_DRAWN])
    return PairProfile(
        columns=tuple(profile.columns[i] for i in kept),
        distance=tuple(tuple(profile.distance[i][j] for j in kept) for i in kept),
        reference=tuple(tuple(profile.reference[i][j] for j in kept) for i in kept),
        worst=profile.worst,
    )


def _squares(
    profile: PairProfile, strengths: Sequence[Sequence[float]], corner: tuple[float, float, float]
) -> tuple[Square, ...]:
    left, above, cell = corner
    squares = []
    for i, first in enumerate(profile.columns):
        for j, second in enumerate(profile.columns):
            distance = profile.distance[i][j] if i >= j else profile.reference[i][j]
            who = "synthetic" if i >= j else "other real patients"
            what = first if i == j else f"{first} and {second}"
            squares.append(
                Square(
                    x=round(left + j * cell, 1),
                    y=round(above + i * cell, 1),
                    strength=round(strengths[i][j], 3),
                    title=f"{what}: {distance:.3f} ({who})",
                )
            )
    return tuple(squares)


def _paths(strengths: Sequence[Sequence[float]], corner: tuple[float, float, float]) -> tuple[tuple[float, str], ...]:
    """For each of eight strengths the path of all its squares; neighbours in a row are one stroke."""
    left, above, cell = corner
    strokes: list[list[str]] = [[] for _ in range(_LEVELS + 1)]
    for i, row in enumerate(strengths):
        levels = [round(strength * _LEVELS) for strength in row]
        start = 0
        for j in range(1, len(levels) + 1):
            if j == len(levels) or levels[j] != levels[start]:
                strokes[levels[start]].append(
                    f"M{left + start * cell:.1f} {above + (i + 0.5) * cell:.1f}h{(j - start) * cell:.1f}"
                )
                start = j
    return tuple((level / _LEVELS, "".join(made)) for level, made in enumerate(strokes) if level and made)
