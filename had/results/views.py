"""Two views of records: a row for every task and recipe, or a row for every recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from had.results.measures import POINTS, Measure
from had.results.records import Record
from had.results.statistics import Cell, Estimate, Row, Teachers, rows_of, teachers

Rows = tuple[list[str], list[list[str]]]

_ITEM = re.compile(r"(?<=\.)(\d+)(?=\.[^=]*=)")  # a number in a key, as that of a stage


def long_rows(records: Sequence[Record]) -> Rows:
    """Headers and cells, a row for every task, recipe and N: mean and deviation over seeds.

    The last column, if all records have it, says how often student and teacher agree.
    """
    rows = rows_of(records)
    headers = ["task", "model", "recipe", "N", "seeds", "teacher", "student", _heading(rows)]
    cells = [
        [task, row.model, label(row, rows), keys(row.n), str(cell.gap.count)]
        + [estimate(row.measure, each) for each in (cell.teacher, cell.student, cell.gap)]
        + ([] if cell.agreement is None else [estimate(POINTS, cell.agreement)])
        for row in rows
        for task, cell in row.cells.items()
    ]
    if all(len(row) > len(headers) for row in cells):
        headers.append("agreement")
    cells = [row[: len(headers)] for row in cells]
    return headers, sorted(cells, key=lambda cell: cell[0])  # stable: recipes stay in order


def wide_rows(records: Sequence[Record]) -> Rows:
    """Headers and cells, a row for every recipe and N: student (gap) by task, and the mean gap.

    Every model's teacher comes first, then its students.
    """
    rows = rows_of(records)
    tasks = sorted({task for row in rows for task in row.cells})
    headers = ["model", "recipe", "N", "seeds", *tasks, f"mean {_heading(rows)}", "worst task"]
    cells = []
    for measure, model in dict.fromkeys((row.measure, row.model) for row in rows):
        own = [row for row in rows if (row.measure, row.model) == (measure, model)]
        cells.append(_teacher_cells(model, tasks, own))
        cells += [_student_cells(row, rows, tasks) for row in own]
    return headers, cells


def label(row: Row, rows: Sequence[Row]) -> str:
    """The recipe; with its schedule where it was trained by several, and with what else differs."""
    schedules = {r.schedule for r in rows if (r.model, r.recipe) == (row.model, row.recipe)}
    common = common_overrides(rows)
    further = [text for text in row.overrides if text not in common]
    parts = [f"schedule={row.schedule}"] * (len(schedules) > 1) + together(further)
    return row.recipe + (f" ({', '.join(parts)})" if parts else "")


def common_overrides(rows: Sequence[Row]) -> set[str]:
    """Further settings that all rows share, which therefore tell none of them apart."""
    return set.intersection(*(set(row.overrides) for row in rows))


def together(settings: Iterable[str]) -> list[str]:
    """Settings, those of several items of a list in one: `schedule.stages.{0,1}.share=0.5`."""
    items: dict[tuple[str, str], list[str]] = {}
    for text in settings:
        before, number, after = (
            _ITEM.split(text, maxsplit=1) if _ITEM.search(text) else (text, "", "")
        )
        items.setdefault((before, after), []).append(number)
    return [before + _braced(numbers) + after for (before, after), numbers in items.items()]


def _braced(numbers: Sequence[str]) -> str:
    return numbers[0] if len(numbers) == 1 else "{" + ",".join(numbers) + "}"


def keys(n: int | float) -> str:
    """N; a share of the keys as such: "all", "25 %", "1/64"."""
    if isinstance(n, int):
        return str(n)
    if n == 1:
        return "all"
    percent = f"{100 * n:g}"
    is_long = len(percent.partition(".")[2]) > 1
    return f"1/{round(1 / n)}" if is_long and (1 / n).is_integer() else f"{percent} %"


def estimate(measure: Measure, value: Estimate) -> str:
    """ "71.00 ± 1.41": mean and standard deviation over seeds."""
    return measure.text(value.mean, value.deviation)


def both(measure: Measure, cell: Cell) -> str:
    """ "68.50 (2.50 ± 2.12)": the student, and in brackets its gap."""
    return f"{measure.text(cell.student.mean)} ({estimate(measure, cell.gap)})"


def _heading(rows: Sequence[Row]) -> str:
    return " or ".join(dict.fromkeys(row.measure.heading for row in rows))


def _teacher_cells(model: str, tasks: Sequence[str], rows: Sequence[Row]) -> list[str]:
    found, measure = teachers(rows), rows[0].measure
    by_task = [_teacher(measure, found.get((model, task))) for task in tasks]
    return [model, "teacher", "", "", *by_task, "", ""]


def _teacher(measure: Measure, found: Teachers | None) -> str:
    """Mean and deviation over seeds; the range where settings have teachers of their own."""
    if found is None:
        return ""
    if found.depend_on_settings:
        return " to ".join(map(measure.text, found.range))
    return estimate(measure, Estimate.of(found.scores))


def _student_cells(row: Row, rows: Sequence[Row], tasks: Sequence[str]) -> list[str]:
    text = row.measure.text
    by_task = [both(row.measure, row.cells[task]) if task in row.cells else "" for task in tasks]
    mean_gap = text(row.gap, row.error)
    if len(row.cells) < len(tasks):
        mean_gap += f" ({len(row.cells)} of {len(tasks)} tasks)"
    task, gap = row.worst
    return [
        *(row.model, label(row, rows), keys(row.n), row.seeds),
        *(*by_task, mean_gap, f"{task} {text(gap)}"),
    ]
