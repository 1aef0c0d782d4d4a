"""Two views of records: a row for every task and recipe, or a row for every recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from had.results.records import Record
from had.results.statistics import Estimate, Row, rows_of, teachers

Rows = tuple[list[str], list[list[str]]]


def long_rows(records: Sequence[Record]) -> Rows:
    """Headers and cells, a row for every task, recipe and N: mean and deviation over seeds."""
    headers = ["task", "model", "recipe", "N", "seeds", "teacher", "student", "drop"]
    rows = rows_of(records)
    cells = [
        [task, row.model, label(row, rows), keys(row.n), str(cell.drop.count)]
        + [points(each) for each in (cell.teacher, cell.student, cell.drop)]
        for row in rows
        for task, cell in row.cells.items()
    ]
    return headers, sorted(cells, key=lambda cell: cell[0])  # stable: recipes stay in order


def wide_rows(records: Sequence[Record]) -> Rows:
    """Headers and cells, a row for every recipe and N: student (drop) by task, and the mean drop.

    Every model's teacher comes first, then its students.
    """
    rows = rows_of(records)
    tasks = sorted({task for row in rows for task in row.cells})
    headers = ["model", "recipe", "N", "seeds", *tasks, "mean drop", "worst task"]
    cells = []
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        cells.append(_teacher_cells(model, tasks, own))
        cells += [_student_cells(row, rows, tasks) for row in own]
    return headers, cells


VIEWS: dict[str, Callable[[Sequence[Record]], Rows]] = {"task": long_rows, "recipe": wide_rows}


def label(row: Row, rows: Sequence[Row]) -> str:
    """The recipe; with its schedule where it was trained by several, and with what else differs."""
    schedules = {r.schedule for r in rows if (r.model, r.recipe) == (row.model, row.recipe)}
    common = common_overrides(rows)
    further = [text for text in row.overrides if text not in common]
    parts = [f"schedule={row.schedule}"] * (len(schedules) > 1) + further
    return row.recipe + (f" ({', '.join(parts)})" if parts else "")


def common_overrides(rows: Sequence[Row]) -> set[str]:
    """Further settings that all rows share, which therefore tell none of them apart."""
    return set.intersection(*(set(row.overrides) for row in rows))


def keys(n: int | float) -> str:
    """N; a share of the keys as such: "all", "25 %"."""
    if isinstance(n, int):
        return str(n)
    return "all" if n == 1 else f"{100 * n:g} %"


def points(estimate: Estimate) -> str:
    """ "71.00 ± 1.41": mean and standard deviation over seeds."""
    return with_spread(estimate.mean, estimate.deviation)


def with_spread(value: float, spread: float | None) -> str:
    return f"{value:.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def _teacher_cells(model: str, tasks: Sequence[str], rows: Sequence[Row]) -> list[str]:
    scores = teachers(record for row in rows for record in row.records)
    by_task = [points(scores[model, task]) if (model, task) in scores else "" for task in tasks]
    return [model, "teacher", "", "", *by_task, "", ""]


def _student_cells(row: Row, rows: Sequence[Row], tasks: Sequence[str]) -> list[str]:
    by_task = [_both(row, task) if task in row.cells else "" for task in tasks]
    mean_drop = with_spread(row.drop, row.error)
    if len(row.cells) < len(tasks):
        mean_drop += f" ({len(row.cells)} of {len(tasks)} tasks)"
    task, drop = row.worst
    return [
        *(row.model, label(row, rows), keys(row.n), row.seeds),
        *(*by_task, mean_drop, f"{task} {drop:.2f}"),
    ]


def _both(row: Row, task: str) -> str:
    cell = row.cells[task]
    return f"{cell.student.mean:.2f} ({points(cell.drop)})"


_CAPTIONS = {
    "task": "Scores in points of 100, mean ± standard deviation over seeds; "
    "drop = teacher - student of the same run.",
    "recipe": "Student's score in points of 100 and, in brackets, its drop below the teacher of "
    "the same run, mean ± standard deviation over seeds. Mean drop: over tasks, ± its standard "
    "error from the seeds.",
}


def caption(view: str, records: Sequence[Record]) -> str:
    """What a view shows, with what settings, and where it was measured."""
    devices = sorted({str(record["device"]) for record in records})
    common = sorted(common_overrides(rows_of(records)))
    settings = f" All with {', '.join(f'`{text}`' for text in common)}." if common else ""
    return f"{_CAPTIONS[view]}{settings} {', '.join(devices)}."
