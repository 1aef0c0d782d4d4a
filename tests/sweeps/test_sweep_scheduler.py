"""Who runs what when: teachers first, none of them twice."""

from __future__ import annotations

import random

from omegaconf import OmegaConf

from had.sweeps.points import Point
from had.sweeps.scheduler import Scheduler


def point(name: str, teacher: str | None) -> Point:
    return Point((), OmegaConf.create(), (), name, (name,), teacher)


def test_points_wait_for_the_teacher_that_another_one_trains() -> None:
    first, second = point("a1", "a"), point("a2", "a")
    scheduler = Scheduler([first, second])
    assert scheduler.next() is first
    assert scheduler.next() is None
    scheduler.teacher_ready(first)
    assert scheduler.next() is second
    assert scheduler.waiting == 0


def test_teachers_come_first() -> None:
    points = [point(name, name[0]) for name in ("a1", "a2", "b1", "b2")]
    scheduler = Scheduler(points)
    assert scheduler.next() is points[0]
    scheduler.teacher_ready(points[0])
    assert [scheduler.next() for _ in range(3)] == [points[2], points[1], None]


def test_points_with_a_given_teacher_wait_for_nobody() -> None:
    points = [point("x", None), point("y", None)]
    scheduler = Scheduler(points)
    assert [scheduler.next(), scheduler.next(), scheduler.next()] == [*points, None]


def test_another_one_takes_over_from_a_point_that_failed_before_its_teacher() -> None:
    first, second, third = (point(name, "a") for name in ("a1", "a2", "a3"))
    scheduler = Scheduler([first, second, third])
    assert scheduler.next() is first
    scheduler.failed(first)
    assert scheduler.next() is second
    assert scheduler.next() is None
    scheduler.teacher_ready(second)
    scheduler.failed(second)  # its student: the teacher stays
    assert scheduler.next() is third


def test_no_teacher_is_trained_twice_whatever_ends_when() -> None:
    """Random ends of random points on four workers; every point runs once."""
    generator = random.Random(0)
    for _ in range(50):
        points = [point(str(i), generator.choice("abc")) for i in range(20)]
        scheduler, running, taught, order = Scheduler(points), [], set(), []
        while len(order) < len(points) or running:
            while len(running) < 4 and (new := scheduler.next()) is not None:
                makes = new.teacher not in taught
                assert not makes or all(other.teacher != new.teacher for other in running)
                running.append(new)
                order.append(new)
            ended = running.pop(generator.randrange(len(running)))
            taught.add(ended.teacher)
            scheduler.teacher_ready(ended)
        assert sorted(order, key=lambda p: int(p.name)) == points
