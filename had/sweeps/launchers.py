"""Who runs the points: workers of this machine, or jobs that something else puts somewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from had.errors import HadError
from had.sweeps.claim import claimed
from had.sweeps.local import LocalWorker
from had.sweeps.points import Point
from had.sweeps.pool import Layout, Worker
from had.sweeps.worker import Event, Job, Report, report, settle

Hire = Callable[[int], Worker]
Options = Mapping[str, Any]

_MINUTES = 24 * 60  # that a job may take unless told otherwise


class Handle(Protocol):
    """A submitted job: a future of joblib's, or a job of submitit's."""

    def done(self) -> bool: ...

    def result(self) -> Any: ...

    def cancel(self) -> Any: ...


@dataclass(frozen=True)
class Submission:
    """What is submitted: one point, run by a process that knows nothing of the sweep."""

    job: Job

    def __call__(self) -> Report:
        settle()
        directory = Path(self.job.cfg.run_dir)
        try:
            with claimed(directory):  # a job of a sweep that was killed may still be at it
                return report(self.job)
        except HadError as error:
            return Event.FAILED, str(error)

    def checkpoint(self) -> Any:
        """What submitit queues in place of a job that ran out of time: it continues."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class SubmittedWorker:
    """Submits its points one after the other, each as a job of its own."""

    jobs = None  # it has to be asked
    lives = True

    def __init__(
        self,
        number: int,
        log: Path,
        submit: Callable[[Submission], Handle],
        stop: Callable[[Handle], Any],
    ) -> None:
        self.number, self.log = number, log
        self.point: Point | None = None
        self._submit, self._stop = submit, stop
        self._handle: Handle | None = None

    def give(self, point: Point, job: Job) -> None:
        self._handle = self._submit(Submission(job))
        self.point = point

    def reports(self) -> Iterator[Report]:
        if self._handle is None or not self._handle.done():
            return
        handle, self._handle = self._handle, None
        try:
            yield handle.result()
        except Exception as error:  # whatever ended the process: the log has all of it
            yield Event.FAILED, f"its job ended: {type(error).__name__}"

    def stop(self) -> None:
        if self._handle is not None:
            self._stop(self._handle)

    def end(self) -> None:
        if self._handle is not None and not self._handle.done():
            self._handle.cancel()


@contextmanager
def local(layout: Layout, options: Options) -> Iterator[Hire]:
    """Processes of this machine, each with its share of processors and its device."""
    yield lambda number: LocalWorker(number, layout)


@contextmanager
def joblib(layout: Layout, options: Options) -> Iterator[Hire]:
    """joblib's own processes (loky), which say what they say on this terminal.

    Raises:
        HadError: joblib is not installed.
    """
    try:
        from joblib.externals import loky
    except ImportError as error:
        raise HadError("--launcher joblib needs joblib: pip install joblib") from error
    executor = loky.ProcessPoolExecutor(max_workers=layout.workers, env=layout.environment(0))

    def stop(handle: Handle) -> None:
        for process in list(executor._processes.values()):
            process.terminate()  # training listens, and leaves a checkpoint

    try:
        yield lambda number: SubmittedWorker(number, layout.runs, executor.submit, stop)
    finally:
        executor.shutdown(wait=True, kill_workers=True)


@contextmanager
def slurm(layout: Layout, options: Options, cluster: str = "slurm") -> Iterator[Hire]:
    """Slurm's jobs, through submitit; one that runs out of time is queued again and continues.

    Args:
        layout: `workers` is the number of jobs queued or running at a time.
        options: of `submitit.AutoExecutor.update_parameters`, such as `slurm_partition`.
        cluster: submitit's name of what runs the jobs.

    Raises:
        HadError: submitit is not installed, there is no such cluster, or an option is not one.
    """
    try:
        import submitit
    except ImportError as error:
        raise HadError('--launcher slurm needs submitit: pip install "had[cluster]"') from error
    logs = layout.runs / "jobs"
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=cluster)
        executor.update_parameters(**{"name": "had", "timeout_min": _MINUTES, **options})
    except (RuntimeError, NameError, TypeError, ValueError) as error:
        raise HadError(f"--launcher slurm: {error}") from error
    yield lambda number: SubmittedWorker(number, logs, executor.submit, lambda job: job.cancel())


LAUNCHERS: dict[str, Callable[[Layout, Options], AbstractContextManager[Hire]]] = {
    "local": local,
    "joblib": joblib,
    "slurm": slurm,
}
