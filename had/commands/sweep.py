"""`had sweep`: whole tables of runs, on several workers, continued wherever they stopped."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from had.commands.sweep_arguments import parse
from had.results.records import Identity, Record, identity_of, read_records
from had.results.shown import tables
from had.results.tables import grid as table
from had.results.tables import show
from had.sweeps.bayes import Bayes, value_of
from had.sweeps.claim import claimed
from had.sweeps.display import display
from had.sweeps.files import Metric, SweepFile, read_sweep
from had.sweeps.launchers import LAUNCHERS
from had.sweeps.points import Point, read_points
from had.sweeps.pool import Layout, Pool, Progress
from had.sweeps.search import Listed, Search, Space, drawn, grid

log = logging.getLogger(__name__)

_FAILED, _SIGNALLED = 1, 128  # the latter plus the signal's number
_COMBINATIONS = 20  # that random and bayes try where neither file nor command line says


def main(argv: Sequence[str]) -> int:
    """`had sweep [FILE.yaml] [experiment=NAME,...] [key=value ...]`; returns the exit status.

    Raises:
        HadError: a point cannot be run as configured; none was started.
    """
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    file = read_sweep(arguments.file) if arguments.file else None
    search = _search(file, arguments)
    known = _on_record(arguments.records)
    missing = [point for point in search.points if point.identity not in known]
    if arguments.dry_run:
        _list(search, missing)
        return 0
    log.info("%s", _counted(search, missing))
    progress, stopped_by = _run(search, missing, arguments)
    _show(search.points, arguments.records)
    if file is not None and file.metric is not None and file.method != "grid":
        _best(search.points, _on_record(arguments.records), file.metric)
    return _status(progress, stopped_by)


def _search(file: SweepFile | None, arguments: argparse.Namespace) -> Search:
    """Where the points come from."""
    if file is None:
        return Listed(read_points(arguments.overrides))
    return _SEARCHES[file.method](Space(file, arguments.overrides), file, arguments)


def _grid(space: Space, file: SweepFile, arguments: argparse.Namespace) -> Search:
    if arguments.points or file.cap:
        log.warning("%s: a grid has all of its points; --points, run_cap are ignored", file.path)
    return grid(space)


def _random(space: Space, file: SweepFile, arguments: argparse.Namespace) -> Search:
    return drawn(space, _combinations(file, arguments), arguments.search_seed)


def _bayes(space: Space, file: SweepFile, arguments: argparse.Namespace) -> Search:
    assert file.metric is not None, "read_sweep refuses such a file"
    count, seed = _combinations(file, arguments), arguments.search_seed
    known = partial(_on_record, arguments.records)
    return Bayes(space, file.metric, count, seed, arguments.runs, known)


def _combinations(file: SweepFile, arguments: argparse.Namespace) -> int:
    count: int = arguments.points or file.cap or _COMBINATIONS
    return count


_SEARCHES: Mapping[str, Callable[[Space, SweepFile, argparse.Namespace], Search]] = {
    "grid": _grid,
    "random": _random,
    "bayes": _bayes,
}
"""By the `method` of a sweep file."""


def _run(
    search: Search, missing: Sequence[Point], arguments: argparse.Namespace
) -> tuple[Progress, int | None]:
    layout = Layout(
        arguments.records,
        arguments.runs,
        arguments.workers,
        arguments.devices,
        arguments.keep_students,
    )
    launcher = LAUNCHERS[arguments.launcher]
    recorded = len(search.points) - len(missing)
    with claimed(layout.runs), launcher(layout, arguments.job) as hire, display() as shown:
        pool = Pool(missing, layout, recorded, shown, hire, search)
        return pool.run(), pool.stopped_by


def _on_record(folder: Path) -> dict[Identity, Record]:
    if not folder.is_dir():
        return {}
    return {identity_of(record): record for record in read_records([folder])}


def _counted(search: Search, missing: Sequence[Point]) -> str:
    text = f"{len(search.points)} points, {len(search.points) - len(missing)} of them on record"
    return text + (f"; {search.ahead} more to choose as results come in" if search.ahead else "")


def _list(search: Search, missing: Sequence[Point]) -> None:
    settings = [set(point.overrides) for point in search.points]
    common = set.intersection(*settings) if settings else set()
    rows = [
        [
            "" if point in missing else "on record",
            point.name,
            " ".join(text for text in point.overrides if text not in common),
        ]
        for point in search.points
    ]
    headers = ["", "point", "settings" if any(row[2] for row in rows) else ""]
    if rows:
        show(table(headers, rows))
    log.info("%s", _counted(search, missing))


def _show(points: Sequence[Point], folder: Path) -> None:
    """The table of what this sweep asked for."""
    wanted = {point.identity for point in points}
    recorded = read_records([folder]) if folder.is_dir() else []
    records = [each for each in recorded if identity_of(each) in wanted]
    if records:
        show(*(table(*each.rows) for each in tables("task", records)))


def _best(points: Sequence[Point], known: dict[Identity, Record], metric: Metric) -> None:
    """What a search found."""
    found = [(value_of(known[p.identity], metric), p) for p in points if p.identity in known]
    if found:
        choose = min if metric.goal == "minimize" else max
        value, point = choose(found, key=lambda each: each[0])
        log.info("best: %s = %.4g with %s", metric.name, value, " ".join(point.texts))


def _status(progress: Progress, signal: int | None) -> int:
    for point, reason in progress.failed:
        log.error("failed: %s: %s", " ".join(point.texts), reason)
    if signal is not None:
        log.warning("interrupted; the same command continues")
        return _SIGNALLED + signal
    return _FAILED if progress.failed else 0
