"""Pages with parts that are written by code, between `<!-- generated: NAME -->` and `<!-- end -->`.

Everything else in such a page is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from had.errors import HadError

DOCS = Path(__file__).parents[1] / "docs"  # of a source tree; pages are not installed

_BLOCK = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, parts: Mapping[str, Callable[[], str]]) -> str:
    """The page with every generated part written anew.

    Args:
        page: Markdown.
        parts: what writes each part, by name.

    Raises:
        HadError: the page asks for a part that nobody writes.
    """

    def block(match: re.Match[str]) -> str:
        if match[2] not in parts:
            raise HadError(f"no generated part '{match[2]}'; known: {', '.join(parts)}")
        return f"{match[1]}\n{parts[match[2]]()}\n\n{match[3]}"

    return _BLOCK.sub(block, page)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; bars in cells are escaped."""
    lines = [list(head), ["---"] * len(head), *rows]
    cells = ([" ".join(cell.replace("|", r"\|").split()) for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
