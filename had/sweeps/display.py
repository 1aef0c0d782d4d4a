"""A live table on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from had.sweeps.pool import Display, Progress

log = logging.getLogger(__name__)

_MINUTE_S = 60  # between two summaries in a log


def counts(progress: Progress) -> str:
    """Done, running, waiting and failed points, and how long it will take."""
    left = progress.remaining_s
    parts = [
        f"{progress.recorded + len(progress.done)} on record",
        f"{len(progress.running)} running",
        f"{progress.waiting} waiting",
        f"{len(progress.failed)} failed",
    ]
    return ", ".join(parts) + ("" if left is None else f", about {left / 60:.0f} min to go")


class LogLines:
    """One line an event, and the counts once a minute."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def event(self, text: str) -> None:
        log.info("%s", text)

    def refresh(self, progress: Progress) -> None:
        if time.monotonic() - self._last >= _MINUTE_S:
            self._last = time.monotonic()
            log.info("%s", counts(progress))


class LiveTable:
    """The counts and what every worker is at, rewritten in place; events scroll by above."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def event(self, text: str) -> None:
        self._live.console.print(text, highlight=False, markup=False)

    def refresh(self, progress: Progress) -> None:
        table = Table(title=counts(progress), title_justify="left")
        for column in ("worker", "point", "s"):
            table.add_column(column, justify="right" if column == "s" else "left")
        for number, (point, since) in sorted(progress.running.items()):
            table.add_row(str(number), point.name, f"{time.monotonic() - since:.0f}")
        self._live.update(table)


@contextmanager
def display() -> Iterator[Display]:
    """The display that suits standard error."""
    if not sys.stderr.isatty():
        yield LogLines()
        return
    with Live(console=Console(stderr=True), refresh_per_second=4) as live:
        yield LiveTable(live)
