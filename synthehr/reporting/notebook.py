"""Reports and their plots in a notebook: each in a frame, so that its style touches nothing else on the page."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from synthehr.errors import ConfigError
from synthehr.reporting.blocks import Cards, Drawing, Forests, Heat
from synthehr.reporting.document import ReportDocument
from synthehr.reporting.escape import printable
from synthehr.reporting.html import templates
from synthehr.reporting.sections import build_sections

__all__ = ["Figure", "figures_of", "framed"]


def framed(page: str, *, height: int) -> str:
    """A whole page as one frame. Its script may run; it reaches neither the notebook nor the network."""
    source = html.escape(page, quote=True)
    return (
        f'<iframe srcdoc="{source}" sandbox="allow-scripts" title="synthehr" '
        f'style="width:100%;height:{height}px;border:1px solid #8888;border-radius:6px"></iframe>'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One plot of a report.

    Attributes:
        name: its key among the figures.
        title: what it shows.
        page: it as an HTML page without script.
    """

    name: str
    title: str
    page: str

    def __repr__(self) -> str:
        """Name and title."""
        return f"Figure({self.name!r}: {self.title})"

    def _repr_html_(self) -> str:
        return framed(self.page, height=560)

    def save(self, path: str | Path) -> Path:
        """Write the figure as one HTML file.

        Raises:
            ConfigError: the file exists or cannot be written.
        """
        target = Path(path)
        try:
            with target.open("x", encoding="utf-8", errors="replace") as file:
                file.write(self.page)
        except OSError as error:
            raise ConfigError(f"figure {str(path)!r} cannot be written: {error.strerror}") from error
        return target


def figures_of(document: ReportDocument) -> Mapping[str, Figure]:
    """Every plot of a document by name, in the report's order; a card for each column is ``column:NAME``."""
    made: dict[str, Figure] = {}
    for section in build_sections(document):
        for block in section.blocks:
            if isinstance(block, Cards):
                for column in (*block.open, *block.folded, *block.rows):
                    one = Cards(name=block.name, open=(column,), folded=(), rows=(), bought=block.bought)
                    name = f"column:{column.column}"
                    made[name] = _figure(name, f"Distribution of {column.column}", one, document)
            elif isinstance(block, Drawing | Forests | Heat):
                made[block.name] = _figure(block.name, block.title, block, document)
    return made


def _figure(name: str, title: str, block: Cards | Drawing | Forests | Heat, document: ReportDocument) -> Figure:
    page = templates().get_template("figure.html.j2").render(title=title, one=block, stamp=document.stamp)
    return Figure(name=name, title=title, page=printable(page))
