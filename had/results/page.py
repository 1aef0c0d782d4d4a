"""Marked blocks of a Markdown page, each written by the command it names."""

from __future__ import annotations

import re
from pathlib import Path

from had.config.wording import nearest
from had.errors import HadError

_BLOCK = re.compile(
    r"(<!-- had results: begin(?: (?P<name>[\w-]+))? -->\n).*?(<!-- had results: end -->)",
    re.DOTALL,
)


def write_into(page: Path, text: str, name: str | None = None) -> None:
    """Replace what stands between the markers of a block.

    Args:
        page: a Markdown file.
        text: what the block shall hold.
        name: of the block, `<!-- had results: begin NAME -->`; None for one without a name.

    Raises:
        HadError: the page cannot be read or has no such block.
    """
    try:
        before = page.read_text()
    except OSError as error:
        raise HadError(f"{page}: cannot be read ({error})") from error
    there = [match["name"] for match in _BLOCK.finditer(before)]
    if name not in there:
        begin = f"<!-- had results: begin{f' {name}' if name else ''} -->"
        close = nearest(name, [each for each in there if each]) if name else ""
        raise HadError(
            f"{page}: has no lines {begin} and <!-- had results: end --> to write between{close}"
        )
    page.write_text(
        _BLOCK.sub(lambda m: f"{m[1]}{text}\n{m[3]}" if m["name"] == name else m[0], before)
    )
