"""Worker processes and the loop that keeps them busy."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any, Protocol

from had.sweeps.points import Point
from had.sweeps.scheduler import Scheduler
from had.sweeps.worker import Event, Job, Report

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]
_TICK_S = 0.5  # between two looks at the clock when nothing is reported


@dataclass
class Progress:
    """How far a sweep is.

    Attributes:
        recorded: points that were on record before.
        waiting: points that nobody has taken yet.
        running: worker number to point and the time it was begun.
        done: points finished by this sweep.
        failed: points and why they failed.
        durations: seconds of each finished point.
        workers: how many there are.
    """

    recorded: int
    waiting: int
    workers: int
    running: dict[int, tuple[Point, float]] = field(default_factory=dict)
    done: list[Point] = field(default_factory=list)
    failed: list[tuple[Point, str]] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the end if points keep taking what they took; None before the first."""
        if not self.durations:
            return None
        usual = sum(self.durations) / len(self.durations)
        begun = sum(min(time.monotonic() - since, usual) for _, since in self.running.values())
        return max(0.0, usual * (self.waiting + len(self.running)) - begun) / self.workers


class Display(Protocol):
    """Shows progress."""

    def event(self, text: str) -> None:
        """Something happened to a point."""

    def refresh(self, progress: Progress) -> None:
        """Time has passed."""


@dataclass(frozen=True)
class Layout:
    """Where a sweep works.

    Attributes:
        records: folder of records.
        runs: folder of run directories and logs.
        workers: processes.
        devices: for CUDA_VISIBLE_DEVICES, dealt out in turn; empty: all see what is visible.
        keep_students: whether weights and checkpoints of recorded points stay.
    """

    records: Path
    runs: Path
    workers: int = 1
    devices: Sequence[str] = ()
    keep_students: bool = False

    def job(self, point: Point) -> Job:
        """A point with its own stable directory, which it continues in after an interruption."""
        cfg = point.cfg.copy()
        cfg.run_dir = str((self.runs / point.name).absolute())
        cfg.resume = "auto"
        cfg.trainer.enable_progress_bar = False
        record = self.records / f"{point.name}.json"
        return Job(cfg, point.overrides, record, self.keep_students)

    def environment(self, number: int) -> dict[str, str]:
        """Of a worker: its device, this package, and its share of the processors if none is set."""
        threads = str(max(1, (os.cpu_count() or 1) // self.workers))
        shares = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
        path = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        own = {"PYTHONPATH": os.pathsep.join(path)}
        if self.devices:
            own["CUDA_VISIBLE_DEVICES"] = self.devices[number % len(self.devices)]
        return {**shares, **os.environ, **own}

    def log(self, number: int) -> Path:
        """Of a worker."""
        return self.runs / f"worker{number}.log"


class Worker(Protocol):
    """Runs one point after the other, somewhere.

    Attributes:
        number: counted from 0.
        log: where to read what it says.
        point: the one it has.
        jobs: ready to read when there is a report; None if it has to be asked.
    """

    number: int
    log: Path
    point: Point | None
    jobs: Any

    @property
    def lives(self) -> bool: ...

    def give(self, point: Point, job: Job) -> None:
        """Begin a point; BrokenPipeError or ConnectionResetError if it ended while idle."""

    def reports(self) -> Iterator[Report]:
        """What it has to say of its point since it was asked last."""

    def stop(self) -> None:
        """End the point in progress, with a checkpoint."""

    def end(self) -> None:
        """No more points; returns when it is gone."""


class Source(Protocol):
    """Where further points come from; see `had.sweeps.search.Search`."""

    @property
    def ahead(self) -> int: ...

    def more(self, progress: Progress) -> Sequence[Point]: ...


class Pool:
    """Runs points on workers until none is left or a signal comes.

    Args:
        points: those that are not on record.
        layout: where.
        recorded: how many others are on record.
        display: shows progress.
        hire: makes the worker of a number.
        source: asked for further points when workers would be idle.
    """

    def __init__(
        self,
        points: Sequence[Point],
        layout: Layout,
        recorded: int,
        display: Display,
        hire: Callable[[int], Worker],
        source: Source,
    ) -> None:
        self._layout, self._display = layout, display
        self._hire, self._source = hire, source
        self._scheduler = Scheduler(points)
        self._workers: dict[int, Worker] = {}
        waiting = len(points) + source.ahead
        self._count = min(layout.workers, waiting)
        self.progress = Progress(recorded, waiting, max(1, self._count))
        self.stopped_by: int | None = None

    def run(self) -> Progress:
        """Work until the end; `stopped_by` tells whether a signal ended it early."""
        with self._listening():
            for number in range(self._count):
                self._workers[number] = self._hire(number)
            try:
                while self._assign():
                    self._wait()
            finally:
                for worker in self._workers.values():
                    worker.end()
        return self.progress

    def _assign(self) -> bool:
        """Give points to idle workers; whether any is still at work."""
        for worker in self._workers.values():
            if worker.point is None and self.stopped_by is None:
                point = self._next()
                if point is not None:
                    self._begin(worker, point)
        self.progress.waiting = self._scheduler.waiting + self._source.ahead
        self._display.refresh(self.progress)
        return bool(self.progress.running)

    def _next(self) -> Point | None:
        if not self._scheduler.waiting:
            self._scheduler.add(self._source.more(self.progress))
        return self._scheduler.next()

    def _begin(self, worker: Worker, point: Point) -> None:
        try:
            worker.give(point, self._layout.job(point))
        except (BrokenPipeError, ConnectionResetError):  # it ended while it was idle
            worker = self._replace(worker)
            worker.give(point, self._layout.job(point))
        self.progress.running[worker.number] = point, time.monotonic()

    def _wait(self) -> None:
        busy = [worker for worker in self._workers.values() if worker.point]
        connection.wait([w.jobs for w in busy if w.jobs is not None], timeout=_TICK_S)
        for worker in busy:
            for event, text in worker.reports():
                self._heard(worker, event, text)

    def _heard(self, worker: Worker, event: Event, text: str) -> None:
        point = worker.point
        if point is None:
            return
        if event is Event.TEACHER_READY:
            self._scheduler.teacher_ready(point)
            return
        _, since = self.progress.running.pop(worker.number)
        worker.point = None
        seconds = time.monotonic() - since
        if event is Event.DONE:
            self._scheduler.teacher_ready(point)
            self.progress.done.append(point)
            self.progress.durations.append(seconds)
            self._display.event(f"done    {point.name} ({text}, {seconds:.0f} s)")
        elif self.stopped_by is None:  # failed, or somebody stopped this worker alone
            self._scheduler.failed(point)
            self.progress.failed.append((point, f"{text} (log: {worker.log})"))
            self._display.event(f"failed  {point.name}: {text} (log: {worker.log})")
        if not worker.lives and self.stopped_by is None:
            self._replace(worker)

    def _replace(self, worker: Worker) -> Worker:
        worker.end()
        fresh = self._hire(worker.number)
        self._workers[worker.number] = fresh
        return fresh

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """SIGINT and SIGTERM stop the workers at their next step; a second one ends at once."""
        before = {n: signal.signal(n, self._stop) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: Any) -> None:
        if self.stopped_by is not None:
            raise KeyboardInterrupt
        self.stopped_by = number
        for worker in self._workers.values():
            worker.stop()
