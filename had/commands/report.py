"""`had report`: runs as one page, HTML and Markdown, with tables, curves and figures."""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from had.commands.inspection import inspect
from had.errors import HadError
from had.results.report.build import MARKDOWN, PAGE, build, write
from had.results.report.heads import Inspection
from had.results.report.runs import Group, groups_of, read_runs

log = logging.getLogger(__name__)

NOTE = """\
Run directories give all sections; records alone give scores, agreement and energy, and the page
says what is missing. The students' bits are counted on a few evaluation batches."""


def main(argv: Sequence[str]) -> int:
    """`had report RUN ... --out DIR`; returns the exit status.

    Raises:
        HadError: a place holds no record, or a run directory is damaged.
    """
    parser = argparse.ArgumentParser(prog="had report", description=__doc__, epilog=NOTE)
    parser.add_argument("places", nargs="+", type=Path, metavar="RUN", help=_PLACES)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="written there")
    parser.add_argument("--no-bits", action="store_true", help="load no students and no data")
    arguments = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    runs = read_runs(arguments.places)
    groups = groups_of(runs)
    inspections = {} if arguments.no_bits else _inspections(groups)
    report = build(runs, groups, inspections, f"had report {shlex.join(argv)}")
    write(report, arguments.out)
    log.info("%s\n%s", arguments.out / PAGE, arguments.out / MARKDOWN)
    return 0


_PLACES = "run directories, records, or folders of either"


def _inspections(groups: Sequence[Group]) -> dict[str, Inspection]:
    """One student a group: seeds look alike, and each takes a model's time to load."""
    found = {}
    for group in groups:
        for directory in [run.directory for run in group.runs if run.directory is not None][:1]:
            try:
                found[group.name] = inspect(directory)
            except HadError as error:  # a report on the others is worth more than none
                log.warning("%s: its student is left out: %s", directory, error)
    return found
