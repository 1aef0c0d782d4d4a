"""Signals that end a run: noted when they come, obeyed when the step in progress is done."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

_ENDING = (signal.SIGINT, signal.SIGTERM)
_OF_CLUSTERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """Listens for SIGINT and SIGTERM, and in a job of submitit for what submitit listens for.

    submitit lets SIGTERM pass, which Slurm also sends to a job that it will start again, and hands
    the job back to its queue on another signal (SIGUSR2). Its handlers are remembered: they are
    called by `pass_on`, when there is a checkpoint, and decide what becomes of the run.

    Attributes:
        number: of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._submitits: dict[int, Callable[[int, Any], Any]] = {}
        self._before: dict[int, Any] = {}

    def look(self) -> None:
        """Remember submitit's handlers; to be called before Lightning installs its own."""
        if "SUBMITIT_EXECUTOR" in os.environ:
            handlers = {number: signal.getsignal(number) for number in _OF_CLUSTERS}
            self._submitits = {n: each for n, each in handlers.items() if callable(each)}

    def listen(self) -> None:
        """Note signals from now on."""
        for number in {*_ENDING, *self._submitits}:
            self._before[number] = signal.signal(number, self._note)

    def restore(self) -> None:
        """Put back the handlers that were there before `listen`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def pass_on(self, number: int) -> bool:
        """Call submitit's handler; False if there is none. It need not return."""
        if number not in self._submitits:
            return False
        self.number = None
        self._submitits[number](number, None)
        return True

    def _note(self, number: int, frame: Any) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        log.warning("signal %d: saving a checkpoint after this step, then stopping", number)
        self.number = number
