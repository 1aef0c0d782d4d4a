"""`had results`: tables from the records of runs, printed or written into a Markdown page."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from had.errors import HadError
from had.results.records import mean_drops, read_records, record_name, results_rows

BEGIN, END = "<!-- had results: begin -->", "<!-- had results: end -->"


def main(argv: Sequence[str]) -> int:
    """`had results PLACE ...`; returns the exit status.

    Raises:
        HadError: a place holds no record, or a page has no place for the table.
    """
    parser = argparse.ArgumentParser(prog="had results", description=__doc__)
    parser.add_argument("places", nargs="+", type=Path, help="records, run directories, folders")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table into this page")
    parser.add_argument("--collect", type=Path, metavar="DIR", help="copy the records there")
    arguments = parser.parse_args(argv)
    records = read_records(arguments.places)
    if not records:
        raise HadError(f"{', '.join(map(str, arguments.places))}: no records there")
    if arguments.collect:
        collect(arguments.places, arguments.collect)
    text = markdown(records, f"had results {' '.join(map(str, arguments.places))}")
    if arguments.write:
        write_into(arguments.write, text)
    else:
        _print(records)
    return 0


def collect(places: Sequence[Path], directory: Path) -> None:
    """Copy the records of run directories into one folder, under names that tell them apart."""
    directory.mkdir(parents=True, exist_ok=True)
    for place in places:
        file = place / "record.json"
        (record,) = read_records([place])
        shutil.copyfile(file, directory / record_name(record))


def markdown(records: Sequence[dict[str, Any]], command: str) -> str:
    """The results as Markdown: all rows, the mean drops, where they were measured, the command."""
    headers, rows = results_rows(records)
    drops = mean_drops(records)
    tasks = len({record["task"] for record in records})
    means = [
        f"| {tasks} tasks | {model} | {recipe} | {n} | | | **mean** | **{drop:.2f}** |"
        for (model, recipe, n), drop in sorted(drops.items())
    ]
    devices = sorted({str(record["device"]) for record in records})
    return "\n".join(
        [
            f"| {' | '.join(headers)} |",
            "|" + "---|" * len(headers),
            *(f"| {' | '.join(row)} |" for row in rows),
            *means,
            "",
            f"Scores in points of 100, drop = teacher - student; {', '.join(devices)}. "
            f"Made by `{command} --write README.md`.",
        ]
    )


def write_into(page: Path, text: str) -> None:
    """Replace what stands between the markers of a page.

    Raises:
        HadError: the page cannot be read or has no markers.
    """
    try:
        before, _, rest = page.read_text().partition(BEGIN)
    except OSError as error:
        raise HadError(f"{page}: cannot be read ({error})") from error
    _, found, after = rest.partition(END)
    if not found:
        raise HadError(f"{page}: has no lines {BEGIN} and {END} to write between")
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def _print(records: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    from had.results.tables import show

    headers, rows = results_rows(records)
    table = Table(*headers)
    for row in rows:
        table.add_row(*row)
    show(table)
