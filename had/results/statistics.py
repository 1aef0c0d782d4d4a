"""Means and spreads of scores: seeds first, then tasks, and teacher and student always paired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

from had.results.records import Record, group_records

ROLES = ("teacher", "student", "drop")


@dataclass(frozen=True)
class Estimate:
    """A mean and how sure it is.

    Attributes:
        mean: in points.
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
    """What one task says about one recipe: scores over seeds in points of 100.

    Attributes:
        teacher: its score.
        student: its score.
        drop: teacher minus student of the same run, so of the same teacher and seed.
    """

    teacher: Estimate
    student: Estimate
    drop: Estimate

    @classmethod
    def of(cls, records: Sequence[Record]) -> Cell:
        return cls(*(Estimate.of([each[f"score/{role}"] for each in records]) for role in ROLES))


@dataclass(frozen=True)
class Row:
    """One recipe at one N over all tasks that have records of it.

    Attributes:
        model: label of the model.
        recipe: the binarization.
        schedule: how it was trained.
        n: keys that a query keeps.
        overrides: further settings.
        cells: by task.
        records: all of them.
    """

    model: str
    recipe: str
    schedule: str
    n: int | float
    overrides: tuple[str, ...]
    cells: dict[str, Cell]
    records: tuple[Record, ...]

    @property
    def drop(self) -> float:
        """Mean over tasks of the mean drop over seeds: every task counts once."""
        return mean(cell.drop.mean for cell in self.cells.values())

    @property
    def error(self) -> float | None:
        """Standard error of `drop`, from the errors of the tasks, which are independent.

        None if a task has one seed. It says how the figure would vary with other seeds, not how it
        would with other development sets.
        """
        errors = [cell.drop.error for cell in self.cells.values()]
        known = [error for error in errors if error is not None]
        if len(known) < len(errors):
            return None
        return sqrt(sum(error**2 for error in known)) / len(known)

    @property
    def worst(self) -> tuple[str, float]:
        """The task with the largest drop, and that drop."""
        return max(((t, c.drop.mean) for t, c in self.cells.items()), key=lambda pair: pair[1])

    @property
    def seeds(self) -> str:
        """The number of seeds, "3-5" where tasks differ."""
        numbers = sorted({cell.drop.count for cell in self.cells.values()})
        return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"


def rows_of(records: Iterable[Record]) -> list[Row]:
    """Records as rows, by model, recipe, schedule, further settings and N."""
    by_row: dict[tuple[object, ...], dict[str, list[Record]]] = {}
    for (task, *rest), group in group_records(records).items():
        by_row.setdefault(tuple(rest), {})[task] = group
    rows = [_row(key, by_row[key]) for key in by_row]
    return sorted(rows, key=lambda r: (r.model, r.recipe, r.schedule, r.overrides, float(r.n)))


def _row(key: tuple[object, ...], by_task: dict[str, list[Record]]) -> Row:
    model, recipe, schedule, n, overrides = key
    return Row(
        model=str(model),
        recipe=str(recipe),
        schedule=str(schedule),
        n=n,  # type: ignore[arg-type]
        overrides=overrides,  # type: ignore[arg-type]
        cells={task: Cell.of(by_task[task]) for task in sorted(by_task)},
        records=tuple(record for group in by_task.values() for record in group),
    )


def teachers(records: Iterable[Record]) -> dict[tuple[str, str], Estimate]:
    """Scores of the teachers by model and task; a seed counts once, however many students."""
    scores: dict[tuple[str, str], dict[tuple[object, ...], float]] = {}
    for each in records:
        own = scores.setdefault((each["model"], each["task"]), {})
        own[each["seed"], each["score/teacher"]] = each["score/teacher"]
    return {key: Estimate.of(list(own.values())) for key, own in scores.items()}
