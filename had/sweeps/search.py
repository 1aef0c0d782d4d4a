"""Searches: where the points of a sweep come from."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from had.sweeps.files import SweepFile
from had.sweeps.parameters import Choice, Parameter
from had.sweeps.points import Point, read_lines
from had.sweeps.pool import Progress

log = logging.getLogger(__name__)

_TRIES = 100  # draws for each combination that is wanted; a small grid repeats itself


class Search(Protocol):
    """Gives points, all at once or as results come in.

    Attributes:
        points: those it has given.
        ahead: how many combinations it has yet to choose.
    """

    points: list[Point]

    @property
    def ahead(self) -> int: ...

    def more(self, progress: Progress) -> Sequence[Point]:
        """Points to run next, now that workers are idle; none where `ahead` is 0."""


class Listed:
    """A search whose points are known before the first one starts."""

    ahead = 0

    def __init__(self, points: Sequence[Point]) -> None:
        self.points = list(points)

    def more(self, progress: Progress) -> Sequence[Point]:
        return ()


class Space:
    """What a sweep file leaves to a search, once the command line has replaced its part.

    Attributes:
        parameters: those that the command line does not set.
        fixed: overrides that every point has; some may list several values, all of them run.
    """

    def __init__(self, file: SweepFile, given: Sequence[str]) -> None:
        keys = {key_of(text) for text in given}
        self.parameters: Mapping[str, Parameter] = {
            key: parameter for key, parameter in file.parameters.items() if key not in keys
        }
        self.fixed = [text for text in file.overrides if key_of(text) not in keys] + [*given]

    def line(self, values: Mapping[str, str]) -> list[str]:
        """The command line of one combination of values."""
        return [*(f"{key}={value}" for key, value in values.items()), *self.fixed]


def key_of(text: str) -> str:
    """What an override sets."""
    return text.partition("=")[0]


def grid(space: Space) -> Listed:
    """The product of all values, the last key fastest.

    Raises:
        HadError: a point cannot be run as configured.
    """
    listed = {
        key: ",".join(parameter.values)
        for key, parameter in space.parameters.items()
        if isinstance(parameter, Choice)
    }
    return Listed(read_lines([space.line(listed)]))


def drawn(space: Space, count: int, seed: int) -> Listed:
    """Different combinations, drawn at random.

    Args:
        space: what they are drawn from.
        count: how many; fewer where there are no more.
        seed: the same one draws the same combinations, and the first of a larger count.

    Raises:
        HadError: a point cannot be run as configured.
    """
    generator = random.Random(seed)
    found: dict[tuple[str, ...], list[str]] = {}
    for _ in range(_TRIES * count):
        values = {key: each.draw(generator) for key, each in space.parameters.items()}
        found.setdefault(tuple(values.values()), space.line(values))
        if len(found) == count:
            break
    if len(found) < count:
        log.warning("%d combinations drawn, not %d: there are no more", len(found), count)
    return Listed(read_lines(found.values()))
