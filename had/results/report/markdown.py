"""A report as Markdown, its figures as files beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from had.results import formats
from had.results.report.elements import Element, Figure, Report, Section, Table, Text

FIGURES = "figures"


def page(report: Report) -> str:
    """The whole page; its figures are expected at `figures/<name>.svg`."""
    sections = [_section(section) for section in report.sections if section.elements]
    return "\n\n".join([f"# {report.title}", *sections, f"Made by `{report.command}`."]) + "\n"


def figure_file(figure: Figure) -> str:
    """A drawing as a file: black on white, whatever the page around it looks like."""
    return figure.svg.replace("<svg ", '<svg style="background: #fff" ', 1)


def _section(section: Section) -> str:
    shown = [_SHOWN[type(element)](element) for element in section.elements]
    return "\n\n".join([f"## {section.title}", *shown])


def _table(table: Table) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (table.headers, *table.rows)]
    return f"{formats.markdown((cells[0], cells[1:]))}\n\n{table.caption}"


def _figure(figure: Figure) -> str:
    alt = figure.alt.replace("[", "(").replace("]", ")")
    return f"![{alt}]({FIGURES}/{figure.name}.svg)\n\n{figure.caption}"


_SHOWN: dict[type[Element], Callable[[Any], str]] = {
    Text: lambda text: text.text,
    Table: _table,
    Figure: _figure,
}
