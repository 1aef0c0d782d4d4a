"""A worker: one process that imports torch once and runs point after point.

Imports nothing heavy by itself: how many threads and which devices there are is set first.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import shutil
import signal
import sys
import threading
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from had.config import register
from had.errors import HadError

log = logging.getLogger(__name__)

_KEPT_INPUTS = 8  # encoded data sets a worker holds on to
_LEFT_BEHIND = ("checkpoints", "student")  # what a recorded run no longer needs


@dataclass(frozen=True)
class Setting:
    """What a worker is given at its start.

    Attributes:
        log: the file for all that it and its runs say.
        threads: of the processor.
        device: for CUDA_VISIBLE_DEVICES; None leaves it as it is.
    """

    log: Path
    threads: int
    device: str | None = None


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
    DONE = auto()  # with the student's score as text
    FAILED = auto()  # with the reason
    INTERRUPTED = auto()


Report = tuple[Event, str]


def serve(jobs: connection.Connection, setting: Setting) -> None:
    """Run jobs from the connection, reporting on it, until None comes or the other end closes."""
    _settle(setting)
    from had.lightning.fit import Interrupted

    while (job := _received(jobs)) is not None:
        try:
            report = Event.DONE, _run(job, lambda: jobs.send((Event.TEACHER_READY, "")))
        except Interrupted as stop:
            report = Event.INTERRUPTED, str(stop)
        except HadError as error:
            log.error("%s", error)
            report = Event.FAILED, str(error)
        except Exception as error:  # one point must not take the others with it
            log.exception("%s", job.record.name)
            report = Event.FAILED, f"{type(error).__name__}: {error}"
        jobs.send(report)


def _received(jobs: connection.Connection) -> Job | None:
    try:
        job: Job | None = jobs.recv()
    except EOFError:
        return None
    return job


def _run(job: Job, teacher_ready: Any) -> str:
    """Run a point, leave its record, tidy up; the student's score as text."""
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
    return f"teacher {record['score/teacher']:.2f}, student {record['score/student']:.2f}"


def _cached_inputs(cfg: DictConfig) -> Any:
    """As `had.runner.load_inputs`, once for all points that read the same."""
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    read = {key: values[key] for key in ("task", "model", "teacher")}
    return _inputs(OmegaConf.to_yaml(OmegaConf.create(read), sort_keys=True))


@lru_cache(maxsize=_KEPT_INPUTS)
def _inputs(text: str) -> Any:
    from had.runner import load_inputs

    return load_inputs(OmegaConf.create(text))


def _settle(setting: Setting) -> None:
    """Own log, own share of the machine; signals reach training only; ends with its parent."""
    register()
    os.environ["OMP_NUM_THREADS"] = str(setting.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if setting.device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = setting.device
    _redirect(setting.log)
    # Ctrl-C reaches all processes of a terminal, but the parent decides who stops. During training
    # the checkpoint callback listens for both signals.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(setting.threads)


def _redirect(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", force=True)
    for name in ("pytorch_lightning", "lightning_fabric", "timm"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _end_with_parent() -> None:
    """A sweep that was killed leaves nobody behind who would write where the next one works."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
