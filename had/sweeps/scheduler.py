"""Which point comes next: teachers first, and no teacher twice."""

from __future__ import annotations

from collections.abc import Sequence

from had.sweeps.points import Point


class Scheduler:
    """Hands out points so that no two workers train the same teacher.

    The first point of a group with a common teacher trains it; the others wait until it is in the
    cache. Groups without a teacher are begun first, so that theirs is ready when the others come
    up. Should the first point of a group fail before its teacher is there, the next one takes over.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self._waiting = list(points)
        self._training: dict[str, Point] = {}  # teacher to the point that makes it
        self._taught: set[str] = set()

    @property
    def waiting(self) -> int:
        """Points that nobody has taken yet."""
        return len(self._waiting)

    def add(self, points: Sequence[Point]) -> None:
        """Further points, after those that wait."""
        self._waiting.extend(points)

    def next(self) -> Point | None:
        """A point to start now; None if there is none, or none before a teacher is ready."""
        for point in self._waiting:
            if point.teacher is not None and self._unbegun(point.teacher):
                self._training[point.teacher] = point
                return self._take(point)
        for point in self._waiting:
            if point.teacher is None or point.teacher in self._taught:
                return self._take(point)
        return None

    def teacher_ready(self, point: Point) -> None:
        """The teacher of a point is in the cache."""
        if point.teacher is not None:
            self._training.pop(point.teacher, None)
            self._taught.add(point.teacher)

    def failed(self, point: Point) -> None:
        """A point ended without a record; another one may have to train its teacher."""
        if point.teacher is not None and self._training.get(point.teacher) is point:
            del self._training[point.teacher]

    def _unbegun(self, teacher: str) -> bool:
        return teacher not in self._taught and teacher not in self._training

    def _take(self, point: Point) -> Point:
        self._waiting.remove(point)
        return point
