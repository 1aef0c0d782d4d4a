"""The runs of a report: records with the directories they lie in, grouped by what was run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from had.errors import HadError
from had.results.records import RECORD, Record, read_record, record_files
from had.results.report.curves import Curves, read_curves
from had.results.statistics import Row, rows_of
from had.results.views import keys, label

CONFIG = "config.yaml"


@dataclass(frozen=True, eq=False)
class Run:
    """One record, and the run directory around it if there is one.

    Attributes:
        record: of the run.
        directory: where its configuration, logs and student lie; None for a record alone.
    """

    record: Record
    directory: Path | None

    @classmethod
    def read(cls, file: Path) -> Run:
        """Raises HadError: the file is no record."""
        whole = file.name == RECORD and (file.parent / CONFIG).is_file()
        return cls(read_record(file), file.parent if whole else None)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration; empty for a record alone.

        Raises:
            HadError: it cannot be read.
        """
        if self.directory is None:
            return {}
        file = self.directory / CONFIG
        try:
            content = yaml.safe_load(file.read_text())
        except (OSError, yaml.YAMLError) as error:
            raise HadError(f"{file}: not a readable configuration ({error})") from error
        return content if isinstance(content, dict) else {}

    @cached_property
    def curves(self) -> Curves:
        """What its CSV logs hold."""
        return read_curves(self.directory) if self.directory is not None else {}


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed.

    Attributes:
        name: what tells the group from the others of its report, e.g. "had, N = 8".
        task: name of the task.
        row: its row in tables, which may hold other tasks as well.
        runs: by seed.
    """

    name: str
    task: str
    row: Row
    runs: tuple[Run, ...]


def slug(name: str) -> str:
    """A name as part of a file name."""
    text = "".join(c if c.isalnum() or c == "." else "-" for c in name)
    return "-".join(part for part in text.split("-") if part)


def read_runs(places: Iterable[Path]) -> list[Run]:
    """All runs among run directories, records and folders of either.

    Raises:
        HadError: a place does not exist, holds no record, or a file is none.
    """
    runs = []
    for place in places:
        files = record_files(place)
        if not files:
            raise HadError(f"{place}: no records there; give run directories or their records")
        runs += [Run.read(file) for file in files]
    return runs


def groups_of(runs: Sequence[Run]) -> list[Group]:
    """Runs by task and row, in the order of tables."""
    of_record = {id(run.record): run for run in runs}
    rows = rows_of(run.record for run in runs)
    several_tasks = len({run.record["task"] for run in runs}) > 1
    groups = []
    for row in rows:
        for task in row.cells:
            records = [record for record in row.records if record["task"] == task]
            name = f"{task}, {row_name(row, rows)}" if several_tasks else row_name(row, rows)
            members = sorted((of_record[id(r)] for r in records), key=lambda r: r.record["seed"])
            groups.append(Group(name, task, row, tuple(members)))
    return sorted(groups, key=lambda group: group.task)  # stable: rows stay in order


def row_name(row: Row, rows: Sequence[Row]) -> str:
    """What tells a row from others: model where there are several, recipe, N."""
    several = len({each.model for each in rows}) > 1
    parts = [row.model] * several + [label(row, rows), f"N = {keys(row.n)}"]
    return ", ".join(parts)
