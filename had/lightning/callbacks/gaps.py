"""How long a device had nothing to do between the steps of a training run."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

import torch


class Gaps(Protocol):
    """Adds up the time between the end of every step and the beginning of the next."""

    def begin(self) -> None:
        """A step has ended."""

    def end(self) -> None:
        """The next step's batch has arrived; nothing where no step ended before."""

    def drop(self) -> None:
        """What follows the last step is no gap."""

    def seconds(self) -> float:
        """Of all gaps so far; the device must have done everything asked of it."""


class HostGaps:
    """By the host's clock, for devices that do what they are asked at once."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._seconds = 0.0

    def begin(self) -> None:
        self._begun = time.perf_counter()

    def end(self) -> None:
        if self._begun is not None:
            self._seconds += time.perf_counter() - self._begun
            self._begun = None

    def drop(self) -> None:
        self._begun = None

    def seconds(self) -> float:
        return self._seconds


class CudaGaps:
    """By the device's clock: the host runs ahead, and where it waits says nothing of the device.

    Between the last kernel of a step and the arrival of the next batch a busy device copies the
    batch, no more; one that the host keeps waiting is idle.
    """

    def __init__(self) -> None:
        self._begun: torch.cuda.Event | None = None
        self._open: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._seconds = 0.0

    def begin(self) -> None:
        self._begun = _now()

    def end(self) -> None:
        if self._begun is not None:
            self._open.append((self._begun, _now()))
            self._begun = None
            self._collect()

    def drop(self) -> None:
        self._begun = None

    def seconds(self) -> float:
        self._collect()
        return self._seconds

    def _collect(self) -> None:
        while self._open and self._open[0][1].query():
            begun, ended = self._open.popleft()
            self._seconds += begun.elapsed_time(ended) / 1000


def _now() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
