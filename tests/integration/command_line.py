"""The command line as a user calls it: in this process, in a fork, or in a process started anew."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from had.cli import main
from tests.forked import Forked, python

ROOT = Path(__file__).parents[2]
TEXT = (
    *("model=transformers", "trainer=cpu", "trainer.enable_progress_bar=false", "logger=none"),
    *("task.epochs=1", "task.batch_size=8", "task.max_length=32", "sparsity.n=4"),
    *("binarization.calibration_batches=2", "hardware=none"),
)
"""Overrides that make a run on text take a second."""


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: exit status.
        out: what it wrote to standard output.
        err: what it wrote to standard error, line by line, without empty ones.
    """

    status: int
    out: str
    err: list[str]


def overrides(*given: str, base: tuple[str, ...] = TEXT) -> list[str]:
    """`base` and `given`; of two for the same key the later one."""
    return list({text.partition("=")[0]: text for text in (*base, *given)}.values())


def called(read: Callable[[], tuple[str, str]], *arguments: str) -> Ended:
    """Run `had <arguments>` in this process; `read` gives what was written since it was asked."""
    read()
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = read()
    return Ended(status, out, _lines(err))


def spawned(*arguments: str, **environment: str) -> Ended:
    """Run `had <arguments>` in a process of its own, with further environment variables."""
    with forked(*arguments, **environment) as process:
        done = process.ended()
    return Ended(done.returncode, done.stdout, _lines(done.stderr))


def forked(*arguments: str, **environment: str) -> Forked:
    """Begin `had <arguments>` in a process of its own, with further environment variables."""
    return python(command(*arguments)[1:], environment=variables(environment))


def started_anew(*arguments: str, **environment: str) -> Ended:
    """As `spawned`, for variables that libraries read when they are imported."""
    done = subprocess.run(
        command(*arguments),
        env=variables(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout, _lines(done.stderr))


def command(*arguments: str) -> list[str]:
    """The words of `had <arguments>`, whether or not the console script is installed."""
    return [sys.executable, "-m", "had.cli", *arguments]


def variables(further: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with `further`, and this source tree first on the path."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **further}


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]
