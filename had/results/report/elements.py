"""What a report is made of; how it looks is the renderers' affair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """Headers and cells.

    Attributes:
        headers: with units where a column has one.
        rows: of as many cells.
        caption: what the table shows.
        folded: the line that unfolds it, where a page can fold; empty: it is shown at once.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    folded: str = ""


@dataclass(frozen=True)
class Figure:
    """A drawing.

    Attributes:
        name: of its file, unique in the report.
        svg: a whole SVG document.
        alt: what there is to see, for those who cannot.
        caption: what the figure shows, with units.
    """

    name: str
    svg: str
    alt: str
    caption: str


Element = Text | Table | Figure


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it.

    Attributes:
        name: anchor.
        title: heading.
        elements: in their order.
    """

    name: str
    title: str
    elements: Sequence[Element] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """All of it.

    Attributes:
        title: heading of the page.
        sections: in their order.
        command: that made it.
    """

    title: str
    sections: Sequence[Section]
    command: str

    @property
    def figures(self) -> list[Figure]:
        """All figures, in their order."""
        return [e for section in self.sections for e in section.elements if isinstance(e, Figure)]
