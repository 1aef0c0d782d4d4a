"""How the user is told what is wrong: the nearest name, the numbered list."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_ALIKE = 0.72  # of 1: "bret" is bert, "glue/x" is not glue/rte


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean X?", or nothing when nothing known is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=_ALIKE)
    return f"; did you mean {close[0]}?" if close else ""


def one_of(word: object, known: Iterable[str]) -> str:
    """ "one of a, b, c; did you mean b?"."""
    names = list(known)
    return f"one of {', '.join(names)}{nearest(str(word), names)}"


def numbered(problems: Sequence[str]) -> str:
    """All problems as one message; a problem of several lines is indented under its number."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [
        f"  {number}. " + problem.replace("\n", "\n     ")
        for number, problem in enumerate(problems, start=1)
    ]
    return "\n".join([f"{count} in the configuration; nothing was started:", *lines])
