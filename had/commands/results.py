"""`had results`: tables and curves from the records of runs, printed or written into a page."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from had.errors import HadError
from had.results import formats
from had.results.page import write_into
from had.results.plots import plot_gap
from had.results.published import CAPTION, published_rows
from had.results.records import RECORD, read_records, record_name, where
from had.results.shown import VIEWS, tables
from had.results.tables import grid, show
from had.results.views import Rows

Records = Sequence[dict[str, Any]]


def main(argv: Sequence[str]) -> int:
    """`had results PLACE ...`; returns the exit status.

    Raises:
        HadError: a place holds no record, or a page has no place for the table.
    """
    arguments = _parser().parse_args(argv)
    records = where(read_records(arguments.places), arguments.where)
    if not records:
        passing = " that pass --where" if arguments.where else ""
        raise HadError(f"{', '.join(map(str, arguments.places))}: no records there{passing}")
    if arguments.collect:
        collect(arguments.places, arguments.collect)
    if arguments.plot:
        plot_gap(records, arguments.plot, arguments.x)
    if arguments.write:
        text = block(records, arguments, f"had results {' '.join(argv)}")
        write_into(arguments.write, text, arguments.block)
    elif not arguments.plot:
        ours = [table.rows for table in tables(arguments.by, records)]
        _PRINTERS[arguments.format]([*ours, *_others(records, arguments)])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="had results", description=__doc__)
    parser.add_argument("places", nargs="+", type=Path, help="records, run directories, folders")
    parser.add_argument(
        *("--where",),
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE,...",
        help="only these: task, model, binarization, schedule, n, seed, or a setting: task.context",
    )
    parser.add_argument(
        *("--by",),
        choices=list(VIEWS),
        default="task",
        help="a row for every task and recipe; for every recipe, with a column a task; or for "
        "every length of a text, with a column for every depth of the fact hidden in it",
    )
    parser.add_argument("--published", action="store_true", help="published rows below")
    parser.add_argument("--format", choices=list(_PRINTERS), default="table")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    parser.add_argument("--block", metavar="NAME", help="of the page: had results: begin NAME")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the gap: .svg or .png")
    parser.add_argument(
        *("--x",),
        default="n",
        metavar="KEY",
        help="against this number of the records: n, task.context, hw/had_cam/energy_ratio, ...",
    )
    parser.add_argument("--collect", type=Path, metavar="DIR", help="copy the records there")
    return parser


def collect(places: Sequence[Path], directory: Path) -> None:
    """Copy the records of run directories into one folder, under names that tell them apart."""
    directory.mkdir(parents=True, exist_ok=True)
    for place in places:
        (record,) = read_records([place])
        shutil.copyfile(place / RECORD, directory / record_name(record))


def block(records: Records, arguments: argparse.Namespace, command: str) -> str:
    """The tables as Markdown: what they show, where it was measured, the command."""
    ours = tables(arguments.by, records)
    captions = [table.caption for table in ours]
    captions[-1] += f" Made by `{command}`."
    parts = [
        *zip((table.rows for table in ours), captions, strict=True),
        *((other, CAPTION) for other in _others(records, arguments)),
    ]
    return "\n\n".join(f"{formats.markdown(rows)}\n\n{text}" for rows, text in parts)


def _others(records: Records, arguments: argparse.Namespace) -> list[Rows]:
    """What others have published of these tasks, where that was asked for."""
    if not arguments.published:
        return []
    return [published_rows(sorted({record["task"] for record in records}))]


def _as_text(convert: Callable[[Rows], str]) -> Callable[[Sequence[Rows]], None]:
    return lambda tables: _write("\n\n".join(map(convert, tables)))


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")


_PRINTERS: dict[str, Callable[[Sequence[Rows]], None]] = {
    "table": lambda tables: show(*(grid(*rows) for rows in tables)),
    "markdown": _as_text(formats.markdown),
    "csv": _as_text(formats.comma_separated),
}
