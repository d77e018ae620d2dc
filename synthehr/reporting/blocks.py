"""What a section of the report is made of, before it is HTML: text, tables and figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from synthehr.evaluation.findings import ColumnProfile
from synthehr.reporting.document import BoughtProfile, CheckEntry
from synthehr.reporting.figures import Forest, Plot
from synthehr.reporting.heat import HeatMap

__all__ = [
    "Block",
    "Cards",
    "Cell",
    "Drawing",
    "Forests",
    "Heading",
    "Heat",
    "Section",
    "Table",
    "Text",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A paragraph; ``strong`` stands in bold before it."""

    kind: Literal["text"] = field(default="text", init=False)
    text: str
    strong: str = ""
    small: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A heading inside a section."""

    kind: Literal["heading"] = field(default="heading", init=False)
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a table: its text, and more in smaller letters behind it."""

    text: str
    more: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table; the first cell of each row is the row's heading.

    Attributes:
        label: what it is, for who cannot see it.
        head: names of the columns.
        numbers: which columns hold numbers, and stand to the right.
        rows: cells, each row as long as the head.
        folded: shown after a click, under the label.
    """

    kind: Literal["table"] = field(default="table", init=False)
    label: str
    head: tuple[str, ...]
    numbers: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A plot with axes. ``name`` is its name among the figures of a notebook."""

    kind: Literal["plot"] = field(default="plot", init=False)
    name: str
    title: str
    plot: Plot
    label: str
    legend: tuple[tuple[str, str], ...] = ()
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forests:
    """A forest plot; its legend has (mark, meaning)."""

    kind: Literal["forest"] = field(default="forest", init=False)
    name: str
    title: str
    forest: Forest
    label: str
    legend: tuple[tuple[str, str], ...]
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """A heat map of pairs, with the worst of them beside it."""

    kind: Literal["heat"] = field(default="heat", init=False)
    name: str
    title: str
    map: HeatMap
    worst: Table
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """A card for each column with bars, real beside synthetic.

    Attributes:
        open: shown at once.
        folded: shown after a click.
        rows: too many for cards: a line each.
        bought: the real side is what the release bought, as the public sees it.
    """

    kind: Literal["cards"] = field(default="cards", init=False)
    name: str
    open: tuple[ColumnProfile | BoughtProfile, ...]
    folded: tuple[ColumnProfile | BoughtProfile, ...]
    rows: tuple[ColumnProfile | BoughtProfile, ...]
    bought: bool = False


Block = Text | Heading | Table | Drawing | Forests | Heat | Cards


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One section: what it asks, its checks, its blocks."""

    id: str
    title: str
    lead: str
    checks: tuple[CheckEntry, ...]
    blocks: tuple[Block, ...]
