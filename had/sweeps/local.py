"""Workers on this machine: the usual ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import connection

from had.sweeps.points import Point
from had.sweeps.pool import Layout
from had.sweeps.worker import Event, Job, Report


class LocalWorker:
    """One process of this machine that takes point after point, and dies with the sweep."""

    def __init__(self, number: int, layout: Layout) -> None:
        self.number, self.log = number, layout.log(number)
        self.jobs, theirs = connection.Pipe()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "had.sweeps", str(theirs.fileno())],
                stdin=subprocess.PIPE,  # its end is the end of the worker
                stdout=log,
                stderr=log,
                env=layout.environment(number),
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C reaches the sweep alone, which decides who stops
            )
        theirs.close()  # so that the end of the process is the end of the connection
        self.point: Point | None = None

    def give(self, point: Point, job: Job) -> None:
        self.jobs.send(job)
        self.point = point

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        self.process.terminate()

    def end(self) -> None:
        """Close its input and output, and wait: an idle worker ends at once."""
        self.jobs.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def reports(self) -> Iterator[Report]:
        """What it has to say; a process that ended says that its point failed."""
        try:
            while self.jobs.poll():
                yield self.jobs.recv()
        except (EOFError, ConnectionResetError):
            yield Event.FAILED, f"its worker ended with status {self.process.wait()}"
