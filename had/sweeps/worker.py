"""A worker: one process that imports torch once and runs point after point.

A program of its own, `python -m had.sweeps DESCRIPTOR`: how many threads and which devices
there are stands in its environment before anything is imported, its output is its log, and its
input is a lifeline to the sweep that started it.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from multiprocessing import connection
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from had.config import register
from had.config.quiet import TALKATIVE
from had.errors import HadError
from had.lean_imports import lean_imports

log = logging.getLogger(__name__)

_KEPT_INPUTS = 8  # encoded data sets a worker holds on to
_LEFT_BEHIND = ("checkpoints", "student")  # what a recorded run no longer needs


@dataclass(frozen=True)
class Job:
    """One point, ready to run.

    Attributes:
        cfg: with its run directory and resume=auto.
        overrides: for the record.
        record: the file to write it to.
        keep_student: whether weights and checkpoints stay in the run directory.
    """

    cfg: DictConfig
    overrides: tuple[str, ...]
    record: Path
    keep_student: bool


class Event(Enum):
    """What a worker reports of its job."""

    TEACHER_READY = auto()
    DONE = auto()  # with its scores
    FAILED = auto()  # with the reason
    INTERRUPTED = auto()


Report = tuple[Event, str]


def main() -> None:
    """Run jobs from the given connection until None comes or the other end closes."""
    settle()
    threading.Thread(target=_end_with_sweep, daemon=True).start()
    with connection.Connection(int(sys.argv[1])) as jobs:
        while (job := _received(jobs)) is not None:
            jobs.send(report(job, lambda: jobs.send((Event.TEACHER_READY, ""))))


def report(job: Job, teacher_ready: Callable[[], None] = lambda: None) -> Report:
    """Run a job and say how it ended; no end of one takes the others with it."""
    with lean_imports():
        from had.lightning.fit import Interrupted

    try:
        return Event.DONE, _run(job, teacher_ready)
    except Interrupted as stop:
        return Event.INTERRUPTED, str(stop)
    except HadError as error:
        log.error("%s", error)
        return Event.FAILED, str(error)
    except Exception as error:
        log.exception("%s", job.record.name)
        return Event.FAILED, f"{type(error).__name__}: {error}"


def _received(jobs: connection.Connection) -> Job | None:
    try:
        job: Job | None = jobs.recv()
    except EOFError:
        return None
    return job


def _run(job: Job, teacher_ready: Callable[[], None]) -> str:
    """Run a point, leave its record, tidy up; its scores as text."""
    from had.results.measures import measure_of
    from had.results.record import write_json
    from had.results.records import RECORD, read_records
    from had.runner import run

    log.info("---- %s", job.record.stem)
    run(job.cfg, overrides=job.overrides, inputs=_cached_inputs, teacher_ready=teacher_ready)
    directory = Path(job.cfg.run_dir)
    (record,) = read_records([directory / RECORD])
    write_json(job.record, record)
    if not job.keep_student:
        for name in _LEFT_BEHIND:
            shutil.rmtree(directory / name, ignore_errors=True)
    text = measure_of(record).text
    return f"teacher {text(record['score/teacher'])}, student {text(record['score/student'])}"


def _cached_inputs(cfg: DictConfig) -> Any:
    """As `had.inputs.load_inputs`, once for all points that read the same."""
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    read = {key: values[key] for key in ("task", "model", "teacher")}
    return _inputs(OmegaConf.to_yaml(OmegaConf.create(read), sort_keys=True))


@lru_cache(maxsize=_KEPT_INPUTS)
def _inputs(text: str) -> Any:
    from had.inputs import load_inputs

    return load_inputs(OmegaConf.create(text))


def settle() -> None:
    """Prepare a process for running jobs."""
    register()
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s")
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Outside of training, where the checkpoint callback listens, there is nothing to save.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def _end_with_sweep() -> None:
    """A sweep that was killed leaves nobody behind who would write where the next one works."""
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written there: it returns when it closes
    os._exit(1)
