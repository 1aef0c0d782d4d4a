"""`had compare`: what differs between two runs, in settings and in results."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from had.errors import HadError
from had.results import formats
from had.results.comparison import ABSENT, Comparison, Difference, compare, text_of
from had.results.report.runs import Run, read_runs
from had.results.tables import grid, show


@dataclass(frozen=True)
class Answer:
    """What is shown: two runs and how they differ."""

    first: str
    second: str
    comparison: Comparison


def main(argv: Sequence[str]) -> int:
    """`had compare A B`; returns the exit status.

    Raises:
        HadError: a place does not hold exactly one record.
    """
    parser = argparse.ArgumentParser(prog="had compare", description=__doc__)
    parser.add_argument("first", type=Path, metavar="A", help="a run directory or a record")
    parser.add_argument("second", type=Path, metavar="B", help="another one")
    parser.add_argument("--format", choices=list(_PRINTERS), default="table")
    arguments = parser.parse_args(argv)
    first, second = (_run(place) for place in (arguments.first, arguments.second))
    both = (first.config, second.config) if first.config and second.config else None
    comparison = compare(first.record, second.record, both)
    answer = Answer(str(arguments.first), str(arguments.second), comparison)
    _PRINTERS[arguments.format](answer)
    return 0


def _run(place: Path) -> Run:
    runs = read_runs([place])
    if len(runs) > 1:
        raise HadError(f"{place}: {len(runs)} records there; give one run directory or record")
    return runs[0]


def _tables(answer: Answer) -> list[formats.Rows]:
    """What is compared, settings, environment and results; without those that would be empty."""
    comparison = answer.comparison
    tables: list[formats.Rows] = [
        (["", "run"], [["A", answer.first], ["B", answer.second]]),
        (["setting", "A", "B"], [_values(each) for each in comparison.settings]),
        (["environment", "A", "B"], [_values(each) for each in comparison.environment]),
        (
            ["result", "A", "B", "B - A"],
            [[*_numbers(each), _change(each)] for each in comparison.results if _matters(each)],
        ),
    ]
    return [table for table in tables if table[1]]


def _matters(each: Difference) -> bool:
    """Costs are many, and equal ones tell nothing; JSON has them all."""
    return not each.key.startswith("hw/") or each.change != 0


def _values(each: Difference) -> list[str]:
    return [each.key, text_of(each.first), text_of(each.second)]


def _numbers(each: Difference) -> list[str]:
    return [each.key, *("-" if v is ABSENT else f"{v:.6g}" for v in (each.first, each.second))]


def _change(each: Difference) -> str:
    return "" if each.change is None else f"{each.change:+.4g}"


def _as_json(answer: Answer) -> None:
    comparison = answer.comparison
    content = {
        "first": answer.first,
        "second": answer.second,
        "settings": [_plain(each) for each in comparison.settings],
        "environment": [_plain(each) for each in comparison.environment],
        "results": [_plain(each) | _difference(each) for each in comparison.results],
    }
    sys.stdout.write(json.dumps(content, indent=2, default=str) + "\n")


def _plain(each: Difference) -> dict[str, Any]:
    """A side that has no such key is left out: null is a value."""
    sides = {"first": each.first, "second": each.second}
    return {"key": each.key} | {name: v for name, v in sides.items() if v is not ABSENT}


def _difference(each: Difference) -> dict[str, float]:
    return {} if each.change is None else {"difference": each.change}


_PRINTERS: dict[str, Callable[[Answer], None]] = {
    "table": lambda answer: show(*(grid(*rows) for rows in _tables(answer))),
    "markdown": lambda answer: _write("\n\n".join(map(formats.markdown, _tables(answer)))),
    "json": _as_json,
}


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
