"""A report as one HTML page that needs nothing else: no network, no scripts, no further files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from had.results.report.charts import INK
from had.results.report.elements import Element, Figure, Report, Section, Table, Text

STYLE = Path(__file__).with_name("style.css")
# Nothing is loaded, whatever a page contains; data: is where heat maps keep their pixels.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_LONG = 40  # letters of a cell that may be broken into lines
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?( [%±].*| \(.*\))?|-?")


def page(report: Report) -> str:
    """The whole page."""
    title = escape(report.title)
    sections = [section for section in report.sections if section.elements]
    links = "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{STYLE.read_text()}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>
{"".join(map(_section, sections))}</main>
<footer>Made by <code>{escape(report.command)}</code></footer>
</body>
</html>
"""


def _section(section: Section) -> str:
    parts = []
    for kind, elements in groupby(section.elements, key=type):
        shown = "".join(_SHOWN[kind](element) for element in elements)
        parts.append(f'<div class="figures">\n{shown}</div>\n' if kind is Figure else shown)
    return (
        f'<section id="{section.name}" aria-labelledby="{section.name}-title">\n'
        f'<h2 id="{section.name}-title">{escape(section.title)}</h2>\n{"".join(parts)}</section>\n'
    )


def _text(text: Text) -> str:
    return f"<p>{escape(text.text)}</p>\n"


def _table(table: Table) -> str:
    numeric = [all(_NUMBER.fullmatch(cell) for cell in column) for column in _columns(table)]
    head = _cells("th", table.headers, numeric, ' scope="col"')
    rows = "\n".join(_cells("td", row, numeric) for row in table.rows)
    # The caption stands outside of what scrolls, so that it is whole on a narrow screen.
    shown = (
        '<figure class="table">\n<div class="scroll" tabindex="0"><table>\n'
        f"<thead>{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n"
        f"<figcaption>{escape(table.caption)}</figcaption>\n</figure>\n"
    )
    if not table.folded:
        return shown
    return f"<details><summary>{escape(table.folded)}</summary>\n{shown}</details>\n"


def _columns(table: Table) -> list[list[str]]:
    return [[row[index] for row in table.rows] for index in range(len(table.headers))]


def _cells(tag: str, cells: Sequence[str], numeric: Sequence[bool], further: str = "") -> str:
    shown = [
        f"<{tag}{further}{_class(cell, number)}>{escape(cell)}</{tag}>"
        for cell, number in zip(cells, numeric, strict=True)
    ]
    return f"<tr>{''.join(shown)}</tr>"


def _class(cell: str, number: bool) -> str:
    if number:
        return ' class="number"'
    return ' class="long"' if len(cell) > _LONG else ""


def _figure(figure: Figure) -> str:
    return (
        f"<figure>\n{inline(figure)}<figcaption>{escape(figure.caption)}</figcaption>\n</figure>\n"
    )


def inline(figure: Figure) -> str:
    """The drawing as an element of a page: its ids its own, its ink that of the page's text."""
    svg = re.sub(r'\bid="', f'id="{figure.name}-', figure.svg)
    svg = re.sub(r'(url\(#|href="#)', rf"\g<1>{figure.name}-", svg).replace(INK, "currentColor")
    label = escape(figure.alt, quote=True)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


_SHOWN: dict[type[Element], Callable[[Any], str]] = {Text: _text, Table: _table, Figure: _figure}
