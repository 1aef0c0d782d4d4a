"""Programs in processes of their own that need not import what every one of them needs.

To import torch, transformers and Lightning takes longer than most runs of the tests. A server of
`multiprocessing`'s does it once, and each program is a fork of it.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

DEADLINE_S = 600  # of a program that is waited for, on a busy machine

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.preloaded"])


class Forked:
    """A function in a process of its own, which is killed at the end of a `with` at the latest.

    What a library reads from the environment when it is imported (HF_HOME) it does not read again.

    Args:
        function: importable from a module; ends by returning, or by SystemExit with a status.
        arguments: for it.
        directory: where it works; None for that of this process.
        environment: None for that of this process.
    """

    def __init__(
        self,
        function: Callable[..., object],
        *arguments: object,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        place, variables = directory or Path.cwd(), dict(environment or os.environ)
        (out, their_out), (err, their_err) = (_CONTEXT.Pipe(duplex=False) for _ in range(2))
        begin = (place, variables, their_out, their_err, function, arguments)
        self._process = _CONTEXT.Process(target=_begin, args=begin)
        self._process.start()
        their_out.close()
        their_err.close()
        self.out, self.err = _Listener(out), _Listener(err)

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """The exit status, negative if a signal ended the process; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ended(self, within_s: float = DEADLINE_S) -> subprocess.CompletedProcess[str]:
        """Wait until it has ended, and whatever writes where it wrote.

        Raises:
            TimeoutError: it goes on.
        """
        texts = [heard.everything(within_s) for heard in (self.out, self.err)]
        self._process.join(within_s)
        if (status := self.poll()) is None:
            raise TimeoutError(f"process {self.pid} still runs after {within_s} s")
        return subprocess.CompletedProcess((), status, *texts)


def python(words: Sequence[str], **where: Any) -> Forked:
    """What `python WORDS` runs: `-m MODULE` or a file, and its arguments.

    Args:
        words: of the command line, without the interpreter.
        where: see `Forked`.
    """
    return Forked(_run_program, *words, **where)


class _Listener(threading.Thread):
    """Takes in what a process writes, so that it never waits for a reader."""

    def __init__(self, pipe: Connection) -> None:
        super().__init__(daemon=True)
        self._pipe, self._said = pipe, bytearray()
        self.start()

    def run(self) -> None:
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), 65_536):
                self._said += chunk

    @property
    def text(self) -> str:
        """What was said so far."""
        return self._said.decode(errors="replace")

    def everything(self, within_s: float) -> str:
        self.join(within_s)
        if self.is_alive():
            raise TimeoutError(f"still open after {within_s} s; said: {self.text}")
        return self.text


def _begin(
    place: Path,
    environment: dict[str, str],
    out: Connection,
    err: Connection,
    function: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    for pipe, standard in ((out, 1), (err, 2)):
        os.dup2(pipe.fileno(), standard)
        pipe.close()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(place)
    function(*arguments)


def _run_program(*words: str) -> None:
    module = words[1:] if words[0] == "-m" else None
    sys.argv = list(module or words)
    if module:
        runpy.run_module(module[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")
