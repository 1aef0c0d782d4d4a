"""Headers and cells as text: Markdown, CSV, or a table on the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

Rows = tuple[Sequence[str], Sequence[Sequence[str]]]


def markdown(rows: Rows) -> str:
    """A Markdown table."""
    headers, cells = rows
    lines = [_line(headers), "|" + "---|" * len(headers), *map(_line, cells)]
    return "\n".join(lines)


def comma_separated(rows: Rows) -> str:
    """CSV with a header line."""
    headers, cells = rows
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([headers, *cells])
    return text.getvalue().rstrip("\n")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
