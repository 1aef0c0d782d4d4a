"""`had sweep`: whole tables of runs, on several workers, continued wherever they stopped."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from had.results.records import identity_of, read_records
from had.results.tables import grid, show
from had.results.views import long_rows
from had.sweeps.claim import claimed
from had.sweeps.display import display
from had.sweeps.points import Point, read_points
from had.sweeps.pool import Layout, Pool, Progress

log = logging.getLogger(__name__)

_FAILED, _SIGNALLED = 1, 128  # the latter plus the signal's number


def main(argv: Sequence[str]) -> int:
    """`had sweep experiment=NAME,... [key=value ...]`; returns the exit status.

    Raises:
        HadError: a point cannot be run as configured; none was started.
    """
    parser = _parser()
    arguments = parser.parse_intermixed_args(argv)
    if not arguments.overrides:
        parser.error("nothing to run: give experiment=NAME or key=value,value")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    points = read_points(arguments.overrides)
    known = _on_record(arguments.records)
    missing = [point for point in points if point.identity not in known]
    if arguments.dry_run:
        _list(points, missing)
        return 0
    layout = Layout(
        arguments.records,
        arguments.runs,
        arguments.workers,
        arguments.devices.split(",") if arguments.devices else (),
        arguments.keep_students,
    )
    log.info("%d points, %d of them on record", len(points), len(points) - len(missing))
    with claimed(arguments.runs), display() as shown:
        pool = Pool(missing, layout, len(points) - len(missing), shown)
        progress = pool.run()
    _show(points, arguments.records)
    return _status(progress, pool.stopped_by)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="had sweep",
        description=__doc__,
        epilog="example: had sweep experiment=glue/headline seed=0 --records results/glue",
    )
    parser.add_argument(
        "overrides", nargs="*", help="experiment=NAME,... and key=value,value: as train.py -m"
    )
    parser.add_argument(
        *("--records", "-o"), type=Path, required=True, metavar="DIR", help="folder of records"
    )
    parser.add_argument("--workers", type=_count, default=1, metavar="K", help="processes (1)")
    parser.add_argument("--devices", metavar="0,1", help="GPUs to deal out to the workers")
    parser.add_argument(
        *("--runs",),
        type=Path,
        default=Path("outputs/sweep"),
        metavar="DIR",
        help="run directories and the workers' logs (outputs/sweep)",
    )
    parser.add_argument(
        *("--keep-students",),
        action="store_true",
        help="keep checkpoints and weights of recorded points, too",
    )
    parser.add_argument("--dry-run", action="store_true", help="list the points, run nothing")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return int(text)


def _on_record(folder: Path) -> set[object]:
    if not folder.is_dir():
        return set()
    return {identity_of(record) for record in read_records([folder])}


def _list(points: Sequence[Point], missing: Sequence[Point]) -> None:
    rows = [[("" if point in missing else "on record"), point.name] for point in points]
    show(grid(["", "point"], rows))
    log.info("%d points, %d of them on record", len(points), len(points) - len(missing))


def _show(points: Sequence[Point], folder: Path) -> None:
    """The table of what this sweep asked for."""
    wanted = {point.identity for point in points}
    recorded = read_records([folder]) if folder.is_dir() else []
    records = [each for each in recorded if identity_of(each) in wanted]
    if records:
        show(grid(*long_rows(records)))


def _status(progress: Progress, signal: int | None) -> int:
    for point, reason in progress.failed:
        log.error("failed: %s: %s", " ".join(point.texts), reason)
    if signal is not None:
        log.warning("interrupted; the same command continues")
        return _SIGNALLED + signal
    return _FAILED if progress.failed else 0
