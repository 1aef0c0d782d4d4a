"""Means and spreads of scores: seeds first, then tasks, and teacher and student always paired."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import mean, stdev

from had.results.measures import MEASURES, Measure, measure_of
from had.results.records import AXES, Record, with_settings

AGREEMENT = "student/agreement"  # of a record


@dataclass(frozen=True)
class Estimate:
    """A mean and how sure it is.

    Attributes:
        mean: of the values.
        deviation: sample standard deviation over seeds; None with one seed.
        count: seeds.
    """

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        return cls(mean(values), stdev(values) if len(values) > 1 else None, len(values))

    @property
    def error(self) -> float | None:
        """Standard error of the mean over seeds; None with one seed."""
        return None if self.deviation is None else self.deviation / sqrt(self.count)


@dataclass(frozen=True)
class Cell:
    """What one task says about one recipe: scores over seeds.

    Attributes:
        teacher: its score.
        student: its score.
        gap: how far the student is behind the teacher of the same run, so of the same seed: a drop
            or a ratio, as the task's measure has it.
        agreement: percent of the examples that both answer alike; None where it was not recorded.
    """

    teacher: Estimate
    student: Estimate
    gap: Estimate
    agreement: Estimate | None

    @classmethod
    def of(cls, records: Sequence[Record]) -> Cell:
        """Of records with the same task."""
        keys = ("score/teacher", "score/student", measure_of(records[0]).key)
        scores = (Estimate.of([each[key] for each in records]) for key in keys)
        known = [100 * each[AGREEMENT] for each in records if AGREEMENT in each]
        return cls(*scores, Estimate.of(known) if len(known) == len(records) else None)


@dataclass(frozen=True)
class Row:
    """One recipe at one N over all tasks of one measure that have records of it.

    Attributes:
        measure: what its scores mean.
        model: label of the model.
        recipe: the binarization.
        schedule: how it was trained.
        n: keys that a query keeps.
        overrides: further settings.
        cells: by task.
        records: all of them.
    """

    measure: Measure
    model: str
    recipe: str
    schedule: str
    n: int | float
    overrides: tuple[str, ...]
    cells: dict[str, Cell]
    records: tuple[Record, ...]

    @property
    def gap(self) -> float:
        """Mean over tasks of the mean gap over seeds: every task counts once."""
        return mean(cell.gap.mean for cell in self.cells.values())

    @property
    def error(self) -> float | None:
        """Standard error of `gap`, from the errors of the tasks, which are independent.

        None if a task has one seed. It says how the figure would vary with other seeds, not how it
        would with other development sets.
        """
        errors = [cell.gap.error for cell in self.cells.values()]
        known = [error for error in errors if error is not None]
        if len(known) < len(errors):
            return None
        return sqrt(sum(error**2 for error in known)) / len(known)

    @property
    def worst(self) -> tuple[str, float]:
        """The task with the largest gap, and that gap."""
        return max(((t, c.gap.mean) for t, c in self.cells.items()), key=lambda pair: pair[1])

    @property
    def seeds(self) -> str:
        """The number of seeds, "3-5" where tasks differ."""
        numbers = sorted({cell.gap.count for cell in self.cells.values()})
        return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


def rows_of(records: Iterable[Record]) -> list[Row]:
    """Records as rows, by measure, model, recipe, schedule, further settings and N."""
    by_row: dict[tuple[Measure, tuple[object, ...]], dict[str, list[Record]]] = {}
    for record, settings in with_settings(list(records)):
        key = tuple(record[axis] for axis in AXES if axis != "task")
        row = by_row.setdefault((measure_of(record), (*key, settings)), {})
        row.setdefault(record["task"], []).append(record)
    return sorted((_row(*key, by_task) for key, by_task in by_row.items()), key=_place)


def _place(row: Row) -> tuple[object, ...]:
    settings = [[_natural(part) for part in re.split(r"(\d+)", each)] for each in row.overrides]
    named = (row.model, row.recipe, row.schedule, settings)
    return (MEASURES.index(row.measure), *named, float(row.n))


def _natural(part: str) -> int | str:
    """Digits as a number, so that a context of 512 comes before one of 1024."""
    return int(part) if part.isdecimal() else part


def _row(measure: Measure, key: tuple[object, ...], by_task: dict[str, list[Record]]) -> Row:
    model, recipe, schedule, n, overrides = key
    return Row(
        measure=measure,
        model=str(model),
        recipe=str(recipe),
        schedule=str(schedule),
        n=n,  # type: ignore[arg-type]
        overrides=overrides,  # type: ignore[arg-type]
        cells={task: Cell.of(by_task[task]) for task in sorted(by_task)},
        records=tuple(record for group in by_task.values() for record in group),
    )


@dataclass(frozen=True)
class Teachers:
    """The teachers of one model on one task.

    Attributes:
        by_seed: their scores by seed and by the settings that tell rows apart. One seed and setting
            has several where its teacher was trained anew, on another machine for instance.
    """

    by_seed: dict[object, dict[tuple[str, ...], set[float]]] = field(default_factory=dict)

    @property
    def depend_on_settings(self) -> bool:
        """Whether settings that differ have different teachers, as different contexts have."""
        several = [list(found.values()) for found in self.by_seed.values() if len(found) > 1]
        return any(not set.intersection(*scores) for scores in several)

    @property
    def scores(self) -> list[float]:
        """One a seed, however many students it has."""
        return [mean(set.union(*found.values())) for found in self.by_seed.values()]

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest of all scores."""
        every = [s for found in self.by_seed.values() for scores in found.values() for s in scores]
        return min(every), max(every)


def teachers(rows: Iterable[Row]) -> dict[tuple[str, str], Teachers]:
    """The teachers of all rows by model and task."""
    found: dict[tuple[str, str], Teachers] = {}
    for row in rows:
        for record in row.records:
            own = found.setdefault((row.model, record["task"]), Teachers())
            scores = own.by_seed.setdefault(record["seed"], {})
            scores.setdefault(row.overrides, set()).add(record["score/teacher"])
    return found
